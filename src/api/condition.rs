//! Condition types and reasons, and the one function that sets them.
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::config::shortened;

pub const ACCEPTED: &str = "Accepted";
pub const CLAIMED: &str = "Claimed";
pub const DNS_PROGRAMMED: &str = "DNSProgrammed";
pub const ROUTE_PROGRAMMED: &str = "RouteProgrammed";
pub const CERTIFICATE_ISSUED: &str = "CertificateIssued";
pub const SENDER_VERIFIED: &str = "SenderVerified";
pub const PROVIDER_READY: &str = "ProviderReady";
/// Present while a portal moves to another proxy, and after a move that left something undone.
pub const MOVED: &str = "Moved";
pub const LIVE: &str = "Live";
pub const READY: &str = "Ready";

/// Reason of a condition whose system needs some seconds to take in what was written: nothing is wrong yet.
pub const LOADING: &str = "Loading";

/// Tri-state of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A finding that becomes a condition once generation and time are stamped on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub type_: &'static str,
    pub truth: Truth,
    pub reason: String,
    pub message: String,
}

impl Finding {
    pub fn new(type_: &'static str, truth: Truth, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { type_, truth, reason: reason.into(), message: message.into() }
    }
}

/// Longest message of a condition, in characters.
pub const LONGEST_MESSAGE: usize = 4000;

/// The new condition list: exactly the findings, in their order, each stamped with `generation`; the transition time
/// moves only where the truth changed. What others have a say in is made visible, whatever it is.
pub fn conditions(previous: &[Condition], findings: &[Finding], generation: i64, now: Timestamp) -> Vec<Condition> {
    findings
        .iter()
        .map(|finding| {
            let kept = previous.iter().find(|c| c.type_ == finding.type_ && c.status == finding.truth.as_str());
            Condition {
                type_: finding.type_.to_owned(),
                status: finding.truth.as_str().to_owned(),
                reason: finding.reason.clone(),
                message: shortened(&finding.message, LONGEST_MESSAGE),
                observed_generation: Some(generation),
                last_transition_time: kept.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_condition_speaks_to_a_terminal() {
        let found = [Finding::new(LIVE, Truth::False, "Odd", "it said \u{1b}]0;x\u{7}\nand more")];
        let listed = conditions(&[], &found, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(listed[0].message, r"it said \u{1b}]0;x\u{7} and more");
        // and what is unchanged stays so
        assert_eq!(conditions(&listed, &found, 1, Timestamp::now()), listed);
    }
}
