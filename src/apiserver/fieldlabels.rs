//! Which fields each resource can be selected by, and what they hold. Pure.
use std::borrow::Cow;

use serde_json::Value;

use super::catalog::Resource;
use super::status::ApiError;

const ANY: [&str; 2] = ["metadata.name", "metadata.namespace"];
/// Beside those that every resource has.
const SECRET: [&str; 1] = ["type"];
const SERVICE: [&str; 2] = ["spec.clusterIP", "spec.type"];
const EVENT: [&str; 7] = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];

/// Errors: 400 for a field by which this resource cannot be selected.
pub fn check(resource: &Resource, field: &str) -> Result<(), ApiError> {
    let of_object = |object: &str| field.strip_prefix(object).is_some_and(|part| EVENT.contains(&part));
    let (known, named) = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => (matches!(field, "metadata.name" | "status.phase"), true),
        ("", "secrets") => (ANY.contains(&field) || SECRET.contains(&field), true),
        ("", "services") => (ANY.contains(&field) || SERVICE.contains(&field), true),
        ("", "events") => {
            let own = matches!(field, "reason" | "reportingComponent" | "source" | "type");
            (ANY.contains(&field) || own || of_object("involvedObject."), true)
        }
        ("events.k8s.io", "events") => {
            let own = matches!(field, "reason" | "reportingController" | "type");
            (ANY.contains(&field) || own || of_object("regarding."), true)
        }
        _ if resource.is_custom() => {
            let declared = resource.selectable.iter().any(|declared| declared == field);
            (declared || field == "metadata.name" || (field == "metadata.namespace" && resource.namespaced), true)
        }
        _ => (ANY.contains(&field), false),
    };
    match (known, named) {
        (true, _) => Ok(()),
        (false, true) => Err(ApiError::bad_request(format!("field label not supported: {field}"))),
        (false, false) => Err(ApiError::bad_request(format!(
            "\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ))),
    }
}

/// What a selectable field of an object holds; empty where it is not there.
pub fn value<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    // An event's source is the component, by whichever of its two fields it is known.
    if field == "source" {
        let component = text("/source/component");
        return Cow::Borrowed(if component.is_empty() { text("/reportingComponent") } else { component });
    }
    match object.pointer(&format!("/{}", field.replace('.', "/"))) {
        Some(Value::String(text)) => Cow::Borrowed(text),
        // Only custom resources have these.
        Some(value @ (Value::Bool(_) | Value::Number(_))) => Cow::Owned(value.to_string()),
        _ => Cow::Borrowed(""),
    }
}
