//! Certificates: had before the host exists, reused, and taken away after the host.
use std::sync::Arc;

use jiff::SignedDuration;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::backends::cloudflare_api::{Api, Budget};
use portalkeeper::backends::npm::Version;
use portalkeeper::backends::npm::certificate::{Choice, Source};
use portalkeeper::backends::npm::double::Visit;
use portalkeeper::backends::origin_ca::{CloudflareOriginCa, OriginCa};
use portalkeeper::backends::{ErrorClass, Want};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};
use serde_json::{Value, json};

use super::{DNS_TOKEN, HOST, Scene, VERSIONS, lets_encrypt, page, settled};
use crate::scene::{host, intent};

#[tokio::test]
async fn the_certificate_is_ordered_before_the_host_exists_in_each_versions_form() {
    for version in VERSIONS {
        let scene = Scene::of(version, lets_encrypt()).await;
        let made = scene.want(HOST).await.expect("made");
        assert_eq!(made.certificate.as_deref(), Some("with a Let's Encrypt certificate"), "{version}");
        assert_eq!(scene.writes(), ["POST certificates 201", "POST proxy-hosts 201"], "{version}");
        let row = scene.double.host(HOST).expect("a row");
        let kept = &scene.double.certificates()[0];
        assert_eq!((&row["certificate_id"], &row["ssl_forced"]), (&kept["id"], &json!(true)), "{version}");
        assert_eq!(kept["meta"].get("letsencrypt_email").is_some(), version < Version(2, 13, 0), "{version}");
        assert!(!row.to_string().contains(DNS_TOKEN), "{version}: hosts show their meta to every user");
        assert_eq!((settled(&scene, true), settled(&scene, false)), (page(), Visit::Redirect), "{version}");
    }
}

#[tokio::test]
async fn certificates_are_reused_and_never_pile_up() {
    // given a portal that is made, changed, deleted by hand, and made again
    let mut scene = Scene::given(lets_encrypt()).await;
    scene.want(HOST).await.expect("made");
    scene.double.edit_in_pages(2, json!({"forward_port": 1}));
    scene.want(HOST).await.expect("repaired");
    scene.double.remove_host(2);
    scene.restart();
    scene.want(HOST).await.expect("made again");
    assert_eq!((scene.double.orders(), scene.double.certificates().len()), (1, 1));
    // given a valid one that somebody ordered, then it is used and stays when the portal goes
    let scene = Scene::given(lets_encrypt()).await;
    let theirs = scene.double.add_certificate("letsencrypt", HOST, &[HOST], 60);
    scene.want(HOST).await.expect("made");
    assert_eq!(scene.double.host(HOST).expect("a row")["certificate_id"], theirs);
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!((scene.double.orders(), scene.double.certificates().len()), (0, 1));
}

#[tokio::test]
async fn the_host_goes_first_and_then_the_certificate_that_was_ordered_for_it() {
    let mut scene = Scene::given(lets_encrypt()).await;
    scene.want(HOST).await.expect("made");
    scene.restart();
    scene.running.log.clear();
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!(scene.writes(), ["DELETE proxy-hosts/2 200", "DELETE certificates/1 200"]);
    assert_eq!((scene.double.hosts().len(), scene.double.certificates().len()), (0, 0));
}

#[tokio::test]
async fn a_certificate_that_something_else_uses_by_now_is_not_deleted() {
    // given that somebody uses our certificate for a host of theirs: deleting it would keep nginx from loading
    let scene = Scene::given(lets_encrypt()).await;
    scene.want(HOST).await.expect("made");
    scene.double.add_host(&["shop.example"], json!({"certificate_id": 1}));
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!(scene.double.certificates().len(), 1);
    scene.want("reset.globex.example").await.expect("NPM still works");
}

#[tokio::test]
async fn deleting_a_used_certificate_stops_every_write_in_npm_as_the_simulator_knows() {
    let scene = Scene::given(lets_encrypt()).await;
    scene.want(HOST).await.expect("made");
    scene.double.remove_certificate(1);
    let refused = scene.want("reset.globex.example").await.expect_err("every write fails");
    assert_eq!(refused.reason, "NpmFailed");
    assert!(refused.message.contains(&format!("proxy host 2 ({HOST}) uses certificate 1, which is gone")), "{refused}");
}

