//! The frame that all simulators of outside systems share: a call log, injected faults, one server.
//!
//! A double is stateful and answers like the system it stands for. The sandbox runs on the same doubles as
//! the tests.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use super::serve::{Limits, read_body, serve};
use super::shutdown::{Shutdown, ShutdownHandle};

/// Largest request body a double reads, in bytes.
const MAX_BODY: usize = 64 << 20;

/// A request as a double sees it: read whole, mount prefix taken off, header names in lower case.
#[derive(Debug, Clone, Default)]
pub struct DoubleRequest {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

impl DoubleRequest {
    /// First value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    /// The body as JSON; `None` if it is not.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// What a double answers.
#[derive(Debug, Clone, Default)]
pub struct DoubleResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Sent behind the body to clients that say that they read them (`TE: trailers`).
    pub trailers: Vec<(String, String)>,
    pub body: Bytes,
}

impl DoubleResponse {
    fn of(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        Self { status, headers, trailers: Vec::new(), body: body.into() }
    }
    pub fn json(status: u16, value: &Value) -> Self {
        Self::of(status, "application/json", value.to_string())
    }
    pub fn text(status: u16, text: &str) -> Self {
        Self::of(status, "text/plain; charset=utf-8", text.to_owned())
    }
    pub fn html(status: u16, text: &str) -> Self {
        Self::of(status, "text/html; charset=utf-8", text.to_owned())
    }
    pub fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
    #[must_use]
    pub fn with_trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self.with_header("trailer", name)
    }
}

/// A simulated system.
pub trait Double: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn handle(&self, request: &DoubleRequest) -> DoubleResponse;
    /// Everything worth keeping over a restart.
    fn snapshot(&self) -> Value;
    /// Takes a snapshot back; what it does not hold stays as it is.
    fn restore(&self, state: Value);
}

/// Locks a double's state; a panic of another holder leaves plain data behind, which is still usable.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: String,
    /// Path without query.
    pub path: String,
    pub query: String,
    /// Status answered; 0 where none was.
    pub status: u16,
}

/// Every call a double got, in order.
#[derive(Debug, Clone, Default)]
pub struct CallLog(Arc<Mutex<Vec<Call>>>);

impl CallLog {
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0).clone()
    }
    /// Calls by other methods than GET and HEAD.
    pub fn writes(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.method != "GET" && call.method != "HEAD").collect()
    }
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
    fn record(&self, call: Call) {
        lock(&self.0).push(call);
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer instead of the double's; no effect.
    Answer(DoubleResponse),
    /// The double's own answer, later.
    Delay(Duration),
    /// The double does its work at once, and its answer comes later.
    DelayAfter(Duration),
    /// The connection ends before the double sees the call.
    CutBefore,
    /// The double does its work and the connection ends without an answer.
    CutAfter,
    /// The double never sees the call, and no answer comes.
    HangBefore,
    /// The double does its work and no answer comes.
    HangAfter,
}

type Matcher = Arc<dyn Fn(&DoubleRequest) -> bool + Send + Sync>;

type Rule = Arc<dyn Fn(&DoubleRequest) -> Option<Fault> + Send + Sync>;

/// Faults waiting for the calls they match. The first that matches is used up, one count at a time.
#[derive(Clone, Default)]
pub struct Faults {
    waiting: Arc<Mutex<Vec<(Matcher, usize, Fault)>>>,
    rule: Arc<Mutex<Option<Rule>>>,
}

impl Faults {
    /// Breaks the next `count` calls of this method (`*` for any) whose path contains `path`.
    pub fn push(&self, method: &'static str, path: &'static str, count: usize, fault: Fault) {
        let matcher: Matcher =
            Arc::new(move |request| (method == "*" || request.method == method) && request.path.contains(path));
        lock(&self.waiting).push((matcher, count, fault));
    }
    /// Asks this for each call that no waiting fault matches, until the next clearing.
    pub fn by_rule(&self, rule: impl Fn(&DoubleRequest) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.rule) = Some(Arc::new(rule));
    }
    pub fn clear(&self) {
        lock(&self.waiting).clear();
        *lock(&self.rule) = None;
    }
    fn take(&self, request: &DoubleRequest) -> Option<Fault> {
        self.take_waiting(request).or_else(|| {
            let rule = lock(&self.rule).clone()?;
            rule(request)
        })
    }
    fn take_waiting(&self, request: &DoubleRequest) -> Option<Fault> {
        let mut faults = lock(&self.waiting);
        let at = faults.iter().position(|(matcher, _, _)| matcher(request))?;
        let fault = faults[at].2.clone();
        faults[at].1 -= 1;
        if faults[at].1 == 0 {
            faults.remove(at);
        }
        Some(fault)
    }
}

