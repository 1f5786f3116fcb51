//! Which class a portal uses, and where the class's secrets come from. Pure: the objects are handed in.
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::api::class::SecretKeyRef;
use crate::api::condition::{ACCEPTED, Finding, Truth};
use crate::api::{ENVIRONMENT_CLASS, PortalClass, PortalClassSpec};
use crate::config::Secret;
use crate::config::secret::{NO_PASSWORD, NO_TOKEN};

/// Reason of several default classes.
pub const AMBIGUOUS_DEFAULT: &str = "AmbiguousDefaultClass";

/// The class that is made from the process environment where no class object exists.
#[derive(Debug, Clone)]
pub struct EnvironmentClass {
    pub spec: PortalClassSpec,
    pub secrets: ClassSecrets,
}

/// The secrets a class needs, each present where its setting asks for it.
#[derive(Debug, Clone, Default)]
pub struct ClassSecrets {
    pub cf_api_token: Option<Secret>,
    pub caddy_admin_token: Option<Secret>,
    /// What this program shows to Caddy's admin endpoint, and whom it trusts there; all PEM.
    pub caddy_client_certificate: Option<Secret>,
    pub caddy_client_key: Option<Secret>,
    pub caddy_ca: Option<Secret>,
    /// Cloudflare token or placeholder that Caddy gets for its certificates.
    pub caddy_dns_token: Option<Secret>,
    pub npm_identity: Option<Secret>,
    pub npm_password: Option<Secret>,
    /// Cloudflare token that NPM gets for its certificate orders.
    pub npm_dns_token: Option<Secret>,
    pub smtp_password: Option<Secret>,
    pub mx_api_key: Option<Secret>,
}

/// Secrets of the class `environment`; they never become objects.
pub type EnvironmentSecrets = ClassSecrets;

/// A class with its secrets at hand.
#[derive(Debug, Clone)]
pub struct ResolvedClass {
    pub name: String,
    pub spec: PortalClassSpec,
    pub secrets: ClassSecrets,
    /// Digest of settings and secrets: a changed token makes another one.
    pub fingerprint: String,
    /// The held plan that the class's annotation approves.
    pub approved: Option<String>,
}

fn rejected(reason: &'static str, message: String) -> Finding {
    Finding::new(ACCEPTED, Truth::False, reason, message)
}

/// The class that a portal names, or the one marked default, or `environment`.
pub fn choose<'a, C>(wanted: Option<&str>, classes: &'a [C]) -> Result<&'a C, Finding>
where
    C: AsRef<PortalClass>,
{
    let named = |name: &str| classes.iter().find(|c| c.as_ref().name_any() == name);
    if let Some(name) = wanted {
        return named(name).ok_or_else(|| rejected("ClassNotFound", format!("PortalClass {name:?} does not exist")));
    }
    let mut defaults: Vec<_> = classes.iter().filter(|c| c.as_ref().spec.default).collect();
    defaults.sort_by_key(|c| c.as_ref().name_any());
    match defaults.as_slice() {
        [only] => Ok(only),
        [] => named(ENVIRONMENT_CLASS).ok_or_else(|| {
            let message = "no PortalClass is marked default; name one in spec.className";
            rejected("ClassNotFound", message.to_owned())
        }),
        several => {
            let names: Vec<_> = several.iter().map(|c| c.as_ref().name_any()).collect();
            let message = format!(
                "more than one PortalClass is marked default ({}); name one in spec.className",
                names.join(", ")
            );
            Err(rejected(AMBIGUOUS_DEFAULT, message))
        }
    }
}

