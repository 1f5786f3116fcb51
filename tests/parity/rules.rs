//! CEL rules of custom resources, and what was wrong before a schema became stricter.
use serde_json::{Value, json};

use super::on_each_server;
use super::resources::{INVALID, TYPE};

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
