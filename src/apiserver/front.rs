//! The HTTPS front: one token, bounded bodies, bounded load, refusals as `Status`.
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Access;
use super::answer::status_answer;
use super::rest::{AnswerBody, ApiServer};
use super::status::ApiError;
use crate::config::Secret;
use crate::http::serve::{BodyError, Limits, read_body, serve};
use crate::http::shutdown::Shutdown;

/// Largest request, in bytes: Kubernetes' own limit.
const LARGEST_BODY: usize = 3 << 20;
const BODY_TIME: Duration = Duration::from_secs(20);
/// Bounds of the load from outside. The controller's own requests do not pass here and are not held up by them.
#[derive(Debug, Clone)]
pub struct FrontLimits {
    /// Requests that are worked on at once.
    pub at_once: usize,
    /// Requests that may wait for their turn, and how long; more, or longer, is 429.
    pub waiting: usize,
    pub patience: Duration,
    /// Watches at once; more is 429.
    pub watches: usize,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self { at_once: 32, waiting: 512, patience: Duration::from_secs(5), watches: 1000 }
    }
}

/// How much of the front is in use.
struct Load {
    limits: FrontLimits,
    requests: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Load {
    fn new(limits: FrontLimits) -> Self {
        let requests = Arc::new(Semaphore::new(limits.at_once));
        let watches = Arc::new(Semaphore::new(limits.watches));
        Self { limits, requests, watches, waiting: AtomicUsize::new(0) }
    }

    /// A place for a request; `None` where there is none in good time.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.requests).try_acquire_owned() {
            return Some(place);
        }
        let _counted = Counted::one_more(&self.waiting, self.limits.waiting)?;
        tokio::time::timeout(self.limits.patience, Arc::clone(&self.requests).acquire_owned()).await.ok()?.ok()
    }
}

/// One of those that wait.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one_more(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let counted = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ApiServer {
    /// Serves until shutdown. Only whoever has the token gets more than a refusal.
    pub async fn listen(self, listener: TcpListener, access: Access, shutdown: Shutdown) {
        self.listen_within(listener, access, FrontLimits::default(), shutdown).await;
    }

    /// The same within bounds of one's own.
    pub async fn listen_within(self, listener: TcpListener, access: Access, limits: FrontLimits, shutdown: Shutdown) {
        self.know_token(access.token.clone());
        let (server, token, load) = (self, access.token, Arc::new(Load::new(limits)));
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let (server, token, load) = (server.clone(), token.clone(), Arc::clone(&load));
            async move { Ok::<_, Infallible>(server.over_https(request, &token, &load).await) }
        });
        // Clients keep their connections for later requests; one that says nothing costs little until its place is
        // needed.
        let limits = Limits { header_timeout: Duration::from_secs(30), ..Limits::sharing(3, 1024) };
        serve(listener, service, limits, shutdown, Some(access.tls)).await;
    }

    async fn over_https(&self, request: Request<Incoming>, token: &Secret, load: &Load) -> Response<AnswerBody> {
        let (parts, body) = request.into_parts();
        let given = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given =
            given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, t)| t.trim());
        // Compared in constant time.
        if given.is_none_or(|given| Secret::new(given) != *token) {
            return status_answer(&ApiError::unauthorized());
        }
        if parts.headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            // Whoever asks for another's rights must not be given its own instead.
            return status_answer(&ApiError::no_impersonation());
        }
        let body = match read_body(body, LARGEST_BODY, BODY_TIME).await {
            Ok(body) => body,
            Err(BodyError::TooLarge(limit)) => return status_answer(&ApiError::too_large(limit)),
            Err(error) => return status_answer(&ApiError::bad_request(error.to_string())),
        };
        let watch = if is_watch(&parts.uri) {
            let Ok(watch) = Arc::clone(&load.watches).try_acquire_owned() else { return busy() };
            Some(watch)
        } else {
            None
        };
        let Some(_place) = load.place().await else { return busy() };
        // A write is read, merged and checked, which may take a while with large objects.
        let answer = match parts.method == Method::GET {
            true => self.answer(&parts, body).await,
            false => self.answer_aside(parts, body).await,
        };
        match watch {
            // Counted until its last line is sent.
            Some(watch) => answer.map(|body| {
                let counted = body.map_frame(move |frame| {
                    let _counted = &watch;
                    frame
                });
                counted.boxed_unsync()
            }),
            None => answer,
        }
    }
}

fn is_watch(uri: &hyper::Uri) -> bool {
    let asked =
        uri.query().unwrap_or_default().split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "watch"));
    asked || uri.path().split('/').any(|segment| segment == "watch")
}

fn busy() -> Response<AnswerBody> {
    let mut response = status_answer(&ApiError::too_many_requests());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
