//! Caddy by its admin API: one route per portal, every change of a batch in one guarded write.
pub mod double;
mod routes;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use url::Url;

pub use self::routes::Route;
use self::routes::{Server, find_server};
use super::{Backend, BackendError, Doubt, ErrorClass, Scope};
use crate::api::condition::Truth;
use crate::config::{Secret, redact};
use crate::http::double::lock;
use crate::http::{Client, ClientOptions, Request, Response, path_segment};
use crate::plan::{Change, Intent, Observed, Plan};

/// Tries of one guarded write while others write, too.
const TRIES: usize = 8;
const SERVERS: &str = "/config/apps/http/servers";
/// Name of the server that is made where there is none.
const OWN_SERVER: &str = "portalkeeper";

/// One Caddy.
#[derive(Debug, Clone)]
pub struct CaddyOptions {
    /// Admin address, `http://127.0.0.1:2019`.
    pub admin_url: Url,
    /// Where Caddy finds the pages: `127.0.0.1:5000`.
    pub origin: String,
    /// Bearer token, where something in front of the admin API wants one.
    pub admin_token: Option<Secret>,
    /// Listen address of the server that gets the routes.
    pub listen: Option<String>,
    /// Public addresses are https, so the server on `:443` is meant rather than `:80`.
    pub https: bool,
}

/// The routes of one Caddy.
pub struct Caddy {
    client: Client,
    options: CaddyOptions,
    /// Hosts whose last write had no guard, with how long somebody else's change could have been lost by it.
    unguarded: Mutex<HashMap<String, Duration>>,
}

/// The routes with what guards them.
struct Read {
    server: String,
    routes: Vec<Value>,
    /// Absent before Caddy 2.8, which sends it as a trailer.
    etag: Option<String>,
    /// The server has no `routes` key, or is not there at all.
    missing: Option<Missing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Routes,
    Server,
}

impl Caddy {
    /// Errors: an address or a token that cannot be used at all.
    pub fn new(options: CaddyOptions) -> Result<Self, BackendError> {
        let mut client = ClientOptions::new("caddy", options.admin_url.clone());
        client.max_body = 64 << 20;
        client.timeout = Duration::from_secs(30);
        if let Some(token) = &options.admin_token {
            client.headers = vec![("authorization", Secret::new(format!("Bearer {}", token.expose())))];
        }
        Ok(Self { client: Client::new(client)?, options, unguarded: Mutex::default() })
    }

    fn refusal(&self, response: &Response) -> BackendError {
        let body = String::from_utf8_lossy(&response.body);
        let words = serde_json::from_slice::<Value>(&response.body)
            .ok()
            .and_then(|value| value["error"].as_str().map(str::to_owned))
            .unwrap_or_else(|| body.chars().take(200).collect());
        // Caddy's own words may quote a token of its configuration.
        let words = match words.find("API token '") {
            Some(at) => format!("{}API token [redacted]", &words[..at]),
            None => words,
        };
        let words = redact(&words, &self.options.admin_token.iter().collect::<Vec<_>>());
        let status = response.status;
        let (class, reason, advice) = match status {
            401 => (ErrorClass::Credential, "TokenRefused", ""),
            403 if words.contains("host not allowed") => (
                ErrorClass::Permanent,
                "AdminHostRefused",
                "; add the host of the admin address to admin.origins in Caddy's configuration",
            ),
            403 => (ErrorClass::Credential, "TokenRefused", ""),
            500.. => (ErrorClass::Unavailable, "CaddyRefused", ""),
            _ => (ErrorClass::Permanent, "CaddyRefused", ""),
        };
        BackendError::new(class, reason, format!("caddy refused ({status}): {}{advice}", words.trim()))
    }

    /// Reads a path of the configuration. A path that is not there is `None`.
    async fn read(&self, path: &str) -> Result<Option<(Value, Option<String>)>, BackendError> {
        let response = self.client.get(path).send().await.map_err(unreachable)?;
        if response.status == 400 && String::from_utf8_lossy(&response.body).contains("invalid traversal path") {
            return Ok(None);
        }
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        let etag = response.headers.get("etag").and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let value = response.json().map_err(BackendError::from)?;
        Ok((!value.is_null()).then_some((value, etag)))
    }

    async fn read_routes(&self) -> Result<Read, BackendError> {
        let servers = self.read(SERVERS).await?.map_or(Value::Null, |(servers, _)| servers);
        let server = match find_server(&servers, self.options.listen.as_deref(), self.options.https)? {
            Server::Found(name) => name,
            Server::None => {
                let (server, missing) = (OWN_SERVER.to_owned(), Some(Missing::Server));
                return Ok(Read { server, routes: Vec::new(), etag: None, missing });
            }
        };
        let path = routes_path(&server);
        let Some((routes, etag)) = self.read(&path).await? else {
            return Ok(Read { server, routes: Vec::new(), etag: None, missing: Some(Missing::Routes) });
        };
        let Value::Array(routes) = routes else {
            return Err(BackendError::new(ErrorClass::Unavailable, "OddAnswer", format!("caddy's {path} is no list")));
        };
        Ok(Read { server, routes, etag, missing: None })
    }

