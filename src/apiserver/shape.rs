//! What is known of the type at a place of an object: its fields, and how the items of its lists are told apart.
//! Custom resources say it in their schema, built-in kinds in their types and the table below. Pure.
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

use super::catalog::Resource;
use super::fieldset::key_step;
use super::openapi::built_in;
use crate::http::double::lock;

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

/// What a value is, or would be if it were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Scalar,
    List,
    Map,
}

#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// `None` where anything goes; then the value itself says what it is.
    pub schema: Option<&'a Value>,
    /// Whether it has `apiVersion`, `kind` and `metadata`.
    object: bool,
}

/// Whose lists and maps are what, in the built-in kinds: kind, path, list type or `map` or `anything`, keys. An empty kind stands
/// for metadata.
const KINDS: [(&str, &str, &str, &[&str]); 34] = [
    ("", "finalizers", "set", &[]),
    ("", "managedFields.items.fieldsV1", "anything", &[]),
    ("", "ownerReferences", "map", &["uid"]),
    ("", "ownerReferences.items", "atomic", &[]),
    ("CustomResourceDefinition", "status.conditions", "map", &["type"]),
    ("Event", "involvedObject", "atomic", &[]),
    ("Event", "regarding", "atomic", &[]),
    ("Event", "related", "atomic", &[]),
    ("Ingress", "spec.defaultBackend.resource", "atomic", &[]),
    ("Ingress", "spec.defaultBackend.service.port", "atomic", &[]),
    ("Namespace", "status.conditions", "map", &["type"]),
    ("Service", "spec.ports", "map", &["port", "protocol"]),
    ("Service", "spec.selector", "atomic", &[]),
    ("Service", "status.conditions", "map", &["type"]),
    ("ServiceAccount", "secrets", "map", &["name"]),
    ("ServiceAccount", "secrets.items", "atomic", &[]),
    // Structures that are there, if only empty, in every object of the kind.
    ("CustomResourceDefinition", "spec", "always", &[]),
    ("CustomResourceDefinition", "spec.names", "always", &[]),
    ("CustomResourceDefinition", "status", "always", &[]),
    ("CustomResourceDefinition", "status.acceptedNames", "always", &[]),
    ("CustomResourceDefinition", "status.conditions", "always list", &[]),
    ("CustomResourceDefinition", "status.storedVersions", "always list", &[]),
    ("Event", "source", "always", &[]),
    ("Event", "deprecatedSource", "always", &[]),
    ("Ingress", "spec", "always", &[]),
    ("Ingress", "status", "always", &[]),
    ("Ingress", "status.loadBalancer", "always", &[]),
    ("IngressClass", "spec", "always", &[]),
    ("Lease", "spec", "always", &[]),
    ("Namespace", "spec", "always", &[]),
    ("Namespace", "status", "always", &[]),
    ("Service", "spec", "always", &[]),
    ("Service", "status", "always", &[]),
    ("Service", "status.loadBalancer", "always", &[]),
];

static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    let mut schema = generator.root_schema_for::<ObjectMeta>().to_value();
    let parts = generator.take_definitions(true).into_iter().collect();
    inline(&mut schema, &parts, &mut Vec::new());
    annotate(&mut schema, "");
    schema["x-go-name"] = json!("ObjectMeta");
    schema
});
static TEXT: LazyLock<Value> = LazyLock::new(|| json!({"type": "string"}));
/// Types of built-in kinds, each made when it is first asked for and kept for good.
static BUILT_IN: LazyLock<Mutex<BTreeMap<String, &'static Value>>> = LazyLock::new(Mutex::default);

fn built_in_schema(resource: &Resource) -> &'static Value {
    let mut known = lock(&BUILT_IN);
    known.entry(resource.full_kind()).or_insert_with(|| {
        let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
        let mut schema = built_in(&resource.kind, &resource.group, &mut generator);
        let parts = generator.take_definitions(true).into_iter().collect();
        inline(&mut schema, &parts, &mut Vec::new());
        annotate(&mut schema, &resource.kind);
        Box::leak(Box::new(schema))
    })
}

/// Puts referred-to types in their places; where a type holds itself, anything goes.
fn inline(schema: &mut Value, parts: &BTreeMap<String, Value>, within: &mut Vec<String>) {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(name) = reference.map(|text| text.rsplit('/').next().unwrap_or_default().to_owned()) {
        if within.contains(&name) {
            *schema = json!({"x-kubernetes-preserve-unknown-fields": true});
            return;
        }
        *schema = parts.get(&name).cloned().unwrap_or_default();
        schema["x-go-name"] = json!(name.rsplit('.').next().unwrap_or_default());
        within.push(name);
        inline(schema, parts, within);
        within.pop();
        return;
    }
    if schema["format"] == "int-or-string" || schema["x-kubernetes-int-or-string"] == true {
        *schema = json!({"x-kubernetes-int-or-string": true});
        return;
    }
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        fields.values_mut().for_each(|inner| inline(inner, parts, within));
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(name).filter(|inner| inner.is_object()) {
            inline(inner, parts, within);
        }
    }
}

