//! Structural schemas of custom resources: defaulting, pruning and unknown fields. Pure.
use serde_json::{Map, Value};

use super::shape::Shape;
use super::store::LARGEST_OBJECT;
use super::strict::prune_built_in;

/// One thing wrong with an object, as it stands in a `Status`' causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueTooLong`, …
    pub reason: &'static str,
    /// `spec.branding.theme`.
    pub field: String,
    pub message: String,
}

impl Cause {
    pub fn new(reason: &'static str, field: &str, message: String) -> Self {
        Self { reason, field: field.to_owned(), message }
    }
}

/// A field's path: `spec.list[3].name`.
pub fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

/// What a field that is not among the properties is checked by: a schema, anything, or nothing allowed.
pub enum Additional<'a> {
    Schema(&'a Value),
    Anything,
    Unknown,
}

pub fn additional(schema: &Value) -> Additional<'_> {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return Additional::Anything;
    }
    match &schema["additionalProperties"] {
        Value::Bool(true) => Additional::Anything,
        inner @ Value::Object(_) => Additional::Schema(inner),
        _ => Additional::Unknown,
    }
}

/// Fields that Kubernetes itself owns at the root of every object.
const ROOT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// With its defaults an object would be larger than [`LARGEST_OBJECT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "with the defaults of its schema the object would be larger than {LARGEST_OBJECT} bytes, the largest that is kept"
)]
pub struct TooLarge;

/// Puts the schema's defaults where a field is absent, or null where null is not allowed. Other nulls that are not
/// allowed go. Errors: [`TooLarge`], as soon as it is so; what was put in until then stays.
pub fn apply_defaults(schema: &Value, value: &mut Value) -> Result<(), TooLarge> {
    fill_in(schema, value, &mut LARGEST_OBJECT.clone())
}

/// `room`: bytes that may still be put in.
fn fill_in(schema: &Value, value: &mut Value, room: &mut usize) -> Result<(), TooLarge> {
    match value {
        Value::Object(fields) => {
            for (name, inner) in properties(schema).into_iter().flatten() {
                let absent = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => inner["nullable"] != true,
                    Some(_) => false,
                };
                if absent && !inner["default"].is_null() {
                    let default = &inner["default"];
                    *room = room.checked_sub(name.len() + default.to_string().len()).ok_or(TooLarge)?;
                    fields.insert(name.clone(), default.clone());
                } else if absent {
                    fields.remove(name);
                }
                if let Some(field) = fields.get_mut(name) {
                    fill_in(inner, field, room)?;
                }
            }
            if let Additional::Schema(inner) = additional(schema) {
                let known = properties(schema);
                if inner["nullable"] != true {
                    fields
                        .retain(|name, field| !field.is_null() || known.is_some_and(|known| known.contains_key(name)));
                }
                for (_, field) in fields.iter_mut().filter(|(name, _)| known.is_none_or(|k| !k.contains_key(*name))) {
                    fill_in(inner, field, room)?;
                }
            }
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill_in(&schema["items"], item, room))?,
        _ => {}
    }
    Ok(())
}

/// Takes away what the schema does not know and tells the paths, in order.
pub fn prune(schema: &Value, value: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    prune_at(schema, value, "", true, &mut gone);
    gone
}

