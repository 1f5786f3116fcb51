//! `PortalClaim`: the cluster-wide right to a host or a mail domain, decided by name uniqueness.
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{HostName, MailDomain, PortalKey};
use super::portal::{MadeResource, Place};

/// Who holds the name. Written by the controller only.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "portalkeeper.dev",
    version = "v1alpha1",
    kind = "PortalClaim",
    plural = "portalclaims",
    shortname = "pclaim",
    category = "portalkeeper",
    status = "PortalClaimStatus",
    derive = "PartialEq",
    doc = "The right to a public host or a mail domain, held by one ResetPortal. Written by the controller.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Value", type_ = "string", json_path = ".spec.value"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.portalNamespace"),
    printcolumn(name = "Portal", type_ = "string", json_path = ".spec.portalName"),
    printcolumn(name = "Left", type_ = "string", json_path = ".status.leftovers[*].system"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PortalClaimSpec {
    pub kind: ClaimKind,
    /// The host or mail domain itself.
    #[schemars(length(min = 3, max = 253))]
    pub value: String,
    pub portal_namespace: String,
    pub portal_name: String,
    pub portal_uid: String,
}

/// What a claim is about.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKind {
    Host,
    MailDomain,
}

/// Leftovers of a portal that is gone (a tombstone). They are removed when that is possible again, and the claim with them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PortalClaimStatus {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<MadeResource>,
    /// The classes, with the settings, under which they were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// They are to stay, without our mark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
    /// Since when the portal is gone (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why they could not be removed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Object name of the claim on a host: `host--` and the host. A name longer than Kubernetes' 253
/// characters is cut to a hash.
pub fn host_claim_name(host: &HostName) -> String {
    claim_name("host", host.as_str())
}

/// Object name of the claim on a mail domain.
pub fn mail_claim_name(domain: &MailDomain) -> String {
    claim_name("mail", domain.as_str())
}

/// Both kinds carry a prefix, because `mail--x.example` is itself a valid host name.
fn claim_name(kind: &str, value: &str) -> String {
    use sha2::{Digest, Sha256};
    let name = format!("{kind}--{value}");
    if name.len() <= 253 {
        return name;
    }
    let digest = Sha256::digest(value.as_bytes());
    format!("{kind}--sha256-{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

impl PortalClaimSpec {
    pub fn held_by(&self, key: &PortalKey, uid: &str) -> bool {
        self.portal_namespace == key.namespace && self.portal_name == key.name && self.portal_uid == uid
    }
}
