//! Custom resources against their schemas: pruning, defaults, validation, rules.
use serde_json::{Value, json};

use super::{Answer, Server, on_each_server};

impl Server {
    /// A definition whose objects have this `spec`; gives the path of its objects.
    pub async fn with_spec(&self, properties: &Value) -> String {
        self.gadgets(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}))
            .await
    }
    /// Tries, without doing it, to make an object with this spec.
    pub async fn try_spec(&self, path: &str, spec: &Value) -> Answer {
        self.post(&format!("{path}?dryRun=All"), &self.gadget("a", spec)).await
    }
    /// Each spec is refused with one cause: reason, field, words.
    pub async fn refuses_specs(&self, path: &str, cases: &[(Value, &str, &str, &str)]) {
        for (spec, reason, field, words) in cases {
            let answer = self.try_spec(path, spec).await;
            let causes = &answer.body["details"]["causes"];
            assert_eq!(causes, &json!([{"reason": reason, "field": field, "message": words}]), "{}: {spec}", self.name);
            let message = format!("Gadget.{} \"a\" is invalid: {field}: {words}", self.group);
            assert_eq!(answer.refused(422), ("Invalid".to_owned(), message), "{spec}");
        }
    }
}

pub const INVALID: &str = "FieldValueInvalid";
pub const TYPE: &str = "FieldValueTypeInvalid";

#[tokio::test]
async fn values_of_the_wrong_type_are_refused() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "text": {"type": "string"}, "whole": {"type": "integer"}, "number": {"type": "number"}, "flag": {"type": "boolean"},
            "map": {"type": "object", "additionalProperties": {"type": "string"}}, "list": {"type": "array", "items": {"type": "integer"}},
            "either": {"x-kubernetes-int-or-string": true},
        })).await;
        let case = |field: &str, value: Value, wanted: &str, found: &str| {
            let words = format!("Invalid value: \"{found}\": spec.{field} in body must be of type {wanted}: \"{found}\"");
            (json!({field: value}), format!("spec.{field}"), words)
        };
        let cases = [
            case("text", json!(5), "string", "integer"),
            case("text", json!({}), "string", "object"),
            case("whole", json!("x"), "integer", "string"),
            case("number", json!(true), "number", "boolean"),
            case("flag", json!("x"), "boolean", "string"),
            case("map", json!([]), "object", "array"),
            case("list", json!({}), "array", "object"),
            case("either", json!(true), "integer,string", "boolean"),
        ];
        for (spec, field, words) in &cases {
            server.refuses_specs(&path, &[(spec.clone(), TYPE, field, words)]).await;
        }
        let inner = "Invalid value: \"string\": spec.list[1] in body must be of type integer: \"string\"";
        server.refuses_specs(&path, &[(json!({"list": [1, "x"]}), TYPE, "spec.list[1]", inner)]).await;
        for spec in [json!({"either": 1}), json!({"either": "x"}), json!({"number": 1}), json!({"number": 1.5})] {
            server.try_spec(&path, &spec).await.expect(201);
        }
    })
    .await;
}

