//! What goes wrong at a tunnel, by name: odd documents, missing tunnels, failed reads, lost answers.

use portalkeeper::api::condition::Truth;
use portalkeeper::backends::{ErrorClass, Want};
use portalkeeper::http::double::{DoubleResponse, Fault};
use portalkeeper::plan::Intent;
use serde_json::{Value, json};

use super::{HOST, ORIGIN, Stage, TUNNEL, absent, foreign_document, host, intent, present, release, rules_of};

#[tokio::test]
async fn f11_everything_of_others_survives_a_portals_life_byte_for_byte() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    // when a portal comes, then it takes a read, a write and a read, and its rule stands before the wildcard
    let made = present(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(stage.calls(), ["GET configurations", "PUT configurations", "GET configurations"]);
    assert_eq!(stage.config()["ingress"][2], json!({"hostname": HOST, "service": ORIGIN}));
    assert_eq!(stage.foreign(), foreign_document().to_string());
    // then only a request can prove more than that it is written
    let [doubt] = made.doubts.as_slice() else { panic!("{made:?}") };
    assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, "AwaitingProof"));
    assert!(doubt.message.starts_with(&format!("{HOST} is in version 1 of the configuration of tunnel {TUNNEL}")));
    // when it goes, then everything is as it was; when it is gone, then there is nothing to do
    absent(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(stage.config().to_string(), foreign_document().to_string());
    assert_eq!(stage.calls(), ["GET configurations", "PUT configurations", "GET configurations"]);
    absent(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(stage.calls(), ["GET configurations"]);
}

#[tokio::test]
async fn f11_a_document_without_catch_all_gets_one_and_a_new_tunnel_is_begun() {
    let without = json!({"ingress": [{"hostname": "www.acme.example", "service": "http://10.0.0.1:80"}]});
    for start in [without, Value::Null] {
        let stage = Stage::with(start).await;
        present(&stage.worker(), &intent(HOST)).await.unwrap();
        let config = stage.config();
        let rules = config["ingress"].as_array().unwrap();
        assert_eq!(rules.last().unwrap(), &json!({"service": "http_status:404"}));
        assert!(rules.iter().any(|rule| rule["hostname"] == HOST));
    }
}

#[tokio::test]
async fn f11_the_same_host_with_another_path_goes_on_and_is_told() {
    let mut document = foreign_document();
    rules_of(&mut document).insert(0, json!({"hostname": HOST, "path": "^/api", "service": "http://10.0.0.7:80"}));
    let stage = Stage::with(document.clone()).await;
    let made = present(&stage.worker(), &intent(HOST)).await.unwrap();
    assert_eq!(stage.foreign(), document.to_string());
    assert_eq!((made.doubts[0].truth, made.doubts[0].reason), (Truth::Unknown, "PathsElsewhere"));
    // a path that takes the portal's own pages, too, is a reason why it cannot work
    stage.edit(|config| config["ingress"][0]["path"] = json!("/"));
    let made = present(&stage.worker(), &intent(HOST)).await.unwrap();
    assert_eq!((made.doubts[0].truth, made.doubts[0].reason), (Truth::False, "ShadowedByPath"));
}

#[tokio::test]
async fn f11_a_refused_document_is_told_in_cloudflares_words() {
    let stage = Stage::with(foreign_document()).await;
    stage.double.set_tunnel(TUNNEL, "rule_limit", json!(4));
    let error = present(&stage.worker(), &intent(HOST)).await.unwrap_err();
    assert_eq!((error.class, error.reason), (ErrorClass::Permanent, "BadConfiguration"));
    assert!(error.message.contains("Bad Configuration: Validation failed: too many ingress rules"), "{error}");
    assert_eq!(stage.config().to_string(), foreign_document().to_string());
}

#[tokio::test]
async fn f11_a_locally_managed_tunnel_is_refused_with_advice_and_never_written() {
    let stage = Stage::with(Value::Null).await;
    stage.double.make_tunnel_local(TUNNEL);
    let before = stage.double.tunnel_document(TUNNEL);
    let worker = stage.worker();
    let told = async || {
        let error = present(&worker, &intent(HOST)).await.unwrap_err();
        assert_eq!((error.class, error.reason), (ErrorClass::Permanent, "TunnelManagedLocally"));
        assert!(error.message.contains("let the dashboard migrate it to remote management"), "{error}");
        absent(&worker, &intent(HOST)).await.unwrap();
    };
    told().await;
    // also when only the tunnel itself says so, or its document is there
    stage.double.set_tunnel(TUNNEL, "source", Value::Null);
    told().await;
    stage.double.set_tunnel(TUNNEL, "source", json!("local"));
    stage.double.set_tunnel(TUNNEL, "config", foreign_document());
    told().await;
    assert_eq!((stage.writes(), stage.version()), (0, before.1));
}

#[tokio::test]
async fn f11_a_deleted_or_unknown_tunnel_is_named_and_a_deletion_does_not_hang_on_it() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    present(&worker, &intent(HOST)).await.unwrap();
    let gone = async || {
        worker.forget(&intent(HOST).portal);
        let error = present(&worker, &intent(HOST)).await.unwrap_err();
        assert_eq!((error.class, error.reason), (ErrorClass::Permanent, "TunnelNotFound"));
        assert!(error.message.starts_with(&format!("tunnel {TUNNEL} does not exist in account ")), "{error}");
        absent(&worker, &intent(HOST)).await.unwrap();
    };
    stage.double.set_tunnel(TUNNEL, "deleted_at", json!("2026-02-02T00:00:00Z"));
    gone().await;
    stage.double.remove_tunnel(TUNNEL);
    stage.calls();
    gone().await;
    assert_eq!(stage.writes(), 0);
    // a path that nobody knows is no proof while the tunnel itself is there
    stage.double.add_tunnel(TUNNEL, foreign_document());
    let unknown = json!({"success": false, "errors": [{"code": 1234, "message": "no such thing"}], "result": null});
    let answer = Fault::Answer(DoubleResponse::json(404, &unknown));
    stage.running.faults.push("GET", "/configurations", 1, answer);
    let error = absent(&worker, &intent(HOST)).await.unwrap_err();
    assert_eq!((error.class, error.reason), (ErrorClass::Unavailable, "NotFound"));
}

