//! Bursts, and others who write the same document at the same time.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use portalkeeper::api::condition::Truth;
use portalkeeper::backends::cloudflare_tunnel::overwritten;
use portalkeeper::http::double::{Fault, lock};
use portalkeeper::plan::Intent;
use serde_json::json;

use super::{HOST, ORIGIN, Stage, TUNNEL, absent, foreign_document, intent, present, rules_of};

#[tokio::test]
async fn a_thousand_portals_of_one_burst_are_one_write_and_unchanged_ones_are_none() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    let intents: Vec<Intent> = (0..1000).map(|n| intent(&format!("reset.c{n}.example"))).collect();
    let burst = async |worker| futures_util::future::join_all(intents.iter().map(|one| present(worker, one))).await;
    for made in burst(&worker).await {
        assert_eq!(made.unwrap().changes.len(), 1);
    }
    assert_eq!(stage.calls(), ["GET configurations", "PUT configurations", "GET configurations"]);
    assert_eq!(stage.config()["ingress"].as_array().unwrap().len(), 1004);
    assert_eq!(stage.foreign(), foreign_document().to_string());
    // when nothing changed, then within ten minutes nothing is asked, and after that it is asked once
    burst(&worker).await;
    assert_eq!(stage.calls(), [""; 0]);
    stage.clock.advance(SignedDuration::from_mins(11));
    assert!(burst(&worker).await.iter().all(|made| made.as_ref().unwrap().changes.is_empty()));
    assert_eq!(stage.calls(), ["GET configurations"]);
    // a new process asks once, too
    burst(&stage.worker()).await;
    assert_eq!(stage.calls(), ["GET configurations"]);
    // and they go by one write
    for gone in futures_util::future::join_all(intents.iter().map(|one| absent(&worker, one))).await {
        gone.unwrap();
    }
    assert_eq!(stage.calls(), ["GET configurations", "PUT configurations", "GET configurations"]);
    assert_eq!(stage.config().to_string(), foreign_document().to_string());
}

#[tokio::test]
async fn wants_that_arrive_one_after_the_other_are_gathered() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    let (first, second) = (intent(HOST), intent("reset.globex.example"));
    let late = async {
        // Long enough for the worker to have begun with the first one.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        present(&worker, &second).await
    };
    let (first, second) = tokio::join!(present(&worker, &first), late);
    first.unwrap();
    second.unwrap();
    assert_eq!(stage.calls(), ["GET configurations", "PUT configurations", "GET configurations"]);
}