#[tokio::test]
async fn texts_are_held_to_enums_patterns_and_lengths() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "enum": {"type": "string", "enum": ["A", "B"]}, "count": {"type": "integer", "enum": [1, 2]},
            "pattern": {"type": "string", "pattern": "^a+$"}, "long": {"type": "string", "minLength": 3}, "short": {"type": "string", "maxLength": 3},
        })).await;
        server.refuses_specs(&path, &[
            (json!({"enum": "C"}), "FieldValueNotSupported", "spec.enum", "Unsupported value: \"C\": supported values: \"A\", \"B\""),
            (json!({"count": 3}), "FieldValueNotSupported", "spec.count", "Unsupported value: 3: supported values: \"1\", \"2\""),
            (json!({"pattern": "b"}), INVALID, "spec.pattern", "Invalid value: \"b\": spec.pattern in body should match '^a+$'"),
            (json!({"long": "a"}), INVALID, "spec.long", "Invalid value: \"a\": spec.long in body should be at least 3 chars long"),
            (json!({"short": "abcd"}), "FieldValueTooLong", "spec.short", "Too long: may not be more than 3 bytes"),
        ]).await;
        server.try_spec(&path, &json!({"enum": "A", "count": 1, "pattern": "aa", "long": "abc", "short": "äöü"})).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn numbers_are_held_to_their_bounds() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "least": {"type": "integer", "minimum": 3}, "most": {"type": "integer", "maximum": 3},
            "over": {"type": "number", "minimum": 3, "exclusiveMinimum": true}, "under": {"type": "number", "maximum": 3.5, "exclusiveMaximum": true},
            "step": {"type": "integer", "multipleOf": 5}, "small": {"type": "integer", "format": "int32"},
        })).await;
        server.refuses_specs(&path, &[
            (json!({"least": 1}), INVALID, "spec.least", "Invalid value: 1: spec.least in body should be greater than or equal to 3"),
            (json!({"most": 9}), INVALID, "spec.most", "Invalid value: 9: spec.most in body should be less than or equal to 3"),
            (json!({"over": 3}), INVALID, "spec.over", "Invalid value: 3: spec.over in body should be greater than 3"),
            (json!({"under": 3.5}), INVALID, "spec.under", "Invalid value: 3.5: spec.under in body should be less than 3.5"),
            (json!({"step": 7}), INVALID, "spec.step", "Invalid value: 7: spec.step in body should be a multiple of 5"),
            (json!({"small": 3_000_000_000_i64}), INVALID, "<nil>", "Invalid value: \"\": Checked value must be of type integer with format int32 in spec.small"),
        ]).await;
    })
    .await;
}

