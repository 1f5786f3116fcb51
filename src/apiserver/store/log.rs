//! What happened to the objects of one resource, for watchers. Bounded: whoever falls out of it has to list anew.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::object::Object;

/// What the log of one resource keeps.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    pub events: usize,
    /// Bytes of the objects in them, packed.
    pub bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { events: 10_000, bytes: 32 << 20 }
    }
}

/// Events that a follower takes at once.
const BATCH: usize = 256;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// One committed write.
#[derive(Debug)]
pub struct Event {
    pub kind: EventKind,
    /// The object after the write; for a deletion its last state, with the deletion's version.
    pub object: Arc<Object>,
    /// The object before the write, by which selectors tell that it left their selection.
    pub previous: Option<Arc<Object>>,
}

impl Event {
    pub fn version(&self) -> u64 {
        self.object.version()
    }
    fn size(&self) -> usize {
        self.object.size() + self.previous.as_ref().map_or(0, |previous| previous.size())
    }
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Whoever has seen less than this version has missed something.
    oldest: u64,
}

/// The log of one resource.
#[derive(Debug)]
pub struct Log {
    limits: LogLimits,
    kept: Arc<RwLock<Kept>>,
    changed: watch::Sender<u64>,
    /// The store's newest version, whichever resource it was for.
    newest: Arc<AtomicU64>,
}

/// Somebody asked for events that are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    pub oldest: u64,
}

impl Log {
    /// A log that knows nothing of what was before `oldest`.
    pub(super) fn new(oldest: u64, newest: Arc<AtomicU64>, limits: LogLimits) -> Self {
        let kept = Kept { events: VecDeque::new(), bytes: 0, oldest };
        Self { limits, kept: Arc::new(RwLock::new(kept)), changed: watch::Sender::new(oldest), newest }
    }

    /// Adds the newest event. The caller holds the store's lock, so versions grow.
    pub(super) fn push(&self, event: Arc<Event>) {
        let version = event.version();
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += event.size();
        kept.events.push_back(event);
        while kept.events.len() > self.limits.events || kept.bytes > self.limits.bytes {
            let Some(dropped) = kept.events.pop_front() else { break };
            kept.bytes -= dropped.size();
            kept.oldest = dropped.version();
        }
        drop(kept);
        self.newest.store(version, Ordering::Release);
        self.changed.send_replace(version);
    }

    /// Begins after `since`. Errors: events after it are missing, or it is from the future (from before a restored
    /// backup).
    pub(super) fn follow(&self, since: u64) -> Result<Follower, Missed> {
        let oldest = self.kept.read().unwrap_or_else(PoisonError::into_inner).oldest;
        if since < oldest || since > self.newest.load(Ordering::Acquire) {
            return Err(Missed { oldest });
        }
        let (kept, newest) = (Arc::clone(&self.kept), Arc::clone(&self.newest));
        Ok(Follower { kept, newest, changed: self.changed.subscribe(), seen: since })
    }
}

/// Sees every event of a resource once, in order. It buffers nothing: who is too slow is told so.
#[derive(Debug)]
pub struct Follower {
    kept: Arc<RwLock<Kept>>,
    newest: Arc<AtomicU64>,
    changed: watch::Receiver<u64>,
    seen: u64,
}

impl Follower {
    /// The version up to which everything has been seen.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// What has happened since the last call, without waiting; empty when nothing has. Errors: [`Missed`].
    pub fn take(&mut self) -> Result<Vec<Arc<Event>>, Missed> {
        self.changed.mark_unchanged();
        // Read before the log is: events up to this version are in it.
        let newest = self.newest.load(Ordering::Acquire);
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if self.seen < kept.oldest {
            return Err(Missed { oldest: kept.oldest });
        }
        let from = kept.events.partition_point(|event| event.version() <= self.seen);
        let events: Vec<_> = kept.events.range(from..).take(BATCH).cloned().collect();
        self.seen = match events.last() {
            Some(last) if events.len() == BATCH => last.version(),
            Some(last) => last.version().max(newest),
            None => self.seen.max(newest),
        };
        Ok(events)
    }

    /// The next events; waits for one. `None` once the store is closed. Errors: [`Missed`].
    pub async fn next(&mut self) -> Option<Result<Vec<Arc<Event>>, Missed>> {
        loop {
            match self.take() {
                Ok(events) if events.is_empty() => self.changed.changed().await.ok()?,
                other => return Some(other),
            }
        }
    }
}
