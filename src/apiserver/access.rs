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
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone(), authority], private)
            .map_err(|error| tls(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];

        let token = read_or_make(&directory.join("api-token"), || {
            Ok(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))
        })?;
        let token = token.trim().to_owned();
        let kubeconfig = directory.join("kubeconfig");
        store(&kubeconfig, kubeconfig_text(address, &ca_text, &token))?;
        Ok(Self { tls: Arc::new(config), token: Secret::new(token), kubeconfig })
    }
}

fn kubeconfig_text(address: SocketAddr, ca: &str, token: &str) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    let server = format!("https://{}", SocketAddr::new(host, address.port()));
    let ca = STANDARD.encode(ca);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: portalkeeper\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: portalkeeper\n  user:\n    token: \"{token}\"\ncontexts:\n\
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
}
