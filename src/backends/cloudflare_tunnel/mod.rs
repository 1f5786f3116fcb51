//! Cloudflare Tunnel: one rule per portal in the tunnel's configuration, every change of a batch in one write.
//!
//! The configuration is one document that a write replaces as a whole, and the API knows no precondition. So it is read
//! right before the write, everything that is not ours goes back as it came (values and the order of lists; the keys of an
//! object may come in another order, which JSON gives no meaning), and the version that the answer tells shows afterwards
//! whether somebody else wrote in between. That write is then lost for good, because no call gives an older version: it is
//! told in the portals' conditions, in a log line and in a metric. Whatever else others write is merged again.
//!
//! A rule has no place for a mark. Ours is one that a [`Ledger`] lists, at that host, for all paths, and with the service
//! that was written: an entry is made before its rule and goes after it. A rule whose service somebody changed is no
//! longer ours and is reported; what somebody added beside host and service stays as it is.
mod document;
pub mod ledger;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

pub use self::document::{Config, Merged, Rule, merge, observe, shadow};
pub use self::ledger::{Book, Entry, Ledger};
use super::cloudflare_api::Api;
use super::{Backend, BackendError, Doubt, ErrorClass, Queue, Scope};
use crate::api::condition::Truth;
use crate::api::{TunnelId, TunnelOrigin};
use crate::http::double::lock;
use crate::http::path_segment;
use crate::plan::{Intent, Observed, Plan, Urgency};
use crate::telemetry::metrics;

/// For how long one reading serves looks that are for drift only.
const RECENT: SignedDuration = SignedDuration::from_secs(60);
/// Writes of one batch while others write, too.
const TRIES: usize = 8;

/// Lets the workers of one tunnel take turns. Counts what they wrote, so that each knows whether what it read is old.
pub type Turn = Arc<tokio::sync::Mutex<u64>>;

/// One tunnel.
#[derive(Clone)]
pub struct TunnelOptions {
    pub account: String,
    pub tunnel: TunnelId,
    /// Where its connectors find the pages.
    pub origin: TunnelOrigin,
    pub turn: Turn,
}

/// The rules of one tunnel.
pub struct CloudflareTunnel {
    api: Api,
    options: TunnelOptions,
    ledger: Arc<dyn Ledger>,
    last: Mutex<Last>,
    /// The last reading, when it was made and in which turn.
    recent: Mutex<Option<(Timestamp, u64, Reading)>>,
}

/// What the present batch has seen.
#[derive(Default)]
struct Last {
    /// Of the observation, with the turn it belongs to. The batch's write begins from it.
    read: Option<(u64, Reading)>,
    book: Book,
    /// Versions of others that the batch may have overwritten, in words; by host.
    losses: HashMap<String, String>,
    urgency: Urgency,
}

/// What stands in the tunnel.
#[derive(Debug, Clone)]
enum Reading {
    Document(Document),
    /// There is no configuration that could be written, for this definite reason. Nothing of ours is in it.
    Unusable(BackendError),
}

#[derive(Debug, Clone)]
struct Document {
    version: u64,
    config: Config,
}

impl CloudflareTunnel {
    pub fn new(api: Api, options: TunnelOptions, ledger: Arc<dyn Ledger>) -> Self {
        let api = api.needing(TUNNEL_EDIT);
        Self { api, options, ledger, last: Mutex::default(), recent: Mutex::default() }
    }

    /// Calls for what the batch is about.
    fn api(&self) -> Api {
        self.api.at(lock(&self.last).urgency)
    }

    fn path(&self, rest: &str) -> String {
        let TunnelOptions { account, tunnel, .. } = &self.options;
        format!("/accounts/{}/cfd_tunnel/{}{rest}", path_segment(account), path_segment(tunnel.as_str()))
    }

