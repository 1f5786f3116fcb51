//! The Nginx Proxy Manager backend against its simulator.
mod certificates;
mod hosts;
mod login;
mod portal;
mod revoking;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::clock::TestClock;
use portalkeeper::api::{HostName, PortalKey};
use portalkeeper::backends::npm::certificate::{LetsEncrypt, Source};
use portalkeeper::backends::npm::double::{IDENTITY, NpmDouble, SECRET};
use portalkeeper::backends::npm::{Forward, Gate, Npm, NpmOptions, Pace, Version};
use portalkeeper::backends::origin_ca::{OriginCa, Signed, Which};
use portalkeeper::backends::{BackendError, Programmed, Want, Worker};
use portalkeeper::config::Secret;
use portalkeeper::http::double::RunningDouble;
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::plan::{CertificateMode, InstallationId, Intent, Mark};

/// The versions that differ from one another.
const VERSIONS: [Version; 4] = [Version(2, 12, 6), Version(2, 13, 7), Version(2, 14, 0), Version(2, 15, 1)];
const NEWEST: Version = Version(2, 15, 1);
const DNS_TOKEN: &str = "dns-token-canary-0815";
const HOST: &str = "reset.acme.example";

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a host name")
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

/// A simulated NPM with a worker on it.
struct Scene {
    double: Arc<NpmDouble>,
    running: RunningDouble,
    clock: Arc<TestClock>,
    gate: Gate,
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
        let backend = backend(&running, &clock, source.clone(), gate.clone(), pace, &secret);
        let worker = Worker::spawn(backend, clock.clone(), shutdown.clone());
        Self { double, running, clock, gate, source, pace, secret, worker, _stop: stop, shutdown }
    }

    /// What a restarted process would build; the old worker goes with its last handle.
    fn restart(&mut self) {
        self.worker = self.another();
    }
    fn another(&self) -> Worker {
        let (source, gate) = (self.source.clone(), self.gate.clone());
        let backend = backend(&self.running, &self.clock, source, gate, self.pace, &self.secret);
        Worker::spawn(backend, self.clock.clone(), self.shutdown.clone())
    }

    fn intent(name: &str) -> Intent {
        let portal = PortalKey { namespace: "mail".to_owned(), name: name.to_owned() };
        let installation = InstallationId::parse("0123456789abcdef").expect("an id");
        Intent {
            mark: Mark::new(&installation, &portal),
            portal,
            host: host(name),
            cname_target: None,
            proxied: true,
            ttl: 1,
            certificate: CertificateMode::Proxy,
            adopt: false,
            keep: Vec::new(),
        }
    }
    async fn want(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Self::intent(name);
        self.worker.forget(&intent.portal);
        self.worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await
    }
    async fn adopt(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Intent { adopt: true, ..Self::intent(name) };
        self.worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await
    }
    async fn unwant(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Self::intent(name);
        self.worker.submit(intent.portal, Want::Absent { mark: intent.mark, hosts: vec![intent.host] }).await
    }
    async fn release(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Self::intent(name);
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
    pace: Pace,
    secret: &str,
) -> Npm {
    Npm::new(options(running, source, gate, pace, secret), clock.clone()).expect("a backend")
}

fn options(running: &RunningDouble, source: Source, gate: Gate, pace: Pace, secret: &str) -> NpmOptions {
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
        pace,
    }
}

/// A wait that only a broken test meets.
const PATIENCE: Duration = Duration::from_secs(20);
