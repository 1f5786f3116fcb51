//! CEL rules in the schemas of definitions: whether each can be used.
use serde_json::{Map, Value, json};

use super::cel::{self, BOOL, Kind, Program, TEXT, TOO_DEAR};
use super::schema::Cause;

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Most rules of one schema, and most text of them together, in bytes.
const MOST_RULES: usize = 1_000;
const MOST_TEXT: usize = 128 << 10;

/// Adds what is wrong with the rules of a schema and of all within it.
pub fn check(schema: &Value, at: &str, found: &mut Vec<Cause>) {
    let (rules, text) = amount(schema);
    if rules == 0 {
        return;
    }
    if rules > MOST_RULES || text > MOST_TEXT {
        let words = format!(
            "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema: \
             {rules} rules of {text} bytes, at most {MOST_RULES} of {MOST_TEXT} bytes are taken"
        );
        return found.push(Cause { reason: "FieldValueForbidden", field: at.to_owned(), message: words });
    }
    let (schema, place) = (schema.clone(), at.to_owned());
    let checked = cel::run(move || {
        let mut found = Vec::new();
        check_place(&schema, &place, &mut found);
        found
    });
    match checked {
        Ok(checked) => found.extend(checked),
        Err(error) => {
            let words = format!("Internal error: the rules could not be read: {error}");
            found.push(Cause { reason: "InternalError", field: at.to_owned(), message: words });
        }
    }
}

/// How many rules a schema has, and how much text they are.
fn amount(schema: &Value) -> (usize, usize) {
    let inner = schema["properties"].as_object().into_iter().flat_map(Map::values);
    let inner = inner.chain(["items", "additionalProperties"].iter().map(|name| &schema[*name]));
    let (mut count, mut bytes) = (0, 0);
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let length = |name: &str| rule[name].as_str().unwrap_or_default().len();
        count += 1;
        bytes += length("rule") + length("messageExpression");
    }
    for (more, text) in inner.filter(|inner| inner.is_object()).map(amount) {
        count += more;
        bytes += text;
    }
    (count, bytes)
}

fn check_place(schema: &Value, at: &str, found: &mut Vec<Cause>) {
    for (index, rule) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
        check_rule(schema, rule, &format!("{at}.x-kubernetes-validations[{index}]"), found);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        check_place(inner, &format!("{at}.properties[{name}]"), found);
    }
    for name in ["items", "additionalProperties"] {
        if schema[name].is_object() {
            check_place(&schema[name], &format!("{at}.{name}"), found);
        }
    }
}

fn check_rule(schema: &Value, rule: &Value, at: &str, found: &mut Vec<Cause>) {
    let text = |name: &str| rule[name].as_str().unwrap_or_default();
    let mut add = |reason: &'static str, field: &str, message: String| {
        found.push(Cause { reason, field: format!("{at}.{field}"), message });
    };
    if text("rule").trim().is_empty() {
        return add("FieldValueRequired", "rule", "Required value: rule is not specified".to_owned());
    }
    if text("rule").trim().contains('\n') && text("message").is_empty() {
        let words = "Required value: message must be specified if rule contains line breaks";
        add("FieldValueRequired", "message", words.to_owned());
    }
    if !rule["reason"].is_null() && !REASONS.contains(&text("reason")) {
        let known = REASONS.map(|reason| format!("\"{reason}\"")).join(", ");
        let words = format!("Unsupported value: {}: supported values: {known}", rule["reason"]);
        add("FieldValueNotSupported", "reason", words);
    }
    if !text("fieldPath").is_empty() && !is_path(schema, text("fieldPath")) {
        add("FieldValueInvalid", "fieldPath", format!("Invalid value: {}: must be a valid path", rule["fieldPath"]));
    }
    let quoted = as_go_shows(rule);
    if let Some(words) = cannot_compile(text("rule"), schema, &BOOL) {
        if words == TOO_DEAR {
            return add("FieldValueForbidden", "rule", format!("Forbidden: {words}"));
        }
        add("FieldValueInvalid", "rule", format!("Invalid value: {quoted}: {words}"));
    }
    if let Some(words) =
        Some(text("messageExpression")).filter(|e| !e.is_empty()).and_then(|e| cannot_compile(e, schema, &TEXT))
    {
        let words = format!("Invalid value: {quoted}: messageExpression {words}");
        add("FieldValueInvalid", "messageExpression", words);
    }
    if rule["optionalOldSelf"] == true && !text("rule").contains("oldSelf") {
        let words = "Invalid value: true: may not be set if oldSelf is not used in rule";
        add("FieldValueInvalid", "optionalOldSelf", words.to_owned());
    }
}

