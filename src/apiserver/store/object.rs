//! A stored object: its text, and what must be known of it without reading that.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::pack::{Packed, Packer};

/// Where an object lives. The namespace is empty for cluster-wide objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `plural` or `plural.group`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// The place within the resource: `namespace/name`, or the name alone. Lists are in the order of these texts, as
    /// etcd has it.
    pub(super) fn place(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// One object at one version. Never changes.
#[derive(Debug)]
pub struct Object {
    resource: Arc<str>,
    place: Arc<str>,
    version: u64,
    labels: Box<[(Box<str>, Box<str>)]>,
    owners: Box<[Box<str>]>,
    deleting: bool,
    packed: Packed,
}

/// What is looked at when an object is only sorted, not read.
#[derive(Deserialize, Default)]
struct Head {
    #[serde(default)]
    metadata: HeadMetadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeadMetadata {
    resource_version: Option<String>,
    labels: Option<std::collections::BTreeMap<Box<str>, Option<Box<str>>>>,
    owner_references: Option<Vec<HeadOwner>>,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HeadOwner {
    uid: Box<str>,
}

impl Object {
    /// Reads the head of a stored text. Errors: it is not an object as it was stored.
    pub(super) fn read(
        resource: Arc<str>,
        place: Arc<str>,
        text: &[u8],
        packer: &mut Packer,
    ) -> Result<Self, serde_json::Error> {
        let Head { metadata } = serde_json::from_slice(text)?;
        let labels = metadata.labels.unwrap_or_default().into_iter();
        let owners = metadata.owner_references.unwrap_or_default().into_iter();
        Ok(Self {
            resource,
            place,
            version: metadata.resource_version.and_then(|version| version.parse().ok()).unwrap_or_default(),
            labels: labels.map(|(name, value)| (name, value.unwrap_or_default())).collect(),
            owners: owners.map(|owner| owner.uid).collect(),
            deleting: metadata.deletion_timestamp.is_some(),
            packed: packer.pack(text),
        })
    }

    pub fn resource(&self) -> &str {
        &self.resource
    }
    /// Empty for cluster-wide objects.
    pub fn namespace(&self) -> &str {
        self.place.split_once('/').map_or("", |(namespace, _)| namespace)
    }
    pub fn name(&self) -> &str {
        self.place.split_once('/').map_or(&self.place, |(_, name)| name)
    }
    pub fn key(&self) -> Key {
        Key {
            resource: self.resource.to_string(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }
    pub(super) fn place(&self) -> &Arc<str> {
        &self.place
    }
    pub fn version(&self) -> u64 {
        self.version
    }
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| **own == *name).map(|(_, value)| &**value)
    }
    /// Uids of its owners.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|uid| &**uid)
    }
    /// Whether its deletion has begun.
    pub fn is_deleting(&self) -> bool {
        self.deleting
    }
    /// Its JSON text.
    pub fn text(&self) -> std::borrow::Cow<'_, [u8]> {
        self.packed.text()
    }
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.text()).unwrap_or_else(|error| unreachable!("checked when it was stored: {error}"))
    }
    /// Bytes that its text takes in memory.
    pub(super) fn size(&self) -> usize {
        self.packed.size()
    }
}
