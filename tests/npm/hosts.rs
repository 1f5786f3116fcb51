//! Hosts: what NPM leaves behind when it fails, what its pages do to our mark, and what is never touched.
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::double::Visit;
use portalkeeper::backends::npm::{Forward, Npm, NpmOptions, Pace, Version};
use portalkeeper::backends::{ErrorClass, Want};
use portalkeeper::config::Secret;
use portalkeeper::http::double::{DoubleResponse, Fault};
use portalkeeper::http::{Client, ClientOptions};
use serde_json::{Value, json};

use super::{HOST, NEWEST, PATIENCE, Scene, VERSIONS, lets_encrypt};

fn page() -> Visit {
    Visit::Page("http://10.0.0.5:5000".to_owned())
}

/// The visit that counts: the first after a write may still meet what was loaded before.
fn settled(scene: &Scene, https: bool) -> Visit {
    scene.double.visit(HOST, https);
    scene.double.visit(HOST, https)
}

#[tokio::test]
async fn a_host_is_made_with_the_fields_that_its_version_knows() {
    for version in VERSIONS {
        let scene = Scene::of(version, Source::None).await;
        let made = scene.want(HOST).await.expect("made");
        assert_eq!(made.resources[0].id.as_deref(), Some("1"), "{version}");
        let row = scene.double.host(HOST).expect("a row");
        assert_eq!(row.get("trust_forwarded_proto").is_some(), version >= Version(2, 14, 0), "{version}");
        assert_eq!((&row["ssl_forced"], &row["caching_enabled"]), (&json!(false), &json!(false)), "{version}");
        assert_eq!(row["meta"]["nginx_online"], true, "{version}");
        assert_eq!(settled(&scene, false), page(), "{version}");
    }
}

#[tokio::test]
async fn the_answer_to_a_creation_is_not_believed_before_a_read_shows_it_online() {
    // given an nginx that refuses the next file of ours, though NPM answers 201
    let scene = Scene::given(Source::None).await;
    scene.want("reset.globex.example").await.expect("made");
    let offline = json!({
        "id": 2, "domain_names": [HOST], "forward_scheme": "http", "forward_host": "10.0.0.5", "forward_port": 5000,
        "certificate_id": 0, "enabled": true,
        "meta": {"nginx_online": false, "nginx_err": "nginx: [emerg] bad thing in /data/nginx/proxy_host/2.conf:3"},
    });
    scene.running.faults.push("GET", "/proxy-hosts/2", 9, Fault::Answer(DoubleResponse::json(200, &offline)));
    let refused = scene.want(HOST).await.expect_err("offline");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Unavailable, "NginxRefused"));
    assert_eq!(
        refused.message,
        format!(
            "nginx does not serve proxy host 2 for {HOST}: nginx: [emerg] bad thing in /data/nginx/proxy_host/2.conf:3"
        )
    );
}

#[tokio::test]
async fn a_creation_that_fails_because_of_a_neighbour_leaves_a_row_that_is_taken_up_later() {
    for version in VERSIONS {
        // given a neighbour that breaks nginx
        let scene = Scene::of(version, Source::None).await;
        scene.double.break_nginx(true);
        let refused = scene.want(HOST).await.expect_err("500");
        assert_eq!(refused.reason, "NpmFailed", "{version}");
        assert!(refused.message.contains("because of another host"), "{refused}");
        assert_eq!(scene.double.hosts().len(), 1, "{version}: the row is left behind");
        assert_eq!(scene.writes(), ["POST proxy-hosts 500", "PUT proxy-hosts/1 500"], "{version}");
        // when the neighbour is mended, then the row is written again instead of a second one
        scene.double.break_nginx(false);
        scene.want(HOST).await.expect("repaired");
        assert_eq!(scene.writes(), ["PUT proxy-hosts/1 200"], "{version}");
        assert_eq!(settled(&scene, false), page(), "{version}");
    }
}

