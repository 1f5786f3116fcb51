//! Who set which field (`metadata.managedFields`), and server-side apply. Pure.
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::catalog::Resource;
use super::fieldset::{FieldSet, ListKind, Path, Shape, item_step, remove_at, value_at, words};
use super::status::ApiError;

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    pub manager: String,
    pub apply: bool,
    /// `status`, or empty for the main path.
    pub subresource: &'static str,
    pub now: Timestamp,
}

impl Writer {
    fn operation(&self) -> &'static str {
        if self.apply { "Apply" } else { "Update" }
    }
    fn is(&self, entry: &Entry) -> bool {
        entry.manager == self.manager && entry.operation == self.operation() && entry.subresource == self.subresource
    }
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: FieldSet,
}

fn entries(object: &Value) -> Vec<Entry> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    listed
        .map(|entry| Entry {
            manager: text(&entry["manager"]),
            operation: text(&entry["operation"]),
            api_version: text(&entry["apiVersion"]),
            subresource: text(&entry["subresource"]),
            time: text(&entry["time"]),
            fields: FieldSet::from_json(&entry["fieldsV1"]),
        })
        .filter(|entry| !entry.manager.is_empty())
        .collect()
}

/// Writes the entries into the object: applied ones first, empty ones not at all.
fn put_entries(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by_key(|entry| entry.operation != "Apply");
    let listed: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": entry.fields.to_json(),
            });
            if !entry.subresource.is_empty() {
                value["subresource"] = json!(entry.subresource);
            }
            value
        })
        .collect();
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    if listed.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(listed));
    }
}

fn whole_seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Gives every field that a write changed to its writer. `old` is `None` for a new object.
pub fn track(resource: &Resource, old: Option<&Value>, new: &mut Value, writer: &Writer) {
    let before = old.map_or_else(FieldSet::default, |old| FieldSet::of(resource, old));
    let after = FieldSet::of(resource, new);
    let same = |path: &Path| old.is_some_and(|old| value_at(old, path) == value_at(new, path));
    let changed: Vec<Path> = after.0.iter().filter(|path| !(before.contains(path) && same(path))).cloned().collect();
    // A client may write the list itself; then it is taken as given, apart from what this write changes.
    let mut entries = entries(new);
    for entry in &mut entries {
        let theirs = writer.is(entry);
        entry.fields.0.retain(|path| after.contains(path) && (theirs || !changed.contains(path)));
    }
    if !changed.is_empty() {
        let at = entries.iter().position(|entry| writer.is(entry)).unwrap_or_else(|| {
            entries.push(Entry {
                manager: writer.manager.clone(),
                operation: writer.operation().to_owned(),
                api_version: resource.api_version(),
                subresource: writer.subresource.to_owned(),
                time: String::new(),
                fields: FieldSet::default(),
            });
            entries.len() - 1
        });
        entries[at].fields.0.extend(changed);
        entries[at].time = whole_seconds(writer.now);
    }
    put_entries(new, entries);
}

/// Whether two objects say the same, the times of `managedFields` aside.
pub fn same(a: &Value, b: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
            entry["time"] = Value::Null;
        }
        object
    };
    a == b || timeless(a) == timeless(b)
}

/// Merges an applied configuration into an object. The answer still has to be validated.
pub fn apply(
    resource: &Resource,
    old: &Value,
    config: &Value,
    writer: &Writer,
    force: bool,
) -> Result<Value, ApiError> {
    let mut config = config.clone();
    if let Some(metadata) = config["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    let wanted = FieldSet::of(resource, &config);
    let mut merged = merge(Shape::of(resource), true, old, &config);
    let mut entries = entries(old);
    if entries.is_empty() && !old["metadata"]["uid"].is_null() {
        // Set by nobody knows whom before anybody applied.
        entries.push(Entry {
            manager: "before-first-apply".to_owned(),
            operation: "Update".to_owned(),
            api_version: resource.api_version(),
            subresource: String::new(),
            time: whole_seconds(writer.now),
            fields: FieldSet::of(resource, old),
        });
    }
    // That an item is there can be said by several; only its fields can be fought over.
    let differs =
        |path: &Path| path.last().is_none_or(|step| step != ".") && value_at(old, path) != value_at(&merged, path);
    let mut conflicts: Vec<(String, Path)> = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !writer.is(entry)) {
        let lost: Vec<Path> =
            entry.fields.0.iter().filter(|path| wanted.contains(path) && differs(path)).cloned().collect();
        if force {
            entry.fields.0.retain(|path| !lost.contains(path));
        } else {
            let how = if entry.operation == "Apply" { String::new() } else { format!(" using {}", entry.api_version) };
            conflicts.extend(lost.into_iter().map(|path| (format!("\"{}\"{how}", entry.manager), path)));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflict_error(&conflicts));
    }
    let previous = entries.iter().find(|entry| writer.is(entry)).map(|entry| entry.fields.clone()).unwrap_or_default();
    for path in previous.0.iter().filter(|path| !wanted.contains(path)) {
        let others = entries.iter().any(|entry| !writer.is(entry) && entry.fields.contains(path));
        if !others {
            remove_at(&mut merged, path);
        }
    }
    let changed = previous != wanted || !same_content(old, &merged);
    let time = entries.iter().find(|entry| writer.is(entry)).map(|entry| entry.time.clone());
    entries.retain(|entry| !writer.is(entry));
    entries.push(Entry {
        manager: writer.manager.clone(),
        operation: "Apply".to_owned(),
        api_version: resource.api_version(),
        subresource: writer.subresource.to_owned(),
        time: time.filter(|_| !changed).unwrap_or_else(|| whole_seconds(writer.now)),
        fields: wanted,
    });
    put_entries(&mut merged, entries);
    Ok(merged)
}

