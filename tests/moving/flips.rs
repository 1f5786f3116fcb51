//! When the record may lead to a new route, what counts as its proof, and how long the route stays that it led to.
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use serde_json::json;

use super::{Scene, target};

const SETTLING: Duration = Duration::from_secs(2);

/// Changes of records take a while to settle, and there is much time for a proof.
async fn settling() -> Scene {
    let mut scene = Scene::given().await;
    scene
        .restart_with(|timing| (timing.move_settle, timing.move_patience) = (SETTLING, Duration::from_secs(600)))
        .await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_counts_only_when_the_record_has_led_to_the_new_route_for_a_while() {
    let scene = settling().await;
    // given a record that cannot be changed for longer than a change takes to settle
    scene.refuse_changes_of_records();
    scene.move_to("b").await;
    scene.until_told("the record is to be changed to b.proxies.localhost and is not yet").await;
    scene.work_for(SETTLING + Duration::from_millis(500)).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a b"));
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    // when it is changed at last, and visitors are led the former way for a moment
    scene.stale.store(true, Ordering::SeqCst);
    scene.world.simulators.faults.clear();
    scene.until_led_to("b").await;
    // then what is seen in that moment proves nothing, and the former route stays
    scene.cut.store(true, Ordering::SeqCst);
    scene.stale.store(false, Ordering::SeqCst);
    scene.world.until_condition("acme", "Live", "False", "OriginTimeout").await;
    assert_eq!(scene.routed(), "a b");
    scene.cut.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "a removed while the record leads to b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_called_off_after_the_flip_keeps_the_new_route_until_nobody_is_led_there() {
    let scene = settling().await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    // when it is called off while no record can be changed, then the route stays to which the record leads
    scene.refuse_changes_of_records();
    scene.move_to("a").await;
    scene.world.until_condition("acme", "Moved", "True", "FormerKept").await;
    scene.work_for(SETTLING + Duration::from_millis(500)).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
    // when the record leads back, then it stays until that has settled, and goes
    scene.world.simulators.faults.clear();
    scene.until_led_to("a").await;
    assert_eq!(scene.routed(), "a b");
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "b removed while the record leads to a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_never_led_to_a_route_that_is_seen_to_be_wrong() {
    let scene = Scene::given().await;
    // given that another server answers at the new proxy's name
    scene.foreign.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("it was asked and does not").await;
    // then the record stays where it is, however long that takes
    scene.work_for(scene.world.timing.move_proof * 2).await;
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("a", 0));
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    // until it is right
    scene.foreign.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!(scene.told(), ["b made while the record leads to a", "a removed while the record leads to b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_gets_another_address_keeps_the_route() {
    let scene = Scene::given().await;
    // given a class that names the same proxy in another way
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    let url = scene.a_url.replace("127.0.0.1", "localhost");
    let spec = json!({"spec": {"cnameTarget": target("a"), "proxy": {"caddy": {"adminUrl": url}}}});
    classes.patch("b", &PatchParams::default(), &Patch::Merge(&spec)).await.expect("patched");
    // when the portal moves there, then its route is removed as the former one, and at once made again
    scene.move_to("b").await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
    assert_eq!(scene.told(), ["a removed while the record leads to a", "a made while the record leads to a"]);
    scene.world.delete("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
}
