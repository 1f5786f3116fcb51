//! The serving loop: connection, header and body limits that warp alone does not have.
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tower::ServiceExt;

use super::double::lock;
use super::shutdown::Shutdown;

/// Time that open connections get to finish once shutdown begins.
const GRACE: Duration = Duration::from_secs(2);

/// How long a connection may be idle although another one waits for its place, and how often that is looked at.
const UNDISTURBED: Duration = Duration::from_secs(1);
const PRESSED: Duration = Duration::from_millis(100);

/// How long the rest of a refused body is read away after its answer.
const LINGER: Duration = Duration::from_secs(5);

/// A body up to so many times the limit is read to its end before it is refused.
const DRAINED: usize = 4;

/// Who is connected, before any header is believed. Stands in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Bounds of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_connections: usize,
    /// From accepting, or the end of the last answer, to the last byte of a request's headers.
    pub header_timeout: Duration,
    /// Whole header block, in bytes.
    pub max_header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 1024, header_timeout: Duration::from_secs(15), max_header_bytes: 32 * 1024 }
    }
}

/// Files that this process may have open at once, of which every connection is one. 1,024 where nothing says it.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
    soft.unwrap_or(1024)
}

impl Limits {
    /// So many connections as a part of the process's files allows: one listener's clients leave room for another's.
    pub fn sharing(part: usize, at_most: usize) -> Self {
        Self { max_connections: (open_files() / part.max(1)).clamp(16, at_most.max(16)), ..Self::default() }
    }
}

/// The open connections of one listener, so that those that nobody is served on can make room for others.
#[derive(Default)]
struct Connections(Mutex<(u64, HashMap<u64, Connection>)>);

struct Connection {
    /// Requests that are being answered.
    busy: usize,
    /// When it was accepted, or the last answer ended.
    since: Instant,
    close: Arc<Notify>,
}

impl Connections {
    fn open(self: &Arc<Self>) -> Opened {
        let mut all = lock(&self.0);
        all.0 += 1;
        let (id, close) = (all.0, Arc::new(Notify::new()));
        all.1.insert(id, Connection { busy: 0, since: Instant::now(), close: Arc::clone(&close) });
        Opened { all: Arc::clone(self), id, close }
    }

    /// Closes the connection that has been idle longest, if it has been so for a while.
    fn close_oldest(&self) {
        let mut all = lock(&self.0);
        let idle = all.1.iter().filter(|(_, one)| one.busy == 0 && one.since.elapsed() >= UNDISTURBED);
        let Some(id) = idle.min_by_key(|(_, one)| one.since).map(|(id, _)| *id) else { return };
        if let Some(oldest) = all.1.remove(&id) {
            oldest.close.notify_one();
        }
    }
}

/// A connection for as long as it is open.
struct Opened {
    all: Arc<Connections>,
    id: u64,
    close: Arc<Notify>,
}

impl Opened {
    /// Counts a request until this is dropped with the end of its answer.
    fn busy(self: &Arc<Self>) -> Busy {
        if let Some(one) = lock(&self.all.0).1.get_mut(&self.id) {
            one.busy += 1;
        }
        Busy(Arc::clone(self))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        lock(&self.all.0).1.remove(&self.id);
    }
}

