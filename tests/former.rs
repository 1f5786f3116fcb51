//! What a portal had under another host, in another account or under another default class, and what becomes of it.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use portalkeeper::api::{PortalClaim, PortalClass, ResetPortal};
use portalkeeper::app::sandbox;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::http::double::RunningDouble;
use portalkeeper::sandbox::CLOUDFLARE_TOKEN;
use serde_json::{Value, json};

use crate::world::World;

const OLD: &str = "reset.globex.localhost";
const NEW: &str = "reset.acme.localhost";

/// A world whose daemon gives things up after this long.
async fn giving_up_after(wait: Duration) -> World {
    let mut world = World::start().await;
    world.stop_daemon().await;
    world.timing.letting_go = wait;
    world.start_daemon().await;
    world
}

fn names(world: &World) -> Vec<String> {
    let records = world.records();
    records.iter().filter_map(|record| record.split(' ').next().map(str::to_owned)).collect()
}

async fn until_claims(world: &World, wanted: &[&str]) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let mut claims = world.claims().await;
        claims.sort();
        if claims == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "the claims are {claims:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn events(world: &World, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let all = events.list(&Default::default()).await.unwrap().items;
    let told = all.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    told.filter_map(|event| event.message).collect()
}

/// I6: killed after a record was made and before that was noted; the host is edited before the next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_but_not_noted_is_found_by_its_claim() {
    for then in ["another host", "disabled", "deleted"] {
        let mut world = World::start().await;
        world.create("acme", json!({"domain": "globex.localhost"})).await;
        world.until_ready("acme").await;
        world.stop_daemon().await;
        // given a status that does not know of record and route
        let forgotten = json!({"status": {"resources": null, "verified": null, "observedGeneration": null}});
        world.portals().patch_status("acme", &PatchParams::default(), &Patch::Merge(&forgotten)).await.unwrap();
        world.patch("acme", json!({"spec": {"host": NEW, "enabled": then != "disabled"}})).await;
        if then == "deleted" {
            world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
        }
        world.start_daemon().await;
        match then {
            "another host" => {
                world.until_ready("acme").await;
                until_claims(&world, &["host--reset.acme.localhost", "mail--globex.localhost"]).await;
                assert_eq!(names(&world), [NEW]);
                assert!(world.routed(NEW));
            }
            "disabled" => {
                world.until_condition("acme", "Ready", "False", "Disabled").await;
                until_claims(&world, &["host--reset.acme.localhost", "mail--globex.localhost"]).await;
                assert_eq!(names(&world), Vec::<String>::new());
            }
            _ => {
                world.until("acme", "gone", |portal| portal.is_none()).await;
                assert_eq!((names(&world), world.claims().await), (Vec::new(), Vec::new()));
            }
        }
        assert!(!world.routed(OLD), "{then}");
    }
}

/// I7: the same, with the zone gone as well: what cannot be seen is listed, not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_but_not_noted_and_is_out_of_sight_gets_a_tombstone() {
    let mut world = giving_up_after(Duration::ZERO).await;
    world.create("acme", json!({"domain": "globex.localhost"})).await;
    world.until_ready("acme").await;
    world.stop_daemon().await;
    let forgotten = json!({"status": {"resources": null, "verified": null, "observedGeneration": null}});
    world.portals().patch_status("acme", &PatchParams::default(), &Patch::Merge(&forgotten)).await.unwrap();
    world.simulators.cloudflare.narrow_token(CLOUDFLARE_TOKEN, &["acme.localhost"]);
    world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
    world.start_daemon().await;
    world.until("acme", "gone", |portal| portal.is_none()).await;
    let claims: Api<PortalClaim> = Api::all(world.client.clone());
    for claim in claims.list(&Default::default()).await.unwrap().items {
        let left = claim.status.expect("an epitaph").leftovers;
        assert!(left.iter().any(|left| left.name == OLD), "{left:?}");
    }
    assert_eq!(world.claims().await.len(), 2);
}

