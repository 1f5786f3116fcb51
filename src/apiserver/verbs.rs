//! The verbs on objects: list, watch, get, create, replace, patch, delete.
use std::sync::Arc;

use serde_json::{Value, json};

use super::events;
use super::managed;
use super::managers::Writer;
use super::patch::Patch;
use super::rest::{Answer, ApiServer, Call, Target, with_warnings};
use super::status::ApiError;
use super::store::{Change, Key};
use super::strict::duplicate_fields;
use super::write::{self, Checks, Update};
use super::{replacement, strategy, tidy};

impl ApiServer {
    pub(super) async fn create(&self, target: &Target, call: &Call) -> Answer {
        let mut object = call.json()?;
        if !object.is_object() {
            return Err(ApiError::bad_request("the object provided is not a JSON object"));
        }
        let resource = &target.resource;
        for (field, expected) in [("kind", resource.kind.clone()), ("apiVersion", resource.api_version())] {
            if let Some(given) = object[field].as_str().filter(|given| !given.is_empty() && **given != *expected) {
                return Err(ApiError::bad_request(format!(
                    "the API version in the data ({given}) does not match the expected {field} ({expected})"
                )));
            }
        }
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
        checks.tell(repeated(call))?;
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
                    preview = Some(made);
                    Ok(Change::Keep)
                }
                None => Ok(Change::Put(made)),
            })
            .await?;
        self.outcome(201, target, call, &name, preview, stored).map(|answer| with_warnings(answer, &warnings))
    }

    fn checks<'a>(&'a self, target: &Target, call: &Call, warnings: &'a mut Vec<String>) -> Checks<'a> {
        let core_event = target.resource.is_core_event();
        Checks { unknown: call.unknown_fields(), patterns: &self.0.patterns, core_event, warnings }
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
        let mut new = call.json()?;
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
        self.change(target, name, call, &writer, move |old| {
            replacement::meets(&resource, &new, old)?;
            Ok(new)
        })
        .await
    }

    pub(super) async fn patch(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let patch = Patch::parse(&target.resource, &call.content_type, &call.body)?;
        let core_event = target.resource.is_core_event();
        let writer = call.writer(false, target.status, self.0.clock.now());
        self.change(target, name, call, &writer, move |old| {
            if core_event {
                return Ok(events::from_core(&patch.apply(&events::to_core(old))?));
            }
            patch.apply(old)
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
        make: impl FnOnce(&Value) -> Result<Value, ApiError>,
    ) -> Answer {
        let full = target.resource.full_name();
        let mut preview = None;
        let mut warnings = Vec::new();
        self.checks(target, call, &mut warnings).tell(repeated(call))?;
        let stored = self
            .0
            .store
            .transact::<ApiError>(&target.key(name), |old| {
                let old = old.ok_or_else(|| ApiError::not_found(&full, name))?;
                let mut new = make(old)?;
                replacement::stays(target, name, &mut new)?;
                let mut checks = self.checks(target, call, &mut warnings);
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
        let mut config: Value = serde_saphyr::from_slice(&call.body)
            .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
        let resource = &target.resource;
        if call.parameter("fieldManager").is_none() {
            return Err(ApiError::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        if config["kind"] != resource.kind || config["apiVersion"] != resource.api_version() {
            return Err(ApiError::bad_request(format!(
                "the applied configuration must say apiVersion: {} and kind: {}",
                resource.api_version(),
                resource.kind
            )));
        }
        if !config["metadata"].is_object() {
            config["metadata"] = json!({});
        }
        for (field, expected) in [("name", Some(name)), ("namespace", target.namespace.as_deref())] {
            let given = config["metadata"][field].as_str().filter(|given| !given.is_empty());
            if given.is_some_and(|given| Some(given) != expected) {
                return Err(ApiError::bad_request(format!("metadata.{field} does not match the URL")));
            }
            if let Some(expected) = expected {
                config["metadata"][field] = json!(expected);
            }
        }
        if resource.is_core_event() {
            config = events::from_core(&config);
        }
        // Each path takes its own part.
        if let Some(fields) = config.as_object_mut() {
            if target.status {
                fields.retain(|field, _| ["apiVersion", "kind", "metadata", "status"].contains(&field.as_str()));
            } else if resource.has_status {
                fields.remove("status");
            }
        }
        let (writer, force) = (call.writer(true, target.status, self.0.clock.now()), call.flag("force"));
        let key = target.key(name);
        if self.0.store.find(&key).is_none() && !target.status {
            if let Some(namespace) = &target.namespace {
                self.namespace_takes(namespace, &resource.full_name(), Some(name))?;
            }
            let empty = json!({"metadata": {}});
            let merged = managed::apply(&target.stored, &empty, &config, &writer, force)?;
            let mut warnings = Vec::new();
            let made = write::create(&target.stored, merged, &writer, &mut self.checks(target, call, &mut warnings))?;
            if call.dry_run() {
                return Ok(with_warnings(self.object_answer(201, target, call, &made), &warnings));
            }
            let mut lost = false;
            let stored = self
                .0
                .store
                .transact::<ApiError>(&key, |old| {
                    lost = old.is_some();
                    Ok(if lost { Change::Keep } else { Change::Put(made) })
                })
                .await?;
            // Somebody was faster: then it is a change of theirs.
            if !lost {
                let answer = self.outcome(201, target, call, name, None, stored);
                return answer.map(|answer| with_warnings(answer, &warnings));
            }
        }
        self.change(target, name, call, &writer, |old| managed::apply(&target.stored, old, &config, &writer, force))
            .await
    }
}

/// Words about fields that stand twice in a JSON body.
fn repeated(call: &Call) -> Vec<String> {
    if !call.content_type.contains("json") || call.content_type.contains("json-patch") {
        return Vec::new();
    }
    duplicate_fields(&call.body).into_iter().map(|field| format!("duplicate field \"{field}\"")).collect()
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
