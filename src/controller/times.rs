//! Times as the status holds them (RFC 3339, whole seconds, UTC), and waits from them.
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A time as the status holds it.
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn signed(wait: Duration) -> SignedDuration {
    SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}

pub(super) fn passed(since: &str, now: Timestamp) -> Duration {
    let since: Timestamp = since.parse().unwrap_or(now);
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

pub(super) fn after(since: &str, wait: Duration) -> Timestamp {
    let since: Timestamp = since.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    SignedDuration::try_from(wait).ok().and_then(|wait| since.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// The first whole second after it, where something is to last from then on: cut off, it would end too early.
pub(super) fn stamp_after(at: Timestamp) -> String {
    stamp(at.checked_add(SignedDuration::from_nanos(999_999_999)).unwrap_or(at))
}
