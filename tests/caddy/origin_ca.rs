//! Certificates of Cloudflare's Origin CA: signed once, loaded before the route, renewed, taken away and revoked after.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use portalkeeper::api::clock::TestClock;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::caddy::{Caddy, CaddyOptions};
use portalkeeper::backends::{ErrorClass, Want};
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};
use serde_json::{Value, json};

use super::real::Real;
use super::{Scene, is_ours, options, routes_of, users_config};
use crate::peers::{caddies, free_port};
use crate::scene::intent;
use crate::signer::{Account, shown};

const HOST: &str = "reset.acme.example";
const OTHER: &str = "reset.globex.example";
const LOADED: &str = "/apps/tls/certificates/load_pem";

/// A simulated Caddy with a certificate of somebody else, and a worker on it.
struct Simulated {
    double: Arc<CaddyDouble>,
    running: RunningDouble,
    account: Account,
}

impl Simulated {
    async fn given() -> Self {
        let double = Arc::new(CaddyDouble::new());
        let mut config = users_config(2019, 443);
        config["apps"]["tls"] = json!({"certificates": {"load_pem": [theirs()]}});
        double.load(config);
        let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
        Self { double, running, account: Account::given().await }
    }
    /// As after a restart of the program, at this time.
    fn scene(&self, at: jiff::Timestamp) -> Scene {
        let clock = Arc::new(TestClock::new(at));
        let origin_ca = Some(self.account.signs(&clock));
        let options = CaddyOptions { origin_ca, ..options(&self.running.url, "127.0.0.1:5000", None) };
        Scene::at(Caddy::new(options).expect("a backend"), clock)
    }
    fn now(&self) -> Scene {
        self.scene(jiff::Timestamp::now())
    }
    fn loaded(&self) -> Vec<Value> {
        self.double.config().pointer(LOADED).and_then(Value::as_array).cloned().unwrap_or_default()
    }
    /// Writes to Caddy since the last look, by what they changed.
    fn writes(&self) -> Vec<String> {
        let writes = self.running.log.writes();
        self.running.log.clear();
        let words = writes.iter().map(|call| format!("{} {}", call.path.rsplit('/').next().unwrap_or(""), call.status));
        words.collect()
    }
    fn routed(&self) -> usize {
        routes_of(&self.double.config()).iter().filter(|route| is_ours(route)).count()
    }
}

fn theirs() -> Value {
    json!({"certificate": "their certificate", "key": "their key", "tags": ["shop"], "odd": [1]})
}

#[tokio::test]
async fn a_certificate_is_signed_once_loaded_before_the_route_and_revoked_when_both_are_gone() {
    let caddy = Simulated::given().await;
    let scene = caddy.now();
    // when a portal is made, then its certificate is there before its route
    let made = scene.want(HOST).await.expect("made");
    assert_eq!(made.certificate.as_deref(), Some("with a certificate of Cloudflare's Origin CA"));
    assert_eq!(caddy.writes(), ["load_pem 200", "routes 200"]);
    assert_eq!(caddy.account.calls(), ["POST /certificates 200"]);
    let loaded = caddy.loaded();
    assert_eq!((loaded.len(), &loaded[0]), (2, &theirs()));
    let signed = &caddy.account.double.certificates()[0];
    assert_eq!(loaded[1]["certificate"], signed["certificate"]);
    assert!(loaded[1]["key"].as_str().is_some_and(|key| key.contains("PRIVATE KEY")));
    assert!(!format!("{made:?}").contains("PRIVATE KEY"), "the key is Caddy's alone");
    // when the program starts anew, looks again, or makes another portal, then nothing more is signed for the first
    let again = caddy.now();
    again.want(HOST).await.expect("as it was");
    again.clock.advance(SignedDuration::from_secs(61));
    again.want(HOST).await.expect("as it was");
    assert_eq!((caddy.writes(), caddy.account.calls()), (Vec::new(), Vec::new()));
    again.want(OTHER).await.expect("made");
    assert_eq!((caddy.account.calls().len(), caddy.loaded().len()), (1, 3));
    caddy.writes();
    // when it is deleted, then the route goes first, then the certificate, which is revoked
    let gone = again.unwant(HOST).await.expect("deleted");
    assert_eq!((caddy.writes(), gone.remarks), (vec!["routes 200".to_owned(), "load_pem 200".to_owned()], Vec::new()));
    let id = signed["id"].as_str().expect("an id");
    assert_eq!(caddy.account.calls(), [format!("DELETE /certificates/{id} 200")]);
    assert_eq!((caddy.account.double.certificates().len(), caddy.loaded().len()), (1, 2));
    again.unwant(OTHER).await.expect("deleted");
    assert_eq!((caddy.loaded(), caddy.routed()), (vec![theirs()], 0));
    assert!(caddy.account.double.certificates().is_empty());
}

