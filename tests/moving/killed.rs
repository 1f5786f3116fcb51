//! A move in the real program, which is killed at each of its stages.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::ResetPortal;
use portalkeeper::api::portal::MoveStage;
use portalkeeper::app::install;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, Fault, RunningDouble};
use serde_json::{Value, json};

use super::{Edge, Front, HOST, Proxy, leads_to, target};
use crate::crash::{self, Ports, Program};
use crate::peers::free_port;
use crate::world::{portal, raw};

/// Longest wait for a step; a proof after the record was changed counts after half a minute only.
const PATIENCE: Duration = Duration::from_secs(90);

/// The public side of the new proxy, which may be out of reach.
struct Gate {
    front: Front,
    closed: Arc<AtomicBool>,
}

impl Double for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        match self.closed.load(Ordering::SeqCst) {
            true => DoubleResponse::text(503, "not yet"),
            false => self.front.handle(request),
        }
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

/// Two proxies outside, and the program between its lives.
struct Lives {
    folder: tempfile::TempDir,
    ports: Ports,
    cloudflare: Arc<CloudflareDouble>,
    a: Arc<Proxy>,
    b: Arc<Proxy>,
    /// Admin side of `a`.
    admin: RunningDouble,
    edge: SocketAddr,
    closed: Arc<AtomicBool>,
    /// Moments at which no record led to a route.
    gaps: Arc<std::sync::Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    _running: Vec<RunningDouble>,
}

