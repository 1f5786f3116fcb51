//! The scenarios that every backend passes, run through its worker as the controller does.
//!
//! A harness wraps a fresh, reachable instance that already holds foreign things. [`run`] panics with the
//! scenario's words where the backend breaks the contract, so it is for tests.
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{Backend, ErrorClass, Programmed, Want, Worker};
use crate::api::clock::TestClock;
use crate::api::{HostName, PortalKey};
use crate::http::shutdown::Shutdown;
use crate::plan::{CertificateMode, InstallationId, Intent, Mark};

/// What the suite must be able to see and do beside the backend.
#[async_trait]
pub trait Harness: Send + Sync {
    type Backend: Backend;
    /// A new backend over the same instance: what a restarted process would build.
    fn backend(&self) -> Self::Backend;
    /// Everything in the instance that carries any mark of ours: key and a text of its content, sorted.
    async fn owned(&self) -> Vec<(String, String)>;
    /// Everything else, exactly as it stands.
    async fn foreign(&self) -> String;
    /// Writes that reached the instance so far.
    async fn writes(&self) -> usize;
    /// Puts a foreign thing at the name.
    async fn put_foreign(&self, host: &HostName);
    /// Takes it away again.
    async fn remove_foreign(&self, host: &HostName);
    /// Breaks or mends every read. `false` where the instance cannot be made to.
    fn fail_reads(&self, fail: bool) -> bool;
    /// The next write takes effect and its answer is lost. `false` where the instance cannot be made to.
    fn lose_next_answer(&self) -> bool;
    /// Names that the instance can serve, at least four.
    fn hosts(&self) -> Vec<HostName>;
}

struct Bench<'a, H: Harness> {
    harness: &'a H,
    clock: Arc<TestClock>,
    shutdown: Shutdown,
    installation: InstallationId,
}

impl<H: Harness> Bench<'_, H> {
    fn worker(&self) -> Worker {
        Worker::spawn(self.harness.backend(), self.clock.clone(), self.shutdown.clone())
    }
    fn key(name: &str) -> PortalKey {
        PortalKey { namespace: "conformance".to_owned(), name: name.to_owned() }
    }
    fn intent(&self, name: &str, host: &HostName) -> Intent {
        let portal = Self::key(name);
        Intent {
            mark: Mark::new(&self.installation, &portal),
            portal,
            host: host.clone(),
            cname_target: HostName::parse("edge.portalkeeper.example").ok(),
            proxied: true,
            ttl: 1,
            certificate: CertificateMode::Proxy,
            adopt: false,
            keep: Vec::new(),
        }
    }
    async fn present(&self, worker: &Worker, intent: &Intent) -> Result<Programmed, super::BackendError> {
        worker.submit(intent.portal.clone(), Want::Present { intent: intent.clone(), former: Vec::new() }).await
    }
    async fn absent(&self, worker: &Worker, intent: &Intent) -> Result<Programmed, super::BackendError> {
        let want = Want::Absent { mark: intent.mark.clone(), hosts: vec![intent.host.clone()] };
        worker.submit(intent.portal.clone(), want).await
    }
    async fn owned_names(&self) -> Vec<String> {
        self.harness.owned().await.into_iter().map(|(name, _)| name).collect()
    }
}

