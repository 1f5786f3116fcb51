//! Request bodies in protobuf, as typed clients send them. They are written here by the published field numbers.
use serde_json::{Value, json};

use super::harness::{Answer, Server, on_each_server};

/// A message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap());
    }
    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }
    fn number(mut self, field: u64, number: u64) -> Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }
    fn inner(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }
    fn pair(self, field: u64, key: &str, value: &str) -> Self {
        self.inner(field, Message::default().text(1, key).text(2, value))
    }
}

fn message() -> Message {
    Message::default()
}

fn metadata(name: &str) -> Message {
    message().text(1, name).pair(11, "label", "x").pair(12, "note", "y").text(14, "parity.example/hold")
}

/// A message in Kubernetes' envelope.
fn enveloped(api_version: &str, kind: &str, object: Message) -> Vec<u8> {
    let types = message().text(1, api_version).text(2, kind);
    [&b"k8s\0"[..], &message().inner(1, types).inner(2, object).0].concat()
}

const PROTOBUF: [(&str, &str); 2] = [
    ("content-type", "application/vnd.kubernetes.protobuf"),
    ("accept", "application/vnd.kubernetes.protobuf;q=0.5,application/json"),
];

async fn send(server: &Server, method: &str, path: &str, body: Vec<u8>) -> Answer {
    server.raw(method, path, &PROTOBUF, body.into()).await
}

/// What was made, without what the server adds.
async fn made(server: &Server, path: &str, api_version: &str, kind: &str, object: Message) -> Value {
    let mut made = send(server, "POST", path, enveloped(api_version, kind, object)).await.expect(201);
    assert_eq!((&made["apiVersion"], &made["kind"]), (&json!(api_version), &json!(kind)));
    let given = &made["metadata"];
    if !given["labels"].is_null() {
        assert_eq!((&given["labels"], &given["annotations"]), (&json!({"label": "x"}), &json!({"note": "y"})));
        assert_eq!(given["finalizers"], json!(["parity.example/hold"]));
        let at = format!("{path}/{}", given["name"].as_str().unwrap());
        server.merge(&at, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    }
    for field in ["metadata", "apiVersion", "kind"] {
        made.as_object_mut().unwrap().remove(field);
    }
    made
}

#[tokio::test]
async fn config_maps_and_secrets_are_read() {
    on_each_server(async |server| {
        let map = message().inner(1, metadata("m")).pair(2, "a", "1").pair(3, "b", "\u{1}").number(4, 0);
        let expected = json!({"data": {"a": "1"}, "binaryData": {"b": "AQ=="}, "immutable": false});
        assert_eq!(made(server, &server.config_maps(), "v1", "ConfigMap", map).await, expected);
        let secret = message().inner(1, metadata("s")).pair(2, "token", "abc").text(3, "Opaque").pair(4, "more", "def");
        let expected = json!({"data": {"token": "YWJj", "more": "ZGVm"}, "type": "Opaque"});
        assert_eq!(made(server, &server.path("api/v1", "secrets"), "v1", "Secret", secret).await, expected);
    })
    .await;
}

#[tokio::test]
async fn service_accounts_and_services_are_read() {
    on_each_server(async |server| {
        let secret = message().text(3, "s");
        let account =
            message().inner(1, metadata("a")).inner(2, secret).inner(3, message().text(1, "pull")).number(4, 0);
        let expected = json!({
            "secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "pull"}], "automountServiceAccountToken": false,
        });
        assert_eq!(
            made(server, &server.path("api/v1", "serviceaccounts"), "v1", "ServiceAccount", account).await,
            expected
        );
        let number = message().number(1, 0).number(2, 8080);
        let name = message().number(1, 1).text(3, "web");
        let web = message().text(1, "web").text(2, "TCP").number(3, 80).inner(4, number).number(5, 0);
        let other = message().text(1, "other").text(2, "UDP").number(3, 81).inner(4, name).text(6, "example.com/h");
        let spec = message()
            .inner(1, web)
            .inner(1, other)
            .pair(2, "app", "x")
            .text(3, "None")
            .text(4, "ClusterIP")
            .number(13, 1);
        let service = message().inner(1, metadata("s")).inner(2, spec);
        let made = made(server, &server.path("api/v1", "services"), "v1", "Service", service).await;
        let expected = json!([
            {"name": "web", "protocol": "TCP", "port": 80, "targetPort": 8080},
            {"name": "other", "protocol": "UDP", "port": 81, "targetPort": "web", "appProtocol": "example.com/h"},
        ]);
        let spec = &made["spec"];
        assert_eq!((&spec["ports"], &spec["selector"]), (&expected, &json!({"app": "x"})));
        assert_eq!((&spec["clusterIP"], &spec["publishNotReadyAddresses"]), (&json!("None"), &json!(true)));
    })
    .await;
}

#[tokio::test]
async fn ingresses_and_leases_are_read() {
    on_each_server(async |server| {
        let backend = |port: Message| message().inner(4, message().text(1, "shop").inner(2, port));
        let path = message().text(1, "/").text(3, "Prefix").inner(2, backend(message().text(1, "").number(2, 80)));
        let rule = message().text(1, "shop.example").inner(2, message().inner(1, message().inner(1, path)));
        let tls = message().text(1, "shop.example").text(2, "cert");
        let spec = message()
            .inner(1, backend(message().text(1, "http").number(2, 0)))
            .inner(2, tls)
            .inner(3, rule)
            .text(4, "nginx");
        let ingress = message().inner(1, metadata("i")).inner(2, spec);
        let ingresses = server.path("apis/networking.k8s.io/v1", "ingresses");
        let made_ingress = made(server, &ingresses, "networking.k8s.io/v1", "Ingress", ingress).await;
        let service = |port: Value| json!({"service": {"name": "shop", "port": port}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": service(json!({"number": 80}))});
        let expected = json!({
            "defaultBackend": service(json!({"name": "http"})), "ingressClassName": "nginx",
            "tls": [{"hosts": ["shop.example"], "secretName": "cert"}],
            "rules": [{"host": "shop.example", "http": {"paths": [path]}}],
        });
        assert_eq!(made_ingress["spec"], expected);
        let time = || message().number(1, 1_700_000_000).number(2, 123_456_000);
        let spec = message().text(1, "me").number(2, 15).inner(3, time()).inner(4, time()).number(5, 0);
        let lease = message().inner(1, metadata("l")).inner(2, spec);
        let leases = server.path("apis/coordination.k8s.io/v1", "leases");
        let time = "2023-11-14T22:13:20.123456Z";
        let expected = json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "acquireTime": time,
            "renewTime": time, "leaseTransitions": 0}});
        assert_eq!(made(server, &leases, "coordination.k8s.io/v1", "Lease", lease).await, expected);
    })
    .await;
}

