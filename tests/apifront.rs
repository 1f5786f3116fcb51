//! The embedded API's HTTPS front under load and under bad clients.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use portalkeeper::api::clock::SystemClock;
use portalkeeper::apiserver::store::LogLimits;
use portalkeeper::apiserver::{Access, ApiServer, FrontLimits};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest wait for something that should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    server: ApiServer,
    config: kube::Config,
    _stop: ShutdownHandle,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// A front that is soon full.
    async fn given() -> Self {
        portalkeeper::http::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let (stop, shutdown) = Shutdown::new();
        let server = ApiServer::open_within(
            &folder.path().join("api.db"),
            Arc::new(SystemClock),
            LogLimits { events: 50, bytes: 1 << 20 },
        )
        .await
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let access = Access::prepare(folder.path(), listener.local_addr().unwrap()).unwrap();
        let kubeconfig = Kubeconfig::read_from(&access.kubeconfig).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        // Refusals are to be seen here, not to be tried again.
        config.default_retry = false;
        let limits = FrontLimits { at_once: 2, waiting: 4, patience: Duration::from_millis(200), watches: 10 };
        tokio::spawn(server.clone().listen_within(listener, access, limits, shutdown));
        Self { server, config, _stop: stop, _folder: folder }
    }

    /// A client with connections of its own.
    fn client(&self) -> kube::Client {
        kube::Client::try_from(self.config.clone()).unwrap()
    }

    /// A connection that speaks this protocol, without anything sent yet.
    async fn connect(&self, protocol: &[u8]) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in self.config.root_cert.clone().unwrap() {
            roots.add(certificate.into()).unwrap();
        }
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![protocol.to_vec()];
        let port = self.config.cluster_url.port_u16().unwrap();
        let plain = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, plain).await.unwrap()
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self._folder.path().join("api-token")).unwrap().trim().to_owned()
    }

    /// What the controller has.
    fn inside(&self) -> Api<ConfigMap> {
        Api::namespaced(self.server.client("default"), "default")
    }
}

fn map(name: &str, size: usize) -> ConfigMap {
    let data = Some([("text".to_owned(), "x".repeat(size))].into());
    ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() }, data, ..Default::default() }
}

async fn status_of(client: &kube::Client, request: hyper::Request<Body>) -> u16 {
    let response = client.send(request).await.unwrap();
    let status = response.status().as_u16();
    let _ = response.into_body().collect().await;
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_does_not_hold_up_the_controller() {
    let scene = Scene::given().await;
    let inside = scene.inside();
    // given more clients than are served at once, each writing and listing everything again and again
    let (served, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flood: Vec<_> = (0..12)
        .map(|number| {
            let (client, served, refused) = (scene.client(), Arc::clone(&served), Arc::clone(&refused));
            tokio::spawn(async move {
                let own = format!("/api/v1/namespaces/default/configmaps/flood-{number}?fieldManager=flood&force=true");
                for count in 0_u64.. {
                    let body = json!({
                        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("flood-{number}")},
                        "data": {"count": count.to_string()},
                    });
                    let apply = hyper::Request::patch(&own).header("content-type", "application/apply-patch+yaml");
                    let list = hyper::Request::get("/api/v1/configmaps");
                    for request in [apply.body(body.to_string().into_bytes()), list.body(Vec::new())] {
                        match status_of(&client, request.unwrap().map(Body::from)).await {
                            200 | 201 => served.fetch_add(1, Ordering::Relaxed),
                            429 => refused.fetch_add(1, Ordering::Relaxed),
                            other => panic!("{other}"),
                        };
                    }
                }
            })
        })
        .collect();
    // when the controller works meanwhile, then each of its writes is done; the flood is served
    // as far as it can be and told to wait beyond that
    let work = async {
        for index in 0..100 {
            let name = format!("own-{index}");
            inside.create(&PostParams::default(), &map(&name, 10)).await.unwrap();
            assert!(inside.get_opt(&name).await.unwrap().is_some());
        }
        while served.load(Ordering::Relaxed) < 50 || refused.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, work).await;
    assert!(done.is_ok(), "the controller is held up by {served:?} requests, with {refused:?} refused");
    for client in flood {
        assert!(!client.is_finished(), "a client of the flood failed");
        client.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_watches_than_can_be_served_are_taken_and_a_closed_one_makes_room() {
    let scene = Scene::given().await;
    let client = scene.client();
    let watch = async || {
        let request = hyper::Request::get("/api/v1/configmaps?watch=true").body(Body::empty()).unwrap();
        client.send(request).await.unwrap()
    };
    let mut open = Vec::new();
    let refused = loop {
        let response = watch().await;
        if response.status() == 200 {
            open.push(response);
            assert!(open.len() <= 10, "watches have no bound");
        } else {
            break response;
        }
    };
    assert_eq!((open.len(), refused.status().as_u16()), (10, 429));
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: serde_json::Value =
        serde_json::from_slice(&refused.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&body["kind"], &body["reason"]), (&"Status".into(), &"TooManyRequests".into()));
    // ordinary requests are answered all the same
    let list = hyper::Request::get("/api/v1/configmaps").body(Body::empty()).unwrap();
    assert_eq!(status_of(&client, list).await, 200);
    drop(open);
    let again = async {
        while watch().await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_cut_off_and_costs_no_memory() {
    let scene = Scene::given().await;
    let inside = scene.inside();
    // given a watch over HTTP/1.1 whose reader takes only the head of the answer
    let mut stream = scene.connect(b"http/1.1").await;
    let request = format!(
        "GET /api/v1/configmaps?watch=true HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        scene.token()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // when more happens than the log and the sockets on the way hold
    inside.create(&PostParams::default(), &map("large", 0)).await.unwrap();
    for index in 0..150 {
        inside.replace("large", &PostParams::default(), &map("large", 100_000 + index)).await.unwrap();
    }
    // then what it still gets is less than what happened, and ends
    let mut got = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await;
    assert!(read.is_ok(), "the watch of a slow reader ends");
    assert!(got.len() < 140 * 100_000, "{} bytes were kept for it", got.len());
    assert!(inside.list(&ListParams::default()).await.unwrap().items.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_the_rights_of_the_token_who_asks_for_anothers() {
    let scene = Scene::given().await;
    let client = scene.client();
    for name in ["Impersonate-User", "impersonate-group", "Impersonate-Extra-scope"] {
        let request = hyper::Request::get("/api/v1/configmaps").header(name, "somebody").body(Body::empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), 403, "{name}");
        let body: serde_json::Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!((&body["kind"], &body["reason"]), (&"Status".into(), &"Forbidden".into()));
        assert!(body["message"].as_str().unwrap().starts_with("impersonation is not offered"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_much_too_large_is_answered_over_http_2_as_well() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let scene = Scene::given().await;
    let stream = TokioIo::new(scene.connect(b"h2").await);
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let running = tokio::spawn(connection);
    // ten times what is taken
    let body = http_body_util::Full::new(bytes::Bytes::from(vec![b' '; 30 << 20]));
    let request = hyper::Request::post("https://localhost/api/v1/namespaces/default/configmaps")
        .header("authorization", format!("Bearer {}", scene.token()))
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    let response = tokio::time::timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), 413);
    let body: serde_json::Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!((&body["kind"], &body["reason"]), (&"Status".into(), &"RequestEntityTooLarge".into()));
    running.abort();
}
