//! The proof of life as it is asked for: whom it asks, whom it does not, and what it says about what it saw.
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use portalkeeper::api::HostName;
use portalkeeper::config::Secret;
use portalkeeper::controller::probe::{Probe, Way, probe};
use portalkeeper::controller::sighting::Sighting;
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, RunningDouble};
use portalkeeper::http::{LookupError, Names};
use portalkeeper::reset::live;
use serde_json::{Value, json};

const HOST: &str = "reset.acme.example";

/// Answers every request in one way.
struct Says(Box<dyn Fn(&DoubleRequest) -> DoubleResponse + Send + Sync>);

impl Double for Says {
    fn name(&self) -> &'static str {
        "server"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        (self.0)(request)
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

async fn server(says: impl Fn(&DoubleRequest) -> DoubleResponse + Send + Sync + 'static) -> RunningDouble {
    RunningDouble::start(Arc::new(Says(Box::new(says)))).await.expect("a loopback port")
}

/// A resolver that knows one answer.
struct Resolver(Result<SocketAddr, LookupError>);

#[async_trait]
impl Names for Resolver {
    async fn addresses(&self, host: &str, _: u16) -> Result<Vec<SocketAddr>, LookupError> {
        assert_eq!(host, HOST);
        self.0.clone().map(|address| vec![address])
    }
}

async fn ask(scheme: &str, resolver: &Resolver) -> Result<(), Sighting> {
    ask_by(scheme, Way::Public(resolver)).await
}

async fn ask_by(scheme: &str, way: Way<'_>) -> Result<(), Sighting> {
    portalkeeper::http::install_crypto_provider();
    let (key, host) = (Secret::new("k1"), HostName::parse(HOST).expect("a host"));
    let url = format!("{scheme}://{HOST}");
    probe(&Probe { key: &key, url: &url, host: &host, uid: "u1" }, way).await
}

#[tokio::test]
async fn the_signed_echo_of_the_nonce_is_the_proof() {
    let pages = server(|request| {
        assert_eq!(request.headers["host"], HOST);
        let nonce = request.parameter("nonce").unwrap_or_default();
        let proof = live::proof(&Secret::new("k1"), HOST, "u1", nonce);
        DoubleResponse::json(200, &json!({"portal": "u1", "proof": proof}))
    })
    .await;
    assert_eq!(ask("http", &Resolver(Ok(pages.address))).await, Ok(()));
    assert_eq!(ask("http", &Resolver(Ok(pages.address))).await, Ok(()));
    // each time with a nonce of its own
    let queries: Vec<String> = pages.log.calls().into_iter().map(|call| call.query).collect();
    assert!(queries.len() == 2 && queries[0] != queries[1], "{queries:?}");
}

#[tokio::test]
async fn a_host_at_a_private_address_is_not_asked() {
    // given a service of an inner network, and a public name that somebody points there
    let inner = server(|_| DoubleResponse::text(200, "secret")).await;
    let address = LookupError::NotPublic { host: HOST.to_owned(), addresses: inner.address.ip().to_string() };
    // when the portal is probed
    let seen = ask("http", &Resolver(Err(address))).await.expect_err("refused");
    // then it is told, with what to do where that is meant, and nobody was asked
    assert_eq!(seen.reason, "PrivateAddress");
    assert_eq!(
        seen.message,
        "reset.acme.example resolves to 127.0.0.1, which is no public address: it was not asked; where this machine sees \
         other addresses than visitors do, name the proxy's address and port in the class as probe.address"
    );
    assert!(inner.log.calls().is_empty());
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let inner = server(|_| DoubleResponse::text(200, "secret")).await;
    let to = inner.url.join("/latest/meta-data?token=canary").expect("an address");
    let front = server(move |_| DoubleResponse::empty(302).with_header("location", to.as_str())).await;
    let seen = ask("http", &Resolver(Ok(front.address))).await.expect_err("no proof");
    assert_eq!(seen.reason, "Redirected");
    assert!(seen.message.contains(&format!("to {}latest/meta-data, ", inner.url)), "{}", seen.message);
    assert!(!seen.message.contains("canary"), "{}", seen.message);
    assert!(inner.log.calls().is_empty());
}

/// A resolver that sends every name to one address.
struct Everywhere(SocketAddr);

#[async_trait]
impl Names for Everywhere {
    async fn addresses(&self, _: &str, _: u16) -> Result<Vec<SocketAddr>, LookupError> {
        Ok(vec![self.0])
    }
}

#[tokio::test]
async fn the_address_that_was_asked_is_named_where_it_is_not_the_hosts_own() {
    let front = server(|_| DoubleResponse::text(404, "")).await;
    let address = front.address.to_string();
    // when the class names an address
    let seen = ask_by("http", Way::Pinned(&address)).await.expect_err("no proof");
    let asked = format!("http://{HOST} (asked at {address}, probe.address of the class) answered with 404");
    assert!(seen.message.starts_with(&asked), "{}", seen.message);
    // when a new proxy is asked before the record leads to it
    let proxy = HostName::parse("proxy.example.net").expect("a host");
    let names = Everywhere(front.address);
    let seen = ask_by("http", Way::Through(&names, &proxy)).await.expect_err("no proof");
    let asked = format!("http://{HOST} (asked at {address}, where proxy.example.net is) answered with 404");
    assert!(seen.message.starts_with(&asked), "{}", seen.message);
    // when nothing listens there
    let free = format!("127.0.0.1:{}", crate::peers::free_port());
    let seen = ask_by("https", Way::Pinned(&free)).await.expect_err("no proof");
    assert!(
        seen.message.contains(&format!("(asked at {free}, probe.address of the class) does not answer")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn what_a_cache_gives_is_not_called_another_installation() {
    // given a cache that keeps the first answer
    let kept = std::sync::OnceLock::new();
    let cache = server(move |request| {
        let nonce = request.parameter("nonce").unwrap_or_default();
        DoubleResponse::json(200, kept.get_or_init(|| live::echo(&Secret::new("k1"), HOST, "u1", nonce)))
    })
    .await;
    assert_eq!(ask("http", &Resolver(Ok(cache.address))).await, Ok(()));
    // when the portal is asked again, then the old answer is known as ours
    let seen = ask("http", &Resolver(Ok(cache.address))).await.expect_err("no proof");
    assert_eq!(seen.reason, "CachedAnswer");
    assert!(seen.message.contains("an old answer of this installation"), "{}", seen.message);
    assert!(seen.message.contains("/.well-known/portalkeeper/*"), "{}", seen.message);
    // and a 304 is no redirect
    let cache = server(|_| DoubleResponse::empty(304)).await;
    let seen = ask("http", &Resolver(Ok(cache.address))).await.expect_err("no proof");
    assert_eq!(seen.reason, "CachedAnswer");
    assert!(!seen.message.contains("redirect") && seen.message.contains("cache"), "{}", seen.message);
}

#[tokio::test]
async fn a_failing_server_is_asked_once() {
    let front = server(|_| DoubleResponse::text(503, "busy").with_header("server", "nginx/1.22.1")).await;
    let seen = ask("http", &Resolver(Ok(front.address))).await.expect_err("no proof");
    assert_eq!(
        (seen.reason, seen.message.as_str()),
        ("UnexpectedAnswer", "http://reset.acme.example answered with status 503 by the server `nginx/1.22.1`")
    );
    assert_eq!(front.log.calls().len(), 1);
    // and one that sends without end is not read to its end
    let front = server(|_| DoubleResponse::text(200, &"x".repeat(1 << 20))).await;
    assert_eq!(ask("http", &Resolver(Ok(front.address))).await.expect_err("no proof").reason, "ForeignServer");
}

#[tokio::test]
async fn a_host_that_nobody_serves_is_told_by_what_is_missing() {
    let reason = async |answer| ask("https", &Resolver(answer)).await.expect_err("no proof").reason;
    assert_eq!(reason(Err(LookupError::NotFound(HOST.to_owned()))).await, "NameNotFound");
    assert_eq!(reason(Err(LookupError::NoAnswer(HOST.to_owned()))).await, "NameLookupFailed");
    let free = SocketAddr::from(([127, 0, 0, 1], crate::peers::free_port()));
    assert_eq!(reason(Ok(free)).await, "ConnectionRefused");
    // a port that speaks no TLS
    let plain = server(|_| DoubleResponse::text(200, "plain")).await;
    assert_eq!(reason(Ok(plain.address)).await, "TlsFailed");
    assert!(plain.log.calls().is_empty());
}

#[tokio::test]
async fn a_certificate_that_browsers_do_not_trust_is_told_as_such() {
    portalkeeper::http::install_crypto_provider();
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        acceptor.accept(stream).await.map(|_| ()).map_err(|error| error.to_string())
    });
    let seen = ask("https", &Resolver(Ok(address))).await.expect_err("no proof");
    assert_eq!(seen.reason, "CertificateNotTrusted");
    assert_eq!(
        seen.message,
        "https://reset.acme.example shows a certificate that browsers do not trust: a self-signed one, or one of \
         Cloudflare's Origin CA, which only Cloudflare's edge trusts"
    );
    assert!(serving.await.expect("served").is_err(), "the client hung up");
}
