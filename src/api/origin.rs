//! Where a proxy finds the pages. Parsed once and trusted afterwards.
use std::fmt;
use std::net::IpAddr;

/// Where a proxy finds the pages: `127.0.0.1:5000`, `[::1]:5000`, `portalkeeper.internal:5000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    host: String,
    port: u16,
}

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("`{0}` has no port; write it as in `127.0.0.1:5000`")]
    NoPort(String),
    #[error("`{0}` is not an address or host name with a port, as in `127.0.0.1:5000`")]
    Syntax(String),
}

impl OriginError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPort(_) => "NoPort",
            Self::Syntax(_) => "InvalidOrigin",
        }
    }
}

impl Origin {
    /// Parses `host:port`. An `http://` before it and a slash after it are cut off.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let shown = || text.chars().take(80).collect::<String>().escape_debug().to_string();
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let (host, port) = bare.rsplit_once(':').ok_or_else(|| OriginError::NoPort(shown()))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| OriginError::NoPort(shown()))?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let address = match bracketed {
            Some(inner) => inner.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
            None => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
        };
        // A single label is fine here: container and service names are such.
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let name = bracketed.is_none() && host.len() <= 253 && host.split('.').all(label);
        if !address && !name {
            return Err(OriginError::Syntax(shown()));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_host_with_a_port() {
        for (text, shown) in [
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("http://127.0.0.1:5000/", "127.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
            ("portalkeeper:5000", "portalkeeper:5000"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), shown);
        }
        for text in ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "::1"] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
        for text in ["a b:5000", "x;}\nserver{:80", "[127.0.0.1]:80", "-a:80", ":80", "a..b:80", "https://a:80"] {
            assert_eq!(Origin::parse(text).unwrap_err().reason(), "InvalidOrigin", "{text}");
        }
    }
}
