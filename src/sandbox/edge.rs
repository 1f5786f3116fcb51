//! The simulated edge of Cloudflare: follows the simulated record of a host and the simulated route behind
//! it to the page server, as the real edge and a real Caddy, or a tunnel's connector, would. Proof of life goes through here, so a
//! portal of the sandbox is `Live` only while record *and* route are right.
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::backends::caddy::double::CaddyDouble;
use crate::backends::cloudflare_api::double::{CloudflareDouble, Tunnelled};
use crate::http::serve::{Limits, read_body, serve};
use crate::http::shutdown::Shutdown;
use crate::http::{Client, ClientOptions};

/// Largest request body that is passed on, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// What the edge looks things up in.
pub struct Edge {
    pub cloudflare: Arc<CloudflareDouble>,
    pub caddy: Arc<CaddyDouble>,
    /// The only CNAME target behind which the simulated Caddy stands.
    pub cname_target: String,
}

/// Why the edge did not pass a request on; the status is what Cloudflare's edge shows for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeRefusal {
    NoRecord(String),
    WrongTarget {
        host: String,
        content: String,
    },
    NoRoute(String),
    /// The record leads to a tunnel that is gone or has no connector, or the edge does not stand before it.
    NoConnector(String),
    /// What a tunnel's rule answers by itself.
    Status(u16),
}

impl EdgeRefusal {
    fn answer(&self) -> (StatusCode, String) {
        match self {
            Self::NoRecord(host) => {
                (StatusCode::CONFLICT, format!("error 1001: {host} has no record in the simulated Cloudflare\n"))
            }
            Self::WrongTarget { host, content } => {
                (StatusCode::BAD_GATEWAY, format!("error 530: {host} points to {content}, where nothing answers\n"))
            }
            Self::NoConnector(host) => {
                let status = StatusCode::from_u16(530).unwrap_or(StatusCode::BAD_GATEWAY);
                (status, format!("error code: 1033: no connector of a tunnel takes requests for {host}\n"))
            }
            Self::Status(status) => (StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY), String::new()),
            // A Caddy without a route for the host answers 200 with an empty body.
            Self::NoRoute(_) => (StatusCode::OK, String::new()),
        }
    }
}

impl Edge {
    /// The origin (`address:port`) that a request for a path of `host` reaches. `host` is lower case, without port.
    pub fn origin_of(&self, host: &str, path: &str) -> Result<String, EdgeRefusal> {
        let records = self.cloudflare.records();
        // A text or a mail record at the name leads nowhere.
        let leads = |record: &Value| ["A", "AAAA", "CNAME"].iter().any(|kind| record["type"] == *kind);
        let record = records
            .iter()
            .find(|record| record["name"] == host && leads(record))
            .ok_or_else(|| EdgeRefusal::NoRecord(host.to_owned()))?;
        let content = record["content"].as_str().unwrap_or_default();
        if let Some(tunnelled) = self.cloudflare.tunnelled(content, host, path) {
            let service = match tunnelled {
                Tunnelled::Service(service) if record["proxied"] == true => service,
                _ => return Err(EdgeRefusal::NoConnector(host.to_owned())),
            };
            return match service.strip_prefix("http_status:").map(str::parse) {
                Some(status) => Err(EdgeRefusal::Status(status.unwrap_or(502))),
                None => Ok(service.strip_prefix("http://").unwrap_or(&service).to_owned()),
            };
        }
        if content != self.cname_target {
            return Err(EdgeRefusal::WrongTarget { host: host.to_owned(), content: content.to_owned() });
        }
        self.caddy.route_for(host).ok_or_else(|| EdgeRefusal::NoRoute(host.to_owned()))
    }

    async fn pass(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let authority = request.headers().get("host").and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
        let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let origin = match self.origin_of(&host, request.uri().path()) {
            Ok(origin) => origin,
            Err(refusal) => {
                let (status, text) = refusal.answer();
                return plain(status, text);
            }
        };
        match forward(&origin, &authority, request).await {
            Ok(response) => response,
            Err(message) => plain(StatusCode::BAD_GATEWAY, format!("error 502: {message}\n")),
        }
    }
}

async fn forward(origin: &str, authority: &str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, String> {
    let base = url::Url::parse(&format!("http://{origin}")).map_err(|error| format!("origin {origin}: {error}"))?;
    let client = Client::new(ClientOptions::new("edge", base)).map_err(|error| error.to_string())?;
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let mut outgoing = match *request.method() {
        Method::GET | Method::HEAD => client.get(&path),
        _ => return Err("the simulated edge passes only GET on; use the portal's own address".to_owned()),
    };
    outgoing = outgoing.header("host", authority);
    let _ = read_body(request.into_body(), MAX_BODY, std::time::Duration::from_secs(5)).await;
    let answer = outgoing.send().await.map_err(|error| error.to_string())?;
    let mut response = Response::builder().status(answer.status);
    if let Some(kind) = answer.headers.get("content-type") {
        response = response.header("content-type", kind);
    }
    response.body(Full::new(answer.body)).map_err(|error| error.to_string())
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert("server", hyper::header::HeaderValue::from_static("cloudflare"));
    response
}

/// Serves the edge until shutdown and tells its address.
pub fn start(edge: Arc<Edge>, listener: TcpListener, shutdown: Shutdown) -> std::io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let edge = Arc::clone(&edge);
        async move { Ok::<_, Infallible>(edge.pass(request).await) }
    });
    tokio::spawn(serve(listener, service, Limits::default(), shutdown, None));
    Ok(address)
}
