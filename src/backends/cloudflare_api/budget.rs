//! The rate budget of one token, shared by everything that calls with it.
//!
//! Cloudflare counts all requests of a token (or of its user) in windows and refuses everything for five minutes once they
//! are used up. Its answers say how many are left; this budget keeps the last of them for what is urgent, stops by itself
//! before the limit, and after a 429 lets nothing out before the time is over, and then one call to try.
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::PortalKey;
use crate::api::clock::Clock;
use crate::backends::{BackendError, ErrorClass, Place, Queue};
use crate::http::Response;
use crate::http::double::lock;
use crate::plan::Urgency;

/// Length of a block where a 429 does not say: what the documents state.
const BLOCK: SignedDuration = SignedDuration::from_mins(5);
/// Requests and seconds of a window where no answer has said it yet: what the documents state.
const QUOTA: (u32, u32) = (1200, 300);
/// First and longest time in which a refused token is not tried again.
const REFUSED: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(30), SignedDuration::from_mins(10));
/// How soon to ask again while the one call that tries the limit is under way.
const TRYING: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    /// Requests left, and the end of their window, as far as answers have said.
    window: Option<(u32, Timestamp)>,
    /// Requests and seconds of a window.
    policy: Option<(u32, u32)>,
    blocked_until: Option<Timestamp>,
    /// The one call after a block is under way.
    trying: bool,
    in_flight: u32,
    /// What the token was refused with, until when it is not tried again, and how often in a row.
    refused: Option<(BackendError, Timestamp)>,
    refusals: u32,
    succeeded: Option<Timestamp>,
    /// When the token was last asked for and found valid.
    valid: Option<Timestamp>,
    /// Who waits, in the order in which they will be let through.
    waiting: BTreeSet<(Urgency, u64, PortalKey)>,
    entered: HashMap<PortalKey, (Urgency, u64)>,
    next: u64,
}

/// The budget of a token.
pub struct Budget {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// Leave to make one call.
pub struct Permit {
    budget: Arc<Budget>,
    settled: bool,
}

fn throttled(reason: &'static str, message: String, wait: Duration) -> BackendError {
    let mut error = BackendError::new(ErrorClass::Throttled, reason, message);
    error.retry_after = Some(wait);
    error
}

fn until(then: Timestamp, now: Timestamp) -> Duration {
    // A moment too late rather than too early: limits are told in whole seconds.
    Duration::try_from(then.duration_since(now)).unwrap_or_default() + Duration::from_millis(200)
}

impl Budget {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default() })
    }

    /// Leave to call, or how long to wait. Never waits itself.
    pub fn permit(self: &Arc<Self>, urgency: Urgency) -> Result<Permit, BackendError> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        if let Some((error, again)) = state.refused.as_ref().filter(|(_, again)| now < *again) {
            let mut error = error.clone();
            error.retry_after = Some(until(*again, now));
            return Err(error);
        }
        if let Some(blocked_until) = state.blocked_until {
            if now < blocked_until {
                let message = format!(
                    "Cloudflare's rate limit of the API token is used up; no call is made before {}",
                    blocked_until.strftime("%H:%M:%S UTC")
                );
                return Err(throttled("RateLimited", message, until(blocked_until, now)));
            }
            if state.trying {
                let message = "Cloudflare's rate limit is being tried with one call first".to_owned();
                return Err(throttled("RateLimited", message, TRYING));
            }
        }
        if state.window.is_some_and(|(_, ends)| now >= ends) {
            state.window = None;
        }
        if let Some((left, ends)) = state.window {
            let quota = state.policy.unwrap_or(QUOTA).0;
            let reserve = match urgency {
                Urgency::Edit => 0,
                Urgency::Create => quota / 10,
                Urgency::Drift => quota / 2,
            };
            if left <= reserve {
                let what = match urgency {
                    Urgency::Edit => "the last requests of the API token's rate limit are used",
                    Urgency::Create => "what is left of the API token's rate limit is kept for edits and deletions",
                    Urgency::Drift => "what is left of the API token's rate limit is kept for changes; checks wait",
                };
                let message = format!("Cloudflare: {what}; the next window begins {}", ends.strftime("%H:%M:%S UTC"));
                return Err(throttled("RateBudgetSpent", message, until(ends, now)));
            }
            state.window = Some((left - 1, ends));
        }
        // Only now, when the call is sure to be made: nobody else would ever end the trying.
        state.trying = state.trying || state.blocked_until.is_some();
        state.in_flight += 1;
        Ok(Permit { budget: Arc::clone(self), settled: false })
    }

    /// Notes that the token itself is refused: it is not tried again for a while that grows. Tells how long.
    pub fn refuse(&self, error: &BackendError) -> Duration {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let wait = REFUSED.0.saturating_mul(1_i32.checked_shl(state.refusals).unwrap_or(i32::MAX)).min(REFUSED.1);
        state.refusals = (state.refusals + 1).min(16);
        state.refused = Some((error.clone(), now.checked_add(wait).unwrap_or(now)));
        Duration::try_from(wait).unwrap_or_default()
    }

    /// The time that limits go by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The token was asked for and found valid.
    pub fn found_valid(&self) {
        let now = self.clock.now();
        lock(&self.state).valid = Some(now);
    }

    /// Whether that was within the last five minutes.
    pub fn is_valid(&self) -> bool {
        let now = self.clock.now();
        lock(&self.state).valid.is_some_and(|at| now.duration_since(at) < BLOCK)
    }

    /// Whether the token was good for anything within the last minute.
    pub fn works(&self) -> bool {
        let now = self.clock.now();
        lock(&self.state).succeeded.is_some_and(|at| now.duration_since(at) < SignedDuration::from_mins(1))
    }

    /// How long the token is blocked yet.
    pub fn wait(&self) -> Option<Duration> {
        let now = self.clock.now();
        lock(&self.state).blocked_until.filter(|then| *then > now).map(|then| until(then, now))
    }

    fn answered(&self, response: &Response) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.in_flight = state.in_flight.saturating_sub(1);
        let tried = std::mem::take(&mut state.trying);
        if response.status == 429 {
            let wait = response.retry_after().and_then(|wait| SignedDuration::try_from(wait).ok()).unwrap_or(BLOCK);
            let then = now.checked_add(wait).unwrap_or(Timestamp::MAX);
            state.blocked_until = state.blocked_until.max(Some(then));
            state.window = None;
            return;
        }
        if response.status < 400 {
            (state.refused, state.refusals) = (None, 0);
            state.succeeded = Some(now);
        }
        // An answer to a call from before the block says nothing about it; the one that tried it does.
        if tried {
            state.blocked_until = None;
        }
        let header = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some((quota, window)) = header("ratelimit-policy").and_then(|text| pair(text, "q", "w")) {
            state.policy = Some((quota, window));
        }
        if let Some((left, seconds)) = header("ratelimit").and_then(|text| pair(text, "r", "t")) {
            let ends = now.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(now);
            let left = left.saturating_sub(state.in_flight);
            // Answers may overtake each other: within a window nothing is ever given back.
            let same = |known: Timestamp| known.duration_since(ends).abs() <= SignedDuration::from_secs(2);
            let left = state.window.filter(|(_, known)| same(*known)).map_or(left, |(known, _)| known.min(left));
            state.window = Some((left, ends));
        }
    }

    fn dropped(&self) {
        let mut state = lock(&self.state);
        state.in_flight = state.in_flight.saturating_sub(1);
        state.trying = false;
    }
}