    /// The API's refusal in this tunnel's words.
    fn told(&self, mut error: BackendError) -> BackendError {
        let TunnelOptions { account, tunnel, .. } = &self.options;
        match error.reason {
            "PermissionMissing" | "TokenRefused" => {
                if error.reason == "PermissionMissing" {
                    error.reason = "TunnelPermissionMissing";
                }
                error.message = format!("{} (account {account}, tunnel {tunnel})", error.message);
            }
            "ZoneNotFound" => {
                (error.class, error.reason) = (ErrorClass::Credential, "AccountNotFound");
                error.message = format!("{}; check the account id {account}", error.message);
            }
            "BadConfiguration" => {
                error.message = format!(
                    "{}; Cloudflare takes the configuration of tunnel {tunnel} only as a whole, so look at all of its rules in the dashboard",
                    error.message
                );
            }
            _ => {}
        }
        error
    }

    fn not_found(&self) -> BackendError {
        let TunnelOptions { account, tunnel, .. } = &self.options;
        let message = format!(
            "tunnel {tunnel} does not exist in account {account} or was deleted; make a tunnel and name it as proxy.cloudflareTunnel.tunnelId (CF_TUNNEL_ID), or correct cloudflare.accountId (CF_ACCOUNT_ID)"
        );
        BackendError::new(ErrorClass::Permanent, "TunnelNotFound", message)
    }

    fn local(&self) -> BackendError {
        let message = format!(
            "tunnel {} is managed locally, by a file on the machine of its connector, where no rule can be made from outside; let the dashboard migrate it to remote management, or make a new tunnel there",
            self.options.tunnel
        );
        BackendError::new(ErrorClass::Permanent, "TunnelManagedLocally", message)
    }

    /// Why the tunnel itself cannot be used; `None` when it can. Asked only where its configuration leaves it open.
    async fn unusable(&self) -> Result<Option<BackendError>, BackendError> {
        match self.api().read(self.api.http().get(&self.path(""))).await {
            Ok(envelope) => {
                let tunnel = &envelope["result"];
                let deleted = tunnel["deleted_at"].as_str().is_some_and(|at| !at.is_empty());
                let local = tunnel["config_src"] == "local" || tunnel["remote_config"] == false;
                Ok(if deleted { Some(self.not_found()) } else { local.then(|| self.local()) })
            }
            Err(error) if error.reason == "NotFound" => Ok(Some(self.not_found())),
            Err(error) => Err(self.told(error)),
        }
    }

    async fn read(&self) -> Result<Reading, BackendError> {
        let result = match self.api().read(self.api.http().get(&self.path("/configurations"))).await {
            Ok(mut envelope) => envelope["result"].take(),
            // A call that is not found says only together with the tunnel itself that the tunnel is gone.
            Err(error) if error.reason == "NotFound" => {
                return self.unusable().await?.map(Reading::Unusable).ok_or_else(|| self.told(error));
            }
            Err(error) => return Err(self.told(error)),
        };
        if result["source"] == "local" {
            return Ok(Reading::Unusable(self.local()));
        }
        if result["config"].is_null()
            && let Some(error) = self.unusable().await?
        {
            return Ok(Reading::Unusable(error));
        }
        let version = result["version"].as_u64().ok_or_else(|| {
            let message = format!("the configuration of tunnel {} has no version", self.options.tunnel);
            BackendError::new(ErrorClass::Unavailable, "OddAnswer", message)
        })?;
        Ok(Reading::Document(Document { version, config: Config::parse(&result["config"])? }))
    }

    /// Replaces the configuration; gives the version that it has then, where the answer says one.
    async fn replace(&self, config: &Config) -> Result<Option<u64>, BackendError> {
        let request = self.api.http().put(&self.path("/configurations"));
        let envelope = self.api().write(request.json(&json!({"config": config.to_value()}))).await;
        Ok(envelope.map_err(|error| self.told(error))?["result"]["version"].as_u64())
    }

    async fn book(&self) -> Result<Book, BackendError> {
        let entries = self.ledger.entries(self.options.tunnel.as_str()).await.map_err(kept_badly)?;
        Ok(entries.into_iter().collect())
    }

