//! The Nginx Proxy Manager backend against its simulator.
mod certificates;
mod disabled;
mod hosts;
mod killed;
mod login;
mod orders;
mod orphans;
mod pages;
mod portal;
mod queue;
mod revoking;
mod suite;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::HostName;
use portalkeeper::api::clock::TestClock;
use portalkeeper::backends::npm::book::{Order, OrderBook, Refusal};
use portalkeeper::backends::npm::certificate::{LetsEncrypt, Source};
use portalkeeper::backends::npm::double::{IDENTITY, NpmDouble, SECRET, Visit};
use portalkeeper::backends::npm::{Forward, Gate, Npm, NpmOptions, Pace, Version};
use portalkeeper::backends::origin_ca::{OriginCa, Signed, Which};
use portalkeeper::backends::{BackendError, Programmed, Want, Worker};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{RunningDouble, lock};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::plan::Intent;

use crate::scene::{absent, intent, present};

/// The versions that differ from one another.
const VERSIONS: [Version; 4] = [Version(2, 12, 6), Version(2, 13, 7), Version(2, 14, 0), Version(2, 15, 1)];
const NEWEST: Version = Version(2, 15, 1);
const DNS_TOKEN: &str = "dns-token-canary-0815";
const HOST: &str = "reset.acme.example";

/// What visitors get of a portal that is served.
fn page() -> Visit {
    Visit::Page("http://10.0.0.5:5000".to_owned())
}

/// The visit that counts: the first after a write may still meet what was loaded before.
fn settled(scene: &Scene, https: bool) -> Visit {
    scene.double.visit(HOST, https);
    scene.double.visit(HOST, https)
}

fn lets_encrypt() -> Source {
    Source::LetsEncrypt(LetsEncrypt {
        dns_token: Secret::new(DNS_TOKEN),
        email: Some(Secret::new("hostmaster@example.com")),
        propagation_seconds: 30,
    })
}

/// Signs whatever it is asked for.
struct Signer;

