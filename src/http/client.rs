//! The client for one outside system.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Method;
use serde_json::Value;
use url::Url;

use super::error::{ConnectFault, HttpError};
use super::retry::{Try, retry};
use super::tls::{self, ClientTls};
use crate::config::{Secret, redact};
use crate::telemetry::metrics;

/// How one system is reached.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Name in messages and metrics.
    pub system: &'static str,
    /// Paths are appended to this address's path.
    pub base: Url,
    /// Sent with each request; never shown.
    pub headers: Vec<(&'static str, Secret)>,
    /// Limit of one try, from connecting to the last byte.
    pub timeout: Duration,
    /// Largest answer that is read, in bytes.
    pub max_body: usize,
    /// Connect to one of these, whatever DNS says; empty asks DNS. The port of `base` must be the same.
    pub pins: Vec<SocketAddr>,
    /// Speak http over this socket of the machine, whatever the address says.
    pub socket: Option<std::path::PathBuf>,
    /// Keep idle connections for the next call. `false` for systems that drop them after each write.
    pub pooled: bool,
    /// Verify the certificate of an https address.
    pub verify_tls: bool,
    /// Whom to trust, and what to show to a server that asks who calls.
    pub tls: ClientTls,
}

impl ClientOptions {
    /// Ten seconds, 1 MiB, no headers, addresses from DNS, pooled connections, verified certificates.
    pub fn new(system: &'static str, base: Url) -> Self {
        Self {
            system,
            base,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            max_body: 1 << 20,
            pins: Vec::new(),
            socket: None,
            pooled: true,
            verify_tls: true,
            tls: ClientTls::default(),
        }
    }
}

/// A file of a form, sent with its field's name as the file name.
#[derive(Debug, Clone)]
pub struct FormFile {
    pub field: &'static str,
    /// Its content may be a private key.
    pub content: Secret,
}

struct Inner {
    options: ClientOptions,
    http: reqwest::Client,
}

/// A client of one outside system. Cheap to clone; follows no redirects; uses no proxy of the environment.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

impl Client {
    /// Errors: [`HttpError::BadAddress`] for a base that is not http(s) or a header that cannot be sent.
    pub fn new(options: ClientOptions) -> Result<Self, HttpError> {
        super::install_crypto_provider();
        let system = options.system;
        let bad = |cause: String| HttpError::BadAddress { system, cause };
        if !matches!(options.base.scheme(), "http" | "https") || options.base.host_str().is_none() {
            return Err(bad(format!("`{}` is not an http or https address", shown(&options.base))));
        }
        let mut headers = HeaderMap::new();
        for (name, secret) in &options.headers {
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| bad(format!("the value for {name} holds characters that a header cannot carry")))?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?, value);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("portalkeeper/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(options.timeout);
        if let (false, Some(host)) = (options.pins.is_empty(), options.base.host_str()) {
            builder = builder.resolve_to_addrs(host, &options.pins);
        }
        if let Some(socket) = &options.socket {
            builder = builder.unix_socket(socket.as_path());
        }
        if options.base.scheme() == "http" {
            // There is nothing to verify, and reading the machine's certificates takes tens of milliseconds.
            builder = builder.tls_certs_only([]);
        }
        if !options.pooled {
            builder = builder.pool_max_idle_per_host(0);
        }
        builder = options.tls.apply(builder).map_err(|error| bad(error.to_string()))?;
        if !options.verify_tls {
            builder = builder.danger_accept_invalid_certs(true);
        }
        let http = builder.build().map_err(|error| bad(error.to_string()))?;
        Ok(Self(Arc::new(Inner { options, http })))
    }

    /// Whether it speaks over a socket of the machine.
    pub fn is_socket(&self) -> bool {
        self.0.options.socket.is_some()
    }

    pub fn base(&self) -> &Url {
        &self.0.options.base
    }
    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }
    pub fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }
    pub fn put(&self, path: &str) -> Request {
        self.request(Method::PUT, path)
    }
    pub fn patch(&self, path: &str) -> Request {
        self.request(Method::PATCH, path)
    }
    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    fn request(&self, method: Method, path: &str) -> Request {
        let mut address = self.0.options.base.as_str().trim_end_matches('/').to_owned();
        address.push_str(path);
        Request {
            client: self.clone(),
            repeat: method == Method::GET,
            method,
            address,
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Empty,
        }
    }
}

enum Body {
    Empty,
    Json(Value),
    Form(Vec<FormFile>),
}

/// The address without user information and query.
fn shown(address: &Url) -> String {
    let mut address = address.clone();
    let _ = address.set_username("");
    let _ = address.set_password(None);
    address.set_query(None);
    address.as_str().trim_end_matches('/').to_owned()
}

/// Where the system is reached, in words.
fn place(options: &ClientOptions) -> String {
    match &options.socket {
        Some(socket) => format!("unix://{}", socket.display()),
        None => shown(&options.base),
    }
}

/// A call being put together.
pub struct Request {
    client: Client,
    method: Method,
    address: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Body,
    repeat: bool,
}

