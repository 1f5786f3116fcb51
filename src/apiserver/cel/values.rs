//! JSON as rules see it, by its schema. Pure.
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::core::cel::cel;
use kube::core::cel::cel::functions::time;
use kube::core::cel::cel::objects::{Key, Map};
use serde_json::{Number, Value};

/// Names that an expression cannot say, and so says with underscores around them.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field's name as expressions have it.
pub fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

fn text(text: &str) -> cel::Value {
    cel::Value::String(Arc::new(text.to_owned()))
}

fn number(schema: &Value, number: &Number) -> cel::Value {
    let double = || cel::Value::Float(number.as_f64().unwrap_or(f64::NAN));
    match (schema["type"].as_str(), number.as_i64(), number.as_u64()) {
        (Some("number"), ..) => double(),
        (_, Some(whole), _) => cel::Value::Int(whole),
        (_, None, Some(whole)) => cel::Value::UInt(whole),
        _ => double(),
    }
}

fn formatted(schema: &Value, given: &str) -> cel::Value {
    let given = Arc::new(given.to_owned());
    let read = match schema["format"].as_str() {
        Some("date-time") => time::timestamp(Arc::clone(&given)).ok(),
        Some("date") => time::timestamp(Arc::new(format!("{given}T00:00:00Z"))).ok(),
        Some("duration") => time::duration(Arc::clone(&given)).ok(),
        Some("byte") => STANDARD.decode(given.as_bytes()).ok().map(|bytes| cel::Value::Bytes(Arc::new(bytes))),
        _ => None,
    };
    read.unwrap_or(cel::Value::String(given))
}

/// A value for an expression.
pub fn value(schema: &Value, given: &Value) -> cel::Value {
    match given {
        Value::Null => cel::Value::Null,
        Value::Bool(truth) => cel::Value::Bool(*truth),
        Value::Number(given) => number(schema, given),
        Value::String(given) if schema["format"].is_string() => formatted(schema, given),
        Value::String(given) => text(given),
        Value::Array(items) => {
            cel::Value::List(Arc::new(items.iter().map(|item| value(&schema["items"], item)).collect()))
        }
        Value::Object(fields) => {
            // Keys of maps are data, names of fields are words of the language.
            let is_map = schema["additionalProperties"].is_object() || schema["additionalProperties"] == true;
            let mut made = HashMap::with_capacity(fields.len());
            for (name, field) in fields {
                let inner = match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (inner @ Value::Object(_), _) | (_, inner) => inner,
                };
                let name = if is_map { name.clone() } else { escaped(name) };
                made.insert(Key::String(Arc::new(name)), value(inner, field));
            }
            if schema["x-kubernetes-embedded-resource"] == true {
                let mut fill = |name: &str, empty: cel::Value| {
                    made.entry(Key::String(Arc::new(name.to_owned()))).or_insert(empty);
                };
                fill("apiVersion", text(""));
                fill("kind", text(""));
                fill("metadata", cel::Value::Map(Map { map: Arc::new(HashMap::new()) }));
            }
            cel::Value::Map(Map { map: Arc::new(made) })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_that_an_expression_cannot_say_are_written_out() {
        let written = |name| escaped(name);
        assert_eq!((written("a_b"), written("a-b.c/d")), ("a_b".into(), "a__dash__b__dot__c__slash__d".into()));
        assert_eq!((written("a__b"), written("namespace")), ("a__underscores__b".into(), "__namespace__".into()));
    }

    #[test]
    fn values_are_what_their_schema_says() {
        let one = |schema: Value, given: Value| value(&schema, &given);
        assert_eq!(one(json!({"type": "number"}), json!(1)), cel::Value::Float(1.0));
        assert_eq!(one(json!({"type": "integer"}), json!(1)), cel::Value::Int(1));
        assert!(matches!(
            one(json!({"type": "string", "format": "date"}), json!("2026-01-01")),
            cel::Value::Timestamp(_)
        ));
        assert!(matches!(one(json!({"type": "string", "format": "duration"}), json!("1h")), cel::Value::Duration(_)));
        assert_eq!(
            one(json!({"type": "string", "format": "byte"}), json!("YQ==")),
            cel::Value::Bytes(Arc::new(vec![b'a']))
        );
        assert_eq!(one(json!({"format": "date-time"}), json!("no time")), text("no time"));
    }
}
