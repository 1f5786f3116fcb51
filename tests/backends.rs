//! The conformance suite over every backend, and Cloudflare's faults by name.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use portalkeeper::api::clock::TestClock;
use portalkeeper::api::{HostName, PortalKey};
use portalkeeper::backends::cloudflare::{CloudflareDns, CloudflareOptions};
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::backends::memory::Memory;
use portalkeeper::backends::{BackendError, ErrorClass, Programmed, Want, Worker};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::plan::{CertificateMode, InstallationId, Intent, Mark, Ownership};

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a host name")
}

fn four_hosts() -> Vec<HostName> {
    ["reset.acme.example", "reset.globex.example", "password.acme.example", "reset.mail.acme.example"]
        .map(host)
        .to_vec()
}

struct InMemory(Memory);

#[async_trait]
impl Harness for InMemory {
    type Backend = Memory;
    fn backend(&self) -> Memory {
        self.0.clone()
    }
    async fn owned(&self) -> Vec<(String, String)> {
        let marked = self.0.things().into_iter().filter(|t| matches!(t.ownership, Ownership::Marked(_)));
        let mut owned: Vec<_> = marked.map(|t| (t.item.host, t.item.target)).collect();
        owned.sort();
        owned
    }
    async fn foreign(&self) -> String {
        let foreign = self.0.things().into_iter().filter(|t| t.ownership == Ownership::Foreign);
        format!("{:?}", foreign.map(|t| t.item).collect::<Vec<_>>())
    }
    async fn writes(&self) -> usize {
        self.0.writes()
    }
    async fn put_foreign(&self, host: &HostName) {
        self.0.put_foreign(host.as_str(), "somewhere.example");
    }
    async fn remove_foreign(&self, host: &HostName) {
        self.0.remove(host.as_str());
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.0.fail_reads(fail);
        true
    }
    fn lose_next_answer(&self) -> bool {
        false
    }
    fn hosts(&self) -> Vec<HostName> {
        four_hosts()
    }
}

struct Cloudflare {
    double: Arc<CloudflareDouble>,
    running: RunningDouble,
}

impl Cloudflare {
    async fn start() -> Self {
        let double = Arc::new(CloudflareDouble::new());
        double.accept_token("canary-token-4711");
        for zone in ["acme.example", "globex.example"] {
            double.add_zone(zone);
        }
        double.put_foreign("www.acme.example", "A", "192.0.2.1");
        double.put_foreign("mail.globex.example", "CNAME", "elsewhere.example");
        let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
        Self { double, running }
    }
    fn dns(&self) -> CloudflareDns {
        let api_url = self.running.url.join("/client/v4").expect("an address");
        let token = Secret::new("canary-token-4711");
        CloudflareDns::new(CloudflareOptions { api_url, token, account_id: None }).expect("a backend")
    }
}

#[async_trait]
impl Harness for Cloudflare {
    type Backend = CloudflareDns;
    fn backend(&self) -> CloudflareDns {
        self.dns()
    }
    async fn owned(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let records = self.double.records();
        let ours = records.iter().filter(|r| Mark::from_text(&text(&r["comment"])) != Ownership::Foreign);
        let mut owned: Vec<_> = ours.map(|r| (text(&r["name"]), text(&r["content"]))).collect();
        owned.sort();
        owned
    }
    async fn foreign(&self) -> String {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let records = self.double.records();
        let foreign = records.iter().filter(|r| Mark::from_text(&text(&r["comment"])) == Ownership::Foreign);
        format!("{:?}", foreign.collect::<Vec<_>>())
    }
    async fn writes(&self) -> usize {
        self.running.log.writes().len()
    }
    async fn put_foreign(&self, host: &HostName) {
        self.double.put_foreign(host.as_str(), "CNAME", "somewhere.example");
    }
    async fn remove_foreign(&self, host: &HostName) {
        self.double.remove(host.as_str());
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.running.faults.clear();
        if fail {
            let page = DoubleResponse::html(502, "<h1>Bad gateway</h1>");
            self.running.faults.push("GET", "/dns_records", usize::MAX, Fault::Answer(page));
        }
        true
    }
    fn lose_next_answer(&self) -> bool {
        self.running.faults.push("POST", "/dns_records", 1, Fault::CutAfter);
        true
    }
    fn hosts(&self) -> Vec<HostName> {
        four_hosts()
    }
}

