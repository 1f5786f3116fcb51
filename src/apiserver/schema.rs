//! Structural schemas of custom resources: defaulting, pruning, unknown fields and validation with the
//! messages that Kubernetes gives.
use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

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
    fn new(reason: &'static str, field: &str, message: String) -> Self {
        Self { reason, field: field.to_owned(), message }
    }
}

/// A field's path: `spec.list[3].name`.
fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

/// What a field that is not among the properties is checked by: a schema, anything, or nothing allowed.
enum Additional<'a> {
    Schema(&'a Value),
    Anything,
    Unknown,
}

fn additional(schema: &Value) -> Additional<'_> {
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

/// Puts the schema's defaults where a field is absent, or null where null is not allowed.
pub fn apply_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in properties(schema).into_iter().flatten() {
                let absent = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => inner["nullable"] != true,
                    Some(_) => false,
                };
                if absent && !inner["default"].is_null() {
                    fields.insert(name.clone(), inner["default"].clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    apply_defaults(inner, field);
                }
            }
            if let Additional::Schema(inner) = additional(schema) {
                let known = properties(schema);
                for (_, field) in fields.iter_mut().filter(|(name, _)| known.is_none_or(|k| !k.contains_key(*name))) {
                    apply_defaults(inner, field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| apply_defaults(&schema["items"], item)),
        _ => {}
    }
}

/// Takes away what the schema does not know and tells the paths, in order.
pub fn prune(schema: &Value, value: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    prune_at(schema, value, "", true, &mut gone);
    gone
}

fn prune_at(schema: &Value, value: &mut Value, path: &str, root: bool, gone: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                if root && ROOT_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                let at = child(path, &name);
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
                    prune_at(inner, field, &at, false, gone);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune_at(&schema["items"], item, &format!("{path}[{index}]"), false, gone);
            }
        }
        _ => {}
    }
}

/// Compiled patterns, so that each is compiled once per schema.
#[derive(Debug, Default)]
pub struct Patterns(std::sync::Mutex<BTreeMap<String, Option<Regex>>>);

impl Patterns {
    /// `None` for a pattern that is none.
    fn matches(&self, pattern: &str, text: &str) -> Option<bool> {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let compiled = known.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        compiled.as_ref().map(|regex| regex.is_match(text))
    }
}

/// Everything wrong with an object, in the order of its schema.
pub fn validate(schema: &Value, value: &Value, patterns: &Patterns) -> Vec<Cause> {
    let mut causes = Vec::new();
    validate_at(schema, value, "", patterns, &mut causes);
    causes
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fits_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return matches!(kind_of(value), "integer" | "string");
    }
    match (schema["type"].as_str(), kind_of(value)) {
        (None, _) | (Some("number"), "integer") => true,
        (Some(wanted), found) => wanted == found,
    }
}

fn validate_at(schema: &Value, value: &Value, path: &str, patterns: &Patterns, causes: &mut Vec<Cause>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if !fits_type(schema, value) {
        let (wanted, found) = (schema["type"].as_str().unwrap_or_default(), kind_of(value));
        let message = format!("Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\"");
        causes.push(Cause::new("FieldValueTypeInvalid", path, message));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let list = allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {value}: supported values: {list}");
        causes.push(Cause::new("FieldValueNotSupported", path, message));
    }
    match value {
        Value::String(text) => validate_text(schema, text, path, patterns, causes),
        Value::Number(number) => validate_number(schema, number, path, causes),
        Value::Array(items) => validate_items(schema, items, path, patterns, causes),
        Value::Object(fields) => validate_fields(schema, fields, path, patterns, causes),
        _ => {}
    }
}

fn validate_text(schema: &Value, text: &str, path: &str, patterns: &Patterns, causes: &mut Vec<Cause>) {
    let quoted = Value::String(text.to_owned());
    let length = text.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64()
        && length > most
    {
        let message = format!("Too long: may not be more than {most} bytes");
        causes.push(Cause::new("FieldValueTooLong", path, message));
    }
    if let Some(least) = schema["minLength"].as_u64()
        && length < least
    {
        let message = format!("Invalid value: {quoted}: {path} in body should be at least {least} chars long");
        causes.push(Cause::new("FieldValueInvalid", path, message));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && patterns.matches(pattern, text) != Some(true)
    {
        let message = format!("Invalid value: {quoted}: {path} in body should match '{pattern}'");
        causes.push(Cause::new("FieldValueInvalid", path, message));
    }
    if let Some(format) = schema["format"].as_str()
        && !fits_format(format, text)
    {
        let message = format!("Invalid value: {quoted}: {path} in body must be of type {format}: {quoted}");
        causes.push(Cause::new("FieldValueInvalid", path, message));
    }
}

/// Whether a text has one of the formats that Kubernetes checks; unknown formats fit everything.
fn fits_format(format: &str, text: &str) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "uri" => url::Url::parse(text).is_ok() || text.starts_with('/'),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "email" => text.split_once('@').is_some_and(|(name, domain)| !name.is_empty() && domain.len() > 2),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "hostname" => {
            let plain = |label: &str| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(plain)
        }
        _ => true,
    }
}

