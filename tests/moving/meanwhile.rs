//! One proxy by two addresses, moves that are called off, and hosts that are changed meanwhile.
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::http::double::Fault;
use serde_json::{Value, json};

use super::{HOST, Scene, is_made, target};
use crate::world::condition_of;

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_gets_another_address_keeps_the_route() {
    let mut scene = Scene::given().await;
    // given a class that names the same proxy in another way
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    let url = scene.a_url.replace("127.0.0.1", "localhost");
    let spec = json!({"spec": {"cnameTarget": target("a"), "proxy": {"caddy": {"adminUrl": url}}}});
    classes.patch("b", &PatchParams::default(), &Patch::Merge(&spec)).await.expect("patched");
    // when the portal moves there, then its route is seen to be there, and nothing is written
    scene.world.stop_daemon().await;
    scene.move_to("b").await;
    assert_eq!(scene.world.plan().await.remove(0).changes, [""; 0]);
    scene.world.start_daemon().await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
    assert_eq!((scene.told(), scene.records_written()), (Vec::<String>::new(), 0));
    scene.world.delete("acme").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("nowhere", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_proxy_by_two_addresses_keeps_its_one_route_until_the_record_is_changed() {
    let mut scene = Scene::given().await;
    // given a class that names the same proxy in another way, with another route and a name that does not exist yet
    let [url, pages] =
        [scene.a_url.clone(), scene.world.pages.to_string()].map(|a| a.replace("127.0.0.1", "localhost"));
    let caddy = json!({"adminUrl": url, "origin": pages});
    let spec = json!({"spec": {"cnameTarget": target("b"), "proxy": {"caddy": caddy}}});
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    classes.patch("b", &PatchParams::default(), &Patch::Merge(&spec)).await.expect("patched");
    scene.missing.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("until the new route can be reached: its name does not exist in DNS").await;
    scene.work_for(scene.world.timing.move_proof).await;
    assert_eq!((scene.leads_to().as_str(), scene.told()), ("a", vec![]), "nothing is written");
    // when it does, then the route follows the record, and both go back where no proof comes
    scene.cut.store(true, Ordering::SeqCst);
    scene.missing.store(false, Ordering::SeqCst);
    scene.world.until_condition("acme", "Moved", "False", "MoveRolledBack").await;
    scene.until_led_to("a").await;
    scene.restart_with(|_| {}).await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    let told = scene.told();
    let moved = condition_of(&scene.world.portals().get("acme").await.unwrap(), "Moved").map(|moved| moved.message);
    assert!(told.iter().all(|deed| deed.starts_with("a rewritten")), "{told:?} {moved:?}");
    assert!(told.iter().any(|deed| deed == "a rewritten while the record leads to b"), "{told:?} {moved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_answer_was_lost_is_not_taken_for_one_that_stood_there_before() {
    let mut scene = Scene::given().await;
    scene.hidden.store(true, Ordering::SeqCst);
    scene.restart_with(|timing| timing.move_proof = Duration::from_secs(600)).await;
    // given a new proxy that does what it is asked and does not answer
    scene.running[2].faults.push("PATCH", "", usize::MAX, Fault::CutAfter);
    scene.move_to("b").await;
    scene.until_story(&["b made while the record leads to a"]).await;
    // when the program is started again and the proxy answers, then both are two proxies all the same
    scene.world.stop_daemon().await;
    scene.running[2].faults.clear();
    scene.hidden.store(false, Ordering::SeqCst);
    scene.world.start_daemon().await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_for_a_third_place_is_not_cleaned_where_it_is_the_homes_own_proxy() {
    let scene = Scene::given().await;
    // given a move to the same proxy by another address, which waits for its name
    let url = scene.a_url.replace("127.0.0.1", "localhost");
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    let change = async |spec: Value| {
        classes.patch("b", &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await.expect("patched");
    };
    change(json!({"cnameTarget": target("b"), "proxy": {"caddy": {"adminUrl": url}}})).await;
    scene.missing.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_told("its name does not exist in DNS").await;
    // when the class gets another proxy meanwhile, then the route stays until the record leads there
    change(scene.second()).await;
    scene.until_story(&["b made while the record leads to a"]).await;
    scene.work_for(scene.world.timing.move_proof).await;
    assert_eq!((scene.leads_to().as_str(), scene.told()), ("a", vec![]));
    scene.missing.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
    assert_eq!(scene.told(), ["a removed while the record leads to b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_the_record_still_leads_to_stays_however_often_the_move_is_called_off() {
    let scene = Scene::given().await;
    // given a record that leads to the new route and cannot be changed any more
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.refuse_changes_of_records();
    scene.hidden.store(true, Ordering::SeqCst);
    for class in ["a", "b", "a"] {
        scene.move_to(class).await;
        if class == "b" {
            scene.until_told("the record is to lead to a.proxies.localhost, which it is not seen to do yet").await;
        } else {
            scene.work_for(scene.world.timing.move_proof).await;
        }
        assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"), "asked for {class}");
    }
    // when it can be, then it is led back, and the other route goes
    scene.hidden.store(false, Ordering::SeqCst);
    scene.world.simulators.faults.clear();
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_host_is_not_moved_because_another_one_is() {
    let scene = Scene::given().await;
    let other = "nowhere.acme.localhost";
    // given a host that is served, and another one that is wanted and cannot be proved, in a move of its own
    scene.world.patch("acme", json!({"spec": {"host": other}})).await;
    scene.world.until("acme", "at the other host", |portal| is_made(portal, other)).await;
    scene.hidden.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_stage("Flipped").await;
    assert_eq!(scene.leads_to(), "a");
    // when the first one is wanted again, then its record does not follow the other's
    scene.world.patch("acme", json!({"spec": {"host": HOST}})).await;
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.push(scene.leads_to());
        assert_eq!(scene.world.get(HOST, "/").await.0, 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let proving = |portal: Option<&portalkeeper::api::ResetPortal>| {
        let moving = portal.and_then(|portal| portal.status.as_ref()?.moving.as_ref());
        moving.is_some_and(|moving| moving.host.as_deref() == Some(HOST))
    };
    scene.world.until("acme", "in a move of its own", proving).await;
    assert!(seen.iter().all(|at| at == "a"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_at_a_former_host_is_not_told_as_there_while_another_place_is_kept() {
    let mut scene = Scene::given().await;
    let other = "other.acme.localhost";
    scene.restart_with(|timing| timing.move_settle = Duration::from_secs(600)).await;
    // given a place that is kept because the record led there
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.move_to("a").await;
    scene.until_led_to("a").await;
    scene.world.until_condition("acme", "Moved", "True", "FormerKept").await;
    // when the host is changed, then what stood at the former one is forgotten with it
    scene.world.patch("acme", json!({"spec": {"host": other}})).await;
    let a = format!("caddy/{}", scene.a_url.trim_start_matches("http://").trim_end_matches('/'));
    let removed = |portal: Option<&portalkeeper::api::ResetPortal>| {
        portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
            let here = |name: &str| {
                let all = status.resources.iter().filter(|made| made.name == name);
                all.filter(|made| made.system == a || made.system == "cloudflare").count()
            };
            (here(HOST), here(other)) == (0, 2)
        })
    };
    let portal = scene.world.until("acme", "at the other host alone", removed).await.expect("the portal");
    assert_eq!(portal.status.unwrap().leaving.len(), 1);
    assert_eq!((scene.leads_to().as_str(), scene.a.caddy.route_for(HOST).is_some()), ("nowhere", false));
}