#[tokio::test]
async fn a_certificate_is_renewed_thirty_days_before_its_end_and_replaced_when_it_does_not_fit() {
    let caddy = Simulated::given().await;
    caddy.now().want(HOST).await.expect("made");
    let first = caddy.loaded()[1].clone();
    caddy.account.calls();
    let later = |days: i64| {
        let end = jiff::Timestamp::now().checked_add(SignedDuration::from_hours(24 * 5475)).expect("a time");
        caddy.scene(end.checked_sub(SignedDuration::from_hours(24 * days)).expect("a time"))
    };
    // 31 days before its end it stays
    later(31).want(HOST).await.expect("as it was");
    assert_eq!((caddy.account.calls().len(), caddy.loaded()[1].clone()), (0, first.clone()));
    // 29 days before, another one takes its place; the route is not touched
    caddy.writes();
    let renewed = later(29).want(HOST).await.expect("renewed");
    assert!(renewed.changes[0].contains("with a certificate that ends on "), "{renewed:?}");
    assert_eq!(
        (caddy.account.calls(), caddy.writes()),
        (vec!["POST /certificates 200".into()], vec!["load_pem 200".into()])
    );
    assert_ne!(caddy.loaded()[1], first);
    assert_eq!(caddy.loaded().len(), 2);
    // when somebody takes it out of Caddy, or puts another key into it, then it is replaced
    for damage in
        [json!([theirs()]), json!([theirs(), {"tags": first["tags"], "certificate": first["certificate"], "key": "x"}])]
    {
        let mut config = caddy.double.config();
        *config.pointer_mut(LOADED).expect("a list") = damage;
        caddy.double.load(config);
        caddy.now().want(HOST).await.expect("repaired");
        assert_eq!((caddy.account.calls().len(), caddy.loaded().len()), (1, 2));
    }
}

#[tokio::test]
async fn a_host_whose_certificate_cannot_be_had_gets_no_route_and_holds_nobody_else() {
    let caddy = Simulated::given().await;
    let scene = caddy.now();
    // given that Cloudflare refuses one of two hosts: its zone is not in the account
    let (refused, made) = tokio::join!(scene.want("reset.elsewhere.example"), scene.want(HOST));
    made.expect("made");
    let refused = refused.expect_err("no zone");
    assert_eq!(refused.reason, "CertificateFailed");
    assert!(refused.message.contains("gave no certificate for reset.elsewhere.example"), "{refused}");
    assert_eq!((caddy.routed(), caddy.loaded().len()), (1, 2));
    // given that the rate limit is used up
    caddy.account.running.faults.push("POST", "/certificates", 1, Fault::Answer(DoubleResponse::text(429, "")));
    let refused = scene.want(OTHER).await.expect_err("throttled");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Throttled, "CertificateRateLimited"));
    assert_eq!(caddy.routed(), 1);
}

