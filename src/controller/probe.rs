//! Proof of life: asks the public host, the way a visitor's browser would, for a signed echo.
use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use super::sighting::{Asked, Sighting, judge, no_answer, not_asked, unusable_address};
use crate::api::HostName;
use crate::config::{Secret, visible};
use crate::http::{Client, ClientOptions, Names};
use crate::reset::live;
use crate::telemetry::metrics;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes: a proof is short.
const LARGEST: usize = 64 * 1024;

/// Whom to ask.
pub struct Probe<'a> {
    pub key: &'a Secret,
    /// Public address, `https://host[:port]`.
    pub url: &'a str,
    pub host: &'a HostName,
    pub uid: &'a str,
}

/// How to get there.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    /// As visitors do, by the public DNS and to public addresses only.
    Public(&'a dyn Names),
    /// To this `address:port` of the class, whatever DNS says.
    Pinned(&'a str),
    /// To this public host of a proxy instead of the portal's own: before a record points there.
    Through(&'a dyn Names, &'a HostName),
}

/// One request with a fresh nonce, never repeated and never led elsewhere by a redirect. Right only for this
/// installation's signature over it.
pub async fn probe(probe: &Probe<'_>, way: Way<'_>) -> Result<(), Sighting> {
    let outcome = ask(probe, way).await;
    // Whoever answered may have had a say in the words.
    let outcome = outcome.map_err(|seen| Sighting { message: visible(&seen.message), ..seen });
    metrics::probed(outcome.as_ref().map_or_else(|seen| seen.reason, |()| "Proved"));
    outcome
}

async fn ask(probe: &Probe<'_>, way: Way<'_>) -> Result<(), Sighting> {
    let url = probe.url;
    let odd = |words: String| Sighting { reason: "InvalidAddress", message: words };
    let mut base = Url::parse(url).map_err(|error| odd(format!("the address {url} is not valid: {error}")))?;
    let port = base.port_or_known_default().unwrap_or(443);
    let pins = match way {
        Way::Pinned(text) => vec![text.parse::<SocketAddr>().map_err(|_| unusable_address(text))?],
        Way::Public(names) => {
            names.addresses(probe.host.as_str(), port).await.map_err(|error| not_asked(&error, false))?
        }
        Way::Through(names, proxy) => {
            names.addresses(proxy.as_str(), port).await.map_err(|error| not_asked(&error, true))?
        }
    };
    let shown = match way {
        Way::Public(_) => url.to_owned(),
        Way::Pinned(address) => format!("{url} (asked at {address}, probe.address of the class)"),
        Way::Through(_, proxy) => {
            let addresses: Vec<String> = pins.iter().map(SocketAddr::to_string).collect();
            format!("{url} (asked at {}, where {proxy} is)", addresses.join(" or "))
        }
    };
    // The port of the address wins; the Host header still says the public one.
    let other = pins.first().map(SocketAddr::port).filter(|other| *other != port);
    let _ = base.set_port(Some(other.unwrap_or(port)));
    let mut options = ClientOptions::new("probe", base);
    options.timeout = TIMEOUT;
    options.max_body = LARGEST;
    options.pins = pins;
    // The next probe must find its own way.
    options.pooled = false;
    let client = Client::new(options).map_err(|error| odd(error.to_string()))?;
    let nonce = live::nonce();
    let mut request = client.get(live::PATH).query(&[("nonce", &nonce)]).single();
    if let (Some(_), Some((_, authority))) = (other, url.split_once("://")) {
        request = request.header("host", authority);
    }
    let answer = request.send().await.map_err(|error| no_answer(&shown, &error))?;
    let asked = Asked { url, shown: &shown, host: probe.host.as_str(), uid: probe.uid, nonce: &nonce, key: probe.key };
    match judge(&asked, answer.status, &answer.headers, &answer.body) {
        None => Ok(()),
        Some(seen) => Err(seen),
    }
}
