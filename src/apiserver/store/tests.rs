use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

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
    assert!(matches!(store.follow("configmaps", second), Err(StoreError::Expired { .. })));
}

#[tokio::test]
async fn a_watch_sees_each_write_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("api.db")).await.unwrap();
    let since = put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let mut watch = store.follow("configmaps", since).unwrap();
    store.transact::<StoreError>(&key("a"), |_| Ok(Change::Keep)).await.unwrap();
    store.transact::<StoreError>(&key("a"), |_| Ok(Change::Remove)).await.unwrap();
    let seen: Vec<_> =
        watch.take().unwrap().iter().map(|e| (e.kind, e.version(), e.object.value()["data"].clone())).collect();
    assert_eq!(seen, [(EventKind::Modified, since + 1, json!("2")), (EventKind::Deleted, since + 2, json!("2"))]);
    assert_eq!(watch.seen(), since + 2);
    assert!(watch.take().unwrap().is_empty(), "nothing changed is no event");
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
        list.objects.iter().map(|o| o.value()["at"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
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
    assert!(error.to_string().ends_with("has layout 99, made by a newer version; this one knows up to 2"), "{error}");
}

#[tokio::test]
async fn a_file_of_an_older_layout_is_brought_forward_with_all_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    // given a file as the first version made it
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    for statement in [
        "CREATE TABLE object (resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, \
         body BLOB NOT NULL, PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID",
        "CREATE TABLE counter (version INTEGER NOT NULL)",
        "INSERT INTO counter (version) VALUES (41)",
        "INSERT INTO object VALUES ('configmaps', 'default', 'old', \
         CAST('{\"metadata\":{\"resourceVersion\":\"40\"},\"data\":\"kept\"}' AS BLOB))",
        "PRAGMA user_version = 1",
    ] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    // when it is opened, then everything is there, versions go on, and a second start has nothing to do
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.get(&key("old")).unwrap()["data"], "kept");
    assert_eq!(store.find(&key("old")).unwrap().version(), 40);
    assert_eq!(put(&store, "new", "1").await, 42);
    drop(store);
    let store = Store::open(&path).await.unwrap();
    assert_eq!((store.get(&key("old")).unwrap()["data"].clone(), store.version()), (json!("kept"), 42));
}

#[tokio::test]
async fn a_disk_that_takes_no_more_is_told_and_everything_can_still_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("api.db")).await.unwrap();
    put(&store, "a", "1").await;
    for (breaks, mends, words) in [
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1073741823", "full"),
        ("PRAGMA query_only = ON", "PRAGMA query_only = OFF", "readonly"),
    ] {
        let version = store.version();
        let mut watch = store.follow("configmaps", version).unwrap();
        store.0.disk.lock().await.pragma(breaks).await;
        let object = json!({"metadata": {}, "data": "x".repeat(100_000)});
        let error = store.transact::<StoreError>(&key("b"), |_| Ok(Change::Put(object))).await.unwrap_err();
        assert_eq!(error.reason(), "StoreWriteFailed");
        assert!(error.to_string().contains(words), "{error}");
        // then nothing of it is seen by anybody, and reads go on
        assert_eq!((store.version(), store.get(&key("b"))), (version, None));
        assert!(watch.take().unwrap().is_empty());
        assert_eq!(store.get(&key("a")).unwrap()["data"], "1");
        store.0.disk.lock().await.pragma(mends).await;
        // and what is written now is there after a restart
        let name = format!("after-{words}");
        put(&store, &name, "1").await;
        let again = Store::open(&folder.path().join("api.db")).await.unwrap();
        assert_eq!(again.get(&key(&name)).unwrap()["data"], "1");
    }
    // when there is room again, then writes go on where they were
    let version = store.version();
    assert_eq!(put(&store, "b", "2").await, version + 1);
}

#[tokio::test]
async fn who_falls_out_of_the_log_is_told_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        Store::open_within(&folder.path().join("api.db"), LogLimits { events: 4, bytes: 1 << 20 }).await.unwrap();
    let since = put(&store, "a", "1").await;
    let mut slow = store.follow("configmaps", since).unwrap();
    let mut other = store.follow("secrets", since).unwrap();
    // given more in the log than it keeps
    for number in 0..5 {
        put(&store, "a", &number.to_string()).await;
    }
    assert!(slow.take().is_err());
    assert!(matches!(store.follow("configmaps", since), Err(StoreError::Expired { .. })));
    assert!(store.follow("configmaps", store.version()).is_ok());
    // then whoever follows another resource has missed nothing
    assert!(other.take().unwrap().is_empty());
    assert_eq!(other.seen(), store.version());
    // and few large texts are as much as many small ones
    let since = store.version();
    let noise: String = (0..40_000).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
    put(&store, "a", &noise).await;
    put(&store, "a", &noise).await;
    assert!(matches!(store.follow("configmaps", since), Err(StoreError::Expired { .. })));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_memory_and_file_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let store = Store::open(&path).await.unwrap();
    // given writers that are dropped after so many steps of their work
    for steps in 0..40 {
        let key = key(&format!("w{steps}"));
        let object = json!({"metadata": {}, "data": steps});
        let mut write = std::pin::pin!(store.transact::<StoreError>(&key, |_| Ok(Change::Put(object))));
        for _ in 0..steps {
            if futures_util::poll!(write.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // when one more has been made, then the file holds exactly what readers see
    put(&store, "last", "1").await;
    let seen = |store: &Store| {
        let list = store.list("configmaps", None);
        (list.version, list.objects.iter().map(|object| object.value()).collect::<Vec<_>>())
    };
    let before = seen(&store);
    drop(store);
    assert_eq!(seen(&Store::open(&path).await.unwrap()), before);
}
