//! Caddy by its admin API: one route per portal, every change of a batch in one guarded write.
mod admin;
mod certificates;
mod challenges;
pub mod double;
mod identity;
mod order;
mod policies;
mod policy;
mod routes;
mod servers;
mod supplies;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use url::Url;

use self::admin::{Admin, OnBehalf, Outcome, PAUSE, Part, REMOVED, TRIES, UNGUARDED, WRITTEN, overtaken, within};
pub use self::challenges::Challenges;
use self::policies::Told;
pub use self::routes::Route;
use self::servers::{Outcomes, Server, elsewhere, find_server};
use super::origin_ca::certified;
use super::origin_ca::kept::{Own, Tls};
use super::origin_ca::supply::{Needed, OriginCertificates, Supply};
use super::{Backend, BackendError, Doubt, ErrorClass, Remark, Scope};
use crate::api::condition::Truth;
use crate::config::Secret;
use crate::http::double::lock;
use crate::http::{Client, ClientOptions, ClientTls, path_segment};
use crate::plan::{CertificateMode, Change, Intent, Mark, Observed, Plan};

const SERVERS: &str = "/config/apps/http/servers";
const POLICIES: &str = "/config/apps/tls/automation/policies";
const CERTIFICATES: &str = "/config/apps/tls/certificates/load_pem";

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
    /// Whom to trust there, and what to show: Caddy's `admin.remote` asks who calls.
    pub tls: ClientTls,
    /// Certificates by a DNS challenge at Cloudflare, where Caddy is to see to that.
    pub dns_challenge: Option<DnsChallenge>,
    /// Those of all classes of this Caddy.
    pub challenges: Challenges,
    /// Certificates of Cloudflare's Origin CA instead.
    pub origin_ca: Option<OriginCertificates>,
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
    admin: Admin,
    options: CaddyOptions,
    /// Hosts whose last write had no guard, with how long somebody else's change could have been lost by it.
    unguarded: Mutex<HashMap<String, Duration>>,
    /// What keeps requests from our routes, by host, as of the last look.
    obstacles: Mutex<HashMap<String, Doubt>>,
    /// What came of the TLS policy.
    policy: Mutex<Told>,
    supply: Supply,
    /// Nothing is wanted of the Origin CA, and the last look saw nothing left over of it.
    no_leftovers: AtomicBool,
}

impl Caddy {
    /// Errors: an address or a token that cannot be used at all.
    pub fn new(options: CaddyOptions) -> Result<Self, BackendError> {
        let mut client = match options.admin_url.scheme() {
            "unix" => {
                let base = Url::parse("http://127.0.0.1:2019")
                    .map_err(|error| BackendError::new(ErrorClass::Permanent, "BadAddress", error.to_string()))?;
                let mut client = ClientOptions::new("caddy", base);
                client.socket = Some(options.admin_url.path().into());
                client
            }
            _ => ClientOptions::new("caddy", options.admin_url.clone()),
        };
        client.verify_tls = options.verify_tls;
        client.tls = options.tls.clone();
        client.max_body = 64 << 20;
        client.timeout = Duration::from_secs(30);
        if let Some(token) = &options.admin_token {
            client.headers = vec![("authorization", Secret::new(format!("Bearer {}", token.expose())))];
        }
        let challenge = options.dns_challenge.as_ref().map(|challenge| challenge.token.clone());
        let secrets = options.admin_token.clone().into_iter().chain(challenge).collect();
        let challenges = options.challenges.clone();
        let admin = Admin::new(Client::new(client)?, instance(&options.admin_url), secrets, challenges);
        let supply = Supply::new(options.origin_ca.clone());
        let (unguarded, obstacles, policy) = (Mutex::default(), Mutex::default(), Mutex::default());
        let no_leftovers = AtomicBool::new(false);
        Ok(Self { admin, options, unguarded, obstacles, policy, supply, no_leftovers })
    }

    /// All servers, and the one that gets the routes.
    async fn servers(&self) -> Result<(Part, Result<Server, BackendError>), BackendError> {
        let servers = self.admin.read(SERVERS).await?;
        let chosen = find_server(&servers.value, self.options.listen.as_deref(), self.options.https);
        Ok((servers, chosen))
    }

