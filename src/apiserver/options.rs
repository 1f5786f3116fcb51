//! The query parameters of writes: what is not understood is refused, not passed over. Pure.
use serde_json::{Value, json};

use super::gotext;
use super::rest::Call;
use super::schema::Cause;
use super::status::ApiError;

/// Longest name of a field manager, in bytes.
const MANAGER: usize = 128;

/// Which options a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Options {
    Create,
    Update,
    Patch,
    /// A patch by server-side apply.
    Apply,
    Delete,
}

impl Options {
    fn kind(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions.meta.k8s.io",
            Self::Update => "UpdateOptions.meta.k8s.io",
            Self::Patch | Self::Apply => "PatchOptions.meta.k8s.io",
            Self::Delete => "DeleteOptions.meta.k8s.io",
        }
    }
}

impl Call {
    /// Whether conflicts are to be taken over.
    pub fn forces(&self) -> bool {
        self.query.iter().find(|(key, _)| key == "force").is_some_and(|(_, value)| is_true(value))
    }
}

fn cause(reason: &'static str, field: &str, message: String) -> Cause {
    Cause { reason, field: field.to_owned(), message }
}

/// Whether a parameter that is there means yes: everything but `0` and `false` does.
pub fn is_true(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

/// The parameters of a write; those of deletions may stand in the body instead. Errors: 422 that names each.
pub fn check(options: Options, query: &[(String, String)], body: &Value) -> Result<(), ApiError> {
    let first = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut causes = Vec::new();
    let mut dry_run: Vec<&str> = query.iter().filter(|(key, _)| key == "dryRun").map(|(_, v)| v.as_str()).collect();
    match options {
        Options::Delete => {
            if body.is_null() {
                check_numbers(query, &["gracePeriodSeconds"])?;
            }
            let texts = |field: &str| body[field].as_array().into_iter().flatten().filter_map(Value::as_str);
            let mut policy = first("propagationPolicy");
            let mut orphan = first("orphanDependents").is_some();
            if !body.is_null() {
                (dry_run, policy) = (texts("dryRun").collect(), body["propagationPolicy"].as_str());
                orphan = body["orphanDependents"].is_boolean();
            }
            deletion(policy, orphan, &mut causes);
        }
        Options::Patch if first("force").is_some() => {
            causes.push(cause(
                "FieldValueForbidden",
                "force",
                "Forbidden: may not be specified for non-apply patch".to_owned(),
            ));
        }
        Options::Apply if first("fieldManager").unwrap_or_default().is_empty() => {
            causes.push(cause(
                "FieldValueRequired",
                "fieldManager",
                "Required value: is required for apply patch".to_owned(),
            ));
        }
        _ => {}
    }
    if options != Options::Delete {
        manager(first("fieldManager").unwrap_or_default(), &mut causes);
    }
    if !dry_run.is_empty() && dry_run != ["All"] {
        let given = json!(dry_run);
        causes.push(cause(
            "FieldValueNotSupported",
            "dryRun",
            format!("Unsupported value: {given}: supported values: \"All\""),
        ));
    }
    if options != Options::Delete
        && let Some(given) = first("fieldValidation").filter(|v| !["", "Ignore", "Strict", "Warn"].contains(v))
    {
        let words =
            format!("Unsupported value: {}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"", json!(given));
        causes.push(cause("FieldValueNotSupported", "fieldValidation", words));
    }
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(options.kind(), "", &causes)) }
}

/// Numbers among the parameters. Errors: 400 in the words of the parser that a real server has.
pub fn check_numbers(query: &[(String, String)], names: &[&str]) -> Result<(), ApiError> {
    for name in names {
        let Some((_, text)) = query.iter().find(|(key, _)| key == name) else { continue };
        if text.parse::<i64>().is_err() {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let why = if number { "value out of range" } else { "invalid syntax" };
            return Err(ApiError::bad_request(format!("strconv.ParseInt: parsing {}: {why}", json!(text))));
        }
    }
    Ok(())
}

fn deletion(policy: Option<&str>, orphan: bool, causes: &mut Vec<Cause>) {
    let Some(policy) = policy else { return };
    let given = json!(policy);
    if orphan {
        let words = format!("Invalid value: {given}: orphanDependents and deletionPropagation cannot be both set");
        causes.push(cause("FieldValueInvalid", "propagationPolicy", words));
    }
    if !["Foreground", "Background", "Orphan"].contains(&policy) {
        let known = r#""Foreground", "Background", "Orphan", "nil""#;
        let words = format!("Unsupported value: {given}: supported values: {known}");
        causes.push(cause("FieldValueNotSupported", "propagationPolicy", words));
    }
}

fn manager(name: &str, causes: &mut Vec<Cause>) {
    if name.len() > MANAGER {
        let words = format!("Too long: may not be more than {MANAGER} bytes");
        causes.push(cause("FieldValueTooLong", "fieldManager", words));
    }
    if let Some((at, bad)) = name.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        let code = u32::from(bad);
        let words =
            format!("Invalid value: {}: invalid character U+{code:04X} (at position {at})", gotext::quoted(name));
        causes.push(cause("FieldValueInvalid", "fieldManager", words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: Options, query: &[(&str, &str)], body: &Value) -> String {
        let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        check(options, &query, body).map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        assert_eq!(
            refused(Options::Create, &[("dryRun", "x"), ("fieldValidation", "y")], &Value::Null),
            "CreateOptions.meta.k8s.io \"\" is invalid: [dryRun: Unsupported value: [\"x\"]: supported values: \"All\", \
             fieldValidation: Unsupported value: \"y\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"]"
        );
        assert_eq!(refused(Options::Create, &[("dryRun", "All"), ("force", "true")], &Value::Null), "");
        assert!(refused(Options::Patch, &[("force", "x")], &Value::Null).contains("non-apply patch"));
        assert_eq!(refused(Options::Apply, &[("fieldManager", "m"), ("force", "1")], &Value::Null), "");
        assert_eq!(refused(Options::Delete, &[("dryRun", "x")], &json!({"dryRun": ["All"]})), "");
    }

    #[test]
    fn numbers_are_numbers() {
        let query = |text: &str| [("limit".to_owned(), text.to_owned())];
        assert!(check_numbers(&query("-1"), &["limit"]).is_ok() && check_numbers(&query("x"), &["other"]).is_ok());
        let refused = |text| check_numbers(&query(text), &["limit"]).unwrap_err().message;
        assert_eq!(refused(""), "strconv.ParseInt: parsing \"\": invalid syntax");
        assert_eq!(
            refused("99999999999999999999"),
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
        );
    }

    #[test]
    fn everything_but_zero_and_false_is_true() {
        assert!(["true", "1", "", "yes", "x"].into_iter().all(is_true));
        assert!(!["false", "0", "FALSE"].into_iter().any(is_true));
    }
}
