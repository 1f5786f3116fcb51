//! Who may use the API: an own certificate authority, a random bearer token, and the kubeconfig that holds both.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;

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
    #[error(
        "{path} holds no token ({cause}); put one of letters, digits and -._~+/ on its only line, or remove it, and a \
         new one is made", path = .path.display()
    )]
    Token { path: PathBuf, cause: &'static str },
    #[error(
        "cannot use the certificate {path} ({cause}); remove it and {key}, and new ones are made: kubeconfigs of before \
         are not good any more", path = .path.display(), key = .key.display()
    )]
    Authority { path: PathBuf, key: PathBuf, cause: String },
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
            Self::Token { .. } => "TokenUnusable",
            Self::Authority { .. } => "AuthorityUnusable",
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
        let ca_path = directory.join("api-ca.crt");
        let ca_text = read_or_make(&ca_path, || Ok(authority()?.self_signed(&key)?.pem()))?;
        let authority_of = |cause: String| {
            let key = directory.join("api-ca.key");
            AccessError::Authority { path: ca_path.clone(), key, cause }
        };
        let ca = CertificateDer::from_pem_slice(ca_text.as_bytes()).map_err(|error| authority_of(error.to_string()))?;
        check_key(&ca, &key).map_err(authority_of)?;
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
        let private =
            PrivateKeyDer::from_pem_slice(server_key.serialize_pem().as_bytes()).map_err(|e| tls(e.to_string()))?;
        let config = server_config(vec![certificate.der().clone(), ca], private).map_err(tls)?;
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
            Some(path) => {
                let text = String::from_utf8(read(path)?);
                let text = text.map_err(|_| wrong(path, "it is not a text in PEM form".to_owned()))?;
                check_authorities(&text).map_err(|cause| wrong(path, cause))?;
                Some(text)
            }
        };
        if let Some(why) = out_of_date(leaf, unix_time(SystemTime::now())) {
            tracing::warn!(path = %given.certificate.display(), "clients will refuse the API: its certificate {why}");
        }
        let config = server_config(chain, key).map_err(|cause| wrong(&given.key, cause))?;
        Self::complete(directory, address, config, &Trust { authority, server_name })
    }

    fn complete(
        directory: &Path,
        address: SocketAddr,
        config: rustls::ServerConfig,
        trust: &Trust,
    ) -> Result<Self, AccessError> {
        let path = directory.join("api-token");
        let made = || Ok(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()));
        let text = read_or_make(&path, made).map_err(|error| match error {
            AccessError::File { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                AccessError::Token { path: path.clone(), cause: "it is no text" }
            }
            other => other,
        })?;
        let token = token_in(&text).map_err(|cause| AccessError::Token { path: path.clone(), cause })?.to_owned();
        let kubeconfig = directory.join("kubeconfig");
        store(&kubeconfig, kubeconfig_text(address, trust, &token))?;
        Ok(Self { tls: Arc::new(config), token: Secret::new(token), kubeconfig })
    }
}

/// The token in the text of its file, which may end with a line's end. Errors: why it is none.
fn token_in(text: &str) -> Result<&str, &'static str> {
    let token = text.strip_suffix('\n').unwrap_or(text);
    let token = token.strip_suffix('\r').unwrap_or(token);
    if token.contains(['\n', '\r']) {
        return Err("it has several lines");
    }
    // What a header can carry (RFC 6750).
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.bytes().all(fits) { Ok(token) } else { Err("it has characters that no header can carry") }
}

/// Whether the certificate is that of the key. Errors: why not.
fn check_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), String> {
    let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(|error| error.to_string())?;
    match anchor.subject_public_key_info.as_ref().ends_with(key.public_key_raw()) {
        true => Ok(()),
        false => Err("it belongs to another key".to_owned()),
    }
}

/// Whether a text is nothing but certificates. Errors: what it is instead.
fn check_authorities(text: &str) -> Result<(), String> {
    let mut count = 0;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|error| error.to_string())?;
        if kind != SectionKind::Certificate {
            return Err(
                "it holds something else than certificates, and everything in it is given to clients".to_owned()
            );
        }
        webpki::anchor_from_trusted_cert(&CertificateDer::from(der)).map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == 0 { Err("it holds no certificate in PEM form".to_owned()) } else { Ok(()) }
}

