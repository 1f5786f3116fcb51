//! Orders at Let's Encrypt that outlive the process that made them: what came of them is found again, used or taken
//! away, and nobody else's certificate is touched.
use jiff::SignedDuration;
use portalkeeper::backends::npm::double::Authority;
use portalkeeper::backends::{BackendError, ErrorClass, Want};
use portalkeeper::http::double::{Fault, lock};
use serde_json::{Value, json};

use super::{HOST, NEWEST, Scene, VERSIONS, lets_encrypt};
use crate::scene::intent;

impl Scene {
    /// A process is killed while NPM orders: it never hears what came of the order, and another one follows it.
    async fn killed_in_an_order(version: portalkeeper::backends::npm::Version) -> Self {
        let mut scene = Self::of(version, lets_encrypt()).await;
        scene.double.set_authority(Authority::Ponders);
        scene.running.faults.push("POST", "/certificates", 1, Fault::CutAfter);
        scene.want(HOST).await.expect_err("the order is under way");
        scene.killed();
        scene.running.log.clear();
        scene
    }
    /// The killed process hears nothing, so it does not note that the answer was lost either.
    fn killed(&mut self) {
        lock(&self.book.refusals).clear();
        self.restart();
    }
    fn certificate(&self) -> u64 {
        self.double.certificates()[0]["id"].as_u64().expect("an id")
    }
    fn counts(&self) -> (usize, usize, usize) {
        (self.double.hosts().len(), self.double.certificates().len(), self.double.orders())
    }
}

fn pends(outcome: Result<portalkeeper::backends::Programmed, BackendError>, words: &str) {
    let error = outcome.expect_err("waits");
    assert_eq!((error.class, error.reason), (ErrorClass::Unavailable, "CertificatePending"));
    assert!(error.message.contains(words), "{error}");
}

#[tokio::test]
async fn an_order_under_way_at_a_kill_is_waited_for_used_and_goes_with_its_host() {
    for version in VERSIONS {
        let mut scene = Scene::killed_in_an_order(version).await;
        // while it is under way, nothing is written
        pends(scene.want(HOST).await, "NPM is ordering certificate 1");
        assert_eq!(scene.writes(), [""; 0], "{version}");
        // when it has ended, then the host is made with it and nothing more is ordered
        scene.double.finish_certificate(scene.certificate());
        scene.want(HOST).await.expect("made");
        assert_eq!(scene.writes(), ["POST proxy-hosts 201"], "{version}");
        let row = scene.double.host(HOST).expect("a row");
        assert_eq!((&row["certificate_id"], &row["meta"]["portalkeeper"]["ordered"]), (&json!(1), &json!(1)));
        assert_eq!(scene.counts(), (1, 1, 1), "{version}");
        // when the portal goes, by yet another process, then both go
        scene.restart();
        scene.unwant(HOST).await.expect("deleted");
        assert_eq!(scene.writes(), ["DELETE proxy-hosts/2 200", "DELETE certificates/1 200"], "{version}");
        assert_eq!((scene.counts(), scene.book.all()), ((0, 0, 1), vec![]), "{version}");
    }
}

#[tokio::test]
async fn a_portal_that_is_deleted_while_its_order_is_under_way_leaves_no_certificate() {
    let scene = Scene::killed_in_an_order(NEWEST).await;
    // when the portal goes before the order has ended, then that is waited for
    pends(scene.unwant(HOST).await, "NPM is still ordering certificate 1, which nobody needs any more");
    assert_eq!(scene.writes(), [""; 0], "an order that runs is not disturbed");
    scene.double.finish_certificate(scene.certificate());
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!(scene.writes(), ["DELETE certificates/1 200"]);
    assert_eq!((scene.counts(), scene.book.all()), ((0, 0, 1), vec![]));
    scene.unwant(HOST).await.expect("deleted already");
    assert_eq!(scene.writes(), [""; 0]);
    // and the same where it ended before anybody looked
    let scene = Scene::killed_in_an_order(NEWEST).await;
    scene.double.finish_certificate(scene.certificate());
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!(scene.counts(), (0, 0, 1));
}

#[tokio::test]
async fn an_order_that_came_to_nothing_after_the_kill_holds_nothing_up() {
    // given an order of which NPM shows nothing any more, and one that it never got
    for gone in [true, false] {
        let mut scene = Scene::given(lets_encrypt()).await;
        scene.double.set_authority(Authority::Ponders);
        let cut = if gone { Fault::CutAfter } else { Fault::CutBefore };
        scene.running.faults.push("POST", "/certificates", 1, cut);
        scene.want(HOST).await.expect_err("cut");
        scene.killed();
        if gone {
            scene.double.remove_certificate(scene.certificate());
        }
        // then for a minute it may still come, which holds up both another order and the end of a deletion
        scene.clock.advance(SignedDuration::from_secs(59));
        pends(scene.want(HOST).await, "whether NPM got the last order is not known yet");
        pends(scene.unwant(HOST).await, "whether NPM got the order");
        scene.clock.advance(SignedDuration::from_secs(1));
        scene.unwant(HOST).await.expect("nothing is left");
        assert_eq!((scene.book.all(), scene.counts().1), (vec![], 0), "gone: {gone}");
        scene.double.set_authority(Authority::Issues);
        scene.want(HOST).await.expect("made");
    }
}

