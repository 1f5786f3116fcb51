//! Caddy by its admin API: one route per portal, every change of a batch in one guarded write.
pub mod double;
mod policy;
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
use crate::plan::{Change, Intent, Mark, Observed, Plan};

/// Tries of one guarded write while others write, too.
const TRIES: usize = 8;
const SERVERS: &str = "/config/apps/http/servers";
const POLICIES: &str = "/config/apps/tls/automation/policies";
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
    /// Verify the certificate of an https admin address.
    pub verify_tls: bool,
    /// Certificates by a DNS challenge at Cloudflare, where Caddy is to see to that.
    pub dns_challenge: Option<DnsChallenge>,
}

/// How Caddy proves to a certificate authority that a host is ours.
#[derive(Debug, Clone)]
pub struct DnsChallenge {
    /// API token, or a placeholder like `{env.CF_API_TOKEN}` that Caddy fills in by itself.
    pub token: Secret,
    /// Without it no portal of this Caddy is in order.
    pub required: bool,
}

/// The routes of one Caddy.
pub struct Caddy {
    client: Client,
    options: CaddyOptions,
    /// Hosts whose last write had no guard, with how long somebody else's change could have been lost by it.
    unguarded: Mutex<HashMap<String, Duration>>,
    /// What came of the TLS policy.
    policy: Mutex<Option<(Truth, &'static str, String)>>,
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
        let mut client = match options.admin_url.scheme() {
            "unix" => {
                // Caddy takes any Host there, as long as there is one.
                let base = Url::parse("http://127.0.0.1:2019")
                    .map_err(|error| BackendError::new(ErrorClass::Permanent, "BadAddress", error.to_string()))?;
                let mut client = ClientOptions::new("caddy", base);
                client.socket = Some(options.admin_url.path().into());
                client
            }
            _ => ClientOptions::new("caddy", options.admin_url.clone()),
        };
        client.verify_tls = options.verify_tls;
        client.max_body = 64 << 20;
        client.timeout = Duration::from_secs(30);
        if let Some(token) = &options.admin_token {
            client.headers = vec![("authorization", Secret::new(format!("Bearer {}", token.expose())))];
        }
        let (unguarded, policy) = (Mutex::default(), Mutex::default());
        Ok(Self { client: Client::new(client)?, options, unguarded, policy })
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
        let challenge = self.options.dns_challenge.iter().map(|challenge| &challenge.token);
        let words = redact(&words, &self.options.admin_token.iter().chain(challenge).collect::<Vec<_>>());
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

    /// Puts the policy where it belongs; guarded like the routes.
    async fn keep_policy(&self, mark: &Mark, challenge: &DnsChallenge) -> Result<policy::Step, BackendError> {
        let wanted = policy::desired(&policy::id(&mark.installation), challenge.token.expose());
        for _ in 0..TRIES {
            let (policies, etag) = self.policies().await?;
            let step = policy::ensure(policies.as_deref().unwrap_or_default(), &wanted);
            let policy::Step::Write(new) = &step else { return Ok(step) };
            if self.write_policies(new, policies.is_some(), etag).await? {
                return Ok(step);
            }
        }
        Err(overtaken())
    }

    /// Takes our policy away when no route of this installation is left.
    async fn drop_policy(&self, mark: &Mark) -> Result<(), BackendError> {
        let prefix = format!("pk1-{}-", mark.installation.as_str());
        let left = self.read_routes().await?.routes;
        if left.iter().any(|route| route["@id"].as_str().is_some_and(|id| id.starts_with(&prefix))) {
            return Ok(());
        }
        for _ in 0..TRIES {
            let (policies, etag) = self.policies().await?;
            let Some(rest) = policy::without(policies.as_deref().unwrap_or_default(), &policy::id(&mark.installation))
            else {
                return Ok(());
            };
            if self.write_policies(&rest, true, etag).await? {
                return Ok(());
            }
        }
        Err(overtaken())
    }

    /// The policies, if there is a list of them, and what guards it.
    async fn policies(&self) -> Result<(Option<Vec<Value>>, Option<String>), BackendError> {
        match self.read(POLICIES).await? {
            None => Ok((None, None)),
            Some((Value::Array(policies), etag)) => Ok((Some(policies), etag)),
            Some(_) => {
                let message = format!("caddy's {POLICIES} is no list");
                Err(BackendError::new(ErrorClass::Unavailable, "OddAnswer", message))
            }
        }
    }

    /// `false` where somebody was faster.
    async fn write_policies(
        &self,
        policies: &[Value],
        there: bool,
        etag: Option<String>,
    ) -> Result<bool, BackendError> {
        let body = Value::Array(policies.to_vec());
        let request = if there { self.client.patch(POLICIES) } else { self.client.put(POLICIES) };
        let request = match etag {
            Some(etag) => request.json(&body).header("if-match", &etag),
            None => request.json(&body),
        };
        match request.send().await {
            Ok(response) if response.status == 200 => Ok(true),
            Ok(response) if matches!(response.status, 409 | 412) => Ok(false),
            Ok(response) => Err(self.refusal(&response)),
            // Each change restarts Caddy's admin endpoint: the next read tells what happened.
            Err(error) if error.outcome_unknown() => Ok(false),
            Err(error) => Err(unreachable(error)),
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
        if self.options.admin_url.scheme() == "unix" {
            return format!("caddy/unix:{}", self.options.admin_url.path());
        }
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
            Ok(outcomes) => {
                let leaves = |change: &&Change<Route>| matches!(change, Change::Delete { .. } | Change::Release { .. });
                if let (Some(change), true) = (plan.changes.iter().find(leaves), self.options.dns_challenge.is_some())
                    && let Err(error) = self.drop_policy(change.mark()).await
                {
                    tracing::warn!(reason = error.reason, "a TLS policy without portals may stay in Caddy: {error}");
                }
                outcomes
            }
            Err(error) => plan.changes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn upkeep(&self, mark: &Mark) {
        let Some(challenge) = &self.options.dns_challenge else { return };
        let failed = if challenge.required { Truth::False } else { Truth::True };
        let told = match self.keep_policy(mark, challenge).await {
            Ok(policy::Step::Foreign) => Some((
                Truth::True,
                "ForeignTlsPolicy",
                "Caddy has a TLS policy of somebody else for all names, which sees to the certificates; ours was not added"
                    .to_owned(),
            )),
            Ok(_) => None,
            Err(error) if error.message.contains(policy::MODULE) => Some((
                failed,
                "DnsModuleMissing",
                format!(
                    "this Caddy was built without the module {}, so it cannot get certificates by a DNS challenge at Cloudflare; \
                     use a build that has it (xcaddy build --with github.com/caddy-dns/cloudflare), or switch proxy.caddy.dnsChallenge off",
                    policy::MODULE
                ),
            )),
            // What hinders reads hinders the routes as well and is told there.
            Err(error) => Some((Truth::Unknown, "TlsPolicyUnknown", format!("Caddy's TLS policy cannot be kept: {error}"))),
        };
        *lock(&self.policy) = told;
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
        let mut doubts: Vec<Doubt> = told.collect();
        if let Some((truth, reason, message)) = lock(&self.policy).clone() {
            doubts.extend(items.iter().map(|item| {
                let message = format!("{} is in place in {}; {message}", item.host, self.instance());
                Doubt { key: item.host.clone(), truth, reason, message }
            }));
        }
        doubts
    }

    /// Caddy forgets routes at a reload, so it is looked at often; a read costs it less than a millisecond.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRoute"
    }
}