impl Queue for Budget {
    fn enter(&self, portal: &PortalKey, urgency: Urgency) {
        let mut state = lock(&self.state);
        let (was, number) = match state.entered.get(portal) {
            Some((was, number)) => (*was, *number),
            None => {
                state.next += 1;
                (urgency, state.next)
            }
        };
        state.waiting.remove(&(was, number, portal.clone()));
        state.entered.insert(portal.clone(), (urgency, number));
        state.waiting.insert((urgency, number, portal.clone()));
    }

    fn leave(&self, portal: &PortalKey) {
        let mut state = lock(&self.state);
        if let Some((urgency, number)) = state.entered.remove(portal) {
            state.waiting.remove(&(urgency, number, portal.clone()));
        }
    }

    fn order(&self, portal: &PortalKey) -> Option<u64> {
        lock(&self.state).entered.get(portal).map(|(_, number)| *number)
    }

    fn place(&self, portal: &PortalKey) -> Option<Place> {
        let now = self.clock.now();
        let state = lock(&self.state);
        let (urgency, number) = *state.entered.get(portal)?;
        let before = state.waiting.range(..(urgency, number, portal.clone())).count();
        let (quota, seconds) = state.policy.unwrap_or(QUOTA);
        let windows = before as u64 / u64::from((quota - quota / 10).max(1));
        let opens = state.blocked_until.or(state.window.map(|(_, ends)| ends)).filter(|at| *at > now).unwrap_or(now);
        let later = i64::try_from(windows.saturating_mul(u64::from(seconds))).unwrap_or(i64::MAX);
        let expected = opens.checked_add(SignedDuration::from_secs(later)).unwrap_or(opens);
        Some(Place { position: before + 1, expected })
    }
}

impl Permit {
    /// Takes note of the answer's headers.
    pub fn answered(mut self, response: &Response) {
        self.settled = true;
        self.budget.answered(response);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.settled {
            self.budget.dropped();
        }
    }
}

/// Two numbers of a structured header: `"default";r=50;t=30`.
fn pair(text: &str, first: &str, second: &str) -> Option<(u32, u32)> {
    let value = |name: &str| {
        let mut fields = text.split(',').next().unwrap_or_default().split(';').map(str::trim);
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.trim().parse().ok())
    };
    Some((value(first)?, value(second)?))
}

#[cfg(test)]
mod tests;