#[tokio::test]
async fn f11_a_missing_permission_is_named() {
    let stage = Stage::with(foreign_document()).await;
    stage.double.deny("canary-token-4711", "tunnel");
    let error = present(&stage.worker(), &intent(HOST)).await.unwrap_err();
    assert_eq!((error.class, error.reason), (ErrorClass::Credential, "TunnelPermissionMissing"));
    assert!(
        error.message.contains(
            "the API token is valid, but it lacks the permission Account · Cloudflare Tunnel · Edit (account "
        ),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("canary"));
}

#[tokio::test]
async fn f12_a_failed_read_writes_nothing() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    present(&worker, &intent(HOST)).await.unwrap();
    let before = stage.double.tunnel_document(TUNNEL);
    stage.calls();
    let half = r#"{"success": true, "errors": [], "result": {"version": 1, "source": "cloudflare", "config": {"ingr"#;
    let ok = |result: Value| DoubleResponse::json(200, &json!({"success": true, "errors": [], "result": result}));
    let throttled = json!({"success": false, "errors": [{"code": 971, "message": "slow down"}], "result": null});
    for (what, fault) in [
        ("500", Fault::Answer(DoubleResponse::text(500, "oops"))),
        ("502", Fault::Answer(DoubleResponse::html(502, "<h1>Bad gateway</h1>"))),
        ("a page with 200", Fault::Answer(DoubleResponse::html(200, "<h1>Maintenance</h1>"))),
        ("half a body", Fault::Answer(DoubleResponse::text(200, half))),
        ("no answer", Fault::CutBefore),
        ("no version", Fault::Answer(ok(json!({"source": "cloudflare", "config": {"ingress": []}})))),
        ("a list", Fault::Answer(ok(json!({"version": 1, "source": "cloudflare", "config": []})))),
        // The last, because it holds everything that comes after.
        ("429", Fault::Answer(DoubleResponse::json(429, &throttled).with_header("retry-after", "30"))),
    ] {
        stage.running.faults.push("GET", "/configurations", usize::MAX, fault);
        let new = present(&worker, &intent("reset.globex.example")).await;
        let gone = absent(&worker, &intent(HOST)).await;
        for error in [new.unwrap_err(), gone.unwrap_err()] {
            let wait = error.retry_after;
            match what {
                "429" => {
                    assert_eq!(error.class, ErrorClass::Throttled);
                    assert!(wait.is_some_and(|wait| (29..=30).contains(&wait.as_secs())), "{wait:?}");
                }
                _ => assert_eq!(error.class, ErrorClass::Unavailable, "{what}: {error:?}"),
            }
        }
        assert_eq!(stage.writes(), 0, "{what}");
        assert_eq!(stage.double.tunnel_document(TUNNEL), before, "{what}");
        stage.running.faults.clear();
    }
}

