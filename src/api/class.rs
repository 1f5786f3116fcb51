//! `PortalClass`: where credentials, DNS, proxy, mailbox provider, sender and limits come from.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::proxy::ProxySettings;
use super::{fits, is_none_of, matches};
use crate::config::rules;

/// Settings shared by the portals that name this class. Secrets live in the controller's namespace.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "portalkeeper.dev",
    version = "v1alpha1",
    kind = "PortalClass",
    plural = "portalclasses",
    shortname = "pclass",
    category = "portalkeeper",
    status = "PortalClassStatus",
    derive = "PartialEq",
    doc = "Where the portals of this class get their DNS account, proxy, mailbox provider and mail sender from.",
    printcolumn(name = "Default", type_ = "boolean", json_path = ".spec.default"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.proxy.cloudflareTunnel) || has(self.cloudflare)",
    "proxy.cloudflareTunnel needs cloudflare, whose token makes rules and records"
))]
#[x_kube(validation = (
    "!has(self.proxy.cloudflareTunnel) || has(self.proxy.cloudflareTunnel.accountId) || (has(self.cloudflare) && has(self.cloudflare.accountId))",
    "proxy.cloudflareTunnel needs cloudflare.accountId or an accountId of its own"
))]
pub struct PortalClassSpec {
    /// Used by portals that name no class. At most one class may say so.
    #[serde(default)]
    pub default: bool,
    /// Cloudflare account; absent where no DNS record is made (manual mode).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflare: Option<CloudflareSettings>,
    /// Public host that the portals' CNAMEs point to; with `proxy.cloudflareTunnel` they point to the tunnel instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = rules::HOST_NAME.longest))]
    #[x_kube(validation = fits(&rules::HOST_NAME))]
    #[x_kube(validation = is_none_of(&rules::ADDRESS_AS_TARGET))]
    pub cname_target: Option<String>,
    pub proxy: ProxySettings,
    /// Where passwords are changed; without it no reset is possible and `ProviderReady` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<MailboxSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpSettings>,
    #[serde(default)]
    pub reset: ResetSettings,
    /// Which namespaces may use which domains. Without grants: only the controller's own namespace,
    /// or every namespace for the class `environment` in standalone mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// Scheme of public addresses; anything but `https` is for the sandbox.
    #[serde(default)]
    pub public_scheme: PublicScheme,
    /// Port of public addresses; default 443 for https and 80 for http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub public_port: Option<u16>,
    /// Proof of life by request to the public host.
    #[serde(default)]
    pub probe: ProbeSettings,
}

/// Points to one key of a Secret in the controller's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Cloudflare account and token.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CloudflareSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::ACCOUNT.longest))]
    #[x_kube(validation = fits(&rules::ACCOUNT))]
    pub account_id: Option<String>,
    /// Every zone is looked at once in so many hours, whether all is as it was left.
    #[serde(default = "twenty_four")]
    #[schemars(range(min = 1, max = 168))]
    pub sweep_hours: u32,
    /// Asks the account's audit log once a minute who changed what, where the token may read it and `accountId` is set:
    /// what others changed is then put right within minutes.
    #[serde(default = "yes")]
    pub audit_log: bool,
    /// Token with Zone Read and DNS Edit, and for a tunnel with Account, Cloudflare Tunnel, Edit. Absent only in the class `environment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_token_secret_ref: Option<SecretKeyRef>,
    /// Base address with its `/client/v4`; default Cloudflare's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::WEB_ADDRESS.longest))]
    #[x_kube(validation = fits(&rules::WEB_ADDRESS))]
    pub api_url: Option<String>,
}

/// The mail host's API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.mxroute)", "exactly one mailbox provider is needed: mxroute"))]
pub struct MailboxSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mxroute: Option<MxrouteSettings>,
}

/// MXroute: one server and one account.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MxrouteSettings {
    /// Mail server host name, sent as `X-Server`.
    #[schemars(length(min = 1, max = rules::SERVER.longest))]
    #[x_kube(validation = fits(&rules::SERVER))]
    pub server: String,
    /// DirectAdmin user name, sent as `X-Username`.
    #[schemars(length(min = 1, max = rules::USERNAME.longest))]
    #[x_kube(validation = fits(&rules::USERNAME))]
    pub username: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::WEB_ADDRESS.longest))]
    #[x_kube(validation = fits(&rules::WEB_ADDRESS))]
    pub api_url: Option<String>,
}

/// How reset mails leave.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = plain_on_this_machine())]
pub struct SmtpSettings {
    #[schemars(length(min = 1, max = rules::SERVER.longest))]
    #[x_kube(validation = fits(&rules::SERVER))]
    pub host: String,
    #[serde(default = "submission_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    #[serde(default)]
    pub encryption: SmtpEncryption,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// Sender address; without it `reset@` and the portal's mail domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub from: Option<String>,
}

/// The rule as the class's definition has it.
fn plain_on_this_machine() -> Rule {
    let rule = &rules::ON_THIS_MACHINE;
    Rule::new(format!("self.encryption != 'Plain' || self.host.{}", matches(rule.pattern))).message(rule.words)
}