#[async_trait]
impl OriginCa for Signer {
    async fn sign(&self, host: &HostName) -> Result<Signed, BackendError> {
        Ok(Signed {
            certificate: Secret::new(format!("-----BEGIN CERTIFICATE-----\n{host}\n-----END CERTIFICATE-----\n")),
            key: Secret::new("-----BEGIN PRIVATE KEY-----\nKEY-CANARY\n-----END PRIVATE KEY-----\n"),
            id: None,
        })
    }
    async fn revoke(&self, _: &HostName, _: Which<'_>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A book that lives as long as the test.
#[derive(Clone, Default)]
struct MemoryBook {
    orders: Arc<Mutex<Vec<Order>>>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    broken: Arc<Mutex<bool>>,
}

impl MemoryBook {
    fn all(&self) -> Vec<Order> {
        lock(&self.orders).clone()
    }
    fn break_it(&self, broken: bool) {
        *lock(&self.broken) = broken;
    }
    fn usable(&self) -> Result<(), String> {
        if *lock(&self.broken) { Err("the disk is full".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl OrderBook for MemoryBook {
    async fn orders(&self, instance: &str) -> Result<Vec<Order>, String> {
        assert!(instance.starts_with("npm/"), "{instance}");
        self.usable().map(|()| self.all())
    }
    async fn put(&self, _: &str, order: &Order) -> Result<(), String> {
        self.usable()?;
        let mut orders = lock(&self.orders);
        orders.retain(|other| (&other.host, other.after) != (&order.host, order.after));
        orders.push(order.clone());
        Ok(())
    }
    async fn remove(&self, _: &str, order: &Order) -> Result<(), String> {
        self.usable()?;
        lock(&self.orders).retain(|other| other != order);
        Ok(())
    }
    async fn refusal(&self, _: &str, host: &str) -> Result<Option<Refusal>, String> {
        self.usable()?;
        Ok(lock(&self.refusals).iter().find(|refusal| refusal.host == host).cloned())
    }
    async fn refuse(&self, _: &str, refusal: &Refusal) -> Result<(), String> {
        self.forgive("", &refusal.host).await?;
        lock(&self.refusals).push(refusal.clone());
        Ok(())
    }
    async fn forgive(&self, _: &str, host: &str) -> Result<(), String> {
        self.usable()?;
        lock(&self.refusals).retain(|refusal| refusal.host != host);
        Ok(())
    }
}

/// A simulated NPM with a worker on it.
struct Scene {
    double: Arc<NpmDouble>,
    running: RunningDouble,
    clock: Arc<TestClock>,
    gate: Gate,
    book: MemoryBook,
    source: Source,
    pace: Pace,
    secret: String,
    worker: Worker,
    _stop: ShutdownHandle,
    shutdown: Shutdown,
}

impl Scene {
    async fn given(source: Source) -> Self {
        Self::of(NEWEST, source).await
    }

    async fn of(version: Version, source: Source) -> Self {
        let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 55)));
        let double = Arc::new(NpmDouble::new(version, clock.clone()));
        let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
        let (stop, shutdown) = Shutdown::new();
        let (gate, pace, secret) = (Gate::default(), Pace::default(), SECRET.to_owned());
        let book = MemoryBook::default();
        let backend = backend(&running, &clock, source.clone(), gate.clone(), &book, pace, &secret);
        let worker = Worker::spawn(backend, clock.clone(), shutdown.clone());
        Self { double, running, clock, gate, book, source, pace, secret, worker, _stop: stop, shutdown }
    }

    /// What a restarted process would build; the old worker goes with its last handle.
    fn restart(&mut self) {
        self.worker = self.another();
    }
    fn another(&self) -> Worker {
        let (source, gate) = (self.source.clone(), self.gate.clone());
        let backend = backend(&self.running, &self.clock, source, gate, &self.book, self.pace, &self.secret);
        Worker::spawn(backend, self.clock.clone(), self.shutdown.clone())
    }

    async fn want(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = intent(name);
        self.worker.forget(&intent.portal);
        present(&self.worker, intent).await
    }
    async fn adopt(&self, name: &str) -> Result<Programmed, BackendError> {
        present(&self.worker, Intent { adopt: true, ..intent(name) }).await
    }
    async fn unwant(&self, name: &str) -> Result<Programmed, BackendError> {
        absent(&self.worker, name).await
    }
    async fn release(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = intent(name);
        self.worker.submit(intent.portal, Want::Released { mark: intent.mark, hosts: vec![intent.host] }).await
    }

    /// Calls that changed something in NPM since the last look, as `METHOD path status`.
    fn writes(&self) -> Vec<String> {
        let calls = self.running.log.writes().into_iter().filter(|call| !call.path.ends_with("/tokens"));
        let words = calls
            .map(|call| format!("{} {} {}", call.method, call.path.trim_start_matches("/api/nginx/"), call.status));
        let words = words.collect();
        self.running.log.clear();
        words
    }
}

fn backend(
    running: &RunningDouble,
    clock: &Arc<TestClock>,
    source: Source,
    gate: Gate,
    book: &MemoryBook,
    pace: Pace,
    secret: &str,
) -> Npm {
    Npm::new(options(running, source, gate, book, pace, secret), clock.clone()).expect("a backend")
}

fn options(
    running: &RunningDouble,
    source: Source,
    gate: Gate,
    book: &MemoryBook,
    pace: Pace,
    secret: &str,
) -> NpmOptions {
    NpmOptions {
        api_url: running.url.clone(),
        verify_tls: true,
        identity: Secret::new(IDENTITY),
        secret: Secret::new(secret),
        forward: Forward { scheme: "http".to_owned(), host: "10.0.0.5".to_owned(), port: 5000 },
        force_https: true,
        certificates: source,
        origin_ca: Some(Arc::new(Signer)),
        gate,
        book: Arc::new(book.clone()),
        pace,
    }
}

/// A wait that only a broken test meets.
const PATIENCE: Duration = Duration::from_secs(20);
