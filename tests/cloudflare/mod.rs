//! Cloudflare's records: the conformance suite, the faults of the catalogue by name, and what everything costs in calls.
mod audit;
mod budget;
mod counts;
mod faults;
mod random;
mod repairs;
mod suite;
mod zones;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::clock::TestClock;
use portalkeeper::api::{HostName, PortalKey};
use portalkeeper::backends::cloudflare::{CloudflareDns, CloudflareOptions, DRIFT_INTERVAL};
use portalkeeper::backends::cloudflare_api::Budget;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::backends::{BackendError, Known, Programmed, Want, Worker};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{Call, RunningDouble};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::plan::{CertificateMode, InstallationId, Intent, Mark};
use serde_json::Value;

/// The token in use; it must never show.
const TOKEN: &str = "canary-token-4711";

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a host name")
}

fn key(name: &str) -> PortalKey {
    PortalKey { namespace: "mail".to_owned(), name: name.to_owned() }
}

fn mark(name: &str) -> Mark {
    Mark::new(&InstallationId::parse("0123456789abcdef").expect("an id"), &key(name))
}

/// A portal at the host of its own name.
fn intent(name: &str) -> Intent {
    Intent {
        mark: mark(name),
        portal: key(name),
        host: host(name),
        cname_target: Some(host("edge.example.net")),
        proxied: true,
        ttl: 1,
        certificate: CertificateMode::Proxy,
        adopt: false,
        keep: Vec::new(),
    }
}

/// A simulated account, one clock for everybody, and a worker.
struct Scene {
    clock: Arc<TestClock>,
    double: Arc<CloudflareDouble>,
    running: RunningDouble,
    budget: Arc<Budget>,
    worker: Worker,
    shutdown: Shutdown,
    _stop: ShutdownHandle,
}

impl Scene {
    /// Two zones with a foreign record each.
    async fn given() -> Self {
        let scene = Self::empty().await;
        for zone in ["acme.example", "globex.example"] {
            scene.double.add_zone(zone);
        }
        scene.double.put_foreign("www.acme.example", "A", "192.0.2.1");
        scene.double.put_foreign("mail.globex.example", "CNAME", "elsewhere.example");
        scene
    }

    async fn empty() -> Self {
        let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 50)));
        let double = Arc::new(CloudflareDouble::with_clock(clock.clone()));
        double.accept_token(TOKEN);
        let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
        let (stop, shutdown) = Shutdown::new();
        let budget = Budget::new(clock.clone());
        let worker = Worker::spawn(dns(&running, TOKEN, &budget), clock.clone(), shutdown.clone());
        Self { clock, double, running, budget, worker, shutdown, _stop: stop }
    }

    /// What another process would start with.
    fn restarted(&self) -> Worker {
        let budget = Budget::new(self.clock.clone());
        Worker::spawn(dns(&self.running, TOKEN, &budget), self.clock.clone(), self.shutdown.clone())
    }

    fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    async fn want(&self, name: &str) -> Result<Programmed, BackendError> {
        present(&self.worker, intent(name), Known::Nothing).await
    }

    /// A portal that never had a record.
    async fn make(&self, name: &str) -> Result<Programmed, BackendError> {
        present(&self.worker, intent(name), Known::NeverMade).await
    }

    async fn absent(&self, name: &str) -> Result<Programmed, BackendError> {
        let want = Want::Absent { mark: mark(name), hosts: vec![host(name)] };
        self.worker.submit(key(name), want).await
    }

    async fn refused(&self, name: &str) -> BackendError {
        let error = self.want(name).await.expect_err("a refusal");
        assert!(!format!("{error:?}").contains("canary"), "a secret shows: {error:?}");
        error
    }

    fn calls(&self) -> Vec<Call> {
        self.running.log.calls()
    }

    /// Calls since the last time, as `METHOD path`, with ids left out.
    fn new_calls(&self) -> Vec<String> {
        let calls = self.calls().iter().map(described).collect();
        self.running.log.clear();
        calls
    }

    /// Records that are not of this installation, as they stand.
    fn foreign(&self) -> Vec<Value> {
        let mut records = self.double.records();
        records.retain(|record| !record["comment"].as_str().unwrap_or_default().contains("0123456789abcdef"));
        records
    }

    fn ours(&self) -> Vec<String> {
        let records = self.double.records();
        let ours = records.iter().filter(|r| r["comment"].as_str().unwrap_or_default().contains("0123456789abcdef"));
        let mut names: Vec<String> =
            ours.map(|record| record["name"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    }
}

/// `GET /zones/*/dns_records?name=x`: ids left out, of the query only the name.
fn described(call: &Call) -> String {
    let path = call.path.trim_start_matches("/client/v4");
    let part = |part: &str| if part.len() == 32 { "*".to_owned() } else { part.to_owned() };
    let path: Vec<String> = path.split('/').map(part).collect();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(call.query.as_bytes()).into_owned().filter(|(name, _)| name == "name").collect();
    let name = query.first().map_or(String::new(), |(_, value)| format!("?name={value}"));
    format!("{} {}{name}", call.method, path.join("/"))
}

fn dns(running: &RunningDouble, token: &str, budget: &Arc<Budget>) -> CloudflareDns {
    let options = CloudflareOptions {
        api_url: running.url.join("/client/v4").expect("an address"),
        token: Secret::new(token),
        account_id: None,
        drift_interval: DRIFT_INTERVAL,
        audit_interval: None,
    };
    CloudflareDns::new(options, Arc::clone(budget)).expect("a backend")
}

async fn present(worker: &Worker, intent: Intent, known: Known) -> Result<Programmed, BackendError> {
    let portal = intent.portal.clone();
    worker.submit_known(portal, Want::Present { intent, former: Vec::new() }, known).await
}

/// Many portals at once.
async fn burst(worker: &Worker, intents: Vec<Intent>, known: &Known) -> Vec<Result<Programmed, BackendError>> {
    let asked = intents.into_iter().map(|intent| present(worker, intent, known.clone()));
    futures_util::future::join_all(asked).await
}
