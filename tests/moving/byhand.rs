//! Moves of which only a person can say that visitors go the new way.
use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use portalkeeper::api::{ANNOTATION_MOVED_BY_HAND, PortalClass};
use serde_json::{Value, json};

use super::{HOST, Scene, is_made, target};
use crate::world::condition_of;

const ONE_ADDRESS: &str = "the route of PortalClass \"b\" has the public address of the former one, so that it cannot be seen from \
                           here which of them serves visitors; the former one stays until you annotate the portal with \
                           portalkeeper.dev/moved-by-hand=b-";

async fn patch_class(scene: &Scene, class: &str, spec: Value) {
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    classes.patch(class, &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
}

impl Scene {
    async fn wait_and_see_that_nothing_moves(&self) {
        self.work_for(self.world.timing.move_proof * 2).await;
        assert_eq!((self.leads_to().as_str(), self.routed()), ("a", "a b"));
    }
    /// What a person says for the place that the portal moves to.
    pub(super) async fn word(&self) -> String {
        let to = self.world.portals().get("acme").await.unwrap().status.unwrap().moving.expect("a move").to;
        format!("{}-{}", to.class_name, &to.settings[..8])
    }
    /// Waits until nothing of the move is left in the status but the route.
    async fn until_moved_by_hand(&self) {
        let gone = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
                status.moving.is_none() && status.leaving.is_empty() && status.resources.len() == 1
            })
        };
        self.world.until("acme", "moved", gone).await;
        self.world.until_ready("acme").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_without_an_account_gets_the_portal_when_somebody_has_led_the_record_there() {
    let scene = Scene::given().await;
    // given a second class that makes no records
    let without = json!({"spec": {"cloudflare": null}});
    patch_class(&scene, "b", without).await;
    // when a portal moves there, then the record that was made for it stays, with the route that it leads to
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    let words = format!(
        "PortalClass \"b\" has no Cloudflare account, so the record stays as it was made and leads to {}, where the former \
         route serves visitors; lead it to {} by hand",
        target("a"),
        target("b")
    );
    assert!(message.contains(&words), "{message}");
    scene.wait_and_see_that_nothing_moves().await;
    assert_eq!(scene.records_written(), 0);
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    // when somebody changes something else about it, or takes the mark off, then that is no other place
    scene.world.simulators.cloudflare.edit(HOST, "proxied", json!(false));
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.simulators.cloudflare.edit_comment(HOST, "");
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.patch("acme", json!({"spec": {"dns": {"proxied": false, "ttl": 60}}})).await;
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.patch("acme", json!({"spec": {"dns": {"proxied": true, "ttl": 1}}})).await;
    scene.wait_and_see_that_nothing_moves().await;
    // when somebody changes where it leads, then the portal has moved, and the record is theirs
    scene.world.simulators.cloudflare.edit(HOST, "content", json!(target("b")));
    scene.world.until_ready("acme").await;
    let gone = |portal: Option<&portalkeeper::api::ResetPortal>| {
        portal
            .and_then(|portal| portal.status.as_ref())
            .is_some_and(|status| status.moving.is_none() && status.leaving.is_empty() && status.resources.len() == 1)
    };
    scene.world.until("acme", "moved", gone).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
    let records = scene.world.simulators.cloudflare.records();
    assert_eq!((records.len(), &records[0]["comment"]), (1, &json!("")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_class_that_cannot_be_had_says_nothing_about_the_record() {
    let scene = Scene::given().await;
    patch_class(&scene, "b", json!({"spec": {"cloudflare": null}})).await;
    scene.move_to("b").await;
    scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    // when the former class's account cannot be asked any more, and when it can again
    let secrets: Api<Secret> = Api::namespaced(scene.world.client.clone(), "portalkeeper");
    let mut kept = secrets.get("sandbox").await.unwrap();
    let words = "from what PortalClass \"a\" made";
    kept.metadata = kube::api::ObjectMeta { name: Some("sandbox".into()), ..Default::default() };
    let mut without = kept.clone();
    without.data.as_mut().unwrap().remove("cloudflare-token");
    secrets.delete("sandbox", &DeleteParams::default()).await.unwrap();
    secrets.create(&Default::default(), &without).await.unwrap();
    scene.until_told(words).await;
    scene.wait_and_see_that_nothing_moves().await;
    secrets.delete("sandbox", &DeleteParams::default()).await.unwrap();
    secrets.create(&Default::default(), &kept).await.unwrap();
    scene.until_told("from caddy/").await;
    scene.wait_and_see_that_nothing_moves().await;
    // and when the class is gone, then a person's word counts
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    classes.delete("a", &DeleteParams::default()).await.unwrap();
    scene.until_told(words).await;
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.simulators.cloudflare.edit(HOST, "content", json!(target("b")));
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn between_classes_without_accounts_a_person_says_when_the_record_is_changed() {
    let scene = Scene::given().await;
    // given a portal whose record was given up with the account
    // and whose two proxies have one public name
    let name = target("a");
    for class in ["a", "b"] {
        patch_class(&scene, class, json!({"spec": {"cloudflare": null, "cnameTarget": name}})).await;
    }
    scene.until_moved_by_hand().await;
    // when it moves on to another proxy, then its route stays until somebody says that nobody needs it
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    assert!(message.contains(ONE_ADDRESS), "{message}");
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some("b")).await;
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.simulators.cloudflare.edit(HOST, "content", json!(target("b")));
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_moved_by_hand().await;
    assert_eq!(scene.routed(), "b");
    // and that word is not taken for another move
    let portal = scene.world.portals().get("acme").await.unwrap();
    assert!(!portal.metadata.annotations.unwrap_or_default().contains_key(ANNOTATION_MOVED_BY_HAND));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_proxies_behind_one_name_a_person_says_which_has_the_visitors() {
    let mut scene = Scene::given().await;
    // given another proxy that is to take the public address of the first one over, and can be asked at one of its own
    let front_of_b = scene.world.names.addresses(&target("b"), 443).await.unwrap()[0].to_string();
    patch_class(&scene, "b", json!({"spec": {"cnameTarget": target("a"), "probe": {"address": front_of_b}}})).await;
    // when a portal moves, then the proof that comes through the former proxy is no reason to remove its route
    scene.world.stop_daemon().await;
    scene.move_to("b").await;
    let plans = scene.world.plan().await;
    let last = plans[0].changes.last().unwrap();
    assert!(last.starts_with("when portalkeeper.dev/moved-by-hand=b-") && last.contains(" says so, caddy/"), "{last}");
    scene.world.start_daemon().await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    assert!(message.contains(ONE_ADDRESS), "{message}");
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    scene.restart_with(|_| {}).await;
    scene.wait_and_see_that_nothing_moves().await;
    assert_eq!(scene.told(), ["b made while the record leads to a"]);
    // when somebody says that visitors come to the new one, then the former route goes, and the record stays as it is
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.records_written(), scene.routed()), ("a", 0, "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_machine_are_one_address() {
    let mut scene = Scene::given().await;
    scene.one_machine.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    assert!(message.contains(ONE_ADDRESS), "{message}");
    scene.wait_and_see_that_nothing_moves().await;
    // and an answer that a resolver owes for a while changes nothing about it
    scene.hidden.store(true, Ordering::SeqCst);
    scene.restart_with(|_| {}).await;
    scene.wait_and_see_that_nothing_moves().await;
    scene.hidden.store(false, Ordering::SeqCst);
    assert_eq!(scene.records_written(), 0);
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.records_written(), scene.routed()), ("b", 1, "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_that_nobody_can_look_up_may_be_of_one_machine() {
    let scene = Scene::given().await;
    // given a resolver that fails while the record is changed
    scene.one_machine.store(true, Ordering::SeqCst);
    scene.hidden.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("which you do when visitors come to the new proxy").await;
    assert_eq!(scene.routed(), "a b");
    // when it answers again, then a person is asked as if it always had
    scene.hidden.store(false, Ordering::SeqCst);
    scene.until_told(ONE_ADDRESS).await;
    scene.until_led_to("a").await;
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_behind_the_edge_may_be_of_one_machine_also_when_the_move_is_called_off() {
    let scene = Scene::given().await;
    scene.orange.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("it stays until you annotate the portal with portalkeeper.dev/moved-by-hand=b-").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
    // when it is called off, then the record goes back and both routes stay
    scene.move_to("a").await;
    scene.until_led_to("a").await;
    scene.until_told("is called off, and it cannot be seen from here which of both serves visitors").await;
    scene.wait_and_see_that_nothing_moves().await;
    // until somebody says that visitors come to the first one
    let moved = condition_of(&scene.world.portals().get("acme").await.unwrap(), "Moved").unwrap().message;
    let word = moved.split("portalkeeper.dev/moved-by-hand=").nth(1).unwrap().split(',').next().unwrap();
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(word)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_word_does_not_keep_a_record_where_nothing_is_seen() {
    let scene = Scene::given().await;
    scene.one_machine.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    // when somebody says it too early, then the record is led back where no proof comes
    scene.cut.store(true, Ordering::SeqCst);
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_led_to("b").await;
    scene.until_told("The record leads to a.proxies.localhost again").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_gets_an_account_at_the_same_name_asks_as_well() {
    let scene = Scene::given().await;
    // given a class whose records are made by hand, and another one with an account for the same public name
    patch_class(&scene, "a", json!({"spec": {"cloudflare": null, "cnameTarget": target("a")}})).await;
    patch_class(&scene, "b", json!({"spec": {"cnameTarget": target("a")}})).await;
    scene.until_moved_by_hand().await;
    scene.world.annotate("acme", portalkeeper::api::ANNOTATION_ADOPT, Some("true")).await;
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    assert!(message.contains(ONE_ADDRESS), "{message}");
    scene.wait_and_see_that_nothing_moves().await;
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_move_to_the_same_address_is_called_off_a_person_says_who_has_the_visitors() {
    let scene = Scene::given().await;
    patch_class(&scene, "b", json!({"spec": {"cnameTarget": target("a")}})).await;
    scene.move_to("b").await;
    scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    // when it is called off, then the other proxy may be the one that has the port by now
    scene.move_to("a").await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    assert!(
        message.contains("a move to a proxy that has, or may have, the same public address is called off"),
        "{message}"
    );
    scene.wait_and_see_that_nothing_moves().await;
    let word = message.split("portalkeeper.dev/moved-by-hand=").nth(1).unwrap().split(',').next().unwrap();
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(word)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_made_by_hand_at_the_same_address_waits_for_a_persons_word() {
    let scene = Scene::given().await;
    // given a class whose routes are made by hand in the proxy that the portal has now
    patch_class(&scene, "b", json!({"spec": {"cnameTarget": target("a"), "proxy": {"caddy": null, "manual": {}}}}))
        .await;
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    let words = "the route of PortalClass \"b\" is made by hand and has the public address of the former one";
    assert!(message.contains(words), "{message}");
    scene.work_for(scene.world.timing.move_proof * 2).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
    // when somebody has made it, then the one that was made here goes
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.world.until("acme", "without a route", |_| scene.routed().is_empty()).await;
    assert_eq!(scene.leads_to(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_led_back_keeps_the_former_route() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_settle = std::time::Duration::from_secs(600)).await;
    patch_class(&scene, "b", json!({"spec": {"cloudflare": null}})).await;
    scene.move_to("b").await;
    scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    let flipped = |portal: Option<&portalkeeper::api::ResetPortal>| {
        portal.and_then(|portal| portal.status.as_ref()?.moving.as_ref()).is_some_and(|moving| moving.flipped.is_some())
    };
    // when somebody leads the record there and thinks better of it
    scene.world.simulators.cloudflare.edit(HOST, "content", json!(target("b")));
    scene.world.until("acme", "led to b", flipped).await;
    scene.world.simulators.cloudflare.edit(HOST, "content", json!(target("a")));
    scene.world.until("acme", "not led to b", |portal| !flipped(portal)).await;
    scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    scene.wait_and_see_that_nothing_moves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_changed_in_a_move_waits_for_its_end() {
    let scene = Scene::given().await;
    let other = "other.acme.localhost";
    // given a move whose record is changed and whose proof does not come
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    // when the host is changed, then the record of the former one is led back first
    scene.world.patch("acme", json!({"spec": {"host": other}})).await;
    scene.until_led_to("a").await;
    assert!(scene.a.caddy.route_for(HOST).is_some());
    assert_eq!(scene.world.get(HOST, "/").await.0, 200);
    // and then the other one is made
    scene.world.until("acme", "at the other host", |portal| is_made(portal, other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_led_back_yet_is_before_the_host_is_changed() {
    let scene = Scene::given().await;
    let other = "other.acme.localhost";
    // given a move that is rolled back while no record can be changed
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.refuse_changes_of_records();
    scene.until_told("is to lead to a.proxies.localhost again and is not changed back yet").await;
    // when the host is changed, then nothing is made there
    scene.world.patch("acme", json!({"spec": {"host": other}})).await;
    scene.until_told("; the host is changed to other.acme.localhost when that is done").await;
    scene.work_for(scene.world.timing.move_proof).await;
    assert!(!is_made(Some(&scene.world.portals().get("acme").await.unwrap()), other));
    // before the record is led back, which needs nobody
    scene.world.simulators.faults.clear();
    let back = |portal: Option<&portalkeeper::api::ResetPortal>| {
        assert!(!is_made(portal, other) || scene.leads_to() != "b", "made while the record leads to the wrong place");
        scene.leads_to() == "a"
    };
    scene.world.until("acme", "led back", back).await;
    scene.world.until("acme", "at the other host", |portal| is_made(portal, other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_can_never_be_led_back_holds_nothing_up_for_ever() {
    let mut scene = Scene::given().await;
    let other = "other.acme.localhost";
    // given a roll-back while no record can be changed, and a host that is changed
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.refuse_changes_of_records();
    scene.until_told("is not changed back yet, which is tried on and on").await;
    scene.world.patch("acme", json!({"spec": {"host": other}})).await;
    scene.until_told("; the host is changed to other.acme.localhost when that is done").await;
    scene.work_for(scene.world.timing.move_proof).await;
    assert!(!is_made(Some(&scene.world.portals().get("acme").await.unwrap()), other));
    // when it was tried long enough, then the other host is made
    scene.restart_with(|timing| timing.letting_go = std::time::Duration::from_secs(1)).await;
    scene.world.until("acme", "at the other host", |portal| is_made(portal, other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_without_accounts_and_with_names_of_their_own_are_told_as_such() {
    let scene = Scene::given().await;
    for class in ["a", "b"] {
        patch_class(&scene, class, json!({"spec": {"cloudflare": null, "cnameTarget": target(class)}})).await;
    }
    scene.until_moved_by_hand().await;
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    let words = "PortalClass \"b\" has no Cloudflare account, so it cannot be seen from here where the record leads, and the \
                 former route stays; lead it to b.proxies.localhost by hand";
    assert!(message.contains(words), "{message}");
}
