//! Strategic merge patches, which built-in kinds take: some lists are merged by a key, and directives in the patch
//! say what else is to happen. Pure.
use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::gotext::{plain, type_name};
use super::status::ApiError;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// How a list is merged: by a key, as a set of plain values, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Keyed(&'static str),
    Set,
    Replaced,
}

fn lists(kind: &str, path: &str) -> Lists {
    match (kind, path) {
        (_, "metadata.finalizers") => Lists::Set,
        (_, "metadata.ownerReferences") => Lists::Keyed("uid"),
        ("Service", "spec.ports") => Lists::Keyed("port"),
        ("ServiceAccount", "secrets") => Lists::Keyed("name"),
        ("Service" | "Namespace", "status.conditions") => Lists::Keyed("type"),
        _ => Lists::Replaced,
    }
}

/// An object of a kind with a patch applied. Errors: those of Kubernetes, most of which are 500s.
pub fn apply(kind: &str, old: &Value, patch: &Map<String, Value>) -> Result<Value, ApiError> {
    let original = old.as_object().cloned().unwrap_or_default();
    merge_map(kind, "", original, patch.clone()).map(Value::Object)
}

fn unexpected(words: String) -> ApiError {
    ApiError::unnamed(500, words)
}

fn unknown_directive(directive: &Value, within: &Map<String, Value>) -> ApiError {
    let shown = plain(&Value::Object(within.clone()));
    unexpected(format!("unknown patch type: {} in map: {shown}", plain(directive)))
}

fn no_key(item: &Map<String, Value>, key: &str) -> ApiError {
    unexpected(format!("map: {} does not contain declared merge key: {key}", plain(&Value::Object(item.clone()))))
}

type Fields = Map<String, Value>;

fn merge_map(kind: &str, path: &str, mut original: Fields, mut patch: Fields) -> Result<Fields, ApiError> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            patch.remove(DIRECTIVE);
            return Ok(patch);
        }
        Some("delete") => return Ok(Map::new()),
        _ => {}
    }
    if let Some(directive) = patch.get(DIRECTIVE) {
        return Err(unknown_directive(directive, &patch));
    }
    retain(&mut original, &mut patch)?;
    order(kind, path, &mut original, &mut patch)?;
    for (name, value) in patch {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM) {
            Some(name) => (name.to_owned(), true),
            None => (name, false),
        };
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let merged = match (original.remove(&name), value) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                Some(Value::Object(merge_map(kind, &at, before, after)?))
            }
            (Some(Value::Array(before)), Value::Array(after)) => {
                let how = lists(kind, &at);
                Some(Value::Array(match (how, deletes) {
                    (Lists::Replaced, false) => after,
                    _ => merge_list(kind, &at, before, after, deletes)?,
                }))
            }
            (before, _) if deletes => before,
            (_, value) => bare(value),
        };
        if let Some(merged) = merged {
            original.insert(name, merged);
        }
    }
    Ok(original)
}

/// `$retainKeys`: everything else goes.
fn retain(original: &mut Fields, patch: &mut Fields) -> Result<(), ApiError> {
    let Some(kept) = patch.remove(RETAIN) else { return Ok(()) };
    let bad = || ApiError::bad_request("invalid patch format of retainKeys");
    let kept = kept.as_array().cloned().ok_or_else(bad)?;
    let kept: HashSet<&str> = kept.iter().filter_map(Value::as_str).collect();
    let listed = |name: &String| kept.contains(name.as_str());
    let special = |name: &String| name.starts_with(DELETE_FROM) || name.starts_with(ORDER);
    if patch.iter().any(|(name, value)| !value.is_null() && !special(name) && !listed(name)) {
        return Err(bad());
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// `$setElementOrder`: the patch's list is merged and put into the wished order.
fn order(kind: &str, path: &str, original: &mut Fields, patch: &mut Fields) -> Result<(), ApiError> {
    let wishes: Vec<String> = patch.keys().filter(|name| name.starts_with(ORDER)).cloned().collect();
    for directive in wishes {
        let wish = patch.remove(&directive).unwrap_or_default();
        let name = directive.trim_start_matches(ORDER).to_owned();
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let list = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => {
                Err(unexpected(format!("expected a []interface {{}}, but received a {}", type_name(&other))))
            }
        };
        let wish = list(Some(wish))?.unwrap_or_default();
        let before = list(original.get(&name).cloned())?;
        let after = list(patch.remove(&name))?;
        let key = match lists(kind, &at) {
            Lists::Keyed(key) => key,
            _ => "",
        };
        fits_order(after.as_deref().unwrap_or_default(), &wish, key)?;
        let server = before.clone().unwrap_or_default();
        let merged = match (before, after) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(after)) => after.into_iter().filter_map(bare).collect(),
            (Some(_), Some(after)) if lists(kind, &at) == Lists::Replaced => after,
            (Some(before), Some(after)) => merge_list(kind, &at, before, after, false)?,
        };
        if merged.iter().any(Value::is_object) && !key.is_empty() {
            has_keys(key, &wish)?;
        }
        original.insert(name, Value::Array(ordered(merged, &wish, &server, key)));
    }
    Ok(())
}

