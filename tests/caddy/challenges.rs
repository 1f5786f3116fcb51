//! The TLS policy that all classes of one Caddy share.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::api::condition::Truth;
use portalkeeper::backends::caddy::double::CaddyDouble;
use portalkeeper::backends::caddy::{Caddy, CaddyOptions, Challenges, DnsChallenge};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};
use serde_json::{Value, json};
use url::Url;

use super::real::Real;
use super::{Scene, options, users_config};
use crate::peers::caddies;
use crate::world::World;

const FIRST: &str = "reset.acme.example";
const SECOND: &str = "reset.globex.example";

async fn simulated() -> (Arc<CaddyDouble>, RunningDouble) {
    let double = Arc::new(CaddyDouble::new());
    double.load(users_config(2019, 80));
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    (double, running)
}

fn caddy(admin: &Url, token: Option<&str>, challenges: &Challenges) -> Scene {
    let dns_challenge = token.map(|token| DnsChallenge { token: Secret::new(token), required: true });
    let challenges = challenges.clone();
    let options = CaddyOptions { dns_challenge, challenges, ..options(admin, "127.0.0.1:5000", None) };
    Scene::of(Caddy::new(options).expect("a backend"))
}

/// The tokens of the one policy, in its order; where none is in an issuer, its module.
fn issuers(config: &Value) -> Vec<String> {
    let policies = config.pointer("/apps/tls/automation/policies").and_then(Value::as_array);
    let issuers = policies.into_iter().flatten().filter_map(|policy| policy["issuers"].as_array()).flatten();
    let shown = |issuer: &Value| {
        let token = issuer.pointer("/challenges/dns/provider/api_token").unwrap_or(&issuer["module"]);
        token.as_str().unwrap_or_default().to_owned()
    };
    issuers.map(shown).collect()
}

fn calls(running: &RunningDouble, method: &str) -> usize {
    let calls = running.log.calls();
    calls.iter().filter(|call| call.method == method && call.path.ends_with("/policies")).count()
}

