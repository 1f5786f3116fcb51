//! What a probe saw, in words: the reason it was not this portal's proof, and what to do about it. Pure.
use hyper::HeaderMap;
use serde_json::Value;

use super::proofs::{CACHE_ADVICE, CACHED, Echo};
use crate::config::Secret;
use crate::http::{CertificateFault, ConnectFault, HttpError, LookupError};
use crate::reset::live;

/// Longest name of a server program in a message, in characters.
const LONGEST_SERVER: usize = 60;
/// Longest address of a redirect in a message, in characters.
const LONGEST_ADDRESS: usize = 200;
/// How much of an error page is searched for the edge's own error number, in bytes.
const SEARCHED: usize = 16 * 1024;

/// Something else than the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Stable CamelCase word.
    pub reason: &'static str,
    pub message: String,
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Public address, `https://host[:port]`.
    pub url: &'a str,
    /// The same in words, with where it was asked if that is somewhere else.
    pub shown: &'a str,
    pub host: &'a str,
    pub uid: &'a str,
    pub nonce: &'a str,
    pub key: &'a Secret,
}

/// The class's own setting is no address.
pub fn unusable_address(text: &str) -> Sighting {
    let message = format!("probe.address `{text}` is not an address with a port, like 127.0.0.1:8443");
    Sighting { reason: "InvalidProbeAddress", message }
}

/// The portal's host leads nowhere that may be asked, or that of the proxy which is to serve it.
pub fn not_asked(error: &LookupError, of_proxy: bool) -> Sighting {
    let advice = match error {
        LookupError::NotFound(_) if of_proxy => {
            "this is the name of the proxy (cnameTarget, RESET_PORTAL_CNAME_TARGET) to which the portal's record would lead; \
             make a record for it, or correct it in the class"
        }
        LookupError::NotFound(_) => {
            "the record is new, or missing, or the zone's name servers are not Cloudflare's; a resolver may remember \
             for minutes that it was not there"
        }
        LookupError::NoAnswer(_) => "check the DNS settings of this machine",
        LookupError::NotPublic { .. } => {
            "it was not asked; where this machine sees other addresses than visitors do, name the proxy's address and \
             port in the class as probe.address"
        }
    };
    Sighting { reason: error.reason(), message: format!("{error}: {advice}") }
}

/// There was no answer.
pub fn no_answer(shown: &str, error: &HttpError) -> Sighting {
    let says = |reason, words: String| Sighting { reason, message: format!("{shown} does not answer: {words}") };
    let certificate = |reason, words: &str| Sighting { reason, message: format!("{shown} shows {words}") };
    match error {
        HttpError::Connect { fault, cause, .. } => match fault {
            ConnectFault::Refused => {
                says("ConnectionRefused", format!("{cause}; nothing listens there, or a firewall refuses"))
            }
            ConnectFault::TimedOut => says("Timeout", "the connection timed out; a firewall may drop it".to_owned()),
            ConnectFault::ClientRefused => says(
                "ClientCertificateWanted",
                format!("visitors are asked for a certificate ({cause}), as with Authenticated Origin Pulls"),
            ),
            ConnectFault::Tls if cause.starts_with("plain http") => {
                says("TlsFailed", format!("{cause}; the proxy must serve this host by TLS on that port"))
            }
            ConnectFault::Tls => says(
                "TlsFailed",
                format!(
                    "TLS fails ({cause}); there is no certificate for this host yet. Cloudflare's Universal SSL covers \
                     one level below the zone only and takes minutes in a new zone"
                ),
            ),
            ConnectFault::Certificate(CertificateFault::Expired) => {
                certificate("CertificateExpired", "an expired certificate; renew it in the proxy")
            }
            ConnectFault::Certificate(CertificateFault::NotYetValid) => certificate(
                "CertificateNotYetValid",
                "a certificate that is not valid yet; check the clocks of the proxy and of this machine",
            ),
            ConnectFault::Certificate(CertificateFault::WrongName) => certificate(
                "CertificateWrongName",
                "a certificate for other names; the proxy answers with its default certificate until it has one for this \
                 host",
            ),
            ConnectFault::Certificate(CertificateFault::NotTrusted) => certificate(
                "CertificateNotTrusted",
                "a certificate that browsers do not trust: a self-signed one, or one of Cloudflare's Origin CA, which \
                 only Cloudflare's edge trusts",
            ),
            ConnectFault::Certificate(CertificateFault::Other) => {
                certificate("CertificateInvalid", &format!("a certificate that is not usable: {cause}"))
            }
            ConnectFault::Other => says("Unreachable", cause.clone()),
        },
        HttpError::Timeout { seconds, .. } => says("Timeout", format!("nothing came within {seconds} s")),
        HttpError::Interrupted { cause, .. } => says("Interrupted", format!("the connection broke off ({cause})")),
        HttpError::BodyTooLarge { .. } => Sighting {
            reason: "ForeignServer",
            message: format!("{shown} answered with a page of another program; {}", FOREIGN_ADVICE),
        },
        HttpError::NotJson { .. } | HttpError::BadAddress { .. } => says("Unreachable", error.to_string()),
    }
}

