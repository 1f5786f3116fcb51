//! The embedded API's finer points: pages, owners, warnings, definitions, metadata rules.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use portalkeeper::api::clock::TestClock;
use portalkeeper::apiserver::ApiServer;
use serde_json::{Value, json};

struct Scene {
    server: ApiServer,
    clock: Arc<TestClock>,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    warnings: Vec<String>,
    body: Value,
    text: String,
}

impl Scene {
    async fn given() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::new("2026-11-24T10:00:00Z".parse().unwrap()));
        let server = ApiServer::open(&folder.path().join("api.db"), clock.clone()).await.unwrap();
        Self { server, clock, _folder: folder }
    }

    async fn call(&self, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let request = hyper::Request::builder().method(method).uri(path).header("content-type", kind).body(()).unwrap();
        let response = self.server.answer(&request.into_parts().0, Bytes::from(body.to_owned())).await;
        let status = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status, warnings, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, "application/json", &body.to_string()).await
    }

    /// Makes a ConfigMap and gives its uid.
    async fn map(&self, name: &str, owners: &[(&str, &str, bool)]) -> String {
        let references: Vec<Value> = owners
            .iter()
            .map(|(name, uid, block)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": block}))
            .collect();
        let body = json!({"metadata": {"name": name, "ownerReferences": references}});
        let made = self.post("/api/v1/namespaces/default/configmaps", &body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    async fn exists(&self, name: &str) -> bool {
        self.get(&format!("/api/v1/namespaces/default/configmaps/{name}")).await.status == 200
    }

    /// Waits until an object is there or gone.
    async fn until(&self, name: &str, there: bool) {
        for _ in 0..500 {
            if self.exists(name).await == there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{name} should be {}", if there { "there" } else { "gone" });
    }

    async fn delete(&self, name: &str, policy: &str) -> Answer {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}).to_string();
        self.call("DELETE", &format!("/api/v1/namespaces/default/configmaps/{name}"), "application/json", &body).await
    }
}

#[tokio::test]
async fn a_long_list_is_read_in_pages_of_one_snapshot() {
    let scene = Scene::given().await;
    for index in 0..7 {
        scene.map(&format!("m{index}"), &[]).await;
    }
    let path = "/api/v1/namespaces/default/configmaps?limit=3";
    let first = scene.get(path).await.body;
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // what happens meanwhile does not show
    scene.map("m9", &[]).await;
    scene.delete("m6", "Background").await;
    let mut names: Vec<String> = Vec::new();
    let mut page = first.clone();
    loop {
        names.extend(
            page["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        page = scene.get(&format!("{path}&continue={token}")).await.body;
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    // a token is good for its own question, and not for ever
    let token = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(scene.get(&format!("/api/v1/secrets?limit=3&continue={token}")).await.status, 400);
    assert_eq!(scene.get(&format!("{path}&continue=nonsense")).await.status, 400);
    scene.clock.advance(jiff::SignedDuration::from_mins(6));
    let late = scene.get(&format!("{path}&continue={token}")).await;
    assert_eq!((late.status, &late.body["reason"]), (410, &json!("Expired")));
}

#[tokio::test]
async fn what_is_owned_goes_with_its_last_owner() {
    let scene = Scene::given().await;
    let (a, b) = (scene.map("a", &[]).await, scene.map("b", &[]).await);
    let child = scene.map("child", &[("a", &a, false), ("b", &b, false)]).await;
    scene.map("grandchild", &[("child", &child, false)]).await;
    scene.delete("a", "Background").await;
    scene.until("a", false).await;
    assert!(scene.exists("child").await);
    scene.delete("b", "Background").await;
    scene.until("grandchild", false).await;
    assert!(!scene.exists("child").await);
    // an object whose owner never was goes at once
    scene.map("stray", &[("x", "00000000-0000-0000-0000-000000000000", false)]).await;
    scene.until("stray", false).await;
}

#[tokio::test]
async fn foreground_waits_for_what_is_owned_and_orphan_lets_it_be() {
    let scene = Scene::given().await;
    let owner = scene.map("owner", &[]).await;
    scene.map("held", &[("owner", &owner, true)]).await;
    // given a dependent that does not go at once
    let hold = r#"{"metadata":{"finalizers":["example.com/hold"]}}"#;
    let path = "/api/v1/namespaces/default/configmaps/held";
    assert_eq!(scene.call("PATCH", path, "application/merge-patch+json", hold).await.status, 200);
    let answer = scene.delete("owner", "Foreground").await;
    assert_eq!(answer.body["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    for _ in 0..500 {
        if !scene.get(path).await.body["metadata"]["deletionTimestamp"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(scene.exists("owner").await, "the owner waits");
    let free = r#"{"metadata":{"finalizers":null}}"#;
    assert_eq!(scene.call("PATCH", path, "application/merge-patch+json", free).await.status, 200);
    scene.until("owner", false).await;
    assert!(!scene.exists("held").await);
    // orphan
    let owner = scene.map("second", &[]).await;
    scene.map("kept", &[("second", &owner, false)]).await;
    scene.delete("second", "Orphan").await;
    scene.until("second", false).await;
    let kept = scene.get("/api/v1/namespaces/default/configmaps/kept").await.body;
    assert_eq!(kept["metadata"]["ownerReferences"], Value::Null);
}

#[tokio::test]
async fn unknown_and_repeated_fields_are_refused_told_or_ignored_as_asked() {
    let scene = Scene::given().await;
    let path = |validation: &str| format!("/api/v1/namespaces/default/configmaps?fieldValidation={validation}");
    let body = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"1","a":"2"}},"nope":1}}"#);
    let strict = scene.call("POST", &path("Strict"), "application/json", &body("a")).await;
    assert_eq!(
        (strict.status, &strict.body["message"]),
        (
            400,
            &json!(
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\", \
                 unknown field \"nope\""
            )
        )
    );
    let warned = scene.call("POST", &path("Warn"), "application/json", &body("b")).await;
    assert_eq!(warned.status, 201);
    assert_eq!(warned.warnings, [r#"299 - "duplicate field \"data.a\"""#, r#"299 - "unknown field \"nope\"""#]);
    let ignored = scene.call("POST", &path("Ignore"), "application/json", &body("c")).await;
    assert_eq!((ignored.status, ignored.warnings.len()), (201, 0));
}

#[tokio::test]
async fn metadata_and_data_follow_kubernetes_rules() {
    let scene = Scene::given().await;
    let refused = async |body: Value| {
        let answer = scene.post("/api/v1/namespaces/default/configmaps", &body).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        answer.body["message"].as_str().unwrap().to_owned()
    };
    assert!(
        refused(json!({"metadata": {}}))
            .await
            .ends_with("metadata.name: Required value: name or generateName is required")
    );
    assert!(refused(json!({"metadata": {"name": "A_b"}})).await.contains("regex used for validation is '[a-z0-9]("));
    let labelled = |labels: Value| json!({"metadata": {"name": "a", "labels": labels}});
    assert!(
        refused(labelled(json!({"a b": "x"})))
            .await
            .contains("metadata.labels: Invalid value: \"a b\": name part must consist of")
    );
    assert!(
        refused(labelled(json!({"a": "x y"}))).await.contains("a valid label must be an empty string or consist of")
    );
    let finalizers = json!({"metadata": {"name": "a", "finalizers": ["plain"]}});
    assert!(refused(finalizers).await.contains("name is neither a standard finalizer name nor is it fully qualified"));
    assert!(
        refused(json!({"metadata": {"name": "a"}, "data": {"a/b": "x"}})).await.contains("data[a/b]: Invalid value")
    );
    // immutable
    let fixed = json!({"metadata": {"name": "fixed"}, "immutable": true, "data": {"a": "1"}});
    assert_eq!(scene.post("/api/v1/namespaces/default/configmaps", &fixed).await.status, 201);
    let path = "/api/v1/namespaces/default/configmaps/fixed";
    let change = scene.call("PATCH", path, "application/merge-patch+json", r#"{"data":{"a":"2"}}"#).await;
    assert_eq!(change.status, 422);
    assert!(change.body["message"].as_str().unwrap().contains("field is immutable when `immutable` is set"));
    // a namespace that is not there, and a kind that does not fit
    let nowhere = scene.post("/api/v1/namespaces/none/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((nowhere.status, &nowhere.body["message"]), (404, &json!("namespaces \"none\" not found")));
    let other = scene
        .post("/api/v1/namespaces/default/configmaps", &json!({"kind": "Secret", "metadata": {"name": "a"}}))
        .await;
    assert_eq!(other.status, 400);
}

#[tokio::test]
async fn custom_resources_go_with_their_definition() {
    let scene = Scene::given().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "at": {"type": "string", "format": "hostname"}, "address": {"type": "string", "format": "ipv4"},
    }}}});
    let definition = |name: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        })
    };
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let misnamed = scene.post(definitions, &definition("wrong.example.com")).await;
    assert!(
        misnamed.body["message"].as_str().unwrap().contains("must be spec.names.plural+\".\"+spec.group"),
        "{}",
        misnamed.body
    );
    assert_eq!(scene.post(definitions, &definition("gadgets.example.com")).await.status, 201);
    let gadgets = "/apis/example.com/v1/namespaces/default/gadgets";
    let gadget = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec});
    let bad = scene.post(gadgets, &gadget(json!({"at": "a b", "address": "1.2.3"}))).await;
    let words = bad.body["message"].as_str().unwrap();
    assert!(
        words.contains("spec.at in body must be of type hostname") && words.contains("must be of type ipv4"),
        "{words}"
    );
    assert_eq!(scene.post(gadgets, &gadget(json!({"at": "a.bc", "address": "1.2.3.4"}))).await.status, 201);
    // when the definition goes, then so do its objects, and a new one of that name begins empty
    scene.call("DELETE", &format!("{definitions}/gadgets.example.com"), "", "").await;
    for _ in 0..500 {
        if scene.get(&format!("{definitions}/gadgets.example.com")).await.status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(scene.get(gadgets).await.status, 404);
    assert_eq!(scene.post(definitions, &definition("gadgets.example.com")).await.status, 201);
    assert_eq!(scene.get(gadgets).await.body["items"], json!([]));
}

