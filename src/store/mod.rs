//! What is not Kubernetes-shaped: installation id, keys, reset links, recovery addresses, the rules made in tunnels, the
//! certificates ordered through Nginx Proxy Manager and the audit trail, in one SQLite file that the daemon and the command line may have open at the same time.
mod audit;
mod links;
mod npm;
mod recovery;
mod tunnel;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, SqlitePool};

pub use audit::AuditEvent;
pub use links::{LinkHash, NewLink, Reservation, ReserveRefusal, recovery_hash};
pub use npm::{NpmOrder, NpmRefusal};
pub use recovery::Recovery;
pub use tunnel::TunnelRule;

use crate::config::Secret;
use crate::plan::InstallationId;

/// Layout of the file; a file of a newer one is refused.
const LAYOUT: i64 = 4;

const LAYOUT_1: [&str; 6] = [
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE recovery (mailbox TEXT PRIMARY KEY, address TEXT NOT NULL, changed_at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE link (hash BLOB PRIMARY KEY, portal_uid TEXT NOT NULL, mailbox TEXT NOT NULL, \
     recovery_hash BLOB NOT NULL, provider TEXT NOT NULL, issued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, \
     state TEXT NOT NULL CHECK (state IN ('Issued', 'Reserved', 'Finished', 'Void')), \
     attempts INTEGER NOT NULL DEFAULT 0, lease_until INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    "CREATE INDEX link_mailbox ON link (mailbox, state)",
    "CREATE INDEX link_expiry ON link (expires_at)",
    "CREATE TABLE audit (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, portal TEXT NOT NULL, portal_uid TEXT NOT NULL, \
     action TEXT NOT NULL, mailbox TEXT NOT NULL, result TEXT NOT NULL, client TEXT NOT NULL, actor TEXT NOT NULL)",
];

/// What the second layout has beside the first.
const LAYOUT_2: [&str; 1] =
    ["CREATE TABLE tunnel_rule (tunnel TEXT NOT NULL, host TEXT NOT NULL, service TEXT NOT NULL, mark TEXT NOT NULL, \
     PRIMARY KEY (tunnel, host, service)) WITHOUT ROWID"];

/// What the third has beside the second.
const LAYOUT_3: [&str; 1] = [
    "CREATE TABLE npm_order (instance TEXT NOT NULL, host TEXT NOT NULL, after INTEGER NOT NULL, mark TEXT NOT NULL, \
     certificate INTEGER, at INTEGER NOT NULL, PRIMARY KEY (instance, host, after)) WITHOUT ROWID",
];

/// What the fourth has beside the third.
const LAYOUT_4: [&str; 1] = [
    "CREATE TABLE npm_refusal (instance TEXT NOT NULL, host TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL, \
     at INTEGER NOT NULL, pause INTEGER NOT NULL, PRIMARY KEY (instance, host)) WITHOUT ROWID",
];

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the store {path}: {source}")]
    Open { path: String, source: sqlx::Error },
    #[error("the store {path} has layout {found}, made by a newer version; this one knows up to {known}")]
    Newer { path: String, found: i64, known: i64 },
    #[error("the store holds a damaged value: {0}")]
    Damaged(&'static str),
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open { .. } => "StoreUnusable",
            Self::Newer { .. } => "StoreTooNew",
            Self::Damaged(_) => "StoreDamaged",
            Self::Database(_) => "StoreFailed",
        }
    }
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    installation: InstallationId,
    probe_key: Secret,
    form_key: Secret,
}

