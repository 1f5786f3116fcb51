//! Moves between classes that are missing, refuse the portal or lack a Secret; and portals that are switched off meanwhile.
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use portalkeeper::api::{PortalClass, ResetPortal};
use portalkeeper::backends::cloudflare_api::double::ACCOUNT;
use serde_json::{Value, json};

use super::{HOST, Scene, target};

const TUNNEL: &str = "c1744f8b-faa1-48a4-9e5c-02ac921467fa";

impl Scene {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.world.client.clone(), "portalkeeper")
    }
    /// A Secret for one class alone.
    async fn make_own_secret(&self) {
        let mut own = self.secrets().get("sandbox").await.unwrap();
        own.metadata = kube::api::ObjectMeta { name: Some("own".into()), ..Default::default() };
        self.secrets().create(&PostParams::default(), &own).await.unwrap();
    }
    async fn delete_own_secret(&self) {
        self.secrets().delete("own", &DeleteParams::default()).await.unwrap();
    }
    /// The first class gets its token from a Secret of its own.
    async fn with_a_secret_of_its_own() -> Self {
        let scene = Self::given().await;
        scene.make_own_secret().await;
        let before = scene.status().await.place;
        scene.edit_class("a", json!({"cloudflare": {"apiTokenSecretRef": {"name": "own"}}})).await;
        let elsewhere = |portal: Option<&ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| status.place != before)
        };
        scene.world.until("acme", "under the new settings", elsewhere).await;
        scene.until_moved().await;
        scene.told();
        scene
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_route_stays_until_the_record_is_changed_though_the_former_class_cannot_be_had() {
    for gone in [false, true] {
        let mut scene = Scene::with_a_secret_of_its_own().await;
        scene.second_class_in_the_first_proxy().await;
        scene.missing.store(true, Ordering::SeqCst);
        scene.world.stop_daemon().await;
        if gone {
            let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
            classes.delete("a", &DeleteParams::default()).await.unwrap();
        } else {
            scene.delete_own_secret().await;
        }
        scene.move_to("b").await;
        scene.world.start_daemon().await;
        scene.until_told("its name does not exist in DNS").await;
        assert_eq!((scene.leads_to().as_str(), scene.told()), ("a", vec![]), "gone: {gone}");
        // when its name is there, then record and route change together
        scene.missing.store(false, Ordering::SeqCst);
        scene.until_led_to("b").await;
        scene.until_story(&["a rewritten while the record leads to b"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_whose_secret_is_missing_still_tells_where_its_record_led() {
    let scene = Scene::with_a_secret_of_its_own().await;
    scene.delete_own_secret().await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.until_told("The record leads to a.proxies.localhost again").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_of_one_public_address_though_the_former_secret_is_missing() {
    let scene = Scene::with_a_secret_of_its_own().await;
    scene.edit_class("b", json!({"cnameTarget": target("a")})).await;
    scene.delete_own_secret().await;
    scene.move_to("b").await;
    scene.world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    // when the Secret is back, then nothing was decided without that person
    scene.make_own_secret().await;
    scene.until_told("from caddy/").await;
    scene.work_for(Duration::from_millis(700)).await;
    assert_eq!(scene.routed(), "a b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_new_class_cannot_lead_it_on_is_led_back_by_the_former_one() {
    for refused in [false, true] {
        let scene = Scene::given().await;
        scene.make_own_secret().await;
        scene.edit_class("b", json!({"cloudflare": {"apiTokenSecretRef": {"name": "own"}}})).await;
        scene.cut.store(true, Ordering::SeqCst);
        scene.move_to("b").await;
        scene.until_led_to("b").await;
        // when its Secret goes, or it does not fit the portal any more
        let reason = if refused {
            scene.edit_class("b", json!({"cnameTarget": HOST})).await;
            "HostIsTarget"
        } else {
            scene.delete_own_secret().await;
            "SecretNotFound"
        };
        scene.until_led_to("a").await;
        let words = scene.world.until_condition("acme", "Accepted", "False", reason).await;
        assert!(words.ends_with("; meanwhile the portal stays in PortalClass \"a\""), "{words}");
        assert_eq!(scene.world.get(HOST, "/").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_stays_where_it_is_while_the_class_that_it_asks_for_refuses_it() {
    let scene = Scene::given().await;
    scene.edit_class("b", json!({"grants": [{"namespaces": ["elsewhere"], "mailDomains": ["*"]}]})).await;
    scene.move_to("b").await;
    let words = scene.world.until_condition("acme", "Accepted", "False", "NotGranted").await;
    assert!(words.ends_with("; meanwhile the portal stays in PortalClass \"a\""), "{words}");
    scene.work_for(Duration::from_millis(500)).await;
    assert_eq!((scene.world.get(HOST, "/").await.0, scene.leads_to().as_str(), scene.routed()), (200, "a", "a"));
    assert_eq!(scene.told(), Vec::<String>::new());
    // but not when the class that it is in refuses it, too
    scene.edit_class("a", json!({"grants": [{"namespaces": ["elsewhere"], "mailDomains": ["*"]}]})).await;
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    let off = async || scene.world.get(HOST, "/").await.0 == 421;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !off().await {
        assert!(tokio::time::Instant::now() < end, "still served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_was_off_begins_where_it_is_to_be() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_proof = Duration::from_secs(600)).await;
    let off = async || {
        scene.world.patch("acme", json!({"spec": {"enabled": false}})).await;
        scene.world.until_condition("acme", "Ready", "False", "Disabled").await;
        assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
    };
    // when the class is changed together with that, then the record never leads to where nothing is
    off().await;
    scene.hidden.store(true, Ordering::SeqCst);
    scene.told();
    scene.world.patch("acme", json!({"spec": {"enabled": true, "className": "b"}})).await;
    scene.until_led_to("b").await;
    scene.world.until("acme", "routed", |_| scene.routed() == "b").await;
    // and neither when the class is edited meanwhile
    off().await;
    scene.edit_class("b", json!({"cnameTarget": target("a"), "proxy": {"caddy": {"adminUrl": scene.a_url}}})).await;
    scene.world.patch("acme", json!({"spec": {"enabled": true}})).await;
    let led = scene.led_meanwhile(Duration::from_secs(1)).await;
    assert!(led.iter().all(|at| at != "b"), "{led:?}");
    scene.world.until("acme", "routed", |_| scene.routed() == "a" && scene.leads_to() == "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_misspelled_from_the_first_day_is_put_right_without_a_move() {
    let scene = Scene::given().await;
    scene.third_class("x", json!({"adminUrl": "http://127.0.0.1:1"})).await;
    scene.edit_class("x", json!({"cnameTarget": target("a")})).await;
    scene.world.create("globex", json!({"domain": "globex.localhost", "className": "x"})).await;
    scene.world.until_condition("globex", "RouteProgrammed", "False", "Unreachable").await;
    scene.edit_class("x", json!({"proxy": {"caddy": {"adminUrl": scene.a_url}}})).await;
    let message = scene.world.until_condition("globex", "Moved", "True", "FormerNotRemoved").await;
    assert!(message.contains("http://127.0.0.1:1"), "{message}");
    scene.world.until_ready("globex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_never_taken_away_because_the_former_class_does_not_fit_any_more() {
    let mut scene = Scene::given().await;
    scene.world.simulators.cloudflare.add_tunnel(TUNNEL, json!({"ingress": [{"service": "http_status:404"}]}));
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    let mut spec = json!(classes.get("b").await.unwrap().spec);
    spec["cnameTarget"] = Value::Null;
    spec["cloudflare"]["accountId"] = json!(ACCOUNT);
    spec["probe"] = json!({"enabled": false});
    spec["proxy"] =
        json!({"cloudflareTunnel": {"tunnelId": TUNNEL, "origin": format!("http://{}/", scene.world.pages)}});
    let class = json!({
        "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": "t"}, "spec": spec,
    });
    scene.world.put(&class).await;
    scene.move_to("t").await;
    let cloudflare = scene.world.simulators.cloudflare.clone();
    let in_tunnel = || {
        let records = cloudflare.records();
        let record = records.into_iter().find(|record| record["name"] == HOST).unwrap_or_default();
        record["content"] == format!("{TUNNEL}.cfargotunnel.com") && record["proxied"] == true
    };
    scene.until_moved_to("t").await;
    assert!(in_tunnel());
    // when it is to leave a tunnel for a record that is not proxied, which no tunnel has
    scene.restart_with(|timing| timing.move_proof = Duration::from_secs(600)).await;
    scene.hidden.store(true, Ordering::SeqCst);
    scene.world.patch("acme", json!({"spec": {"className": "b", "dns": {"proxied": false}}})).await;
    scene.until_told(&format!("the record leads to {TUNNEL}.cfargotunnel.com until the new route")).await;
    scene.work_for(Duration::from_millis(500)).await;
    assert!(in_tunnel(), "{:?}", cloudflare.records());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tried_is_not_kept_by_a_portal_that_leaves_its_things() {
    let scene = Scene::held_before_the_flip().await;
    scene.world.patch("acme", json!({"spec": {"deletionPolicy": "Retain"}})).await;
    scene.work_for(Duration::from_millis(300)).await;
    scene.world.delete("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_leaves_of_a_trial_is_told_when_its_class_goes() {
    let mut scene = Scene::given().await;
    // given a route that is being tried, which takes its time
    scene.running[3].faults.push("GET", "", usize::MAX, portalkeeper::http::double::Fault::HangBefore);
    scene.move_to("b").await;
    let noted = |portal: Option<&ResetPortal>| {
        portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| status.resources.len() == 3)
    };
    scene.world.until("acme", "noted", noted).await;
    let at_kill = scene.status().await;
    scene.world.stop_daemon().await;
    let patch = json!({"status": {"resources": at_kill.resources, "moving": at_kill.moving}});
    scene.world.portals().patch_status("acme", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    classes.delete("b", &DeleteParams::default()).await.unwrap();
    scene.world.start_daemon().await;
    let message = scene.world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    assert!(message.contains(&format!("{HOST} in caddy/")), "{message}");
}
