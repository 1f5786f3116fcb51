//! Where a program is killed: what is durable stays in a folder and in simulators, and the program runs on a runtime of its
//! own, together with the simulators' servers, so that nothing of it is left when that runtime ends.
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper::Request;
use kube::api::Api;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::api::{PortalClaim, PortalClass, ResetPortal};
use portalkeeper::apiserver::ApiServer;
use portalkeeper::app::daemon::{Daemon, DaemonParts};
use portalkeeper::app::data::DataDirectory;
use portalkeeper::app::install;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::cloudflare_api::double::{ACCOUNT, CloudflareDouble};
use portalkeeper::controller::Policy;
use portalkeeper::http::double::{CallLog, Double, DoubleRequest, Fault, Faults, Mounted, serve_doubles};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::http::{LookupError, Names};
use portalkeeper::sandbox::edge::{self, Edge};
use portalkeeper::web::{Trust, WebOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};

use super::gate::{Fate, Gate};
use crate::peers::free_port;
use crate::world::quick;

const TOKEN: &str = "killed-test-token";
pub const TUNNEL: &str = "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d";
pub const TARGET: &str = "edge.killed.localhost";
/// Between looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// Longest wait for something that should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What stands between a portal's host and its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    Caddy,
    Tunnel,
}

/// A folder in memory where there is one: what is killed here is the program, not the machine.
fn folder() -> tempfile::TempDir {
    match Path::new("/dev/shm") {
        memory if memory.is_dir() => tempfile::tempdir_in(memory).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// What is durable at one time.
pub struct Kept {
    folder: tempfile::TempDir,
    cloudflare: Value,
    caddy: Value,
}

/// Leads every name to the edge: where a proof of life begins.
struct Resolver {
    edge: SocketAddr,
    gate: Arc<Gate>,
}

#[async_trait]
impl Names for Resolver {
    async fn addresses(&self, host: &str, _: u16) -> Result<Vec<SocketAddr>, LookupError> {
        match self.gate.meet(format!("PROBE {host}"), false) {
            Fate::Goes => Ok(vec![self.edge]),
            _ => {
                self.gate.die();
                std::future::pending().await
            }
        }
    }
}

/// The outside systems and the ports of one program after the other.
pub struct Bench {
    outer: Handle,
    pub gate: Arc<Gate>,
    pub cloudflare: Arc<CloudflareDouble>,
    pub caddy: Arc<CaddyDouble>,
    pub log: CallLog,
    systems: SocketAddr,
    edge: SocketAddr,
    pages: SocketAddr,
}

impl Bench {
    /// With what others have in the account, the tunnel and the Caddy. The API works on `outer`.
    pub fn new(outer: Handle) -> Self {
        portalkeeper::http::install_crypto_provider();
        let cloudflare = Arc::new(CloudflareDouble::new());
        cloudflare.accept_token(TOKEN);
        cloudflare.set_quota(1_000_000);
        let at = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let caddy = Arc::new(CaddyDouble::new());
        let (gate, log) = (Gate::new(), CallLog::default());
        Self { outer, gate, cloudflare, caddy, log, systems: at(), edge: at(), pages: at() }
    }

    /// The class's settings for a proxy.
    pub fn settings(&self, proxy: Proxy) -> Value {
        let origin = format!("http://{}", self.pages);
        match proxy {
            Proxy::Caddy => json!({
                "cnameTarget": TARGET,
                "proxy": {
                    "caddy": {"adminUrl": format!("http://{}/caddy", self.systems), "origin": self.pages.to_string()},
                    "cloudflareTunnel": null,
                },
            }),
            Proxy::Tunnel => json!({
                "cnameTarget": null,
                "proxy": {"caddy": null, "cloudflareTunnel": {"tunnelId": TUNNEL, "origin": origin}},
            }),
        }
    }

    fn class(&self, proxy: Proxy) -> [Value; 2] {
        let mut spec = json!({
            "default": true,
            "cloudflare": {
                "apiUrl": format!("http://{}/cloudflare/client/v4", self.systems), "accountId": ACCOUNT,
                "apiTokenSecretRef": {"name": "killed", "key": "token"},
            },
            "publicScheme": "http", "publicPort": self.pages.port(),
        });
        json_patch::merge(&mut spec, &self.settings(proxy));
        [
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "killed", "namespace": "portalkeeper"},
                "stringData": {"token": TOKEN},
            }),
            json!({
                "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": "killed"},
                "spec": spec,
            }),
        ]
    }

    /// A class with this proxy and no portal.
    pub fn begin(&self, proxy: Proxy) -> Life<'_> {
        let life = Life::open(self, folder());
        self.outer.block_on(async {
            install::definitions(&life.client).await.unwrap();
            for object in self.class(proxy) {
                install::put(&life.client, &install::resource(&object), &object).await.unwrap();
            }
        });
        life
    }

    /// Everything as it was then.
    pub fn again(&self, kept: &Kept) -> Life<'_> {
        let folder = folder();
        copy(kept.folder.path(), folder.path());
        self.cloudflare.restore(kept.cloudflare.clone());
        self.caddy.load(kept.caddy.clone());
        Life::open(self, folder)
    }
}

