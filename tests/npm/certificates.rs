//! Certificates: ordered once, before the host exists, reused, and taken away after the host.
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::backends::cloudflare_api::double::CloudflareDouble;
use portalkeeper::backends::cloudflare_api::{Api, Budget};
use portalkeeper::backends::npm::Pace;
use portalkeeper::backends::npm::Version;
use portalkeeper::backends::npm::certificate::{Choice, Source};
use portalkeeper::backends::npm::double::{Authority, Visit};
use portalkeeper::backends::origin_ca::{CloudflareOriginCa, OriginCa};
use portalkeeper::backends::{ErrorClass, Want};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{DoubleResponse, Fault, RunningDouble};
use serde_json::{Value, json};

use super::{DNS_TOKEN, HOST, Scene, VERSIONS, host, lets_encrypt};

fn page() -> Visit {
    Visit::Page("http://10.0.0.5:5000".to_owned())
}

fn settled(scene: &Scene, https: bool) -> Visit {
    scene.double.visit(HOST, https);
    scene.double.visit(HOST, https)
}

const LIMIT: &str = "Error: Command failed: certbot certonly\n    at ChildProcess.exithandler (node:child_process:414:12)\n\
    An unexpected error occurred:\ntoo many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s";

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
async fn the_cas_words_are_told_and_nothing_is_ordered_before_its_limit_is_over() {
    let scene = Scene::given(lets_encrypt()).await;
    scene.double.set_authority(Authority::Refuses(LIMIT.to_owned()));
    let refused = scene.want(HOST).await.expect_err("limit");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Unavailable, "CertificateRateLimited"));
    assert_eq!(
        refused.message,
        format!(
            "Let's Encrypt gave no certificate for {HOST}: too many certificates (5) already issued for this exact \
             set of identifiers in the last 168h0m0s"
        )
    );
    assert_eq!(refused.retry_after, Some(Duration::from_secs(3600)));
    assert!(scene.double.hosts().is_empty(), "no host is served without its certificate");
    // when it is wanted again and again within the hour, then it is ordered once more only after it
    scene.double.set_authority(Authority::Issues);
    scene.clock.advance(SignedDuration::from_mins(59));
    let waits = scene.want(HOST).await.expect_err("waits");
    assert_eq!((waits.reason, scene.double.orders()), ("CertificateRateLimited", 1));
    assert_eq!(waits.retry_after, Some(Duration::from_secs(60)));
    scene.clock.advance(SignedDuration::from_mins(2));
    scene.want(HOST).await.expect("issued");
    assert_eq!(scene.double.orders(), 2);
}

#[tokio::test]
async fn a_clock_that_goes_back_is_no_standstill() {
    let scene = Scene::given(lets_encrypt()).await;
    scene.double.set_authority(Authority::Refuses(LIMIT.to_owned()));
    scene.want(HOST).await.expect_err("limit");
    scene.double.set_authority(Authority::Issues);
    scene.clock.advance(SignedDuration::from_hours(-5));
    scene.want(HOST).await.expect("issued");
}

#[tokio::test]
async fn each_kind_of_failure_has_its_word_and_no_token_in_it() {
    let cases = [
        ("Another instance of Certbot is already running.".to_owned(), "CertificateBusy"),
        (
            "requests.exceptions.ConnectionError: HTTPSConnectionPool: Max retries exceeded: Failed to resolve 'acme'"
                .to_owned(),
            "CertificateAuthorityUnreachable",
        ),
        ("Some challenges have failed.".to_owned(), "CertificateChallengeFailed"),
        (format!("Error with dns_cloudflare_api_token = {DNS_TOKEN}"), "CertificateFailed"),
        (String::new(), "CertificateFailed"),
    ];
    for (words, reason) in cases {
        let scene = Scene::given(lets_encrypt()).await;
        scene.double.set_authority(Authority::Refuses(words.clone()));
        let refused = scene.want(HOST).await.expect_err("refused");
        assert_eq!(refused.reason, reason, "{words}");
        assert!(!refused.message.contains(DNS_TOKEN), "{refused}");
        assert!(refused.retry_after.is_some_and(|wait| wait >= Duration::from_secs(60)), "{words}");
    }
}

