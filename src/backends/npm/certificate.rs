//! Certificates of Nginx Proxy Manager as data: which one a host should have, which ones there are, and what to do
//! about the difference. Pure.
use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::client::Version;
use crate::api::HostName;
use crate::backends::{BackendError, ErrorClass};
use crate::config::Secret;
use crate::plan::{Mark, Ownership};

/// An uploaded certificate is replaced this long before it expires. Let's Encrypt's are renewed by NPM itself.
const REPLACE_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// NPM's dates are local times without a zone, so this much of them is unknown.
const ZONE_SLACK: SignedDuration = SignedDuration::from_hours(14);
/// Longest `nice_name` that NPM's database keeps.
const LONGEST_NAME: usize = 200;

/// Where the hosts' certificates come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Hosts answer plain http; TLS ends before NPM.
    None,
    LetsEncrypt(LetsEncrypt),
    /// Signed by Cloudflare's Origin CA for a key made here, and uploaded.
    OriginCa,
    /// One that is there already; it is never changed or deleted.
    Existing(Choice),
}

/// How NPM orders at Let's Encrypt.
#[derive(Debug, Clone)]
pub struct LetsEncrypt {
    /// Cloudflare token for the DNS challenge; NPM keeps it with the certificate, for renewals.
    pub dns_token: Secret,
    /// Contact address; NPM takes one only up to 2.12 and later uses its own user's.
    pub email: Option<Secret>,
    /// Wait for the DNS record to spread, in seconds.
    pub propagation_seconds: u32,
}

/// One of NPM's certificates by id or by its name in NPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Id(u64),
    Name(String),
}

/// The certificate that one host should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    None,
    LetsEncrypt,
    /// By the name under which ours is kept.
    OriginCa(String),
    Existing(Choice),
}

/// What one of NPM's certificates can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Usable,
    /// Within thirty days of its end.
    Expiring,
    Expired,
    /// Being ordered at Let's Encrypt.
    Pending,
    /// Made, and nothing uploaded yet.
    Empty,
}

/// A certificate as NPM lists it. The private key that NPM sends along is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub id: u64,
    pub letsencrypt: bool,
    pub nice_name: String,
    pub names: Vec<String>,
    pub expires_on: String,
    pub state: State,
    /// Id of the user who made it.
    owner: Option<u64>,
}

impl Certificate {
    /// Reads one entry of the list.
    pub fn parse(value: &Value, now: Timestamp) -> Option<Self> {
        let letsencrypt = value["provider"] == "letsencrypt";
        let expires_on = value["expires_on"].as_str()?.to_owned();
        let names = value["domain_names"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned);
        let uploaded = value["meta"]["certificate"].is_string();
        let state = if letsencrypt && time(&expires_on) == value["created_on"].as_str().and_then(time) {
            State::Pending
        } else if !letsencrypt && !uploaded {
            State::Empty
        } else {
            match time(&expires_on) {
                Some(end) if end.saturating_add(ZONE_SLACK).is_ok_and(|end| end < now) => State::Expired,
                Some(end) if end.duration_since(now) < REPLACE_BEFORE => State::Expiring,
                // A date that cannot be read is no reason to replace what works.
                _ => State::Usable,
            }
        };
        Some(Self {
            id: value["id"].as_u64()?,
            letsencrypt,
            nice_name: value["nice_name"].as_str()?.to_owned(),
            names: names.collect(),
            expires_on,
            state,
            owner: value["owner_user_id"].as_u64(),
        })
    }

    /// Whether this user may have made it: it did, or one of both is not known.
    pub fn owned_by(&self, user: Option<u64>) -> bool {
        match (self.owner, user) {
            (Some(owner), Some(user)) => owner == user,
            _ => true,
        }
    }

    /// For one host and no other name.
    pub fn is_for(&self, host: &str) -> bool {
        matches!(self.names.as_slice(), [only] if only.eq_ignore_ascii_case(host))
    }

    /// Our mark and the host, where this is one that we uploaded.
    pub fn marked(&self) -> Option<(Mark, &str)> {
        let (identifier, host) = self.nice_name.split_once(' ')?;
        match Mark::from_identifier(identifier) {
            Ownership::Marked(mark) if !self.letsencrypt => Some((mark, host)),
            _ => None,
        }
    }
}

/// `YYYY-MM-DD HH:MM:SS` or an RFC 3339 time, taken as UTC, to the second.
fn time(text: &str) -> Option<Timestamp> {
    let plain = text.get(..19)?.replace('T', " ");
    let civil = DateTime::strptime("%Y-%m-%d %H:%M:%S", &plain).ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// The name under which an uploaded certificate is kept: the only place of one that can carry our mark.
pub fn own_name(mark: &Mark, host: &str) -> String {
    let mut name = format!("{} {host}", mark.identifier());
    name.truncate(LONGEST_NAME);
    name
}

/// The certificate that a host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    None,
    /// By an id that no certificate has any more: such a host answers plain http.
    Missing(u64),
    Known(Certificate),
}

