//! Objects with one strictly growing resource version, durable in SQLite, read from memory, with a bounded
//! log for watchers.
//!
//! Every write is one transaction that is on disk before it is answered or seen by a reader or watcher.
mod disk;
mod log;
mod object;
mod pack;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard, broadcast};

use disk::{Disk, Write};
pub use disk::{raise_version, version_of};
use log::Log;
pub use log::{Event, EventKind, Follower, LogLimits, Missed};
pub use object::{Key, Object};
use pack::Packer;

/// Largest object that is kept, in bytes of JSON: as large as a request can be.
pub const LARGEST_OBJECT: usize = 3 << 20;
/// Events that the collector of owned objects may fall behind before it looks at everything.
const COLLECTOR_BUFFER: usize = 4096;

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
    #[error("cannot read the API's store: {0}")]
    Read(sqlx::Error),
    #[error("cannot write to the API's store, so nothing was changed; is the disk full or read-only? {0}")]
    Write(sqlx::Error),
    #[error("the object would be {size} bytes large; at most {LARGEST_OBJECT} are kept")]
    TooLarge { size: usize },
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
            Self::Read(_) => "StoreReadFailed",
            Self::Write(_) => "StoreWriteFailed",
            Self::TooLarge { .. } => "ObjectTooLarge",
            Self::Expired { .. } => "Expired",
        }
    }
}

/// The objects of one resource, in the order of their places.
struct Table {
    name: Arc<str>,
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    packer: Packer,
    log: Log,
}

struct State {
    version: u64,
    tables: HashMap<Arc<str>, Table>,
    /// Objects by the uid of each owner of theirs.
    owned: HashMap<Box<str>, HashSet<Key>>,
    /// What the version was when the file was opened: nothing is known of what was before.
    started: u64,
    newest: Arc<AtomicU64>,
    limits: LogLimits,
}

/// A consistent list: the objects and the version at which they were so.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: u64,
    pub objects: Vec<Arc<Object>>,
}

/// The store. Writers are serialised; readers never wait for a disk.
pub struct Store(Arc<Shared>);

struct Shared {
    disk: Arc<Mutex<Disk>>,
    state: RwLock<State>,
    events: broadcast::Sender<Arc<Event>>,
}

impl State {
    fn table(&mut self, resource: &str) -> &mut Table {
        if !self.tables.contains_key(resource) {
            let name: Arc<str> = resource.into();
            let log = Log::new(self.started, Arc::clone(&self.newest), self.limits);
            let table = Table { name: Arc::clone(&name), objects: BTreeMap::new(), packer: Packer::default(), log };
            self.tables.insert(name, table);
        }
        self.tables.get_mut(resource).unwrap_or_else(|| unreachable!("made just now"))
    }

    fn find(&self, key: &Key) -> Option<Arc<Object>> {
        self.tables.get(&*key.resource)?.objects.get(&*key.place()).cloned()
    }

    /// Packs an object's text. Errors: it is not an object.
    fn object(&mut self, key: &Key, text: &[u8]) -> Result<Arc<Object>, serde_json::Error> {
        let table = self.table(&key.resource);
        // One text for the name in the map and in each version of the object.
        let known = table.objects.get_key_value(&*key.place()).map(|(place, _)| Arc::clone(place));
        let place = known.unwrap_or_else(|| key.place().into());
        Object::read(Arc::clone(&table.name), place, text, &mut table.packer).map(Arc::new)
    }

    fn put(&mut self, object: &Arc<Object>) {
        let table = self.table(object.resource());
        let previous = table.objects.insert(Arc::clone(object.place()), Arc::clone(object));
        if let Some(previous) = previous {
            self.disown(&previous);
        }
        for owner in object.owners() {
            self.owned.entry(owner.into()).or_default().insert(object.key());
        }
    }

    fn remove(&mut self, object: &Object) {
        self.table(object.resource()).objects.remove(object.place());
        self.disown(object);
    }

