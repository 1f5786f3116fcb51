//! The backend against the simulator.
use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use portalkeeper::api::HostName;
use portalkeeper::backends::caddy::Caddy;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::conformance::{self, Harness};
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};
use serde_json::{Value, json};

use super::{Scene, foreign_of, foreign_route, four_hosts, is_ours, options, owned_of, routes_of, users_config};

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
async fn conformance_of_the_simulated_caddys() {
    for (name, double) in [
        ("simulated caddy", CaddyDouble::new()),
        ("simulated caddy 2.6", CaddyDouble::new().of_debian()),
        ("simulated caddy without ETag", CaddyDouble::new().without_etag()),
    ] {
        let double = Arc::new(double);
        double.load(users_config(2019, 80));
        let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
        conformance::run(name, &Simulated { double, running }).await;
    }
}

#[tokio::test]
async fn a_thousand_portals_at_once_are_one_write_and_then_none() {
    let double = Arc::new(CaddyDouble::new());
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let scene = || Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
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
    for (scene, reads) in [(&first, 1), (&scene(), 3)] {
        running.log.clear();
        assert_eq!(all(scene).await, 0);
        assert_eq!(
            (running.log.writes().len(), running.log.calls().len()),
            (0, reads),
            "and the first one looks for certificates and policies that were left over"
        );
    }
}

#[tokio::test]
async fn what_caddy_refuses_is_told_without_its_secrets() {
    let double = Arc::new(CaddyDouble::new());
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let words = json!({"error": "loading: API token 'canary-4711' appears invalid"});
    running.faults.push("PATCH", "", 1, Fault::Answer(DoubleResponse::json(500, &words)));
    let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let refused = scene.want("reset.acme.example").await.expect_err("refused");
    assert_eq!(refused.message, "caddy refused (500): loading: API token [redacted]");
    // not even where what is said is cut in the middle of it
    let page = format!("{}Bearer canary-admin-token", "x".repeat(185));
    running.faults.push("GET", "", usize::MAX, Fault::Answer(DoubleResponse::text(500, &page)));
    let mut with_token = options(&running.url, "127.0.0.1:5000", None);
    with_token.admin_token = Some(portalkeeper::config::Secret::new("canary-admin-token"));
    let guarded = Scene::of(Caddy::new(with_token).expect("a backend"));
    let refused = guarded.want("reset.acme.example").await.expect_err("refused");
    assert!(refused.message.contains("xBearer [redac") && !refused.message.contains("canary"), "{refused}");
    running.faults.clear();
    running.faults.push(
        "GET",
        "",
        1,
        Fault::Answer(DoubleResponse::json(403, &json!({"error": "host not allowed: caddy:2019"}))),
    );
    let refused = scene.want("reset.acme.example").await.expect_err("refused");
    assert_eq!(refused.reason, "AdminHostRefused");
}

#[tokio::test]
async fn what_caddy_says_cannot_speak_to_a_terminal() {
    let running = RunningDouble::start(Arc::new(CaddyDouble::new())).await.expect("a loopback port");
    let words = DoubleResponse::json(500, &json!({"error": "\u{1b}[2Jgone\u{7}\r\nsecond line"}));
    running.faults.push("PATCH", "", 1, Fault::Answer(words));
    let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let refused = scene.want("reset.acme.example").await.expect_err("refused");
    assert_eq!(refused.message, "caddy refused (500): \\u{1b}[2Jgone\\u{7} \nsecond line");
}

#[tokio::test]
async fn something_before_the_admin_api_that_redirects_is_told_with_where_it_leads() {
    let running = RunningDouble::start(Arc::new(CaddyDouble::new())).await.expect("a loopback port");
    let login = DoubleResponse::empty(302).with_header("location", "https://sso.example/login?token=canary");
    running.faults.push("GET", "", usize::MAX, Fault::Answer(login));
    let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let refused = scene.want("reset.acme.example").await.expect_err("refused");
    let start =
        "caddy refused (302): it leads to https://sso.example/login; something before Caddy's admin API answers, ";
    assert!(refused.message.starts_with(start) && refused.message.contains("CADDY_ADMIN_URL"), "{refused}");
}

#[tokio::test]
async fn an_address_that_is_not_the_admin_api_is_told_as_such() {
    let double = Arc::new(CaddyDouble::new());
    let running = RunningDouble::start(double).await.expect("a loopback port");
    let advice = "; is proxy.caddy.adminUrl (CADDY_ADMIN_URL) the address of Caddy's admin API, without a path?";
    for (answer, words) in [
        (DoubleResponse::text(404, "404 page not found\n"), "caddy refused (404): 404 page not found"),
        (DoubleResponse::text(200, "<h1>It works</h1>"), " answered 200 with something that is not JSON"),
    ] {
        running.faults.push("GET", "", usize::MAX, Fault::Answer(answer));
        let scene = Scene::of(Caddy::new(options(&running.url, "127.0.0.1:5000", None)).expect("a backend"));
        let refused = scene.want("reset.acme.example").await.expect_err("refused");
        assert!(refused.message.ends_with(&format!("{words}{advice}")), "{refused}");
        running.faults.clear();
    }
    // and real Caddys answer so where the address has a path, or is that of their pages
    for peer in crate::peers::caddies() {
        let real = super::real::Real::start(&peer.program).await;
        for address in [format!("{}/admin", real.admin_port), real.listen.to_string()] {
            let admin = url::Url::parse(&format!("http://127.0.0.1:{address}")).expect("an address");
            let scene = Scene::of(Caddy::new(options(&admin, "127.0.0.1:5000", None)).expect("a backend"));
            let refused = scene.want("reset.acme.example").await.expect_err("refused");
            assert!(refused.message.ends_with(advice), "{}: {address}: {refused}", peer.name);
        }
    }
}