fn has_keys(key: &str, items: &[Value]) -> Result<(), ApiError> {
    for item in items.iter().filter_map(Value::as_object) {
        if !item.contains_key(key) {
            return Err(no_key(item, key));
        }
    }
    Ok(())
}

/// What tells an item from the others: its key or, without one, all of it.
fn identity(item: &Value, key: &str) -> String {
    if key.is_empty() || !item.is_object() { format!("={item}") } else { format!("@{}", item[key]) }
}

/// The items of the patch have to come in the order that is wished for.
fn fits_order(items: &[Value], wish: &[Value], key: &str) -> Result<(), ApiError> {
    if items.is_empty() || wish.is_empty() {
        return Ok(());
    }
    let mut left = items.iter().filter(|item| item.get(DIRECTIVE).is_none()).peekable();
    for wished in wish {
        if left.peek().is_some_and(|item| identity(item, key) == identity(wished, key)) {
            left.next();
        }
    }
    if left.peek().is_none() {
        return Ok(());
    }
    let (items, wish) = (plain(&json!(items)), plain(&json!(wish)));
    Err(unexpected(format!("The order in patch list:\n{items}\n doesn't match $setElementOrder list:\n{wish}\n")))
}

/// Where each item stands first.
fn places(items: &[Value], key: &str) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        found.entry(identity(item, key)).or_insert(place);
    }
    found
}

/// Items that are wished for in the wished order, the others in the server's, the two woven together.
fn ordered(merged: Vec<Value>, wish: &[Value], server: &[Value], key: &str) -> Vec<Value> {
    let (wish, server) = (places(wish, key), places(server, key));
    let place = |order: &HashMap<String, usize>, item: &Value| order.get(&identity(item, key)).copied();
    let (mut wished, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(&wish, item).is_some());
    wished.sort_by_cached_key(|item| place(&wish, item));
    others.sort_by_cached_key(|item| place(&server, item));
    let (mut wished, mut others) = (wished.into_iter().peekable(), others.into_iter().peekable());
    let mut woven = Vec::new();
    loop {
        let server_first = match (others.peek(), wished.peek()) {
            (None, None) => return woven,
            (other, None) => other.is_some(),
            (None, _) => false,
            (Some(other), Some(item)) => match (place(&server, other), place(&server, item)) {
                (Some(other), Some(item)) => other < item,
                _ => false,
            },
        };
        woven.extend(if server_first { others.next() } else { wished.next() });
    }
}

