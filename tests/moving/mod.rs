//! Portals that move from one proxy to another.
mod ahead;
mod byhand;
mod calledoff;
mod classes;
mod flips;
mod killed;
mod lost;
mod meanwhile;
mod real;
mod refused;
mod stages;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::app::sandbox;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, Fault, RunningDouble};
use portalkeeper::http::{LookupError, Names};
use serde_json::{Value, json};

use crate::world::{World, condition_of};

const HOST: &str = "reset.acme.localhost";
/// An address of Cloudflare's edge, which is never asked.
const CLOUDFLARE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(104, 16, 0, 1)), 443);

fn target(proxy: &str) -> String {
    format!("{proxy}.proxies.localhost")
}

/// Whether something is made at a host.
fn is_made(portal: Option<&portalkeeper::api::ResetPortal>, host: &str) -> bool {
    let status = portal.and_then(|portal| portal.status.as_ref());
    status.is_some_and(|status| status.resources.iter().any(|made| made.name == host))
}

/// Where the host's record leads: `a`, `b` or nowhere.
fn leads_to(cloudflare: &CloudflareDouble) -> String {
    let records = cloudflare.records();
    let content = records.iter().find(|record| record["name"] == HOST).and_then(|record| record["content"].as_str());
    content.and_then(|content| content.split('.').next()).unwrap_or("nowhere").to_owned()
}

/// A Caddy that writes down where the record leads at each of its writes.
struct Proxy {
    name: &'static str,
    caddy: CaddyDouble,
    cloudflare: Arc<CloudflareDouble>,
    story: Arc<Mutex<Vec<String>>>,
}

impl Double for Proxy {
    fn name(&self) -> &'static str {
        self.name
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let before = self.caddy.route_for(HOST).is_some();
        let answer = self.caddy.handle(request);
        if request.method != "GET" {
            let deed = match (before, self.caddy.route_for(HOST).is_some()) {
                (false, true) => "made",
                (true, false) => "removed",
                _ => "rewritten",
            };
            let words = format!("{} {deed} while the record leads to {}", self.name, leads_to(&self.cloudflare));
            self.story.lock().unwrap().push(words);
        }
        answer
    }
    fn snapshot(&self) -> Value {
        self.caddy.config()
    }
    fn restore(&self, _: Value) {}
}

