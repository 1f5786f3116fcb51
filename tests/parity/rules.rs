//! CEL rules of custom resources, and what was wrong before a schema became stricter.
use serde_json::{Value, json};

use super::resources::{INVALID, TYPE};
use super::{Server, on_each_server};

#[tokio::test]
async fn rules_are_told_with_their_message_reason_and_field() {
    on_each_server(async |server| {
        let rules = json!([
            {"rule": "!has(self.a) || !has(self.b) || self.a <= self.b", "messageExpression": "self.a > 10 ? 'a is big' : 'a is above b'", "reason": "FieldValueForbidden", "fieldPath": ".a"},
            {"rule": "!has(self.a) || self.a < 100"},
        ]);
        let path = server.with_spec(&json!({
            "range": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "x-kubernetes-validations": rules},
            "word": {"type": "string", "x-kubernetes-validations": [
                {"rule": "self != 'dup'", "message": "no dup", "reason": "FieldValueDuplicate"},
                {"rule": "self != 'req'", "message": "no req", "reason": "FieldValueRequired"},
                {"rule": "self != 'bad'", "message": "no bad"}]},
        })).await;
        server.refuses_specs(&path, &[
            (json!({"range": {"a": 5, "b": 3}}), "FieldValueForbidden", "spec.range.a", "Forbidden: a is above b"),
            (json!({"range": {"a": 50, "b": 3}}), "FieldValueForbidden", "spec.range.a", "Forbidden: a is big"),
            (json!({"word": "dup"}), "FieldValueDuplicate", "spec.word", "Duplicate value: \"dup\""),
            (json!({"word": "req"}), "FieldValueRequired", "spec.word", "Required value: no req"),
        ]).await;
        // older servers name the type instead of the value
        for (spec, field, words) in [(json!({"word": "bad"}), "spec.word", ": no bad"), (json!({"range": {"a": 500}}), "spec.range", "failed rule: !has(self.a) || self.a < 100")] {
            let answer = server.try_spec(&path, &spec).await;
            let cause = answer.body["details"]["causes"][0].clone();
            assert_eq!((&cause["reason"], &cause["field"]), (&json!(INVALID), &json!(field)));
            let message = cause["message"].as_str().unwrap();
            assert!(message.starts_with("Invalid value: ") && message.ends_with(words), "{message}");
            answer.refused(422);
        }
        server.try_spec(&path, &json!({"range": {"a": 1, "b": 3}, "word": "good"})).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn rules_are_not_asked_about_objects_of_the_wrong_shape() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "n": {"type": "integer"}, "w": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'x'", "message": "not x"}]},
        })).await;
        let answer = server.try_spec(&path, &json!({"n": "1", "w": "x"})).await;
        let words = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        let expected = json!([
            {"reason": TYPE, "field": "spec.n", "message": "Invalid value: \"string\": spec.n in body must be of type integer: \"string\""},
            {"reason": INVALID, "field": "<nil>", "message": format!("Invalid value: null: {words}")},
        ]);
        assert_eq!(answer.body["details"]["causes"], expected);
        answer.refused(422);
    })
    .await;
}

