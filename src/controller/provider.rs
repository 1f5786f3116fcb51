//! What the mail host says about a mail domain and its sender, asked rarely: its limits are for resets.
use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use super::validate::ValidPortal;
use crate::api::condition::{Finding, PROVIDER_READY, SENDER_VERIFIED, Truth};
use crate::api::{MailAddress, MailDomain};
use crate::mailbox::{MailboxProvider, ProviderError, SenderState};

/// How long good news is believed, and how long bad news.
const GOOD: SignedDuration = SignedDuration::from_mins(10);
const BAD: SignedDuration = SignedDuration::from_secs(15);

/// The domains of an account, and when they were listed.
type Listed = Option<(Timestamp, Result<Vec<MailDomain>, Failure>)>;

#[derive(Clone)]
struct Failure {
    reason: &'static str,
    message: String,
}

/// What is remembered of one account.
#[derive(Default)]
pub struct ProviderFacts {
    domains: Mutex<Listed>,
    senders: Mutex<HashMap<(MailDomain, MailAddress), (Timestamp, Finding)>>,
}

fn fresh(at: Timestamp, now: Timestamp, good: bool) -> bool {
    now >= at && now.duration_since(at) < if good { GOOD } else { BAD }
}

fn failed(type_: &'static str, error: &ProviderError) -> Finding {
    Finding::new(type_, Truth::False, error.reason(), error.to_string())
}

impl ProviderFacts {
    /// `ProviderReady`: the account is usable and has the portal's mail domain.
    pub async fn provider_ready(&self, provider: &dyn MailboxProvider, domain: &MailDomain, now: Timestamp) -> Finding {
        // Held during the call: portals that come at the same time share one list.
        let mut listed = self.domains.lock().await;
        let known = listed.as_ref().filter(|(at, result)| {
            let has = result.as_ref().is_ok_and(|domains| domains.contains(domain));
            fresh(*at, now, has)
        });
        let result = match known {
            Some((_, result)) => result.clone(),
            None => {
                let result = provider
                    .list_domains()
                    .await
                    .map_err(|error| Failure { reason: error.reason(), message: error.to_string() });
                *listed = Some((now, result.clone()));
                result
            }
        };
        match result {
            Ok(domains) if domains.contains(domain) => {
                Finding::new(PROVIDER_READY, Truth::True, "DomainFound", format!("the mail host has {domain}"))
            }
            Ok(_) => {
                let message = format!("the mail host's account has no mail domain {domain}");
                Finding::new(PROVIDER_READY, Truth::False, "DomainNotFound", message)
            }
            Err(failure) => Finding::new(PROVIDER_READY, Truth::False, failure.reason, failure.message),
        }
    }

    /// `SenderVerified`: mails from the sender address will be taken by the mail host.
    pub async fn sender_verified(
        &self,
        provider: &dyn MailboxProvider,
        portal: &ValidPortal,
        now: Timestamp,
    ) -> Finding {
        let key = (portal.domain.clone(), portal.from.clone());
        if let Some((at, finding)) = self.senders.lock().await.get(&key)
            && fresh(*at, now, finding.truth == Truth::True)
        {
            return finding.clone();
        }
        let finding = match provider.sender(&portal.domain, &portal.from).await {
            Ok(SenderState::Ok(words)) => Finding::new(SENDER_VERIFIED, Truth::True, "Deliverable", words),
            Ok(SenderState::NeedsAction(words)) => {
                Finding::new(SENDER_VERIFIED, Truth::False, "SenderNeedsAction", words)
            }
            Err(error) => failed(SENDER_VERIFIED, &error),
        };
        self.senders.lock().await.insert(key, (now, finding.clone()));
        finding
    }
}