#[tokio::test]
async fn f12_a_ledger_that_fails_writes_nothing() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    stage.ledger.break_it(true);
    let error = present(&worker, &intent(HOST)).await.unwrap_err();
    assert_eq!((error.class, error.reason), (ErrorClass::Unavailable, "LedgerFailed"));
    assert!(error.message.ends_with("cannot be looked up or noted: the disk is full"), "{error}");
    assert_eq!(stage.calls(), [""; 0]);
    stage.ledger.break_it(false);
    present(&worker, &intent(HOST)).await.unwrap();
}

#[tokio::test]
async fn f04_a_write_whose_answer_is_lost_is_found_and_not_repeated() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    stage.running.faults.push("PUT", "/configurations", 1, Fault::CutAfter);
    let made = present(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(made.doubts[0].reason, "AwaitingProof");
    assert_eq!(stage.calls(), ["GET configurations", "PUT configurations", "GET configurations"]);
    assert_eq!(stage.foreign(), foreign_document().to_string());
    // one that never arrived is made again
    stage.running.faults.push("PUT", "/configurations", 1, Fault::CutBefore);
    present(&worker, &intent("reset.globex.example")).await.unwrap();
    assert_eq!((stage.writes(), stage.version()), (2, 2));
    assert_eq!(stage.foreign(), foreign_document().to_string());
}

#[tokio::test]
async fn a_write_that_is_refused_proves_nothing_about_its_neighbours() {
    let stage = Stage::with(foreign_document()).await;
    present(&stage.worker(), &intent(HOST)).await.unwrap();
    stage.running.faults.push("PUT", "/configurations", 1, Fault::Answer(DoubleResponse::json(429, &json!({}))));
    let worker = stage.worker();
    let (there, new) = (intent(HOST), intent("reset.globex.example"));
    let (there, new) = tokio::join!(present(&worker, &there), present(&worker, &new));
    assert_eq!(new.unwrap_err().class, ErrorClass::Throttled);
    let there = there.unwrap();
    assert_eq!((there.changes.len(), there.doubts[0].reason), (0, "AwaitingProof"));
}

#[tokio::test]
async fn a_write_that_cannot_be_read_back_is_told_and_found_by_the_next_look() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    // given that reading fails from right after the read that the write is made from
    let faults = stage.running.faults.clone();
    stage.double.after("GET", "/configurations", move |_| {
        let page = DoubleResponse::text(500, "oops");
        faults.push("GET", "/configurations", usize::MAX, Fault::Answer(page));
    });
    let error = present(&worker, &intent(HOST)).await.unwrap_err();
    assert!(error.message.starts_with("the rules were written as version 1 and not read back: "), "{error}");
    stage.running.faults.clear();
    stage.calls();
    present(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(stage.calls(), ["GET configurations"]);
}

