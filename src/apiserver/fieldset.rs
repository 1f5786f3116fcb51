//! Sets of fields as `managedFields` has them (FieldsV1). Pure.
use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::catalog::Resource;

/// One step of a path: `f:name`, `k:{"type":"Ready"}` or `v:"x"`, written as in FieldsV1.
pub type Path = Vec<String>;

/// Leaf fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet(pub BTreeSet<Path>);

/// How the items of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    /// The list is one field.
    Atomic,
    /// Each value is a field.
    Set,
    /// Each item is known by these fields.
    Map(Vec<String>),
}

/// What is known about the type at a place: a custom resource's schema, or the place in a built-in kind.
#[derive(Clone, Copy)]
pub enum Shape<'a> {
    Schema(&'a Value),
    BuiltIn(&'static str),
    Metadata(&'static str),
    Unknown,
}

impl<'a> Shape<'a> {
    pub fn of(resource: &'a Resource) -> Self {
        match &resource.schema {
            Some(schema) => Self::Schema(schema),
            None => Self::BuiltIn(""),
        }
    }

    /// The shape of a field. Metadata has the same shape in every kind.
    pub fn field(self, root: bool, name: &str) -> Self {
        if root && name == "metadata" {
            return Self::Metadata("");
        }
        match self {
            Self::Schema(schema) => {
                let inner = &schema["properties"][name];
                let inner = if inner.is_null() { &schema["additionalProperties"] } else { inner };
                if inner.is_object() { Self::Schema(inner) } else { Self::Unknown }
            }
            Self::Metadata("") => match name {
                "finalizers" => Self::Metadata("finalizers"),
                "ownerReferences" => Self::Metadata("ownerReferences"),
                _ => Self::Unknown,
            },
            Self::BuiltIn("") => match name {
                "spec" => Self::BuiltIn("spec"),
                "status" => Self::BuiltIn("status"),
                "secrets" | "imagePullSecrets" => Self::BuiltIn("by name"),
                _ => Self::Unknown,
            },
            Self::BuiltIn("spec") if name == "ports" => Self::BuiltIn("ports"),
            Self::BuiltIn("status") if name == "conditions" => Self::BuiltIn("conditions"),
            _ => Self::Unknown,
        }
    }

    pub fn items(self) -> Self {
        match self {
            Self::Schema(schema) if schema["items"].is_object() => Self::Schema(&schema["items"]),
            _ => Self::Unknown,
        }
    }

    pub fn list_kind(self) -> ListKind {
        let keys = |names: &[&str]| ListKind::Map(names.iter().map(|name| (*name).to_owned()).collect());
        match self {
            Self::Schema(schema) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => ListKind::Set,
                Some("map") => {
                    let names = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                    ListKind::Map(names.filter_map(Value::as_str).map(str::to_owned).collect())
                }
                _ => ListKind::Atomic,
            },
            Self::Metadata("finalizers") => ListKind::Set,
            Self::Metadata("ownerReferences") => keys(&["uid"]),
            Self::BuiltIn("ports") => keys(&["port", "protocol"]),
            Self::BuiltIn("conditions") => keys(&["type"]),
            Self::BuiltIn("by name") => keys(&["name"]),
            _ => ListKind::Atomic,
        }
    }

    fn is_atomic_map(self) -> bool {
        matches!(self, Self::Schema(schema) if schema["x-kubernetes-map-type"] == "atomic")
    }
}

/// The step of a list item that is known by keys. Absent keys count as their Kubernetes default.
pub fn item_step(keys: &[String], item: &Value) -> String {
    let value = |key: &String| match &item[key.as_str()] {
        Value::Null if key == "protocol" => json!("TCP"),
        value => value.clone(),
    };
    let named: Map<String, Value> = keys.iter().map(|key| (key.clone(), value(key))).collect();
    format!("k:{}", Value::Object(named))
}

/// Fields at the root that nobody owns.
const NOBODYS: [&str; 2] = ["apiVersion", "kind"];
/// Metadata that nobody owns, because the server sets it or it is the object's name.
const NOBODYS_METADATA: [&str; 11] = [
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

impl FieldSet {
    /// Every leaf of an object.
    pub fn of(resource: &Resource, object: &Value) -> Self {
        let mut set = Self::default();
        let Some(fields) = object.as_object() else { return set };
        for (name, value) in fields.iter().filter(|(name, _)| !NOBODYS.contains(&name.as_str())) {
            let shape = Shape::of(resource).field(true, name);
            if name == "metadata" {
                for (inner, value) in value.as_object().into_iter().flatten() {
                    if !NOBODYS_METADATA.contains(&inner.as_str()) {
                        set.collect(
                            shape.field(false, inner),
                            value,
                            vec!["f:metadata".to_owned(), format!("f:{inner}")],
                        );
                    }
                }
                continue;
            }
            set.collect(shape, value, vec![format!("f:{name}")]);
        }
        set
    }

    fn collect(&mut self, shape: Shape<'_>, value: &Value, path: Path) {
        let step = |step: String| {
            let mut at = path.clone();
            at.push(step);
            at
        };
        match value {
            Value::Object(fields) if !fields.is_empty() && !shape.is_atomic_map() => {
                for (name, value) in fields {
                    self.collect(shape.field(false, name), value, step(format!("f:{name}")));
                }
            }
            Value::Array(items) => match shape.list_kind() {
                ListKind::Atomic => {
                    self.0.insert(path);
                }
                ListKind::Set => self.0.extend(items.iter().map(|item| step(format!("v:{item}")))),
                ListKind::Map(keys) => {
                    for item in items {
                        let at = step(item_step(&keys, item));
                        // The item itself is owned, too: who no longer applies it lets it go.
                        let mut itself = at.clone();
                        itself.push(".".to_owned());
                        self.0.insert(itself);
                        for (name, value) in item.as_object().into_iter().flatten() {
                            let mut inner = at.clone();
                            inner.push(format!("f:{name}"));
                            self.collect(shape.items().field(false, name), value, inner);
                        }
                    }
                }
            },
            _ => {
                self.0.insert(path);
            }
        }
    }

    /// As FieldsV1.
    pub fn to_json(&self) -> Value {
        let mut root = json!({});
        for path in &self.0 {
            let mut at = &mut root;
            for step in path {
                at = &mut at[step.as_str()];
                if at.is_null() {
                    *at = json!({});
                }
            }
        }
        root
    }

    /// From FieldsV1.
    pub fn from_json(fields: &Value) -> Self {
        let mut set = Self::default();
        fn walk(value: &Value, path: &Path, set: &mut FieldSet) {
            match value.as_object().filter(|fields| !fields.is_empty()) {
                Some(fields) => {
                    for (step, inner) in fields {
                        let mut at = path.clone();
                        at.push(step.clone());
                        walk(inner, &at, set);
                    }
                }
                None if !path.is_empty() => {
                    set.0.insert(path.clone());
                }
                None => {}
            }
        }
        walk(fields, &Vec::new(), &mut set);
        // A "." beside fields of a map says that the map itself is owned, which leaves say already.
        set.0.retain(|path| {
            path.last().is_none_or(|step| step != ".") || path.iter().rev().nth(1).is_some_and(|s| s.starts_with("k:"))
        });
        set
    }

    pub fn contains(&self, path: &Path) -> bool {
        self.0.contains(path)
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The value at a path, if it is there.
pub fn value_at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    let mut at = object;
    for step in path {
        at = match step.split_at_checked(2) {
            Some(("f:", name)) => at.get(name)?,
            Some(("k:", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
                at.as_array()?.iter().find(|item| is_item(item, &keys))?
            }
            Some(("v:", value)) => {
                let value: Value = serde_json::from_str(value).ok()?;
                at.as_array()?.iter().find(|item| **item == value)?
            }
            // "."
            _ => at,
        };
    }
    Some(at)
}

fn is_item(item: &Value, keys: &Map<String, Value>) -> bool {
    let names: Vec<String> = keys.keys().cloned().collect();
    item_step(&names, item) == format!("k:{}", Value::Object(keys.clone()))
}

/// Takes the value at a path away, with what becomes empty by it.
pub fn remove_at(object: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else { return };
    match step.split_at_checked(2) {
        Some(("f:", name)) => {
            let Some(fields) = object.as_object_mut() else { return };
            if rest.is_empty() {
                fields.remove(name);
            } else if let Some(inner) = fields.get_mut(name) {
                remove_at(inner, rest);
                let empty = inner.as_array().is_some_and(Vec::is_empty) || inner.as_object().is_some_and(Map::is_empty);
                if empty {
                    fields.remove(name);
                }
            }
        }
        Some(("k:", keys)) => {
            let (Some(items), Ok(keys)) = (object.as_array_mut(), serde_json::from_str::<Map<String, Value>>(keys))
            else {
                return;
            };
            let Some(index) = items.iter().position(|item| is_item(item, &keys)) else { return };
            if rest.first().is_some_and(|step| step == ".") {
                items.remove(index);
            } else {
                remove_at(&mut items[index], rest);
            }
        }
        Some(("v:", value)) => {
            if let (Some(items), Ok(value)) = (object.as_array_mut(), serde_json::from_str::<Value>(value)) {
                items.retain(|item| *item != value);
            }
        }
        _ => {}
    }
}

/// A path for people: `.spec.branding.title`, `.status.conditions[type="Ready"].status`.
pub fn words(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        match step.split_at_checked(2) {
            Some(("f:", name)) => text.push_str(&format!(".{name}")),
            Some(("k:", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                text.push_str(&format!("[{}]", keys.join(",")));
            }
            Some(("v:", value)) => text.push_str(&format!("[={value}]")),
            _ => {}
        }
    }
    text
}
