//! Built-in kinds: the values that a server fills in, and the rules for single fields. Pure.
use serde_json::{Value, json};

use super::catalog::Resource;
use super::names::key_problem;
use super::schema::Cause;
use super::tidy::{fill, members, remove};
use super::{causes, definitions, eventrules, events, ingresses, services};

/// Bytes of a Secret's or ConfigMap's data.
const LARGEST_DATA: usize = 1 << 20;
/// Holds a namespace until its contents are gone.
pub const NAMESPACE_FINALIZER: &str = "kubernetes";
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Fills in what a client may leave out. `old` is `None` for a new object.
pub fn fill_in(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    if resource.is_custom() {
        return;
    }
    match resource.kind.as_str() {
        "Secret" => {
            encode_string_data(object);
            if object["type"].as_str().unwrap_or_default().is_empty() {
                object["type"] = json!("Opaque");
            }
        }
        "Service" => services::fill_in(object, old),
        "IngressClass" if object["spec"]["parameters"].is_object() => {
            fill(&mut object["spec"]["parameters"], "scope", json!("Cluster"));
        }
        "Ingress" => ingresses::fill_in(object),
        "Lease" => {
            fill(object, "spec", json!({}));
            // Only understood by servers that elect leaders themselves.
            remove(&mut object["spec"], "strategy");
            remove(&mut object["spec"], "preferredHolder");
        }
        "Namespace" => namespace(object, old),
        "Event" => events::fill_in(object),
        "CustomResourceDefinition" => definitions::fill_in(object),
        _ => {}
    }
}

fn namespace(object: &mut Value, old: Option<&Value>) {
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"][NAMESPACE_LABEL] = name;
    match old {
        Some(old) => {
            // Only the finalize subresource changes these.
            object["spec"] = old["spec"].clone();
            fill(object, "spec", json!({}));
        }
        None => {
            let mut finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.iter().any(|finalizer| finalizer == NAMESPACE_FINALIZER) {
                finalizers.push(json!(NAMESPACE_FINALIZER));
            }
            object["spec"] = json!({"finalizers": finalizers});
            object["status"] = json!({"phase": "Active"});
        }
    }
}

/// `stringData` is write-only: it ends up in `data`.
fn encode_string_data(object: &mut Value) {
    use base64::Engine;
    let Some(texts) = object.as_object_mut().and_then(|fields| fields.remove("stringData")) else { return };
    for (name, text) in members(&texts) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        object["data"][name] = json!(encoded);
    }
}

/// Everything wrong with the fields of a built-in kind.
pub fn problems(resource: &Resource, object: &Value, old: Option<&Value>, core_event: bool) -> Vec<Cause> {
    if resource.is_custom() {
        return Vec::new();
    }
    match resource.kind.as_str() {
        "Secret" => secret(object, old),
        "ConfigMap" => config_map(object, old),
        "Service" => services::problems(object, old),
        "Ingress" => ingresses::problems(object),
        "IngressClass" => ingresses::class_problems(object, old),
        "Lease" => lease(object),
        "Event" => eventrules::problems(object, old, core_event),
        "Namespace" => namespace_problems(object),
        "CustomResourceDefinition" => definitions::problems(object, old),
        _ => Vec::new(),
    }
}

/// Decoded length of base64.
fn decoded(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take(2).filter(|byte| *byte == b'=').count()
}

fn immutable_data(object: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<Cause> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return Vec::new() };
    let words = "field is immutable when `immutable` is set";
    let changed = |field: &&&str| old[**field] != object[**field];
    fields.iter().filter(changed).map(|field| causes::forbidden(field, words)).collect()
}

fn key_problems(object: &Value, field: &str) -> Vec<Cause> {
    let wrong = |(key, _): (&String, &Value)| {
        key_problem(key).map(|words| causes::invalid(&format!("{field}[{key}]"), &json!(key), &words))
    };
    members(&object[field]).filter_map(wrong).collect()
}

fn config_map(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut found = Vec::new();
    for (key, _) in members(&object["data"]) {
        let field = format!("data[{key}]");
        found.extend(key_problem(key).map(|words| causes::invalid(&field, &json!(key), &words)));
        if !object["binaryData"][key].is_null() {
            found.push(causes::invalid(&field, &json!(key), "duplicate of key present in binaryData"));
        }
    }
    found.extend(key_problems(object, "binaryData"));
    let texts: usize = members(&object["data"]).map(|(_, value)| value.as_str().map_or(0, str::len)).sum();
    let bytes: usize = members(&object["binaryData"]).map(|(_, value)| decoded(value)).sum();
    if texts + bytes > LARGEST_DATA {
        found.push(causes::too_long("", LARGEST_DATA));
    }
    found.extend(immutable_data(object, old, &["immutable", "data", "binaryData"]));
    found
}

fn secret(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut found = key_problems(object, "data");
    let size: usize = members(&object["data"]).map(|(_, value)| decoded(value)).sum();
    if size > LARGEST_DATA {
        found.push(causes::too_long("data", LARGEST_DATA));
    }
    let there = |key: &str| !object["data"][key].is_null();
    let needs = |key: &str| (!there(key)).then(|| causes::required(&format!("data[{key}]"), ""));
    match object["type"].as_str().unwrap_or_default() {
        "kubernetes.io/tls" => found.extend(["tls.crt", "tls.key"].into_iter().filter_map(needs)),
        "kubernetes.io/ssh-auth" => found.extend(needs("ssh-privatekey")),
        "kubernetes.io/basic-auth" if !there("username") && !there("password") => {
            found.extend(["username", "password"].into_iter().filter_map(needs));
        }
        kind @ ("kubernetes.io/dockerconfigjson" | "kubernetes.io/dockercfg") => {
            let key = format!(".{}", kind.trim_start_matches("kubernetes.io/"));
            found.extend(needs(&key));
            found.extend(not_json(&object["data"][&key], &format!("data[{key}]")));
        }
        "kubernetes.io/service-account-token"
            if object["metadata"]["annotations"]["kubernetes.io/service-account.name"]
                .as_str()
                .is_none_or(str::is_empty) =>
        {
            found.push(causes::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
        }
        _ => {}
    }
    if let Some(old) = old {
        if old["type"] != object["type"] {
            found.push(causes::immutable("type", &object["type"]));
        }
        found.extend(immutable_data(object, Some(old), &["immutable", "data"]));
    }
    found
}

/// What is wrong with a secret's JSON, without a word of it.
fn not_json(value: &Value, field: &str) -> Option<Cause> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str()?).ok()?;
    let error = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes).err()?;
    let words = if error.is_eof() { "unexpected end of JSON input" } else { "not a JSON object" };
    Some(causes::invalid(field, &json!("<secret contents redacted>"), words))
}

fn lease(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut found = Vec::new();
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        found.push(causes::invalid("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0"));
    }
    if let Some(count) = spec["leaseTransitions"].as_i64().filter(|count| *count < 0) {
        found.push(causes::invalid("spec.leaseTransitions", &json!(count), "must be greater than or equal to 0"));
    }
    found
}

fn namespace_problems(object: &Value) -> Vec<Cause> {
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let (needed, state) = match object["metadata"]["deletionTimestamp"].is_null() {
        true => ("Active", "is empty"),
        false => ("Terminating", "is not empty"),
    };
    if phase.is_empty() || phase == needed {
        return Vec::new();
    }
    let words = format!("may only be '{needed}' if `deletionTimestamp` {state}");
    vec![causes::invalid("status.Phase", &json!(phase), &words)]
}
