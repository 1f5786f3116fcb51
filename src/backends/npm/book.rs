//! Which certificates of Let's Encrypt are ours. NPM keeps no mark on one, so the orders are kept beside it.
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::certificate::Certificate;
use crate::backends::{BackendError, ErrorClass};
use crate::plan::Mark;

/// NPM lists a certificate from the moment at which it takes an order up. One that was sent this long ago and is not
/// listed never was, or has failed.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_secs(60);

/// An order at Let's Encrypt, made or just about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub host: String,
    pub mark: Mark,
    /// Highest id that a certificate had right before: that of the ordered one is higher, because ids are never given
    /// twice.
    pub after: u64,
    /// The certificate it came to; `None` until that is known.
    pub certificate: Option<u64>,
    /// When it was made, to the second.
    pub at: Timestamp,
}

/// Reason of an order whose end was not seen.
pub const OUTCOME_UNKNOWN: &str = "CertificateOutcomeUnknown";
/// Every reason of an order that came to nothing; the last one is for those without a better one.
const REASONS: [&str; 6] = [
    "CertificateRateLimited",
    "CertificateBusy",
    "CertificateAuthorityUnreachable",
    "CertificateChallengeFailed",
    OUTCOME_UNKNOWN,
    "CertificateFailed",
];

/// An order that came to nothing, and how long none is made for the host again: Let's Encrypt counts failures, and does
/// not care whether this program was started anew in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub host: String,
    pub reason: String,
    pub message: String,
    /// When, to the second.
    pub at: Timestamp,
    pub pause: SignedDuration,
}

impl Refusal {
    /// What is left of the pause. A clock that went back does not extend it.
    pub fn left(&self, now: Timestamp) -> Option<SignedDuration> {
        let passed = now.duration_since(self.at);
        (!passed.is_negative() && passed < self.pause).then(|| self.pause - passed)
    }

    /// What a portal is told meanwhile.
    pub fn error(&self, left: SignedDuration) -> BackendError {
        let known = REASONS.iter().find(|reason| **reason == self.reason);
        let reason = known.copied().unwrap_or("CertificateFailed");
        let class = if reason == OUTCOME_UNKNOWN { ErrorClass::OutcomeUnknown } else { ErrorClass::Unavailable };
        let mut error = BackendError::new(class, reason, self.message.clone());
        error.retry_after = Duration::try_from(left).ok();
        error
    }
}

/// Keeps the orders over restarts, by instance. An order is put before it is made and removed after its certificate is
/// gone or was let go, so that a kill at any point leaves no certificate of ours unknown. The error is a text for people.
#[async_trait]
pub trait OrderBook: Send + Sync + 'static {
    async fn orders(&self, instance: &str) -> Result<Vec<Order>, String>;
    /// One of the same host and `after` is replaced.
    async fn put(&self, instance: &str, order: &Order) -> Result<(), String>;
    /// Removes it if it still says the same.
    async fn remove(&self, instance: &str, order: &Order) -> Result<(), String>;
    /// The last order for the host that came to nothing.
    async fn refusal(&self, instance: &str, host: &str) -> Result<Option<Refusal>, String>;
    /// One of the same host is replaced.
    async fn refuse(&self, instance: &str, refusal: &Refusal) -> Result<(), String>;
    async fn forgive(&self, instance: &str, host: &str) -> Result<(), String>;
}

impl Order {
    /// Its certificate, where NPM has it. Without a known id that is the first one for the host alone that NPM's user
    /// owns and that came after the order; a second one is somebody else's.
    pub fn find<'a>(&self, certificates: &'a [Certificate], user: Option<u64>) -> Option<&'a Certificate> {
        let fits = certificates.iter().filter(|c| c.letsencrypt && c.is_for(&self.host));
        match self.certificate {
            Some(id) => fits.into_iter().find(|c| c.id == id),
            None => fits.filter(|c| c.id > self.after && c.owned_by(user)).min_by_key(|c| c.id),
        }
    }

    /// Whether it may still reach NPM. A clock that went back does not make it younger.
    pub fn on_its_way(&self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.at);
        self.certificate.is_none() && !passed.is_negative() && passed < ON_ITS_WAY
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::PortalKey;
    use crate::plan::InstallationId;

    fn order(after: u64, certificate: Option<u64>) -> Order {
        let installation = InstallationId::parse("0123456789abcdef").unwrap();
        let key = PortalKey { namespace: "mail".into(), name: "acme".into() };
        let (host, mark) = ("reset.acme.example".to_owned(), Mark::new(&installation, &key));
        Order { host, mark, after, certificate, at: Timestamp::UNIX_EPOCH }
    }

    fn certificate(id: u64, provider: &str, names: &[&str], owner: u64) -> Certificate {
        let at = "1970-01-01 00:00:00";
        let row = json!({
            "id": id, "provider": provider, "nice_name": names.join(", "), "domain_names": names, "created_on": at,
            "expires_on": at, "owner_user_id": owner, "meta": {},
        });
        Certificate::parse(&row, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn only_what_came_of_the_order_is_found() {
        let host = "reset.acme.example";
        let all = [
            certificate(3, "letsencrypt", &[host], 1),
            certificate(5, "other", &[host], 1),
            certificate(6, "letsencrypt", &[host, "www.acme.example"], 1),
            certificate(7, "letsencrypt", &["reset.globex.example"], 1),
            certificate(8, "letsencrypt", &[host], 2),
            certificate(9, "letsencrypt", &[host], 1),
            certificate(10, "letsencrypt", &[host], 1),
        ];
        let found = |order: &Order, user| order.find(&all, user).map(|c| c.id);
        assert_eq!(found(&order(3, None), Some(1)), Some(9), "older, for other names, and of other users are not");
        assert_eq!(found(&order(9, None), Some(1)), Some(10));
        assert_eq!(found(&order(10, None), Some(1)), None);
        assert_eq!(found(&order(3, Some(10)), Some(1)), Some(10), "once it is known, no other one is");
        assert_eq!(found(&order(3, Some(11)), Some(1)), None);
    }

    #[test]
    fn a_refusal_is_told_with_its_reason_until_its_pause_is_over() {
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let (reason, pause) = ("CertificateRateLimited".to_owned(), SignedDuration::from_secs(3600));
        let refusal = Refusal { host: "a".into(), reason, message: "too many".into(), at: at(0), pause };
        let error = refusal.error(refusal.left(at(600)).unwrap());
        assert_eq!((error.reason, error.message.as_str()), ("CertificateRateLimited", "too many"));
        assert_eq!(error.retry_after, Some(Duration::from_secs(3000)));
        assert_eq!((refusal.left(at(3600)), refusal.left(at(-1))), (None, None));
        let unknown = Refusal { reason: OUTCOME_UNKNOWN.into(), ..refusal.clone() };
        assert_eq!(unknown.error(pause).class, ErrorClass::OutcomeUnknown);
        assert_eq!(Refusal { reason: "Other".into(), ..refusal }.error(pause).reason, "CertificateFailed");
    }

    #[test]
    fn an_order_is_on_its_way_for_a_minute_and_a_clock_that_goes_back_does_not_extend_that() {
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let sent = order(3, None);
        assert!(sent.on_its_way(at(0)) && sent.on_its_way(at(59)));
        assert!(!sent.on_its_way(at(60)) && !sent.on_its_way(at(-1)));
        assert!(!order(3, Some(4)).on_its_way(at(0)), "its end was seen");
    }
}
