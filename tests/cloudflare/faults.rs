//! The faults of the catalogue that concern records, each with the invariant that it guards.
use std::sync::Arc;
use std::time::Duration;

use portalkeeper::backends::cloudflare_api::Budget;
use portalkeeper::backends::{ErrorClass, Known, Worker};
use portalkeeper::http::double::{DoubleResponse, Fault};
use serde_json::json;

use super::{Scene, TOKEN, burst, dns, host, intent, key, present};

fn slow_down(wait: Option<&str>) -> Fault {
    let answer =
        DoubleResponse::json(429, &json!({"success": false, "errors": [{"code": 971, "message": "slow down"}]}));
    Fault::Answer(match wait {
        Some(wait) => answer.with_header("retry-after", wait),
        None => answer,
    })
}

/// I4, I5: after a 429 nothing goes out on that token before its time, and then one call.
#[tokio::test]
async fn f01_a_throttled_token_is_left_alone_and_others_are_not() {
    for (header, seconds) in [(Some("1"), 1), (Some("30"), 30), (Some("300"), 300), (None, 300)] {
        let scene = Scene::given().await;
        scene.double.accept_token("another-token");
        let other = Worker::spawn(
            dns(&scene.running, "another-token", &Budget::new(scene.clock.clone())),
            scene.clock.clone(),
            scene.shutdown.clone(),
        );
        scene.want("reset.acme.example").await.expect("made");
        scene.running.log.clear();
        // given a token whose limit is used up
        scene.running.faults.push("*", "/dns_records", 1, slow_down(header));
        let names = ["a.acme.example", "b.acme.example", "c.acme.example"];
        // when portals are wanted, again and again
        for _ in 0..3 {
            for result in burst(&scene.worker, names.map(intent).to_vec(), &Known::Nothing).await {
                let error = result.expect_err("throttled");
                assert_eq!((error.class, error.reason), (ErrorClass::Throttled, "RateLimited"));
                assert_eq!(error.retry_after.map(|wait| wait.as_secs()), Some(seconds), "{header:?}");
            }
        }
        // then one call was made in all, and another token is not concerned
        assert_eq!(scene.calls().len(), 1, "{:?}", scene.calls());
        present(&other, intent("d.acme.example"), Known::Nothing).await.expect("another token");
        // when the time is over, then all is done
        scene.pass(i64::try_from(seconds).unwrap() + 1);
        for result in burst(&scene.worker, names.map(intent).to_vec(), &Known::Nothing).await {
            result.expect("made");
        }
    }
}

/// I4: a date counts as well as seconds.
#[tokio::test]
async fn f01_a_retry_after_may_be_a_date() {
    let scene = Scene::given().await;
    let answer = DoubleResponse::json(429, &json!({"success": false, "errors": [{"code": 971}]}))
        .with_header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
        .with_header("retry-after", "Sun, 06 Nov 1994 08:51:37 GMT");
    scene.running.faults.push("*", "/zones", 1, Fault::Answer(answer));
    let error = scene.refused("reset.acme.example").await;
    assert_eq!(error.retry_after.map(|wait| wait.as_secs()), Some(120));
}

/// I4: a batch that was throttled is sent again as a batch.
#[tokio::test]
async fn f02_a_throttled_batch_is_never_taken_apart() {
    let scene = Scene::given().await;
    scene.want("first.acme.example").await.expect("the zone is known");
    scene.running.log.clear();
    scene.running.faults.push("POST", "/batch", 1, slow_down(Some("30")));
    let portals = || (0..150).map(|index| intent(&format!("r{index}.acme.example"))).collect();
    for result in burst(&scene.worker, portals(), &Known::NeverMade).await {
        assert_eq!(result.expect_err("throttled").class, ErrorClass::Throttled);
    }
    scene.pass(31);
    for result in burst(&scene.worker, portals(), &Known::NeverMade).await {
        result.expect("made");
    }
    assert_eq!(scene.new_calls(), ["POST /zones/*/dns_records/batch", "POST /zones/*/dns_records/batch"]);
    assert_eq!(scene.ours().len(), 151);
}