#[tokio::test]
async fn a_broken_neighbour_is_named_as_the_cause() {
    // given that somebody deleted the certificate of a host of theirs, which stops nginx from loading anything
    let scene = Scene::given(Source::None).await;
    let certificate = scene.double.add_certificate("letsencrypt", "shop.example", &["shop.example"], 60);
    scene.double.add_host(&["shop.example"], json!({"certificate_id": certificate}));
    scene.double.remove_certificate(certificate);
    let refused = scene.want(HOST).await.expect_err("500");
    assert!(
        refused.message.ends_with(
            "probably nginx refuses its configuration: proxy host 2 (shop.example) uses certificate 1, which is gone"
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn one_broken_nginx_costs_few_calls_however_many_portals_wait() {
    let scene = Arc::new(Scene::given(Source::None).await);
    scene.double.break_nginx(true);
    let wants = (0..40).map(|index| {
        let scene = Arc::clone(&scene);
        async move { scene.want(&format!("reset.c{index}.example")).await }
    });
    for outcome in futures_util::future::join_all(wants).await {
        assert_eq!(outcome.expect_err("500").reason, "NpmFailed");
    }
    assert!(scene.double.hosts().len() <= 4, "{} rows are left behind", scene.double.hosts().len());
}

#[tokio::test]
async fn a_failed_update_is_sent_again_although_npm_shows_it_as_done() {
    for version in VERSIONS {
        // given a host of ours that somebody pointed elsewhere, and a broken nginx
        let mut scene = Scene::of(version, Source::None).await;
        scene.want(HOST).await.expect("made");
        scene.double.edit_in_pages(1, json!({"forward_port": 9999}));
        scene.double.break_nginx(true);
        scene.running.log.clear();
        scene.want(HOST).await.expect_err("500");
        assert_eq!(scene.writes(), ["PUT proxy-hosts/1 500"], "{version}");
        // then the row has the new values and the old ones are still served
        assert_eq!(scene.double.host(HOST).expect("a row")["forward_port"], 5000, "{version}");
        assert_eq!(settled(&scene, false), Visit::Page("http://10.0.0.5:9999".to_owned()), "{version}");
        // when nginx is mended, then it is sent again, also by a process that knows nothing of the failure
        scene.double.break_nginx(false);
        scene.restart();
        scene.want(HOST).await.expect("sent again");
        assert_eq!(scene.writes(), ["PUT proxy-hosts/1 200"], "{version}");
        assert_eq!(settled(&scene, false), page(), "{version}");
        scene.want(HOST).await.expect("seen");
        assert_eq!(scene.writes(), [""; 0], "{version}");
    }
}

#[tokio::test]
async fn an_update_whose_answer_is_lost_is_sent_again() {
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.double.edit_row(1, json!({"forward_port": 9999}));
    scene.running.faults.push("PUT", "", 1, Fault::CutAfter);
    scene.running.log.clear();
    let unknown = scene.want(HOST).await.expect_err("cut");
    assert_eq!(unknown.class, ErrorClass::OutcomeUnknown);
    scene.want(HOST).await.expect("sent again");
    assert_eq!(scene.writes(), ["PUT proxy-hosts/1 0", "PUT proxy-hosts/1 200"]);
}

#[tokio::test]
async fn a_creation_whose_answer_is_lost_is_found_by_its_mark() {
    let scene = Scene::given(Source::None).await;
    scene.running.faults.push("POST", "/proxy-hosts", 1, Fault::CutAfter);
    scene.want(HOST).await.expect("found");
    assert_eq!(scene.writes(), ["POST proxy-hosts 0"], "it was done whole, so nothing is written again");
    assert_eq!(scene.double.hosts().len(), 1);
}

#[tokio::test]
async fn a_deletion_that_nginx_could_not_load_is_told_and_then_done() {
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    assert_eq!(settled(&scene, false), page());
    scene.double.break_nginx(true);
    scene.running.log.clear();
    let told = scene.unwant(HOST).await.expect_err("still served");
    assert_eq!(told.reason, "StillServed");
    assert!(told.message.contains("may be served until the next write in NPM succeeds"), "{told}");
    assert_eq!(settled(&scene, false), page(), "and so it is");
    // when it is asked again, then there is nothing left to do
    scene.unwant(HOST).await.expect("gone");
    assert_eq!(scene.writes(), ["DELETE proxy-hosts/1 500"]);
    // and the next write of anybody cleans up
    scene.double.break_nginx(false);
    scene.want("reset.globex.example").await.expect("made");
    assert_eq!(settled(&scene, false), Visit::DefaultPage);
}

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
    let login = json!({"identity": super::IDENTITY, "secret": super::SECRET});
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
        let intent = Scene::intent(&format!("reset.c{index}.example"));
        let worker = if index % 2 == 0 { scene.worker.clone() } else { other.clone() };
        async move { worker.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await }
    });
    for outcome in futures_util::future::join_all(wants).await {
        outcome.expect("made");
    }
    assert_eq!((scene.double.hosts().len(), scene.double.peak()), (12, 1));
}

