//! The server: from a request's path to the verb, and from the verb's outcome to an answer.
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::accept::{self, Encoding, Kind};
use super::answer::{self, status_answer};
use super::body;
use super::catalog::{Catalog, EVENTS, Resource};
use super::checks::{Checks, UnknownFields};
use super::managers::Writer;
use super::options::{self, Options};
use super::paging::Pages;
use super::status::ApiError;
use super::store::{Change, Key, LogLimits, Store, StoreError};
use super::table::Form;
use super::validate::Patterns;
use super::write;
use super::{discovery, listoptions, render};
use crate::api::clock::Clock;
use crate::config::Secret;
use crate::config::room::WriteCheck;

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
    disk: WriteCheck,
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
    /// The body's media type, without parameters.
    pub content_type: String,
    pub form: Form,
    pub encoding: Encoding,
    /// Whether the answer is a stream without end.
    pub watching: bool,
    /// The headers that answers depend on, as they came.
    pub accept: String,
    pub if_none_match: String,
    pub host: String,
    /// First word of the User-Agent, the manager of writes that name none.
    pub agent: String,
    pub body: Bytes,
}

impl Call {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
    /// How much of an object a table's rows hold.
    pub fn include(&self) -> &str {
        self.parameter("includeObject").unwrap_or("Metadata")
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
    /// The object that is to be made or put in another's place. Errors: 400, 415, 422.
    pub fn object(&self, target: &Target, served: &[Arc<Resource>]) -> Result<Value, ApiError> {
        let known = |version: &str, kind: &str| served.iter().any(|r| r.kind == kind && r.api_version() == version);
        body::object(&target.resource, known, &self.content_type, &self.body)
    }
    /// The options of a deletion, by its body or else its query. Errors: 400, 415, 422.
    pub fn delete_options(&self) -> Result<Value, ApiError> {
        let options = body::delete_options(&self.content_type, &self.body)?;
        options::check(Options::Delete, &self.query, &options)?;
        Ok(options)
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
        let disk = WriteCheck::new(path.parent().unwrap_or(Path::new(".")));
        let server = Self(Arc::new(Inner { store, clock, patterns, catalog, pages, disk, token: OnceLock::new() }));
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

    pub(super) fn token(&self) -> Option<&Secret> {
        self.0.token.get()
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

    /// Answers one request; a refusal is a `Status` object, and so is what must not happen.
    pub async fn answer(&self, parts: &Parts, body: Bytes) -> Response<AnswerBody> {
        let answered = AssertUnwindSafe(self.answered(parts, body)).catch_unwind().await;
        answered.unwrap_or_else(|_| {
            tracing::error!(method = %parts.method, path = parts.uri.path(), "a request to the API made its handler panic");
            status_answer(&ApiError::internal("the request could not be worked on; nothing was changed by it"))
        })
    }

    /// The same where the work does not hold up what else is to be done. It is finished even if nobody waits for it
    /// any more.
    pub async fn answer_aside(&self, parts: Parts, body: Bytes) -> Response<AnswerBody> {
        let (server, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let answered = tokio::task::spawn_blocking(move || runtime.block_on(server.answer(&parts, body))).await;
        answered.unwrap_or_else(|_| status_answer(&ApiError::internal("the server is ending")))
    }

    async fn answered(&self, parts: &Parts, body: Bytes) -> Response<AnswerBody> {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let host = parts.uri.authority().map_or_else(|| header("host"), |authority| authority.as_str());
        let mut call = Call {
            method: parts.method.clone(),
            query: url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
            // What cannot be understood is no known type either.
            content_type: body::media_type(header("content-type")).unwrap_or_else(|| "unknown".to_owned()),
            form: Form::Whole,
            encoding: accept::of_refusal(header("accept")),
            watching: false,
            accept: header("accept").to_owned(),
            if_none_match: header("if-none-match").to_owned(),
            host: host.to_owned(),
            agent: header("user-agent").split('/').next().unwrap_or_default().to_owned(),
            body,
        };
        let answer = self.route(parts.uri.path(), &mut call).await;
        answer::finish(answer.unwrap_or_else(|error| status_answer(&error)), &call).await
    }

    async fn route(&self, path: &str, call: &mut Call) -> Answer {
        let path = answer::decoded(path);
        let path = path.strip_suffix('/').unwrap_or(&path);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        // Liveness does not ask: a restart makes no room.
        let unwritable = if segments.first() == Some(&"readyz") { self.0.disk.ask().await.err() } else { None };
        if let Some(answer) = self.about_itself(&segments, call, unwritable.as_deref()) {
            return answer;
        }
        let mut target = self.target(&segments)?;
        if target.watched {
            narrow_to_name(&mut target, call);
        }
        self.dispatch(&target, call).await
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
            _ => return Err(ApiError::no_such_page()),
        };
        let built_in = Catalog::is_built_in(group) || discovery::is_review_group(group);
        let nothing = || if built_in { ApiError::no_such_path() } else { ApiError::no_such_page() };
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
            [plural, name, _] => (*plural, Some((*name).to_owned()), false),
            _ => return Err(nothing()),
        };
        let (catalog, store) = (&self.0.catalog, &self.0.store);
        let resource = catalog.find(store, group, version, plural).ok_or_else(nothing)?;
        if rest.len() == 3 && !finalize && !(status && resource.has_status) {
            return Err(match &name {
                Some(name) if !built_in => ApiError::not_found(&resource.full_name(), name),
                _ => ApiError::no_such_path(),
            });
        }
        let misplaced = (namespace.is_some() && !resource.namespaced)
            || (name.is_some() && namespace.is_none() && resource.namespaced);
        if misplaced {
            return Err(nothing());
        }
        if let Some(bad) = name.as_deref().filter(|name| matches!(*name, "." | "..")) {
            return Err(ApiError::bad_request(format!("Name parameter invalid: \"{bad}\": may not be '{bad}'")));
        }
        let stored = match resource.stored_as() == EVENTS {
            true => catalog.find(store, "events.k8s.io", "v1", "events").ok_or_else(ApiError::no_such_path)?,
            false => Arc::clone(&resource),
        };
        Ok(Target { resource, stored, namespace, name, status, finalize, watched: false })
    }

    async fn dispatch(&self, target: &Target, call: &mut Call) -> Answer {
        let resource = &target.resource;
        let everywhere = resource.namespaced && target.namespace.is_none();
        let method = call.method.clone();
        if everywhere && method != Method::GET {
            return Err(if resource.is_custom() { ApiError::no_such_page() } else { ApiError::not_allowed() });
        }
        let (kind, options) = match (&method, &target.name) {
            (method, _) if target.finalize && method != Method::PUT => return Err(ApiError::not_allowed()),
            (&Method::GET, None) if target.watched || listoptions::is_watch(call) => (Kind::Watch, None),
            (&Method::GET, None) => (Kind::List, None),
            (&Method::GET, Some(_)) => (Kind::Object, None),
            (&Method::POST, None) => (Kind::Object, Some(Options::Create)),
            (&Method::PUT, Some(_)) => (Kind::Object, Some(Options::Update)),
            (&Method::PATCH, Some(_)) => {
                body::check_patch_type(resource, &call.content_type)?;
                let apply = call.content_type == body::APPLY;
                (Kind::Object, Some(if apply { Options::Apply } else { Options::Patch }))
            }
            (&Method::DELETE, Some(_)) if target.status && resource.is_custom() => {
                return Err(ApiError::not_supported("delete", &resource.full_name()));
            }
            (&Method::DELETE, Some(_)) if !target.status => (Kind::Object, None),
            (&Method::DELETE, None) if resource.full_name() != "namespaces" => (Kind::List, None),
            _ => return Err(ApiError::not_allowed()),
        };
        (call.form, call.encoding) = accept::negotiate(&call.accept, kind, Some(resource))?;
        if call.form == Form::Table && !["None", "Metadata", "Object"].contains(&call.include()) {
            return Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: \"{}\": must be 'Metadata', 'Object', 'None', or empty",
                call.include()
            )));
        }
        if matches!(kind, Kind::List | Kind::Watch) {
            options::check_numbers(&call.query, &["limit", "timeoutSeconds"])?;
        }
        if let Some(options) = options {
            options::check(options, &call.query, &Value::Null)?;
        }
        call.watching = kind == Kind::Watch;
        let call = &*call;
        match (&method, &target.name, options) {
            (&Method::GET, None, _) if kind == Kind::Watch => self.watch(target, call),
            (&Method::GET, None, _) => self.list(target, call),
            (&Method::GET, Some(name), _) => self.get(target, name, call),
            (_, _, Some(Options::Create)) => self.create(target, call).await,
            (_, Some(name), Some(Options::Update)) if target.finalize => self.finalize(target, name, call).await,
            (_, Some(name), Some(Options::Update)) => self.replace(target, name, call).await,
            (_, Some(name), Some(Options::Apply)) => self.apply(target, name, call).await,
            (_, Some(name), Some(_)) => self.patch(target, name, call).await,
            (_, Some(name), None) => self.delete(target, name, call).await,
            (_, None, _) => self.delete_all(target, call).await,
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