    /// Writes what the plan makes of the servers, once.
    async fn write(&self, plan: &Plan<Route>) -> Result<(Outcome, Outcomes), BackendError> {
        let (servers, chosen) = self.servers().await?;
        let any = servers.value.as_object().is_some_and(|all| !all.is_empty());
        let of_all = match &chosen {
            Ok(Server::Found(name)) => servers::needs_all(name, plan),
            Ok(Server::New(_)) => any,
            Err(_) => false,
        };
        if of_all || plan.changes.iter().any(|change| elsewhere(change).is_some()) {
            let (after, outcomes) = servers::rearrange(&servers.value, &chosen, plan);
            return Ok((self.replace(&servers, after, plan).await?, outcomes));
        }
        match chosen {
            Err(error) => Ok((Outcome::Written, servers::without_server(plan, &error))),
            Ok(Server::New(server)) => {
                let (routes, outcomes) = routes::apply(&[], plan);
                if routes.is_empty() {
                    return Ok((Outcome::Written, outcomes));
                }
                self.note_guard(plan, None);
                let path = format!("{SERVERS}/{}", path_segment(server.name()));
                Ok((self.admin.create(&path, &server.with(routes)).await?, outcomes))
            }
            Ok(Server::Found(name)) => {
                let list = self.admin.list(&routes_path(&name)).await?;
                let (routes, outcomes) = routes::apply(list.items(), plan);
                Ok((self.replace(&list, Value::Array(routes), plan).await?, outcomes))
            }
        }
    }

    async fn replace(&self, part: &Part, value: Value, plan: &Plan<Route>) -> Result<Outcome, BackendError> {
        let still_none = part.value.is_null() && value.as_array().is_some_and(Vec::is_empty);
        if value == part.value || still_none {
            return Ok(Outcome::Written);
        }
        let reason = |change: &Change<Route>| if leaves(change) { REMOVED } else { WRITTEN };
        let on_behalf: Vec<OnBehalf<'_>> = plan.changes.iter().map(|change| (change.mark(), reason(change))).collect();
        let (outcome, window) = self.admin.replace(part, value, &on_behalf).await?;
        self.note_guard(plan, window);
        Ok(outcome)
    }

    fn note_obstacles(&self, scope: &Scope, found: HashMap<String, Doubt>) {
        let mut obstacles = lock(&self.obstacles);
        scope.hosts.iter().for_each(|host| drop(obstacles.remove(host.as_str())));
        obstacles.extend(found);
    }

    /// Remembers for which hosts a write may have taken somebody else's change away.
    fn note_guard(&self, plan: &Plan<Route>, window: Option<Duration>) {
        let mut unguarded = lock(&self.unguarded);
        for change in &plan.changes {
            match (change, window) {
                (
                    Change::Create { item, .. } | Change::Update { to: item, .. } | Change::Adopt { to: item, .. },
                    Some(window),
                ) => {
                    let longest = unguarded.entry(item.host.clone()).or_default();
                    *longest = window.max(*longest);
                }
                (change, _) => {
                    unguarded.remove(change.key());
                }
            }
        }
    }

    /// Makes the changes whose certificates are there.
    async fn apply_ready(&self, plan: &Plan<Route>, needed: &Needed) -> Vec<Result<Option<String>, BackendError>> {
        if plan.changes.is_empty() {
            return Vec::new();
        }
        let mut outcomes = match self.guarded_write(plan).await {
            Ok(outcomes) => outcomes,
            Err(error) => return plan.changes.iter().map(|_| Err(error.clone())).collect(),
        };
        let Some(leaving) = plan.changes.iter().find(|change| leaves(change)) else { return outcomes };
        if let Err(error) = self.discard(&plan.changes, needed).await {
            let left = plan.changes.iter().zip(&mut outcomes).filter(|(change, _)| leaves(change));
            left.for_each(|(_, outcome)| *outcome = Err(error.clone()));
        }
        if let Err(error) = self.drop_policy(leaving.mark()).await {
            tracing::warn!(reason = error.reason, "a TLS policy without portals may stay in Caddy: {error}");
        }
        outcomes
    }

