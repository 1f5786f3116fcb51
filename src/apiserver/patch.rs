//! Patches: merge, JSON, and strategic merge for built-in kinds. Pure.
use serde_json::{Map, Value};

use super::catalog::Resource;
use super::schema::Cause;
use super::status::ApiError;

/// A patch of one of the kinds that are served.
pub enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
    Strategic(Value),
}

impl Patch {
    /// Reads a body by its content type.
    pub fn parse(resource: &Resource, content_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let unreadable = |error: serde_json::Error| ApiError::bad_request(format!("error decoding patch: {error}"));
        let accepted = "application/json-patch+json, application/merge-patch+json";
        match content_type {
            "application/merge-patch+json" => Ok(Self::Merge(serde_json::from_slice(body).map_err(unreadable)?)),
            "application/json-patch+json" => Ok(Self::Json(serde_json::from_slice(body).map_err(unreadable)?)),
            "application/strategic-merge-patch+json" if !resource.is_custom() => {
                Ok(Self::Strategic(serde_json::from_slice(body).map_err(unreadable)?))
            }
            other => Err(ApiError::unsupported(format!(
                "the body of the request was in an unknown format - {other} - accepted media types include: {accepted}"
            ))),
        }
    }

    pub fn apply(self, old: &Value) -> Result<Value, ApiError> {
        let mut new = old.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut new, &patch),
            Self::Strategic(patch) => strategic(&mut new, &patch, "")?,
            Self::Json(mut patch) => {
                // Kubernetes takes a missing path for null in a test; the library does not.
                patch.0.retain(|operation| match operation {
                    json_patch::PatchOperation::Test(test) => {
                        !(test.value.is_null() && test.path.resolve(old).is_err())
                    }
                    _ => true,
                });
                json_patch::patch(&mut new, &patch).map_err(|error| {
                    let cause = Cause {
                        reason: "FieldValueInvalid",
                        field: "patch".to_owned(),
                        message: format!("Invalid value: {error}"),
                    };
                    let name = old["metadata"]["name"].as_str().unwrap_or_default();
                    ApiError::invalid(old["kind"].as_str().unwrap_or_default(), name, &[cause])
                })?;
            }
        }
        if !new["metadata"].is_object() {
            return Err(ApiError::bad_request("the patch leaves an object without metadata"));
        }
        Ok(new)
    }
}

/// The field by which the items of a list are told apart, for the built-in kinds that are served. Lists that
/// are not here are replaced as a whole.
fn merge_key(path: &str) -> Option<&'static str> {
    match path {
        "metadata.ownerReferences" => Some("uid"),
        "spec.ports" => Some("port"),
        "secrets" | "imagePullSecrets" => Some("name"),
        "status.conditions" => Some("type"),
        _ => None,
    }
}

/// Lists of plain values that are merged as sets.
fn is_set(path: &str) -> bool {
    path == "metadata.finalizers"
}

fn strategic(target: &mut Value, patch: &Value, path: &str) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let whole: Map<String, Value> =
                patch.iter().filter(|(name, _)| !name.starts_with('$')).map(|(n, v)| (n.clone(), v.clone())).collect();
            *target = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(ApiError::bad_request(format!("unknown strategic merge directive $patch: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return Ok(()) };
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| kept.iter().any(|kept| kept == name.as_str()));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(have), Some(gone)) = (fields.get_mut(list).and_then(Value::as_array_mut), value.as_array()) {
                have.retain(|item| !gone.contains(item));
            }
            continue;
        }
        // Order is a wish about display; the merged order is kept.
        if name.starts_with('$') {
            continue;
        }
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::Null => {
                fields.remove(name);
            }
            Value::Array(items) if is_set(&at) => {
                let have = fields.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(have) = have.as_array_mut() {
                    have.extend(items.iter().filter(|item| !have.contains(item)).cloned().collect::<Vec<_>>());
                }
            }
            Value::Array(items) if merge_key(&at).is_some() => {
                let key = merge_key(&at).unwrap_or_default();
                let have = fields.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(have, items, key, &at)?;
            }
            value => strategic(fields.entry(name.clone()).or_insert(Value::Null), value, &at)?,
        }
    }
    Ok(())
}

fn merge_list(target: &mut Value, items: &[Value], key: &str, path: &str) -> Result<(), ApiError> {
    if items.iter().any(|item| item["$patch"] == "replace") {
        *target = Value::Array(Vec::new());
    }
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(have) = target else { return Ok(()) };
    for item in items {
        if item["$patch"] == "replace" {
            continue;
        }
        if item[key].is_null() {
            return Err(ApiError::bad_request(format!("an item of {path} has no {key}, by which items are merged")));
        }
        let at = have.iter().position(|other| other[key] == item[key]);
        match (item["$patch"] == "delete", at) {
            (true, Some(at)) => {
                have.remove(at);
            }
            (true, None) => {}
            (false, Some(at)) => strategic(&mut have[at], item, path)?,
            (false, None) => {
                let mut new = Value::Null;
                strategic(&mut new, item, path)?;
                have.push(new);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(old: Value, patch: Value) -> Value {
        let mut new = old;
        strategic(&mut new, &patch, "").unwrap();
        new
    }

    #[test]
    fn maps_merge_lists_replace_and_keyed_lists_merge_by_key() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x"]}, "data": {"k": "v"}, "list": [1, 2],
            "spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}});
        let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}, "finalizers": ["y"], "$setElementOrder/finalizers": ["x", "y"]},
            "list": [3], "spec": {"ports": [{"port": 443, "$patch": "delete"}, {"port": 80, "name": "web"}, {"port": 81}]}});
        let expected = json!({"metadata": {"labels": {"b": "2", "c": "3"}, "finalizers": ["x", "y"]}, "data": {"k": "v"}, "list": [3],
            "spec": {"ports": [{"port": 80, "name": "web"}, {"port": 81}]}});
        assert_eq!(merged(old, patch), expected);
    }

    #[test]
    fn directives_replace_delete_and_take_from_sets() {
        let old = json!({"data": {"a": "1", "b": "2"}, "metadata": {"finalizers": ["x", "y"]}});
        assert_eq!(merged(old.clone(), json!({"data": {"$patch": "replace", "c": "3"}}))["data"], json!({"c": "3"}));
        assert_eq!(merged(old.clone(), json!({"data": {"$patch": "delete"}}))["data"], json!({}));
        assert_eq!(
            merged(old, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}))["metadata"]["finalizers"],
            json!(["y"])
        );
        let mut value = json!({});
        assert!(strategic(&mut value, &json!({"$patch": "explode"}), "").is_err());
        assert!(strategic(&mut value, &json!({"spec": {"ports": [{"name": "x"}]}}), "").is_err());
    }
}