fn same_content(a: &Value, b: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        object
    };
    bare(a) == bare(b)
}

fn conflict_error(conflicts: &[(String, Path)]) -> ApiError {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(who, path)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {who}"), "field": words(path)}))
        .collect();
    let message = match conflicts {
        [(who, path)] => format!("Apply failed with 1 conflict: conflict with {who}: {}", words(path)),
        several => {
            let mut managers: Vec<&String> = several.iter().map(|(who, _)| who).collect();
            managers.dedup();
            let mut text = format!("Apply failed with {} conflicts: conflicts with ", several.len());
            let parts: Vec<String> = managers
                .into_iter()
                .map(|manager| {
                    let fields =
                        several.iter().filter(|(who, _)| who == manager).map(|(_, path)| format!("- {}", words(path)));
                    format!("{manager}:\n{}", fields.collect::<Vec<_>>().join("\n"))
                })
                .collect();
            text.push_str(&parts.join("\nconflicts with "));
            text
        }
    };
    ApiError::apply_conflict(message, causes)
}

/// The configuration laid over the object, lists by their kind.
fn merge(shape: Shape<'_>, root: bool, old: &Value, new: &Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut merged: Map<String, Value> = old.clone();
            for (name, value) in new {
                let inner = shape.field(root, name);
                let result = match old.get(name) {
                    Some(before) => merge(inner, false, before, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), result);
            }
            Value::Object(merged)
        }
        (Value::Array(old), Value::Array(new)) => match shape.list_kind() {
            ListKind::Atomic => Value::Array(new.clone()),
            ListKind::Set => {
                let mut merged = old.clone();
                merged.extend(new.iter().filter(|item| !old.contains(item)).cloned());
                Value::Array(merged)
            }
            ListKind::Map(keys) => {
                let mut merged = old.clone();
                for item in new {
                    let step = item_step(&keys, item);
                    match merged.iter().position(|other| item_step(&keys, other) == step) {
                        Some(at) => merged[at] = merge(shape.items(), false, &merged[at], item),
                        None => merged.push(item.clone()),
                    }
                }
                Value::Array(merged)
            }
        },
        (_, new) => new.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resource() -> Resource {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "additionalProperties": {"type": "string"}, "properties": {
                "list": {"type": "array", "items": {"type": "string"}},
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                    "items": {"type": "object", "properties": {"id": {"type": "string"}, "v": {"type": "string"}}}},
            }},
        }});
        Resource {
            group: "g".into(),
            version: "v1".into(),
            plural: "things".into(),
            singular: "thing".into(),
            kind: "Thing".into(),
            short_names: vec![],
            categories: vec![],
            namespaced: true,
            has_status: true,
            schema: Some(std::sync::Arc::new(schema)),
            rules: None,
            columns: vec![],
        }
    }

    fn by(manager: &str) -> Writer {
        Writer { manager: manager.into(), apply: true, subresource: "", now: Timestamp::UNIX_EPOCH }
    }

    /// An object; without a spec at all where it is null.
    fn object(spec: Value) -> Value {
        let mut object = json!({"apiVersion": "g/v1", "kind": "Thing", "metadata": {"name": "a"}});
        if !spec.is_null() {
            object["spec"] = spec;
        }
        object
    }

    fn applied(old: &Value, spec: Value, manager: &str, force: bool) -> Result<Value, String> {
        apply(&resource(), old, &object(spec), &by(manager), force).map_err(|error| error.message)
    }

    #[test]
    fn what_is_no_longer_applied_goes_unless_another_owns_it() {
        let first = applied(&object(json!({})), json!({"a": "1", "b": "2"}), "one", false).unwrap();
        let second = applied(&first, json!({"a": "1", "c": "3"}), "two", false).unwrap();
        let third = applied(&second, json!({}), "one", false).unwrap();
        assert_eq!(third["spec"], json!({"a": "1", "c": "3"}));
        let fourth = applied(&third, json!({"c": "3"}), "two", false).unwrap();
        assert_eq!(fourth["spec"], json!({"c": "3"}));
    }

    #[test]
    fn a_conflict_names_manager_and_field_and_force_takes_over() {
        let first = applied(&object(json!({})), json!({"a": "1"}), "one", false).unwrap();
        let error = applied(&first, json!({"a": "2"}), "two", false).unwrap_err();
        assert_eq!(error, "Apply failed with 1 conflict: conflict with \"one\": .spec.a");
        let forced = applied(&first, json!({"a": "2"}), "two", true).unwrap();
        assert_eq!(forced["spec"]["a"], "2");
        assert!(applied(&forced, json!({"a": "1"}), "one", false).is_err());
        // the same value is shared, not fought over
        assert!(applied(&forced, json!({"a": "2"}), "one", false).is_ok());
    }

    #[test]
    fn lists_merge_by_their_kind() {
        let map = |items: Value| json!({"map": items, "set": ["x"], "list": ["1"]});
        let first = applied(&object(json!({})), map(json!([{"id": "a", "v": "1"}])), "one", false).unwrap();
        let second = applied(&first, json!({"map": [{"id": "b", "v": "2"}], "set": ["y"]}), "two", false).unwrap();
        assert_eq!(second["spec"]["map"], json!([{"id": "a", "v": "1"}, {"id": "b", "v": "2"}]));
        assert_eq!(second["spec"]["set"], json!(["x", "y"]));
        let third = applied(&second, json!({"list": ["1"]}), "one", false).unwrap();
        assert_eq!(third["spec"], json!({"map": [{"id": "b", "v": "2"}], "set": ["y"], "list": ["1"]}));
        let error = applied(&third, json!({"map": [{"id": "b", "v": "9"}]}), "one", false).unwrap_err();
        assert_eq!(error, "Apply failed with 1 conflict: conflict with \"two\": .spec.map[id=\"b\"].v");
    }

    #[test]
    fn an_update_takes_the_fields_it_changes() {
        let first = applied(&object(json!({})), json!({"a": "1", "b": "2"}), "one", false).unwrap();
        let mut new = first.clone();
        new["spec"]["a"] = json!("9");
        let updater =
            Writer { manager: "kubectl-edit".into(), apply: false, subresource: "", now: Timestamp::UNIX_EPOCH };
        track(&resource(), Some(&first), &mut new, &updater);
        let error = applied(&new, json!({"a": "1", "b": "2"}), "one", false).unwrap_err();
        assert_eq!(error, "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using g/v1: .spec.a");
        let fields: Vec<_> =
            new["metadata"]["managedFields"].as_array().unwrap().iter().map(|e| e["fieldsV1"].clone()).collect();
        assert_eq!(fields, [json!({"f:spec": {"f:b": {}}}), json!({"f:spec": {"f:a": {}}})]);
    }

    fn spec() -> impl Strategy<Value = Value> {
        let text = || proptest::sample::select(vec!["a", "b", "c"]);
        let map = proptest::collection::btree_map(text(), text(), 0..3);
        let set = proptest::collection::btree_set(text(), 0..3);
        let items = proptest::collection::btree_map(text(), text(), 0..3);
        (map, set, items).prop_map(|(map, set, items)| {
            let mut spec = json!(map);
            spec["set"] = json!(set);
            spec["map"] = items.into_iter().map(|(id, v)| json!({"id": id, "v": v})).collect();
            spec
        })
    }

    proptest! {
        #[test]
        fn applying_the_same_twice_changes_nothing(start in spec(), config in spec()) {
            let once = applied(&object(start), config.clone(), "one", true).unwrap();
            let twice = applied(&once, config, "one", false).unwrap();
            prop_assert!(same(&once, &twice), "{once} {twice}");
        }

        #[test]
        fn who_applies_something_and_then_nothing_leaves_nothing(first in spec(), second in spec()) {
            let base = applied(&object(json!({})), first, "one", false).unwrap();
            let with = applied(&base, second, "two", true).unwrap();
            let without = applied(&with, Value::Null, "two", false).unwrap();
            prop_assert!(!without["metadata"]["managedFields"].to_string().contains("\"two\""));
            let one = applied(&without, Value::Null, "one", false).unwrap();
            let left = one["spec"].as_object().cloned().unwrap_or_default();
            prop_assert!(left.values().all(|v| v.as_array().is_some_and(Vec::is_empty)), "{one}");
        }

        #[test]
        fn field_sets_survive_writing(object_spec in spec()) {
            let set = FieldSet::of(&resource(), &object(object_spec));
            prop_assert_eq!(FieldSet::from_json(&set.to_json()), set);
        }
    }
}
