//! The backend against real Caddys.
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::SignedDuration;
use portalkeeper::api::HostName;
use portalkeeper::backends::ErrorClass;
use portalkeeper::backends::caddy::Caddy;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, RunningDouble};
use portalkeeper::http::{Client, ClientOptions};
use serde_json::{Value, json};
use url::Url;

use super::{Scene, foreign_of, foreign_route, four_hosts, is_ours, options, owned_of, routes_of, users_config};
use crate::peers::{Running, caddies, free_port};

/// A real Caddy with a user's configuration, and the pages it should lead to.
pub(super) struct Real {
    pub admin: Client,
    pub admin_port: u16,
    pub listen: u16,
    origin: RunningDouble,
    process: Running,
    pub home: tempfile::TempDir,
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
    pub async fn start(program: &std::path::Path) -> Self {
        Self::start_with(program, |_| {}).await
    }
    /// With more in its configuration.
    pub async fn start_with(program: &std::path::Path, change: impl FnOnce(&mut Value)) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let origin = RunningDouble::start(Arc::new(Pages)).await.expect("a loopback port");
        let (admin_port, listen) = (free_port(), free_port());
        let config = home.path().join("caddy.json");
        let mut users = users_config(admin_port, listen);
        change(&mut users);
        std::fs::write(&config, users.to_string()).expect("written");
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
    pub async fn config(&self) -> Value {
        self.admin.get("/config/").send().await.expect("an answer").json().expect("JSON")
    }
    pub async fn set_routes(&self, routes: Vec<Value>) {
        let path = "/config/apps/http/servers/mine/routes";
        let answer = self.admin.patch(path).json(&Value::Array(routes)).send().await.expect("an answer");
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    /// A request through Caddy, as a visitor's browser makes it.
    pub async fn visit(&self, host: &str) -> (u16, String) {
        self.visit_at(self.listen, host, "/").await
    }
    pub async fn visit_at(&self, port: u16, host: &str, path: &str) -> (u16, String) {
        let url = Url::parse(&format!("http://127.0.0.1:{port}")).expect("an address");
        let visitor = Client::new(ClientOptions::new("visitor", url)).expect("a client");
        let mut request = visitor.get(path).header("host", host).header("forwarded", "for=6.6.6.6");
        for name in ["x-real-ip", "cf-connecting-ip", "true-client-ip", "x-forwarded-server"] {
            request = request.header(name, "6.6.6.6");
        }
        let answer = request.send().await.expect("an answer");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }
    pub fn dial(&self) -> String {
        self.origin.address.to_string()
    }
    pub fn backend(&self) -> Caddy {
        self.backend_at(self.listen)
    }
    /// For the server that listens there.
    pub fn backend_at(&self, listen: u16) -> Caddy {
        let url = Url::parse(&format!("http://127.0.0.1:{}", self.admin_port)).expect("an address");
        Caddy::new(options(&url, &self.dial(), Some(format!("127.0.0.1:{listen}")))).expect("a backend")
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

#[tokio::test]
async fn a_visitor_reaches_the_page_through_real_caddy_until_it_is_deleted() {
    for peer in caddies() {
        let what = peer.name;
        // given a user's Caddy with a site and a catch-all
        let real = Real::start(&peer.program).await;
        let before = real.config().await;
        assert_eq!(real.visit("reset.acme.example").await, (404, "catch-all".to_owned()), "{what}");
        let scene = Scene::of(real.backend());
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
        let scene = Scene::of(real.backend());
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
        let scene = Scene::of(real.backend());
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
