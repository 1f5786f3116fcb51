//! The CEL rules of custom resources, with the messages that Kubernetes gives.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use super::cel::{self, Budget, Program, Spent};
use super::schema::{Cause, child};
use super::status::ApiError;
use super::validate::item_key;

/// Causes after which rules are not asked: they could stumble over them.
const BLOCKING: [&str; 5] =
    ["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];
/// Longest message that a rule may make, in bytes.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// The rules of a schema, compiled when they are first asked.
#[derive(Debug)]
pub struct Rules {
    schema: Arc<Value>,
    compiled: OnceLock<Place>,
}

/// The rules at a place of a schema and below it.
#[derive(Debug, Default)]
struct Place {
    rules: Vec<Rule>,
    fields: BTreeMap<String, Place>,
    items: Option<Box<Place>>,
    others: Option<Box<Place>>,
}

#[derive(Debug)]
struct Rule {
    text: String,
    program: Result<Program, String>,
    message: Option<String>,
    message_program: Option<Program>,
    reason: Option<String>,
    field_path: Option<String>,
    /// Whether it is asked, too, where nothing was there before.
    optional_old: bool,
}

impl Rules {
    /// The rules of a schema; `None` where it has none.
    pub fn of(schema: &Arc<Value>) -> Option<Arc<Self>> {
        has_any(schema).then(|| Arc::new(Self { schema: Arc::clone(schema), compiled: OnceLock::new() }))
    }
}

/// Adds what an object breaks of its rules to what is wrong with it already. Errors: the rules cannot be asked now.
pub fn check(rules: &Arc<Rules>, old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) -> Result<(), ApiError> {
    check_within(rules, old, object, causes, Budget::default())
}

fn check_within(
    rules: &Arc<Rules>,
    old: Option<&Value>,
    object: &Value,
    causes: &mut Vec<Cause>,
    budget: Budget,
) -> Result<(), ApiError> {
    if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
        let words = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        causes.push(Cause::new("FieldValueInvalid", "<nil>", format!("Invalid value: null: {words}")));
        return Ok(());
    }
    let (rules, old, object) = (Arc::clone(rules), old.cloned(), object.clone());
    let found = cel::run(move || {
        let place = rules.compiled.get_or_init(|| compiled(&rules.schema));
        cel::begin(budget);
        let mut asked = Asked { budget, found: Vec::new(), over: false };
        asked.at(place, &rules.schema, old.as_ref(), &object, "");
        asked.found
    });
    causes.extend(found.map_err(|error| ApiError::unasked(&error))?);
    Ok(())
}

/// Whether a schema has rules at all.
pub fn has_any(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.contains_key("x-kubernetes-validations") || fields.values().any(has_any),
        Value::Array(items) => items.iter().any(has_any),
        _ => false,
    }
}

