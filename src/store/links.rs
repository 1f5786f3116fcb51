//! Reset links: stored as hashes, reserved before the provider is called and finished after it.
//!
//! `Issued → Reserved → Finished`, `Reserved → Issued` (released, or its lease ran out), and `Void` from both.
//! Every step is one conditional statement, so that of two takers one wins, whatever processes they are in.
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use sqlx::Row;

use super::{Store, StoreError};
use crate::api::MailAddress;

/// Reservations of one link before it rests.
const ATTEMPTS: i64 = 5;
/// How long a link rests after too many attempts. It is paused rather than killed, so that a stranger who
/// found it cannot take it from its owner.
const REST: SignedDuration = SignedDuration::from_mins(15);
/// How long a reservation holds while nobody finishes or releases it.
pub const LEASE: SignedDuration = SignedDuration::from_secs(60);

/// SHA-256 of a link's secret; the secret itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkHash([u8; 32]);

impl LinkHash {
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
    fn bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// A link to be stored.
pub struct NewLink<'a> {
    pub hash: LinkHash,
    pub portal_uid: &'a str,
    pub mailbox: &'a MailAddress,
    pub recovery: &'a MailAddress,
    /// Which provider account the password will be set at.
    pub provider: &'a str,
    pub life: SignedDuration,
}

/// A link that this caller alone may use until the lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub mailbox: MailAddress,
    pub provider: String,
    /// The address is not in clear here; compare with [`recovery_hash`].
    pub recovery_hash: Vec<u8>,
}

/// Why a link could not be reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveRefusal {
    /// Unknown, used, void, expired, of another portal, or just being used.
    #[error("the link is not valid")]
    NotValid,
    #[error("the link was tried too often and rests for a while")]
    Resting,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReserveRefusal {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotValid => "LinkNotValid",
            Self::Resting => "LinkResting",
            Self::Store(error) => error.reason(),
        }
    }
}

/// What a link remembers of the address it was sent to.
pub fn recovery_hash(address: &MailAddress) -> Vec<u8> {
    Sha256::digest(address.to_string().as_bytes()).to_vec()
}

