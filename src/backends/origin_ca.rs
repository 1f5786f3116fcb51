//! Certificates of Cloudflare's Origin CA, which only Cloudflare's edge trusts.
use async_trait::async_trait;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::cloudflare_api::Api;
use super::{BackendError, ErrorClass};
use crate::api::HostName;
use crate::config::Secret;
use crate::plan::Urgency;

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

/// Permission of the token, as the dashboard names it.
const NEEDS: &str = "Zone · SSL and Certificates · Edit";

/// Cloudflare's API with a token that has Zone, SSL and Certificates, Edit.
pub struct CloudflareOriginCa {
    api: Api,
}

impl CloudflareOriginCa {
    pub fn new(api: &Api) -> Self {
        Self { api: api.needing(NEEDS).at(Urgency::Create) }
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
        let answer = self.api.write(self.api.http().post("/certificates").json(&body)).await;
        let mut error = match answer {
            Ok(envelope) => match envelope["result"]["certificate"].as_str() {
                Some(certificate) => {
                    return Ok(Signed { certificate: Secret::new(certificate), key: Secret::new(key.serialize_pem()) });
                }
                None => BackendError::new(ErrorClass::Unavailable, "OddAnswer", "the answer holds no certificate"),
            },
            Err(error) => error,
        };
        error.reason = match error.class {
            ErrorClass::Throttled => "CertificateRateLimited",
            ErrorClass::Credential => "CertificateTokenRefused",
            _ => "CertificateFailed",
        };
        error.message = format!("Cloudflare's Origin CA gave no certificate for {host}: {}", error.message);
        Err(error)
    }
}