#[tokio::test]
async fn a_certificate_of_the_origin_ca_is_uploaded_once_found_by_its_name_and_goes_with_its_host() {
    for version in VERSIONS {
        let mut scene = Scene::of(version, Source::OriginCa).await;
        scene.want(HOST).await.expect("made");
        let expected = ["POST certificates 201", "POST certificates/1/upload 200", "POST proxy-hosts 201"];
        assert_eq!(scene.writes(), expected, "{version}");
        let kept = scene.double.certificates();
        assert!(kept[0]["nice_name"].as_str().expect("a name").ends_with(&format!(" {HOST}")), "{version}");
        assert_eq!(settled(&scene, true), page(), "{version}");
        scene.restart();
        scene.want(HOST).await.expect("seen");
        assert_eq!(scene.writes(), [""; 0], "{version}");
        scene.unwant(HOST).await.expect("deleted");
        assert_eq!(scene.writes(), ["DELETE proxy-hosts/2 200", "DELETE certificates/1 200"], "{version}");
        assert_eq!(scene.double.certificates(), Vec::<Value>::new(), "{version}");
    }
}

#[tokio::test]
async fn a_kill_between_the_two_steps_of_an_upload_leaves_one_certificate() {
    let mut scene = Scene::given(Source::OriginCa).await;
    scene.running.faults.push("POST", "/upload", 1, Fault::CutBefore);
    scene.want(HOST).await.expect_err("cut");
    scene.restart();
    scene.want(HOST).await.expect("made");
    assert_eq!(scene.double.certificates().len(), 1);
    assert_eq!(settled(&scene, true), page());
}

#[tokio::test]
async fn an_uploaded_certificate_is_replaced_in_place_a_month_before_its_end_and_loaded() {
    let scene = Scene::given(Source::OriginCa).await;
    scene.want(HOST).await.expect("made");
    scene.clock.advance(SignedDuration::from_hours(24 * (5475 - 20)));
    scene.running.log.clear();
    scene.want(HOST).await.expect("replaced");
    assert_eq!(scene.writes(), ["POST certificates/1/upload 200", "PUT proxy-hosts/2 200"]);
    assert_eq!(scene.double.certificates().len(), 1);
}

#[tokio::test]
async fn a_private_key_in_npms_answers_reaches_no_message() {
    let scene = Scene::given(Source::OriginCa).await;
    let quoting = json!({"error": {"code": 400, "message": "Certificate Key is not valid ()"}, "debug": {"stack": ["KEY-CANARY"]}});
    scene.running.faults.push("POST", "/upload", 1, Fault::Answer(DoubleResponse::json(400, &quoting)));
    let refused = scene.want(HOST).await.expect_err("refused");
    assert_eq!(refused.message, "NPM refused (400): Certificate Key is not valid ()");
    let made = scene.want(HOST).await.expect("made");
    assert!(!format!("{made:?}").contains("KEY-CANARY"));
}

#[tokio::test]
async fn an_existing_certificate_is_found_by_id_or_name_and_never_deleted() {
    for by_name in [false, true] {
        let mut scene = Scene::given(Source::None).await;
        let id = scene.double.add_certificate("letsencrypt", "*.acme.example", &["*.acme.example"], 60);
        scene.source = Source::Existing(if by_name { Choice::Name("*.acme.example".into()) } else { Choice::Id(id) });
        scene.restart();
        scene.want(HOST).await.expect("made");
        assert_eq!(settled(&scene, true), page());
        scene.unwant(HOST).await.expect("deleted");
        assert_eq!(scene.double.certificates().len(), 1);
    }
}

#[tokio::test]
async fn an_existing_certificate_that_cannot_be_used_is_told_before_anything_is_written() {
    let refusal = async |choice: Choice| {
        let mut scene = Scene::given(Source::None).await;
        scene.double.add_certificate("letsencrypt", "shop.example", &["shop.example"], 60);
        scene.double.add_certificate("other", "twice", &[], 60);
        scene.double.add_certificate("other", "twice", &[], 60);
        scene.double.add_certificate("other", "old", &[], -5);
        scene.source = Source::Existing(choice);
        scene.restart();
        let refused = scene.want(HOST).await.expect_err("refused");
        assert_eq!(scene.writes(), [""; 0]);
        (refused.reason, refused.message)
    };
    let (reason, words) = refusal(Choice::Id(77)).await;
    assert_eq!(reason, "CertificateNotFound");
    assert!(words.starts_with("NPM has no certificate 77 (there is 1: \"shop.example\", 2: \"twice\""), "{words}");
    assert_eq!(refusal(Choice::Id(1)).await.0, "CertificateMismatch");
    assert_eq!(refusal(Choice::Name("twice".into())).await.0, "CertificateAmbiguous");
    assert_eq!(refusal(Choice::Name("old".into())).await.0, "CertificateExpired");
}