/// Whether a schema is that of a whole object within another.
fn is_object(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

fn prune_at(schema: &Value, value: &mut Value, path: &str, root: bool, gone: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                let at = child(path, &name);
                if root && ROOT_FIELDS.contains(&name.as_str()) {
                    if name == "metadata"
                        && !path.is_empty()
                        && let Some(metadata) = fields.get_mut(&name)
                    {
                        let unknown = prune_built_in(Shape::metadata(), &at, metadata);
                        gone.extend(unknown.iter().filter_map(|words| words.split('"').nth(1)).map(str::to_owned));
                    }
                    continue;
                }
                let known = properties(schema).and_then(|known| known.get(&name));
                let inner = match (known, additional(schema)) {
                    (Some(inner), _) | (None, Additional::Schema(inner)) => inner,
                    (None, Additional::Anything) => continue,
                    (None, Additional::Unknown) => {
                        fields.remove(&name);
                        gone.push(at);
                        continue;
                    }
                };
                if let Some(field) = fields.get_mut(&name) {
                    prune_at(inner, field, &at, is_object(inner), gone);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let inner = &schema["items"];
                prune_at(inner, item, &format!("{path}[{index}]"), is_object(inner), gone);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::json;

    use super::super::validate::{Patterns, validate};
    use super::*;
    use crate::api::ResetPortal;

    fn portal_schema() -> Value {
        let crd = serde_json::to_value(ResetPortal::crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    fn wrong(spec: Value) -> Vec<String> {
        let object = json!({"apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal", "metadata": {"name": "a"}, "spec": spec});
        let causes = validate(&portal_schema(), None, &object, &Patterns::default());
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_portal_is_checked_with_the_messages_of_kubernetes() {
        assert_eq!(wrong(json!({"domain": "acme.example"})), [""; 0]);
        assert_eq!(wrong(json!({})), ["spec.domain: Required value"]);
        assert_eq!(
            wrong(json!({"domain": 5})),
            ["spec.domain: Invalid value: \"integer\": spec.domain in body must be of type string: \"integer\""]
        );
        assert_eq!(
            wrong(json!({"domain": "acme.example", "branding": {"theme": "Pink"}})),
            ["spec.branding.theme: Unsupported value: \"Pink\": supported values: \"Light\", \"Dark\", \"Auto\""]
        );
        assert_eq!(
            wrong(json!({"domain": "acme.example", "branding": {"accentColour": "red"}})),
            [
                "spec.branding.accentColour: Invalid value: \"red\": spec.branding.accentColour in body should match '^#[0-9a-f]{6}$'"
            ]
        );
        assert_eq!(
            wrong(json!({"domain": "acme.example", "dns": {"ttl": 90000}})),
            ["spec.dns.ttl: Invalid value: 90000: spec.dns.ttl in body should be less than or equal to 86400"]
        );
        assert_eq!(
            wrong(json!({"domain": "acme.example", "branding": {"title": "x".repeat(79)}})),
            ["spec.branding.title: Too long: may not be more than 78 bytes"]
        );
    }

    #[test]
    fn absent_fields_get_their_defaults_and_unknown_ones_are_told() {
        let mut object = json!({"kind": "ResetPortal", "metadata": {"name": "a"}, "spec": {"domain": "acme.example", "nope": 1, "dns": {"odd": {}}}});
        assert_eq!(prune(&portal_schema(), &mut object), ["spec.dns.odd", "spec.nope"]);
        apply_defaults(&portal_schema(), &mut object).unwrap();
        let spec = &object["spec"];
        assert_eq!((&spec["enabled"], &spec["deletionPolicy"]), (&json!(true), &json!("Delete")));
        assert_eq!(spec["dns"], json!({"proxied": true, "ttl": 1}));
        assert_eq!(object["metadata"], json!({"name": "a"}));
    }

    #[test]
    fn defaults_are_put_in_only_as_far_as_an_object_may_grow() {
        let field = json!({"type": "string", "default": "x".repeat(10_000)});
        let schema = json!({"type": "array", "items": {"type": "object", "properties": {"a": field, "b": field}}});
        let filled = |count: usize| {
            let mut list = json!(vec![json!({}); count]);
            apply_defaults(&schema, &mut list)
                .map(|()| list.to_string().len())
                .map_err(|TooLarge| list.to_string().len())
        };
        assert!(filled(100).is_ok_and(|size| size > 2_000_000));
        // no more than there is room for is ever in memory
        assert!(filled(100_000).is_err_and(|size| size < 4 << 20));
    }

    #[test]
    fn keyed_lists_hold_each_key_once() {
        let schema = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {"type": "object", "properties": {"type": {"type": "string"}}}});
        let causes =
            validate(&schema, None, &json!([{"type": "a"}, {"type": "b"}, {"type": "a"}]), &Patterns::default());
        assert_eq!(causes.len(), 1);
        assert_eq!(
            (causes[0].field.as_str(), causes[0].message.as_str()),
            ("[2]", "Duplicate value: {\"type\":\"a\"}")
        );
    }
}
