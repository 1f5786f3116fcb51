//! Moves between real programs: a visitor sees the portal at every moment, and what is not ours stays byte for byte.
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use portalkeeper::app::sandbox;
use portalkeeper::backends::cloudflare_api::double::{ACCOUNT, CloudflareDouble, Tunnelled};
use portalkeeper::http::double::{Double, DoubleRequest, DoubleResponse, RunningDouble};
use portalkeeper::http::{Client, ClientOptions, LookupError, Names};
use serde_json::{Value, json};
use url::Url;

use super::{HOST, pass, target};
use crate::peers::{Running, caddies, free_port, traefiks};
use crate::traefik;
use crate::world::{World, raw};

const TUNNEL: &str = "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d";
const TITLE: &str = "Acme Mail";

/// Somebody's Caddy, with a site of theirs before a catch-all.
struct Caddy {
    admin: Client,
    admin_url: String,
    listen: SocketAddr,
    _process: Running,
    _home: tempfile::TempDir,
}

impl Caddy {
    async fn start(program: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (admin, listen) = (free_port(), SocketAddr::from(([127, 0, 0, 1], free_port())));
        let site = |body: &str| json!([{"handler": "static_response", "body": body}]);
        let config = json!({
            "admin": {"listen": format!("127.0.0.1:{admin}")},
            "apps": {"http": {"servers": {"mine": {
                "listen": [listen.to_string()], "automatic_https": {"disable": true},
                "routes": [
                    {"match": [{"host": ["www.acme.localhost"]}], "handle": site("my own site"), "terminal": true},
                    {"handle": site("catch-all")},
                ],
            }}}},
        });
        std::fs::write(home.path().join("caddy.json"), config.to_string()).unwrap();
        let process = Running::start(program, home.path(), &["run", "--config", "caddy.json"]);
        let admin_url = format!("http://127.0.0.1:{admin}/");
        let admin = Client::new(ClientOptions::new("test", Url::parse(&admin_url).unwrap())).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while admin.get("/config/").send().await.map(|answer| answer.status) != Ok(200) {
            assert!(Instant::now() < end, "caddy does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { admin, admin_url, listen, _process: process, _home: home }
    }
    /// Its whole configuration as it gives it out.
    async fn config(&self) -> String {
        String::from_utf8_lossy(&self.admin.get("/config/").send().await.unwrap().body).into_owned()
    }
    fn class(&self, pages: SocketAddr) -> Value {
        json!({"caddy": {
            "adminUrl": self.admin_url, "origin": pages.to_string(), "listen": self.listen.to_string(),
        }})
    }
}

/// Cloudflare's edge: follows the record to a real proxy, or by the tunnel's rules to the pages.
struct Edge {
    cloudflare: Arc<CloudflareDouble>,
    /// Where the names of the proxies lead.
    proxies: Vec<(String, SocketAddr)>,
    pages: SocketAddr,
}

impl Double for Edge {
    fn name(&self) -> &'static str {
        "edge"
    }
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let records = self.cloudflare.records();
        let record = records.iter().find(|record| record["name"] == HOST).cloned().unwrap_or_default();
        let content = record["content"].as_str().unwrap_or_default();
        let by_name = self.proxies.iter().find(|(name, _)| name == content).map(|(_, address)| *address);
        let tunnelled = self.cloudflare.tunnelled(content, HOST, &request.path);
        let by_tunnel = tunnelled.filter(|to| *to == Tunnelled::Service(format!("http://{}", self.pages)));
        match by_name.or(by_tunnel.map(|_| self.pages)) {
            Some(address) => pass(request, address),
            None => DoubleResponse::text(530, "error code: 1016").with_header("server", "cloudflare"),
        }
    }
    fn snapshot(&self) -> Value {
        Value::Null
    }
    fn restore(&self, _: Value) {}
}

/// Leads the proxies' own names to them, and every other to the edge.
struct Resolver {
    proxies: Vec<(String, SocketAddr)>,
    edge: SocketAddr,
}