#[tokio::test]
async fn conformance_of_the_memory_backend() {
    let memory = Memory::default();
    memory.put_foreign("www.acme.example", "192.0.2.1");
    conformance::run("memory", &InMemory(memory)).await;
}

#[tokio::test]
async fn conformance_of_cloudflare_records() {
    conformance::run("cloudflare", &Cloudflare::start().await).await;
}

/// One portal's wish and a worker over a fresh Cloudflare.
struct Scene {
    cloudflare: Cloudflare,
    worker: Worker,
    _stop: ShutdownHandle,
}

impl Scene {
    async fn given() -> Self {
        let cloudflare = Cloudflare::start().await;
        let (stop, shutdown) = Shutdown::new();
        let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH));
        let worker = Worker::spawn(cloudflare.dns(), clock, shutdown);
        Self { cloudflare, worker, _stop: stop }
    }
    async fn want(&self, name: &str) -> Result<Programmed, BackendError> {
        let portal = PortalKey { namespace: "mail".to_owned(), name: name.to_owned() };
        let installation = InstallationId::parse("0123456789abcdef").expect("an id");
        let intent = Intent {
            mark: Mark::new(&installation, &portal),
            portal: portal.clone(),
            host: host(name),
            cname_target: Some(host("edge.example.net")),
            proxied: true,
            ttl: 1,
            certificate: CertificateMode::Proxy,
            adopt: false,
            keep: Vec::new(),
        };
        self.worker.submit(portal, Want::Present { intent, former: Vec::new() }).await
    }
    async fn refused(&self, name: &str) -> BackendError {
        let error = self.want(name).await.expect_err("a refusal");
        assert!(!format!("{error:?}").contains("canary"), "a secret shows: {error:?}");
        error
    }
}

#[tokio::test]
async fn f01_a_throttled_token_is_left_alone_within_the_batch() {
    let scene = Scene::given().await;
    // given a token whose limit is used up
    let slow_down = DoubleResponse::json(429, &serde_json::json!({"success": false, "errors": [{"code": 971}]}));
    let slow_down = slow_down.with_header("retry-after", "30");
    scene.cloudflare.running.faults.push("POST", "", usize::MAX, Fault::Answer(slow_down));
    // when three portals are wanted at once
    let (a, b, c) = tokio::join!(
        scene.want("reset.acme.example"),
        scene.want("a.acme.example"),
        scene.want("reset.globex.example")
    );
    // then each is told how long to wait, and at most one write per batch was tried
    for error in [a, b, c].map(|r| r.expect_err("throttled")) {
        assert_eq!((error.class, error.reason), (ErrorClass::Throttled, "RateLimited"));
        assert_eq!(error.retry_after, Some(Duration::from_secs(30)));
    }
    assert!(scene.cloudflare.running.log.writes().len() <= 2, "{:?}", scene.cloudflare.running.log.writes());
}

#[tokio::test]
async fn f03_a_gateway_page_is_a_failed_read_and_nothing_is_written() {
    let scene = Scene::given().await;
    let page = DoubleResponse::html(200, "<html>maintenance</html>");
    scene.cloudflare.running.faults.push("GET", "/dns_records", 1, Fault::Answer(page));
    let error = scene.refused("reset.acme.example").await;
    assert_eq!((error.class, error.reason), (ErrorClass::Unavailable, "OddAnswer"));
    assert_eq!(scene.cloudflare.running.log.writes(), []);
}

