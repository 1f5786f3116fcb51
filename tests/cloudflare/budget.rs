//! The budget of a token, from the account's side.
use portalkeeper::backends::{ErrorClass, Known};

use super::{Scene, TOKEN, burst, intent};

/// Own use stops before the limit: the last tenth is kept, and nothing is refused.
#[tokio::test(flavor = "multi_thread")]
async fn more_portals_than_a_window_has_requests_wait_with_a_place_and_a_time() {
    let scene = Scene::empty().await;
    scene.double.set_quota(100);
    for index in 0..150 {
        scene.double.add_zone(&format!("customer{index:03}.example"));
    }
    let portals = || (0..150).map(|index| intent(&format!("reset.customer{index:03}.example"))).collect::<Vec<_>>();
    let results = burst(&scene.worker, portals(), &Known::NeverMade).await;
    let late: Vec<_> =
        portals().into_iter().zip(&results).filter(|(_, result)| result.is_err()).map(|(portal, _)| portal).collect();
    let waiting: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(waiting.iter().all(|error| error.class == ErrorClass::Throttled && error.reason == "RateBudgetSpent"));
    let mut places: Vec<usize> = waiting.iter().map(|error| error.place.expect("a place").position).collect();
    places.sort_unstable();
    assert_eq!(places, (1..=waiting.len()).collect::<Vec<_>>(), "each has a place of its own");
    let calls = scene.calls();
    assert!((75..=90).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().all(|call| call.status == 200));
    // a deletion still gets through
    let made = scene.ours().first().cloned().expect("some were made");
    scene.absent(&made).await.expect("deleted");
    // while they wait, asking again costs nothing
    scene.running.log.clear();
    for result in burst(&scene.worker, late.clone(), &Known::NeverMade).await {
        let error = result.expect_err("waits");
        assert!(error.retry_after.is_some_and(|wait| wait.as_secs() <= 300), "{error:?}");
    }
    assert_eq!(scene.calls(), []);
    // when the window is over, then all are made
    scene.pass(301);
    for result in burst(&scene.worker, late, &Known::NeverMade).await {
        let error = result.err();
        assert!(error.is_none(), "{error:?}");
    }
    assert_eq!(scene.ours().len(), 149);
    assert_eq!(scene.double.calls_while_blocked(TOKEN), 0);
}

/// Somebody else uses the limit up: one call learns of it, and one tries when it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_by_others_costs_one_call_and_a_try() {
    let scene = Scene::given().await;
    scene.want("warm.acme.example").await.expect("made");
    scene.double.block(TOKEN);
    scene.running.log.clear();
    let portals = || (0..40).map(|index| intent(&format!("r{index}.acme.example"))).collect::<Vec<_>>();
    for minute in 0..5 {
        for result in burst(&scene.worker, portals(), &Known::NeverMade).await {
            let error = result.expect_err("blocked");
            assert_eq!(error.reason, "RateLimited", "minute {minute}");
            assert!(error.message.contains("rate limit"), "{error}");
        }
        scene.pass(60);
    }
    assert_eq!(scene.double.calls_while_blocked(TOKEN), 1);
    scene.pass(1);
    for result in burst(&scene.worker, portals(), &Known::NeverMade).await {
        result.expect("made");
    }
    assert_eq!(scene.new_calls().len(), 2, "the refused one, and one batch");
}

/// Looks for drift leave half of the budget alone.
#[tokio::test(flavor = "multi_thread")]
async fn looking_after_things_waits_when_the_budget_is_half_spent() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.pass(25 * 3600);
    scene.double.set_quota(10);
    for index in 0..6 {
        scene.make(&format!("r{index}.globex.example")).await.expect("made");
    }
    scene.running.log.clear();
    let believed = scene.want("reset.acme.example").await.expect("believed a little longer");
    assert!(believed.changes.is_empty() && believed.resources.len() == 1);
    assert_eq!(scene.calls(), [], "a mere look waits");
    scene.make("more.globex.example").await.expect("what is new goes first");
    // and is made up for when there is room again
    scene.pass(301);
    scene.want("reset.acme.example").await.expect("as it was");
    assert_eq!(scene.calls().iter().filter(|call| call.method == "GET").count(), 1);
}

/// A proof that cannot be renewed is not believed for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_at_for_two_drift_intervals_is_not_said_to_stand() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.double.set_quota(10);
    let mut round = 0;
    let mut spend = async || {
        scene.pass(301);
        for _ in 0..6 {
            scene.make(&format!("r{round}.globex.example")).await.expect("made");
            round += 1;
        }
        scene.running.log.clear();
    };
    // given a budget that is spent on other things whenever a look is due
    scene.pass(25 * 3600);
    spend().await;
    scene.want("reset.acme.example").await.expect("believed a little longer");
    // when it is two days since the last look
    scene.pass(24 * 3600);
    spend().await;
    let error = scene.want("reset.acme.example").await.expect_err("not known any more");
    // then it waits openly, with a place, and no write was made
    assert_eq!((error.class, error.reason), (ErrorClass::Throttled, "RateBudgetSpent"), "{error}");
    assert!(error.place.is_some(), "{error:?}");
    assert_eq!(scene.calls(), []);
    // and is known again as soon as there is room
    scene.pass(301);
    let seen = scene.want("reset.acme.example").await.expect("as it was");
    assert!(seen.changes.is_empty() && seen.resources.len() == 1);
}

/// I3: what somebody is known to have changed is not said to stand while the look waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_changed_is_not_believed_while_its_look_waits() {
    let scene = Scene::given().await;
    scene.want("reset.acme.example").await.expect("made");
    scene.want("other.acme.example").await.expect("made");
    scene.double.set_quota(10);
    scene.pass(301);
    for round in 0..6 {
        scene.make(&format!("r{round}.globex.example")).await.expect("made");
    }
    scene.running.log.clear();
    // when a hint names one of them, and the other is only due
    scene.worker.forget(&super::key("other.acme.example"));
    let concerned = scene.worker.forget_names(&|host| host.as_str() == "reset.acme.example");
    assert_eq!(concerned, [super::key("reset.acme.example")]);
    // then only the other one is believed, and nothing is asked
    scene.want("other.acme.example").await.expect("believed a little longer");
    let error = scene.want("reset.acme.example").await.expect_err("not known");
    assert_eq!((error.class, error.reason), (ErrorClass::Throttled, "RateBudgetSpent"), "{error}");
    assert_eq!(scene.calls(), []);
}
