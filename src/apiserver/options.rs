//! The parameters of a write: what is allowed, and the refusals that Kubernetes has for the rest. Pure.
use super::rest::Call;
use super::schema::Cause;
use super::status::ApiError;

/// Longest name of a field manager, in bytes.
const LONGEST_MANAGER: usize = 128;

impl Call {
    /// Checks the parameters of a write. `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    /// Errors: a 422 about that kind.
    pub fn check_options(&self, kind: &str) -> Result<(), ApiError> {
        let mut causes = Vec::new();
        let mut wrong = |reason: &'static str, field: &str, message: String| {
            causes.push(Cause { reason, field: field.to_owned(), message });
        };
        if kind == "PatchOptions" {
            let applies = self.content_type == "application/apply-patch+yaml";
            if applies && self.parameter("fieldManager").is_none() {
                let words = "Required value: is required for apply patch".to_owned();
                wrong("FieldValueRequired", "fieldManager", words);
            }
            if !applies && self.parameter("force").is_some() {
                wrong("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch".to_owned());
            }
        }
        let manager = self.parameter("fieldManager").unwrap_or_default();
        if manager.len() > LONGEST_MANAGER {
            let words = format!("Too long: may not be more than {LONGEST_MANAGER} bytes");
            wrong("FieldValueTooLong", "fieldManager", words);
        }
        if let Some((at, odd)) =
            manager.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' '))
        {
            let shown = serde_json::Value::from(manager);
            let words = format!("Invalid value: {shown}: invalid character U+{:04X} (at position {at})", odd as u32);
            wrong("FieldValueInvalid", "fieldManager", words);
        }
        let modes: Vec<&str> = self.query.iter().filter(|(k, _)| k == "dryRun").map(|(_, v)| v.as_str()).collect();
        if modes.iter().any(|mode| *mode != "All") {
            let words = format!("Unsupported value: {}: supported values: \"All\"", serde_json::json!(modes));
            wrong("FieldValueNotSupported", "dryRun", words);
        }
        if let Some(given) = self.parameter("fieldValidation")
            && !matches!(given, "Ignore" | "Warn" | "Strict")
        {
            let shown = serde_json::Value::from(given);
            let words = format!("Unsupported value: {shown}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"");
            wrong("FieldValueNotSupported", "fieldValidation", words);
        }
        if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(&format!("{kind}.meta.k8s.io"), "", &causes)) }
    }

    /// Whether conflicts are to be taken over: any value but `false` and `0` says so.
    pub fn forces(&self) -> bool {
        self.parameter("force").is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}
