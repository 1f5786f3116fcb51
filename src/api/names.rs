//! Names that are parsed once and trusted afterwards.
//!
//! Rules: lower-case A-labels in canonical form (RFC 1123 host names, RFC 5890 A-labels), at least two
//! labels, at most 253 octets, no address, no wildcard, no trailing dot.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the name it should be. [`NameError::reason`] is stable, the message is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("`{0}` is empty")]
    Empty(&'static str),
    #[error("`{value}` is longer than {max} characters")]
    TooLong { value: String, max: usize },
    #[error("`{0}` needs at least two labels, as in `reset.example.com`")]
    OneLabel(String),
    #[error("`{0}` is an IP address; a host name is needed")]
    Address(String),
    #[error("`{0}` is a wildcard; an exact host name is needed")]
    Wildcard(String),
    #[error("`{given}` is not in canonical form; write `{canonical}`")]
    NotCanonical { given: String, canonical: String },
    #[error(
        "`{0}` is not a host name: letters a-z, digits and hyphens in labels of 1 to 63 characters, joined by dots"
    )]
    Syntax(String),
    #[error("`{0}` is not a mail address of the form `name@example.com`")]
    MailSyntax(String),
}

impl NameError {
    /// Stable CamelCase word for conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty(_) => "Empty",
            Self::TooLong { .. } => "TooLong",
            Self::OneLabel(_) => "OneLabel",
            Self::Address(_) => "IsAddress",
            Self::Wildcard(_) => "IsWildcard",
            Self::NotCanonical { .. } => "NotCanonical",
            Self::Syntax(_) | Self::MailSyntax(_) => "InvalidSyntax",
        }
    }
}

fn canonical_host(text: &str, what: &'static str) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > 253 {
        return Err(NameError::TooLong { value: text.chars().take(60).collect::<String>() + "…", max: 253 });
    }
    if text.contains('*') {
        return Err(NameError::Wildcard(text.to_owned()));
    }
    let shown = || text.escape_debug().to_string();
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err(NameError::Address(shown()));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(NameError::Syntax(shown()));
    }
    // A dotted trailing root, capitals and Unicode are all well-meant: say how to write them.
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    let canonical = idna::domain_to_ascii_strict(trimmed).map_err(|_| NameError::Syntax(shown()))?;
    let labels: Vec<&str> = canonical.split('.').collect();
    let label_ok = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !labels.iter().all(label_ok) {
        return Err(NameError::Syntax(shown()));
    }
    if labels.len() < 2 {
        return Err(NameError::OneLabel(shown()));
    }
    // A last label of digits alone would read as an IPv4 address to many clients.
    if labels.last().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit())) {
        return Err(NameError::Address(shown()));
    }
    if canonical != text {
        return Err(NameError::NotCanonical { given: shown(), canonical });
    }
    Ok(canonical)
}

macro_rules! host_like {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses a name that must already be canonical. Errors: [`NameError`].
            pub fn parse(text: &str) -> Result<Self, NameError> {
                canonical_host(text, $what).map(Self)
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

host_like!(
    /// A public host: `reset.customer.com`.
    HostName, "host"
);
host_like!(
    /// A mail domain: what stands after the `@`.
    MailDomain, "mail domain"
);

impl MailDomain {
    /// `subdomain.domain`, checked as a whole.
    pub fn host_with(&self, subdomain: &str) -> Result<HostName, NameError> {
        HostName::parse(&format!("{subdomain}.{self}"))
    }
}

/// A mailbox address, compared by ASCII lower case: the stored form is lower case throughout.
///
/// The local part is limited to unquoted RFC 5321 characters without `/`, because it becomes a path
/// segment at mailbox providers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MailAddress {
    local: String,
    domain: MailDomain,
}

impl MailAddress {
    /// Parses `name@domain`; surrounding blanks and ASCII capitals are accepted. Errors: [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.trim_matches([' ', '\t']);
        let bad = || NameError::MailSyntax(text.chars().take(80).collect::<String>().escape_debug().to_string());
        let (local, domain) = text.rsplit_once('@').ok_or_else(bad)?;
        let local_ok = |b: u8| b.is_ascii_alphanumeric() || b".!#$%&'*+=?^_{|}~-`".contains(&b);
        if !(1..=64).contains(&local.len())
            || !local.bytes().all(local_ok)
            || local.starts_with('.')
            || local.ends_with('.')
            || local.contains("..")
        {
            return Err(bad());
        }
        let domain = MailDomain::parse(&domain.to_ascii_lowercase()).map_err(|_| bad())?;
        Ok(Self { local: local.to_ascii_lowercase(), domain })
    }
    pub fn local(&self) -> &str {
        &self.local
    }
    pub fn domain(&self) -> &MailDomain {
        &self.domain
    }
    /// For logs: the first letter and the domain.
    pub fn masked(&self) -> String {
        format!("{}…@{}", &self.local[..1], self.domain)
    }
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}
impl FromStr for MailAddress {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}
impl TryFrom<String> for MailAddress {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}
impl From<MailAddress> for String {
    fn from(address: MailAddress) -> String {
        address.to_string()
    }
}

/// Namespace and name of a portal: what a mark is made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortalKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for PortalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_only_in_canonical_form() {
        assert_eq!(HostName::parse("reset.acme.localhost").unwrap().as_str(), "reset.acme.localhost");
        let reason = |text: &str| HostName::parse(text).unwrap_err().reason();
        assert_eq!(reason(""), "Empty");
        assert_eq!(reason("localhost"), "OneLabel");
        assert_eq!(reason("1.2.3.4"), "IsAddress");
        assert_eq!(reason("*.acme.example"), "IsWildcard");
        assert_eq!(reason("Reset.acme.example"), "NotCanonical");
        assert_eq!(reason("reset.acme.example."), "NotCanonical");
        assert_eq!(reason("bücher.example"), "NotCanonical");
        assert_eq!(reason(&"a".repeat(254)), "TooLong");
        for text in ["a.com`)||host(`x", "ex ample.com", "x.com:80", "a..b", "a_b.com", "-a.com", "x.com\n", "../x"] {
            assert_eq!(reason(text), "InvalidSyntax", "{text:?}");
        }
    }

    #[test]
    fn a_mail_address_is_one_plain_mailbox() {
        assert_eq!(MailAddress::parse(" Ann@Acme.Example ").unwrap().to_string(), "ann@acme.example");
        for text in [
            "v@x.example,a@y.example",
            "v@x.example\r\nBcc: a@y.example",
            "\"a b\"@x.example",
            "a/b@x.example",
            ".@x.example",
            "a@[1.2.3.4]",
            "a@b@c",
            "@x.example",
            "a@localhost",
        ] {
            assert!(MailAddress::parse(text).is_err(), "{text:?}");
        }
    }
}
