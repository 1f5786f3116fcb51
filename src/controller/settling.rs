//! How long after a change of the record the former way may still be taken: what a probe sees then proves nothing, and what
//! stands there stays.
use std::time::Duration;

use super::context::Context;
use super::run::Timing;
use super::times::{after, stamp_after};
use super::validate::ValidPortal;
use crate::api::portal::Leaving;

/// TTL of records whose TTL is automatic and that are not proxied, in seconds.
const AUTOMATIC_TTL: i64 = 300;

/// For how many seconds resolvers may keep the record that the portal wants.
pub(super) fn record_seconds(valid: &ValidPortal) -> Option<i64> {
    match (valid.proxied, valid.ttl) {
        (true, _) => None,
        (false, 1) => Some(AUTOMATIC_TTL),
        (false, ttl) => Some(ttl.into()),
    }
}

/// How long after a change of the record a proof counts: before, an edge or a resolver may still lead to the old route.
/// `before` is for how many seconds resolvers may keep the record as it was.
pub(super) fn settling(timing: &Timing, valid: &ValidPortal, before: Option<i64>) -> Duration {
    let seconds = record_seconds(valid).max(before).and_then(|seconds| u64::try_from(seconds).ok());
    timing.move_settle.max(Duration::from_secs(seconds.unwrap_or_default()))
}

impl Context {
    /// How long a place that the record led to stays, because visitors may still be led there: until the record is seen to
    /// lead elsewhere, and what caches remember of it has run out, and the portal is proved where it stands now.
    pub(super) fn still_serves(
        &self,
        leaving: &mut Leaving,
        valid: &ValidPortal,
        recorded: bool,
        proved: bool,
        record_seconds: Option<i64>,
    ) -> Option<Duration> {
        if !leaving.serves {
            return None;
        }
        let now = self.clock.now();
        if !recorded {
            leaving.unserved = None;
            return Some(self.backoff(&valid.key));
        }
        let since = leaving.unserved.get_or_insert_with(|| stamp_after(now));
        let left = after(since, settling(&self.timing, valid, record_seconds)).duration_since(now);
        let left = Duration::try_from(left).unwrap_or_default();
        match (left.is_zero(), proved) {
            (true, true) => None,
            (true, false) => Some(self.backoff(&valid.key)),
            (false, _) => Some(left.max(self.timing.first_retry)),
        }
    }
}