fn validate_number(schema: &Value, number: &serde_json::Number, path: &str, causes: &mut Vec<Cause>) {
    let given = number.as_f64().unwrap_or(f64::NAN);
    let mut bound = |name: &str, words: &str, broken: fn(f64, f64) -> bool| {
        if let Some(limit) = schema[name].as_f64()
            && broken(given, limit)
        {
            let message = format!("Invalid value: {number}: {path} in body should be {words} {limit}");
            causes.push(Cause::new("FieldValueInvalid", path, message));
        }
    };
    bound("minimum", "greater than or equal to", |given, limit| given < limit);
    bound("maximum", "less than or equal to", |given, limit| given > limit);
}

fn validate_items(schema: &Value, items: &[Value], path: &str, patterns: &Patterns, causes: &mut Vec<Cause>) {
    if let Some(most) = schema["maxItems"].as_u64()
        && items.len() as u64 > most
    {
        let message = format!("Too many: {}: must have at most {most} items", items.len());
        causes.push(Cause::new("FieldValueTooMany", path, message));
    }
    if let Some(least) = schema["minItems"].as_u64()
        && (items.len() as u64) < least
    {
        let message = format!("Invalid value: {}: {path} in body should have at least {least} items", items.len());
        causes.push(Cause::new("FieldValueInvalid", path, message));
    }
    let keys: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let is_set = schema["x-kubernetes-list-type"] == "set";
    for (index, item) in items.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let same = |other: &Value| {
            (is_set && other == item) || (!keys.is_empty() && keys.iter().all(|key| other[*key] == item[*key]))
        };
        if items[..index].iter().any(same) {
            let shown = match keys.as_slice() {
                [] => item.to_string(),
                keys => Value::Object(keys.iter().map(|k| ((*k).to_owned(), item[*k].clone())).collect()).to_string(),
            };
            causes.push(Cause::new("FieldValueDuplicate", &at, format!("Duplicate value: {shown}")));
        }
        validate_at(&schema["items"], item, &at, patterns, causes);
    }
}

fn validate_fields(
    schema: &Value,
    fields: &Map<String, Value>,
    path: &str,
    patterns: &Patterns,
    causes: &mut Vec<Cause>,
) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            causes.push(Cause::new("FieldValueRequired", &child(path, name), "Required value".to_owned()));
        }
    }
    let known = properties(schema);
    for (name, field) in fields {
        let inner = match (known.and_then(|known| known.get(name)), additional(schema)) {
            (Some(inner), _) | (None, Additional::Schema(inner)) => inner,
            _ => continue,
        };
        validate_at(inner, field, &child(path, name), patterns, causes);
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::json;

    use super::*;
    use crate::api::ResetPortal;

    fn portal_schema() -> Value {
        let crd = serde_json::to_value(ResetPortal::crd()).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    fn wrong(spec: Value) -> Vec<String> {
        let object = json!({"apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal", "metadata": {"name": "a"}, "spec": spec});
        let causes = validate(&portal_schema(), &object, &Patterns::default());
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
        apply_defaults(&portal_schema(), &mut object);
        let spec = &object["spec"];
        assert_eq!((&spec["enabled"], &spec["deletionPolicy"]), (&json!(true), &json!("Delete")));
        assert_eq!(spec["dns"], json!({"proxied": true, "ttl": 1}));
        assert_eq!(object["metadata"], json!({"name": "a"}));
    }

    #[test]
    fn keyed_lists_hold_each_key_once() {
        let schema = json!({"type": "array", "x-kubernetes-list-map-keys": ["type"], "items": {"type": "object", "properties": {"type": {"type": "string"}}}});
        let causes = validate(&schema, &json!([{"type": "a"}, {"type": "b"}, {"type": "a"}]), &Patterns::default());
        assert_eq!(causes.len(), 1);
        assert_eq!(
            (causes[0].field.as_str(), causes[0].message.as_str()),
            ("[2]", "Duplicate value: {\"type\":\"a\"}")
        );
    }
}
