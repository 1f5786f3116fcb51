//! A declared portal whose class names a tunnel.
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::backends::cloudflare_api::double::ACCOUNT;
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::{Value, json};

use super::{TUNNEL, rules_of};
use crate::world::{World, condition_of};

const NAME: &str = "reset.acme.localhost";

/// What other people have in the tunnel; the wildcard would take every portal's requests.
fn theirs() -> Value {
    json!({
        "ingress": [
            {"hostname": "www.acme.localhost", "service": "http://10.0.0.1:80", "originRequest": {"noTLSVerify": true}},
            {"hostname": "*.acme.localhost", "service": "http_status:418"},
            {"service": "http_status:404"},
        ],
        "warp-routing": {"enabled": true},
    })
}

async fn patch_class(world: &World, spec: Value) -> Result<PortalClass, kube::Error> {
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await
}

/// The sandbox's class with a tunnel in place of its Caddy.
async fn given(world: &World) {
    world.simulators.cloudflare.add_tunnel(TUNNEL, theirs());
    let origin = format!("http://{}/", world.pages);
    let tunnel = json!({"tunnelId": TUNNEL, "origin": origin});
    let account = json!({"accountId": ACCOUNT});
    let spec =
        json!({"cloudflare": account, "cnameTarget": null, "proxy": {"caddy": null, "cloudflareTunnel": tunnel}});
    patch_class(world, spec).await.unwrap();
}

/// The document without rules for the pages.
fn foreign(world: &World) -> String {
    let (mut config, _) = world.simulators.cloudflare.tunnel_document(TUNNEL);
    let origin = format!("http://{}", world.pages);
    rules_of(&mut config).retain(|rule| rule["service"] != *origin);
    config.to_string()
}

fn rules_for(world: &World, host: &str) -> usize {
    let (config, _) = world.simulators.cloudflare.tunnel_document(TUNNEL);
    config["ingress"].as_array().unwrap().iter().filter(|rule| rule["hostname"] == host).count()
}