fn tokens(classes: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<Secret>> {
    classes.iter().map(|(class, token)| ((*class).to_owned(), token.map(Secret::new))).collect()
}

#[tokio::test]
async fn two_classes_of_one_caddy_share_the_policy_and_do_not_write_over_each_other() {
    // given two classes with tokens of their own
    let (double, running) = simulated().await;
    let challenges = Challenges::awaited();
    challenges.register("b", Some(Secret::new("token-b")));
    challenges.register("a", Some(Secret::new("token-a")));
    let (a, b) = (caddy(&running.url, Some("token-a"), &challenges), caddy(&running.url, Some("token-b"), &challenges));
    // when both have portals, and are looked at again and again
    for _ in 0..3 {
        a.want(FIRST).await.expect("made");
        b.want(SECOND).await.expect("made");
        a.clock.advance(SignedDuration::from_secs(61));
        b.clock.advance(SignedDuration::from_secs(61));
    }
    // then one policy has both, in the order of the classes, and Caddy's normal way for everybody else's names
    assert_eq!(issuers(&double.config()), ["token-a", "token-b", "acme"]);
    assert_eq!(calls(&running, "PATCH") + calls(&running, "PUT"), 1);
    // and when one class gives its token up, then that goes at the other's next look
    challenges.register("a", None);
    challenges.settle(tokens(&[("a", None), ("b", Some("token-b"))]), &BTreeSet::new());
    b.want(SECOND).await.expect("as it was");
    assert_eq!(issuers(&double.config()), ["token-b", "acme"]);
}

#[tokio::test]
async fn after_a_start_a_token_stays_until_every_class_is_heard() {
    // given a policy of two classes, and a program that has started anew
    let (double, running) = simulated().await;
    let before = Challenges::default();
    before.register("a", Some(Secret::new("token-a")));
    before.register("b", Some(Secret::new("token-b")));
    caddy(&running.url, Some("token-a"), &before).want(FIRST).await.expect("made");
    let challenges = Challenges::awaited();
    // when a class without a challenge comes first, or one of the two, then nothing is taken away
    challenges.register("c", None);
    let c = caddy(&running.url, None, &challenges);
    c.want(SECOND).await.expect("made");
    assert_eq!(issuers(&double.config()), ["token-a", "token-b", "acme"]);
    challenges.register("a", Some(Secret::new("token-a")));
    let a = caddy(&running.url, Some("token-a"), &challenges);
    a.want(FIRST).await.expect("as it was");
    assert_eq!(issuers(&double.config()), ["token-a", "token-b", "acme"]);
    // when the Secret of b cannot be read, then its token stays, although nobody knows it
    let heard = || tokens(&[("a", Some("token-a")), ("c", None)]);
    challenges.settle(heard(), &BTreeSet::from(["b".to_owned()]));
    a.clock.advance(SignedDuration::from_secs(61));
    a.want(FIRST).await.expect("as it was");
    assert_eq!(issuers(&double.config()), ["token-a", "token-b", "acme"]);
    // when b is gone, then so is its token
    challenges.settle(heard(), &BTreeSet::new());
    a.clock.advance(SignedDuration::from_secs(61));
    a.want(FIRST).await.expect("as it was");
    assert_eq!(issuers(&double.config()), ["token-a", "acme"]);
    // and when no class has one, the policy goes by whoever looks next
    challenges.settle(tokens(&[("c", None)]), &BTreeSet::new());
    c.clock.advance(SignedDuration::from_secs(61));
    c.want(SECOND).await.expect("as it was");
    assert_eq!(double.config().pointer("/apps/tls/automation/policies"), Some(&json!([])));
}

#[tokio::test]
async fn a_token_that_the_module_refuses_is_told_to_its_class_and_holds_up_no_other() {
    // given a Caddy with a module that looks at the form of tokens, and four classes, one with half a token, one with a
    // placeholder that nothing fills in
    let double = Arc::new(CaddyDouble::new().with_strict_dns_module());
    double.load(users_config(2019, 80));
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let (good, better) = ("a".repeat(40), "d".repeat(40));
    let (half, empty) = ("canary-b", "{env.NOT_SET}");
    let challenges = Challenges::default();
    let classes = [("a", good.as_str()), ("b", half), ("c", empty), ("d", better.as_str())];
    classes.iter().for_each(|(class, token)| challenges.register(class, Some(Secret::new(*token))));
    let of = |token: &str| caddy(&running.url, Some(token), &challenges);
    let (a, b, c) = (of(&good), of(half), of(empty));
    // when all have portals, then the two good tokens are in the policy, and whose the bad ones are is told to them
    let fine = a.want(FIRST).await.expect("made");
    assert_eq!((fine.doubts.len(), issuers(&double.config())), (0, vec![good.clone(), better.clone(), "acme".into()]));
    let words = "the module dns.providers.cloudflare in this Caddy refuses the token of proxy.caddy.dnsChallenge before it asks \
                 Cloudflare (API token [redacted]), so that it is left out: a whole API token is needed, or a placeholder that \
                 Caddy can fill in; correct the Secret, or the environment of Caddy";
    for (scene, host) in [(&b, SECOND), (&c, "reset.initech.example")] {
        let done = scene.want(host).await.expect("made");
        let doubt = done.doubts.first().expect("a doubt");
        assert_eq!((doubt.truth, doubt.reason), (Truth::False, "DnsTokenRefused"));
        assert!(doubt.message.ends_with(words) && !doubt.message.contains("canary"), "{}", doubt.message);
    }
    // and it is not tried at each look
    running.log.clear();
    for scene in [&a, &b] {
        scene.clock.advance(SignedDuration::from_secs(61));
    }
    assert_eq!(a.want(FIRST).await.expect("as it was").doubts.len(), 0);
    assert_eq!(b.want(SECOND).await.expect("as it was").doubts[0].reason, "DnsTokenRefused");
    assert!(running.log.writes().is_empty());
    // but for ever it is not left out either: somebody may fill the placeholder in
    for _ in 0..20 {
        b.clock.advance(SignedDuration::from_secs(61));
        b.want(SECOND).await.expect("as it was");
    }
    assert_eq!((running.log.writes().len(), issuers(&double.config()).len()), (1, 3));
    // when the token is corrected, then it is in the policy
    let whole = "b".repeat(40);
    challenges.register("b", Some(Secret::new(whole.as_str())));
    assert_eq!(of(&whole).want(SECOND).await.expect("as it was").doubts.len(), 0);
    assert_eq!(issuers(&double.config()), [good, whole, better, "acme".into()]);
}

#[tokio::test]
async fn a_bad_token_in_place_of_a_good_one_takes_that_one_away() {
    let double = Arc::new(CaddyDouble::new().with_strict_dns_module());
    double.load(users_config(2019, 80));
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let challenges = Challenges::default();
    let good = "a".repeat(40);
    challenges.register("a", Some(Secret::new(good.as_str())));
    caddy(&running.url, Some(&good), &challenges).want(FIRST).await.expect("made");
    assert_eq!(issuers(&double.config()).len(), 2);
    challenges.register("a", Some(Secret::new("half")));
    let done = caddy(&running.url, Some("half"), &challenges).want(FIRST).await.expect("as it was");
    assert_eq!(done.doubts[0].reason, "DnsTokenRefused");
    assert_eq!(issuers(&double.config()), Vec::<String>::new());
}

#[tokio::test]
async fn a_challenge_that_is_switched_off_takes_its_token_out_of_real_caddys() {
    for peer in caddies() {
        let what = peer.name;
        // given what an earlier process left: a policy of ours beside one of somebody
        let real = Real::start(&peer.program).await;
        let theirs = json!({"subjects": ["www.acme.example"], "issuers": [{"module": "internal"}]});
        let ours = json!({"@id": "pk1-0123456789abcdef-tls", "issuers": [{"module": "acme"}]});
        let put = real.admin.put("/config/apps/tls/automation/policies").json(&json!([theirs, ours]));
        assert_eq!(put.send().await.expect("an answer").status, 200, "{what}");
        let admin = Url::parse(&format!("http://127.0.0.1:{}", real.admin_port)).expect("an address");
        // when a class without a challenge has a portal there, then ours is gone and theirs is not
        caddy(&admin, None, &Challenges::default()).want(FIRST).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let left = real.config().await.pointer("/apps/tls/automation/policies").cloned();
        assert_eq!(left, Some(json!([theirs])), "{what}");
    }
}

#[tokio::test]
async fn without_a_challenge_policies_are_looked_for_once() {
    for closed in [false, true] {
        // given a Caddy without policies, or one that does not let us see them
        let (_double, running) = simulated().await;
        if closed {
            let words = json!({"error": "client is not authorized to access this path"});
            running.faults.push("GET", "/policies", usize::MAX, Fault::Answer(DoubleResponse::json(403, &words)));
        }
        let scene = caddy(&running.url, None, &Challenges::default());
        // when portals come and go, then that costs one look in all, and nothing is told
        for _ in 0..3 {
            let done = scene.want(FIRST).await.expect("made");
            assert_eq!(done.doubts, [], "closed: {closed}");
            scene.unwant(FIRST).await.expect("deleted");
            scene.clock.advance(SignedDuration::from_secs(61));
        }
        assert_eq!(calls(&running, "GET"), 1, "closed: {closed}");
    }
}

#[tokio::test]
async fn the_policy_goes_with_the_last_portal_where_the_class_has_no_challenge_any_more() {
    let (double, running) = simulated().await;
    caddy(&running.url, Some("canary-token"), &Challenges::default()).want(FIRST).await.expect("made");
    assert_eq!(issuers(&double.config()), ["canary-token", "acme"]);
    // given that what is left may not be changed for now
    let words = json!({"error": "no room for canary-token"});
    let full = DoubleResponse::json(500, &words);
    running.faults.push("PATCH", "/policies", 1, Fault::Answer(full));
    let scene = caddy(&running.url, None, &Challenges::default());
    let done = scene.want(FIRST).await.expect("as it was");
    assert_eq!((done.doubts.len(), done.doubts[0].truth, done.doubts[0].reason), (1, Truth::True, "TlsPolicyLeft"));
    // when the portal goes, then the policy goes
    scene.unwant(FIRST).await.expect("deleted");
    assert_eq!(double.config().pointer("/apps/tls/automation/policies"), Some(&json!([])));
}

#[tokio::test]
async fn classes_that_change_their_challenges_change_the_policy() {
    // given two classes of one Caddy, each with a portal
    let (double, running) = simulated().await;
    let mut world = World::start().await;
    for (class, token) in [("one", "{env.ONE}"), ("two", "{env.TWO}")] {
        let caddy = json!({
            "adminUrl": running.url.as_str(), "origin": "127.0.0.1:5000", "dnsChallenge": {"placeholder": token},
        });
        let spec = json!({"publicScheme": "https", "proxy": {"caddy": caddy}, "probe": {"enabled": false}});
        let metadata = json!({"name": class});
        let object = json!({"apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": metadata, "spec": spec});
        world.put(&object).await;
    }
    let portal = async |world: &World, name: &str, class: &str| {
        world.create(name, json!({"domain": format!("{name}.example"), "className": class})).await;
        world
            .until(name, "routed", |portal| {
                let route = portal.and_then(|portal| crate::world::condition_of(portal, "RouteProgrammed"));
                route.is_some_and(|route| route.status == "True")
            })
            .await;
    };
    portal(&world, "acme", "one").await;
    portal(&world, "globex", "two").await;
    assert_eq!(issuers(&double.config()), ["{env.ONE}", "{env.TWO}", "acme"]);
    // when the program starts anew, then nobody's token is taken away for a while
    world.stop_daemon().await;
    running.log.clear();
    world.start_daemon().await;
    portal(&world, "initech", "two").await;
    assert_eq!(issuers(&double.config()), ["{env.ONE}", "{env.TWO}", "acme"]);
    assert_eq!(calls(&running, "PATCH"), 0);
    // when one class gives its challenge up, then its token goes, and the other's stays
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let off = json!({"spec": {"proxy": {"caddy": {"dnsChallenge": null}}}});
    classes.patch("one", &PatchParams::default(), &Patch::Merge(&off)).await.expect("patched");
    // which may wait until all classes were reported: a look comes with every new portal
    for number in 0..50 {
        if issuers(&double.config()) == ["{env.TWO}", "acme"] {
            break;
        }
        portal(&world, &format!("c{number}"), "one").await;
    }
    assert_eq!(issuers(&double.config()), ["{env.TWO}", "acme"]);
    assert_eq!(calls(&running, "PATCH"), 1, "they do not write over each other");
}