    /// Reads, computes and writes until nobody was in between.
    async fn guarded_write(&self, plan: &Plan<Route>) -> Result<Outcomes, BackendError> {
        let mut last = None;
        let mut pause = PAUSE;
        for _ in 0..TRIES {
            if last.is_some() {
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2);
            }
            match self.write(plan).await? {
                (Outcome::Written, outcomes) => return Ok(outcomes),
                (Outcome::ReadAgain(error), _) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(overtaken))
    }
}

fn leaves(change: &Change<Route>) -> bool {
    matches!(change, Change::Delete { .. } | Change::Release { .. })
}

fn instance(admin_url: &Url) -> String {
    if admin_url.scheme() == "unix" {
        return format!("caddy/unix:{}", admin_url.path());
    }
    let host = admin_url.host_str().unwrap_or_default();
    match admin_url.port_or_known_default() {
        Some(port) => format!("caddy/{host}:{port}"),
        None => format!("caddy/{host}"),
    }
}

fn routes_path(server: &str) -> String {
    format!("{SERVERS}/{}/routes", path_segment(server))
}

#[async_trait]
impl Backend for Caddy {
    type Item = Route;

    fn instance(&self) -> String {
        self.admin.instance().to_owned()
    }

    fn desired(&self, intent: &Intent) -> Vec<Route> {
        let signed = self.supply.is_wanted() && intent.certificate == CertificateMode::Proxy;
        let tls = if signed { Tls::Wanted } else { Tls::Elsewhere };
        vec![routes::desired(intent, &self.options.origin, tls)]
    }

    /// That no server fits is told when something is to be made: what there is of ours can be removed all the same.
    async fn observe(&self, scope: &Scope) -> Result<Vec<Observed<Route>>, BackendError> {
        let (servers, chosen) = self.servers().await?;
        let chosen = chosen.ok();
        let chosen = chosen.as_ref().map(Server::name);
        let routes = servers::observe(&servers.value, chosen, &scope.marks);
        let found = chosen.map(|name| servers::obstacles(&servers.value, name, scope, self.admin.instance()));
        self.note_obstacles(scope, found.unwrap_or_default());
        let own = self.own_certificates().await?;
        let id = |own: &Own| identity::route_id(&own.mark, &own.host);
        Ok(certified::with_certificates(routes, &own, self.supply.is_wanted(), id))
    }

    /// Certificates come before the routes and go after them.
    async fn apply(&self, plan: &Plan<Route>) -> Vec<Result<Option<String>, BackendError>> {
        let waiting = self.supply(&plan.changes).await;
        let ready = certified::ready(plan, &waiting);
        let outcomes = self.apply_ready(&ready, &certified::needed(&plan.changes)).await;
        certified::in_order(plan.changes.len(), waiting, outcomes, "caddy")
    }

    async fn upkeep(&self, mark: &Mark) {
        let told = self.keep_policy(mark).await;
        *lock(&self.policy) = told;
    }

    /// A route that stands is a route that stands, unless somebody's gets its requests; what its write may have cost others
    /// is told beside it.
    async fn doubts(&self, items: &[Route]) -> Vec<Doubt> {
        let obstacles = lock(&self.obstacles);
        // Of doubts that are as bad as each other the first one is told, and these keep a portal from being live.
        let mut doubts: Vec<Doubt> = items.iter().filter_map(|item| obstacles.get(&item.host).cloned()).collect();
        let unguarded = lock(&self.unguarded);
        let told = items.iter().filter_map(|item| {
            let window = unguarded.get(&item.host)?;
            let (key, reason) = (item.host.clone(), WRITTEN);
            let message = format!(
                "{key} is in place in {}, written without a guard {}: {UNGUARDED}",
                self.instance(),
                within(*window)
            );
            Some(Doubt { key, truth: Truth::True, reason, message })
        });
        doubts.extend(told);
        if let Some((truth, reason, message)) = lock(&self.policy).clone() {
            doubts.extend(items.iter().map(|item| {
                let message = format!("{} is in place in {}; {message}", item.host, self.instance());
                Doubt { key: item.host.clone(), truth, reason, message }
            }));
        }
        doubts
    }

    fn remarks(&self, mark: &Mark) -> Vec<Remark> {
        let mut remarks = self.admin.remarks(mark);
        remarks.extend(self.supply.remarks(mark));
        remarks
    }

    /// Caddy forgets routes at a reload, so it is looked at often; a read costs it less than a millisecond.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRoute"
    }
}