#[tokio::test]
async fn what_somebody_else_ordered_for_the_name_is_never_deleted() {
    // given a certificate for the name from before, which expired, so that none of ours is ordered
    let scene = Scene::given(lets_encrypt()).await;
    scene.double.add_certificate("letsencrypt", HOST, &[HOST], -5);
    assert_eq!(scene.want(HOST).await.expect_err("expired").reason, "CertificateExpired");
    scene.unwant(HOST).await.expect("nothing of ours");
    assert_eq!(scene.counts(), (0, 1, 0));
    // given an order of ours at a kill, and one that somebody else made for the name right after it
    let scene = Scene::killed_in_an_order(NEWEST).await;
    let theirs = scene.double.add_certificate("letsencrypt", HOST, &[HOST], 60);
    let (wide, other) = ([HOST, "www.acme.example"], ["shop.example"]);
    scene.double.add_certificate("letsencrypt", "wide", &wide, 60);
    scene.double.add_certificate("letsencrypt", "other", &other, 60);
    scene.double.finish_certificate(scene.certificate());
    let before: Vec<Value> = scene.double.certificates().split_off(1);
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!((scene.writes(), scene.double.certificates()), (vec!["DELETE certificates/1 200".to_owned()], before));
    // given that theirs serves the portal because it came first, then it stays when the portal goes
    scene.want(HOST).await.expect("made");
    assert_eq!(scene.double.host(HOST).expect("a row")["certificate_id"], theirs);
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!(scene.double.certificates().len(), 3);
    // given an order that never reached NPM, then what somebody orders later is theirs
    let mut scene = Scene::given(lets_encrypt()).await;
    scene.running.faults.push("POST", "/certificates", 1, Fault::CutBefore);
    scene.want(HOST).await.expect_err("cut");
    scene.restart();
    scene.double.add_certificate("letsencrypt", HOST, &[HOST], 60);
    scene.want(HOST).await.expect("used");
    scene.unwant(HOST).await.expect_err("waits for its own order, which may still come");
    scene.clock.advance(SignedDuration::from_mins(2));
    scene.unwant(HOST).await.expect("deleted");
    assert_eq!(scene.counts(), (0, 1, 0));
}

#[tokio::test]
async fn a_certificate_of_ours_that_somebody_uses_by_now_stays() {
    let scene = Scene::killed_in_an_order(NEWEST).await;
    let id = scene.certificate();
    scene.double.finish_certificate(id);
    scene.double.add_host(&["shop.example"], json!({"certificate_id": id}));
    scene.unwant(HOST).await.expect("nothing that may be deleted");
    assert_eq!((scene.writes(), scene.counts()), (vec![], (1, 1, 1)));
}

#[tokio::test]
async fn a_kill_between_the_deletion_of_the_host_and_that_of_its_certificate_leaves_none() {
    for version in VERSIONS {
        let mut scene = Scene::of(version, lets_encrypt()).await;
        scene.want(HOST).await.expect("made");
        // given pages that made the host forget what was ordered for it
        scene.double.edit_in_pages(2, json!({"block_exploits": true}));
        scene.restart();
        scene.running.faults.push("DELETE", "/certificates", 1, Fault::CutBefore);
        scene.unwant(HOST).await.expect_err("cut");
        assert_eq!(scene.counts(), (0, 1, 1), "{version}");
        scene.restart();
        scene.unwant(HOST).await.expect("deleted");
        assert_eq!((scene.counts(), scene.book.all()), ((0, 0, 1), vec![]), "{version}");
    }
}

#[tokio::test]
async fn what_is_let_go_is_not_taken_for_ours_again() {
    let mut scene = Scene::given(lets_encrypt()).await;
    scene.want(HOST).await.expect("made");
    scene.release(HOST).await.expect("let go");
    scene.double.remove_host(2);
    scene.restart();
    scene.unwant(HOST).await.expect("nothing of ours");
    assert_eq!(scene.counts(), (0, 1, 1));
}

#[tokio::test]
async fn nothing_is_ordered_that_could_not_be_noted() {
    let scene = Scene::given(lets_encrypt()).await;
    scene.book.break_it(true);
    let refused = scene.want(HOST).await.expect_err("not noted");
    assert_eq!((refused.class, refused.reason), (ErrorClass::Unavailable, "LedgerFailed"));
    assert!(scene.unwant(HOST).await.is_err(), "what was ordered is not known, which is not nothing");
    assert_eq!((scene.writes(), scene.counts()), (vec![], (0, 0, 0)));
    scene.book.break_it(false);
    scene.want(HOST).await.expect("made");
}

#[tokio::test]
async fn a_certificate_that_is_to_be_used_is_not_planned_to_be_deleted() {
    let scene = Scene::killed_in_an_order(NEWEST).await;
    for finished in [false, true] {
        if finished {
            scene.double.finish_certificate(scene.certificate());
        }
        let intent = intent(HOST);
        let want = Want::Observe { intent: intent.clone(), former: Vec::new() };
        let seen = scene.worker.submit(intent.portal, want).await.expect("seen");
        let create = "(proxy host to http://10.0.0.5:5000 with a Let's Encrypt certificate)";
        assert_eq!(seen.pending, [format!("create {HOST} {create}")], "finished: {finished}");
        scene.clock.advance(SignedDuration::from_hours(1));
    }
    assert_eq!(scene.writes(), [""; 0]);
}
