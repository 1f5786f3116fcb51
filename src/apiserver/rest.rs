//! The server: from a request's path to the verb, and from the verb's outcome to an answer.
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::catalog::{Catalog, EVENTS, Resource};
use super::checks::{Checks, UnknownFields};
use super::managers::Writer;
use super::paging::Pages;
use super::status::ApiError;
use super::store::{Change, Key, LogLimits, Store, StoreError};
use super::table::Form;
use super::validate::Patterns;
use super::write;
use super::{discovery, listoptions, openapi, protobuf, render, reviews, strict};
use crate::api::clock::Clock;
use crate::config::Secret;

/// Body of an answer; a watch's never ends by itself.
pub type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;
pub(super) type Answer = Result<Response<AnswerBody>, ApiError>;

/// Namespaces that are there from the start.
const NAMESPACES: [&str; 3] = ["default", "kube-system", "portalkeeper"];

pub(super) struct Inner {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub patterns: Patterns,
    pub catalog: Catalog,
    pub pages: Pages,
    token: OnceLock<Secret>,
}

/// The embedded API. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer(pub(super) Arc<Inner>);

/// A request's place in the API.
pub(super) struct Target {
    /// The resource as asked for.
    pub resource: Arc<Resource>,
    /// The resource as it is kept; another one only for core events.
    pub stored: Arc<Resource>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub status: bool,
    /// The subresource by which a namespace is let go.
    pub finalize: bool,
    /// Asked for by the path alone, the old way.
    pub watched: bool,
}

impl Target {
    pub fn key(&self, name: &str) -> Key {
        let namespace = self.namespace.clone().unwrap_or_default();
        Key { resource: self.resource.stored_as(), namespace, name: name.to_owned() }
    }
    /// An object as this request's version shows it.
    pub fn shown(&self, object: &Value) -> Value {
        render::shown(&self.resource, object.clone())
    }
}

/// A request, read whole.
#[derive(Clone)]
pub(super) struct Call {
    pub method: Method,
    pub query: Vec<(String, String)>,
    pub content_type: String,
    pub form: Form,
    /// First word of the User-Agent, the manager of writes that name none.
    pub agent: String,
    pub body: Bytes,
}

impl Call {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1"))
    }
    pub fn unknown_fields(&self) -> UnknownFields {
        match self.parameter("fieldValidation") {
            Some("Strict") => UnknownFields::Refuse,
            Some("Ignore") => UnknownFields::Drop,
            _ => UnknownFields::Warn,
        }
    }
    /// Who writes, by the request's own word or its client's name.
    pub fn writer(&self, apply: bool, status: bool, now: jiff::Timestamp) -> Writer {
        let manager =
            self.parameter("fieldManager").unwrap_or(if self.agent.is_empty() { "unknown" } else { &self.agent });
        Writer { manager: manager.to_owned(), apply, subresource: if status { "status" } else { "" }, now }
    }
    /// The body of a deletion may ask for a dry run, too.
    pub fn dry_run(&self) -> bool {
        self.query.iter().any(|(key, value)| key == "dryRun" && value == "All")
    }
    /// The body as JSON, whatever it was sent as. `kind` is what it is to be.
    pub fn json(&self, kind: &str) -> Result<Value, ApiError> {
        let unrecognized = |words: String| {
            let shown = shown_start(&self.body);
            ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): {words} ({shown})"
            ))
        };
        match self.content_type.as_str() {
            "application/vnd.kubernetes.protobuf" => {
                protobuf::decode(&self.body).map_err(|error| ApiError::unsupported(error.to_string()))
            }
            "application/yaml" => strict::yaml(&self.body).map_err(|words| unrecognized(format!("yaml: {words}"))),
            "" | "application/json" => serde_json::from_slice(&self.body).map_err(|error| {
                unrecognized(format!("couldn't get version/kind; json parse error: {}", strict::json_words(&error)))
            }),
            _ => Err(ApiError::unsupported(
                "the body of the request was in an unknown format - accepted media types include: application/json, \
                 application/yaml, application/vnd.kubernetes.protobuf",
            )),
        }
    }
}

