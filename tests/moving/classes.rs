//! Classes that cannot be had: whatever their portals ask for, a page that is served somewhere goes on being served.
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use portalkeeper::api::PortalClass;
use serde_json::json;

use super::{HOST, Scene};

fn classes(scene: &Scene) -> Api<PortalClass> {
    Api::all(scene.world.client.clone())
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
    // then the page is served as before, nothing is changed, and the message says so
    assert_eq!(
        message,
        "PortalClass \"b\" does not exist; meanwhile the page is served by PortalClass \"a\" as before, and nothing is \
         changed outside"
    );
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
    scene.hidden.store(false, std::sync::atomic::Ordering::SeqCst);
    kept.metadata = kube::api::ObjectMeta { name: Some("b".into()), ..Default::default() };
    classes.create(&PostParams::default(), &kept).await.unwrap();
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_default_class_takes_no_page_off() {
    let scene = Scene::given().await;
    let second = json!({"spec": {"default": true}});
    classes(&scene).patch("b", &PatchParams::default(), &Patch::Merge(&second)).await.unwrap();
    let message = scene.world.until_condition("acme", "Accepted", "False", "AmbiguousDefaultClass").await;
    assert_eq!(
        message,
        "more than one PortalClass is marked default (a, b); name one in spec.className; meanwhile the page is served by \
         PortalClass \"a\" as before, and nothing is changed outside"
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
