//! Orders at Let's Encrypt: what becomes of those that fail or take long, and of hosts that serve meanwhile.
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use portalkeeper::backends::ErrorClass;
use portalkeeper::backends::npm::Pace;
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::double::{Authority, Visit};
use portalkeeper::http::double::{Fault, lock};
use serde_json::json;

use super::{DNS_TOKEN, HOST, IDENTITY, SECRET, Scene, lets_encrypt, page, settled};

const LIMIT: &str = "Error: Command failed: certbot certonly\n    at ChildProcess.exithandler (node:child_process:414:12)\n\
    An unexpected error occurred:\ntoo many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s";

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
async fn the_next_process_waits_as_long_as_the_one_before_would_have() {
    // given an order that Let's Encrypt refused for an hour
    let mut scene = Scene::given(lets_encrypt()).await;
    scene.double.set_authority(Authority::Refuses(LIMIT.to_owned()));
    let refused = scene.want(HOST).await.expect_err("refused");
    scene.double.set_authority(Authority::Issues);
    // when the process starts anew within that time, then it says the same and orders nothing
    scene.clock.advance(SignedDuration::from_mins(20));
    scene.restart();
    let waits = scene.want(HOST).await.expect_err("waits");
    assert_eq!((waits.reason, &waits.message), ("CertificateRateLimited", &refused.message));
    assert_eq!(waits.retry_after, Some(Duration::from_secs(40 * 60)));
    assert_eq!(scene.double.orders(), 1);
    // and while the notes cannot be read, nothing is ordered either
    scene.clock.advance(SignedDuration::from_mins(41));
    scene.book.break_it(true);
    assert_eq!(scene.want(HOST).await.expect_err("waits").reason, "LedgerFailed");
    scene.book.break_it(false);
    scene.want(HOST).await.expect("made");
    assert_eq!((scene.double.orders(), lock(&scene.book.refusals).len()), (2, 0));
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
    for name in [HOST, "reset.globex.example"] {
        while scene.want(name).await.is_err() {
            assert!(tokio::time::Instant::now() < end, "the order never ends");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
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
    let login = json!({"identity": IDENTITY, "secret": SECRET});
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
