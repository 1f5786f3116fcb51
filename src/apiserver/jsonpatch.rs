//! JSON patches as Kubernetes applies them, which is looser than RFC 6902: a field that is missing counts as null
//! when it is read, may be replaced, and indices may count from the end. Pure.
use serde_json::{Map, Value};

use super::status::ApiError;

/// Most operations of one patch.
const MOST_OPERATIONS: usize = 10_000;
/// Most that a patch may copy, in bytes of JSON.
const MOST_COPIED: usize = 3 << 20;
/// Most items of lists that a patch may make others go past, by putting in and taking out before them.
const MOST_MOVED: usize = 20_000_000;

/// One operation, as the client wrote it.
#[derive(Debug, Clone, PartialEq)]
struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JsonPatch(Vec<Operation>);

/// What a patch has done so far of what it may do only so much of.
#[derive(Default)]
struct Done {
    copied: usize,
    moved: usize,
}

impl Done {
    fn moves(&mut self, items: usize) -> Result<(), Failed> {
        self.moved += items;
        if self.moved > MOST_MOVED { Err(Failed) } else { Ok(()) }
    }
}

/// It does not apply. Kubernetes does not tell its clients why.
struct Failed;

impl JsonPatch {
    /// Reads a patch. Errors: a 400 for what is none, a 413 for one that is too long.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let unreadable = |words: String| ApiError::bad_request(format!("error decoding patch: {words}"));
        let list: Value =
            serde_json::from_slice(body).map_err(|error| unreadable(super::strict::json_words(&error)))?;
        let Value::Array(list) = list else {
            let kind = super::strict::kind_word(&list);
            return Err(unreadable(format!(
                "json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
            )));
        };
        if list.len() > MOST_OPERATIONS {
            let found = list.len();
            let words = format!("The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {found}");
            return Err(ApiError::too_large_because(words));
        }
        let mut operations = Vec::new();
        for item in list {
            let Value::Object(fields) = item else {
                let kind = super::strict::kind_word(&item);
                let words = format!("json: cannot unmarshal {kind} into Go value of type handlers.jsonPatchOp");
                return Err(unreadable(words));
            };
            let text = |name: &str| match fields.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(other) => {
                    let kind = super::strict::kind_word(other);
                    let field = format!("jsonPatchOp.{name}");
                    Err(unreadable(format!(
                        "json: cannot unmarshal {kind} into Go struct field {field} of type string"
                    )))
                }
            };
            let (op, path, from) = (text("op")?.unwrap_or_default(), text("path")?, text("from")?);
            operations.push(Operation { op, path, from, value: fields.get("value").cloned().unwrap_or_default() });
        }
        Ok(Self(operations))
    }

    /// Fields of operations that mean nothing.
    pub fn unknown(body: &[u8]) -> Vec<String> {
        let Ok(Value::Array(list)) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
        let mut found = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let names = item.as_object().into_iter().flat_map(Map::keys);
            let unknown = names.filter(|name| !["op", "path", "from", "value"].contains(&name.as_str()));
            found.extend(unknown.map(|name| format!("json patch unknown field \"[{index}].{name}\"")));
        }
        found
    }

    /// The object with the patch applied. Errors: a 422 that does not say more, as in Kubernetes.
    pub fn apply(&self, old: &Value) -> Result<Value, ApiError> {
        let mut new = old.clone();
        let mut done = Done::default();
        for operation in &self.0 {
            step(&mut new, operation, &mut done).map_err(|Failed| ApiError::rejected())?;
        }
        Ok(new)
    }
}

fn step(document: &mut Value, operation: &Operation, done: &mut Done) -> Result<(), Failed> {
    let path = operation.path.as_deref().ok_or(Failed)?;
    match operation.op.as_str() {
        "add" => put(document, path, operation.value.clone(), true, done),
        "replace" if path.is_empty() => {
            if !operation.value.is_object() && !operation.value.is_array() {
                return Err(Failed);
            }
            *document = operation.value.clone();
            Ok(())
        }
        "replace" => {
            read(document, path)?;
            put(document, path, operation.value.clone(), false, done)
        }
        "remove" => take(document, path, done).map(|_| ()),
        "test" if path.is_empty() => {
            if *document == operation.value {
                Ok(())
            } else {
                Err(Failed)
            }
        }
        "test" => {
            if *read(document, path)? == operation.value {
                Ok(())
            } else {
                Err(Failed)
            }
        }
        "move" => {
            let value = take(document, operation.from.as_deref().ok_or(Failed)?, done)?;
            put(document, path, value, true, done)
        }
        "copy" => {
            let value = read(document, operation.from.as_deref().ok_or(Failed)?)?.clone();
            done.copied += value.to_string().len();
            if done.copied > MOST_COPIED {
                return Err(Failed);
            }
            put(document, path, value, true, done)
        }
        _ => Err(Failed),
    }
}