const FOREIGN_ADVICE: &str = "another server has the name, or the proxy has no route for the host";

/// Judges an answer: nothing for this portal's proof, else what it was instead.
pub fn judge(asked: &Asked, status: u16, headers: &HeaderMap, body: &[u8]) -> Option<Sighting> {
    let answer: Option<Value> = (status == 200).then(|| serde_json::from_slice(body).ok()).flatten();
    let echo = answer.as_ref().and_then(Echo::read);
    if echo.as_ref().is_some_and(|echo| echo.proves(asked)) {
        return None;
    }
    let (reason, words) = if let Some(echo) = echo {
        echo.judge(asked)
    } else if matches!(status, 301..=303 | 307 | 308) {
        redirect(asked, status, headers)
    } else if let Some((reason, words)) = by_the_edge(status, headers, body) {
        (reason, words)
    } else {
        by_others(status, headers, body)
    };
    Some(Sighting { reason, message: format!("{} answered with {words}", asked.shown) })
}

const NOT_SEEN: &str = "FORCE_HTTPS is on, and it takes the request for http although it was asked by https, so that visitors \
                        are sent in a circle: the proxy must send `X-Forwarded-Proto: https`, and TRUSTED_PROXY_COUNT and \
                        TRUSTED_PROXY_CIDRS must fit the proxies in front (or FORCE_HTTPS be off); with Cloudflare's SSL mode \
                        Flexible the proxy itself is asked by http: set the zone to Full (strict)";

/// A redirect is never followed: what it leads to proves nothing about this host.
fn redirect(asked: &Asked, status: u16, headers: &HeaderMap) -> (&'static str, String) {
    let location = header(headers, "location");
    // What follows may be a secret of somebody's login page.
    let bare = location.split(['?', '#']).next().unwrap_or_default();
    // Only to the very address that was asked is the header believed: anybody can send one.
    if headers.contains_key(live::REDIRECT_HEADER) && bare == format!("{}{}", asked.url, live::PATH) {
        return ("HttpsNotSeen", format!("a redirect ({status}) of this program to the same address; {NOT_SEEN}"));
    }
    let to = clean(bare, LONGEST_ADDRESS);
    let host = url::Url::parse(bare).ok().and_then(|url| url.host_str().map(str::to_owned));
    let cause = match host {
        Some(host) if host == asked.host && bare.starts_with("https:") && asked.url.starts_with("https:") => {
            "a loop, as it comes from Cloudflare's SSL mode Flexible before a proxy that insists on https: set the zone \
             to Full (strict)"
        }
        Some(host) if host == asked.host && bare.starts_with("https:") => {
            "Always Use HTTPS of Cloudflare, or the proxy's own rule; this class says that its addresses are http"
        }
        _ => "a redirect rule of Cloudflare, or of the proxy, or a login page before it",
    };
    let to = if to.is_empty() { "elsewhere".to_owned() } else { to };
    let words = format!("a redirect ({status}) to {to}, probably {cause}; {} must come through as it is", live::PATH);
    ("Redirected", words)
}

fn is_cloudflare(headers: &HeaderMap) -> bool {
    headers.contains_key("cf-ray") || header(headers, "server").eq_ignore_ascii_case("cloudflare")
}

