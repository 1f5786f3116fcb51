//! The words of refused fields, as Kubernetes builds them. Pure.
use serde_json::Value;

use super::schema::Cause;

fn cause(reason: &'static str, field: &str, message: String) -> Cause {
    Cause { reason, field: field.to_owned(), message }
}

fn with(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

/// `words` may be empty.
pub fn required(field: &str, words: &str) -> Cause {
    cause("FieldValueRequired", field, format!("Required value{}", with(words)))
}
pub fn invalid(field: &str, value: &Value, words: &str) -> Cause {
    cause("FieldValueInvalid", field, format!("Invalid value: {value}: {words}"))
}
pub fn immutable(field: &str, value: &Value) -> Cause {
    invalid(field, value, "field is immutable")
}
pub fn forbidden(field: &str, words: &str) -> Cause {
    cause("FieldValueForbidden", field, format!("Forbidden: {words}"))
}
pub fn duplicate(field: &str, value: &Value) -> Cause {
    cause("FieldValueDuplicate", field, format!("Duplicate value: {value}"))
}
pub fn too_long(field: &str, bytes: usize) -> Cause {
    cause("FieldValueTooLong", field, format!("Too long: may not be more than {bytes} bytes"))
}
/// `known` in the order in which they are to be listed.
pub fn unsupported(field: &str, value: &Value, known: &[&str]) -> Cause {
    let known: Vec<String> = known.iter().map(|word| format!("\"{word}\"")).collect();
    let message = format!("Unsupported value: {value}: supported values: {}", known.join(", "));
    cause("FieldValueNotSupported", field, message)
}
