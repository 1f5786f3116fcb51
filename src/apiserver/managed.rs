//! Who set which field (`metadata.managedFields`), and server-side apply. Pure.
use serde_json::{Value, json};

use super::catalog::Resource;
use super::fieldset::{FieldSet, field_step};
use super::gotext;
use super::managers::{Managed, Writer};
use super::shape::Shape;
use super::status::ApiError;
use super::typecheck::misfits;
use super::typed::{Comparison, fields, merge, remove, with_structures};

/// Where client-side apply keeps what it sent last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Largest annotations, in bytes, with what client-side apply keeps.
const LARGEST_ANNOTATIONS: usize = 256 * 1024;
/// Who set what was there before anybody applied.
const BEFORE: &str = "before-first-apply";

/// Metadata that nobody owns, because the server sets it or it is the object's name.
const NOBODYS_METADATA: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Root fields that a write to this path cannot change, so that nobody comes to own them by it.
fn reset(resource: &Resource, writer: &Writer) -> &'static [&'static str] {
    let definitions = resource.full_name() == super::catalog::DEFINITIONS;
    match (writer.subresource, resource.is_custom() || definitions) {
        ("status", true) => &["f:metadata", "f:spec"],
        ("status", false) => &["f:spec"],
        _ if resource.has_status => &["f:status"],
        _ => &[],
    }
}

/// A set without what nobody owns.
fn owned(set: &FieldSet) -> FieldSet {
    let mut nobodys = FieldSet::default();
    for root in ["apiVersion", "kind", "metadata"] {
        nobodys.insert(&[field_step(root)]);
    }
    for name in NOBODYS_METADATA {
        nobodys.insert(&[field_step("metadata"), field_step(name)]);
    }
    set.difference(&nobodys)
}

/// An object with the structures that every object of its kind has.
fn filled(shape: Shape<'_>, object: &Value) -> Value {
    let mut object = object.clone();
    for (name, empty) in shape.always() {
        let inner = match object.get(name) {
            None | Some(Value::Null) => empty.clone(),
            Some(value) => value.clone(),
        };
        object[name] = filled(shape.field(name), &inner);
    }
    object
}