fn annotate(schema: &mut Value, kind: &str) {
    for (_, path, how, keys) in KINDS.iter().filter(|(of, ..)| *of == kind) {
        let at = path.split('.').try_fold(&mut *schema, |at, part| match part {
            "items" => at.get_mut("items"),
            part => at.get_mut("properties")?.get_mut(part),
        });
        let Some(at) = at else { continue };
        match *how {
            "always" => at["x-always"] = json!({}),
            "always list" => at["x-always"] = json!([]),
            // Its keys are those of other types.
            "anything" => at["x-kubernetes-preserve-unknown-fields"] = json!(true),
            how if at["type"] == "array" => {
                at["x-kubernetes-list-type"] = json!(how);
                at["x-kubernetes-list-map-keys"] = json!(keys);
            }
            how => at["x-kubernetes-map-type"] = json!(how),
        }
    }
    if kind == "Service" {
        at_protocol(schema);
    }
}

/// The one key with a default.
fn at_protocol(service: &mut Value) {
    if let Some(port) = service.pointer_mut("/properties/spec/properties/ports/items/properties/protocol") {
        port["default"] = json!("TCP");
    }
}

impl<'a> Shape<'a> {
    pub fn of(resource: &'a Resource) -> Self {
        let schema = resource.schema.as_deref().unwrap_or_else(|| built_in_schema(resource));
        Self { schema: Some(schema), object: true }
    }

    pub fn metadata() -> Self {
        Self::at(&METADATA)
    }

    fn at(schema: &'a Value) -> Self {
        let anything = schema["x-kubernetes-preserve-unknown-fields"] == true
            && schema["properties"].is_null()
            && schema["x-kubernetes-embedded-resource"] != true;
        Self { schema: (!anything).then_some(schema), object: schema["x-kubernetes-embedded-resource"] == true }
    }

    /// The shape of a field. Metadata has the same shape in every kind.
    pub fn field(self, name: &str) -> Self {
        let anything = Self { schema: None, object: false };
        if self.object {
            match name {
                "metadata" => return Self::at(&METADATA),
                "apiVersion" | "kind" => return Self::at(&TEXT),
                _ => {}
            }
        }
        let Some(schema) = self.schema else { return anything };
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (inner @ Value::Object(_), _) => Self::at(inner),
            (_, inner @ Value::Object(_)) => Self::at(inner),
            _ => anything,
        }
    }

    /// Whether the type names this field, as a structure does and a map of any keys does not.
    pub fn names(self, name: &str) -> bool {
        (self.object && matches!(name, "metadata" | "apiVersion" | "kind"))
            || self.schema.is_some_and(|schema| schema["properties"][name].is_object())
    }

    /// Whether a field of this name may be there at all.
    pub fn allows(self, name: &str) -> bool {
        let Some(schema) = self.schema else { return true };
        self.names(name)
            || schema["x-kubernetes-preserve-unknown-fields"] == true
            || matches!(&schema["additionalProperties"], Value::Object(_) | Value::Bool(true))
    }

    /// Names of structures that are there, if only empty, in every object, with what they are then.
    pub fn always(self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        let fields = self.schema.and_then(|schema| schema["properties"].as_object());
        fields.into_iter().flatten().filter(|(_, inner)| !inner["x-always"].is_null()).map(|(n, i)| (n, &i["x-always"]))
    }

    pub fn items(self) -> Self {
        match self.schema.map(|schema| &schema["items"]) {
            Some(items @ Value::Object(_)) => Self::at(items),
            _ => Self { schema: None, object: false },
        }
    }

    pub fn list_kind(self) -> ListKind {
        let Some(schema) = self.schema else { return ListKind::Atomic };
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => ListKind::Set,
            Some("map") => {
                let names = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                ListKind::Map(names.filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => ListKind::Atomic,
        }
    }

    pub fn is_atomic_map(self) -> bool {
        self.schema.is_some_and(|schema| schema["x-kubernetes-map-type"] == "atomic")
    }

    /// What a value is here: what it shows, or what the type says of null.
    pub fn kind(self, value: &Value) -> Kind {
        match value {
            Value::Object(_) => Kind::Map,
            Value::Array(_) => Kind::List,
            Value::Null => self.declared().unwrap_or(Kind::Map),
            _ => Kind::Scalar,
        }
    }

    /// `None` where anything goes.
    pub fn declared(self) -> Option<Kind> {
        let schema = self.schema?;
        match schema["type"].as_str() {
            Some("object") => Some(Kind::Map),
            Some("array") => Some(Kind::List),
            Some(_) => Some(Kind::Scalar),
            None if schema["x-kubernetes-int-or-string"] == true => Some(Kind::Scalar),
            None if schema["properties"].is_object() || self.object => Some(Kind::Map),
            None => None,
        }
    }

    /// The step of a list item. `None` for an item that cannot be told apart.
    pub fn step(self, kind: &ListKind, item: &Value) -> Option<String> {
        match kind {
            ListKind::Atomic => None,
            ListKind::Set => (!item.is_object() && !item.is_array() && !item.is_null()).then(|| format!("v:{item}")),
            ListKind::Map(keys) => {
                let fields = item.as_object()?;
                let value = |key: &String| {
                    let default =
                        || self.items().schema.map(|s| &s["properties"][key]["default"]).filter(|d| !d.is_null());
                    fields.get(key).or_else(default).map(|value| (key.clone(), value.clone()))
                };
                let named: serde_json::Map<String, Value> = keys.iter().filter_map(value).collect();
                (!named.is_empty()).then(|| key_step(&named))
            }
        }
    }
}