/// Sends a request on to the pages.
fn pass(request: &DoubleRequest, pages: SocketAddr) -> DoubleResponse {
    let host = request.headers.get("host").cloned().unwrap_or_default();
    let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let head =
        format!("GET {}?{} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", request.path, query.join("&"));
    let ask = || -> std::io::Result<String> {
        let mut text = String::new();
        let mut stream = TcpStream::connect(pages)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(head.as_bytes())?;
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    // The pages are served by the threads that this one would hold up.
    let Ok(text) = tokio::task::block_in_place(ask) else {
        return DoubleResponse::text(502, "the pages are not there");
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    DoubleResponse::text(status, body)
}

/// The public side of a proxy: leads to the pages by its routes.
struct Front {
    proxy: Arc<Proxy>,
    pages: SocketAddr,
    /// Another server has the address of the proxy `b`.
    foreign: Arc<AtomicBool>,
}

impl Double for Front {
    fn name(&self) -> &'static str {
        "front"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        match self.proxy.caddy.route_for(HOST) {
            _ if self.proxy.name == "b" && self.foreign.load(Ordering::SeqCst) => {
                DoubleResponse::text(200, "Welcome to nginx!")
            }
            Some(_) => pass(request, self.pages),
            None => DoubleResponse::empty(200),
        }
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

/// Cloudflare's edge: follows the record to the proxy that it leads to. Each proxy has a second name, like `a2`.
struct Edge {
    fronts: Vec<Front>,
    cloudflare: Arc<CloudflareDouble>,
    /// It cannot connect to the proxy `b`.
    cut: Arc<AtomicBool>,
    /// It still goes by the record that leads to the proxy `a`.
    stale: Arc<AtomicBool>,
}

impl Double for Edge {
    fn name(&self) -> &'static str {
        "edge"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let to = if self.stale.load(Ordering::SeqCst) { "a".to_owned() } else { leads_to(&self.cloudflare) };
        let page = |status, text: &str| DoubleResponse::text(status, text).with_header("server", "cloudflare");
        let to = to.trim_end_matches('2').to_owned();
        match self.fronts.iter().find(|front| front.proxy.name == to) {
            Some(_) if to == "b" && self.cut.load(Ordering::SeqCst) => page(522, "error code: 522"),
            Some(front) => front.handle(request),
            None => page(530, "error code: 1016"),
        }
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

/// Leads the proxies' own names to their fronts, and every other to the edge.
struct Resolver {
    fronts: Vec<(String, SocketAddr)>,
    edge: SocketAddr,
    /// The proxies' own names are not looked up in time.
    hidden: Arc<AtomicBool>,
    /// There are no such names.
    missing: Arc<AtomicBool>,
    /// They are behind the edge themselves.
    orange: Arc<AtomicBool>,
    /// They are names of one machine.
    one_machine: Arc<AtomicBool>,
}

#[async_trait]
impl Names for Resolver {
    async fn addresses(&self, host: &str, _: u16) -> Result<Vec<SocketAddr>, LookupError> {
        let Some((_, front)) = self.fronts.iter().find(|(name, _)| name == host) else {
            let unknown = host.ends_with(".proxies.localhost") || host.starts_with("nowhere.");
            return if unknown { Err(LookupError::NotFound(host.to_owned())) } else { Ok(vec![self.edge]) };
        };
        match (self.missing.load(Ordering::SeqCst), self.hidden.load(Ordering::SeqCst)) {
            (true, _) => Err(LookupError::NotFound(host.to_owned())),
            (false, true) => Err(LookupError::NoAnswer(host.to_owned())),
            (false, false) if self.orange.load(Ordering::SeqCst) => Ok(vec![CLOUDFLARE]),
            (false, false) if self.one_machine.load(Ordering::SeqCst) => Ok(vec![self.fronts[0].1]),
            (false, false) => Ok(vec![*front]),
        }
    }
}

/// A world with two proxies, a class for each, and a portal in the first.
struct Scene {
    world: World,
    a: Arc<Proxy>,
    b: Arc<Proxy>,
    story: Arc<Mutex<Vec<String>>>,
    cut: Arc<AtomicBool>,
    hidden: Arc<AtomicBool>,
    missing: Arc<AtomicBool>,
    orange: Arc<AtomicBool>,
    one_machine: Arc<AtomicBool>,
    stale: Arc<AtomicBool>,
    foreign: Arc<AtomicBool>,
    a_url: String,
    b_url: String,
    /// Admin API and public side of each proxy, and the edge.
    running: Vec<RunningDouble>,
}

impl Scene {
    async fn given() -> Self {
        let mut world = World::stopped(None).await;
        let (story, cloudflare) = (Arc::<Mutex<Vec<String>>>::default(), world.simulators.cloudflare.clone());
        let [cut, hidden, missing, orange, one_machine, stale, foreign] =
            std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
        let proxy = |name| {
            let (cloudflare, story) = (cloudflare.clone(), story.clone());
            Arc::new(Proxy { name, caddy: CaddyDouble::new(), cloudflare, story })
        };
        let (a, b) = (proxy("a"), proxy("b"));
        let pages = world.pages;
        let front = |proxy: &Arc<Proxy>| Front { proxy: proxy.clone(), pages, foreign: foreign.clone() };
        let edge = Edge { fronts: vec![front(&a), front(&b)], cloudflare, cut: cut.clone(), stale: stale.clone() };
        let edge = RunningDouble::start(Arc::new(edge)).await.unwrap();
        let (mut running, mut fronts) = (Vec::new(), Vec::new());
        let [secret, class] = sandbox::class(&world.simulators, pages);
        world.put(&secret).await;
        for proxy in [&a, &b] {
            let admin = RunningDouble::start(proxy.clone()).await.unwrap();
            let public = RunningDouble::start(Arc::new(front(proxy))).await.unwrap();
            fronts.push((target(proxy.name), public.address));
            fronts.push((target(&format!("{}2", proxy.name)), public.address));
            let mut class = class.clone();
            class["metadata"]["name"] = json!(proxy.name);
            class["spec"]["default"] = json!(proxy.name == "a");
            class["spec"]["cnameTarget"] = json!(target(proxy.name));
            class["spec"]["proxy"]["caddy"]["adminUrl"] = json!(admin.url.as_str());
            class["spec"]["probe"] = json!({});
            world.put(&class).await;
            running.extend([admin, public]);
        }
        world.names = Arc::new(Resolver {
            fronts,
            edge: edge.address,
            hidden: hidden.clone(),
            missing: missing.clone(),
            orange: orange.clone(),
            one_machine: one_machine.clone(),
        });
        let (a_url, b_url) = (running[0].url.to_string(), running[2].url.to_string());
        running.push(edge);
        world.start_daemon().await;
        world.create("acme", json!({"domain": "acme.localhost"})).await;
        world.until_ready("acme").await;
        let scene = Self {
            world,
            a,
            b,
            story,
            cut,
            hidden,
            missing,
            orange,
            one_machine,
            stale,
            foreign,
            a_url,
            b_url,
            running,
        };
        scene.told();
        assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
        scene.world.clear_logs();
        scene
    }
    /// The same, where the new proxy cannot be proved by its own name and there is much time for that.
    async fn held_before_the_flip() -> Self {
        let mut scene = Self::given().await;
        scene.restart_with(|timing| timing.move_proof = Duration::from_secs(600)).await;
        scene.hidden.store(true, Ordering::SeqCst);
        scene.move_to("b").await;
        let message = scene.world.until_condition("acme", "Moved", "Unknown", "Moving").await;
        assert!(message.contains(&format!("the record leads to {} until the new route", target("a"))), "{message}");
        scene.until_story(&["b made while the record leads to a"]).await;
        scene
    }
    async fn restart_with(&mut self, change: impl Fn(&mut portalkeeper::controller::Timing)) {
        self.world.stop_daemon().await;
        change(&mut self.world.timing);
        self.world.start_daemon().await;
    }
    async fn move_to(&self, class: &str) {
        self.world.patch("acme", json!({"spec": {"className": class}})).await;
    }
    async fn change_class(&self, spec: Value) {
        let classes: Api<PortalClass> = Api::all(self.world.client.clone());
        classes.patch("a", &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await.unwrap();
    }
    /// The settings of the second proxy.
    fn second(&self) -> Value {
        json!({"cnameTarget": target("b"), "proxy": {"caddy": {"adminUrl": self.b_url}}})
    }
    /// Waits until nothing of the move is left in the status and the portal is ready.
    async fn until_moved(&self) {
        let moved = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
                status.moving.is_none() && status.leaving.is_empty() && status.resources.len() == 2
            })
        };
        self.world.until("acme", "moved", moved).await;
        self.world.until_ready("acme").await;
    }
    async fn until_moved_to(&self, class: &str) {
        let there = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
                let settled = status.moving.is_none() && status.leaving.is_empty();
                settled && status.place.as_ref().is_some_and(|place| place.class_name == class)
            })
        };
        self.world.until("acme", &format!("moved to {class}"), there).await;
    }
    async fn until_stage(&self, stage: &str) {
        let there = |portal: Option<&portalkeeper::api::ResetPortal>| {
            let moving = portal.and_then(|portal| portal.status.as_ref()?.moving.as_ref());
            moving.is_some_and(|moving| json!(moving.stage) == stage)
        };
        self.world.until("acme", stage, there).await;
    }
    /// No record can be changed until the faults are cleared.
    fn refuse_changes_of_records(&self) {
        let later = Fault::Answer(DoubleResponse::text(503, "later"));
        self.world.simulators.faults.push("PATCH", "/dns_records", usize::MAX, later);
    }
    async fn until_led_to(&self, proxy: &str) {
        self.world.until("acme", &format!("led to {proxy}"), |_| self.leads_to() == proxy).await;
    }
    /// Waits until the condition `Moved` says this.
    async fn until_told(&self, words: &str) {
        let says = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| condition_of(portal, "Moved")).is_some_and(|moved| moved.message.contains(words))
        };
        self.world.until("acme", words, says).await;
    }
    /// Lets so much time pass while the program works.
    async fn work_for(&self, time: Duration) {
        let begun = std::time::Instant::now();
        self.world.until("acme", "worked for", |_| begun.elapsed() >= time).await;
    }
    async fn until_story(&self, words: &[&str]) {
        let told = |_: Option<&portalkeeper::api::ResetPortal>| *self.story.lock().unwrap() == words;
        self.world.until("acme", &format!("told as {words:?}"), told).await;
        self.story.lock().unwrap().clear();
    }
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.story.lock().unwrap())
    }
    fn leads_to(&self) -> String {
        leads_to(&self.world.simulators.cloudflare)
    }
    /// Proxies that have a route for the host.
    fn routed(&self) -> &'static str {
        let has = |proxy: &Arc<Proxy>| proxy.caddy.route_for(HOST).is_some();
        match (has(&self.a), has(&self.b)) {
            (true, true) => "a b",
            (true, false) => "a",
            (false, true) => "b",
            (false, false) => "",
        }
    }
    /// Writes to Cloudflare.
    fn records_written(&self) -> usize {
        let count = self.world.simulators.cloudflare_log.writes().len();
        self.world.clear_logs();
        count
    }
    async fn events(&self) -> BTreeSet<String> {
        let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(self.world.client.clone(), "default");
        let events = api.list(&Default::default()).await.unwrap();
        events.items.into_iter().filter_map(|event| event.reason).collect()
    }
}
