//! JSON, merge and strategic merge patches, and what is said of those that do not apply.
use serde_json::{Value, json};

use super::managed::schema;
use super::{Answer, Server, on_each_server};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Server {
    pub async fn patch(&self, path: &str, content_type: &str, patch: Value) -> Answer {
        self.call("PATCH", path, content_type, &patch).await
    }
    /// A config map `a` with two entries and a finalizer; gives its path.
    pub async fn a_map(&self) -> String {
        let map = json!({"metadata": {"name": "a", "labels": {"l": "1"}, "finalizers": ["portalkeeper.dev/x"]}, "data": {"a": "1", "b": "2"}});
        self.post(&self.config_maps(), &map).await.expect(201);
        format!("{}/a", self.config_maps())
    }
}

/// A patch that is refused without a reason, as those that do not apply are.
fn rejected(answer: Answer) {
    let (reason, message) = answer.refused(422);
    let words = "the server rejected our request due to an error in our request";
    assert_eq!((reason.as_str(), message.as_str()), ("Invalid", words));
}

#[tokio::test]
async fn every_operation_of_a_json_patch_does_its_work() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let cases = [
            (json!([{"op": "add", "path": "/data/c", "value": "3"}]), json!({"a": "1", "b": "2", "c": "3"})),
            (json!([{"op": "replace", "path": "/data/c", "value": "4"}]), json!({"a": "1", "b": "2", "c": "4"})),
            (
                json!([{"op": "copy", "from": "/data/c", "path": "/data/d"}]),
                json!({"a": "1", "b": "2", "c": "4", "d": "4"}),
            ),
            (
                json!([{"op": "move", "from": "/data/d", "path": "/data/e"}]),
                json!({"a": "1", "b": "2", "c": "4", "e": "4"}),
            ),
            (json!([{"op": "remove", "path": "/data/e"}]), json!({"a": "1", "b": "2", "c": "4"})),
            (json!([{"op": "add", "path": "/data/x~1y", "value": "1"}]).clone(), Value::Null),
            (json!([]), json!({"a": "1", "b": "2", "c": "4"})),
        ];
        for (patch, data) in cases {
            let answer = server.patch(&map, JSON, patch.clone()).await;
            if data.is_null() {
                // a slash may stand in a path, but not in a key
                assert_eq!(answer.refused(422).0, "Invalid", "{patch}");
            } else {
                assert_eq!(answer.expect(200)["data"], data, "{patch}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_json_patch_test_holds_up_the_whole_patch() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let add = json!({"op": "add", "path": "/data/c", "value": "3"});
        rejected(server.patch(&map, JSON, json!([{"op": "test", "path": "/data/a", "value": "9"}, add])).await);
        rejected(server.patch(&map, JSON, json!([add, {"op": "test", "path": "/data/a", "value": "9"}])).await);
        rejected(server.patch(&map, JSON, json!([{"op": "test", "path": "/data/none", "value": "9"}, add])).await);
        rejected(server.patch(&map, JSON, json!([{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}, add])).await);
        assert_eq!(server.get(&map).await.expect(200)["data"], json!({"a": "1", "b": "2"}));
        let held = json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "test", "path": "/metadata/finalizers", "value": ["portalkeeper.dev/x"]}, add]);
        assert_eq!(server.patch(&map, JSON, held).await.expect(200)["data"]["c"], "3");
    })
    .await;
}

#[tokio::test]
async fn a_missing_field_counts_as_null_but_a_missing_parent_does_not() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let test = |path: &str| json!([{"op": "test", "path": path, "value": null}]);
        server.patch(&map, JSON, test("/data/none")).await.expect(200);
        server.patch(&map, JSON, test("/metadata/ownerReferences")).await.expect(200);
        rejected(server.patch(&map, JSON, test("/none/none")).await);
        // as the finalizer helpers of clients have it
        let patch = json!([{"op": "test", "path": "/metadata/annotations", "value": null}, {"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}]);
        server.patch(&map, JSON, patch.clone()).await.expect(200);
        rejected(server.patch(&map, JSON, patch).await);
    })
    .await;
}

#[tokio::test]
async fn replacing_what_is_not_there_adds_it() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let patched = server.patch(&map, JSON, json!([{"op": "replace", "path": "/data/c", "value": "3"}])).await;
        assert_eq!(patched.expect(200)["data"]["c"], "3");
        rejected(server.patch(&map, JSON, json!([{"op": "replace", "path": "/none/c", "value": "3"}])).await);
    })
    .await;
}