impl Held {
    pub fn find(id: u64, certificates: &[Certificate]) -> Self {
        match certificates.iter().find(|certificate| certificate.id == id) {
            _ if id == 0 => Self::None,
            Some(certificate) => Self::Known(certificate.clone()),
            None => Self::Missing(id),
        }
    }
    pub fn describe(&self) -> String {
        match self {
            Self::None => "without a certificate".to_owned(),
            Self::Missing(id) => format!("with certificate {id}, which is gone"),
            Self::Known(certificate) => {
                let kind = if certificate.letsencrypt { "Let's Encrypt" } else { "uploaded" };
                match certificate.state {
                    State::Expired => format!("with the expired {kind} certificate {}", certificate.id),
                    State::Empty => format!("with the empty certificate {}", certificate.id),
                    State::Usable | State::Expiring | State::Pending => {
                        format!("with {kind} certificate {}", certificate.id)
                    }
                }
            }
        }
    }
}

impl Wish {
    /// Whether what the host has is what it should have.
    pub fn accepts(&self, held: &Held, host: &str) -> bool {
        match (self, held) {
            (Self::None, held) => *held == Held::None,
            (Self::LetsEncrypt, Held::Known(has)) => {
                has.letsencrypt && has.is_for(host) && matches!(has.state, State::Usable | State::Expiring)
            }
            (Self::OriginCa(name), Held::Known(has)) => has.nice_name == *name && has.state == State::Usable,
            (Self::Existing(choice), Held::Known(has)) => {
                choice.names(has) && matches!(has.state, State::Usable | State::Expiring)
            }
            (_, Held::None | Held::Missing(_)) => false,
        }
    }
    pub fn describe(&self) -> String {
        match self {
            Self::None => "without a certificate".to_owned(),
            Self::LetsEncrypt => "with a Let's Encrypt certificate".to_owned(),
            Self::OriginCa(_) => "with a certificate of Cloudflare's Origin CA".to_owned(),
            Self::Existing(Choice::Id(id)) => format!("with certificate {id}"),
            Self::Existing(Choice::Name(name)) => format!("with the certificate named {name:?}"),
        }
    }
}

impl Choice {
    fn names(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Id(id) => certificate.id == *id,
            Self::Name(name) => certificate.nice_name == *name,
        }
    }
}

/// How a host gets the certificate it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supply {
    /// This id; 0 is none.
    Use(u64),
    /// Order one at Let's Encrypt.
    Order,
    /// Have one signed and upload it, into the one of this id where there is one already.
    Upload(Option<u64>),
    /// One is being ordered.
    Wait(u64),
}

/// Decides by what NPM has. Errors: no certificate can be had as the class asks.
pub fn supply(wish: &Wish, host: &str, certificates: &[Certificate]) -> Result<Supply, BackendError> {
    let newest = |fits: &dyn Fn(&Certificate) -> bool| {
        certificates.iter().filter(|c| fits(c)).max_by(|a, b| a.expires_on.cmp(&b.expires_on).then(a.id.cmp(&b.id)))
    };
    match wish {
        Wish::None => Ok(Supply::Use(0)),
        Wish::LetsEncrypt => {
            let for_host = |c: &Certificate| c.letsencrypt && c.is_for(host);
            let usable = |c: &Certificate| for_host(c) && matches!(c.state, State::Usable | State::Expiring);
            if let Some(found) = newest(&usable) {
                return Ok(Supply::Use(found.id));
            }
            match newest(&for_host) {
                Some(found) if found.state == State::Pending => Ok(Supply::Wait(found.id)),
                Some(found) => Err(expired(host, found)),
                None => Ok(Supply::Order),
            }
        }
        Wish::OriginCa(name) => match newest(&|c| !c.letsencrypt && c.nice_name == *name) {
            Some(found) if found.state == State::Usable => Ok(Supply::Use(found.id)),
            Some(found) => Ok(Supply::Upload(Some(found.id))),
            None => Ok(Supply::Upload(None)),
        },
        Wish::Existing(choice) => {
            let fitting: Vec<&Certificate> = certificates.iter().filter(|c| choice.names(c)).collect();
            let wanted = match choice {
                Choice::Id(id) => format!("certificate {id}"),
                Choice::Name(name) => format!("certificate named {name:?}"),
            };
            match fitting.as_slice() {
                [] => Err(refused(
                    "CertificateNotFound",
                    format!(
                        "NPM has no {wanted} ({}); correct proxy.npm.certificate.existing (NPM_CERTIFICATE)",
                        known(certificates)
                    ),
                )),
                [only] if matches!(only.state, State::Expired) => Err(expired(host, only)),
                [only] if matches!(only.state, State::Empty | State::Pending) => Err(refused(
                    "CertificateUnusable",
                    format!("the {wanted} of NPM has no content yet, so {host} cannot use it"),
                )),
                [only] if only.letsencrypt && !only.names.iter().any(|name| covers(name, host)) => Err(refused(
                    "CertificateMismatch",
                    format!("the {wanted} of NPM is for {} and not for {host}", only.names.join(", ")),
                )),
                [only] => Ok(Supply::Use(only.id)),
                several => {
                    let ids: Vec<String> = several.iter().map(|c| c.id.to_string()).collect();
                    let message =
                        format!("NPM has more than one {wanted} (ids {}); choose one by its id", ids.join(", "));
                    Err(refused("CertificateAmbiguous", message))
                }
            }
        }
    }
}

