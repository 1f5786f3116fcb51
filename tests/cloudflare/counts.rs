//! What everything costs in calls.
use portalkeeper::backends::{Known, Programmed, Want};
use portalkeeper::plan::Intent;

use super::{Scene, burst, host, intent, key, present};

/// A thousand customers with a domain each.
fn thousand_zones() -> Vec<Intent> {
    (0..1000).map(|index| intent(&format!("reset.customer{index:04}.example"))).collect()
}

fn verified(done: &Programmed) -> Known {
    let (digest, at) = done.verified.clone().expect("verified");
    Known::Verified { digest, at, resources: done.resources.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_portals_in_a_thousand_zones_cost_a_call_each_and_the_zone_list() {
    let scene = Scene::empty().await;
    for index in 0..1000 {
        scene.double.add_zone(&format!("customer{index:04}.example"));
    }
    let mut done = Vec::new();
    for result in burst(&scene.worker, thousand_zones(), &Known::NeverMade).await {
        done.push(result.expect("made"));
    }
    let calls = scene.new_calls();
    let count = |what: &str| calls.iter().filter(|call| *call == what).count();
    assert_eq!((count("GET /zones"), count("POST /zones/*/dns_records"), calls.len()), (20, 1000, 1020));

    // when all is wanted again, then nothing is called
    for result in burst(&scene.worker, thousand_zones(), &Known::Nothing).await {
        assert_eq!(result.expect("as it was").changes, Vec::<String>::new());
    }
    assert_eq!(scene.calls(), []);

    // when the process starts anew, with what the portals' status keeps, then nothing is called
    scene.pass(3600);
    let worker = scene.restarted();
    for (intent, before) in thousand_zones().into_iter().zip(&done) {
        let again = present(&worker, intent, verified(before)).await.expect("as it was");
        assert_eq!(again.resources, before.resources);
    }
    assert_eq!(scene.calls(), []);

    // when one of them changes, then it costs two calls: a look and a write
    scene.want("reset.customer0007.example").await.expect("as it was");
    scene.running.log.clear();
    let name = "reset.customer0007.example";
    let edited = Intent { proxied: false, ttl: 300, ..intent(name) };
    present(&scene.worker, edited, Known::Nothing).await.expect("updated");
    assert_eq!(
        scene.new_calls(),
        [format!("GET /zones/*/dns_records?name={name}"), "PATCH /zones/*/dns_records/*".to_owned()]
    );

    // and its deletion two
    scene.absent(name).await.expect("deleted");
    assert_eq!(
        scene.new_calls(),
        [format!("GET /zones/*/dns_records?name={name}"), "DELETE /zones/*/dns_records/*".to_owned()]
    );

    // and a day of looking after all of them one read each, spread over the day
    let mut hours = Vec::new();
    for _ in 0..13 {
        scene.pass(2 * 3600);
        let mine = thousand_zones().into_iter().filter(|intent| intent.host.as_str() != name).collect();
        for result in burst(&scene.worker, mine, &Known::Nothing).await {
            result.expect("as it was");
        }
        hours.push(scene.new_calls().len());
    }
    assert_eq!(hours.iter().sum::<usize>(), 999, "{hours:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_portals_in_one_paid_zone_cost_one_batch() {
    let scene = Scene::empty().await;
    scene.double.add_zone("acme.example");
    scene.double.set_plan("acme.example", "pro");
    let portals = || (0..1000).map(|index| intent(&format!("r{index:04}.acme.example"))).collect::<Vec<_>>();
    for result in burst(&scene.worker, portals(), &Known::NeverMade).await {
        assert!(result.expect("made").resources[0].id.is_some());
    }
    assert_eq!(scene.new_calls(), ["GET /zones", "POST /zones/*/dns_records/batch"]);

    // a new target for all is a list and a batch
    let moved = portals().into_iter().map(|i| Intent { cname_target: Some(host("new.example.net")), ..i }).collect();
    for result in burst(&scene.worker, moved, &Known::Nothing).await {
        assert_eq!(result.expect("moved").changes.len(), 1);
    }
    assert_eq!(scene.new_calls(), ["GET /zones/*/dns_records", "POST /zones/*/dns_records/batch"]);

    // a look for drift of one of many lists the zone once for all
    scene.pass(25 * 3600);
    let moved = |name: &str| Intent { cname_target: Some(host("new.example.net")), ..intent(name) };
    for index in 0..50 {
        present(&scene.worker, moved(&format!("r{index:04}.acme.example")), Known::Nothing).await.expect("as it was");
    }
    assert_eq!(scene.new_calls(), ["GET /zones/*/dns_records"]);

    // the deletion of all is a list and a batch
    let gone = (0..1000).map(|index| {
        let name = format!("r{index:04}.acme.example");
        let want = Want::Absent { mark: super::mark(&name), hosts: vec![host(&name)] };
        scene.worker.submit(key(&name), want)
    });
    for result in futures_util::future::join_all(gone).await {
        result.expect("deleted");
    }
    assert_eq!(scene.new_calls(), ["GET /zones/*/dns_records", "POST /zones/*/dns_records/batch"]);
    assert_eq!(scene.double.records().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_zone_takes_batches_of_two_hundred() {
    let scene = Scene::empty().await;
    scene.double.add_zone("acme.example");
    scene.double.set_zone("acme.example", "record_quota", serde_json::json!(1000));
    let portals = (0..450).map(|index| intent(&format!("r{index:04}.acme.example"))).collect::<Vec<_>>();
    for result in burst(&scene.worker, portals, &Known::NeverMade).await {
        result.expect("made");
    }
    assert_eq!(scene.new_calls().iter().filter(|call| call.ends_with("/batch")).count(), 3);
}

#[tokio::test]
async fn one_portal_in_a_small_account_costs_two_calls_and_in_a_large_one_four() {
    let scene = Scene::given().await;
    scene.make("reset.acme.example").await.expect("made");
    assert_eq!(scene.new_calls(), ["GET /zones", "POST /zones/*/dns_records"]);

    let scene = Scene::empty().await;
    for index in 0..1000 {
        scene.double.add_zone(&format!("customer{index:04}.example"));
    }
    scene.make("reset.customer0999.example").await.expect("made");
    assert_eq!(
        scene.new_calls(),
        [
            "GET /zones",
            "GET /zones?name=reset.customer0999.example",
            "GET /zones?name=customer0999.example",
            "POST /zones/*/dns_records"
        ]
    );
}

#[tokio::test]
async fn a_conflict_costs_one_look() {
    let scene = Scene::given().await;
    scene.make("reset.acme.example").await.expect("the zone is known");
    scene.running.log.clear();
    scene.make("www.acme.example").await.expect_err("blocked");
    assert_eq!(scene.new_calls(), ["POST /zones/*/dns_records", "GET /zones/*/dns_records?name=www.acme.example"]);
    // and a record of our own of an earlier life the same
    let again = present(&scene.restarted(), intent("reset.acme.example"), Known::NeverMade).await.expect("found");
    assert!(again.changes.is_empty() && again.resources[0].id.is_some());
    assert_eq!(
        scene.new_calls(),
        ["GET /zones", "POST /zones/*/dns_records", "GET /zones/*/dns_records?name=reset.acme.example"]
    );
}

#[tokio::test]
async fn observing_costs_a_look_now_and_then() {
    let scene = Scene::given().await;
    let observe = || {
        let want = Want::Observe { intent: intent("reset.acme.example"), former: Vec::new() };
        scene.worker.submit(key("reset.acme.example"), want)
    };
    let seen = observe().await.expect("seen");
    assert_eq!(seen.pending, ["create reset.acme.example (CNAME record to edge.example.net, proxied)"]);
    scene.running.log.clear();
    for _ in 0..60 {
        scene.pass(60);
        assert_eq!(observe().await.expect("seen").pending.len(), 1);
    }
    assert!(scene.calls().len() <= 7, "{:?}", scene.calls());
    assert_eq!(scene.running.log.writes(), []);
}
