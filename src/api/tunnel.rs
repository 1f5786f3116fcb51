//! A Cloudflare Tunnel by its id, and where its connectors find the pages. Parsed once and trusted afterwards.
use std::fmt;

use url::Url;

use super::origin::shown;
use super::{HostName, Origin};

/// A tunnel's id: a UUID, canonical in lower case with hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(String);

/// Why a text names no tunnel or no service of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    #[error(
        "`{0}` is not the id of a tunnel, a UUID like 0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d; the dashboard shows it, and it is not the tunnel's name"
    )]
    Id(String),
    #[error("`{0}` has no scheme; write it as in `http://127.0.0.1:5000`")]
    NoScheme(String),
    #[error("`{0}` has the scheme {1}; pages are served by http, or by https where something before them ends TLS")]
    Scheme(String, String),
    #[error("`{0}` has no port; write it as in `http://127.0.0.1:5000`")]
    NoPort(String),
    #[error(
        "`{0}` has a path, query, user or fragment, which cloudflared refuses; write it as in `http://127.0.0.1:5000`"
    )]
    More(String),
    #[error("`{0}` is not an address, as in `http://127.0.0.1:5000`")]
    Syntax(String),
}

impl TunnelError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Id(_) => "InvalidTunnelId",
            Self::NoScheme(_) => "NoScheme",
            Self::Scheme(..) => "InvalidScheme",
            Self::NoPort(_) => "NoPort",
            Self::More(_) => "NotOnlyAddress",
            Self::Syntax(_) => "InvalidOrigin",
        }
    }
}

impl TunnelId {
    /// Parses a UUID with hyphens; upper case is taken and lowered.
    pub fn parse(text: &str) -> Result<Self, TunnelError> {
        let id = text.to_ascii_lowercase();
        let mut groups = id.split('-');
        let fits = [8, 4, 4, 4, 12].iter().all(|length| {
            groups.next().is_some_and(|group| {
                group.len() == *length && group.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
        });
        if fits && groups.next().is_none() { Ok(Self(id)) } else { Err(TunnelError::Id(shown(text))) }
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// What a CNAME points to so that the edge hands requests to this tunnel.
    pub fn cname_target(&self) -> Option<HostName> {
        HostName::parse(&format!("{self}.cfargotunnel.com")).ok()
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a tunnel's connectors find the pages: `http://127.0.0.1:5000`. Scheme, host and port and nothing after them,
/// because cloudflared refuses a service with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelOrigin(String);

impl TunnelOrigin {
    /// Parses `http://host:port` or `https://host:port`; a slash at the end is cut off and letters are lowered.
    pub fn parse(text: &str) -> Result<Self, TunnelError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Err(TunnelError::NoScheme(shown(text))) };
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(TunnelError::Scheme(shown(text), shown(&scheme)));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(TunnelError::More(shown(text)));
        }
        // The port is looked for first: a URL drops one that is the scheme's own.
        let after_host = rest.rsplit_once(']').map_or(rest.as_str(), |(_, after)| after);
        if !after_host.contains(':') {
            return Err(TunnelError::NoPort(shown(text)));
        }
        Origin::parse(&rest).map_err(|_| TunnelError::Syntax(shown(text)))?;
        let service = format!("{scheme}://{rest}");
        match Url::parse(&service) {
            Ok(_) => Ok(Self(service)),
            Err(_) => Err(TunnelError::Syntax(shown(text))),
        }
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TunnelOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_named_by_its_uuid() {
        let id = TunnelId::parse("0F7C1D58-7D7C-4D3E-9C0A-5B8F3E2A1C6D").unwrap();
        assert_eq!(id.as_str(), "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d");
        assert_eq!(id.cname_target().unwrap().as_str(), format!("{id}.cfargotunnel.com"));
        for text in ["", "my-tunnel", "0f7c1d587d7c4d3e9c0a5b8f3e2a1c6d", "0f7c1d58-7d7c-4d3e-9c0a-5b8f3e2a1c6d-"] {
            assert_eq!(TunnelId::parse(text).unwrap_err().reason(), "InvalidTunnelId", "{text}");
        }
    }

    #[test]
    fn a_service_is_scheme_host_and_port_and_nothing_else() {
        for (text, service) in [
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("HTTP://Pages.Internal:5000/", "http://pages.internal:5000"),
            ("http://portalkeeper:80", "http://portalkeeper:80"),
            ("https://[::1]:5000", "https://[::1]:5000"),
        ] {
            assert_eq!(TunnelOrigin::parse(text).unwrap().as_str(), service);
        }
        for (text, reason) in [
            ("127.0.0.1:5000", "NoScheme"),
            ("tcp://127.0.0.1:5000", "InvalidScheme"),
            ("http://127.0.0.1", "NoPort"),
            ("http://[::1]", "NoPort"),
            ("http://127.0.0.1:5000/x", "NotOnlyAddress"),
            ("http://127.0.0.1:5000//", "NotOnlyAddress"),
            ("http://127.0.0.1:5000?a", "NotOnlyAddress"),
            ("http://me:secret@127.0.0.1:5000", "NotOnlyAddress"),
            ("http://127.0.0.1:0", "InvalidOrigin"),
            ("http://a b:5000", "InvalidOrigin"),
            ("http://300.1.1.1:5000", "InvalidOrigin"),
        ] {
            let error = TunnelOrigin::parse(text).unwrap_err();
            assert_eq!(error.reason(), reason, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