/// Method and kind of each write, in order.
fn writes(world: &World) -> Vec<String> {
    let kind = |path: &str| if path.contains("/cfd_tunnel/") { "rules" } else { "record" };
    let calls = world.simulators.cloudflare_log.writes();
    calls.iter().map(|call| format!("{} {}", call.method, kind(&call.path))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_lives_behind_a_tunnel_and_leaves_it_as_it_was() {
    let world = World::start().await;
    given(&world).await;
    // when it is declared, then its rule is made before its record, and a request comes through both
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_ready("acme").await;
    assert_eq!(writes(&world), ["PUT rules", "POST record"]);
    assert_eq!(world.records(), [format!("{NAME} CNAME {TUNNEL}.cfargotunnel.com")]);
    assert_eq!(world.simulators.cloudflare.records()[0]["proxied"], true);
    assert_eq!(foreign(&world), theirs().to_string());
    let message = world.until_condition("acme", "RouteProgrammed", "True", "Proved").await;
    assert!(message.ends_with("the proof of life came through"), "{message}");
    // when its host changes, then the new one is made and proved before the old one goes, its record before its rule
    world.clear_logs();
    world.patch("acme", json!({"spec": {"subdomain": "new"}})).await;
    world
        .until("acme", "at its new host only", |portal| {
            let made = portal.and_then(|portal| portal.status.as_ref()).map(|status| &status.resources);
            made.is_some_and(|made| made.len() == 2 && made.iter().all(|made| made.name == "new.acme.localhost"))
        })
        .await;
    world.until_ready("acme").await;
    assert_eq!(writes(&world), ["PUT rules", "POST record", "DELETE record", "PUT rules"]);
    assert_eq!(world.records(), [format!("new.acme.localhost CNAME {TUNNEL}.cfargotunnel.com")]);
    assert_eq!((rules_for(&world, NAME), foreign(&world)), (0, theirs().to_string()));
    // when it is deleted, then its record goes before its rule
    world.clear_logs();
    world.delete("acme").await;
    assert_eq!(writes(&world), ["DELETE record", "PUT rules"]);
    let (config, _) = world.simulators.cloudflare.tunnel_document(TUNNEL);
    assert_eq!(config.to_string(), theirs().to_string());
    assert!(world.records().is_empty() && world.claims().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_between_rule_and_record_is_gone_on_from() {
    let mut world = World::start().await;
    given(&world).await;
    // given a process that made the rule and ended before it could make the record
    let page = || Fault::Answer(DoubleResponse::text(500, "oops"));
    world.simulators.faults.push("POST", "/dns_records", usize::MAX, page());
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until("acme", "with a rule", |_| rules_for(&world, NAME) == 1).await;
    world.stop_daemon().await;
    world.simulators.faults.clear();
    assert!(world.records().is_empty());
    // when the next one starts, then it knows the rule as its own, also where the status never told of it
    let forget = json!({"status": {"resources": null}});
    world.portals().patch_status("acme", &PatchParams::default(), &Patch::Merge(&forget)).await.unwrap();
    world.clear_logs();
    world.start_daemon().await;
    world.until_ready("acme").await;
    assert_eq!(writes(&world), ["POST record"]);
    assert_eq!((rules_for(&world, NAME), foreign(&world)), (1, theirs().to_string()));
    world.delete("acme").await;
    assert_eq!(world.simulators.cloudflare.tunnel_document(TUNNEL).0.to_string(), theirs().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_leads_to_a_tunnel_in_which_somebody_else_has_the_host() {
    let world = World::start().await;
    given(&world).await;
    let foreign_rule = json!({"hostname": NAME, "service": "http://10.0.0.9:80"});
    world.simulators.cloudflare.edit_tunnel(TUNNEL, |config| rules_of(config).insert(0, foreign_rule.clone()));
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    let message = world.until_condition("acme", "RouteProgrammed", "False", "ForeignRule").await;
    assert_eq!(
        message,
        format!(
            "{NAME} is taken by something that is not ours: tunnel rule to http://10.0.0.9:80; remove it, or set the annotation portalkeeper.dev/adopt=true to take it over"
        )
    );
    let message = world.until_condition("acme", "DNSProgrammed", "Unknown", "WaitsForOrder").await;
    assert!(message.starts_with("waits until the rule in the tunnel is in order"), "{message}");
    let log = &world.simulators.cloudflare_log;
    assert!(
        log.writes().is_empty()
            && log.calls().iter().all(|call| call.path.contains("/cfd_tunnel/") || call.path.contains("/audit_logs"))
    );
    // a portal that may be reached past the edge cannot be behind a tunnel at all
    world.create("globex", json!({"domain": "globex.localhost", "dns": {"proxied": false}})).await;
    world.until_condition("globex", "Accepted", "False", "ProxyingNeeded").await;
    // when it may be taken over, then it is
    world.annotate("acme", "portalkeeper.dev/adopt", Some("true")).await;
    world.until_ready("acme").await;
    assert_eq!((rules_for(&world, NAME), foreign(&world)), (1, theirs().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_visitors_see_of_a_tunnel_that_is_down_is_named() {
    let world = World::start().await;
    given(&world).await;
    world.simulators.cloudflare.set_tunnel(TUNNEL, "status", json!("down"));
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    let message = world.until_condition("acme", "Live", "False", "TunnelDown").await;
    assert!(message.contains("error 1033: no connector of the tunnel runs"), "{message}");
    // the rule is written, and nothing has shown that it is used
    let portal = world.portals().get("acme").await.unwrap();
    let route = condition_of(&portal, "RouteProgrammed").unwrap();
    assert_eq!((route.status.as_str(), route.reason.as_str()), ("Unknown", "AwaitingProof"));
    world.simulators.cloudflare.set_tunnel(TUNNEL, "status", json!("healthy"));
    world.until_ready("acme").await;
    // when the tunnel itself is deleted, then that is told, and the portal can still go
    world.simulators.cloudflare.remove_tunnel(TUNNEL);
    world.delete("acme").await;
    assert!(world.records().is_empty() && world.claims().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_whose_tunnel_cannot_be_used_is_refused() {
    let world = World::start().await;
    let tunnel = |more: Value| {
        let mut tunnel = json!({"tunnelId": TUNNEL, "origin": "http://127.0.0.1:5000"});
        tunnel.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"caddy": null, "cloudflareTunnel": tunnel})
    };
    let refusal = async |spec: Value| patch_class(&world, spec).await.expect_err("refused").to_string();
    let own_account = json!({"accountId": ACCOUNT});
    let nobodys = refusal(json!({"proxy": tunnel(json!({}))})).await;
    assert!(nobodys.contains("needs cloudflare.accountId or an accountId of its own"), "{nobodys}");
    let no_token = refusal(json!({"cloudflare": null, "proxy": tunnel(own_account)})).await;
    assert!(no_token.contains("proxy.cloudflareTunnel needs cloudflare, whose token"), "{no_token}");
    for (more, field) in [
        (json!({"accountId": ACCOUNT, "tunnelId": "my-tunnel"}), "spec.proxy.cloudflareTunnel.tunnelId"),
        (json!({"accountId": ACCOUNT, "origin": "127.0.0.1:5000"}), "spec.proxy.cloudflareTunnel.origin"),
        (json!({"accountId": ACCOUNT, "origin": "http://127.0.0.1:5000/x"}), "spec.proxy.cloudflareTunnel.origin"),
    ] {
        let words = refusal(json!({"proxy": tunnel(more)})).await;
        assert!(words.contains(field), "{words}");
    }
    // what the definition cannot see is told by the class
    patch_class(&world, json!({"proxy": tunnel(json!({"accountId": ACCOUNT, "origin": "http://127.0.0.1"}))}))
        .await
        .unwrap();
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    let message = world.until_condition("acme", "Accepted", "False", "ClassUnusable").await;
    assert!(
        message.contains("proxy.cloudflareTunnel.origin (CF_TUNNEL_ORIGIN): `http://127.0.0.1` has no port"),
        "{message}"
    );
}