impl Store {
    /// Opens or makes the file (mode 0600). Errors: not usable, made by a newer version, damaged.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let failed = |source| StoreError::Open { path: shown.clone(), source };
        if !path.exists() {
            crate::config::files::write_private(path, b"").map_err(|error| failed(sqlx::Error::Io(error)))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        // SQLite undoes a whole transaction by itself when the disk is full, and the library does not notice: what follows on
        // such a connection would never be committed, so it is not used again.
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .after_release(|connection, _| {
                Box::pin(async move {
                    // A rollback may be on its way yet.
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_with(options)
            .await
            .map_err(failed)?;
        // The immediate transaction makes two processes that start on one new file take turns.
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut *transaction).await.map_err(failed)?.get(0);
        if found > LAYOUT {
            return Err(StoreError::Newer { path: shown, found, known: LAYOUT });
        }
        if found == 0 {
            for statement in LAYOUT_1 {
                sqlx::query(statement).execute(&mut *transaction).await.map_err(failed)?;
            }
            for (name, length) in [("installation", 8), ("probe_key", 32), ("form_key", 32)] {
                sqlx::query("INSERT INTO meta (name, value) VALUES (?1, ?2)")
                    .bind(name)
                    .bind(random_hex(length))
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
            }
        }
        if found < 2 {
            for statement in LAYOUT_2 {
                sqlx::query(statement).execute(&mut *transaction).await.map_err(failed)?;
            }
        }
        if found < 3 {
            for statement in LAYOUT_3 {
                sqlx::query(statement).execute(&mut *transaction).await.map_err(failed)?;
            }
        }
        if found < 4 {
            for statement in LAYOUT_4 {
                sqlx::query(statement).execute(&mut *transaction).await.map_err(failed)?;
            }
            sqlx::query("PRAGMA user_version = 4").execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        let installation = InstallationId::parse(&meta(&pool, "installation").await?)
            .ok_or(StoreError::Damaged("the installation id is not 16 hexadecimal digits"))?;
        let probe_key = Secret::new(meta(&pool, "probe_key").await?);
        let form_key = Secret::new(meta(&pool, "form_key").await?);
        if probe_key.is_empty() || form_key.is_empty() {
            return Err(StoreError::Damaged("a key is empty"));
        }
        Ok(Self { pool, installation, probe_key, form_key })
    }

    /// Stands in every mark that is made outside.
    pub fn installation(&self) -> &InstallationId {
        &self.installation
    }
    /// Signs proofs of life.
    pub fn probe_key(&self) -> &Secret {
        &self.probe_key
    }
    /// Signs form tokens.
    pub fn form_key(&self) -> &Secret {
        &self.form_key
    }
}

/// Writes a whole, consistent copy of an SQLite file (mode 0600), also while others write to it.
pub async fn copy_database(from: &Path, to: &Path) -> Result<(), StoreError> {
    use sqlx::ConnectOptions;
    let failed = |source| StoreError::Open { path: from.display().to_string(), source };
    // The empty file exists before SQLite writes to it, so that nobody else can ever read it.
    crate::config::files::write_private(to, b"").map_err(|error| failed(sqlx::Error::Io(error)))?;
    let options = SqliteConnectOptions::new().filename(from).busy_timeout(Duration::from_secs(10));
    let mut connection = options.connect().await.map_err(failed)?;
    sqlx::query("VACUUM INTO ?1").bind(to.display().to_string()).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

async fn meta(pool: &SqlitePool, name: &str) -> Result<String, StoreError> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = ?1").bind(name).fetch_optional(pool).await?;
    row.map(|row| row.get(0)).ok_or(StoreError::Damaged("a value that every store has is missing"))
}

fn random_hex(bytes: usize) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes * 2);
    for _ in 0..bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:02x}", rand::random::<u8>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn installation_and_keys_survive_a_restart_and_differ_between_stores() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portalkeeper.db");
        let first = Store::open(&path).await.unwrap();
        let second = Store::open(&path).await.unwrap();
        assert_eq!(first.installation(), second.installation());
        assert_eq!(first.form_key(), second.form_key());
        assert_ne!(first.form_key(), first.probe_key());
        let other = Store::open(&folder.path().join("other.db")).await.unwrap();
        assert_ne!(first.installation(), other.installation());
    }

    #[tokio::test]
    async fn a_newer_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portalkeeper.db");
        let store = Store::open(&path).await.unwrap();
        sqlx::query("PRAGMA user_version = 9").execute(&store.pool).await.unwrap();
        drop(store);
        assert_eq!(Store::open(&path).await.unwrap_err().reason(), "StoreTooNew");
    }

    #[tokio::test]
    async fn a_write_that_sqlite_undid_by_itself_does_not_swallow_the_next_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portalkeeper.db");
        let store = Store::open(&path).await.unwrap();
        // what a full disk does: the whole transaction is gone, and not only the statement
        let trap = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
        sqlx::query(trap).execute(&store.pool).await.unwrap();
        let event = |mailbox: &str| AuditEvent {
            at: jiff::Timestamp::UNIX_EPOCH,
            portal: "n/p".into(),
            portal_uid: "u".into(),
            action: "request".into(),
            mailbox: mailbox.into(),
            result: "LinkSent".into(),
            client: String::new(),
            actor: "owner".into(),
        };
        for _ in 0..8 {
            store.audit_append(&event("lost@a.example")).await.unwrap_err();
        }
        sqlx::query("DROP TRIGGER full").execute(&store.pool).await.unwrap();
        for _ in 0..8 {
            store.audit_append(&event("kept@a.example")).await.unwrap();
        }
        let again = Store::open(&path).await.unwrap();
        let kept = again.audit_newest(20).await.unwrap();
        assert_eq!(kept.iter().filter(|event| event.mailbox == "kept@a.example").count(), 8);
        assert_eq!(kept.len(), 8);
    }
}
