//! The HTTPS front: one token, bounded bodies, refusals as `Status`.
use std::convert::Infallible;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpListener;

use super::access::Access;
use super::rest::{AnswerBody, ApiServer, status_answer};
use super::status::ApiError;
use crate::config::Secret;
use crate::http::serve::{BodyError, Limits, read_body, serve};
use crate::http::shutdown::Shutdown;

/// Largest request, in bytes: Kubernetes' own limit.
const LARGEST_BODY: usize = 3 << 20;
const BODY_TIME: Duration = Duration::from_secs(20);

impl ApiServer {
    /// Serves until shutdown. Only whoever has the token gets more than a refusal.
    pub async fn listen(self, listener: TcpListener, access: Access, shutdown: Shutdown) {
        self.know_token(access.token.clone());
        let (server, token) = (self, access.token);
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let (server, token) = (server.clone(), token.clone());
            async move { Ok::<_, Infallible>(server.over_https(request, &token).await) }
        });
        serve(listener, service, Limits::default(), shutdown, Some(access.tls)).await;
    }

    async fn over_https(&self, request: Request<Incoming>, token: &Secret) -> Response<AnswerBody> {
        let (parts, body) = request.into_parts();
        let given = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given =
            given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, t)| t.trim());
        // Compared in constant time.
        if given.is_none_or(|given| Secret::new(given) != *token) {
            return status_answer(&ApiError::unauthorized());
        }
        match read_body(body, LARGEST_BODY, BODY_TIME).await {
            Ok(body) => self.answer(&parts, body).await,
            Err(BodyError::TooLarge(limit)) => status_answer(&ApiError::too_large(limit)),
            Err(error) => status_answer(&ApiError::bad_request(error.to_string())),
        }
    }
}
