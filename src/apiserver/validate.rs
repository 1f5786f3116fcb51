//! Custom resources against their schemas, with the messages that Kubernetes gives. Pure.
use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use serde_json::{Map, Number, Value};

use super::formats;
use super::schema::{Additional, Cause, additional, child, properties};

/// Compiled patterns, so that each is compiled once.
#[derive(Debug, Default)]
pub struct Patterns(std::sync::Mutex<BTreeMap<String, Option<Regex>>>);

impl Patterns {
    /// `None` for a pattern that is none.
    fn matches(&self, pattern: &str, text: &str) -> Option<bool> {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let compiled = known.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        compiled.as_ref().map(|regex| regex.is_match(text))
    }
}

/// Where a value stands, and what was there before. What has not changed is not held against a write: rules may have
/// become stricter since.
struct At<'a> {
    path: &'a str,
    old: Option<&'a Value>,
}

/// Everything wrong with an object, in the order of its schema.
pub fn validate(schema: &Value, old: Option<&Value>, value: &Value, patterns: &Patterns) -> Vec<Cause> {
    let mut check = Check { patterns, causes: Vec::new() };
    check.at(schema, value, &At { path: "", old });
    let mut causes = check.causes;
    embedded(schema, value, "", &mut causes);
    if old.is_none_or(|old| repeated(schema, old).is_empty()) {
        causes.extend(repeated(schema, value));
    }
    causes
}

struct Check<'p> {
    patterns: &'p Patterns,
    causes: Vec<Cause>,
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_whole(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|value| value.fract() == 0.0)
}

/// The types that a schema allows; empty where any is allowed.
fn wanted(schema: &Value) -> &str {
    if schema["x-kubernetes-int-or-string"] == true {
        return "integer,string";
    }
    schema["type"].as_str().unwrap_or_default()
}

