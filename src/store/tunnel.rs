//! The rules of Cloudflare Tunnels that this installation made: a rule itself has no place for a mark.
use sqlx::Row;

use super::{Store, StoreError};
use crate::plan::{Mark, Ownership};

/// A rule that was written, or is just about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRule {
    pub host: String,
    pub service: String,
    pub mark: Mark,
}

impl Store {
    pub async fn tunnel_rules(&self, tunnel: &str) -> Result<Vec<TunnelRule>, StoreError> {
        let rows = sqlx::query("SELECT host, service, mark FROM tunnel_rule WHERE tunnel = ?1 ORDER BY host, service")
            .bind(tunnel)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| match Mark::from_text(row.get(2)) {
                Ownership::Marked(mark) => Ok(TunnelRule { host: row.get(0), service: row.get(1), mark }),
                Ownership::Foreign => Err(StoreError::Damaged("a tunnel rule's mark is not readable")),
            })
            .collect()
    }

    /// Notes rules, all or none. One of the same host and service is replaced.
    pub async fn tunnel_rules_put(&self, tunnel: &str, rules: &[TunnelRule]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for rule in rules {
            sqlx::query(
                "INSERT INTO tunnel_rule (tunnel, host, service, mark) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (tunnel, host, service) DO UPDATE SET mark = ?4",
            )
            .bind(tunnel)
            .bind(&rule.host)
            .bind(&rule.service)
            .bind(rule.mark.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Forgets rules by host and service, all or none.
    pub async fn tunnel_rules_remove(&self, tunnel: &str, rules: &[TunnelRule]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for rule in rules {
            sqlx::query("DELETE FROM tunnel_rule WHERE tunnel = ?1 AND host = ?2 AND service = ?3")
                .bind(tunnel)
                .bind(&rule.host)
                .bind(&rule.service)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortalKey;

    #[tokio::test]
    async fn noted_rules_survive_a_restart_and_belong_to_their_tunnel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portalkeeper.db");
        let store = Store::open(&path).await.unwrap();
        let rule = |name: &str, service: &str| {
            let key = PortalKey { namespace: "mail".into(), name: name.into() };
            let mark = Mark::new(store.installation(), &key);
            TunnelRule { host: "reset.acme.example".into(), service: service.into(), mark }
        };
        let (old, new) = (rule("acme", "http://a:1"), rule("acme", "http://b:2"));
        store.tunnel_rules_put("t1", &[old.clone(), new.clone()]).await.unwrap();
        store.tunnel_rules_put("t2", std::slice::from_ref(&old)).await.unwrap();
        let taken = rule("globex", "http://a:1");
        store.tunnel_rules_put("t1", std::slice::from_ref(&taken)).await.unwrap();
        store.tunnel_rules_remove("t1", std::slice::from_ref(&new)).await.unwrap();
        let again = Store::open(&path).await.unwrap();
        assert_eq!(again.tunnel_rules("t1").await.unwrap(), [taken]);
        assert_eq!(again.tunnel_rules("t2").await.unwrap(), [old]);
        sqlx::query("UPDATE tunnel_rule SET mark = 'x'").execute(&again.pool).await.unwrap();
        assert_eq!(again.tunnel_rules("t1").await.unwrap_err().reason(), "StoreDamaged");
    }

    #[tokio::test]
    async fn a_store_of_the_first_layout_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portalkeeper.db");
        let store = Store::open(&path).await.unwrap();
        let later = ["tunnel_rule", "npm_order", "npm_refusal"].map(|table| format!("DROP TABLE {table}"));
        for statement in later.into_iter().chain(["PRAGMA user_version = 1".to_owned()]) {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&store.pool).await.unwrap();
        }
        let upgraded = Store::open(&path).await.unwrap();
        assert_eq!(upgraded.installation(), store.installation());
        assert_eq!(upgraded.tunnel_rules("t1").await.unwrap(), []);
        assert_eq!(upgraded.npm_orders("npm").await.unwrap(), []);
        assert_eq!(upgraded.npm_refusal("npm", "reset.acme.example").await.unwrap(), None);
    }
}
