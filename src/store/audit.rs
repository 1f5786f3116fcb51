//! The audit trail: who did what to which mailbox, and how it ended. Never a token, password or key.
use jiff::Timestamp;
use sqlx::Row;

use super::{Store, StoreError};

/// Events kept; older ones go.
const KEPT: i64 = 100_000;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    pub at: Timestamp,
    /// `namespace/name`.
    pub portal: String,
    pub portal_uid: String,
    /// `request`, `link-sent`, `reset`, `recovery-set`.
    pub action: String,
    pub mailbox: String,
    pub result: String,
    /// Address bucket of the client, or empty.
    pub client: String,
    /// `owner`, `cli`.
    pub actor: String,
}

impl Store {
    pub async fn audit_append(&self, event: &AuditEvent) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO audit (at, portal, portal_uid, action, mailbox, result, client, actor) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(event.at.as_second())
        .bind(&event.portal)
        .bind(&event.portal_uid)
        .bind(&event.action)
        .bind(&event.mailbox)
        .bind(&event.result)
        .bind(&event.client)
        .bind(&event.actor)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1")
            .bind(KEPT)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The newest events, newest first.
    pub async fn audit_newest(&self, count: u32) -> Result<Vec<AuditEvent>, StoreError> {
        let rows = sqlx::query(
            "SELECT at, portal, portal_uid, action, mailbox, result, client, actor FROM audit ORDER BY id DESC LIMIT ?1",
        )
        .bind(count)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(AuditEvent {
                    at: Timestamp::from_second(row.get(0)).map_err(|_| StoreError::Damaged("an audit event's time"))?,
                    portal: row.get(1),
                    portal_uid: row.get(2),
                    action: row.get(3),
                    mailbox: row.get(4),
                    result: row.get(5),
                    client: row.get(6),
                    actor: row.get(7),
                })
            })
            .collect()
    }
}