fn compiled(schema: &Value) -> Place {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let rules = rules.map(|rule| {
        let text = |name: &str| rule[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let own_text = text("rule").unwrap_or_default();
        Rule {
            program: Program::compile(&own_text),
            text: own_text,
            message: text("message"),
            message_program: text("messageExpression").and_then(|text| Program::compile(&text).ok()),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old: rule["optionalOldSelf"] == true,
        }
    });
    let below = |name: &str| {
        let inner = &schema[name];
        (inner.is_object() && has_any(inner)).then(|| Box::new(compiled(inner)))
    };
    let fields = schema["properties"].as_object().into_iter().flatten().filter(|(_, inner)| has_any(inner));
    Place {
        rules: rules.collect(),
        fields: fields.map(|(name, inner)| (name.clone(), compiled(inner))).collect(),
        items: below("items"),
        others: below("additionalProperties"),
    }
}

thread_local! {
    /// What rules can call, made once on each thread.
    static CONTEXT: cel::Context<'static> = cel::context();
}

/// The rules of one write.
struct Asked {
    budget: Budget,
    found: Vec<Cause>,
    /// Whether no more rules are asked.
    over: bool,
}

impl Asked {
    fn at(&mut self, place: &Place, schema: &Value, old: Option<&Value>, value: &Value, path: &str) {
        if !place.rules.is_empty() {
            CONTEXT.with(|context| self.rules(place, schema, old, value, path, context));
        }
        match value {
            Value::Object(fields) => self.fields(place, schema, old, fields, path),
            Value::Array(items) => {
                let Some(inner) = &place.items else { return };
                let before = earlier_items(schema, old);
                for (index, item) in items.iter().enumerate() {
                    if self.over {
                        return;
                    }
                    let old = item_key(schema, item).and_then(|key| before.get(&key).copied());
                    self.at(inner, &schema["items"], old, item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, place: &Place, schema: &Value, old: Option<&Value>, fields: &Map<String, Value>, path: &str) {
        let old = |name: &str| old.and_then(|old| old.get(name));
        for (name, inner) in &place.fields {
            if let Some(value) = fields.get(name).filter(|_| !self.over) {
                self.at(inner, &schema["properties"][name], old(name), value, &child(path, name));
            }
        }
        let Some(inner) = &place.others else { return };
        for (name, value) in fields.iter().filter(|(name, _)| schema["properties"][name.as_str()].is_null()) {
            if self.over {
                return;
            }
            self.at(inner, &schema["additionalProperties"], old(name), value, &child(path, name));
        }
    }

    fn rules(
        &mut self,
        place: &Place,
        schema: &Value,
        old: Option<&Value>,
        value: &Value,
        path: &str,
        context: &cel::Context<'_>,
    ) {
        // Nothing can be asked of what is not there.
        if value.is_null() {
            return;
        }
        let same = old == Some(value);
        // What has not changed is not held against a write, unless the rule is about changes.
        let asked = |rule: &Rule| match &rule.program {
            Ok(program) if program.about_changes => old.is_some() || rule.optional_old,
            _ => !same,
        };
        if !place.rules.iter().any(asked) {
            return;
        }
        // Making a value of a large object takes a while by itself.
        cel::begin_rule(self.budget);
        if cel::step(1).is_err() {
            return self.stop(schema, path);
        }
        let mut scope = context.new_inner_scope();
        scope.add_variable_from_value("self", cel::value(schema, value));
        if let Some(old) = old {
            scope.add_variable_from_value("oldSelf", cel::value(schema, old));
        }
        for rule in place.rules.iter().filter(|rule| asked(rule)) {
            if self.over {
                return;
            }
            let optional = rule.optional_old.then(|| {
                let mut inner = scope.new_inner_scope();
                inner.add_variable_from_value("oldSelf", cel::optional(old.map(|old| cel::value(schema, old))));
                inner
            });
            self.rule(rule, schema, value, path, optional.as_ref().unwrap_or(&scope));
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Value, value: &Value, path: &str, scope: &cel::Context<'_>) {
        cel::begin_rule(self.budget);
        let field = field_of(path, rule.field_path.as_deref());
        let held = match &rule.program {
            Ok(program) => program.evaluate(scope),
            Err(words) => Err(words.clone()),
        };
        let spent = cel::spent();
        let named = rule.message.as_deref().unwrap_or(&rule.text).trim();
        match (spent, held) {
            (Some(Spent::Rule), _) => {
                let why = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run";
                self.invalid(schema, path, &format!("{why} due to call cost exceeds limit for rule: {named}"));
                self.over = true;
            }
            (Some(Spent::All), _) => self.stop(schema, path),
            (None, Ok(cel::Value::Bool(true))) => {}
            (None, Ok(cel::Value::Bool(false))) => {
                let message = self.message(rule, scope);
                self.found.push(broken(rule, schema, value, &field, &message));
            }
            (None, Ok(_)) => self.invalid(schema, path, &format!("no such overload evaluating rule: {named}")),
            (None, Err(words)) => self.invalid(schema, path, &format!("{words} evaluating rule: {named}")),
        }
    }

    /// What is told of a place with the type of its value instead of the value.
    fn invalid(&mut self, schema: &Value, path: &str, words: &str) {
        let words = format!("Invalid value: {}: {words}", schema["type"]);
        self.found.push(Cause::new("FieldValueInvalid", if path.is_empty() { "<nil>" } else { path }, words));
    }

    fn stop(&mut self, schema: &Value, path: &str) {
        let words = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.invalid(schema, path, words);
        self.over = true;
    }

    /// What is said of a broken rule: what the rule itself makes up, else what is written beside it.
    fn message(&self, rule: &Rule, scope: &cel::Context<'_>) -> String {
        if let Some(program) = &rule.message_program
            && let Ok(cel::Value::String(text)) = program.evaluate(scope)
            && cel::spent().is_none()
        {
            let text = text.trim();
            if !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n') {
                return text.to_owned();
            }
        }
        match &rule.message {
            Some(message) => message.trim().to_owned(),
            None => format!("failed rule: {}", rule.text.trim()),
        }
    }
}

/// The items that were there before, by the keys that tell them apart. Items of other lists have no past.
fn earlier_items<'a>(schema: &Value, old: Option<&'a Value>) -> HashMap<String, &'a Value> {
    let items = old.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| Some((item_key(schema, item)?, item))).collect()
}

/// The field that a rule tells of.
fn field_of(path: &str, told: Option<&str>) -> String {
    match told {
        None => path.to_owned(),
        Some(told) if path.is_empty() => told.trim_start_matches('.').to_owned(),
        Some(told) if told.starts_with(['.', '[']) => format!("{path}{told}"),
        Some(told) => format!("{path}.{told}"),
    }
}

fn broken(rule: &Rule, schema: &Value, value: &Value, field: &str, message: &str) -> Cause {
    let shown = match schema["type"].as_str() {
        Some("object" | "array") | None => String::new(),
        Some(_) => format!("{value}: "),
    };
    let (reason, message) = match rule.reason.as_deref() {
        Some("FieldValueForbidden") => ("FieldValueForbidden", format!("Forbidden: {message}")),
        Some("FieldValueRequired") => ("FieldValueRequired", format!("Required value: {message}")),
        Some("FieldValueDuplicate") => {
            ("FieldValueDuplicate", format!("Duplicate value: {}", shown.trim_end_matches(": ")))
        }
        _ => ("FieldValueInvalid", format!("Invalid value: {shown}{message}")),
    };
    Cause::new(reason, if field.is_empty() { "<nil>" } else { field }, message)
}

#[cfg(test)]
mod tests;