/// Why clients will not take a certificate at this time, if only its dates matter.
fn out_of_date(leaf: &CertificateDer<'_>, now: UnixTime) -> Option<&'static str> {
    let certificate = webpki::EndEntityCert::try_from(leaf).ok()?;
    let usage = webpki::KeyUsage::server_auth();
    // Nobody is trusted here, so an answer about trust is that the dates are right.
    match certificate.verify_for_usage(&[], &[], &[], now, usage, None, None).err()? {
        webpki::Error::CertExpired { .. } => Some("has expired"),
        webpki::Error::CertNotValidYet { .. } => Some("is not valid yet"),
        _ => None,
    }
}

/// Times before 1970 are 1970: a machine without a clock begins there or before.
fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The machine's clock. The library's own panics in every handshake of a machine whose clock is before 1970.
#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(SystemTime::now()))
    }
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ServerConfig, String> {
    let provider = CryptoProvider::get_default().ok_or("there is no cryptography")?;
    let builder = rustls::ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(Now))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
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

    #[test]
    fn damaged_files_are_refused_by_their_names_and_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let address: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refused = || {
            let error = Access::prepare(folder.path(), address).err().unwrap();
            (error.reason(), error.to_string())
        };
        let first = Access::prepare(folder.path(), address).unwrap();
        // the end of a line is no part of the token
        let token = std::fs::read_to_string(at("api-token")).unwrap();
        std::fs::write(at("api-token"), format!("{token}\n")).unwrap();
        assert_eq!(Access::prepare(folder.path(), address).unwrap().token, first.token);
        for (text, cause) in [
            (&b"one\ntwo\n"[..], "it has several lines"),
            (b"a \"b\"", "it has characters that no header can carry"),
            (b"\xff\xfe", "it is no text"),
        ] {
            std::fs::write(at("api-token"), text).unwrap();
            let (reason, words) = refused();
            assert_eq!(reason, "TokenUnusable");
            assert!(words.contains(&format!("api-token holds no token ({cause})")), "{words}");
        }
        std::fs::write(at("api-token"), token).unwrap();
        // a certificate that is none, and one of another key
        let certificate = std::fs::read_to_string(at("api-ca.crt")).unwrap();
        std::fs::write(at("api-ca.crt"), "nonsense").unwrap();
        let (reason, words) = refused();
        assert_eq!(reason, "AuthorityUnusable");
        assert!(words.contains("api-ca.crt") && words.contains("api-ca.key"), "{words}");
        std::fs::write(at("api-ca.crt"), certificate).unwrap();
        std::fs::write(at("api-ca.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let (reason, words) = refused();
        assert_eq!(reason, "AuthorityUnusable");
        assert!(words.contains("api-ca.crt (it belongs to another key); remove it and"), "{words}");
    }

    #[test]
    fn a_given_authority_is_nothing_but_certificates() {
        let certificate = rcgen::generate_simple_self_signed(vec!["api.example.com".to_owned()]).unwrap();
        let (one, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        assert_eq!(check_authorities(&format!("{one}{one}")), Ok(()));
        assert_eq!(check_authorities("").unwrap_err(), "it holds no certificate in PEM form");
        for text in [key.clone(), format!("{one}{key}")] {
            let words = check_authorities(&text).unwrap_err();
            assert!(words.starts_with("it holds something else than certificates"), "{words}");
        }
    }

    #[test]
    fn dates_are_looked_at_even_before_1970() {
        let certificate = rcgen::generate_simple_self_signed(vec!["api.example.com".to_owned()]).unwrap();
        let leaf = certificate.cert.der();
        let day = std::time::Duration::from_secs(86_400);
        let at = |time: SystemTime| out_of_date(leaf, unix_time(time));
        // rcgen's own dates are 1975 and 4096
        assert_eq!(at(SystemTime::UNIX_EPOCH + 20_000 * day), None);
        assert_eq!(at(SystemTime::UNIX_EPOCH - day), Some("is not valid yet"));
        assert_eq!(at(SystemTime::UNIX_EPOCH + 800_000 * day), Some("has expired"));
    }
}
