//! Values in messages as the server's own types show them: fields in the order of the type. Pure.
use serde_json::Value;

/// An owner reference.
pub fn owner(owner: &Value) -> String {
    let always: [&str; 4] = ["apiVersion", "kind", "name", "uid"];
    let given = |field: &&&str| !owner[**field].is_null();
    let text = |field: &str| match &owner[field] {
        Value::Null => "\"\"".to_owned(),
        value => value.to_string(),
    };
    let parts = always
        .iter()
        .chain(["controller", "blockOwnerDeletion"].iter().filter(given))
        .map(|field| format!("\"{field}\":{}", text(field)));
    format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
}