#[tokio::test]
async fn one_failing_order_holds_no_other_portal_up() {
    // given one portal whose certificate cannot be had
    let scene = Arc::new(Scene::given(lets_encrypt()).await);
    scene.double.set_authority(Authority::Refuses("Some challenges have failed.".to_owned()));
    scene.want(HOST).await.expect_err("refused");
    scene.double.set_authority(Authority::Issues);
    // when others come with it, then they are made and it is not ordered again
    let (first, second, third) =
        tokio::join!(scene.want(HOST), scene.want("reset.globex.example"), scene.want("reset.initech.example"));
    assert_eq!(first.expect_err("waits").reason, "CertificateChallengeFailed");
    second.expect("made");
    third.expect("made");
    assert_eq!(scene.double.orders(), 3);
}

#[tokio::test]
async fn an_order_that_somebody_runs_is_waited_for() {
    let mut scene = Scene::given(lets_encrypt()).await;
    let id = scene.double.add_pending_certificate(HOST);
    let waits = scene.want(HOST).await.expect_err("waits");
    assert_eq!(waits.reason, "CertificatePending");
    // also by a new process, as after a kill in the middle of an order
    scene.restart();
    assert_eq!(scene.want(HOST).await.expect_err("waits").reason, "CertificatePending");
    scene.double.finish_certificate(id);
    scene.want(HOST).await.expect("made");
    assert_eq!(scene.double.orders(), 0);
}

#[tokio::test]
async fn an_order_whose_answer_is_lost_is_looked_up_and_not_repeated() {
    let scene = Scene::given(lets_encrypt()).await;
    scene.running.faults.push("POST", "/certificates", 1, Fault::CutAfter);
    let unknown = scene.want(HOST).await.expect_err("cut");
    assert_eq!((unknown.class, unknown.reason), (ErrorClass::OutcomeUnknown, "CertificateOutcomeUnknown"));
    scene.want(HOST).await.expect("found by its name");
    assert_eq!((scene.double.orders(), scene.double.certificates().len()), (1, 1));
    // lost for good: not at once again
    let scene = Scene::given(lets_encrypt()).await;
    scene.running.faults.push("POST", "/certificates", 1, Fault::CutBefore);
    scene.want(HOST).await.expect_err("cut");
    scene.want(HOST).await.expect_err("waits");
    assert_eq!(scene.double.orders(), 0);
    scene.clock.advance(SignedDuration::from_mins(16));
    scene.want(HOST).await.expect("made");
    assert_eq!(scene.double.orders(), 1);
}