/// The start of a body as messages show it.
pub(super) fn shown_start(body: &[u8]) -> String {
    const MOST: usize = 30;
    let cut = body.len().min(MOST);
    let more = if body.len() > MOST { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(&body[..cut])),
        Some(_) => {
            let hex: String = body[..cut].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

impl ApiServer {
    /// Opens the store at `path`, makes the first namespaces, and goes on with what a stop interrupted.
    /// Errors: [`StoreError`].
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_within(path, clock, LogLimits::default()).await
    }

    /// The same with bounds of one's own for what watchers can still be told.
    pub async fn open_within(path: &Path, clock: Arc<dyn Clock>, limits: LogLimits) -> Result<Self, StoreError> {
        let store = Store::open_within(path, limits).await?;
        let (patterns, catalog) = (Patterns::default(), Catalog::default());
        let pages = Pages::default();
        let server = Self(Arc::new(Inner { store, clock, patterns, catalog, pages, token: OnceLock::new() }));
        let inner = &server.0;
        for name in NAMESPACES {
            let object = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
            let key = Key { resource: "namespaces".to_owned(), namespace: String::new(), name: name.to_owned() };
            let Some(resource) = inner.catalog.find(&inner.store, "", "v1", "namespaces") else { continue };
            let now = inner.clock.now();
            let writer = Writer { manager: "portalkeeper".to_owned(), apply: false, subresource: "", now };
            let mut warnings = Vec::new();
            let mut checks = Checks {
                unknown: UnknownFields::Drop,
                patterns: &inner.patterns,
                core_event: false,
                warnings: &mut warnings,
                found: Vec::new(),
                quoted: None,
            };
            let made = write::create(&resource, object, &writer, &mut checks);
            if let (Ok(made), None) = (made, inner.store.find(&key)) {
                inner.store.transact::<StoreError>(&key, |_| Ok(Change::Put(made))).await?;
            }
        }
        server.resume_namespaces();
        server.collect_garbage();
        Ok(server)
    }

    /// Lets token reviews know the token.
    pub(super) fn know_token(&self, token: Secret) {
        let _ = self.0.token.set(token);
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
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut call = Call {
            method: parts.method.clone(),
            query: url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
            content_type: header("content-type").split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
            form: Form::wanted(header("accept")),
            agent: header("user-agent").split('/').next().unwrap_or_default().to_owned(),
            body,
        };
        let path = parts.uri.path();
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let answer = match self.about_itself(&segments, &call, header("accept")) {
            Some(answer) => answer,
            None => match self.target(&segments) {
                Ok(mut target) => {
                    if target.watched {
                        narrow_to_name(&mut target, &mut call);
                    }
                    self.dispatch(&target, &call).await
                }
                Err(error) => Err(error),
            },
        };
        answer.unwrap_or_else(|error| status_answer(&error))
    }

    /// Version, health, discovery, OpenAPI and reviews; `None` for everything else.
    fn about_itself(&self, segments: &[&str], call: &Call, accept: &str) -> Option<Answer> {
        let resources = self.0.catalog.all(&self.0.store);
        let found = |value: Option<Value>| value.map(|v| json_answer(200, &v)).ok_or_else(ApiError::no_such_path);
        if let ["apis", group, version, plural] = segments
            && discovery::REVIEWS.iter().any(|(g, v, p, _)| (g, v, p) == (group, version, plural))
        {
            if call.method != Method::POST {
                return Some(Err(ApiError::not_allowed()));
            }
            let answer = call.json("Review").and_then(|review| reviews::answer(plural, review, self.0.token.get()));
            return Some(answer.map(|review| json_answer(201, &review)));
        }
        let aggregated = |core: bool| {
            let mut response = json_answer(200, &discovery::aggregated(&resources, core));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED));
            Ok(response)
        };
        let answer = match segments {
            ["version"] => found(Some(super::version_info())),
            ["healthz" | "livez" | "readyz"] => {
                let mut response = Response::new(Full::new(Bytes::from_static(b"ok")).boxed_unsync());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                Ok(response)
            }
            ["api"] if discovery::wants_aggregated(accept) => aggregated(true),
            ["apis"] if discovery::wants_aggregated(accept) => aggregated(false),
            ["api"] => found(Some(discovery::core_versions())),
            ["apis"] => found(Some(discovery::group_list(&resources))),
            ["api", "v1"] => found(discovery::resource_list(&resources, "", "v1")),
            ["apis", group] => found(discovery::group(&resources, group)),
            ["apis", group, version] => found(discovery::resource_list(&resources, group, version)),
            ["openapi", "v3"] => found(Some(openapi::index(&resources))),
            ["openapi", "v3", "api", version] => found(openapi::document(&resources, "", version)),
            ["openapi", "v3", "apis", group, version] => found(openapi::document(&resources, group, version)),
            _ => return None,
        };
        Some(if call.method == Method::GET { answer } else { Err(ApiError::not_allowed()) })
    }

    fn target(&self, segments: &[&str]) -> Result<Target, ApiError> {
        // `/api/v1/watch/namespaces/n/configmaps`: how watches were asked for in the beginning.
        let version = if segments.first() == Some(&"api") { 2 } else { 3 };
        if segments.get(version) == Some(&"watch") {
            let plain: Vec<&str> =
                segments.iter().enumerate().filter(|(at, _)| *at != version).map(|(_, s)| *s).collect();
            let target = self.target(&plain)?;
            return match target.status || target.finalize {
                true => Err(ApiError::no_such_path()),
                false => Ok(Target { watched: true, ..target }),
            };
        }
        let (group, version, rest) = match segments {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::no_such_path()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..]
                if !rest.is_empty() && *rest != ["status"] && *rest != ["finalize"] =>
            {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let finalize = matches!(rest, ["namespaces", _, "finalize"]) && group.is_empty();
        let (plural, name, status) = match rest {
            [plural] => (*plural, None, false),
            [plural, name, "finalize"] if finalize => (*plural, Some((*name).to_owned()), false),
            [plural, name] => (*plural, Some((*name).to_owned()), false),
            [plural, name, "status"] => (*plural, Some((*name).to_owned()), true),
            _ => return Err(ApiError::no_such_path()),
        };
        let (catalog, store) = (&self.0.catalog, &self.0.store);
        let resource = catalog.find(store, group, version, plural).ok_or_else(ApiError::no_such_path)?;
        let misplaced = (namespace.is_some() && !resource.namespaced)
            || (name.is_some() && namespace.is_none() && resource.namespaced)
            || (status && !resource.has_status);
        if misplaced {
            return Err(ApiError::no_such_path());
        }
        let stored = match resource.stored_as() == EVENTS {
            true => catalog.find(store, "events.k8s.io", "v1", "events").ok_or_else(ApiError::no_such_path)?,
            false => Arc::clone(&resource),
        };
        Ok(Target { resource, stored, namespace, name, status, finalize, watched: false })
    }

    async fn dispatch(&self, target: &Target, call: &Call) -> Answer {
        match (&call.method, &target.name) {
            (&Method::PUT, Some(name)) if target.finalize => self.finalize(target, name, call).await,
            _ if target.finalize => Err(ApiError::not_allowed()),
            (&Method::GET, None) if target.watched || listoptions::is_watch(call) => self.watch(target, call),
            (&Method::GET, None) => self.list(target, call),
            (&Method::GET, Some(name)) => self.get(target, name, call),
            (&Method::POST, None) => self.create(target, call).await,
            (&Method::PUT, Some(name)) => self.replace(target, name, call).await,
            (&Method::PATCH, Some(name)) if call.content_type == "application/apply-patch+yaml" => {
                self.apply(target, name, call).await
            }
            (&Method::PATCH, Some(name)) => self.patch(target, name, call).await,
            (&Method::DELETE, Some(name)) if !target.status => self.delete(target, name, call).await,
            (&Method::DELETE, None) => self.delete_all(target, call).await,
            _ => Err(ApiError::not_allowed()),
        }
    }
}

/// The watch of one object is that of a list that holds it alone.
fn narrow_to_name(target: &mut Target, call: &mut Call) {
    if let Some(name) = target.name.take() {
        let mut fields = format!("metadata.name={name}");
        if let Some(given) = call.parameter("fieldSelector") {
            fields = format!("{given},{fields}");
        }
        call.query.retain(|(key, _)| key != "fieldSelector");
        call.query.push(("fieldSelector".to_owned(), fields));
    }
}

pub(super) fn json_answer(status: u16, value: &Value) -> Response<AnswerBody> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn stream_answer(lines: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Response<AnswerBody> {
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds warnings to an answer, as kubectl shows them.
pub(super) fn with_warnings(mut response: Response<AnswerBody>, warnings: &[String]) -> Response<AnswerBody> {
    for warning in warnings.iter().take(20) {
        let plain: String = warning.chars().filter(|c| !c.is_control()).take(250).collect();
        let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append("warning", value);
        }
    }
    response
}

/// A refusal.
pub fn status_answer(error: &ApiError) -> Response<AnswerBody> {
    json_answer(error.code, &error.body())
}
