//! What others changed is put right, counted, slowed down and, where it is too much, held.
use portalkeeper::backends::{ErrorClass, Known};
use portalkeeper::http::double::{DoubleResponse, Fault};
use portalkeeper::plan::Intent;
use serde_json::json;

use super::{Scene, burst, intent, key, mark, present};

#[tokio::test]
async fn a_changed_record_is_put_right_and_told() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.double.edit("reset.acme.example", "content", json!("attacker.example"));
    scene.want("reset.acme.example").await.expect("believed until the next look");
    scene.pass(25 * 3600);
    let done = scene.want("reset.acme.example").await.expect("put right");
    assert!(done.repaired);
    assert_eq!(
        done.changes,
        [
            "update reset.acme.example from CNAME record to attacker.example, proxied to CNAME record to edge.example.net, proxied"
        ]
    );
    scene.double.remove("reset.acme.example");
    scene.pass(25 * 3600);
    let done = scene.want("reset.acme.example").await.expect("put right");
    assert!(done.repaired && done.changes.len() == 1);
    let done = scene.want("reset.acme.example").await.expect("as it was");
    assert!(!done.repaired && done.changes.is_empty());
}

#[tokio::test]
async fn a_change_of_what_the_words_do_not_show_is_not_told_as_an_update_to_the_same() {
    let scene = Scene::given().await;
    let plain = || Intent { proxied: false, ttl: 300, ..intent("reset.acme.example") };
    present(&scene.worker, plain(), Known::NeverMade).await.expect("made");
    scene.double.edit("reset.acme.example", "ttl", json!(120));
    scene.pass(25 * 3600);
    let done = present(&scene.worker, plain(), Known::Nothing).await.expect("put right");
    assert_eq!(
        done.changes,
        ["put reset.acme.example right (CNAME record to edge.example.net; something else in it differs)"]
    );
}

/// A repair that Cloudflare refuses puts nothing right: it is told as what it is, however often it is tried.
#[tokio::test]
async fn a_repair_that_is_refused_again_and_again_is_not_told_as_a_fight() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.double.edit("reset.acme.example", "content", json!("theirs.example"));
    let refusal = json!({"success": false, "errors": [{"code": 1004, "message": "no"}], "result": null});
    let before = scene.double.records();
    for method in ["PUT", "PATCH", "POST"] {
        let answer = Fault::Answer(DoubleResponse::json(400, &refusal));
        scene.running.faults.push(method, "/dns_records", usize::MAX, answer);
    }
    let mut reasons = std::collections::BTreeSet::new();
    for _ in 0..8 {
        scene.pass(25 * 3600 / 100);
        scene.worker.forget(&key("reset.acme.example"));
        reasons.insert(scene.refused("reset.acme.example").await.reason);
    }
    assert!(reasons.len() == 1 && !reasons.contains("Contested"), "{reasons:?}");
    assert_eq!(scene.double.records(), before);
    // when it is refused no more, then it is put right
    scene.running.faults.clear();
    scene.pass(3600);
    assert!(scene.want("reset.acme.example").await.expect("put right").repaired);
}

/// I1: the list of a sweep may be minutes old. A repair by it is made only where the record is still what was listed.
#[tokio::test]
async fn a_repair_by_a_list_of_before_asks_first_whether_the_record_is_still_ours() {
    let scene = Scene::given().await;
    let [first, second, third, fourth] = ["a", "b", "c", "d"].map(|label| format!("{label}.acme.example"));
    for name in [&first, &second, &third, &fourth] {
        scene.want(name).await.expect("made");
    }
    // given two records that somebody changed, and a sweep that lists the zone for another portal
    for name in [&second, &third] {
        scene.double.edit(name, "content", json!("theirs.example"));
    }
    scene.pass(25 * 3600);
    scene.running.log.clear();
    scene.want(&first).await.expect("as it was");
    assert_eq!(scene.new_calls(), ["GET /zones/*/dns_records"]);
    scene.want(&fourth).await.expect("as it was, by the same list");
    assert_eq!(scene.new_calls(), [""; 0]);
    // when one of the two becomes somebody else's before its portal's turn comes, then it is left alone
    scene.double.edit(&second, "comment", json!("the owner's own now"));
    let foreign = scene.foreign();
    let refused = scene.refused(&second).await;
    assert_eq!((refused.class, refused.reason), (ErrorClass::Conflict, "ForeignRecord"));
    assert_eq!(scene.foreign(), foreign);
    assert_eq!(scene.running.log.writes(), []);
    assert_eq!(scene.new_calls()[0], "GET /zones/*/dns_records/*");
    // and the other is put right
    assert!(scene.want(&third).await.expect("put right").repaired);
    assert_eq!(scene.foreign(), foreign);
}

