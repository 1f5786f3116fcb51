//! Objects as Kubernetes keeps them: nothing that their type does not know, and nothing that is empty. Pure.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::builtin;
use super::catalog::{DEFINITIONS, Resource};

/// Maps of texts: their members stay even if empty, they themselves do not.
const MAPS: [&str; 6] = ["labels", "annotations", "data", "binaryData", "stringData", "selector"];
/// Texts that are kept when empty: they are told apart from absent ones, or are always written.
const KEPT_TEXTS: [&str; 7] = [
    "holderIdentity",
    "ingressClassName",
    "apiGroup",
    "reportingComponent",
    "reportingController",
    "reportingInstance",
    "scope",
];

/// Takes away what is unknown and what is empty, and tells what was unknown. The error says what does not fit.
pub fn tidy(resource: &Resource, object: &mut Value) -> Result<Vec<String>, String> {
    if resource.is_custom() {
        return metadata(object);
    }
    let managed = take_managed_fields(object);
    let definition = resource.full_name() == DEFINITIONS;
    let (mut known, unknown) = builtin::known(resource, object)?;
    if definition {
        // Schemas hold defaults and examples in which empty values say something.
        without_empty(&mut known["metadata"]);
        whole_numbers(&mut known["spec"]);
    } else {
        without_empty(&mut known);
    }
    *object = known;
    put_managed_fields(object, managed);
    Ok(unknown)
}

/// Bounds of schemas are read as floating point numbers; those that are whole are written as such.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(float) = whole {
                *value = json!(float as i64);
            }
        }
        _ => {}
    }
}

/// The metadata alone, whose type is the same everywhere.
fn metadata(object: &mut Value) -> Result<Vec<String>, String> {
    let managed = take_managed_fields(object);
    let (mut known, unknown) =
        builtin::known_as::<ObjectMeta>(&object["metadata"]).map_err(|e| format!("metadata: {e}"))?;
    without_empty(&mut known);
    object["metadata"] = if known.is_object() { known } else { json!({}) };
    put_managed_fields(object, managed);
    Ok(unknown.into_iter().map(|field| format!("metadata.{field}")).collect())
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object["metadata"].as_object_mut()?.remove("managedFields").filter(|fields| !fields.is_null())
}

fn put_managed_fields(object: &mut Value, managed: Option<Value>) {
    let Some(managed) = managed else { return };
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    object["metadata"]["managedFields"] = managed;
}

fn without_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if !MAPS.contains(&name.as_str()) {
                    without_empty(field);
                }
            }
            fields.retain(|name, field| !is_left_out(name, field));
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        _ => {}
    }
}

fn is_left_out(name: &str, field: &Value) -> bool {
    match field {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => MAPS.contains(&name) && fields.is_empty(),
        Value::String(text) => text.is_empty() && !KEPT_TEXTS.contains(&name),
        Value::Number(number) => {
            number.as_i64() == Some(0)
                && matches!(name, "nodePort" | "count" | "deprecatedCount" | "generation" | "number")
        }
        _ => false,
    }
}

/// Removes a member of an object, if it is there.
pub fn remove(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

/// Puts a value where there is none.
pub fn fill(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut()
        && fields.get(name).is_none_or(Value::is_null)
    {
        fields.insert(name.to_owned(), value);
    }
}

/// The members of an object; an empty map where it is none.
pub fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_things_go_and_meant_ones_stay() {
        let mut object = json!({
            "metadata": {"labels": {}, "annotations": {"a": ""}, "finalizers": [], "name": "x", "generation": 0},
            "data": {"k": ""}, "spec": {"holderIdentity": "", "ports": [{"port": 80, "name": "", "nodePort": 0}], "http": {}},
        });
        without_empty(&mut object);
        assert_eq!(
            object,
            json!({
                "metadata": {"annotations": {"a": ""}, "name": "x"}, "data": {"k": ""},
                "spec": {"holderIdentity": "", "ports": [{"port": 80}], "http": {}},
            })
        );
    }
}
