//! How a client and a server prove to each other who they are.
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{CertificateFault, ConnectFault};
use crate::config::Secret;

/// Why certificates or keys cannot be used. No part of a key is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the key cannot be read: {0}")]
    Key(String),
    #[error("the key is not that of the certificate")]
    OtherKey,
    #[error("the authority's certificate cannot be read: {0}")]
    Authority(String),
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Certificates and key, one after the other.
    pem: Secret,
}

impl Identity {
    /// Reads a certificate, which its chain may follow, and its key, both PEM; a file may hold both.
    pub fn parse(certificate: &Secret, key: &Secret) -> Result<Self, TlsError> {
        let chain = certificates(certificate.expose()).map_err(TlsError::Certificate)?;
        let bad = |error: String| TlsError::Key(error);
        let parsed = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| {
            bad("it holds no private key in PEM form (PKCS #8, PKCS #1 or SEC 1), or a damaged one".to_owned())
        })?;
        let provider = rustls::crypto::ring::default_provider();
        let signing = provider.key_provider.load_private_key(parsed).map_err(|error| bad(error.to_string()))?;
        let pair = rustls::sign::CertifiedKey::new(chain, signing);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(TlsError::OtherKey),
            Err(error) => return Err(TlsError::Certificate(error.to_string())),
        }
        let own = |text: &Secret, kind: &str| sections(text.expose(), kind);
        let pem = format!("{}{}", own(certificate, "CERTIFICATE"), own(key, "PRIVATE KEY"));
        Ok(Self { pem: Secret::new(pem) })
    }
}

/// Certificates that are trusted instead of the system's.
#[derive(Debug, Clone)]
pub struct Authorities {
    pem: String,
}

impl Authorities {
    /// Reads one certificate or several, PEM: an authority's, or the server's own.
    pub fn parse(text: &str) -> Result<Self, TlsError> {
        certificates(text).map_err(TlsError::Authority)?;
        Ok(Self { pem: text.to_owned() })
    }
}

/// The sections of a PEM text whose label ends so.
fn sections(text: &str, label: &str) -> String {
    let mut found = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside |= line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----"));
        if inside {
            found.push_str(line);
            found.push('\n');
        }
        inside &= !line.starts_with("-----END ");
    }
    found
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("it holds no certificate in PEM form".to_owned());
    }
    Ok(chain)
}

/// What a client trusts and what it shows.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// For servers that ask who calls.
    pub identity: Option<Identity>,
    /// Without them, what the system trusts.
    pub authorities: Option<Authorities>,
}

impl ClientTls {
    pub(super) fn apply(&self, mut builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, reqwest::Error> {
        if let Some(identity) = &self.identity {
            builder = builder.identity(reqwest::Identity::from_pem(identity.pem.expose().as_bytes())?);
        }
        if let Some(authorities) = &self.authorities {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(authorities.pem.as_bytes())?);
        }
        Ok(builder)
    }
}

/// Whether the answer to the greeting is none of TLS, which is what a port of http gives.
pub(super) fn is_plain(cause: &(dyn std::error::Error + 'static)) -> bool {
    let of_tls = |error: &rustls::Error| {
        matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType))
    };
    cause.downcast_ref::<rustls::Error>().is_some_and(of_tls)
}

/// What kept the connection from being made, by the typed causes within.
pub(super) fn fault(error: &reqwest::Error) -> ConnectFault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(tls) = tls_error(inner) {
            return tls_fault(tls);
        }
        match inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::ConnectionRefused) => return ConnectFault::Refused,
            Some(std::io::ErrorKind::TimedOut) => return ConnectFault::TimedOut,
            _ => {}
        }
        cause = inner.source();
    }
    ConnectFault::Other
}

/// The TLS error itself, which may be wrapped into I/O errors that do not name it as their source.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref().or_else(|| tls_error(error.downcast_ref::<std::io::Error>()?.get_ref()?))
}

