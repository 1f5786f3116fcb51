//! Everything that happens before a route is chosen and after it has answered: method, host, body, headers.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use tower::ServiceExt;
use warp::Filter;

use super::routes::{Visit, reply, routes};
use super::{Site, host};
use crate::http::serve::{BodyError, PeerAddr, read_body};
use crate::reset::live;

/// Largest form, in bytes.
const LARGEST_BODY: usize = 4096;
/// Longest wait for a form's body.
const BODY_TIME: Duration = Duration::from_secs(10);

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

type Answer = Response<Full<Bytes>>;

fn plain(status: StatusCode, words: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The pages as a service for [`crate::http::serve::serve`].
pub fn service(
    site: Arc<Site>,
) -> impl tower::Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send> + Clone {
    let routes = warp::service(routes(Arc::clone(&site)).map(reply));
    tower::service_fn(move |request: Request<Incoming>| {
        let (site, routes) = (Arc::clone(&site), routes.clone());
        async move {
            let only_head = request.method() == Method::HEAD;
            let mut response = respond(&site, routes, request).await;
            protect(&mut response);
            if only_head {
                *response.body_mut() = Full::new(Bytes::new());
            }
            Ok(response)
        }
    })
}

async fn respond<S, B>(site: &Site, routes: S, request: Request<Incoming>) -> Answer
where
    S: tower::Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: hyper::body::Body<Data = Bytes>,
{
    let (mut parts, body) = request.into_parts();
    let post = parts.method == Method::POST;
    // Before any filter: the framework panics on CONNECT.
    if !matches!(parts.method, Method::GET | Method::HEAD | Method::POST) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET, HEAD and POST are served here.\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        return response;
    }
    let host = match host::host(&parts) {
        Ok(host) => host,
        Err(error) => {
            tracing::debug!(reason = error.reason(), "a request without a usable host");
            return plain(StatusCode::BAD_REQUEST, "The request names no usable host.\n");
        }
    };
    let Some(portal) = site.directory.lookup(&host) else {
        return plain(StatusCode::MISDIRECTED_REQUEST, "This host is not served here.\n");
    };
    let peer = parts.extensions.get::<PeerAddr>().map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
    let secure = portal.url.starts_with("https://");
    // The proof of life, too: it is one only of what visitors get.
    if site.options.force_https && secure && !site.options.trust.came_by_https(&parts.headers, peer) {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut response = plain(StatusCode::PERMANENT_REDIRECT, "This page is served over https.\n");
        if let Ok(to) = HeaderValue::from_str(&format!("{}{path}", portal.url)) {
            response.headers_mut().insert(LOCATION, to);
        }
        let header = HeaderName::from_static(live::REDIRECT_HEADER);
        response.headers_mut().insert(header, HeaderValue::from_static("https"));
        return response;
    }
    let body = if post {
        match read_body(body, LARGEST_BODY, BODY_TIME).await {
            Ok(body) => body,
            Err(BodyError::TooLarge(_)) => return plain(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large.\n"),
            Err(BodyError::TooSlow) => return plain(StatusCode::REQUEST_TIMEOUT, "The form did not arrive in time.\n"),
            Err(BodyError::Broken) => return plain(StatusCode::BAD_REQUEST, "The form did not arrive whole.\n"),
        }
    } else {
        Bytes::new()
    };
    let client = site.options.trust.address(&parts.headers, peer);
    parts.extensions.insert(Visit { portal, host, client });
    if parts.method == Method::HEAD {
        parts.method = Method::GET;
    }
    let answered = match routes.oneshot(Request::from_parts(parts, Full::new(body))).await {
        Ok(answered) => answered,
        Err(never) => match never {},
    };
    let (parts, body) = answered.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::from_parts(parts, Full::new(body));
    if secure {
        let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        response.headers_mut().insert("strict-transport-security", year);
    }
    response
}

/// The headers of every public answer.
fn protect(response: &mut Answer) {
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
        ("x-robots-tag", "noindex"),
        // With no-referrer, browsers send `Origin: null` even to the page's own host.
        ("referrer-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