/// I2, I4: an odd answer is a failed read: nothing is written and nothing is taken for gone.
#[tokio::test]
async fn f03_odd_answers_are_failed_reads_and_nothing_is_written() {
    let pages = [
        DoubleResponse::html(200, "<html>maintenance</html>"),
        DoubleResponse::html(520, "<h1>Web server is returning an unknown error</h1>"),
        DoubleResponse::text(200, "{\"success\":true,\"result\":[{\"id\":\"x\""),
        DoubleResponse::json(200, &json!({"success": false, "errors": [], "result": []})),
        DoubleResponse::json(200, &json!({"success": true, "result": {}})),
        DoubleResponse::json(200, &json!({"success": true, "result": [], "result_info": {"total_count": 7}})),
        DoubleResponse::empty(200),
    ];
    for page in pages {
        let scene = Scene::given().await;
        scene.want("reset.acme.example").await.expect("made");
        scene.running.log.clear();
        scene.worker.forget(&key("reset.acme.example"));
        scene.running.faults.push("GET", "/dns_records", usize::MAX, Fault::Answer(page.clone()));
        let error = scene.refused("reset.acme.example").await;
        assert_eq!(error.class, ErrorClass::Unavailable, "{page:?}: {error:?}");
        assert!(!error.message.contains('<'), "the raw page shows: {error}");
        scene.absent("reset.acme.example").await.expect_err("a failed read is not `gone`");
        assert_eq!(scene.running.log.writes(), [], "{page:?}");
        scene.running.faults.clear();
        scene.want("reset.acme.example").await.expect("as it was");
        assert_eq!(scene.running.log.writes(), [], "{page:?}");
    }
}

/// I1, I6: an answer that was lost is found out by one look.
#[tokio::test]
async fn f04_a_creation_whose_answer_was_lost_is_found_again() {
    for known in [Known::Nothing, Known::NeverMade] {
        let scene = Scene::given().await;
        scene.running.faults.push("POST", "/dns_records", 1, Fault::CutAfter);
        // the one call that looks after the lost answer finds our own mark
        let made = present(&scene.worker, intent("reset.acme.example"), known).await.expect("found");
        assert!(made.resources[0].id.is_some());
        assert_eq!(scene.running.log.writes().len(), 1);
        assert_eq!(scene.ours(), ["reset.acme.example"]);
    }
}

/// I6: so is that of a batch.
#[tokio::test]
async fn f04_a_batch_whose_answer_was_lost_is_found_again() {
    let scene = Scene::given().await;
    scene.running.faults.push("POST", "/batch", 1, Fault::CutAfter);
    let portals = (0..20).map(|index| intent(&format!("r{index}.acme.example"))).collect();
    for result in burst(&scene.worker, portals, &Known::NeverMade).await {
        assert!(result.expect("found").resources[0].id.is_some());
    }
    assert_eq!(scene.running.log.writes().len(), 1);
    assert_eq!(scene.ours().len(), 20);
}

/// I4, I5: one bad record of a batch is found by halving, and the others land.
#[tokio::test]
async fn f05_one_bad_record_does_not_hold_a_batch() {
    for at in [0, 1, 99, 100, 137, 199] {
        let scene = Scene::empty().await;
        scene.double.add_zone("acme.example");
        scene.double.set_zone("acme.example", "record_quota", json!(1000));
        let name = |index: usize| format!("r{index:03}.acme.example");
        scene.double.put_foreign(&name(at), "A", "192.0.2.9");
        let foreign = scene.foreign();
        let results = burst(&scene.worker, (0..200).map(|i| intent(&name(i))).collect(), &Known::NeverMade).await;
        for (index, result) in results.into_iter().enumerate() {
            if index == at {
                let error = result.expect_err("blocked");
                assert_eq!((error.class, error.reason), (ErrorClass::Conflict, "ForeignRecord"));
                assert!(error.message.contains("A record to 192.0.2.9"), "{error}");
            } else {
                result.expect("made");
            }
        }
        assert_eq!(scene.ours().len(), 199);
        assert_eq!(scene.foreign(), foreign);
        let batches = scene.calls().iter().filter(|call| call.path.ends_with("/batch")).count();
        assert!(batches <= 1 + 8 + 1, "bad one at {at}: {batches} batches");
    }
}

