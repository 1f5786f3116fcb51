//! Owner references: what is owned goes with its last owner. Also: custom resources go with their definition.
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::catalog::DEFINITIONS;
use super::rest::ApiServer;
use super::status::ApiError;
use super::store::{Change, Event, EventKind, Key, Object};
use super::tidy;
use super::write::{self, Propagation};

/// Holds an object until everything it owns is gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until nothing says any more that it owns it.
pub const ORPHAN: &str = "orphan";
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

fn without_finalizer(key: &Key, object: &Value, name: &str) -> Change {
    let mut new = object.clone();
    if let Some(finalizers) = new["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != name);
    }
    if write::has_finalizers(&new) {
        return Change::Put(new);
    }
    tidy::remove(&mut new["metadata"], "finalizers");
    let held = key.resource == "namespaces" && write::namespace_waits(&new);
    if new["metadata"]["deletionTimestamp"].is_null() || held { Change::Put(new) } else { Change::Remove }
}

/// The first step of a definition's end.
pub fn terminate_definition(old: &Value, now: jiff::Timestamp) -> Change {
    if !old["metadata"]["deletionTimestamp"].is_null() {
        return Change::Keep;
    }
    let mut held = old.clone();
    if !has_finalizer(old, CLEANUP) {
        let mut finalizers = held["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.push(json!(CLEANUP));
        held["metadata"]["finalizers"] = Value::Array(finalizers);
    }
    held["metadata"]["deletionTimestamp"] = json!(write::whole_seconds(now));
    if let Some(conditions) = held["status"]["conditions"].as_array_mut() {
        conditions.push(json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            "lastTransitionTime": write::whole_seconds(now),
        }));
    }
    Change::Put(held)
}

