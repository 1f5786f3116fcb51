//! Objects with one strictly growing resource version, durable in SQLite, read from memory, with a bounded
//! log for watchers.
//!
//! Every write is one transaction that is on disk before it is answered or seen by a reader or watcher.
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::{Mutex, broadcast};

/// Layout of the file; a file of a newer one is refused.
const LAYOUT: i64 = 1;
/// Events kept for watchers that start late; older starts get 410.
const LOG_LENGTH: usize = 10_000;
/// Events a watcher may fall behind before it is cut off.
const WATCH_BUFFER: usize = 4096;

/// Where an object lives. The namespace is empty for cluster-wide objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `plural` or `plural.group`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// One committed write.
#[derive(Debug, Clone)]
pub struct Event {
    pub version: u64,
    pub kind: EventKind,
    pub key: Key,
    /// The object after the write; for a deletion its last state, with the deletion's version.
    pub object: Arc<Value>,
    /// The object before the write, by which selectors tell that it left their selection.
    pub previous: Option<Arc<Value>>,
}

/// What a transaction makes of the object it was shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Put(Value),
    Remove,
    /// Nothing is written; version and watchers stay as they are.
    Keep,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the API's store {path}: {source}")]
    Open { path: String, source: sqlx::Error },
    #[error("the API's store {path} has layout {found}, made by a newer version; this one knows up to {known}")]
    Newer { path: String, found: i64, known: i64 },
    #[error("the API's store {path} holds an object that is not JSON: {name}")]
    Damaged { path: String, name: String },
    #[error("cannot write to the API's store: {0}")]
    Write(sqlx::Error),
    /// The asked version is no longer in the log.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired { asked: u64, oldest: u64 },
}

impl StoreError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Open { .. } => "StoreUnusable",
            Self::Newer { .. } => "StoreTooNew",
            Self::Damaged { .. } => "StoreDamaged",
            Self::Write(_) => "StoreWriteFailed",
            Self::Expired { .. } => "Expired",
        }
    }
}

struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Event>,
    /// Watches from before this version are refused.
    oldest: u64,
}

/// A consistent list: the objects and the version at which they were so.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: u64,
    pub objects: Vec<Arc<Value>>,
}

/// A watch from some version on: what is in the log already, then what comes.
pub struct Subscription {
    pub backlog: Vec<Event>,
    /// Holds every resource's events; a lagging receiver must end its watch.
    pub live: broadcast::Receiver<Event>,
}

/// The store. Writers are serialised; readers never wait for a disk.
pub struct Store {
    connection: Mutex<SqliteConnection>,
    state: RwLock<State>,
    events: broadcast::Sender<Event>,
}