/// I1, I3: a foreign record is named and stays; the portal heals when it goes, and at once when it may be adopted.
#[tokio::test]
async fn f06_a_foreign_record_is_named_and_untouched() {
    let scene = Scene::given().await;
    for (name, words) in
        [("www.acme.example", "A record to 192.0.2.1"), ("mail.globex.example", "CNAME record to elsewhere.example")]
    {
        // whether it is known that nothing was made before, or not
        for known in [Known::Nothing, Known::NeverMade] {
            let error = present(&scene.restarted(), intent(name), known).await.expect_err("blocked");
            assert_eq!((error.class, error.reason), (ErrorClass::Conflict, "ForeignRecord"));
            assert_eq!(
                error.message,
                format!(
                    "{name} is taken by something that is not ours: {words}; \
                     remove it, or set the annotation portalkeeper.dev/adopt=true to take it over"
                )
            );
        }
    }
    assert!(scene.running.log.writes().iter().all(|call| call.status == 400), "{:?}", scene.running.log.writes());
    scene.refused("www.acme.example").await;
    // when it goes, then the portal heals by itself, though it is not looked for all the time
    scene.running.log.clear();
    scene.double.remove("www.acme.example");
    scene.refused("www.acme.example").await;
    assert_eq!(scene.calls(), []);
    scene.pass(2);
    scene.want("www.acme.example").await.expect("healed");
    // when it may be adopted, then it is at once
    let adopting = portalkeeper::plan::Intent { adopt: true, ..intent("mail.globex.example") };
    scene.refused("mail.globex.example").await;
    let done = present(&scene.worker, adopting, Known::Nothing).await.expect("adopted");
    assert_eq!(
        done.changes,
        [
            "take over mail.globex.example: CNAME record to elsewhere.example becomes CNAME record to edge.example.net, proxied"
        ]
    );
    assert_eq!(scene.foreign(), Vec::<serde_json::Value>::new());
}

/// I3: what was to be taken over and is gone by then is made; it is not said to stand.
#[tokio::test]
async fn f06_a_foreign_record_that_goes_while_it_is_taken_over_is_made() {
    let scene = Scene::given().await;
    scene.double.after("GET", "/dns_records", |double| double.remove("mail.globex.example"));
    let adopting = portalkeeper::plan::Intent { adopt: true, ..intent("mail.globex.example") };
    let done = present(&scene.worker, adopting, Known::Nothing).await.expect("made");
    assert!(done.resources[0].id.is_some());
    assert_eq!(scene.ours(), ["mail.globex.example"]);
}

/// I1: of several things at a name none is taken over, and each is named.
#[tokio::test]
async fn f06_several_foreign_records_are_all_named() {
    let scene = Scene::given().await;
    scene.double.put_foreign("www.acme.example", "AAAA", "2001:db8::1");
    let adopting = portalkeeper::plan::Intent { adopt: true, ..intent("www.acme.example") };
    let before = scene.foreign();
    let error = present(&scene.worker, adopting, Known::Nothing).await.expect_err("blocked");
    assert_eq!(
        error.message,
        "www.acme.example is taken by several things that are not ours: A record to 192.0.2.1, AAAA record to 2001:db8::1; \
         remove them, or all but one and set the annotation portalkeeper.dev/adopt=true to take that over"
    );
    assert_eq!(scene.foreign(), before);
}

