//! The verbs on objects: list, watch, get, create, replace, patch, delete.
use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::with_warnings;
use super::apply;
use super::checks::Checks;
use super::events;
use super::managed;
use super::managers::Writer;
use super::patch::{Patch, Patched};
use super::rest::{Answer, ApiServer, Call, Target};
use super::shape::Shape;
use super::status::ApiError;
use super::store::{Change, Key};
use super::write::{self, Update};
use super::{render, replacement, strategy, strict, tidy};

impl ApiServer {
    pub(super) async fn create(&self, target: &Target, call: &Call) -> Answer {
        let mut object = call.object(target, &self.0.catalog.all(&self.0.store))?;
        let resource = &target.resource;
        if resource.is_core_event() {
            object = events::from_core(&object);
        }
        self.create_from(target, call, object).await
    }

    async fn create_from(&self, target: &Target, call: &Call, mut object: Value) -> Answer {
        let resource = &target.resource;
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        self.place(target, &mut object)?;
        let versioned = !strategy::names_no_version(&object);
        tidy::remove(&mut object["metadata"], "resourceVersion");
        let writer = call.writer(false, false, self.0.clock.now());
        let mut warnings = Vec::new();
        let mut checks = self.checks(target, call, &mut warnings);
        checks.found = problems(target, call);
        let made = write::create(&target.stored, object, &writer, &mut checks)?;
        if versioned {
            return Err(ApiError::unnamed(
                500,
                "resourceVersion should not be set on objects to be created".to_owned(),
            ));
        }
        let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = target.key(&name);
        let full = resource.full_name();
        let mut preview = None;
        let stored = self
            .0
            .store
            .transact(&key, |old| match old {
                Some(_) => Err(ApiError::already_exists(&full, &name)),
                None if call.dry_run() => {
                    preview = Some(self.named(target, made));
                    Ok(Change::Keep)
                }
                None => Ok(Change::Put(self.named(target, made))),
            })
            .await?;
        self.outcome(201, target, call, &name, preview, stored).map(|answer| with_warnings(answer, &warnings))
    }

    fn checks<'a>(&'a self, target: &Target, call: &Call, warnings: &'a mut Vec<String>) -> Checks<'a> {
        let core_event = target.resource.is_core_event();
        let unknown = call.unknown_fields();
        Checks { unknown, patterns: &self.0.patterns, core_event, warnings, found: Vec::new(), quoted: None }
    }

    /// Gives a new object its namespace, which has to be there and to stay.
    fn place(&self, target: &Target, object: &mut Value) -> Result<(), ApiError> {
        if !target.resource.namespaced {
            tidy::remove(&mut object["metadata"], "namespace");
            return Ok(());
        }
        let namespace = target.namespace.as_deref().ok_or_else(ApiError::not_allowed)?;
        same_namespace(object, namespace)?;
        object["metadata"]["namespace"] = json!(namespace);
        let name = object["metadata"]["name"].as_str();
        self.namespace_takes(namespace, &target.resource.full_name(), name)
    }

    fn outcome(
        &self,
        status: u16,
        target: &Target,
        call: &Call,
        name: &str,
        preview: Option<Value>,
        stored: Option<Value>,
    ) -> Answer {
        match (preview, stored) {
            (Some(preview), _) => Ok(self.object_answer(status, target, call, &preview)),
            (None, Some(stored)) => Ok(self.object_answer(status, target, call, &stored)),
            (None, None) => Err(ApiError::not_found(&target.resource.full_name(), name)),
        }
    }