struct Busy(Arc<Opened>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(one) = lock(&self.0.all.0).1.get_mut(&self.0.id) {
            one.busy -= 1;
            one.since = Instant::now();
        }
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body, until whose end its connection is busy.
struct Held {
    body: UnsyncBoxBody<Bytes, AnyError>,
    _busy: Option<Busy>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = AnyError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, AnyError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Accepts connections until shutdown, then gives open ones two seconds. When there is no place for another one, those
/// without a request are closed, the one first that has been so longest. A panic in the service becomes a
/// generic 500 answer.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    shutdown: Shutdown,
    tls: Option<Arc<rustls::ServerConfig>>,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let connections = Arc::new(Connections::default());
    let tracker = hyper_util::server::graceful::GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX));
    builder.http2().keep_alive_interval(Some(limits.header_timeout)).keep_alive_timeout(limits.header_timeout);
    // The version is never guessed from the first bytes: that guess has no time limit, so a silent client would stay
    // for ever. Plain connections speak HTTP/1; TLS ones what they agreed on.
    let (first, second) = (builder.clone().http1_only(), builder.http2_only());
    let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
    loop {
        let place = tokio::select! {
            // The semaphore is never closed.
            place = Arc::clone(&places).acquire_owned() => place,
            () = tokio::time::sleep(PRESSED) => {
                connections.close_oldest();
                continue;
            }
            () = shutdown.wait() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, or a peer that is gone already: go on, not in a hot loop.
                tracing::warn!(%error, "cannot accept a connection");
                connections.close_oldest();
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Small answers are sent at once, not when the one before has been acknowledged.
        let _ = stream.set_nodelay(true);
        let opened = Arc::new(connections.open());
        let close = Arc::clone(&opened.close);
        let service = guarded(service.clone(), peer, opened);
        let watcher = tracker.watcher();
        let (first, second) = (first.clone(), second.clone());
        let acceptor = acceptor.clone();
        let header_timeout = limits.header_timeout;
        let served = async move {
            let service = hyper_util::service::TowerToHyperService::new(service);
            let ended = match acceptor {
                None => watcher.watch(first.serve_connection(TokioIo::new(stream), service).into_owned()).await,
                Some(acceptor) => match tokio::time::timeout(header_timeout, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        let builder = if agreed { second } else { first };
                        watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
                    }
                    Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error = %error, "connection ended early");
            }
        };
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = served => {}
                () = close.notified() => tracing::debug!(%peer, "an idle connection made room for another one"),
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, tracker.shutdown()).await;
}

fn guarded<S, B>(
    service: S,
    peer: SocketAddr,
    connection: Arc<Opened>,
) -> impl tower::Service<Request<Incoming>, Response = Response<Held>, Error = Infallible, Future: Send> + Clone
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddr(peer));
        let service = service.clone();
        let busy = connection.busy();
        async move {
            let answer = AssertUnwindSafe(async move { service.oneshot(request).await }).catch_unwind().await;
            Ok::<_, Infallible>(match answer {
                Ok(Ok(response)) => {
                    response.map(|body| Held { body: body.map_err(Into::into).boxed_unsync(), _busy: Some(busy) })
                }
                Ok(Err(never)) => match never {},
                Err(_) => {
                    tracing::error!(%peer, "a request handler panicked");
                    let body =
                        Full::new(Bytes::from_static(b"Something went wrong on our side. Please try again later.\n"));
                    let body = body.map_err(|never: Infallible| match never {}).boxed_unsync();
                    let mut response = Response::new(Held { body, _busy: None });
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                }
            })
        }
    })
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request body did not arrive in time")]
    TooSlow,
    #[error("the request body ended early")]
    Broken,
}

impl BodyError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "BodyTooLarge",
            Self::TooSlow => "BodyTooSlow",
            Self::Broken => "BodyBroken",
        }
    }
}

/// Reads a whole body, chunked or not, of at most `max` bytes within `limit`.
pub async fn read_body(mut body: Incoming, max: usize, limit: Duration) -> Result<Bytes, BodyError> {
    let read = async {
        let mut whole = BytesMut::new();
        let mut size = 0_usize;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            size = size.saturating_add(data.len());
            if size <= max {
                whole.extend_from_slice(&data);
            } else if size > max.saturating_mul(DRAINED) {
                break;
            }
        }
        // A client that is cut off while it sends does not see the answer, so somewhat too much is read away.
        if size > max { Err(BodyError::TooLarge(max)) } else { Ok(whole.freeze()) }
    };
    let read = tokio::time::timeout(limit, read).await.unwrap_or(Err(BodyError::TooSlow));
    if matches!(read, Err(BodyError::TooLarge(_))) && !body.is_end_stream() {
        // Over HTTP/2 what nobody reads is refused at once, and clients give up before they have read their answer.
        tokio::spawn(tokio::time::timeout(LINGER, async move { while let Some(Ok(_)) = body.frame().await {} }));
    }
    read
}