#[tokio::test]
async fn lists_and_maps_are_held_to_their_sizes_and_keys() {
    on_each_server(async |server| {
        let text = json!({"type": "string"});
        let item = json!({"type": "object", "required": ["a", "b"], "properties": {"a": text, "b": {"type": "integer"}}});
        let path = server.with_spec(&json!({
            "few": {"type": "array", "maxItems": 2, "items": text}, "many": {"type": "array", "minItems": 2, "items": text},
            "small": {"type": "object", "maxProperties": 1, "additionalProperties": text}, "large": {"type": "object", "minProperties": 2, "additionalProperties": text},
            "needs": {"type": "object", "required": ["x"], "properties": {"x": text}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": item},
        })).await;
        server.refuses_specs(&path, &[
            (json!({"few": ["a", "b", "c"]}), "FieldValueTooMany", "spec.few", "Too many: 3: must have at most 2 items"),
            (json!({"many": ["a"]}), INVALID, "spec.many", "Invalid value: 1: spec.many in body should have at least 2 items"),
            (json!({"small": {"a": "b", "c": "d"}}), "FieldValueTooMany", "spec.small", "Too many: 2: must have at most 1 item"),
            (json!({"large": {"a": "b"}}), INVALID, "spec.large", "Invalid value: 1: spec.large in body should have at least 2 properties"),
            (json!({"needs": {}}), "FieldValueRequired", "spec.needs.x", "Required value"),
            (json!({"set": ["a", "a", "b", "a"]}), "FieldValueDuplicate", "spec.set[1]", "Duplicate value: \"a\""),
            (json!({"map": [{"a": "1", "b": 1}, {"a": "1", "b": 1}]}), "FieldValueDuplicate", "spec.map[1]", "Duplicate value: {\"a\":\"1\",\"b\":1}"),
            (json!({"map": [{"a": "1"}]}), "FieldValueRequired", "spec.map[0].b", "Required value"),
        ]).await;
    })
    .await;
}

#[tokio::test]
async fn branches_are_told_as_a_whole() {
    on_each_server(async |server| {
        let properties = json!({"x": {"type": "string"}, "y": {"type": "string"}});
        let path = server.with_spec(&json!({
            "one": {"type": "object", "oneOf": [{"required": ["x"]}, {"required": ["y"]}], "properties": properties},
            "not": {"type": "string", "not": {"enum": ["bad"]}},
        })).await;
        server.refuses_specs(&path, &[
            (json!({"one": {"x": "1", "y": "1"}}), INVALID, "<nil>", "Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives"),
            (json!({"not": "bad"}), INVALID, "<nil>", "Invalid value: \"\": \"spec.not\" must not validate the schema (not)"),
        ]).await;
        let (_, message) = server.try_spec(&path, &json!({"one": {}})).await.refused(422);
        assert!(message.contains("\"spec.one\" must validate one and only one schema (oneOf). Found none valid"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn formats_are_checked_and_unknown_ones_are_not() {
    on_each_server(async |server| {
        let formats = [
            "date-time",
            "date",
            "ipv4",
            "ipv6",
            "uri",
            "uuid",
            "email",
            "byte",
            "hostname",
            "cidr",
            "mac",
            "duration",
            "odd",
        ];
        let properties: serde_json::Map<String, Value> = formats
            .iter()
            .map(|format| (format.replace('-', ""), json!({"type": "string", "format": format})))
            .collect();
        let path = server.with_spec(&Value::Object(properties)).await;
        let good = [
            ("datetime", "2020-01-01T00:00:00.5+01:00"),
            ("date", "2020-01-01"),
            ("ipv4", "1.2.3.4"),
            ("ipv6", "::1"),
            ("uri", "x:y"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
            ("email", "a@b.c"),
            ("byte", "YQ=="),
            ("hostname", "reset.acme.example"),
            ("cidr", "1.2.3.0/24"),
            ("mac", "01:23:45:67:89:ab"),
            ("duration", "1h30m"),
            ("odd", "anything"),
        ];
        for (field, value) in good {
            assert_eq!(server.try_spec(&path, &json!({field: value})).await.status, 201, "{field} {value}");
        }
        let bad = [
            ("datetime", "2020"),
            ("date", "2020-13-01"),
            ("ipv4", "::1"),
            ("ipv6", "1.2.3.4"),
            ("uri", "x"),
            ("uuid", "x"),
            ("email", "a"),
            ("byte", "YQ"),
            ("hostname", "a..b"),
            ("hostname", "a_b"),
            ("cidr", "1.2.3.4"),
            ("mac", "x"),
            ("duration", "x"),
        ];
        for (field, value) in bad {
            let format = if field == "datetime" { "date-time" } else { field };
            let words =
                format!("Invalid value: \"{value}\": spec.{field} in body must be of type {format}: \"{value}\"");
            server.refuses_specs(&path, &[(json!({field: value}), TYPE, &format!("spec.{field}"), &words)]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_schema_does_not_know_is_pruned_unless_it_says_to_keep_it() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "known": {"type": "object", "properties": {"a": {"type": "string"}}},
            "kept": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"inner": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "texts": {"type": "object", "additionalProperties": {"type": "string"}},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        })).await;
        let spec = json!({
            "known": {"a": "1", "odd": 1}, "odd": 1, "texts": {"any": "1"},
            "kept": {"odd": {"deep": [1, null]}, "inner": {"a": "1", "odd": 1}},
            "inner": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "odd": 1}, "data": {"odd": 1}},
        });
        let made = server.try_spec(&path, &spec).await.expect(201);
        let expected = json!({
            "known": {"a": "1"}, "texts": {"any": "1"}, "kept": {"odd": {"deep": [1, null]}, "inner": {"a": "1"}},
            "inner": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}, "data": {"odd": 1}},
        });
        assert_eq!(made["spec"], expected);
    })
    .await;
}

#[tokio::test]
async fn an_embedded_object_has_to_say_what_it_is() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({"inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}})).await;
        let answer = server.try_spec(&path, &json!({"inner": {"a": 1}})).await;
        let words = format!("Gadget.{} \"a\" is invalid: [spec.inner.apiVersion: Required value, spec.inner.kind: Required value]", server.group);
        assert_eq!(answer.refused(422).1, words);
    })
    .await;
}

#[tokio::test]
async fn defaults_fill_what_is_absent_or_null() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({
            "plain": {"type": "string", "default": "given"}, "nullable": {"type": "string", "nullable": true, "default": "given"},
            "deep": {"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 5}, "b": {"type": "string"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}},
            "none": {"type": "string"}, "may": {"type": "string", "nullable": true},
        })).await;
        let spec = |spec: Value| async move { server.try_spec(&path, &spec).await.expect(201)["spec"].clone() };
        let given = json!({"plain": null, "nullable": null, "list": [{}, {"a": "y"}], "map": {"k": {}}, "none": null, "may": null});
        let expected = json!({
            "plain": "given", "nullable": null, "deep": {"a": 5}, "list": [{"a": "x"}, {"a": "y"}], "map": {"k": {"a": "x"}}, "may": null,
        });
        assert_eq!(spec(given).await, expected);
    })
    .await;
}