/// A host that was claimed and at which nothing could be made is free again once the portal has another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_at_which_nothing_was_made_is_let_go() {
    let world = World::start().await;
    world.simulators.cloudflare.put_foreign(OLD, "A", "192.0.2.7");
    world.create("acme", json!({"domain": "globex.localhost"})).await;
    world.until_condition("acme", "DNSProgrammed", "False", "ForeignRecord").await;
    world.patch("acme", json!({"spec": {"host": NEW}})).await;
    world.until_ready("acme").await;
    until_claims(&world, &["host--reset.acme.localhost", "mail--globex.localhost"]).await;
    assert!(!world.routed(OLD));
    assert!(world.records().contains(&format!("{OLD} A 192.0.2.7")), "{:?}", world.records());
}

/// I3: without probing, too, what is new must be in order before what served goes; each change is told in its own words.
#[tokio::test(flavor = "multi_thread")]
async fn without_probing_the_former_host_stays_until_the_new_one_is_in_order() {
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let unprobed = json!({"spec": {"probe": {"enabled": false}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&unprobed)).await.unwrap();
    world.create("acme", json!({"domain": "globex.localhost"})).await;
    world.until_condition("acme", "RouteProgrammed", "True", "Programmed").await;
    // given that somebody has a route for the new host
    let mut config = world.simulators.caddy.config();
    let own = json!({"match": [{"host": [NEW]}], "handle": [{"handler": "static_response"}], "terminal": true});
    config["apps"]["http"]["servers"]["srv0"]["routes"].as_array_mut().unwrap().push(own);
    world.simulators.caddy.load(config.clone());
    world.patch("acme", json!({"spec": {"host": NEW}})).await;
    world.until_condition("acme", "RouteProgrammed", "False", "ForeignRoute").await;
    assert!(names(&world).contains(&OLD.to_owned()) && world.routed(OLD), "{:?}", world.records());
    // when that goes, then the portal moves over
    config["apps"]["http"]["servers"]["srv0"]["routes"].as_array_mut().unwrap().pop();
    world.simulators.caddy.load(config);
    until_claims(&world, &["host--reset.acme.localhost", "mail--globex.localhost"]).await;
    assert_eq!(names(&world), [NEW]);
    // (events are written at the end of a look)
    let wanted = [format!("create {OLD}"), format!("create {NEW}"), format!("delete {OLD}")];
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let told = events(&world, "RecordChanged").await;
        if wanted.iter().all(|words| told.iter().any(|note| note.contains(words))) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "{told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// I5, I7: a former host whose zone has left the account holds up the portal for a stated time, not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_host_whose_zone_is_out_of_sight_is_given_up_in_time() {
    let world = giving_up_after(Duration::from_secs(1)).await;
    world.create("acme", json!({"domain": "globex.localhost"})).await;
    world.until_ready("acme").await;
    world.simulators.cloudflare.narrow_token(CLOUDFLARE_TOKEN, &["acme.localhost"]);
    world.patch("acme", json!({"spec": {"host": NEW}})).await;
    // then it is served at the new host at once, and tells what it waits for
    let words = world.until_condition("acme", "Moved", "Unknown", "FormerNotRemoved").await;
    assert!(words.contains("no Cloudflare zone that the token can see holds reset.globex.localhost"), "{words}");
    assert!(!world.routed(OLD), "the route is gone already");
    let served = world.get(NEW, "/").await.0;
    assert_eq!(served, 200);
    until_claims(&world, &["host--reset.acme.localhost", "host--reset.globex.localhost", "mail--globex.localhost"])
        .await;
}

/// The same, when the time is over.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_remain_at_a_former_host_is_told_when_it_is_given_up() {
    let world = giving_up_after(Duration::ZERO).await;
    world.create("acme", json!({"domain": "globex.localhost"})).await;
    world.until_ready("acme").await;
    world.simulators.cloudflare.narrow_token(CLOUDFLARE_TOKEN, &["acme.localhost"]);
    world.patch("acme", json!({"spec": {"host": NEW}})).await;
    let words = world.until_condition("acme", "Moved", "True", "LeftBehind").await;
    assert!(words.contains("reset.globex.localhost in cloudflare"), "{words}");
    world.until_ready("acme").await;
    until_claims(&world, &["host--reset.acme.localhost", "mail--globex.localhost"]).await;
    let told = events(&world, "LeftBehind").await;
    assert!(told.iter().any(|note| note.contains("reset.globex.localhost in cloudflare")), "{told:?}");
    // and nothing is asked about it any more
    world.clear_logs();
    world.annotate("acme", "example.com/touched", Some("1")).await;
    world.until_ready("acme").await;
    assert_eq!(world.simulators.cloudflare_log.calls(), []);
}

