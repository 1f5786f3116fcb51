//! Sets of fields as `managedFields` has them (FieldsV1). Pure.
//!
//! A field may be in a set by itself, through fields below it, or both; FieldsV1 tells the last apart with `"."`.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Steps from the root: `f:name`, `k:{"type":"Ready"}` or `v:"x"`, written as in FieldsV1.
pub type Path = Vec<String>;

/// Deepest FieldsV1 that is read.
const DEEPEST: usize = 100;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<String>,
    /// None of them is empty.
    children: BTreeMap<String, FieldSet>,
}

/// The step of a field by its name.
pub fn field_step(name: &str) -> String {
    format!("f:{name}")
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a path. The root itself is never in a set.
    pub fn insert(&mut self, path: &[String]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    #[cfg(test)]
    fn has(&self, path: &[String]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|inner| inner.has(rest)),
        }
    }

    pub fn has_member(&self, step: &str) -> bool {
        self.members.contains(step)
    }

    /// What is in the set below a step.
    pub fn below(&self, step: &str) -> Option<&FieldSet> {
        self.children.get(step)
    }

    /// Steps of the fields at this place, those with fields below them included.
    pub fn steps(&self) -> impl Iterator<Item = &String> {
        self.members.iter().chain(self.children.keys().filter(|step| !self.members.contains(*step)))
    }

    /// Puts a field and what is below it.
    pub fn put(&mut self, step: String, member: bool, below: FieldSet) {
        if member {
            self.members.insert(step.clone());
        }
        if !below.is_empty() {
            self.children.insert(step, below);
        }
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.members.extend(other.members.iter().cloned());
        for (step, theirs) in &other.children {
            let ours = result.children.entry(step.clone()).or_default();
            *ours = ours.union(theirs);
        }
        result
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let members = self.members.intersection(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(step, ours)| {
            let both = ours.intersection(other.children.get(step)?);
            (!both.is_empty()).then(|| (step.clone(), both))
        });
        Self { members, children: children.collect() }
    }

    /// Without the other's fields; what is below one of them stays.
    pub fn difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(step, ours)| {
            let left = other.children.get(step).map_or_else(|| ours.clone(), |theirs| ours.difference(theirs));
            (!left.is_empty()).then(|| (step.clone(), left))
        });
        Self { members, children: children.collect() }
    }

    /// Without these fields of the root and all that is below them.
    pub fn without(mut self, roots: &[&str]) -> Self {
        for root in roots {
            self.members.remove(*root);
            self.children.remove(*root);
        }
        self
    }

    /// Every path, a field before what is below it and plain fields first.
    pub fn paths(&self) -> Vec<Path> {
        let mut found: Vec<Path> = self.members.iter().map(|step| vec![step.clone()]).collect();
        for (step, inner) in &self.children {
            found.extend(inner.paths().into_iter().map(|mut path| {
                path.insert(0, step.clone());
                path
            }));
        }
        found
    }

    /// As FieldsV1.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        for step in self.steps() {
            let mut inner = self.children.get(step).map_or_else(|| json!({}), Self::to_json);
            if self.children.contains_key(step) && self.members.contains(step) {
                inner["."] = json!({});
            }
            fields.insert(step.clone(), inner);
        }
        Value::Object(fields)
    }

    /// From FieldsV1; `None` for what is none.
    pub fn from_json(fields: &Value) -> Option<Self> {
        Self::read(fields, 0).map(|(set, _)| set)
    }

    /// The set below a place, and whether the place itself is in it.
    fn read(fields: &Value, depth: usize) -> Option<(Self, bool)> {
        let fields = fields.as_object().filter(|_| depth < DEEPEST)?;
        let (mut set, mut itself) = (Self::default(), fields.is_empty());
        for (step, inner) in fields {
            if step == "." {
                itself = true;
                continue;
            }
            let (below, member) = Self::read(inner, depth + 1)?;
            set.put(canonical(step)?, member, below);
        }
        Some((set, itself || set_is_bare(fields)))
    }
}