#[tokio::test]
async fn a_slow_order_goes_on_beside_the_loop_and_nothing_else_is_ordered_meanwhile() {
    let mut scene = Scene::given(lets_encrypt()).await;
    scene.pace = Pace { order: Duration::from_millis(20), ..Pace::default() };
    scene.restart();
    scene.running.faults.push("POST", "/certificates", 1, Fault::Delay(Duration::from_millis(600)));
    let waits = scene.want(HOST).await.expect_err("waits");
    assert_eq!((waits.reason, waits.retry_after), ("CertificatePending", Some(Duration::from_secs(30))));
    let behind = scene.want("reset.globex.example").await.expect_err("waits");
    assert!(behind.message.contains(&format!("NPM is still ordering one for {HOST}")), "{behind}");
    assert_eq!(scene.double.orders(), 0);
    // when it has ended, then both are made
    let end = tokio::time::Instant::now() + super::PATIENCE;
    while scene.want(HOST).await.is_err() {
        assert!(tokio::time::Instant::now() < end, "the order never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.want("reset.globex.example").await.expect("made");
    assert_eq!(scene.double.orders(), 2);
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!(scene.double.certificates().len(), 1, "what was ordered beside the loop is known as ours");
}

#[tokio::test]
async fn a_host_that_serves_is_damaged_by_an_order_and_always_restored() {
    for (authority, issued) in [(Authority::Issues, true), (Authority::Refuses(LIMIT.to_owned()), false)] {
        // given a host that serves by https with a certificate of its owner's
        let scene = Scene::given(lets_encrypt()).await;
        let theirs = scene.double.add_certificate("other", "theirs", &[], 300);
        let fields = json!({"certificate_id": theirs, "ssl_forced": true});
        let id = scene.double.add_host(&[HOST], fields);
        assert_eq!((settled(&scene, true), settled(&scene, false)).1, Visit::Redirect);
        scene.double.set_authority(authority);
        // when it is taken over and wants one of its own
        let outcome = scene.adopt(HOST).await;
        assert_eq!(outcome.is_ok(), issued, "{outcome:?}");
        // then it serves by https as its row says, whatever came of the order
        assert!(matches!(settled(&scene, true), Visit::Page(_)), "issued: {issued}");
        assert_eq!(settled(&scene, false), Visit::Redirect, "issued: {issued}");
        let row = scene.double.host(HOST).expect("a row");
        assert_eq!(row["certificate_id"] == theirs, !issued);
        assert_eq!(row["meta"]["portalkeeper"].is_object(), issued, "a failed take-over takes nothing over: {row}");
        let writes = scene.writes();
        assert_eq!(writes.len(), 3, "marked, ordered, written again: {writes:?}");
        assert_eq!(writes[2], format!("PUT proxy-hosts/{id} 200"));
    }
}

#[tokio::test]
async fn an_order_without_a_write_after_it_would_leave_the_host_open_as_the_simulator_knows() {
    let scene = Scene::given(Source::None).await;
    let theirs = scene.double.add_certificate("other", "theirs", &[], 300);
    scene.double.add_host(&[HOST], json!({"certificate_id": theirs, "ssl_forced": true, "access_list_id": 2}));
    assert_eq!((settled(&scene, true), settled(&scene, false)), (Visit::Denied, Visit::Redirect));
    scene.double.set_authority(Authority::Refuses(LIMIT.to_owned()));
    let other = Scene { source: lets_encrypt(), ..scene };
    // somebody orders for the name in NPM's pages
    let token = login(&other).await;
    let client =
        portalkeeper::http::Client::new(portalkeeper::http::ClientOptions::new("somebody", other.running.url.clone()))
            .expect("a client");
    let order = json!({"provider": "letsencrypt", "domain_names": [HOST], "meta": {"dns_challenge": true, "dns_provider": "cloudflare"}});
    let request = client.post("/api/nginx/certificates").header("authorization", &token).json(&order);
    assert_eq!(request.send().await.expect("an answer").status, 500);
    assert_eq!(
        (settled(&other, true), settled(&other, false)),
        (Visit::NoTls, Visit::Page("http://10.0.0.9:8080".into()))
    );
    assert_eq!(other.double.host(HOST).expect("a row")["certificate_id"], theirs, "and the row says nothing of it");
}

async fn login(scene: &Scene) -> String {
    let client =
        portalkeeper::http::Client::new(portalkeeper::http::ClientOptions::new("somebody", scene.running.url.clone()))
            .expect("a client");
    let login = json!({"identity": super::IDENTITY, "secret": super::SECRET});
    let answer = client.post("/api/tokens").json(&login).send().await.expect("an answer").json().expect("JSON");
    format!("Bearer {}", answer["token"].as_str().expect("a token"))
}

#[tokio::test]
async fn a_kill_in_the_middle_of_an_order_for_a_serving_host_is_repaired_by_the_next_process() {
    // given a host of ours without a certificate, whose class wants one now
    let mut scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.source = lets_encrypt();
    scene.pace = Pace { order: Duration::from_millis(10), ..Pace::default() };
    scene.restart();
    // when the process ends while the order runs: the host is marked, and out of nginx for a while
    scene.running.faults.push("POST", "/certificates", 1, Fault::CutAfter);
    let _ = scene.want(HOST).await;
    scene.restart();
    scene.want(HOST).await.expect("repaired");
    assert_eq!((settled(&scene, true), settled(&scene, false)), (page(), Visit::Redirect));
    let row = scene.double.host(HOST).expect("a row");
    assert!(row["meta"]["portalkeeper"]["ordering"].is_null(), "{row}");
    assert_eq!(scene.double.orders(), 1);
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
    let intent = Scene::intent(HOST);
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