/// Finds the class's secrets in the controller's namespace, or in the environment for the class of that name.
/// Surrounding line ends of a value are dropped, as files bring them along.
pub fn resolve(
    class: &PortalClass,
    namespace: &str,
    environment: Option<&EnvironmentClass>,
    lookup: &dyn Fn(&str) -> Option<SecretObject>,
) -> Result<ResolvedClass, Finding> {
    let name = class.name_any();
    let spec = class.spec.clone();
    let environment = environment.filter(|_| name == ENVIRONMENT_CLASS).map(|e| &e.secrets);
    let find = |reference: Option<&SecretKeyRef>, given: Option<&Option<Secret>>| match reference {
        Some(reference) => read_secret(reference, namespace, lookup).map(Some),
        None => Ok(given.cloned().flatten()),
    };
    // What is sent in a header; those of the environment were checked at the start.
    let find_token = |reference: Option<&SecretKeyRef>, given: Option<&Option<Secret>>| {
        find(reference, given).and_then(|found| checked(found, Secret::is_token, NO_TOKEN, reference, namespace))
    };
    let needed = |secret: Option<Secret>, field: &str, variable: &str| {
        secret.ok_or_else(|| {
            let message = if name == ENVIRONMENT_CLASS {
                format!("PortalClass {name:?} needs {variable} in the environment")
            } else {
                format!("PortalClass {name:?} needs {field}")
            };
            rejected("SecretNotFound", message)
        })
    };
    let mut secrets = ClassSecrets::default();
    if let Some(cloudflare) = &spec.cloudflare {
        let token = find_token(cloudflare.api_token_secret_ref.as_ref(), environment.map(|e| &e.cf_api_token))?;
        secrets.cf_api_token = Some(needed(token, "cloudflare.apiTokenSecretRef", "CF_API_TOKEN")?);
    }
    if let Some(caddy) = &spec.proxy.caddy {
        secrets.caddy_admin_token =
            find_token(caddy.admin_token_secret_ref.as_ref(), environment.map(|e| &e.caddy_admin_token))?;
        secrets.caddy_client_certificate =
            find(caddy.client_certificate_secret_ref.as_ref(), environment.map(|e| &e.caddy_client_certificate))?;
        secrets.caddy_client_key =
            find(caddy.client_key_secret_ref.as_ref(), environment.map(|e| &e.caddy_client_key))?;
        secrets.caddy_ca = find(caddy.ca_secret_ref.as_ref(), environment.map(|e| &e.caddy_ca))?;
        if let Some(challenge) = &caddy.dns_challenge {
            let placeholder = challenge.placeholder.as_ref().map(Secret::new);
            let token = find_token(challenge.token_secret_ref.as_ref(), None)?;
            let token = placeholder.or(token).or_else(|| secrets.cf_api_token.clone());
            let field = "proxy.caddy.dnsChallenge.tokenSecretRef, or a Cloudflare account";
            secrets.caddy_dns_token = Some(needed(token, field, "CF_API_TOKEN")?);
        }
    }
    if let Some(npm) = &spec.proxy.npm {
        let identity = find(npm.identity_secret_ref.as_ref(), environment.map(|e| &e.npm_identity))?;
        secrets.npm_identity = Some(needed(identity, "proxy.npm.identitySecretRef", "NPM_IDENTITY")?);
        let reference = npm.password_secret_ref.as_ref();
        let password = find(reference, environment.map(|e| &e.npm_password))?;
        let password = checked(password, |secret| !secret.has_control(), NO_PASSWORD, reference, namespace)?;
        secrets.npm_password = Some(needed(password, "proxy.npm.passwordSecretRef", "NPM_SECRET")?);
        if npm.certificate.orders() {
            let reference = npm.certificate.lets_encrypt.as_ref().and_then(|l| l.dns_token_secret_ref.as_ref());
            let token = find_token(reference, None)?.or_else(|| secrets.cf_api_token.clone());
            let field = "proxy.npm.certificate.letsEncrypt.dnsTokenSecretRef, or a Cloudflare account";
            secrets.npm_dns_token = Some(needed(token, field, "CF_API_TOKEN")?);
        }
    }
    if let Some(mxroute) = spec.mailbox.as_ref().and_then(|m| m.mxroute.as_ref()) {
        let key = find_token(mxroute.api_key_secret_ref.as_ref(), environment.map(|e| &e.mx_api_key))?;
        secrets.mx_api_key = Some(needed(key, "mailbox.mxroute.apiKeySecretRef", "MX_API_KEY")?);
    }
    if let Some(smtp) = &spec.smtp {
        let password = find(smtp.password_secret_ref.as_ref(), environment.map(|e| &e.smtp_password))?;
        secrets.smtp_password = match &smtp.username {
            Some(_) => Some(needed(password, "smtp.passwordSecretRef", "RESET_SMTP_PASSWORD")?),
            None => password,
        };
    }
    let fingerprint = fingerprint(&[
        &name,
        &serde_json::to_string(&spec).unwrap_or_default(),
        secrets.cf_api_token.as_ref().map_or("", Secret::expose),
        secrets.caddy_admin_token.as_ref().map_or("", Secret::expose),
        secrets.caddy_client_certificate.as_ref().map_or("", Secret::expose),
        secrets.caddy_client_key.as_ref().map_or("", Secret::expose),
        secrets.caddy_ca.as_ref().map_or("", Secret::expose),
        secrets.caddy_dns_token.as_ref().map_or("", Secret::expose),
        secrets.npm_identity.as_ref().map_or("", Secret::expose),
        secrets.npm_password.as_ref().map_or("", Secret::expose),
        secrets.npm_dns_token.as_ref().map_or("", Secret::expose),
        secrets.smtp_password.as_ref().map_or("", Secret::expose),
        secrets.mx_api_key.as_ref().map_or("", Secret::expose),
    ]);
    Ok(ResolvedClass { name, spec, secrets, fingerprint, approved: super::fuse::approval(class) })
}

