//! Why a backend could not do what was asked.
use std::time::Duration;

use jiff::Timestamp;

use crate::config::visible;
use crate::http::HttpError;

/// What a caller should make of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Something that is not ours is in the way; it heals when that goes or is adopted.
    Conflict,
    /// Only a changed spec or setting helps.
    Permanent,
    /// The credential was refused.
    Credential,
    /// Asked to wait.
    Throttled,
    /// Not reachable, or broken on its side.
    Unavailable,
    /// A write may or may not have happened; a read tells.
    OutcomeUnknown,
}

/// A failure with a stable reason and a message for people, free of secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    pub class: ErrorClass,
    /// CamelCase word for conditions, events and metrics.
    pub reason: &'static str,
    pub message: String,
    pub retry_after: Option<Duration>,
    /// Where it stands among those that wait for the same limit.
    pub place: Option<Place>,
}

/// A place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The first is 1.
    pub position: usize,
    /// When its turn is expected to come.
    pub expected: Timestamp,
}

impl BackendError {
    pub fn new(class: ErrorClass, reason: &'static str, message: impl Into<String>) -> Self {
        // Backends read each other's lines; where the message is shown, they become one.
        let lines: Vec<String> = message.into().split('\n').map(visible).collect();
        Self { class, reason, message: lines.join("\n"), retry_after: None, place: None }
    }
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl From<HttpError> for BackendError {
    /// As a failed read; a writer decides about unknown outcomes by [`HttpError::outcome_unknown`].
    fn from(error: HttpError) -> Self {
        let class = match error {
            HttpError::BadAddress { .. } => ErrorClass::Permanent,
            _ => ErrorClass::Unavailable,
        };
        Self::new(class, error.reason(), error.to_string())
    }
}

impl BackendError {
    /// The same failure of a call that writes.
    pub fn of_write(error: HttpError) -> Self {
        let unknown = error.outcome_unknown();
        let mut failure = Self::from(error);
        if unknown {
            failure.class = ErrorClass::OutcomeUnknown;
        }
        failure
    }
}
