//! Which certificates of Let's Encrypt are ours. NPM keeps no mark on one, so the orders are kept beside it.
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::certificate::Certificate;
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

/// Keeps the orders over restarts, by instance. An order is put before it is made and removed after its certificate is
/// gone or was let go, so that a kill at any point leaves no certificate of ours unknown. The error is a text for people.
#[async_trait]
pub trait OrderBook: Send + Sync + 'static {
    async fn orders(&self, instance: &str) -> Result<Vec<Order>, String>;
    /// One of the same host and `after` is replaced.
    async fn put(&self, instance: &str, order: &Order) -> Result<(), String>;
    /// Removes it if it still says the same.
    async fn remove(&self, instance: &str, order: &Order) -> Result<(), String>;
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
    fn an_order_is_on_its_way_for_a_minute_and_a_clock_that_goes_back_does_not_extend_that() {
        let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        let sent = order(3, None);
        assert!(sent.on_its_way(at(0)) && sent.on_its_way(at(59)));
        assert!(!sent.on_its_way(at(60)) && !sent.on_its_way(at(-1)));
        assert!(!order(3, Some(4)).on_its_way(at(0)), "its end was seen");
    }
}