/// A double under a path prefix.
#[derive(Clone)]
pub struct Mounted {
    /// `/cloudflare`, or empty for the root.
    pub prefix: String,
    pub double: Arc<dyn Double>,
    pub log: CallLog,
    pub faults: Faults,
}

/// Serves doubles until shutdown; what no prefix matches goes to `fallback`, or is 404.
pub async fn serve_doubles(
    listener: TcpListener,
    mounts: Vec<Mounted>,
    fallback: Option<Arc<dyn Double>>,
    shutdown: Shutdown,
) {
    let mounts = Arc::new(mounts);
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let mounts = Arc::clone(&mounts);
        let fallback = fallback.clone();
        async move { Ok::<_, Infallible>(answer(&mounts, fallback.as_deref(), request).await) }
    });
    serve(listener, service, Limits::default(), shutdown, None).await;
}

async fn answer(
    mounts: &[Mounted],
    fallback: Option<&dyn Double>,
    request: Request<Incoming>,
) -> Response<CuttableBody> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let Ok(body) = read_body(body, MAX_BODY, Duration::from_secs(30)).await else {
        return render(DoubleResponse::text(413, "the request body was not read\n"));
    };
    let mut request = DoubleRequest {
        method: parts.method.as_str().to_owned(),
        path: path.clone(),
        query: url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body,
    };
    let under = |prefix: &str| {
        path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
    };
    for mount in mounts {
        let Some(rest) = under(&mount.prefix) else { continue };
        request.path = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
        let fault = mount.faults.take(&request);
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let record = |status| {
            let (method, path) = (request.method.clone(), request.path.clone());
            mount.log.record(Call { method, path, query: query.clone(), status });
        };
        match fault {
            Some(Fault::CutBefore) => {
                record(0);
                return cut();
            }
            Some(Fault::CutAfter) => {
                mount.double.handle(&request);
                record(0);
                return cut();
            }
            Some(fault @ (Fault::HangBefore | Fault::HangAfter)) => {
                if matches!(fault, Fault::HangAfter) {
                    mount.double.handle(&request);
                }
                record(0);
                // Ends with the connection.
                return std::future::pending().await;
            }
            Some(Fault::Answer(response)) => {
                record(response.status);
                return render(response);
            }
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::DelayAfter(delay)) => {
                let response = mount.double.handle(&request);
                record(response.status);
                tokio::time::sleep(delay).await;
                return render(response);
            }
            None => {}
        }
        let response = mount.double.handle(&request);
        record(response.status);
        return render(response);
    }
    render(match fallback {
        Some(double) => double.handle(&request),
        None => DoubleResponse::text(404, "nothing is mounted here\n"),
    })
}

/// A whole body, perhaps with trailers, or one that breaks the connection off.
type CuttableBody = UnsyncBoxBody<Bytes, std::io::Error>;

fn cut() -> Response<CuttableBody> {
    let broken = futures_util::stream::iter([Err(std::io::ErrorKind::ConnectionReset.into())]);
    Response::new(StreamBody::new(broken).boxed_unsync())
}

fn header_map(pairs: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name = hyper::header::HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, hyper::header::HeaderValue::try_from(value)) {
            map.append(name, value);
        }
    }
    map
}

fn render(answer: DoubleResponse) -> Response<CuttableBody> {
    let body = if answer.trailers.is_empty() {
        Full::new(answer.body).map_err(|never| match never {}).boxed_unsync()
    } else {
        let frames = [Frame::data(answer.body), Frame::trailers(header_map(&answer.trailers))];
        StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = header_map(&answer.headers);
    response
}

/// One double on a loopback port of its own; stops when dropped.
pub struct RunningDouble {
    pub url: Url,
    pub address: SocketAddr,
    pub log: CallLog,
    pub faults: Faults,
    _stop: ShutdownHandle,
}

impl RunningDouble {
    pub async fn start(double: Arc<dyn Double>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let url = Url::parse(&format!("http://{address}")).map_err(std::io::Error::other)?;
        let (stop, shutdown) = Shutdown::new();
        let (log, faults) = (CallLog::default(), Faults::default());
        let mount = Mounted { prefix: String::new(), double, log: log.clone(), faults: faults.clone() };
        tokio::spawn(serve_doubles(listener, vec![mount], None, shutdown));
        Ok(Self { url, address, log, faults, _stop: stop })
    }
}