impl Drop for Lives {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Lives {
    /// A portal in the first proxy, and a program that was killed right after it got ready.
    async fn given() -> Self {
        portalkeeper::http::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports { pages: free_port(), api: free_port(), health: free_port() };
        let pages = SocketAddr::from(([127, 0, 0, 1], ports.pages));
        let cloudflare = Arc::new(CloudflareDouble::new());
        cloudflare.accept_token(crash::TOKEN);
        cloudflare.add_zone("acme.localhost");
        let api = RunningDouble::start(cloudflare.clone()).await.unwrap();
        let story = Arc::default();
        let proxy = |name| {
            let (cloudflare, story) = (cloudflare.clone(), Arc::clone(&story));
            Arc::new(Proxy { name, caddy: CaddyDouble::new(), cloudflare, story })
        };
        let (a, b) = (proxy("a"), proxy("b"));
        let front = |proxy: &Arc<Proxy>| Front { proxy: proxy.clone(), pages, foreign: Arc::default() };
        let edge = Edge {
            fronts: vec![front(&a), front(&b)],
            cloudflare: cloudflare.clone(),
            cut: Arc::default(),
            stale: Arc::default(),
        };
        let edge = RunningDouble::start(Arc::new(edge)).await.unwrap();
        let closed = Arc::new(AtomicBool::new(true));
        let gate = RunningDouble::start(Arc::new(Gate { front: front(&b), closed: closed.clone() })).await.unwrap();
        let admin = RunningDouble::start(a.clone()).await.unwrap();
        let other = RunningDouble::start(b.clone()).await.unwrap();
        let (gaps, over) = (Arc::default(), Arc::default());
        let edge_at = edge.address;
        let lives = Self {
            folder,
            ports,
            cloudflare,
            a,
            b,
            edge: edge_at,
            closed,
            gaps,
            over,
            _running: vec![edge, other, api, gate],
            admin,
        };
        let [edge, other, api, gate] = lives._running.as_slice() else { panic!("four are running") };
        let (_program, client) = lives.live().await;
        for (name, admin, probe) in [("a", &lives.admin, edge.address), ("b", other, gate.address)] {
            let proxy = json!({"caddy": {"adminUrl": admin.url.as_str(), "origin": pages.to_string()}});
            let [secret, mut class] = crash::class(api, proxy, &lives.ports);
            class["metadata"]["name"] = json!(name);
            class["spec"]["default"] = json!(name == "a");
            class["spec"]["cnameTarget"] = json!(target(name));
            class["spec"]["probe"] = json!({"address": probe.to_string()});
            for object in [secret, class] {
                install::put(&client, &install::resource(&object), &object).await.unwrap();
            }
        }
        let portal = portal("acme", json!({"domain": "acme.localhost"}));
        install::put(&client, &install::resource(&portal), &portal).await.unwrap();
        lives.until(&client, "ready in a", |portal| ready(portal) && leads_to(&lives.cloudflare) == "a").await;
        lives.watch();
        lives
    }
    async fn live(&self) -> (Program, kube::Client) {
        let program = crash::start(self.folder.path(), &self.ports);
        let client = crash::connect(self.folder.path()).await;
        (program, client)
    }
    /// Looks all the time whether the record leads to a proxy that has a route.
    fn watch(&self) {
        let (a, b, cloudflare) = (self.a.clone(), self.b.clone(), self.cloudflare.clone());
        let (gaps, over) = (self.gaps.clone(), self.over.clone());
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let to = leads_to(&cloudflare);
                let served =
                    [&a, &b].into_iter().any(|proxy| proxy.name == to && proxy.caddy.route_for(HOST).is_some());
                // A record that changed meanwhile was read too early.
                if !served && leads_to(&cloudflare) == to {
                    gaps.lock().unwrap().push(format!("the record leads to {to}, where no route is"));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    async fn until(&self, client: &kube::Client, words: &str, holds: impl Fn(&ResetPortal) -> bool) {
        let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
        let end = Instant::now() + PATIENCE;
        loop {
            let portal = api.get("acme").await.unwrap();
            if holds(&portal) {
                return;
            }
            assert!(Instant::now() < end, "not {words}: {}", serde_json::to_string_pretty(&portal.status).unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    fn records(&self) -> usize {
        self.cloudflare.records().iter().filter(|record| record["name"] == HOST).count()
    }
    fn routed(&self) -> (bool, bool) {
        (self.a.caddy.route_for(HOST).is_some(), self.b.caddy.route_for(HOST).is_some())
    }
}

fn ready(portal: &ResetPortal) -> bool {
    crate::world::condition_of(portal, "Ready")
        .is_some_and(|c| c.status == "True" && c.observed_generation == portal.metadata.generation)
}

fn stage(portal: &ResetPortal) -> Option<MoveStage> {
    portal.status.as_ref()?.moving.as_ref().map(|moving| moving.stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_killed_at_every_stage_of_a_move_ends_with_one_record_and_one_route() {
    let lives = Lives::given().await;
    // Proving: before and after the new route is made, and when it is there and does not answer
    let (program, client) = lives.live().await;
    lives.admin.log.clear();
    let api: Api<ResetPortal> = Api::namespaced(client.clone(), "default");
    let to_b = Patch::Merge(json!({"spec": {"className": "b"}}));
    api.patch("acme", &PatchParams::default(), &to_b).await.unwrap();
    lives.until(&client, "proving", |portal| stage(portal) == Some(MoveStage::Proving)).await;
    drop(program);
    let (program, client) = lives.live().await;
    lives.until(&client, "made in b", |_| lives.routed() == (true, true)).await;
    drop(program);
    let (program, client) = lives.live().await;
    let refused = |portal: &ResetPortal| {
        let moved = crate::world::condition_of(portal, "Moved");
        moved.is_some_and(|moved| moved.message.contains("it was asked and does not"))
    };
    lives.until(&client, "refused by b", refused).await;
    drop(program);
    assert_eq!((leads_to(&lives.cloudflare).as_str(), lives.records()), ("a", 1), "nothing was proved");
    // Flipped, right when the record is changed, and later
    lives.closed.store(false, Ordering::SeqCst);
    let (program, client) = lives.live().await;
    lives.until(&client, "led to b", |_| leads_to(&lives.cloudflare) == "b").await;
    drop(program);
    assert_eq!((lives.routed(), lives.records()), ((true, true), 1), "the old route stays until the new one is proved");
    let (program, client) = lives.live().await;
    lives.until(&client, "flipped", |portal| stage(portal) == Some(MoveStage::Flipped)).await;
    drop(program);
    // the removal: before it reaches the old proxy, and after it took effect without an answer
    lives.admin.faults.push("PATCH", "", 1, Fault::Delay(Duration::from_secs(60)));
    let (program, client) = lives.live().await;
    lives.until(&client, "leaving", |portal| portal.status.as_ref().is_some_and(|s| !s.leaving.is_empty())).await;
    drop(program);
    assert_eq!(lives.routed(), (true, true));
    lives.admin.faults.clear();
    lives.admin.faults.push("PATCH", "", 1, Fault::CutAfter);
    let (program, client) = lives.live().await;
    lives.until(&client, "removed from a", |_| !lives.routed().0).await;
    drop(program);
    // when it is left alone, then the portal is served from its new place alone, and never was without one
    let (_program, client) = lives.live().await;
    let moved = |portal: &ResetPortal| {
        let status = portal.status.as_ref().unwrap();
        ready(portal) && status.moving.is_none() && status.leaving.is_empty() && status.resources.len() == 2
    };
    lives.until(&client, "moved", moved).await;
    assert_eq!((lives.records(), lives.routed(), leads_to(&lives.cloudflare).as_str()), (1, (false, true), "b"));
    assert_eq!(raw(lives.edge, "GET", HOST, "/", &[], "").await.status, 200);
    let story = lives.a.story.lock().unwrap().clone();
    assert!(story[0].starts_with("a made "), "{story:?}");
    assert_eq!(story[1..], ["b made while the record leads to a", "a removed while the record leads to b"]);
    assert_eq!(*lives.gaps.lock().unwrap(), [""; 0]);
}
