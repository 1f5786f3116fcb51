//! The audit log as a hint.
use std::time::Duration;

use portalkeeper::backends::cloudflare::{CloudflareDns, CloudflareOptions, DRIFT_INTERVAL};
use portalkeeper::backends::cloudflare_api::double::ACCOUNT;
use portalkeeper::backends::{Known, Worker};
use portalkeeper::config::Secret;
use serde_json::json;

use super::{Scene, TOKEN, intent, present};

fn attentive(scene: &Scene) -> Worker {
    let options = CloudflareOptions {
        api_url: scene.running.url.join("/client/v4").expect("an address"),
        token: Secret::new(TOKEN),
        account_id: Some(ACCOUNT.to_owned()),
        drift_interval: DRIFT_INTERVAL,
        audit_interval: Some(Duration::from_millis(20)),
    };
    let dns = CloudflareDns::new(options, scene.budget.clone()).expect("a backend");
    Worker::spawn(dns, scene.clock.clone(), scene.shutdown.clone())
}

/// Wants the portal until something is done about it.
async fn until_repaired(worker: &Worker, name: &str) -> Vec<String> {
    for _ in 0..500 {
        let done = present(worker, intent(name), Known::Nothing).await.expect("in place");
        if done.repaired {
            return done.changes;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is not put right");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_is_put_right_without_waiting_for_the_sweep() {
    let scene = Scene::given().await;
    let worker = attentive(&scene);
    for name in ["reset.acme.example", "reset.globex.example"] {
        present(&worker, intent(name), Known::Nothing).await.expect("made");
    }
    scene.pass(600);
    scene.double.edit("reset.acme.example", "content", json!("elsewhere.example"));
    let changes = until_repaired(&worker, "reset.acme.example").await;
    assert!(changes[0].contains("from CNAME record to elsewhere.example"), "{changes:?}");
    // and who was not touched is not looked at, nor is the trace of our own repair
    scene.running.log.clear();
    for _ in 0..20 {
        present(&worker, intent("reset.globex.example"), Known::Nothing).await.expect("as it was");
        present(&worker, intent("reset.acme.example"), Known::Nothing).await.expect("as it was");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let records = scene.calls().iter().filter(|call| call.path.contains("dns_records")).count();
    assert_eq!(records, 0, "{:?}", scene.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_may_not_be_read_is_left_alone_and_nothing_else_suffers() {
    let scene = Scene::given().await;
    scene.double.deny(TOKEN, "audit");
    let worker = attentive(&scene);
    present(&worker, intent("reset.acme.example"), Known::Nothing).await.expect("made");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = scene.calls().iter().filter(|call| call.path.ends_with("/audit_logs")).count();
    assert_eq!(asked, 1);
    present(&worker, intent("a.acme.example"), Known::Nothing).await.expect("made");
}
