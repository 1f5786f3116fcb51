//! Repairs of what others changed: counted, slowed down where somebody keeps changing it back, and held where there are too
//! many at once.
use std::collections::{HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::api::PortalKey;
use crate::plan::fuse;

/// How long a repair counts.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// Repairs of one portal within the window that are made at once.
const FREE: usize = 3;
/// First and longest wait before another repair of the same portal.
const WAIT: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(1), SignedDuration::from_mins(30));

/// Repairs that wait for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Names this very case.
    pub id: String,
    pub owned: usize,
    pub changing: usize,
    /// The first of them in words.
    pub words: Vec<String>,
}

/// A repair that a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repair {
    pub portal: PortalKey,
    pub words: String,
    /// It overwrites or deletes something.
    pub overwrites: bool,
}

/// What came of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tried {
    /// All of it was written.
    pub made: bool,
    /// Some of it was written, or may have been.
    pub touched: bool,
}

#[derive(Default)]
pub(super) struct Repairs {
    /// When each portal was put right.
    of: HashMap<PortalKey, VecDeque<Timestamp>>,
    /// Portals of which something was overwritten or deleted of late, for the fuse: each counts once, however often.
    recent: HashMap<PortalKey, Timestamp>,
    /// The same of those that are tried just now; other lanes must know of them.
    underway: HashMap<PortalKey, Timestamp>,
    held: Option<Held>,
    /// Portals of that case.
    waiting: HashSet<PortalKey>,
    approved: Option<String>,
}

/// Whether a repair may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    /// Somebody keeps changing it back; the next repair is due then.
    Contested {
        times: usize,
        next: Timestamp,
    },
    /// Too many at once.
    Held(Held),
}

impl Repairs {
    /// Judges repairs that one look found. What comes of those that go is to be noted.
    pub fn judge(
        &mut self,
        instance: &str,
        wanted: &[Repair],
        owned: usize,
        now: Timestamp,
    ) -> HashMap<PortalKey, Verdict> {
        let fresh = |_: &PortalKey, at: &mut Timestamp| now.duration_since(*at) < WINDOW;
        self.recent.retain(fresh);
        // What was never noted, because its backend broke down, is forgotten in the same way.
        self.underway.retain(fresh);
        let new: HashSet<&PortalKey> = wanted
            .iter()
            .filter(|repair| repair.overwrites && !self.waiting.contains(&repair.portal))
            .map(|repair| &repair.portal)
            .collect();
        let approved = self.held.as_ref().is_some_and(|case| self.approved.as_ref() == Some(&case.id));
        // What was approved is no surprise any more; what waits for approval is as good as wanted.
        let waiting = self.waiting.iter().filter(|_| !approved);
        let all = self.recent.keys().chain(self.underway.keys()).chain(waiting).chain(new.iter().copied());
        let changing = all.collect::<HashSet<_>>().len();
        let too_many = !new.is_empty() && fuse::blows(owned, changing);
        if too_many && !approved {
            let id = self.held.as_ref().map_or_else(
                || {
                    let hash = Sha256::digest(format!("{instance} {now}").as_bytes());
                    hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
                },
                |case| case.id.clone(),
            );
            self.waiting.extend(new.into_iter().cloned());
            let concerned = wanted.iter().filter(|repair| repair.overwrites);
            let words = concerned.map(|repair| repair.words.clone()).take(5).collect();
            self.held = Some(Held { owned, changing, words, id });
        }
        let mut verdicts = HashMap::new();
        for Repair { portal, overwrites, .. } in wanted {
            let waits = self.waiting.contains(portal);
            let verdict = match &self.held {
                // Once held, held until that is approved or nothing of it is left to be done.
                Some(case) if *overwrites && (waits && !approved || !waits && too_many) => Verdict::Held(case.clone()),
                _ => self.contest(portal, now),
            };
            if verdict == Verdict::Go && *overwrites && !waits {
                self.underway.insert(portal.clone(), now);
            }
            verdicts.insert(portal.clone(), verdict);
        }
        verdicts
    }

