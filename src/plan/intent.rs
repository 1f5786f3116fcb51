//! What one portal wants of a backend, already validated.
use super::mark::Mark;
use crate::api::{HostName, PortalKey};

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateMode {
    /// The proxy itself, or somebody before it, sees to TLS.
    Proxy,
    /// Plain http: the sandbox.
    None,
}

/// One portal's wish towards record and route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub portal: PortalKey,
    pub mark: Mark,
    pub host: HostName,
    /// What the CNAME points to.
    pub cname_target: Option<HostName>,
    pub proxied: bool,
    /// Seconds; 1 is automatic.
    pub ttl: u32,
    pub certificate: CertificateMode,
    /// A foreign thing at this name may be taken over, once.
    pub adopt: bool,
    /// Names the portal had before, whose things stay until the new name is proved.
    pub keep: Vec<HostName>,
}
