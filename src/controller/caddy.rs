//! From a class to the options of its Caddy.
use std::sync::Arc;

use url::Url;

use super::classes::{ClassSecrets, ResolvedClass, fingerprint};
use crate::api::Origin;
use crate::api::class::PublicScheme;
use crate::api::clock::Clock;
use crate::api::proxy::{CaddySettings, ProxyCertificate};
use crate::backends::caddy::{CaddyOptions, Challenges, DnsChallenge};
use crate::backends::cloudflare_api::Api;
use crate::config::Secret;
use crate::config::environment::named;
use crate::http::{Authorities, ClientTls, Identity, TlsError};

/// What tells this worker from others: settings, scheme and secrets.
pub fn key(class: &ResolvedClass, settings: &CaddySettings) -> String {
    let ClassSecrets {
        caddy_admin_token, caddy_client_certificate, caddy_client_key, caddy_ca, caddy_dns_token, ..
    } = &class.secrets;
    let secrets = [caddy_admin_token, caddy_client_certificate, caddy_client_key, caddy_ca, caddy_dns_token];
    let signer = super::origin::key(class, ProxyCertificate::signs(settings.certificate.as_ref()));
    let settings = serde_json::to_string(settings).unwrap_or_default();
    let mut parts = vec!["caddy", settings.as_str(), class.spec.public_scheme.as_str()];
    parts.push(&signer);
    parts.extend(secrets.map(|secret| secret.as_ref().map_or("", Secret::expose)));
    fingerprint(&parts)
}

/// Tells one Caddy from another: classes of one share what is for all names there.
pub fn place(admin_url: &Url) -> String {
    match admin_url.scheme() {
        "unix" => format!("unix {}", admin_url.path()),
        _ => {
            let (host, port) = (admin_url.host_str(), admin_url.port_or_known_default());
            format!("{host:?} {port:?} {}", admin_url.path().trim_end_matches('/'))
        }
    }
}

/// The DNS challenge that the class wants, where its addresses are https.
pub fn challenge(class: &ResolvedClass, settings: &CaddySettings) -> Option<DnsChallenge> {
    let (challenge, token) = settings.dns_challenge.as_ref().zip(class.secrets.caddy_dns_token.clone())?;
    let https = class.spec.public_scheme == PublicScheme::Https;
    https.then_some(DnsChallenge { token, required: challenge.required })
}

/// The options, each checked; `cloudflare` is the class's account, if it has one. The error says which setting cannot
/// work.
pub fn options(
    class: &ResolvedClass,
    settings: &CaddySettings,
    admin_url: Url,
    challenges: Challenges,
    cloudflare: Option<&Api>,
    clock: &Arc<dyn Clock>,
) -> Result<CaddyOptions, String> {
    let signs = ProxyCertificate::signs(settings.certificate.as_ref());
    let wanted = signs.then_some("proxy.caddy.certificate.originCa");
    let origin_ca = super::origin::certificates(wanted, cloudflare, clock)?;
    let origin =
        Origin::parse(&settings.origin).map_err(|error| format!("{}: {error}", named("proxy.caddy.origin")))?;
    let https = class.spec.public_scheme == PublicScheme::Https;
    Ok(CaddyOptions {
        verify_tls: settings.verify_tls,
        tls: tls(&class.secrets).map_err(|error| told(&error))?,
        dns_challenge: challenge(class, settings),
        challenges,
        origin_ca: origin_ca.filter(|_| https),
        admin_url,
        origin: origin.to_string(),
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
        TlsError::Certificate(_) => "proxy.caddy.clientCertificateSecretRef",
        TlsError::Key(_) | TlsError::OtherKey => "proxy.caddy.clientKeySecretRef",
        TlsError::Authority(_) => "proxy.caddy.caSecretRef",
    };
    format!("what {} names cannot be used: {error}", named(field))
}