#[tokio::test]
async fn lists_take_indices_from_both_ends() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let finalizers = async |patch: Value| server.patch(&map, JSON, json!([patch])).await;
        let at = "/metadata/finalizers";
        let added = finalizers(json!({"op": "add", "path": format!("{at}/-"), "value": "portalkeeper.dev/y"}))
            .await
            .expect(200);
        assert_eq!(added["metadata"]["finalizers"], json!(["portalkeeper.dev/x", "portalkeeper.dev/y"]));
        let added = finalizers(json!({"op": "add", "path": format!("{at}/0"), "value": "portalkeeper.dev/w"}))
            .await
            .expect(200);
        assert_eq!(added["metadata"]["finalizers"][0], "portalkeeper.dev/w");
        let removed = finalizers(json!({"op": "remove", "path": format!("{at}/-1")})).await.expect(200);
        assert_eq!(removed["metadata"]["finalizers"], json!(["portalkeeper.dev/w", "portalkeeper.dev/x"]));
        rejected(finalizers(json!({"op": "add", "path": format!("{at}/9"), "value": "portalkeeper.dev/z"})).await);
        rejected(finalizers(json!({"op": "remove", "path": format!("{at}/9")})).await);
        rejected(finalizers(json!({"op": "remove", "path": format!("{at}/x")})).await);
    })
    .await;
}