#[tokio::test]
async fn transition_rules_compare_with_what_was() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "host": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "host is immutable"}]},
            "n": {"type": "integer"},
        })).await;
        server.post(&path, &server.gadget("a", &json!({"host": "x"}))).await.expect(201);
        let object = format!("{path}/a");
        let merge = async |spec: Value| server.merge(&object, &json!({"spec": spec})).await;
        let answer = merge(json!({"host": "y"})).await;
        let cause = answer.body["details"]["causes"][0].clone();
        assert_eq!((&cause["reason"], &cause["field"]), (&json!(INVALID), &json!("spec.host")));
        let (reason, message) = answer.refused(422);
        assert!(reason == "Invalid" && message.ends_with(": host is immutable"), "{message}");
        // under apply with force, too
        let answer = server.apply(&format!("{object}?force=true"), "m", &server.gadget("a", &json!({"host": "y"}))).await;
        assert!(answer.refused(422).1.ends_with(": host is immutable"));
        // but what comes or goes is no transition
        merge(json!({"n": 1})).await.expect(200);
        merge(json!({"host": null})).await.expect(200);
        merge(json!({"host": "z"})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn what_was_wrong_before_is_not_held_against_other_changes() {
    on_each_server(async |server| {
        let path =
            server.with_spec(&json!({"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}})).await;
        server.post(&path, &server.gadget("a", &json!({"a": "long text", "c": "bad"}))).await.expect(201);
        // given a schema that has become stricter
        let definition = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.{}", server.group);
        let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let rule = json!([{"rule": "self != 'bad'", "message": "no bad"}]);
        let patch = json!([
            {"op": "add", "path": format!("{at}/a/maxLength"), "value": 3},
            {"op": "add", "path": format!("{at}/c/x-kubernetes-validations"), "value": rule},
        ]);
        server.call("PATCH", &definition, "application/json-patch+json", &patch).await.expect(200);
        server
            .until("the schema is stricter", async || {
                server.try_spec(&path, &json!({"a": "long text"})).await.status == 422
            })
            .await;
        // when something else changes, it is taken; when the field itself does, it is checked
        let object = format!("{path}/a");
        server.merge(&object, &json!({"spec": {"b": "1"}})).await.expect(200);
        let (_, message) = server.merge(&object, &json!({"spec": {"a": "other text"}})).await.refused(422);
        assert!(message.contains("spec.a: Too long: may not be more than 3 bytes"), "{message}");
        server.merge(&object, &json!({"spec": {"a": "ok"}})).await.expect(200);
        server.merge(&object, &json!({"spec": {"c": "good"}})).await.expect(200);
        let (_, message) = server.merge(&object, &json!({"spec": {"c": "bad"}})).await.refused(422);
        assert!(message.ends_with(": no bad"), "{message}");
    })
    .await;
}

/// Whether a definition with this rule is taken, and what is said if not. Answers come in bounded time.
async fn defined_with(server: &Server, rule: &str) -> Result<(), String> {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let schema = json!({"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"}, "l": list, "x": {"type": "array", "items": list}},
        "x-kubernetes-validations": [{"rule": rule}]});
    let asked = tokio::time::timeout(std::time::Duration::from_secs(60), server.try_schema(&schema)).await;
    let answer = asked.expect("an answer in good time");
    match answer.status {
        201 => Ok(()),
        _ => Err(answer.refused(422).1),
    }
}

#[tokio::test]
async fn expressions_are_only_so_deep() {
    on_each_server(async |server| {
        let nested = |open: &str, middle: &str, close: &str, times: usize| {
            format!("{}{middle}{}", open.repeat(times), close.repeat(times))
        };
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("[", "1", "]"),
            ("{'a': ", "1", "}"),
            ("true ? true : ", "true", ""),
            ("(!", "true", ")"),
        ] {
            let rule = format!("{} == {}", nested(open, middle, close, 1000), nested(open, middle, close, 1000));
            let words = defined_with(server, &rule).await.expect_err(open);
            assert!(words.contains("compilation failed"), "{words}");
        }
        // what is within bounds is taken
        assert_eq!(defined_with(server, &format!("{} == 1", nested("(", "self.n", ")", 12))).await, Ok(()));
    })
    .await;
}

#[tokio::test]
async fn what_a_rule_calls_has_to_be_there() {
    on_each_server(async |server| {
        let words = defined_with(server, "nosuch(self.s)").await.expect_err("no such function");
        assert!(words.contains("undeclared reference to 'nosuch' (in container '')"), "{words}");
        let words = defined_with(server, "nosuch == self.s").await.expect_err("no such name");
        assert!(words.contains("<input>:1:1: undeclared reference to 'nosuch' (in container '')"), "{words}");
        assert!(defined_with(server, "self.l.transformList(i, v, v)").await.is_err());
    })
    .await;
}

#[tokio::test]
async fn rules_have_to_be_questions_about_what_can_be_compared() {
    on_each_server(async |server| {
        for rule in ["self", "1", "self.s", "self.n + 1"] {
            let words = defined_with(server, rule).await.expect_err(rule);
            assert!(words.contains("must evaluate to a bool"), "{words}");
        }
        let words = defined_with(server, "self.s == 1").await.expect_err("a text is no number");
        assert!(words.contains("found no matching overload for '_==_' applied to '(string, int)'"), "{words}");
        for rule in ["self.s + 1 == 'a'", "self.n && true", "!self.s", "self.s.a == 'x'", "self.n.all(i, true)"] {
            assert!(defined_with(server, rule).await.is_err(), "{rule}");
        }
    })
    .await;
}

#[tokio::test]
async fn loops_within_loops_over_lists_without_bounds_are_too_dear() {
    on_each_server(async |server| {
        let words = defined_with(server, "self.l.all(a, self.l.all(b, self.l.all(c, a != b || b != c)))").await;
        assert!(
            words.expect_err("too dear").contains("estimated rule cost exceeds budget by factor of more than 100x")
        );
    })
    .await;
}

#[tokio::test]
async fn a_rule_that_fails_is_told_and_the_server_goes_on() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "n": {"type": "integer", "x-kubernetes-validations": [{"rule": "-(self - 1) > 0 || true", "message": "n"}]},
            "l": {"type": "array", "items": {"type": "string"}, "maxItems": 5, "x-kubernetes-validations": [{"rule": "self[7] == 'a'", "message": "the eighth is a"}]},
        })).await;
        let (_, message) = server.try_spec(&path, &json!({"l": ["a"]})).await.refused(422);
        assert!(message.contains("index out of bounds: 7 evaluating rule: the eighth is a"), "{message}");
        // an overflow is an error of the rule, or swallowed by what stands beside it, but never the server's end
        server.try_spec(&path, &json!({"n": i64::MIN + 1})).await.expect(201);
    })
    .await;
}