#[tokio::test]
async fn f11_a_write_between_our_read_and_our_write_is_seen_from_the_version_and_told() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    let counted = || {
        let text = portalkeeper::telemetry::metrics::text();
        let name = format!("portalkeeper_foreign_writes_lost_total{{instance=\"cloudflare_tunnel/{TUNNEL}\"}}");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("0");
        line.trim().parse::<u64>().unwrap()
    };
    let before = counted();
    stage.double.after("GET", "/configurations", |double| {
        double.edit_tunnel(TUNNEL, |config| {
            rules_of(config).insert(0, json!({"hostname": "lost.test", "service": "http://10.0.0.8:80"}));
        });
    });
    let made = present(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(stage.calls(), ["GET configurations", "PUT configurations", "GET configurations"]);
    // then the loss is told, with what to do; the rest is as it was
    let [doubt] = made.doubts.as_slice() else { panic!("{made:?}") };
    assert_eq!((doubt.truth, doubt.reason), (Truth::Unknown, "ForeignWriteLost"));
    let words = "between our read of version 0 and our write; what version 1 changed may be lost, so repeat it";
    assert!(doubt.message.contains(words), "{}", doubt.message);
    assert_eq!(stage.foreign(), foreign_document().to_string());
    assert!(counted() > before);
    // when it is repeated, then it stays, and the next look has nothing to tell
    stage.put_rule(json!({"hostname": "lost.test", "service": "http://10.0.0.8:80"}));
    stage.clock.advance(SignedDuration::from_mins(11));
    let again = present(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(again.doubts[0].reason, "AwaitingProof");
    assert_eq!(stage.config()["ingress"][0]["hostname"], "lost.test");
}

#[tokio::test]
async fn f11_a_writer_who_overwrites_ours_is_merged_with_and_loses_nothing() {
    let stage = Stage::with(foreign_document()).await;
    let worker = stage.worker();
    // given somebody who read before our write and writes after it
    stage.double.after("PUT", "/configurations", |double| {
        double.edit_tunnel(TUNNEL, |config| {
            *config = foreign_document();
            rules_of(config).insert(0, json!({"hostname": "theirs.test", "service": "http://10.0.0.8:80"}));
        });
    });
    let made = present(&worker, &intent(HOST)).await.unwrap();
    assert_eq!(made.doubts[0].reason, "AwaitingProof", "nothing of theirs is lost");
    let calls = stage.calls();
    assert_eq!(calls.iter().filter(|call| *call == "PUT configurations").count(), 2, "{calls:?}");
    assert_eq!(calls.len(), 5);
    assert_eq!(stage.config()["ingress"][0]["hostname"], "theirs.test");
    assert!(stage.config()["ingress"].as_array().unwrap().iter().any(|rule| rule["hostname"] == HOST));
}

#[tokio::test]
async fn f11_somebody_who_never_stops_is_given_up_on_for_now() {
    let stage = Stage::with(foreign_document()).await;
    for _ in 0..20 {
        stage.double.after("PUT", "/configurations", |double| {
            double.edit_tunnel(TUNNEL, |config| *config = foreign_document());
        });
    }
    let error = present(&stage.worker(), &intent(HOST)).await.unwrap_err();
    assert_eq!(error.reason, "TooManyWriters");
    assert!(stage.writes() <= 8, "{}", stage.writes());
    assert_eq!(stage.config().to_string(), foreign_document().to_string());
}

#[tokio::test]
async fn two_workers_of_one_tunnel_take_turns_and_report_no_loss() {
    let stage = Stage::with(foreign_document()).await;
    // given two classes with different origins over one tunnel
    let (one, other) = (stage.worker(), stage.worker_to("http://10.0.0.5:5000"));
    for round in 0..10 {
        let (a, b) = (intent(&format!("a{round}.example.net")), intent(&format!("b{round}.example.net")));
        let (a, b) = tokio::join!(present(&one, &a), present(&other, &b));
        for made in [a, b] {
            assert_eq!(made.unwrap().doubts[0].reason, "AwaitingProof");
        }
    }
    assert_eq!(stage.config()["ingress"].as_array().unwrap().len(), 24);
    assert_eq!(stage.foreign(), foreign_document().to_string());
}

#[test]
fn versions_tell_what_may_have_been_replaced() {
    for (read, answered, now, unchanged, lost) in [
        // nobody was in between; somebody came after
        (5, Some(6), 6, true, None),
        (5, Some(6), 9, false, None),
        // one and several were in between
        (5, Some(7), 7, true, Some(6..=6)),
        (5, Some(9), 9, true, Some(6..=8)),
        (5, Some(7), 8, false, Some(6..=6)),
        // no answer: it did not happen; it did; it did after somebody's; somebody came after
        (5, None, 5, false, None),
        (5, None, 6, true, None),
        (5, None, 6, false, None),
        (5, None, 7, true, Some(6..=6)),
        (5, None, 7, false, None),
        (5, None, 8, false, Some(6..=6)),
        // an answer that cannot be is none
        (5, Some(5), 6, true, None),
        (0, None, 0, false, None),
    ] {
        assert_eq!(overwritten(read, answered, now, unchanged), lost, "{read} {answered:?} {now} {unchanged}");
    }
}

/// First and last version of each loss that a message tells.
fn told(message: &str) -> Vec<(u64, u64)> {
    let parts = message.split("what version").skip(1);
    let numbers = |part: &str| {
        let words = part.split(" changed").next().unwrap().trim_start_matches('s').trim();
        let (first, last) = words.split_once(" to ").unwrap_or((words, words));
        (first.parse().unwrap(), last.parse().unwrap())
    };
    parts.map(numbers).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_others_at_once_lose_nothing_that_is_not_told() {
    let stage = Arc::new(Stage::with(foreign_document()).await);
    let made: Arc<Mutex<Vec<(u64, String)>>> = Arc::default();
    // given fifty others, each with one edit: half of them at any time, half right between a read and a write of ours
    let edit = |name: String, made: &Arc<Mutex<Vec<(u64, String)>>>| {
        let made = Arc::clone(made);
        move |double: &portalkeeper::backends::cloudflare_api::double::CloudflareDouble| {
            let rule = json!({"hostname": name, "service": "http://10.0.0.8:80", "note": {"by": name}});
            let version = double.edit_tunnel(TUNNEL, |config| rules_of(config).insert(0, rule));
            lock(&made).push((version, name));
        }
    };
    for n in 0..25 {
        stage.double.after("GET", "/configurations", edit(format!("between{n}.test"), &made));
    }
    let others = (0..25).map(|n| {
        let (double, edit) = (Arc::clone(&stage.double), edit(format!("anytime{n}.test"), &made));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(n * 40)).await;
            edit(&double);
        })
    });
    let others: Vec<_> = others.collect();
    // and answers that are lost now and then
    stage.running.faults.push("PUT", "/configurations", 2, Fault::CutAfter);
    // when portals come and go all the while
    let worker = stage.worker();
    let mut losses: Vec<(u64, u64)> = Vec::new();
    for n in 0..20 {
        let portal = intent(&format!("reset.c{n}.example"));
        let done = loop {
            match present(&worker, &portal).await {
                Ok(done) => break done,
                Err(error) => {
                    assert_eq!(error.reason, "TooManyWriters");
                    losses.extend(told(&error.message));
                }
            }
        };
        losses.extend(done.doubts.iter().flat_map(|doubt| told(&doubt.message)));
    }
    for other in others {
        other.await.unwrap();
    }
    // then every edit is there or was told to be lost, and everything else is as it was
    let config = stage.config();
    let rules = config["ingress"].as_array().unwrap();
    let mut lost = 0;
    for (version, name) in lock(&made).iter() {
        let there = rules.iter().find(|rule| rule["hostname"] == **name);
        match there {
            Some(rule) => assert_eq!(rule["note"]["by"], **name),
            None => {
                lost += 1;
                let told = losses.iter().any(|(first, last)| (first..=last).contains(&version));
                assert!(told, "the edit of {name} (version {version}) is gone and was not told: {losses:?}");
            }
        }
    }
    assert_eq!(lock(&made).len(), 50);
    assert!(lost > 0, "the test has to hit the window");
    let ours = rules.iter().filter(|rule| rule["service"] == ORIGIN).count();
    assert_eq!(ours, 20);
    let theirs = foreign_document();
    for rule in theirs["ingress"].as_array().unwrap() {
        assert!(rules.contains(rule), "{rule}");
    }
    for key in ["originRequest", "warp-routing", "somethingNew"] {
        assert_eq!(config[key], theirs[key]);
    }
}
