//! Owner references: what is owned goes with its last owner. Also: custom resources go with their definition.
use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::catalog::DEFINITIONS;
use super::rest::ApiServer;
use super::status::ApiError;
use super::store::{Change, EventKind, Key};
use super::write;

/// Holds an object until everything it owns is gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|finalizer| finalizer == name)
}

fn without_finalizer(object: &Value, name: &str) -> Change {
    let mut new = object.clone();
    if let Some(finalizers) = new["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != name);
    }
    let none_left = new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    if none_left && !new["metadata"]["deletionTimestamp"].is_null() { Change::Remove } else { Change::Put(new) }
}

/// The first step of a definition's end.
pub fn terminate_definition(old: &Value, now: jiff::Timestamp) -> Change {
    let mut held = old.clone();
    if !has_finalizer(old, CLEANUP) {
        let mut finalizers = held["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.push(json!(CLEANUP));
        held["metadata"]["finalizers"] = Value::Array(finalizers);
    }
    write::delete(&held, now)
}

impl ApiServer {
    /// Follows the store for as long as the server lives.
    pub(super) fn collect_garbage(&self) {
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let Some(server) = weak.upgrade().map(ApiServer) else { return };
            let Ok(mut events) = server.0.store.watch(server.0.store.version()).map(|watch| watch.live) else { return };
            server.collect_everything().await;
            drop(server);
            loop {
                let received = events.recv().await;
                let Some(server) = weak.upgrade().map(ApiServer) else { return };
                let done = match received {
                    Ok(event) if event.kind == EventKind::Deleted => server.owner_gone(&event.object).await,
                    Ok(event) if !event.object["metadata"]["deletionTimestamp"].is_null() => {
                        server.advance_deletion(&event.key, &event.object).await
                    }
                    Ok(event) if event.kind == EventKind::Added => server.orphan_made(&event.key, &event.object).await,
                    Ok(_) => Ok(()),
                    // Too far behind: look at everything once.
                    Err(RecvError::Lagged(_)) => {
                        server.collect_everything().await;
                        Ok(())
                    }
                    Err(RecvError::Closed) => return,
                };
                if let Err(error) = done {
                    tracing::warn!(reason = error.reason(), "an owned object could not be removed: {error}");
                }
            }
        });
    }

    async fn collect_everything(&self) {
        for (key, object) in self.0.store.everything() {
            let done = if object["metadata"]["deletionTimestamp"].is_null() {
                self.orphan_made(&key, &object).await
            } else {
                self.advance_deletion(&key, &object).await
            };
            if let Err(error) = done {
                tracing::warn!(reason = error.reason(), "an owned object could not be removed: {error}");
            }
        }
    }

    /// Uids of everything there is.
    fn living(&self) -> HashSet<String> {
        self.0.store.everything().iter().map(|(_, object)| uid(object).to_owned()).collect()
    }

    /// An object all of whose owners are gone goes, too.
    async fn orphan_made(&self, key: &Key, object: &Value) -> Result<(), ApiError> {
        if owners(object).next().is_none() {
            return Ok(());
        }
        let living = self.living();
        if owners(object).any(|owner| living.contains(owner["uid"].as_str().unwrap_or_default())) {
            return Ok(());
        }
        self.remove(key).await
    }

    async fn remove(&self, key: &Key) -> Result<(), ApiError> {
        let now = self.0.clock.now();
        self.0.store.transact(key, |old| Ok(old.map_or(Change::Keep, |old| write::delete(old, now)))).await.map(|_| ())
    }

    fn owned_by(&self, owner: &str) -> Vec<(Key, Arc<Value>)> {
        let mut all = self.0.store.everything();
        all.retain(|(_, object)| owners(object).any(|reference| reference["uid"] == *owner));
        all
    }

    async fn owner_gone(&self, gone: &Value) -> Result<(), ApiError> {
        for (key, object) in self.owned_by(uid(gone)) {
            self.orphan_made(&key, &object).await?;
        }
        // Its own owners may have waited for it.
        let waiting: Vec<(Key, Arc<Value>)> = owners(gone)
            .filter_map(|reference| {
                let everything = self.0.store.everything();
                everything.into_iter().find(|(_, object)| reference["uid"] == *uid(object))
            })
            .collect();
        for (key, owner) in waiting {
            self.advance_deletion(&key, &owner).await?;
        }
        // A definition may have waited for its last object.
        for (key, definition) in self.0.store.everything().into_iter().filter(|(key, _)| key.resource == DEFINITIONS) {
            if !definition["metadata"]["deletionTimestamp"].is_null() {
                self.advance_deletion(&key, &definition).await?;
            }
        }
        Ok(())
    }

    /// Goes on with a deletion that waits for other objects.
    async fn advance_deletion(&self, key: &Key, object: &Value) -> Result<(), ApiError> {
        if has_finalizer(object, FOREGROUND) {
            let owned = self.owned_by(uid(object));
            let mut blocked = false;
            for (key, dependent) in owned {
                let blocks = owners(&dependent).any(|o| o["uid"] == *uid(object) && o["blockOwnerDeletion"] == true);
                self.remove(&key).await?;
                blocked |= blocks && self.0.store.get(&key).is_some();
            }
            if !blocked {
                self.take_off(key, FOREGROUND).await?;
            }
        }
        if key.resource == DEFINITIONS && has_finalizer(object, CLEANUP) {
            let mut left = false;
            for custom in self.0.store.list(&key.name, None).objects {
                let text = |field: &str| custom["metadata"][field].as_str().unwrap_or_default().to_owned();
                let key = Key { resource: key.name.clone(), namespace: text("namespace"), name: text("name") };
                self.remove(&key).await?;
                left |= self.0.store.get(&key).is_some();
            }
            if !left {
                self.take_off(key, CLEANUP).await?;
            }
        }
        Ok(())
    }

    async fn take_off(&self, key: &Key, finalizer: &str) -> Result<(), ApiError> {
        let take = |old: Option<&Arc<Value>>| {
            Ok(old
                .filter(|old| has_finalizer(old, finalizer))
                .map_or(Change::Keep, |old| without_finalizer(old, finalizer)))
        };
        self.0.store.transact::<ApiError>(key, take).await.map(|_| ())
    }

    /// `propagationPolicy: Orphan`: what is owned stays, without the reference.
    pub(super) async fn orphan_dependents(&self, owner: &str) -> Result<(), ApiError> {
        for (key, _) in self.owned_by(owner) {
            let strip = |old: Option<&Arc<Value>>| {
                let Some(old) = old else { return Ok(Change::Keep) };
                let mut new = Value::clone(old);
                if let Some(references) = new["metadata"]["ownerReferences"].as_array_mut() {
                    references.retain(|reference| reference["uid"] != *owner);
                }
                if new["metadata"]["ownerReferences"].as_array().is_some_and(Vec::is_empty)
                    && let Some(metadata) = new["metadata"].as_object_mut()
                {
                    metadata.remove("ownerReferences");
                }
                Ok(Change::Put(new))
            };
            self.0.store.transact::<ApiError>(&key, strip).await?;
        }
        Ok(())
    }
}