    /// New objects are taken only by a namespace that is there and is to stay.
    fn namespace_takes(&self, namespace: &str, resource: &str, name: Option<&str>) -> Result<(), ApiError> {
        let key = Key { resource: "namespaces".to_owned(), namespace: String::new(), name: namespace.to_owned() };
        let found = self.0.store.get(&key).ok_or_else(|| ApiError::not_found("namespaces", namespace))?;
        if found["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(resource, name.unwrap_or_default(), &why);
        if let Some(details) = &mut error.details {
            let message = format!("namespace {namespace} is being terminated");
            details["causes"] =
                json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
        }
        Err(error)
    }

    pub(super) async fn replace(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let mut new = call.object(target, &self.0.catalog.all(&self.0.store))?;
        if target.resource.is_core_event() {
            new = events::from_core(&new);
        }
        replacement::check(target, name, &mut new)?;
        if strategy::replaces_nothing(&target.resource) && self.0.store.get(&target.key(name)).is_none() {
            replacement::makes(target, name, &new)?;
            tidy::remove(&mut new["metadata"], "resourceVersion");
            return self.create_from(target, call, new).await;
        }
        let writer = call.writer(false, target.status, self.0.clock.now());
        let resource = Arc::clone(&target.resource);
        let found = problems(target, call);
        self.change(target, name, call, &writer, move |old| {
            replacement::meets(&resource, &new, old)?;
            Ok(Made { object: new, found, quoted: None })
        })
        .await
    }

    pub(super) async fn patch(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let patch = Patch::parse(&target.resource, &call.content_type, &call.body)?;
        let found = patch.problems(&call.body);
        let core_event = target.resource.is_core_event();
        let kind = target.resource.kind.clone();
        let writer = call.writer(false, target.status, self.0.clock.now());
        self.change(target, name, call, &writer, move |old| {
            let Patched { object, quoted } = patch.apply(&kind, &target.shown(old))?;
            let object = if core_event { events::from_core(&object) } else { object };
            Ok(Made { object, found, quoted: Some(quoted) })
        })
        .await
    }

    /// One read-modify-write, with no other write in between.
    async fn change(
        &self,
        target: &Target,
        name: &str,
        call: &Call,
        writer: &Writer,
        make: impl FnOnce(&Value) -> Result<Made, ApiError>,
    ) -> Answer {
        let full = target.resource.full_name();
        let mut preview = None;
        let mut warnings = Vec::new();
        let stored = self
            .0
            .store
            .transact::<ApiError>(&target.key(name), |old| {
                let old = old.ok_or_else(|| ApiError::not_found(&full, name))?;
                let old = &render::shown(&target.stored, old.clone());
                let Made { object: mut new, found, quoted } = make(old)?;
                if !new.is_object() {
                    let mut checks = self.checks(target, call, &mut warnings);
                    checks.quoted = quoted;
                    return Err(checks.no_object(&target.stored, &new));
                }
                if new["metadata"].is_object() || new["metadata"].is_null() {
                    replacement::stays(target, name, &mut new)?;
                }
                let mut checks = self.checks(target, call, &mut warnings);
                (checks.found, checks.quoted) = (found, quoted);
                Ok(match write::update(&target.stored, old, new, writer, &mut checks)? {
                    Update::Keep => Change::Keep,
                    Update::Put(object) if !call.dry_run() => Change::Put(object),
                    // What is answered is not what stays.
                    Update::Put(object) => {
                        preview = Some(object);
                        Change::Keep
                    }
                    Update::Remove(object) => {
                        preview = Some(object);
                        if call.dry_run() { Change::Keep } else { Change::Remove }
                    }
                })
            })
            .await?;
        self.outcome(200, target, call, name, preview, stored).map(|answer| with_warnings(answer, &warnings))
    }

    /// Server-side apply: makes the object or merges into it, by who owns what.
    pub(super) async fn apply(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let config = apply::configuration(target, call)?;
        let repeated = strict::yaml_repeated(&call.body);
        let (writer, force) = (call.writer(true, target.status, self.0.clock.now()), call.forces());
        let merge = |old: &Value| {
            let merged = managed::apply(&target.stored, old, &config, &writer, force)?;
            let found = apply::repeated(call, repeated.as_deref())?;
            Ok(Made { object: merged, found, quoted: None })
        };
        let key = target.key(name);
        if self.0.store.find(&key).is_none() && !target.status {
            let Made { object: mut merged, found, .. } = merge(&json!({"metadata": {}}))?;
            if let Some(uid) = merged["metadata"]["uid"].as_str() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(ApiError::conflict(&target.resource.full_name(), name, &why));
            }
            replacement::stays(target, name, &mut merged)?;
            if let Some(namespace) = &target.namespace {
                self.namespace_takes(namespace, &target.resource.full_name(), Some(name))?;
            }
            let mut warnings = Vec::new();
            let mut checks = self.checks(target, call, &mut warnings);
            checks.found = found;
            let made = write::create(&target.stored, merged, &writer, &mut checks)?;
            if call.dry_run() {
                let made = self.named(target, made);
                return Ok(with_warnings(self.object_answer(201, target, call, &made), &warnings));
            }
            let mut lost = false;
            let stored = self
                .0
                .store
                .transact::<ApiError>(&key, |old| {
                    lost = old.is_some();
                    Ok(if lost { Change::Keep } else { Change::Put(self.named(target, made)) })
                })
                .await?;
            // Somebody was faster: then it is a change of theirs.
            if !lost {
                let answer = self.outcome(201, target, call, name, None, stored);
                return answer.map(|answer| with_warnings(answer, &warnings));
            }
        }
        self.change(target, name, call, &writer, merge).await
    }
}

/// What a write makes of the object that is there.
struct Made {
    object: Value,
    /// What was found while the body was read.
    found: Vec<String>,
    /// What messages quote of a patch.
    quoted: Option<String>,
}

/// What in a write's body stands twice or, where the kind is built in, means nothing.
fn problems(target: &Target, call: &Call) -> Vec<String> {
    match call.content_type.as_str() {
        "application/yaml" => strict::yaml_repeated(&call.body).into_iter().collect(),
        "" | "application/json" => {
            let shape = (!target.resource.is_custom()).then(|| Shape::of(&target.resource));
            strict::json_problems(shape, &call.body)
        }
        _ => Vec::new(),
    }
}

/// Errors: 400 for an object that names another namespace than its request.
pub(super) fn same_namespace(object: &Value, namespace: &str) -> Result<(), ApiError> {
    match object["metadata"]["namespace"].as_str() {
        Some(own) if !own.is_empty() && own != namespace => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        _ => Ok(()),
    }
}