#[tokio::test]
async fn a_kill_between_note_rule_and_answer_leaves_nothing_unknown() {
    let stage = Stage::with(foreign_document()).await;
    // given a process that ended after it had noted the rule, and one that ended after it had written it
    for fault in [Fault::CutBefore, Fault::CutAfter] {
        let page = DoubleResponse::text(500, "oops");
        stage.running.faults.push("PUT", "/configurations", usize::MAX, fault);
        let faults = stage.running.faults.clone();
        stage.double.after("GET", "/configurations", move |_| {
            faults.push("GET", "/configurations", usize::MAX, Fault::Answer(page));
        });
        assert!(present(&stage.worker(), &intent(HOST)).await.is_err());
        stage.running.faults.clear();
        // when the next one looks, then there is one rule, and it is ours
        present(&stage.worker(), &intent(HOST)).await.unwrap();
        let count =
            stage.config()["ingress"].as_array().unwrap().iter().filter(|rule| rule["hostname"] == HOST).count();
        assert_eq!(count, 1);
        absent(&stage.worker(), &intent(HOST)).await.unwrap();
        assert_eq!(stage.config().to_string(), foreign_document().to_string());
        assert_eq!(stage.ledger.all(), []);
    }
}

#[tokio::test]
async fn another_origin_is_put_into_our_own_rules_only() {
    let mut document = foreign_document();
    rules_of(&mut document).insert(0, json!({"hostname": "alike.acme.example", "service": ORIGIN}));
    let stage = Stage::with(document.clone()).await;
    present(&stage.worker(), &intent(HOST)).await.unwrap();
    // given that the new address is written and the process ends before it knows it
    let (origin, page) = ("http://10.0.0.5:5000", DoubleResponse::text(500, "oops"));
    let faults = stage.running.faults.clone();
    stage.double.after("PUT", "/configurations", move |_| {
        faults.push("GET", "/configurations", usize::MAX, Fault::Answer(page));
    });
    assert!(present(&stage.worker_to(origin), &intent(HOST)).await.is_err());
    stage.running.faults.clear();
    // then either address is known to be ours
    assert_eq!(stage.ledger.all().len(), 2);
    let done = present(&stage.worker_to(origin), &intent(HOST)).await.unwrap();
    assert_eq!(done.changes, [""; 0]);
    assert_eq!(stage.foreign(), document.to_string());
    let back = present(&stage.worker(), &intent(HOST)).await.unwrap();
    assert_eq!(back.changes, [format!("update {HOST} from tunnel rule to {origin} to tunnel rule to {ORIGIN}")]);
    assert_eq!((stage.ledger.all().len(), stage.foreign()), (1, document.to_string()));
}

#[tokio::test]
async fn a_host_that_changes_keeps_its_former_rule_until_it_may_go() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    present(&worker, &intent(HOST)).await.unwrap();
    let new = host("new.acme.example");
    let moving = Intent { host: new.clone(), keep: vec![host(HOST)], ..intent(HOST) };
    present(&worker, &moving).await.unwrap();
    let hosts = |stage: &Stage| stage.ledger.all().into_iter().map(|entry| entry.host).collect::<Vec<_>>();
    assert_eq!(hosts(&stage), [HOST, new.as_str()]);
    stage.calls();
    let moved = Intent { keep: Vec::new(), ..moving };
    let want = Want::Present { intent: moved.clone(), former: vec![host(HOST)] };
    worker.submit(moved.portal.clone(), want).await.unwrap();
    assert_eq!(stage.writes(), 1);
    assert_eq!(hosts(&stage), [new.as_str()]);
    assert_eq!(stage.foreign(), foreign_document().to_string());
}

#[tokio::test]
async fn a_released_rule_costs_no_write_and_is_foreign_from_then_on() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    present(&worker, &intent(HOST)).await.unwrap();
    let made = stage.config();
    stage.calls();
    release(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(stage.calls(), ["GET configurations"]);
    let error = present(&worker, &intent(HOST)).await.unwrap_err();
    assert_eq!((error.class, error.reason), (ErrorClass::Conflict, "ForeignRule"));
    absent(&worker, &intent(HOST)).await.unwrap();
    assert_eq!((stage.config(), stage.writes()), (made, 0));
    // a rule just like the wanted one needs no write to be taken over either
    present(&worker, &Intent { adopt: true, ..intent(HOST) }).await.unwrap();
    assert_eq!((stage.writes(), stage.ledger.all().len()), (0, 1));
}
