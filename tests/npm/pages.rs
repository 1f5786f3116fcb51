//! What people do in NPM's pages: to our mark, to our hosts, and what of theirs is never touched.
use portalkeeper::backends::ErrorClass;
use portalkeeper::backends::npm::Version;
use portalkeeper::backends::npm::certificate::Source;
use portalkeeper::backends::npm::double::Visit;
use serde_json::{Value, json};

use super::{HOST, Scene, VERSIONS, page, settled};

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
    // then nothing is tried, and taking it over is not offered, whether the portal may adopt or not
    for refused in [scene.want(HOST).await, scene.adopt(HOST).await] {
        let refused = refused.expect_err("shared");
        assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignHost"));
        assert_eq!(
            refused.message,
            format!(
                "{HOST} is taken by something that is not ours: proxy host to http://10.0.0.9:8080 without a certificate, also \
                 for www.acme.example, behind an access list; take {HOST} out of it by hand; it serves other names, too, or \
                 stands together with other things, so it cannot be taken over"
            )
        );
    }
    assert_eq!((scene.double.hosts(), scene.writes()), (before, Vec::new()));
    // given a host of ours to which somebody added a name
    let scene = Scene::given(Source::None).await;
    scene.want(HOST).await.expect("made");
    scene.double.edit_in_pages(1, json!({"domain_names": [HOST, "www.acme.example"]}));
    let before = scene.double.hosts();
    scene.running.log.clear();
    // then that is told, however often it is looked at: nobody is said to have put anything right
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(scene.want(HOST).await);
    }
    answers.push(scene.unwant(HOST).await);
    for refused in answers {
        let refused = refused.expect_err("shared");
        assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignHost"));
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
