//! What is left in a namespace that is to go, as its conditions tell it. Pure.
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::catalog::Resource;
use super::store::Change;
use super::write::whole_seconds;

/// What is left, by resource, and what holds it, by finalizer.
#[derive(Default)]
pub struct Left {
    objects: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Left {
    pub fn count(&mut self, resource: &Resource, object: &Value) {
        *self.objects.entry(format!("{}.{}", resource.plural, resource.group)).or_default() += 1;
        for finalizer in object["metadata"]["finalizers"].as_array().into_iter().flatten() {
            *self.finalizers.entry(finalizer.as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Writes it into the namespace's conditions.
    pub fn tell(&self, namespace: &Value, now: Timestamp) -> Change {
        let counted = |all: &BTreeMap<String, usize>, verb: &str| {
            all.iter()
                .map(|(name, count)| format!("{name} {verb} {count} resource instances"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let content = match self.objects.is_empty() {
            true => ("False", "ContentRemoved", "All content successfully removed".to_owned()),
            false => (
                "True",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", counted(&self.objects, "has")),
            ),
        };
        let held = match self.finalizers.is_empty() {
            true => ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
            false => {
                let words = "Some content in the namespace has finalizers remaining";
                ("True", "SomeFinalizersRemain", format!("{words}: {}", counted(&self.finalizers, "in")))
            }
        };
        let fine = |reason: &'static str, message: &str| ("False", reason, message.to_owned());
        let conditions = [
            ("NamespaceDeletionDiscoveryFailure", fine("ResourcesDiscovered", "All resources successfully discovered")),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                fine("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            (
                "NamespaceDeletionContentFailure",
                fine("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            ("NamespaceContentRemaining", content),
            ("NamespaceFinalizersRemaining", held),
        ];
        let mut new = namespace.clone();
        for (kind, (status, reason, message)) in conditions {
            let mut condition = json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": whole_seconds(now),
            });
            if !new["status"]["conditions"].is_array() {
                new["status"]["conditions"] = json!([]);
            }
            let Some(all) = new["status"]["conditions"].as_array_mut() else { continue };
            match all.iter_mut().find(|other| other["type"] == kind) {
                Some(other) => {
                    if other["status"] == status {
                        condition["lastTransitionTime"] = other["lastTransitionTime"].clone();
                    }
                    *other = condition;
                }
                None => all.push(condition),
            }
        }
        if new == *namespace { Change::Keep } else { Change::Put(new) }
    }
}
