//! Writes one after the other: bursts, queues, quiet looks; and options that cannot work.
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::{Forward, Npm, NpmOptions, Pace};
use portalkeeper::backends::{ErrorClass, Want};
use portalkeeper::config::Secret;
use portalkeeper::http::{Client, ClientOptions};
use serde_json::json;

use super::{HOST, IDENTITY, MemoryBook, NEWEST, PATIENCE, SECRET, Scene, lets_encrypt};
use crate::scene::intent;

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn parallel_writes_take_valid_hosts_offline_which_is_why_ours_take_turns() {
    // given four hosts of ours
    let scene = Arc::new(Scene::given(Source::None).await);
    for index in 0..4 {
        scene.want(&format!("reset.c{index}.example")).await.expect("made");
    }
    assert_eq!(scene.double.peak(), 1);
    // when somebody writes all of them at once, then NPM loses files of valid hosts
    scene.double.meet(4);
    let login = json!({"identity": IDENTITY, "secret": SECRET});
    let client = Client::new(ClientOptions::new("somebody", scene.running.url.clone())).expect("a client");
    let token = client.post("/api/tokens").json(&login).send().await.expect("an answer").json().expect("JSON");
    let bearer = format!("Bearer {}", token["token"].as_str().expect("a token"));
    let puts = (1..=4).map(|id| {
        let request = client.put(&format!("/api/nginx/proxy-hosts/{id}")).header("authorization", &bearer);
        tokio::spawn(request.json(&json!({"forward_scheme": "http"})).send())
    });
    for put in futures_util::future::join_all(puts).await {
        assert_eq!(put.expect("joined").expect("an answer").status, 200, "and it says that all is well");
    }
    let offline = || scene.double.hosts().iter().filter(|row| row["meta"]["nginx_online"] == false).count();
    assert!(scene.double.peak() == 4 && offline() > 0);
    // when the portals are looked at again, then each is written again until it is online
    scene.double.meet(0);
    for index in 0..4 {
        scene.want(&format!("reset.c{index}.example")).await.expect("repaired");
    }
    assert_eq!(offline(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn two_workers_of_one_instance_never_write_at_once() {
    let scene = Arc::new(Scene::given(Source::None).await);
    scene.double.work(Duration::from_millis(5));
    let other = scene.another();
    let wants = (0..12).map(|index| {
        let intent = intent(&format!("reset.c{index}.example"));
        let worker = if index % 2 == 0 { scene.worker.clone() } else { other.clone() };
        async move { worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await }
    });
    for outcome in futures_util::future::join_all(wants).await {
        outcome.expect("made");
    }
    assert_eq!((scene.double.hosts().len(), scene.double.peak()), (12, 1));
}

#[tokio::test]
async fn a_long_queue_is_told_in_numbers_and_worked_off() {
    let mut scene = Scene::given(Source::None).await;
    scene.pace = Pace { batch: Duration::ZERO, ..Pace::default() };
    scene.restart();
    let scene = Arc::new(scene);
    let mut rounds = 0;
    while scene.double.hosts().len() < 6 {
        let wants = (0..6).map(|index| {
            let scene = Arc::clone(&scene);
            async move { scene.want(&format!("reset.c{index}.example")).await }
        });
        let outcomes = futures_util::future::join_all(wants).await;
        if rounds == 0 {
            let queued = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).next().expect("some wait");
            assert_eq!(queued.reason, "Queued");
            assert!(queued.message.starts_with("NPM takes one write at a time: 1 of "), "{queued}");
            assert!(queued.retry_after.is_some_and(|wait| wait <= Duration::from_secs(60)));
        }
        rounds += 1;
        assert!(rounds < 20, "the queue does not get shorter");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_burst_is_written_one_after_the_other_and_then_not_again() {
    let scene = Arc::new(Scene::given(Source::None).await);
    scene.double.add_host(&["www.acme.example"], json!({}));
    let foreign = scene.double.host("www.acme.example").expect("a row");
    scene.double.work(Duration::from_millis(1));
    let all = async || {
        let wants = (0..100).map(|index| {
            let scene = Arc::clone(&scene);
            let intent = intent(&format!("reset.c{index}.example"));
            let want = Want::Present { intent: intent.clone(), former: Vec::new() };
            async move { scene.worker.submit(intent.portal, want).await.expect("made").changes.len() }
        });
        futures_util::future::join_all(wants).await.into_iter().sum::<usize>()
    };
    // when a hundred portals are wanted, then each is one write, and no two are under way at once
    assert_eq!(all().await, 100);
    assert_eq!((scene.writes(), scene.double.peak()), (vec!["POST proxy-hosts 201".to_owned(); 100], 1));
    // when they are wanted again, after the longest drift interval and after a restart, then nothing is written
    scene.clock.advance(SignedDuration::from_secs(3601));
    assert_eq!(all().await, 0);
    let again = scene.another();
    let intent = intent("reset.c7.example");
    let looked = again.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await;
    assert!(looked.expect("there").changes.is_empty());
    assert_eq!(scene.writes(), [""; 0]);
    assert_eq!(scene.double.host("www.acme.example").expect("a row"), foreign);
}

#[tokio::test]
async fn a_thousand_quiet_looks_write_nothing_and_come_less_often_with_more_hosts() {
    let scene = Scene::of(NEWEST, Source::None).await;
    for index in 0..100 {
        scene.double.add_host(&[&format!("site{index}.example")], json!({}));
    }
    scene.want(HOST).await.expect("made");
    scene.running.log.clear();
    let intent = intent(HOST);
    let look = async || {
        let want = Want::Present { intent: intent.clone(), former: Vec::new() };
        scene.worker.submit(intent.portal.clone(), want).await.expect("as wanted")
    };
    // a hundred hosts: five minutes
    scene.clock.advance(SignedDuration::from_secs(290));
    look().await;
    assert_eq!(scene.running.log.calls().len(), 0, "believed without a call");
    scene.clock.advance(SignedDuration::from_secs(30));
    look().await;
    assert_eq!(scene.running.log.calls().len(), 2, "one look is two reads");
    assert_eq!(scene.writes(), [""; 0]);
}

#[tokio::test]
async fn a_time_limit_stops_the_batch_instead_of_every_portal_waiting_for_its_own() {
    let scene = Scene::given(Source::None).await;
    let stopped = scene.running.url.clone();
    drop(scene);
    // nobody listens any more
    let options = NpmOptions { api_url: stopped, ..options() };
    let Err(error) = Npm::new(
        NpmOptions { forward: Forward { host: "a;b".into(), ..options.forward.clone() }, ..options.clone() },
        clock(),
    ) else {
        panic!("a forward host that would break out of nginx's configuration is refused")
    };
    assert_eq!(error.reason, "ForwardHostInvalid");
    let worker = portalkeeper::backends::Worker::spawn(Npm::new(options, clock()).expect("a backend"), clock(), {
        let (stop, shutdown) = portalkeeper::http::shutdown::Shutdown::new();
        std::mem::forget(stop);
        shutdown
    });
    let intent = intent(HOST);
    let asked = worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() });
    let refused = tokio::time::timeout(PATIENCE, asked).await.expect("in time").expect_err("unreachable");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Unavailable, "Unreachable"));
}

