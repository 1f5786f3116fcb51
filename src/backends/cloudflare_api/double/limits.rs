//! Cloudflare's rate limit: 1,200 requests of a token in five minutes, and then five minutes of nothing.
use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::http::double::DoubleResponse;

/// Length of a window and of a block, in seconds.
const WINDOW: i64 = 300;

#[derive(Debug)]
struct Window {
    began: Timestamp,
    used: u32,
    blocked_until: Option<Timestamp>,
    /// Calls that came while the token was blocked.
    while_blocked: u32,
}

#[derive(Debug)]
pub(super) struct Limits {
    pub quota: u32,
    windows: HashMap<String, Window>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { quota: 1200, windows: HashMap::new() }
    }
}

fn seconds_until(then: Timestamp, now: Timestamp) -> i64 {
    then.duration_since(now).as_secs().max(0)
}

impl Limits {
    fn window(&mut self, token: &str, now: Timestamp) -> &mut Window {
        let fresh = || Window { began: now, used: 0, blocked_until: None, while_blocked: 0 };
        let window = self.windows.entry(token.to_owned()).or_insert_with(fresh);
        if now.duration_since(window.began) >= SignedDuration::from_secs(WINDOW) {
            (window.began, window.used) = (now, 0);
        }
        if window.blocked_until.is_some_and(|until| now >= until) {
            window.blocked_until = None;
        }
        window
    }

    /// Counts a call, or refuses it.
    pub fn take(&mut self, token: &str, now: Timestamp) -> Result<(), DoubleResponse> {
        let quota = self.quota;
        let window = self.window(token, now);
        if window.blocked_until.is_some() {
            window.while_blocked += 1;
        } else {
            window.used += 1;
            if window.used <= quota {
                return Ok(());
            }
            window.blocked_until = now.checked_add(SignedDuration::from_secs(WINDOW)).ok();
        }
        let wait = window.blocked_until.map_or(WINDOW, |until| seconds_until(until, now));
        Err(throttled(wait))
    }

    /// Blocks a token from now on for a whole window.
    pub fn block(&mut self, token: &str, now: Timestamp) {
        self.window(token, now).blocked_until = now.checked_add(SignedDuration::from_secs(WINDOW)).ok();
    }

    /// Calls of a token that came while it was blocked.
    pub fn while_blocked(&self, token: &str) -> u32 {
        self.windows.get(token).map_or(0, |window| window.while_blocked)
    }

    /// The headers that every answer has.
    pub fn stamp(&mut self, answer: DoubleResponse, token: &str, now: Timestamp) -> DoubleResponse {
        let quota = self.quota;
        let window = self.window(token, now);
        let left = quota.saturating_sub(window.used);
        let rest = WINDOW - now.duration_since(window.began).as_secs();
        answer
            .with_header("ratelimit", &format!("\"default\";r={left};t={rest}"))
            .with_header("ratelimit-policy", &format!("\"default\";q={quota};w={WINDOW}"))
    }
}

fn throttled(wait: i64) -> DoubleResponse {
    let errors = json!([{"code": 971, "message": "Please wait and consider throttling your request speed"}]);
    let body = json!({"success": false, "errors": errors, "messages": [], "result": null});
    DoubleResponse::json(429, &body).with_header("retry-after", &wait.to_string())
}