    fn write_request(&self, read: &Read, routes: &[Value]) -> Request {
        let path = routes_path(&read.server);
        match read.missing {
            None => {
                let request = self.client.patch(&path).json(&Value::Array(routes.to_vec()));
                match &read.etag {
                    Some(etag) => request.header("if-match", etag),
                    None => request,
                }
            }
            Some(Missing::Routes) => self.client.put(&path).json(&Value::Array(routes.to_vec())),
            Some(Missing::Server) => {
                let standard = if self.options.https { ":443" } else { ":80" };
                let listen = self.options.listen.as_deref().unwrap_or(standard);
                self.client.put(&format!("{SERVERS}/{OWN_SERVER}")).json(&json!({"listen": [listen], "routes": routes}))
            }
        }
    }

    /// Remembers for which hosts a write may have taken somebody else's change away: the array was replaced as it was
    /// read, and an old Caddy has no way to say that it is another one by then.
    fn note_guard(&self, plan: &Plan<Route>, read: &Read, window: Duration) {
        let replaced = read.etag.is_none() && read.missing.is_none();
        let mut unguarded = lock(&self.unguarded);
        for change in &plan.changes {
            match change {
                Change::Create { item, .. } | Change::Update { to: item, .. } | Change::Adopt { to: item, .. }
                    if replaced =>
                {
                    let longest = unguarded.entry(item.host.clone()).or_default();
                    *longest = window.max(*longest);
                }
                change => {
                    unguarded.remove(change.key());
                }
            }
        }
        if replaced {
            let (instance, milliseconds) = (self.instance(), window.as_millis());
            tracing::warn!(%instance, milliseconds, "routes were replaced without a guard; {UNGUARDED}");
        }
    }

    /// Reads, computes and writes until nobody was in between.
    async fn guarded_write(
        &self,
        plan: &Plan<Route>,
    ) -> Result<Vec<Result<Option<String>, BackendError>>, BackendError> {
        let mut last = None;
        for _ in 0..TRIES {
            let asked = Instant::now();
            let read = self.read_routes().await?;
            let (routes, outcomes) = routes::apply(&read.routes, plan);
            if routes == read.routes {
                return Ok(outcomes);
            }
            let written = self.write_request(&read, &routes).send().await;
            self.note_guard(plan, &read, asked.elapsed());
            match written {
                Ok(response) if response.status == 200 => {
                    // Old Caddys answer 200 whoever wrote in between: only a second look tells.
                    if read.etag.is_none() {
                        let now = self.read_routes().await?;
                        if now.routes != routes {
                            last = Some(overtaken());
                            continue;
                        }
                    }
                    return Ok(outcomes);
                }
                Ok(response) if matches!(response.status, 409 | 412) => last = Some(overtaken()),
                Ok(response) => return Err(self.refusal(&response)),
                // Each change restarts Caddy's admin endpoint: the next read tells what happened.
                Err(error) if error.outcome_unknown() => last = Some(BackendError::of_write(error)),
                Err(error) => return Err(unreachable(error)),
            }
        }
        Err(last.unwrap_or_else(overtaken))
    }
}

/// What a write without a guard means.
const UNGUARDED: &str = "Caddy before 2.8 cannot refuse a write that is based on an older state: what somebody else changed \
                         in the routes of this server meanwhile may be lost; look whether something is missing, and \
                         update Caddy to 2.8 or newer";

fn overtaken() -> BackendError {
    BackendError::new(
        ErrorClass::Unavailable,
        "TooManyWriters",
        "caddy's configuration changed each time while it was being written; the next try looks again",
    )
}

fn unreachable(error: crate::http::HttpError) -> BackendError {
    let mut failure = BackendError::from(error);
    if failure.reason == "Unreachable" {
        failure.message = failure.message.replacen("cannot reach caddy", "cannot reach Caddy's admin API", 1);
        failure.message.push_str("; check that Caddy runs and that this is its admin address");
    }
    failure
}

fn routes_path(server: &str) -> String {
    format!("{SERVERS}/{}/routes", path_segment(server))
}

#[async_trait]
impl Backend for Caddy {
    type Item = Route;

    fn instance(&self) -> String {
        let host = self.options.admin_url.host_str().unwrap_or_default();
        match self.options.admin_url.port_or_known_default() {
            Some(port) => format!("caddy/{host}:{port}"),
            None => format!("caddy/{host}"),
        }
    }

    fn desired(&self, intent: &Intent) -> Vec<Route> {
        vec![routes::desired(intent, &self.options.origin)]
    }

    async fn observe(&self, _: &Scope) -> Result<Vec<Observed<Route>>, BackendError> {
        Ok(routes::observe(&self.read_routes().await?.routes))
    }

    async fn apply(&self, plan: &Plan<Route>) -> Vec<Result<Option<String>, BackendError>> {
        match self.guarded_write(plan).await {
            Ok(outcomes) => outcomes,
            Err(error) => plan.changes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// A route that stands is a route that stands; what its write may have cost others is told beside it.
    async fn doubts(&self, items: &[Route]) -> Vec<Doubt> {
        let unguarded = lock(&self.unguarded);
        let told = items.iter().filter_map(|item| {
            let window = unguarded.get(&item.host)?;
            let (key, reason) = (item.host.clone(), "WrittenUnguarded");
            let message = format!(
                "{key} is in place in {}, written without a guard within {} ms: {UNGUARDED}",
                self.instance(),
                window.as_millis().max(1)
            );
            Some(Doubt { key, truth: Truth::True, reason, message })
        });
        told.collect()
    }

    /// Caddy forgets routes at a reload, so it is looked at often; a read costs it less than a millisecond.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRoute"
    }
}
