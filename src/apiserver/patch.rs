//! Patches: merge, JSON, and strategic merge for built-in kinds. Pure.
use serde_json::{Map, Value};

use super::catalog::Resource;
use super::gotext;
use super::jsonpatch::JsonPatch;
use super::status::ApiError;
use super::strategic;
use super::strict::{json_problems, json_words, kind_word};

/// A patch of one of the kinds that are served.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    Merge(Value),
    Json(JsonPatch),
    Strategic(Map<String, Value>),
}

/// A patched object.
#[derive(Debug)]
pub struct Patched {
    pub object: Value,
    /// What messages about it quote.
    pub quoted: String,
}

impl Patch {
    /// Reads a body by its content type. Errors: 400 for an unreadable one, 415 for a kind that is not taken.
    pub fn parse(resource: &Resource, content_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let object = |before: &str| -> Result<Map<String, Value>, ApiError> {
            let bad = |words: String| ApiError::bad_request(format!("{before}{words}"));
            match serde_json::from_slice(body).map_err(|error| bad(json_words(&error)))? {
                Value::Object(fields) => Ok(fields),
                Value::Null if before.is_empty() => Ok(Map::new()),
                Value::Null => Err(ApiError::bad_request("Invalid JSON Patch")),
                other => {
                    let kind = kind_word(&other);
                    let wanted = "Go value of type map[string]interface {}";
                    Err(bad(format!("json: cannot unmarshal {kind} into {wanted}")))
                }
            }
        };
        match content_type {
            "application/merge-patch+json" => Ok(Self::Merge(Value::Object(object("error decoding patch: ")?))),
            "application/json-patch+json" => JsonPatch::parse(body).map(Self::Json),
            "application/strategic-merge-patch+json" if !resource.is_custom() => Ok(Self::Strategic(object("")?)),
            _ if resource.is_custom() => Err(ApiError::unsupported(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            _ => Err(ApiError::unsupported_type()),
        }
    }

    /// What in the patch itself stands twice or means nothing.
    pub fn problems(&self, body: &[u8]) -> Vec<String> {
        match self {
            Self::Json(_) => {
                let mut found: Vec<String> =
                    json_problems(None, body).into_iter().map(|problem| format!("json patch {problem}")).collect();
                found.extend(JsonPatch::unknown(body));
                found
            }
            _ => json_problems(None, body),
        }
    }

    pub fn apply(&self, kind: &str, old: &Value) -> Result<Patched, ApiError> {
        let mut object = old.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Json(patch) => object = patch.apply(old)?,
            Self::Strategic(patch) => {
                object = strategic::apply(kind, old, patch)?;
                return Ok(Patched { object, quoted: gotext::plain(&Value::Object(patch.clone())) });
            }
        }
        let quoted = object.to_string();
        Ok(Patched { object, quoted })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn document() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[ab]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| json!(map)),
            ]
        })
    }

    /// What a merge patch means, as RFC 7396 has it.
    fn merged(old: &Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut fields = old.as_object().cloned().unwrap_or_default();
        for (name, value) in patch {
            if value.is_null() {
                fields.remove(name);
            } else {
                let before = fields.get(name).cloned().unwrap_or_default();
                fields.insert(name.clone(), merged(&before, value));
            }
        }
        Value::Object(fields)
    }

    proptest! {
        #[test]
        fn merge_patches_do_what_their_definition_says(old in document(), patch in document()) {
            let old = json!({"metadata": {}, "spec": old});
            let patch = json!({"spec": patch});
            let expected = merged(&old, &patch);
            let Ok(patched) = Patch::Merge(patch).apply("ConfigMap", &old) else { return Err(TestCaseError::fail("refused")) };
            prop_assert_eq!(patched.object, expected);
        }
    }
}
