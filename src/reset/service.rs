//! Requests for links, and their use.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{Semaphore, mpsc};

use super::directory::ServedPortal;
use super::link::LinkSecret;
use super::mails;
use crate::api::MailAddress;
use crate::api::clock::Clock;
use crate::config::Secret;
use crate::http::shutdown::Shutdown;
use crate::mailbox::{MailboxState, ProviderError};
use crate::store::{AuditEvent, LinkHash, NewLink, ReserveRefusal, Store, recovery_hash};
use crate::telemetry::metrics;

/// Requests that may wait; more are dropped, with the same page for the visitor.
const QUEUE: usize = 256;
/// Requests in work at the same time.
const AT_ONCE: usize = 16;
/// No second mail for a mailbox within this time; the first link stays valid.
const COOL_DOWN: SignedDuration = SignedDuration::from_mins(10);
/// Longest password taken, in bytes; what hosts cut off silently is worse than a refusal.
const LONGEST_PASSWORD: usize = 72;
/// Tries of one password change whose outcome is not known. The same value again is harmless.
const TRIES: u32 = 3;

/// What became of a new password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutcome {
    Changed,
    /// The words say what the password needs. The link stays usable.
    PasswordRefused(String),
    /// Unknown, used, expired or of another portal; a new one can be asked for.
    LinkInvalid,
    /// Not the visitor's fault; the link stays usable.
    TryLater,
}

struct Request {
    portal: Arc<ServedPortal>,
    mailbox: String,
    client: IpAddr,
}

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
}

/// The service behind the pages. Cheap to clone.
#[derive(Clone)]
pub struct ResetService {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Request>,
}

impl ResetService {
    /// Starts the worker that makes and mails links; it ends with `shutdown`.
    pub fn start(store: Store, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Self {
        let inner = Arc::new(Inner { store, clock });
        let (queue, requests) = mpsc::channel(QUEUE);
        tokio::spawn(work(Arc::clone(&inner), requests, shutdown));
        Self { inner, queue }
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }
    pub fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }

    /// Takes a visitor's request for a link. It answers at once and the same for everybody: whether the
    /// mailbox exists is found out later, elsewhere.
    pub fn request(&self, portal: &Arc<ServedPortal>, mailbox: &str, client: IpAddr) {
        // Longer than any address; not worth a place in the queue.
        if mailbox.len() > 400 {
            return;
        }
        let request = Request { portal: Arc::clone(portal), mailbox: mailbox.to_owned(), client };
        if self.queue.try_send(request).is_err() {
            metrics::reset("request", "QueueFull");
        }
    }

    /// Sets a new password by a link's secret.
    pub async fn confirm(
        &self,
        portal: &ServedPortal,
        secret: &str,
        password: &Secret,
        client: IpAddr,
    ) -> ConfirmOutcome {
        let (outcome, mailbox, result) = self.inner.confirm(portal, secret, password).await;
        metrics::reset("confirm", result);
        let mailbox = mailbox.map(|mailbox| mailbox.to_string()).unwrap_or_default();
        self.inner.audit(portal, "reset", &mailbox, result, client).await;
        outcome
    }
}

async fn work(inner: Arc<Inner>, mut requests: mpsc::Receiver<Request>, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            () = shutdown.wait() => return,
        };
        let Some(request) = request else { return };
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            let result = inner.answer(&request).await;
            metrics::reset("request", result);
            inner.audit(&request.portal, "request", &request.mailbox, result, request.client).await;
            drop(place);
        });
    }
}