/// Whether nothing but `"."` stands at a place.
fn set_is_bare(fields: &Map<String, Value>) -> bool {
    fields.keys().all(|step| step == ".")
}

/// A step in the one way that this server writes it; `None` for none.
fn canonical(step: &str) -> Option<String> {
    match step.split_at_checked(2)? {
        ("f:", _) => Some(step.to_owned()),
        ("k:", keys) => serde_json::from_str::<Map<String, Value>>(keys).ok().map(|keys| key_step(&keys)),
        ("v:", value) => serde_json::from_str::<Value>(value).ok().map(|value| format!("v:{value}")),
        ("i:", index) => index.parse::<u32>().ok().map(|index| format!("i:{index}")),
        _ => None,
    }
}

/// The step of a list item that is known by keys.
pub fn key_step(keys: &Map<String, Value>) -> String {
    let sorted: BTreeMap<&String, &Value> = keys.iter().collect();
    format!("k:{}", json!(sorted))
}

/// A path for people: `.spec.branding.title`, `.status.conditions[type="Ready"].status`.
pub fn words(path: &[String]) -> String {
    path.iter().map(|step| step_words(step)).collect()
}

pub fn step_words(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        Some(("i:", index)) => format!("[{index}]"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(paths: &[&[&str]]) -> FieldSet {
        let mut set = FieldSet::default();
        for path in paths {
            set.insert(&path.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>());
        }
        set
    }

    #[test]
    fn a_field_with_fields_below_it_is_told_from_one_without() {
        let both = set(&[&["f:a"], &["f:a", "f:b"], &["f:c", "k:{\"id\":1}"]]);
        let written = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"k:{\"id\":1}": {}}});
        assert_eq!(both.to_json(), written);
        assert_eq!(FieldSet::from_json(&written), Some(both.clone()));
        assert_eq!(
            both.difference(&set(&[&["f:a"]])).to_json(),
            json!({"f:a": {"f:b": {}}, "f:c": {"k:{\"id\":1}": {}}})
        );
        assert_eq!(both.without(&["f:a"]).to_json(), json!({"f:c": {"k:{\"id\":1}": {}}}));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in [json!(1), json!({"f:a": 1}), json!({"x:a": {}}), json!({"k:nope": {}}), json!({"ä": {}})] {
            assert_eq!(FieldSet::from_json(&bad), None, "{bad}");
        }
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"f:a": deep});
        }
        assert_eq!(FieldSet::from_json(&deep), None);
    }

    fn any_set() -> impl Strategy<Value = FieldSet> {
        let step = proptest::sample::select(vec!["f:a", "f:b", "k:{\"id\":\"x\"}", "v:1"]);
        proptest::collection::vec(proptest::collection::vec(step, 1..4), 0..6)
            .prop_map(|paths| set(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>()))
    }

    proptest! {
        #[test]
        fn sets_survive_writing(a in any_set()) {
            prop_assert_eq!(FieldSet::from_json(&a.to_json()), Some(a));
        }

        #[test]
        fn sets_obey_the_laws_of_sets(a in any_set(), b in any_set()) {
            let listed = |set: &FieldSet| set.paths().into_iter().collect::<BTreeSet<_>>();
            let (left, right) = (listed(&a), listed(&b));
            prop_assert_eq!(listed(&a.union(&b)), left.union(&right).cloned().collect());
            prop_assert_eq!(listed(&a.intersection(&b)), left.intersection(&right).cloned().collect());
            prop_assert_eq!(listed(&a.difference(&b)), left.difference(&right).cloned().collect());
            prop_assert!(left.iter().all(|path| a.has(path)));
        }

        #[test]
        fn whatever_a_client_sends_is_read_or_refused(text in "[\\[\\]{}:\",.fkvi0-9a]{0,60}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text)
                && let Some(read) = FieldSet::from_json(&value)
            {
                prop_assert_eq!(FieldSet::from_json(&read.to_json()), Some(read));
            }
        }
    }
}
