//! The end of a namespace: its contents go first, finalizers included, then it goes itself. Also the end of
//! old events.
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::catalog::EVENTS;
use super::rest::ApiServer;
use super::status::ApiError;
use super::store::{Change, Key};
use super::write;
use crate::http::shutdown::Shutdown;

/// How long events are kept, and how often old ones are swept out.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
const SWEEP: Duration = Duration::from_secs(120);

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

    async fn empty_once(&self, name: &str) -> Result<bool, ApiError> {
        let now = self.0.clock.now();
        let mut left = 0;
        for resource in self.0.catalog.all(&self.0.store).iter().filter(|resource| resource.namespaced) {
            for object in self.0.store.list(&resource.stored_as(), Some(name)).objects {
                let key = object.key();
                let delete = |old: Option<&Value>| Ok(old.map_or(Change::Keep, |old| write::delete(old, now)));
                self.0.store.transact::<ApiError>(&key, delete).await?;
                left += usize::from(self.0.store.find(&key).is_some());
            }
        }
        if left > 0 {
            return Ok(false);
        }
        let key = Key { resource: "namespaces".to_owned(), namespace: String::new(), name: name.to_owned() };
        self.0.store.transact::<ApiError>(&key, |old| Ok(old.map_or(Change::Keep, |_| Change::Remove))).await?;
        Ok(true)
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