#[async_trait]
impl Names for Resolver {
    async fn addresses(&self, host: &str, _: u16) -> Result<Vec<SocketAddr>, LookupError> {
        let proxy = self.proxies.iter().find(|(name, _)| name == host);
        Ok(vec![proxy.map_or(self.edge, |(_, address)| *address)])
    }
}

/// A world behind the edge, with a class for each way.
struct Ways {
    world: World,
    edge: RunningDouble,
}

impl Ways {
    /// `ways`: name, what the class has besides the sandbox's, and where its proxy listens. The portal is in the first.
    async fn given(ways: &[(&str, Value, Option<SocketAddr>)], mut world: World) -> Self {
        let [secret, class] = sandbox::class(&world.simulators, world.pages);
        world.put(&secret).await;
        for (name, spec, _) in ways {
            let mut class = class.clone();
            class["metadata"]["name"] = json!(name);
            class["spec"]["default"] = json!(*name == ways[0].0);
            class["spec"]["cnameTarget"] = json!(target(name));
            class["spec"]["probe"] = json!({});
            for (field, value) in spec.as_object().unwrap() {
                class["spec"][field] = value.clone();
            }
            world.put(&class).await;
        }
        let proxies = ways.iter().filter_map(|(name, _, listens)| Some((target(name), (*listens)?)));
        let proxies: Vec<_> = proxies.collect();
        let cloudflare = world.simulators.cloudflare.clone();
        let edge = Edge { cloudflare, proxies: proxies.clone(), pages: world.pages };
        let edge = RunningDouble::start(Arc::new(edge)).await.unwrap();
        world.names = Arc::new(Resolver { proxies, edge: edge.address });
        // A loaded machine is no reason to go on without a proof.
        world.timing.move_proof = Duration::from_secs(60);
        world.timing.move_patience = Duration::from_secs(60);
        world.start_daemon().await;
        world.create("acme", json!({"domain": "acme.localhost", "branding": {"title": TITLE}})).await;
        world.until_ready("acme").await;
        Self { world, edge }
    }
    /// Moves the portal while somebody visits it all the time; tells how often.
    async fn moved_to(&self, class: &str) -> usize {
        let (over, visits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let visitor = {
            let (over, visits, edge) = (over.clone(), visits.clone(), self.edge.address);
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let page = raw(edge, "GET", HOST, "/", &[], "").await;
                    assert!(page.status == 200 && page.body.contains(TITLE), "visit {visits:?}: {page:?}");
                    visits.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        self.world.patch("acme", json!({"spec": {"className": class}})).await;
        let moved = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
                status.class_name.as_deref() == Some(class)
                    && status.moving.is_none()
                    && status.leaving.is_empty()
                    && status.resources.len() == 2
            })
        };
        self.world.until("acme", &format!("moved to {class}"), moved).await;
        self.world.until_ready("acme").await;
        let last = visits.load(Ordering::SeqCst);
        while visits.load(Ordering::SeqCst) < last + 3 && !visitor.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        over.store(true, Ordering::SeqCst);
        visitor.await.expect("the portal is there at every moment");
        visits.load(Ordering::SeqCst)
    }
    fn records(&self) -> Vec<String> {
        self.world.records()
    }
}

