//! Which portals are served, by host. Written by the controller, read by the pages.
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::api::portal::Branding;
use crate::api::{HostName, MailAddress, MailDomain, PortalKey};
use crate::mail::Mailer;
use crate::mailbox::MailboxProvider;

/// A picture whose kind was told from its own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logo {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
    /// Changes with the bytes.
    pub etag: String,
}

/// An account at a mail host, with a name that changes when the account does.
#[derive(Clone)]
pub struct Account {
    pub id: String,
    pub provider: Arc<dyn MailboxProvider>,
}

/// Everything that a portal's pages and mails need; a portal is here only while it is accepted, enabled and
/// holds its claims.
#[derive(Clone)]
pub struct ServedPortal {
    pub key: PortalKey,
    pub uid: String,
    /// The public host first; then names it had before, until the new one is proved.
    pub hosts: Vec<HostName>,
    pub domain: MailDomain,
    /// Public address, without a slash at its end, of the host that it was looked up by: a new host is not to be named to
    /// visitors who came by the former one, since that may not be reached yet.
    pub url: String,
    pub branding: Branding,
    pub logo: Option<Logo>,
    pub link_minutes: u32,
    pub minimum_password_length: u32,
    pub account: Option<Account>,
    pub mailer: Option<Arc<Mailer>>,
    /// Sender of its mails.
    pub from: MailAddress,
    pub reply_to: Option<MailAddress>,
    pub by_hand: ByHand,
}

/// What somebody needs to know who makes record and route by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// Where the proxy finds the pages, as the class says it.
    pub origin: String,
    pub cname_target: Option<HostName>,
    pub proxied: bool,
}

impl ServedPortal {
    /// What the page and the mails are headed with.
    pub fn title(&self) -> &str {
        self.branding.title.as_deref().unwrap_or(self.domain.as_str())
    }
}

/// The served portals. Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory(Arc<RwLock<HashMap<String, Arc<ServedPortal>>>>);

impl Directory {
    /// Serves the portal at its hosts and nowhere else; `url` gives the public address of each.
    pub fn publish(&self, portal: &ServedPortal, url: impl Fn(&HostName) -> String) {
        let mut hosts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, other| other.key != portal.key);
        for host in &portal.hosts {
            hosts.insert(host.to_string(), Arc::new(ServedPortal { url: url(host), ..portal.clone() }));
        }
    }
    /// Serves the portal no longer.
    pub fn withdraw(&self, key: &PortalKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, portal| portal.key != *key);
    }
    /// The portal at a host in canonical form.
    pub fn lookup(&self, host: &str) -> Option<Arc<ServedPortal>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }
    /// Number of hosts that are served.
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
