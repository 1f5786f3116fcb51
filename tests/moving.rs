//! Portals that move from one proxy to another: what is made and removed, in which order, and what becomes of a move
//! that does not work.
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::app::sandbox;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, RunningDouble};
use portalkeeper::http::{LookupError, Names};
use serde_json::{Value, json};

use crate::world::{World, condition_of};

const HOST: &str = "reset.acme.localhost";

fn target(proxy: &str) -> String {
    format!("{proxy}.proxies.localhost")
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
}

impl Double for Front {
    fn name(&self) -> &'static str {
        "front"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        match self.proxy.caddy.route_for(HOST) {
            Some(_) => pass(request, self.pages),
            None => DoubleResponse::empty(200),
        }
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

/// Cloudflare's edge: follows the record to the proxy that it leads to.
struct Edge {
    fronts: Vec<Front>,
    cloudflare: Arc<CloudflareDouble>,
    /// It cannot connect to the proxy `b`.
    cut: Arc<AtomicBool>,
}

impl Double for Edge {
    fn name(&self) -> &'static str {
        "edge"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let to = leads_to(&self.cloudflare);
        let page = |status, text: &str| DoubleResponse::text(status, text).with_header("server", "cloudflare");
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
    /// The new proxy is not reached by its own name.
    hidden: Arc<AtomicBool>,
}

#[async_trait]
impl Names for Resolver {
    async fn addresses(&self, host: &str, _: u16) -> Result<Vec<SocketAddr>, LookupError> {
        let Some((_, front)) = self.fronts.iter().find(|(name, _)| name == host) else { return Ok(vec![self.edge]) };
        match self.hidden.load(Ordering::SeqCst) {
            true => Err(LookupError::NotFound(host.to_owned())),
            false => Ok(vec![*front]),
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
    b_url: String,
    _running: Vec<RunningDouble>,
}

impl Scene {
    async fn given() -> Self {
        let mut world = World::stopped(None).await;
        let (story, cloudflare) = (Arc::<Mutex<Vec<String>>>::default(), world.simulators.cloudflare.clone());
        let (cut, hidden) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let proxy = |name| {
            let (cloudflare, story) = (cloudflare.clone(), story.clone());
            Arc::new(Proxy { name, caddy: CaddyDouble::new(), cloudflare, story })
        };
        let (a, b) = (proxy("a"), proxy("b"));
        let pages = world.pages;
        let front = |proxy: &Arc<Proxy>| Front { proxy: proxy.clone(), pages };
        let edge = Edge { fronts: vec![front(&a), front(&b)], cloudflare, cut: cut.clone() };
        let edge = RunningDouble::start(Arc::new(edge)).await.unwrap();
        let (mut running, mut fronts) = (Vec::new(), Vec::new());
        let [secret, class] = sandbox::class(&world.simulators, pages);
        world.put(&secret).await;
        for proxy in [&a, &b] {
            let admin = RunningDouble::start(proxy.clone()).await.unwrap();
            let public = RunningDouble::start(Arc::new(front(proxy))).await.unwrap();
            fronts.push((target(proxy.name), public.address));
            let mut class = class.clone();
            class["metadata"]["name"] = json!(proxy.name);
            class["spec"]["default"] = json!(proxy.name == "a");
            class["spec"]["cnameTarget"] = json!(target(proxy.name));
            class["spec"]["proxy"]["caddy"]["adminUrl"] = json!(admin.url.as_str());
            class["spec"]["probe"] = json!({});
            world.put(&class).await;
            running.extend([admin, public]);
        }
        world.names = Arc::new(Resolver { fronts, edge: edge.address, hidden: hidden.clone() });
        let b_url = running[2].url.to_string();
        running.push(edge);
        world.start_daemon().await;
        world.create("acme", json!({"domain": "acme.localhost"})).await;
        world.until_ready("acme").await;
        let scene = Self { world, a, b, story, cut, hidden, b_url, _running: running };
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
    async fn until_stage(&self, stage: &str) {
        let there = |portal: Option<&portalkeeper::api::ResetPortal>| {
            let moving = portal.and_then(|portal| portal.status.as_ref()?.moving.as_ref());
            moving.is_some_and(|moving| json!(moving.stage) == stage)
        };
        self.world.until("acme", stage, there).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_move_makes_the_new_route_then_flips_the_record_then_removes_the_old_route() {
    let scene = Scene::given().await;
    scene.move_to("b").await;
    scene.until_moved().await;
    assert_eq!(
        scene.told(),
        ["b made while the record leads to a", "a removed while the record leads to b"],
        "and nothing else"
    );
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("b", 1));
    let status = scene.world.portals().get("acme").await.unwrap().status.unwrap();
    assert_eq!(status.class_name.as_deref(), Some("b"));
    assert!(status.conditions.iter().all(|condition| condition.type_ != "Moved"), "{:?}", status.conditions);
    assert!(scene.events().await.contains("Moved"));
    // and back the same way, and nothing is left when it goes
    scene.move_to("a").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["a made while the record leads to b", "b removed while the record leads to a"]);
    scene.world.delete("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_cannot_be_proved_is_rolled_back_and_not_tried_for_ever() {
    let mut scene = Scene::given().await;
    // given a new proxy that answers by its own name and that the edge cannot connect to
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    // then the record is changed back, and the status says why
    let message = scene.world.until_condition("acme", "Moved", "False", "MoveRolledBack").await;
    assert!(message.contains("522: Cloudflare's edge cannot connect to the proxy in time"), "{message}");
    assert!(message.contains(&format!("The record leads to {} again", target("a"))), "{message}");
    scene.world.until_condition("acme", "Ready", "False", "MoveRolledBack").await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    assert_eq!(scene.told(), ["b made while the record leads to a"], "the old route was not touched");
    assert_eq!((scene.leads_to().as_str(), scene.records_written(), scene.routed()), ("a", 2, "a b"));
    assert!(scene.events().await.contains("MoveRolledBack"));
    let status = scene.world.portals().get("acme").await.unwrap().status.unwrap();
    assert_eq!((status.class_name.as_deref(), status.resources.len()), (Some("a"), 3));
    // when it is looked at again, and by another process, then nothing is tried
    scene.restart_with(|_| {}).await;
    scene.world.annotate("acme", "example.com/looked", Some("at")).await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    assert_eq!((scene.told(), scene.records_written()), (Vec::<String>::new(), 0));
    // when the way is free and the portal is changed, then it is
    scene.cut.store(false, Ordering::SeqCst);
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["a removed while the record leads to b"], "the new route was still there");
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("b", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_proxy_that_cannot_be_reached_by_its_own_name_is_proved_through_the_record() {
    let scene = Scene::given().await;
    scene.hidden.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "a removed while the record leads to b"]);
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(scene.world.client.clone(), "default");
    let notes: Vec<String> = events
        .list(&Default::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("Moved"))
        .filter_map(|event| event.note)
        .collect();
    let words = format!("before the record was changed: {} does not exist in DNS", target("b"));
    assert!(notes.len() == 1 && notes[0].contains(&words), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_interrupted_at_any_stage_is_finished_by_the_next_process() {
    // before the record is changed
    let mut scene = Scene::held_before_the_flip().await;
    scene.restart_with(|_| {}).await;
    scene.world.until_condition("acme", "Moved", "Unknown", "Moving").await;
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("a", 0));
    scene.world.stop_daemon().await;
    scene.hidden.store(false, Ordering::SeqCst);
    // after it was changed
    scene.cut.store(true, Ordering::SeqCst);
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    scene.until_stage("Flipped").await;
    scene.world.until("acme", "led to b", |_| scene.leads_to() == "b").await;
    scene.restart_with(|_| {}).await;
    let message = scene.world.until_condition("acme", "Live", "False", "OriginTimeout").await;
    assert!(message.contains("522"), "{message}");
    assert_eq!(scene.routed(), "a b", "the old route stays until the new one is proved");
    scene.cut.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!(scene.told(), ["a removed while the record leads to b"]);
    assert_eq!((scene.records_written(), scene.routed()), (1, "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_called_off_leaves_nothing_in_the_new_proxy() {
    let scene = Scene::held_before_the_flip().await;
    scene.move_to("a").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b removed while the record leads to a"]);
    assert_eq!((scene.leads_to().as_str(), scene.records_written(), scene.routed()), ("a", 0, "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_goes_in_the_middle_of_a_move_leaves_nothing_in_either_proxy() {
    let scene = Scene::held_before_the_flip().await;
    scene.world.delete("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
    // and so does one that is switched off
    let scene = Scene::held_before_the_flip().await;
    scene.world.patch("acme", json!({"spec": {"enabled": false}})).await;
    scene.world.until_condition("acme", "Ready", "False", "Disabled").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_gets_another_proxy_moves_its_portals_even_when_nobody_ran_meanwhile() {
    let mut scene = Scene::given().await;
    // given a class that was changed while the program was stopped
    scene.world.stop_daemon().await;
    scene.change_class(scene.second()).await;
    scene.world.start_daemon().await;
    // then what stood in the former proxy is removed by its former settings
    scene.world.until("acme", "led to b", |_| scene.leads_to() == "b").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "a removed while the record leads to b"]);
    // which are forgotten when nobody needs them any more
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    for _ in 0..1000 {
        let status = classes.get("a").await.unwrap().status.unwrap_or_default();
        assert!(!json!(status).to_string().contains("sandbox-cloudflare-token"), "no secret is kept");
        if status.settings.len() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the former settings stay: {:?}", classes.get("a").await.unwrap().status);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_removed_any_more_is_told_and_stays_in_the_status() {
    let scene = Scene::given().await;
    // given a class that is deleted, with its credentials
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    classes.delete("a", &DeleteParams::default()).await.unwrap();
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    assert!(message.contains(&format!("removed by hand: {HOST} in caddy/")), "{message}");
    scene.world.until_ready("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
    assert!(scene.events().await.contains("LeftBehind"));
    // and it is still there when it is looked at again
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    let portal = scene.world.portals().get("acme").await.unwrap();
    assert_eq!(portal.status.as_ref().unwrap().left_behind.len(), 1);
    assert!(condition_of(&portal, "Ready").is_some_and(|ready| ready.status == "True"));
}
