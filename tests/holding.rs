//! What Cloudflare's limits, lost credentials and edits of a class come to for declared portals.
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use portalkeeper::api::{PortalClaim, PortalClass, ResetPortal};
use portalkeeper::http::double::Fault;
use portalkeeper::sandbox::CLOUDFLARE_TOKEN;
use serde_json::{Value, json};

use crate::world::{World, condition_of};

fn classes(world: &World) -> Api<PortalClass> {
    Api::all(world.client.clone())
}

async fn patch_class(world: &World, patch: Value) {
    classes(world).patch("sandbox", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

async fn until_class(world: &World, words: &str, wanted: impl Fn(&PortalClass) -> bool) -> PortalClass {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let class = classes(world).get("sandbox").await.unwrap();
        if wanted(&class) {
            return class;
        }
        assert!(tokio::time::Instant::now() < end, "the class is not {words}: {:#?}", class.status);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn claims(world: &World) -> Vec<PortalClaim> {
    Api::all(world.client.clone()).list(&Default::default()).await.unwrap().items
}

fn number(index: usize) -> String {
    format!("p{index:02}")
}

/// Twelve portals of the sandbox's class that are ready.
async fn twelve() -> World {
    let world = World::start().await;
    for index in 0..12 {
        let domain = format!("d{index:02}.localhost");
        world.simulators.cloudflare.add_zone(&domain);
        world.simulators.mxroute.add_domain(&domain);
        world.simulators.mxroute.add_forwarder(&format!("reset@{domain}"), ":blackhole:");
        world.create(&number(index), json!({"domain": domain})).await;
    }
    for index in 0..12 {
        world.until_ready(&number(index)).await;
    }
    world
}

/// F22: an edit of a class that would change every portal's record is held until it is approved.
#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_class_that_changes_most_portals_is_held_until_it_is_approved() {
    let mut world = twelve().await;
    let before = world.records();
    world.clear_logs();
    // when the class gets another target
    patch_class(&world, json!({"spec": {"cnameTarget": "other.portalkeeper.localhost"}})).await;
    // then the class tells the plan, the portals that they stay, and nothing is written
    let class =
        until_class(&world, "held", |class| class.status.as_ref().is_some_and(|s| !s.held_plans.is_empty())).await;
    let plan = class.status.as_ref().unwrap().held_plans[0].clone();
    assert_eq!((plan.owned, plan.changing), (12, 12));
    assert!(plan.what.contains("changes records or routes of 12 portals"), "{plan:?}");
    let ready = class.status.as_ref().unwrap().conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "ChangesHeld"));
    for index in 0..12 {
        let words = world.until_condition(&number(index), "Moved", "False", "ChangesHeld").await;
        assert!(words.contains(&format!("portalkeeper.dev/approve-plan={}", plan.id)), "{words}");
        assert_eq!(world.get(&format!("reset.d{index:02}.localhost"), "/").await.0, 200, "serving goes on");
    }
    assert_eq!((world.records(), world.writes()), (before.clone(), Vec::new()));
    // nor by a new process
    world.stop_daemon().await;
    world.start_daemon().await;
    world.until_condition("p00", "Moved", "False", "ChangesHeld").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((world.records(), world.writes()), (before, Vec::new()));
    // an explicit deletion is never held
    world.delete("p11").await;
    assert_eq!(world.records().len(), 11);
    // when something else is approved, then nothing happens but that the annotation goes
    let approve = |id: &str| json!({"metadata": {"annotations": {"portalkeeper.dev/approve-plan": id}}});
    patch_class(&world, approve("000000000000")).await;
    until_class(&world, "cleared", |class| class.annotations().get("portalkeeper.dev/approve-plan").is_none()).await;
    assert!(world.records().iter().all(|record| !record.contains("other.portalkeeper.localhost")));
    // when this plan is approved, then it is made
    patch_class(&world, approve(&plan.id)).await;
    for index in 0..11 {
        let moves = |portal: Option<&ResetPortal>| {
            portal.and_then(|portal| portal.status.as_ref()).is_some_and(|status| status.moving.is_some())
        };
        world.until(&number(index), "on its way", moves).await;
    }
    // though there is no such name, which is why all the records wait
    for index in 0..11 {
        let message = world.until_condition(&number(index), "Moved", "Unknown", "Moving").await;
        assert!(message.contains("other.portalkeeper.localhost does not exist in DNS"), "{message}");
    }
    assert!(world.records().iter().all(|record| record.ends_with("edge.portalkeeper.localhost")));
    let changed = |write: &String| write.starts_with("PATCH") && write.contains("/dns_records");
    assert!(!world.writes().iter().any(changed), "{:?}", world.writes());
}