#[tokio::test]
async fn f04_a_creation_whose_answer_was_lost_is_found_again() {
    let scene = Scene::given().await;
    scene.cloudflare.running.faults.push("POST", "/dns_records", 1, Fault::CutAfter);
    // the one call that looks after the lost answer finds our own mark
    let made = scene.want("reset.acme.example").await.expect("found");
    assert!(made.resources[0].id.is_some());
    assert_eq!(scene.cloudflare.running.log.writes().len(), 1);
    assert_eq!(scene.cloudflare.owned().await.len(), 1);
}

#[tokio::test]
async fn f06_a_foreign_record_is_named_and_untouched() {
    let scene = Scene::given().await;
    let error = scene.refused("www.acme.example").await;
    assert_eq!((error.class, error.reason), (ErrorClass::Conflict, "ForeignRecord"));
    assert_eq!(
        error.message,
        "www.acme.example is taken by something that is not ours: A record to 192.0.2.1; \
         remove it, or set the annotation portalkeeper.dev/adopt=true to take it over"
    );
    assert_eq!(scene.cloudflare.running.log.writes(), []);
    // when it goes, then the portal heals by itself
    scene.cloudflare.double.remove("www.acme.example");
    scene.want("www.acme.example").await.expect("healed");
}

#[tokio::test]
async fn f07_a_zone_that_is_missing_or_pending_is_told_and_never_made() {
    let scene = Scene::given().await;
    let missing = scene.refused("reset.initech.example").await;
    assert_eq!(missing.reason, "ZoneNotFound");
    scene.cloudflare.double.add_zone_with("initech.example", "pending", false);
    assert_eq!(scene.refused("reset.initech.example").await.reason, "ZoneNotActive");
    assert_eq!(scene.cloudflare.running.log.writes(), []);
    scene.cloudflare.double.add_zone("initech.example");
    scene.want("reset.initech.example").await.expect("the zone is active now");
}

#[tokio::test]
async fn f08_a_zone_list_with_a_failed_page_does_not_count() {
    let scene = Scene::given().await;
    for index in 0..120 {
        scene.cloudflare.double.add_zone(&format!("z{index}.example"));
    }
    // given that reading the zones fails on a later page, three times as reads are repeated
    let broken = || Fault::Answer(DoubleResponse::text(500, "oops"));
    scene.cloudflare.running.faults.push("GET", "/zones", 1, Fault::Delay(Duration::from_millis(1)));
    scene.cloudflare.running.faults.push("GET", "/zones", 1, broken());
    let error = scene.refused("reset.z119.example").await;
    assert_eq!(error.class, ErrorClass::Unavailable, "not `zone gone`: {error:?}");
    scene.want("reset.z119.example").await.expect("the third page holds it");
}

#[tokio::test]
async fn f10_a_refused_token_is_told_with_what_it_needs() {
    let scene = Scene::given().await;
    scene.cloudflare.double.revoke_tokens();
    let error = scene.refused("reset.acme.example").await;
    assert_eq!((error.class, error.reason), (ErrorClass::Credential, "TokenRefused"));
    assert_eq!(
        error.message,
        "cloudflare refused (10000): Authentication error; the API token needs Zone Read and DNS Edit for this zone"
    );
}

#[tokio::test]
async fn a_mark_taken_off_by_hand_saves_the_record_from_deletion() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.cloudflare.double.edit_comment("reset.acme.example", "ours now, hands off");
    scene.cloudflare.running.log.clear();
    let portal = PortalKey { namespace: "mail".to_owned(), name: "reset.acme.example".to_owned() };
    let installation = InstallationId::parse("0123456789abcdef").expect("an id");
    let want = Want::Absent { mark: Mark::new(&installation, &portal), hosts: vec![host("reset.acme.example")] };
    scene.worker.submit(portal, want).await.expect("nothing of ours is there");
    assert_eq!(scene.cloudflare.running.log.writes(), []);
}

#[tokio::test]
async fn a_broken_zone_does_not_hold_the_others() {
    let scene = Scene::given().await;
    let (broken, fine) = tokio::join!(scene.want("reset.unknown.example"), scene.want("reset.acme.example"));
    assert_eq!(broken.expect_err("no such zone").reason, "ZoneNotFound");
    fine.expect("a neighbour is served");
}
