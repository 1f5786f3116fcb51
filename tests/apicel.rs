//! The embedded API under definitions and objects that would have it work without end, or die.
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use portalkeeper::api::clock::SystemClock;
use portalkeeper::apiserver::{Access, ApiServer};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use serde_json::{Value, json};

/// Longest wait for an answer; what is asked for here once took minutes, or took the program down.
const PATIENCE: Duration = Duration::from_secs(60);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/cel.example/v1/namespaces/default/things";

struct Scene {
    client: kube::Client,
    _stop: ShutdownHandle,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn given() -> Self {
        portalkeeper::http::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let (stop, shutdown) = Shutdown::new();
        let server = ApiServer::open(&folder.path().join("api.db"), Arc::new(SystemClock)).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let access = Access::prepare(folder.path(), listener.local_addr().unwrap()).unwrap();
        let kubeconfig = Kubeconfig::read_from(&access.kubeconfig).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        tokio::spawn(server.listen(listener, access, shutdown));
        Self { client: kube::Client::try_from(config).unwrap(), _stop: stop, _folder: folder }
    }

    /// The status and the body, which is JSON whatever happens.
    async fn call(&self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let request = hyper::Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(Body::from(body.to_string().into_bytes())).unwrap();
        let answered = tokio::time::timeout(PATIENCE, self.client.send(request)).await;
        let answer = answered.expect("an answer in good time").unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes))))
    }
    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, "application/json", body).await
    }

    /// A definition of things whose spec has this schema.
    async fn defined(&self, spec: &Value) -> (u16, Value) {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.cel.example"},
            "spec": {"group": "cel.example", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        });
        self.post(DEFINITIONS, &definition).await
    }
    async fn made(&self, name: &str, spec: &Value) -> (u16, Value) {
        self.post(THINGS, &thing(name, spec)).await
    }
}

fn thing(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "cel.example/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

/// One list of each kind, whose items are told apart by what is in them.
fn lists() -> Value {
    let item = json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}});
    json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": item},
    }})
}

#[tokio::test]
async fn a_patch_that_makes_an_object_a_list_is_refused() {
    let scene = Scene::given().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1"}});
    assert_eq!(scene.post(maps, &map).await.0, 201);
    assert_eq!(scene.defined(&lists()).await.0, 201);
    assert_eq!(scene.made("a", &json!({})).await.0, 201);
    for (path, told) in [(maps, "Go value of type v1.ConfigMap"), (THINGS, "Go value of type map[string]interface {}")]
    {
        for value in [json!([]), json!([1])] {
            let patch = json!([{"op": "replace", "path": "", "value": value}]);
            let (status, body) = scene.call("PATCH", &format!("{path}/a"), "application/json-patch+json", &patch).await;
            let message = body["message"].as_str().unwrap_or_default();
            assert_eq!((status, body["kind"].as_str()), (422, Some("Status")), "{body}");
            assert!(message.contains(told), "{message}");
        }
    }
}

#[tokio::test]
async fn long_lists_are_checked_and_merged_in_good_time() {
    let scene = Scene::given().await;
    assert_eq!(scene.defined(&lists()).await.0, 201);
    let texts = |from: usize, to: usize| (from..to).map(|n| format!("n{n}")).collect::<Vec<_>>();
    let items = |from: usize, to: usize| texts(from, to).iter().map(|id| json!({"id": id})).collect::<Vec<_>>();
    // given one that is long
    let (status, body) = scene.made("a", &json!({"set": texts(0, 20_000), "map": items(0, 20_000)})).await;
    assert_eq!(status, 201, "{}", body["message"]);
    // when it is put anew and applied to, then each takes no longer than it has to
    let (status, mut made) = scene.call("GET", &format!("{THINGS}/a"), "", &Value::Null).await;
    assert_eq!(status, 200);
    made["spec"]["map"][0]["id"] = json!("other");
    assert_eq!(scene.call("PUT", &format!("{THINGS}/a"), "application/json", &made).await.0, 200);
    let applied = thing("a", &json!({"set": texts(10_000, 21_000), "map": items(10_000, 21_000)}));
    let path = format!("{THINGS}/a?fieldManager=m&force=true");
    let (status, body) = scene.call("PATCH", &path, "application/apply-patch+yaml", &applied).await;
    assert_eq!(status, 200, "{}", body["message"]);
    assert_eq!(body["spec"]["set"].as_array().map(Vec::len), Some(21_000));
    // and what stands twice is still found
    let twice: Vec<String> = texts(0, 10_000).into_iter().chain(texts(9_999, 20_000)).collect();
    let (status, body) = scene.made("b", &json!({"set": twice})).await;
    assert_eq!((status, &body["details"]["causes"][0]["field"]), (422, &json!("spec.set[10000]")));
    // so with what is built in
    let port = |n: usize| json!({"name": format!("p{n}"), "port": n});
    let ports: Vec<Value> = (1..8_000).map(port).collect();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(scene.post(services, &service).await.0, 201);
    let patch =
        json!({"spec": {"ports": (1..8_000).map(|n| json!({"port": n, "targetPort": n + 1})).collect::<Vec<_>>()}});
    let kind = "application/strategic-merge-patch+json";
    let (status, body) = scene.call("PATCH", &format!("{services}/s"), kind, &patch).await;
    assert_eq!((status, &body["spec"]["ports"][9]["targetPort"]), (200, &json!(11)));
}

