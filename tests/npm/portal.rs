//! A declared portal whose class names an Nginx Proxy Manager.
use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::backends::npm::double::{Authority, IDENTITY, NpmDouble, SECRET};
use portalkeeper::http::double::RunningDouble;
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
