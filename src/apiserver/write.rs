//! What becomes of an object when it is written: metadata, generation, status, finalizers. Pure.
use jiff::Timestamp;
use kube::core::cel::{CompiledSchema, Validator};
use serde_json::{Value, json};

use super::builtin;
use super::catalog::Resource;
use super::managed::{self, Writer};
use super::names::{definition_problems, metadata_problems};
use super::schema::{Cause, Patterns, apply_defaults, prune, validate};
use super::status::ApiError;
use super::store::Change;

/// Metadata that a client cannot change.
const FIXED_METADATA: [&str; 5] = ["uid", "creationTimestamp", "generation", "deletionTimestamp", "resourceVersion"];

/// What to do about fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    Refuse,
    /// Drop them and tell; what the API does when nothing is said.
    Warn,
    Drop,
}

/// How a write is checked, and what it is told.
pub struct Checks<'a> {
    pub unknown: UnknownFields,
    pub patterns: &'a Patterns,
    /// Warnings for the answer's headers.
    pub warnings: &'a mut Vec<String>,
}

/// Defaults, prunes and validates an object by its resource's rules.
fn admit(
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    checks: &mut Checks<'_>,
) -> Result<(), ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut causes = metadata_problems(resource, object);
    if resource.full_name() == super::catalog::DEFINITIONS {
        causes.extend(definition_problems(object));
    }
    if let Some(schema) = &resource.schema {
        let gone = prune(schema, object);
        checks.unknown(&gone)?;
        apply_defaults(schema, object);
        causes.extend(validate(schema, object, checks.patterns));
        // Rules are only asked about objects of the right shape.
        if let Some(rules) = resource.rules.as_deref().filter(|_| causes.is_empty()) {
            causes.extend(broken_rules(rules, schema, object, old));
        }
    } else {
        match builtin::unknown_fields(resource, object) {
            Ok(gone) => checks.unknown(&gone)?,
            Err(words) => {
                let (kind, version) = (&resource.kind, &resource.version);
                let message = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {words}");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(&resource.full_kind(), &name, &causes)) }
}

impl Checks<'_> {
    fn unknown(&mut self, fields: &[String]) -> Result<(), ApiError> {
        self.tell(fields.iter().map(|field| format!("unknown field \"{field}\"")).collect())
    }

    /// Refuses, warns or stays silent about what was dropped while reading.
    pub fn tell(&mut self, words: Vec<String>) -> Result<(), ApiError> {
        match self.unknown {
            UnknownFields::Refuse if !words.is_empty() => {
                Err(ApiError::bad_request(format!("strict decoding error: {}", words.join(", "))))
            }
            UnknownFields::Warn => {
                self.warnings.extend(words);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The CEL rules that an object breaks; transition rules compare with the old object.
fn broken_rules(rules: &CompiledSchema, schema: &Value, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Err(errors) = Validator::new().validate_compiled(rules, object, old) else { return Vec::new() };
    let causes = errors.into_vec().into_iter().map(|error| {
        let field = error.field_path.trim_start_matches('.').to_owned();
        let kind = schema_at(schema, &field)["type"].as_str().unwrap_or("object").to_owned();
        let message = format!("Invalid value: \"{kind}\": {}", error.message);
        let field = if field.is_empty() { "<nil>".to_owned() } else { field };
        Cause { reason: "FieldValueInvalid", field, message }
    });
    causes.collect()
}

/// The schema of the field at a path like `spec.list[3].name`.
fn schema_at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    let mut at = schema;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let name = part.split('[').next().unwrap_or_default();
        let inner = &at["properties"][name];
        at = if inner.is_null() { &at["additionalProperties"] } else { inner };
        if part.contains('[') {
            at = &at["items"];
        }
    }
    at
}

/// Whether two objects differ in what raises the generation: anything but metadata and status.
fn spec_differs(resource: &Resource, a: &Value, b: &Value) -> bool {
    let body = |object: &Value| {
        let mut body = object.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("metadata");
            if resource.has_status {
                fields.remove("status");
            }
        }
        body
    };
    body(a) != body(b)
}

/// A new object as it is stored.
pub fn create(
    resource: &Resource,
    mut object: Value,
    writer: &Writer,
    checks: &mut Checks<'_>,
) -> Result<Value, ApiError> {
    let now = writer.now;
    if resource.has_status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    if resource.plural == "secrets" {
        encode_string_data(&mut object);
        if object["type"].as_str().unwrap_or_default().is_empty() {
            object["type"] = json!("Opaque");
        }
    }
    admit(resource, &mut object, None, checks)?;
    if resource.full_name() == super::catalog::DEFINITIONS {
        establish(&mut object, now);
    }
    if resource.full_name() == "namespaces" {
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
    }
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    let metadata = &mut object["metadata"];
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = json!(whole_seconds(now));
    metadata["generation"] = json!(1);
    if let Some(fields) = metadata.as_object_mut() {
        fields.remove("deletionTimestamp");
        // Who applies has said already what is theirs; what somebody else writes is all theirs.
        if !writer.apply {
            fields.remove("managedFields");
        }
    }
    if !writer.apply {
        managed::track(resource, None, &mut object, writer);
    }
    Ok(object)
}

/// An existing object after a write to its main path or, with `status`, to its status.
pub fn update(
    resource: &Resource,
    old: &Value,
    mut new: Value,
    writer: &Writer,
    checks: &mut Checks<'_>,
) -> Result<Change, ApiError> {
    let status = writer.subresource == "status";
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let full = resource.full_name();
    if let Some(expected) = new["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty())
        && old["metadata"]["resourceVersion"] != *expected
    {
        return Err(ApiError::modified(&full, name));
    }
    if let Some(uid) = new["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty())
        && old["metadata"]["uid"] != *uid
    {
        let had = old["metadata"]["uid"].as_str().unwrap_or_default();
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {had}");
        return Err(ApiError::conflict(&full, name, &why));
    }
    if status {
        let mut kept = old.clone();
        kept["status"] = new["status"].take();
        kept["metadata"]["managedFields"] = new["metadata"]["managedFields"].take();
        new = kept;
    } else if resource.has_status
        && let Some(fields) = new.as_object_mut()
    {
        match old.get("status") {
            Some(kept) => fields.insert("status".to_owned(), kept.clone()),
            None => fields.remove("status"),
        };
    }
    if resource.plural == "secrets" {
        encode_string_data(&mut new);
    }
    for field in FIXED_METADATA {
        match old["metadata"].get(field) {
            Some(kept) => new["metadata"][field] = kept.clone(),
            None => {
                if let Some(fields) = new["metadata"].as_object_mut() {
                    fields.remove(field);
                }
            }
        }
    }
    new["apiVersion"] = json!(resource.api_version());
    new["kind"] = json!(resource.kind);
    admit(resource, &mut new, Some(old), checks)?;
    immutable(resource, old, &new)?;
    if !writer.apply {
        managed::track(resource, Some(old), &mut new, writer);
    } else if new["metadata"]["managedFields"].is_null()
        && let Some(fields) = new["metadata"].as_object_mut()
    {
        fields.remove("managedFields");
    }
    if managed::same(&new, old) {
        return Ok(Change::Keep);
    }
    if spec_differs(resource, old, &new) {
        new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
    }
    let dying = !old["metadata"]["deletionTimestamp"].is_null();
    if dying && !has_finalizers(&new) {
        return Ok(Change::Remove);
    }
    Ok(Change::Put(new))
}

/// Fields of built-in kinds that stay as they were made.
fn immutable(resource: &Resource, old: &Value, new: &Value) -> Result<(), ApiError> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let refused = |field: &str, message: String| {
        let cause = Cause { reason: "FieldValueForbidden", field: field.to_owned(), message };
        Err(ApiError::invalid(&resource.full_kind(), name, &[cause]))
    };
    if resource.plural == "secrets" && old["type"] != new["type"] {
        let message = format!("Invalid value: {}: field is immutable", new["type"]);
        return refused("type", message);
    }
    if matches!(resource.plural.as_str(), "secrets" | "configmaps") && old["immutable"] == true {
        for field in ["immutable", "data", "binaryData"] {
            if old[field] != new[field] {
                return refused(field, "Forbidden: field is immutable when `immutable` is set".to_owned());
            }
        }
    }
    Ok(())
}

/// What a deletion makes of an object: gone at once, or marked until the last finalizer is off.
pub fn delete(old: &Value, now: Timestamp) -> Change {
    if !has_finalizers(old) {
        return Change::Remove;
    }
    if !old["metadata"]["deletionTimestamp"].is_null() {
        return Change::Keep;
    }
    let mut marked = old.clone();
    marked["metadata"]["deletionTimestamp"] = json!(whole_seconds(now));
    marked["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    marked["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
    Change::Put(marked)
}

/// The first step of a namespace's end; its contents go before it does.
pub fn terminate_namespace(old: &Value, now: Timestamp) -> Change {
    if !old["metadata"]["deletionTimestamp"].is_null() {
        return Change::Keep;
    }
    let mut marked = old.clone();
    marked["metadata"]["deletionTimestamp"] = json!(whole_seconds(now));
    marked["status"] = json!({"phase": "Terminating"});
    Change::Put(marked)
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

fn whole_seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `stringData` is write-only: it ends up in `data`.
fn encode_string_data(object: &mut Value) {
    use base64::Engine;
    let Some(texts) = object.as_object_mut().and_then(|fields| fields.remove("stringData")) else { return };
    for (name, text) in texts.as_object().into_iter().flatten() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        object["data"][name] = json!(encoded);
    }
}

/// A definition is served from the moment it is stored, and says so.
fn establish(definition: &mut Value, now: Timestamp) {
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": whole_seconds(now)});
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<Value> = versions.filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    definition["status"] = json!({
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
}
