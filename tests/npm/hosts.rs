//! Hosts: what NPM leaves behind when a write fails, and how that is made good.
use std::sync::Arc;

use portalkeeper::backends::ErrorClass;
use portalkeeper::backends::npm::Version;
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::double::Visit;
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::json;

use super::{HOST, Scene, VERSIONS, page, settled};

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