impl Inner {
    /// Makes and mails a link if the mailbox may have one. The word says what happened, for audit and metrics.
    async fn answer(&self, request: &Request) -> &'static str {
        let portal = &request.portal;
        let Ok(mailbox) = MailAddress::parse(&request.mailbox) else { return "NotAnAddress" };
        if *mailbox.domain() != portal.domain {
            return "OtherDomain";
        }
        let (Some(account), Some(mailer)) = (&portal.account, &portal.mailer) else { return "NotConfigured" };
        let recovery = match self.store.recovery_of(&mailbox).await {
            Ok(Some(recovery)) => recovery,
            Ok(None) => return "NoRecoveryAddress",
            Err(error) => return self.failed(portal, &error, error.reason()),
        };
        if recovery == mailbox {
            return "RecoveryIsMailbox";
        }
        match account.provider.mailbox(&mailbox).await {
            Ok(MailboxState::Exists) => {}
            Ok(MailboxState::Missing) => return "MailboxMissing",
            Ok(MailboxState::Suspended) => return "MailboxSuspended",
            Err(error) => return self.failed(portal, &error, error.reason()),
        }
        let secret = LinkSecret::random();
        let hash = LinkHash::of(secret.bytes());
        let now = self.clock.now();
        let life = SignedDuration::from_mins(i64::from(portal.link_minutes));
        let link = NewLink {
            hash,
            portal_uid: &portal.uid,
            mailbox: &mailbox,
            recovery: &recovery,
            provider: &account.id,
            life,
        };
        match self.store.link_issue(&link, COOL_DOWN, now).await {
            Ok(true) => {}
            Ok(false) => return "CoolDown",
            Err(error) => return self.failed(portal, &error, error.reason()),
        }
        let mail = mails::link(portal, &mailbox, &recovery, &secret, now.saturating_add(life).unwrap_or(now));
        if let Err(error) = mailer.send(mail).await {
            if let Err(error) = self.store.link_unsent(hash).await {
                tracing::error!(portal = %portal.key, reason = error.reason(), "{error}");
            }
            return self.failed(portal, &error, error.reason());
        }
        match self.store.link_sent(hash, &mailbox).await {
            Ok(()) => "LinkSent",
            Err(error) => self.failed(portal, &error, error.reason()),
        }
    }

    fn failed(&self, portal: &ServedPortal, error: &dyn std::error::Error, reason: &'static str) -> &'static str {
        tracing::warn!(portal = %portal.key, reason, "a reset request could not be served: {error}");
        reason
    }

    async fn confirm(
        &self,
        portal: &ServedPortal,
        secret: &str,
        password: &Secret,
    ) -> (ConfirmOutcome, Option<MailAddress>, &'static str) {
        use ConfirmOutcome::{Changed, LinkInvalid, PasswordRefused, TryLater};
        let Some(secret) = LinkSecret::parse(secret) else { return (LinkInvalid, None, "LinkMalformed") };
        let Some(account) = &portal.account else { return (TryLater, None, "NotConfigured") };
        let hash = LinkHash::of(secret.bytes());
        let mailbox = match self.store.link_mailbox(hash, &portal.uid, self.clock.now()).await {
            Ok(Some(mailbox)) => mailbox,
            Ok(None) => return (LinkInvalid, None, "LinkNotValid"),
            Err(error) => return (TryLater, None, self.failed(portal, &error, error.reason())),
        };
        // What the link is worth is decided before the link is touched: a refused password costs nothing.
        if let Err(words) = acceptable(portal, password, &mailbox) {
            return (PasswordRefused(words), Some(mailbox), "PasswordRefused");
        }
        let reservation = match self.store.link_reserve(hash, &portal.uid, self.clock.now()).await {
            Ok(reservation) => reservation,
            Err(ReserveRefusal::NotValid) => return (LinkInvalid, Some(mailbox), "LinkNotValid"),
            Err(ReserveRefusal::Resting) => return (TryLater, Some(mailbox), "LinkResting"),
            Err(ReserveRefusal::Store(error)) => {
                return (TryLater, Some(mailbox), self.failed(portal, &error, error.reason()));
            }
        };
        let recovery = match self.store.recovery_of(&mailbox).await {
            Ok(recovery) => recovery,
            Err(error) => return (TryLater, Some(mailbox), self.failed(portal, &error, error.reason())),
        };
        let current = recovery.as_ref().map(recovery_hash);
        if reservation.provider != account.id || current.as_deref() != Some(reservation.recovery_hash.as_slice()) {
            return (LinkInvalid, Some(mailbox), "LinkOutdated");
        }
        let mut outcome = account.provider.set_password(&mailbox, password).await;
        for attempt in 1..TRIES {
            if !matches!(outcome, Err(ProviderError::OutcomeUnknown { .. })) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500 * u64::from(attempt))).await;
            outcome = account.provider.set_password(&mailbox, password).await;
        }
        match outcome {
            Ok(()) => {
                if let Err(error) = self.store.link_finish(hash, &mailbox).await {
                    // The reservation still keeps the link from being used; its lease is short.
                    self.failed(portal, &error, error.reason());
                }
                self.notify(portal, &mailbox, recovery.as_ref()).await;
                (Changed, Some(mailbox), "Changed")
            }
            // Not known whether it happened: the reservation stays until its lease ends.
            Err(error @ ProviderError::OutcomeUnknown { .. }) => {
                (TryLater, Some(mailbox), self.failed(portal, &error, error.reason()))
            }
            Err(error) => {
                if let Err(error) = self.store.link_release(hash, self.clock.now()).await {
                    self.failed(portal, &error, error.reason());
                }
                let result = self.failed(portal, &error, error.reason());
                match error {
                    ProviderError::PolicyRejected { .. } => {
                        let words = account.provider.policy().describe();
                        (
                            PasswordRefused(format!("The mail server did not accept this password. {words}")),
                            Some(mailbox),
                            result,
                        )
                    }
                    _ => (TryLater, Some(mailbox), result),
                }
            }
        }
    }

    /// Tells the owner at both addresses. The password is changed already, so a failure is only logged.
    async fn notify(&self, portal: &ServedPortal, mailbox: &MailAddress, recovery: Option<&MailAddress>) {
        let Some(mailer) = &portal.mailer else { return };
        for to in recovery.into_iter().chain([mailbox]) {
            if let Err(error) = mailer.send(mails::changed(portal, mailbox, to, self.clock.now())).await {
                self.failed(portal, &error, error.reason());
            }
        }
    }

    async fn audit(&self, portal: &ServedPortal, action: &str, mailbox: &str, result: &str, client: IpAddr) {
        let mailbox: String = mailbox.chars().filter(|c| !c.is_control()).take(320).collect();
        let client = bucket(client);
        tracing::info!(portal = %portal.key, action, result, client, "password reset");
        let event = AuditEvent {
            at: self.clock.now(),
            portal: portal.key.to_string(),
            portal_uid: portal.uid.clone(),
            action: action.to_owned(),
            mailbox,
            result: result.to_owned(),
            client,
            actor: "owner".to_owned(),
        };
        if let Err(error) = self.store.audit_append(&event).await {
            tracing::error!(portal = %portal.key, reason = error.reason(), "cannot write the audit trail: {error}");
        }
    }
}

/// The portal's own rule, then the provider's. The words are for the visitor.
fn acceptable(portal: &ServedPortal, password: &Secret, mailbox: &MailAddress) -> Result<(), String> {
    let text = password.expose();
    let least = portal.minimum_password_length as usize;
    if text.chars().count() < least {
        return Err(format!("The password needs at least {least} characters."));
    }
    if text.len() > LONGEST_PASSWORD {
        return Err(format!("The password is too long: at most {LONGEST_PASSWORD} bytes."));
    }
    if text.chars().any(char::is_control) {
        return Err("The password has a character that cannot be typed everywhere, such as a line break.".to_owned());
    }
    match &portal.account {
        Some(account) => account.provider.policy().check(text, mailbox),
        None => Ok(()),
    }
}

/// The client's network: the IPv4 address itself, or the /64 of an IPv6 address.
fn bucket(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}