#[tokio::test]
async fn garbage_gets_a_status_and_never_a_panic() {
    let scene = Scene::given().await;
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{}",
        "{\"metadata\":[]}",
        "{\"metadata\":{\"name\":1}}",
        "k8s\0garbage",
        "\u{feff}{}",
    ];
    let kinds = [
        "",
        "application/json",
        "application/yaml",
        "text/html",
        "application/vnd.kubernetes.protobuf",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let paths = [
        "/",
        "/api",
        "/api/v1/",
        "/api/v2",
        "/apis/none/v1/x",
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/namespaces/default/configmaps/a",
        "/api/v1/namespaces/default/configmaps/a/status",
        "/api/v1/namespaces/default",
        "/api/v1/namespaces//configmaps",
        "/api/v1/configmaps/%00",
        "/openapi/v3/apis/none/v1",
        "/api/v1/namespaces/default/configmaps/a?fieldManager=x&force=true",
        "/api/v1/configmaps?limit=-1&continue=%ff",
        "/api/v1/configmaps?labelSelector=%28&fieldSelector=%3D%3D",
        "/apis/authentication.k8s.io/v1/tokenreviews",
    ];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in paths {
            for kind in kinds {
                for body in bodies {
                    if method == "DELETE" && path == "/api/v1/namespaces/default" {
                        continue;
                    }
                    let answer = scene.call(method, path, kind, body).await;
                    assert!((200..500).contains(&answer.status), "{method} {path} {kind} {body:?}: {}", answer.status);
                    let told = match answer.status {
                        ..400 => true,
                        // Where no API begins, a real server has nothing but this to say.
                        404 if answer.text == "404 page not found\n" => true,
                        404 if path.starts_with("/openapi/") => answer.text.is_empty(),
                        _ => answer.body["kind"] == "Status" && answer.body["reason"].is_string(),
                    };
                    assert!(told, "{method} {path} {kind} {body:?}: {}", answer.text);
                }
            }
        }
    }
}
