//! A portal and its class, checked into one value; after that, nothing can be wrong with the spec. Pure.
use kube::ResourceExt;

use super::classes::ResolvedClass;
use super::recorded::Recorded;
use crate::api::class::{Grant, PublicScheme};
use crate::api::condition::{ACCEPTED, Finding, Truth};
use crate::api::portal::{Branding, DeletionPolicy, ManagementPolicy};
use crate::api::proxy::CloudflareTunnelSettings;
use crate::api::{
    ANNOTATION_ADOPT, ANNOTATION_PAUSED, HostName, MailAddress, MailDomain, PortalKey, ResetPortal, TunnelId,
};
use crate::config::environment::named;
use crate::plan::{CertificateMode, InstallationId, Intent, Mark};

/// What holds for every portal of this controller.
#[derive(Debug, Clone)]
pub struct Policy {
    pub controller_namespace: String,
    /// A class without grants serves every namespace.
    pub open_grants: bool,
    /// The host of the admin pages, which no portal may have.
    pub admin_host: Option<HostName>,
}

/// Whether the controller may write outside for a portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Full,
    /// Stopped by annotation; serving goes on.
    Paused,
    /// By `managementPolicy`.
    ObserveOnly,
}

impl Mode {
    pub fn of(portal: &ResetPortal) -> Self {
        match portal.spec.management_policy {
            ManagementPolicy::ObserveOnly => Self::ObserveOnly,
            ManagementPolicy::Full if portal.annotated(ANNOTATION_PAUSED) => Self::Paused,
            ManagementPolicy::Full => Self::Full,
        }
    }
}

/// A portal whose names, class and permissions are in order.
#[derive(Debug, Clone)]
pub struct ValidPortal {
    pub key: PortalKey,
    pub uid: String,
    pub generation: i64,
    pub host: HostName,
    pub domain: MailDomain,
    /// Public address, `https://host[:port]`.
    pub url: String,
    pub mode: Mode,
    pub enabled: bool,
    pub adopt: bool,
    pub branding: Branding,
    /// Sender of reset mails.
    pub from: MailAddress,
    pub reply_to: Option<MailAddress>,
    pub(super) cname_target: Option<HostName>,
    pub(super) proxied: bool,
    pub(super) ttl: u32,
    pub(super) certificate: CertificateMode,
    pub(super) recorded: Recorded,
}

impl ValidPortal {
    /// What the portal wants of its backends.
    pub fn intent(&self, installation: &InstallationId) -> Intent {
        Intent {
            portal: self.key.clone(),
            mark: Mark::new(installation, &self.key),
            host: self.host.clone(),
            cname_target: self.cname_target.clone(),
            proxied: self.proxied,
            ttl: self.ttl,
            certificate: self.certificate,
            adopt: self.adopt,
            keep: Vec::new(),
        }
    }
}

/// Whether record and route stay when the portal goes.
pub fn retains(portal: &ResetPortal) -> bool {
    portal.spec.deletion_policy == DeletionPolicy::Retain
}

fn rejected(reason: &'static str, message: impl Into<String>) -> Finding {
    Finding::new(ACCEPTED, Truth::False, reason, message)
}

/// The checks, in the order in which a person would want to hear of them.
pub fn validate(portal: &ResetPortal, class: &ResolvedClass, policy: &Policy) -> Result<ValidPortal, Finding> {
    let key = portal.key();
    let spec = &portal.spec;
    let domain = spec.mail_domain().map_err(|error| rejected("InvalidDomain", format!("spec.domain: {error}")))?;
    let host_field = if spec.host.is_some() { "spec.host" } else { "spec.subdomain" };
    let host = spec.public_host().map_err(|error| rejected("InvalidHost", format!("{host_field}: {error}")))?;
    if policy.admin_host.as_ref() == Some(&host) {
        return Err(rejected("HostReserved", format!("{host} is the address of the admin pages; choose another host")));
    }
    permitted(&key, &domain, &host, class, policy)?;
    let cname_target = match &class.spec.proxy.cloudflare_tunnel {
        Some(settings) => Some(tunnel_target(settings, spec.dns.proxied, &class.name)?),
        None => cname_target(&host, class)?,
    };
    let from = match class.spec.smtp.as_ref().and_then(|smtp| smtp.from.as_deref()) {
        Some(text) => MailAddress::parse(text).map_err(|error| {
            rejected("InvalidSender", format!("smtp.from (RESET_SMTP_FROM) of PortalClass {:?}: {error}", class.name))
        })?,
        None => MailAddress::parse(&format!("reset@{domain}"))
            .map_err(|error| rejected("InvalidSender", error.to_string()))?,
    };
    let reply_to = spec
        .sender
        .as_ref()
        .map(|sender| MailAddress::parse(&sender.contact))
        .transpose()
        .map_err(|error| rejected("InvalidContact", format!("spec.sender.contact: {error}")))?;
    Ok(ValidPortal {
        uid: portal.uid().unwrap_or_default(),
        generation: portal.metadata.generation.unwrap_or_default(),
        url: class.spec.public_url(&host),
        mode: Mode::of(portal),
        enabled: spec.enabled,
        adopt: portal.annotated(ANNOTATION_ADOPT),
        recorded: Recorded::of(portal),
        branding: spec.branding.clone(),
        proxied: spec.dns.proxied,
        ttl: if spec.dns.proxied { 1 } else { spec.dns.ttl },
        certificate: match class.spec.public_scheme {
            PublicScheme::Https => CertificateMode::Proxy,
            PublicScheme::Http => CertificateMode::None,
        },
        key,
        host,
        domain,
        from,
        reply_to,
        cname_target,
    })
}

