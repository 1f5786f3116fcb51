//! Requests to verbs to the store.
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::catalog::{self, Resource};
use super::schema::Patterns;
use super::selector::Selector;
use super::status::ApiError;
use super::store::{Change, Key, Snapshot, Store, StoreError};
use super::watch::{WatchOptions, watch};
use super::write::{self, UnknownFields};
use crate::api::clock::Clock;

type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Result<Response<AnswerBody>, ApiError>;

/// Namespaces that are there from the start.
const NAMESPACES: [&str; 3] = ["default", "kube-system", "portalkeeper"];

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    patterns: Patterns,
}

/// The embedded API. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

/// A request's place in the API.
struct Target {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
    status: bool,
}

struct Call {
    method: Method,
    query: Vec<(String, String)>,
    content_type: String,
    body: Bytes,
}

impl Call {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
    fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1"))
    }
    fn unknown_fields(&self) -> UnknownFields {
        if self.parameter("fieldValidation") == Some("Strict") { UnknownFields::Refuse } else { UnknownFields::Drop }
    }
    fn dry_run(&self) -> bool {
        self.parameter("dryRun") == Some("All")
    }
    fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::bad_request(format!("the object provided is unrecognized (must be of type JSON): {error}"))
        })
    }
}

impl ApiServer {
    /// Opens the store at `path` and makes the first namespaces. Errors: [`StoreError`].
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let store = Store::open(path).await?;
        let server = Self(Arc::new(Inner { store, clock, patterns: Patterns::default() }));
        for name in NAMESPACES {
            let object = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
            let key = Key { resource: "namespaces".to_owned(), namespace: String::new(), name: name.to_owned() };
            let Some(resource) = catalog::find(&server.0.store, "", "v1", "namespaces") else { continue };
            let now = server.0.clock.now();
            let made = write::create(&resource, object, now, UnknownFields::Drop, &server.0.patterns);
            if let (Ok(made), None) = (made, server.0.store.get(&key)) {
                server.0.store.transact::<StoreError>(&key, |_| Ok(Change::Put(made))).await?;
            }
        }
        Ok(server)
    }

    /// A client that talks to this server without a socket.
    pub fn client(&self, namespace: &str) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, kube::Error>(server.answer(&parts, body).await)
            }
        });
        kube::Client::new(service, namespace)
    }

    /// Answers one request; a refusal is a `Status` object.
    pub async fn answer(&self, parts: &hyper::http::request::Parts, body: Bytes) -> Response<AnswerBody> {
        let header = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let call = Call {
            method: parts.method.clone(),
            query: url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
            content_type: header.split(';').next().unwrap_or_default().trim().to_owned(),
            body,
        };
        let answer = match self.target(parts.uri.path()) {
            Ok(target) => self.dispatch(&target, &call).await,
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(|error| json_answer(error.code, &error.body()))
    }

    fn target(&self, path: &str) -> Result<Target, ApiError> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::no_such_path()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && *rest != ["status"] => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let (plural, name, status) = match rest {
            [plural] => (*plural, None, false),
            [plural, name] => (*plural, Some((*name).to_owned()), false),
            [plural, name, "status"] => (*plural, Some((*name).to_owned()), true),
            _ => return Err(ApiError::no_such_path()),
        };
        let resource = catalog::find(&self.0.store, group, version, plural).ok_or_else(ApiError::no_such_path)?;
        let misplaced = (namespace.is_some() && !resource.namespaced)
            || (name.is_some() && namespace.is_none() && resource.namespaced)
            || (status && !resource.has_status);
        if misplaced {
            return Err(ApiError::no_such_path());
        }
        Ok(Target { resource, namespace, name, status })
    }

    async fn dispatch(&self, target: &Target, call: &Call) -> Answer {
        match (&call.method, &target.name) {
            (&Method::GET, None) if call.flag("watch") => self.watch(target, call),
            (&Method::GET, None) => self.list(target, call),
            (&Method::GET, Some(name)) => {
                let found = self.0.store.get(&target.key(name));
                let object = found.ok_or_else(|| ApiError::not_found(&target.resource.full_name(), name))?;
                Ok(json_answer(200, &object))
            }
            (&Method::POST, None) => self.create(target, call).await,
            (&Method::PUT, Some(name)) => {
                let new = call.json()?;
                self.change(target, name, call, move |_| Ok(new)).await
            }
            (&Method::PATCH, Some(name)) => {
                let patch = Patch::parse(call)?;
                self.change(target, name, call, move |old| patch.apply(old)).await
            }
            (&Method::DELETE, Some(name)) if !target.status => self.delete(target, name, call).await,
            _ => Err(ApiError::not_allowed()),
        }
    }

    fn list(&self, target: &Target, call: &Call) -> Answer {
        let selector = Selector::parse(call.parameter("labelSelector"), call.parameter("fieldSelector"))?;
        let Snapshot { version, mut objects } =
            self.0.store.list(&target.resource.full_name(), target.namespace.as_deref());
        objects.retain(|object| selector.selects(object));
        let items: Vec<&Value> = objects.iter().map(Arc::as_ref).collect();
        let list = json!({
            "kind": format!("{}List", target.resource.kind),
            "apiVersion": target.resource.api_version(),
            "metadata": {"resourceVersion": version.to_string()},
            "items": items,
        });
        Ok(json_answer(200, &list))
    }

    fn watch(&self, target: &Target, call: &Call) -> Answer {
        let initial = call.flag("sendInitialEvents");
        let since = match call.parameter("resourceVersion") {
            None | Some("0") => None,
            Some(_) if initial => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad_request(format!("resourceVersion: Invalid value: \"{text}\": must be a number"))
            })?),
        };
        let options = WatchOptions {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            selector: Selector::parse(call.parameter("labelSelector"), call.parameter("fieldSelector"))?,
            since,
            bookmarks: call.flag("allowWatchBookmarks"),
            mark_initial_end: initial,
            timeout: call.parameter("timeoutSeconds").and_then(|text| text.parse().ok()).map(Duration::from_secs),
        };
        let lines = watch(&self.0.store, options)?.map(|line| Ok::<_, Infallible>(Frame::data(line)));
        let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
        response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn create(&self, target: &Target, call: &Call) -> Answer {
        let mut object = call.json()?;
        if !object.is_object() {
            return Err(ApiError::bad_request("the object provided is not a JSON object"));
        }
        if object["metadata"]["name"].as_str().unwrap_or_default().is_empty()
            && let Some(prefix) = object["metadata"]["generateName"].as_str()
        {
            let suffix = uuid::Uuid::new_v4().simple().to_string();
            object["metadata"]["name"] = json!(format!("{prefix}{}", &suffix[..5]));
        }
        let resource = &target.resource;
        if resource.namespaced {
            let namespace = target.namespace.as_deref().ok_or_else(ApiError::not_allowed)?;
            self.namespace_must_exist(namespace)?;
            match object["metadata"]["namespace"].as_str() {
                Some(own) if own != namespace => {
                    return Err(ApiError::bad_request(format!(
                        "the namespace of the provided object does not match the namespace sent on the request ({own} and {namespace})"
                    )));
                }
                _ => object["metadata"]["namespace"] = json!(namespace),
            }
        }
        let made = write::create(resource, object, self.0.clock.now(), call.unknown_fields(), &self.0.patterns)?;
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
        match (preview, stored) {
            (Some(preview), _) => Ok(json_answer(201, &preview)),
            (None, Some(stored)) => Ok(json_answer(201, &stored)),
            (None, None) => Err(ApiError::not_found(&full, &name)),
        }
    }

    fn namespace_must_exist(&self, namespace: &str) -> Result<(), ApiError> {
        let key = Key { resource: "namespaces".to_owned(), namespace: String::new(), name: namespace.to_owned() };
        self.0.store.get(&key).map(|_| ()).ok_or_else(|| ApiError::not_found("namespaces", namespace))
    }

    /// One read-modify-write, with no other write in between.
    async fn change(
        &self,
        target: &Target,
        name: &str,
        call: &Call,
        make: impl FnOnce(&Value) -> Result<Value, ApiError>,
    ) -> Answer {
        let full = target.resource.full_name();
        let mut preview = None;
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
                    return Err(ApiError::bad_request("the name of the object does not match the name on the URL"));
                }
                new["metadata"]["namespace"] = old["metadata"]["namespace"].clone();
                if new["metadata"]["namespace"].is_null()
                    && let Some(fields) = new["metadata"].as_object_mut()
                {
                    fields.remove("namespace");
                }
                let unknown = call.unknown_fields();
                let change = write::update(&target.resource, old, new, target.status, unknown, &self.0.patterns)?;
                match change {
                    Change::Put(object) if call.dry_run() => {
                        preview = Some(object);
                        Ok(Change::Keep)
                    }
                    Change::Remove if call.dry_run() => Ok(Change::Keep),
                    change => Ok(change),
                }
            })
            .await?;
        match (preview, stored) {
            (Some(preview), _) => Ok(json_answer(200, &preview)),
            (None, Some(stored)) => Ok(json_answer(200, &stored)),
            (None, None) => Err(ApiError::not_found(&full, name)),
        }
    }

    async fn delete(&self, target: &Target, name: &str, call: &Call) -> Answer {
        // Taking a namespace's contents along is not served yet, and leaving them behind would be wrong.
        if target.resource.full_name() == "namespaces" {
            return Err(ApiError::not_allowed());
        }
        let options = if call.body.is_empty() { Value::Null } else { call.json()? };
        let full = target.resource.full_name();
        let now = self.0.clock.now();
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
                        let why =
                            format!("Precondition failed: {field} in precondition: {wanted}, in object meta: {had}");
                        return Err(ApiError::conflict(&full, name, &why));
                    }
                }
                let change = write::delete(old, now);
                gone = change == Change::Remove;
                Ok(if call.dry_run() { Change::Keep } else { change })
            })
            .await?
            .ok_or_else(|| ApiError::not_found(&full, name))?;
        if !gone {
            return Ok(json_answer(200, &last));
        }
        let details = json!({
            "name": name, "group": target.resource.group, "kind": target.resource.plural, "uid": last["metadata"]["uid"],
        });
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Ok(json_answer(200, &status))
    }
}

