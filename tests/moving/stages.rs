//! What is made and removed in a move, in which order, and what becomes of a move that does not work.
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::api::{Api, DeleteParams};
use portalkeeper::api::PortalClass;
use serde_json::json;

use super::{HOST, Scene, target};
use crate::world::condition_of;

#[tokio::test(flavor = "multi_thread")]
async fn a_move_makes_the_new_route_then_flips_the_record_then_removes_the_old_route() {
    let scene = Scene::given().await;
    scene.move_to("b").await;
    scene.until_moved().await;
    assert_eq!(
        scene.told(),
        ["b made while the record leads to a", "a removed while the record leads to b"],
        "and nothing else"
    );
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("b", 1));
    let status = scene.world.portals().get("acme").await.unwrap().status.unwrap();
    assert_eq!(status.class_name.as_deref(), Some("b"));
    assert!(status.conditions.iter().all(|condition| condition.type_ != "Moved"), "{:?}", status.conditions);
    assert!(scene.events().await.contains("Moved"));
    // and back the same way, and nothing is left when it goes
    scene.move_to("a").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["a made while the record leads to b", "b removed while the record leads to a"]);
    scene.world.delete("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_cannot_be_proved_is_rolled_back_and_not_tried_for_ever() {
    let mut scene = Scene::given().await;
    // given a new proxy that answers by its own name and that the edge cannot connect to
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    // then the record is changed back, and the status says why
    let message = scene.world.until_condition("acme", "Moved", "False", "MoveRolledBack").await;
    assert!(message.contains("522: Cloudflare's edge cannot connect to the proxy in time"), "{message}");
    assert!(message.contains(&format!("The record leads to {} again", target("a"))), "{message}");
    scene.world.until_condition("acme", "Ready", "False", "MoveRolledBack").await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    assert_eq!(scene.told(), ["b made while the record leads to a"], "the old route was not touched");
    assert_eq!((scene.leads_to().as_str(), scene.records_written(), scene.routed()), ("a", 2, "a b"));
    assert!(scene.events().await.contains("MoveRolledBack"));
    let status = scene.world.portals().get("acme").await.unwrap().status.unwrap();
    assert_eq!((status.class_name.as_deref(), status.resources.len()), (Some("a"), 3));
    // when it is looked at again, and by another process, then nothing is tried
    scene.restart_with(|_| {}).await;
    scene.world.annotate("acme", "example.com/looked", Some("at")).await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    assert_eq!((scene.told(), scene.records_written()), (Vec::<String>::new(), 0));
    // when the way is free and the portal is changed, then it is
    scene.cut.store(false, Ordering::SeqCst);
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["a removed while the record leads to b"], "the new route was still there");
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("b", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_proxy_that_cannot_be_reached_by_its_own_name_is_proved_through_the_record() {
    let scene = Scene::given().await;
    scene.hidden.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    // and that may be a name of the former one's machine, as long as nobody can look
    scene.until_told("proved, but the resolver gives no answer for the names of both proxies").await;
    scene.work_for(scene.world.timing.move_patience * 2).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
    scene.hidden.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "a removed while the record leads to b"]);
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(scene.world.client.clone(), "default");
    let notes: Vec<String> = events
        .list(&Default::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("Moved"))
        .filter_map(|event| event.note)
        .collect();
    let words = format!("before the record was changed: the resolver gave no answer for {}", target("b"));
    assert!(notes.len() == 1 && notes[0].contains(&words), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_interrupted_at_any_stage_is_finished_by_the_next_process() {
    // before the record is changed
    let mut scene = Scene::held_before_the_flip().await;
    scene.restart_with(|_| {}).await;
    scene.world.until_condition("acme", "Moved", "Unknown", "Moving").await;
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("a", 0));
    scene.world.stop_daemon().await;
    scene.hidden.store(false, Ordering::SeqCst);
    // after it was changed
    scene.cut.store(true, Ordering::SeqCst);
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    scene.until_stage("Flipped").await;
    scene.world.until("acme", "led to b", |_| scene.leads_to() == "b").await;
    scene.restart_with(|_| {}).await;
    let message = scene.world.until_condition("acme", "Live", "False", "OriginTimeout").await;
    assert!(message.contains("522"), "{message}");
    assert_eq!(scene.routed(), "a b", "the old route stays until the new one is proved");
    scene.cut.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!(scene.told(), ["a removed while the record leads to b"]);
    assert_eq!((scene.records_written(), scene.routed()), (1, "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_called_off_leaves_nothing_in_the_new_proxy() {
    let scene = Scene::held_before_the_flip().await;
    scene.move_to("a").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b removed while the record leads to a"]);
    assert_eq!((scene.leads_to().as_str(), scene.records_written(), scene.routed()), ("a", 0, "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_goes_in_the_middle_of_a_move_leaves_nothing_in_either_proxy() {
    let scene = Scene::held_before_the_flip().await;
    scene.world.delete("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
    // and so does one that is switched off
    let scene = Scene::held_before_the_flip().await;
    scene.world.patch("acme", json!({"spec": {"enabled": false}})).await;
    scene.world.until_condition("acme", "Ready", "False", "Disabled").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_gets_another_proxy_moves_its_portals_even_when_nobody_ran_meanwhile() {
    let mut scene = Scene::given().await;
    // given a class that was changed while the program was stopped
    scene.world.stop_daemon().await;
    scene.change_class(scene.second()).await;
    scene.world.start_daemon().await;
    // then what stood in the former proxy is removed by its former settings
    scene.world.until("acme", "led to b", |_| scene.leads_to() == "b").await;
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "a removed while the record leads to b"]);
    // which are forgotten when nobody needs them any more
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    for _ in 0..1000 {
        let status = classes.get("a").await.unwrap().status.unwrap_or_default();
        assert!(!json!(status).to_string().contains("sandbox-cloudflare-token"), "no secret is kept");
        if status.settings.len() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the former settings stay: {:?}", classes.get("a").await.unwrap().status);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_removed_any_more_is_told_and_stays_in_the_status() {
    let scene = Scene::given().await;
    // given a class that is deleted, with its credentials
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    classes.delete("a", &DeleteParams::default()).await.unwrap();
    scene.move_to("b").await;
    let message = scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    assert!(message.contains(&format!("removed by hand: {HOST} in caddy/")), "{message}");
    scene.world.until_ready("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
    assert!(scene.events().await.contains("LeftBehind"));
    // and it is still there when it is looked at again
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    let portal = scene.world.portals().get("acme").await.unwrap();
    assert_eq!(portal.status.as_ref().unwrap().left_behind.len(), 1);
    assert!(condition_of(&portal, "Ready").is_some_and(|ready| ready.status == "True"));
}
