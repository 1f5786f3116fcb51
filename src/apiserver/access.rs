//! Who may use the API: an own certificate authority, a random bearer token, and the kubeconfig that holds both.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::config::Secret;
use crate::config::files::write_private;

/// Life of the authority and of a server certificate. The latter is made anew at every start.
const AUTHORITY_DAYS: i64 = 3650;
const SERVER_DAYS: i64 = 365;

/// Why the API cannot be offered over HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot use the file {path}: {source}", path = .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the key {path} cannot be read ({cause}); remove it and api-ca.crt, and new ones are made", path = .path.display())]
    Key { path: PathBuf, cause: String },
    #[error("cannot use the given {path}: {cause}", path = .path.display())]
    Given { path: PathBuf, cause: String },
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot serve TLS: {0}")]
    Tls(String),
}

impl AccessError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::File { .. } => "FileUnusable",
            Self::Key { .. } => "KeyUnusable",
            Self::Given { .. } => "GivenCertificateUnusable",
            Self::Certificate(_) => "CertificateFailed",
            Self::Tls(_) => "TlsFailed",
        }
    }
}

/// What the HTTPS front needs.
pub struct Access {
    pub tls: Arc<rustls::ServerConfig>,
    pub token: Secret,
    pub kubeconfig: PathBuf,
}

fn read_or_make(path: &Path, make: impl FnOnce() -> Result<String, AccessError>) -> Result<String, AccessError> {
    let failed = |source| AccessError::File { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text),
        Ok(_) => store(path, make()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => store(path, make()?),
        Err(error) => Err(failed(error)),
    }
}

/// Written beside its place and moved there, so that a kill leaves the old file or the new one.
fn store(path: &Path, text: String) -> Result<String, AccessError> {
    let failed = |source| AccessError::File { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    write_private(&beside, text.as_bytes()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    Ok(text)
}

fn lifetime(parameters: &mut CertificateParams, days: i64) {
    // A day back, for clocks that differ.
    let now = Timestamp::now();
    let date = |at: Timestamp| {
        let at = at.to_zoned(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(i32::from(at.year()), at.month().unsigned_abs(), at.day().unsigned_abs())
    };
    parameters.not_before = date(now.saturating_sub(SignedDuration::from_hours(24)).unwrap_or(now));
    parameters.not_after = date(now.saturating_add(SignedDuration::from_hours(24 * days)).unwrap_or(now));
}

fn authority() -> Result<CertificateParams, AccessError> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, "Portalkeeper embedded API");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lifetime(&mut parameters, AUTHORITY_DAYS);
    Ok(parameters)
}

/// A certificate of the operator's own, instead of one of the own authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenCertificate {
    /// The certificate with its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that clients are to trust, PEM; without it they trust what their system trusts.
    pub authority: Option<PathBuf>,
}

/// What clients must know to trust the server.
struct Trust {
    /// PEM; `None` is the system's own.
    authority: Option<String>,
    /// The name in the certificate, where the address is not in it.
    server_name: Option<String>,
}

