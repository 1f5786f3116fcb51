//! Schemas of custom resource definitions: what is refused when they are made.
mod wholes;

use serde_json::{Value, json};

use super::{Answer, Server, on_each_server};

impl Server {
    /// Tries, without doing it, to make a definition whose `spec` has this schema.
    pub async fn try_schema(&self, spec: &Value) -> Answer {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        self.try_version(&json!({"schema": {"openAPIV3Schema": schema}})).await
    }
    /// The same with more of a version's fields.
    async fn try_version(&self, fields: &Value) -> Answer {
        let mut version = json!({"name": "v1", "served": true, "storage": true});
        version.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("gadgets.{}", self.group)},
            "spec": {
                "group": self.group, "scope": "Namespaced", "versions": [version],
                "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            },
        });
        self.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", &definition).await
    }
    /// Each schema is refused with this reason, field below the schema's `spec`, and words.
    async fn refuses(&self, cases: &[(Value, &str, &str, &str)]) {
        for (spec, reason, field, words) in cases {
            let answer = self.try_schema(spec).await;
            let cause = &answer.body["details"]["causes"][0];
            let field = format!("spec.validation.openAPIV3Schema.properties[spec].{field}");
            assert_eq!(cause, &json!({"reason": reason, "field": field, "message": words}), "{}: {spec}", self.name);
            let name = format!("gadgets.{}", self.group);
            let message =
                format!("CustomResourceDefinition.apiextensions.k8s.io \"{name}\" is invalid: {field}: {words}");
            assert_eq!(answer.refused(422), ("Invalid".to_owned(), message));
        }
    }
}

const REQUIRED: &str = "FieldValueRequired";
const INVALID: &str = "FieldValueInvalid";
const FORBIDDEN: &str = "FieldValueForbidden";
const UNSUPPORTED: &str = "FieldValueNotSupported";