fn clock() -> Arc<portalkeeper::api::clock::SystemClock> {
    Arc::new(portalkeeper::api::clock::SystemClock)
}

fn options() -> NpmOptions {
    NpmOptions {
        api_url: "http://127.0.0.1:81".parse().expect("an address"),
        verify_tls: true,
        identity: Secret::new("me"),
        secret: Secret::new("secret"),
        forward: Forward { scheme: "http".to_owned(), host: "10.0.0.5".to_owned(), port: 5000 },
        force_https: true,
        certificates: Source::None,
        origin_ca: None,
        gate: Default::default(),
        book: Arc::new(MemoryBook::default()),
        pace: Pace::default(),
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refused = |options: NpmOptions| Npm::new(options, clock()).err().map(|error| error.reason);
    let forward = |host: &str, port| NpmOptions {
        forward: Forward { scheme: "http".to_owned(), host: host.to_owned(), port },
        ..options()
    };
    assert_eq!(refused(options()), None);
    assert_eq!(refused(forward("[fd00::5]", 5000)), None);
    assert_eq!(refused(forward("app_1", 5000)), None);
    for (host, port) in [("", 5000), ("a b", 5000), ("a;return 200", 5000), ("[x]", 5000), ("a", 0), ("fd00::5", 5000)]
    {
        assert_eq!(refused(forward(host, port)), Some("ForwardHostInvalid"), "{host}:{port}");
    }
    assert_eq!(refused(NpmOptions { certificates: Source::OriginCa, ..options() }), Some("CloudflareMissing"));
    assert_eq!(refused(NpmOptions { certificates: lets_encrypt(), ..options() }), None);
}
