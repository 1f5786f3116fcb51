//! When portals are asked for their proof of life: quick at first, since records, edges and certificates need
//! seconds to minutes, then ever less often, and never all at once.
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Probes under way at once.
const AT_ONCE: usize = 32;
/// Longest wait for a turn; after it the portal says that it waits.
const TURN: Duration = Duration::from_secs(10);

/// Pause after the `failures`-th failed probe in a row: doubles from the first to the longest. `chance` is from 0
/// up to 1 and takes up to a fifth off, so that portals that fell together are not asked together.
pub fn pause(failures: u32, first: Duration, longest: Duration, chance: f64) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    early(first.saturating_mul(factor).min(longest), chance)
}

/// The time less up to a fifth.
pub fn early(time: Duration, chance: f64) -> Duration {
    time.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 5.0)
}

/// The turns of all probes.
pub struct Turns {
    free: Semaphore,
    patience: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self::new(AT_ONCE, TURN)
    }
}

impl Turns {
    fn new(at_once: usize, patience: Duration) -> Self {
        Self { free: Semaphore::new(at_once), patience }
    }

    /// A turn; `None` while too many wait.
    pub async fn take(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(self.patience, self.free.acquire()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_a_dead_portal_come_ever_less_often() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(300));
        let seconds = |failures, chance| pause(failures, first, longest, chance).as_secs_f64();
        assert_eq!([1, 2, 3, 4].map(|failures| seconds(failures, 0.0)), [1.0, 2.0, 4.0, 8.0]);
        assert_eq!(seconds(9, 0.0), 256.0);
        assert_eq!([10, 31, 32, u32::MAX].map(|failures| seconds(failures, 0.0)), [300.0; 4]);
        assert_eq!(seconds(10, 1.0), 240.0);
    }

    #[tokio::test]
    async fn only_so_many_are_asked_at_once_and_the_rest_hears_of_it() {
        let turns = Turns::new(2, Duration::from_millis(1));
        let first = turns.take().await.unwrap();
        let _second = turns.take().await.unwrap();
        assert!(turns.take().await.is_none());
        drop(first);
        assert!(turns.take().await.is_some());
    }
}
