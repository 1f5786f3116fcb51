//! Proof of life: asks the public host, the way a visitor's browser would, for a signed echo.
use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use crate::api::HostName;
use crate::api::condition::{Finding, LIVE, Truth};
use crate::config::Secret;
use crate::http::{Client, ClientOptions, Response};
use crate::reset::live;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whom to ask, and how to get there.
pub struct Probe<'a> {
    pub key: &'a Secret,
    pub url: &'a str,
    pub host: &'a HostName,
    pub uid: &'a str,
    /// Connect here instead of where DNS says.
    pub address: Option<&'a str>,
}

fn dead(reason: &'static str, message: String) -> Finding {
    Finding::new(LIVE, Truth::False, reason, message)
}

/// One request with a fresh nonce. `Live` is true only for this installation's signature over it.
pub async fn probe(probe: &Probe<'_>) -> Finding {
    let url = probe.url;
    let client = match client(probe) {
        Ok(client) => client,
        Err(message) => return dead("InvalidProbeAddress", message),
    };
    let nonce = live::nonce();
    let mut request = client.get(live::PATH).query(&[("nonce", &nonce)]);
    if let (Some(_), Some(authority)) = (probe.address, url.split_once("://").map(|(_, authority)| authority)) {
        request = request.header("host", authority);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return dead("Unreachable", format!("{url} does not answer: {error}")),
    };
    let answer = response.json().ok();
    let given = answer.as_ref().and_then(|value| value["proof"].as_str()).unwrap_or_default();
    if response.status == 200 && live::verify(probe.key, probe.host.as_str(), probe.uid, &nonce, given) {
        return Finding::new(LIVE, Truth::True, "Proved", format!("{url} answered with this portal's proof"));
    }
    let what = match response.status {
        200 => "something that is not this portal's proof; another program or installation serves the host".to_owned(),
        301 | 302 | 303 | 307 | 308 => {
            let to = response.headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            let to: String = to.chars().filter(|c| !c.is_control()).take(200).collect();
            format!("a redirect to {to}; the proxy must pass {} through", live::PATH)
        }
        530 => {
            let code = cloudflare_code(&String::from_utf8_lossy(&response.body));
            let code = code.map_or_else(String::new, |code| format!(", error {code} of Cloudflare"));
            format!("status 530{code}: its record leads to a tunnel that no connector is up for, or to nothing; see that cloudflared runs and that the tunnel exists")
        }
        502 if from_cloudflare(&response) => {
            "status 502 of Cloudflare: what stands behind it does not answer; see that the proxy or the tunnel's connector reaches the pages".to_owned()
        }
        421 => "421: the request reached Portalkeeper, which does not serve this host yet".to_owned(),
        status => format!("status {status}"),
    };
    dead("NotProved", format!("{url} answered with {what}"))
}

fn from_cloudflare(response: &Response) -> bool {
    response.headers.get("server").is_some_and(|server| server.as_bytes().eq_ignore_ascii_case(b"cloudflare"))
}

/// The number of an error page of Cloudflare's edge: `error code: 1033`, `Error 1033`.
fn cloudflare_code(page: &str) -> Option<u16> {
    let code = regex::Regex::new(r"(?i)error\D{0,30}(1\d{3})\b").ok()?;
    code.captures(page)?.get(1)?.as_str().parse().ok()
}

fn client(probe: &Probe<'_>) -> Result<Client, String> {
    let mut base = Url::parse(probe.url).map_err(|error| format!("the address {} is not valid: {error}", probe.url))?;
    let mut pin = None;
    if let Some(text) = probe.address {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("probe.address `{text}` is not an address with a port, like 127.0.0.1:8443"))?;
        // The port of the address wins; the Host header still says the public one.
        let _ = base.set_port(Some(address.port()));
        pin = Some(address);
    }
    let mut options = ClientOptions::new("probe", base);
    options.timeout = TIMEOUT;
    options.max_body = 64 * 1024;
    options.pin = pin;
    Client::new(options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_error_page_is_found() {
        for (page, code) in [
            ("error code: 1033", Some(1033)),
            ("<title>Argo Tunnel error</title><h1>Error <span>1033</span></h1>", Some(1033)),
            ("error 502: 1033", None),
            ("nothing", None),
        ] {
            assert_eq!(cloudflare_code(page), code, "{page}");
        }
    }
}