/// A program that runs.
struct Program {
    runtime: Runtime,
    daemon: Daemon,
    _stop: ShutdownHandle,
}

/// What is durable, with or without a program that works on it.
pub struct Life<'a> {
    pub bench: &'a Bench,
    /// The user's own.
    pub client: kube::Client,
    server: ApiServer,
    program: Option<Program>,
    folder: tempfile::TempDir,
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

impl<'a> Life<'a> {
    fn open(bench: &'a Bench, folder: tempfile::TempDir) -> Self {
        let path = folder.path().join("api.db");
        let server = bench.outer.block_on(ApiServer::open(&path, Arc::new(SystemClock))).unwrap();
        let client = bench.outer.block_on(async { server.client("default") });
        Self { bench, client, server, program: None, folder }
    }

    /// The program's client: each call is counted, and is finished by the API even if the program ends meanwhile.
    fn watched_client(&self) -> kube::Client {
        let (server, gate, outer) = (self.server.clone(), self.bench.gate.clone(), self.bench.outer.clone());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (server, gate, outer) = (server.clone(), gate.clone(), outer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let fate = match parts.method {
                    hyper::Method::GET => Fate::Goes,
                    _ => gate.meet(format!("{} {}", parts.method, parts.uri.path()), true),
                };
                if fate == Fate::Dies {
                    return std::future::pending().await;
                }
                let turn = gate.calls.clone().read_owned().await;
                let work = outer.spawn(async move {
                    let answer = server.answer(&parts, body).await;
                    drop(turn);
                    answer
                });
                let answer = work.await.unwrap();
                if fate == Fate::DiesAnswered {
                    gate.die();
                    return std::future::pending().await;
                }
                Ok::<_, kube::Error>(answer)
            }
        });
        let _on = self.bench.outer.enter();
        kube::Client::new(service, "default")
    }

    /// Starts a program and waits until it has looked at every portal.
    pub fn start(&mut self) {
        let bench = self.bench;
        bench.gate.open();
        bench.log.clear();
        let (gate, faults) = (bench.gate.clone(), Faults::default());
        faults.by_rule(move |request: &DoubleRequest| {
            let words = format!("{} {}", request.method, request.path);
            match gate.meet(words, request.method != "GET") {
                Fate::Goes => None,
                Fate::Dies => Some(Fault::HangBefore),
                Fate::DiesAnswered => {
                    // The effect follows in this very step, before the runtime can end.
                    gate.die();
                    Some(Fault::HangAfter)
                }
            }
        });
        let mount = |prefix: &str, double: Arc<dyn Double>| Mounted {
            prefix: prefix.to_owned(),
            double,
            log: bench.log.clone(),
            faults: faults.clone(),
        };
        let mounts = vec![mount("/cloudflare", bench.cloudflare.clone()), mount("/caddy", bench.caddy.clone())];
        let edge =
            Edge { cloudflare: bench.cloudflare.clone(), caddy: bench.caddy.clone(), cname_target: TARGET.to_owned() };
        let names = Arc::new(Resolver { edge: bench.edge, gate: bench.gate.clone() });
        let (client, data) = (self.watched_client(), self.folder.path().join("data"));
        let (stop, shutdown) = Shutdown::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let daemon = runtime.block_on(async {
            let systems = TcpListener::bind(bench.systems).await.unwrap();
            tokio::spawn(serve_doubles(systems, mounts, None, shutdown.clone()));
            edge::start(Arc::new(edge), TcpListener::bind(bench.edge).await.unwrap(), shutdown.clone()).unwrap();
            Daemon::start(DaemonParts {
                client,
                data: DataDirectory::take(&data).unwrap(),
                pages: TcpListener::bind(bench.pages).await.unwrap(),
                health: TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
                environment: None,
                policy: Policy { controller_namespace: "portalkeeper".into(), open_grants: true, admin_host: None },
                web: WebOptions { force_https: false, trust: Trust::default() },
                timing: quick(),
                clock: Arc::new(SystemClock),
                names,
                shutdown,
            })
            .await
            .unwrap()
        });
        let end = Instant::now() + PATIENCE;
        while !daemon.readiness.is_set() {
            assert!(Instant::now() < end, "the program does not become ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.program = Some(Program { runtime, daemon, _stop: stop });
    }

    /// Ends the program as SIGKILL would, and waits until nothing of it can have an effect any more.
    pub fn kill(&mut self) {
        let Some(Program { runtime, daemon, _stop }) = self.program.take() else { return };
        // Everything of it is dropped where it waits; the simulators' ends of its connections with it.
        drop(runtime);
        drop(daemon);
        // What it had asked the API for is done by now, or never.
        drop(self.bench.outer.block_on(self.bench.gate.calls.write()));
    }

    /// Waits for the kill, or until this is so. Tells whether it was killed. Errors: neither comes in time.
    pub fn until_killed_or(&self, wanted: impl Fn() -> Result<(), String>) -> Result<bool, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let killed =
                self.bench.outer.block_on(async { tokio::time::timeout(LOOK, self.bench.gate.killed()).await.is_ok() });
            if killed {
                return Ok(true);
            }
            match wanted() {
                Ok(()) => return Ok(false),
                Err(words) if Instant::now() > end => return Err(words),
                Err(_) => {}
            }
        }
    }

    pub fn keep(&mut self) -> Kept {
        self.kill();
        // The database's own threads close it a moment later; half closed it cannot be copied.
        let end = Instant::now() + PATIENCE;
        while self.folder.path().join("data/portalkeeper.db-wal").exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        let to = folder();
        copy(self.folder.path(), to.path());
        Kept { folder: to, cloudflare: self.bench.cloudflare.snapshot(), caddy: self.bench.caddy.config() }
    }

    /// Does something on the API as a user.
    pub fn user<T>(&self, work: impl Future<Output = T>) -> T {
        self.bench.outer.block_on(work)
    }
    pub fn portals(&self) -> Api<ResetPortal> {
        Api::namespaced(self.client.clone(), "default")
    }
    pub fn classes(&self) -> Api<PortalClass> {
        Api::all(self.client.clone())
    }
    pub fn claims(&self) -> Vec<String> {
        let api: Api<PortalClaim> = Api::all(self.client.clone());
        let claims = self.user(api.list(&Default::default())).unwrap();
        claims.items.into_iter().filter_map(|claim| claim.metadata.name).collect()
    }
}