/// I1: a mark makes nothing ours but a CNAME. On a record of another type somebody copied it.
#[tokio::test]
async fn our_mark_on_a_record_of_another_type_is_somebody_elses() {
    let scene = Scene::given().await;
    let name = "reset.acme.example";
    scene.double.put_foreign(name, "A", "192.0.2.7");
    scene.double.edit(name, "comment", json!(mark(name).to_string()));
    let records = scene.double.records();
    assert_eq!(scene.refused(name).await.reason, "ForeignRecord");
    scene.absent(name).await.expect("nothing of ours");
    assert_eq!((scene.double.records(), scene.running.log.writes()), (records, vec![]));
}

/// F21, I4: another actor reverts the record every five seconds for an hour.
#[tokio::test]
async fn f21_a_fight_over_a_record_costs_about_ten_writes_an_hour() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.running.log.clear();
    let mut told = None;
    for _ in 0..720 {
        scene.double.edit("reset.acme.example", "content", json!("theirs.example"));
        scene.pass(5);
        scene.worker.forget(&key("reset.acme.example"));
        if let Err(error) = scene.want("reset.acme.example").await {
            told = Some(error);
        }
    }
    let told = told.expect("the fight is told");
    assert_eq!((told.class, told.reason), (ErrorClass::Conflict, "Contested"));
    assert!(told.message.contains("CNAME record to theirs.example"), "{told}");
    let writes = scene.running.log.writes().len();
    assert!((5..=12).contains(&writes), "{writes} writes");
    // when it stops, then there is calm
    scene.pass(3601);
    scene.want("reset.acme.example").await.expect("put right");
    scene.running.log.clear();
    scene.want("reset.acme.example").await.expect("as it was");
    assert_eq!(scene.calls(), []);
}

/// F22: somebody changed most of a zone. Nothing is overwritten before it is approved.
#[tokio::test]
async fn f22_many_changes_by_others_are_held_until_they_are_approved() {
    let scene = Scene::given().await;
    let portals = || (0..20).map(|index| intent(&format!("r{index:02}.acme.example"))).collect::<Vec<_>>();
    for result in burst(&scene.worker, portals(), &Known::NeverMade).await {
        result.expect("made");
    }
    for index in 0..10 {
        scene.double.edit(&format!("r{index:02}.acme.example"), "content", json!("maintenance.example"));
    }
    scene.pass(25 * 3600);
    scene.running.log.clear();
    let results = burst(&scene.worker, portals(), &Known::Nothing).await;
    let (fine, held): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((fine.len(), held.len()), (10, 10));
    let case = scene.worker.held().expect("held");
    assert_eq!((case.owned, case.changing), (20, 10));
    for error in held.into_iter().filter_map(Result::err) {
        assert_eq!(error.reason, "ChangesHeld");
        assert!(error.message.contains(&format!("portalkeeper.dev/approve-plan={}", case.id)), "{error}");
    }
    assert_eq!(scene.running.log.writes(), []);
    // an explicit deletion is never held
    scene.absent("r00.acme.example").await.expect("deleted");
    assert_eq!(scene.running.log.writes().len(), 1);
    // when this very case is approved, then it is put right, and the case is closed
    scene.worker.approve("something else");
    scene.pass(601);
    assert!(burst(&scene.worker, portals().split_off(1), &Known::Nothing).await.iter().any(Result::is_err));
    scene.worker.approve(&case.id);
    scene.pass(601);
    for result in burst(&scene.worker, portals().split_off(1), &Known::Nothing).await {
        result.expect("put right");
    }
    assert!(scene.double.records().iter().all(|record| record["content"] != "maintenance.example"));
}
