//! What Traefik itself says it has loaded, through its API.
use serde_json::Value;
use url::Url;

use super::fragment::{Entry, Word, owner_of};
use super::rules::hosts_of_rule;
use crate::api::condition::Truth;
use crate::backends::{BackendError, ErrorClass};
use crate::http::{Client, ClientOptions, HttpError, Response, path_segment};
use crate::plan::Ownership;

/// The API of one Traefik.
#[derive(Clone)]
pub struct Live {
    client: Client,
}

/// What is not as it should be, with a stable reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub truth: Truth,
    pub reason: &'static str,
    pub message: String,
}

/// Reason of a file that Traefik has not taken in.
pub const NOT_LOADED: &str = "NotLoaded";
/// Reason of a service that is not as it is written.
pub const SERVICE_DIFFERS: &str = "ServiceDiffers";

fn trouble(reason: &'static str, message: String) -> Option<Trouble> {
    Some(Trouble { truth: Truth::False, reason, message })
}

impl Live {
    /// Errors: an address that is not http or https.
    pub fn new(api_url: Url) -> Result<Self, HttpError> {
        let mut options = ClientOptions::new("traefik", api_url);
        options.max_body = 16 << 20;
        Ok(Self { client: Client::new(options)? })
    }

    /// Routers of any provider that name the host and are not of our files: `name: rule`.
    pub async fn others(&self, host: &str) -> Result<Vec<String>, BackendError> {
        let mut others = Vec::new();
        let mut page = "1".to_owned();
        loop {
            let request = self.client.get("/api/http/routers");
            let response = request.query(&[("search", host), ("per_page", "100"), ("page", &page)]).send().await?;
            let next = response.headers.get("x-next-page").and_then(|next| next.to_str().ok()).map(str::to_owned);
            let Value::Array(routers) = expect_ok(&response)? else { return Err(odd(&response)) };
            for router in routers {
                let name = router["name"].as_str().unwrap_or_default();
                // Those of files are known from the folder.
                let of_file = name.ends_with("@file");
                let ours = matches!(owner_of(name.split('@').next().unwrap_or_default()), Ownership::Marked(_));
                let rule = router["rule"].as_str().unwrap_or_default();
                if !of_file && !ours && hosts_of_rule(rule).iter().any(|one| one == host) {
                    others.push(name.to_owned());
                }
            }
            // The page after the last one is the first.
            match next.filter(|next| next.parse::<u32>().ok() > page.parse().ok()) {
                Some(next) => page = next,
                None => return Ok(others),
            }
        }
    }

    /// What Traefik says against the entry; `None` when it has loaded just this and uses it.
    pub async fn against(&self, name: &str, entry: &Entry, entry_points: &[Word]) -> Option<Trouble> {
        match self.compare(name, entry, entry_points).await {
            Ok(found) => found,
            Err(error) => Some(Trouble {
                truth: Truth::Unknown,
                reason: error.reason,
                message: format!("the file is written; Traefik could not be asked about it: {}", error.message),
            }),
        }
    }

    async fn compare(&self, name: &str, entry: &Entry, entry_points: &[Word]) -> Result<Option<Trouble>, BackendError> {
        let Some(router) = self.one("routers", name).await? else {
            let message = format!(
                "the file is written; Traefik has not loaded the router {name} yet; if that lasts, its log names what it cannot \
                 read in the folder"
            );
            return Ok(trouble(NOT_LOADED, message));
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let errors: Vec<String> = router["error"].as_array().into_iter().flatten().map(text).collect();
        let status = text(&router["status"]);
        if text(&router["rule"]) != text(&entry.router["rule"]) {
            let message = format!(
                "Traefik's router {name} has the rule {}; another file of the folder has a router of this name",
                text(&router["rule"])
            );
            return Ok(trouble("RouterTaken", message));
        }
        if text(&router["service"]) != text(&entry.router["service"]) {
            let message = format!("Traefik's router {name} leads to the service {}", text(&router["service"]));
            return Ok(trouble("RouterTaken", message));
        }
        if status != "enabled" || !errors.is_empty() {
            let why = if errors.is_empty() { "it gives no reason".to_owned() } else { errors.join("; ") };
            return Ok(trouble("RouterDisabled", format!("Traefik says {status} to the router {name}: {why}")));
        }
        let tls = |router: &Value| (!router["tls"].is_null()).then(|| text(&router["tls"]["certResolver"]));
        if tls(&router) != tls(&entry.router) {
            let message = format!("the file is written; Traefik still has the router {name} with other TLS settings");
            return Ok(trouble(NOT_LOADED, message));
        }
        let used: Vec<String> = router["using"].as_array().into_iter().flatten().map(text).collect();
        if let Some(missing) = entry_points.iter().find(|point| !used.iter().any(|one| one == point.as_str())) {
            let message = format!(
                "Traefik has no entry point {missing}; name its own in proxy.traefik.entryPoints (TRAEFIK_ENTRYPOINTS)"
            );
            return Ok(trouble("EntryPointMissing", message));
        }
        let service = self.one("services", name).await?.unwrap_or(Value::Null);
        let leads = text(&service["loadBalancer"]["servers"][0]["url"]);
        if leads != entry.target() {
            let message = match leads.is_empty() {
                true => format!("Traefik has not loaded the service {name} yet"),
                false => format!("Traefik's service {name} leads to {leads} and not to {}", entry.target()),
            };
            return Ok(trouble(SERVICE_DIFFERS, message));
        }
        Ok(None)
    }

    async fn one(&self, kind: &str, name: &str) -> Result<Option<Value>, BackendError> {
        let path = format!("/api/http/{kind}/{}@file", path_segment(name));
        let response = self.client.get(&path).send().await?;
        match response.status {
            // An API that is not there answers 404, too, but not in JSON.
            404 if response.json().is_ok_and(|answer| answer["message"].is_string()) => Ok(None),
            _ => expect_ok(&response).map(Some),
        }
    }
}

fn expect_ok(response: &Response) -> Result<Value, BackendError> {
    match response.status {
        200 => Ok(response.json()?),
        401 | 403 => {
            let message = format!("Traefik's API refused ({}); it must be open to this program", response.status);
            Err(BackendError::new(ErrorClass::Credential, "ApiRefused", message))
        }
        404 => {
            let message = "there is no Traefik API at this address; switch it on (api.insecure, or a router to api@internal), leave \
                           /api and /dashboard out of its address, or leave out proxy.traefik.apiUrl (TRAEFIK_API_URL)";
            Err(BackendError::new(ErrorClass::Permanent, "NoApi", message))
        }
        _ => Err(odd(response)),
    }
}

fn odd(response: &Response) -> BackendError {
    let message = format!("Traefik's API answered {} with something unexpected", response.status);
    BackendError::new(ErrorClass::Unavailable, "OddAnswer", message)
}
