//! The entries of `metadata.managedFields`: each manager's fields. Pure.
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fieldset::{FieldSet, words};
use super::status::ApiError;
use super::typed::Comparison;

/// Most entries of managers that update; the oldest are put together.
const MOST_UPDATERS: usize = 10;
/// The manager of entries that were put together.
const ANCIENT: &str = "ancient-changes";

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    pub manager: String,
    pub apply: bool,
    /// `status`, or empty for the main path.
    pub subresource: &'static str,
    pub now: Timestamp,
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    manager: String,
    apply: bool,
    api_version: String,
    subresource: String,
    /// Absent for who only ever applied what was there already.
    time: Option<String>,
    fields: FieldSet,
}

impl Entry {
    fn operation(&self) -> &'static str {
        if self.apply { "Apply" } else { "Update" }
    }

    /// What tells managers apart: who applies is the same one in every version. Sorts as Kubernetes sorts.
    fn identity(&self) -> String {
        let mut text = format!("{{\"manager\":{},\"operation\":\"{}\"", json!(self.manager), self.operation());
        if !self.apply {
            text.push_str(&format!(",\"apiVersion\":{}", json!(self.api_version)));
        }
        if !self.subresource.is_empty() {
            text.push_str(&format!(",\"subresource\":{}", json!(self.subresource)));
        }
        text.push('}');
        text
    }

    /// Seconds since 1970; 0 for none.
    fn seconds(&self) -> i64 {
        let time = self.time.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        time.map_or(0, Timestamp::as_second)
    }

    fn shown(&self) -> String {
        let mut text = json!(self.manager).to_string();
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", json!(self.subresource)));
        }
        if !self.apply {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// The managers of an object by identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed(BTreeMap<String, Entry>);

impl Managed {
    /// Reads an object's list; `None` for one that cannot be read.
    pub fn of(object: &Value) -> Option<Self> {
        let mut managed = Self::default();
        for listed in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let text = |field: &str| listed[field].as_str().unwrap_or_default().to_owned();
            let apply = match listed["operation"].as_str()? {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            if text("apiVersion").is_empty() || listed["fieldsType"] != "FieldsV1" {
                return None;
            }
            let none = json!({});
            let entry = Entry {
                manager: text("manager"),
                apply,
                api_version: text("apiVersion"),
                subresource: text("subresource"),
                time: listed["time"].as_str().map(str::to_owned),
                fields: FieldSet::from_json(listed.get("fieldsV1").unwrap_or(&none))?,
            };
            managed.0.insert(entry.identity(), entry);
        }
        Some(managed)
    }

    /// Whether a client asks for the list to be emptied: `[]` or `[{}]`.
    pub fn is_cleared(object: &Value) -> bool {
        match object["metadata"]["managedFields"].as_array().map(Vec::as_slice) {
            Some([]) => true,
            Some([one]) => one.as_object().is_some_and(serde_json::Map::is_empty),
            _ => false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn entry_of(writer: &Writer, api_version: &str) -> Entry {
        Entry {
            manager: writer.manager.clone(),
            apply: writer.apply,
            api_version: api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: None,
            fields: FieldSet::default(),
        }
    }

    /// What is said of who applies.
    pub fn fields_of(&self, applier: &Writer) -> Option<FieldSet> {
        self.0.get(&Self::entry_of(applier, "").identity()).map(|entry| entry.fields.clone())
    }

    /// What all the others own.
    pub fn others(&self, applier: &Writer) -> FieldSet {
        let own = Self::entry_of(applier, "").identity();
        let others = self.0.iter().filter(|(identity, _)| **identity != own);
        others.fold(FieldSet::default(), |all, (_, entry)| all.union(&entry.fields))
    }

    /// Takes from everybody what a write changed or removed.
    pub fn take_over(&mut self, comparison: &Comparison) {
        self.lose(None, comparison);
    }

    /// The same, but not from who applies.
    pub fn take_over_from_others(&mut self, applier: &Writer, comparison: &Comparison) {
        self.lose(Some(Self::entry_of(applier, "").identity()), comparison);
    }

    fn lose(&mut self, but: Option<String>, comparison: &Comparison) {
        let lost = comparison.modified.union(&comparison.added).union(&comparison.removed);
        for (_, entry) in self.0.iter_mut().filter(|(identity, _)| Some(*identity) != but.as_ref()) {
            entry.fields = entry.fields.difference(&lost);
        }
        self.0.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Whose fields a configuration would change, by identity.
    pub fn conflicts(&self, applier: &Writer, comparison: &Comparison) -> Vec<(String, FieldSet)> {
        let own = Self::entry_of(applier, "").identity();
        let changed = comparison.modified.union(&comparison.added);
        let others = self.0.iter().filter(|(identity, _)| **identity != own);
        let fought = others.map(|(identity, entry)| (identity.clone(), entry.fields.intersection(&changed)));
        fought.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// Adds what a write set to its writer's fields.
    pub fn add(&mut self, writer: &Writer, api_version: &str, fields: &FieldSet) {
        let new = Self::entry_of(writer, api_version);
        let entry = self.0.entry(new.identity()).or_insert(new);
        entry.fields = entry.fields.union(fields);
        entry.time = Some(whole_seconds(writer.now));
    }

    /// Says anew what who applies owns; the time is only that of changes.
    pub fn set(&mut self, writer: &Writer, api_version: &str, fields: FieldSet, changed: bool) {
        let mut new = Self::entry_of(writer, api_version);
        let identity = new.identity();
        let before = self.0.remove(&identity).and_then(|entry| entry.time);
        new.time = if changed { Some(whole_seconds(writer.now)) } else { before };
        new.fields = fields;
        if !new.fields.is_empty() {
            self.0.insert(identity, new);
        }
    }

    /// Puts the oldest entries together when there are too many that update.
    pub fn cap(&mut self) {
        let mut updaters: Vec<(i64, String)> =
            self.0.iter().filter(|(_, e)| !e.apply).map(|(identity, e)| (e.seconds(), identity.clone())).collect();
        updaters.sort();
        let mut many = updaters.len();
        let mut first: BTreeMap<String, String> = BTreeMap::new();
        for (_, identity) in updaters {
            if many <= MOST_UPDATERS {
                return;
            }
            let Some(entry) = self.0.get(&identity).cloned() else { continue };
            let Some(first) = first.get(&entry.api_version) else {
                first.insert(entry.api_version, identity);
                continue;
            };
            let bucket = Entry {
                manager: ANCIENT.to_owned(),
                subresource: String::new(),
                fields: FieldSet::default(),
                ..entry.clone()
            };
            let mut bucket = self.0.remove(&bucket.identity()).unwrap_or(bucket);
            if let Some(first) = self.0.remove(first) {
                bucket.fields = bucket.fields.union(&first.fields);
            }
            self.0.remove(&identity);
            bucket.fields = bucket.fields.union(&entry.fields);
            bucket.time = entry.time;
            self.0.insert(bucket.identity(), bucket);
            many -= 1;
        }
    }

    /// Writes the list: who applies first, then by time.
    pub fn put_into(&self, object: &mut Value) {
        let mut entries: Vec<&Entry> = self.0.values().collect();
        entries.sort_by_cached_key(|entry| {
            let name = (entry.manager.clone(), entry.api_version.clone(), entry.subresource.clone());
            (entry.operation(), entry.seconds(), name)
        });
        let listed: Vec<Value> = entries.into_iter().map(written).collect();
        let Some(metadata) = object["metadata"].as_object_mut() else { return };
        if listed.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(listed));
        }
    }

    pub fn conflict_error(&self, conflicts: &[(String, FieldSet)]) -> ApiError {
        let shown = |identity: &String| self.0.get(identity).map(Entry::shown).unwrap_or_default();
        let all: Vec<(String, String)> = conflicts
            .iter()
            .flat_map(|(who, set)| set.paths().into_iter().map(|path| (shown(who), words(&path))).collect::<Vec<_>>())
            .collect();
        let causes = all.iter().map(|(who, field)| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {who}"), "field": field})
        });
        let causes: Vec<Value> = causes.collect();
        if let [(who, field)] = all.as_slice() {
            return ApiError::apply_conflict(
                format!("Apply failed with 1 conflict: conflict with {who}: {field}"),
                causes,
            );
        }
        let mut lines = Vec::new();
        for (who, set) in conflicts {
            lines.push(format!("conflicts with {}:", shown(who)));
            lines.extend(set.paths().iter().map(|path| format!("- {}", words(path))));
        }
        ApiError::apply_conflict(format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n")), causes)
    }
}

fn written(entry: &Entry) -> Value {
    let mut value = json!({
        "manager": entry.manager, "operation": entry.operation(), "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1", "fieldsV1": entry.fields.to_json(),
    });
    if let Some(time) = &entry.time {
        value["time"] = json!(time);
    }
    if !entry.subresource.is_empty() {
        value["subresource"] = json!(entry.subresource);
    }
    value
}

fn whole_seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