    /// Merges, writes and reads again until what stands there holds every change.
    async fn write(&self, plan: &Plan<Rule>) -> Result<Vec<Result<Option<String>, BackendError>>, BackendError> {
        let mut turn = self.options.turn.lock().await;
        let tunnel = self.options.tunnel.as_str();
        let observed = lock(&self.last).read.clone();
        let reading = match observed {
            Some((at, reading)) if at == *turn => reading,
            _ => self.read().await?,
        };
        let mut document = match reading {
            Reading::Document(document) => document,
            Reading::Unusable(error) => return Err(error),
        };
        let mut book = self.book().await?;
        let mut last = None;
        for _ in 0..TRIES {
            let merged = merge(&document.config, &book, plan);
            if !merged.noted.is_empty() {
                self.ledger.put(tunnel, &merged.noted).await.map_err(kept_badly)?;
                book.extend(merged.noted);
            }
            if merged.config == document.config {
                if !merged.stale.is_empty() {
                    self.ledger.remove(tunnel, &merged.stale).await.map_err(kept_badly)?;
                }
                let mut last = lock(&self.last);
                last.book = book;
                last.read = Some((*turn, Reading::Document(document)));
                return Ok(merged.outcomes);
            }
            *turn += 1;
            let answered = match self.replace(&merged.config).await {
                Ok(version) => version,
                // The next read tells.
                Err(error) if error.class == ErrorClass::OutcomeUnknown => {
                    last = Some(error);
                    None
                }
                Err(error) => return Err(error),
            };
            let now = match self.read().await {
                Ok(Reading::Document(now)) => now,
                Ok(Reading::Unusable(error)) => return Err(error),
                Err(mut error) => {
                    let said = answered.map_or_else(|| "perhaps".to_owned(), |version| format!("as version {version}"));
                    error.message = format!("the rules were written {said} and not read back: {}", error.message);
                    return Err(error);
                }
            };
            let unchanged = now.config == merged.config;
            if let Some(lost) = overwritten(document.version, answered, now.version, unchanged) {
                self.report(document.version, lost, plan);
            }
            document = now;
        }
        Err(last.unwrap_or_else(|| {
            let message = format!(
                "the configuration of tunnel {tunnel} changed each time while it was being written; the next try looks again"
            );
            BackendError::new(ErrorClass::Unavailable, "TooManyWriters", message)
        }))
    }

    fn report(&self, read: u64, lost: RangeInclusive<u64>, plan: &Plan<Rule>) {
        let which = match (lost.start(), lost.end()) {
            (first, last) if first == last => format!("version {first}"),
            (first, last) => format!("versions {first} to {last}"),
        };
        let tunnel = &self.options.tunnel;
        let message = format!(
            "somebody else changed the configuration of tunnel {tunnel} between our read of version {read} and our write; what {which} changed may be lost, so repeat it if it is missing"
        );
        tracing::warn!(%tunnel, read, first = lost.start(), last = lost.end(), "{message}");
        metrics::foreign_write_lost(&self.instance());
        let mut last = lock(&self.last);
        for change in &plan.changes {
            last.losses
                .entry(change.key().to_owned())
                .and_modify(|before| *before = format!("{before}; {message}"))
                .or_insert_with(|| message.clone());
        }
    }
}

/// What the token needs, as Cloudflare's dashboard names it.
const TUNNEL_EDIT: &str = "Account · Cloudflare Tunnel · Edit";

fn kept_badly(error: String) -> BackendError {
    let message = format!("which rules of the tunnel are ours cannot be looked up or noted: {error}");
    BackendError::new(ErrorClass::Unavailable, "LedgerFailed", message)
}

