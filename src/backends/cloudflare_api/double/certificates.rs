//! The Origin CA: certificates that only Cloudflare's edge trusts.
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{CloudflareDouble, State, fail, ok, paged};
use crate::http::double::{DoubleRequest, DoubleResponse, lock};

/// Lifetimes that are offered, in days.
const VALIDITIES: [u64; 7] = [7, 30, 90, 365, 730, 1095, 5475];

impl CloudflareDouble {
    /// Every certificate that was signed and not revoked.
    pub fn certificates(&self) -> Vec<Value> {
        lock(&self.state).certificates.clone()
    }
}

impl State {
    pub(super) fn certificates(&mut self, request: &DoubleRequest, rest: &[&str], now: Timestamp) -> DoubleResponse {
        match (request.method.as_str(), rest) {
            ("POST", []) => self.sign(&request.json().unwrap_or_default(), now),
            ("GET", []) => paged(request, &self.certificates_of(request.parameter("zone_id")), 20, 50),
            ("GET", [id]) => match self.certificates.iter().find(|certificate| certificate["id"] == *id) {
                Some(certificate) => ok(certificate.clone()),
                None => fail(404, 1101, "Certificate not found"),
            },
            ("DELETE", [id]) => {
                let before = self.certificates.len();
                self.certificates.retain(|certificate| certificate["id"] != *id);
                if self.certificates.len() == before {
                    return fail(404, 1101, "Certificate not found");
                }
                ok(json!({"id": id, "revoked_at": now.to_string()}))
            }
            _ => fail(405, 10405, "Method not allowed for this authentication scheme"),
        }
    }

    /// Those with a name in the zone.
    fn certificates_of(&self, zone: Option<&str>) -> Vec<Value> {
        let names = self.zones.iter().filter(|known| zone.is_none_or(|zone| known["id"] == zone));
        let names: Vec<&str> = names.filter_map(|zone| zone["name"].as_str()).collect();
        let within =
            |host: &str, zone: &str| host.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let fits = |certificate: &&Value| {
            let hosts = certificate["hostnames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            hosts.into_iter().any(|host| names.iter().any(|zone| within(host, zone)))
        };
        self.certificates.iter().filter(fits).cloned().collect()
    }

    fn sign(&mut self, body: &Value, now: Timestamp) -> DoubleResponse {
        let hostnames: Vec<&str> =
            body["hostnames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let within = |host: &&str| {
            self.zones
                .iter()
                .filter_map(|zone| zone["name"].as_str())
                .any(|zone| host.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        };
        if hostnames.is_empty() || !hostnames.iter().all(within) {
            return fail(
                400,
                1010,
                "Failed to validate requested hostname: This zone is either not part of your account, or you do not have access to it.",
            );
        }
        let days = body["requested_validity"].as_u64().unwrap_or(5475);
        if !VALIDITIES.contains(&days) {
            return fail(400, 1006, "Invalid requested_validity");
        }
        let end = now.checked_add(SignedDuration::from_hours(i64::try_from(days).unwrap_or(5475) * 24));
        let expires = end.unwrap_or(now);
        let Some(pem) = body["csr"].as_str().and_then(|csr| issue(csr, &hostnames, expires)) else {
            return fail(400, 1100, "Failed to read the certificate request");
        };
        let id = self.id(0xce47_0000);
        let certificate = json!({
            "id": id, "certificate": pem, "csr": body["csr"], "hostnames": body["hostnames"],
            "request_type": body["request_type"], "requested_validity": days, "expires_on": expires.to_string(),
        });
        self.certificates.push(certificate.clone());
        ok(certificate)
    }
}

/// A certificate for the key of the request, of an authority that nobody trusts. The names are those that were asked
/// for beside it, as at Cloudflare.
fn issue(csr: &str, hostnames: &[&str], expires: Timestamp) -> Option<String> {
    let mut request = rcgen::CertificateSigningRequestParams::from_pem(csr).ok()?;
    let names: Vec<String> = hostnames.iter().map(|name| (*name).to_owned()).collect();
    let wanted = rcgen::CertificateParams::new(names).ok()?;
    request.params.subject_alt_names = wanted.subject_alt_names;
    request.params.not_after = std::time::SystemTime::from(expires).into();
    let key = rcgen::KeyPair::generate().ok()?;
    let mut authority = rcgen::CertificateParams::default();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Simulated Origin CA");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(authority, key);
    Some(request.signed_by(&issuer).ok()?.pem())
}
