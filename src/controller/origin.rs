//! From a class to whoever signs its certificates of Cloudflare's Origin CA.
use std::sync::Arc;

use super::classes::{ResolvedClass, fingerprint};
use crate::api::clock::Clock;
use crate::backends::cloudflare_api::Api;
use crate::backends::origin_ca::CloudflareOriginCa;
use crate::backends::origin_ca::supply::OriginCertificates;
use crate::config::Secret;
use crate::config::environment::named;

/// What tells workers with another signer apart; empty where nothing is signed.
pub fn key(class: &ResolvedClass, signs: bool) -> String {
    if !signs {
        return String::new();
    }
    let account = serde_json::to_string(&class.spec.cloudflare).unwrap_or_default();
    fingerprint(&[&account, class.secrets.cf_api_token.as_ref().map_or("", Secret::expose)])
}

/// The signer where a setting of this name wants one; `cloudflare` is the class's account, if it has one. The error says
/// what is missing.
pub fn certificates(
    setting: Option<&str>,
    cloudflare: Option<&Api>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<OriginCertificates>, String> {
    match (setting, cloudflare) {
        (None, _) => Ok(None),
        (Some(setting), None) => {
            let (setting, token) = (named(setting), named("cloudflare.apiTokenSecretRef"));
            Err(format!("{setting} needs cloudflare with {token}, which makes the certificates"))
        }
        (Some(_), Some(api)) => {
            Ok(Some(OriginCertificates { ca: Arc::new(CloudflareOriginCa::new(api)), clock: Arc::clone(clock) }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::clock::SystemClock;

    #[test]
    fn who_wants_certificates_signed_needs_an_account() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        assert!(certificates(None, None, &clock).unwrap().is_none());
        let error = certificates(Some("proxy.traefik.certificate.originCa"), None, &clock).unwrap_err();
        assert_eq!(
            error,
            "proxy.traefik.certificate.originCa (TRAEFIK_CERTIFICATE) needs cloudflare with cloudflare.apiTokenSecretRef (CF_API_TOKEN), which makes the certificates"
        );
    }
}
