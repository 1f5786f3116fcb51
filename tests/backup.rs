//! Backup of a running program, and its restoration.
use futures_util::StreamExt;
use kube::api::{Api, DeleteParams, WatchEvent, WatchParams};
use portalkeeper::api::ResetPortal;
use portalkeeper::api::clock::SystemClock;
use portalkeeper::apiserver::ApiServer;
use portalkeeper::app::backup::{backup, restore};
use portalkeeper::store::Store;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::world::portal;

async fn open(data: &std::path::Path) -> Api<ResetPortal> {
    let server = ApiServer::open(&data.join("api.db"), Arc::new(SystemClock)).await.unwrap();
    let client = server.client("default");
    portalkeeper::app::install::definitions(&client).await.unwrap();
    Api::default_namespaced(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_comes_back_without_confusing_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    std::fs::create_dir(&data).unwrap();
    // given a running program with a portal
    let store = Store::open(&data.join("portalkeeper.db")).await.unwrap();
    let installation = store.installation().clone();
    let portals = open(&data).await;
    let object =
        |name: &str| serde_json::from_value::<ResetPortal>(portal(name, json!({"domain": "acme.localhost"}))).unwrap();
    portals.create(&Default::default(), &object("before")).await.unwrap();
    // when it is backed up while it runs, and things go on
    let words = backup(&data, &copy).await.unwrap();
    assert!(words.contains("is backed up in"), "{words}");
    portals.create(&Default::default(), &object("after")).await.unwrap();
    portals.delete("before", &DeleteParams::default()).await.unwrap();
    let last = portals.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    for entry in std::fs::read_dir(&copy).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    // a second backup does not overwrite the first
    assert_eq!(backup(&data, &copy).await.unwrap_err().reason(), "BackupExists");
    drop((portals, store));
    restore(&data, &copy).await.unwrap();
    // then the old objects are back under new versions, and whoever watched has to list anew
    let portals = open(&data).await;
    let names: Vec<_> =
        portals.list(&Default::default()).await.unwrap().items.into_iter().filter_map(|p| p.metadata.name).collect();
    assert_eq!(names, ["before"]);
    let now: u64 = portals.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap().parse().unwrap();
    assert!(now > last.parse::<u64>().unwrap());
    let watch = portals.watch(&WatchParams::default(), &last).await.unwrap();
    match watch.boxed().next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!((status.code, status.reason.as_str()), (410, "Expired")),
        other => panic!("{other:?}"),
    }
    let store = Store::open(&data.join("portalkeeper.db")).await.unwrap();
    assert_eq!(*store.installation(), installation);
    assert!(data.join("api.db.before-restore").exists());
    // when it is restored once more, then what an earlier restore put aside stays as it was
    drop((portals, store));
    let aside = std::fs::read(data.join("api.db.before-restore")).unwrap();
    let words = restore(&data, &copy).await.unwrap();
    assert!(words.ends_with("what was there is beside it as *.before-restore-2\n"), "{words}");
    assert_eq!(std::fs::read(data.join("api.db.before-restore")).unwrap(), aside);
    assert!(data.join("api.db.before-restore-2").exists() && data.join("portalkeeper.db.before-restore-2").exists());
    // what is no backup, and a directory in use, are refused
    assert_eq!(restore(&data, folder.path()).await.unwrap_err().reason(), "NoBackup");
    let _held = portalkeeper::app::data::DataDirectory::take(&data).unwrap();
    assert_eq!(restore(&data, &copy).await.unwrap_err().reason(), "DataInUse");
}