#[tokio::test]
async fn a_certificate_that_did_not_get_into_caddy_is_used_at_the_next_try() {
    let caddy = Simulated::given().await;
    let scene = caddy.now();
    caddy.running.faults.push("PATCH", "load_pem", 1, Fault::Answer(DoubleResponse::text(500, "no room")));
    let refused = scene.want(HOST).await.expect_err("caddy refuses");
    assert_eq!((refused.reason, caddy.routed()), ("CaddyRefused", 0));
    // and somebody is faster at the next one
    let stale = DoubleResponse::json(412, &json!({"error": "If-Match header did not match"}));
    caddy.running.faults.push("PATCH", "load_pem", 1, Fault::Answer(stale));
    caddy.writes();
    scene.want(HOST).await.expect("made");
    assert_eq!(caddy.writes(), ["load_pem 412", "load_pem 200", "routes 200"]);
    assert_eq!(caddy.account.calls(), ["POST /certificates 200"], "one is signed, whatever the number of tries");
}

#[tokio::test]
async fn leaving_former_settings_of_the_same_caddy_spares_the_certificate_of_the_route_that_stays() {
    // given a portal that was made without the Origin CA, and then under new settings with it
    let caddy = Simulated::given().await;
    // (each worker as after a restart, so that it looks for certificates)
    let old = || Scene::of(Caddy::new(options(&caddy.running.url, "127.0.0.1:5000", None)).expect("a backend"));
    old().want(HOST).await.expect("made");
    let made = caddy.now().want(HOST).await.expect("given a certificate");
    let before = caddy.loaded();
    assert_eq!((caddy.routed(), before.len()), (1, 2));
    // when the former settings are left, but for what the new ones have put in place
    let intent = intent(HOST);
    let but = made.resources.into_iter().filter_map(|resource| resource.id).collect();
    let left = Want::Left { mark: intent.mark, hosts: vec![intent.host], but };
    old().worker.submit(intent.portal, left).await.expect("left");
    assert_eq!((caddy.routed(), caddy.loaded()), (1, before));
}

#[tokio::test]
async fn a_caddy_that_forgets_gets_the_same_certificate_again() {
    // given a portal, and a program that was started anew since
    let caddy = Simulated::given().await;
    caddy.now().want(HOST).await.expect("made");
    let (scene, before) = (caddy.now(), caddy.loaded());
    scene.want(HOST).await.expect("as it was");
    caddy.account.calls();
    // when Caddy is loaded with the user's own configuration, as `caddy reload` does
    let mut config = users_config(2019, 443);
    config["apps"]["tls"] = json!({"certificates": {"load_pem": [theirs()]}});
    caddy.double.load(config);
    scene.clock.advance(SignedDuration::from_secs(61));
    scene.want(HOST).await.expect("made again");
    // then route and certificate are as they were, and Cloudflare was not asked
    assert_eq!((caddy.routed(), caddy.loaded(), caddy.account.calls()), (1, before.clone(), Vec::new()));
    // when somebody takes out only the route, then the certificate is not signed anew either
    let mut config = caddy.double.config();
    config["apps"]["http"]["servers"]["mine"]["routes"] = json!([]);
    caddy.double.load(config);
    caddy.now().want(HOST).await.expect("made again");
    assert_eq!((caddy.routed(), caddy.loaded(), caddy.account.calls()), (1, before, Vec::new()));
}

#[tokio::test]
async fn a_refused_revocation_is_told_and_holds_nothing() {
    let caddy = Simulated::given().await;
    let scene = caddy.now();
    scene.want(HOST).await.expect("made");
    let words = json!({"success": false, "errors": [{"code": 1100, "message": "Failed to revoke"}], "result": null});
    caddy.account.running.faults.push("DELETE", "/certificates", 1, Fault::Answer(DoubleResponse::json(400, &words)));
    let gone = scene.unwant(HOST).await.expect("deleted all the same");
    assert_eq!((caddy.routed(), caddy.loaded()), (0, vec![theirs()]));
    assert_eq!(gone.remarks.iter().map(|remark| remark.reason).collect::<Vec<_>>(), ["CertificateNotRevoked"]);
    let message = &gone.remarks[0].message;
    assert!(message.contains(HOST) && message.contains("Failed to revoke"), "{message}");
}

