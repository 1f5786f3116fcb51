//! The host of a request, in canonical form. Pure.
use hyper::header::HOST;
use hyper::http::request::Parts;

/// Why a request has no usable host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the request names no host")]
    Missing,
    #[error("the request's host is not valid")]
    Malformed,
}

impl HostError {
    /// Stable CamelCase word.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "HostMissing",
            Self::Malformed => "HostMalformed",
        }
    }
}

/// Lower case, without port and without one trailing dot. Several Host lines, user information, or a target
/// that names another host than the header are malformed.
pub fn host(parts: &Parts) -> Result<String, HostError> {
    let mut lines = parts.headers.get_all(HOST).iter();
    let header = match (lines.next(), lines.next()) {
        (Some(only), None) => Some(normal(only.to_str().map_err(|_| HostError::Malformed)?)?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(HostError::Malformed),
    };
    let target = parts.uri.authority().map(|authority| normal(authority.as_str())).transpose()?;
    match (header, target) {
        (Some(header), Some(target)) if header != target => Err(HostError::Malformed),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(HostError::Missing),
    }
}

fn normal(text: &str) -> Result<String, HostError> {
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && port.len() <= 5 => name,
        Some(_) => return Err(HostError::Malformed),
        None => text,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
        return Err(HostError::Malformed);
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hosts: &[&str], target: &str) -> Result<String, HostError> {
        let mut request = hyper::Request::builder().uri(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        host(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn one_host_in_one_form() {
        for same in ["reset.acme.example", "RESET.Acme.example:5000", "reset.acme.example."] {
            assert_eq!(of(&[same], "/").unwrap(), "reset.acme.example", "{same}");
        }
        assert_eq!(of(&[], "http://reset.acme.example/").unwrap(), "reset.acme.example");
        assert_eq!(of(&[], "/"), Err(HostError::Missing));
        for bad in ["", ":5000", "a@b.example", "a b", "a/b", "`a`", "a:b:c", "[::1]:5000", "ü.example", "a.example:x"]
        {
            assert_eq!(of(&[bad], "/"), Err(HostError::Malformed), "{bad}");
        }
        assert_eq!(of(&["a.example", "a.example"], "/"), Err(HostError::Malformed));
        assert_eq!(of(&["a.example"], "http://b.example/"), Err(HostError::Malformed));
    }
}
