//! Who is said to have set what: `managedFields` after each kind of write.
use serde_json::{Value, json};

use super::{Answer, Server, on_each_server};

/// A schema with every kind of list and map.
pub fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"type": "string"}, "n": {"type": "integer"},
            "d": {"type": "string", "default": "given"},
            "list": {"type": "array", "items": {"type": "string"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": {
                "type": "object", "required": ["id"],
                "properties": {"id": {"type": "string"}, "v": {"type": "string"}, "w": {"type": "string"}},
            }},
            "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "texts": {"type": "object", "additionalProperties": {"type": "string"}},
            "things": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "sub": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {
            "phase": {"type": "string"},
            "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {
                "type": "object", "required": ["type"], "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
            }},
        }},
    }})
}

/// Everything that the schema has, once.
fn full() -> Value {
    json!({
        "a": "1", "list": ["x"], "set": ["p", "q"], "map": [{"id": "i", "v": "1"}], "atom": {"k": "v"},
        "texts": {"k": "v"}, "things": {"o": {"x": "1"}}, "sub": {"x": "1"},
        "any": {"deep": {"x": 1}, "list": [1], "empty": {}}, "port": 5,
        "inner": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "labels": {"a": "b"}}, "data": {"k": "v"}},
    })
}

/// Entries as manager, operation, subresource and fields.
pub fn owners(object: &Value) -> Vec<(String, String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    listed
        .iter()
        .map(|e| (text(&e["manager"]), text(&e["operation"]), text(&e["subresource"]), e["fieldsV1"].clone()))
        .collect()
}

pub fn owner(manager: &str, operation: &str, fields: Value) -> (String, String, String, Value) {
    (manager.to_owned(), operation.to_owned(), String::new(), fields)
}

impl Server {
    /// Server-side apply of a gadget's spec.
    pub async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answer {
        let separator = if path.contains('?') { '&' } else { '?' };
        self.call("PATCH", &format!("{path}{separator}fieldManager={manager}"), "application/apply-patch+yaml", config)
            .await
    }
}

#[tokio::test]
async fn a_creator_owns_all_it_sent_its_defaults_and_the_structures_around() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let mut gadget = server.gadget("a", &full());
        gadget["metadata"]["labels"] = json!({"l": "1"});
        gadget["metadata"]["annotations"] = json!({"x/y": "z"});
        gadget["metadata"]["finalizers"] = json!(["portalkeeper.dev/held"]);
        gadget["status"] = json!({"phase": "ignored"});
        let made = server.post(&format!("{gadgets}?fieldManager=maker&dryRun=All"), &gadget).await.expect(201);
        let expected = json!({
            "f:metadata": {
                "f:annotations": {".": {}, "f:x/y": {}}, "f:finalizers": {".": {}, "v:\"portalkeeper.dev/held\"": {}},
                "f:labels": {".": {}, "f:l": {}},
            },
            "f:spec": {
                ".": {}, "f:a": {}, "f:any": {".": {}, "f:deep": {".": {}, "f:x": {}}, "f:empty": {}, "f:list": {}},
                "f:atom": {}, "f:d": {},
                "f:inner": {".": {}, "f:apiVersion": {}, "f:data": {".": {}, "f:k": {}}, "f:kind": {},
                    "f:metadata": {".": {}, "f:labels": {".": {}, "f:a": {}}, "f:name": {}}},
                "f:list": {}, "f:map": {".": {}, "k:{\"id\":\"i\"}": {".": {}, "f:id": {}, "f:v": {}}},
                "f:port": {}, "f:set": {".": {}, "v:\"p\"": {}, "v:\"q\"": {}}, "f:sub": {".": {}, "f:x": {}},
                "f:texts": {".": {}, "f:k": {}}, "f:things": {".": {}, "f:o": {".": {}, "f:x": {}}},
            },
        });
        assert_eq!(owners(&made), [owner("maker", "Update", expected)]);
        let entry = &made["metadata"]["managedFields"][0];
        assert_eq!(
            (&entry["fieldsType"], &entry["apiVersion"]),
            (&json!("FieldsV1"), &json!(format!("{}/v1", server.group)))
        );
        assert_eq!(entry["time"], made["metadata"]["creationTimestamp"]);
    })
    .await;
}

#[tokio::test]
async fn who_applies_owns_only_what_was_sent() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let made = server.apply(&format!("{gadgets}/a"), "m", &server.gadget("a", &full())).await.expect(201);
        assert_eq!(made["spec"]["d"], "given");
        let expected = json!({"f:spec": {
            "f:a": {}, "f:any": {"f:deep": {".": {}, "f:x": {}}, "f:empty": {}, "f:list": {}}, "f:atom": {},
            "f:inner": {"f:apiVersion": {}, "f:data": {".": {}, "f:k": {}}, "f:kind": {},
                "f:metadata": {"f:labels": {"f:a": {}}, "f:name": {}}},
            "f:list": {}, "f:map": {"k:{\"id\":\"i\"}": {".": {}, "f:id": {}, "f:v": {}}}, "f:port": {},
            "f:set": {"v:\"p\"": {}, "v:\"q\"": {}}, "f:sub": {"f:x": {}}, "f:texts": {"f:k": {}},
            "f:things": {"f:o": {".": {}, "f:x": {}}},
        }});
        assert_eq!(owners(&made), [owner("m", "Apply", expected)]);
    })
    .await;
}