/// I4: a refusal that lasts is looked at ever more seldom.
#[tokio::test]
async fn f06_a_blocked_portal_costs_a_few_looks_an_hour() {
    let scene = Scene::given().await;
    scene.refused("www.acme.example").await;
    let mut looks = Vec::new();
    for _ in 0..3 {
        scene.running.log.clear();
        for _ in 0..360 {
            scene.pass(10);
            scene.refused("www.acme.example").await;
        }
        looks.push(scene.calls().len());
    }
    assert!(looks[0] <= 14 && looks[1] <= 6 && looks[2] <= 6, "in the first, second and third hour: {looks:?}");
}

/// I2, I5: a listing that is not whole says nothing about what is missing in it.
#[tokio::test]
async fn f08_a_zone_list_with_a_failed_page_does_not_count() {
    let scene = Scene::given().await;
    for index in 0..120 {
        scene.double.add_zone(&format!("z{index}.example"));
    }
    let many =
        || ["reset.z1.example", "reset.z2.example", "reset.z118.example", "reset.z119.example"].map(intent).to_vec();
    // given that reading the zones fails on the second page, as often as reads are repeated
    scene.running.faults.push("GET", "/zones", 1, Fault::Delay(Duration::from_millis(1)));
    scene.running.faults.push("GET", "/zones", 1, Fault::Answer(DoubleResponse::text(500, "oops")));
    for result in burst(&scene.worker, many(), &Known::Nothing).await {
        assert_eq!(result.expect_err("not known").class, ErrorClass::Unavailable, "not `zone gone`");
    }
    for result in burst(&scene.worker, many(), &Known::Nothing).await {
        result.expect("the whole list holds them");
    }
    // and a list that changes between two pages does not count either
    let scene = Scene::empty().await;
    for index in 0..120 {
        scene.double.add_zone(&format!("z{index}.example"));
    }
    scene.double.after("GET", "/zones", |double| double.add_zone("new.example"));
    for result in burst(&scene.worker, many(), &Known::Nothing).await {
        result.expect_err("the list changed while it was read");
    }
    for result in burst(&scene.worker, many(), &Known::Nothing).await {
        result.expect("a whole list");
    }
}

/// I3, I5: a full zone is told with its numbers, concerns nobody else, and heals when there is room.
#[tokio::test]
async fn f09_a_full_zone_takes_what_fits_and_tells_its_numbers() {
    let scene = Scene::given().await;
    scene.double.set_zone("acme.example", "record_quota", json!(50));
    let portals: Vec<_> = (0..80)
        .map(|index| intent(&format!("r{index:02}.acme.example")))
        .chain([intent("reset.globex.example")])
        .collect();
    let results = burst(&scene.worker, portals, &Known::NeverMade).await;
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (49 + 1, 31));
    for error in refused.into_iter().filter_map(Result::err) {
        assert_eq!((error.class, error.reason), (ErrorClass::Permanent, "RecordQuotaExceeded"));
        assert!(error.message.ends_with("(the zone acme.example holds 50 of 50 records)"), "{error}");
    }
    let calls = scene.calls().iter().filter(|call| call.path.contains("dns_records")).count();
    assert!(calls <= 6, "{calls} calls: {:?}", scene.new_calls());
    scene.double.set_zone("acme.example", "record_quota", json!(200));
    scene.pass(601);
    scene.want("r79.acme.example").await.expect("there is room now");
}

/// I3: a host too deep for the zone's certificate is told beforehand, with what to do.
#[tokio::test]
async fn f09_a_host_below_universal_ssl_is_told() {
    let scene = Scene::given().await;
    let done = scene.make("reset.mail.acme.example").await.expect("made");
    let [doubt] = done.doubts.as_slice() else { panic!("{done:?}") };
    assert_eq!(doubt.reason, "BeyondUniversalSSL");
    assert!(doubt.message.contains("Advanced Certificate Manager") && doubt.message.contains("acme.example"));
    scene.running.log.clear();
    scene.want("reset.mail.acme.example").await.expect("as it was");
    assert_eq!(scene.calls(), [], "a warning is no reason to look again");
}

