//! Zones that cannot be used, come, go, or are not to be seen any more (F07, F10).
use portalkeeper::backends::{Known, Want, Worker};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::json;

use super::{Scene, TOKEN, burst, host, intent, key, mark, present};

/// I2, I5: every state of a zone is told, none is ever made, and it heals.
#[tokio::test]
async fn f07_a_zone_that_cannot_be_used_is_told_by_its_state_and_never_made() {
    let scene = Scene::given().await;
    let missing = scene.refused("reset.initech.example").await;
    assert_eq!(missing.reason, "ZoneNotFound");
    for (status, reason) in [("pending", "ZonePending"), ("initializing", "ZonePending"), ("moved", "ZoneMoved")] {
        scene.double.add_zone_with("initech.example", status, false);
        scene.pass(601);
        let error = scene.refused("reset.initech.example").await;
        assert_eq!(error.reason, reason);
        assert!(error.message.contains(&format!("the Cloudflare zone initech.example is {status}")), "{error}");
    }
    scene.double.add_zone_with("initech.example", "active", true);
    scene.pass(601);
    assert_eq!(scene.refused("reset.initech.example").await.reason, "ZonePaused");
    assert_eq!(scene.running.log.writes(), []);
    scene.double.add_zone("initech.example");
    scene.pass(601);
    scene.want("reset.initech.example").await.expect("the zone is active now");
}

/// I2, I5: a zone that has another id now is found again.
#[tokio::test]
async fn f07_a_zone_that_was_made_anew_is_found_again() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.double.remove_zone("acme.example");
    scene.double.add_zone("acme.example");
    scene.worker.forget(&key("reset.acme.example"));
    scene.want("reset.acme.example").await.expect("made anew");
    assert_eq!(scene.ours(), ["reset.acme.example"]);
}

/// I2, I5: a token that was narrowed does not make zones `gone`, and the rest goes on.
#[tokio::test]
async fn f10_a_narrowed_token_stops_what_it_does_not_see_only() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.want("reset.globex.example").await.expect("made");
    scene.double.narrow_token(TOKEN, &["acme.example"]);
    scene.running.log.clear();
    let worker = scene.restarted();
    let gone = Want::Absent { mark: mark("reset.globex.example"), hosts: vec![host("reset.globex.example")] };
    let error = worker.submit(key("reset.globex.example"), gone).await.expect_err("not seen is not gone");
    assert_eq!(error.reason, "ZoneNotFound");
    present(&worker, intent("a.acme.example"), Known::Nothing).await.expect("the zone it sees");
    assert_eq!(scene.ours(), ["a.acme.example", "reset.acme.example", "reset.globex.example"]);
}

/// Where each record of a name stands.
fn zones_of(scene: &Scene, name: &str) -> Vec<String> {
    let records = scene.double.records();
    let at_name = records.iter().filter(|record| record["name"] == name);
    let mut zones: Vec<String> =
        at_name.map(|record| record["zone_name"].as_str().unwrap_or_default().to_owned()).collect();
    zones.sort();
    zones
}

async fn look(worker: &Worker, name: &str) -> Vec<String> {
    present(worker, intent(name), Known::Nothing).await.expect("in order").changes
}

/// I2, I6: where a longer zone appears, the record is made there, and then the one in the shorter zone goes.
#[tokio::test]
async fn f07_a_child_zone_takes_over() {
    let scene = Scene::given().await;
    let name = "reset.mail.acme.example";
    scene.want(name).await.expect("made in the parent");
    scene.double.add_zone("mail.acme.example");
    // nothing tells but the proof of life, which fails: the portal is looked at anew
    scene.pass(3601);
    scene.worker.forget(&key(name));
    scene.running.log.clear();
    let changes = look(&scene.worker, name).await;
    assert_eq!(
        changes,
        [
            "create reset.mail.acme.example (CNAME record to edge.example.net, proxied)",
            "delete reset.mail.acme.example in the zone acme.example (CNAME record to edge.example.net, proxied)"
        ]
    );
    assert_eq!(zones_of(&scene, name), ["mail.acme.example"]);
    let writes: Vec<String> = scene.running.log.writes().iter().map(|call| call.method.clone()).collect();
    assert_eq!(writes, ["POST", "DELETE"], "the new one first");
    // and what is in order costs nothing
    scene.running.log.clear();
    scene.want(name).await.expect("in order");
    assert_eq!(scene.new_calls(), Vec::<String>::new());
}

