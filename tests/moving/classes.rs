//! Classes that cannot be had: whatever their portals ask for, a page that is served somewhere goes on being served.
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use portalkeeper::api::PortalClass;
use serde_json::json;

use super::{HOST, Scene};

fn classes(scene: &Scene) -> Api<PortalClass> {
    Api::all(scene.world.client.clone())
}

fn authority(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// Gives the first class a Secret of its own, and waits until the portal stands there.
async fn with_own_secret(scene: &Scene) -> Api<Secret> {
    let secrets: Api<Secret> = Api::namespaced(scene.world.client.clone(), "portalkeeper");
    secrets.create(&PostParams::default(), &own_secret(&secrets).await).await.unwrap();
    let place = async || scene.world.portals().get("acme").await.unwrap().status.unwrap().place;
    let before = place().await;
    scene.change_class(json!({"cloudflare": {"apiTokenSecretRef": {"name": "own"}}})).await;
    let elsewhere = |portal: Option<&portalkeeper::api::ResetPortal>| {
        portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| status.place != before)
    };
    scene.world.until("acme", "there", elsewhere).await;
    scene.until_moved().await;
    secrets
}

async fn own_secret(secrets: &Api<Secret>) -> Secret {
    let mut own = secrets.get("sandbox").await.unwrap();
    own.metadata = kube::api::ObjectMeta { name: Some("own".into()), ..Default::default() };
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_away_from_a_class_whose_secret_is_missing_waits_for_its_proof_all_the_same() {
    let scene = Scene::given().await;
    let secrets = with_own_secret(&scene).await;
    // given a move that is held because the new proxy shows another page
    scene.foreign.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("it was asked and does not").await;
    scene.told();
    // when the Secret of the former class goes, then the record and the former route stay
    secrets.delete("own", &DeleteParams::default()).await.unwrap();
    scene.until_told("from what PortalClass \"a\" made to").await;
    scene.work_for(scene.world.timing.move_proof * 2).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed(), scene.told()), ("a", "a b", Vec::new()));
    // and when it comes back, too
    secrets.create(&PostParams::default(), &own_secret(&secrets).await).await.unwrap();
    scene.until_told("from caddy/").await;
    scene.work_for(scene.world.timing.move_proof * 2).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed(), scene.told()), ("a", "a b", Vec::new()));
    // until the new proxy shows the page
    scene.foreign.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!(scene.told(), ["a removed while the record leads to b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_away_from_a_class_that_is_deleted_waits_for_its_proof_all_the_same() {
    let scene = Scene::given().await;
    // given a portal that is to move to a proxy that shows another page
    scene.foreign.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("it was asked and does not").await;
    // when the class goes in which it stands, then the record and the former route stay
    classes(&scene).delete("a", &DeleteParams::default()).await.unwrap();
    scene.until_told("from what PortalClass \"a\" made to").await;
    scene.work_for(scene.world.timing.move_proof * 2).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a b"));
    assert_eq!(scene.world.get(HOST, "/").await.0, 200);
    // when the record was changed and the page does not come through that way, then it is changed back
    scene.foreign.store(false, Ordering::SeqCst);
    scene.cut.store(true, Ordering::SeqCst);
    scene.world.until_condition("acme", "Moved", "False", "MoveRolledBack").await;
    scene.until_led_to("a").await;
    assert_eq!(scene.routed(), "a b");
    // and when it does, then the portal is there, and what cannot be removed any more is told
    scene.cut.store(false, Ordering::SeqCst);
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    scene.world.until_ready("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
}

/// Waits until the page's host is answered with this status.
async fn until_answered(scene: &Scene, status: u16) {
    let begun = Instant::now();
    while scene.world.get(HOST, "/").await.0 != status {
        assert!(begun.elapsed() < Duration::from_secs(30), "never answered with {status}");
        scene.world.until("acme", "looked at", |_| true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_goes_while_a_portal_moves_to_it_leaves_the_page_where_it_is() {
    let scene = Scene::held_before_the_flip().await;
    let classes = classes(&scene);
    let mut kept = classes.get("b").await.unwrap();
    // when the class to which the portal moves is deleted
    classes.delete("b", &DeleteParams::default()).await.unwrap();
    let message = scene.world.until_condition("acme", "Accepted", "False", "ClassNotFound").await;
    // then the portal stays where it is, and both that and what cannot be removed are told
    assert_eq!(message, "PortalClass \"b\" does not exist; meanwhile the portal stays in PortalClass \"a\"");
    let message = scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    assert!(message.ends_with(&format!("removed by hand: {HOST} in caddy/{}", authority(&scene.b_url))), "{message}");
    assert_eq!(scene.world.get(HOST, "/").await.0, 200);
    assert_eq!((scene.leads_to().as_str(), scene.routed(), scene.told()), ("a", "a b", Vec::new()));
    // and it is after a restart
    let mut scene = scene;
    scene.restart_with(|_| ()).await;
    until_answered(&scene, 200).await;
    // when the portal is switched off, then the page goes
    scene.world.patch("acme", json!({"spec": {"enabled": false}})).await;
    until_answered(&scene, 421).await;
    scene.world.patch("acme", json!({"spec": {"enabled": true}})).await;
    // when the class is back, then the move goes on
    scene.hidden.store(false, Ordering::SeqCst);
    kept.metadata = kube::api::ObjectMeta { name: Some("b".into()), ..Default::default() };
    classes.create(&PostParams::default(), &kept).await.unwrap();
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
    // and what was left behind there is not, by now
    let status = scene.world.portals().get("acme").await.unwrap().status.unwrap();
    assert_eq!(status.left_behind, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_default_class_takes_no_page_off() {
    let scene = Scene::given().await;
    let second = json!({"spec": {"default": true}});
    classes(&scene).patch("b", &PatchParams::default(), &Patch::Merge(&second)).await.unwrap();
    let message = scene.world.until_condition("acme", "Accepted", "False", "AmbiguousDefaultClass").await;
    assert_eq!(
        message,
        "more than one PortalClass is marked default (a, b); name one in spec.className; meanwhile the portal stays in \
         PortalClass \"a\""
    );
    assert_eq!(scene.world.get(HOST, "/").await.0, 200);
    assert_eq!((scene.leads_to().as_str(), scene.routed(), scene.told()), ("a", "a", Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_for_a_while_takes_no_page_off() {
    let scene = Scene::given().await;
    let secrets: Api<Secret> = Api::namespaced(scene.world.client.clone(), "portalkeeper");
    for secret in secrets.list(&Default::default()).await.unwrap() {
        secrets.delete(&secret.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
    }
    scene.world.until_condition("acme", "Accepted", "False", "SecretNotFound").await;
    assert_eq!(scene.world.get(HOST, "/").await.0, 200);
    assert_eq!((scene.leads_to().as_str(), scene.routed(), scene.told()), ("a", "a", Vec::new()));
}