/// I4, I5: a revoked token is not tried over and over.
#[tokio::test]
async fn f10_a_revoked_token_is_told_and_left_alone() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.pass(120);
    scene.double.revoke_token(TOKEN);
    scene.running.log.clear();
    let names = (0..50).map(|index| format!("r{index}.acme.example")).collect::<Vec<_>>();
    for _ in 0..5 {
        for result in burst(&scene.worker, names.iter().map(|name| intent(name)).collect(), &Known::Nothing).await {
            let error = result.expect_err("refused");
            assert_eq!((error.class, error.reason), (ErrorClass::Credential, "TokenRefused"));
            assert_eq!(
                error.message,
                "cloudflare refused (10000): Authentication error; the API token is not valid any more, or lacks the permission Zone · DNS · Edit"
            );
        }
    }
    assert_eq!(scene.new_calls(), ["GET /zones/*/dns_records", "GET /user/tokens/verify"]);
    // when it is good again, then the next try finds out
    scene.double.accept_token(TOKEN);
    scene.pass(31);
    scene.want("r1.acme.example").await.expect("made");
}

/// I5: a token that lacks one right is told apart from one that is gone.
#[tokio::test]
async fn f10_a_missing_permission_is_named() {
    for account_owned in [false, true] {
        let scene = Scene::given().await;
        scene.double.deny(TOKEN, "dns");
        if account_owned {
            scene.double.own_by_account(TOKEN);
        }
        let error = scene.refused("reset.acme.example").await;
        let reason = if account_owned { "TokenRefused" } else { "PermissionMissing" };
        assert_eq!((error.class, error.reason), (ErrorClass::Credential, reason));
        assert!(error.message.contains("permission Zone · DNS · Edit"), "{error}");
    }
}

/// I5: a zone that hangs holds nobody but itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_does_not_answer_does_not_hold_the_others() {
    let scene = Arc::new(Scene::given().await);
    scene.double.add_zone("initech.example");
    scene.want("warm.acme.example").await.expect("the zones are known");
    let slow = scene.double.records().iter().find(|r| r["zone_name"] == "globex.example").unwrap()["zone_id"].clone();
    let slow: &'static str = Box::leak(slow.as_str().unwrap().to_owned().into_boxed_str());
    scene.running.faults.push("*", slow, usize::MAX, Fault::Delay(Duration::from_secs(3600)));
    let hanging = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.want("reset.globex.example").await }
    });
    for index in 0..20 {
        scene.make(&format!("r{index}.acme.example")).await.expect("made");
        scene.make(&format!("r{index}.initech.example")).await.expect("made");
    }
    assert!(!hanging.is_finished(), "the slow zone is still waited for");
    hanging.abort();
}

/// I1: a mark that somebody took off saves the record.
#[tokio::test]
async fn a_mark_taken_off_by_hand_saves_the_record_from_deletion() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.double.edit_comment("reset.acme.example", "ours now, hands off");
    scene.running.log.clear();
    scene.absent("reset.acme.example").await.expect("nothing of ours is there");
    assert_eq!(scene.running.log.writes(), []);
}

/// I1: what other tools keep in a record stays.
#[tokio::test]
async fn tags_and_settings_of_others_survive_an_update() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.double.edit("reset.acme.example", "tags", json!(["team:mail"]));
    scene.double.edit("reset.acme.example", "settings", json!({"flatten_cname": true}));
    let edited =
        portalkeeper::plan::Intent { cname_target: Some(host("new.example.net")), ..intent("reset.acme.example") };
    present(&scene.worker, edited, Known::Nothing).await.expect("updated");
    let record = scene.double.records().into_iter().find(|r| r["name"] == "reset.acme.example").unwrap();
    assert_eq!(record["content"], "new.example.net");
    assert_eq!((&record["tags"], &record["settings"]), (&json!(["team:mail"]), &json!({"flatten_cname": true})));
}