#[tokio::test]
async fn a_changed_source_takes_the_former_certificate_away() {
    // from Let's Encrypt to a wildcard
    let mut scene = Scene::given(lets_encrypt()).await;
    scene.want(HOST).await.expect("made");
    let wildcard = scene.double.add_certificate("other", "wildcard", &[], 300);
    scene.source = Source::Existing(Choice::Id(wildcard));
    scene.restart();
    scene.want(HOST).await.expect("changed");
    let ids: Vec<_> = scene.double.certificates().iter().map(|c| c["id"].as_u64()).collect();
    assert_eq!(ids, [Some(wildcard)]);
    // from the Origin CA to none: the next look finds what is left over
    let mut scene = Scene::given(Source::OriginCa).await;
    scene.want(HOST).await.expect("made");
    scene.source = Source::None;
    scene.restart();
    scene.want(HOST).await.expect("changed");
    scene.want(HOST).await.expect("tidied");
    assert_eq!(scene.double.certificates(), Vec::<Value>::new());
    assert_eq!(settled(&scene, false), page());
}

#[tokio::test]
async fn a_certificate_that_waits_for_its_host_is_not_taken_for_a_leftover() {
    for source in [lets_encrypt(), Source::OriginCa] {
        // given a certificate that is there, and a host that cannot be made
        let scene = Scene::given(source).await;
        let refusal = DoubleResponse::json(400, &json!({"error": {"code": 400, "message": "no"}}));
        scene.running.faults.push("POST", "/proxy-hosts", 2, Fault::Answer(refusal));
        for _ in 0..2 {
            assert_eq!(scene.want(HOST).await.expect_err("refused").reason, "NpmRefused");
            assert_eq!(scene.double.certificates().len(), 1);
        }
        // when it can, then it is used; when the portal goes before, then it goes, too
        scene.want(HOST).await.expect("made");
        scene.unwant(HOST).await.expect("deleted");
        assert_eq!((scene.double.certificates().len(), scene.double.orders() <= 1), (0, true));
    }
}

#[tokio::test]
async fn looking_orders_nothing() {
    let scene = Scene::given(lets_encrypt()).await;
    let intent = intent(HOST);
    let seen = scene.worker.submit(intent.portal.clone(), Want::Observe { intent, former: Vec::new() }).await;
    let seen = seen.expect("seen");
    assert_eq!(
        seen.pending,
        [format!("create {HOST} (proxy host to http://10.0.0.5:5000 with a Let's Encrypt certificate)")]
    );
    assert_eq!((scene.writes(), scene.double.orders()), (Vec::new(), 0));
}

#[tokio::test]
async fn the_origin_ca_signs_a_request_whose_key_stays_here() {
    let double = Arc::new(CloudflareDouble::new());
    double.accept_token("ca-token-canary");
    double.accept_token("other-token-canary");
    double.deny("other-token-canary", "certificates");
    double.add_zone(HOST.split_once('.').expect("a domain").1);
    let running = RunningDouble::start(double.clone()).await.expect("a loopback port");
    let url = running.url.join("client/v4").expect("an address");
    let ca = |token: &str| {
        let budget = Budget::new(Arc::new(SystemClock));
        CloudflareOriginCa::new(&Api::new(url.clone(), Secret::new(token), budget).expect("a client"))
    };
    let signed = ca("ca-token-canary").sign(&host(HOST)).await.expect("signed");
    assert!(signed.key.expose().starts_with("-----BEGIN PRIVATE KEY-----"));
    let made = double.certificates();
    assert_eq!((made.len(), &made[0]["hostnames"], &made[0]["requested_validity"]), (1, &json!([HOST]), &json!(5475)));
    assert_eq!(made[0]["request_type"], "origin-ecc");
    assert!(!made[0].to_string().contains("PRIVATE KEY"));
    // a token without the right is told with what it needs, and not shown
    let refused = ca("other-token-canary").sign(&host(HOST)).await.expect_err("refused");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Credential, "CertificateTokenRefused"));
    assert!(refused.message.ends_with("it lacks the permission Zone · SSL and Certificates · Edit"), "{refused}");
    assert!(!refused.message.contains("canary"), "{refused}");
    // a host of nobody's is refused in Cloudflare's words
    let refused = ca("ca-token-canary").sign(&host("reset.elsewhere.example")).await.expect_err("refused");
    assert_eq!(refused.reason, "CertificateFailed");
    assert!(refused.message.contains("not part of your account"), "{refused}");
}
