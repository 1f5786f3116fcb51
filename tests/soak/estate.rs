//! Everything outside, with the faults that it has, and the programs that come and go over it.
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use jiff::Timestamp;
use portalkeeper::api::clock::Clock;
use portalkeeper::apiserver::ApiServer;
use portalkeeper::app::daemon::{Daemon, DaemonParts};
use portalkeeper::app::data::DataDirectory;
use portalkeeper::app::install;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::cloudflare_api::double::{ACCOUNT, CloudflareDouble};
use portalkeeper::controller::{Policy, Timing};
use portalkeeper::http::PublicNames;
use portalkeeper::http::double::{
    CallLog, Double, DoubleRequest, DoubleResponse, Fault, Faults, Mounted, lock, serve_doubles,
};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::sandbox::edge::{self, Edge};
use portalkeeper::web::{Trust, WebOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::time::{VirtualClock, govern, still};
use crate::peers::free_port;

pub const TOKEN: &str = "soak-test-token";
pub const TUNNEL: &str = "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d";
pub const TARGET: &str = "edge.soak.example";
pub const CLASSES: [&str; 2] = ["caddy", "tunnel"];

/// A small generator, so that a failing run can be made again from its seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// Goes wrong with one call in a hundred, and writes down when each call came.
struct Trouble {
    on: AtomicBool,
    dice: Mutex<Dice>,
    clock: Arc<VirtualClock>,
    calls: Mutex<Vec<Timestamp>>,
    count: Mutex<usize>,
}

impl Trouble {
    fn fault(&self, cloudflare: bool) -> Option<Fault> {
        if cloudflare {
            lock(&self.calls).push(self.clock.now());
        }
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let mut dice = lock(&self.dice);
        if dice.below(100) > 0 {
            return None;
        }
        *lock(&self.count) += 1;
        let throttled = |seconds: &str| {
            let body = json!({"success": false, "errors": [{"code": 971, "message": "Please wait"}], "result": null});
            Fault::Answer(DoubleResponse::json(429, &body).with_header("retry-after", seconds))
        };
        Some(match dice.below(if cloudflare { 10 } else { 8 }) {
            0 => Fault::Answer(DoubleResponse::text(500, "oops")),
            1 => Fault::Answer(DoubleResponse::html(502, "<h1>Bad gateway</h1>")),
            2 => Fault::CutBefore,
            3 => Fault::CutAfter,
            4 => Fault::HangBefore,
            5 => Fault::HangAfter,
            6 => Fault::Answer(DoubleResponse::text(200, "{\"success\": tr")),
            7 => Fault::Delay(Duration::from_secs(5)),
            8 => throttled("1"),
            _ => throttled("60"),
        })
    }
}

/// What outlives each program.
pub struct Estate {
    pub clock: Arc<VirtualClock>,
    pub cloudflare: Arc<CloudflareDouble>,
    pub caddy: Arc<CaddyDouble>,
    pub log: CallLog,
    timing: Timing,
    trouble: Arc<Trouble>,
    folder: tempfile::TempDir,
    systems: SocketAddr,
    edge: SocketAddr,
    pages: SocketAddr,
}

/// A program over the estate, and the API as its users see it.
pub struct Running {
    pub client: kube::Client,
    daemon: Daemon,
    stop: ShutdownHandle,
    shutdown: Shutdown,
}

impl Running {
    /// Ends in order, unlike a runtime that is dropped.
    pub async fn stop(self) {
        self.stop.begin();
        self.daemon.wait(&self.shutdown).await.unwrap();
    }
    pub fn is_ready(&self) -> bool {
        self.daemon.readiness.is_set()
    }
}

/// A client of the API, whose work takes none of the virtual time.
fn client(server: &ApiServer) -> kube::Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            // What only reads is answered from memory.
            let _still = (parts.method != hyper::Method::GET).then(still);
            Ok::<_, kube::Error>(server.answer(&parts, body).await)
        }
    });
    kube::Client::new(service, "default")
}

