//! Schemas of definitions: what Kubernetes demands of them, with its messages. Pure.
use regex::Regex;
use serde_json::{Map, Value};

use super::schema::{Cause, prune};
use super::validate::{Patterns, validate};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Parts of JSON schema that are not taken at all.
const UNSUPPORTED: [&str; 6] = ["$ref", "definitions", "dependencies", "id", "patternProperties", "additionalItems"];
/// What may only be said outside of `allOf`, `anyOf`, `oneOf` and `not`.
const OUTSIDE: [&str; 6] = ["type", "title", "description", "default", "nullable", "additionalProperties"];

/// What a schema is the schema of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Items,
}

/// Everything wrong with the schema of a version that stands at `field`.
pub fn problems(schema: &Value, field: &str) -> Vec<Cause> {
    let mut found = Found(Vec::new());
    found.node(schema, field, Place::Root);
    if found.0.is_empty() {
        found.defaults(schema, field);
    }
    if found.0.is_empty() {
        super::celrules::check(schema, field, &mut found.0);
    }
    found.0
}

struct Found(Vec<Cause>);

fn shown(value: &Value) -> String {
    value.to_string()
}

fn is_set(schema: &Value, name: &str) -> bool {
    !matches!(&schema[name], Value::Null | Value::Bool(false))
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

impl Found {
    fn add(&mut self, reason: &'static str, field: String, message: String) {
        self.0.push(Cause { reason, field, message });
    }
    fn required(&mut self, field: String, words: &str) {
        self.add("FieldValueRequired", field, format!("Required value: {words}"));
    }
    fn forbidden(&mut self, field: String, words: &str) {
        self.add("FieldValueForbidden", field, format!("Forbidden: {words}"));
    }
    fn invalid(&mut self, field: String, value: &Value, words: &str) {
        self.add("FieldValueInvalid", field, format!("Invalid value: {}: {words}", shown(value)));
    }
    fn unsupported(&mut self, field: String, value: &Value, known: &[&str]) {
        let words = format!("Unsupported value: {}: supported values: {}", shown(value), listed(known));
        self.add("FieldValueNotSupported", field, words);
    }

    fn node(&mut self, schema: &Value, at: &str, place: Place) {
        for name in UNSUPPORTED.into_iter().filter(|name| is_set(schema, name)) {
            self.forbidden(format!("{at}.{name}"), &format!("{name} is not supported"));
        }
        if schema["uniqueItems"] == true {
            let words = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(format!("{at}.uniqueItems"), words);
        }
        let fields = schema["properties"].as_object().filter(|fields| !fields.is_empty());
        if fields.is_some() && is_set(schema, "additionalProperties") {
            let words = "additionalProperties and properties are mutual exclusive";
            self.forbidden(format!("{at}.additionalProperties"), words);
        }
        for (name, inner) in fields.into_iter().flatten() {
            let at = format!("{at}.properties[{name}]");
            if place == Place::Root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
                self.no_defaults(inner, &at, &format!("must not be set in top-level {name}"));
            }
            if name == "metadata" && (place == Place::Root || schema["x-kubernetes-embedded-resource"] == true) {
                self.metadata(inner, &at);
            } else {
                self.node(inner, &at, Place::Field);
            }
        }
        if schema["additionalProperties"].is_object() {
            self.node(&schema["additionalProperties"], &format!("{at}.additionalProperties"), Place::Field);
        }
        if schema["items"].is_object() {
            self.node(&schema["items"], &format!("{at}.items"), Place::Items);
        }
        self.branches(schema, at);
        self.kind(schema, at, place);
        self.lists(schema, at);
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(error) = Regex::new(pattern)
        {
            let last = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let words =
                format!("must be a valid regular expression, but isn't: error parsing regexp: {last}: `{pattern}`");
            self.invalid(format!("{at}.pattern"), &schema["pattern"], &words);
        }
    }

    /// The type, which has to be said nearly everywhere.
    fn kind(&mut self, schema: &Value, at: &str, place: Place) {
        let field = format!("{at}.type");
        let free =
            schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
        match (schema["type"].as_str().filter(|kind| !kind.is_empty()), place) {
            (None, Place::Root) => self.required(field, "must not be empty at the root"),
            (None, _) if free => {}
            (None, Place::Field) => self.required(field, "must not be empty for specified object fields"),
            (None, Place::Items) => self.required(field, "must not be empty for specified array items"),
            (Some("object"), _) => {}
            (Some(_), Place::Root) => self.invalid(field, &schema["type"], "must be object at the root"),
            (Some("array"), _) if !schema["items"].is_object() => {
                self.required(format!("{at}.items"), "must be specified");
            }
            (Some(kind), _) if !TYPES.contains(&kind) => self.unsupported(field, &schema["type"], &TYPES),
            _ => {}
        }
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        if embedded && schema["x-kubernetes-preserve-unknown-fields"] != true && !schema["properties"].is_object() {
            let words = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.required(format!("{at}.properties"), words);
        }
    }

    /// What an object says about itself is not filled in for it.
    fn no_defaults(&mut self, schema: &Value, at: &str, words: &str) {
        if !schema["default"].is_null() {
            self.forbidden(format!("{at}.default"), words);
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            self.no_defaults(inner, &format!("{at}.properties[{name}]"), words);
        }
        for name in ["items", "additionalProperties"].into_iter().filter(|name| schema[*name].is_object()) {
            self.no_defaults(&schema[name], &format!("{at}.{name}"), words);
        }
    }

    /// Metadata has its type already; only names may be narrowed.
    fn metadata(&mut self, schema: &Value, at: &str) {
        let names = schema["properties"].as_object().into_iter().flat_map(Map::keys);
        if names.into_iter().any(|name| name != "name" && name != "generateName") {
            let words =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(at.to_owned(), words);
        }
    }

    fn branches(&mut self, schema: &Value, at: &str) {
        for name in ["allOf", "anyOf", "oneOf"] {
            for (index, branch) in schema[name].as_array().into_iter().flatten().enumerate() {
                let simple = schema["x-kubernetes-int-or-string"] == true;
                self.branch(branch, &format!("{at}.{name}[{index}]"), simple);
            }
        }
        if schema["not"].is_object() {
            self.branch(&schema["not"], &format!("{at}.not"), false);
        }
    }

    /// `simple`: of a number or text, whose branches are its two types.
    fn branch(&mut self, schema: &Value, at: &str, simple: bool) {
        for name in OUTSIDE.into_iter().filter(|name| is_set(schema, name) && !(simple && *name == "type")) {
            self.forbidden(format!("{at}.{name}"), "must be empty to be structural");
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            self.branch(inner, &format!("{at}.properties[{name}]"), false);
        }
        if schema["items"].is_object() {
            self.branch(&schema["items"], &format!("{at}.items"), false);
        }
        self.branches(schema, at);
    }

    /// How items of lists and fields of maps are told apart.
    fn lists(&mut self, schema: &Value, at: &str) {
        let (list, map) = (&schema["x-kubernetes-list-type"], &schema["x-kubernetes-map-type"]);
        if let Some(kind) = list.as_str() {
            if schema["type"] != "array" {
                let words = "must be array if x-kubernetes-list-type is specified";
                self.invalid(format!("{at}.type"), &schema["type"], words);
            } else if !["atomic", "set", "map"].contains(&kind) {
                self.unsupported(format!("{at}.x-kubernetes-list-type"), list, &["atomic", "set", "map"]);
            }
        }
        if let Some(kind) = map.as_str() {
            if schema["type"] != "object" {
                let words = "must be object if x-kubernetes-map-type is specified";
                self.invalid(format!("{at}.type"), &schema["type"], words);
            } else if !["atomic", "granular"].contains(&kind) {
                self.unsupported(format!("{at}.x-kubernetes-map-type"), map, &["atomic", "granular"]);
            }
        }
        let items = &schema["items"];
        match list.as_str() {
            Some("map") => self.map_keys(schema, items, at),
            Some("set") if matches!(items["type"].as_str(), Some("object" | "array")) => {
                let how = if items["type"] == "object" { "x-kubernetes-map-type" } else { "x-kubernetes-list-type" };
                if items[how] != "atomic" {
                    let words = "must be atomic as item of a list with x-kubernetes-list-type=set";
                    self.invalid(format!("{at}.items.{how}"), &items[how], words);
                }
            }
            _ => {}
        }
    }

    fn map_keys(&mut self, schema: &Value, items: &Value, at: &str) {
        let field = format!("{at}.x-kubernetes-list-map-keys");
        let keys: Vec<&str> =
            schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if keys.is_empty() {
            return self.required(field, "must not be empty if x-kubernetes-list-type is map");
        }
        if items["type"] != "object" {
            let words = "must be object if parent array's x-kubernetes-list-type is map";
            return self.invalid(format!("{at}.items.type"), &items["type"], words);
        }
        if keys.iter().any(|key| items["properties"][*key].is_null()) {
            let words = "entries must all be names of item properties";
            return self.invalid(field, &schema["x-kubernetes-list-map-keys"], words);
        }
        for (index, key) in keys.iter().enumerate() {
            if matches!(items["properties"][*key]["type"].as_str(), Some("object" | "array")) {
                // The real server tells the type of the items here, not that of the key.
                let words = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                self.invalid(format!("{at}.items.properties[{key}].type"), &items["type"], words);
            }
            if keys[..index].contains(key) {
                let words = "must not contain duplicate entries";
                self.invalid(field.clone(), &schema["x-kubernetes-list-map-keys"], words);
            }
        }
        for key in keys {
            let required = items["required"].as_array().is_some_and(|required| required.iter().any(|name| name == key));
            if !required && items["properties"][key]["default"].is_null() {
                let words = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.required(format!("{at}.items.properties[{key}].default"), words);
            }
        }
    }

    /// Defaults have to fit the schema that they are in.
    fn defaults(&mut self, schema: &Value, at: &str) {
        let default = &schema["default"];
        if !default.is_null() {
            let field = format!("{at}.default");
            let mut pruned = default.clone();
            if !prune(schema, &mut pruned).is_empty() {
                self.invalid(field, default, "must not have unknown fields");
            } else {
                let causes = validate(schema, None, default, &Patterns::default());
                self.0.extend(causes.into_iter().map(|cause| Cause {
                    field: if cause.field.is_empty() { field.clone() } else { format!("{field}.{}", cause.field) },
                    ..cause
                }));
            }
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            self.defaults(inner, &format!("{at}.properties[{name}]"));
        }
        for name in ["items", "additionalProperties"] {
            if schema[name].is_object() {
                self.defaults(&schema[name], &format!("{at}.{name}"));
            }
        }
    }
}