/// Runs every scenario, one after the other, on one instance. `what` names it in failures.
pub async fn run<H: Harness>(what: &str, harness: &H) {
    let (_stop, shutdown) = Shutdown::new();
    let installation = InstallationId::parse("00c0ffee00c0ffee").unwrap_or_else(|| unreachable!("16 hex digits"));
    let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH));
    let bench = Bench { harness, clock, shutdown, installation };
    let hosts = harness.hosts();
    let [first, second, third, fourth] = hosts.first_chunk().unwrap_or_else(|| panic!("{what}: four hosts are needed"));
    let foreign = harness.foreign().await;
    assert_eq!(harness.owned().await, [], "{what}: the instance starts without things of ours");

    let worker = bench.worker();
    let a = bench.intent("a", first);
    let b = bench.intent("b", second);

    // given nothing, when two portals are wanted at once, then both are there
    let (made_a, made_b) = tokio::join!(bench.present(&worker, &a), bench.present(&worker, &b));
    let made = made_a.unwrap_or_else(|e| panic!("{what}: create: {e}"));
    made_b.unwrap_or_else(|e| panic!("{what}: create: {e}"));
    assert_eq!(bench.owned_names().await, sorted(&[first, second]), "{what}: created");
    assert_eq!(made.changes.len(), 1, "{what}: the change is told in words: {made:?}");
    assert!(made.resources.iter().any(|r| r.name == first.as_str() && r.id.is_some()), "{what}: {made:?}");

    // when the same is wanted again, within or past the drift interval or by a new process, then nothing is written
    let before = harness.writes().await;
    bench.present(&worker, &a).await.unwrap_or_else(|e| panic!("{what}: again: {e}"));
    bench.clock.advance(SignedDuration::from_hours(48));
    bench.present(&worker, &a).await.unwrap_or_else(|e| panic!("{what}: after the drift interval: {e}"));
    let restarted = bench.worker();
    let again = bench.present(&restarted, &a).await.unwrap_or_else(|e| panic!("{what}: after a restart: {e}"));
    assert_eq!(again.resources, made.resources, "{what}: a restart finds the same things");
    assert_eq!(harness.writes().await, before, "{what}: nothing changed, so nothing is written");

    // when it is only looked at, then nothing is written and the difference is told
    let elsewhere = Intent { host: third.clone(), ..a.clone() };
    let want = Want::Observe { intent: elsewhere.clone(), former: vec![first.clone()] };
    let seen = restarted.submit(a.portal.clone(), want).await.unwrap_or_else(|e| panic!("{what}: observe: {e}"));
    assert!(!seen.pending.is_empty() && seen.changes.is_empty(), "{what}: {seen:?}");
    assert_eq!(harness.writes().await, before, "{what}: observing writes nothing");

    // when a portal's host changes, then the new thing is there and the old is not
    let moved = Want::Present { intent: elsewhere.clone(), former: vec![first.clone()] };
    worker.submit(a.portal.clone(), moved).await.unwrap_or_else(|e| panic!("{what}: move: {e}"));
    assert_eq!(bench.owned_names().await, sorted(&[second, third]), "{what}: moved");

    // when a foreign thing holds the name, then it is left alone, told, and the neighbours are served
    harness.put_foreign(fourth).await;
    let with_foreign = harness.foreign().await;
    let blocked = bench.intent("blocked", fourth);
    let back = Want::Present { intent: a.clone(), former: vec![third.clone()] };
    let (refused, served) = tokio::join!(bench.present(&worker, &blocked), worker.submit(a.portal.clone(), back));
    let refused = refused.err().unwrap_or_else(|| panic!("{what}: a foreign thing is a conflict"));
    assert_eq!(refused.class, ErrorClass::Conflict, "{what}: {refused}");
    assert!(refused.message.contains(fourth.as_str()), "{what}: the message names the host: {refused}");
    served.unwrap_or_else(|e| panic!("{what}: a neighbour of a conflict: {e}"));
    assert_eq!(harness.foreign().await, with_foreign, "{what}: foreign things are untouched");
    bench.absent(&worker, &blocked).await.unwrap_or_else(|e| panic!("{what}: removing what never was: {e}"));
    assert_eq!(harness.foreign().await, with_foreign, "{what}: deleting leaves foreign things alone");

    // when it may be adopted, then it becomes ours, and deletion takes it away
    let adopting = Intent { adopt: true, ..blocked.clone() };
    bench.present(&worker, &adopting).await.unwrap_or_else(|e| panic!("{what}: adopt: {e}"));
    assert!(bench.owned_names().await.contains(&fourth.to_string()), "{what}: adopted");
    bench.absent(&worker, &adopting).await.unwrap_or_else(|e| panic!("{what}: delete the adopted: {e}"));
    harness.remove_foreign(fourth).await;
    assert_eq!(harness.foreign().await, foreign, "{what}: the other foreign things are untouched");

    // when reads fail, then nothing is written and it is told
    let before = harness.writes().await;
    if harness.fail_reads(true) {
        worker.forget(&a.portal);
        let unread = bench.present(&worker, &a).await.err();
        assert!(unread.is_some(), "{what}: a failed read is an error");
        assert!(bench.absent(&worker, &a).await.is_err(), "{what}: a failed read is not empty");
        harness.fail_reads(false);
    }
    assert_eq!(harness.writes().await, before, "{what}: after a failed read nothing is written");

    // when the answer to a creation is lost, then the next try finds it and makes no second one
    let lost = bench.intent("lost", fourth);
    if harness.lose_next_answer() {
        let _ = bench.present(&worker, &lost).await;
        bench.present(&worker, &lost).await.unwrap_or_else(|e| panic!("{what}: after a lost answer: {e}"));
        let count = bench.owned_names().await.iter().filter(|name| **name == fourth.as_str()).count();
        assert_eq!(count, 1, "{what}: a lost answer makes no duplicate");
        bench.absent(&worker, &lost).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    }

    // when something is let go at another name, then what is here stays as it is
    for away in [
        Want::Left { mark: b.mark.clone(), hosts: vec![fourth.clone()], but: Vec::new() },
        Want::Released { mark: b.mark.clone(), hosts: vec![fourth.clone()] },
    ] {
        worker.submit(b.portal.clone(), away).await.unwrap_or_else(|e| panic!("{what}: let go elsewhere: {e}"));
        assert_eq!(bench.owned_names().await, sorted(&[first, second]), "{what}: let go at another name");
    }

    // when a portal is released, then its thing stays without our mark
    let release = Want::Released { mark: b.mark.clone(), hosts: vec![second.clone()] };
    worker.submit(b.portal.clone(), release).await.unwrap_or_else(|e| panic!("{what}: release: {e}"));
    assert_eq!(bench.owned_names().await, sorted(&[first]), "{what}: released");
    assert_ne!(harness.foreign().await, foreign, "{what}: what was released is still there");
    harness.remove_foreign(second).await;

    // when a portal is deleted, once and again, then it is gone and nothing else is
    bench.absent(&worker, &a).await.unwrap_or_else(|e| panic!("{what}: delete: {e}"));
    let before = harness.writes().await;
    bench.absent(&worker, &a).await.unwrap_or_else(|e| panic!("{what}: delete again: {e}"));
    assert_eq!(harness.writes().await, before, "{what}: deleting what is gone writes nothing");
    assert_eq!(harness.owned().await, [], "{what}: nothing of ours is left");
    assert_eq!(harness.foreign().await, foreign, "{what}: foreign things are as they were");
}

fn sorted(hosts: &[&HostName]) -> Vec<String> {
    let mut names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    names.sort();
    names
}
