//! Whether an applied configuration fits the type, with the words of Kubernetes' structured merge. Pure.
use std::collections::BTreeSet;

use serde_json::Value;

use super::fieldset::step_words;
use super::gotext;
use super::shape::{Kind, ListKind, Shape};

/// All that does not fit, as one text; `None` where everything does.
pub fn misfits(shape: Shape<'_>, value: &Value) -> Option<String> {
    let mut found = Vec::new();
    check(shape, value, "", &mut found);
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("errors:\n  {}", several.join("\n  "))),
    }
}

fn check(shape: Shape<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut wrong = |words: String| found.push(if path.is_empty() { words } else { format!("{path}: {words}") });
    match (shape.declared(), value) {
        (Some(Kind::Map), Value::Object(_)) | (Some(Kind::List), Value::Array(_)) | (None, _) => {}
        (Some(Kind::Map), value) => return wrong(format!("expected map, got &{{{}}}", gotext::plain(value))),
        (Some(Kind::List), value) => return wrong(format!("expected list, got &{{{}}}", gotext::plain(value))),
        (Some(Kind::Scalar), value) => {
            match (shape.schema.and_then(|schema| schema["type"].as_str()), value) {
                (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) => {}
                (Some("integer" | "number"), Value::Number(_)) => {}
                (Some("string"), value) => {
                    wrong(format!("expected string, got &value.valueUnstructured{{Value:{}}}", gotext::syntax(value)));
                }
                (Some("boolean"), value) => wrong(format!("expected boolean, got &{{{}}}", gotext::plain(value))),
                (Some("integer" | "number"), value) => {
                    wrong(format!("expected numeric (int or float), got {}", gotext::type_name(value)));
                }
                (_, Value::Object(_) | Value::Array(_)) => {
                    wrong(format!("expected any scalar, got &{{{}}}", gotext::plain(value)));
                }
                _ => {}
            }
            return;
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let at = format!("{path}.{name}");
                if !shape.allows(name) {
                    found.push(format!("{at}: field not declared in schema"));
                    return;
                }
                check(shape.field(name), inner, &at, found);
            }
        }
        Value::Array(items) => check_items(shape, items, path, found),
        _ => {}
    }
}

fn check_items(shape: Shape<'_>, items: &[Value], path: &str, found: &mut Vec<String>) {
    let kind = shape.list_kind();
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let step = match &kind {
            ListKind::Atomic => format!("i:{index}"),
            kind => match shape.step(kind, item) {
                Some(step) => step,
                None => return found.push(format!("{path}: element {index}: {}", why_unknown(kind, item))),
            },
        };
        let words = step_words(&step);
        if !seen.insert(step) {
            found.push(format!("{path}: duplicate entries for key {words}"));
        }
        check(shape.items(), item, &format!("{path}{words}"), found);
    }
}

/// Why an item cannot be told from others.
fn why_unknown(kind: &ListKind, item: &Value) -> String {
    match (kind, item) {
        (ListKind::Map(_), Value::Null) => "associative list with keys may not have a null element".to_owned(),
        (ListKind::Map(keys), Value::Object(_)) => {
            let quoted: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
            format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                quoted.join(" ")
            )
        }
        (ListKind::Map(_), _) => "associative list with keys may not have non-map elements".to_owned(),
        (_, Value::Object(_)) => "associative list without keys has an element that's a map type".to_owned(),
        (_, Value::Array(_)) => "not supported: associative list with lists as elements".to_owned(),
        _ => "associative list without keys has an element that's an explicit null".to_owned(),
    }
}