/// F22: neither is that which deletes the class and makes it anew, though its former settings are lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_is_made_anew_moves_nobody_before_it_is_approved() {
    let world = twelve().await;
    let before = world.records();
    let mut class = classes(&world).get("sandbox").await.unwrap();
    world.clear_logs();
    classes(&world).delete("sandbox", &Default::default()).await.unwrap();
    class.metadata = kube::core::ObjectMeta { name: Some("sandbox".to_owned()), ..Default::default() };
    class.status = None;
    class.spec.cname_target = Some("other.portalkeeper.localhost".to_owned());
    class.spec.probe.enabled = false;
    classes(&world).create(&PostParams::default(), &class).await.unwrap();
    let words = world.until_condition("p00", "Moved", "False", "ChangesHeld").await;
    for index in 1..12 {
        world.until_condition(&number(index), "Moved", "False", "ChangesHeld").await;
    }
    assert_eq!((world.records(), world.writes()), (before, Vec::new()));
    assert_eq!(world.get("reset.d00.localhost", "/").await.0, 200, "serving goes on");
    let made = |portal: &ResetPortal| portal.status.as_ref().map_or(0, |status| status.resources.len());
    assert_eq!(made(&world.portals().get("p00").await.unwrap()), 2, "what was made is not forgotten");
    // when it is approved, then it is made
    let id = words.rsplit('=').next().unwrap().to_owned();
    patch_class(&world, json!({"metadata": {"annotations": {"portalkeeper.dev/approve-plan": id}}})).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !world.records().iter().all(|record| record.ends_with("other.portalkeeper.localhost")) {
        assert!(tokio::time::Instant::now() < end, "{:?}", world.records());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An edit that changes nothing outside, or few portals, is not held.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_change_leaves_a_portal_alone_that_asks_for_a_name_of_another_one() {
    let world = twelve().await;
    // given a portal that is served at its host, because the one that it asks for is that of a portal in another class
    world
        .put(&json!({
            "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": "by-hand"},
            "spec": {"proxy": {"manual": {}}, "probe": {"enabled": false}},
        }))
        .await;
    world
        .create("other", json!({"domain": "d99.localhost", "host": "shared.d00.localhost", "className": "by-hand"}))
        .await;
    world.until_condition("other", "Claimed", "True", "Claimed").await;
    world.patch("p00", json!({"spec": {"host": "shared.d00.localhost"}})).await;
    world.until_condition("p00", "Claimed", "False", "HostConflict").await;
    let (records, routed) = (world.records(), || world.routed("reset.d00.localhost"));
    assert!(routed());
    // when a change of its class is held
    patch_class(&world, json!({"spec": {"cnameTarget": "other.portalkeeper.localhost"}})).await;
    world.until_condition("p00", "Moved", "False", "ChangesHeld").await;
    // then it is served there still, and nothing is made for the other name
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((world.records(), routed()), (records, true));
    assert_eq!(world.get("reset.d00.localhost", "/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_changes_nothing_outside_is_not_held() {
    let world = twelve().await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(world.client.clone(), "portalkeeper");
    let class = classes(&world).get("sandbox").await.unwrap();
    let reference = class.spec.cloudflare.as_ref().unwrap().api_token_secret_ref.clone().unwrap();
    let mut secret = secrets.get(&reference.name).await.unwrap();
    secret.meta_mut().name = Some("renamed".to_owned());
    secret.meta_mut().resource_version = None;
    secret.meta_mut().uid = None;
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    world.clear_logs();
    let reference = json!({"name": "renamed", "key": reference.key});
    patch_class(&world, json!({"spec": {"cloudflare": {"apiTokenSecretRef": reference, "sweepHours": 12}}})).await;
    let settings = |portal: &ResetPortal| portal.status.as_ref().and_then(|s| s.place.clone()).unwrap().settings;
    let before = settings(&world.portals().get("p00").await.unwrap());
    for index in 0..12 {
        world
            .until(&number(index), "at home under the new settings", |portal| {
                portal.is_some_and(|portal| settings(portal) != before)
            })
            .await;
        world.until_ready(&number(index)).await;
    }
    assert_eq!(world.writes(), Vec::<String>::new());
}

/// F19, I7: a deletion whose credential is gone leaves a tombstone, and is finished when the credential returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_is_finished_when_the_credential_returns() {
    let mut world = World::start().await;
    world.stop_daemon().await;
    world.timing.letting_go = Duration::from_secs(1);
    world.start_daemon().await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.create("globex", json!({"domain": "globex.localhost"})).await;
    world.until_ready("acme").await;
    world.until_ready("globex").await;
    // given that the token is revoked
    world.simulators.cloudflare.revoke_tokens();
    // when a portal is deleted, then it goes in time, and the claims tell what is left and why
    world.delete("acme").await;
    let left = claims(&world).await;
    let graves: Vec<&PortalClaim> = left.iter().filter(|claim| claim.spec.portal_name == "acme").collect();
    assert_eq!(graves.len(), 2);
    for grave in graves {
        let status = grave.status.as_ref().expect("an epitaph");
        assert!(status.leftovers.iter().any(|left| left.system == "cloudflare" && left.name == "reset.acme.localhost"));
        assert!(status.message.as_ref().unwrap().contains("the API token is not valid any more"), "{status:?}");
    }
    assert!(world.records().iter().any(|record| record.starts_with("reset.acme.localhost")));
    // and nobody else gets the host meanwhile
    world.create("thief", json!({"domain": "initech.localhost", "host": "reset.acme.localhost"})).await;
    world.until_condition("thief", "Claimed", "False", "HostConflict").await;
    // when the Secret has a good token again, then the rest is removed and the claims go
    world.simulators.cloudflare.accept_token("a-new-token");
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(world.client.clone(), "portalkeeper");
    let class = classes(&world).get("sandbox").await.unwrap();
    let reference = class.spec.cloudflare.as_ref().unwrap().api_token_secret_ref.clone().unwrap();
    let patch = json!({"stringData": {&reference.key: "a-new-token"}});
    secrets.patch(&reference.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while claims(&world).await.iter().any(|claim| claim.spec.portal_name == "acme") {
        assert!(tokio::time::Instant::now() < end, "{:#?}", claims(&world).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // and whoever waited for the host gets it, and the neighbour was never touched
    world.until_condition("thief", "Claimed", "True", "Claimed").await;
    assert!(world.records().iter().any(|record| record.starts_with("reset.globex.localhost")));
}

/// What is made anew under the same name takes its things over; the tombstone is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_portal_made_anew_takes_over_what_was_left() {
    let mut world = World::start().await;
    world.stop_daemon().await;
    world.timing.letting_go = Duration::from_secs(1);
    world.start_daemon().await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_ready("acme").await;
    world.simulators.cloudflare.revoke_tokens();
    world.delete("acme").await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.simulators.cloudflare.accept_token(CLOUDFLARE_TOKEN);
    world
        .until("acme", "ready", |portal| {
            portal.is_some_and(|portal| condition_of(portal, "DNSProgrammed").is_some_and(|c| c.status == "True"))
        })
        .await;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while claims(&world).await.iter().any(|claim| claim.labels().contains_key("portalkeeper.dev/tombstone")) {
        assert!(tokio::time::Instant::now() < end, "{:#?}", claims(&world).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.records().len(), 1);
    assert!(world.portals().get_opt("acme").await.unwrap().is_some());
}

/// Who waits for the rate limit tells its place and the expected time, and nothing is called meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_waits_for_the_rate_limit_tells_its_place() {
    let world = World::start().await;
    world.simulators.cloudflare.block(CLOUDFLARE_TOKEN);
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.create("globex", json!({"domain": "globex.localhost"})).await;
    let mut places = Vec::new();
    for name in ["acme", "globex"] {
        let message = world.until_condition(name, "DNSProgrammed", "False", "RateLimited").await;
        assert!(message.contains("rate limit"), "{message}");
        let portal = world.until(name, "in the queue", |portal| {
            portal.is_some_and(|portal| portal.status.as_ref().is_some_and(|status| status.queue.is_some()))
        });
        let queue = portal.await.unwrap().status.unwrap().queue.unwrap();
        assert_eq!(queue.system, "cloudflare");
        let expected: jiff::Timestamp = queue.expected.parse().unwrap();
        let wait = expected.duration_since(jiff::Timestamp::now()).as_secs();
        assert!((200..=310).contains(&wait), "{queue:?}");
        places.push(queue.position);
    }
    assert!(places.iter().all(|place| (1..=2).contains(place)), "{places:?}");
    assert!(world.simulators.cloudflare.calls_while_blocked(CLOUDFLARE_TOKEN) <= 1);
    // the pages are served all the same
    assert_eq!(world.get("reset.acme.localhost", "/").await.0, 200);
}

/// A restart believes what the status keeps: nothing is asked of Cloudflare and nothing written.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_asks_cloudflare_nothing() {
    let mut world = twelve().await;
    world.stop_daemon().await;
    world.clear_logs();
    world.start_daemon().await;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !world.is_ready() {
        assert!(tokio::time::Instant::now() < end, "not ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for index in 0..12 {
        world.until_ready(&number(index)).await;
    }
    assert_eq!(world.simulators.cloudflare_log.calls(), []);
    assert_eq!(world.writes(), Vec::<String>::new());
}

/// What somebody changed is found when the portal stops answering, put right, and told.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_changed_is_put_right_when_the_portal_stops_answering() {
    let mut world = World::start().await;
    world.stop_daemon().await;
    world.timing.probe_every = Duration::from_millis(300);
    world.timing.resync = Duration::from_millis(300);
    world.start_daemon().await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_ready("acme").await;
    world.simulators.cloudflare.edit("reset.acme.localhost", "content", json!("elsewhere.localhost"));
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !world.records().contains(&"reset.acme.localhost CNAME edge.portalkeeper.localhost".to_owned()) {
        assert!(tokio::time::Instant::now() < end, "{:?}", world.records());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.until_ready("acme").await;
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(world.client.clone(), "default");
    let told = events.list(&Default::default()).await.unwrap().items;
    let told: Vec<_> = told.iter().filter(|event| event.reason.as_deref() == Some("RecordRepaired")).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].note.as_ref().unwrap().contains("elsewhere.localhost"), "{told:?}");
}

/// A class whose token is revoked, or whose limit is used up, stops its own portals and delays nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_or_throttled_token_stops_only_its_class() {
    let world = World::start().await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(world.client.clone(), "portalkeeper");
    let mut class = classes(&world).get("sandbox").await.unwrap();
    let reference = class.spec.cloudflare.as_mut().unwrap().api_token_secret_ref.as_mut().unwrap();
    let mut secret = secrets.get(&reference.name).await.unwrap();
    secret.metadata = kube::api::ObjectMeta { name: Some("second".to_owned()), ..kube::api::ObjectMeta::default() };
    secret.data = None;
    secret.string_data = Some([(reference.key.clone(), "second-token".to_owned())].into());
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    reference.name = "second".to_owned();
    let mut second = PortalClass::new("second", class.spec.clone());
    second.spec.default = false;
    classes(&world).create(&PostParams::default(), &second).await.unwrap();
    world.simulators.cloudflare.accept_token("second-token");
    let begin = |name: &'static str, class: &'static str| {
        let world = &world;
        async move { world.create(name, json!({"domain": format!("{name}.localhost"), "className": class})).await }
    };
    for (index, trouble) in ["revoked", "blocked"].iter().enumerate() {
        match *trouble {
            "revoked" => world.simulators.cloudflare.revoke_token("second-token"),
            _ => {
                world.simulators.cloudflare.accept_token("second-token");
                world.simulators.cloudflare.block("second-token");
            }
        }
        let (broken, fine) = [("acme", "globex"), ("initech", "globex")][index];
        begin(broken, "second").await;
        begin(fine, "sandbox").await;
        world.until_ready(fine).await;
        let portal = world.portals().get(broken).await.unwrap();
        assert!(condition_of(&portal, "Ready").is_none_or(|c| c.status != "True"), "{trouble}");
        world.delete(fine).await;
        if *trouble == "revoked" {
            world.until_condition(broken, "DNSProgrammed", "False", "TokenRefused").await;
        }
    }
}

