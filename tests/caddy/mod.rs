//! The Caddy backend against its simulator and against real Caddys.
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use portalkeeper::api::clock::TestClock;
use portalkeeper::api::condition::Truth;
use portalkeeper::api::{HostName, PortalKey};
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::caddy::{Caddy, CaddyOptions};
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::backends::{BackendError, ErrorClass, Programmed, Want, Worker};
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, Fault, RunningDouble};
use portalkeeper::http::shutdown::{Shutdown, ShutdownHandle};
use portalkeeper::http::{Client, ClientOptions};
use portalkeeper::plan::{CertificateMode, InstallationId, Intent, Mark, Ownership};
use serde_json::{Value, json};
use url::Url;

use crate::peers::{Running, caddies, free_port};

fn host(name: &str) -> HostName {
    HostName::parse(name).expect("a host name")
}

/// The configuration of somebody who uses Caddy for other things, too.
fn users_config(admin: u16, listen: u16) -> Value {
    json!({
        "admin": {"listen": format!("127.0.0.1:{admin}")},
        "apps": {"http": {"servers": {"mine": {
            "listen": [format!("127.0.0.1:{listen}")],
            "automatic_https": {"disable": true},
            "routes": [
                {"match": [{"host": ["www.acme.example"]}],
                 "handle": [{"handler": "static_response", "body": "<b>my own site</b>"}], "terminal": true},
                {"handle": [{"handler": "static_response", "status_code": 404, "body": "catch-all"}]},
            ],
        }}}},
    })
}

