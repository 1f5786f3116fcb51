//! The serving loop: connection, header and body limits that warp alone does not have.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::shutdown::Shutdown;

/// Time that open connections get to finish once shutdown begins.
const GRACE: Duration = Duration::from_secs(2);

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

type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Accepts connections until shutdown, then gives open ones two seconds. A panic in the service becomes a
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
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = guarded(service.clone(), peer);
        let watcher = tracker.watcher();
        let (first, second) = (first.clone(), second.clone());
        let acceptor = acceptor.clone();
        let header_timeout = limits.header_timeout;
        tokio::spawn(async move {
            let _place = place;
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
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, tracker.shutdown()).await;
}

fn guarded<S, B>(
    service: S,
    peer: SocketAddr,
) -> impl tower::Service<Request<Incoming>, Response = Response<AnyBody>, Error = Infallible, Future: Send> + Clone
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddr(peer));
        let service = service.clone();
        async move {
            let answer = AssertUnwindSafe(async move { service.oneshot(request).await }).catch_unwind().await;
            Ok::<_, Infallible>(match answer {
                Ok(Ok(response)) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
                Ok(Err(never)) => match never {},
                Err(_) => {
                    tracing::error!(%peer, "a request handler panicked");
                    let body =
                        Full::new(Bytes::from_static(b"Something went wrong on our side. Please try again later.\n"));
                    let mut response = Response::new(body.map_err(|never: Infallible| match never {}).boxed_unsync());
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
    tokio::time::timeout(limit, read).await.unwrap_or(Err(BodyError::TooSlow))
}
