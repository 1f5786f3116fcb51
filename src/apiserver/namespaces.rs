//! The end of a namespace: its contents go first, finalizers included, then it goes itself. Also the end of
//! old events.
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::catalog::EVENTS;
use super::kinds::NAMESPACE_FINALIZER;
use super::leftovers::Left;
use super::rest::{Answer, ApiServer, Call, Target};
use super::status::ApiError;
use super::store::{Change, Key};
use super::write::{self, Propagation};
use super::{replacement, strategy};
use crate::http::shutdown::Shutdown;

/// How long events are kept, and how often old ones are swept out.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
const SWEEP: Duration = Duration::from_secs(120);

/// A namespace held by these alone, and whether it goes with that.
fn finalized(old: &Value, finalizers: Vec<Value>) -> (Value, bool) {
    let mut new = old.clone();
    new["spec"] = if finalizers.is_empty() { json!({}) } else { json!({"finalizers": finalizers}) };
    let gone = finalizers.is_empty() && !old["metadata"]["deletionTimestamp"].is_null() && !write::has_finalizers(old);
    (new, gone)
}

impl ApiServer {
    /// Goes on with the namespaces that were ending when the program stopped.
    pub(super) fn resume_namespaces(&self) {
        for namespace in self.0.store.list("namespaces", None).objects {
            if namespace.is_deleting() {
                self.empty_namespace(namespace.name().to_owned());
            }
        }
    }

    /// Empties a namespace in the background and removes it once nothing is left in it.
    pub(super) fn empty_namespace(&self, name: String) {
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                // The server may have been dropped meanwhile.
                let Some(server) = inner.upgrade().map(ApiServer) else { return };
                match server.empty_once(&name).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => tracing::warn!(namespace = %name, reason = error.reason(), "{error}"),
                }
                drop(server);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// Deletes what is in a namespace; whether nothing is left to do.
    async fn empty_once(&self, name: &str) -> Result<bool, ApiError> {
        let now = self.0.clock.now();
        let mut left = Left::default();
        for resource in self.0.catalog.all(&self.0.store).iter().filter(|resource| resource.namespaced) {
            // Events are one store under two names.
            if resource.is_core_event() {
                continue;
            }
            for object in self.0.store.list(&resource.stored_as(), Some(name)).objects {
                let key = object.key();
                let delete = |old: Option<&Value>| {
                    Ok(old.map_or(Change::Keep, |old| write::delete(old, Propagation::Background, now)))
                };
                self.0.store.transact::<ApiError>(&key, delete).await?;
                if let Some(object) = self.0.store.get(&key) {
                    left.count(resource, &object);
                }
            }
        }
        let key = Key { resource: "namespaces".to_owned(), namespace: String::new(), name: name.to_owned() };
        self.0.store.transact::<ApiError>(&key, |old| Ok(old.map_or(Change::Keep, |old| left.tell(old, now)))).await?;
        if !left.is_empty() {
            return Ok(false);
        }
        let emptied = |old: Option<&Value>| {
            let Some(old) = old else { return Ok(Change::Keep) };
            let mut finalizers = old["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
            finalizers.retain(|finalizer| finalizer != NAMESPACE_FINALIZER);
            Ok(match finalized(old, finalizers) {
                (_, true) => Change::Remove,
                (new, false) if new == *old => Change::Keep,
                (new, false) => Change::Put(new),
            })
        };
        self.0.store.transact::<ApiError>(&key, emptied).await?;
        Ok(true)
    }

    /// `PUT /api/v1/namespaces/NAME/finalize`: says who still holds the namespace.
    pub(super) async fn finalize(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let mut body = call.object(target, &self.0.catalog.all(&self.0.store))?;
        replacement::check(target, name, &mut body)?;
        let mut gone = None;
        let stored = self
            .0
            .store
            .transact::<ApiError>(&target.key(name), |old| {
                let old = old.ok_or_else(|| ApiError::not_found("namespaces", name))?;
                replacement::meets(&target.resource, &body, old)?;
                if !strategy::names_no_version(&body)
                    && body["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]
                {
                    return Err(ApiError::modified("namespaces", name));
                }
                Ok(match finalized(old, body["spec"]["finalizers"].as_array().cloned().unwrap_or_default()) {
                    (new, true) => {
                        gone = Some(new);
                        Change::Remove
                    }
                    (new, false) if new == *old => Change::Keep,
                    (new, false) => Change::Put(new),
                })
            })
            .await?;
        let object = gone.or(stored).ok_or_else(|| ApiError::not_found("namespaces", name))?;
        Ok(self.object_answer(200, target, call, &object))
    }

    /// Sweeps old events out until shutdown.
    pub async fn sweep_events(self, shutdown: Shutdown) {
        loop {
            if let Err(error) = self.sweep_once().await {
                tracing::warn!(reason = error.reason(), "old events could not be removed: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                () = shutdown.wait() => return,
            }
        }
    }

    async fn sweep_once(&self) -> Result<(), ApiError> {
        let now = self.0.clock.now();
        for object in self.0.store.list(EVENTS, None).objects {
            let event = object.value();
            let places = [
                &event["series"]["lastObservedTime"],
                &event["deprecatedLastTimestamp"],
                &event["eventTime"],
                &event["metadata"]["creationTimestamp"],
            ];
            let last =
                places.into_iter().find_map(|time| time.as_str().and_then(|text| text.parse::<Timestamp>().ok()));
            if last.is_some_and(|last| now.duration_since(last) >= EVENT_LIFE) {
                self.0.store.transact::<ApiError>(&object.key(), |_| Ok(Change::Remove)).await?;
            }
        }
        Ok(())
    }
}
