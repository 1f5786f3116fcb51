//! Certificates by a DNS challenge, and the ways to the admin endpoint.
use std::sync::Arc;

use portalkeeper::api::condition::Truth;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::caddy::{Caddy, CaddyOptions, DnsChallenge};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{Fault, RunningDouble};
use serde_json::{Value, json};
use url::Url;

use super::real::Real;
use super::{Scene, options, users_config};
use crate::peers::{Peer, Running, caddies, free_port};

const TOKEN: &str = "canary-dns-token";
const POLICIES: &str = "/apps/tls/automation/policies";
const FIRST: &str = "reset.acme.example";
const SECOND: &str = "reset.globex.example";

fn challenging(admin: &Url, token: &str, required: bool) -> Caddy {
    let dns_challenge = Some(DnsChallenge { token: Secret::new(token), required });
    let options = CaddyOptions { dns_challenge, ..options(admin, "127.0.0.1:5000", None) };
    Caddy::new(options).expect("a backend")
}

async fn simulated(double: CaddyDouble) -> (Arc<CaddyDouble>, RunningDouble) {
    let double = Arc::new(double);
    double.load(users_config(2019, 80));
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    (double, running)
}

fn policies(double: &CaddyDouble) -> Vec<Value> {
    double.config().pointer(POLICIES).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn load_policies(double: &CaddyDouble, policies: Value) {
    let mut config = double.config();
    config["apps"]["tls"] = json!({"automation": {"policies": policies}, "session_tickets": {"disabled": true}});
    double.load(config);
}

#[tokio::test]
async fn one_policy_for_all_names_stands_last_and_goes_with_the_last_portal() {
    let (double, running) = simulated(CaddyDouble::new()).await;
    let theirs = json!({"subjects": ["www.acme.example"], "issuers": [{"module": "internal"}]});
    load_policies(&double, json!([theirs]));
    let before = double.config();
    let scene = Scene::of(challenging(&running.url, TOKEN, true));
    // when portals are made, then the policy is there once, behind the user's own, with the token
    scene.want(FIRST).await.expect("made");
    scene.want(SECOND).await.expect("made");
    let found = policies(&double);
    assert_eq!((found.len(), &found[0]), (2, &theirs));
    assert_eq!(found[1]["@id"], "pk1-0123456789abcdef-tls");
    assert_eq!(
        found[1].pointer("/issuers/0/challenges/dns/provider"),
        Some(&json!({"name": "cloudflare", "api_token": TOKEN}))
    );
    assert_eq!(found[1].get("subjects"), None);
    let writes = running.log.writes().iter().filter(|call| call.path.ends_with("/policies")).count();
    assert_eq!(writes, 1, "portals need no policy of their own");
    // when another token is to be used, then the policy has that one
    let rotated = Scene::of(challenging(&running.url, "{env.CF_API_TOKEN}", true));
    rotated.want(FIRST).await.expect("as it was");
    assert_eq!(
        policies(&double)[1].pointer("/issuers/0/challenges/dns/provider/api_token"),
        Some(&json!("{env.CF_API_TOKEN}"))
    );
    // when somebody's policy comes behind it, then it is last again
    let later = json!({"subjects": ["new.acme.example"]});
    let ours = policies(&double)[1].clone();
    load_policies(&double, json!([theirs, ours, later]));
    Scene::of(challenging(&running.url, "{env.CF_API_TOKEN}", true)).want(FIRST).await.expect("as it was");
    assert_eq!(policies(&double), [theirs.clone(), later, ours]);
    load_policies(&double, json!([theirs, policies(&double)[2]]));
    // when one of two portals goes, then it stays; with the last it goes, and all is as it was
    rotated.unwant(FIRST).await.expect("deleted");
    assert_eq!(policies(&double).len(), 2);
    rotated.unwant(SECOND).await.expect("deleted");
    assert_eq!(double.config(), before);
}

#[tokio::test]
async fn a_policy_of_somebody_else_for_all_names_stays_and_is_told() {
    let (double, running) = simulated(CaddyDouble::new()).await;
    load_policies(&double, json!([{"issuers": [{"module": "internal"}]}]));
    let before = policies(&double);
    let scene = Scene::of(challenging(&running.url, TOKEN, true));
    let done = scene.want(FIRST).await.expect("made");
    assert_eq!((done.doubts.len(), done.doubts[0].truth, done.doubts[0].reason), (1, Truth::True, "ForeignTlsPolicy"));
    assert_eq!(policies(&double), before);
    scene.unwant(FIRST).await.expect("deleted");
    assert_eq!(policies(&double), before);
}

#[tokio::test]
async fn somebody_who_writes_policies_in_between_loses_nothing() {
    let (double, running) = simulated(CaddyDouble::new()).await;
    load_policies(&double, json!([]));
    let theirs = json!({"subjects": ["www.acme.example"]});
    // given that the first write meets a newer list
    let stale =
        portalkeeper::http::double::DoubleResponse::json(412, &json!({"error": "If-Match header did not match"}));
    running.faults.push("PATCH", "/policies", 1, Fault::Answer(stale));
    load_policies(&double, json!([theirs]));
    let scene = Scene::of(challenging(&running.url, TOKEN, true));
    scene.want(FIRST).await.expect("made");
    assert_eq!((policies(&double).len(), &policies(&double)[0]), (2, &theirs));
}

#[tokio::test]
async fn a_stock_caddy_is_told_what_it_lacks() {
    let check = |done: &portalkeeper::backends::Programmed, required: bool, what: &str| {
        let doubt = done.doubts.first().unwrap_or_else(|| panic!("{what}: {done:?}"));
        let truth = if required { Truth::False } else { Truth::True };
        assert_eq!((doubt.truth, doubt.reason), (truth, "DnsModuleMissing"), "{what}");
        assert!(doubt.message.contains("without the module dns.providers.cloudflare"), "{what}: {}", doubt.message);
        assert!(!format!("{done:?}").contains("canary"), "{what}: the token shows");
    };
    for required in [true, false] {
        let (double, running) = simulated(CaddyDouble::new().without_dns_module()).await;
        let done = Scene::of(challenging(&running.url, TOKEN, required)).want(FIRST).await.expect("the route is made");
        check(&done, required, "simulated");
        assert_eq!(policies(&double), Vec::<Value>::new());
        for peer in caddies() {
            let real = Real::start(&peer.program).await;
            let before = real.config().await;
            let admin = Url::parse(&format!("http://127.0.0.1:{}", real.admin_port)).expect("an address");
            let options = CaddyOptions {
                dns_challenge: Some(DnsChallenge { token: Secret::new(TOKEN), required }),
                ..options(&admin, &real.dial(), Some(format!("127.0.0.1:{}", real.listen)))
            };
            let scene = Scene::of(Caddy::new(options).expect("a backend"));
            let done = scene.want(FIRST).await.unwrap_or_else(|e| panic!("{}: {e}", peer.name));
            check(&done, required, peer.name);
            assert_eq!(real.visit(FIRST).await, (200, format!("portal {FIRST} ")), "{}", peer.name);
            scene.unwant(FIRST).await.unwrap_or_else(|e| panic!("{}: {e}", peer.name));
            assert_eq!(real.config().await, before, "{}", peer.name);
        }
    }
}

#[tokio::test]
async fn each_caddy_is_reached_by_its_socket() {
    for peer in caddies() {
        reached_by_socket(&peer, &json!(null)).await;
        // and where its origins are set, by the one that is to be among them
        reached_by_socket(&peer, &json!(["127.0.0.1:2019"])).await;
    }
}

async fn reached_by_socket(peer: &Peer, origins: &Value) {
    let home = tempfile::tempdir().expect("a folder");
    let (listen, socket) = (free_port(), home.path().join("admin.sock"));
    let mut config = users_config(1, listen);
    // Caddy 2.6 knows no mode there.
    let mode = if peer.name.contains("2.6") { "" } else { "|0600" };
    config["admin"]["listen"] = json!(format!("unix/{}{mode}", socket.display()));
    if origins.is_array() {
        config["admin"]["origins"] = origins.clone();
    }
    std::fs::write(home.path().join("caddy.json"), config.to_string()).expect("written");
    let _process = Running::start(&peer.program, home.path(), &["run", "--config", "caddy.json"]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        assert!(std::time::Instant::now() < end, "caddy does not start");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let admin = Url::parse(&format!("unix://{}", socket.display())).expect("an address");
    let caddy = Caddy::new(options(&admin, "127.0.0.1:5000", Some(format!("127.0.0.1:{listen}")))).expect("a backend");
    let scene = Scene::of(caddy);
    // and one that is not there is told by its path
    let missing = home.path().join("other.sock");
    let admin = Url::parse(&format!("unix://{}", missing.display())).expect("an address");
    let caddy = Caddy::new(options(&admin, "127.0.0.1:5000", None)).expect("a backend");
    let error = Scene::of(caddy).want(FIRST).await.expect_err("nobody is there").message;
    let words = format!("cannot reach Caddy's admin API at unix://{}: ", missing.display());
    assert!(error.starts_with(&words) && !error.contains("127.0.0.1"), "{error}");
    assert_eq!(scene.worker.instance(), format!("caddy/unix:{}", socket.display()));
    let done = scene.want(FIRST).await.expect("made by the socket");
    assert_eq!(done.changes, [format!("create {FIRST} (route to 127.0.0.1:5000)")]);
    scene.unwant(FIRST).await.expect("deleted by the socket");
}
