//! Repairs that fail: they are told by their own errors, and count neither as made nor as another change.
use jiff::SignedDuration;
use portalkeeper::backends::memory::Memory;
use portalkeeper::backends::{BackendError, ErrorClass, Programmed};

use crate::scene::{Scene, intent};

const THEIRS: &str = "theirs.example";

fn name(index: usize) -> String {
    format!("r{index}.acme.example")
}

/// A worker over a system in memory, in which as many portals have what they want.
async fn given(count: usize) -> (Memory, Scene) {
    let memory = Memory::default();
    let mut scene = Scene::of(memory.clone());
    for index in 0..count {
        scene.want(&name(index)).await.expect("made");
    }
    // What was verified is believed for a minute.
    scene.pace = SignedDuration::from_secs(61);
    (memory, scene)
}

#[tokio::test]
async fn a_repair_that_is_refused_again_and_again_is_told_by_its_own_error() {
    let (memory, scene) = given(1).await;
    // given a thing that somebody changed and that cannot be written
    memory.change(&name(0), THEIRS);
    memory.refuse(Some(&name(0)));
    for _ in 0..10 {
        let before = memory.writes();
        let refused = scene.want(&name(0)).await.expect_err("refused");
        assert_eq!((refused.class, refused.reason), (ErrorClass::Permanent, "Refused"));
        assert_eq!(memory.writes(), before + 1, "and it was tried");
    }
    // when it can be written, then it is, at once
    memory.refuse(None);
    let done = scene.want(&name(0)).await.expect("put right");
    assert!(done.repaired && done.changes.len() == 1, "{done:?}");
}

/// What the first portal's next look comes to, though it was looked at a moment ago.
async fn look(scene: &Scene) -> Result<Programmed, BackendError> {
    scene.worker.forget(&intent(&name(0)).portal);
    scene.want(&name(0)).await
}

#[tokio::test]
async fn a_fight_is_told_by_the_repairs_that_were_made() {
    let (memory, mut scene) = given(1).await;
    scene.pace = SignedDuration::from_secs(5);
    let mut told = None;
    for round in 0..6 {
        memory.change(&name(0), THEIRS);
        // given a refusal in between
        if round == 1 {
            memory.refuse(Some(&name(0)));
            assert_eq!(look(&scene).await.expect_err("refused").reason, "Refused");
            memory.refuse(None);
        }
        match look(&scene).await {
            Ok(done) => assert!(done.repaired && told.is_none()),
            Err(error) => {
                told.get_or_insert(error);
            }
        };
    }
    // then three were made before it is slowed down
    let told = told.expect("a fight");
    assert_eq!((told.class, told.reason), (ErrorClass::Conflict, "Contested"));
    assert!(told.message.contains("it was put right 3 times within an hour and needs again"), "{told}");
}

#[tokio::test]
async fn a_repair_that_is_refused_again_and_again_holds_nobody_elses_up() {
    let (memory, scene) = given(10).await;
    // given one of ten that cannot be put right
    memory.change(&name(0), THEIRS);
    memory.refuse(Some(&name(0)));
    for _ in 0..10 {
        assert_eq!(scene.want(&name(0)).await.expect_err("refused").reason, "Refused");
    }
    assert_eq!(scene.worker.held(), None);
    // when two more are changed, then those are put right
    for index in [1, 2] {
        memory.change(&name(index), THEIRS);
        assert!(scene.want(&name(index)).await.expect("put right").repaired);
    }
    assert_eq!(scene.want(&name(0)).await.expect_err("refused").reason, "Refused");
    // and one more is too many within an hour
    memory.change(&name(3), THEIRS);
    scene.want(&name(3)).await.expect("three were changed of late, with this one");
    memory.change(&name(4), THEIRS);
    assert_eq!(scene.want(&name(4)).await.expect_err("held").reason, "ChangesHeld");
    let case = scene.worker.held().expect("held");
    assert_eq!((case.owned, case.changing), (10, 4));
}
