//! The servers under test, each reached over HTTPS by the kubeconfig that its users have.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use portalkeeper::api::clock::SystemClock;
use portalkeeper::apiserver::{Access, ApiServer};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use serde_json::{Value, json};

/// Names a kubeconfig of a real cluster whose current context may do everything.
const REAL: &str = "PORTALKEEPER_PARITY_KUBECONFIG";
/// Longest wait for something that controllers of a real cluster do in the background.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server, and a namespace of the scenario's own on it.
pub struct Server {
    /// `embedded` or `real`: for messages of failed assertions.
    pub name: &'static str,
    pub client: kube::Client,
    pub kubeconfig: PathBuf,
    pub namespace: String,
    /// An API group of the scenario's own, for its definitions.
    pub group: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    /// `null` where it is not JSON.
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The answer's JSON, once its code is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }
    /// Reason and message of a `Status` with this code.
    #[track_caller]
    pub fn refused(self, status: u16) -> (String, String) {
        let body = self.expect(status);
        assert_eq!((&body["kind"], &body["apiVersion"]), (&json!("Status"), &json!("v1")), "{body}");
        assert_eq!((&body["status"], &body["code"]), (&json!("Failure"), &json!(status)), "{body}");
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }
    /// Texts of the `Warning` headers.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.headers.get_all("warning").iter();
        all.map(|warning| warning.to_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Server {
    /// One request with a JSON body of the given content type; `Value::Null` sends none.
    pub async fn call(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Answer {
        let bytes = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, &[("content-type", content_type)], bytes.into()).await
    }
    pub async fn get(&self, path: &str) -> Answer {
        self.raw("GET", path, &[], Bytes::new()).await
    }
    /// A GET that asks for a form, such as `application/json;as=Table;v=v1;g=meta.k8s.io`.
    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.raw("GET", path, &[("accept", accept)], Bytes::new()).await
    }
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, "application/json", body).await
    }
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, "application/json", body).await
    }
    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.call("PATCH", path, "application/merge-patch+json", body).await
    }
    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.call("DELETE", path, "application/json", options).await
    }
    pub async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = hyper::Request::builder().method(method).uri(path);
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let response = self.client.send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, text }
    }

    /// A GET by somebody who has nothing but the server's address and these headers.
    pub async fn stranger(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut read = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        for user in &mut read.auth_infos {
            user.auth_info = Some(kube::config::AuthInfo::default());
        }
        let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let server = Self {
            client,
            kubeconfig: self.kubeconfig.clone(),
            namespace: String::new(),
            group: String::new(),
            ..*self
        };
        server.raw("GET", path, headers, Bytes::new()).await
    }

    /// Starts a watch; `path` has its parameters but `watch=true`.
    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, "application/json").await
    }
    pub async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let separator = if path.contains('?') { '&' } else { '?' };
        let request = hyper::Request::get(format!("{path}{separator}watch=true")).header("accept", accept);
        let response = self.client.send(request.body(Body::empty()).unwrap()).await.unwrap();
        Watch { status: response.status().as_u16(), body: response.into_body(), buffer: BytesMut::new() }
    }

    /// Where namespaced objects of a resource are, such as `/api/v1/namespaces/x/configmaps`. `api` is `api/v1` or
    /// `apis/group/version`.
    pub fn path(&self, api: &str, plural: &str) -> String {
        format!("/{api}/namespaces/{}/{plural}", self.namespace)
    }
    pub fn config_maps(&self) -> String {
        self.path("api/v1", "configmaps")
    }

    /// Makes a definition of kind `Gadget` (plural `gadgets`, version `v1`, namespaced, with a status) in the
    /// scenario's group, waits until it is served, and gives the path of its objects.
    pub async fn gadgets(&self, schema: &Value) -> String {
        self.define(&json!([{
            "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
        }]))
        .await
    }
    /// The same with versions of one's own; the path is that of the first.
    pub async fn define(&self, versions: &Value) -> String {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("gadgets.{}", self.group)},
            "spec": {
                "group": self.group, "scope": "Namespaced", "versions": versions,
                "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
            },
        });
        self.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.expect(201);
        let version = versions[0]["name"].as_str().unwrap();
        let path = self.path(&format!("apis/{}/{version}", self.group), "gadgets");
        self.until("the definition is served", async || self.get(&path).await.status == 200).await;
        path
    }
    pub fn gadget(&self, name: &str, spec: &Value) -> Value {
        json!({"apiVersion": format!("{}/v1", self.group), "kind": "Gadget", "metadata": {"name": name}, "spec": spec})
    }

    /// Asks again and again until it holds: for what controllers do in the background.
    pub async fn until(&self, words: &str, holds: impl AsyncFn() -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !holds().await {
            assert!(tokio::time::Instant::now() < end, "{}: still not so: {words}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A running watch.
pub struct Watch {
    pub status: u16,
    body: Body,
    buffer: BytesMut,
}

impl Watch {
    /// The next event, or `None` when the watch has ended. Fails when nothing comes for a long time.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.line()).await.expect("an event in time")
    }
    /// Type and name of the next event's object, `ADDED a`. Bookmarks have no name.
    pub async fn told(&mut self) -> String {
        let event = self.next().await.expect("another event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"])).trim().to_owned()
    }
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                _ if self.buffer.is_empty() => return None,
                _ => return serde_json::from_slice(&self.buffer.split()).ok(),
            }
        }
    }
}

/// Runs a scenario on the embedded API and, where one is named, on a real server, each time in a namespace and an
/// API group of its own.
pub async fn on_each_server(scenario: impl AsyncFn(&Server)) {
    portalkeeper::http::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let (_stop, kubeconfig) = embedded(folder.path()).await;
    scenario(&Server::given("embedded", kubeconfig).await).await;
    if let Some(kubeconfig) = std::env::var_os(REAL) {
        let server = Server::given("real", kubeconfig.into()).await;
        scenario(&server).await;
        server.clean_up().await;
    }
}

/// The embedded API behind its HTTPS front on a free port.
async fn embedded(folder: &Path) -> (ShutdownHandle, PathBuf) {
    let (stop, shutdown) = Shutdown::new();
    let server = ApiServer::open(&folder.join("api.db"), Arc::new(SystemClock)).await.unwrap();
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let access = Access::prepare(folder, listener.local_addr().unwrap()).unwrap();
    let kubeconfig = access.kubeconfig.clone();
    tokio::spawn(server.listen(listener, access, shutdown));
    (stop, kubeconfig)
}

impl Server {
    async fn given(name: &'static str, kubeconfig: PathBuf) -> Self {
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
        // Every answer is to be seen, not what comes of trying again.
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        let unique = format!("parity-{:08x}", rand::random::<u32>());
        let group = format!("{unique}.portalkeeper.dev");
        let server = Self { name, client, kubeconfig, namespace: unique, group };
        server.post("/api/v1/namespaces", &json!({"metadata": {"name": server.namespace}})).await.expect(201);
        server
    }

    /// Takes away what a scenario left on a cluster that stays.
    async fn clean_up(&self) {
        let definition = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.{}", self.group);
        self.delete(&definition, &Value::Null).await;
        self.delete(&format!("/api/v1/namespaces/{}", self.namespace), &Value::Null).await;
    }
}
