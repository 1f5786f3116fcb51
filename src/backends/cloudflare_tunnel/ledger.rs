//! Which rules of a tunnel are ours. A rule has no place for a mark, so the marks are kept beside the document.
use std::collections::HashMap;

use async_trait::async_trait;

use crate::plan::Mark;

/// A rule that was written, or is just about to be: host, service and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub host: String,
    /// As it was written; while an address changes, a host has an entry for each.
    pub service: String,
    pub mark: Mark,
}

/// Keeps the entries over restarts, by tunnel. An entry is put before its rule is written and removed after its rule
/// is gone, so that a crash at any point leaves no rule of ours unknown. The error is a text for people.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    async fn entries(&self, tunnel: &str) -> Result<Vec<Entry>, String>;
    /// All or none. An entry of the same host and service is replaced.
    async fn put(&self, tunnel: &str, entries: &[Entry]) -> Result<(), String>;
    /// Removes by host and service; what is not there is removed already.
    async fn remove(&self, tunnel: &str, entries: &[Entry]) -> Result<(), String>;
}

/// The entries of one tunnel, by host.
#[derive(Debug, Clone, Default)]
pub struct Book(HashMap<String, Vec<Entry>>);

impl Book {
    pub fn of(&self, host: &str) -> &[Entry] {
        self.0.get(host).map_or(&[], Vec::as_slice)
    }
    /// Hosts with an entry of this mark.
    pub fn hosts_of<'a>(&'a self, mark: &'a Mark) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(_, all)| all.iter().any(|entry| entry.mark == *mark)).map(|(host, _)| host.as_str())
    }
}

impl Extend<Entry> for Book {
    fn extend<T: IntoIterator<Item = Entry>>(&mut self, entries: T) {
        for entry in entries {
            let at_host = self.0.entry(entry.host.clone()).or_default();
            at_host.retain(|other| other.service != entry.service);
            at_host.push(entry);
        }
    }
}

impl FromIterator<Entry> for Book {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let mut book = Self::default();
        book.extend(entries);
        book
    }
}