fn submission_port() -> u16 {
    587
}

/// Transport security of SMTP. Certificates are always verified.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmtpEncryption {
    /// STARTTLS, required.
    #[default]
    StartTls,
    /// TLS from the first byte (port 465).
    Tls,
    /// None: only to a mail server on this machine.
    Plain,
}

/// Life of links and the password rule's floor.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResetSettings {
    /// Life of a link in minutes.
    #[serde(default = "thirty")]
    #[schemars(range(min = 5, max = 1440))]
    pub link_minutes: u32,
    /// Shortest password taken, in characters.
    #[serde(default = "twelve")]
    #[schemars(range(min = 8, max = 64))]
    pub minimum_password_length: u32,
}

fn twenty_four() -> u32 {
    24
}
pub(super) fn thirty() -> u32 {
    30
}
fn twelve() -> u32 {
    12
}

impl Default for ResetSettings {
    fn default() -> Self {
        Self { link_minutes: thirty(), minimum_password_length: twelve() }
    }
}

/// Which namespaces may use which names.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Namespaces by name; `*` is every namespace.
    pub namespaces: Vec<String>,
    /// Mail domains, exact or `*.suffix`; `*` is every domain.
    pub mail_domains: Vec<String>,
    /// Hosts outside the mail domain, exact or `*.suffix`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// Scheme of public addresses.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PublicScheme {
    #[default]
    Https,
    Http,
}

impl PublicScheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// Proof of life.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSettings {
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Connect here (`address:port`) instead of what DNS says: split DNS, tests, the sandbox's edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::PROBE_ADDRESS.longest))]
    #[x_kube(validation = fits(&rules::PROBE_ADDRESS))]
    pub address: Option<String>,
}

pub(super) fn yes() -> bool {
    true
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { enabled: true, address: None }
    }
}

/// Many changes that nobody asked for one by one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeldPlan {
    /// What the annotation must say.
    pub id: String,
    pub what: String,
    /// Portals that have something there.
    pub owned: i64,
    /// Of these, how many would change.
    pub changing: i64,
    /// The first of the changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portals: Vec<String>,
}

/// What the controller found about the class.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PortalClassStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Portals that use the class, by their Ready truth.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub portals: BTreeMap<String, i64>,
    /// Plans that wait for approval by the annotation `portalkeeper.dev/approve-plan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_plans: Vec<HeldPlan>,
    /// Settings under which portals of the class were made, as JSON by their digest: what is needed to remove
    /// something from a proxy that the class no longer names. Secrets are named, not held.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

impl PortalClassSpec {
    /// Name of the proxy backend, as `REVERSE_PROXY_BACKEND` spells it.
    pub fn backend_name(&self) -> &'static str {
        match &self.proxy {
            ProxySettings { npm: Some(_), .. } => "npm",
            ProxySettings { cloudflare_tunnel: Some(_), .. } => "cloudflare_tunnel",
            ProxySettings { caddy: Some(_), .. } => "caddy",
            ProxySettings { traefik: Some(_), .. } => "traefik",
            ProxySettings { ingress: Some(_), .. } => "ingress",
            _ => "manual",
        }
    }
    /// Where the proxy finds the pages, as far as the class says it.
    pub fn origin(&self) -> String {
        match &self.proxy {
            ProxySettings { cloudflare_tunnel: Some(tunnel), .. } => tunnel.origin.clone(),
            ProxySettings { caddy: Some(caddy), .. } => caddy.origin.clone(),
            ProxySettings { traefik: Some(traefik), .. } => traefik.origin_url.clone(),
            ProxySettings { manual: Some(manual), .. } => manual.origin.clone(),
            ProxySettings { npm: Some(npm), .. } => format!("{}:{}", npm.forward_host, npm.forward_port),
            ProxySettings { ingress: Some(ingress), .. } => match &ingress.namespace {
                Some(namespace) => format!("{}.{namespace}.svc:{}", ingress.service, ingress.port),
                None => format!("{}:{}", ingress.service, ingress.port),
            },
            _ => "127.0.0.1:5000".to_owned(),
        }
    }
    /// Name of the proxy (`cnameTarget`), where there is a valid one.
    pub fn proxy_name(&self) -> Option<super::HostName> {
        super::HostName::parse(self.cname_target.as_deref()?).ok()
    }
    /// Where the records of this class lead, whatever a portal asks for: nowhere without a Cloudflare account.
    pub fn record_target(&self) -> Option<super::HostName> {
        self.cloudflare.as_ref()?;
        match &self.proxy.cloudflare_tunnel {
            Some(tunnel) => super::tunnel::TunnelId::parse(&tunnel.tunnel_id).ok()?.cname_target(),
            None => self.proxy_name(),
        }
    }
    /// `https://host`, with the port where it is not the scheme's own.
    pub fn public_url(&self, host: &super::HostName) -> String {
        let scheme = self.public_scheme;
        match self.public_port {
            Some(port) if port != scheme.default_port() => format!("{}://{host}:{port}", scheme.as_str()),
            _ => format!("{}://{host}", scheme.as_str()),
        }
    }
}
