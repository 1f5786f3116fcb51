//! Cloudflare Tunnel: documents as data, the simulated tunnel under real workers, and a declared portal.
mod documents;
mod faults;
mod portal;
mod races;
mod suite;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use portalkeeper::api::clock::{SystemClock, TestClock};
use portalkeeper::api::{TunnelId, TunnelOrigin};
use portalkeeper::backends::cloudflare_api::double::{ACCOUNT, CloudflareDouble};
use portalkeeper::backends::cloudflare_api::{Api, Budget};
use portalkeeper::backends::cloudflare_tunnel::{CloudflareTunnel, Entry, Ledger, TunnelOptions, Turn};
use portalkeeper::backends::{BackendError, Programmed, Want, Worker};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{RunningDouble, lock};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::plan::Intent;
use serde_json::{Value, json};

pub use crate::scene::{host, intent};

pub const TUNNEL: &str = "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d";
pub const ORIGIN: &str = "http://127.0.0.1:5000";
pub const HOST: &str = "reset.acme.example";
const TOKEN: &str = "canary-token-4711";

/// A ledger that lives as long as the test.
#[derive(Clone, Default)]
pub struct MemoryLedger {
    entries: Arc<Mutex<Vec<Entry>>>,
    broken: Arc<Mutex<bool>>,
}

impl MemoryLedger {
    pub fn all(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }
    pub fn break_it(&self, broken: bool) {
        *lock(&self.broken) = broken;
    }
    fn usable(&self) -> Result<(), String> {
        if *lock(&self.broken) { Err("the disk is full".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn entries(&self, tunnel: &str) -> Result<Vec<Entry>, String> {
        assert_eq!(tunnel, TUNNEL);
        self.usable().map(|()| self.all())
    }
    async fn put(&self, _: &str, entries: &[Entry]) -> Result<(), String> {
        self.usable()?;
        let mut all = lock(&self.entries);
        for entry in entries {
            all.retain(|other| (&other.host, &other.service) != (&entry.host, &entry.service));
            all.push(entry.clone());
        }
        Ok(())
    }
    async fn remove(&self, _: &str, entries: &[Entry]) -> Result<(), String> {
        self.usable()?;
        lock(&self.entries).retain(|other| {
            !entries.iter().any(|entry| (&other.host, &other.service) == (&entry.host, &entry.service))
        });
        Ok(())
    }
}

/// What other people keep in a tunnel: everything that must go back as it came.
pub fn foreign_document() -> Value {
    json!({
        "ingress": [
            {"hostname": "www.acme.example", "service": "http://10.0.0.1:80", "originRequest": {"noTLSVerify": true}},
            {"hostname": "files.acme.example", "path": "^/public", "service": "http://10.0.0.2:80", "note": [1, null, "x"]},
            {"hostname": "*.acme.example", "service": "https://10.0.0.3:443", "originRequest": {"connectTimeout": 10}},
            {"service": "http_status:404"},
        ],
        "originRequest": {"keepAliveConnections": 50, "unheardOf": {"deep": [true, 1.5]}},
        "warp-routing": {"enabled": true},
        "somethingNew": {"a": 1},
    })
}

/// A simulated tunnel, and what a process has over it.
pub struct Stage {
    pub double: Arc<CloudflareDouble>,
    pub running: RunningDouble,
    pub ledger: MemoryLedger,
    pub clock: Arc<TestClock>,
    turn: Turn,
    shutdown: Shutdown,
    _stop: ShutdownHandle,
}

impl Stage {
    pub async fn with(config: Value) -> Self {
        let double = Arc::new(CloudflareDouble::new());
        double.accept_token(TOKEN);
        double.add_tunnel(TUNNEL, config);
        let running = RunningDouble::start(double.clone()).await.unwrap();
        let (stop, shutdown) = Shutdown::new();
        let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH));
        let (ledger, turn) = (MemoryLedger::default(), Turn::default());
        Self { double, running, ledger, clock, turn, shutdown, _stop: stop }
    }

    /// What a new process would make, with the same ledger.
    pub fn backend_to(&self, origin: &str) -> CloudflareTunnel {
        let api_url = self.running.url.join("/client/v4").unwrap();
        let options = TunnelOptions {
            account: ACCOUNT.to_owned(),
            tunnel: TunnelId::parse(TUNNEL).unwrap(),
            origin: TunnelOrigin::parse(origin).unwrap(),
            turn: self.turn.clone(),
        };
        CloudflareTunnel::new(
            Api::new(api_url, Secret::new(TOKEN), Budget::new(Arc::new(SystemClock))).unwrap(),
            options,
            Arc::new(self.ledger.clone()),
        )
    }
    pub fn worker(&self) -> Worker {
        self.worker_to(ORIGIN)
    }
    pub fn worker_to(&self, origin: &str) -> Worker {
        Worker::spawn(self.backend_to(origin), self.clock.clone(), self.shutdown.clone())
    }
    pub fn config(&self) -> Value {
        self.double.tunnel_document(TUNNEL).0
    }
    pub fn version(&self) -> u64 {
        self.double.tunnel_document(TUNNEL).1
    }
    /// Method and last part of the path of each call since the last asking.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.running.log.calls();
        self.running.log.clear();
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        calls.iter().map(|call| format!("{} {}", call.method, last(&call.path))).collect()
    }
    pub fn writes(&self) -> usize {
        self.running.log.writes().len()
    }
    /// The document without our rules.
    pub fn foreign(&self) -> String {
        without_ours(&self.config(), &self.ledger.all())
    }
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) -> u64 {
        self.double.edit_tunnel(TUNNEL, edit)
    }
    /// Puts a rule before all others.
    pub fn put_rule(&self, rule: Value) -> u64 {
        self.edit(|config| rules_of(config).insert(0, rule))
    }
}

pub fn rules_of(config: &mut Value) -> &mut Vec<Value> {
    config["ingress"].as_array_mut().unwrap()
}

/// Whether a rule is as an entry says, as plainly as it can be put.
fn is_entry(rule: &Value, entry: &Entry) -> bool {
    rule["hostname"] == *entry.host && rule["service"] == *entry.service && rule["path"].is_null()
}

pub fn without_ours(config: &Value, ours: &[Entry]) -> String {
    let mut config = config.clone();
    for entry in ours {
        let rules = rules_of(&mut config);
        if let Some(at) = rules.iter().position(|rule| is_entry(rule, entry)) {
            rules.remove(at);
        }
    }
    config.to_string()
}

pub async fn present(worker: &Worker, intent: &Intent) -> Result<Programmed, BackendError> {
    worker.submit(intent.portal.clone(), Want::Present { intent: intent.clone(), former: Vec::new() }).await
}

pub async fn absent(worker: &Worker, intent: &Intent) -> Result<Programmed, BackendError> {
    let want = Want::Absent { mark: intent.mark.clone(), hosts: vec![intent.host.clone()] };
    worker.submit(intent.portal.clone(), want).await
}

pub async fn release(worker: &Worker, intent: &Intent) -> Result<Programmed, BackendError> {
    let want = Want::Released { mark: intent.mark.clone(), hosts: vec![intent.host.clone()] };
    worker.submit(intent.portal.clone(), want).await
}
