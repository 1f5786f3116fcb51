//! The CEL rules of custom resources, with the messages that Kubernetes gives. Pure.
use kube::core::cel::{CompiledSchema, Validator};
use serde_json::Value;

use super::schema::Cause;

/// Causes after which rules are not asked: they could stumble over them.
const BLOCKING: [&str; 5] =
    ["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];

/// Adds what an object breaks of its rules to what is wrong with it already.
pub fn check(rules: &CompiledSchema, schema: &Value, old: Option<&Value>, object: &Value, causes: &mut Vec<Cause>) {
    if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
        let words = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        causes.push(Cause::new("FieldValueInvalid", "<nil>", format!("Invalid value: null: {words}")));
        return;
    }
    let Err(errors) = Validator::new().validate_compiled(rules, object, old) else { return };
    for error in errors.into_vec() {
        let field = error.field_path.trim_start_matches('.');
        let place = place_of(schema, field, &error.rule);
        let (value, before) = (value_at(object, place), old.and_then(|old| value_at(old, place)));
        // What has not changed is not held against a write, unless the rule is about changes.
        if before.is_some() && before == value && !error.rule.contains("oldSelf") {
            continue;
        }
        let shown = match (schema_at(schema, place)["type"].as_str(), value) {
            (Some("object" | "array") | None, _) | (_, None) => String::new(),
            (_, Some(value)) => format!("{value}: "),
        };
        let (reason, message) = match error.reason.as_deref() {
            Some("FieldValueForbidden") => ("FieldValueForbidden", format!("Forbidden: {}", error.message)),
            Some("FieldValueRequired") => ("FieldValueRequired", format!("Required value: {}", error.message)),
            Some("FieldValueDuplicate") => {
                ("FieldValueDuplicate", format!("Duplicate value: {}", shown.trim_end_matches(": ")))
            }
            _ => ("FieldValueInvalid", format!("Invalid value: {shown}{}", error.message)),
        };
        causes.push(Cause::new(reason, if field.is_empty() { "<nil>" } else { field }, message));
    }
}

/// Whether a schema has rules at all.
pub fn has_any(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.contains_key("x-kubernetes-validations") || fields.values().any(has_any),
        Value::Array(items) => items.iter().any(has_any),
        _ => false,
    }
}

/// Where the rule stands that told of a field: there or, where it names a field below, further out.
fn place_of<'a>(schema: &Value, field: &'a str, rule: &str) -> &'a str {
    let mut place = field;
    loop {
        let rules = schema_at(schema, place)["x-kubernetes-validations"].as_array();
        if rules.is_some_and(|rules| rules.iter().any(|one| one["rule"] == rule)) {
            return place;
        }
        match place.rfind(['.', '[']) {
            Some(end) => place = &place[..end],
            None if place.is_empty() => return field,
            None => place = "",
        }
    }
}

/// The steps of a path like `spec.list[3].name`: names, and indices as numbers.
fn steps(path: &str) -> impl Iterator<Item = Result<&str, usize>> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| match part.strip_suffix(']') {
        Some(index) => index.parse().map_or(Ok(part), Err),
        None => Ok(part),
    })
}

fn schema_at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    steps(path).fold(schema, |at, step| match step {
        Err(_) => &at["items"],
        Ok(name) if at["properties"][name].is_object() => &at["properties"][name],
        Ok(_) => &at["additionalProperties"],
    })
}

fn value_at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    steps(path).try_fold(object, |at, step| match step {
        Err(index) => at.get(index),
        Ok(name) => at.get(name),
    })
}

#[cfg(test)]
mod tests {
    use kube::core::cel::compile_schema;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn broken(schema: Value, old: Option<Value>, object: Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(&compile_schema(&schema), &schema, old.as_ref(), &object, &mut causes);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn rules_tell_the_value_unless_it_is_a_structure_and_spare_what_has_not_changed() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string",
            "x-kubernetes-validations": [{"rule": "self != 'x'", "message": "not x"}]}},
            "x-kubernetes-validations": [{"rule": "self.a != 'y'", "fieldPath": ".a", "reason": "FieldValueForbidden", "message": "not y"}]});
        assert_eq!(broken(schema.clone(), None, json!({"a": "x"})), ["a: Invalid value: \"x\": not x"]);
        assert_eq!(broken(schema.clone(), None, json!({"a": "y"})), ["a: Forbidden: not y"]);
        assert_eq!(broken(schema, Some(json!({"a": "x"})), json!({"a": "x", "b": 1})), [""; 0]);
    }

    proptest! {
        #[test]
        fn any_rule_holds_or_not_on_any_object(rule in "[a-c.()\\[\\]!=<>&|?:'\"0-9 self-]{0,30}", text in "[a-c]{0,3}") {
            let schema = json!({"type": "object", "properties": {"a": {"type": "string"}},
                "x-kubernetes-validations": [{"rule": rule}]});
            let _ = broken(schema, None, json!({"a": text}));
        }
    }
}