/// The same for another host than the one that the portal asks for: one that it still holds.
pub fn validate_at(
    portal: &ResetPortal,
    host: &HostName,
    class: &ResolvedClass,
    policy: &Policy,
) -> Result<ValidPortal, Finding> {
    let mut held = portal.clone();
    (held.spec.host, held.spec.subdomain) = (Some(host.to_string()), None);
    validate(&held, class, policy)
}

fn cname_target(host: &HostName, class: &ResolvedClass) -> Result<Option<HostName>, Finding> {
    if class.spec.cloudflare.is_none() {
        return Ok(None);
    }
    let (name, field) = (&class.name, named("cnameTarget"));
    let text = class.spec.cname_target.as_deref().ok_or_else(|| {
        rejected("CnameTargetMissing", format!("PortalClass {name:?} has a Cloudflare account and no {field}"))
    })?;
    let target = HostName::parse(text)
        .map_err(|error| rejected("InvalidCnameTarget", format!("{field} of PortalClass {name:?}: {error}")))?;
    if target == *host {
        return Err(rejected("HostIsTarget", format!("{host} is the {field} of PortalClass {name:?} itself")));
    }
    Ok(Some(target))
}

/// A tunnel is reached by its own name, and only through Cloudflare's edge.
fn tunnel_target(settings: &CloudflareTunnelSettings, proxied: bool, class: &str) -> Result<HostName, Finding> {
    if !proxied {
        let message = format!(
            "spec.dns.proxied is false, but PortalClass {class:?} serves through a Cloudflare Tunnel, which only a proxied record reaches; leave it out or set it to true"
        );
        return Err(rejected("ProxyingNeeded", message));
    }
    let id = TunnelId::parse(&settings.tunnel_id);
    let target = id.as_ref().ok().and_then(TunnelId::cname_target);
    target.ok_or_else(|| {
        let words = id.map_or_else(|error| error.to_string(), |id| format!("`{id}` makes no host name"));
        let field = named("proxy.cloudflareTunnel.tunnelId");
        rejected("ClassUnusable", format!("{field} of PortalClass {class:?}: {words}"))
    })
}

/// Whether the class lets this namespace use the names.
fn permitted(
    key: &PortalKey,
    domain: &MailDomain,
    host: &HostName,
    class: &ResolvedClass,
    policy: &Policy,
) -> Result<(), Finding> {
    let (name, namespace) = (&class.name, &key.namespace);
    if class.spec.grants.is_empty() {
        if policy.open_grants || *namespace == policy.controller_namespace {
            return Ok(());
        }
        let message = format!("PortalClass {name:?} has no grants; add one for namespace {namespace:?}");
        return Err(rejected("NotGranted", message));
    }
    let under_domain = host.as_str().strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'));
    let grants: Vec<&Grant> = class
        .spec
        .grants
        .iter()
        .filter(|g| g.namespaces.iter().any(|n| n == "*" || n == namespace))
        .filter(|g| g.mail_domains.iter().any(|pattern| matches(pattern, domain.as_str())))
        .collect();
    if grants.is_empty() {
        let message = format!("PortalClass {name:?} does not grant mail domain {domain} to namespace {namespace:?}");
        return Err(rejected("NotGranted", message));
    }
    if under_domain || grants.iter().any(|g| g.hosts.iter().any(|pattern| matches(pattern, host.as_str()))) {
        return Ok(());
    }
    Err(rejected("NotGranted", format!("PortalClass {name:?} does not grant host {host} to namespace {namespace:?}")))
}

