//! Edits that a class refuses, names that it does not grant, and answers that are lost in a move.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use portalkeeper::api::{ANNOTATION_ADOPT, ANNOTATION_MOVED_BY_HAND, ResetPortal};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::{Value, json};

use super::{HOST, Scene, target};
use crate::world::condition_of;

const TAKEN: &str = "x.team.acme.localhost";

fn grants(domains: &[&str], hosts: &[&str]) -> Value {
    json!({"grants": [{"namespaces": ["default"], "mailDomains": domains, "hosts": hosts}]})
}

/// A portal at a host outside its domain, which only its class grants, and another portal with a name that others want.
async fn at_a_granted_host() -> Scene {
    let scene = Scene::given().await;
    scene.world.delete("acme").await;
    scene.world.create("other", json!({"domain": "other.acme.localhost", "host": TAKEN})).await;
    scene.world.until_condition("other", "Claimed", "True", "Claimed").await;
    scene.edit_class("a", grants(&["*"], &["*"])).await;
    scene.world.create("acme", json!({"domain": "team.acme.localhost", "host": HOST})).await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    scene.told();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_serves_no_host_that_it_does_not_grant_whatever_else_is_asked_for() {
    // given a class that grants the domain, and not the host at which the portal is
    let scene = at_a_granted_host().await;
    scene.edit_class("b", grants(&["team.acme.localhost"], &[])).await;
    scene.move_to("b").await;
    scene.world.until_condition("acme", "Accepted", "False", "NotGranted").await;
    // when a name is asked for that it would grant and that somebody else has
    scene.world.patch("acme", json!({"spec": {"host": TAKEN}})).await;
    scene.world.until_condition("acme", "Claimed", "False", "HostConflict").await;
    scene.work_for(Duration::from_millis(500)).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_taken_away_does_not_come_back_with_another_name() {
    let scene = at_a_granted_host().await;
    scene.edit_class("a", grants(&["team.acme.localhost", "other.acme.localhost"], &[])).await;
    scene.world.until_condition("acme", "Accepted", "False", "NotGranted").await;
    assert_eq!(scene.world.get(HOST, "/").await.0, 421);
    scene.world.patch("acme", json!({"spec": {"host": TAKEN}})).await;
    scene.world.until_condition("acme", "Claimed", "False", "HostConflict").await;
    assert_eq!(scene.world.get(HOST, "/").await.0, 421);
    // and neither while a name that is granted is not proved yet
    scene.world.patch("acme", json!({"spec": {"host": "nowhere.team.acme.localhost"}})).await;
    scene.world.until_condition("acme", "Claimed", "True", "Claimed").await;
    scene.work_for(Duration::from_millis(300)).await;
    assert_eq!(scene.world.get(HOST, "/").await.0, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_not_carried_out_elsewhere() {
    let scene = Scene::given().await;
    scene.edit_class("b", json!({"grants": [{"namespaces": ["elsewhere"], "mailDomains": ["*"]}]})).await;
    let edit = json!({"className": "b", "host": "other.acme.localhost", "dns": {"proxied": false, "ttl": 600}});
    scene.world.patch("acme", json!({"spec": edit})).await;
    scene.world.until_condition("acme", "Accepted", "False", "NotGranted").await;
    scene.work_for(Duration::from_millis(500)).await;
    let records = scene.world.simulators.cloudflare.records();
    assert_eq!((records.len(), &records[0]["name"], &records[0]["proxied"]), (1, &json!(HOST), &json!(true)));
    assert_eq!((scene.routed(), scene.world.get(HOST, "/").await.0), ("a", 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_is_asked_in_the_midst_of_another_move_is_told_the_word() {
    let scene = Scene::given().await;
    scene.edit_class("b", json!({"cnameTarget": target("a")})).await;
    scene.move_to("b").await;
    scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    // when the class gets a name and a route of its own, then the question is still there
    let origin = format!("localhost:{}", scene.world.pages.port());
    scene.edit_class("b", json!({"cnameTarget": target("b"), "proxy": {"caddy": {"origin": origin}}})).await;
    scene.until_told("is called off, and it cannot be seen from here which of both serves visitors").await;
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some("true")).await;
    scene.until_told("; the annotation says \"true\", which is for nothing").await;
    // and the word for home answers it
    let moved = condition_of(&scene.world.portals().get("acme").await.unwrap(), "Moved").unwrap().message;
    let word = moved.split("portalkeeper.dev/moved-by-hand=").nth(1).unwrap().split(',').next().unwrap();
    assert!(word.starts_with("a-"), "{moved}");
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(word)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_without_an_account_does_not_wait_for_what_was_seen_already() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    scene.third_class("d", json!({"origin": format!("localhost:{}", scene.world.pages.port())})).await;
    scene.edit_class("d", json!({"cloudflare": null, "cnameTarget": target("b")})).await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.move_to("d").await;
    scene.until_led_to("a").await;
    scene.cut.store(false, Ordering::SeqCst);
    // when a person says that visitors come there, then it goes on
    let flipped = |portal: Option<&ResetPortal>| {
        let moving = portal.and_then(|portal| portal.status.as_ref()?.moving.as_ref());
        moving.is_some_and(|moving| moving.to.class_name == "d" && json!(moving.stage) == "Flipped")
    };
    scene.world.until("acme", "asked", flipped).await;
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_moved_to("d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_change_had_no_answer_is_led_back_before_anything_else() {
    let mut scene = Scene::given().await;
    scene.edit_class("a", json!({"cloudflare": null, "cnameTarget": target("a")})).await;
    scene
        .world
        .until("acme", "without a record", |portal| portal.unwrap().status.as_ref().unwrap().resources.len() == 1)
        .await;
    scene.world.annotate("acme", ANNOTATION_ADOPT, Some("true")).await;
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    // given a change of the record that is made and not answered, and nothing is after it
    let (faults, down) = (scene.world.simulators.faults.clone(), Arc::new(AtomicBool::new(false)));
    let is_down = down.clone();
    faults.by_rule(move |request| match request.path.contains("dns_records") || request.path.contains("zones") {
        true if is_down.load(Ordering::SeqCst) => Some(Fault::Answer(DoubleResponse::text(503, "down"))),
        true if request.method != "GET" => {
            is_down.store(true, Ordering::SeqCst);
            Some(Fault::CutAfter)
        }
        _ => None,
    });
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.cut.store(false, Ordering::SeqCst);
    // when the portal goes home to a class without an account, then its route stays until the record leads home
    scene.move_to("a").await;
    scene.until_told("it is called off. The record is to lead to a.proxies.localhost again").await;
    scene.work_for(Duration::from_millis(500)).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
    faults.clear();
    scene.until_led_to("a").await;
    scene.world.until("acme", "without the second route", |_| scene.routed() == "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_somebody_else_or_one_that_is_not_noted_is_not_nothing() {
    for (noted, away) in [(true, false), (false, false), (false, true)] {
        let mut scene = Scene::given().await;
        if noted {
            // given a portal whose host is served by a route that somebody made by hand
            scene.world.delete("acme").await;
            let dial = json!([{"dial": scene.world.pages.to_string()}]);
            let handle = json!([{"handler": "reverse_proxy", "upstreams": dial}]);
            let mut config = scene.a.caddy.config();
            let servers = config["apps"]["http"]["servers"].as_object_mut().expect("servers");
            let routes = servers.values_mut().next().expect("a server")["routes"].as_array_mut().expect("routes");
            routes.push(json!({"match": [{"host": [HOST]}], "handle": handle, "terminal": true}));
            scene.a.caddy.load(config);
            scene.world.create("acme", json!({"domain": "acme.localhost"})).await;
            scene.world.until_condition("acme", "RouteProgrammed", "False", "ForeignRoute").await;
            scene.until_led_to("a").await;
        } else {
            // or one that was killed in its first look
            scene.world.stop_daemon().await;
            let patch = json!({"status": {"resources": null, "verified": null, "observedGeneration": null}});
            let portals = scene.world.portals();
            portals.patch_status("acme", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            // whose proxy, that proved it before, does not answer now
            let later = Fault::Answer(DoubleResponse::text(503, "later"));
            if away {
                scene.running[0].faults.push("GET", "", usize::MAX, later);
            }
            scene.world.start_daemon().await;
        }
        // when it moves to where another server answers, then the record stays
        scene.foreign.store(true, Ordering::SeqCst);
        scene.move_to("b").await;
        scene.until_told("it was asked and does not").await;
        assert_eq!(scene.led_meanwhile(Duration::from_millis(700)).await, ["a"], "noted: {noted}, away: {away}");
    }
}