/// Versions of somebody else that our write has replaced unseen. `read`: what we merged into; `answered`: the version that
/// our write got, where an answer came; `now`: the version read after it; `unchanged`: it is just what we sent.
pub fn overwritten(read: u64, answered: Option<u64>, now: u64, unchanged: bool) -> Option<RangeInclusive<u64>> {
    let (first, last) = match answered.filter(|answered| *answered > read) {
        Some(answered) => (read + 1, answered - 1),
        // Without an answer ours is the newest, if it is there at all, or else at most one before it.
        None if unchanged => (read + 1, now.saturating_sub(1)),
        None => (read + 1, now.saturating_sub(2)),
    };
    (first <= last).then_some(first..=last)
}

#[async_trait]
impl Backend for CloudflareTunnel {
    type Item = Rule;

    fn instance(&self) -> String {
        format!("cloudflare_tunnel/{}", self.options.tunnel)
    }

    fn desired(&self, intent: &Intent) -> Vec<Rule> {
        let (host, service) = (intent.host.to_string(), self.options.origin.to_string());
        vec![Rule { host, service, reached: true }]
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<Observed<Rule>>, BackendError> {
        *lock(&self.last) = Last { urgency: scope.urgency, ..Last::default() };
        let turn = *self.options.turn.lock().await;
        let book = self.book().await?;
        let now = self.api.budget().now();
        let recent = lock(&self.recent).clone().filter(|(at, of, _)| {
            // Each portal looks for itself; one reading serves the looks of a minute, as long as nobody writes.
            scope.urgency == Urgency::Drift && *of == turn && now >= *at && now.duration_since(*at) < RECENT
        });
        let (reading, fresh) = match recent {
            Some((_, _, reading)) => (reading, false),
            None => (self.read().await?, true),
        };
        if fresh {
            *lock(&self.recent) = Some((now, turn, reading.clone()));
        }
        let found = match &reading {
            Reading::Document(document) => observe(&document.config, &book, scope),
            // Whoever wants something there hears of it when it is to be made; whoever wants nothing is done.
            Reading::Unusable(_) => Vec::new(),
        };
        let mut last = lock(&self.last);
        last.book = book;
        // Read again before a write, unless this was just read.
        last.read = fresh.then_some((turn, reading));
        Ok(found)
    }

    async fn apply(&self, plan: &Plan<Rule>) -> Vec<Result<Option<String>, BackendError>> {
        match self.write(plan).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let losses = &lock(&self.last).losses;
                let told = |key: &str| {
                    let mut error = error.clone();
                    if let Some(loss) = losses.get(key) {
                        error.message = format!("{}; {loss}", error.message);
                    }
                    error
                };
                plan.changes.iter().map(|change| Err(told(change.key()))).collect()
            }
        }
    }

    /// The API says what is written, never what the connectors use.
    async fn doubts(&self, items: &[Rule]) -> Vec<Doubt> {
        let last = lock(&self.last);
        let Some((_, Reading::Document(Document { version, config }))) = &last.read else { return Vec::new() };
        let about = |item: &Rule| {
            let key = item.host.clone();
            let waits = format!(
                "{key} is in version {version} of the configuration of tunnel {}; only a request shows whether its connectors use it",
                self.options.tunnel
            );
            let shadow = shadow(config, &last.book, &key);
            if let Some(shadow) = shadow.as_ref().filter(|shadow| shadow.truth == Truth::False) {
                return Doubt { key, truth: Truth::False, reason: shadow.reason, message: shadow.message.clone() };
            }
            let (reason, message) = match (last.losses.get(&key), shadow) {
                (Some(loss), _) => ("ForeignWriteLost", format!("{waits}; {loss}")),
                (None, Some(shadow)) => (shadow.reason, format!("{waits}; {}", shadow.message)),
                (None, None) => ("AwaitingProof", waits),
            };
            Doubt { key, truth: Truth::Unknown, reason, message }
        };
        items.iter().map(about).collect()
    }

    fn proof_decides(&self) -> bool {
        true
    }

    /// Changes of one burst arrive within this time and become one write.
    fn gather(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// Each look costs a call of the budget that all of Cloudflare shares.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn queue(&self) -> Option<&dyn Queue> {
        Some(self.api.budget().as_ref())
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRule"
    }
}