/// I6: the same for many at once, and by another process than the one that made them.
#[tokio::test]
async fn f07_a_child_zone_takes_over_many_after_a_restart() {
    let scene = Scene::given().await;
    let names: Vec<String> = (0..6).map(|index| format!("r{index}.mail.acme.example")).collect();
    let intents = || names.iter().map(|name| intent(name)).collect::<Vec<_>>();
    burst(&scene.worker, intents(), &Known::NeverMade).await.into_iter().for_each(|made| drop(made.expect("made")));
    scene.double.put_foreign("theirs.mail.acme.example", "CNAME", "elsewhere.example");
    let foreign = scene.foreign();
    scene.double.add_zone("mail.acme.example");
    scene.running.log.clear();
    let worker = scene.restarted();
    for done in burst(&worker, intents(), &Known::Nothing).await {
        assert_eq!(done.expect("moved over").changes.len(), 2);
    }
    for name in &names {
        assert_eq!(zones_of(&scene, name), ["mail.acme.example"]);
    }
    assert_eq!(scene.foreign(), foreign);
    let writes: Vec<String> = scene.running.log.writes().iter().map(super::described).collect();
    assert_eq!(writes, ["POST /zones/*/dns_records/batch"; 2], "one batch in each zone");
}

/// I1, I5: while the new record cannot be made, the old one stays; a deletion takes both.
#[tokio::test]
async fn f07_what_a_child_zone_takes_over_stays_until_its_record_is_made() {
    let scene = Scene::given().await;
    let name = "reset.mail.acme.example";
    scene.want(name).await.expect("made in the parent");
    scene.double.add_zone("mail.acme.example");
    scene.pass(3601);
    scene.worker.forget(&key(name));
    // given that the creation in the child is refused
    let refusal = json!({"success": false, "errors": [{"code": 1004, "message": "no"}]});
    scene.running.faults.push("POST", "/dns_records", 1, Fault::Answer(DoubleResponse::json(400, &refusal)));
    scene.refused(name).await;
    assert_eq!(zones_of(&scene, name), ["acme.example"]);
    // given that it was made and the removal was refused
    scene.running.faults.push("DELETE", "/dns_records", 1, Fault::Answer(DoubleResponse::json(400, &refusal)));
    scene.pass(3601);
    scene.worker.forget(&key(name));
    scene.refused(name).await;
    assert_eq!(zones_of(&scene, name), ["acme.example", "mail.acme.example"]);
    // when the portal goes, then both go
    scene.absent(name).await.expect("removed");
    assert_eq!(zones_of(&scene, name), Vec::<String>::new());
}

/// I5: what is the matter with the shorter zone does not concern a portal in the longer one.
#[tokio::test]
async fn a_broken_parent_zone_holds_nothing_up_in_its_child() {
    let scene = Scene::given().await;
    scene.double.add_zone("mail.acme.example");
    let parent = scene.double.records().iter().find(|r| r["zone_name"] == "acme.example").unwrap()["zone_id"].clone();
    let parent: &'static str = Box::leak(parent.as_str().unwrap().to_owned().into_boxed_str());
    scene.running.faults.push("*", parent, usize::MAX, Fault::Answer(DoubleResponse::text(500, "oops")));
    scene.want("reset.mail.acme.example").await.expect("made in the child");
}

/// A former name whose zone is not to be seen holds up nothing of the name that the portal has now.
#[tokio::test]
async fn a_former_name_in_a_zone_out_of_sight_is_told_and_the_rest_is_done() {
    let scene = Scene::given().await;
    let (old, older) = ("old.globex.example", "older.acme.example");
    for name in [old, older] {
        let made = portalkeeper::plan::Intent { host: host(name), ..intent("reset.acme.example") };
        let want = Want::Present { intent: made, former: Vec::new() };
        scene.worker.submit(key("reset.acme.example"), want).await.expect("made");
    }
    for restarted in [false, true] {
        // given that the zone of one former name is taken from the token, with the worker knowing it or not
        scene.double.narrow_token(TOKEN, &["acme.example"]);
        let worker = if restarted { scene.restarted() } else { scene.worker.clone() };
        let want = Want::Present { intent: intent("reset.acme.example"), former: vec![host(old), host(older)] };
        let done = worker.submit(key("reset.acme.example"), want).await.expect("the wanted name is in order");
        assert_eq!(done.resources.len(), 1);
        let [(name, error)] = done.out_of_reach.as_slice() else { panic!("{:?}", done.out_of_reach) };
        assert_eq!((name.as_str(), error.reason), (old, "ZoneNotFound"));
        assert_eq!(scene.ours(), [old, "reset.acme.example"]);
    }
    // when it is seen again, then it goes
    scene.double.narrow_token(TOKEN, &["acme.example", "globex.example"]);
    let want = Want::Present { intent: intent("reset.acme.example"), former: vec![host(old)] };
    let done = scene.worker.submit(key("reset.acme.example"), want).await.expect("removed");
    assert_eq!((done.out_of_reach, scene.ours()), (Vec::new(), vec!["reset.acme.example".to_owned()]));
}

