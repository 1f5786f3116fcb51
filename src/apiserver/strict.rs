//! Bodies read with an eye for what the usual reading drops silently: fields that stand twice or mean nothing, and
//! values of another type, with the words that Kubernetes has for them. Pure.
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use super::shape::Shape;

/// Deepest nesting that is looked into.
const DEEPEST: usize = 100;

/// What is wrong with a JSON body, in its order: `duplicate field "spec.a"` and, where the type is known here,
/// `unknown field "spec.b"`. Empty for what is not JSON at all.
pub fn json_problems(shape: Option<Shape<'_>>, body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = Seed { shape, path: String::new(), depth: 0, found: &mut found };
    let _ = serde::de::DeserializeSeed::deserialize(seed, &mut reader);
    found
}

/// A YAML body as JSON; of repeated fields the last one counts. Errors: the parser's words.
pub fn yaml(body: &[u8]) -> Result<Value, String> {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_slice_with_options(body, options).map_err(|error| error.without_snippet().to_string())
}

/// A field that stands twice in a YAML body: `line 5: key "a" already set in map`.
pub fn yaml_repeated(body: &[u8]) -> Option<String> {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::Error };
    let error = serde_saphyr::from_slice_with_options::<Value>(body, options).err()?;
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.as_deref().unwrap_or_default();
            Some(format!("line {}: key {} already set in map", location.line(), Value::from(key)))
        }
        _ => None,
    }
}

/// Why a body is no JSON.
pub fn json_words(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() }
}

/// A value's kind in the words of the messages.
pub fn kind_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The first value that its built-in type cannot take:
/// `json: cannot unmarshal number into Go struct field ConfigMap.data of type string`.
pub fn mismatch(shape: Shape<'_>, kind: &str, value: &Value) -> Option<String> {
    mismatch_at(shape, kind, "", value)
}

fn mismatch_at(shape: Shape<'_>, owner: &str, path: &str, value: &Value) -> Option<String> {
    let schema = shape.schema?;
    let fits = match (schema["type"].as_str(), value) {
        (_, Value::Null) | (None, _) => true,
        (Some("object"), value) => value.is_object(),
        (Some("array"), value) => value.is_array(),
        (Some("string"), value) => value.is_string(),
        (Some("boolean"), value) => value.is_boolean(),
        (Some("integer"), value) => value.is_i64(),
        (Some("number"), value) => value.is_number(),
        _ => true,
    };
    if !fits {
        let (found, wanted) = (kind_word(value), go_type(schema));
        return Some(format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}"));
    }
    match value {
        Value::Object(fields) => {
            let own = schema["x-go-name"].as_str();
            let owner = own.unwrap_or(owner);
            fields.iter().find_map(|(name, inner)| {
                let step = if shape.names(name) { name.as_str() } else { "" };
                let at = [path, step].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
                mismatch_at(shape.field(name), owner, &at, inner)
            })
        }
        Value::Array(items) => items.iter().find_map(|item| mismatch_at(shape.items(), owner, path, item)),
        _ => None,
    }
}

fn go_type(schema: &Value) -> String {
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("boolean"), _) => "bool".to_owned(),
        (Some("integer"), format) => format.unwrap_or("int64").to_owned(),
        (Some("number"), _) => "float64".to_owned(),
        (Some("array"), _) => format!("[]{}", go_type(&schema["items"])),
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            format!("map[string]{}", go_type(&schema["additionalProperties"]))
        }
        (Some("object"), _) => format!("v1.{}", schema["x-go-name"].as_str().unwrap_or("Object")),
        _ => "string".to_owned(),
    }
}

/// Takes away what a built-in type does not have, nulls, and lists and maps without items, which such types do not
/// keep; tells the unknown fields. `path` is where the value stands.
pub fn prune_built_in(shape: Shape<'_>, path: &str, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(shape, path, value, &mut unknown);
    unknown
}

fn prune_at(shape: Shape<'_>, path: &str, value: &mut Value, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if !shape.allows(&name) {
                    unknown.push(format!("unknown field \"{at}\""));
                    fields.remove(&name);
                    continue;
                }
                let inner = shape.field(&name);
                let Some(field) = fields.get_mut(&name) else { continue };
                if at == "metadata.managedFields" {
                    continue;
                }
                prune_at(inner, &at, field, unknown);
                let is_map = inner.schema.is_some_and(|schema| schema["additionalProperties"].is_object());
                let empty = match field {
                    Value::Null => inner.schema.is_some(),
                    Value::Array(items) => items.is_empty() && inner.schema.is_some(),
                    Value::Object(fields) => fields.is_empty() && is_map,
                    _ => false,
                };
                if empty {
                    fields.remove(&name);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune_at(shape.items(), &format!("{path}[{index}]"), item, unknown);
            }
        }
        _ => {}
    }
}

struct Seed<'a, 's> {
    shape: Option<Shape<'s>>,
    path: String,
    depth: usize,
    found: &'a mut Vec<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > DEEPEST {
            return serde::de::IgnoredAny::deserialize(deserializer).map(|_| ());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let known = self.shape.is_none_or(|shape| shape.allows(&name));
            let shape = self.shape.map(|shape| shape.field(&name));
            if !seen.insert(name) {
                self.found.push(format!("duplicate field \"{path}\""));
            }
            if known {
                map.next_value_seed(Seed { shape, path, depth: self.depth + 1, found: &mut *self.found })?;
            } else {
                self.found.push(format!("unknown field \"{path}\""));
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while list
            .next_element_seed(Seed {
                shape: self.shape.map(Shape::items),
                path: format!("{}[{index}]", self.path),
                depth: self.depth + 1,
                found: &mut *self.found,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_fields_are_found_with_their_place() {
        let body = br#"{"spec": {"a": 1, "b": [{"x": 1, "x": 2}], "a": null}, "kind": "K"}"#;
        let found = ["duplicate field \"spec.b[0].x\"", "duplicate field \"spec.a\""];
        assert_eq!(json_problems(None, body), found);
        assert!(json_problems(None, b"{broken").is_empty());
        assert_eq!(
            yaml_repeated(b"a: 1\nb:\n  c: 1\n  c: 2\n").as_deref(),
            Some("line 4: key \"c\" already set in map")
        );
        assert_eq!(yaml(b"a: 1\na: 2\n"), Ok(json!({"a": 2})));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_as_json_and_as_yaml(text in "[ \\n\\[\\]{}:\",&*!|>#%@`'a-c0-9-]{0,80}") {
            let _ = json_problems(None, text.as_bytes());
            let _ = yaml(text.as_bytes());
            let _ = yaml_repeated(text.as_bytes());
        }

        #[test]
        fn json_is_yaml(value in proptest::collection::btree_map("[a-z]{1,3}", proptest::collection::vec(any::<i32>(), 0..3), 0..4)) {
            let value = json!(value);
            prop_assert_eq!(yaml(value.to_string().as_bytes()), Ok(value));
        }
    }
}
