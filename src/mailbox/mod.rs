//! Mail hosts: what the program needs of whoever holds the mailboxes, behind one trait.
pub mod mxroute;
mod policy;

use std::time::Duration;

use async_trait::async_trait;

pub use policy::PasswordPolicy;

use crate::api::{MailAddress, MailDomain};
use crate::config::Secret;

/// Whether a mailbox is there. Never shown to the public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailboxState {
    Exists,
    Missing,
    Suspended,
}

/// Whether mails from an address will be taken by the mail host. The words are for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderState {
    Ok(String),
    NeedsAction(String),
}

/// Why a mail host did not do what was asked. Messages are for the operator and hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The new password is not good enough for the host.
    #[error("the mail host refused the password: {message}")]
    PolicyRejected { message: String },
    #[error("the mail host has no such mailbox")]
    Missing,
    #[error("the mailbox is suspended at the mail host")]
    Suspended,
    #[error("the mail host refused the credential: {message}")]
    Credential { message: String },
    /// Refused before any effect.
    #[error("the mail host asks to wait{}", wait_words(.retry_after))]
    Throttled { retry_after: Option<Duration> },
    #[error("the mail host cannot be used: {message}")]
    Unavailable { message: String },
    /// A change was sent and nobody knows whether it was made; the same change again is harmless.
    #[error("the mail host did not say whether the change was made: {message}")]
    OutcomeUnknown { message: String },
}

fn wait_words(retry_after: &Option<Duration>) -> String {
    retry_after.map(|wait| format!(" for {} s", wait.as_secs())).unwrap_or_default()
}

impl ProviderError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PolicyRejected { .. } => "PasswordRejected",
            Self::Missing => "MailboxMissing",
            Self::Suspended => "MailboxSuspended",
            Self::Credential { .. } => "KeyRefused",
            Self::Throttled { .. } => "RateLimited",
            Self::Unavailable { .. } => "ProviderUnavailable",
            Self::OutcomeUnknown { .. } => "OutcomeUnknown",
        }
    }
}

/// One account at a mail host.
#[async_trait]
pub trait MailboxProvider: Send + Sync + 'static {
    /// The account's mail domains; those that are no valid names are left out.
    async fn list_domains(&self) -> Result<Vec<MailDomain>, ProviderError>;
    async fn mailbox(&self, address: &MailAddress) -> Result<MailboxState, ProviderError>;
    /// Safe to repeat with the same password.
    async fn set_password(&self, address: &MailAddress, password: &Secret) -> Result<(), ProviderError>;
    /// Whether mails from `from` are taken, for the portal of `domain`.
    async fn sender(&self, domain: &MailDomain, from: &MailAddress) -> Result<SenderState, ProviderError>;
    fn policy(&self) -> PasswordPolicy;
}