impl Store {
    /// Opens or makes the file. Errors: not usable, made by a newer version, damaged.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let failed = |source| StoreError::Open { path: shown.clone(), source };
        if !path.exists() {
            // Secrets live in here: nobody else may read it, from the first byte on.
            crate::config::files::write_private(path, b"").map_err(|error| failed(sqlx::Error::Io(error)))?;
        }
        let mut connection = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .connect()
            .await
            .map_err(failed)?;
        let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.map_err(failed)?.get(0);
        if found > LAYOUT {
            return Err(StoreError::Newer { path: shown, found, known: LAYOUT });
        }
        if found == 0 {
            let mut transaction = connection.begin().await.map_err(failed)?;
            for statement in [
                "CREATE TABLE object (resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, \
                 body BLOB NOT NULL, PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID",
                "CREATE TABLE counter (version INTEGER NOT NULL)",
                "INSERT INTO counter (version) VALUES (1)",
                "PRAGMA user_version = 1",
            ] {
                sqlx::query(statement).execute(&mut *transaction).await.map_err(failed)?;
            }
            transaction.commit().await.map_err(failed)?;
        }
        let version: i64 =
            sqlx::query("SELECT version FROM counter").fetch_one(&mut connection).await.map_err(failed)?.get(0);
        let rows = sqlx::query("SELECT resource, namespace, name, body FROM object")
            .fetch_all(&mut connection)
            .await
            .map_err(failed)?;
        let mut objects = BTreeMap::new();
        for row in rows {
            let key = Key { resource: row.get(0), namespace: row.get(1), name: row.get(2) };
            let body: Vec<u8> = row.get(3);
            let object = serde_json::from_slice(&body)
                .map_err(|_| StoreError::Damaged { path: shown.clone(), name: format!("{key:?}") })?;
            objects.insert(key, Arc::new(object));
        }
        let version = u64::try_from(version).unwrap_or(1);
        // What happened before this start is not known: a watch may begin at the current version at the earliest.
        let state = State { version, objects, log: VecDeque::new(), oldest: version };
        let (events, _) = broadcast::channel(WATCH_BUFFER);
        Ok(Self { connection: Mutex::new(connection), state: RwLock::new(state), events })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.read().objects.get(key).cloned()
    }

    /// The version of the newest write.
    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// Every object of a resource, of one namespace or of all, in the order of namespace and name.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Snapshot {
        let state = self.read();
        let start = Key {
            resource: resource.to_owned(),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: String::new(),
        };
        let objects = state
            .objects
            .range(start..)
            .take_while(|(key, _)| key.resource == resource && namespace.is_none_or(|n| key.namespace == n))
            .map(|(_, object)| Arc::clone(object))
            .collect();
        Snapshot { version: state.version, objects }
    }

    /// Every object of every resource.
    pub fn everything(&self) -> Vec<(Key, Arc<Value>)> {
        self.read().objects.iter().map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
    }

    /// Every event after `since`, without a gap and without a repetition. Errors: [`StoreError::Expired`].
    pub fn watch(&self, since: u64) -> Result<Subscription, StoreError> {
        let state = self.read();
        // A version from the future is one from before a restored backup.
        if since < state.oldest || since > state.version {
            return Err(StoreError::Expired { asked: since, oldest: state.oldest });
        }
        let backlog = state.log.iter().filter(|event| event.version > since).cloned().collect();
        // Events are sent under the write lock, so none falls between backlog and receiver.
        Ok(Subscription { backlog, live: self.events.subscribe() })
    }

    /// Shows the object to `decide` and makes what it decides, with no other write in between. A put object
    /// gets the new resource version. Answers the object as it is afterwards, or as it was last.
    pub async fn transact<E: From<StoreError>>(
        &self,
        key: &Key,
        decide: impl FnOnce(Option<&Arc<Value>>) -> Result<Change, E>,
    ) -> Result<Option<Arc<Value>>, E> {
        let mut connection = self.connection.lock().await;
        let (previous, version) = {
            let state = self.read();
            (state.objects.get(key).cloned(), state.version + 1)
        };
        let (kind, mut object) = match (decide(previous.as_ref())?, &previous) {
            (Change::Keep, _) | (Change::Remove, None) => return Ok(previous),
            (Change::Put(object), None) => (EventKind::Added, object),
            (Change::Put(object), Some(_)) => (EventKind::Modified, object),
            (Change::Remove, Some(last)) => (EventKind::Deleted, Value::clone(last)),
        };
        object["metadata"]["resourceVersion"] = Value::String(version.to_string());
        persist(&mut connection, key, kind, &object, version).await.map_err(StoreError::Write)?;

        let object = Arc::new(object);
        let event = Event { version, kind, key: key.clone(), object: Arc::clone(&object), previous };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match kind {
            EventKind::Deleted => state.objects.remove(key),
            _ => state.objects.insert(key.clone(), Arc::clone(&object)),
        };
        state.version = version;
        state.log.push_back(event.clone());
        if state.log.len() > LOG_LENGTH
            && let Some(dropped) = state.log.pop_front()
        {
            state.oldest = dropped.version;
        }
        // No receiver is no error.
        let _ = self.events.send(event);
        Ok(Some(object))
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
        .bind(i64::try_from(version).unwrap_or(i64::MAX))
        .execute(&mut connection)
        .await
        .map_err(StoreError::Write)?;
    connection.close().await.map_err(StoreError::Write)
}

