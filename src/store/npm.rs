//! The certificates that this installation ordered through Nginx Proxy Manager: they themselves have no place for a mark.
use jiff::{SignedDuration, Timestamp};
use sqlx::Row;

use super::{Store, StoreError};
use crate::plan::{Mark, Ownership};

/// An order that was made, or is just about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpmOrder {
    pub host: String,
    pub mark: Mark,
    /// Highest id of a certificate before it.
    pub after: u64,
    /// What came of it, once that is known.
    pub certificate: Option<u64>,
    /// When, to the second.
    pub at: Timestamp,
}

/// An order that came to nothing, and how long none is made for the host again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpmRefusal {
    pub host: String,
    pub reason: String,
    pub message: String,
    /// When, to the second.
    pub at: Timestamp,
    /// To the second.
    pub pause: SignedDuration,
}

/// Refusals whose pause was over this long ago, in seconds, are forgotten.
const KEPT: i64 = 24 * 3600;

/// Ids are far below the limit.
fn number(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

impl Store {
    pub async fn npm_orders(&self, instance: &str) -> Result<Vec<NpmOrder>, StoreError> {
        let select =
            "SELECT host, mark, after, certificate, at FROM npm_order WHERE instance = ?1 ORDER BY host, after";
        let rows = sqlx::query(select).bind(instance).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let Ownership::Marked(mark) = Mark::from_text(row.get(1)) else {
                    return Err(StoreError::Damaged("the mark of a certificate order is not readable"));
                };
                let certificate: Option<i64> = row.get(3);
                Ok(NpmOrder {
                    host: row.get(0),
                    mark,
                    after: u64::try_from(row.get::<i64, _>(2)).unwrap_or(0),
                    certificate: certificate.and_then(|id| u64::try_from(id).ok()),
                    at: Timestamp::from_second(row.get(4))
                        .map_err(|_| StoreError::Damaged("the time of a certificate order is not readable"))?,
                })
            })
            .collect()
    }

    /// Notes an order. One of the same host and `after` is replaced.
    pub async fn npm_order_put(&self, instance: &str, order: &NpmOrder) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO npm_order (instance, host, after, mark, certificate, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (instance, host, after) DO UPDATE SET mark = ?4, certificate = ?5, at = ?6",
        )
        .bind(instance)
        .bind(&order.host)
        .bind(number(order.after))
        .bind(order.mark.to_string())
        .bind(order.certificate.map(number))
        .bind(order.at.as_second())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets an order if it still says the same.
    pub async fn npm_order_remove(&self, instance: &str, order: &NpmOrder) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM npm_order WHERE instance = ?1 AND host = ?2 AND after = ?3 AND mark = ?4 AND certificate IS ?5",
        )
        .bind(instance)
        .bind(&order.host)
        .bind(number(order.after))
        .bind(order.mark.to_string())
        .bind(order.certificate.map(number))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The last order for the host that came to nothing.
    pub async fn npm_refusal(&self, instance: &str, host: &str) -> Result<Option<NpmRefusal>, StoreError> {
        let select = "SELECT reason, message, at, pause FROM npm_refusal WHERE instance = ?1 AND host = ?2";
        let row = sqlx::query(select).bind(instance).bind(host).fetch_optional(&self.pool).await?;
        row.map(|row| {
            Ok(NpmRefusal {
                host: host.to_owned(),
                reason: row.get(0),
                message: row.get(1),
                at: Timestamp::from_second(row.get(2))
                    .map_err(|_| StoreError::Damaged("the time of a refused certificate order is not readable"))?,
                pause: SignedDuration::from_secs(row.get(3)),
            })
        })
        .transpose()
    }

    /// Notes a refusal, instead of an earlier one of the host.
    pub async fn npm_refuse(&self, instance: &str, refusal: &NpmRefusal) -> Result<(), StoreError> {
        let at = refusal.at.as_second();
        sqlx::query("DELETE FROM npm_refusal WHERE at + pause < ?1 - ?2")
            .bind(at)
            .bind(KEPT)
            .execute(&self.pool)
            .await?;
        sqlx::query(
            "INSERT INTO npm_refusal (instance, host, reason, message, at, pause) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (instance, host) DO UPDATE SET reason = ?3, message = ?4, at = ?5, pause = ?6",
        )
        .bind(instance)
        .bind(&refusal.host)
        .bind(&refusal.reason)
        .bind(&refusal.message)
        .bind(at)
        .bind(refusal.pause.as_secs())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Orders may be made for the host again.
    pub async fn npm_forgive(&self, instance: &str, host: &str) -> Result<(), StoreError> {
        let delete = "DELETE FROM npm_refusal WHERE instance = ?1 AND host = ?2";
        sqlx::query(delete).bind(instance).bind(host).execute(&self.pool).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortalKey;

    #[tokio::test]
    async fn noted_orders_survive_a_restart_and_are_forgotten_only_as_they_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portalkeeper.db");
        let store = Store::open(&path).await.unwrap();
        let key = PortalKey { namespace: "mail".into(), name: "acme".into() };
        let order = NpmOrder {
            host: "reset.acme.example".into(),
            mark: Mark::new(store.installation(), &key),
            after: 7,
            certificate: None,
            at: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        store.npm_order_put("npm/a:81", &order).await.unwrap();
        store.npm_order_put("npm/b:81", &order).await.unwrap();
        let done = NpmOrder { certificate: Some(8), ..order.clone() };
        store.npm_order_put("npm/a:81", &done).await.unwrap();
        // somebody who read it before its end was known does not take it away
        store.npm_order_remove("npm/a:81", &order).await.unwrap();
        let again = Store::open(&path).await.unwrap();
        assert_eq!(again.npm_orders("npm/a:81").await.unwrap(), std::slice::from_ref(&done));
        assert_eq!(again.npm_orders("npm/b:81").await.unwrap(), std::slice::from_ref(&order));
        again.npm_order_remove("npm/a:81", &done).await.unwrap();
        again.npm_order_remove("npm/b:81", &order).await.unwrap();
        assert_eq!(
            (again.npm_orders("npm/a:81").await.unwrap(), again.npm_orders("npm/b:81").await.unwrap()),
            (vec![], vec![])
        );
    }

    #[tokio::test]
    async fn a_refusal_survives_a_restart_until_it_is_forgiven() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portalkeeper.db");
        let store = Store::open(&path).await.unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let refusal = |host: &str, seconds| NpmRefusal {
            host: host.into(),
            reason: "CertificateRateLimited".into(),
            message: "too many".into(),
            at: at(seconds),
            pause: SignedDuration::from_secs(3600),
        };
        store.npm_refuse("npm/a:81", &refusal("reset.acme.example", 1)).await.unwrap();
        let last = refusal("reset.acme.example", 1_000_000);
        store.npm_refuse("npm/a:81", &last).await.unwrap();
        let again = Store::open(&path).await.unwrap();
        let noted = async |host: &str| again.npm_refusal("npm/a:81", host).await.unwrap();
        assert_eq!(noted("reset.acme.example").await, Some(last));
        assert_eq!(again.npm_refusal("npm/b:81", "reset.acme.example").await.unwrap(), None);
        // what is long past goes with the next one
        again.npm_refuse("npm/a:81", &refusal("reset.globex.example", 1_000_000 + 3600 + KEPT + 1)).await.unwrap();
        assert_eq!(noted("reset.acme.example").await, None);
        again.npm_forgive("npm/a:81", "reset.globex.example").await.unwrap();
        assert_eq!(noted("reset.globex.example").await, None);
    }
}
