//! The whole product in one process: the embedded API, the controller, the pages, and everything outside
//! simulated. Nothing of it outlives the value.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use portalkeeper::api::clock::SystemClock;
use portalkeeper::api::{HostName, PortalClaim, ResetPortal};
use portalkeeper::apiserver::ApiServer;
use portalkeeper::app::daemon::{Daemon, DaemonParts};
use portalkeeper::app::data::DataDirectory;
use portalkeeper::app::{install, sandbox};
use portalkeeper::controller::{Deps, EnvironmentClass, Policy, PortalPlan, Readiness, Timing};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::http::{Names, PublicNames};
use portalkeeper::reset::Directory;
use portalkeeper::sandbox::Simulators;
use portalkeeper::store::Store;
use portalkeeper::web::{Trust, WebOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Longest wait for something that should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks often and waits little, so that tests need not sleep.
pub fn quick() -> Timing {
    Timing {
        resync: Duration::from_secs(30),
        probe_every: Duration::from_secs(60),
        longest_probe_wait: Duration::from_millis(200),
        first_retry: Duration::from_millis(50),
        longest_retry: Duration::from_millis(200),
        move_proof: Duration::from_secs(1),
        move_settle: Duration::ZERO,
        move_patience: Duration::from_secs(1),
        move_again: Duration::from_hours(1),
        doubt_after: Duration::ZERO,
        letting_go: Duration::from_mins(30),
        class_report: Duration::from_millis(200),
    }
}

/// The simulators, the API's files and the ports; they stay while the daemon stops and starts.
pub struct World {
    pub simulators: Simulators,
    pub folder: tempfile::TempDir,
    pub pages: SocketAddr,
    /// Of the running daemon.
    pub health: SocketAddr,
    pub client: kube::Client,
    daemon: Option<(ShutdownHandle, Shutdown, Daemon)>,
    environment: Option<EnvironmentClass>,
    /// How the daemon's pages are reached, from its next start on.
    pub web: WebOptions,
    /// How patient the daemon is, from its next start on.
    pub timing: Timing,
    /// What public names lead to where a class pins no address.
    pub names: Arc<dyn Names>,
    _stop: ShutdownHandle,
}

async fn listener(address: SocketAddr) -> TcpListener {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{address} stays in use");
}

/// The program's own host, which no portal may have.
pub const ADMIN_HOST: &str = "mxtools.example.com";

fn policy() -> Policy {
    Policy {
        controller_namespace: "portalkeeper".into(),
        open_grants: true,
        admin_host: HostName::parse(ADMIN_HOST).ok(),
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl World {
    /// Everything running, with the sandbox's class and no portal yet.
    pub async fn start() -> Self {
        Self::start_reached_by(WebOptions { force_https: false, trust: Trust::default() }).await
    }

    /// The same, with its pages reached in this way.
    pub async fn start_reached_by(web: WebOptions) -> Self {
        let mut world = Self::stopped(None).await;
        world.web = web;
        for object in sandbox::class(&world.simulators, world.pages) {
            world.put(&object).await;
        }
        world.start_daemon().await;
        world
    }

    /// Everything but the daemon; no class.
    pub async fn stopped(environment: Option<EnvironmentClass>) -> Self {
        portalkeeper::http::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let (stop, shutdown) = Shutdown::new();
        let pages = SocketAddr::from(([127, 0, 0, 1], crate::peers::free_port()));
        let simulators = Simulators::start(listener(any()).await, pages, folder.path(), shutdown).await.unwrap();
        let server = ApiServer::open(&folder.path().join("api.db"), Arc::new(SystemClock)).await.unwrap();
        let client = server.client("default");
        install::definitions(&client).await.unwrap();
        Self {
            simulators,
            folder,
            pages,
            health: pages,
            client,
            daemon: None,
            environment,
            web: WebOptions { force_https: false, trust: Trust::default() },
            timing: quick(),
            names: Arc::new(PublicNames),
            _stop: stop,
        }
    }

    pub async fn start_daemon(&mut self) {
        let (handle, shutdown) = Shutdown::new();
        let health = listener(any()).await;
        self.health = health.local_addr().unwrap();
        let daemon = Daemon::start(DaemonParts {
            client: self.client.clone(),
            data: DataDirectory::take(&self.folder.path().join("data")).unwrap(),
            pages: listener(self.pages).await,
            health,
            environment: self.environment.clone(),
            policy: policy(),
            web: self.web.clone(),
            timing: self.timing.clone(),
            clock: Arc::new(SystemClock),
            names: self.names.clone(),
            shutdown: shutdown.clone(),
        })
        .await
        .unwrap();
        self.daemon = Some((handle, shutdown, daemon));
    }

    /// Stops the daemon and waits for it to be gone.
    pub async fn stop_daemon(&mut self) {
        let Some((handle, shutdown, daemon)) = self.daemon.take() else { return };
        handle.begin();
        daemon.wait(&shutdown).await.unwrap();
    }

    /// Whether the daemon says that it can serve.
    pub fn is_ready(&self) -> bool {
        self.daemon.as_ref().is_some_and(|(_, _, daemon)| daemon.readiness.is_set())
    }

    pub fn store(&self) -> &portalkeeper::store::Store {
        &self.daemon.as_ref().unwrap().2.store
    }

    /// What `portalkeeper plan` finds, beside the daemon or without it.
    pub async fn plan(&self) -> Vec<PortalPlan> {
        let (_handle, shutdown) = Shutdown::new();
        let plans = portalkeeper::controller::plan(Deps {
            client: self.client.clone(),
            store: Store::open(&self.folder.path().join("data/portalkeeper.db")).await.unwrap(),
            directory: Directory::default(),
            clock: Arc::new(SystemClock),
            environment: self.environment.clone(),
            policy: policy(),
            timing: self.timing.clone(),
            names: self.names.clone(),
            readiness: Readiness::default(),
            shutdown,
        });
        plans.await.unwrap()
    }

    pub async fn put(&self, object: &Value) {
        install::put(&self.client, &install::resource(object), object).await.unwrap();
    }

    pub fn portals(&self) -> Api<ResetPortal> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create(&self, name: &str, spec: Value) {
        let portal: ResetPortal = serde_json::from_value(portal(name, spec)).unwrap();
        self.portals().create(&PostParams::default(), &portal).await.unwrap();
    }

    pub async fn patch(&self, name: &str, patch: Value) {
        self.portals().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub async fn annotate(&self, name: &str, annotation: &str, value: Option<&str>) {
        self.patch(name, json!({"metadata": {"annotations": {annotation: value}}})).await;
    }

    /// Deletes the portal and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        self.portals().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(name, "gone", |portal| portal.is_none()).await;
    }

    /// Waits until the portal's condition has this status and reason at its present generation; gives its message.
    pub async fn until_condition(&self, name: &str, condition: &str, status: &str, reason: &str) -> String {
        let wanted = format!("{condition}={status} {reason}");
        let portal = self
            .until(name, &wanted, |portal| {
                portal.is_some_and(|portal| {
                    condition_of(portal, condition).is_some_and(|c| {
                        c.status == status && c.reason == reason && c.observed_generation == portal.metadata.generation
                    })
                })
            })
            .await;
        condition_of(&portal.unwrap(), condition).unwrap().message
    }

    pub async fn until_ready(&self, name: &str) {
        let waiting = self.until(name, "Ready=True", |portal| {
            portal.is_some_and(|portal| {
                condition_of(portal, "Ready")
                    .is_some_and(|c| c.status == "True" && c.observed_generation == portal.metadata.generation)
            })
        });
        waiting.await;
    }

    /// Waits until the portal is as wanted, and fails with what it was instead.
    pub async fn until(
        &self,
        name: &str,
        words: &str,
        wanted: impl Fn(Option<&ResetPortal>) -> bool,
    ) -> Option<ResetPortal> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let portal = self.portals().get_opt(name).await.unwrap();
            if wanted(portal.as_ref()) {
                return portal;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "{name} is not {words}: {}",
                serde_json::to_string_pretty(&portal).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Names in the simulated Cloudflare, each with its type and content.
    pub fn records(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> = self
            .simulators
            .cloudflare
            .records()
            .iter()
            .map(|r| format!("{} {} {}", text(&r["name"]), text(&r["type"]), text(&r["content"])))
            .collect();
        names.sort();
        names
    }

    pub fn routed(&self, host: &str) -> bool {
        self.simulators.caddy.route_for(host).is_some()
    }

    /// Writes to Cloudflare and Caddy since the last clearing, as `METHOD path`.
    pub fn writes(&self) -> Vec<String> {
        let logs = [&self.simulators.cloudflare_log, &self.simulators.caddy_log];
        logs.into_iter().flat_map(|log| log.writes()).map(|call| format!("{} {}", call.method, call.path)).collect()
    }

    pub fn clear_logs(&self) {
        for log in [&self.simulators.cloudflare_log, &self.simulators.caddy_log, &self.simulators.mxroute_log] {
            log.clear();
        }
    }

    pub async fn claims(&self) -> Vec<String> {
        let api: Api<PortalClaim> = Api::all(self.client.clone());
        let list = api.list(&Default::default()).await.unwrap();
        list.items.into_iter().filter_map(|claim| claim.metadata.name).collect()
    }

    /// Asks the pages for a path at a host.
    pub async fn get(&self, host: &str, path: &str) -> (u16, String) {
        let answer = raw(self.pages, "GET", host, path, &[], "").await;
        (answer.status, answer.body)
    }

    pub fn authority(&self, host: &str) -> String {
        format!("{host}:{}", self.pages.port())
    }
}

pub fn portal(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

pub fn condition_of(
    portal: &ResetPortal,
    condition: &str,
) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    portal.status.as_ref()?.conditions.iter().find(|c| c.type_ == condition).cloned()
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// One request, written by hand, so that nothing is put right on the way.
pub async fn raw(
    address: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str(&format!("\r\n{body}"));
    bytes(address, text.as_bytes()).await
}

/// Sends bytes and reads whatever comes back.
pub async fn bytes(address: SocketAddr, request: &[u8]) -> Answer {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        // Some servers keep the connection although they were asked not to.
        while !is_whole(&answer) && stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Whether as many bytes have come as the head announces.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| length > 0 && answer.len() >= end + 4 + length)
}
