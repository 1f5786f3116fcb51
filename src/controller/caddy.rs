//! From a class to the options of its Caddy.
use std::sync::Arc;

use url::Url;

use super::classes::{ClassSecrets, ResolvedClass, fingerprint};
use crate::api::class::PublicScheme;
use crate::api::clock::Clock;
use crate::api::proxy::CaddySettings;
use crate::backends::caddy::{CaddyOptions, DnsChallenge, OriginCertificates};
use crate::backends::cloudflare_api::Api;
use crate::backends::origin_ca::CloudflareOriginCa;
use crate::config::Secret;
use crate::http::{Authorities, ClientTls, Identity, TlsError};

/// What tells this worker from others: settings, scheme and secrets.
pub fn key(class: &ResolvedClass, settings: &CaddySettings) -> String {
    let ClassSecrets {
        caddy_admin_token, caddy_client_certificate, caddy_client_key, caddy_ca, caddy_dns_token, ..
    } = &class.secrets;
    let secrets = [caddy_admin_token, caddy_client_certificate, caddy_client_key, caddy_ca, caddy_dns_token];
    let signing = signs(settings).then_some((class.spec.cloudflare.as_ref(), class.secrets.cf_api_token.as_ref()));
    let account = signing.map(|(account, _)| serde_json::to_string(&account).unwrap_or_default()).unwrap_or_default();
    let settings = serde_json::to_string(settings).unwrap_or_default();
    let mut parts = vec!["caddy", settings.as_str(), class.spec.public_scheme.as_str()];
    parts.extend([account.as_str(), signing.and_then(|(_, token)| token).map_or("", Secret::expose)]);
    parts.extend(secrets.map(|secret| secret.as_ref().map_or("", Secret::expose)));
    fingerprint(&parts)
}

/// Whether Cloudflare's Origin CA signs the hosts' certificates.
fn signs(settings: &CaddySettings) -> bool {
    settings.certificate.as_ref().is_some_and(|certificate| certificate.origin_ca.is_some())
}

/// The options, each checked; `cloudflare` is the class's account, if it has one. The error says which setting cannot
/// work.
pub fn options(
    class: &ResolvedClass,
    settings: &CaddySettings,
    admin_url: Url,
    cloudflare: Option<&Api>,
    clock: &Arc<dyn Clock>,
) -> Result<CaddyOptions, String> {
    let missing = "proxy.caddy.certificate.originCa needs cloudflare, whose token makes the certificates";
    let origin_ca = match (signs(settings), cloudflare) {
        (false, _) => None,
        (true, None) => return Err(missing.to_owned()),
        (true, Some(api)) => {
            Some(OriginCertificates { ca: Arc::new(CloudflareOriginCa::new(api)), clock: Arc::clone(clock) })
        }
    };
    let https = class.spec.public_scheme == PublicScheme::Https;
    let challenge = settings.dns_challenge.as_ref().zip(class.secrets.caddy_dns_token.clone());
    Ok(CaddyOptions {
        verify_tls: settings.verify_tls,
        tls: tls(&class.secrets).map_err(|error| format!("proxy.caddy: {}", told(&error)))?,
        dns_challenge: challenge
            .map(|(challenge, token)| DnsChallenge { token, required: challenge.required })
            .filter(|_| https),
        origin_ca: origin_ca.filter(|_| https),
        admin_url,
        origin: settings.origin.clone(),
        admin_token: class.secrets.caddy_admin_token.clone(),
        listen: settings.listen.clone(),
        https,
    })
}

/// What the admin endpoint is shown, and who is trusted there.
pub fn tls(secrets: &ClassSecrets) -> Result<ClientTls, TlsError> {
    let pair = secrets.caddy_client_certificate.as_ref().zip(secrets.caddy_client_key.as_ref());
    let authorities = secrets.caddy_ca.as_ref().map(|text| Authorities::parse(text.expose()));
    Ok(ClientTls {
        identity: pair.map(|(certificate, key)| Identity::parse(certificate, key)).transpose()?,
        authorities: authorities.transpose()?,
    })
}

fn told(error: &TlsError) -> String {
    let field = match error {
        TlsError::Certificate(_) => "clientCertificateSecretRef",
        TlsError::Key(_) | TlsError::OtherKey => "clientKeySecretRef",
        TlsError::Authority(_) => "caSecretRef",
    };
    format!("what {field} names cannot be used: {error}")
}