/// Names of the Secrets that a class refers to.
pub fn secret_names(spec: &PortalClassSpec) -> Vec<String> {
    let npm = spec.proxy.npm.as_ref();
    let orders = npm.and_then(|n| n.certificate.lets_encrypt.as_ref());
    let caddy = spec.proxy.caddy.as_ref();
    let references = [
        npm.and_then(|n| n.identity_secret_ref.as_ref()),
        npm.and_then(|n| n.password_secret_ref.as_ref()),
        orders.and_then(|o| o.dns_token_secret_ref.as_ref()),
        spec.cloudflare.as_ref().and_then(|c| c.api_token_secret_ref.as_ref()),
        caddy.and_then(|c| c.admin_token_secret_ref.as_ref()),
        caddy.and_then(|c| c.client_certificate_secret_ref.as_ref()),
        caddy.and_then(|c| c.client_key_secret_ref.as_ref()),
        caddy.and_then(|c| c.ca_secret_ref.as_ref()),
        caddy.and_then(|c| c.dns_challenge.as_ref()).and_then(|d| d.token_secret_ref.as_ref()),
        spec.mailbox.as_ref().and_then(|m| m.mxroute.as_ref()).and_then(|m| m.api_key_secret_ref.as_ref()),
        spec.smtp.as_ref().and_then(|s| s.password_secret_ref.as_ref()),
    ];
    references.into_iter().flatten().map(|reference| reference.name.clone()).collect()
}

fn read_secret(
    reference: &SecretKeyRef,
    namespace: &str,
    lookup: &dyn Fn(&str) -> Option<SecretObject>,
) -> Result<Secret, Finding> {
    let SecretKeyRef { name, key } = reference;
    let object = lookup(name).ok_or_else(|| {
        rejected("SecretNotFound", format!("Secret {name:?} of namespace {namespace:?} does not exist"))
    })?;
    let bytes = object.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| {
        rejected("SecretNotFound", format!("Secret {name:?} of namespace {namespace:?} has no key {key:?}"))
    })?;
    let text = std::str::from_utf8(&bytes.0).map(|text| text.trim_matches(['\r', '\n'])).unwrap_or_default();
    if text.is_empty() {
        let message = format!("Secret {name:?} of namespace {namespace:?} has an empty or unreadable key {key:?}");
        return Err(rejected("SecretInvalid", message));
    }
    Ok(Secret::new(text))
}

/// The secret again, or where the one is that does not fit; `words` say why, without showing it.
fn checked(
    secret: Option<Secret>,
    fits: impl Fn(&Secret) -> bool,
    words: &str,
    reference: Option<&SecretKeyRef>,
    namespace: &str,
) -> Result<Option<Secret>, Finding> {
    match (&secret, reference) {
        (Some(found), Some(SecretKeyRef { name, key })) if !fits(found) => {
            let place = format!("key {key:?} of Secret {name:?} in namespace {namespace:?}");
            Err(rejected("SecretInvalid", format!("{place} cannot be used: {words}")))
        }
        _ => Ok(secret),
    }
}