/// `*`, an exact name, or `*.suffix` for every name below the suffix.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => name.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == "*" || pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::classes::{ClassSecrets, tests};
    use super::*;

    fn resolved(extra: Value) -> ResolvedClass {
        let mut spec = tests::with_cloudflare();
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let class = tests::class("prod", spec);
        ResolvedClass {
            name: "prod".into(),
            spec: class.spec.clone(),
            secrets: ClassSecrets::default(),
            approved: None,
            fingerprint: String::new(),
        }
    }

    fn policy() -> Policy {
        Policy {
            controller_namespace: "portalkeeper".into(),
            open_grants: false,
            admin_host: Some(HostName::parse("admin.acme.example").unwrap()),
        }
    }

    fn check(namespace: &str, spec: Value, class: Value) -> Result<ValidPortal, (String, String)> {
        let portal: ResetPortal = serde_json::from_value(json!({
            "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal",
            "metadata": {"namespace": namespace, "name": "acme", "uid": "u1", "generation": 3}, "spec": spec
        }))
        .unwrap();
        validate(&portal, &resolved(class), &policy()).map_err(|f| (f.reason, f.message))
    }

    #[test]
    fn a_plain_portal_is_valid_and_its_intent_is_complete() {
        let valid = check("portalkeeper", json!({"domain": "acme.example"}), json!({"publicPort": 8443})).unwrap();
        assert_eq!(valid.url, "https://reset.acme.example:8443");
        assert_eq!(valid.from.to_string(), "reset@acme.example");
        assert_eq!(valid.generation, 3);
        let intent = valid.intent(&InstallationId::parse("0123456789abcdef").unwrap());
        assert_eq!(intent.host.as_str(), "reset.acme.example");
        assert_eq!(intent.cname_target.unwrap().as_str(), "proxy.acme.example");
        assert!(intent.proxied && intent.ttl == 1 && intent.certificate == CertificateMode::Proxy);
    }

    #[test]
    fn each_wrong_thing_has_its_own_words() {
        let domain = |more: Value| {
            let mut spec = json!({"domain": "acme.example"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let cases = [
            (json!({"domain": "acme"}), json!({}), "InvalidDomain", "spec.domain: `acme` needs at least two labels"),
            (domain(json!({"host": "1.2.3.4"})), json!({}), "InvalidHost", "spec.host: `1.2.3.4` is an IP address"),
            (
                domain(json!({"subdomain": "a_b"})),
                json!({}),
                "InvalidHost",
                "spec.subdomain: `a_b.acme.example` is not",
            ),
            (domain(json!({"subdomain": "admin"})), json!({}), "HostReserved", "admin.acme.example is the address of"),
            (domain(json!({"subdomain": "proxy"})), json!({}), "HostIsTarget", "proxy.acme.example is the cnameTarget"),
            (domain(json!({"sender": {"contact": "nobody"}})), json!({}), "InvalidContact", "spec.sender.contact: "),
            (domain(json!({})), json!({"cnameTarget": null}), "CnameTargetMissing", "PortalClass \"prod\" has a"),
            (
                domain(json!({})),
                json!({"smtp": {"host": "h", "from": "x"}}),
                "InvalidSender",
                "smtp.from (RESET_SMTP_FROM) of PortalClass",
            ),
        ];
        for (spec, class, reason, start) in cases {
            let (got, message) = check("portalkeeper", spec, class).unwrap_err();
            assert_eq!(got, reason, "{message}");
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn a_tunnels_portals_point_to_the_tunnel_and_must_be_proxied() {
        let id = "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d";
        let tunnel = |id: &str| {
            let settings = json!({"tunnelId": id, "accountId": "a", "origin": "http://127.0.0.1:5000"});
            json!({"cnameTarget": null, "proxy": {"cloudflareTunnel": settings}})
        };
        let valid = check("portalkeeper", json!({"domain": "acme.example"}), tunnel(id)).unwrap();
        assert_eq!(valid.cname_target.unwrap().to_string(), format!("{id}.cfargotunnel.com"));
        let bare = json!({"domain": "acme.example", "dns": {"proxied": false}});
        let (reason, message) = check("portalkeeper", bare, tunnel(id)).unwrap_err();
        assert_eq!(reason, "ProxyingNeeded");
        assert!(message.starts_with("spec.dns.proxied is false, but PortalClass \"prod\" serves through"), "{message}");
        let (reason, message) = check("portalkeeper", json!({"domain": "acme.example"}), tunnel("mine")).unwrap_err();
        assert_eq!(reason, "ClassUnusable");
        assert!(message.contains("`mine` is not the id of a tunnel"), "{message}");
    }

    #[test]
    fn grants_decide_who_may_use_which_name() {
        let own = json!({"domain": "acme.example"});
        let outside = json!({"domain": "acme.example", "host": "reset.other.example"});
        let grants = |domains: Value, hosts: Value| json!({"grants": [{"namespaces": ["team"], "mailDomains": domains, "hosts": hosts}]});
        assert_eq!(
            check("team", own.clone(), json!({})).unwrap_err().1,
            "PortalClass \"prod\" has no grants; add one for namespace \"team\""
        );
        assert!(check("team", own.clone(), grants(json!(["*"]), json!([]))).is_ok());
        assert!(check("team", own.clone(), grants(json!(["*.example"]), json!([]))).is_ok());
        assert_eq!(
            check("team", own.clone(), grants(json!(["*.acme.example"]), json!([]))).unwrap_err().1,
            "PortalClass \"prod\" does not grant mail domain acme.example to namespace \"team\""
        );
        assert_eq!(check("rivals", own, grants(json!(["*"]), json!(["*"]))).unwrap_err().0, "NotGranted");
        assert_eq!(
            check("team", outside.clone(), grants(json!(["*"]), json!([]))).unwrap_err().1,
            "PortalClass \"prod\" does not grant host reset.other.example to namespace \"team\""
        );
        assert!(check("team", outside, grants(json!(["*"]), json!(["*.other.example"]))).is_ok());
        assert!(!matches("*.example", "example") && !matches("*.example", "xexample"));
    }
}