#[tokio::test]
async fn events_of_both_versions_are_read() {
    on_each_server(async |server| {
        let about = || message().text(1, "ConfigMap").text(2, &server.namespace).text(3, "m").text(7, "data.a");
        let seconds = || message().number(1, 1_700_000_000).number(2, 0);
        let old = message()
            .inner(1, message().text(1, "old"))
            .inner(2, about())
            .text(3, "Why")
            .text(4, "words")
            .inner(5, message().text(1, "c").text(2, "h"))
            .inner(6, seconds())
            .inner(7, seconds())
            .number(8, 2)
            .text(9, "Normal");
        let shown = made(server, &server.path("api/v1", "events"), "v1", "Event", old).await;
        let object = json!({"kind": "ConfigMap", "namespace": server.namespace, "name": "m", "fieldPath": "data.a"});
        assert_eq!((&shown["involvedObject"], &shown["reason"]), (&object, &json!("Why")));
        assert_eq!((&shown["source"], &shown["count"]), (&json!({"component": "c", "host": "h"}), &json!(2)));
        assert_eq!(shown["lastTimestamp"], "2023-11-14T22:13:20Z");
        let new = message()
            .inner(1, message().text(1, "new"))
            .inner(2, message().number(1, 1_700_000_000).number(2, 5_000))
            .text(4, "rc")
            .text(5, "ri")
            .text(6, "Do")
            .text(7, "Why")
            .inner(8, about())
            .text(10, "noted")
            .text(11, "Warning");
        let events = server.path("apis/events.k8s.io/v1", "events");
        let shown = made(server, &events, "events.k8s.io/v1", "Event", new).await;
        assert_eq!((&shown["regarding"], &shown["note"]), (&object, &json!("noted")));
        assert_eq!(shown["eventTime"], "2023-11-14T22:13:20.000005Z");
        assert_eq!((&shown["reportingController"], &shown["action"]), (&json!("rc"), &json!("Do")));
    })
    .await;
}

#[tokio::test]
async fn reviews_are_read() {
    on_each_server(async |server| {
        let what = message().text(1, &server.namespace).text(2, "get").text(5, "secrets");
        let spec = message().inner(1, what).text(3, "parity-nobody").text(4, "system:masters");
        let body = enveloped("authorization.k8s.io/v1", "SubjectAccessReview", message().inner(2, spec));
        let review = send(server, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body).await.expect(201);
        assert_eq!((&review["spec"]["user"], &review["status"]["allowed"]), (&json!("parity-nobody"), &json!(true)));
        let body =
            enveloped("authentication.k8s.io/v1", "TokenReview", message().inner(2, message().text(1, "another")));
        let review = send(server, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", body).await.expect(201);
        assert_eq!(review["status"]["error"], "invalid bearer token");
    })
    .await;
}

#[tokio::test]
async fn deletions_and_replacements_are_read() {
    on_each_server(async |server| {
        let maps = server.config_maps();
        let made = server.post(&maps, &json!({"metadata": {"name": "a"}, "data": {"x": "1"}})).await.expect(201);
        let version = made["metadata"]["resourceVersion"].as_str().unwrap();
        let map = message().inner(1, message().text(1, "a").text(6, version)).pair(2, "x", "2");
        let body = enveloped("v1", "ConfigMap", map);
        let put = send(server, "PUT", &format!("{maps}/a"), body.clone()).await.expect(200);
        assert_eq!(put["data"], json!({"x": "2"}));
        assert_eq!(send(server, "PUT", &format!("{maps}/a"), body).await.refused(409).0, "Conflict");
        let options = |uid: &str| enveloped("v1", "DeleteOptions", message().inner(2, message().text(1, uid)));
        assert_eq!(send(server, "DELETE", &format!("{maps}/a"), options("other")).await.refused(409).0, "Conflict");
        let uid = made["metadata"]["uid"].as_str().unwrap();
        send(server, "DELETE", &format!("{maps}/a"), options(uid)).await.expect(200);
        server.get(&format!("{maps}/a")).await.refused(404);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_protobuf_is_refused() {
    on_each_server(async |server| {
        let (reason, message) = send(server, "POST", &server.config_maps(), b"{}".to_vec()).await.refused(400);
        let words = "the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a \
            protobuf message, expected prefix [107 56 115 0] ({})";
        assert_eq!((reason.as_str(), message.as_str()), ("BadRequest", words));
        let damaged = [b"k8s\0", &[0x0a, 0x7f][..]].concat();
        send(server, "POST", &server.config_maps(), damaged).await.refused(400);
    })
    .await;
}