/// First 32 hex digits of SHA-256 over the parts, each with its length, so that no two lists meet.
pub fn fingerprint(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    pub(in crate::controller) fn class(name: &str, spec: serde_json::Value) -> Arc<PortalClass> {
        Arc::new(PortalClass::new(name, serde_json::from_value(spec).unwrap()))
    }

    pub(in crate::controller) fn with_cloudflare() -> serde_json::Value {
        json!({
            "cloudflare": {"apiTokenSecretRef": {"name": "cloudflare", "key": "token"}},
            "cnameTarget": "proxy.acme.example",
            "proxy": {"caddy": {"adminUrl": "http://127.0.0.1:2019", "origin": "127.0.0.1:5000"}}
        })
    }

    fn secret(key: &str, value: &str) -> SecretObject {
        let data = [(key.to_owned(), ByteString(value.as_bytes().to_vec()))].into();
        SecretObject { data: Some(data), ..Default::default() }
    }

    #[test]
    fn a_portal_gets_the_class_it_names_or_the_default_or_environment() {
        let manual = json!({"proxy": {"manual": {}}});
        let marked = json!({"default": true, "proxy": {"manual": {}}});
        let pick = |wanted: Option<&str>, classes: &[Arc<PortalClass>]| {
            choose(wanted, classes).map(|c| c.name_any()).map_err(|f| f.message)
        };
        let two = [class("environment", manual.clone()), class("b", marked.clone())];
        assert_eq!(pick(None, &two).unwrap(), "b");
        assert_eq!(pick(Some("environment"), &two).unwrap(), "environment");
        assert_eq!(pick(Some("c"), &two).unwrap_err(), "PortalClass \"c\" does not exist");
        assert_eq!(pick(None, &two[..1]).unwrap(), "environment");
        let ambiguous = [class("b", marked.clone()), class("a", marked)];
        assert_eq!(
            pick(None, &ambiguous).unwrap_err(),
            "more than one PortalClass is marked default (a, b); name one in spec.className"
        );
        assert_eq!(pick(None, &[]).unwrap_err(), "no PortalClass is marked default; name one in spec.className");
    }

    #[test]
    fn a_missing_secret_is_named_exactly() {
        let class = class("prod", with_cloudflare());
        let message = |found: Option<SecretObject>| {
            let finding = resolve(&class, "portalkeeper", None, &|_| found.clone()).unwrap_err();
            assert_eq!(finding.type_, ACCEPTED);
            (finding.reason, finding.message)
        };
        assert_eq!(message(None).1, "Secret \"cloudflare\" of namespace \"portalkeeper\" does not exist");
        let (reason, text) = message(Some(secret("other", "x")));
        assert_eq!(reason, "SecretNotFound");
        assert_eq!(text, "Secret \"cloudflare\" of namespace \"portalkeeper\" has no key \"token\"");
        assert_eq!(message(Some(secret("token", "\n"))).0, "SecretInvalid");
    }

    #[test]
    fn a_token_with_a_line_end_or_a_blank_in_it_is_told_by_its_secret_and_not_shown() {
        let class = class("prod", with_cloudflare());
        for value in ["hunter\n2", "hunter 2", " hunter2", "hunter\t2", "hünter2"] {
            let finding = resolve(&class, "ns", None, &|_| Some(secret("token", value))).unwrap_err();
            assert_eq!(
                (finding.reason.as_str(), finding.message.as_str()),
                (
                    "SecretInvalid",
                    "key \"token\" of Secret \"cloudflare\" in namespace \"ns\" cannot be used: it holds a blank, a line \
                     end or another character that no token has"
                )
            );
        }
    }

    #[test]
    fn a_changed_token_changes_the_fingerprint_and_line_ends_do_not() {
        let class = class("prod", with_cloudflare());
        let print = |value: &str| resolve(&class, "ns", None, &|_| Some(secret("token", value))).unwrap().fingerprint;
        assert_eq!(print("one"), print("one\n"));
        assert_ne!(print("one"), print("two"));
        assert!(!print("one").contains("one"));
    }

    #[test]
    fn the_environment_class_takes_its_secrets_from_the_environment_only_under_that_name() {
        let mut spec = with_cloudflare();
        spec["cloudflare"] = json!({});
        let environment = EnvironmentClass {
            spec: serde_json::from_value(spec.clone()).unwrap(),
            secrets: ClassSecrets { cf_api_token: Some(Secret::new("tok-env")), ..Default::default() },
        };
        let found = resolve(&class("environment", spec.clone()), "ns", Some(&environment), &|_| None).unwrap();
        assert_eq!(found.secrets.cf_api_token.unwrap().expose(), "tok-env");
        let other = resolve(&class("other", spec.clone()), "ns", Some(&environment), &|_| None).unwrap_err();
        assert_eq!(other.message, "PortalClass \"other\" needs cloudflare.apiTokenSecretRef");
        let unset = resolve(&class("environment", spec), "ns", None, &|_| None).unwrap_err();
        assert_eq!(unset.message, "PortalClass \"environment\" needs CF_API_TOKEN in the environment");
    }
}
