//! Objects by their types: which fields one has, how two differ, one laid over another, and one with fields taken
//! away. The rules are those of Kubernetes' structured merge, whose results `managedFields` shows. Pure.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::fieldset::{FieldSet, Path, field_step};
use super::shape::{Kind, ListKind, Shape};

/// The fields of a value, and whether the value itself is one.
pub fn fields(shape: Shape<'_>, value: &Value) -> (FieldSet, bool) {
    let mut set = FieldSet::default();
    match (shape.kind(value), value) {
        (Kind::Scalar, _) => return (set, true),
        (Kind::List, Value::Array(items)) => {
            let kind = shape.list_kind();
            if kind == ListKind::Atomic {
                return (set, true);
            }
            let steps: Vec<Option<String>> = items.iter().map(|item| shape.step(&kind, item)).collect();
            let mut times: HashMap<&String, usize> = HashMap::new();
            for step in steps.iter().flatten() {
                *times.entry(step).or_default() += 1;
            }
            for (step, item) in steps.iter().zip(items) {
                let Some(step) = step else { continue };
                let repeated = times.get(step).is_some_and(|times| *times > 1);
                let below = if repeated { FieldSet::default() } else { fields(shape.items(), item).0 };
                set.put(step.clone(), true, below);
            }
        }
        (Kind::List, _) => return (set, shape.list_kind() == ListKind::Atomic),
        (Kind::Map, _) if shape.is_atomic_map() => return (set, true),
        (Kind::Map, value) => {
            for (name, inner) in value.as_object().into_iter().flatten() {
                let (below, leaf) = fields(shape.field(name), inner);
                let empty = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                set.put(field_step(name), leaf || empty || !shape.names(name), below);
            }
        }
    }
    (set, false)
}

/// How an object became another.
#[derive(Debug, Default)]
pub struct Comparison {
    pub removed: FieldSet,
    pub modified: FieldSet,
    pub added: FieldSet,
}

impl Comparison {
    pub fn of(shape: Shape<'_>, old: &Value, new: &Value) -> Self {
        let mut comparison = Self::default();
        comparison.compare(shape, Some(old), Some(new), &mut Vec::new());
        comparison
    }

    /// Without these fields of the root.
    pub fn without(self, roots: &[&str]) -> Self {
        Self {
            removed: self.removed.without(roots),
            modified: self.modified.without(roots),
            added: self.added.without(roots),
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>, path: &Path) {
        match (old, new) {
            (None, _) => self.added.insert(path),
            (_, None) => self.removed.insert(path),
            (Some(old), Some(new)) if old != new => self.modified.insert(path),
            _ => {}
        }
    }

    fn compare(&mut self, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>, path: &mut Path) {
        let kind = |value: Option<&Value>| value.map(|value| shape.kind(value));
        let leaf = match (kind(old), kind(new)) {
            (None, None) => return,
            (Some(was), Some(is)) if was != is => {
                self.compare_as(was, shape, old, new, path);
                self.compare_as(is, shape, old, new, path)
            }
            (was, is) => self.compare_as(is.or(was).unwrap_or(Kind::Scalar), shape, old, new, path),
        };
        match (leaf, old, new) {
            (false, None, _) => self.added.insert(path),
            (false, _, None) => self.removed.insert(path),
            _ => {}
        }
    }

    /// Tells whether the place was taken as a whole.
    fn compare_as(
        &mut self,
        kind: Kind,
        shape: Shape<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
        path: &mut Path,
    ) -> bool {
        let whole = match kind {
            Kind::Scalar => true,
            Kind::List => {
                let (old, new) = (items(old), items(new));
                shape.list_kind() == ListKind::Atomic || old.is_empty() && new.is_empty()
            }
            Kind::Map => {
                let empty = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
                shape.is_atomic_map() || empty(old) && empty(new)
            }
        };
        if whole {
            self.leaf(old, new, path);
            return true;
        }
        if kind == Kind::List {
            self.compare_items(shape, items(old), items(new), path);
            return false;
        }
        let none = Map::new();
        let old = old.and_then(Value::as_object).unwrap_or(&none);
        let new = new.and_then(Value::as_object).unwrap_or(&none);
        for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            path.push(field_step(name));
            self.compare(shape.field(name), old.get(name), new.get(name), path);
            path.pop();
        }
        false
    }