#[tokio::test]
async fn the_root_has_to_be_an_object() {
    on_each_server(async |server| {
        for (schema, words) in [
            (json!({"type": "string"}), "type: Invalid value: \"string\": must be object at the root"),
            (json!({}), "type: Required value: must not be empty at the root"),
        ] {
            let answer = server.try_version(&json!({"schema": {"openAPIV3Schema": schema}})).await;
            let (_, message) = answer.refused(422);
            assert!(message.ends_with(&format!("is invalid: spec.validation.openAPIV3Schema.{words}")), "{message}");
        }
        let (_, message) = server.try_version(&json!({})).await.refused(422);
        assert!(message.contains("spec.versions[0].schema.openAPIV3Schema: Required value"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn every_field_needs_a_known_type() {
    on_each_server(async |server| {
        let known = "Unsupported value: \"odd\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"";
        server
            .refuses(&[
                (json!({"description": "x"}), REQUIRED, "type", "Required value: must not be empty for specified object fields"),
                (json!({"type": "odd"}), UNSUPPORTED, "type", known),
                (json!({"type": "array"}), REQUIRED, "items", "Required value: must be specified"),
                (json!({"type": "array", "items": {"description": "x"}}), REQUIRED, "items.type", "Required value: must not be empty for specified array items"),
            ])
            .await;
        server.try_schema(&json!({"x-kubernetes-preserve-unknown-fields": true})).await.expect(201);
        server.try_schema(&json!({"x-kubernetes-int-or-string": true})).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn parts_of_json_schema_that_are_not_taken_are_refused() {
    on_each_server(async |server| {
        let text = json!({"type": "string"});
        server
            .refuses(&[
                (
                    json!({"type": "object", "properties": {"a": text}, "additionalProperties": text}),
                    FORBIDDEN,
                    "additionalProperties",
                    "Forbidden: additionalProperties and properties are mutual exclusive",
                ),
                (
                    json!({"type": "array", "items": text, "uniqueItems": true}),
                    FORBIDDEN,
                    "uniqueItems",
                    "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                ),
                (
                    json!({"type": "object", "definitions": {"a": text}}),
                    FORBIDDEN,
                    "definitions",
                    "Forbidden: definitions is not supported",
                ),
                (
                    json!({"type": "object", "anyOf": [{"type": "object"}]}),
                    FORBIDDEN,
                    "anyOf[0].type",
                    "Forbidden: must be empty to be structural",
                ),
            ])
            .await;
    })
    .await;
}

#[tokio::test]
async fn lists_and_maps_have_to_be_what_their_kind_says() {
    on_each_server(async |server| {
        let list = |kind: &str, keys: Value, items: Value| {
            let mut schema = json!({"type": "array", "x-kubernetes-list-type": kind, "items": items});
            if !keys.is_null() {
                schema["x-kubernetes-list-map-keys"] = keys;
            }
            schema
        };
        let item = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let text = json!({"type": "string"});
        let keys = "x-kubernetes-list-map-keys";
        server
            .refuses(&[
                (list("map", Value::Null, item.clone()), REQUIRED, keys, "Required value: must not be empty if x-kubernetes-list-type is map"),
                (list("map", json!(["b"]), item.clone()), INVALID, keys, "Invalid value: [\"b\"]: entries must all be names of item properties"),
                (list("map", json!(["a"]), item.clone()), REQUIRED, "items.properties[a].default", "Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"),
                (list("map", json!(["a", "a"]), json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}})), INVALID, keys, "Invalid value: [\"a\",\"a\"]: must not contain duplicate entries"),
                (list("map", json!(["a"]), json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "object"}}})), INVALID, "items.properties[a].type", "Invalid value: \"object\": must be a scalar type if parent array's x-kubernetes-list-type is map"),
                (list("map", json!(["a"]), text.clone()), INVALID, "items.type", "Invalid value: \"string\": must be object if parent array's x-kubernetes-list-type is map"),
                (list("set", Value::Null, item), INVALID, "items.x-kubernetes-map-type", "Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set"),
                (list("odd", Value::Null, text), UNSUPPORTED, "x-kubernetes-list-type", "Unsupported value: \"odd\": supported values: \"atomic\", \"set\", \"map\""),
                (json!({"type": "object", "x-kubernetes-list-type": "set"}), INVALID, "type", "Invalid value: \"object\": must be array if x-kubernetes-list-type is specified"),
                (json!({"type": "object", "x-kubernetes-map-type": "odd"}), UNSUPPORTED, "x-kubernetes-map-type", "Unsupported value: \"odd\": supported values: \"atomic\", \"granular\""),
                (json!({"type": "string", "x-kubernetes-map-type": "atomic"}), INVALID, "type", "Invalid value: \"string\": must be object if x-kubernetes-map-type is specified"),
            ])
            .await;
    })
    .await;
}

#[tokio::test]
async fn defaults_have_to_fit() {
    on_each_server(async |server| {
        server
            .refuses(&[
                (
                    json!({"type": "string", "default": 5}),
                    "FieldValueTypeInvalid",
                    "default",
                    "Invalid value: \"integer\":  in body must be of type string: \"integer\"",
                ),
                (
                    json!({"type": "string", "enum": ["a"], "default": "b"}),
                    UNSUPPORTED,
                    "default",
                    "Unsupported value: \"b\": supported values: \"a\"",
                ),
                (
                    json!({"type": "object", "default": {"z": 1}, "properties": {"a": {"type": "string"}}}),
                    INVALID,
                    "default",
                    "Invalid value: {\"z\":1}: must not have unknown fields",
                ),
            ])
            .await;
        server.try_schema(&json!({"type": "string", "default": "x"})).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn embedded_objects_and_patterns_are_checked() {
    on_each_server(async |server| {
        let words = "Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        server.refuses(&[(json!({"type": "object", "x-kubernetes-embedded-resource": true}), REQUIRED, "properties", words)]).await;
        let (_, message) = server.try_schema(&json!({"type": "string", "pattern": "("})).await.refused(422);
        assert!(message.contains("properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: "), "{message}");
    })
    .await;
}

#[tokio::test]
async fn metadata_may_only_have_its_names_narrowed() {
    on_each_server(async |server| {
        let root = |properties: Value| json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"metadata": {"type": "object", "properties": properties}}}}});
        let labels = root(json!({"labels": {"type": "object"}}));
        let words = "is invalid: spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified";
        let (_, message) = server.try_version(&labels).await.refused(422);
        assert!(message.ends_with(words), "{message}");
        server.try_version(&root(json!({"name": {"type": "string", "maxLength": 5}}))).await.expect(201);
        let filled = root(json!({"name": {"type": "string", "default": "x"}}));
        let words = "is invalid: spec.validation.openAPIV3Schema.properties[metadata].properties[name].default: Forbidden: must not be set in top-level metadata";
        let (_, message) = server.try_version(&filled).await.refused(422);
        assert!(message.ends_with(words), "{message}");
    })
    .await;
}