/// F19, I7: of a portal with several names those go that can be reached, whichever comes first.
#[tokio::test]
async fn a_deletion_removes_what_it_can_reach_and_tells_the_rest() {
    for lost in ["acme.example", "globex.example"] {
        let scene = Scene::given().await;
        let names = ["a.acme.example", "b.globex.example"];
        for name in names {
            let made = portalkeeper::plan::Intent { host: host(name), ..intent("portal.example") };
            scene
                .worker
                .submit(key("portal.example"), Want::Present { intent: made, former: Vec::new() })
                .await
                .expect("made");
        }
        let (seen, stays) =
            if lost == "acme.example" { ("globex.example", names[0]) } else { ("acme.example", names[1]) };
        scene.double.narrow_token(TOKEN, &[seen]);
        let hosts = names.map(host).to_vec();
        let gone = Want::Absent { mark: mark("portal.example"), hosts: hosts.clone() };
        let done = scene.restarted().submit(key("portal.example"), gone).await.expect("one is gone");
        assert_eq!(scene.ours(), [stays]);
        assert_eq!(done.out_of_reach.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>(), [stays]);
    }
}

/// I2: a zone list that cannot be read is no sign that a former name is out of sight.
#[tokio::test]
async fn a_failed_look_for_a_former_names_zone_is_a_failure() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    for index in 0..120 {
        scene.double.add_zone(&format!("z{index}.example"));
    }
    let worker = scene.restarted();
    present(&worker, intent("reset.acme.example"), Known::Nothing).await.expect("its zone is known");
    scene.running.faults.push("GET", "/zones", usize::MAX, Fault::Answer(DoubleResponse::text(500, "oops")));
    let former = vec![host("old.globex.example")];
    let want = Want::Present { intent: intent("reset.acme.example"), former };
    let error = worker.submit(key("reset.acme.example"), want).await.expect_err("not known");
    assert_eq!(error.class, portalkeeper::backends::ErrorClass::Unavailable);
}

/// I7: where nothing can be made any more, what was made can still be removed.
#[tokio::test]
async fn a_record_is_removed_from_a_zone_that_has_moved_away() {
    for status in ["moved", "pending"] {
        let scene = Scene::given().await;
        scene.want("reset.acme.example").await.expect("made");
        scene.double.set_zone("acme.example", "status", json!(status));
        let worker = scene.restarted();
        let gone = Want::Absent { mark: mark("reset.acme.example"), hosts: vec![host("reset.acme.example")] };
        worker.submit(key("reset.acme.example"), gone).await.expect("removed");
        assert_eq!(scene.ours(), Vec::<String>::new());
        let error = present(&worker, intent("reset.acme.example"), Known::Nothing).await.expect_err("nothing is made");
        assert!(["ZoneMoved", "ZonePending"].contains(&error.reason), "{error:?}");
    }
}

/// What another credential put in place is told from the rest by its id.
#[tokio::test]
async fn what_is_left_to_another_credential_stays() {
    let scene = Scene::given().await;
    let kept = scene.want("reset.acme.example").await.expect("made").resources[0].id.clone().expect("an id");
    let hosts = vec![host("reset.acme.example")];
    let left =
        |but: &str| Want::Left { mark: mark("reset.acme.example"), hosts: hosts.clone(), but: vec![but.to_owned()] };
    scene.running.log.clear();
    scene.restarted().submit(key("reset.acme.example"), left(&kept)).await.expect("nothing to do");
    assert_eq!(scene.running.log.writes(), []);
    scene.restarted().submit(key("reset.acme.example"), left("another")).await.expect("removed");
    assert_eq!(scene.ours(), Vec::<String>::new());
}