/// What a path's last part is in, and that part.
fn container<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Failed> {
    let parts: Vec<String> = path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    // A path has a leading slash, so that its first part is empty.
    let (last, inner) = parts.get(1..).and_then(<[String]>::split_last).ok_or(Failed)?;
    let mut at = document;
    for part in inner {
        at = match at {
            Value::Object(fields) => fields.get_mut(part).ok_or(Failed)?,
            Value::Array(items) => {
                let index = index_of(part, items.len()).filter(|index| *index < items.len()).ok_or(Failed)?;
                &mut items[index]
            }
            _ => return Err(Failed),
        };
    }
    if at.is_object() || at.is_array() { Ok((at, last.clone())) } else { Err(Failed) }
}

/// An index, from the end where it is negative.
fn index_of(part: &str, length: usize) -> Option<usize> {
    let index: i64 = part.parse().ok()?;
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn read<'a>(document: &'a mut Value, path: &str) -> Result<&'a Value, Failed> {
    let (at, last) = container(document, path)?;
    match at {
        Value::Object(fields) => Ok(fields.get(&last).unwrap_or(&Value::Null)),
        Value::Array(items) => index_of(&last, items.len()).and_then(|index| items.get(index)).ok_or(Failed),
        _ => Err(Failed),
    }
}

fn take(document: &mut Value, path: &str, done: &mut Done) -> Result<Value, Failed> {
    let (at, last) = container(document, path)?;
    match at {
        Value::Object(fields) => fields.remove(&last).ok_or(Failed),
        Value::Array(items) => {
            let index = index_of(&last, items.len()).filter(|index| *index < items.len()).ok_or(Failed)?;
            done.moves(items.len() - index)?;
            Ok(items.remove(index))
        }
        _ => Err(Failed),
    }
}

fn put(document: &mut Value, path: &str, value: Value, insert: bool, done: &mut Done) -> Result<(), Failed> {
    let (at, last) = container(document, path)?;
    match at {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) if insert && last == "-" => items.push(value),
        Value::Array(items) if insert => {
            let index = index_of(&last, items.len() + 1).filter(|index| *index <= items.len()).ok_or(Failed)?;
            done.moves(items.len() - index)?;
            items.insert(index, value);
        }
        Value::Array(items) => {
            let index = index_of(&last, items.len()).ok_or(Failed)?;
            *items.get_mut(index).ok_or(Failed)? = value;
        }
        _ => return Err(Failed),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn patched(old: Value, patch: Value) -> Option<Value> {
        JsonPatch::parse(patch.to_string().as_bytes()).unwrap().apply(&old).ok()
    }

    #[test]
    fn missing_fields_count_as_null_and_indices_may_count_from_the_end() {
        let old = json!({"a": {"b": "1"}, "list": [1, 2]});
        let one = |operation: Value| patched(old.clone(), json!([operation]));
        assert!(one(json!({"op": "test", "path": "/a/none", "value": null})).is_some());
        assert!(one(json!({"op": "test", "path": "/none/b", "value": null})).is_none());
        assert_eq!(one(json!({"op": "replace", "path": "/a/c", "value": 2})).unwrap()["a"], json!({"b": "1", "c": 2}));
        assert_eq!(one(json!({"op": "copy", "from": "/a/none", "path": "/a/c"})).unwrap()["a"]["c"], Value::Null);
        assert_eq!(one(json!({"op": "remove", "path": "/list/-1"})).unwrap()["list"], json!([1]));
        assert_eq!(one(json!({"op": "add", "path": "/list/-", "value": 3})).unwrap()["list"], json!([1, 2, 3]));
        assert_eq!(one(json!({"op": "add", "path": "/list/-1", "value": 3})).unwrap()["list"], json!([1, 2, 3]));
        assert!(one(json!({"op": "add", "path": "/list/3", "value": 3})).is_none());
        assert!(one(json!({"op": "remove", "path": "/a/none"})).is_none());
        assert!(one(json!({"op": "move", "from": "/a/none", "path": "/x"})).is_none());
    }

    fn small() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (-2..3_i64).prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_patch_of_anything_is_applied_or_refused(
            old in small(),
            operations in proptest::collection::vec(
                ("(add|remove|replace|move|copy|test|odd)", "(/[ab0-9-]{0,2}){0,3}", "(/[ab0-9-]{0,2}){0,3}", small()), 0..5),
        ) {
            let listed: Vec<Value> = operations
                .iter()
                .map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
                .collect();
            let patch = JsonPatch::parse(json!(listed).to_string().as_bytes()).unwrap();
            if let Ok(new) = patch.apply(&old) {
                // what was applied can be applied again to the same, with the same result
                prop_assert_eq!(patch.apply(&old), Ok(new));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in "[\\[\\]{}:\", opathvlue/0-9]{0,80}") {
            let _ = JsonPatch::parse(body.as_bytes());
            let _ = JsonPatch::unknown(body.as_bytes());
        }

        #[test]
        fn adding_and_removing_again_changes_nothing(name in "[a-z~/]{1,6}", value in small()) {
            let old = json!({"metadata": {"name": "x"}});
            let path = format!("/metadata/new-{}", name.replace('~', "~0").replace('/', "~1"));
            let patch = json!([{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}, {"op": "remove", "path": path}]);
            prop_assert_eq!(patched(old.clone(), patch), Some(old));
        }
    }
}