impl Check<'_> {
    fn add(&mut self, reason: &'static str, field: &str, message: String) {
        self.causes.push(Cause::new(reason, field, message));
    }
    fn invalid(&mut self, path: &str, value: &Value, words: &str) {
        self.add("FieldValueInvalid", path, format!("Invalid value: {value}: {path} in body {words}"));
    }
    /// A rule that is broken by the object as a whole, as Kubernetes tells it.
    fn nowhere(&mut self, words: String) {
        self.add("FieldValueInvalid", "<nil>", format!("Invalid value: \"\": {words}"));
    }

    fn at(&mut self, schema: &Value, value: &Value, at: &At<'_>) {
        if at.old == Some(value) || value.is_null() && schema["nullable"] == true {
            return;
        }
        let (wanted, found, path) = (wanted(schema), kind_of(value), at.path);
        let fits = wanted.is_empty()
            || wanted.split(',').any(|wanted| wanted == found)
            || wanted == "number" && found == "integer";
        if !fits {
            let words = format!("Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\"");
            self.add("FieldValueTypeInvalid", path, words);
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let shown = |value: &Value| if value.is_string() { value.to_string() } else { format!("\"{value}\"") };
            let list = allowed.iter().map(shown).collect::<Vec<_>>().join(", ");
            let words = format!("Unsupported value: {value}: supported values: {list}");
            self.add("FieldValueNotSupported", path, words);
        }
        self.branches(schema, value, at);
        match value {
            Value::String(text) if fits => self.text(schema, text, path),
            Value::Number(number) => self.number(schema, number, path),
            Value::Array(items) if fits => self.items(schema, items, at),
            Value::Object(fields) if fits => self.fields(schema, fields, at),
            _ => {}
        }
    }

    /// What a value breaks of one branch.
    fn branch(&self, schema: &Value, value: &Value, at: &At<'_>) -> Vec<Cause> {
        let mut check = Check { patterns: self.patterns, causes: Vec::new() };
        check.at(schema, value, &At { path: at.path, old: None });
        check.causes
    }

    fn branches(&mut self, schema: &Value, value: &Value, at: &At<'_>) {
        let results = |name: &str, check: &Self| -> Vec<Vec<Cause>> {
            let branches = schema[name].as_array().into_iter().flatten();
            branches.map(|branch| check.branch(branch, value, at)).collect()
        };
        let path = at.path;
        let any = results("anyOf", self);
        if !any.is_empty() && any.iter().all(|causes| !causes.is_empty()) {
            self.nowhere(format!("\"{path}\" must validate at least one schema (anyOf)"));
            self.causes.extend(any.into_iter().next().unwrap_or_default());
        }
        let one = results("oneOf", self);
        let valid = one.iter().filter(|causes| causes.is_empty()).count();
        if !one.is_empty() && valid != 1 {
            let found =
                if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            self.nowhere(format!("\"{path}\" must validate one and only one schema (oneOf). {found}"));
            if valid == 0 {
                self.causes.extend(one.into_iter().next().unwrap_or_default());
            }
        }
        let all: Vec<Cause> = results("allOf", self).into_iter().flatten().collect();
        if !all.is_empty() {
            self.causes.extend(all);
            self.nowhere(format!("\"{path}\" must validate all the schemas (allOf)"));
        }
        if schema["not"].is_object() && self.branch(&schema["not"], value, at).is_empty() {
            self.nowhere(format!("\"{path}\" must not validate the schema (not)"));
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        let shown = Value::from(text);
        let length = text.chars().count() as u64;
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.add("FieldValueTooLong", path, format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            self.invalid(path, &shown, &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self.patterns.matches(pattern, text) != Some(true)
        {
            self.invalid(path, &shown, &format!("should match '{pattern}'"));
        }
        if let Some(format) = schema["format"].as_str().filter(|format| !formats::fits(format, text)) {
            let words = format!("Invalid value: {shown}: {path} in body must be of type {format}: {shown}");
            self.add("FieldValueTypeInvalid", path, words);
        }
    }

    fn number(&mut self, schema: &Value, number: &Number, path: &str) {
        let given = number.as_f64().unwrap_or(f64::NAN);
        let shown = Value::Number(number.clone());
        let within = match schema["format"].as_str() {
            Some("int32") => number.as_i64().is_some_and(|value| i32::try_from(value).is_ok()),
            _ => is_whole(number),
        };
        if schema["type"] == "integer" && !within {
            let format = schema["format"].as_str().map(|format| format!("with format {format}"));
            let format = format.unwrap_or_else(|| "(default format)".to_owned());
            self.nowhere(format!("Checked value must be of type integer {format} in {path}"));
            return;
        }
        if let Some(limit) = schema["maximum"].as_f64() {
            let open = schema["exclusiveMaximum"] == true;
            if given > limit || open && given == limit {
                let words = if open { "less than" } else { "less than or equal to" };
                self.invalid(path, &shown, &format!("should be {words} {limit}"));
            }
        }
        if let Some(limit) = schema["minimum"].as_f64() {
            let open = schema["exclusiveMinimum"] == true;
            if given < limit || open && given == limit {
                let words = if open { "greater than" } else { "greater than or equal to" };
                self.invalid(path, &shown, &format!("should be {words} {limit}"));
            }
        }
        if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step > 0.0 && (given / step).fract() != 0.0) {
            self.invalid(path, &shown, &format!("should be a multiple of {step}"));
        }
    }

    /// Bounds of a count of items or properties.
    fn count(&mut self, schema: &Value, count: usize, what: &str, path: &str) {
        let limit = |bound: &str| {
            let mut name = what.to_owned();
            name[..1].make_ascii_uppercase();
            schema[format!("{bound}{name}")].as_u64()
        };
        if let Some(most) = limit("max").filter(|most| count as u64 > *most) {
            let items = if most == 1 { "item" } else { "items" };
            self.add("FieldValueTooMany", path, format!("Too many: {count}: must have at most {most} {items}"));
        }
        if let Some(least) = limit("min").filter(|least| (count as u64) < *least) {
            self.invalid(path, &Value::from(count), &format!("should have at least {least} {what}"));
        }
    }

    fn items(&mut self, schema: &Value, items: &[Value], at: &At<'_>) {
        self.count(schema, items.len(), "items", at.path);
        let mut before: HashMap<String, &Value> = HashMap::new();
        for item in at.old.and_then(Value::as_array).into_iter().flatten() {
            if let Some(key) = item_key(schema, item) {
                before.entry(key).or_insert(item);
            }
        }
        for (index, item) in items.iter().enumerate() {
            let old = item_key(schema, item).and_then(|key| before.get(&key).copied());
            self.at(&schema["items"], item, &At { path: &format!("{}[{index}]", at.path), old });
        }
    }

    fn fields(&mut self, schema: &Value, fields: &Map<String, Value>, at: &At<'_>) {
        self.count(schema, fields.len(), "properties", at.path);
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.add("FieldValueRequired", &child(at.path, name), "Required value".to_owned());
            }
        }
        let known = properties(schema);
        for (name, field) in fields {
            let inner = match (known.and_then(|known| known.get(name)), additional(schema)) {
                (Some(inner), _) | (None, Additional::Schema(inner)) => inner,
                _ => continue,
            };
            let old = at.old.and_then(|old| old.get(name));
            self.at(inner, field, &At { path: &child(at.path, name), old });
        }
    }
}

