//! What a version of a definition says beside its schema: columns, fields to select by, the scale subresource. Pure.
use serde_json::Value;

use super::causes;
use super::schema::Cause;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Paths of the scale subresource, the part of the object that each is to lie in, and whether it has to be there.
const SCALE_PATHS: [(&str, &str, bool); 3] = [
    ("specReplicasPath", "spec", true),
    ("statusReplicasPath", "status", true),
    ("labelSelectorPath", "status", false),
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Everything wrong with these parts of a version that stands at `at`, which is `spec` for the only one.
pub fn problems(version: &Value, at: &str) -> Vec<Cause> {
    let mut found = Vec::new();
    for (index, column) in version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate() {
        column_problems(column, &format!("{at}.additionalPrinterColumns[{index}]"), &mut found);
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    for (index, field) in version["selectableFields"].as_array().into_iter().flatten().enumerate() {
        if let Err(words) = selectable(schema, text(field, "jsonPath")) {
            let at = format!("{at}.selectableFields[{index}].jsonPath");
            found.push(causes::invalid(&at, &field["jsonPath"], &format!("is an invalid path: {words}")));
        }
    }
    let scale = &version["subresources"]["scale"];
    if scale.is_object() {
        for (name, part, needed) in SCALE_PATHS {
            found.extend(scale_problem(scale, name, part, needed, &format!("{at}.subresources.scale.{name}")));
        }
    }
    found
}

/// What is wrong with the path to a number of replicas or their selector, which has to lie in `part` of the object.
fn scale_problem(scale: &Value, name: &str, part: &str, needed: bool, at: &str) -> Option<Cause> {
    let wrong = |words: &str| Some(causes::invalid(at, &scale[name], words));
    match text(scale, name) {
        "" => needed.then(|| causes::required(at, "")),
        path if !path.starts_with('.') => wrong("must be a simple json path starting with ."),
        path if !path.starts_with(&format!(".{part}.")) => wrong(&format!("should be a json path under .{part}")),
        _ => None,
    }
}

fn column_problems(column: &Value, at: &str, found: &mut Vec<Cause>) {
    if text(column, "name").is_empty() {
        found.push(causes::required(&format!("{at}.name"), ""));
    }
    let kinds = format!("must be one of {}", COLUMN_TYPES.join(","));
    match text(column, "type") {
        "" => found.push(causes::required(&format!("{at}.type"), &kinds)),
        kind if !COLUMN_TYPES.contains(&kind) => {
            found.push(causes::invalid(&format!("{at}.type"), &column["type"], &kinds));
        }
        _ => {}
    }
    let format = text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let words = format!("must be one of {}", COLUMN_FORMATS.join(","));
        found.push(causes::invalid(&format!("{at}.format"), &column["format"], &words));
    }
    match text(column, "jsonPath") {
        "" => found.push(causes::required(&format!("{at}.JSONPath"), "")),
        path if !path.starts_with('.') || path.matches('[').count() != path.matches(']').count() => {
            let words = "must be a simple json path starting with .";
            found.push(causes::invalid(&format!("{at}.JSONPath"), &column["jsonPath"], words));
        }
        _ => {}
    }
}

/// Whether objects can be selected by the field at a path: a text, number or flag outside of metadata.
fn selectable(schema: &Value, path: &str) -> Result<(), String> {
    let nowhere = || "does not refer to a valid field".to_owned();
    let Some(path) = path.strip_prefix('.') else { return Err(format!("expected [ or . but got: {path}")) };
    if path == "metadata" || path.starts_with("metadata.") {
        return Err(nowhere());
    }
    let mut at = schema;
    for name in path.split('.') {
        at = at["properties"].get(name).ok_or_else(nowhere)?;
    }
    match at["type"].as_str() {
        Some("string" | "integer" | "boolean") => Ok(()),
        _ => Err("must point to a field of type string, boolean or integer".to_owned()),
    }
}
