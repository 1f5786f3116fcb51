//! Caddy by its admin API: one route per portal, every change of a batch in one guarded write.
mod admin;
mod certificates;
pub mod double;
mod policy;
mod routes;
mod supplies;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use url::Url;

use self::admin::{Admin, List, Outcome, REMOVED, TRIES, UNGUARDED, WRITTEN, overtaken, within};
pub use self::routes::Route;
use self::routes::{Server, find_server};
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
    /// Whom to trust there, and what to show: Caddy's `admin.remote` asks who calls.
    pub tls: ClientTls,
    /// Certificates by a DNS challenge at Cloudflare, where Caddy is to see to that.
    pub dns_challenge: Option<DnsChallenge>,
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
    /// What came of the TLS policy.
    policy: Mutex<Option<(Truth, &'static str, String)>>,
    supply: Supply,
    /// Nothing is wanted of the Origin CA, and the last look saw nothing left over of it.
    no_leftovers: AtomicBool,
}

/// The routes, where they are.
struct Read {
    /// `None` where the configuration has no http server at all.
    list: Option<List>,
}

impl Read {
    fn routes(&self) -> &[Value] {
        self.list.as_ref().map_or(&[], List::items)
    }
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
        client.tls = options.tls.clone();
        client.max_body = 64 << 20;
        client.timeout = Duration::from_secs(30);
        if let Some(token) = &options.admin_token {
            client.headers = vec![("authorization", Secret::new(format!("Bearer {}", token.expose())))];
        }
        let challenge = options.dns_challenge.as_ref().map(|challenge| challenge.token.clone());
        let secrets = options.admin_token.clone().into_iter().chain(challenge).collect();
        let admin = Admin::new(Client::new(client)?, instance(&options.admin_url), secrets);
        let supply = Supply::new(options.origin_ca.clone());
        let (unguarded, policy, no_leftovers) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Self { admin, options, unguarded, policy, supply, no_leftovers })
    }

    async fn read_routes(&self) -> Result<Read, BackendError> {
        let servers = self.admin.read(SERVERS).await?.map_or(Value::Null, |(servers, _)| servers);
        Ok(match find_server(&servers, self.options.listen.as_deref(), self.options.https)? {
            Server::None => Read { list: None },
            Server::Found(name) => Read { list: Some(self.admin.list(&routes_path(&name)).await?) },
        })
    }

    async fn write_routes(&self, read: &Read, routes: &[Value], plan: &Plan<Route>) -> Result<Outcome, BackendError> {
        let Some(list) = &read.list else {
            let standard = if self.options.https { ":443" } else { ":80" };
            let listen = self.options.listen.as_deref().unwrap_or(standard);
            let server = json!({"listen": [listen], "routes": routes});
            self.note_guard(plan, None);
            return self.admin.create(&format!("{SERVERS}/{OWN_SERVER}"), &server).await;
        };
        let reason = |change: &Change<Route>| if leaves(change) { REMOVED } else { WRITTEN };
        let on_behalf: Vec<_> = plan.changes.iter().map(|change| (change.mark(), reason(change))).collect();
        let (outcome, window) = self.admin.replace(list, routes, &on_behalf).await?;
        self.note_guard(plan, window);
        Ok(outcome)
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

    /// Puts the policy where it belongs; guarded like the routes.
    async fn keep_policy(&self, mark: &Mark, challenge: &DnsChallenge) -> Result<policy::Step, BackendError> {
        let wanted = policy::desired(&policy::id(&mark.installation), challenge.token.expose());
        let mut last = None;
        for _ in 0..TRIES {
            let list = self.admin.list(POLICIES).await?;
            let step = policy::ensure(list.items(), &wanted);
            let policy::Step::Write(new) = &step else { return Ok(step) };
            match self.admin.replace(&list, new, &[(mark, WRITTEN)]).await? {
                (Outcome::Written, _) => return Ok(step),
                (Outcome::ReadAgain(error), _) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(overtaken))
    }

    /// Takes our policy away when no route of this installation is left.
    async fn drop_policy(&self, mark: &Mark) -> Result<(), BackendError> {
        let prefix = format!("pk1-{}-", mark.installation.as_str());
        let left = self.read_routes().await?;
        if left.routes().iter().any(|route| route["@id"].as_str().is_some_and(|id| id.starts_with(&prefix))) {
            return Ok(());
        }
        let mut last = None;
        for _ in 0..TRIES {
            let list = self.admin.list(POLICIES).await?;
            let Some(rest) = policy::without(list.items(), &policy::id(&mark.installation)) else { return Ok(()) };
            match self.admin.replace(&list, &rest, &[(mark, REMOVED)]).await? {
                (Outcome::Written, _) => return Ok(()),
                (Outcome::ReadAgain(error), _) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(overtaken))
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
        if self.options.dns_challenge.is_some()
            && let Err(error) = self.drop_policy(leaving.mark()).await
        {
            tracing::warn!(reason = error.reason, "a TLS policy without portals may stay in Caddy: {error}");
        }
        outcomes
    }

    /// Reads, computes and writes until nobody was in between.
    async fn guarded_write(
        &self,
        plan: &Plan<Route>,
    ) -> Result<Vec<Result<Option<String>, BackendError>>, BackendError> {
        let mut last = None;
        for _ in 0..TRIES {
            let read = self.read_routes().await?;
            let (routes, outcomes) = routes::apply(read.routes(), plan);
            if routes == read.routes() {
                return Ok(outcomes);
            }
            match self.write_routes(&read, &routes, plan).await? {
                Outcome::Written => return Ok(outcomes),
                Outcome::ReadAgain(error) => last = Some(error),
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

    async fn observe(&self, _: &Scope) -> Result<Vec<Observed<Route>>, BackendError> {
        let routes = routes::observe(self.read_routes().await?.routes());
        let own = self.own_certificates().await?;
        let id = |own: &Own| routes::route_id(&own.mark, &own.host);
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
                     use a build that has it (xcaddy build --with github.com/caddy-dns/cloudflare), or switch proxy.caddy.dnsChallenge (CADDY_DNS_CHALLENGE) off",
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
            let (key, reason) = (item.host.clone(), WRITTEN);
            let message = format!(
                "{key} is in place in {}, written without a guard {}: {UNGUARDED}",
                self.instance(),
                within(*window)
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