#[tokio::test]
async fn json_patches_that_do_not_apply_are_rejected() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        for operation in [
            json!({"op": "remove", "path": "/data/none"}),
            json!({"op": "remove", "path": "/none/none"}),
            json!({"op": "add", "path": "/none/none", "value": "1"}),
            json!({"op": "move", "from": "/data/none", "path": "/data/x"}),
            json!({"op": "odd", "path": "/data/x"}),
            json!({"op": "add", "value": "1"}),
            json!({"path": "/data/x", "value": "1"}),
        ] {
            rejected(server.patch(&map, JSON, json!([operation])).await);
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_that_are_no_patch_are_bad_requests() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let cases = [
            (
                JSON,
                "{\"op\":\"add\"}",
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (JSON, "", "error decoding patch: unexpected end of JSON input"),
            (
                MERGE,
                "[]",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (
                MERGE,
                "5",
                "error decoding patch: json: cannot unmarshal number into Go value of type map[string]interface {}",
            ),
            (MERGE, "", "error decoding patch: unexpected end of JSON input"),
            (MERGE, "null", "Invalid JSON Patch"),
            (STRATEGIC, "[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
            (STRATEGIC, "", "unexpected end of JSON input"),
        ];
        for (content_type, body, words) in cases {
            let answer = server.raw("PATCH", &map, &[("content-type", content_type)], body.into()).await;
            assert_eq!(answer.refused(400), ("BadRequest".to_owned(), words.to_owned()), "{content_type} {body}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_patch_cannot_rename_or_move_an_object() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let missing = "the name of the object (a based on URL) was undeterminable: name must be provided";
        let cases = [
            (
                JSON,
                json!([{"op": "replace", "path": "/metadata/name", "value": "x"}]),
                "the name of the object (x) does not match the name on the URL (a)",
            ),
            (JSON, json!([{"op": "remove", "path": "/metadata/name"}]), missing),
            (JSON, json!([{"op": "remove", "path": "/metadata"}]), missing),
            (JSON, json!([{"op": "replace", "path": "", "value": {}}]), missing),
            (MERGE, json!({"metadata": null}), missing),
            (
                MERGE,
                json!({"metadata": {"name": "x"}}),
                "the name of the object (x) does not match the name on the URL (a)",
            ),
            (
                MERGE,
                json!({"metadata": {"namespace": "default"}}),
                "the namespace of the provided object does not match the namespace sent on the request",
            ),
        ];
        for (content_type, patch, words) in cases {
            let answer = server.patch(&map, content_type, patch.clone()).await;
            assert_eq!(answer.refused(400), ("BadRequest".to_owned(), words.to_owned()), "{patch}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_patch_with_an_older_version_conflicts() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let words = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
        for (content_type, patch) in [
            (MERGE, json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "9"}})),
            (JSON, json!([{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}])),
            (STRATEGIC, json!({"metadata": {"resourceVersion": "1"}})),
        ] {
            let answer = server.patch(&map, content_type, patch).await;
            assert_eq!(answer.body["details"], json!({"name": "a", "kind": "configmaps"}));
            assert_eq!(answer.refused(409), ("Conflict".to_owned(), words.to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_invalid_and_the_whole_result_is_shown() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        for (content_type, patch) in
            [(MERGE, json!({"data": {"n": 5}})), (JSON, json!([{"op": "add", "path": "/data/n", "value": 5}]))]
        {
            let answer = server.patch(&map, content_type, patch).await;
            assert_eq!(answer.body["details"]["causes"][0]["field"], "patch");
            assert_eq!(answer.body["details"].get("name"), None);
            let (reason, message) = answer.refused(422);
            assert_eq!(reason, "Invalid");
            assert!(
                message.starts_with(" \"\" is invalid: patch: Invalid value: \"{\\\"apiVersion\\\":\\\"v1\\\""),
                "{message}"
            );
            let end = "json: cannot unmarshal number into Go struct field ConfigMap.data of type string";
            assert!(message.ends_with(end), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_custom_resource_is_checked_by_its_schema_after_a_patch() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        server.post(&gadgets, &server.gadget("a", &json!({"a": "1"}))).await.expect(201);
        let path = format!("{gadgets}/a");
        let kind = format!("Gadget.{}", server.group);
        let words = "spec.n: Invalid value: \"string\": spec.n in body must be of type integer: \"string\"";
        for (content_type, patch) in
            [(MERGE, json!({"spec": {"n": "x"}})), (JSON, json!([{"op": "add", "path": "/spec/n", "value": "x"}]))]
        {
            let answer = server.patch(&path, content_type, patch).await;
            assert_eq!(answer.refused(422), ("Invalid".to_owned(), format!("{kind} \"a\" is invalid: {words}")));
        }
        let answer = server.patch(&path, MERGE, json!({"kind": "Other"})).await;
        let words = format!("Other.{} \"a\" is invalid: kind: Invalid value: \"Other\": must be Gadget", server.group);
        assert_eq!(answer.refused(422).1, words);
    })
    .await;
}

#[tokio::test]
async fn a_custom_resource_takes_no_strategic_patch() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        server.post(&gadgets, &server.gadget("a", &json!({"a": "1"}))).await.expect(201);
        for content_type in [STRATEGIC, "application/odd"] {
            let (reason, message) = server.patch(&format!("{gadgets}/a"), content_type, json!({})).await.refused(415);
            assert_eq!(reason, "UnsupportedMediaType");
            // the list of those that are taken has grown over time
            let words = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            assert!(message.starts_with(words), "{message}");
        }
        let (reason, _) = server.patch(&server.a_map().await, "application/odd", json!({})).await.refused(415);
        assert_eq!(reason, "UnsupportedMediaType");
    })
    .await;
}

#[tokio::test]
async fn a_merge_patch_removes_with_null_and_replaces_lists() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let spec = json!({"a": "1", "list": ["x", "y"], "texts": {"k": "v", "l": "w"}, "map": [{"id": "i", "v": "1"}]});
        server.post(&gadgets, &server.gadget("a", &spec)).await.expect(201);
        let patch =
            json!({"spec": {"a": null, "list": ["z"], "texts": {"k": null}, "map": [{"id": "j"}], "none": null}});
        let patched = server.patch(&format!("{gadgets}/a"), MERGE, patch).await.expect(200);
        assert_eq!(patched["spec"], json!({"d": "given", "list": ["z"], "texts": {"l": "w"}, "map": [{"id": "j"}]}));
        let patched = server.patch(&format!("{gadgets}/a"), MERGE, json!({"spec": null})).await.expect(200);
        assert_eq!(patched["spec"], Value::Null);
    })
    .await;
}

#[tokio::test]
async fn a_patch_of_what_is_not_there_is_not_found() {
    on_each_server(async |server| {
        let none = format!("{}/none", server.config_maps());
        for content_type in [MERGE, STRATEGIC] {
            let answer = server.patch(&none, content_type, json!({})).await;
            assert_eq!(answer.refused(404), ("NotFound".to_owned(), "configmaps \"none\" not found".to_owned()));
        }
        let answer = server.patch(&none, JSON, json!([{"op": "test", "path": "/a", "value": 1}])).await;
        assert_eq!(answer.refused(404).0, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn a_patch_that_changes_nothing_keeps_the_version() {
    on_each_server(async |server| {
        let map = server.a_map().await;
        let before = server.get(&map).await.expect(200)["metadata"]["resourceVersion"].clone();
        for (content_type, patch) in [
            (MERGE, json!({"data": {"a": "1"}})),
            (STRATEGIC, json!({"metadata": {"finalizers": ["portalkeeper.dev/x"]}})),
            (JSON, json!([{"op": "replace", "path": "/data/a", "value": "1"}])),
            (MERGE, json!({"metadata": {"generation": 7}})),
        ] {
            let after = server.patch(&map, content_type, patch.clone()).await.expect(200);
            assert_eq!(after["metadata"]["resourceVersion"], before, "{patch}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_of_every_verb_leaves_everything_as_it_is() {
    on_each_server(async |server| {
        let (maps, map) = (server.config_maps(), server.a_map().await);
        let before = server.get(&map).await.expect(200);
        let dry = |path: &str| format!("{path}?dryRun=All");
        let made = server.post(&dry(&maps), &json!({"metadata": {"name": "b"}})).await.expect(201);
        assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
        let put = server.put(&dry(&map), &json!({"metadata": {"name": "a"}, "data": {"new": "1"}})).await.expect(200);
        assert_eq!(put["data"], json!({"new": "1"}));
        for (content_type, patch) in [
            (MERGE, json!({"data": {"new": "1"}})),
            (STRATEGIC, json!({"data": {"new": "1"}})),
            (JSON, json!([{"op": "add", "path": "/data/new", "value": "1"}])),
        ] {
            let patched = server.patch(&dry(&map), content_type, patch).await.expect(200);
            assert_eq!(
                (&patched["data"]["new"], &patched["metadata"]["resourceVersion"]),
                (&json!("1"), &before["metadata"]["resourceVersion"])
            );
        }
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"new": "1"}});
        server.apply(&dry(&map), "m", &config).await.expect(200);
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
        server.apply(&dry(&format!("{maps}/c")), "m", &config).await.expect(201);
        server.delete(&dry(&map), &Value::Null).await.expect(200);
        server.delete(&map, &json!({"dryRun": ["All"]})).await.expect(200);
        // then everything is as it was
        assert_eq!(server.get(&map).await.expect(200), before);
        server.get(&format!("{maps}/b")).await.refused(404);
        server.get(&format!("{maps}/c")).await.refused(404);
    })
    .await;
}

#[tokio::test]
async fn parameters_of_writes_are_checked() {
    on_each_server(async |server| {
        let (maps, map) = (server.config_maps(), server.a_map().await);
        let validation =
            "fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"";
        let cases = [
            (
                "POST",
                &maps,
                "dryRun=x",
                "CreateOptions",
                "dryRun: Unsupported value: [\"x\"]: supported values: \"All\"",
            ),
            ("PUT", &map, "dryRun=x", "UpdateOptions", "dryRun: Unsupported value: [\"x\"]: supported values: \"All\""),
            (
                "PATCH",
                &map,
                "dryRun=x",
                "PatchOptions",
                "dryRun: Unsupported value: [\"x\"]: supported values: \"All\"",
            ),
            ("POST", &maps, "fieldValidation=x", "CreateOptions", validation),
            ("PATCH", &map, "fieldValidation=x", "PatchOptions", validation),
            ("PATCH", &map, "force=true", "PatchOptions", "force: Forbidden: may not be specified for non-apply patch"),
            (
                "PATCH",
                &map,
                "fieldManager=%0aA",
                "PatchOptions",
                "fieldManager: Invalid value: \"\\nA\": invalid character U+000A (at position 0)",
            ),
        ];
        for (method, path, query, kind, words) in cases {
            let content_type = if method == "PATCH" { MERGE } else { "application/json" };
            let answer = server
                .call(method, &format!("{path}?{query}"), content_type, &json!({"metadata": {"name": "a"}}))
                .await;
            assert_eq!(answer.body["details"]["kind"], kind, "{query}");
            let message = format!("{kind}.meta.k8s.io \"\" is invalid: {words}");
            assert_eq!(answer.refused(422), ("Invalid".to_owned(), message), "{method} {query}");
        }
        let long = "x".repeat(129);
        let answer = server.call("PATCH", &format!("{map}?fieldManager={long}"), MERGE, &json!({})).await;
        assert!(answer.refused(422).1.contains("fieldManager: Too long: may not be more than 128 bytes"));
    })
    .await;
}