impl Store {
    /// Stores a new link unless the mailbox got one within `cool_down`; `false` then. Older links stay
    /// valid until [`Store::link_sent`].
    pub async fn link_issue(
        &self,
        link: &NewLink<'_>,
        cool_down: SignedDuration,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let second = now.as_second();
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM link WHERE expires_at <= ?1 - 86400").bind(second).execute(&mut *transaction).await?;
        let done = sqlx::query(
            "INSERT INTO link (hash, portal_uid, mailbox, recovery_hash, provider, issued_at, expires_at, state) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'Issued' WHERE NOT EXISTS (SELECT 1 FROM link WHERE mailbox = ?3 \
             AND state IN ('Issued', 'Reserved') AND issued_at > ?8 AND expires_at > ?6)",
        )
        .bind(link.hash.bytes())
        .bind(link.portal_uid)
        .bind(link.mailbox.to_string())
        .bind(recovery_hash(link.recovery))
        .bind(link.provider)
        .bind(second)
        .bind(second + link.life.as_secs())
        .bind(second - cool_down.as_secs())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// The link's mail was handed over: it replaces the mailbox's older ones.
    pub async fn link_sent(&self, hash: LinkHash, mailbox: &MailAddress) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE link SET state = 'Void' WHERE mailbox = ?1 AND hash <> ?2 AND state IN ('Issued', 'Reserved')",
        )
        .bind(mailbox.to_string())
        .bind(hash.bytes())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The link's mail could not be handed over: the link was never known to anybody.
    pub async fn link_unsent(&self, hash: LinkHash) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM link WHERE hash = ?1").bind(hash.bytes()).execute(&self.pool).await?;
        Ok(())
    }

    /// The mailbox of a usable link. Changes nothing.
    pub async fn link_mailbox(
        &self,
        hash: LinkHash,
        portal_uid: &str,
        now: Timestamp,
    ) -> Result<Option<MailAddress>, StoreError> {
        let row = sqlx::query(
            "SELECT mailbox FROM link WHERE hash = ?1 AND portal_uid = ?2 AND expires_at > ?3 \
             AND state IN ('Issued', 'Reserved')",
        )
        .bind(hash.bytes())
        .bind(portal_uid)
        .bind(now.as_second())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| MailAddress::parse(row.get(0)).map_err(|_| StoreError::Damaged("a link's mailbox"))).transpose()
    }

    /// Takes a link for one provider call.
    pub async fn link_reserve(
        &self,
        hash: LinkHash,
        portal_uid: &str,
        now: Timestamp,
    ) -> Result<Reservation, ReserveRefusal> {
        let second = now.as_second();
        let row = sqlx::query(
            "UPDATE link SET state = 'Reserved', lease_until = ?3 + ?4, \
             attempts = CASE WHEN attempts >= ?5 THEN 1 ELSE attempts + 1 END \
             WHERE hash = ?1 AND portal_uid = ?2 AND expires_at > ?3 \
             AND (state = 'Issued' OR (state = 'Reserved' AND lease_until <= ?3)) \
             AND (attempts < ?5 OR lease_until + ?6 <= ?3) RETURNING mailbox, provider, recovery_hash",
        )
        .bind(hash.bytes())
        .bind(portal_uid)
        .bind(second)
        .bind(LEASE.as_secs())
        .bind(ATTEMPTS)
        .bind(REST.as_secs())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::from)?;
        match row {
            Some(row) => {
                let mailbox = MailAddress::parse(row.get(0)).map_err(|_| StoreError::Damaged("a link's mailbox"))?;
                Ok(Reservation { mailbox, provider: row.get(1), recovery_hash: row.get(2) })
            }
            None => {
                let resting = sqlx::query(
                    "SELECT 1 FROM link WHERE hash = ?1 AND portal_uid = ?2 AND expires_at > ?3 AND state = 'Issued'",
                )
                .bind(hash.bytes())
                .bind(portal_uid)
                .bind(second)
                .fetch_optional(&self.pool)
                .await
                .map_err(StoreError::from)?;
                Err(if resting.is_some() { ReserveRefusal::Resting } else { ReserveRefusal::NotValid })
            }
        }
    }

    /// The password was set: this link is used up and the mailbox's others are void.
    pub async fn link_finish(&self, hash: LinkHash, mailbox: &MailAddress) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE link SET state = 'Finished' WHERE hash = ?1")
            .bind(hash.bytes())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE link SET state = 'Void' WHERE mailbox = ?1 AND state IN ('Issued', 'Reserved')")
            .bind(mailbox.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The provider refused for certain: the link may be used again. `used` counts as an attempt. The end of
    /// the lease is kept as the time of the last attempt, from which a resting link counts.
    pub async fn link_release(&self, hash: LinkHash, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE link SET state = 'Issued', lease_until = ?2 WHERE hash = ?1 AND state = 'Reserved'")
            .bind(hash.bytes())
            .bind(now.as_second())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Voids every open link of a portal that is gone or no longer accepted.
    pub async fn links_void_portal(&self, portal_uid: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE link SET state = 'Void' WHERE portal_uid = ?1 AND state IN ('Issued', 'Reserved')")
            .bind(portal_uid)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Recovery;

    const COOL_DOWN: SignedDuration = SignedDuration::from_mins(10);

    fn mail(text: &str) -> MailAddress {
        MailAddress::parse(text).unwrap()
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    async fn issue(store: &Store, secret: &[u8], minute: i64) -> bool {
        let (mailbox, recovery) = (mail("ann@acme.example"), mail("ann@home.example"));
        let link = NewLink {
            hash: LinkHash::of(secret),
            portal_uid: "u1",
            mailbox: &mailbox,
            recovery: &recovery,
            provider: "mxroute",
            life: SignedDuration::from_mins(30),
        };
        store.link_issue(&link, COOL_DOWN, at(minute)).await.unwrap()
    }

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("p.db")).await.unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_link_is_used_once() {
        let (_folder, store) = store().await;
        assert!(issue(&store, b"one", 0).await);
        let hash = LinkHash::of(b"one");
        // of two takers at the same time one wins
        let (a, b) = tokio::join!(store.link_reserve(hash, "u1", at(1)), store.link_reserve(hash, "u1", at(1)));
        assert_eq!(a.is_ok() as u8 + b.is_ok() as u8, 1);
        store.link_finish(hash, &mail("ann@acme.example")).await.unwrap();
        assert!(matches!(store.link_reserve(hash, "u1", at(2)).await, Err(ReserveRefusal::NotValid)));
        assert_eq!(store.link_mailbox(hash, "u1", at(2)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn wrong_portal_wrong_secret_and_late_links_are_refused_without_a_trace() {
        let (_folder, store) = store().await;
        issue(&store, b"one", 0).await;
        let hash = LinkHash::of(b"one");
        assert!(store.link_reserve(hash, "u2", at(1)).await.is_err());
        assert!(store.link_reserve(LinkHash::of(b"two"), "u1", at(1)).await.is_err());
        assert!(store.link_reserve(hash, "u1", at(30)).await.is_err());
        assert!(store.link_reserve(hash, "u1", at(29)).await.is_ok());
    }

    #[tokio::test]
    async fn within_the_cool_down_no_new_link_is_made_and_later_ones_replace_only_when_sent() {
        let (_folder, store) = store().await;
        assert!(issue(&store, b"one", 0).await);
        assert!(!issue(&store, b"two", 9).await);
        assert!(issue(&store, b"three", 11).await);
        assert!(store.link_mailbox(LinkHash::of(b"one"), "u1", at(12)).await.unwrap().is_some());
        store.link_sent(LinkHash::of(b"three"), &mail("ann@acme.example")).await.unwrap();
        assert!(store.link_mailbox(LinkHash::of(b"one"), "u1", at(12)).await.unwrap().is_none());
        assert!(store.link_mailbox(LinkHash::of(b"three"), "u1", at(12)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_reservation_that_nobody_ends_is_free_again_after_its_lease_and_five_tries_pause_the_link() {
        let (_folder, store) = store().await;
        issue(&store, b"one", 0).await;
        let hash = LinkHash::of(b"one");
        assert!(store.link_reserve(hash, "u1", at(1)).await.is_ok());
        assert!(store.link_reserve(hash, "u1", at(1)).await.is_err());
        for _ in 0..4 {
            assert!(store.link_reserve(hash, "u1", at(2)).await.is_ok());
            store.link_release(hash, at(2)).await.unwrap();
        }
        assert!(matches!(store.link_reserve(hash, "u1", at(2)).await, Err(ReserveRefusal::Resting)));
        assert!(store.link_reserve(hash, "u1", at(17)).await.is_ok());
    }

    #[tokio::test]
    async fn a_changed_recovery_address_voids_open_links_and_an_unchanged_one_does_not() {
        let (_folder, store) = store().await;
        let entry = |address: &str| [Recovery { mailbox: mail("ann@acme.example"), address: mail(address) }];
        assert_eq!(store.recovery_set(&entry("ann@home.example"), at(0)).await.unwrap(), 1);
        issue(&store, b"one", 0).await;
        assert_eq!(store.recovery_set(&entry("ann@home.example"), at(1)).await.unwrap(), 0);
        assert!(store.link_mailbox(LinkHash::of(b"one"), "u1", at(2)).await.unwrap().is_some());
        assert_eq!(store.recovery_set(&entry("ann@new.example"), at(1)).await.unwrap(), 1);
        assert!(store.link_mailbox(LinkHash::of(b"one"), "u1", at(2)).await.unwrap().is_none());
        assert_eq!(store.recovery_of(&mail("ann@acme.example")).await.unwrap(), Some(mail("ann@new.example")));
        assert!(store.recovery_remove(&mail("ann@acme.example")).await.unwrap());
        assert!(store.recovery_list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_secret_is_not_in_the_file() {
        let (folder, store) = store().await;
        issue(&store, b"a-very-secret-link", 0).await;
        drop(store);
        for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(18).any(|w| w == b"a-very-secret-link"), "{:?}", entry.path());
        }
    }
}