impl Access {
    /// Makes or reads everything in `directory`: `api-ca.crt`, `api-ca.key`, `api-token`, `kubeconfig`; all 0600.
    pub fn prepare(directory: &Path, address: SocketAddr) -> Result<Self, AccessError> {
        crate::http::install_crypto_provider();
        let key_text = read_or_make(&directory.join("api-ca.key"), || Ok(KeyPair::generate()?.serialize_pem()))?;
        let key = KeyPair::from_pem(&key_text)
            .map_err(|error| AccessError::Key { path: directory.join("api-ca.key"), cause: error.to_string() })?;
        let ca_text = read_or_make(&directory.join("api-ca.crt"), || Ok(authority()?.self_signed(&key)?.pem()))?;
        // Name and key are those of the kept certificate; its dates do not matter for signing.
        let issuer = Issuer::new(authority()?, key);

        let mut names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        if !address.ip().is_unspecified() {
            names.push(SanType::IpAddress(address.ip()));
        }
        let server_key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, "Portalkeeper embedded API server");
        parameters.subject_alt_names = names;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        lifetime(&mut parameters, SERVER_DAYS);
        let certificate = parameters.signed_by(&server_key, &issuer)?;
        let tls = |error: String| AccessError::Tls(error);
        let authority = CertificateDer::from_pem_slice(ca_text.as_bytes()).map_err(|error| tls(error.to_string()))?;
        let private =
            PrivateKeyDer::from_pem_slice(server_key.serialize_pem().as_bytes()).map_err(|e| tls(e.to_string()))?;
        let config = server_config(vec![certificate.der().clone(), authority], private).map_err(tls)?;
        Self::complete(directory, address, config, &Trust { authority: Some(ca_text), server_name: None })
    }

    /// The same with a given certificate: no authority of our own is made. Errors: a file cannot be read, key and
    /// certificate do not belong together, or the certificate names no host.
    pub fn given(directory: &Path, address: SocketAddr, given: &GivenCertificate) -> Result<Self, AccessError> {
        crate::http::install_crypto_provider();
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| AccessError::File { path: path.to_owned(), source });
        let wrong = |path: &Path, cause: String| AccessError::Given { path: path.to_owned(), cause };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&given.certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&given.certificate, error.to_string()))?;
        let Some(leaf) = chain.first() else {
            return Err(wrong(&given.certificate, "it holds no certificate in PEM form".to_owned()));
        };
        let server_name = name_for(leaf, address.ip()).map_err(|cause| wrong(&given.certificate, cause))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&given.key)?)
            .map_err(|error| wrong(&given.key, format!("it holds no private key in PEM form ({error})")))?;
        let authority = match &given.authority {
            None => None,
            Some(path) => Some(
                String::from_utf8(read(path)?).map_err(|_| wrong(path, "it is not a text in PEM form".to_owned()))?,
            ),
        };
        let config = server_config(chain, key).map_err(|cause| wrong(&given.key, cause))?;
        Self::complete(directory, address, config, &Trust { authority, server_name })
    }

    fn complete(
        directory: &Path,
        address: SocketAddr,
        config: rustls::ServerConfig,
        trust: &Trust,
    ) -> Result<Self, AccessError> {
        let token = read_or_make(&directory.join("api-token"), || {
            Ok(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))
        })?;
        let token = token.trim().to_owned();
        let kubeconfig = directory.join("kubeconfig");
        store(&kubeconfig, kubeconfig_text(address, trust, &token))?;
        Ok(Self { tls: Arc::new(config), token: Secret::new(token), kubeconfig })
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ServerConfig, String> {
    let builder = rustls::ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The host that clients at this address must ask for, if the certificate does not hold for the address itself.
fn name_for(leaf: &CertificateDer<'_>, address: IpAddr) -> Result<Option<String>, String> {
    let certificate = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    let reached = reached_at(address);
    if certificate.verify_is_valid_for_subject_name(&ServerName::from(reached)).is_ok() {
        return Ok(None);
    }
    let mut names = certificate.valid_dns_names().map(|name| name.replacen("*.", "api.", 1));
    names.next().map(Some).ok_or_else(|| format!("it holds neither for {reached} nor for any host name"))
}

/// The address at which clients of this machine reach a listener.
fn reached_at(listening: IpAddr) -> IpAddr {
    if listening.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listening }
}

fn kubeconfig_text(address: SocketAddr, trust: &Trust, token: &str) -> String {
    let server = format!("https://{}", SocketAddr::new(reached_at(address.ip()), address.port()));
    let mut cluster = format!("server: {server}\n");
    if let Some(authority) = &trust.authority {
        cluster.push_str(&format!("    certificate-authority-data: {}\n", STANDARD.encode(authority)));
    }
    if let Some(name) = &trust.server_name {
        cluster.push_str(&format!("    tls-server-name: {name}\n"));
    }
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: portalkeeper\n  cluster:\n    {cluster}\
         users:\n- name: portalkeeper\n  user:\n    token: \"{token}\"\ncontexts:\n\
         - name: portalkeeper\n  context:\n    cluster: portalkeeper\n    user: portalkeeper\n    namespace: default\n\
         current-context: portalkeeper\n"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn authority_and_token_stay_and_every_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let address: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let first = Access::prepare(folder.path(), address).unwrap();
        let kubeconfig = std::fs::read_to_string(&first.kubeconfig).unwrap();
        let second = Access::prepare(folder.path(), address).unwrap();
        assert_eq!(first.token, second.token);
        assert_eq!(std::fs::read_to_string(&second.kubeconfig).unwrap(), kubeconfig);
        for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }

    #[test]
    fn a_given_certificate_is_used_and_the_kubeconfig_says_how_to_trust_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let certificate = rcgen::generate_simple_self_signed(vec!["api.example.com".to_owned()]).unwrap();
        std::fs::write(at("tls.crt"), certificate.cert.pem()).unwrap();
        std::fs::write(at("tls.key"), certificate.signing_key.serialize_pem()).unwrap();
        std::fs::write(at("other.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let address: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let given =
            |key: &str| GivenCertificate { certificate: at("tls.crt"), key: at(key), authority: Some(at("tls.crt")) };
        let access = Access::given(folder.path(), address, &given("tls.key")).unwrap();
        let kubeconfig = std::fs::read_to_string(&access.kubeconfig).unwrap();
        assert!(kubeconfig.contains("tls-server-name: api.example.com\n"), "{kubeconfig}");
        assert!(kubeconfig.contains(&STANDARD.encode(certificate.cert.pem())), "{kubeconfig}");
        assert!(!at("api-ca.key").exists());
        for (key, reason) in [
            ("other.key", "GivenCertificateUnusable"),
            ("tls.crt", "GivenCertificateUnusable"),
            ("none", "FileUnusable"),
        ] {
            assert_eq!(Access::given(folder.path(), address, &given(key)).err().unwrap().reason(), reason, "{key}");
        }
    }
}