    fn disown(&mut self, object: &Object) {
        for owner in object.owners() {
            if let Some(keys) = self.owned.get_mut(owner) {
                keys.remove(&object.key());
                if keys.is_empty() {
                    self.owned.remove(owner);
                }
            }
        }
    }
}

impl Store {
    /// Opens or makes the file. Errors: not usable, made by a newer version, damaged.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_within(path, LogLimits::default()).await
    }

    /// The same with bounds of one's own for what watchers can still be told.
    pub async fn open_within(path: &Path, limits: LogLimits) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let mut disk = Disk::open(path).await?;
        let version = disk.version().await.map_err(|source| StoreError::Open { path: shown.clone(), source })?;
        let newest = Arc::new(AtomicU64::new(version));
        let (tables, owned) = (HashMap::new(), HashMap::new());
        let mut state = State { version, tables, owned, started: version, newest, limits };
        disk.each(|key, text| {
            let damaged = |_| StoreError::Damaged { path: shown.clone(), name: format!("{key:?}") };
            let object = state.object(&key, text).map_err(damaged)?;
            state.put(&object);
            Ok(())
        })
        .await?;
        let (events, _) = broadcast::channel(COLLECTOR_BUFFER);
        Ok(Self(Arc::new(Shared { disk: Arc::new(Mutex::new(disk)), state: RwLock::new(state), events })))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object, read whole.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.find(key).map(|object| object.value())
    }

    pub fn find(&self, key: &Key) -> Option<Arc<Object>> {
        self.read().find(key)
    }

    /// The version of the newest write.
    pub fn version(&self) -> u64 {
        self.read().version
    }

    /// Every object of a resource, of one namespace or of all, in the order of their places.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Snapshot {
        let state = self.read();
        let objects = match (state.tables.get(resource), namespace) {
            (None, _) => Vec::new(),
            (Some(table), None) => table.objects.values().cloned().collect(),
            (Some(table), Some(namespace)) => {
                let prefix = format!("{namespace}/");
                let from =
                    table.objects.range::<str, _>((std::ops::Bound::Included(&*prefix), std::ops::Bound::Unbounded));
                from.take_while(|(place, _)| place.starts_with(&prefix)).map(|(_, object)| Arc::clone(object)).collect()
            }
        };
        Snapshot { version: state.version, objects }
    }

    /// The list as it was at an earlier version. Errors: [`StoreError::Expired`].
    pub fn list_at(&self, resource: &str, namespace: Option<&str>, version: u64) -> Result<Snapshot, StoreError> {
        let mut follower = self.follow(resource, version)?;
        let list = self.list(resource, namespace);
        let mut objects: BTreeMap<Arc<str>, Arc<Object>> =
            list.objects.into_iter().map(|object| (Arc::clone(object.place()), object)).collect();
        // The first event since then says how an object was at that time.
        let mut seen = std::collections::HashSet::new();
        loop {
            let events =
                follower.take().map_err(|missed| StoreError::Expired { asked: version, oldest: missed.oldest })?;
            let events: Vec<_> = events.into_iter().take_while(|event| event.version() <= list.version).collect();
            if events.is_empty() {
                break;
            }
            for event in events {
                let place = event.object.place();
                let inside = namespace.is_none_or(|namespace| event.object.namespace() == namespace);
                if !inside || !seen.insert(Arc::clone(place)) {
                    continue;
                }
                match &event.previous {
                    Some(previous) => objects.insert(Arc::clone(place), Arc::clone(previous)),
                    None => objects.remove(place),
                };
            }
        }
        Ok(Snapshot { version, objects: objects.into_values().collect() })
    }

    /// A list, and what happens after it.
    pub fn list_and_follow(&self, resource: &str, namespace: Option<&str>) -> Result<(Snapshot, Follower), StoreError> {
        // A write between the two is in neither list nor log twice: the log begins at the list's version.
        let list = self.list(resource, namespace);
        let follower = self.follow(resource, list.version)?;
        Ok((list, follower))
    }

    /// Every event of a resource after `since`, without a gap and without a repetition. Errors: [`StoreError::Expired`].
    pub fn follow(&self, resource: &str, since: u64) -> Result<Follower, StoreError> {
        let expired = |missed: Missed| StoreError::Expired { asked: since, oldest: missed.oldest };
        if let Some(table) = self.read().tables.get(resource) {
            return table.log.follow(since).map_err(expired);
        }
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.table(resource).log.follow(since).map_err(expired)
    }

    /// Every event of every resource from now on; a lagging receiver has missed some.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.events.subscribe()
    }

    /// Objects with an owner of this uid.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        let state = self.read();
        let keys = state.owned.get(uid).into_iter().flatten();
        keys.filter_map(|key| state.find(key)).collect()
    }

    /// Objects that somebody owns or whose deletion has begun.
    pub fn unsettled(&self) -> Vec<Arc<Object>> {
        let state = self.read();
        let all = state.tables.values().flat_map(|table| table.objects.values());
        all.filter(|object| object.is_deleting() || object.owners().next().is_some()).cloned().collect()
    }

    /// Shows the object to `decide` and makes what it decides, with no other write in between. A put object
    /// gets the new resource version. Answers the object as it is afterwards, or as it was last.
    pub async fn transact<E: From<StoreError>>(
        &self,
        key: &Key,
        decide: impl FnOnce(Option<&Value>) -> Result<Change, E>,
    ) -> Result<Option<Value>, E> {
        let disk = Arc::clone(&self.0.disk).lock_owned().await;
        let (previous, version) = {
            let state = self.read();
            (state.find(key), state.version + 1)
        };
        let old = previous.as_ref().map(|object| object.value());
        let (kind, mut value) = match (decide(old.as_ref())?, old) {
            (Change::Keep, old) => return Ok(old),
            (Change::Remove, None) => return Ok(None),
            (Change::Put(value), None) => (EventKind::Added, value),
            (Change::Put(value), Some(_)) => (EventKind::Modified, value),
            (Change::Remove, Some(last)) => (EventKind::Deleted, last),
        };
        value["metadata"]["resourceVersion"] = Value::String(version.to_string());
        let text = value.to_string().into_bytes();
        if kind != EventKind::Deleted && text.len() > LARGEST_OBJECT {
            return Err(StoreError::TooLarge { size: text.len() }.into());
        }
        let commit = Commit { key: key.clone(), kind, text, version, previous };
        // A caller may go away at any time, with its connection. What is on its way to the disk is finished all the
        // same, so that memory and file never differ.
        let written = tokio::spawn(Arc::clone(&self.0).commit(disk, commit)).await;
        written.unwrap_or_else(|error| Err(StoreError::Write(sqlx::Error::Io(std::io::Error::other(error)))))?;
        Ok(Some(value))
    }
}

/// A decided write.
struct Commit {
    key: Key,
    kind: EventKind,
    text: Vec<u8>,
    version: u64,
    previous: Option<Arc<Object>>,
}

impl Shared {
    /// Makes a write durable, then lets readers and watchers see it.
    async fn commit(self: Arc<Self>, mut disk: OwnedMutexGuard<Disk>, commit: Commit) -> Result<(), StoreError> {
        let Commit { key, kind, text, version, previous } = commit;
        let write = if kind == EventKind::Deleted { Write::Remove } else { Write::Put(&text) };
        disk.write(&key, write, version).await.map_err(StoreError::Write)?;

        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let object = state.object(&key, &text).unwrap_or_else(|error| unreachable!("written by us: {error}"));
        match kind {
            EventKind::Deleted => state.remove(&object),
            _ => state.put(&object),
        }
        state.version = version;
        let event = Arc::new(Event { kind, object, previous });
        state.table(&key.resource).log.push(Arc::clone(&event));
        // No receiver is no error.
        let _ = self.events.send(event);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