impl Estate {
    pub fn new(seed: u64, timing: Timing) -> Self {
        portalkeeper::http::install_crypto_provider();
        let clock = Arc::new(VirtualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let cloudflare = Arc::new(CloudflareDouble::with_clock(clock.clone()));
        cloudflare.accept_token(TOKEN);
        let folder = match std::path::Path::new("/dev/shm") {
            memory if memory.is_dir() => tempfile::tempdir_in(memory).unwrap(),
            _ => tempfile::tempdir().unwrap(),
        };
        let at = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let trouble = Arc::new(Trouble {
            on: AtomicBool::new(true),
            dice: Mutex::new(Dice::new(seed.rotate_left(32))),
            clock: clock.clone(),
            calls: Mutex::default(),
            count: Mutex::default(),
        });
        let (caddy, log) = (Arc::new(CaddyDouble::new()), CallLog::default());
        Self { clock, cloudflare, caddy, log, timing, trouble, folder, systems: at(), edge: at(), pages: at() }
    }

    /// Ends the faults of the outside systems.
    pub fn heal(&self) {
        self.trouble.on.store(false, Ordering::Relaxed);
    }
    pub fn faults(&self) -> usize {
        *lock(&self.trouble.count)
    }
    /// When Cloudflare was called.
    pub fn calls(&self) -> Vec<Timestamp> {
        lock(&self.trouble.calls).clone()
    }

    fn objects(&self) -> Vec<Value> {
        let class = |name: &str, target: Value, proxy: Value| {
            json!({
                "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": name},
                "spec": {
                    "cloudflare": {
                        "apiUrl": format!("http://{}/cloudflare/client/v4", self.systems), "accountId": ACCOUNT,
                        "apiTokenSecretRef": {"name": "soak", "key": "token"},
                    },
                    "cnameTarget": target, "proxy": proxy,
                    "publicScheme": "http", "publicPort": self.pages.port(),
                    "probe": {"address": self.edge.to_string()},
                },
            })
        };
        let caddy = json!({"adminUrl": format!("http://{}/caddy", self.systems), "origin": self.pages.to_string()});
        let tunnel = json!({"tunnelId": TUNNEL, "origin": format!("http://{}", self.pages)});
        vec![
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "soak", "namespace": "portalkeeper"},
                "stringData": {"token": TOKEN},
            }),
            class(CLASSES[0], json!(TARGET), json!({"caddy": caddy})),
            class(CLASSES[1], Value::Null, json!({"cloudflareTunnel": tunnel})),
        ]
    }

    /// Starts a program in the runtime that this is called in.
    pub async fn start(&self) -> Running {
        let _still = still();
        let (stop, shutdown) = Shutdown::new();
        let mount = |prefix: &str, double: Arc<dyn Double>| {
            let (trouble, cloudflare, faults) = (self.trouble.clone(), prefix == "/cloudflare", Faults::default());
            faults.by_rule(move |_: &DoubleRequest| trouble.fault(cloudflare));
            Mounted { prefix: prefix.to_owned(), double, log: self.log.clone(), faults }
        };
        let mounts = vec![mount("/cloudflare", self.cloudflare.clone()), mount("/caddy", self.caddy.clone())];
        let systems = TcpListener::bind(self.systems).await.unwrap();
        tokio::spawn(serve_doubles(systems, mounts, None, shutdown.clone()));
        let edge =
            Edge { cloudflare: self.cloudflare.clone(), caddy: self.caddy.clone(), cname_target: TARGET.to_owned() };
        edge::start(Arc::new(edge), TcpListener::bind(self.edge).await.unwrap(), shutdown.clone()).unwrap();
        tokio::spawn(govern());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let server = ApiServer::open(&self.folder.path().join("api.db"), clock.clone()).await.unwrap();
        let client = client(&server);
        install::definitions(&client).await.unwrap();
        for object in self.objects() {
            install::put(&client, &install::resource(&object), &object).await.unwrap();
        }
        let daemon = Daemon::start(DaemonParts {
            client: client.clone(),
            data: DataDirectory::take(&self.folder.path().join("data")).unwrap(),
            pages: TcpListener::bind(self.pages).await.unwrap(),
            health: TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
            environment: None,
            policy: Policy { controller_namespace: "portalkeeper".into(), open_grants: true, admin_host: None },
            web: WebOptions { force_https: false, trust: Trust::default() },
            timing: self.timing.clone(),
            clock,
            names: Arc::new(PublicNames),
            shutdown: shutdown.clone(),
        })
        .await
        .unwrap();
        Running { client, daemon, stop, shutdown }
    }
}
