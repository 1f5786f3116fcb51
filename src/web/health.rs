//! Health, readiness and metrics, on a port of their own.
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::config::room::WriteCheck;
use crate::telemetry::metrics;

/// What the health port answers with.
#[derive(Clone)]
pub struct HealthPages {
    ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    snippets: Snippets,
    disk: Option<WriteCheck>,
}

/// Answers with the snippets for a host, and only for the proxy if one is named: `None` where the host is not served,
/// an error where the proxy is not known.
type Snippets = Arc<dyn Fn(&str, Option<&str>) -> Option<Result<String, String>> + Send + Sync>;

impl HealthPages {
    /// `ready` says whether requests can be served, or why not; `snippets` what to put into a proxy by hand.
    pub fn new(
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
        snippets: impl Fn(&str, Option<&str>) -> Option<Result<String, String>> + Send + Sync + 'static,
    ) -> Self {
        Self { ready: Arc::new(ready), snippets: Arc::new(snippets), disk: None }
    }

    /// Not ready, either, while nothing can be written there.
    pub fn with_disk(self, disk: WriteCheck) -> Self {
        Self { disk: Some(disk), ..self }
    }

    async fn is_ready(&self) -> Result<(), String> {
        (self.ready)()?;
        match &self.disk {
            Some(disk) => disk.ask().await,
            None => Ok(()),
        }
    }

    async fn answer(&self, path: &str, query: &str) -> (StatusCode, &'static str, String) {
        let text = "text/plain; charset=utf-8";
        match path {
            "/healthz" | "/livez" => (StatusCode::OK, text, "ok\n".to_owned()),
            "/readyz" => match self.is_ready().await {
                Ok(()) => (StatusCode::OK, text, "ok\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, text, format!("not ready: {why}\n")),
            },
            "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::text()),
            _ if path.starts_with("/snippets/") => {
                let host = path.trim_start_matches("/snippets/");
                let mut pairs = url::form_urlencoded::parse(query.as_bytes());
                let proxy = pairs.find(|(name, _)| name == "proxy").map(|(_, proxy)| proxy.into_owned());
                match (self.snippets)(host, proxy.as_deref()) {
                    Some(Ok(snippets)) => (StatusCode::OK, text, snippets),
                    Some(Err(why)) => (StatusCode::BAD_REQUEST, text, format!("{why}\n")),
                    None => (StatusCode::NOT_FOUND, text, "no portal is served at this host\n".to_owned()),
                }
            }
            _ => {
                let words = "here are /healthz, /readyz, /metrics and /snippets/HOST\n";
                (StatusCode::NOT_FOUND, text, words.to_owned())
            }
        }
    }

    /// As a service for [`crate::http::serve::serve`].
    pub fn service(
        self,
    ) -> impl tower::Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone
    {
        tower::service_fn(move |request: Request<Incoming>| {
            let pages = self.clone();
            async move {
                let uri = request.uri();
                let (status, kind, body) = pages.answer(uri.path(), uri.query().unwrap_or_default()).await;
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = status;
                response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
                Ok(response)
            }
        })
    }
}