/// F19: the tombstone lists what is left and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_lists_only_what_is_left() {
    let mut world = giving_up_after(Duration::from_mins(30)).await;
    world.create("acme", json!({"domain": "globex.localhost"})).await;
    world.until_ready("acme").await;
    world.simulators.cloudflare.narrow_token(CLOUDFLARE_TOKEN, &["acme.localhost"]);
    world.patch("acme", json!({"spec": {"host": NEW}})).await;
    world.until_condition("acme", "Moved", "Unknown", "FormerNotRemoved").await;
    world.stop_daemon().await;
    world.timing.letting_go = Duration::ZERO;
    world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
    world.start_daemon().await;
    world.until("acme", "gone", |portal| portal.is_none()).await;
    let claims: Api<PortalClaim> = Api::all(world.client.clone());
    let claims = claims.list(&Default::default()).await.unwrap().items;
    assert!(!claims.is_empty());
    for claim in claims {
        let left: Vec<(String, String)> =
            claim.status.expect("an epitaph").leftovers.into_iter().map(|left| (left.system, left.name)).collect();
        assert_eq!(left, [("cloudflare".to_owned(), OLD.to_owned())]);
    }
    assert_eq!(names(&world), [OLD]);
    // and it is finished when the zone is seen again
    world.simulators.cloudflare.narrow_token(CLOUDFLARE_TOKEN, &["acme.localhost", "globex.localhost"]);
    let touched = json!({"metadata": {"annotations": {"example.com/t": "1"}}, "stringData": {"other": "x"}});
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(world.client.clone(), "portalkeeper");
    secrets.patch("sandbox", &PatchParams::default(), &Patch::Merge(&touched)).await.unwrap();
    until_claims(&world, &[]).await;
    assert_eq!(names(&world), Vec::<String>::new());
}

/// A second account that has the zone, too, with a class for it.
async fn other_account(world: &World, account: Option<&str>) -> (Arc<CloudflareDouble>, RunningDouble) {
    let double = Arc::new(CloudflareDouble::new());
    double.accept_token(CLOUDFLARE_TOKEN);
    double.add_zone("globex.localhost");
    let running = RunningDouble::start(double.clone()).await.unwrap();
    let [_, mut class] = sandbox::class(&world.simulators, world.pages);
    class["metadata"]["name"] = json!("other");
    class["spec"]["default"] = json!(false);
    class["spec"]["probe"] = json!({"enabled": false});
    class["spec"]["cloudflare"]["apiUrl"] = json!(running.url.join("/client/v4").unwrap().to_string());
    class["spec"]["cloudflare"]["accountId"] = json!(account);
    world.put(&class).await;
    (double, running)
}

