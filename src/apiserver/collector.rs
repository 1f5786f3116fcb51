//! Owner references: what is owned goes with its last owner. Also: custom resources go with their definition.
use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::catalog::{DEFINITIONS, EVENTS};
use super::deletion;
use super::ownership::{self, Owner, Verdict, has_finalizer, owners, uid, waits};
use super::rest::ApiServer;
use super::status::ApiError;
use super::store::{Change, Event, EventKind, Key, Object};
use super::write::{self, Propagation};
use super::{strategy, tidy};

/// Holds an object until everything it owns is gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until nothing says any more that it owns it.
pub const ORPHAN: &str = "orphan";
/// Holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

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
            for definition in server.0.store.list(DEFINITIONS, None).objects {
                if let Err(error) = server.settle_names(&definition.value()).await {
                    tracing::warn!(reason = error.reason(), "the names of a definition could not be settled: {error}");
                }
            }
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
        if event.object.resource() == DEFINITIONS {
            self.settle_names(&event.object.value()).await?;
        }
        match event.kind {
            EventKind::Deleted => return self.gone(&event.object).await,
            _ if event.object.is_deleting() => self.advance_deletion(&event.object).await?,
            _ => self.collect(&event.object).await?,
        }
        // Owners that it no longer names, or no longer holds, may have waited for it.
        match event.previous.as_deref().filter(|previous| previous.owners().next().is_some()) {
            Some(previous) => self.advance_owners(previous).await,
            None => Ok(()),
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
        if resource.namespaced && dependent.namespace().is_empty() {
            return Owner::Nowhere;
        }
        let namespace = if resource.namespaced { dependent.namespace().to_owned() } else { String::new() };
        let key = Key { resource: resource.stored_as(), namespace, name: text("name").to_owned() };
        match self.0.store.get(&key) {
            Some(owner) if uid(&owner) != text("uid") => Owner::Gone,
            Some(owner) if waits(&owner) => Owner::Waiting(key),
            Some(_) => Owner::Staying(key),
            None => Owner::Gone,
        }
    }

    /// What becomes of an object by its owners: it goes when none of them stays, and loses the references to those
    /// that do not.
    async fn collect(&self, object: &Object) -> Result<(), ApiError> {
        let key = object.key();
        // As it is by now: the rest may have been said long ago.
        let Some(object) = self.0.store.find(&key) else { return Ok(()) };
        if object.is_deleting() || object.owners().next().is_none() {
            return Ok(());
        }
        let value = object.value();
        let named: Vec<(&str, Owner)> = owners(&value)
            .map(|reference| (reference["uid"].as_str().unwrap_or_default(), self.owner(&object, reference)))
            .collect();
        if named.iter().any(|(_, owner)| matches!(owner, Owner::Nowhere)) {
            self.tell_of_misplaced_owner(&value).await?;
        }
        match ownership::verdict(&named, !self.0.store.owned_by(uid(&value)).is_empty()) {
            Verdict::Stay => Ok(()),
            Verdict::Drop(uids) => {
                let drop = |old: Option<&Value>| {
                    Ok(old.map_or(Change::Keep, |old| {
                        ownership::without_owners(old, |uid| uids.iter().any(|dead| dead == uid))
                    }))
                };
                self.0.store.transact::<ApiError>(&key, drop).await.map(|_| ())
            }
            Verdict::Go(propagation) => self.remove(&key, propagation).await,
        }
    }

    /// A warning in the form of an event, once for each object.
    async fn tell_of_misplaced_owner(&self, value: &Value) -> Result<(), ApiError> {
        let event = ownership::misplaced(value, self.0.clock.now());
        let text = |field: &str| event["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = Key { resource: EVENTS.to_owned(), namespace: text("namespace"), name: text("name") };
        let once = |old: Option<&Value>| Ok(if old.is_some() { Change::Keep } else { Change::Put(event) });
        self.0.store.transact::<ApiError>(&key, once).await.map(|_| ())
    }

    async fn remove(&self, key: &Key, propagation: Propagation) -> Result<(), ApiError> {
        if key.resource == "namespaces" && !strategy::may_be_deleted(&key.name) {
            return Ok(());
        }
        let now = self.0.clock.now();
        let delete = |old: Option<&Value>| {
            Ok(old.map_or(Change::Keep, |old| deletion::of(&key.resource, old, propagation, now)))
        };
        self.0.store.transact::<ApiError>(key, delete).await?;
        if key.resource == "namespaces" {
            self.empty_namespace(key.name.clone());
        }
        Ok(())
    }

    async fn gone(&self, object: &Object) -> Result<(), ApiError> {
        let value = object.value();
        for dependent in self.0.store.owned_by(uid(&value)) {
            self.collect(&dependent).await?;
        }
        // Its own owners may have waited for it.
        self.advance_owners(object).await?;
        // A definition may have waited for its last object.
        let definition =
            Key { resource: DEFINITIONS.to_owned(), namespace: String::new(), name: object.resource().to_owned() };
        match self.0.store.find(&definition) {
            Some(definition) if definition.is_deleting() => self.advance_deletion(&definition).await,
            _ => Ok(()),
        }
    }

    /// Goes on with the deletion of those owners that are ending.
    async fn advance_owners(&self, dependent: &Object) -> Result<(), ApiError> {
        for reference in owners(&dependent.value()) {
            if let Owner::Waiting(key) = self.owner(dependent, reference)
                && let Some(owner) = self.0.store.find(&key)
            {
                self.advance_deletion(&owner).await?;
            }
        }
        Ok(())
    }

    /// Objects that an ending owner has to wait for.
    fn blockers(&self, owner: &Object) -> Vec<Arc<Object>> {
        let value = owner.value();
        let holds = |dependent: &Arc<Object>| {
            let text = dependent.value();
            let names = owners(&text).any(|o| o["uid"] == *uid(&value) && o["blockOwnerDeletion"] == true);
            names && (owner.namespace().is_empty() || owner.namespace() == dependent.namespace())
        };
        self.0.store.owned_by(uid(&value)).into_iter().filter(holds).collect()
    }

    /// Whether an object waits, itself or by what it owns, for the object at `end`: then the two would wait for each
    /// other for ever.
    fn waits_for(&self, object: Arc<Object>, end: &Key) -> bool {
        let (mut seen, mut open) = (HashSet::new(), vec![object]);
        while let Some(object) = open.pop() {
            let key = object.key();
            if key == *end {
                return true;
            }
            if waits(&object.value()) && seen.insert(key) {
                open.extend(self.blockers(&object));
            }
        }
        false
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
            for dependent in self.0.store.owned_by(uid(&value)) {
                self.collect(&dependent).await?;
            }
            if self.blockers(object).into_iter().all(|blocker| self.waits_for(blocker, &key)) {
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
                Ok(old.map_or(Change::Keep, |old| ownership::without_owners(old, |uid| uid == owner)))
            };
            self.0.store.transact::<ApiError>(&dependent.key(), strip).await?;
        }
        Ok(())
    }
}
