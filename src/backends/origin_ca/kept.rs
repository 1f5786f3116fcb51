//! A certificate that a proxy already has: whether it can be kept. Pure.
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Signed;
use crate::config::Secret;
use crate::http::Identity;
use crate::plan::Mark;

/// A certificate is replaced this long before its end.
pub const REPLACE_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What a kept certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Usable,
    /// It ends within [`REPLACE_BEFORE`], or has ended.
    Expiring(Timestamp),
    /// In words.
    Unusable(String),
}

/// The certificate that is wanted with a route, or that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Certificates are the proxy's own business.
    Elsewhere,
    /// Of Cloudflare's Origin CA.
    Wanted,
    Held(Option<State>),
}

impl Tls {
    /// Whether what is there is what is wanted.
    pub fn satisfies(&self, desired: &Self) -> bool {
        match desired {
            Self::Elsewhere => true,
            Self::Wanted => *self == Self::Held(Some(State::Usable)),
            Self::Held(_) => self == desired,
        }
    }
    pub fn describe(&self) -> Option<String> {
        match self {
            Self::Elsewhere => None,
            Self::Wanted | Self::Held(Some(State::Usable)) => {
                Some("with a certificate of Cloudflare's Origin CA".to_owned())
            }
            Self::Held(None) => Some("without a certificate".to_owned()),
            Self::Held(Some(State::Expiring(end))) => {
                Some(format!("with a certificate that ends on {}", end.strftime("%Y-%m-%d")))
            }
            Self::Held(Some(State::Unusable(why))) => Some(format!("with a certificate that cannot be used ({why})")),
        }
    }
}

/// A certificate of ours that a proxy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub mark: Mark,
    pub host: String,
    pub signed: Signed,
    pub state: State,
}

/// Judges a certificate with its key, both PEM, for one host.
pub fn judge(certificate: &str, key: &str, host: &str, now: Timestamp) -> State {
    if let Err(error) = Identity::parse(&Secret::new(certificate), &Secret::new(key)) {
        return State::Unusable(error.to_string());
    }
    let (names, end) = match read(certificate) {
        Ok(found) => found,
        Err(error) => return State::Unusable(error),
    };
    if !names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return State::Unusable(format!("it is for {}", names.join(", ")));
    }
    if end.duration_since(now) < REPLACE_BEFORE { State::Expiring(end) } else { State::Usable }
}

/// The DNS names of the first certificate, and its end.
fn read(pem: &str) -> Result<(Vec<String>, Timestamp), String> {
    use x509_parser::extensions::GeneralName;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
    let names = names.into_iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        _ => None,
    });
    let end = Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|error| error.to_string())?;
    Ok((names.collect(), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "reset.acme.example";

    fn pair(name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 6, 15);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_is_kept_until_thirty_days_before_its_end() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (certificate, key) = pair(HOST);
        let end = at("2030-06-15T00:00:00Z");
        assert_eq!(judge(&certificate, &key, HOST, at("2030-05-16T00:00:00Z")), State::Usable);
        assert_eq!(judge(&certificate, &key, HOST, at("2030-05-16T00:00:01Z")), State::Expiring(end));
        assert_eq!(judge(&certificate, &key, HOST, at("2031-01-01T00:00:00Z")), State::Expiring(end));
    }

    #[test]
    fn one_that_does_not_fit_is_not_kept() {
        let ((certificate, key), (other, other_key)) = (pair(HOST), pair("reset.globex.example"));
        let words = |certificate: &str, key: &str| match judge(certificate, key, HOST, Timestamp::UNIX_EPOCH) {
            State::Unusable(words) => words,
            state => panic!("{state:?}"),
        };
        assert_eq!(words(&certificate, &other_key), "the key is not that of the certificate");
        assert_eq!(words(&other, &other_key), "it is for reset.globex.example");
        assert!(words("no PEM", &key).starts_with("the certificate cannot be read"));
    }
}
