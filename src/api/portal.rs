//! `ResetPortal`: one public host for one mail domain.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fits;
pub use super::moves::{Decider, Leaving, Move, MoveStage, Place};
use super::names::{HostName, MailDomain, NameError, PortalKey};
use crate::config::rules;

/// What the owner of a portal asks for.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "portalkeeper.dev",
    version = "v1alpha1",
    kind = "ResetPortal",
    plural = "resetportals",
    shortname = "rp",
    category = "portalkeeper",
    namespaced,
    status = "ResetPortalStatus",
    derive = "PartialEq",
    doc = "A branded page on which the mailbox owners of one mail domain reset their passwords.",
    printcolumn(name = "Host", type_ = "string", json_path = ".status.host"),
    printcolumn(name = "Backend", type_ = "string", json_path = ".status.backend"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("!(has(self.spec.subdomain) && has(self.spec.host))", "give either subdomain or host, not both")
)]
#[serde(rename_all = "camelCase")]
pub struct ResetPortalSpec {
    /// The mail domain: what stands after the `@` of the mailboxes. Immutable.
    #[schemars(length(min = 3, max = rules::HOST_NAME.longest))]
    #[x_kube(validation = fits(&rules::HOST_NAME))]
    #[x_kube(validation = ("self == oldSelf", "domain is immutable; delete the portal and make a new one"))]
    pub domain: String,
    /// First part of the public host, which is `subdomain.domain`. Default `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = rules::HOST_LABEL.longest))]
    #[x_kube(validation = fits(&rules::HOST_LABEL))]
    pub subdomain: Option<String>,
    /// The whole public host, for a name outside `domain`. Excludes `subdomain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = rules::HOST_NAME.longest))]
    #[x_kube(validation = fits(&rules::HOST_NAME))]
    pub host: Option<String>,
    /// The `PortalClass` to use; without it, the class marked default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// `false` removes record and route and keeps the claim; the host then answers 421. In Nginx Proxy Manager the proxy host
    /// is only disabled, so that its certificate is there when the portal comes back.
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default)]
    pub branding: Branding,
    #[serde(default)]
    pub dns: DnsOptions,
    /// What becomes of record and route when the portal is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// `ObserveOnly` writes nothing outside and keeps the conditions true.
    #[serde(default)]
    pub management_policy: ManagementPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<SenderOptions>,
}

fn yes() -> bool {
    true
}

/// How the page looks and whom it names.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Branding {
    /// Page title; without it, the mail domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 78))]
    #[x_kube(validation = fits(&rules::LINE))]
    pub title: Option<String>,
    /// Logo from a ConfigMap of the portal's namespace: PNG, JPEG or WebP, at most 512 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logo: Option<ConfigMapKeyRef>,
    #[serde(default)]
    pub theme: Theme,
    /// Accent colour as `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^#[0-9a-f]{6}$"))]
    pub accent_colour: Option<String>,
    /// A line that tells whom to ask for help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::LINE.longest))]
    #[x_kube(validation = fits(&rules::LINE))]
    pub support_text: Option<String>,
    /// `https` address of a help page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = rules::HTTPS_LINK.longest))]
    #[x_kube(validation = fits(&rules::HTTPS_LINK))]
    pub support_link: Option<String>,
    /// Language of the page where the browser asks for none that is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 8))]
    pub default_language: Option<String>,
}

/// One key of a ConfigMap in the portal's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Colour scheme of a page.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Light or dark, as the visitor's system prefers.
    #[default]
    Auto,
    Light,
    Dark,
}

/// The CNAME's switches.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DnsOptions {
    /// Whether Cloudflare's edge stands before the proxy.
    #[serde(default = "yes")]
    pub proxied: bool,
    /// Seconds; 1 is automatic, which proxied records always have.
    #[serde(default = "automatic_ttl")]
    #[schemars(range(min = 1, max = 86400))]
    #[x_kube(validation = ("self == 1 || self >= 60", "ttl is 1 (automatic) or 60 to 86400 seconds"))]
    pub ttl: u32,
}

fn automatic_ttl() -> u32 {
    1
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self { proxied: true, ttl: automatic_ttl() }
    }
}

/// What becomes of record and route when the portal is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    #[default]
    Delete,
    /// Both stay, without our mark.
    Retain,
}

/// Whether the controller writes outside.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManagementPolicy {
    #[default]
    Full,
    ObserveOnly,
}

/// The address that reset mails come from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SenderOptions {
    /// Where answers to reset mails go.
    #[schemars(length(min = 3, max = 320))]
    pub contact: String,
}

/// What the controller has proved.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResetPortalStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Class in use, and its proxy backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What was made outside: one entry per system and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<MadeResource>,
    /// What was verified in systems where looks are counted, so that a restart need not look again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verified>,
    /// Where the portal stands among those that wait for a rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueuePlace>,
    /// What is still to be changed, in words: while writes are stopped or held, and on the way from one place to another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// Time of the last answered proof of life (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_proof: Option<String>,
    /// Where the portal is made and where its record leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The move to another place, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Move>,
    /// Former places in which something of the portal may still stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Leaving>,
    /// What may remain in former places for good, because they cannot be used any more. Somebody has to look there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<MadeResource>,
    /// For how many seconds resolvers may keep the record as it last was when nothing was under way; absent: it was proxied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_seconds: Option<i64>,
    /// Until when resolvers may keep the record as it was before its TTL was lowered (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_until: Option<String>,
}

/// What was found to be as wanted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The backend instance, as in `resources`.
    pub system: String,
    /// Digest of what was wanted.
    pub digest: String,
    /// RFC 3339.
    pub at: String,
}

/// A place in the queue for a rate limit.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct QueuePlace {
    /// The backend instance whose limit it is.
    pub system: String,
    /// The first is 1.
    pub position: i64,
    /// When its turn is expected to come (RFC 3339).
    pub expected: String,
}

/// One thing made outside.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MadeResource {
    /// The backend instance, `cloudflare` or `caddy/<address>`.
    pub system: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl ResetPortal {
    pub fn key(&self) -> PortalKey {
        PortalKey {
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }
    pub fn annotated(&self, annotation: &str) -> bool {
        self.metadata.annotations.as_ref().and_then(|a| a.get(annotation)).is_some_and(|v| v == "true")
    }
}

impl ResetPortalSpec {
    /// The validated mail domain.
    pub fn mail_domain(&self) -> Result<MailDomain, NameError> {
        MailDomain::parse(&self.domain)
    }
    /// The validated public host: `host`, or `subdomain.domain`.
    pub fn public_host(&self) -> Result<HostName, NameError> {
        match &self.host {
            Some(host) => HostName::parse(host),
            None => self.mail_domain()?.host_with(self.subdomain.as_deref().unwrap_or("reset")),
        }
    }
}