/// The number that an error page of the edge names: `error code: 1016`, `Error 1016`, `cf-error-code">1016`.
fn edge_code(body: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(&body[..body.len().min(SEARCHED)]).to_ascii_lowercase();
    ["error code: ", "cf-error-code\">", "error "].iter().find_map(|before| {
        text.match_indices(before).find_map(|(at, _)| {
            let digits: String = text[at + before.len()..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok().filter(|code| (1000..=1199).contains(code))
        })
    })
}

/// Cloudflare's own pages.
fn by_the_edge(status: u16, headers: &HeaderMap, body: &[u8]) -> Option<(&'static str, String)> {
    let cloudflare = is_cloudflare(headers);
    let code = edge_code(body).filter(|_| cloudflare);
    if header(headers, "cf-mitigated") == "challenge" {
        let words = format!(
            "Cloudflare's challenge page ({status}), which visitors' browsers may pass and a probe cannot; skip it for {} \
             with a custom rule",
            live::PATH
        );
        return Some(("ChallengePage", words));
    }
    let (reason, words) = match (status, code) {
        (_, Some(1033)) => (
            "TunnelDown",
            "error 1033: no connector of the tunnel runs, or the record points to a deleted tunnel or one of another \
             account",
        ),
        (_, Some(1016)) => (
            "OriginNameNotFound",
            "error 1016: Cloudflare's edge cannot resolve what the record points to; check cnameTarget",
        ),
        (_, Some(1001)) => {
            ("EdgeNameNotFound", "error 1001: Cloudflare's edge cannot resolve this host; its record is new or missing")
        }
        (_, Some(1000)) => (
            "EdgeTargetRefused",
            "error 1000: the record points to an address that Cloudflare forbids, such as its own",
        ),
        (_, Some(1014)) => ("EdgeTargetRefused", "error 1014: the record points into another Cloudflare account"),
        (_, Some(1015)) => ("EdgeRateLimited", "error 1015: a rate limit of the zone stops the probe"),
        (_, Some(1020)) => ("EdgeBlocked", "error 1020: a firewall rule of the zone stops the probe"),
        (520, _) => ("OriginOddAnswer", "520: Cloudflare's edge got an empty or broken answer from the proxy"),
        (521, _) => (
            "OriginRefused",
            "521: the proxy refuses Cloudflare's edge; check that it listens on port 443 and that its firewall admits \
             Cloudflare's ranges",
        ),
        (522, _) => (
            "OriginTimeout",
            "522: Cloudflare's edge cannot connect to the proxy in time; check where cnameTarget leads, and the firewall",
        ),
        (523, _) => {
            ("OriginUnreachable", "523: Cloudflare's edge has no way to the proxy; check where cnameTarget leads")
        }
        (524, _) => ("OriginTimeout", "524: the proxy took the connection and did not answer in time"),
        (525, _) => (
            "OriginTlsFailed",
            "525: TLS between Cloudflare's edge and the proxy fails; the proxy has no certificate for this host",
        ),
        (526, _) => (
            "OriginCertificateInvalid",
            "526: Cloudflare's edge does not trust the proxy's certificate; with Full (strict) it must be of a public CA \
             or of Cloudflare's Origin CA, for this host, and not expired",
        ),
        (530, _) => ("EdgeError", "530: Cloudflare's edge cannot reach what the record points to"),
        (502, _) if cloudflare => (
            "BadGateway",
            "502 through Cloudflare: the tunnel's connector or the proxy is there and does not reach the pages",
        ),
        (504, _) if cloudflare => ("BadGateway", "504 through Cloudflare: the proxy or the pages answer too late"),
        (403, _) if cloudflare => ("EdgeBlocked", "403 through Cloudflare: a rule of the zone or the proxy forbids it"),
        (429, _) if cloudflare => ("EdgeRateLimited", "429 through Cloudflare: a rate limit stops the probe"),
        _ => return None,
    };
    Some((reason, words.to_owned()))
}

/// Everybody else.
fn by_others(status: u16, headers: &HeaderMap, body: &[u8]) -> (&'static str, String) {
    let server = clean(header(headers, "server"), LONGEST_SERVER);
    let by = if server.is_empty() { String::new() } else { format!(" by the server `{server}`") };
    match status {
        421 => ("NotServed", format!("421{by}: the host is not served there; a replica that is starting says so, too")),
        200 if body.is_empty() => (
            "ForeignServer",
            format!("an empty page{by}, as Caddy sends it for a host that it has no route for; {FOREIGN_ADVICE}"),
        ),
        200..=299 => ("ForeignServer", format!("something that is not this portal's proof{by}; {FOREIGN_ADVICE}")),
        304 => {
            (CACHED, format!("304 (not modified){by}, which only a cache says to a question like this; {CACHE_ADVICE}"))
        }
        404 => ("NotRouted", format!("404{by}; {FOREIGN_ADVICE}")),
        502 | 504 => ("BadGateway", format!("{status}{by}: the proxy does not reach the pages")),
        401 | 403 => (
            "UnexpectedAnswer",
            format!(
                "status {status}{by}: something before the pages asks for a login or forbids the visit, such as an access \
                 list; mailbox owners have no login there, so let this host pass"
            ),
        ),
        _ => ("UnexpectedAnswer", format!("status {status}{by}")),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Printable ASCII of somebody else's text, shortened.
fn clean(text: &str, longest: usize) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').filter(|c| *c != '`').take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "00ff00ff00ff00ff";

    fn saw(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Option<Sighting> {
        let key = Secret::new("k1");
        let url = "https://reset.acme.example";
        let asked = Asked { url, shown: url, host: "reset.acme.example", uid: "u1", nonce: NONCE, key: &key };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, hyper::header::HeaderValue::from_static(value));
        }
        judge(&asked, status, &map, body.as_bytes())
    }
    fn reason(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> &'static str {
        saw(status, headers, body).map_or("Proved", |seen| seen.reason)
    }
    fn proof(key: &str, uid: &str) -> String {
        live::echo(&Secret::new(key), "reset.acme.example", uid, NONCE).to_string()
    }

    #[test]
    fn only_this_portals_own_signature_is_a_proof() {
        assert_eq!(reason(200, &[], &proof("k1", "u1")), "Proved");
        assert_eq!(reason(200, &[], &proof("k1", "u0")), "FormerPortal");
        assert_eq!(reason(200, &[], &proof("k2", "u1")), "OtherInstallation");
        assert_eq!(reason(200, &[], &proof("k2", "u2")), "OtherInstallation");
        assert_eq!(reason(201, &[], &proof("k1", "u1")), "ForeignServer");
        assert_eq!(reason(500, &[], &proof("k1", "u1")), "UnexpectedAnswer");
    }

    #[test]
    fn each_page_of_the_edge_has_a_reason_of_its_own() {
        let edge = [("server", "cloudflare"), ("cf-ray", "8a-FRA")];
        for (status, body, wanted) in [
            (521, "", "OriginRefused"),
            (522, "", "OriginTimeout"),
            (523, "", "OriginUnreachable"),
            (525, "", "OriginTlsFailed"),
            (526, "", "OriginCertificateInvalid"),
            (530, "error code: 1033", "TunnelDown"),
            (530, "<span class=\"cf-error-code\">1016</span>", "OriginNameNotFound"),
            (409, "<h1>Error 1001</h1>", "EdgeNameNotFound"),
            (530, "", "EdgeError"),
            (502, "<title>502 Bad gateway</title>", "BadGateway"),
            (403, "error code: 1020", "EdgeBlocked"),
        ] {
            assert_eq!(reason(status, &edge, body), wanted, "{status} {body}");
        }
        let challenge = [("server", "cloudflare"), ("cf-mitigated", "challenge")];
        assert_eq!(reason(403, &challenge, ""), "ChallengePage");
        assert_eq!(reason(503, &challenge, ""), "ChallengePage");
        // a page that only looks like the edge's
        assert_eq!(reason(409, &[], "Error 1001"), "UnexpectedAnswer");
    }

    #[test]
    fn a_foreign_server_is_named_and_cannot_write_into_the_message() {
        let seen = saw(200, &[("server", "nginx/1.22.1")], "<h1>Welcome</h1>").unwrap();
        assert_eq!(seen.reason, "ForeignServer");
        assert!(seen.message.contains("not this portal's proof by the server `nginx/1.22.1`; "), "{}", seen.message);
        let long: &'static str = Box::leak(format!("`x`\t{}", "y".repeat(500)).into_boxed_str());
        let seen = saw(404, &[("server", long)], "").unwrap();
        assert_eq!(seen.reason, "NotRouted");
        assert!(seen.message.len() < 250 && !seen.message.contains('\t') && !seen.message.contains("`x`"), "{seen:?}");
    }

    #[test]
    fn a_redirect_is_told_with_where_it_leads_and_what_usually_makes_it() {
        let seen = saw(301, &[("location", "https://reset.acme.example/.well-known/x?token=canary")], "").unwrap();
        assert_eq!(seen.reason, "Redirected");
        assert!(seen.message.contains("SSL mode Flexible") && !seen.message.contains("canary"), "{}", seen.message);
        // when it is our own, then it is what the program makes of the request
        let own = (live::REDIRECT_HEADER, "https");
        let to = "https://reset.acme.example/.well-known/portalkeeper/live?nonce=00ff00ff00ff00ff";
        assert_eq!(to.split_once('?').unwrap().0, format!("https://reset.acme.example{}", live::PATH));
        let seen = saw(308, &[("location", to), own], "").unwrap();
        assert_eq!(seen.reason, "HttpsNotSeen");
        for word in ["X-Forwarded-Proto", "TRUSTED_PROXY_COUNT", "TRUSTED_PROXY_CIDRS", "FORCE_HTTPS", "Full (strict)"]
        {
            assert!(seen.message.contains(word), "{word}: {}", seen.message);
        }
        // and nobody else's that leads elsewhere
        assert_eq!(reason(308, &[("location", "https://sso.acme.example/login"), own], ""), "Redirected");
        let seen = saw(302, &[("location", "https://sso.acme.example/login")], "").unwrap();
        assert!(
            seen.message.contains("to https://sso.acme.example/login, probably a redirect rule"),
            "{}",
            seen.message
        );
    }
}