async fn visit(proxy: SocketAddr, host: &str) -> (u16, String) {
    let page = raw(proxy, "GET", host, "/", &[], "").await;
    (page.status, page.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_moves_from_a_real_caddy_to_a_real_traefik_and_back_without_a_gap() {
    for (caddy_peer, traefik_peer) in caddies().iter().zip(&traefiks()) {
        let what = format!("{} to {}", caddy_peer.name, traefik_peer.name);
        // given somebody's Caddy and somebody's Traefik, each with a site of its own, and a portal in the Caddy
        let caddy = Caddy::start(&caddy_peer.program).await;
        let traefik = traefik::Real::start(traefik_peer, Duration::from_millis(100)).await;
        let (caddys, traefiks) = (caddy.config().await, traefik.watched.files());
        let world = World::stopped(None).await;
        let to_caddy = json!({"proxy": caddy.class(world.pages)});
        let to_traefik = json!({"proxy": {"traefik": {
            "dynamicDir": traefik.watched.path(), "originUrl": format!("http://{}", world.pages), "apiUrl": traefik.api,
        }}});
        let listens = SocketAddr::from(([127, 0, 0, 1], traefik.listen));
        let ways = [("a", to_caddy, Some(caddy.listen)), ("b", to_traefik, Some(listens))];
        let ways = Ways::given(&ways, world).await;
        assert_eq!(visit(caddy.listen, HOST).await.0, 200, "{what}");
        assert_ne!(caddy.config().await, caddys, "{what}");
        // when it moves, then a visitor sees it all the time
        assert!(ways.moved_to("b").await > 3, "{what}");
        assert_eq!(ways.records(), [format!("{HOST} CNAME {}", target("b"))], "{what}");
        // and the route in the Caddy is gone, and nothing else in it or in the folder has changed
        assert_eq!(visit(caddy.listen, HOST).await, (200, "catch-all".to_owned()), "{what}");
        assert_eq!(visit(caddy.listen, "www.acme.localhost").await.1, "my own site", "{what}");
        assert_eq!(caddy.config().await, caddys, "{what}");
        assert_eq!(visit(listens, HOST).await.0, 200, "{what}");
        let mut files = traefik.watched.files();
        let ours = traefik.watched.ours();
        files.retain(|name, _| !ours.contains(name));
        assert_eq!((ours.len(), &files), (1, &traefiks), "{what}");
        // when it moves back, then the folder is as it was
        assert!(ways.moved_to("a").await > 3, "{what}");
        assert_eq!(ways.records(), [format!("{HOST} CNAME {}", target("a"))], "{what}");
        assert_eq!(traefik.watched.files(), traefiks, "{what}");
        traefik.until_visited(HOST, 404).await;
        ways.world.delete("acme").await;
        assert_eq!((ways.records(), caddy.config().await), (vec![], caddys), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_moves_from_a_real_caddy_into_a_tunnel_without_a_gap() {
    let others = json!({"ingress": [
        {"hostname": "*.acme.localhost", "service": "http://10.0.0.1:80", "originRequest": {"noTLSVerify": true}},
        {"service": "http_status:404"},
    ]});
    for peer in caddies() {
        let caddy = Caddy::start(&peer.program).await;
        let caddys = caddy.config().await;
        let world = World::stopped(None).await;
        world.simulators.cloudflare.add_tunnel(TUNNEL, others.clone());
        let to_tunnel = |world: &World, class: &Value| {
            let mut cloudflare = class["spec"]["cloudflare"].clone();
            cloudflare["accountId"] = json!(ACCOUNT);
            let origin = format!("http://{}", world.pages);
            json!({
                "cloudflare": cloudflare, "cnameTarget": null,
                "proxy": {"cloudflareTunnel": {"tunnelId": TUNNEL, "origin": origin}},
            })
        };
        let [_, class] = sandbox::class(&world.simulators, world.pages);
        let to_caddy = json!({"proxy": caddy.class(world.pages)});
        let ways = [("a", to_caddy, Some(caddy.listen)), ("b", to_tunnel(&world, &class), None)];
        let ways = Ways::given(&ways, world).await;
        // when it moves, then a visitor sees it all the time, first through the Caddy and then through the tunnel
        assert!(ways.moved_to("b").await > 3, "{}", peer.name);
        assert_eq!(ways.records(), [format!("{HOST} CNAME {TUNNEL}.cfargotunnel.com")], "{}", peer.name);
        assert_eq!(visit(caddy.listen, HOST).await.1, "catch-all", "{}", peer.name);
        assert_eq!(caddy.config().await, caddys, "{}", peer.name);
        let rules = ways.world.simulators.cloudflare.tunnel_document(TUNNEL).0["ingress"].as_array().unwrap().clone();
        let (ours, theirs): (Vec<Value>, Vec<Value>) = rules.into_iter().partition(|rule| rule["hostname"] == HOST);
        assert_eq!((ours.len(), json!({"ingress": theirs})), (1, others.clone()), "{}", peer.name);
        // and back
        assert!(ways.moved_to("a").await > 3, "{}", peer.name);
        assert_eq!(ways.world.simulators.cloudflare.tunnel_document(TUNNEL).0.to_string(), others.to_string());
    }
}
