//! Certificates of Cloudflare's Origin CA, which only Cloudflare's edge trusts.
use std::time::Duration;

use async_trait::async_trait;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use url::Url;

use super::{BackendError, ErrorClass};
use crate::api::HostName;
use crate::config::{Secret, redact};
use crate::http::{Client, ClientOptions};

/// Life of a certificate in days, the longest that is offered.
const VALIDITY_DAYS: u32 = 5475;

/// A certificate with its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Signed {
    pub certificate: Secret,
    pub key: Secret,
}

/// Signs certificates for a proxy that stands behind Cloudflare.
#[async_trait]
pub trait OriginCa: Send + Sync + 'static {
    /// A new certificate for one host.
    async fn sign(&self, host: &HostName) -> Result<Signed, BackendError>;
}

/// Cloudflare's API with a token that has Zone, SSL and Certificates, Edit.
pub struct CloudflareOriginCa {
    client: Client,
    token: Secret,
}

impl CloudflareOriginCa {
    /// `api_url` with its `/client/v4`. Errors: an address or a token that cannot be used at all.
    pub fn new(api_url: Url, token: Secret) -> Result<Self, BackendError> {
        let mut options = ClientOptions::new("cloudflare", api_url);
        options.timeout = Duration::from_secs(30);
        options.headers = vec![("authorization", Secret::new(format!("Bearer {}", token.expose())))];
        Ok(Self { client: Client::new(options)?, token })
    }
}

#[async_trait]
impl OriginCa for CloudflareOriginCa {
    async fn sign(&self, host: &HostName) -> Result<Signed, BackendError> {
        let unusable = |error: rcgen::Error| {
            let message = format!("no certificate request can be made for {host}: {error}");
            BackendError::new(ErrorClass::Permanent, "CertificateFailed", message)
        };
        // The key is made here and never leaves but for the proxy that needs it.
        let key = KeyPair::generate().map_err(unusable)?;
        let params = CertificateParams::new(vec![host.to_string()]).map_err(unusable)?;
        let csr = params.serialize_request(&key).and_then(|request| request.pem()).map_err(unusable)?;
        let body = json!({
            "csr": csr, "hostnames": [host], "request_type": "origin-ecc", "requested_validity": VALIDITY_DAYS,
        });
        let response = self.client.post("/certificates").json(&body).send().await.map_err(BackendError::of_write)?;
        let answer = response.json().unwrap_or(Value::Null);
        if let (200..=299, Some(certificate)) = (response.status, answer["result"]["certificate"].as_str()) {
            return Ok(Signed { certificate: Secret::new(certificate), key: Secret::new(key.serialize_pem()) });
        }
        let words: Vec<&str> =
            answer["errors"].as_array().into_iter().flatten().filter_map(|e| e["message"].as_str()).collect();
        let (class, reason, advice) = match response.status {
            429 => (ErrorClass::Throttled, "CertificateRateLimited", ""),
            401 | 403 => (
                ErrorClass::Credential,
                "CertificateTokenRefused",
                "; the Cloudflare token needs Zone, SSL and Certificates, Edit",
            ),
            500.. => (ErrorClass::Unavailable, "CertificateFailed", ""),
            _ => (ErrorClass::Permanent, "CertificateFailed", ""),
        };
        let said = if words.is_empty() { "no words".to_owned() } else { words.join(": ") };
        let message =
            format!("Cloudflare's Origin CA gave no certificate for {host} ({}): {said}{advice}", response.status);
        let mut error = BackendError::new(class, reason, redact(&message, &[&self.token]));
        error.retry_after = response.retry_after();
        Err(error)
    }
}
