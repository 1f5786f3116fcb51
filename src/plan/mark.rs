//! The ownership mark put on everything made outside.
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::PortalKey;

/// Identifies one installation: 16 lower-case hex digits, made once and kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstallationId(String);

impl InstallationId {
    /// Parses 16 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Format version, installation and a hash of the portal's namespace and name. Never the uid, so that
/// recreated, restored and moved portals still own their things.
///
/// Text form: `portalkeeper/v1 <installation> <portal>`, 57 characters, no line breaks: it fits a
/// Cloudflare comment (100 characters). Identifier form: `pk1-<installation>-<portal>`, free of `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    pub installation: InstallationId,
    /// First 24 hex digits of SHA-256 over `namespace/name`.
    pub portal: String,
}

/// What stands on an outside thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Carries a mark in our format; whose, it says itself.
    Marked(Mark),
    /// Somebody else's: no mark, a damaged one, or one of a newer format.
    Foreign,
}

impl Mark {
    pub fn new(installation: &InstallationId, key: &PortalKey) -> Self {
        let digest = Sha256::digest(key.to_string().as_bytes());
        let portal = digest.iter().take(12).map(|b| format!("{b:02x}")).collect();
        Self { installation: installation.clone(), portal }
    }

    fn from_parts(installation: &str, portal: &str) -> Option<Self> {
        let hex = portal.len() == 24 && portal.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        Some(Self { installation: InstallationId::parse(installation)?, portal: hex.then(|| portal.to_owned())? })
    }

    /// Reads the text form; anything else is foreign.
    pub fn from_text(text: &str) -> Ownership {
        let mut words = text.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("portalkeeper/v1"), Some(installation), Some(portal), None) => {
                Self::from_parts(installation, portal).map_or(Ownership::Foreign, Ownership::Marked)
            }
            _ => Ownership::Foreign,
        }
    }

    /// The identifier form, for systems whose ids must not hold blanks or slashes.
    pub fn identifier(&self) -> String {
        format!("pk1-{}-{}", self.installation.as_str(), self.portal)
    }

    /// Reads the identifier form.
    pub fn from_identifier(text: &str) -> Ownership {
        let mut parts = text.split('-');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("pk1"), Some(installation), Some(portal), None) => {
                Self::from_parts(installation, portal).map_or(Ownership::Foreign, Ownership::Marked)
            }
            _ => Ownership::Foreign,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "portalkeeper/v1 {} {}", self.installation.as_str(), self.portal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_back_and_anything_else_is_foreign() {
        let installation = InstallationId::parse("0123456789abcdef").unwrap();
        let key = PortalKey { namespace: "mail".into(), name: "acme".into() };
        let mark = Mark::new(&installation, &key);
        assert_eq!(Mark::from_text(&mark.to_string()), Ownership::Marked(mark.clone()));
        assert_eq!(Mark::from_identifier(&mark.identifier()), Ownership::Marked(mark.clone()));
        assert!(mark.to_string().len() <= 100);
        for text in ["", "portalkeeper/v2 0123456789abcdef x", &format!("{mark} edited"), &mark.to_string()[..50]] {
            assert_eq!(Mark::from_text(text), Ownership::Foreign, "{text}");
        }
    }
}
