//! Random histories of the API's store, with restarts, against a simple model.
use std::collections::BTreeMap;
use std::path::Path;

use portalkeeper::apiserver::store::{Change, EventKind, Key, Store, StoreError};
use proptest::prelude::*;
use serde_json::json;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Remove(u8),
    /// A write that is refused half-way.
    Refuse(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..6, any::<u8>()).prop_map(|(name, value)| Step::Put(name, value)),
        3 => (0_u8..6).prop_map(Step::Remove),
        1 => (0_u8..6).prop_map(Step::Refuse),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

fn key(name: u8) -> Key {
    Key { resource: "things".into(), namespace: format!("n{}", name % 2), name: format!("t{name}") }
}

/// What a watcher from some version on must have seen.
type History = Vec<(u64, EventKind, Key, u8)>;

async fn play(path: &Path, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut store = Store::open(path).await.unwrap();
    let mut model: BTreeMap<Key, u8> = BTreeMap::new();
    let mut history: History = Vec::new();
    let mut started = store.version();
    let mut last = started;
    for step in steps {
        let (name, change) = match step {
            Step::Restart => {
                drop(store);
                store = Store::open(path).await.unwrap();
                prop_assert_eq!(store.version(), last, "versions go on");
                if last > started {
                    let too_old = store.follow("things", last - 1).is_err_and(|error| error.reason() == "Expired");
                    prop_assert!(too_old);
                }
                (started, history) = (last, Vec::new());
                continue;
            }
            Step::Refuse(name) => {
                let refused = store
                    .transact::<StoreError>(&key(name), |_| Err(StoreError::Expired { asked: 0, oldest: 0 }))
                    .await;
                prop_assert!(refused.is_err() && store.version() == last);
                continue;
            }
            Step::Put(name, value) => (name, Change::Put(json!({"metadata": {}, "value": value}))),
            Step::Remove(name) => (name, Change::Remove),
        };
        let before = model.get(&key(name)).copied();
        let wrote = before.is_some() || matches!(change, Change::Put(_));
        let after = match &change {
            Change::Put(object) => object["value"].as_u64().map(|value| value as u8),
            _ => None,
        };
        store.transact::<StoreError>(&key(name), |_| Ok(change)).await.unwrap();
        if !wrote {
            prop_assert_eq!(store.version(), last, "nothing changed is no version");
            continue;
        }
        prop_assert!(store.version() > last);
        last = store.version();
        match after {
            Some(value) => model.insert(key(name), value),
            None => model.remove(&key(name)),
        };
        let kind = match (before, after) {
            (None, _) => EventKind::Added,
            (Some(_), Some(_)) => EventKind::Modified,
            (Some(_), None) => EventKind::Deleted,
        };
        history.push((last, kind, key(name), after.or(before).unwrap()));
        // a list is the model, and a watch from any version since the start sees the rest of the history
        let listed: Vec<u64> =
            store.list("things", None).objects.iter().map(|object| object.value()["value"].as_u64().unwrap()).collect();
        prop_assert_eq!(listed, model.values().map(|value| u64::from(*value)).collect::<Vec<_>>());
        let from = started + (last - started) / 2;
        let seen: History = store
            .follow("things", from)
            .unwrap()
            .take()
            .unwrap()
            .iter()
            .map(|event| {
                let value = event.object.value()["value"].as_u64().unwrap() as u8;
                (event.version(), event.kind, event.object.key(), value)
            })
            .collect();
        let expected: History = history.iter().filter(|(version, ..)| *version > from).cloned().collect();
        prop_assert_eq!(seen, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn lists_watches_and_versions_agree_with_the_model(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(&folder.path().join("api.db"), steps))?;
    }
}