fn routes_of(config: &Value) -> Vec<Value> {
    config.pointer("/apps/http/servers/mine/routes").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn is_ours(route: &Value) -> bool {
    let id = route["@id"].as_str().unwrap_or_default();
    matches!(Mark::from_identifier(id.split('.').next().unwrap_or_default()), Ownership::Marked(_))
}

fn owned_of(routes: &[Value]) -> Vec<(String, String)> {
    let text = |route: &Value, at: &str| route.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut owned: Vec<_> = routes
        .iter()
        .filter(|route| is_ours(route))
        .map(|r| (text(r, "/match/0/host/0"), text(r, "/handle/0/upstreams/0/dial")))
        .collect();
    owned.sort();
    owned
}

fn foreign_of(routes: &[Value]) -> String {
    Value::Array(routes.iter().filter(|route| !is_ours(route)).cloned().collect()).to_string()
}

fn foreign_route(host: &HostName) -> Value {
    json!({"match": [{"host": [host]}], "handle": [{"handler": "static_response", "body": "theirs"}], "terminal": true})
}

fn four_hosts() -> Vec<HostName> {
    ["reset.acme.example", "reset.globex.example", "password.acme.example", "reset.mail.acme.example"]
        .map(host)
        .to_vec()
}

fn options(admin: &Url, origin: &str, listen: Option<String>) -> CaddyOptions {
    CaddyOptions {
        admin_url: admin.clone(),
        origin: origin.to_owned(),
        admin_token: None,
        listen,
        https: false,
        verify_tls: true,
        dns_challenge: None,
    }
}

struct Simulated {
    double: Arc<CaddyDouble>,
    running: RunningDouble,
}

#[async_trait]
impl Harness for Simulated {
    type Backend = Caddy;
    fn backend(&self) -> Caddy {
        Caddy::new(options(&self.running.url, "127.0.0.1:5000", None)).expect("a backend")
    }
    async fn owned(&self) -> Vec<(String, String)> {
        owned_of(&routes_of(&self.double.config()))
    }
    async fn foreign(&self) -> String {
        foreign_of(&routes_of(&self.double.config()))
    }
    async fn writes(&self) -> usize {
        self.running.log.writes().len()
    }
    async fn put_foreign(&self, host: &HostName) {
        let mut config = self.double.config();
        if let Some(routes) = config.pointer_mut("/apps/http/servers/mine/routes").and_then(Value::as_array_mut) {
            routes.insert(0, foreign_route(host));
        }
        self.double.load(config);
    }
    async fn remove_foreign(&self, host: &HostName) {
        let mut config = self.double.config();
        if let Some(routes) = config.pointer_mut("/apps/http/servers/mine/routes").and_then(Value::as_array_mut) {
            routes.retain(|route| is_ours(route) || route.pointer("/match/0/host/0") != Some(&json!(host)));
        }
        self.double.load(config);
    }
    fn fail_reads(&self, fail: bool) -> bool {
        self.running.faults.clear();
        if fail {
            self.running.faults.push("GET", "", usize::MAX, Fault::Answer(DoubleResponse::text(500, "oops")));
        }
        true
    }
    fn lose_next_answer(&self) -> bool {
        self.running.faults.push("PATCH", "", 1, Fault::CutAfter);
        true
    }
    fn hosts(&self) -> Vec<HostName> {
        four_hosts()
    }
}

#[tokio::test]
async fn conformance_of_the_simulated_caddy() {
    let double = Arc::new(CaddyDouble::new());
    double.load(users_config(2019, 80));
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    conformance::run("simulated caddy", &Simulated { double, running }).await;
}

/// A real Caddy with a user's configuration, and the pages it should lead to.
struct Real {
    admin: Client,
    admin_port: u16,
    listen: u16,
    origin: RunningDouble,
    process: Running,
    home: tempfile::TempDir,
    program: std::path::PathBuf,
}

/// Stands for the page server: says which host was asked for.
struct Pages;

impl Double for Pages {
    fn name(&self) -> &'static str {
        "pages"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
        let forged = ["forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip", "x-forwarded-server"];
        let forged = forged.map(header).concat();
        DoubleResponse::text(200, &format!("portal {} {forged}", header("host")))
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

impl Real {
    async fn start(program: &std::path::Path) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let origin = RunningDouble::start(Arc::new(Pages)).await.expect("a loopback port");
        let (admin_port, listen) = (free_port(), free_port());
        let config = home.path().join("caddy.json");
        std::fs::write(&config, users_config(admin_port, listen).to_string()).expect("written");
        let process = Running::start(program, home.path(), &["run", "--config", "caddy.json"]);
        let url = Url::parse(&format!("http://127.0.0.1:{admin_port}")).expect("an address");
        let admin = Client::new(ClientOptions::new("test", url)).expect("a client");
        let real = Self { admin, admin_port, listen, origin, process, home, program: program.to_owned() };
        real.wait_until_up().await;
        real
    }
    async fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.admin.get("/config/").send().await.map(|r| r.status) != Ok(200) {
            assert!(Instant::now() < deadline, "caddy does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    async fn config(&self) -> Value {
        self.admin.get("/config/").send().await.expect("an answer").json().expect("JSON")
    }
    async fn set_routes(&self, routes: Vec<Value>) {
        let path = "/config/apps/http/servers/mine/routes";
        let answer = self.admin.patch(path).json(&Value::Array(routes)).send().await.expect("an answer");
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    /// A request through Caddy, as a visitor's browser makes it.
    async fn visit(&self, host: &str) -> (u16, String) {
        let url = Url::parse(&format!("http://127.0.0.1:{}", self.listen)).expect("an address");
        let visitor = Client::new(ClientOptions::new("visitor", url)).expect("a client");
        let mut request = visitor.get("/").header("host", host).header("forwarded", "for=6.6.6.6");
        for name in ["x-real-ip", "cf-connecting-ip", "true-client-ip", "x-forwarded-server"] {
            request = request.header(name, "6.6.6.6");
        }
        let answer = request.send().await.expect("an answer");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }
    fn dial(&self) -> String {
        self.origin.address.to_string()
    }
    fn backend(&self) -> Caddy {
        let url = Url::parse(&format!("http://127.0.0.1:{}", self.admin_port)).expect("an address");
        Caddy::new(options(&url, &self.dial(), Some(format!("127.0.0.1:{}", self.listen)))).expect("a backend")
    }
}

#[async_trait]
impl Harness for Real {
    type Backend = Caddy;
    fn backend(&self) -> Caddy {
        self.backend()
    }
    async fn owned(&self) -> Vec<(String, String)> {
        owned_of(&routes_of(&self.config().await))
    }
    async fn foreign(&self) -> String {
        foreign_of(&routes_of(&self.config().await))
    }
    /// Caddy itself counts what its admin endpoint is asked.
    async fn writes(&self) -> usize {
        let metrics = self.admin.get("/metrics").send().await.expect("an answer");
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let writes = text.lines().filter(|line| line.starts_with("caddy_admin_http_requests_total{"));
        let writes = writes.filter(|line| !line.contains("method=\"GET\""));
        writes.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
    }
    async fn put_foreign(&self, host: &HostName) {
        let mut routes = routes_of(&self.config().await);
        routes.insert(0, foreign_route(host));
        self.set_routes(routes).await;
    }
    async fn remove_foreign(&self, host: &HostName) {
        let mut routes = routes_of(&self.config().await);
        routes.retain(|route| is_ours(route) || route.pointer("/match/0/host/0") != Some(&json!(host)));
        self.set_routes(routes).await;
    }
    fn fail_reads(&self, _: bool) -> bool {
        false
    }
    fn lose_next_answer(&self) -> bool {
        false
    }
    fn hosts(&self) -> Vec<HostName> {
        four_hosts()
    }
}

#[tokio::test]
async fn conformance_of_real_caddys() {
    for peer in caddies() {
        conformance::run(peer.name, &Real::start(&peer.program).await).await;
    }
}

struct Scene {
    worker: Worker,
    clock: Arc<TestClock>,
    _stop: ShutdownHandle,
}

impl Scene {
    fn given(backend: Caddy) -> Self {
        let (stop, shutdown) = Shutdown::new();
        let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH));
        Self { worker: Worker::spawn(backend, clock.clone(), shutdown), clock, _stop: stop }
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
            certificate: CertificateMode::None,
            adopt: false,
            keep: Vec::new(),
        }
    }
    async fn want(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Self::intent(name);
        self.worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await
    }
    async fn unwant(&self, name: &str) -> Result<Programmed, BackendError> {
        let intent = Self::intent(name);
        self.worker.submit(intent.portal, Want::Absent { mark: intent.mark, hosts: vec![intent.host] }).await
    }
}

