//! A declared portal whose class names an Nginx Proxy Manager.
use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::backends::npm::double::{Authority, IDENTITY, NpmDouble, SECRET};
use portalkeeper::http::double::{Fault, RunningDouble};
use serde_json::{Value, json};

use super::NEWEST;
use crate::world::World;

const NAME: &str = "reset.acme.localhost";

/// The sandbox's class with an NPM in place of its Caddy.
async fn given(world: &World, npm: &RunningDouble, more: Value) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "npm", "namespace": "portalkeeper"}, "type": "Opaque",
        "stringData": {"identity": IDENTITY, "password": format!("{SECRET}\n")},
    });
    world.put(&secret).await;
    let mut settings = json!({
        "apiUrl": npm.url.as_str(), "forwardHost": "127.0.0.1", "forwardPort": world.pages.port(),
        "identitySecretRef": {"name": "npm", "key": "identity"}, "passwordSecretRef": {"name": "npm", "key": "password"},
    });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let patch = json!({"spec": {
        "proxy": {"caddy": null, "npm": settings}, "publicScheme": "https",
        "probe": {"enabled": false},
    }});
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_portal_gets_certificate_and_host_and_loses_both_when_it_goes() {
    let world = World::start().await;
    let double = Arc::new(NpmDouble::new(NEWEST, Arc::new(SystemClock)));
    let npm = RunningDouble::start(double.clone()).await.unwrap();
    given(&world, &npm, json!({})).await;
    // given a CA that refuses, when a portal is declared, then its words are in the condition and nothing is served
    double.set_authority(Authority::Refuses("Some challenges have failed.".to_owned()));
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    let message = world.until_condition("acme", "CertificateIssued", "False", "CertificateChallengeFailed").await;
    assert_eq!(message, format!("Let's Encrypt gave no certificate for {NAME}: Some challenges have failed."));
    world.until_condition("acme", "RouteProgrammed", "False", "CertificateMissing").await;
    assert_eq!((double.hosts().len(), double.orders()), (0, 1));
    // when another class setting gives one that is there, then the host is made with it
    let wildcard = double.add_certificate("other", "wildcard", &[], 90);
    given(&world, &npm, json!({"certificate": {"existing": {"name": "wildcard"}}})).await;
    let message = world.until_condition("acme", "CertificateIssued", "True", "Issued").await;
    assert_eq!(message, format!("{NAME} is served with the certificate named \"wildcard\""));
    let message = world.until_condition("acme", "RouteProgrammed", "True", "Programmed").await;
    assert_eq!(message, format!("{NAME} is in place in npm/{}", npm.address));
    let row = double.host(NAME).unwrap();
    assert_eq!((&row["certificate_id"], &row["forward_port"]), (&json!(wildcard), &json!(world.pages.port())));
    // when it is deleted, then only what was there before is left
    world.delete("acme").await;
    assert_eq!((double.hosts().len(), double.certificates().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_class_definition_refuses_what_cannot_be_meant() {
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let npm = |more: Value| {
        let mut npm = json!({"apiUrl": "http://127.0.0.1:81", "forwardHost": "10.0.0.5"});
        npm.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        npm
    };
    let refusal = async |proxy: Value| {
        let patch = json!({"spec": {"proxy": proxy}});
        let outcome = classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&patch)).await;
        outcome.expect_err("refused").to_string()
    };
    let both = refusal(json!({"npm": npm(json!({}))})).await;
    assert!(
        both.contains("exactly one proxy is needed: npm, cloudflareTunnel, caddy, traefik, ingress or manual"),
        "{both}"
    );
    let two = npm(json!({"certificate": {"none": {}, "originCa": {}}}));
    let two = refusal(json!({"caddy": null, "npm": two})).await;
    assert!(two.contains("at most one of letsEncrypt, originCa, existing and none"), "{two}");
    let neither = npm(json!({"certificate": {"existing": {}}}));
    let neither = refusal(json!({"caddy": null, "npm": neither})).await;
    assert!(neither.contains("give either id or name"), "{neither}");
    let injected = npm(json!({"forwardHost": "a; return 200"}));
    let injected = refusal(json!({"caddy": null, "npm": injected})).await;
    assert!(injected.contains("spec.proxy.npm.forwardHost"), "{injected}");
}

/// Waits until a cut order has reached the simulated NPM.
async fn until_ordered(double: &NpmDouble) {
    for _ in 0..1000 {
        if double.orders() > 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("nothing is ordered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_under_way_when_the_program_ends_is_used_or_removed_by_the_next_one() {
    for deleted in [false, true] {
        // given a program that ends while NPM orders a certificate for its portal
        let mut world = World::start().await;
        let double = Arc::new(NpmDouble::new(NEWEST, Arc::new(SystemClock)));
        let npm = RunningDouble::start(double.clone()).await.unwrap();
        given(&world, &npm, json!({})).await;
        double.set_authority(Authority::Ponders);
        npm.faults.push("POST", "/certificates", 1, Fault::CutAfter);
        world.create("acme", json!({"domain": "acme.localhost"})).await;
        until_ordered(&double).await;
        world.stop_daemon().await;
        let id = double.certificates()[0]["id"].as_u64().unwrap();
        if deleted {
            // when the portal is deleted meanwhile, then the next program waits for the order, and leaves nothing
            world.portals().delete("acme", &Default::default()).await.unwrap();
            world.start_daemon().await;
            let message = world.until_condition("acme", "Ready", "False", "CertificatePending").await;
            assert!(message.starts_with("the deletion waits: NPM is still ordering certificate 1"), "{message}");
            double.finish_certificate(id);
            world.until("acme", "gone", |portal| portal.is_none()).await;
            assert_eq!((double.hosts().len(), double.certificates().len()), (0, 0));
        } else {
            // when it is still wanted, then the next program uses what was ordered
            world.start_daemon().await;
            world.until_condition("acme", "CertificateIssued", "False", "CertificatePending").await;
            double.finish_certificate(id);
            world.annotate("acme", "example.com/looked", Some("at")).await;
            world.until_condition("acme", "CertificateIssued", "True", "Issued").await;
            assert_eq!(double.host(NAME).unwrap()["certificate_id"], id);
            world.delete("acme").await;
            assert_eq!((double.hosts().len(), double.certificates().len()), (0, 0));
        }
        assert_eq!(double.orders(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_portal_says_what_npm_still_has_of_it() {
    let mut world = World::start().await;
    let double = Arc::new(NpmDouble::new(NEWEST, Arc::new(SystemClock)));
    let npm = RunningDouble::start(double.clone()).await.unwrap();
    given(&world, &npm, json!({})).await;
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    world.until_condition("acme", "RouteProgrammed", "True", "Programmed").await;
    let system = format!("npm/{}", npm.address);
    let status = async |world: &World| world.portals().get("acme").await.unwrap().status.unwrap();
    let resources = async |world: &World| -> Vec<String> {
        status(world).await.resources.iter().map(|made| format!("{} {}", made.system, made.name)).collect()
    };
    // given that nothing may be written, when it is disabled, then what would be done is told
    world.annotate("acme", portalkeeper::api::ANNOTATION_PAUSED, Some("true")).await;
    world.patch("acme", json!({"spec": {"enabled": false}})).await;
    let message = world.until_condition("acme", "Ready", "False", "Disabled").await;
    let mut pending = status(&world).await.pending;
    pending.sort();
    let expected = [format!("cloudflare: delete {NAME}"), format!("{system}: switch off {NAME}")];
    assert_eq!(pending, expected);
    assert!(message.starts_with("enabled is false; not done while writes are stopped: "), "{message}");
    let mut planned = world.plan().await.remove(0).changes;
    planned.sort();
    assert_eq!(planned, expected);
    assert_eq!((double.host(NAME).unwrap()["enabled"].as_bool(), resources(&world).await.len()), (Some(true), 2));
    // when writes are allowed again, then it is switched off, and that is what the status says
    world.annotate("acme", portalkeeper::api::ANNOTATION_PAUSED, None).await;
    let told = format!(
        "enabled is false: what is served is removed, the claim is kept, and so is, switched off, {NAME} in {system}"
    );
    let off = |portal: Option<&portalkeeper::api::ResetPortal>| {
        crate::world::condition_of(portal.unwrap(), "Ready").is_some_and(|ready| ready.message == told)
    };
    world.until("acme", &told, off).await;
    assert_eq!((double.host(NAME).unwrap()["enabled"].as_bool(), world.records()), (Some(false), vec![]));
    assert_eq!((resources(&world).await, world.plan().await[0].changes.len()), (vec![format!("{system} {NAME}")], 0));
    // and by the next program, which writes nothing for it
    npm.log.clear();
    world.stop_daemon().await;
    world.start_daemon().await;
    world.annotate("acme", "example.com/looked", Some("at")).await;
    world.until("acme", &told, off).await;
    let writes = || npm.log.writes().into_iter().filter(|call| call.path.contains("/nginx/")).count();
    assert_eq!((writes(), status(&world).await.pending), (0, vec![]));
    // when it is enabled, then it is served again with the certificate it had
    world.patch("acme", json!({"spec": {"enabled": true}})).await;
    world.until_condition("acme", "RouteProgrammed", "True", "Programmed").await;
    assert_eq!((double.host(NAME).unwrap()["enabled"].as_bool(), double.orders(), writes()), (Some(true), 1, 1));
    // when it is disabled and deleted, then nothing is left
    world.patch("acme", json!({"spec": {"enabled": false}})).await;
    world.until("acme", &told, off).await;
    world.delete("acme").await;
    assert_eq!((double.hosts().len(), double.certificates().len()), (0, 0));
}
