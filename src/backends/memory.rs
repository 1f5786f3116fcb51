//! A backend in memory: the smallest thing that passes the conformance suite.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::{Backend, BackendError, ErrorClass, Scope};
use crate::http::double::lock;
use crate::plan::{Change, Intent, Item, Observed, Ownership, Plan};

/// A name that leads somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub host: String,
    pub target: String,
}

impl Item for Entry {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        self == desired
    }
    fn describe(&self) -> String {
        format!("entry for {}", self.target)
    }
}

#[derive(Debug, Default)]
struct State {
    things: Vec<Observed<Entry>>,
    next: u64,
    writes: usize,
    /// Writes at this name are refused.
    refused: Option<String>,
    reads_fail: bool,
}

/// The whole system. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    pub fn things(&self) -> Vec<Observed<Entry>> {
        lock(&self.0).things.clone()
    }
    pub fn put_foreign(&self, host: &str, target: &str) {
        let mut state = lock(&self.0);
        state.next += 1;
        let id = state.next.to_string();
        let item = Entry { host: host.to_owned(), target: target.to_owned() };
        state.things.push(Observed { id, ownership: Ownership::Foreign, item });
    }
    /// Somebody changes whatever stands at the name, and leaves the mark.
    pub fn change(&self, host: &str, target: &str) {
        for thing in lock(&self.0).things.iter_mut().filter(|thing| thing.item.host == host) {
            thing.item.target = target.to_owned();
        }
    }
    /// Somebody removes whatever stands at the name.
    pub fn remove(&self, host: &str) {
        lock(&self.0).things.retain(|thing| thing.item.host != host);
    }
    pub fn writes(&self) -> usize {
        lock(&self.0).writes
    }
    pub fn fail_reads(&self, fail: bool) {
        lock(&self.0).reads_fail = fail;
    }
    pub fn refuse(&self, host: Option<&str>) {
        lock(&self.0).refused = host.map(str::to_owned);
    }
}

#[async_trait]
impl Backend for Memory {
    type Item = Entry;

    fn instance(&self) -> String {
        "memory".to_owned()
    }

    fn desired(&self, intent: &Intent) -> Vec<Entry> {
        let target = intent.cname_target.as_ref().map(ToString::to_string).unwrap_or_default();
        vec![Entry { host: intent.host.to_string(), target }]
    }

    async fn observe(&self, _: &Scope) -> Result<Vec<Observed<Entry>>, BackendError> {
        let state = lock(&self.0);
        if state.reads_fail {
            return Err(BackendError::new(ErrorClass::Unavailable, "Unreachable", "reads fail on purpose"));
        }
        Ok(state.things.clone())
    }

    async fn apply(&self, plan: &Plan<Entry>) -> Vec<Result<Option<String>, BackendError>> {
        let mut state = lock(&self.0);
        let mut outcomes = Vec::new();
        for change in &plan.changes {
            let (Change::Create { item, .. }
            | Change::Update { to: item, .. }
            | Change::Adopt { to: item, .. }
            | Change::Delete { item, .. }
            | Change::Release { item, .. }) = change;
            state.writes += 1;
            if state.refused.as_deref() == Some(item.key()) {
                outcomes.push(Err(BackendError::new(ErrorClass::Permanent, "Refused", "refused on purpose")));
                continue;
            }
            outcomes.push(Ok(match change {
                Change::Create { mark, item, .. } => {
                    state.next += 1;
                    let id = state.next.to_string();
                    let ownership = Ownership::Marked(mark.clone());
                    state.things.push(Observed { id: id.clone(), ownership, item: item.clone() });
                    Some(id)
                }
                Change::Update { mark, id, to, .. } | Change::Adopt { mark, id, to, .. } => {
                    for thing in state.things.iter_mut().filter(|thing| thing.id == *id) {
                        thing.item = to.clone();
                        thing.ownership = Ownership::Marked(mark.clone());
                    }
                    Some(id.clone())
                }
                Change::Delete { id, .. } => {
                    state.things.retain(|thing| thing.id != *id);
                    None
                }
                Change::Release { id, .. } => {
                    for thing in state.things.iter_mut().filter(|thing| thing.id == *id) {
                        thing.ownership = Ownership::Foreign;
                    }
                    None
                }
            }));
        }
        outcomes
    }

    fn drift_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignEntry"
    }
}