fn without_managers(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(metadata) = bare["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    bare
}

fn compare(resource: &Resource, old: &Value, new: &Value, writer: &Writer) -> Comparison {
    let shape = Shape::of(resource);
    Comparison::of(shape, &filled(shape, old), &filled(shape, new)).without(reset(resource, writer))
}

/// Gives every field that a write changed to its writer. `old` is `None` for a new object.
pub fn track(resource: &Resource, old: Option<&Value>, new: &mut Value, writer: &Writer) {
    let mut managed = match old {
        // Only a write to the main path can change the list itself.
        Some(old) if !writer.subresource.is_empty() => Managed::of(old).unwrap_or_default(),
        _ if Managed::is_cleared(new) => Managed::default(),
        old => {
            let own = Managed::of(new).filter(|own| !own.is_empty());
            own.or_else(|| Managed::of(old?)).unwrap_or_default()
        }
    };
    let bare = without_managers(new);
    // An object whose list was taken away is followed again only once somebody applies it.
    if old.is_none() || !managed.is_empty() {
        let none = json!({"apiVersion": resource.api_version(), "kind": resource.kind});
        let before = old.map_or(none, without_managers);
        let comparison = compare(resource, &before, &bare, writer);
        managed.take_over(&comparison);
        let set = owned(&comparison.modified.union(&comparison.added));
        if !set.is_empty() {
            managed.add(writer, &resource.api_version(), &set);
        }
        managed.cap();
    }
    *new = bare;
    managed.put_into(new);
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
    if config["metadata"].get("managedFields").is_some_and(|list| !list.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let shape = Shape::of(resource);
    if let Some(words) = misfits(shape, config) {
        let named = format!(
            "{}/{}; {}/{}, Kind={}",
            config["metadata"]["namespace"].as_str().unwrap_or_default(),
            config["metadata"]["name"].as_str().unwrap_or_default(),
            resource.group,
            resource.version,
            resource.kind
        );
        return Err(ApiError::unnamed(500, format!("failed to create typed patch object ({named}): {words}")));
    }
    let mut managed = Managed::of(old).unwrap_or_default();
    let live = without_managers(old);
    if managed.is_empty() && !old["metadata"]["uid"].is_null() {
        let none = json!({"apiVersion": resource.api_version(), "kind": resource.kind});
        let comparison = compare(resource, &none, &live, writer);
        let before = Writer { manager: BEFORE.to_owned(), apply: false, ..writer.clone() };
        managed.add(&before, &resource.api_version(), &owned(&comparison.modified.union(&comparison.added)));
    }
    let wanted = fields(shape, config).0.without(reset(resource, writer));
    let mut merged = merge(shape, Some(&live), Some(config)).unwrap_or_default();
    if let Some(last) = managed.fields_of(writer) {
        let others = managed.others(writer).union(&wanted);
        merged = prune(shape, &merged, &last, &others);
    }
    let comparison = compare(resource, &live, &merged, writer);
    let mut conflicts = managed.conflicts(writer, &comparison);
    // What client-side apply has sent before may be taken over by server-side apply of the same tool.
    if writer.manager == "kubectl" && !force && !conflicts.is_empty() {
        let allowed = sent_before(resource, &live);
        let fought: Vec<_> = conflicts.iter().map(|(who, set)| (who.clone(), set.difference(&allowed))).collect();
        conflicts = fought.into_iter().filter(|(_, set)| !set.is_empty()).collect();
    }
    if !force && !conflicts.is_empty() {
        return Err(managed.conflict_error(&conflicts));
    }
    managed.take_over_from_others(writer, &comparison);
    let changed = live != merged;
    managed.set(writer, &resource.api_version(), owned(&wanted), changed);
    if writer.manager == "kubectl" {
        keep_last_applied(&mut merged, config);
    }
    managed.put_into(&mut merged);
    Ok(merged)
}

/// Takes away what was applied last and is applied no more, unless somebody else owns it.
fn prune(shape: Shape<'_>, merged: &Value, last: &FieldSet, owned: &FieldSet) -> Value {
    let structured = |set: &FieldSet| with_structures(Some(shape), set);
    let all = structured(&fields(shape, merged).0);
    let last = structured(last);
    let pruned = remove(shape, merged, &last);
    let kept = structured(&fields(shape, &pruned).0);
    let back = remove(shape, merged, &all.difference(&kept.union(&structured(owned))));
    // What only went because its parent did comes back.
    let kept = structured(&fields(shape, &back).0);
    remove(shape, merged, &all.difference(&kept).intersection(&last))
}

/// The fields that client-side apply sent last and that nobody has changed since.
fn sent_before(resource: &Resource, live: &Value) -> FieldSet {
    let annotation = live["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap_or_default();
    let Ok(sent) = serde_json::from_str::<Value>(annotation) else { return FieldSet::default() };
    if sent["apiVersion"] != resource.api_version() {
        return FieldSet::default();
    }
    let shape = Shape::of(resource);
    let comparison = Comparison::of(shape, &sent, live);
    let sent = fields(shape, &sent).0;
    sent.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed)
}

/// Where client-side apply was used before, its annotation follows.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(metadata) = config["metadata"].as_object_mut()
        && let Some(own) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        own.remove(LAST_APPLIED);
        if own.is_empty() {
            metadata.remove("annotations");
        }
    }
    annotations.remove(LAST_APPLIED);
    let text = format!("{}\n", gotext::sorted(&config));
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size + LAST_APPLIED.len() + text.len() <= LARGEST_ANNOTATIONS {
        annotations.insert(LAST_APPLIED.to_owned(), json!(text));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
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
            storage_version: "v1".into(),

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
            selectable: vec![],
            defaulted_after: 0,
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
    }
}