fn tls_fault(error: &rustls::Error) -> ConnectFault {
    use rustls::AlertDescription as Alert;
    use rustls::CertificateError as Bad;
    const CLIENTS: [Alert; 9] = [
        Alert::CertificateRequired,
        Alert::NoCertificate,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateExpired,
        Alert::CertificateUnknown,
        Alert::UnknownCA,
        Alert::AccessDenied,
    ];
    let bad = match error {
        rustls::Error::InvalidCertificate(bad) => bad,
        rustls::Error::AlertReceived(alert) if CLIENTS.contains(alert) => return ConnectFault::ClientRefused,
        _ => return ConnectFault::Tls,
    };
    ConnectFault::Certificate(match bad {
        Bad::Expired | Bad::ExpiredContext { .. } => CertificateFault::Expired,
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => CertificateFault::NotYetValid,
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => CertificateFault::WrongName,
        // An authority of the same name with another key, such as another Caddy's own.
        Bad::UnknownIssuer | Bad::BadSignature => CertificateFault::NotTrusted,
        // What `openssl req -x509` makes: self-signed, with the flag of an authority.
        Bad::Other(other) if other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) => {
            CertificateFault::NotTrusted
        }
        _ => CertificateFault::Other,
    })
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError, Error};

    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_apart() {
        let fault = |error: Error| {
            // As the connector hands it over: as an I/O error within another.
            let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
            let outer = std::io::Error::other(inner);
            tls_error(&outer).map(tls_fault)
        };
        let bad = |error| fault(Error::InvalidCertificate(error));
        let of = |fault| Some(ConnectFault::Certificate(fault));
        assert_eq!(bad(CertificateError::Expired), of(CertificateFault::Expired));
        assert_eq!(bad(CertificateError::NotValidYet), of(CertificateFault::NotYetValid));
        assert_eq!(bad(CertificateError::NotValidForName), of(CertificateFault::WrongName));
        assert_eq!(bad(CertificateError::UnknownIssuer), of(CertificateFault::NotTrusted));
        assert_eq!(bad(CertificateError::BadSignature), of(CertificateFault::NotTrusted));
        assert_eq!(bad(CertificateError::Revoked), of(CertificateFault::Other));
        assert_eq!(fault(Error::AlertReceived(AlertDescription::HandshakeFailure)), Some(ConnectFault::Tls));
        let refused = fault(Error::AlertReceived(AlertDescription::CertificateRequired));
        assert_eq!(refused, Some(ConnectFault::ClientRefused));
        assert_eq!(tls_error(&std::io::Error::other("x")), None);
    }

    #[test]
    fn a_self_signed_certificate_with_the_flag_of_an_authority_is_one_that_is_not_trusted() {
        use rustls::client::WebPkiServerVerifier;
        use rustls::client::danger::ServerCertVerifier as _;
        let authority = |name: &str| {
            let mut made = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            made.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority("known.example").der().clone()).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(std::sync::Arc::new(roots), provider).build().unwrap();
        let (name, now) = ("reset.example".try_into().unwrap(), rustls::pki_types::UnixTime::now());
        let refused = verifier.verify_server_cert(authority("reset.example").der(), &[], &name, &[], now).unwrap_err();
        assert_eq!(tls_fault(&refused), ConnectFault::Certificate(CertificateFault::NotTrusted), "{refused:?}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        crate::http::install_crypto_provider();
        let pair = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["portalkeeper".to_owned()]).unwrap();
            (certificate.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let ((certificate, key), (_, other)) = (pair(), pair());
        let check = |certificate: &str, key: &str| Identity::parse(&Secret::new(certificate), &Secret::new(key)).err();
        assert_eq!(check(&certificate, &key), None);
        let both = format!("{certificate}{key}");
        assert_eq!(check(&both, &both), None, "one file may hold both");
        assert!(matches!(check("no PEM", &key), Some(TlsError::Certificate(_))));
        assert!(matches!(check(&certificate, "no PEM"), Some(TlsError::Key(_))));
        assert!(matches!(check(&certificate, &certificate), Some(TlsError::Key(_))));
        assert_eq!(check(&certificate, &other), Some(TlsError::OtherKey));
        assert_eq!(check(&certificate, &other).unwrap().to_string(), "the key is not that of the certificate");
        let cut = key.replace("-----END", "");
        assert!(!format!("{:?}", check(&certificate, &cut)).contains(&key[40..80]), "the key is not shown");
        assert_eq!(Authorities::parse(&certificate).err(), None);
        assert!(matches!(Authorities::parse("no PEM"), Err(TlsError::Authority(_))));
    }
}
