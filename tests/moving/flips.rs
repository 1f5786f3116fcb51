//! When the record may lead to a new route, what counts as its proof, and how long the route stays that it led to.
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::{ANNOTATION_MOVED_BY_HAND, PortalClass};
use serde_json::json;

use super::{HOST, Scene, target};

const SETTLING: Duration = Duration::from_secs(2);

/// Changes of records take a while to settle, and there is much time for a proof.
async fn settling() -> Scene {
    let mut scene = Scene::given().await;
    scene
        .restart_with(|timing| (timing.move_settle, timing.move_patience) = (SETTLING, Duration::from_secs(600)))
        .await;
    scene
}

impl Scene {
    /// Since when the record leads to the new route, once that is later than `before` (RFC 3339).
    async fn until_flipped(&self, before: &str) -> String {
        let seen = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()?.moving.as_ref()?.flipped.clone())
        };
        let later = |portal: Option<&portalkeeper::api::ResetPortal>| seen(portal).is_some_and(|at| *at > *before);
        let portal = self.world.until("acme", &format!("flipped after {before:?}"), later).await;
        seen(portal.as_ref()).expect("a time")
    }
}

/// Gives the second class the first one's proxy with another origin, and a public name behind which nothing answers.
async fn in_one_proxy(scene: &Scene) -> String {
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    let origin = format!("localhost:{}", scene.world.pages.port());
    let spec = json!({"spec": {"proxy": {"caddy": {"adminUrl": scene.a_url, "origin": origin}}}});
    classes.patch("b", &PatchParams::default(), &Patch::Merge(&spec)).await.expect("patched");
    scene.foreign.store(true, Ordering::SeqCst);
    origin
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
async fn a_record_that_somebody_led_back_meanwhile_begins_to_settle_anew() {
    let mut scene = settling().await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    let first = scene.until_flipped("").await;
    // given a record that somebody leads back while nobody looks, for longer than a change takes to settle
    scene.world.stop_daemon().await;
    scene.world.simulators.cloudflare.edit(HOST, "content", json!(target("a")));
    scene.work_for(SETTLING + Duration::from_secs(1)).await;
    // when it is led to the new route again, then it has to settle again
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    scene.world.start_daemon().await;
    scene.until_led_to("b").await;
    scene.until_flipped(&first).await;
    assert_eq!(scene.routed(), "a b");
    scene.cut.store(false, Ordering::SeqCst);
    scene.until_moved().await;
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
async fn a_host_that_is_changed_back_in_a_move_leads_nobody_to_what_is_not_proved() {
    let scene = Scene::given().await;
    // given a new proxy in which somebody has both hosts, and a portal whose host and class are changed together
    let before = scene.b.caddy.config();
    let mut taken = before.clone();
    let servers = taken["apps"]["http"]["servers"].as_object_mut().expect("servers");
    let routes = servers.values_mut().next().expect("a server")["routes"].as_array_mut().expect("routes");
    routes.push(json!({"match": [{"host": ["other.acme.localhost"]}], "handle": [], "terminal": true}));
    routes.push(json!({"match": [{"host": [super::HOST]}], "handle": [], "terminal": true}));
    scene.b.caddy.load(taken);
    scene.world.patch("acme", json!({"spec": {"className": "b", "subdomain": "other"}})).await;
    scene.world.until_condition("acme", "RouteProgrammed", "False", "ForeignRoute").await;
    // when the host is changed back, then its record stays where it is served
    scene.world.patch("acme", json!({"spec": {"subdomain": "reset"}})).await;
    scene.until_told("the record leads to a.proxies.localhost until").await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    scene.records_written();
    scene.work_for(Duration::from_millis(700)).await;
    assert_eq!((scene.leads_to().as_str(), scene.records_written()), ("a", 0));
    // and when the way is free, then it moves like any other
    scene.b.caddy.load(before);
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_takes_the_place_of_the_former_one_moves_together_with_the_record_and_back() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(3)).await;
    let origin = in_one_proxy(&scene).await;
    // when the portal is to move there and no record can be changed, then the route stays as it is
    scene.refuse_changes_of_records();
    scene.move_to("b").await;
    scene.until_told("the record is to be changed to b.proxies.localhost and is not yet").await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    assert_eq!((scene.told(), scene.leads_to().as_str()), (vec![], "a"));
    // when it can, then both change, and without a proof back
    scene.world.simulators.faults.clear();
    scene.world.until_condition("acme", "Moved", "False", "MoveRolledBack").await;
    scene.world.until_condition("acme", "Live", "True", "Proved").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a"));
    let told = scene.told();
    assert_eq!(told[0], "a rewritten while the record leads to b", "{origin}");
    assert!(told.len() == 2 && told[1].starts_with("a rewritten"), "{told:?}");
    assert_eq!(scene.a.caddy.route_for(super::HOST), Some(scene.world.pages.to_string()), "by its former settings");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_to_a_third_place_begins_where_the_route_is_by_now() {
    // given a move within one proxy, whose route and record have changed
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    let origin = in_one_proxy(&scene).await;
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    // when the portal is to go on to a third place, which cannot be proved
    let classes: Api<PortalClass> = Api::all(scene.world.client.clone());
    let mut third = classes.get("b").await.expect("a class").spec;
    third.cname_target = Some(target("c"));
    third.proxy.caddy.as_mut().expect("a Caddy").admin_url = scene.b_url.clone();
    let third = json!({
        "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": "c"}, "spec": third,
    });
    scene.world.put(&third).await;
    scene.move_to("c").await;
    scene.until_told("the record leads to b.proxies.localhost until").await;
    // then the record stays with the route
    scene.work_for(Duration::from_millis(700)).await;
    assert_eq!((scene.leads_to().as_str(), scene.a.caddy.route_for(super::HOST)), ("b", Some(origin)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_never_led_to_a_name_that_does_not_exist() {
    let scene = Scene::given().await;
    // given a proxy whose name has no record, perhaps for a slip of the pen
    scene.missing.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    // then the move waits for it, however long, and says what to do
    let words = format!(
        "the new route can be reached: {} does not exist in DNS: this is the name of the proxy (cnameTarget, \
         RESET_PORTAL_CNAME_TARGET) to which the portal's record would lead; make a record for it, or correct it in the \
         class; where only visitors see that name, name the proxy's address and port in the class as probe.address",
        target("b")
    );
    scene.until_told(&words).await;
    scene.work_for(scene.world.timing.move_proof + Duration::from_millis(500)).await;
    scene.until_told(&words).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a b"));
    // when it is there, then the move goes on
    scene.missing.store(false, Ordering::SeqCst);
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_edge_shows_for_the_proxys_own_name_proves_nothing() {
    let scene = Scene::given().await;
    // given a proxy whose own name is behind the edge, which leads by the host, and that the edge cannot reach
    scene.orange.store(true, Ordering::SeqCst);
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    // then that is not taken for a proof: only the record can tell, and it is changed back
    scene.until_stage("RolledBack").await;
    scene.until_led_to("a").await;
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(scene.world.client.clone(), "default");
    let notes: Vec<String> =
        events.list(&Default::default()).await.unwrap().items.into_iter().filter_map(|event| event.note).collect();
    assert!(!notes.iter().any(|note| note.starts_with("moved")), "{notes:?}");
    assert_eq!(scene.routed(), "a b");
    // and when it can be reached, then a person says whether it is another machine that the edge leads to
    scene.cut.store(false, Ordering::SeqCst);
    scene.world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    scene.until_told("proved, but b.proxies.localhost leads to Cloudflare's edge, which hides the machine").await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "a b"));
    scene.world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(&scene.word().await)).await;
    scene.until_moved().await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("b", "b"));
    // and the event says why it was not tried before
    let words = format!("{} leads to Cloudflare's edge", target("b"));
    let notes = events.list(&Default::default()).await.unwrap().items.into_iter().filter_map(|event| event.note);
    assert!(notes.into_iter().any(|note| note.starts_with("moved") && note.contains(&words)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_else_has_does_not_stop_a_move_half_way() {
    let scene = Scene::given().await;
    scene.world.create("globex", json!({"domain": "globex.localhost"})).await;
    scene.world.until_ready("globex").await;
    // given a move whose record is changed and whose proof does not come
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    // when the portal asks for a name that another one has, then the move is rolled back all the same
    scene.world.patch("acme", json!({"spec": {"host": "reset.globex.localhost"}})).await;
    scene.world.until_condition("acme", "Claimed", "False", "HostConflict").await;
    scene.until_led_to("a").await;
    scene.world.until_condition("acme", "Moved", "False", "MoveRolledBack").await;
    let status = scene.world.portals().get("acme").await.unwrap().status.unwrap();
    assert_eq!(status.host.as_deref(), Some(HOST), "the page that is told is its own");
    assert_eq!(scene.world.get(HOST, "/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_stays_for_as_long_as_resolvers_may_keep_the_record_that_led_there() {
    let scene = Scene::given().await;
    // given a record that resolvers may keep for ten minutes
    scene.world.patch("acme", json!({"spec": {"dns": {"proxied": false, "ttl": 600}}})).await;
    let noted = |portal: Option<&portalkeeper::api::ResetPortal>| {
        portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| status.record_seconds == Some(600))
    };
    scene.world.until("acme", "noted", noted).await;
    // when it is proxied from the move on, then those who still have it find the former route
    scene.world.patch("acme", json!({"spec": {"className": "b", "dns": {"proxied": true, "ttl": 1}}})).await;
    scene.until_led_to("b").await;
    scene.work_for(scene.world.timing.move_patience).await;
    assert_eq!(scene.routed(), "a b");
    scene.until_stage("Flipped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_that_is_lowered_shortly_before_a_move_is_not_forgotten() {
    let scene = Scene::given().await;
    // given a record that resolvers might keep for ten minutes, and not any more
    let status_is = async |words: &str, wanted: fn(&portalkeeper::api::portal::ResetPortalStatus) -> bool| {
        let is = |portal: Option<&portalkeeper::api::ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(wanted)
        };
        scene.world.until("acme", words, is).await;
    };
    scene.world.patch("acme", json!({"spec": {"dns": {"proxied": false, "ttl": 600}}})).await;
    status_is("with a long TTL", |status| status.record_seconds == Some(600)).await;
    scene.world.patch("acme", json!({"spec": {"dns": {"proxied": true, "ttl": 1}}})).await;
    status_is("proxied", |status| status.record_seconds.is_none() && status.record_until.is_some()).await;
    // when it moves, then those who asked before find the former route
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.work_for(scene.world.timing.move_patience).await;
    assert_eq!(scene.routed(), "a b");
    let until = scene.world.portals().get("acme").await.unwrap().status.unwrap().record_until.expect("a time");
    scene.until_told(&format!("the proof of life decides, which counts from {until} on")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_changed_back_yet_is_not_told_as_if_it_were() {
    let scene = Scene::given().await;
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_led_to("b").await;
    scene.refuse_changes_of_records();
    scene.until_told(&format!("The record is to lead to {} again and is not changed back yet", target("a"))).await;
    scene.world.simulators.faults.clear();
    scene.until_told(&format!("The record leads to {} again", target("a"))).await;
    assert_eq!(scene.leads_to(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_changed_back_after_a_roll_back_is_served_where_it_was() {
    let scene = Scene::given().await;
    // given a move that was rolled back, whose trial route stays
    scene.cut.store(true, Ordering::SeqCst);
    scene.move_to("b").await;
    scene.until_stage("RolledBack").await;
    scene.until_led_to("a").await;
    assert_eq!(scene.routed(), "a b");
    // and a host that cannot be had there
    let mut taken = scene.b.caddy.config();
    let servers = taken["apps"]["http"]["servers"].as_object_mut().expect("servers");
    let routes = servers.values_mut().next().expect("a server")["routes"].as_array_mut().expect("routes");
    routes.push(json!({"match": [{"host": ["other.acme.localhost"]}], "handle": [], "terminal": true}));
    scene.b.caddy.load(taken);
    scene.world.patch("acme", json!({"spec": {"subdomain": "other"}})).await;
    scene.world.until_condition("acme", "RouteProgrammed", "False", "ForeignRoute").await;
    // when the former host is wanted again, then the trial route that was never proved does not get its record
    scene.foreign.store(true, Ordering::SeqCst);
    scene.world.patch("acme", json!({"spec": {"subdomain": "reset"}})).await;
    scene.until_told("the record leads to a.proxies.localhost until").await;
    scene.work_for(scene.world.timing.move_proof * 2).await;
    assert_eq!((scene.leads_to().as_str(), scene.routed()), ("a", "a b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_keeps_what_is_at_a_former_host_until_the_new_one_is_proved() {
    let mut scene = Scene::given().await;
    scene.restart_with(|timing| timing.move_patience = Duration::from_secs(600)).await;
    // given a host that is changed to one at which the portal cannot be proved
    scene.world.patch("acme", json!({"spec": {"subdomain": "nowhere"}})).await;
    scene.world.until_condition("acme", "Live", "False", "NameNotFound").await;
    assert!(scene.a.caddy.route_for(HOST).is_some() && scene.a.caddy.route_for("nowhere.acme.localhost").is_some());
    // when the portal moves on within the proxy, then the former host is served all the same
    in_one_proxy(&scene).await;
    scene.move_to("b").await;
    scene.until_stage("Flipped").await;
    scene.work_for(Duration::from_millis(500)).await;
    assert!(scene.a.caddy.route_for(HOST).is_some(), "{:?}", scene.a.caddy.config());
    assert_eq!((scene.leads_to().as_str(), scene.world.get(HOST, "/").await.0), ("a", 200));
}