/// A rule as the server's own type shows it.
fn as_go_shows(rule: &Value) -> String {
    let text = |name: &str| json!(rule[name].as_str().unwrap_or_default());
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        rule["reason"],
        text("fieldPath"),
        rule["optionalOldSelf"]
    )
}

/// Whether a path like `.a.b` or `['a']` leads to a field.
fn is_path(schema: &Value, path: &str) -> bool {
    let path = path.replace("['", ".").replace("']", "");
    let Some(path) = path.strip_prefix('.') else { return false };
    let mut at = schema;
    for name in path.split('.') {
        at = match (&at["properties"][name], &at["additionalProperties"]) {
            (inner @ Value::Object(_), _) | (_, inner @ Value::Object(_)) => inner,
            _ => return false,
        };
    }
    true
}

/// Why an expression cannot be used; `None` where it can.
fn cannot_compile(expression: &str, schema: &Value, wanted: &Kind<'_>) -> Option<String> {
    let failed = |words: String| match words.starts_with("ERROR") {
        true => format!("compilation failed: {words}"),
        false => words,
    };
    if let Err(words) = Program::compile_new(expression, &Kind::of(schema), wanted) {
        return Some(failed(words));
    }
    let (at, name) = unknown_field(expression, schema)?;
    Some(failed(cel::told(expression, at, &format!("undefined field '{name}'"))))
}

/// The first `self.a.b` that leads to no field, with where its dot stands.
fn unknown_field<'a>(expression: &'a str, schema: &Value) -> Option<(usize, &'a str)> {
    let bytes = expression.as_bytes();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let (mut index, mut quote) = (0, None);
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (Some(_), b'\\') => index += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b's')
                if bytes[index..].starts_with(b"self.")
                    && (index == 0 || !is_name(bytes[index - 1]) && bytes[index - 1] != b'.') =>
            {
                if let Some(found) = unknown_in_chain(expression, index + 4, schema) {
                    return Some(found);
                }
                index += 4;
            }
            _ => {}
        }
        index += 1;
    }
    None
}

/// Follows `.a.b` from a dot on.
fn unknown_in_chain<'a>(expression: &'a str, mut dot: usize, schema: &Value) -> Option<(usize, &'a str)> {
    let mut at = schema;
    loop {
        let rest = expression.get(dot + 1..)?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        // Functions, escaped names and what has no named fields are not followed.
        if name.is_empty() || after.trim_start().starts_with('(') || name.contains("__") || at["type"] != "object" {
            return None;
        }
        let fields = at["properties"].as_object()?;
        at = match fields.get(name) {
            Some(inner) => inner,
            None if at["x-kubernetes-embedded-resource"] == true => return None,
            None if ["apiVersion", "kind", "metadata"].contains(&name) => return None,
            None => return Some((dot, name)),
        };
        if !after.starts_with('.') {
            return None;
        }
        dot += 1 + end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(rule: Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "m": {"type": "object", "additionalProperties": {"type": "string"}}},
            "x-kubernetes-validations": [rule]});
        let mut found = Vec::new();
        check(&schema, "s", &mut found);
        found.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn rules_that_cannot_work_are_found() {
        for good in
            ["self.a == 'self.b'", "self.m.x == '1'", "has(self.a) && self.a.startsWith('x')", "oldSelf.a == self.a"]
        {
            assert_eq!(words(json!({"rule": good})), [""; 0], "{good}");
        }
        let found = words(json!({"rule": "self.b == 'x'"})).remove(0);
        assert!(
            found.ends_with("compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b == 'x'\n | ....^"),
            "{found}"
        );
        assert!(words(json!({"rule": "self.("})).remove(0).contains("compilation failed: ERROR"));
        assert_eq!(
            words(json!({"rule": ""})),
            ["s.x-kubernetes-validations[0].rule: Required value: rule is not specified"]
        );
    }

    proptest! {
        #[test]
        fn any_rule_is_taken_or_refused(rule in "[a-c.()\\[\\]!=<>&|?:'\"\\\\0-9 self-]{0,40}") {
            let _ = words(json!({"rule": rule}));
        }
    }
}