    fn contest(&mut self, portal: &PortalKey, now: Timestamp) -> Verdict {
        let Some(times) = self.of.get_mut(portal) else { return Verdict::Go };
        while times.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            times.pop_front();
        }
        if times.len() >= FREE
            && let Some(last) = times.back()
        {
            let doubled = u32::try_from(times.len() - FREE).unwrap_or(u32::MAX);
            let wait = WAIT.0.saturating_mul(1_i32.checked_shl(doubled).unwrap_or(i32::MAX)).min(WAIT.1);
            let next = last.checked_add(wait).unwrap_or(now);
            if now < next {
                return Verdict::Contested { times: times.len(), next };
            }
        }
        Verdict::Go
    }

    /// What came of a repair that went. One that failed counts neither as made nor as another change.
    pub fn note(&mut self, portal: &PortalKey, tried: Tried, now: Timestamp) {
        if tried.made {
            self.of.entry(portal.clone()).or_default().push_back(now);
        }
        if self.underway.remove(portal).is_some() && tried.touched {
            self.recent.insert(portal.clone(), now);
        }
    }

    /// A portal was edited or removed: what happened before is past.
    pub fn forget(&mut self, portal: &PortalKey) {
        self.of.remove(portal);
        self.fine(portal);
    }

    /// All is right with a portal. When that is so with all that were held, the case is closed, and its approval with it.
    pub fn fine(&mut self, portal: &PortalKey) {
        self.waiting.remove(portal);
        if self.waiting.is_empty() {
            (self.held, self.approved) = (None, None);
        }
    }

    pub fn held(&self) -> Option<Held> {
        self.held.clone()
    }

    /// Lets the case of this id go ahead, and tells whom it concerns; nobody, if that is known already.
    pub fn approve(&mut self, id: &str) -> Vec<PortalKey> {
        if self.held.as_ref().is_none_or(|held| held.id != id) || self.approved.as_deref() == Some(id) {
            return Vec::new();
        }
        self.approved = Some(id.to_owned());
        self.waiting.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize) -> PortalKey {
        PortalKey { namespace: "n".to_owned(), name: format!("p{index}") }
    }

    const MADE: Tried = Tried { made: true, touched: true };
    const REFUSED: Tried = Tried { made: false, touched: false };
    const UNKNOWN: Tried = Tried { made: false, touched: true };

    fn wanted(range: std::ops::Range<usize>, overwrites: bool) -> Vec<Repair> {
        range.map(|index| Repair { portal: key(index), words: format!("update {index}"), overwrites }).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_fight_over_one_record_is_slowed_down_to_about_ten_writes_an_hour() {
        let mut repairs = Repairs::default();
        let mut made = 0;
        let mut contested = 0;
        for second in (0..3600).step_by(5) {
            let now = at(second);
            match &repairs.judge("i", &wanted(0..1, false), 100, now)[&key(0)] {
                Verdict::Go => {
                    repairs.note(&key(0), MADE, now);
                    made += 1;
                }
                Verdict::Contested { next, .. } => {
                    assert!(*next > now);
                    contested += 1;
                }
                Verdict::Held(_) => panic!("one is not many"),
            }
        }
        assert_eq!((made, made + contested), (8, 720));
        repairs.forget(&key(0));
        assert_eq!(repairs.judge("i", &wanted(0..1, false), 100, at(3600))[&key(0)], Verdict::Go);
    }

    #[test]
    fn too_many_changes_by_others_are_held_until_that_very_case_is_approved() {
        let mut repairs = Repairs::default();
        let now = Timestamp::UNIX_EPOCH;
        let verdicts = repairs.judge("i", &wanted(0..4, true), 10, now);
        let Verdict::Held(case) = &verdicts[&key(0)] else { panic!("{verdicts:?}") };
        assert_eq!((case.owned, case.changing, case.words.len()), (10, 4, 4));
        assert!(verdicts.values().all(|verdict| matches!(verdict, Verdict::Held(_))));
        // what is missing is made anew: that destroys nothing
        assert_eq!(repairs.judge("i", &wanted(0..10, false), 10, now)[&key(0)], Verdict::Go);
        repairs.approve("another");
        assert!(matches!(repairs.judge("i", &wanted(0..4, true), 10, now)[&key(0)], Verdict::Held(_)));
        repairs.approve(&case.id);
        assert_eq!(repairs.judge("i", &wanted(0..2, true), 10, now)[&key(0)], Verdict::Go);
        assert_eq!(repairs.judge("i", &wanted(2..4, true), 10, now)[&key(2)], Verdict::Go, "all of the case");
        (0..4).for_each(|index| repairs.fine(&key(index)));
        assert_eq!(repairs.held(), None);
        let next = repairs.judge("i", &wanted(4..8, true), 10, at(1));
        let Verdict::Held(next) = &next[&key(4)] else { panic!("an approval is for one case: {next:?}") };
        assert_ne!(next.id, case.id);
    }

    #[test]
    fn a_trickle_is_many_changes_too() {
        // whether it is known to have been written, may have been, or is being written in another lane
        for came_of_it in [Some(MADE), Some(UNKNOWN), None] {
            let mut repairs = Repairs::default();
            for index in 0..3 {
                let now = at(index as i64);
                let verdicts = repairs.judge("i", &wanted(index..index + 1, true), 10, now);
                assert_eq!(verdicts[&key(index)], Verdict::Go);
                came_of_it.iter().for_each(|tried| repairs.note(&key(index), *tried, now));
            }
            assert!(matches!(repairs.judge("i", &wanted(3..4, true), 10, at(4))[&key(3)], Verdict::Held(_)));
            // and one that is held stays held, however small the batches are in which it comes again
            for second in [5, 3700] {
                assert!(matches!(repairs.judge("i", &wanted(3..4, true), 10, at(second))[&key(3)], Verdict::Held(_)));
            }
            assert_eq!(
                repairs.judge("i", &wanted(5..6, true), 10, at(3701))[&key(5)],
                Verdict::Go,
                "an hour later it is one"
            );
        }
    }

    #[test]
    fn a_repair_that_fails_is_no_repair_and_no_further_change() {
        let mut repairs = Repairs::default();
        for second in 0..20 {
            assert_eq!(repairs.judge("i", &wanted(0..1, true), 10, at(second))[&key(0)], Verdict::Go);
            repairs.note(&key(0), if second % 2 == 0 { REFUSED } else { UNKNOWN }, at(second));
        }
        assert_eq!(repairs.held(), None);
        // two more are three things of ten, and that goes; a fourth is too much
        assert_eq!(repairs.judge("i", &wanted(1..3, true), 10, at(21))[&key(2)], Verdict::Go);
        let held = repairs.judge("i", &wanted(3..4, true), 10, at(22));
        let Verdict::Held(case) = &held[&key(3)] else { panic!("{held:?}") };
        assert_eq!(case.changing, 4);
    }

    #[test]
    fn a_fight_over_one_thing_is_one_change_to_the_fuse() {
        let mut repairs = Repairs::default();
        for second in 0..3 {
            assert_eq!(repairs.judge("i", &wanted(0..1, true), 10, at(second))[&key(0)], Verdict::Go);
            repairs.note(&key(0), MADE, at(second));
        }
        let verdicts = repairs.judge("i", &wanted(0..3, true), 10, at(3));
        assert!(matches!(verdicts[&key(0)], Verdict::Contested { times: 3, .. }), "{verdicts:?}");
        assert_eq!((&verdicts[&key(1)], &verdicts[&key(2)]), (&Verdict::Go, &Verdict::Go));
    }
}