/// F20: a portal that is edited while a write for it is under way ends as the edit says, with nothing left of before.
#[tokio::test(flavor = "multi_thread")]
async fn f20_an_edit_while_a_write_is_under_way_wins() {
    let world = World::start().await;
    let slow = Fault::Delay(Duration::from_millis(700));
    world.simulators.faults.push("POST", "/dns_records", 1, slow.clone());
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    until_under_way(&world).await;
    world.patch("acme", json!({"spec": {"subdomain": "password"}})).await;
    world.until_ready("acme").await;
    let only = |host: &str| vec![format!("{host} CNAME edge.portalkeeper.localhost")];
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while world.records() != only("password.acme.localhost") {
        assert!(tokio::time::Instant::now() < end, "{:?}", world.records());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // and a deletion while a write is under way leaves nothing
    world.clear_logs();
    world.simulators.faults.push("POST", "/dns_records", 1, slow);
    world.create("globex", json!({"domain": "globex.localhost"})).await;
    until_under_way(&world).await;
    world.delete("globex").await;
    assert_eq!(world.records(), only("password.acme.localhost"));
    assert!(!world.routed("reset.globex.localhost"));
}

/// A delayed call shows in no log before it is answered; what shows is that the route beside it stands.
async fn until_under_way(world: &World) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while world.simulators.caddy_log.writes().is_empty() {
        assert!(tokio::time::Instant::now() < end, "nothing is written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// F23, I5: Cloudflare hangs, and the pages are served at their usual speed; what needs no Cloudflare goes on.
#[tokio::test(flavor = "multi_thread")]
async fn f23_pages_are_served_while_cloudflare_hangs() {
    let world = World::start().await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_ready("acme").await;
    world.simulators.faults.push("*", "/zones", usize::MAX, Fault::Delay(Duration::from_secs(3600)));
    world.create("globex", json!({"domain": "globex.localhost"})).await;
    let class = classes(&world).get("sandbox").await.unwrap();
    let mut by_hand = PortalClass::new("by-hand", class.spec.clone());
    by_hand.spec.default = false;
    by_hand.spec.cloudflare = None;
    by_hand.spec.proxy = serde_json::from_value(json!({"manual": {}})).unwrap();
    by_hand.spec.probe.address = Some(world.pages.to_string());
    classes(&world).create(&PostParams::default(), &by_hand).await.unwrap();
    world.create("initech", json!({"domain": "initech.localhost", "className": "by-hand"})).await;
    world.until_ready("initech").await;
    for _ in 0..20 {
        let asked = tokio::time::timeout(Duration::from_secs(2), world.get("reset.acme.localhost", "/"));
        assert_eq!(asked.await.expect("at once").0, 200);
    }
    // and the portal that waits for Cloudflare is served already, though nobody can find it yet
    assert_eq!(world.get("reset.globex.localhost", "/").await.0, 200);
}
