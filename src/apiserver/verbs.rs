//! The verbs on objects: list, watch, get, create, replace, patch, delete.

use hyper::Response;
use serde_json::{Value, json};

use super::catalog::DEFINITIONS;
use super::collector;
use super::events;
use super::managed::{self, Writer};
use super::patch::Patch;
use super::rest::{Answer, AnswerBody, ApiServer, Call, Target, json_answer, with_warnings};
use super::status::ApiError;
use super::store::{Change, Key};
use super::strict::duplicate_fields;
use super::write::{self, Checks};

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
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        if object["metadata"]["name"].as_str().unwrap_or_default().is_empty()
            && let Some(prefix) = object["metadata"]["generateName"].as_str()
        {
            let suffix = uuid::Uuid::new_v4().simple().to_string();
            object["metadata"]["name"] = json!(format!("{prefix}{}", &suffix[..5]));
        }
        if resource.namespaced {
            let namespace = target.namespace.as_deref().ok_or_else(ApiError::not_allowed)?;
            self.namespace_takes(namespace, &resource.full_name(), object["metadata"]["name"].as_str())?;
            match object["metadata"]["namespace"].as_str() {
                Some(own) if own != namespace => {
                    return Err(ApiError::bad_request(format!(
                        "the namespace of the provided object does not match the namespace sent on the request ({own} and {namespace})"
                    )));
                }
                _ => object["metadata"]["namespace"] = json!(namespace),
            }
        }
        let writer = call.writer(false, false, self.0.clock.now());
        let mut warnings = Vec::new();
        let mut checks = self.checks(call, &mut warnings);
        checks.tell(repeated(call))?;
        let made = write::create(&target.stored, object, &writer, &mut checks)?;
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

    fn checks<'a>(&'a self, call: &Call, warnings: &'a mut Vec<String>) -> Checks<'a> {
        Checks { unknown: call.unknown_fields(), patterns: &self.0.patterns, warnings }
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
        Err(ApiError::forbidden(resource, name.unwrap_or_default(), &why))
    }

    pub(super) async fn replace(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let mut new = call.json()?;
        if !new["metadata"].is_object() {
            return Err(ApiError::bad_request("the object provided has no metadata"));
        }
        if target.resource.is_core_event() {
            new = events::from_core(&new);
        }
        let writer = call.writer(false, target.status, self.0.clock.now());
        self.change(target, name, call, &writer, move |_| Ok(new)).await
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
        self.checks(call, &mut warnings).tell(repeated(call))?;
        let stored = self
            .0
            .store
            .transact(&target.key(name), |old| {
                let old = old.ok_or_else(|| ApiError::not_found(&full, name))?;
                let mut new = make(old)?;
                if new["metadata"]["name"].is_null() {
                    new["metadata"]["name"] = json!(name);
                }
                if new["metadata"]["name"] != *name {
                    return Err(ApiError::bad_request(format!(
                        "the name of the object ({}) does not match the name on the URL ({name})",
                        new["metadata"]["name"].as_str().unwrap_or_default()
                    )));
                }
                new["metadata"]["namespace"] = old["metadata"]["namespace"].clone();
                if new["metadata"]["namespace"].is_null()
                    && let Some(fields) = new["metadata"].as_object_mut()
                {
                    fields.remove("namespace");
                }
                let mut checks = self.checks(call, &mut warnings);
                match write::update(&target.stored, old, new, writer, &mut checks)? {
                    Change::Put(object) if call.dry_run() => {
                        preview = Some(object);
                        Ok(Change::Keep)
                    }
                    Change::Remove if call.dry_run() => Ok(Change::Keep),
                    change => Ok(change),
                }
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
            let made = write::create(&target.stored, merged, &writer, &mut self.checks(call, &mut warnings))?;
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

    pub(super) async fn delete(&self, target: &Target, name: &str, call: &Call) -> Answer {
        let options = if call.body.is_empty() { Value::Null } else { call.json()? };
        let dry_run =
            call.dry_run() || options["dryRun"].as_array().is_some_and(|modes| modes.iter().any(|m| m == "All"));
        let full = target.resource.full_name();
        let now = self.0.clock.now();
        let is_namespace = full == "namespaces";
        let is_definition = full == DEFINITIONS;
        let policy =
            options["propagationPolicy"].as_str().or(call.parameter("propagationPolicy")).unwrap_or("Background");
        if policy == "Orphan"
            && !dry_run
            && let Some(owner) = self.0.store.get(&target.key(name))
        {
            self.orphan_dependents(owner["metadata"]["uid"].as_str().unwrap_or_default()).await?;
        }
        let mut gone = false;
        let last = self
            .0
            .store
            .transact(&target.key(name), |old| {
                let old = old.ok_or_else(|| ApiError::not_found(&full, name))?;
                for field in ["uid", "resourceVersion"] {
                    if let Some(wanted) = options["preconditions"][field].as_str()
                        && old["metadata"][field] != *wanted
                    {
                        let had = old["metadata"][field].as_str().unwrap_or_default();
                        let shown = if field == "uid" { "UID" } else { "ResourceVersion" };
                        let why = format!(
                            "Precondition failed: {shown} in precondition: {wanted}, {shown} in object meta: {had}"
                        );
                        return Err(ApiError::conflict(&full, name, &why));
                    }
                }
                let change = match policy {
                    _ if is_namespace => write::terminate_namespace(old, now),
                    _ if is_definition => collector::terminate_definition(old, now),
                    "Foreground" => write::delete(&held_by_foreground(old), now),
                    _ => write::delete(old, now),
                };
                gone = change == Change::Remove;
                Ok(if dry_run { Change::Keep } else { change })
            })
            .await?
            .ok_or_else(|| ApiError::not_found(&full, name))?;
        if is_namespace && !dry_run {
            self.empty_namespace(name.to_owned());
        }
        if !gone {
            return Ok(self.object_answer(200, target, call, &last));
        }
        let details = json!({
            "name": name, "group": target.resource.group, "kind": target.resource.plural, "uid": last["metadata"]["uid"],
        });
        Ok(success(details))
    }

    /// Deletes everything a list with the same selectors holds, and answers that list.
    pub(super) async fn delete_all(&self, target: &Target, call: &Call) -> Answer {
        if target.resource.namespaced && target.namespace.is_none() || target.resource.full_name() == "namespaces" {
            return Err(ApiError::not_allowed());
        }
        let (version, objects) = self.selected(target, call)?;
        let now = self.0.clock.now();
        for object in objects.iter().filter(|_| !call.dry_run()) {
            let delete = |old: Option<&Value>| Ok(old.map_or(Change::Keep, |old| write::delete(old, now)));
            self.0.store.transact::<ApiError>(&object.key(), delete).await?;
        }
        Ok(self.rendering(target, call).list(&json!({"resourceVersion": version.to_string()}), objects))
    }
}

/// The object with the finalizer that makes it wait for what it owns.
fn held_by_foreground(old: &Value) -> Value {
    let mut held = old.clone();
    let mut finalizers = held["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == collector::FOREGROUND) {
        finalizers.push(json!(collector::FOREGROUND));
    }
    held["metadata"]["finalizers"] = Value::Array(finalizers);
    held
}

/// Words about fields that stand twice in a JSON body.
fn repeated(call: &Call) -> Vec<String> {
    if !call.content_type.contains("json") || call.content_type.contains("json-patch") {
        return Vec::new();
    }
    duplicate_fields(&call.body).into_iter().map(|field| format!("duplicate field \"{field}\"")).collect()
}

fn success(details: Value) -> Response<AnswerBody> {
    json_answer(
        200,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
    )
}