fn merge_list(
    kind: &str,
    path: &str,
    before: Vec<Value>,
    after: Vec<Value>,
    deletes: bool,
) -> Result<Vec<Value>, ApiError> {
    let all = || before.iter().chain(&after);
    let Some(first) = all().next() else { return Ok(before) };
    let maps = first.is_object();
    if all().any(Value::is_array) {
        return Err(ApiError::rejected());
    }
    if all().any(|item| type_name(item) != type_name(first)) {
        let shown = plain(&json!([before, after]));
        return Err(unexpected(format!("list element types are not identical: {shown}")));
    }
    if !maps {
        if deletes {
            let gone: HashSet<String> = after.iter().map(Value::to_string).collect();
            return Ok(before.into_iter().filter(|item| !gone.contains(&item.to_string())).collect());
        }
        let mut seen = HashSet::new();
        let merged: Vec<Value> = all().filter(|item| seen.insert(item.to_string())).cloned().collect();
        return Ok(ordered(merged, &after, &before, ""));
    }
    let Lists::Keyed(key) = lists(kind, path) else {
        return Err(unexpected(format!("cannot merge lists without merge key for {path}")));
    };
    let (mut list, mut plain_items, mut replaces) = (before, Vec::new(), false);
    let mut gone = HashSet::new();
    for item in after {
        let Value::Object(fields) = item else { continue };
        match fields.get(DIRECTIVE).map(|directive| (directive.as_str().unwrap_or_default(), directive)) {
            None => plain_items.push(fields),
            Some(("delete", _)) => {
                gone.insert(fields.get(key).ok_or_else(|| no_key(&fields, key))?.to_string());
            }
            Some(("replace", _)) => replaces = true,
            Some(("merge", _)) => {
                return Err(unexpected("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some((_, directive)) => return Err(unknown_directive(directive, &fields)),
        }
    }
    if replaces {
        return Ok(plain_items.into_iter().map(Value::Object).collect());
    }
    if !gone.is_empty() {
        list.retain(|other| !gone.contains(&other[key].to_string()));
    }
    let (server, wish) = (list.clone(), json!(plain_items));
    let keyed = list.iter().enumerate().filter(|(_, item)| item.get(key).is_some());
    // From the end, so that the first of several is the one that is found.
    let mut known: HashMap<String, usize> = keyed.rev().map(|(place, item)| (item[key].to_string(), place)).collect();
    for fields in plain_items {
        let wanted = fields.get(key).ok_or_else(|| no_key(&fields, key))?.to_string();
        match known.get(&wanted) {
            Some(index) => {
                let old = list[*index].as_object().cloned().unwrap_or_default();
                list[*index] = Value::Object(merge_map(kind, &format!("{path}[]"), old, fields)?);
            }
            None => {
                known.insert(wanted, list.len());
                list.push(Value::Object(fields));
            }
        }
    }
    Ok(ordered(list, wish.as_array().map(Vec::as_slice).unwrap_or_default(), &server, key))
}

/// A value that is new in the object: without nulls in it, and without what is only a directive.
fn bare(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Some(Value::Object(kept.filter_map(|(name, value)| Some((name, bare(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(bare).collect())),
        value => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patched(kind: &str, old: &Value, patch: &Value) -> Result<Value, String> {
        apply(kind, old, patch.as_object().unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn maps_merge_lists_replace_and_keyed_lists_merge_by_key() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x"]}, "list": [1, 2],
            "spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}});
        let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}, "finalizers": ["y"], "$setElementOrder/finalizers": ["x", "y"]},
            "list": [3], "spec": {"ports": [{"port": 443, "$patch": "delete"}, {"port": 80, "name": "web"}, {"port": 81}]}});
        let expected = json!({"metadata": {"labels": {"b": "2", "c": "3"}, "finalizers": ["x", "y"]}, "list": [3],
            "spec": {"ports": [{"port": 80, "name": "web"}, {"port": 81}]}});
        assert_eq!(patched("Service", &old, &patch), Ok(expected));
    }

    #[test]
    fn directives_replace_delete_and_take_from_sets() {
        let old = json!({"data": {"a": "1", "b": "2"}, "metadata": {"finalizers": ["x", "y"]}});
        let data = |patch: Value| patched("ConfigMap", &old, &patch).map(|new| new["data"].clone());
        assert_eq!(data(json!({"data": {"$patch": "replace", "c": "3"}})), Ok(json!({"c": "3"})));
        assert_eq!(data(json!({"data": {"$patch": "delete"}})), Ok(json!({})));
        let gone = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}});
        assert_eq!(patched("ConfigMap", &old, &gone).unwrap()["metadata"]["finalizers"], json!(["y"]));
        assert_eq!(data(json!({"$patch": "odd"})), Err("unknown patch type: odd in map: map[$patch:odd]".to_owned()));
    }

    fn small() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            "(x|y|replace|delete|merge|odd)".prop_map(Value::from),
            (0..3).prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let name = proptest::sample::select(vec![
                "spec",
                "ports",
                "port",
                "metadata",
                "finalizers",
                "ownerReferences",
                "uid",
                "$patch",
                "$retainKeys",
                "$setElementOrder/ports",
                "$setElementOrder/finalizers",
                "$deleteFromPrimitiveList/finalizers",
            ]);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_patch_of_anything_is_applied_or_refused(old in small(), patch in small()) {
            if let Some(patch) = patch.as_object() {
                let _ = apply("Service", &old, patch);
            }
        }

        #[test]
        fn a_patch_without_directives_can_be_applied_twice(
            old in proptest::collection::btree_map("[abc]", "[xyz]", 0..3),
            patch in proptest::collection::btree_map("[abc]", proptest::option::of("[xyz]"), 0..3),
        ) {
            let (old, patch) = (json!({"data": old}), json!({"data": patch}));
            let once = patched("ConfigMap", &old, &patch).unwrap();
            prop_assert_eq!(patched("ConfigMap", &once, &patch).unwrap(), once.clone());
            // and does what a merge patch does
            let mut merged = old;
            json_patch::merge(&mut merged, &patch);
            prop_assert_eq!(once, merged);
        }
    }
}