fn refused(reason: &'static str, message: String) -> BackendError {
    BackendError::new(ErrorClass::Permanent, reason, message)
}

fn expired(host: &str, certificate: &Certificate) -> BackendError {
    let advice =
        if certificate.letsencrypt { "NPM renews it by itself and has not; see its log" } else { "replace it" };
    let Certificate { id, expires_on, .. } = certificate;
    let message = format!("certificate {id} of NPM, for {host}, expired on {expires_on}: {advice}");
    BackendError::new(ErrorClass::Unavailable, "CertificateExpired", message)
}

fn known(certificates: &[Certificate]) -> String {
    if certificates.is_empty() {
        return "there is none that its user may see".to_owned();
    }
    let shown: Vec<String> = certificates.iter().take(5).map(|c| format!("{}: {:?}", c.id, c.nice_name)).collect();
    format!("there is {}", shown.join(", "))
}

/// Whether a name of a certificate, perhaps a wildcard for one label, is for this host.
fn covers(name: &str, host: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("*.") {
        Some(suffix) => host.split_once('.').is_some_and(|(_, rest)| rest == suffix),
        None => name == host,
    }
}

/// The body that orders at Let's Encrypt by DNS challenge. NPM refuses the contact address from 2.13 on.
pub fn order(settings: &LetsEncrypt, host: &HostName, version: Version) -> Value {
    let credentials = format!("dns_cloudflare_api_token = {}", settings.dns_token.expose());
    let mut meta = json!({
        "dns_challenge": true,
        "dns_provider": "cloudflare",
        "dns_provider_credentials": credentials,
        "propagation_seconds": settings.propagation_seconds,
    });
    if version < Version::CONTACT_OF_USER {
        meta["letsencrypt_agree"] = json!(true);
        if let Some(email) = &settings.email {
            meta["letsencrypt_email"] = json!(email.expose());
        }
    }
    json!({"provider": "letsencrypt", "domain_names": [host], "meta": meta})
}

/// What an order's failure means, by the words that NPM passes on from certbot and the CA: reason, seconds before
/// another try, and the words themselves.
pub fn failure(trace: &str) -> (&'static str, i64, String) {
    // Rows are: words to look for, reason, pause. Let's Encrypt counts five failed challenges an hour.
    const KNOWN: [(&[&str], &str, i64); 4] = [
        (&["too many", "rateLimited", "rate limit"], "CertificateRateLimited", 3600),
        (&["Another instance of Certbot"], "CertificateBusy", 60),
        (&["Max retries exceeded", "Failed to resolve", "ConnectionError"], "CertificateAuthorityUnreachable", 300),
        (&["challenges have failed", "Detail:", "DNS problem"], "CertificateChallengeFailed", 900),
    ];
    let lines: Vec<&str> = trace.lines().map(str::trim).filter(|line| telling(line)).collect();
    for (words, reason, pause) in KNOWN {
        let saying: Vec<&str> = lines.iter().copied().filter(|l| words.iter().any(|word| l.contains(word))).collect();
        if !saying.is_empty() {
            return (reason, pause, shortened(&saying.join(" ")));
        }
    }
    let words = lines.last().copied().unwrap_or("NPM gave no words for it; see its log");
    ("CertificateFailed", 900, shortened(words))
}

/// Lines of a trace that say something to a reader: no stack frames, no standing advice.
fn telling(line: &str) -> bool {
    let noise = ["at ", "Ask for help", "Saving debug log", "File \"", "Traceback", "CommandError", "Error: Command"];
    !line.is_empty() && !noise.iter().any(|start| line.starts_with(start))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
