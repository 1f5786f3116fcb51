//! `portalkeeper recovery`: the addresses to which links are sent, until they have a page of their own.
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::data::{DataError, existing_store};
use crate::api::{MailAddress, NameError};
use crate::store::{AuditEvent, Recovery, Store, StoreError};

/// Why recovery addresses were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the {what} {error}")]
    Address { what: &'static str, error: NameError },
    #[error("the recovery address of {0} is the mailbox itself, which its owner cannot read without the password")]
    SameAddress(MailAddress),
    #[error("{mailbox} has no recovery address")]
    NotSet { mailbox: MailAddress },
    #[error("cannot read {path}: {source}", path = .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}, line {line}: {cause}; nothing was imported", path = .path.display())]
    Line { path: PathBuf, line: usize, cause: String },
}

impl RecoveryError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Data(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Address { error, .. } => error.reason(),
            Self::SameAddress(_) => "RecoveryIsMailbox",
            Self::NotSet { .. } => "NotSet",
            Self::File { .. } => "FileUnreadable",
            Self::Line { .. } => "LineInvalid",
        }
    }
}

fn entry(mailbox: &str, address: &str) -> Result<Recovery, RecoveryError> {
    let parse = |what, text: &str| MailAddress::parse(text).map_err(|error| RecoveryError::Address { what, error });
    let entry = Recovery { mailbox: parse("mailbox", mailbox)?, address: parse("recovery address", address)? };
    let plain = |address: &MailAddress| address.local().split('+').next().unwrap_or_default().to_owned();
    // name+tag@domain is the same mailbox at most hosts.
    if entry.mailbox.domain() == entry.address.domain() && plain(&entry.mailbox) == plain(&entry.address) {
        return Err(RecoveryError::SameAddress(entry.mailbox));
    }
    Ok(entry)
}

async fn open(data: &Path) -> Result<Store, RecoveryError> {
    Ok(Store::open(&existing_store(data)?).await?)
}

async fn audit(store: &Store, action: &str, mailbox: &str, result: String) -> Result<(), StoreError> {
    let event = AuditEvent {
        at: Timestamp::now(),
        portal: String::new(),
        portal_uid: String::new(),
        action: action.to_owned(),
        mailbox: mailbox.to_owned(),
        result,
        client: String::new(),
        actor: "cli".to_owned(),
    };
    store.audit_append(&event).await
}

/// Sets one recovery address.
pub async fn set(data: &Path, mailbox: &str, address: &str) -> Result<String, RecoveryError> {
    let entry = entry(mailbox, address)?;
    let store = open(data).await?;
    let changed = store.recovery_set(std::slice::from_ref(&entry), Timestamp::now()).await?;
    let words = if changed > 0 { "set" } else { "unchanged" };
    audit(&store, "recovery-set", &entry.mailbox.to_string(), words.to_owned()).await?;
    Ok(format!("{}: {words}\n", entry.mailbox))
}

/// Removes one recovery address.
pub async fn remove(data: &Path, mailbox: &str) -> Result<String, RecoveryError> {
    let mailbox = MailAddress::parse(mailbox).map_err(|error| RecoveryError::Address { what: "mailbox", error })?;
    let store = open(data).await?;
    if !store.recovery_remove(&mailbox).await? {
        return Err(RecoveryError::NotSet { mailbox });
    }
    audit(&store, "recovery-removed", &mailbox.to_string(), "removed".to_owned()).await?;
    Ok(format!("{mailbox}: removed\n"))
}

/// Every mailbox with its recovery address, one pair a line.
pub async fn list(data: &Path) -> Result<String, RecoveryError> {
    let entries = open(data).await?.recovery_list().await?;
    Ok(entries.iter().map(|entry| format!("{},{}\n", entry.mailbox, entry.address)).collect())
}

/// Imports a file with one `mailbox,address` a line, all or nothing. Empty lines, lines that begin with `#`
/// and a heading `mailbox,address` are skipped.
pub async fn import(data: &Path, path: &Path) -> Result<String, RecoveryError> {
    let text = std::fs::read_to_string(path).map_err(|source| RecoveryError::File { path: path.to_owned(), source })?;
    let entries = parse(path, &text)?;
    let store = open(data).await?;
    let changed = store.recovery_set(&entries, Timestamp::now()).await?;
    audit(&store, "recovery-import", "", format!("{} of {} changed", changed, entries.len())).await?;
    Ok(format!("{} read, {changed} changed\n", entries.len()))
}

fn parse(path: &Path, text: &str) -> Result<Vec<Recovery>, RecoveryError> {
    let mut entries: Vec<Recovery> = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.eq_ignore_ascii_case("mailbox,address") {
            continue;
        }
        let bad = |cause: String| RecoveryError::Line { path: path.to_owned(), line: index + 1, cause };
        let fields: Vec<&str> = line.split([',', ';', '\t']).map(|field| field.trim().trim_matches('"')).collect();
        let [mailbox, address] = fields.as_slice() else {
            return Err(bad("a line is `mailbox,recovery address`".to_owned()));
        };
        let entry = entry(mailbox, address).map_err(|error| bad(error.to_string()))?;
        if entries.iter().any(|other| other.mailbox == entry.mailbox) {
            return Err(bad(format!("{} is in the file twice", entry.mailbox)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_names_its_number_and_stops_the_whole_import() {
        let read = |text: &str| parse(Path::new("people.csv"), text).map_err(|error| error.to_string());
        assert_eq!(read("mailbox,address\n# note\nann@a.example,ann@b.example\n\n").unwrap().len(), 1);
        assert_eq!(
            read("ann@a.example,ann@b.example\nbob@a.example\n").unwrap_err(),
            "people.csv, line 2: a line is `mailbox,recovery address`; nothing was imported"
        );
        assert!(
            read("ann@a.example,nobody\n")
                .unwrap_err()
                .starts_with("people.csv, line 1: the recovery address `nobody`")
        );
        assert!(read("ann@a.example,ann+x@a.example\n").unwrap_err().contains("is the mailbox itself"));
        assert!(read("ann@a.example,x@b.example\nann@a.example,y@b.example\n").unwrap_err().contains("twice"));
    }
}
