//! Watches as streams of JSON lines.
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::catalog::Resource;
use super::events;
use super::selector::Selector;
use super::store::{Event, EventKind, Store, StoreError, Subscription};

/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

/// What is watched and how.
pub struct WatchOptions {
    pub resource: Arc<Resource>,
    pub namespace: Option<String>,
    pub selector: Selector,
    /// Events after this version; `None` begins with what exists.
    pub since: Option<u64>,
    pub bookmarks: bool,
    /// The initial events end with a marked bookmark (streaming lists).
    pub mark_initial_end: bool,
    pub timeout: Option<Duration>,
    /// The form in which objects are sent.
    pub render: Box<dyn Fn(&Value) -> Value + Send>,
}

impl WatchOptions {
    /// The object as the watched version shows it.
    fn shown<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        if self.resource.is_core_event() { Cow::Owned(events::to_core(object)) } else { Cow::Borrowed(object) }
    }
}

struct Watching {
    options: WatchOptions,
    lines: VecDeque<Bytes>,
    subscription: Subscription,
    seen: u64,
    ends: Option<Instant>,
}

/// Starts a watch. Errors: the version is no longer in the log.
pub fn watch(store: &Store, options: WatchOptions) -> Result<impl Stream<Item = Bytes> + Send + use<>, StoreError> {
    let mut lines = VecDeque::new();
    let (seen, subscription) = match options.since {
        Some(since) => (since, store.watch(since)?),
        None => {
            let list = store.list(&options.resource.stored_as(), options.namespace.as_deref());
            for object in &list.objects {
                let shown = options.shown(object);
                if options.selector.selects(&shown) {
                    lines.push_back(line("ADDED", &(options.render)(&shown)));
                }
            }
            if options.mark_initial_end {
                lines.push_back(bookmark(&options.resource, list.version, true));
            }
            (list.version, store.watch(list.version)?)
        }
    };
    let ends = options.timeout.map(|timeout| Instant::now() + timeout);
    let mut watching = Watching { options, lines, subscription, seen, ends };
    for event in std::mem::take(&mut watching.subscription.backlog) {
        watching.take(&event);
    }
    Ok(stream::unfold(watching, |mut watching| async move {
        let line = watching.next().await?;
        Some((line, watching))
    }))
}

impl Watching {
    /// Turns an event into a line, if this watch is to see it.
    fn take(&mut self, event: &Event) {
        // The snapshot a watch began with may already hold an event that the channel brings as well.
        if event.version <= self.seen {
            return;
        }
        self.seen = event.version;
        let concerns = event.key.resource == self.options.resource.stored_as()
            && self.options.namespace.as_ref().is_none_or(|namespace| event.key.namespace == *namespace);
        if !concerns {
            return;
        }
        let selects = |object: &Arc<Value>| self.options.selector.selects(&self.options.shown(object));
        let before = event.previous.as_ref().is_some_and(selects);
        let after = event.kind != EventKind::Deleted && selects(&event.object);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return,
        };
        let object = (self.options.render)(&self.options.shown(&event.object));
        self.lines.push_back(line(kind, &object));
    }

    /// `None` ends the watch: time is up, the watcher is too slow, or the store is closed.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let quiet = Instant::now() + BOOKMARK_EVERY;
            let until = self.ends.map_or(quiet, |ends| ends.min(quiet));
            match tokio::time::timeout_at(until, self.subscription.live.recv()).await {
                Ok(Ok(event)) => self.take(&event),
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => return None,
                Err(_) if self.ends.is_some_and(|ends| ends <= Instant::now()) => return None,
                Err(_) if self.options.bookmarks => return Some(bookmark(&self.options.resource, self.seen, false)),
                Err(_) => {}
            }
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n"))
}

fn bookmark(resource: &Resource, version: u64, initial_end: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", &json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata}))
}