#[tokio::test]
async fn rules_that_do_not_compile_are_refused() {
    on_each_server(async |server| {
        let rule = |rule: Value| json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}}, "x-kubernetes-validations": [rule]});
        for (expression, words) in [
            ("self.(", "compilation failed: ERROR: <input>:1:6: Syntax error"),
            ("self.b == 'x'", "compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b == 'x'\n | ....^"),
        ] {
            let answer = server.try_schema(&rule(json!({"rule": expression}))).await;
            let cause = &answer.body["details"]["causes"][0];
            let field = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
            assert_eq!((&cause["reason"], &cause["field"]), (&json!(INVALID), &json!(field)), "{expression}");
            let message = cause["message"].as_str().unwrap();
            // later servers write the rule in other words
            assert!(message.starts_with("Invalid value: ") && message.contains(words), "{message}");
            answer.refused(422);
        }
        server.try_schema(&rule(json!({"rule": "self.a != 'x'", "message": "not x"}))).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn fields_of_rules_are_checked() {
    on_each_server(async |server| {
        let rule = |rule: Value| json!({"type": "object", "x-kubernetes-validations": [rule]});
        let at = |field: &str| format!("x-kubernetes-validations[0].{field}");
        let known = "Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"";
        server
            .refuses(&[
                (rule(json!({"rule": ""})), REQUIRED, &at("rule"), "Required value: rule is not specified"),
                (rule(json!({"rule": "true", "reason": "Odd"})), UNSUPPORTED, &at("reason"), known),
                (rule(json!({"rule": "true", "fieldPath": ".nope"})), INVALID, &at("fieldPath"), "Invalid value: \".nope\": must be a valid path"),
                (rule(json!({"rule": "true ||\nfalse"})), REQUIRED, &at("message"), "Required value: message must be specified if rule contains line breaks"),
                (rule(json!({"rule": "true", "optionalOldSelf": true})), INVALID, &at("optionalOldSelf"), "Invalid value: true: may not be set if oldSelf is not used in rule"),
            ])
            .await;
    })
    .await;
}

#[tokio::test]
async fn columns_and_fields_to_select_by_are_checked() {
    on_each_server(async |server| {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "string"}}}}});
        let parts = |name: &str, value: Value| json!({"schema": {"openAPIV3Schema": schema}, name: value});
        let columns = json!([
            {"name": "A", "type": "odd", "jsonPath": ".spec.n"}, {"name": "", "type": "string", "jsonPath": "spec["},
            {"name": "C", "type": "string", "jsonPath": ".spec.n", "format": "odd"},
        ]);
        let (_, message) = server.try_version(&parts("additionalPrinterColumns", columns)).await.refused(422);
        for words in [
            "spec.additionalPrinterColumns[0].type: Invalid value: \"odd\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[1].name: Required value",
            "spec.additionalPrinterColumns[1].JSONPath: Invalid value: \"spec[\": must be a simple json path starting with .",
            "spec.additionalPrinterColumns[2].format: Invalid value: \"odd\": must be one of byte,date,date-time,double,float,int32,int64,password",
        ] {
            assert!(message.contains(words), "{message}");
        }
        let fields = json!([{"jsonPath": ".spec.none"}, {"jsonPath": "spec"}, {"jsonPath": ".metadata.name"}]);
        let (_, message) = server.try_version(&parts("selectableFields", fields)).await.refused(422);
        for words in [
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field",
            "spec.selectableFields[1].jsonPath: Invalid value: \"spec\": is an invalid path: expected [ or . but got: spec",
            "spec.selectableFields[2].jsonPath: Invalid value: \".metadata.name\": is an invalid path: does not refer to a valid field",
        ] {
            assert!(message.contains(words), "{message}");
        }
        let scale = json!({"schema": {"openAPIV3Schema": schema}, "subresources": {"scale": {}}});
        let (_, message) = server.try_version(&scale).await.refused(422);
        assert!(message.contains("spec.subresources.scale.specReplicasPath: Required value"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn objects_can_be_selected_by_declared_fields() {
    on_each_server(async |server| {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "text": {"type": "string"}, "count": {"type": "integer"}, "flag": {"type": "boolean"}, "other": {"type": "string"}}}}});
        let fields = json!([{"jsonPath": ".spec.text"}, {"jsonPath": ".spec.count"}, {"jsonPath": ".spec.flag"}]);
        let path = server
            .define(&json!([{"name": "v1", "served": true, "storage": true, "selectableFields": fields, "schema": {"openAPIV3Schema": schema}}]))
            .await;
        server.post(&path, &server.gadget("a", &json!({"text": "x", "count": 5, "flag": true}))).await.expect(201);
        server.post(&path, &server.gadget("b", &json!({"text": "y", "flag": false}))).await.expect(201);
        let names = async |selector: &str| {
            let list = server.get(&format!("{path}?fieldSelector={selector}")).await.expect(200);
            let items = list["items"].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        for (selector, expected) in [
            ("spec.text=x", vec!["a"]),
            ("spec.text!=x", vec!["b"]),
            ("spec.count=5", vec!["a"]),
            ("spec.flag=false", vec!["b"]),
            ("spec.text=y,metadata.name=a", vec![]),
        ] {
            assert_eq!(names(selector).await, expected, "{selector}");
        }
        let answer = server.get(&format!("{path}?fieldSelector=spec.other=x")).await;
        assert_eq!(answer.refused(400), ("BadRequest".to_owned(), "field label not supported: spec.other".to_owned()));
    })
    .await;
}
