//! Random operations, faults and other people: the end is what a simple model says, and nobody else's record was touched.
use std::collections::BTreeMap;

use portalkeeper::backends::{Known, Want, Worker};
use portalkeeper::http::double::{DoubleResponse, Fault};
use portalkeeper::plan::Intent;
use proptest::prelude::*;
use serde_json::json;

use super::{Scene, host, intent, key, mark, present};

#[derive(Debug, Clone)]
enum Step {
    Want { portal: usize, target: usize, fresh: bool },
    Remove { portal: usize },
    Restart,
    Foreign { portal: usize },
    ForeignGone { portal: usize },
    Vandal { portal: usize },
    Pass { minutes: i64 },
    Fault { which: usize, count: usize },
}

const PORTALS: usize = 6;
const TARGETS: [&str; 2] = ["edge.example.net", "other.example.net"];

fn name(portal: usize) -> String {
    let zone = if portal < 4 { "acme.example" } else { "globex.example" };
    format!("p{portal}.{zone}")
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PORTALS, 0..TARGETS.len(), any::<bool>())
            .prop_map(|(portal, target, fresh)| Step::Want { portal, target, fresh }),
        3 => (0..PORTALS).prop_map(|portal| Step::Remove { portal }),
        1 => Just(Step::Restart),
        1 => (0..PORTALS).prop_map(|portal| Step::Foreign { portal }),
        1 => (0..PORTALS).prop_map(|portal| Step::ForeignGone { portal }),
        1 => (0..PORTALS).prop_map(|portal| Step::Vandal { portal }),
        2 => (1..2000_i64).prop_map(|minutes| Step::Pass { minutes }),
        3 => (0..6_usize, 1..4_usize).prop_map(|(which, count)| Step::Fault { which, count }),
    ]
}

fn fault(scene: &Scene, which: usize, count: usize) {
    let faults = &scene.running.faults;
    match which {
        0 => faults.push("POST", "/dns_records", count, Fault::CutAfter),
        1 => faults.push("POST", "/dns_records", count, Fault::CutBefore),
        2 => faults.push("GET", "/zones", count, Fault::Answer(DoubleResponse::html(502, "<h1>bad</h1>"))),
        3 => faults.push("*", "/dns_records/", count, Fault::CutAfter),
        4 => {
            let answer = DoubleResponse::json(429, &json!({"success": false, "errors": [{"code": 971}]}));
            faults.push("*", "/zones", 1, Fault::Answer(answer.with_header("retry-after", "60")));
        }
        _ => faults.push(
            "GET",
            "/dns_records",
            count,
            Fault::Answer(DoubleResponse::json(200, &json!({"success": false}))),
        ),
    }
}

fn wanted(portal: usize, target: usize) -> Intent {
    Intent { cname_target: Some(host(TARGETS[target])), ..intent(&name(portal)) }
}

async fn run(steps: Vec<Step>) {
    let scene = Scene::given().await;
    let mut worker: Worker = scene.restarted();
    // the model: what each portal wants, and which names other people hold
    let mut model: BTreeMap<usize, Option<usize>> = BTreeMap::new();
    let mut foreign: BTreeMap<usize, bool> = BTreeMap::new();
    let mut made = std::collections::BTreeSet::new();
    for step in steps {
        match step {
            Step::Want { portal, target, fresh } => {
                model.insert(portal, Some(target));
                let known = if fresh && made.insert(portal) { Known::NeverMade } else { Known::Nothing };
                made.insert(portal);
                let _ = present(&worker, wanted(portal, target), known).await;
            }
            Step::Remove { portal } => {
                if model.insert(portal, None).is_some() {
                    let want = Want::Absent { mark: mark(&name(portal)), hosts: vec![host(&name(portal))] };
                    let _ = worker.submit(key(&name(portal)), want).await;
                }
            }
            Step::Restart => worker = scene.restarted(),
            Step::Foreign { portal } => {
                if scene.double.records().iter().all(|record| record["name"] != name(portal)) {
                    scene.double.put_foreign(&name(portal), "A", "192.0.2.77");
                    foreign.insert(portal, true);
                }
            }
            Step::ForeignGone { portal } => {
                if foreign.remove(&portal).is_some() {
                    scene.double.remove(&name(portal));
                }
            }
            Step::Vandal { portal } => {
                if !foreign.contains_key(&portal) {
                    scene.double.edit(&name(portal), "content", json!("vandal.example"));
                }
            }
            Step::Pass { minutes } => scene.pass(minutes * 60),
            Step::Fault { which, count } => fault(&scene, which, count),
        }
        let theirs: Vec<String> = foreign.keys().map(|portal| name(*portal)).collect();
        let records = scene.double.records();
        for name in &theirs {
            assert!(
                records.iter().any(|r| r["name"] == **name && r["type"] == "A" && r["content"] == "192.0.2.77"),
                "a foreign record was touched: {name}"
            );
        }
        assert!(records.iter().any(|r| r["name"] == "www.acme.example" && r["content"] == "192.0.2.1"));
    }
    // when the faults stop and everybody is asked again over some time, then the end is what the model says
    scene.running.faults.clear();
    for _ in 0..8 {
        scene.pass(31 * 60);
        for (portal, target) in &model {
            worker.forget(&key(&name(*portal)));
            let _ = match target {
                Some(target) => present(&worker, wanted(*portal, *target), Known::Nothing).await,
                None => {
                    let want = Want::Absent { mark: mark(&name(*portal)), hosts: vec![host(&name(*portal))] };
                    worker.submit(key(&name(*portal)), want).await
                }
            };
        }
    }
    let mut expected: Vec<(String, String)> = model
        .iter()
        .filter(|(portal, _)| !foreign.contains_key(*portal))
        .filter_map(|(portal, target)| Some((name(*portal), TARGETS[(*target)?].to_owned())))
        .collect();
    expected.sort();
    let mut there: Vec<(String, String)> = scene
        .double
        .records()
        .iter()
        .filter(|record| record["comment"].as_str().is_some_and(|comment| comment.starts_with("portalkeeper/")))
        .map(|record| (record["name"].as_str().unwrap().to_owned(), record["content"].as_str().unwrap().to_owned()))
        .collect();
    there.sort();
    assert_eq!(there, expected);
    // and nothing more is called once it is so
    scene.running.log.clear();
    for (portal, target) in &model {
        if let (Some(target), false) = (target, foreign.contains_key(portal)) {
            present(&worker, wanted(*portal, *target), Known::Nothing).await.expect("as it was");
        }
    }
    assert_eq!(scene.calls(), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_end_as_the_model_says(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
