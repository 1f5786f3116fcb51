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
    #[error("`{0}` has no port from 1 to 65535; write it as in `127.0.0.1:5000`")]
    NoPort(String),
    #[error("`{0}` has a scheme other than http, in which the pages are served; write it as in `127.0.0.1:5000`")]
    Scheme(String),
    #[error("`{0}` has a path, query, user or fragment; only host and port are taken, as in `127.0.0.1:5000`")]
    More(String),
    #[error("`{0}` has an IPv6 address without brackets; write it as in `[::1]:5000`")]
    NoBrackets(String),
    #[error("`{0}` is not an address or host name with a port, as in `127.0.0.1:5000`")]
    Syntax(String),
}

impl OriginError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPort(_) => "NoPort",
            Self::Scheme(_) => "InvalidScheme",
            Self::More(_) => "NotOnlyAddress",
            Self::NoBrackets(_) => "NoBrackets",
            Self::Syntax(_) => "InvalidOrigin",
        }
    }
}

/// The text without whatever stands before an `@`, which may be a password, and not too long.
pub(super) fn shown(text: &str) -> String {
    let open = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        (_, None) => text.to_owned(),
    };
    open.chars().take(80).collect::<String>().escape_debug().to_string()
}

impl Origin {
    /// Parses `host:port`. An `http://` before it and a slash after it are cut off.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let shown = || shown(text);
        let bare = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(OriginError::Scheme(shown())),
            None => text,
        };
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if bare.contains(['/', '?', '#', '@', '\\']) {
            return Err(OriginError::More(shown()));
        }
        let (host, port) = bare.rsplit_once(':').ok_or_else(|| OriginError::NoPort(shown()))?;
        let of_ipv6 = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
        if host.contains(':') && host.bytes().all(of_ipv6) {
            return Err(OriginError::NoBrackets(shown()));
        }
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or_else(|| OriginError::NoPort(shown()))?;
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
        // What ends in digits alone is read as an IPv4 address, and this one is none.
        let number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        let name = bracketed.is_none() && host.len() <= 253 && !number && host.split('.').all(label);
        if !address && !name {
            return Err(OriginError::Syntax(shown()));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }

    fn is_localhost(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
    }

    /// Whether somebody has to be asked where it is. `localhost` is known to every machine.
    pub fn needs_dns(&self) -> bool {
        self.address().is_none() && !self.is_localhost()
    }

    /// Whether it is the machine, or the container, that asks.
    pub fn is_loopback(&self) -> bool {
        self.is_localhost() || self.address().is_some_and(|address| address.to_canonical().is_loopback())
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
        for (reason, texts) in [
            ("NoPort", &["127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", "a:", "a:+80", "[::1]"][..]),
            ("NoBrackets", &["::1", "::1:5000", "fe80::1"]),
            ("InvalidScheme", &["https://a:80", "tcp://a:80"]),
            ("NotOnlyAddress", &["http://a:80/x", "a:80//", "http://a:80?x", "a:80#x", "me:hunter2@a:80"]),
            (
                "InvalidOrigin",
                &["a b:5000", "x;}\nserver{:80", "[127.0.0.1]:80", "-a:80", ":80", "a..b:80", "pages:x:80"],
            ),
            ("InvalidOrigin", &["{env.HOME}:5000", "300.1.1.1:80", "1.2.3:80", "{env.HOST}:5000"]),
        ] {
            for text in texts {
                let error = Origin::parse(text).unwrap_err();
                assert_eq!(error.reason(), reason, "{text}");
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        }
    }
}
