//! What becomes of an object when it is written: metadata, generation, status, finalizers. Pure.
use jiff::Timestamp;
use serde_json::{Value, json};

use super::catalog::{DEFINITIONS, Resource};
use super::checks::{Checks, metadata_fits, wrong_kind};
use super::managed;
use super::managers::Writer;
use super::rules;
use super::schema::{apply_defaults, prune};
use super::shape::Shape;
use super::status::ApiError;
use super::store::Change;
use super::strict::mismatch;
use super::tidy::{fill, remove, tidy};
use super::validate::validate;
use super::{collector, definitions, kinds, metadata, strategy};

/// Tidies, defaults, prunes and validates an object by its resource's rules.
fn admit(
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    checks: &mut Checks<'_>,
) -> Result<(), ApiError> {
    let shape = Shape::of(resource);
    let misfit = match resource.is_custom() {
        true => mismatch(shape.field("metadata"), "ObjectMeta", &object["metadata"]),
        false => mismatch(shape, &resource.kind, object),
    };
    if let Some(words) = misfit {
        return Err(checks.unreadable(resource, &words));
    }
    let mut gone = tidy(resource, object).map_err(|words| checks.unreadable(resource, &words))?;
    gone.extend(resource.schema.iter().flat_map(|schema| prune(schema, object)));
    checks.tell(resource, gone.iter().map(|field| format!("unknown field \"{field}\"")).collect())?;
    if old.is_none() {
        name_it(object);
    }
    kinds::fill_in(resource, object, old);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut causes = Vec::new();
    if let Some(old) = old {
        causes.extend(metadata::changes(&old["metadata"], &object["metadata"]));
        // Told once by the server's general rules and once by those of the kind.
        causes.extend(causes.clone());
    }
    causes.extend(metadata::problems(resource, &object["metadata"]));
    causes.extend(kinds::problems(resource, object, old, checks.core_event));
    if let Some(schema) = &resource.schema {
        apply_defaults(schema, object).map_err(|error| ApiError::too_large_because(error.to_string()))?;
        causes.extend(validate(schema, old, object, checks.patterns));
        if let Some(rules) = &resource.rules {
            rules::check(rules, old, object, &mut causes)?;
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(&resource.full_kind(), &name, &causes)) }
}

/// A new object without a name gets one, if it says how it is to begin.
fn name_it(object: &mut Value) {
    if object["metadata"]["name"].is_null()
        && let Some(prefix) = object["metadata"]["generateName"].as_str()
    {
        object["metadata"]["name"] = json!(metadata::generated_name(prefix));
    }
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
    metadata_fits(resource, &object, checks)?;
    wrong_kind(resource, &object)?;
    if resource.has_status {
        remove(&mut object, "status");
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        remove(&mut object["metadata"], field);
    }
    let given = object.clone();
    admit(resource, &mut object, None, checks)?;
    if !writer.apply {
        // Nobody owns what the server gives out by itself.
        let mut owned = object.clone();
        for path in strategy::given_out(resource).iter().filter(|path| given.pointer(path).is_none()) {
            let (outer, field) = path.rsplit_once('/').unwrap_or_default();
            if let Some(outer) = owned.pointer_mut(outer) {
                remove(outer, field);
            }
        }
        managed::track(resource, None, &mut owned, writer);
        object["metadata"]["managedFields"] = owned["metadata"]["managedFields"].take();
    }
    if resource.full_name() == DEFINITIONS {
        object["status"] = json!({});
        definitions::remember_storage(&mut object);
    }
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    let metadata = &mut object["metadata"];
    metadata["uid"] = json!(uuid::Uuid::new_v4().to_string());
    metadata["creationTimestamp"] = json!(whole_seconds(now));
    if strategy::counts_generations(resource) {
        metadata["generation"] = json!(1);
    }
    Ok(object)
}

/// An existing object after a write.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    Put(Value),
    /// The write took the last finalizer off an object that is to go: it goes, and this is what it was written as.
    Remove(Value),
    /// Nothing changed.
    Keep,
}