impl ApiServer {
    /// Follows the store for as long as the server lives.
    pub(super) fn collect_garbage(&self) {
        let weak = Arc::downgrade(&self.0);
        let mut events = self.0.store.events();
        tokio::spawn(async move {
            let Some(server) = weak.upgrade().map(ApiServer) else { return };
            server.collect_everything().await;
            drop(server);
            loop {
                let received = events.recv().await;
                let Some(server) = weak.upgrade().map(ApiServer) else { return };
                let done = match received {
                    Ok(event) => server.follow_up(&event).await,
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

    async fn follow_up(&self, event: &Event) -> Result<(), ApiError> {
        match event.kind {
            EventKind::Deleted => self.gone(&event.object).await,
            _ if event.object.is_deleting() => self.advance_deletion(&event.object).await,
            _ => self.collect(&event.object).await,
        }
    }

    async fn collect_everything(&self) {
        for object in self.0.store.unsettled() {
            let done =
                if object.is_deleting() { self.advance_deletion(&object).await } else { self.collect(&object).await };
            if let Err(error) = done {
                tracing::warn!(reason = error.reason(), "an owned object could not be removed: {error}");
            }
        }
    }

    /// The owner that a reference of `dependent` names, if it is there and is the one that was meant.
    fn owner(&self, dependent: &Object, reference: &Value) -> Owner {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let served = self.0.catalog.all(&self.0.store);
        let Some(resource) = served.iter().find(|r| r.kind == text("kind") && r.api_version() == text("apiVersion"))
        else {
            // Nobody can say whether it is there, so nothing is done.
            return Owner::Unknown;
        };
        let namespace = if resource.namespaced { dependent.namespace().to_owned() } else { String::new() };
        let key = Key { resource: resource.stored_as(), namespace, name: text("name").to_owned() };
        match self.0.store.get(&key) {
            Some(owner) if uid(&owner) == text("uid") => Owner::Living(key),
            _ => Owner::Gone,
        }
    }

    /// An object all of whose owners are gone goes, too.
    async fn collect(&self, object: &Object) -> Result<(), ApiError> {
        if object.owners().next().is_none() {
            return Ok(());
        }
        let value = object.value();
        if owners(&value).any(|reference| !matches!(self.owner(object, reference), Owner::Gone)) {
            return Ok(());
        }
        self.remove(&object.key(), Propagation::Unsaid).await
    }

    async fn remove(&self, key: &Key, propagation: Propagation) -> Result<(), ApiError> {
        let now = self.0.clock.now();
        let delete = |old: Option<&Value>| Ok(old.map_or(Change::Keep, |old| write::delete(old, propagation, now)));
        self.0.store.transact(key, delete).await.map(|_| ())
    }

    async fn gone(&self, object: &Object) -> Result<(), ApiError> {
        let value = object.value();
        for dependent in self.0.store.owned_by(uid(&value)) {
            self.collect(&dependent).await?;
        }
        // Its own owners may have waited for it.
        for reference in owners(&value) {
            if let Owner::Living(key) = self.owner(object, reference)
                && let Some(owner) = self.0.store.find(&key)
            {
                self.advance_deletion(&owner).await?;
            }
        }
        // A definition may have waited for its last object.
        let definition =
            Key { resource: DEFINITIONS.to_owned(), namespace: String::new(), name: object.resource().to_owned() };
        match self.0.store.find(&definition) {
            Some(definition) if definition.is_deleting() => self.advance_deletion(&definition).await,
            _ => Ok(()),
        }
    }

    /// Goes on with a deletion that waits for other objects.
    async fn advance_deletion(&self, object: &Object) -> Result<(), ApiError> {
        let (key, value) = (object.key(), object.value());
        if value["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        if has_finalizer(&value, ORPHAN) {
            self.orphan_dependents(uid(&value)).await?;
            self.take_off(&key, ORPHAN).await?;
        }
        if has_finalizer(&value, FOREGROUND) {
            let mut blocked = false;
            for dependent in self.0.store.owned_by(uid(&value)) {
                let reference = dependent.value();
                let blocks = owners(&reference).any(|o| o["uid"] == *uid(&value) && o["blockOwnerDeletion"] == true);
                // What owns something itself waits for that as well.
                let owns = !self.0.store.owned_by(uid(&reference)).is_empty();
                self.remove(&dependent.key(), if owns { Propagation::Foreground } else { Propagation::Unsaid }).await?;
                blocked |= blocks && self.0.store.find(&dependent.key()).is_some();
            }
            if !blocked {
                self.take_off(&key, FOREGROUND).await?;
            }
        }
        if key.resource == DEFINITIONS && has_finalizer(&value, CLEANUP) {
            let mut left = false;
            for custom in self.0.store.list(&key.name, None).objects {
                self.remove(&custom.key(), Propagation::Unsaid).await?;
                left |= self.0.store.find(&custom.key()).is_some();
            }
            if !left {
                self.take_off(&key, CLEANUP).await?;
            }
        }
        Ok(())
    }

    async fn take_off(&self, key: &Key, finalizer: &str) -> Result<(), ApiError> {
        let take = |old: Option<&Value>| {
            Ok(old
                .filter(|old| has_finalizer(old, finalizer))
                .map_or(Change::Keep, |old| without_finalizer(key, old, finalizer)))
        };
        self.0.store.transact::<ApiError>(key, take).await.map(|_| ())
    }

    /// `propagationPolicy: Orphan`: what is owned stays, without the reference.
    async fn orphan_dependents(&self, owner: &str) -> Result<(), ApiError> {
        for dependent in self.0.store.owned_by(owner) {
            let strip = |old: Option<&Value>| {
                let Some(old) = old else { return Ok(Change::Keep) };
                let mut new = old.clone();
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
            self.0.store.transact::<ApiError>(&dependent.key(), strip).await?;
        }
        Ok(())
    }
}

/// What there is to say of an owner.
enum Owner {
    Living(Key),
    /// Not there, or another one of the same name.
    Gone,
    /// Of a kind that is not served.
    Unknown,
}
