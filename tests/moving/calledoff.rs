//! Moves that are given up half-way, for home, for a third place, or for another host.
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::{ANNOTATION_ADOPT, ANNOTATION_MOVED_BY_HAND, PortalClass, ResetPortal};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::{Value, json};

use super::{HOST, Scene, is_made, target};
use crate::world::condition_of;

impl Scene {
    pub(super) async fn edit_class(&self, class: &str, spec: Value) {
        let classes: Api<PortalClass> = Api::all(self.world.client.clone());
        classes.patch(class, &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await.expect("patched");
    }
    /// A third class, like the second one but for this.
    pub(super) async fn third_class(&self, name: &str, change: Value) {
        let classes: Api<PortalClass> = Api::all(self.world.client.clone());
        let mut spec = json!(classes.get("b").await.expect("a class").spec);
        spec["cnameTarget"] = json!(target(name));
        for (field, value) in change.as_object().expect("fields") {
            spec["proxy"]["caddy"][field] = value.clone();
        }
        let class = json!({
            "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": name}, "spec": spec,
        });
        self.world.put(&class).await;
    }
    /// Gives the second class the first one's proxy with another origin, which is told.
    pub(super) async fn second_class_in_the_first_proxy(&self) -> String {
        let origin = format!("localhost:{}", self.world.pages.port());
        self.edit_class("b", json!({"proxy": {"caddy": {"adminUrl": self.a_url, "origin": origin}}})).await;
        origin
    }
    pub(super) async fn status(&self) -> portalkeeper::api::ResetPortalStatus {
        self.world.portals().get("acme").await.unwrap().status.unwrap_or_default()
    }
    /// Where the record led while so much time passed.
    pub(super) async fn led_meanwhile(&self, time: Duration) -> Vec<String> {
        let begun = std::time::Instant::now();
        let mut led = vec![self.leads_to()];
        while begun.elapsed() < time {
            let now = self.leads_to();
            if led.last() != Some(&now) {
                led.push(now);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        led
    }
}

/// A portal whose class has no account and whose record somebody made by hand, on its way to one with an account.
async fn adopted_and_flipped(settle: Duration) -> Scene {
    let mut scene = Scene::given().await;
    scene.edit_class("a", json!({"cloudflare": null, "cnameTarget": target("a")})).await;
    let alone = |portal: Option<&ResetPortal>| {
        portal
            .and_then(|portal| portal.status.as_ref())
            .is_some_and(|status| status.moving.is_none() && status.leaving.is_empty() && status.resources.len() == 1)
    };
    scene.world.until("acme", "without a record", alone).await;
    scene.restart_with(|timing| timing.move_settle = settle).await;
    scene.world.annotate("acme", ANNOTATION_ADOPT, Some("true")).await;
    scene.told();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_person_made_is_led_back_to_their_proxy() {
    let scene = adopted_and_flipped(Duration::ZERO).await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.until_stage("RolledBack").await;
    scene.until_told("The record leads to a.proxies.localhost again").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_led_back_before_a_class_without_an_account_has_the_portal_again() {
    let scene = adopted_and_flipped(Duration::from_millis(500)).await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.move_to("a").await;
    scene.world.until("acme", "without the second route", |_| scene.routed() == "a").await;
    assert_eq!(scene.leads_to(), "a");
    assert_eq!(scene.told(), ["b made while the record leads to a", "b removed while the record leads to a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_before_the_record_was_changed_changes_nothing_in_one_proxy() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    scene.second_class_in_the_first_proxy().await;
    scene.third_class("c", json!({"adminUrl": format!("{}caddy", scene.world.simulators.url)})).await;
    scene.refuse_changes_of_records();
    scene.move_to("b").await;
    scene.until_told("the record is to be changed to b.proxies.localhost and is not yet").await;
    // when it is called off while Cloudflare is down altogether, then the route stays as it was
    scene.world.simulators.faults.by_rule(|request| {
        let down = request.path.contains("dns_records") || request.path.contains("zones");
        down.then(|| Fault::Answer(DoubleResponse::text(503, "down")))
    });
    scene.move_to("a").await;
    scene.work_for(Duration::from_secs(1)).await;
    assert_eq!(scene.told(), Vec::<String>::new());
    // and so it does when the portal goes on to a third place, which cannot be proved
    scene.move_to("b").await;
    scene.until_stage("Flipped").await;
    scene.move_to("c").await;
    scene.world.simulators.faults.clear();
    scene.world.simulators.faults.by_rule(|_| None);
    let led = scene.led_meanwhile(Duration::from_secs(1)).await;
    assert_eq!((led, scene.told()), (vec!["a".to_owned()], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_proxy_by_two_addresses_keeps_the_route_whenever_the_move_is_called_off() {
    let mut scene = Scene::given().await;
    scene
        .restart_with(|timing| {
            (timing.move_patience, timing.move_settle) = (Duration::from_secs(600), Duration::from_millis(500))
        })
        .await;
    scene.third_class("a2", json!({"adminUrl": scene.a_url.replace("127.0.0.1", "localhost")})).await;
    // given a record that cannot be changed, and a move that is called off
    scene.refuse_changes_of_records();
    scene.move_to("a2").await;
    scene.until_told("the record is to be changed to a2.proxies.localhost and is not yet").await;
    scene.move_to("a").await;
    scene.work_for(Duration::from_secs(1)).await;
    // when it can be, and the move is called off after that
    scene.world.simulators.faults.clear();
    scene.restart_with(|timing| timing.move_settle = Duration::from_secs(600)).await;
    scene.move_to("a2").await;
    scene.until_led_to("a2").await;
    scene.restart_with(|timing| timing.move_settle = Duration::from_millis(500)).await;
    scene.move_to("a").await;
    scene.until_led_to("a").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), Vec::<String>::new());
    // then it is as it was, and another proxy is another one
    scene.move_to("b").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "a removed while the record leads to b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_hosts_record_is_led_back_when_host_and_class_are_changed_together() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    scene.third_class("c", json!({"adminUrl": format!("{}caddy", scene.world.simulators.url)})).await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    // when nobody waits for the move any more
    let other = "nowhere.acme.localhost";
    scene.world.patch("acme", json!({"spec": {"className": "c", "host": other}})).await;
    // then it is rolled back first, and says so
    scene.until_told("it is called off. The record leads to a.proxies.localhost again").await;
    assert_eq!(scene.leads_to(), "a");
    scene.world.until("acme", "at the other host", |portal| is_made(portal, other)).await;
    assert_eq!((scene.leads_to().as_str(), scene.world.get(HOST, "/").await.0), ("a", 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_host_and_class_are_both_undone_the_record_stays_where_it_was() {
    for at_once in [true, false] {
        let scene = Scene::given().await;
        scene.foreign.store(true, Ordering::SeqCst);
        scene.move_to("b").await;
        scene.until_told("it was asked and does not").await;
        let other = "nowhere.acme.localhost";
        scene.world.patch("acme", json!({"spec": {"host": other}})).await;
        scene.world.until("acme", "at the other host", |portal| is_made(portal, other)).await;
        if at_once {
            scene.world.patch("acme", json!({"spec": {"className": "a", "host": HOST}})).await;
        } else {
            scene.move_to("a").await;
            scene.work_for(Duration::from_millis(500)).await;
            scene.world.patch("acme", json!({"spec": {"host": HOST}})).await;
        }
        let led = scene.led_meanwhile(Duration::from_millis(1500)).await;
        assert_eq!(led, ["a"], "at once: {at_once}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_both_proxies_may_be_one_machine_a_person_is_asked_whatever_comes_next() {
    for rolled_back in [false, true] {
        let scene = Scene::given().await;
        scene.third_class("c", json!({"adminUrl": format!("{}caddy", scene.world.simulators.url)})).await;
        scene.one_machine.store(true, Ordering::SeqCst);
        scene.move_to("b").await;
        scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
        if rolled_back {
            scene.cut.store(true, Ordering::SeqCst);
            scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
            scene.until_led_to("b").await;
            scene.until_told("The record leads to a.proxies.localhost again").await;
        }
        // when it goes on to a third place, or home, then the tried route may be the one that visitors get
        scene.move_to(if rolled_back { "a" } else { "c" }).await;
        scene.work_for(Duration::from_millis(1500)).await;
        assert_eq!(scene.routed(), "a b", "rolled back: {rolled_back}");
        assert!(scene.status().await.leaving.iter().any(|leaving| leaving.asks));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_not_changed_in_the_proxy_to_which_the_record_still_leads() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_settle = Duration::from_millis(500)).await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.told();
    // given a class that is edited then, while the record cannot be led back
    scene.refuse_changes_of_records();
    scene.edit_class("b", json!({"proxy": {"caddy": {"origin": "127.0.0.1:9"}}})).await;
    scene.until_told("until the record is seen to lead away from the route whose place the new one takes").await;
    scene.work_for(Duration::from_millis(500)).await;
    assert_eq!(scene.told(), Vec::<String>::new());
    // when it can, then the new form is made
    scene.world.simulators.faults.clear();
    scene.until_story(&["b rewritten while the record leads to a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_for_another_place_is_not_taken_for_the_homes_own_route() {
    let scene = Scene::given().await;
    // given a new proxy that is seen to be wrong, whose address is spelled otherwise then
    scene.foreign.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("it was asked and does not").await;
    let url = scene.b_url.replace("127.0.0.1", "localhost");
    scene.edit_class("b", json!({"proxy": {"caddy": {"adminUrl": url}}})).await;
    scene.until_told("it was asked and does not").await;
    assert_eq!(scene.led_meanwhile(Duration::from_secs(1)).await, ["a"]);
    // when it is right, then the former route goes as in any move
    scene.foreign.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_proxy_is_tried_and_what_stays_in_the_former_one_is_told() {
    let scene = Scene::given().await;
    // given a new proxy with all that the former one has, behind whose name another server stands
    scene.b.caddy.load(scene.a.caddy.config());
    scene.foreign.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("it was asked and does not").await;
    assert_eq!(scene.led_meanwhile(Duration::from_secs(1)).await, ["a"]);
    scene.foreign.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!(scene.leads_to(), "b");
    let events: Api<Event> = Api::namespaced(scene.world.client.clone(), "default");
    let notes = events.list(&Default::default()).await.unwrap().items.into_iter().filter_map(|event| event.note);
    let words = "so both addresses are taken for one proxy; if they are two, remove the route for reset.acme.localhost from caddy/";
    assert!(notes.into_iter().any(|note| note.contains(words)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_keeps_its_form_until_it_leads_to_the_new_route() {
    let scene = Scene::given().await;
    scene.foreign.store(true, Ordering::SeqCst);
    scene.world.patch("acme", json!({"spec": {"className": "b", "dns": {"proxied": false, "ttl": 600}}})).await;
    scene.until_told("it was asked and does not").await;
    let proxied = || {
        let records = scene.world.simulators.cloudflare.records();
        records.into_iter().find(|record| record["name"] == HOST).map(|record| record["proxied"].clone())
    };
    scene.work_for(Duration::from_millis(500)).await;
    assert_eq!((scene.leads_to(), proxied()), ("a".to_owned(), Some(json!(true))));
    scene.foreign.store(false, Ordering::SeqCst);
    scene.until_led_to("b").await;
    assert_eq!(proxied(), Some(json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_whose_move_is_over_is_taken_away() {
    let mut scene = Scene::given().await;
    // given a kill between the end of a move and that
    scene.world.stop_daemon().await;
    let place = scene.status().await.place.expect("a place");
    let word = format!("{}-{}", place.class_name, &place.settings[..8]);
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&word)).await;
    scene.world.start_daemon().await;
    let spent = |portal: Option<&ResetPortal>| {
        let annotations = portal.and_then(|portal| portal.metadata.annotations.as_ref());
        !annotations.is_some_and(|all| all.contains_key(ANNOTATION_MOVED_BY_HAND))
    };
    scene.world.until("acme", "without the word", spent).await;
    assert!(condition_of(&scene.world.portals().get("acme").await.unwrap(), "Moved").is_none());
}
