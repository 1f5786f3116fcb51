//! What the budget lets through.
use super::*;
use crate::api::clock::TestClock;

fn budget() -> (Arc<TestClock>, Arc<Budget>) {
    let clock = Arc::new(TestClock::new(Timestamp::UNIX_EPOCH));
    (Arc::clone(&clock), Budget::new(clock))
}

fn answer(status: u16, headers: &[(&str, &str)]) -> Response {
    Response::for_test(status, headers)
}

fn told(budget: &Arc<Budget>, status: u16, headers: &[(&str, &str)]) {
    budget.permit(Urgency::Edit).expect("a permit").answered(&answer(status, headers));
}

fn wait(budget: &Arc<Budget>, urgency: Urgency) -> Option<u64> {
    budget.permit(urgency).err().map(|error| error.retry_after.unwrap().as_secs())
}

#[test]
fn after_a_429_nothing_goes_out_until_its_time_and_then_one_call() {
    for (header, seconds) in [(Some("1"), 1), (Some("30"), 30), (Some("3000"), 3000), (None, 300)] {
        let (clock, budget) = budget();
        let headers: Vec<(&str, &str)> = header.iter().map(|value| ("retry-after", *value)).collect();
        told(&budget, 429, &headers);
        assert_eq!(wait(&budget, Urgency::Edit), Some(seconds));
        clock.advance(SignedDuration::from_secs(i64::try_from(seconds).unwrap() - 1));
        assert_eq!(wait(&budget, Urgency::Edit), Some(1));
        clock.advance(SignedDuration::from_secs(1));
        let one = budget.permit(Urgency::Drift).expect("one call tries");
        assert_eq!(wait(&budget, Urgency::Edit), Some(1), "nobody else while it is under way");
        one.answered(&answer(200, &[]));
        assert_eq!(wait(&budget, Urgency::Edit), None);
    }
}

#[test]
fn a_try_that_fails_or_is_refused_again_keeps_the_others_back() {
    let (clock, budget) = budget();
    told(&budget, 429, &[("retry-after", "10")]);
    clock.advance(SignedDuration::from_secs(10));
    drop(budget.permit(Urgency::Edit).expect("one call tries"));
    let second = budget.permit(Urgency::Edit).expect("the first had no answer, so another tries");
    assert!(wait(&budget, Urgency::Edit).is_some());
    second.answered(&answer(429, &[("retry-after", "20")]));
    assert_eq!(wait(&budget, Urgency::Edit), Some(20));
}

#[test]
fn an_answer_from_before_the_block_does_not_end_it() {
    let (_clock, budget) = budget();
    let early = budget.permit(Urgency::Edit).unwrap();
    told(&budget, 429, &[("retry-after", "10")]);
    early.answered(&answer(200, &[]));
    assert_eq!(wait(&budget, Urgency::Edit), Some(10));
}

#[test]
fn the_last_requests_are_kept_for_what_is_urgent() {
    let (clock, budget) = budget();
    let policy = ("ratelimit-policy", "\"default\";q=100;w=60");
    let state = |budget: &Arc<Budget>, left: &str| {
        told(budget, 200, &[policy, ("ratelimit", &format!("\"default\";r={left};t=30"))]);
        [Urgency::Edit, Urgency::Create, Urgency::Drift].map(|urgency| wait(budget, urgency).is_none())
    };
    assert_eq!(state(&budget, "60"), [true, true, true]);
    assert_eq!(state(&budget, "40"), [true, true, false]);
    assert_eq!(state(&budget, "9"), [true, false, false]);
    assert_eq!(state(&budget, "1"), [true, false, false]);
    assert_eq!(wait(&budget, Urgency::Edit), Some(30), "the last one was used");
    clock.advance(SignedDuration::from_secs(30));
    assert_eq!(wait(&budget, Urgency::Drift), None, "a new window");
}

#[test]
fn who_waits_has_a_place_and_an_expected_time() {
    let (_clock, budget) = budget();
    told(&budget, 200, &[("ratelimit-policy", "\"default\";q=10;w=60"), ("ratelimit", "\"default\";r=0;t=30")]);
    let key = |index: usize| PortalKey { namespace: "n".to_owned(), name: format!("p{index:02}") };
    for index in 0..20 {
        budget.enter(&key(index), Urgency::Create);
    }
    budget.enter(&key(20), Urgency::Edit);
    let place = |index: usize| budget.place(&key(index)).map(|p| (p.position, p.expected.as_second()));
    assert_eq!(place(20), Some((1, 30)), "the edit goes first");
    assert_eq!(place(0), Some((2, 30)));
    assert_eq!(place(19), Some((21, 30 + 2 * 60)), "nine of ten requests of a window are for creations");
    budget.enter(&key(0), Urgency::Create);
    assert_eq!(place(0), Some((2, 30)), "who asks again keeps the place");
    budget.leave(&key(20));
    assert_eq!((place(20), place(0)), (None, Some((1, 30))));
}

#[test]
fn headers_that_cannot_be_read_change_nothing() {
    let (_clock, budget) = budget();
    for odd in ["", ";;;", "\"default\";r=x;t=1", "r=1", "\"default\";r=99999999999;t=1"] {
        told(&budget, 200, &[("ratelimit", odd), ("ratelimit-policy", odd)]);
        assert_eq!(wait(&budget, Urgency::Drift), None, "{odd}");
    }
}

#[test]
fn a_refused_token_is_not_tried_again_for_a_while_that_grows() {
    let (clock, budget) = budget();
    let refusal = BackendError::new(ErrorClass::Credential, "TokenRefused", "refused");
    for seconds in [30, 60, 120, 240, 480, 600, 600] {
        assert_eq!(budget.refuse(&refusal).as_secs(), seconds);
        let error = budget.permit(Urgency::Edit).err().expect("not tried");
        assert_eq!((error.reason, error.retry_after.unwrap().as_secs()), ("TokenRefused", seconds));
        clock.advance(SignedDuration::from_secs(i64::try_from(seconds).unwrap()));
    }
    told(&budget, 200, &[]);
    assert_eq!(budget.refuse(&refusal).as_secs(), 30, "it worked in between");
}

#[test]
fn a_refusal_for_the_reserve_does_not_end_the_trying_for_ever() {
    let (clock, budget) = budget();
    let early = budget.permit(Urgency::Edit).unwrap();
    told(&budget, 429, &[("retry-after", "10")]);
    // an answer from before the block says how much is left, and that is too little for a mere look
    early.answered(&answer(200, &[("ratelimit", "\"default\";r=500;t=200")]));
    clock.advance(SignedDuration::from_secs(11));
    assert!(wait(&budget, Urgency::Drift).is_some());
    let tries = budget.permit(Urgency::Edit).expect("somebody must be able to try");
    tries.answered(&answer(200, &[]));
    assert_eq!(wait(&budget, Urgency::Edit), None);
}
