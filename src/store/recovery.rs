//! Recovery addresses: where a mailbox's links are sent.
use sqlx::Row;

use super::{Store, StoreError};
use crate::api::MailAddress;

/// A mailbox and its recovery address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub mailbox: MailAddress,
    pub address: MailAddress,
}

fn parsed(mailbox: &str, address: &str) -> Result<Recovery, StoreError> {
    let damaged = |_| StoreError::Damaged("a recovery address is not a mail address");
    Ok(Recovery {
        mailbox: MailAddress::parse(mailbox).map_err(damaged)?,
        address: MailAddress::parse(address).map_err(damaged)?,
    })
}

impl Store {
    /// Sets recovery addresses, all or none. A changed one voids the mailbox's open links. Tells how many changed.
    pub async fn recovery_set(&self, entries: &[Recovery], now: jiff::Timestamp) -> Result<usize, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut changed = 0;
        for entry in entries {
            let (mailbox, address) = (entry.mailbox.to_string(), entry.address.to_string());
            let done = sqlx::query(
                "INSERT INTO recovery (mailbox, address, changed_at) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (mailbox) DO UPDATE SET address = ?2, changed_at = ?3 WHERE address <> ?2",
            )
            .bind(&mailbox)
            .bind(&address)
            .bind(now.as_second())
            .execute(&mut *transaction)
            .await?;
            if done.rows_affected() > 0 {
                changed += 1;
                void_open(&mut transaction, &mailbox).await?;
            }
        }
        transaction.commit().await?;
        Ok(changed)
    }

    /// Forgets a mailbox's recovery address and voids its open links. Tells whether there was one.
    pub async fn recovery_remove(&self, mailbox: &MailAddress) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mailbox = mailbox.to_string();
        let done =
            sqlx::query("DELETE FROM recovery WHERE mailbox = ?1").bind(&mailbox).execute(&mut *transaction).await?;
        void_open(&mut transaction, &mailbox).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn recovery_of(&self, mailbox: &MailAddress) -> Result<Option<MailAddress>, StoreError> {
        let row = sqlx::query("SELECT address FROM recovery WHERE mailbox = ?1")
            .bind(mailbox.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| parsed(&mailbox.to_string(), row.get(0)).map(|found| found.address)).transpose()
    }

    /// Every mailbox with its recovery address, in the order of the mailboxes.
    pub async fn recovery_list(&self) -> Result<Vec<Recovery>, StoreError> {
        let rows = sqlx::query("SELECT mailbox, address FROM recovery ORDER BY mailbox").fetch_all(&self.pool).await?;
        rows.iter().map(|row| parsed(row.get(0), row.get(1))).collect()
    }
}

async fn void_open(connection: &mut sqlx::SqliteConnection, mailbox: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE link SET state = 'Void' WHERE mailbox = ?1 AND state IN ('Issued', 'Reserved')")
        .bind(mailbox)
        .execute(connection)
        .await?;
    Ok(())
}