#[tokio::test]
async fn an_object_that_its_defaults_would_make_too_large_is_refused() {
    let scene = Scene::given().await;
    let field = json!({"type": "string", "default": "x".repeat(10_000)});
    let fields: serde_json::Map<String, Value> = (0..100).map(|n| (format!("f{n}"), field.clone())).collect();
    let list = json!({"type": "array", "items": {"type": "object", "properties": fields}});
    assert_eq!(scene.defined(&json!({"type": "object", "properties": {"l": list}})).await.0, 201);
    assert_eq!(scene.made("small", &json!({"l": [{}, {}]})).await.0, 201);
    for count in [4, 100_000] {
        let (status, body) = scene.made("large", &json!({"l": vec![json!({}); count]})).await;
        let message = body["message"].as_str().unwrap_or_default();
        assert_eq!((status, &body["reason"]), (413, &json!("RequestEntityTooLarge")), "{message}");
        assert!(
            message.contains("with the defaults of its schema the object would be larger than 3145728 bytes"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_object_that_grows_beyond_what_is_kept_stays_as_it_is() {
    let scene = Scene::given().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    assert_eq!(scene.defined(&open).await.0, 201);
    // given an object of nearly three megabytes
    assert_eq!(scene.made("a", &json!({"one": "x".repeat(2_900_000)})).await.0, 201);
    // when as much is added to it
    let patch = json!({"spec": {"two": "x".repeat(2_900_000)}});
    let (status, body) = scene.call("PATCH", &format!("{THINGS}/a"), "application/merge-patch+json", &patch).await;
    // then it is told what is wrong, and that is not the disk
    let message = body["message"].as_str().unwrap_or_default();
    assert_eq!(status, 413, "{message}");
    assert!(message.contains("at most 3145728 are kept"), "{message}");
    let (_, kept) = scene.call("GET", &format!("{THINGS}/a"), "", &Value::Null).await;
    assert_eq!(kept["spec"].as_object().map(serde_json::Map::len), Some(1));
}

/// Rules that were taken and then took the program down, or all memory, with the first object.
#[tokio::test]
async fn a_rule_that_fails_badly_refuses_objects_and_nothing_else() {
    let scene = Scene::given().await;
    let rules = [
        "-(-9223372036854775807 - 1) == 1",
        "'%.999999999f'.format([1.0]) == ''",
        "lists.range(1000000000).size() > 0",
        "quantity('1E99').isGreaterThan(quantity('1'))",
        "self.l.map(a, self.l.map(b, self.l.map(c, a + b + c))).size() > 0",
    ];
    let fields: serde_json::Map<String, Value> = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| {
            let list = json!({"type": "array", "maxItems": 200, "items": {"type": "string"}});
            let rules = json!([{"rule": rule, "message": "never"}]);
            (
                format!("f{index}"),
                json!({"type": "object", "properties": {"l": list}, "x-kubernetes-validations": rules}),
            )
        })
        .collect();
    let (status, body) = scene.defined(&json!({"type": "object", "properties": fields})).await;
    assert_eq!(status, 201, "{}", body["message"]);
    for index in 0..rules.len() {
        let field = format!("f{index}");
        let list = vec!["x".repeat(1_000); 200];
        let (status, body) = scene.made("a", &json!({&field: {"l": list}})).await;
        let message = body["message"].as_str().unwrap_or_default();
        assert_eq!((status, body["kind"].as_str()), (422, Some("Status")), "{field}: {message}");
        assert!(message.contains(&format!("spec.{field}: Invalid value")), "{message}");
    }
    assert_eq!(scene.made("a", &json!({})).await.0, 201);
}

/// On one worker, so that whatever holds it up holds up everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_rules_run_others_are_answered() {
    let scene = Arc::new(Scene::given().await);
    let list = json!({"type": "array", "maxItems": 200, "items": {"type": "string"}});
    let rules =
        json!([{"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a != 'x' || b != c)))", "message": "never"}]);
    let spec = json!({"type": "object", "properties": {"l": list}, "x-kubernetes-validations": rules});
    assert_eq!(scene.defined(&spec).await.0, 201);
    // given writes whose rules run until they may no longer
    let writes: Vec<_> = (0..3)
        .map(|number| {
            let scene = Arc::clone(&scene);
            let texts: Vec<String> = (0..200).map(|n| n.to_string()).collect();
            tokio::spawn(async move { scene.made(&format!("w{number}"), &json!({"l": texts})).await })
        })
        .collect();
    // when others ask meanwhile, then they are answered
    let mut answered = 0;
    while writes.iter().any(|write| !write.is_finished()) {
        let (status, _) = scene.call("GET", "/version", "", &Value::Null).await;
        assert_eq!(status, 200);
        answered += 1;
    }
    assert!(answered >= 5, "{answered}");
    for write in writes {
        let (status, body) = write.await.unwrap();
        let message = body["message"].as_str().unwrap_or_default();
        assert_eq!(status, 422, "{message}");
        assert!(message.contains("no further validation rules will be run"), "{message}");
    }
}