impl Request {
    pub fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        self.query.extend(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        self
    }
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Body::Json(body.clone());
        self
    }
    /// Sends the files as `multipart/form-data`.
    pub fn form(mut self, files: &[FormFile]) -> Self {
        self.body = Body::Form(files.to_vec());
        self
    }
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
    /// The call may be repeated although it writes, because doing it twice is doing it once.
    pub fn repeat_safe(mut self) -> Self {
        self.repeat = true;
        self
    }
    /// The call is made once, whatever comes of it.
    pub fn single(mut self) -> Self {
        self.repeat = false;
        self
    }

    /// Sends the call. Every HTTP status is an answer; calls that may be repeated are, on refused
    /// connections and 502, 503 and 504, but never on 429.
    pub async fn send(self) -> Result<Response, HttpError> {
        retry(|| async {
            let result = self.once().await;
            let again = match &result {
                Ok(response) => matches!(response.status, 502..=504),
                Err(HttpError::Connect { .. } | HttpError::Interrupted { .. }) => true,
                Err(_) => false,
            };
            if self.repeat && again { Try::Again(result) } else { Try::Done(result) }
        })
        .await
    }

    async fn once(&self) -> Result<Response, HttpError> {
        let started = Instant::now();
        let result = self.exchange().await;
        let outcome = match &result {
            Ok(response) if response.status == 429 => "429",
            Ok(response) => match response.status / 100 {
                2 => "2xx",
                3 => "3xx",
                4 => "4xx",
                _ => "5xx",
            },
            Err(error) => error.reason(),
        };
        metrics::outside_call(self.client.0.options.system, outcome, started.elapsed());
        result
    }

    async fn exchange(&self) -> Result<Response, HttpError> {
        let options = &self.client.0.options;
        let mut request = self.client.0.http.request(self.method.clone(), &self.address);
        if !self.query.is_empty() {
            request = request.query(&self.query);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request = match &self.body {
            Body::Empty => request,
            Body::Json(body) => request.json(body),
            Body::Form(files) => {
                let form = files.iter().fold(reqwest::multipart::Form::new(), |form, file| {
                    let part = reqwest::multipart::Part::text(file.content.expose().to_owned());
                    form.part(file.field, part.file_name(format!("{}.pem", file.field)))
                });
                request.multipart(form)
            }
        };
        let answer = request.send().await.map_err(|error| self.failure(&error))?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let (mut body, mut trailers) = (BytesMut::new(), HeaderMap::new());
        let mut frames = reqwest::Body::from(answer);
        while let Some(frame) = frames.frame().await {
            let frame = frame.map_err(|error| self.failure(&error))?;
            match frame.into_data() {
                Ok(chunk) if body.len() + chunk.len() > options.max_body => {
                    let (system, address) = (options.system, place(options));
                    return Err(HttpError::BodyTooLarge { system, address, limit: options.max_body });
                }
                Ok(chunk) => body.extend_from_slice(&chunk),
                Err(last) => trailers.extend(last.into_trailers().unwrap_or_default()),
            }
        }
        let (system, address) = (options.system, place(options));
        Ok(Response { status, headers, trailers, body: body.freeze(), system, address })
    }

    fn failure(&self, error: &reqwest::Error) -> HttpError {
        let options = &self.client.0.options;
        let (system, address) = (options.system, place(options));
        if error.is_builder() {
            return HttpError::BadAddress { system, cause: innermost(error, options) };
        }
        let fault = tls::fault(error);
        // A server that wants another certificate says so when the handshake is over for the client.
        if error.is_connect() || fault == ConnectFault::ClientRefused {
            return HttpError::Connect { system, address, fault, cause: innermost(error, options) };
        }
        if error.is_timeout() {
            return HttpError::Timeout { system, address, seconds: options.timeout.as_secs() };
        }
        HttpError::Interrupted { system, address, cause: innermost(error, options) }
    }
}

/// The last cause says what happened; the outer ones repeat the address. Secrets are taken out.
fn innermost(error: &reqwest::Error, options: &ClientOptions) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if super::tls::is_plain(cause) {
        return "plain http is spoken there, not https".to_owned();
    }
    let text = cause.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    redact(&text, &options.headers.iter().map(|(_, secret)| secret).collect::<Vec<_>>())
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// What came behind the body.
    pub trailers: HeaderMap,
    pub body: Bytes,
    system: &'static str,
    address: String,
}

impl Response {
    #[cfg(test)]
    pub(crate) fn for_test(status: u16, headers: &[(&str, &str)]) -> Self {
        let pair = |(name, value): &(&str, &str)| Some((name.parse().ok()?, value.parse().ok()?));
        let headers: HeaderMap =
            headers.iter().filter_map(pair).collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().collect();
        let (trailers, body) = (HeaderMap::new(), Bytes::new());
        Self { status, headers, trailers, body, system: "test", address: String::new() }
    }

    /// Errors: [`HttpError::NotJson`].
    pub fn json(&self) -> Result<Value, HttpError> {
        serde_json::from_slice(&self.body).map_err(|_| HttpError::NotJson {
            system: self.system,
            address: self.address.clone(),
            status: self.status,
        })
    }

    /// How long to wait, from `Retry-After` in seconds or as an HTTP date against the answer's own `Date`.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let wait = text("retry-after")?.trim();
        if let Ok(seconds) = wait.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let parse = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
        let seconds = parse(wait)?.as_second() - parse(text("date")?)?.as_second();
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// One path segment, percent-encoded: everything but unreserved characters (RFC 3986 section 2.3).
pub fn path_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