/// What tells an item of a keyed list from the others; `None` in lists whose items are told apart by nothing, so that
/// none can be told to be the same as before.
pub fn item_key(schema: &Value, item: &Value) -> Option<String> {
    let keys = map_keys(schema);
    (!keys.is_empty()).then(|| keys.iter().map(|key| format!("{}\n", item[*key])).collect())
}

fn map_keys(schema: &Value) -> Vec<&str> {
    let listed = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    listed.filter_map(Value::as_str).collect()
}

/// Calls back for every value that has a schema of its own, from the outside in.
fn walk<'a>(schema: &'a Value, value: &'a Value, path: &str, visit: &mut impl FnMut(&'a Value, &'a Value, &str)) {
    visit(schema, value, path);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let inner = match (properties(schema).and_then(|known| known.get(name)), additional(schema)) {
                    (Some(inner), _) | (None, Additional::Schema(inner)) => inner,
                    _ => continue,
                };
                walk(inner, field, &child(path, name), visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{index}]"), visit);
            }
        }
        _ => {}
    }
}

/// Items that stand twice in sets and keyed lists; each is told once.
fn repeated(schema: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, value, "", &mut |schema, value, path| {
        let keys = map_keys(schema);
        let identity: Box<dyn Fn(&Value) -> Value> = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Box::new(Value::clone),
            Some("map") => Box::new(move |item| {
                let named = keys.iter().filter(|key| !item[**key].is_null());
                Value::Object(named.map(|key| ((*key).to_owned(), item[*key].clone())).collect())
            }),
            _ => return,
        };
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (index, one) in value.as_array().into_iter().flatten().map(identity).enumerate() {
            let times = seen.entry(one.to_string()).or_default();
            *times += 1;
            if *times == 2 {
                let words = format!("Duplicate value: {one}");
                causes.push(Cause::new("FieldValueDuplicate", &format!("{path}[{index}]"), words));
            }
        }
    });
    causes
}

/// Whole objects within the object have to say what they are.
fn embedded(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    walk(schema, value, path, &mut |schema, value, path| {
        if schema["x-kubernetes-embedded-resource"] == true && value.is_object() {
            for field in ["apiVersion", "kind"] {
                if value[field].as_str().unwrap_or_default().is_empty() {
                    causes.push(Cause::new("FieldValueRequired", &child(path, field), "Required value".to_owned()));
                }
            }
        }
    });
}
