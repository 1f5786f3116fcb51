//! How long after a change of the record the former way may still be taken: what a probe sees then proves nothing, and what
//! stands there stays.
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::alike::replaces;
use super::context::Context;
use super::error::ControllerError;
use super::places::Standing;
use super::run::Timing;
use super::runtime::ClassRuntime;
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

/// Whether a record with a TTL of so many seconds is proxied, and its TTL as Cloudflare has it; 0 seconds are a proxied one.
/// Of automatic TTLs and those of as many seconds, the portal's own is taken.
pub(super) fn form(seconds: i64, valid: &ValidPortal) -> (bool, u32) {
    match u32::try_from(seconds) {
        Ok(0) | Err(_) => (true, 1),
        Ok(_) if record_seconds(valid) == Some(seconds) => (false, valid.ttl),
        Ok(_) if seconds == AUTOMATIC_TTL => (false, 1),
        Ok(ttl) => (false, ttl),
    }
}

/// From when on a proof counts, where the record was changed at `changed` (RFC 3339): before, an edge or a resolver may
/// still lead to the old route.
pub(super) fn settled(timing: &Timing, valid: &ValidPortal, standing: &Standing, changed: &str) -> Timestamp {
    let seconds = record_seconds(valid).max(standing.record_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    let wait = timing.move_settle.max(Duration::from_secs(seconds.unwrap_or_default()));
    let until = standing.record_until.as_deref().and_then(|until| until.parse().ok());
    after(changed, wait).max(until.unwrap_or(Timestamp::MIN))
}

impl Standing {
    /// The record is seen as it is wanted, with a TTL of so many seconds. Of a longer one before, resolvers may keep what
    /// they read until now.
    pub(super) fn note_record(&mut self, seconds: Option<i64>, now: Timestamp) {
        let kept = |seconds: i64| Some(stamp_after(now.checked_add(SignedDuration::from_secs(seconds)).ok()?));
        let longer = self.record_seconds.filter(|before| seconds < Some(*before));
        let ahead = self.record_until.take().filter(|until| until.parse().is_ok_and(|until: Timestamp| until > now));
        // Both have one form, so that the later one is the greater one.
        self.record_until = longer.and_then(kept).max(ahead);
        self.record_seconds = seconds;
    }
}

impl Context {
    /// How long a place that the record led to stays, because visitors may still be led there: until the record is seen to
    /// lead elsewhere, and what caches remember of it has run out, and the portal is proved where it stands now. `recorded` is
    /// whether it is, if that can be seen.
    pub(super) fn still_serves(
        &self,
        leaving: &mut Leaving,
        valid: &ValidPortal,
        recorded: Option<bool>,
        proved: bool,
        standing: &Standing,
    ) -> Option<Duration> {
        if !leaving.serves || leaving.one_proxy {
            return None;
        }
        let now = self.clock.now();
        let since = match (recorded, &leaving.unserved) {
            (Some(true), _) => leaving.unserved.get_or_insert_with(|| stamp_after(now)),
            // Nothing is seen of it from here, and what was seen before counts.
            (None, Some(since)) => since,
            (Some(false) | None, _) => {
                leaving.unserved = None;
                return Some(self.backoff(&valid.key));
            }
        };
        let left = settled(&self.timing, valid, standing, since).duration_since(now);
        let left = Duration::try_from(left).unwrap_or_default();
        match (left.is_zero(), proved) {
            (true, true) => None,
            // What is on its way again need not be proved where it comes from.
            (true, false) if standing.moving.is_some() => None,
            (true, false) => Some(self.backoff(&valid.key)),
            (false, _) => Some(left.max(self.timing.first_retry)),
        }
    }

    /// Whether the record may still lead to a route of the new place's proxy in another form: there is one for each host.
    pub(super) async fn is_in_use_otherwise(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        standing: &Standing,
    ) -> Result<bool, ControllerError> {
        for leaving in standing.leaving.iter().filter(|leaving| leaving.serves) {
            let over = |since: &String| settled(&self.timing, valid, standing, since) <= self.clock.now();
            if !leaving.unserved.as_ref().is_some_and(over)
                && self.at_place(&leaving.place).await?.is_ok_and(|other| replaces(&other, class))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_ttl_is_remembered_until_it_has_run_out() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let mut standing = Standing::default();
        let mut seen = |seconds: Option<i64>, now: &str| {
            standing.note_record(seconds, at(now));
            (standing.record_seconds, standing.record_until.clone())
        };
        let until = |text: &str| Some(text.to_owned());
        assert_eq!(seen(Some(3600), "2026-01-01T00:00:00Z"), (Some(3600), None));
        assert_eq!(seen(Some(60), "2026-01-01T00:10:00.5Z"), (Some(60), until("2026-01-01T01:10:01Z")));
        // a shorter one after that changes nothing about it, and neither does another look
        assert_eq!(seen(None, "2026-01-01T00:20:00Z"), (None, until("2026-01-01T01:10:01Z")));
        assert_eq!(seen(None, "2026-01-01T00:30:00Z"), (None, until("2026-01-01T01:10:01Z")));
        assert_eq!(seen(None, "2026-01-01T01:10:01Z"), (None, None));
    }
}
