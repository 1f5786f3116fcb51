//! Watches as streams of JSON lines. A watch holds no text but the line it is sending: what exists is rendered when its
//! turn comes, and what happens is read from the store's log.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};
use serde_json::json;
use tokio::time::Instant;

use super::render::Rendering;
use super::selector::Selector;
use super::status::ApiError;
use super::store::{Event, EventKind, Follower, Object, Store, StoreError};

/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

/// What is watched and how.
pub struct WatchOptions {
    pub rendering: Rendering,
    pub namespace: Option<String>,
    pub selector: Selector,
    pub begins: Begin,
    /// Quiet times are broken by bookmarks, and the end of what existed is marked by one.
    pub bookmarks: bool,
    pub timeout: Duration,
}

/// What a watch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    WithWhatExists,
    Now,
    /// Events after this version.
    After(u64),
}

struct Watching {
    options: WatchOptions,
    /// What there was when it began, and has not been sent yet.
    existing: std::vec::IntoIter<Arc<Object>>,
    /// The version of what there was, until its end has been marked.
    initial_end: Option<u64>,
    events: VecDeque<Arc<Event>>,
    follower: Follower,
    ends: Instant,
    /// Whether an event has been sent, and with it what is told only once.
    begun: bool,
}

/// Starts a watch. Errors: the version is no longer in the log.
pub fn watch(store: &Store, options: WatchOptions) -> Result<impl Stream<Item = Bytes> + Send + use<>, StoreError> {
    let resource = options.rendering.resource.stored_as();
    let (existing, initial_end, follower) = match options.begins {
        Begin::After(since) => (Vec::new(), None, store.follow(&resource, since)?),
        Begin::Now => (Vec::new(), None, store.follow(&resource, store.version())?),
        Begin::WithWhatExists => {
            let (list, follower) = store.list_and_follow(&resource, options.namespace.as_deref())?;
            (list.objects, options.bookmarks.then_some(list.version), follower)
        }
    };
    let ends = Instant::now() + options.timeout;
    let existing = existing.into_iter();
    let watching = Watching { options, existing, initial_end, events: VecDeque::new(), follower, ends, begun: false };
    Ok(stream::unfold(watching, |mut watching| async move {
        let line = watching.next().await?;
        Some((line, watching))
    }))
}

impl Watching {
    fn selects(&self, object: &Object) -> bool {
        self.options.namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace())
            && self.options.selector.selects_stored(&self.options.rendering.resource, object)
    }

    /// The line of an object.
    fn line(&mut self, kind: &str, object: &Object) -> Bytes {
        let first = !std::mem::replace(&mut self.begun, true);
        line(kind, &self.options.rendering.event(object, first))
    }

    fn bookmark(&mut self, version: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let first = !std::mem::replace(&mut self.begun, true);
        line("BOOKMARK", self.options.rendering.bookmark(&metadata, first).to_string().as_bytes())
    }

    /// The line that tells an event, if this watch is to see it.
    fn line_of(&mut self, event: &Event) -> Option<Bytes> {
        let before = event.previous.as_ref().is_some_and(|object| self.selects(object));
        let after = event.kind != EventKind::Deleted && self.selects(&event.object);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        // What left the selection is shown as it was in it, with the version at which it left.
        if let (EventKind::Modified, "DELETED", Some(previous)) = (event.kind, kind, &event.previous) {
            let mut last = self.options.rendering.value(previous);
            last["metadata"]["resourceVersion"] = json!(event.version().to_string());
            let first = !std::mem::replace(&mut self.begun, true);
            return Some(line(kind, &self.options.rendering.event_of(&last, first)));
        }
        Some(self.line(kind, &event.object))
    }

    /// `None` ends the watch: time is up, the watcher is too slow, or the store is closed.
    async fn next(&mut self) -> Option<Bytes> {
        while let Some(object) = self.existing.next() {
            if self.selects(&object) {
                return Some(self.line("ADDED", &object));
            }
        }
        if let Some(version) = self.initial_end.take() {
            return Some(self.bookmark(version, true));
        }
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(line) = self.line_of(&event) {
                    return Some(line);
                }
            }
            let until = self.ends.min(Instant::now() + BOOKMARK_EVERY);
            match tokio::time::timeout_at(until, self.follower.next()).await {
                Ok(Some(Ok(events))) => self.events.extend(events),
                // Too slow to be served: it lists anew.
                Ok(Some(Err(_)) | None) => return None,
                Err(_) if self.ends <= Instant::now() => return None,
                Err(_) if self.options.bookmarks => return Some(self.bookmark(self.follower.seen(), false)),
                Err(_) => {}
            }
        }
    }
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(kind.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

/// A watch that is refused after it has begun.
pub fn refusal(error: &ApiError) -> impl Stream<Item = Bytes> + Send + use<> {
    let line = line("ERROR", error.body().to_string().as_bytes());
    stream::iter([line])
}