#[tokio::test]
async fn a_visitor_reaches_the_page_through_real_caddy_until_it_is_deleted() {
    for peer in caddies() {
        let what = peer.name;
        // given a user's Caddy with a site and a catch-all
        let real = Real::start(&peer.program).await;
        let before = real.config().await;
        assert_eq!(real.visit("reset.acme.example").await, (404, "catch-all".to_owned()), "{what}");
        let scene = Scene::given(real.backend());
        // when a portal is made, then its page is reached, before the catch-all, without forged headers
        scene.want("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.visit("reset.acme.example").await, (200, "portal reset.acme.example ".to_owned()), "{what}");
        assert_eq!(real.visit("www.acme.example").await.1, "<b>my own site</b>", "{what}");
        // when it is deleted, then it is not reached any more, and the user's configuration is as it was
        scene.unwant("reset.acme.example").await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(real.visit("reset.acme.example").await, (404, "catch-all".to_owned()), "{what}");
        assert_eq!(real.config().await, before, "{what}");
    }
}

#[tokio::test]
async fn routes_lost_by_a_restart_of_real_caddy_come_back() {
    for peer in caddies() {
        let mut real = Real::start(&peer.program).await;
        let scene = Scene::given(real.backend());
        scene.want("reset.acme.example").await.expect("made");
        // given that Caddy is killed, then its admin API is told unreachable
        real.process.kill();
        scene.clock.advance(SignedDuration::from_secs(61));
        let gone = scene.want("reset.acme.example").await.expect_err("nobody listens");
        let wanted = format!(
            "cannot reach Caddy's admin API at http://127.0.0.1:{}: connection refused; check that Caddy runs and that \
                 this is its admin address",
            real.admin_port
        );
        assert_eq!((gone.class, gone.reason, gone.message), (ErrorClass::Unavailable, "Unreachable", wanted));
        // when it starts again with the user's file, then the route is put back
        real.process = Running::start(&real.program, real.home.path(), &["run", "--config", "caddy.json"]);
        real.wait_until_up().await;
        assert_eq!(real.visit("reset.acme.example").await.0, 404, "{}", peer.name);
        scene.want("reset.acme.example").await.expect("made again");
        assert_eq!(real.visit("reset.acme.example").await.0, 200, "{}", peer.name);
    }
}

#[tokio::test]
async fn a_thousand_portals_at_once_are_one_write_and_then_none() {
    let double = Arc::new(CaddyDouble::new());
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let scene = || Scene::given(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let all = async |scene: &Scene| {
        let names: Vec<String> = (0..1000).map(|index| format!("reset.c{index}.example")).collect();
        // All of them are due before the worker looks: nothing lets it run in between.
        let wants = futures_util::future::join_all(names.iter().map(|name| scene.want(name)));
        let outcomes = tokio::task::unconstrained(wants).await;
        outcomes.into_iter().map(|outcome| outcome.expect("made").changes.len()).sum::<usize>()
    };
    // when a thousand portals are wanted, then Caddy is loaded once
    let first = scene();
    assert_eq!(all(&first).await, 1000);
    assert_eq!(running.log.writes().len(), 1);
    assert_eq!(double.route_for("reset.c999.example").as_deref(), Some("127.0.0.1:5000"));
    // when they are wanted again, then nothing is asked
    running.log.clear();
    assert_eq!(all(&first).await, 0);
    assert!(running.log.calls().is_empty());
    // and when the drift interval is over, or the program starts anew, then it is read and not written
    first.clock.advance(SignedDuration::from_secs(61));
    for scene in [&first, &scene()] {
        running.log.clear();
        assert_eq!(all(scene).await, 0);
        assert_eq!((running.log.writes().len(), running.log.calls().len()), (0, 2), "one look is two reads");
    }
}

#[tokio::test]
async fn somebody_elses_write_in_between_is_not_lost() {
    // given an answer to our first write that says somebody was faster
    let double = Arc::new(CaddyDouble::new());
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let conflict = DoubleResponse::json(412, &json!({"error": "If-Match header did not match"}));
    running.faults.push("PATCH", "", 1, Fault::Answer(conflict));
    let scene = Scene::given(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    // when a portal is wanted, then it is read and written once more
    scene.want("reset.acme.example").await.expect("made");
    assert_eq!(running.log.writes().iter().map(|call| call.status).collect::<Vec<_>>(), [412, 200]);
}

#[tokio::test]
async fn what_caddy_refuses_is_told_without_its_secrets() {
    let double = Arc::new(CaddyDouble::new());
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let words = json!({"error": "loading: API token 'canary-4711' appears invalid"});
    running.faults.push("PATCH", "", 1, Fault::Answer(DoubleResponse::json(500, &words)));
    let scene = Scene::given(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let refused = scene.want("reset.acme.example").await.expect_err("refused");
    assert_eq!(refused.message, "caddy refused (500): loading: API token [redacted]");
    running.faults.push(
        "GET",
        "",
        1,
        Fault::Answer(DoubleResponse::json(403, &json!({"error": "host not allowed: caddy:2019"}))),
    );
    let refused = scene.want("reset.acme.example").await.expect_err("refused");
    assert_eq!(refused.reason, "AdminHostRefused");
}

/// A Caddy whose owner adds a site right after our first look at the routes.
struct Interloper {
    caddy: CaddyDouble,
    struck: std::sync::atomic::AtomicBool,
}

impl Double for Interloper {
    fn name(&self) -> &'static str {
        "caddy"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        use std::sync::atomic::Ordering;
        let answer = self.caddy.handle(request);
        let writes_next = self.struck.load(Ordering::SeqCst);
        if request.method == "GET" && request.path.ends_with("/routes") && !writes_next {
            // The first look plans, the second is the one the write is based on.
            let looks = self.caddy.config()["looks"].as_u64().unwrap_or(0) + 1;
            let mut config = self.caddy.config();
            config["looks"] = json!(looks);
            if looks == 2 {
                self.struck.store(true, Ordering::SeqCst);
                if let Some(routes) = config.pointer_mut("/apps/http/servers/mine/routes").and_then(Value::as_array_mut)
                {
                    routes.push(foreign_route(&host("new.acme.example")));
                }
            }
            self.caddy.load(config);
        }
        answer
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

#[tokio::test]
async fn a_site_added_between_our_look_and_our_write_survives() {
    // given an owner who adds a site in exactly that moment
    let caddy = CaddyDouble::new();
    caddy.load(users_config(2019, 80));
    let interloper = Arc::new(Interloper { caddy, struck: std::sync::atomic::AtomicBool::new(false) });
    let running = RunningDouble::start(interloper.clone()).await.expect("a loopback port");
    let scene = Scene::given(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    // when a portal is made
    scene.want("reset.acme.example").await.expect("made");
    // then the guard refused the first write, and both are there
    assert!(interloper.struck.load(std::sync::atomic::Ordering::SeqCst), "the owner did strike");
    assert_eq!(running.log.writes().iter().map(|call| call.status).collect::<Vec<_>>(), [412, 200]);
    let routes = routes_of(&interloper.caddy.config());
    assert_eq!(owned_of(&routes).len(), 1);
    assert!(foreign_of(&routes).contains("new.acme.example"), "{routes:?}");
}

/// Somebody who adds a site of their own: as one call, or as a guarded read and write of the whole array.
async fn edit(admin: Client, number: usize, whole: bool) {
    const ROUTES: &str = "/config/apps/http/servers/mine/routes";
    let name = format!("site{number}.example");
    let mut mine = foreign_route(&host(&name));
    mine["@id"] = json!(format!("theirs-{number}"));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "{name} cannot be added");
        let sent = if whole {
            let Ok(read) = admin.get(ROUTES).send().await else { continue };
            let (Ok(Value::Array(mut routes)), Some(etag)) = (read.json(), read.headers.get("etag")) else { continue };
            routes.push(mine.clone());
            let request = admin.patch(ROUTES).header("if-match", etag.to_str().expect("an ETag"));
            request.json(&Value::Array(routes)).send().await
        } else {
            admin.post(&format!("{ROUTES}/...")).json(&json!([mine])).send().await
        };
        match sent {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) if answer.status == 412 => {}
            // Each change restarts the admin endpoint, so an answer may get lost: a look tells.
            _ => {
                let there = admin.get(&format!("/id/theirs-{number}")).send().await;
                if there.is_ok_and(|answer| answer.status == 200) {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_people_who_edit_the_same_caddy_lose_nothing_or_hear_of_it() {
    for peer in caddies() {
        let guarded = peer.name != "caddy 2.6";
        let real = Real::start(&peer.program).await;
        let scene = Scene::given(real.backend());
        // given fifty people who each add a site, while portals come and go
        let editors: Vec<_> =
            (0..50).map(|number| tokio::spawn(edit(real.admin.clone(), number, guarded && number % 2 == 0))).collect();
        let mut told = 0;
        for number in 0..10 {
            let name = format!("reset.c{number}.example");
            let done = loop {
                match scene.want(&name).await {
                    Ok(done) => break done,
                    // So many writers that even eight tries met one: the controller comes again.
                    Err(error) => assert_eq!(error.class, ErrorClass::Unavailable, "{}: {error}", peer.name),
                }
            };
            told += done.doubts.iter().filter(|doubt| doubt.reason == "WrittenUnguarded").count();
            if number % 2 == 1 {
                while scene.unwant(&name).await.is_err() {}
            }
        }
        for editor in editors {
            editor.await.expect("edited");
        }
        // then every portal is as wanted, and what was there before is there
        let routes = routes_of(&real.config().await);
        assert_eq!(owned_of(&routes).len(), 5, "{}: {routes:?}", peer.name);
        assert!(foreign_of(&routes).contains("my own site") && foreign_of(&routes).contains("catch-all"));
        let missing = (0..50).filter(|number| !foreign_of(&routes).contains(&format!("site{number}.example"))).count();
        if guarded {
            assert_eq!((missing, told), (0, 0), "{}: nothing of theirs is lost", peer.name);
        } else {
            // Whatever was lost was lost by one of our writes, and each of them said that it might be.
            assert_eq!(told, 10, "{}: {missing} sites are missing", peer.name);
            let doubt = scene.want("reset.told.example").await.expect("made").doubts.remove(0);
            assert_eq!(doubt.truth, Truth::True);
            assert!(doubt.message.contains("Caddy before 2.8 cannot refuse a write"), "{}", doubt.message);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_portal_is_reached_and_proved_through_real_caddy() {
    use crate::world::{World, raw};
    use kube::api::{Api, Patch, PatchParams};
    use portalkeeper::api::PortalClass;
    for peer in caddies() {
        // given a Caddy with sites of its own, and a class that names it
        let real = Real::start(&peer.program).await;
        let before = real.config().await;
        let world = World::start().await;
        let classes: Api<PortalClass> = Api::all(world.client.clone());
        let through = json!({"spec": {
            "proxy": {"caddy": {"adminUrl": format!("http://127.0.0.1:{}", real.admin_port), "listen": null}},
            "probe": {"address": format!("127.0.0.1:{}", real.listen)},
        }});
        classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
        // when a portal is declared
        world.create("acme", json!({"domain": "acme.localhost", "branding": {"title": "Acme Mail"}})).await;
        world.until_ready("acme").await;
        // then its page is reached through Caddy, and so is the proof
        let caddy: std::net::SocketAddr = ([127, 0, 0, 1], real.listen).into();
        let page = raw(caddy, "GET", "reset.acme.localhost", "/", &[], "").await;
        assert_eq!(page.status, 200, "{}", peer.name);
        assert!(page.body.contains("Acme Mail"), "{}", peer.name);
        let own = raw(caddy, "GET", "www.acme.example", "/", &[], "").await;
        assert_eq!(own.body, "<b>my own site</b>", "{}", peer.name);
        // when it is deleted, then Caddy is as it was before, and the host is the catch-all's again
        world.delete("acme").await;
        assert_eq!(raw(caddy, "GET", "reset.acme.localhost", "/", &[], "").await.status, 404, "{}", peer.name);
        assert_eq!(real.config().await.to_string(), before.to_string(), "{}", peer.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_the_users_own_configuration_is_survived() {
    for peer in caddies() {
        let real = Real::start(&peer.program).await;
        let scene = Scene::given(real.backend());
        scene.want("reset.acme.example").await.expect("made");
        // when the user loads a configuration that knows nothing of us, as `caddy reload` does
        let users = users_config(real.admin_port, real.listen);
        let admin = Url::parse(&format!("http://127.0.0.1:{}", real.admin_port)).expect("an address");
        let client = Client::new(ClientOptions::new("caddy", admin)).expect("a client");
        let loaded = client.post("/load").json(&users).send().await.expect("loaded");
        assert_eq!(loaded.status, 200, "{}", peer.name);
        assert!(real.owned().await.is_empty());
        // then within the drift interval it is back
        scene.clock.advance(SignedDuration::from_secs(61));
        scene.want("reset.acme.example").await.expect("made again");
        assert_eq!(real.owned().await.len(), 1, "{}", peer.name);
    }
}
