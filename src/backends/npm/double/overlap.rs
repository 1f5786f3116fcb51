//! Writes that are under way at the same time, which the real NPM does not stand.
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::http::double::lock;

/// Longest wait for the others; only a test that is wrong meets it.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many at once lose one another's files; two at once were never seen to.
const TOO_MANY: usize = 4;

#[derive(Default)]
struct Under {
    way: usize,
    peak: usize,
    arrived: usize,
    meet: usize,
    work: Duration,
}

#[derive(Default)]
pub struct Overlap {
    under: Mutex<Under>,
    changed: Condvar,
}

impl Overlap {
    pub fn meet(&self, count: usize) {
        let mut under = lock(&self.under);
        under.meet = count;
        under.arrived = 0;
    }
    pub fn work(&self, each: Duration) {
        lock(&self.under).work = each;
    }
    pub fn peak(&self) -> usize {
        lock(&self.under).peak
    }

    /// Begins a write. `true`: another one takes this one's file away.
    pub fn pass(&self) -> bool {
        let mut under = lock(&self.under);
        under.way += 1;
        under.arrived += 1;
        under.peak = under.peak.max(under.way);
        let (number, meet, work) = (under.arrived, under.meet, under.work);
        self.changed.notify_all();
        if meet > 1 {
            let waited = self.changed.wait_timeout_while(under, PATIENCE, |under| under.arrived < meet);
            drop(waited);
            return meet >= TOO_MANY && number % 2 == 1;
        }
        drop(under);
        if !work.is_zero() {
            std::thread::sleep(work);
        }
        false
    }

    pub fn leave(&self) {
        lock(&self.under).way -= 1;
    }
}