    fn compare_items(&mut self, shape: Shape<'_>, old: &[Value], new: &[Value], path: &mut Path) {
        let kind = shape.list_kind();
        let mut found: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Some(step) = shape.step(&kind, item) {
                found.entry(step).or_default().0.push(item);
            }
        }
        for item in new {
            if let Some(step) = shape.step(&kind, item) {
                found.entry(step).or_default().1.push(item);
            }
        }
        for (step, (old, new)) in found {
            path.push(step);
            match (old.as_slice(), new.as_slice()) {
                ([] | [_], [] | [_]) => self.compare(shape.items(), old.first().copied(), new.first().copied(), path),
                // Repeated items are taken as one thing.
                ([_, _, ..], [_, _, ..]) if old == new => {}
                ([_, _, ..], [_, _, ..]) => self.modified.insert(path),
                ([_, _, ..], new) => {
                    self.compare(shape.items(), None, new.first().copied(), path);
                    self.removed.insert(path);
                }
                (old, _) => {
                    self.compare(shape.items(), old.first().copied(), None, path);
                    self.added.insert(path);
                }
            }
            path.pop();
        }
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// An object with another laid over it: what only one of them has, and the other's word where both have it.
pub fn merge(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    let (Some(before), Some(after)) = (old, new) else { return new.or(old).cloned() };
    let empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => true,
    };
    match shape.kind(after) {
        Kind::Map if !(shape.is_atomic_map() || empty(before) && empty(after)) => {
            let none = Map::new();
            let (before, after) = (before.as_object().unwrap_or(&none), after.as_object().unwrap_or(&none));
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            let merged: Map<String, Value> = names
                .into_iter()
                .filter_map(|name| {
                    let value = merge(shape.field(name), before.get(name), after.get(name))?;
                    Some((name.clone(), value))
                })
                .collect();
            (!merged.is_empty()).then_some(Value::Object(merged))
        }
        Kind::List if shape.list_kind() != ListKind::Atomic && !(empty(before) && empty(after)) => {
            let merged = merge_items(shape, items(old), items(new));
            (!merged.is_empty()).then_some(Value::Array(merged))
        }
        _ => Some(after.clone()),
    }
}

/// The first item at each step.
fn by_step(list: &[(String, Value)]) -> HashMap<&str, &Value> {
    let mut found = HashMap::new();
    for (step, item) in list {
        found.entry(step.as_str()).or_insert(item);
    }
    found
}

/// Lists merged in an order that keeps the new list's own and, as far as that leaves room, the old one's.
fn merge_items(shape: Shape<'_>, old: &[Value], new: &[Value]) -> Vec<Value> {
    let kind = shape.list_kind();
    let known = |list: &[Value]| -> Vec<(String, Value)> {
        list.iter().filter_map(|item| Some((shape.step(&kind, item)?, item.clone()))).collect()
    };
    let (old, new) = (known(old), known(new));
    let (in_old, in_new) = (by_step(&old), by_step(&new));
    let item = |before: Option<&Value>, after: &Value| merge(shape.items(), before, Some(after));
    let mut shared = new.iter().map(|(step, _)| step).filter(|step| in_old.contains_key(step.as_str()));
    let mut next = shared.next();
    let (mut merged, mut out) = (BTreeSet::new(), Vec::new());
    let (mut left, mut right) = (0, 0);
    while left < old.len() || right < new.len() {
        if let (Some((step, before)), Some((other, after))) = (old.get(left), new.get(right)) {
            if step == other {
                merged.insert(step.clone());
                out.extend(item(Some(before), after));
                (left, right) = (left + 1, right + 1);
                next = shared.next();
                continue;
            }
            // Shared, but not the one whose turn it is.
            if in_new.contains_key(step.as_str()) && next.is_some_and(|next| next != step) {
                left += 1;
                continue;
            }
        }
        if let Some((step, before)) = old.get(left) {
            if !in_new.contains_key(step.as_str()) {
                out.push(before.clone());
                left += 1;
                continue;
            }
            if merged.contains(step) {
                left += 1;
            }
        }
        if let Some((step, after)) = new.get(right) {
            merged.insert(step.clone());
            out.extend(item(in_old.get(step.as_str()).copied(), after));
            right += 1;
            if next == Some(step) {
                next = shared.next();
            }
        }
    }
    out
}

/// A value without the fields of a set. What becomes empty by that stays as an empty map or list.
pub fn remove(shape: Shape<'_>, value: &Value, gone: &FieldSet) -> Value {
    let left = |inner: &Value, shape: Shape<'_>, step: &str| match gone.below(step) {
        Some(below) => remove(shape, inner, below),
        None => inner.clone(),
    };
    match value {
        Value::Array(items) if shape.list_kind() != ListKind::Atomic => {
            let kind = shape.list_kind();
            let kept = items.iter().filter_map(|item| match shape.step(&kind, item) {
                Some(step) if gone.has_member(&step) => None,
                Some(step) => Some(left(item, shape.items(), &step)),
                None => Some(item.clone()),
            });
            Value::Array(kept.collect())
        }
        Value::Object(fields) if !shape.is_atomic_map() => {
            let kept = fields.iter().filter_map(|(name, inner)| {
                let step = field_step(name);
                (!gone.has_member(&step)).then(|| (name.clone(), left(inner, shape.field(name), &step)))
            });
            Value::Object(kept.collect())
        }
        Value::Array(_) => json!([]),
        Value::Object(_) => json!({}),
        _ => Value::Null,
    }
}

/// A set with every structure of the type that it says something below of.
pub fn with_structures(shape: Option<Shape<'_>>, set: &FieldSet) -> FieldSet {
    let mut result = FieldSet::default();
    for step in set.steps() {
        let below = set.below(step);
        let (named, inner) = match step.split_at_checked(2) {
            Some(("f:", name)) => (shape.is_some_and(|shape| shape.names(name)), shape.map(|shape| shape.field(name))),
            Some(("k:", _)) => (false, shape.map(Shape::items)),
            _ => (false, None),
        };
        let member = set.has_member(step) || (named && below.is_some());
        result.put(step.clone(), member, below.map(|below| with_structures(inner, below)).unwrap_or_default());
    }
    result
}