/// A portal whose class moves to another account leaves nothing in the first one.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_in_a_former_account_goes() {
    let world = World::start().await;
    let (other, _running) = other_account(&world, None).await;
    world.create("acme", json!({"domain": "globex.localhost"})).await;
    world.until_ready("acme").await;
    world.patch("acme", json!({"spec": {"className": "other"}})).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !names(&world).is_empty() {
        assert!(tokio::time::Instant::now() < end, "{:?}", world.records());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let there: Vec<Value> = other.records().iter().map(|record| record["name"].clone()).collect();
    assert_eq!(there, [json!(OLD)]);
    // and a class that only has another token for the same account takes nothing away
    let [_, mut class] = sandbox::class(&world.simulators, world.pages);
    class["metadata"]["name"] = json!("same");
    class["spec"] = json!({
        "cloudflare": {
            "apiUrl": other_url(&world).await, "apiTokenSecretRef": {"name": "second", "key": "cloudflare-token"},
        },
        "cnameTarget": class["spec"]["cnameTarget"], "proxy": class["spec"]["proxy"], "publicScheme": "http",
        "publicPort": world.pages.port(), "probe": {"enabled": false},
    });
    other.accept_token("second-token");
    world
        .put(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "second", "namespace": "portalkeeper"},
            "type": "Opaque", "stringData": {"cloudflare-token": "second-token"},
        }))
        .await;
    world.put(&class).await;
    let id = other.records()[0]["id"].clone();
    world.patch("acme", json!({"spec": {"className": "same"}})).await;
    world
        .until("acme", "at home in the other class", |portal| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
                status.leaving.is_empty()
                    && status.moving.is_none()
                    && status.place.as_ref().is_some_and(|place| place.class_name == "same")
            })
        })
        .await;
    let there: Vec<Value> = other.records().iter().map(|record| record["id"].clone()).collect();
    assert_eq!(there, [id]);
}

async fn other_url(world: &World) -> String {
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    classes.get("other").await.unwrap().spec.cloudflare.unwrap().api_url.unwrap()
}

/// F22: making another class the default moves nobody before the plan is approved.
#[tokio::test(flavor = "multi_thread")]
async fn another_default_class_moves_nobody_before_it_is_approved() {
    let world = World::start().await;
    for index in 0..12 {
        let domain = format!("d{index:02}.localhost");
        world.simulators.cloudflare.add_zone(&domain);
        world.create(&format!("p{index:02}"), json!({"domain": domain})).await;
    }
    for index in 0..12 {
        world.until(&format!("p{index:02}"), "live", is_live).await;
    }
    let before = world.records();
    // when another class with another target becomes the default
    let [_, mut class] = sandbox::class(&world.simulators, world.pages);
    class["metadata"]["name"] = json!("next");
    class["spec"]["cnameTarget"] = json!("other.portalkeeper.localhost");
    class["spec"]["probe"] = json!({"enabled": false});
    class["spec"]["default"] = json!(false);
    world.put(&class).await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let patch = |name: &'static str, patch: Value| {
        let classes = classes.clone();
        async move { classes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap() }
    };
    world.clear_logs();
    patch("sandbox", json!({"spec": {"default": false}})).await;
    patch("next", json!({"spec": {"default": true}})).await;
    // then they stay, and both the portals and the class tell what to do
    let words = world.until_condition("p00", "Moved", "False", "ChangesHeld").await;
    assert!(words.contains("12 of the 12 portals of PortalClass \"sandbox\""), "{words}");
    for index in 1..12 {
        world.until_condition(&format!("p{index:02}"), "Moved", "False", "ChangesHeld").await;
    }
    assert_eq!((world.records(), world.writes()), (before, Vec::new()));
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    let plan = loop {
        let held = classes.get("next").await.unwrap().status.unwrap_or_default().held_plans;
        if let Some(plan) = held.first() {
            break plan.clone();
        }
        assert!(tokio::time::Instant::now() < end, "no plan is told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(plan.what.contains("moves 12 portals here from PortalClass \"sandbox\""), "{plan:?}");
    assert!(words.contains(&plan.id), "{words} {plan:?}");
    // when it is approved, then they move
    patch("next", json!({"metadata": {"annotations": {"portalkeeper.dev/approve-plan": plan.id}}})).await;
    for index in 0..12 {
        world
            .until(&format!("p{index:02}"), "at the new target", |portal| {
                portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| {
                    status.moving.is_none() && status.place.as_ref().is_some_and(|place| place.class_name == "next")
                })
            })
            .await;
    }
    assert!(world.records().iter().all(|record| record.ends_with("other.portalkeeper.localhost")));
}

fn is_live(portal: Option<&ResetPortal>) -> bool {
    portal.and_then(|portal| crate::world::condition_of(portal, "Live")).is_some_and(|live| live.status == "True")
}