#[tokio::test]
async fn a_neighbours_missing_file_is_transient_and_an_own_mistake_is_not() {
    // given an answer that shows ours offline because a neighbour's file vanished at that moment
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.double.edit_row(1, json!({"forward_port": 1}));
    let mut row = scene.double.host(HOST).expect("a row");
    row["meta"]["nginx_online"] = json!(false);
    row["meta"]["nginx_err"] = json!("open() \"/data/nginx/proxy_host/80.conf\" failed (2: No such file or directory)");
    scene.running.log.clear();
    // the first look reads the row before the write, the second after it
    scene.running.faults.push("GET", "/proxy-hosts/1", 2, Fault::Answer(DoubleResponse::json(200, &row)));
    scene.want(HOST).await.expect("written twice");
    assert_eq!(scene.writes(), ["PUT proxy-hosts/1 200", "PUT proxy-hosts/1 200"]);
}

#[tokio::test]
async fn the_mark_survives_the_pages_of_newer_versions_and_is_put_back_after_older_ones() {
    for version in VERSIONS {
        // given a host of ours that somebody saves in NPM's pages
        let mut scene = Scene::of(version, Source::None).await;
        scene.want(HOST).await.expect("made");
        scene.double.edit_in_pages(1, json!({"block_exploits": true}));
        let lost = scene.double.host(HOST).expect("a row")["meta"]["portalkeeper"].is_null();
        assert_eq!(lost, version < Version(2, 13, 0), "{version}");
        scene.running.log.clear();
        // when another process looks, then it is still ours, and only a lost mark is written
        scene.restart();
        scene.want(HOST).await.expect("ours");
        let expected: &[&str] = if lost { &["PUT proxy-hosts/1 200"] } else { &[] };
        assert_eq!(scene.writes(), expected, "{version}");
        let row = scene.double.host(HOST).expect("a row");
        assert_eq!(row["meta"]["portalkeeper"]["host"], HOST, "{version}");
        assert_eq!(row["block_exploits"], true, "{version}: what is not ours to decide stays");
        scene.unwant(HOST).await.expect("deleted");
        assert_eq!(scene.double.hosts(), Vec::<Value>::new(), "{version}");
    }
}

