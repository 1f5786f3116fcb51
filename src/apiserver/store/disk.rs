//! The SQLite file: one transaction per write, on disk before it is answered. WAL, `synchronous=FULL`.
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};

use super::{Key, StoreError};

/// Each layout of the file, as the statements that make it of the one before. A file of a newer one is refused.
const LAYOUTS: [&[&str]; 2] = [
    &[
        "CREATE TABLE object (resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, \
         body BLOB NOT NULL, PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID",
        "CREATE TABLE counter (version INTEGER NOT NULL)",
        "INSERT INTO counter (version) VALUES (1)",
    ],
    // Bodies of some kilobytes make the tree of a table without row ids deep and its pages full of overflow.
    &[
        "CREATE TABLE kept (resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, \
         PRIMARY KEY (resource, namespace, name))",
        "INSERT INTO kept SELECT resource, namespace, name, body FROM object",
        "DROP TABLE object",
        "ALTER TABLE kept RENAME TO object",
    ],
];

/// An open file, for one writer.
pub struct Disk {
    options: SqliteConnectOptions,
    /// `None` after a write that failed, until the file is open again.
    connection: Option<SqliteConnection>,
}

/// What is written.
pub enum Write<'a> {
    Put(&'a [u8]),
    Remove,
}

impl Disk {
    /// Opens or makes the file and brings it to the present layout. Errors: not usable, or made by a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let failed = |source| StoreError::Open { path: shown.clone(), source };
        if !path.exists() {
            // Secrets live in here: nobody else may read it, from the first byte on.
            crate::config::files::write_private(path, b"").map_err(|error| failed(sqlx::Error::Io(error)))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let mut connection = options.connect().await.map_err(failed)?;
        let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.map_err(failed)?.get(0);
        let known = i64::try_from(LAYOUTS.len()).unwrap_or(i64::MAX);
        if found > known {
            return Err(StoreError::Newer { path: shown, found, known });
        }
        for (layout, statements) in (1_i64..).zip(LAYOUTS).skip(usize::try_from(found).unwrap_or(0)) {
            // All of a step or nothing of it.
            let mut transaction = connection.begin().await.map_err(failed)?;
            for statement in statements {
                sqlx::query(*statement).execute(&mut *transaction).await.map_err(failed)?;
            }
            let mark = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {layout}"));
            sqlx::query(mark).execute(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
        }
        Ok(Self { options, connection: Some(connection) })
    }

    /// The connection, opened anew where the last write failed. SQLite undoes a whole transaction by itself when the disk
    /// is full; the library does not notice, takes what follows for parts of it and would never commit again. A new
    /// connection has no such past.
    async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Version of the newest write.
    pub async fn version(&mut self) -> Result<u64, sqlx::Error> {
        let row = sqlx::query("SELECT version FROM counter").fetch_one(self.connection().await?).await?;
        Ok(u64::try_from(row.get::<i64, _>(0)).unwrap_or(1))
    }

    /// Shows every object, one after the other.
    pub async fn each(&mut self, mut show: impl FnMut(Key, &[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let connection = self.connection().await.map_err(StoreError::Read)?;
        let mut rows = sqlx::query("SELECT resource, namespace, name, body FROM object").fetch(connection);
        while let Some(row) = rows.try_next().await.map_err(StoreError::Read)? {
            let key = Key { resource: row.get(0), namespace: row.get(1), name: row.get(2) };
            show(key, row.get_ref_bytes(3))?;
        }
        Ok(())
    }

    /// Makes one write with its version, durably. After an error nothing of it is there.
    pub async fn write(&mut self, key: &Key, write: Write<'_>, version: u64) -> Result<(), sqlx::Error> {
        let Err(error) = self.attempt(key, write, version).await else { return Ok(()) };
        self.connection = None;
        // Whether the failure came before or after the commit, the counter tells.
        match self.version().await {
            Ok(found) if found == version => Ok(()),
            _ => Err(error),
        }
    }

    async fn attempt(&mut self, key: &Key, write: Write<'_>, version: u64) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection().await?.begin_with("BEGIN IMMEDIATE").await?;
        let statement = match write {
            Write::Remove => "DELETE FROM object WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
            Write::Put(_) => "INSERT OR REPLACE INTO object (resource, namespace, name, body) VALUES (?1, ?2, ?3, ?4)",
        };
        let mut query = sqlx::query(statement).bind(&key.resource).bind(&key.namespace).bind(&key.name);
        if let Write::Put(body) = write {
            query = query.bind(body);
        }
        query.execute(&mut *transaction).await?;
        sqlx::query("UPDATE counter SET version = ?1").bind(signed(version)).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    #[cfg(test)]
    pub async fn pragma(&mut self, statement: &'static str) {
        sqlx::query(statement).execute(self.connection().await.unwrap()).await.unwrap();
    }
}

fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

trait Bytes {
    fn get_ref_bytes(&self, column: usize) -> &[u8];
}

impl Bytes for sqlx::sqlite::SqliteRow {
    fn get_ref_bytes(&self, column: usize) -> &[u8] {
        self.get(column)
    }
}

/// The version counter of a file that nobody has open; `None` where there is no such file.
pub async fn version_of(path: &Path) -> Result<Option<u64>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| StoreError::Open { path: path.display().to_string(), source };
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.map_err(failed)?;
    let row = sqlx::query("SELECT version FROM counter").fetch_one(&mut connection).await.map_err(failed)?;
    Ok(u64::try_from(row.get::<i64, _>(0)).ok())
}

/// Lets versions of a file that nobody has open go on from here.
pub async fn raise_version(path: &Path, version: u64) -> Result<(), StoreError> {
    let failed = |source| StoreError::Open { path: path.display().to_string(), source };
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.map_err(failed)?;
    sqlx::query("UPDATE counter SET version = ?1")
        .bind(signed(version))
        .execute(&mut connection)
        .await
        .map_err(StoreError::Write)?;
    connection.close().await.map_err(StoreError::Write)
}
