//! Caddy's `admin.remote`: its admin endpoint over TLS, where both sides prove who they are.
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::api::{Api, Patch, PatchParams};
use portalkeeper::api::PortalClass;
use portalkeeper::backends::caddy::{Caddy, CaddyOptions};
use portalkeeper::backends::{BackendError, ErrorClass};
use portalkeeper::config::Secret;
use portalkeeper::http::{Authorities, ClientTls, Identity};
use serde_json::{Value, json};
use url::Url;

use super::real::Real;
use super::{Scene, options, owned_of, routes_of};
use crate::peers::{caddies, free_port};
use crate::world::World;

const HOST: &str = "reset.acme.example";

/// A self-signed certificate with its key, as an operator makes one for this program.
struct Pair {
    identity: Identity,
    /// Certificate and key, PEM.
    pem: (String, String),
    /// As Caddy's configuration wants it.
    public_key: String,
}

fn pair() -> Pair {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["portalkeeper".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("signed");
    let pem = (certificate.pem(), key.serialize_pem());
    Pair {
        identity: Identity::parse(&Secret::new(&*pem.0), &Secret::new(&*pem.1)).expect("a pair"),
        pem,
        public_key: BASE64_STANDARD.encode(certificate.der()),
    }
}

/// A real Caddy that lets in whoever has this certificate, for these paths.
async fn remote(program: &Path, public_key: &str, paths: Value) -> (Real, Url) {
    let port = free_port();
    let real = Real::start_with(program, |config| {
        config["admin"]["identity"] = json!({"identifiers": ["127.0.0.1"], "issuers": [{"module": "internal"}]});
        config["admin"]["remote"] = json!({
            "listen": format!("127.0.0.1:{port}"),
            "access_control": [{
                "public_keys": [public_key],
                "permissions": [{"paths": paths, "methods": ["GET", "PUT", "PATCH"]}],
            }],
        });
    })
    .await;
    (real, Url::parse(&format!("https://127.0.0.1:{port}")).expect("an address"))
}

/// Caddy's own authority, once it has made itself one.
async fn authority(real: &Real) -> Authorities {
    Authorities::parse(&authority_pem(real).await).expect("an authority")
}

async fn authority_pem(real: &Real) -> String {
    let path = real.home.path().join("caddy/pki/authorities/local/root.crt");
    let certificate = real.home.path().join("caddy/certificates/local/127.0.0.1/127.0.0.1.crt");
    let end = Instant::now() + Duration::from_secs(20);
    while !certificate.exists() {
        assert!(Instant::now() < end, "caddy makes no certificate for its admin endpoint");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::read_to_string(path).expect("readable")
}

fn scene(real: &Real, admin: &Url, identity: Option<Identity>, authorities: Option<Authorities>) -> Scene {
    let tls = ClientTls { identity, authorities };
    let listen = Some(format!("127.0.0.1:{}", real.listen));
    Scene::of(Caddy::new(CaddyOptions { tls, ..options(admin, &real.dial(), listen) }).expect("a backend"))
}

async fn refused(scene: &Scene) -> BackendError {
    scene.want(HOST).await.expect_err("refused")
}

#[tokio::test]
async fn a_portal_is_made_and_deleted_through_the_remote_admin_endpoint_of_real_caddys() {
    for peer in caddies() {
        // given a Caddy whose admin endpoint knows our certificate, and allows what the documents say
        let ours = pair();
        let (real, admin) = remote(&peer.program, &ours.public_key, json!(["/config/apps/"])).await;
        let before = real.config().await;
        let scene = scene(&real, &admin, Some(ours.identity), Some(authority(&real).await));
        assert_eq!(scene.worker.instance(), format!("caddy/127.0.0.1:{}", admin.port().expect("a port")));
        // when a portal is wanted, then it is reached
        scene.want(HOST).await.unwrap_or_else(|e| panic!("{}: {e}", peer.name));
        assert_eq!(owned_of(&routes_of(&real.config().await)), [(HOST.to_owned(), real.dial())], "{}", peer.name);
        assert_eq!(real.visit(HOST).await, (200, format!("portal {HOST} ")), "{}", peer.name);
        // when it is deleted, then all is as it was
        scene.unwant(HOST).await.unwrap_or_else(|e| panic!("{}: {e}", peer.name));
        assert_eq!(real.config().await, before, "{}", peer.name);
    }
}

#[tokio::test]
async fn who_may_not_use_the_remote_admin_endpoint_is_told_why() {
    for peer in caddies() {
        let ours = pair();
        let (real, admin) = remote(&peer.program, &ours.public_key, json!(["/config/apps/tls/"])).await;
        let before = real.config().await;
        let caddys = authority(&real).await;
        // a client that trusts the wrong authority, or none in particular
        for authorities in [None, Some(Authorities::parse(&other_authority()).expect("an authority"))] {
            let error = refused(&scene(&real, &admin, Some(ours.identity.clone()), authorities)).await;
            assert_eq!((error.class, error.reason), (ErrorClass::Permanent, "AdminCertificateRefused"), "{error}");
            assert!(
                error
                    .message
                    .ends_with("name the authority that signed it as proxy.caddy.caSecretRef (CADDY_ADMIN_CA)"),
                "{error}"
            );
        }
        // one without a certificate, or with one that Caddy does not know
        for identity in [None, Some(pair().identity)] {
            let error = refused(&scene(&real, &admin, identity, Some(caddys.clone()))).await;
            let told = (error.class, error.reason);
            assert_eq!(told, (ErrorClass::Credential, "ClientCertificateRefused"), "{}: {error}", peer.name);
            assert!(
                error.message.contains("proxy.caddy.clientCertificateSecretRef (CADDY_ADMIN_CLIENT_CERT)"),
                "{error}"
            );
            assert!(error.message.contains("admin.remote.access_control"), "{error}");
        }
        // one that Caddy knows, and does not allow the path
        let error = refused(&scene(&real, &admin, Some(ours.identity), Some(caddys))).await;
        assert_eq!((error.class, error.reason), (ErrorClass::Credential, "AdminPathRefused"), "{error}");
        assert!(error.message.contains("not authorized to access this path"), "{error}");
        assert!(error.message.contains("allow the path /config/apps/ with the methods GET, PUT and PATCH"), "{error}");
        // and nothing was changed by any of them
        assert_eq!(real.config().await, before, "{}", peer.name);
    }
}

fn other_authority() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&key).expect("signed").pem()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_takes_certificate_key_and_authority_from_a_secret_and_a_mended_one_at_once() {
    let Some(peer) = caddies().pop() else { return };
    // given a Secret as kubernetes.io/tls has it, with the key of another certificate
    let (ours, other) = (pair(), pair());
    let (real, admin) = remote(&peer.program, &ours.public_key, json!(["/config/apps/"])).await;
    let world = World::start().await;
    let authority = authority_pem(&real).await;
    let secret = async |key: &str| {
        let data = json!({"tls.crt": ours.pem.0, "tls.key": key, "ca.crt": authority});
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "caddy-admin", "namespace": "portalkeeper"},
            "type": "kubernetes.io/tls", "stringData": data,
        });
        world.put(&object).await;
    };
    secret(&other.pem.1).await;
    let reference = |key: &str| json!({"name": "caddy-admin", "key": key});
    let through = json!({"spec": {"probe": {"enabled": false}, "proxy": {"caddy": {
        "adminUrl": admin.as_str(), "listen": format!("127.0.0.1:{}", real.listen),
        "clientCertificateSecretRef": reference("tls.crt"), "clientKeySecretRef": reference("tls.key"),
        "caSecretRef": reference("ca.crt"),
    }}}});
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&through)).await.expect("patched");
    // when a portal is made, then it is told what is wrong, without any part of the key
    world.create("acme", json!({"domain": "acme.localhost"})).await;
    let words = world.until_condition("acme", "Accepted", "False", "ClassUnusable").await;
    let wrong = "what proxy.caddy.clientKeySecretRef (CADDY_ADMIN_CLIENT_KEY) names cannot be used: the key is not that of the certificate";
    assert!(words.ends_with(wrong), "{words}");
    // when the Secret is mended, then the portal is made through the remote admin endpoint
    secret(&ours.pem.1).await;
    world.until_condition("acme", "RouteProgrammed", "True", "Programmed").await;
    assert_eq!(owned_of(&routes_of(&real.config().await)).len(), 1);
    world.delete("acme").await;
    assert_eq!(owned_of(&routes_of(&real.config().await)).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_class_definition_refuses_what_cannot_be_meant() {
    let world = World::start().await;
    let classes: Api<PortalClass> = Api::all(world.client.clone());
    let reference = json!({"name": "caddy-admin", "key": "tls.crt"});
    for (caddy, words) in [
        (
            json!({"adminUrl": "https://127.0.0.1:2021", "clientCertificateSecretRef": reference}),
            "clientCertificateSecretRef and clientKeySecretRef belong together",
        ),
        (
            json!({"adminUrl": "http://127.0.0.1:2019", "caSecretRef": reference}),
            "clientCertificateSecretRef and caSecretRef need an https adminUrl",
        ),
        (
            json!({"dnsChallenge": {}, "certificate": {"originCa": {}}}),
            "dnsChallenge and certificate.originCa exclude each other",
        ),
    ] {
        let patch = json!({"spec": {"proxy": {"caddy": caddy}}});
        let outcome = classes.patch("sandbox", &PatchParams::default(), &Patch::Merge(&patch)).await;
        let refused = outcome.expect_err(words).to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
