//! A simulated Cloudflare account that signs certificates, and the certificates that servers show.
use std::net::SocketAddr;
use std::sync::Arc;

use portalkeeper::api::clock::{SystemClock, TestClock};
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::backends::cloudflare_api::{Api, Budget};
use portalkeeper::backends::origin_ca::CloudflareOriginCa;
use portalkeeper::backends::origin_ca::supply::OriginCertificates;
use portalkeeper::config::Secret;
use portalkeeper::http::double::RunningDouble;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

/// An account with the zones of a few hosts.
pub struct Account {
    pub double: Arc<CloudflareDouble>,
    pub running: RunningDouble,
}

impl Account {
    pub async fn given() -> Self {
        let double = Arc::new(CloudflareDouble::new());
        double.add_zone("acme.example");
        double.add_zone("globex.example");
        let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
        Self { double, running }
    }
    pub fn signs(&self, clock: &Arc<TestClock>) -> OriginCertificates {
        let budget = Budget::new(Arc::new(SystemClock));
        let url = self.running.url.join("client/v4").expect("an address");
        let api = Api::new(url, Secret::new("canary-token"), budget).expect("an API");
        OriginCertificates { ca: Arc::new(CloudflareOriginCa::new(&api)), clock: clock.clone() }
    }
    /// Calls since the last look, as `METHOD path status`.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.running.log.calls();
        self.running.log.clear();
        let path = |path: &str| path.trim_start_matches("/client/v4").to_owned();
        calls.into_iter().map(|call| format!("{} {} {}", call.method, path(&call.path), call.status)).collect()
    }
    /// The only certificate that is signed and not revoked.
    pub fn only(&self) -> CertificateDer<'static> {
        let all = self.double.certificates();
        assert_eq!(all.len(), 1, "{all:?}");
        let pem = all[0]["certificate"].as_str().expect("PEM");
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
    }
}

/// The certificate that a TLS server shows for a name.
pub async fn shown(address: SocketAddr, name: &str) -> Option<CertificateDer<'static>> {
    portalkeeper::http::install_crypto_provider();
    let verifier = Arc::new(crate::front::Anybody);
    let config = rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let tls = connector.connect(ServerName::try_from(name.to_owned()).expect("a name"), stream).await.ok()?;
    tls.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.clone().into_owned())
}
