//! The real program, killed while NPM orders a certificate for it.
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::Api;
use portalkeeper::api::ResetPortal;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::app::install;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::backends::npm::double::{Authority, IDENTITY, NpmDouble, SECRET};
use portalkeeper::http::double::{Fault, RunningDouble};
use serde_json::{Value, json};

use super::NEWEST;
use crate::crash::{self, Ports, Program};
use crate::peers::free_port;
use crate::world::{condition_of, portal};

const NAME: &str = "reset.acme.localhost";
const PATIENCE: Duration = Duration::from_secs(60);

/// The program between its lives, and what is outside.
struct Lives {
    folder: tempfile::TempDir,
    ports: Ports,
    npm: Arc<NpmDouble>,
    npm_api: RunningDouble,
    _cloudflare: RunningDouble,
}

impl Lives {
    /// A program that was killed while the order for its only portal was under way: the call still waits for its answer.
    async fn given() -> Self {
        portalkeeper::http::install_crypto_provider();
        let ports = Ports { pages: free_port(), api: free_port(), health: free_port() };
        let cloudflare = Arc::new(CloudflareDouble::new());
        cloudflare.accept_token(crash::TOKEN);
        cloudflare.add_zone("acme.localhost");
        let cloudflare = RunningDouble::start(cloudflare).await.unwrap();
        let npm = Arc::new(NpmDouble::new(NEWEST, Arc::new(SystemClock)));
        let npm_api = RunningDouble::start(npm.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lives = Self { folder, ports, npm, npm_api, _cloudflare: cloudflare };
        lives.npm.set_authority(Authority::Ponders);
        lives.npm_api.faults.push("POST", "/certificates", 1, Fault::DelayAfter(Duration::from_secs(600)));
        let (program, client) = lives.live().await;
        for object in lives.objects() {
            install::put(&client, &install::resource(&object), &object).await.unwrap();
        }
        let end = Instant::now() + PATIENCE;
        while lives.npm.orders() == 0 {
            assert!(Instant::now() < end, "nothing is ordered");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(program);
        lives
    }
    fn objects(&self) -> [Value; 4] {
        let secret = |key: &str| json!({"name": "npm", "key": key});
        let login = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "npm", "namespace": "portalkeeper"},
            "stringData": {"identity": IDENTITY, "password": SECRET},
        });
        let proxy = json!({"npm": {
            "apiUrl": self.npm_api.url.as_str(), "forwardHost": "127.0.0.1", "forwardPort": self.ports.pages,
            "identitySecretRef": secret("identity"), "passwordSecretRef": secret("password"),
        }});
        let [token, mut class] = crash::class(&self._cloudflare, proxy, &self.ports);
        class["spec"]["publicScheme"] = json!("https");
        class["spec"]["probe"] = json!({"enabled": false});
        [login, token, class, portal("acme", json!({"domain": "acme.localhost"}))]
    }
    async fn live(&self) -> (Program, kube::Client) {
        let program = crash::start(self.folder.path(), &self.ports);
        (program, crash::connect(self.folder.path()).await)
    }
    async fn until(&self, client: &kube::Client, words: &str, holds: impl Fn(Option<&ResetPortal>) -> bool) {
        let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
        let end = Instant::now() + PATIENCE;
        loop {
            let portal = api.get_opt("acme").await.unwrap();
            if holds(portal.as_ref()) {
                return;
            }
            assert!(Instant::now() < end, "not {words}: {}", serde_json::to_string_pretty(&portal).unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    /// Rows, certificates and orders.
    fn counts(&self) -> (usize, usize, usize) {
        (self.npm.hosts().len(), self.npm.certificates().len(), self.npm.orders())
    }
}

fn has(portal: Option<&ResetPortal>, condition: &str, reason: &str) -> bool {
    portal.and_then(|portal| condition_of(portal, condition)).is_some_and(|condition| condition.reason == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_killed_in_an_order_uses_what_came_of_it() {
    let lives = Lives::given().await;
    lives.npm.finish_certificate(1);
    let (_program, client) = lives.live().await;
    lives.until(&client, "with its certificate", |portal| has(portal, "CertificateIssued", "Issued")).await;
    assert_eq!(lives.counts(), (1, 1, 1));
    assert_eq!(lives.npm.host(NAME).unwrap()["certificate_id"], 1);
    let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    api.delete("acme", &Default::default()).await.unwrap();
    lives.until(&client, "gone", |portal| portal.is_none()).await;
    assert_eq!(lives.counts(), (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_killed_in_an_order_leaves_no_certificate_of_a_portal_that_goes() {
    let lives = Lives::given().await;
    // given that the portal is deleted while the order is under way, and the program killed once more
    let (program, client) = lives.live().await;
    let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    api.delete("acme", &Default::default()).await.unwrap();
    lives.until(&client, "waiting for the order", |portal| has(portal, "Ready", "CertificatePending")).await;
    drop(program);
    // when the order ends, then the next one removes what came of it
    lives.npm.finish_certificate(1);
    let (_program, client) = lives.live().await;
    lives.until(&client, "gone", |portal| portal.is_none()).await;
    assert_eq!(lives.counts(), (0, 0, 1));
}
