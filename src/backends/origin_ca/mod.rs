//! Certificates of Cloudflare's Origin CA, which only Cloudflare's edge trusts.
pub mod certified;
pub mod kept;
pub mod supply;

use async_trait::async_trait;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::cloudflare_api::Api;
use super::{BackendError, ErrorClass, Remark};
use crate::api::HostName;
use crate::config::Secret;
use crate::http::path_segment;
use crate::plan::Urgency;

/// Life of a certificate in days, the longest that is offered.
const VALIDITY_DAYS: u32 = 5475;

/// A certificate with its key, both as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub certificate: Secret,
    pub key: Secret,
    /// Under which Cloudflare keeps it.
    pub id: Option<String>,
}

/// Signs certificates for a proxy that stands behind Cloudflare.
#[async_trait]
pub trait OriginCa: Send + Sync + 'static {
    /// A new certificate for one host.
    async fn sign(&self, host: &HostName) -> Result<Signed, BackendError>;
    /// Makes a certificate of this host worthless. One that is not there any more is fine.
    async fn revoke(&self, host: &HostName, which: Which<'_>) -> Result<(), BackendError>;
}

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// Under which Cloudflare keeps it.
    Id(&'a str),
    /// Itself, PEM: then it is looked for among those of its zone.
    Pem(&'a str),
}

/// Revokes what a host has no use for any more. That this fails is told, and no reason to keep anything.
pub async fn revoke(ca: &dyn OriginCa, host: &str, which: Which<'_>) -> Option<Remark> {
    let revoked = match HostName::parse(host) {
        Ok(name) => ca.revoke(&name, which).await,
        Err(error) => Err(BackendError::new(ErrorClass::Permanent, "HostInvalid", error.to_string())),
    };
    let error = revoked.err()?;
    tracing::warn!(host, reason = error.reason, "a certificate of the Origin CA could not be revoked: {error}");
    let message = format!(
        "a certificate of Cloudflare's Origin CA for {host} was removed and could not be revoked, so whoever has its key can \
         use it until it ends; revoke it in the dashboard under SSL/TLS, Origin Server: {error}"
    );
    Some(Remark { reason: "CertificateNotRevoked", message })
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
                    let id = envelope["result"]["id"].as_str().map(str::to_owned);
                    let (certificate, key) = (Secret::new(certificate), Secret::new(key.serialize_pem()));
                    return Ok(Signed { certificate, key, id });
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

    async fn revoke(&self, host: &HostName, which: Which<'_>) -> Result<(), BackendError> {
        let api = self.api.at(Urgency::Edit);
        let id = match which {
            Which::Id(id) => id.to_owned(),
            Which::Pem(pem) => match find(&api, host, pem).await? {
                Some(id) => id,
                None => return Ok(()),
            },
        };
        match api.write(api.http().delete(&format!("/certificates/{}", path_segment(&id)))).await {
            Err(error) if error.reason != "NotFound" => Err(error),
            _ => Ok(()),
        }
    }
}

/// Cloudflare's id of a certificate, by one listing of its zone.
async fn find(api: &Api, host: &HostName, pem: &str) -> Result<Option<String>, BackendError> {
    let plain = |pem: &str| pem.split_whitespace().collect::<String>();
    // Its parents first, as a rule one of them; the host may be a zone itself.
    let parents = host.as_str().match_indices('.').map(|(at, _)| &host.as_str()[at + 1..]);
    for name in parents.chain([host.as_str()]).filter(|name| name.contains('.')) {
        let zones = api.list("/zones", &[("name", name)], 50).await?;
        let Some(zone) = zones.first().and_then(|zone| zone["id"].as_str()) else { continue };
        let all = api.list("/certificates", &[("zone_id", zone)], 50).await?;
        let wanted = plain(pem);
        let found = all.iter().find(|one| one["certificate"].as_str().is_some_and(|text| plain(text) == wanted));
        return Ok(found.and_then(|one| one["id"].as_str()).map(str::to_owned));
    }
    let message = format!("no zone that the token sees holds {host}, so its certificates cannot be listed");
    Err(BackendError::new(ErrorClass::Permanent, "ZoneNotFound", message))
}