impl Target {
    fn key(&self, name: &str) -> Key {
        Key {
            resource: self.resource.full_name(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }
}

/// A patch of one of the kinds that are served.
enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
}

impl Patch {
    fn parse(call: &Call) -> Result<Self, ApiError> {
        match call.content_type.as_str() {
            "application/merge-patch+json" => Ok(Self::Merge(call.json()?)),
            "application/json-patch+json" => serde_json::from_value(call.json()?)
                .map(Self::Json)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}"))),
            other => Err(ApiError::unsupported(format!(
                "the body of the request was in an unknown format - {other} - accepted media types include: application/json-patch+json, application/merge-patch+json"
            ))),
        }
    }

    fn apply(self, old: &Value) -> Result<Value, ApiError> {
        let mut new = old.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut new, &patch),
            Self::Json(mut patch) => {
                // Kubernetes takes a missing path for null in a test; the library does not.
                patch.0.retain(|operation| match operation {
                    json_patch::PatchOperation::Test(test) => {
                        !(test.value.is_null() && test.path.resolve(old).is_err())
                    }
                    _ => true,
                });
                json_patch::patch(&mut new, &patch).map_err(|error| {
                    let cause = super::schema::Cause {
                        reason: "FieldValueInvalid",
                        field: "patch".to_owned(),
                        message: format!("Invalid value: {error}"),
                    };
                    let name = old["metadata"]["name"].as_str().unwrap_or_default();
                    ApiError::invalid(old["kind"].as_str().unwrap_or_default(), name, &[cause])
                })?;
            }
        }
        if !new["metadata"].is_object() {
            return Err(ApiError::bad_request("the patch leaves an object without metadata"));
        }
        Ok(new)
    }
}

fn json_answer(status: u16, value: &Value) -> Response<AnswerBody> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