#[tokio::test]
async fn what_the_origin_ca_made_goes_when_it_is_not_wanted_any_more() {
    // given a portal whose class does without the Origin CA from now on
    let caddy = Simulated::given().await;
    caddy.now().want(HOST).await.expect("made");
    let scene = Scene::of(Caddy::new(options(&caddy.running.url, "127.0.0.1:5000", None)).expect("a backend"));
    let done = scene.want(HOST).await.expect("cleaned");
    assert_eq!(
        done.changes,
        [format!("delete certificate for {HOST} (an unused certificate of Cloudflare's Origin CA)")]
    );
    assert_eq!((caddy.routed(), caddy.loaded()), (1, vec![theirs()]));
    // then the next look sees that nothing is left, and those after it have nothing to do with certificates
    for _ in 0..2 {
        caddy.running.log.clear();
        scene.clock.advance(SignedDuration::from_secs(61));
        scene.want(HOST).await.expect("as it was");
    }
    assert!(caddy.running.log.calls().iter().all(|call| !call.path.contains("certificates")));
}

#[tokio::test]
async fn a_visitor_of_real_caddy_is_shown_that_certificate_and_caddy_orders_none() {
    for peer in caddies() {
        // given a Caddy that sees to the certificates of its own sites by an authority of its own
        let plain = free_port();
        let real = Real::start_with(&peer.program, |config| {
            let listen = config["apps"]["http"]["servers"]["mine"]["listen"][0].clone();
            let port: u16 = listen.as_str().and_then(|text| text.rsplit(':').next()?.parse().ok()).expect("a port");
            config["apps"]["http"]["https_port"] = json!(port);
            config["apps"]["http"]["http_port"] = json!(plain);
            config["apps"]["http"]["servers"]["mine"]["automatic_https"] = json!({"disable_redirects": true});
            config["apps"]["tls"] = json!({"automation": {"policies": [{"issuers": [{"module": "internal"}]}]}});
            config["apps"]["pki"] = json!({"certificate_authorities": {"local": {"install_trust": false}}});
        })
        .await;
        let https: SocketAddr = ([127, 0, 0, 1], real.listen).into();
        let own = real.home.path().join("caddy/certificates/local");
        let end = Instant::now() + Duration::from_secs(20);
        while shown(https, "www.acme.example").await.is_none() {
            assert!(Instant::now() < end, "{}: caddy makes no certificate", peer.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let account = Account::given().await;
        let clock = Arc::new(TestClock::new(jiff::Timestamp::now()));
        let admin = url::Url::parse(&format!("http://127.0.0.1:{}", real.admin_port)).expect("an address");
        let listen = Some(format!("127.0.0.1:{}", real.listen));
        let origin_ca = Some(account.signs(&clock));
        let backend = Caddy::new(CaddyOptions { origin_ca, ..options(&admin, &real.dial(), listen) });
        let scene = Scene::at(backend.expect("a backend"), clock);
        // when a portal is made, then its visitors are shown the certificate that was signed for it
        scene.want(HOST).await.unwrap_or_else(|e| panic!("{}: {e}", peer.name));
        let signed = account.only();
        assert_eq!(shown(https, HOST).await.as_ref(), Some(&signed), "{}", peer.name);
        assert_ne!(shown(https, "www.acme.example").await.as_ref(), Some(&signed), "{}", peer.name);
        // and Caddy has none of its own for it
        assert!(own.join("www.acme.example").exists() && !own.join(HOST).exists(), "{}", peer.name);
        // when the portal goes, then so does the certificate
        scene.unwant(HOST).await.unwrap_or_else(|e| panic!("{}: {e}", peer.name));
        let config = real.config().await;
        assert_eq!(config.pointer(LOADED), Some(&json!([])), "{}", peer.name);
        assert_ne!(shown(https, HOST).await.as_ref(), Some(&signed), "{}", peer.name);
        assert!(account.double.certificates().is_empty(), "{}", peer.name);
    }
}
