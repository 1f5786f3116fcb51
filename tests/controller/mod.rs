//! What becomes of portals: the calls that are made outside, the conditions, and what people read in them.
mod around;

use kube::api::{Api, DeleteParams, Patch, PatchParams};
use portalkeeper::api::{ANNOTATION_ADOPT, ANNOTATION_PAUSED, PortalClass};
use serde_json::{Value, json};

use crate::world::World;

const HOST: &str = "reset.acme.localhost";

fn acme() -> Value {
    json!({"domain": "acme.localhost"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_is_made_served_proved_and_removed_with_nothing_left() {
    let world = World::start().await;
    // when a portal is declared
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    // then record, route and claims are there, and the page is served
    assert_eq!(world.records(), [format!("{HOST} CNAME edge.portalkeeper.localhost")]);
    assert!(world.routed(HOST));
    assert_eq!(world.claims().await, [format!("host--{HOST}"), "mail--acme.localhost".into()]);
    assert_eq!(world.get(HOST, "/").await.0, 200);
    let portal = world.portals().get("acme").await.unwrap();
    let status = portal.status.clone().unwrap();
    assert_eq!(status.url, Some(format!("http://{}", world.authority(HOST))));
    assert!(status.last_proof.is_some());
    let conditions: Vec<_> = status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
    let expected =
        ["Accepted", "Claimed", "DNSProgrammed", "RouteProgrammed", "ProviderReady", "SenderVerified", "Live", "Ready"];
    assert_eq!(conditions, expected.map(|name| (name, "True")));
    // one creation at Cloudflare, one write at Caddy (a server, as there was none)
    assert_eq!(world.simulators.cloudflare_log.writes().len(), 1);
    assert_eq!(world.simulators.caddy_log.writes().len(), 1);
    // when it is deleted, then nothing is left
    world.delete("acme").await;
    assert!(world.records().is_empty() && !world.routed(HOST));
    assert!(world.claims().await.is_empty());
    assert_eq!(world.get(HOST, "/").await.0, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_when_nothing_changed() {
    let mut world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    world.clear_logs();
    // when it is applied again, labelled, and looked at because its class was touched
    world.patch("acme", json!({"spec": {"domain": "acme.localhost"}, "metadata": {"labels": {"a": "b"}}})).await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let touch = json!({"spec": {"reset": {"linkMinutes": 45}}});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&touch)).await.unwrap();
    world.until("acme", "looked at again", |portal| portal.is_some()).await;
    // and when the daemon starts anew
    world.stop_daemon().await;
    world.start_daemon().await;
    for _ in 0..1000 {
        if world.is_ready() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // ready means that the portals which were there are served again
    assert!(world.is_ready());
    assert_eq!(world.get(HOST, "/").await.0, 200);
    world.patch("acme", json!({"spec": {"branding": {"title": "Acme"}}})).await;
    world.until_ready("acme").await;
    // then no write was made
    assert_eq!(world.writes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_portal_keeps_only_its_claim() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    world.patch("acme", json!({"spec": {"enabled": false}})).await;
    let message = world.until_condition("acme", "Ready", "False", "Disabled").await;
    assert_eq!(message, "enabled is false: record and route are removed, the claim is kept");
    assert!(world.records().is_empty() && !world.routed(HOST));
    assert_eq!(world.claims().await.len(), 2);
    assert_eq!(world.get(HOST, "/").await.0, 421);
    // and comes back
    world.patch("acme", json!({"spec": {"enabled": true}})).await;
    world.until_ready("acme").await;
    assert_eq!(world.get(HOST, "/").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_portal_is_served_and_nothing_is_written_for_it() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    world.annotate("acme", ANNOTATION_PAUSED, Some("true")).await;
    world.until_condition("acme", "Ready", "True", "Paused").await;
    world.clear_logs();
    // when somebody changes what it wants
    world.patch("acme", json!({"spec": {"dns": {"proxied": false}}})).await;
    let message = world.until_condition("acme", "DNSProgrammed", "False", "ChangePending").await;
    assert!(message.starts_with("not done while writes are stopped: update reset.acme.localhost from"), "{message}");
    assert_eq!(world.get(HOST, "/").await.0, 200);
    assert!(world.writes().is_empty());
    // and when it is deleted, then it waits, and goes when the pause ends
    world.portals().delete("acme", &DeleteParams::default()).await.unwrap();
    let waiting = world.until_condition("acme", "Ready", "False", "Paused").await;
    assert_eq!(waiting, "the deletion waits: the portal is paused; remove the annotation portalkeeper.dev/paused");
    assert!(world.writes().is_empty());
    world.annotate("acme", ANNOTATION_PAUSED, None).await;
    world.until("acme", "gone", |portal| portal.is_none()).await;
    assert!(world.records().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observed_portal_is_never_written_for() {
    let world = World::start().await;
    let mut spec = acme();
    spec["managementPolicy"] = json!("ObserveOnly");
    world.create("acme", spec).await;
    let message = world.until_condition("acme", "DNSProgrammed", "False", "ChangePending").await;
    assert!(message.contains("create reset.acme.localhost"), "{message}");
    let pending = world.portals().get("acme").await.unwrap().status.unwrap().pending;
    assert_eq!(pending.len(), 2, "{pending:?}");
    world.delete("acme").await;
    assert_eq!(world.writes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_portal_leaves_record_and_route_without_our_mark() {
    let world = World::start().await;
    let mut spec = acme();
    spec["deletionPolicy"] = json!("Retain");
    world.create("acme", spec).await;
    world.until_condition("acme", "Ready", "True", "LiveRetain").await;
    world.delete("acme").await;
    assert_eq!(world.records().len(), 1);
    assert!(world.routed(HOST));
    let records = world.simulators.cloudflare.records();
    assert!(!records[0]["comment"].as_str().unwrap_or_default().contains("portalkeeper/"), "{records:?}");
    assert!(!world.simulators.caddy.config().to_string().contains("pk1-"));
    assert!(world.claims().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_is_left_alone_until_it_is_adopted_or_gone() {
    let world = World::start().await;
    world.simulators.cloudflare.put_foreign(HOST, "A", "192.0.2.7");
    world.create("acme", acme()).await;
    let message = world.until_condition("acme", "DNSProgrammed", "False", "ForeignRecord").await;
    assert_eq!(
        message,
        "reset.acme.localhost is taken by something that is not ours: A record to 192.0.2.7; \
         remove it, or set the annotation portalkeeper.dev/adopt=true to take it over"
    );
    world.until_condition("acme", "Ready", "False", "ForeignRecord").await;
    assert_eq!(world.records(), [format!("{HOST} A 192.0.2.7")]);
    // one creation was tried and refused by Cloudflare itself
    let writes = world.simulators.cloudflare_log.writes();
    assert!(writes.len() == 1 && writes[0].method == "POST" && writes[0].status == 400, "{writes:?}");
    // when its owner allows it, then it is taken over, once
    world.annotate("acme", ANNOTATION_ADOPT, Some("true")).await;
    world.until_condition("acme", "Ready", "True", "LiveAdopted").await;
    assert_eq!(world.records(), [format!("{HOST} CNAME edge.portalkeeper.localhost")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_route_is_left_alone_and_named() {
    let world = World::start().await;
    let own = json!({"apps": {"http": {"servers": {"mine": {"listen": [":80"], "routes": [
        {"match": [{"host": [HOST]}], "handle": [{"handler": "static_response", "body": "mine"}], "terminal": true}
    ]}}}}});
    world.simulators.caddy.load(own.clone());
    world.create("acme", acme()).await;
    let message = world.until_condition("acme", "RouteProgrammed", "False", "ForeignRoute").await;
    assert_eq!(
        message,
        "reset.acme.localhost is taken by something that is not ours: route with the handler static_response; \
         remove it, or set the annotation portalkeeper.dev/adopt=true to take it over"
    );
    assert_eq!(world.simulators.caddy.config(), own);
    world.delete("acme").await;
    assert_eq!(world.simulators.caddy.config(), own);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_host_is_refused_without_naming_its_holder_and_goes_to_the_next_when_free() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    world.clear_logs();
    world.create("rival", json!({"domain": "globex.localhost", "host": HOST})).await;
    let message = world.until_condition("rival", "Claimed", "False", "HostConflict").await;
    assert_eq!(message, "the host reset.acme.localhost is claimed by another portal");
    world.create("twin", json!({"domain": "acme.localhost", "subdomain": "other"})).await;
    let message = world.until_condition("twin", "Claimed", "False", "MailDomainConflict").await;
    assert_eq!(message, "the mail domain acme.localhost is claimed by another portal");
    assert!(world.writes().is_empty());
    // when the holder goes, then the waiting one gets it without being touched
    world.delete("acme").await;
    world.until_ready("rival").await;
    // the loser of the host holds nothing of it
    world.delete("rival").await;
    world.delete("twin").await;
    assert!(world.records().is_empty() && world.claims().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_host_is_proved_before_the_old_one_goes() {
    let world = World::start().await;
    world.create("acme", acme()).await;
    world.until_ready("acme").await;
    world.clear_logs();
    // given that the new host cannot be proved: somebody else has its route
    let config = world.simulators.caddy.config();
    let mut blocked = config.clone();
    let name = config["apps"]["http"]["servers"].as_object().unwrap().keys().next().unwrap().clone();
    let routes = &mut blocked["apps"]["http"]["servers"][&name]["routes"];
    let foreign = json!({"match": [{"host": ["new.acme.localhost"]}], "handle": [], "terminal": true});
    routes.as_array_mut().unwrap().insert(0, foreign);
    world.simulators.caddy.load(blocked);
    world.patch("acme", json!({"spec": {"subdomain": "new"}})).await;
    world.until_condition("acme", "RouteProgrammed", "False", "ForeignRoute").await;
    // then both hosts are served and the old record is still there
    assert_eq!(world.get(HOST, "/").await.0, 200);
    assert_eq!(world.get("new.acme.localhost", "/").await.0, 200);
    assert!(world.records().iter().any(|record| record.starts_with(HOST)), "{:?}", world.records());
    // when the way is free
    world.simulators.caddy.load(config);
    world.until_ready("acme").await;
    world
        .until("acme", "without the old host", |portal| {
            portal.is_some_and(|portal| portal.status.iter().flat_map(|s| &s.resources).all(|made| made.name != HOST))
        })
        .await;
    assert_eq!(world.records(), ["new.acme.localhost CNAME edge.portalkeeper.localhost"]);
    assert!(!world.routed(HOST) && world.routed("new.acme.localhost"));
    assert_eq!(world.get(HOST, "/").await.0, 421);
    assert_eq!(world.claims().await, ["host--new.acme.localhost", "mail--acme.localhost"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_have_messages_that_say_what_to_do() {
    let world = World::start().await;
    world.create("acme", json!({"domain": "acme.localhost", "className": "none"})).await;
    let message = world.until_condition("acme", "Accepted", "False", "ClassNotFound").await;
    assert_eq!(message, "PortalClass \"none\" does not exist");

    let mut class: PortalClass = Api::<PortalClass>::all(world.client.clone()).get("sandbox").await.unwrap();
    class.metadata = kube::api::ObjectMeta { name: Some("none".into()), ..Default::default() };
    class.spec.default = false;
    class.spec.cloudflare.as_mut().unwrap().api_token_secret_ref.as_mut().unwrap().name = "absent".into();
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    classes.create(&Default::default(), &class).await.unwrap();
    let message = world.until_condition("acme", "Accepted", "False", "SecretNotFound").await;
    assert_eq!(message, "Secret \"absent\" of namespace \"portalkeeper\" does not exist");

    // a Caddy that is not there
    let port = crate::peers::free_port();
    let gone = json!({"spec": {
        "cloudflare": {"apiTokenSecretRef": {"name": "sandbox", "key": "cloudflare-token"}},
        "proxy": {"caddy": {"adminUrl": format!("http://127.0.0.1:{port}")}},
    }});
    classes.patch("none", &PatchParams::default(), &Patch::Merge(&gone)).await.unwrap();
    let message = world.until_condition("acme", "RouteProgrammed", "False", "Unreachable").await;
    assert_eq!(
        message,
        format!(
            "cannot reach Caddy's admin API at http://127.0.0.1:{port}: connection refused; check that Caddy runs and \
             that this is its admin address"
        )
    );
    world.until_condition("acme", "Live", "False", "NotProgrammed").await;

    // a token that Cloudflare refuses
    world.simulators.cloudflare.revoke_tokens();
    let other = json!({"spec": {"domain": "globex.localhost"}});
    world.create("globex", other["spec"].clone()).await;
    let message = world.until_condition("globex", "DNSProgrammed", "False", "TokenRefused").await;
    assert_eq!(
        message,
        "cloudflare refused (10000): Authentication error; the API token is not valid any more, or lacks the permission Zone · DNS · Edit"
    );
    // which the class of the other portal does not suffer from in other ways
    let ready = world.until_condition("globex", "Ready", "False", "TokenRefused").await;
    assert!(ready.starts_with("DNSProgrammed: "), "{ready}");
}