async fn persist(
    connection: &mut SqliteConnection,
    key: &Key,
    kind: EventKind,
    object: &Value,
    version: u64,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let statement = match kind {
        EventKind::Deleted => "DELETE FROM object WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
        _ => "INSERT OR REPLACE INTO object (resource, namespace, name, body) VALUES (?1, ?2, ?3, ?4)",
    };
    let mut query = sqlx::query(statement).bind(&key.resource).bind(&key.namespace).bind(&key.name);
    if kind != EventKind::Deleted {
        query = query.bind(object.to_string().into_bytes());
    }
    query.execute(&mut *transaction).await?;
    sqlx::query("UPDATE counter SET version = ?1")
        .bind(i64::try_from(version).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: "configmaps".into(), namespace: "default".into(), name: name.into() }
    }

    async fn put(store: &Store, name: &str, data: &str) -> u64 {
        let object = json!({"metadata": {"name": name}, "data": data});
        let stored = store.transact::<StoreError>(&key(name), |_| Ok(Change::Put(object))).await.unwrap().unwrap();
        stored["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_second_start_finds_everything_and_counts_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.db");
        let store = Store::open(&path).await.unwrap();
        let first = put(&store, "a", "1").await;
        let second = put(&store, "b", "2").await;
        assert!(second > first);
        store.transact::<StoreError>(&key("a"), |_| Ok(Change::Remove)).await.unwrap();
        // given that the process ends without closing anything
        std::mem::forget(store);
        let store = Store::open(&path).await.unwrap();
        assert_eq!(store.get(&key("a")), None);
        assert_eq!(store.get(&key("b")).unwrap()["data"], "2");
        assert!(put(&store, "c", "3").await > second + 1);
        // then nobody else may read the file, and a watch from before the start has to list anew
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(store.watch(second), Err(StoreError::Expired { .. })));
    }

    #[tokio::test]
    async fn a_watch_sees_each_write_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("api.db")).await.unwrap();
        let since = put(&store, "a", "1").await;
        put(&store, "a", "2").await;
        let mut watch = store.watch(since).unwrap();
        store.transact::<StoreError>(&key("a"), |_| Ok(Change::Keep)).await.unwrap();
        store.transact::<StoreError>(&key("a"), |_| Ok(Change::Remove)).await.unwrap();
        let seen: Vec<_> = watch.backlog.iter().map(|e| (e.kind, e.object["data"].clone())).collect();
        assert_eq!(seen, [(EventKind::Modified, json!("2"))]);
        let last = watch.live.try_recv().unwrap();
        assert_eq!((last.kind, last.version), (EventKind::Deleted, since + 2));
        assert_eq!(last.object["metadata"]["resourceVersion"], json!((since + 2).to_string()));
        assert!(watch.live.try_recv().is_err(), "nothing changed is no event");
    }

    #[tokio::test]
    async fn lists_hold_one_resource_and_one_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("api.db")).await.unwrap();
        for (resource, namespace, name) in
            [("a", "x", "1"), ("b", "x", "1"), ("b", "y", "1"), ("b", "x", "2"), ("c", "x", "1")]
        {
            let key = Key { resource: resource.into(), namespace: namespace.into(), name: name.into() };
            let object = json!({"metadata": {}, "at": format!("{namespace}/{name}")});
            store.transact::<StoreError>(&key, |_| Ok(Change::Put(object))).await.unwrap();
        }
        let names = |namespace| {
            let list = store.list("b", namespace);
            list.objects.iter().map(|o| o["at"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["x/1", "x/2", "y/1"]);
        assert_eq!(names(Some("x")), ["x/1", "x/2"]);
        assert_eq!(store.list("b", Some("z")).version, store.version());
    }

    #[tokio::test]
    async fn a_file_of_a_newer_layout_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.db");
        drop(Store::open(&path).await.unwrap());
        let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::query("PRAGMA user_version = 99").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let error = Store::open(&path).await.err().unwrap();
        assert_eq!(error.reason(), "StoreTooNew");
        assert!(
            error.to_string().ends_with("has layout 99, made by a newer version; this one knows up to 1"),
            "{error}"
        );
    }
}
