//! Health, readiness and metrics, on a port of their own.
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::telemetry::metrics;

/// What the health port answers with.
#[derive(Clone)]
pub struct HealthPages {
    ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl HealthPages {
    /// `ready` says whether requests can be served, or why not.
    pub fn new(ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { ready: Arc::new(ready) }
    }

    fn answer(&self, path: &str) -> (StatusCode, &'static str, String) {
        let text = "text/plain; charset=utf-8";
        match path {
            "/healthz" | "/livez" => (StatusCode::OK, text, "ok\n".to_owned()),
            "/readyz" => match (self.ready)() {
                Ok(()) => (StatusCode::OK, text, "ok\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, text, format!("not ready: {why}\n")),
            },
            "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::text()),
            _ => (StatusCode::NOT_FOUND, text, "here are /healthz, /readyz and /metrics\n".to_owned()),
        }
    }

    /// As a service for [`crate::http::serve::serve`].
    pub fn service(
        self,
    ) -> impl tower::Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone
    {
        tower::service_fn(move |request: Request<Incoming>| {
            let (status, kind, body) = self.answer(request.uri().path());
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
            std::future::ready(Ok(response))
        })
    }
}
