//! A worker over one backend, with a clock of its own, and what portals want of it.
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::clock::TestClock;
use portalkeeper::api::{HostName, PortalKey};
use portalkeeper::backends::{Backend, BackendError, Programmed, Want, Worker};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::plan::{CertificateMode, InstallationId, Intent, Mark};

pub fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a host name")
}

/// What the portal at this host wants, who is named after it.
pub fn intent(name: &str) -> Intent {
    let portal = PortalKey { namespace: "mail".to_owned(), name: name.replace('.', "-") };
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

/// Four names that any instance can serve.
pub fn four_hosts() -> Vec<HostName> {
    ["reset.acme.example", "reset.globex.example", "password.acme.example", "reset.mail.acme.example"]
        .map(host)
        .to_vec()
}

/// The same wants, asked of a worker in one word each.
pub async fn present(worker: &Worker, intent: Intent) -> Result<Programmed, BackendError> {
    worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await
}

pub async fn absent(worker: &Worker, name: &str) -> Result<Programmed, BackendError> {
    let intent = intent(name);
    worker.submit(intent.portal, Want::Absent { mark: intent.mark, hosts: vec![intent.host] }).await
}

pub struct Scene {
    pub worker: Worker,
    pub clock: Arc<TestClock>,
    /// How much later each want comes than the one before.
    pub pace: SignedDuration,
    _stop: ShutdownHandle,
}

impl Scene {
    pub fn of(backend: impl Backend) -> Self {
        Self::at(backend, Arc::new(TestClock::new(Timestamp::UNIX_EPOCH)))
    }
    /// By a clock that others may have, too.
    pub fn at(backend: impl Backend, clock: Arc<TestClock>) -> Self {
        let (stop, shutdown) = Shutdown::new();
        let worker = Worker::spawn(backend, clock.clone(), shutdown);
        Self { worker, clock, pace: SignedDuration::ZERO, _stop: stop }
    }
    pub async fn submit(&self, intent: Intent) -> Result<Programmed, BackendError> {
        self.clock.advance(self.pace);
        present(&self.worker, intent).await
    }
    pub async fn want(&self, name: &str) -> Result<Programmed, BackendError> {
        self.submit(intent(name)).await
    }
    pub async fn unwant(&self, name: &str) -> Result<Programmed, BackendError> {
        absent(&self.worker, name).await
    }
}