#[tokio::test]
async fn objects_made_before_a_default_show_it_when_read() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({"a": {"type": "string"}})).await;
        server.post(&path, &server.gadget("a", &json!({"a": "1"}))).await.expect(201);
        // when the definition gets a field with a default
        let definition = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.{}", server.group);
        let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/b";
        let patch = json!([{"op": "add", "path": field, "value": {"type": "string", "default": "later"}}]);
        server.call("PATCH", &definition, "application/json-patch+json", &patch).await.expect(200);
        // then the object has it, in a list, too
        let object = format!("{path}/a");
        server.until("the default is shown", async || server.get(&object).await.body["spec"]["b"] == "later").await;
        let list = server.get(&path).await.expect(200);
        assert_eq!(list["items"][0]["spec"], json!({"a": "1", "b": "later"}));
    })
    .await;
}

#[tokio::test]
async fn without_a_status_subresource_status_is_a_field_like_any_other() {
    on_each_server(async |server| {
        let schema = json!({"type": "object", "properties": {"status": {"type": "object", "properties": {"phase": {"type": "string"}}}}});
        let path = server.define(&json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}])).await;
        let mut gadget = server.gadget("a", &Value::Null);
        gadget.as_object_mut().unwrap().remove("spec");
        gadget["status"] = json!({"phase": "On"});
        let made = server.post(&path, &gadget).await.expect(201);
        assert_eq!(made["status"]["phase"], "On");
        let changed = server.merge(&format!("{path}/a"), &json!({"status": {"phase": "Off"}})).await.expect(200);
        assert_eq!((&changed["status"]["phase"], &changed["metadata"]["generation"]), (&json!("Off"), &json!(2)));
        server.merge(&format!("{path}/a/status"), &json!({})).await.refused(404);
    })
    .await;
}

#[tokio::test]
async fn every_version_shows_the_same_object() {
    on_each_server(async |server| {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}});
        let version = |name: &str, served: bool, storage: bool| {
            json!({"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema": schema}})
        };
        let first = server.define(&json!([version("v1", true, true), version("v2", true, false), version("v3", false, false)])).await;
        let (second, third) = (first.replace("/v1/", "/v2/"), first.replace("/v1/", "/v3/"));
        server.until("the second version is served", async || server.get(&second).await.status == 200).await;
        let mut gadget = server.gadget("a", &json!({"a": "1"}));
        gadget["apiVersion"] = json!(format!("{}/v2", server.group));
        let made = server.post(&second, &gadget).await.expect(201);
        assert_eq!(made["apiVersion"], gadget["apiVersion"]);
        let found = server.get(&format!("{first}/a")).await.expect(200);
        assert_eq!(found["apiVersion"], format!("{}/v1", server.group));
        assert_eq!(found["metadata"]["uid"], made["metadata"]["uid"]);
        let changed = server.merge(&format!("{second}/a"), &json!({"spec": {"a": "2"}})).await.expect(200);
        assert_eq!((&changed["apiVersion"], &changed["spec"]["a"]), (&gadget["apiVersion"], &json!("2")));
        let list = server.get(&second).await.expect(200);
        assert_eq!((&list["apiVersion"], &list["items"][0]["apiVersion"]), (&gadget["apiVersion"], &gadget["apiVersion"]));
        assert_eq!(server.get(&third).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn the_metadata_of_a_custom_resource_has_its_type() {
    on_each_server(async |server| {
        let path = server.with_spec(&json!({"a": {"type": "string"}})).await;
        let mut gadget = server.gadget("a", &json!({"a": "1"}));
        gadget["metadata"]["labels"] = json!({"a": 5});
        let (reason, message) = server.post(&path, &gadget).await.refused(400);
        let words = "Gadget in version \"v1\" cannot be handled as a Gadget: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string";
        assert_eq!((reason.as_str(), message.as_str()), ("BadRequest", words));
        gadget["metadata"]["labels"] = json!({});
        let made = server.post(&path, &gadget).await.expect(201);
        assert_eq!(made["metadata"]["labels"], Value::Null);
    })
    .await;
}
