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

/// What is asked of `/snippets/HOST`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnippetsQuery {
    pub host: String,
    /// Only this proxy.
    pub proxy: Option<String>,
    /// What stands before it, instead of what the portal's record says.
    pub edge: Option<String>,
}

impl SnippetsQuery {
    /// What is not known is refused, so that nobody takes the answer for another one.
    fn parse(host: &str, query: &str) -> Result<Self, String> {
        let mut asked = Self { host: host.to_owned(), ..Self::default() };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "proxy" => asked.proxy = Some(value.into_owned()),
                "edge" => asked.edge = Some(value.into_owned()),
                _ => return Err(format!("`{name}` is not known here; proxy and edge are")),
            }
        }
        Ok(asked)
    }
}

/// Answers with the snippets for a host: `None` where it is not served, an error where what is asked is not known.
type Snippets = Arc<dyn Fn(&SnippetsQuery) -> Option<Result<String, String>> + Send + Sync>;

impl HealthPages {
    /// `ready` says whether requests can be served, or why not; `snippets` what to put into a proxy by hand.
    pub fn new(
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
        snippets: impl Fn(&SnippetsQuery) -> Option<Result<String, String>> + Send + Sync + 'static,
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
                let asked = SnippetsQuery::parse(host, query);
                match asked.map_or_else(|why| Some(Err(why)), |asked| (self.snippets)(&asked)) {
                    Some(Ok(snippets)) => (StatusCode::OK, text, snippets),
                    Some(Err(why)) => (StatusCode::BAD_REQUEST, text, format!("{why}\n")),
                    None => (
                        StatusCode::NOT_FOUND,
                        text,
                        "no portal is served at this host, nor is it ADMIN_HOST\n".to_owned(),
                    ),
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