#[tokio::test]
async fn marks_that_contradict_each_other_or_are_damaged_make_a_host_foreign() {
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    let row = scene.double.host(HOST).expect("a row");
    let mut damaged = row["meta"].clone();
    damaged["portalkeeper"]["mark"] = json!("pk1-0123456789abcdef-edited");
    let mut contradicting = row["meta"].clone();
    contradicting["portalkeeper"]["host"] = json!("other.acme.example");
    for meta in [damaged, contradicting] {
        scene.double.edit_row(1, json!({"meta": meta}));
        scene.running.log.clear();
        let refused = scene.want(HOST).await.expect_err("not provably ours");
        assert_eq!(refused.class, ErrorClass::Conflict);
        assert!(refused.message.contains("portalkeeper.dev/adopt=true"), "{refused}");
        scene.unwant(HOST).await.expect("nothing of ours");
        assert_eq!(scene.writes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_host_that_serves_other_names_too_is_left_alone_whoever_made_it() {
    // given a foreign host with our name among others, that may be adopted
    let scene = Scene::given(Source::None).await;
    scene.double.add_host(&["www.acme.example", HOST], json!({"access_list_id": 3}));
    let before = scene.double.hosts();
    let refused = scene.adopt(HOST).await.expect_err("shared");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignHost"));
    assert!(refused.message.contains("serves other names, too (www.acme.example)"), "{refused}");
    assert_eq!((scene.double.hosts(), scene.writes()), (before, Vec::new()));
    // given a host of ours to which somebody added a name
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.double.edit_in_pages(1, json!({"domain_names": [HOST, "www.acme.example"]}));
    let before = scene.double.hosts();
    scene.running.log.clear();
    for refused in [scene.want(HOST).await, scene.unwant(HOST).await] {
        let refused = refused.expect_err("shared");
        assert_eq!(refused.class, ErrorClass::Conflict);
        assert!(refused.message.contains("give them a host of their own in NPM"), "{refused}");
    }
    assert_eq!((scene.double.hosts(), scene.writes()), (before, Vec::new()));
}

#[tokio::test]
async fn a_name_that_a_redirection_has_is_told_with_its_kind() {
    let scene = Scene::given(Source::None).await;
    scene.double.add_redirection("RESET.acme.example");
    let refused = scene.want(HOST).await.expect_err("taken");
    assert_eq!(refused.class, ErrorClass::Conflict);
    assert_eq!(refused.message, format!("{HOST} is taken in NPM by redirection host 1; remove the name there"));
}

#[tokio::test]
async fn a_foreign_name_in_another_spelling_is_recognised() {
    for spelling in ["Reset.ACME.example", "reset.acme.example."] {
        let scene = Scene::given(Source::None).await;
        scene.double.add_host(&[spelling], json!({}));
        assert_eq!(scene.want(HOST).await.expect_err("taken").class, ErrorClass::Conflict, "{spelling}");
        assert_eq!(scene.writes(), [""; 0], "{spelling}");
    }
}

#[tokio::test]
async fn every_way_in_which_a_host_stops_serving_is_repaired() {
    let cases = [
        json!({"enabled": false}),
        json!({"forward_host": "10.0.0.66"}),
        json!({"access_list_id": 4}),
        json!({"caching_enabled": true}),
        json!({"locations": [{"path": "/", "forward_scheme": "http", "forward_host": "h", "forward_port": 1}]}),
        json!({"advanced_config": "return 404;"}),
    ];
    for fields in cases {
        let scene = Scene::given(Source::None).await;
        scene.want(HOST).await.expect("made");
        scene.double.edit_in_pages(1, fields.clone());
        scene.running.log.clear();
        scene.want(HOST).await.expect("repaired");
        assert_eq!(scene.writes(), ["PUT proxy-hosts/1 200"], "{fields}");
        assert_eq!(settled(&scene, false), page(), "{fields}");
    }
    // switched off, and deleted
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.double.disable(1);
    assert_eq!(settled(&scene, false), Visit::DefaultPage);
    scene.want(HOST).await.expect("switched on");
    assert_eq!(settled(&scene, false), page());
    scene.double.remove_host(1);
    scene.want(HOST).await.expect("made again");
    assert_eq!(settled(&scene, false), page());
}

#[tokio::test]
async fn switching_a_host_off_by_put_does_not_stop_it_so_it_counts_as_to_be_written() {
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.double.edit_in_pages(1, json!({"enabled": false}));
    assert_eq!(settled(&scene, false), page(), "NPM goes on serving it");
}

#[tokio::test]
async fn an_adopted_host_keeps_what_others_noted_but_no_credentials() {
    let scene = Scene::given(Source::None).await;
    let meta = json!({"note": "mine", "dns_provider_credentials": "dns_cloudflare_api_token = leaked"});
    let id = scene.double.add_host(&[HOST], json!({"meta": meta, "access_list_id": 3}));
    scene.adopt(HOST).await.expect("taken over");
    let row = scene.double.host(HOST).expect("a row");
    assert_eq!(
        (row["id"].as_u64(), &row["meta"]["note"], &row["access_list_id"]),
        (Some(id), &json!("mine"), &json!(0))
    );
    assert!(!row.to_string().contains("leaked"), "{row}");
    // when it is let go, then our mark is gone and the host is not
    scene.release(HOST).await.expect("let go");
    let row = scene.double.host(HOST).expect("a row");
    assert!(!row.to_string().contains("portalkeeper") && row["meta"]["note"] == "mine", "{row}");
    assert_eq!(settled(&scene, false), page());
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
            let intent = Scene::intent(&format!("reset.c{index}.example"));
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
    let intent = Scene::intent("reset.c7.example");
    let looked = again.submit(intent.portal.clone(), Want::Present { intent, former: Vec::new() }).await;
    assert!(looked.expect("there").changes.is_empty());
    assert_eq!(scene.writes(), [""; 0]);
    assert_eq!(scene.double.host("www.acme.example").expect("a row"), foreign);
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
    let intent = Scene::intent(HOST);
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
        book: Arc::new(super::MemoryBook::default()),
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

#[tokio::test]
async fn a_thousand_quiet_looks_write_nothing_and_come_less_often_with_more_hosts() {
    let scene = Scene::of(NEWEST, Source::None).await;
    for index in 0..100 {
        scene.double.add_host(&[&format!("site{index}.example")], json!({}));
    }
    scene.want(HOST).await.expect("made");
    scene.running.log.clear();
    let intent = Scene::intent(HOST);
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