#[tokio::test]
async fn a_status_write_has_an_entry_of_its_own_and_changes_nothing_else() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        server.apply(&format!("{gadgets}/a"), "m", &server.gadget("a", &json!({"a": "1"}))).await.expect(201);
        let patch = json!({
            "metadata": {"labels": {"l": "1"}}, "spec": {"a": "2"},
            "status": {"phase": "On", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let patched = server.merge(&format!("{gadgets}/a/status?fieldManager=s"), &patch).await.expect(200);
        assert_eq!((&patched["spec"]["a"], &patched["metadata"]["labels"]), (&json!("1"), &Value::Null));
        assert_eq!(patched["metadata"]["generation"], 1);
        let fields = json!({"f:status": {".": {}, "f:phase": {},
            "f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}}}});
        let expected = [
            owner("m", "Apply", json!({"f:spec": {"f:a": {}}})),
            ("s".to_owned(), "Update".to_owned(), "status".to_owned(), fields),
        ];
        assert_eq!(owners(&patched), expected);
    })
    .await;
}

#[tokio::test]
async fn an_update_takes_what_it_changes_from_who_had_it() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let spec = json!({"a": "1", "b": "1", "map": [{"id": "i", "v": "1"}]});
        server.apply(&format!("{gadgets}/a"), "m", &server.gadget("a", &spec)).await.expect(201);
        let patch = json!({"spec": {"a": "2", "map": [{"id": "i", "v": "2"}, {"id": "j"}]}});
        let patched = server.merge(&format!("{gadgets}/a?fieldManager=u"), &patch).await.expect(200);
        let expected = [
            owner("m", "Apply", json!({"f:spec": {"f:b": {}, "f:map": {"k:{\"id\":\"i\"}": {".": {}, "f:id": {}}}}})),
            owner(
                "u",
                "Update",
                json!({"f:spec": {"f:a": {},
                "f:map": {"k:{\"id\":\"i\"}": {"f:v": {}}, "k:{\"id\":\"j\"}": {".": {}, "f:id": {}}}}}),
            ),
        ];
        assert_eq!(owners(&patched), expected);
        // and what it removes is nobody's
        let patched =
            server.merge(&format!("{gadgets}/a?fieldManager=u"), &json!({"spec": {"b": null, "a": null}})).await;
        let expected = [
            owner("m", "Apply", json!({"f:spec": {"f:map": {"k:{\"id\":\"i\"}": {".": {}, "f:id": {}}}}})),
            owner(
                "u",
                "Update",
                json!({"f:spec": {
                "f:map": {"k:{\"id\":\"i\"}": {"f:v": {}}, "k:{\"id\":\"j\"}": {".": {}, "f:id": {}}}}}),
            ),
        ];
        assert_eq!(owners(&patched.expect(200)), expected);
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_have_their_own_types() {
    on_each_server(async |server| {
        let cases = [
            ("api/v1", "configmaps", json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "data": {"k": "v"}}),
                json!({"f:data": {".": {}, "f:k": {}}, "f:metadata": {"f:labels": {".": {}, "f:l": {}}}})),
            ("api/v1", "secrets", json!({"metadata": {"name": "a"}, "stringData": {"k": "v"}}),
                json!({"f:data": {".": {}, "f:k": {}}, "f:type": {}})),
            ("api/v1", "serviceaccounts", json!({"metadata": {"name": "a"}, "secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "i"}]}),
                json!({"f:imagePullSecrets": {}, "f:secrets": {".": {}, "k:{\"name\":\"s\"}": {}}})),
            ("apis/networking.k8s.io/v1", "ingresses", json!({"metadata": {"name": "a"}, "spec": {
                    "ingressClassName": "x", "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}},
                    "rules": [{"host": "a.example", "http": {"paths": [
                        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
                json!({"f:spec": {"f:ingressClassName": {}, "f:rules": {},
                    "f:defaultBackend": {".": {}, "f:service": {".": {}, "f:name": {}, "f:port": {}}}}})),
            ("apis/coordination.k8s.io/v1", "leases", json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "x"}}),
                json!({"f:spec": {"f:holderIdentity": {}}})),
        ];
        for (api, plural, object, fields) in cases {
            let path = format!("{}?fieldManager=m", server.path(api, plural));
            let made = server.post(&path, &object).await.expect(201);
            assert_eq!(owners(&made), [owner("m", "Update", fields)], "{} {plural}", server.name);
        }
    })
    .await;
}

#[tokio::test]
async fn the_status_of_a_built_in_kind_is_owned_apart() {
    on_each_server(async |server| {
        let ingresses = server.path("apis/networking.k8s.io/v1", "ingresses");
        let spec = json!({"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}});
        server
            .post(&format!("{ingresses}?fieldManager=m"), &json!({"metadata": {"name": "a"}, "spec": spec}))
            .await
            .expect(201);
        let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
        let patched = server.merge(&format!("{ingresses}/a/status?fieldManager=s"), &patch).await.expect(200);
        let fields = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
        let own = ("s".to_owned(), "Update".to_owned(), "status".to_owned(), fields);
        assert_eq!(owners(&patched)[1], own);
    })
    .await;
}

#[tokio::test]
async fn the_same_value_applied_by_two_is_shared_and_has_no_time() {
    on_each_server(async |server| {
        let gadgets = server.gadgets(&schema()).await;
        let config = server.gadget("a", &json!({"a": "1"}));
        server.apply(&format!("{gadgets}/a"), "first", &config).await.expect(201);
        let shared = server.apply(&format!("{gadgets}/a"), "second", &config).await.expect(200);
        let listed = shared["metadata"]["managedFields"].as_array().unwrap();
        let timed = |manager: &str| listed.iter().find(|e| e["manager"] == manager).map(|e| e["time"].is_string());
        assert_eq!((timed("first"), timed("second")), (Some(true), Some(false)));
        // entries without a time come first
        assert_eq!(listed[0]["manager"], "second");
    })
    .await;
}

#[tokio::test]
async fn a_write_without_a_manager_is_its_clients() {
    on_each_server(async |server| {
        let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
        let headers = [("content-type", "application/json"), ("user-agent", "gadgeteer/1.2 (linux) x")];
        let made = server.raw("POST", &server.config_maps(), &headers, object.to_string().into()).await.expect(201);
        assert_eq!(owners(&made)[0].0, "gadgeteer");
    })
    .await;
}

#[tokio::test]
async fn an_emptied_list_stays_empty_until_somebody_applies() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server
            .post(&format!("{maps}?fieldManager=m"), &json!({"metadata": {"name": "a"}, "data": {"k": "v"}}))
            .await
            .expect(201);
        for empty in [json!([]), json!([{}])] {
            let patch = json!({"metadata": {"managedFields": empty}});
            let cleared = server.merge(&format!("{maps}/a"), &patch).await.expect(200);
            assert_eq!(cleared["metadata"]["managedFields"], Value::Null);
        }
        // a change by somebody is not followed
        let changed = server.merge(&format!("{maps}/a"), &json!({"data": {"k2": "v"}})).await.expect(200);
        assert_eq!(changed["metadata"]["managedFields"], Value::Null);
        // and applying begins with who was there before
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k3": "v"}});
        let applied = server.apply(&format!("{maps}/a"), "m", &config).await.expect(200);
        let expected = [
            owner("m", "Apply", json!({"f:data": {"f:k3": {}}})),
            owner("before-first-apply", "Update", json!({"f:data": {".": {}, "f:k": {}, "f:k2": {}}})),
        ];
        assert_eq!(owners(&applied), expected);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_no_list_does_not_empty_it() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
        server.post(&format!("{maps}?fieldManager=m"), &object).await.expect(201);
        let put = server
            .put(&format!("{maps}/a?fieldManager=n"), &json!({"metadata": {"name": "a"}, "data": {"k": "v", "l": "w"}}))
            .await
            .expect(200);
        let expected = [
            owner("m", "Update", json!({"f:data": {".": {}, "f:k": {}}})),
            owner("n", "Update", json!({"f:data": {"f:l": {}}})),
        ];
        assert_eq!(owners(&put), expected);
    })
    .await;
}

#[tokio::test]
async fn a_client_may_rewrite_the_list() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
        let made = server.post(&format!("{maps}?fieldManager=m"), &object).await.expect(201);
        let mut list = made["metadata"]["managedFields"].clone();
        list[0]["manager"] = json!("other");
        list[0]["operation"] = json!("Apply");
        let patch = json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": list},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]},
        ]);
        let written =
            server.call("PATCH", &format!("{maps}/a"), "application/json-patch+json", &patch).await.expect(200);
        assert_eq!(owners(&written), [owner("other", "Apply", json!({"f:data": {".": {}, "f:k": {}}}))]);
    })
    .await;
}

#[tokio::test]
async fn more_than_ten_updaters_are_put_together() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        server
            .post(&format!("{maps}?fieldManager=m00"), &json!({"metadata": {"name": "a"}, "data": {"k00": "v"}}))
            .await
            .expect(201);
        for number in 1..12 {
            let patch = json!({"data": {format!("k{number:02}"): "v"}});
            server.merge(&format!("{maps}/a?fieldManager=m{number:02}"), &patch).await.expect(200);
        }
        let found = server.get(&format!("{maps}/a")).await.expect(200);
        let owners = owners(&found);
        assert_eq!(owners.len(), 10);
        let ancient = owners.iter().find(|(manager, ..)| manager == "ancient-changes").unwrap();
        assert_eq!(ancient.3, json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}}}));
    })
    .await;
}