/// An existing object after a write to its main path or, with `status`, to its status.
pub fn update(
    resource: &Resource,
    old: &Value,
    mut new: Value,
    writer: &Writer,
    checks: &mut Checks<'_>,
) -> Result<Update, ApiError> {
    metadata_fits(resource, &new, checks)?;
    let status = writer.subresource == "status";
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let full = resource.full_name();
    if !strategy::names_no_version(&new) && old["metadata"]["resourceVersion"] != new["metadata"]["resourceVersion"] {
        return Err(ApiError::modified(&full, name));
    }
    if status {
        let mut kept = old.clone();
        kept["status"] = new["status"].take();
        if strategy::status_takes_metadata(resource) {
            kept["metadata"] = new["metadata"].take();
        } else {
            kept["metadata"]["managedFields"] = new["metadata"]["managedFields"].take();
        }
        new = kept;
    } else if resource.has_status {
        match old.get("status") {
            Some(kept) => new["status"] = kept.clone(),
            None => remove(&mut new, "status"),
        }
    }
    if !status && full == DEFINITIONS {
        definitions::remember_storage(&mut new);
    }
    wrong_kind(resource, &new)?;
    keep_metadata(old, &mut new);
    new["apiVersion"] = json!(resource.api_version());
    new["kind"] = json!(resource.kind);
    admit(resource, &mut new, Some(old), checks)?;
    if !writer.apply {
        managed::track(resource, Some(old), &mut new, writer);
    } else if new["metadata"]["managedFields"].is_null() {
        remove(&mut new["metadata"], "managedFields");
    }
    if managed::same(&new, old) {
        return Ok(Update::Keep);
    }
    if strategy::counts_generations(resource) && !status && spec_differs(resource, old, &new) {
        new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
    }
    let dying = !old["metadata"]["deletionTimestamp"].is_null();
    let held = has_finalizers(&new) || (full == "namespaces" && namespace_waits(&new));
    if dying && !held {
        return Ok(Update::Remove(new));
    }
    Ok(Update::Put(new))
}

/// Gives a written object what the server keeps by itself, whatever was sent.
fn keep_metadata(old: &Value, new: &mut Value) {
    let (old, new) = (&old["metadata"], &mut new["metadata"]);
    for field in ["creationTimestamp", "generation", "resourceVersion", "selfLink"] {
        match old.get(field) {
            Some(kept) => new[field] = kept.clone(),
            None => remove(new, field),
        }
    }
    fill(new, "uid", old["uid"].clone());
    if !old["deletionTimestamp"].is_null() {
        new["deletionTimestamp"] = old["deletionTimestamp"].clone();
        fill(new, "deletionGracePeriodSeconds", old["deletionGracePeriodSeconds"].clone());
    }
}

/// Whether a namespace is still held by the finalizers of its own.
pub fn namespace_waits(namespace: &Value) -> bool {
    namespace["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// What a deletion does about what the object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// What the object's own finalizers say; else what is owned goes afterwards.
    Unsaid,
    Background,
    Foreground,
    Orphan,
}

impl Propagation {
    /// From a deletion's options, which were checked before.
    pub fn of(policy: Option<&str>, orphan_dependents: Option<bool>) -> Self {
        match (policy, orphan_dependents) {
            (Some("Foreground"), _) => Self::Foreground,
            (Some("Orphan"), _) | (None, Some(true)) => Self::Orphan,
            (Some("Background"), _) | (None, Some(false)) => Self::Background,
            _ => Self::Unsaid,
        }
    }

    /// The object with the finalizers by which it waits for what it owns.
    fn marked(self, old: &Value) -> Value {
        let (orphan, foreground) = (collector::ORPHAN, collector::FOREGROUND);
        let mut marked = old.clone();
        if self != Self::Unsaid {
            let mut finalizers = old["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            finalizers.retain(|finalizer| finalizer != orphan && finalizer != foreground);
            match self {
                Self::Foreground => finalizers.push(json!(foreground)),
                Self::Orphan => finalizers.push(json!(orphan)),
                _ => {}
            }
            if finalizers.is_empty() {
                remove(&mut marked["metadata"], "finalizers");
            } else {
                marked["metadata"]["finalizers"] = Value::Array(finalizers);
            }
        }
        marked
    }
}

/// What a deletion makes of an object: gone at once, or marked until the last finalizer is off.
pub fn delete(old: &Value, propagation: Propagation, now: Timestamp) -> Change {
    let mut marked = propagation.marked(old);
    if !has_finalizers(&marked) {
        return Change::Remove;
    }
    if old["metadata"]["deletionTimestamp"].is_null() {
        marked["metadata"]["deletionTimestamp"] = json!(whole_seconds(now));
        marked["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        if let Some(generation) = old["metadata"]["generation"].as_i64() {
            marked["metadata"]["generation"] = json!(generation + 1);
        }
    }
    if marked == *old { Change::Keep } else { Change::Put(marked) }
}

/// The first step of a namespace's end; its contents go before it does.
pub fn terminate_namespace(old: &Value, propagation: Propagation, now: Timestamp) -> Change {
    let mut marked = propagation.marked(old);
    if old["metadata"]["deletionTimestamp"].is_null() {
        marked["metadata"]["deletionTimestamp"] = json!(whole_seconds(now));
        marked["status"]["phase"] = json!("Terminating");
    }
    if marked == *old { Change::Keep } else { Change::Put(marked) }
}

pub fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

pub fn whole_seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
