//! What is around portals: secrets that come late, systems that are down, classes, and names that others want.
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use portalkeeper::api::{ANNOTATION_MOVED_BY_HAND, PortalClass, ResetPortal};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::{Value, json};

use super::{HOST, acme};
use crate::world::{World, condition_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_comes_later_wakes_its_portals() {
    let world = World::start().await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(world.client.clone(), "portalkeeper");
    let kept = secrets.get("sandbox").await.unwrap();
    secrets.delete("sandbox", &DeleteParams::default()).await.unwrap();
    world.create("acme", acme()).await;
    world.until_condition("acme", "Accepted", "False", "SecretNotFound").await;
    assert_eq!(world.get(HOST, "/").await.0, 421);
    let metadata = kube::api::ObjectMeta { name: Some("sandbox".into()), ..Default::default() };
    let again = k8s_openapi::api::core::v1::Secret { metadata, ..kept };
    secrets.create(&Default::default(), &again).await.unwrap();
    world.until_ready("acme").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_a_system_that_is_down_and_then_ends() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    let down = || Fault::Answer(DoubleResponse::text(502, "bad gateway"));
    world.simulators.faults.push("GET", "/config", 1000, down());
    world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
    let portal = world
        .until("acme", "waiting", |portal| {
            portal.and_then(|p| condition_of(p, "Ready")).is_some_and(|c| c.message.starts_with("the deletion waits: "))
        })
        .await;
    assert!(portal.unwrap().metadata.finalizers.is_some());
    assert_eq!(world.get(HOST, "/").await.0, 421, "a portal that is going is served no longer");
    // and the plan tells what the deletion waits for
    let problems = world.plan().await.remove(0).problems;
    assert!(problems.len() == 1 && problems[0].contains(": the deletion waits: "), "{problems:?}");
    world.simulators.faults.clear();
    world.until("acme", "gone", |portal| portal.is_none()).await;
    assert!(world.records().is_empty() && !world.routed(HOST) && world.claims().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_proof_is_not_ready() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    // when the route leads elsewhere although everything is in place
    let address = format!("127.0.0.1:{}", crate::peers::free_port());
    let edge = json!({"spec": {"probe": {"address": address}}});
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&edge)).await.unwrap();
    let message = world.until_condition("acme", "Live", "False", "ConnectionRefused").await;
    let asked = format!("http://{} (asked at {address}, probe.address of the class)", world.authority(HOST));
    assert!(message.starts_with(&format!("{asked} does not answer: ")), "{message}");
    world.until_condition("acme", "Ready", "False", "ConnectionRefused").await;
    // and without probing it is unknown
    let off = json!({"spec": {"probe": {"enabled": false}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&off)).await.unwrap();
    world.until_condition("acme", "Live", "Unknown", "ProbeDisabled").await;
    world.until_condition("acme", "Ready", "Unknown", "ProbeDisabled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manual_mode_waits_for_the_operator_and_writes_nothing() {
    let mut world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let manual = json!({"spec": {
        "cloudflare": null, "proxy": {"caddy": null, "manual": {}},
        "probe": {"address": format!("127.0.0.1:{}", crate::peers::free_port())},
    }});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&manual)).await.unwrap();
    world.create("acme", acme()).await;
    let message = world.until_condition("acme", "Ready", "False", "AwaitingOperator").await;
    let command = "record and route are made by hand: see `portalkeeper snippets reset.acme.localhost --origin 127.0.0.1:5000 \
                   --cname-target edge.portalkeeper.localhost`";
    assert!(message.contains(command), "{message}");
    let portal = world.portals().get("acme").await.unwrap();
    assert!(condition_of(&portal, "RouteProgrammed").is_none() && condition_of(&portal, "DNSProgrammed").is_none());
    // when the operator has made them (here: the proxy is the page server itself)
    let made = json!({"spec": {"probe": {"address": world.pages.to_string()}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&made)).await.unwrap();
    world.until_ready("acme").await;
    assert!(world.writes().is_empty());
    // when it is there no more, also after a restart, then what is seen is the reason, and the hint stands behind it
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&manual)).await.unwrap();
    let message = world.until_condition("acme", "Live", "False", "ConnectionRefused").await;
    assert!(message.ends_with(command), "{message}");
    world.stop_daemon().await;
    let elsewhere = format!("127.0.0.1:{}", crate::peers::free_port());
    let moved = json!({"spec": {"probe": {"address": elsewhere}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&moved)).await.unwrap();
    world.start_daemon().await;
    let asked_there = |portal: Option<&ResetPortal>| {
        let live = portal.and_then(|portal| condition_of(portal, "Live"));
        live.is_some_and(|live| live.message.contains(&elsewhere))
    };
    world.until("acme", "asked elsewhere", asked_there).await;
    let portal = world.portals().get("acme").await.unwrap();
    assert_eq!(condition_of(&portal, "Live").unwrap().reason, "ConnectionRefused");
    // when the portal is edited, then the operator is waited for again
    world.patch("acme", json!({"spec": {"subdomain": "password"}})).await;
    world.until_condition("acme", "Live", "False", "AwaitingOperator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_moves_to_another_class_leaves_nothing_in_the_former_proxy() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let mut class = classes.get("sandbox").await.unwrap();
    class.metadata = kube::api::ObjectMeta { name: Some("by-hand".into()), ..Default::default() };
    class.spec.default = false;
    class.spec.proxy = serde_json::from_value(json!({"manual": {}})).unwrap();
    class.spec.probe.address = Some(world.pages.to_string());
    classes.create(&Default::default(), &class).await.unwrap();
    world.clear_logs();
    world.patch("acme", json!({"spec": {"className": "by-hand"}})).await;
    // both have one public name, so that somebody has to say when visitors come to the new one
    let message = world.until_condition("acme", "Moved", "Unknown", "AwaitingOperator").await;
    assert!(world.routed(HOST));
    let word = message.split(&format!("{ANNOTATION_MOVED_BY_HAND}=")).nth(1).unwrap().split(',').next().unwrap();
    world.annotate("acme", ANNOTATION_MOVED_BY_HAND, Some(word)).await;
    world
        .until("acme", "in its new class", |portal| {
            portal.and_then(|p| p.status.as_ref()).is_some_and(|s| s.class_name.as_deref() == Some("by-hand"))
        })
        .await;
    assert!(!world.routed(HOST));
    // the record is the same in both classes and is not touched
    assert_eq!(world.records().len(), 1);
    assert!(world.simulators.cloudflare_log.writes().is_empty());
    world.delete("acme").await;
    assert!(world.records().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_a_class_that_cannot_be_edited() {
    use portalkeeper::controller::{EnvironmentClass, EnvironmentSecrets};
    let spec = serde_json::from_value(json!({"proxy": {"manual": {}}, "probe": {"enabled": false}})).unwrap();
    let environment = EnvironmentClass { spec, secrets: EnvironmentSecrets::default() };
    let mut world = World::stopped(Some(environment)).await;
    world.start_daemon().await;
    world.create("acme", acme()).await;
    world.until_condition("acme", "Ready", "Unknown", "ProbeDisabled").await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let edit = json!({"spec": {"probe": {"enabled": true}}});
    classes.patch("environment", &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
    for _ in 0..500 {
        if !classes.get("environment").await.unwrap().spec.probe.enabled {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the edit was not undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_portal_holds_no_name_that_others_may_want() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    // given portals that can have one of their two names and not the other
    world.create("twin", json!({"domain": "acme.localhost", "subdomain": "other"})).await;
    world.until_condition("twin", "Claimed", "False", "MailDomainConflict").await;
    world.create("rival", json!({"domain": "globex.localhost", "host": HOST})).await;
    world.until_condition("rival", "Claimed", "False", "HostConflict").await;
    assert_eq!(world.claims().await, [format!("host--{HOST}"), "mail--acme.localhost".into()]);
    // then the names they cannot use are there for others
    world.create("globex", json!({"domain": "globex.localhost"})).await;
    world.until_ready("globex").await;
    world.patch("acme", json!({"spec": {"subdomain": "other"}})).await;
    world
        .until("acme", "at its other host", |portal| {
            portal
                .and_then(|p| p.status.as_ref())
                .is_some_and(|s| s.resources.iter().all(|made| made.name == "other.acme.localhost"))
        })
        .await;
    // and who asks for a name that is taken goes on being served at the one it has
    world.patch("globex", json!({"spec": {"subdomain": null, "host": "other.acme.localhost"}})).await;
    world.until_condition("globex", "Claimed", "False", "HostConflict").await;
    assert_eq!(world.get("reset.globex.localhost", "/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_does_not_wait_for_a_class_in_which_nothing_was_made() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    world.patch("acme", json!({"spec": {"className": "mistyped"}})).await;
    world.until_condition("acme", "Accepted", "False", "ClassNotFound").await;
    world.delete("acme").await;
    assert!(world.records().is_empty() && world.claims().await.is_empty() && !world.routed(HOST));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_without_its_class_waits_and_says_why() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let kept = classes.get("sandbox").await.unwrap();
    classes.delete("sandbox", &DeleteParams::default()).await.unwrap();
    world.until_condition("acme", "Accepted", "False", "ClassNotFound").await;
    // what was made stays, although the page is served no longer
    assert_eq!(world.records().len(), 1);
    assert_eq!(world.get(HOST, "/").await.0, 421);
    world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
    let message = world.until_condition("acme", "Ready", "False", "ClassNotFound").await;
    // until when, and what can be done
    let words = "the deletion waits: PortalClass \"sandbox\" does not exist; make the class again as it was, and what was made under \
                 it is removed; it is tried again until ";
    assert!(message.starts_with(words), "{message}");
    let deleted = world.portals().get("acme").await.unwrap().metadata.deletion_timestamp.unwrap().0;
    let until = deleted + SignedDuration::try_from(world.timing.letting_go).unwrap();
    assert!(message.contains(&format!(" until {}, ", until.strftime("%Y-%m-%dT%H:%M:%SZ"))), "{message}");
    assert_eq!(world.records().len(), 1);
    // when the class is back, then the deletion ends
    let mut again = kept;
    again.metadata = kube::api::ObjectMeta { name: Some("sandbox".into()), ..Default::default() };
    classes.create(&Default::default(), &again).await.unwrap();
    world.until("acme", "gone", |portal| portal.is_none()).await;
    assert!(world.records().is_empty() && world.claims().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_portal_the_program_is_ready_too() {
    let world = World::start().await;
    for _ in 0..1000 {
        if world.is_ready() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("not ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_hangs_leaves_nobody_without_a_word() {
    let world = World::start().await;
    // given a proxy that takes its time
    world.simulators.faults.push("GET", "/config", usize::MAX, Fault::Delay(std::time::Duration::from_secs(4)));
    // when a portal is made, then it is told that somebody is slow long before the call is given up
    world.create("acme", acme()).await;
    let message = world.until_condition("acme", "Ready", "Unknown", "Working").await;
    assert_eq!(message, "record and route are being made; a system is slow to answer");
    let status = world.portals().get("acme").await.unwrap().status.unwrap();
    assert_eq!((status.host.as_deref(), status.observed_generation), (Some(HOST), None));
    // and when it was live and is deleted, then it is not told to be live meanwhile
    world.simulators.faults.clear();
    world.until_ready("acme").await;
    world.simulators.faults.push("GET", "/config", usize::MAX, Fault::Delay(std::time::Duration::from_secs(4)));
    world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
    let message = world.until_condition("acme", "Ready", "False", "Deleting").await;
    assert_eq!(
        message,
        "the page is off; record and route are still being removed, because a system is slow to answer"
    );
    world.simulators.faults.clear();
    world.until("acme", "gone", |portal| portal.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_waits_for_a_wrong_secret_goes_on_with_the_right_one() {
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let token = |key: &str| json!({"spec": {"cloudflare": {"apiTokenSecretRef": {"name": "sandbox", "key": key}}}});
    let patch = async |change: Value| {
        classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    };
    // given a portal that was made under a reference to a key that is gone by now
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "portalkeeper");
    let kept = secrets.get("sandbox").await.unwrap().data.unwrap();
    let change_old = async |value: Value| {
        let change = json!({"data": {"old": value}});
        secrets.patch("sandbox", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    };
    change_old(json!(kept["cloudflare-token"])).await;
    patch(token("old")).await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    change_old(Value::Null).await;
    world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
    world.until_condition("acme", "Ready", "False", "SecretNotFound").await;
    // when the class names the right one, then the deletion ends
    patch(token("cloudflare-token")).await;
    world.until("acme", "gone", |portal| portal.is_none()).await;
    assert!(world.records().is_empty() && world.claims().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_mail_says_that_no_password_can_be_reset() {
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let without = json!({"spec": {"mailbox": null, "smtp": null}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&without)).await.unwrap();
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    let ready = condition_of(&world.portals().get("acme").await.unwrap(), "Ready").unwrap();
    let words = "serving; no password can be reset: PortalClass \"sandbox\" names no mail host (mailbox) and no mail server (smtp)";
    assert_eq!(ready.message, words);
}
