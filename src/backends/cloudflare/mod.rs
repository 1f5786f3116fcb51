//! Cloudflare DNS: the CNAMEs of the portals, known as ours by their comment.
//!
//! Calls are scarce (a token has 1,200 in five minutes), so a portal that never had a record is given one without a look,
//! several changes in a zone go out as one batch, and what was verified is believed for a day.
mod apply;
mod audit;
mod item;
mod work;
pub mod zones;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use url::Url;

use self::audit::Feed;
pub use self::item::{Record, content_in};
use self::zones::{Zone, Zones, not_found};
use super::cloudflare_api::{Api, Budget};
use super::{Backend, BackendError, Doubt, ErrorClass, Queue, Reach, Scope};
use crate::api::HostName;
use crate::api::condition::Truth;
use crate::config::Secret;
use crate::http::double::lock;
use crate::http::path_segment;
use crate::plan::{Intent, Observed, Ownership, Plan, Urgency};

/// From this many wanted names on, a zone's records are listed instead of asked for one by one.
const LIST_FROM: usize = 3;
/// Records asked for per page; Cloudflare may give fewer.
const RECORDS_PER_PAGE: usize = 5000;
/// How long a zone's list serves further looks for drift.
const SNAPSHOT: SignedDuration = SignedDuration::from_mins(10);
/// How long the numbers of a full zone are shown without being read again.
const USAGE: SignedDuration = SignedDuration::from_mins(10);

/// Reason of a name that somebody else has.
pub const CONFLICT: &str = "ForeignRecord";

/// One account.
#[derive(Debug, Clone)]
pub struct CloudflareOptions {
    /// Base address with its `/client/v4`.
    pub api_url: Url,
    pub token: Secret,
    /// Only zones of this account.
    pub account_id: Option<String>,
    /// How long a verified record is believed.
    pub drift_interval: Duration,
    /// How often the account's audit log is asked for what others changed; needs the account's id.
    pub audit_interval: Option<Duration>,
}

/// A day: the rolling sweep looks at every zone once in it.
pub const DRIFT_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the audit log is asked.
pub const AUDIT_INTERVAL: Duration = Duration::from_secs(60);

struct Snapshot {
    at: Timestamp,
    records: Vec<Observed<Record>>,
}

/// What is remembered of a zone.
#[derive(Default)]
struct ZoneMemory {
    snapshot: Option<Snapshot>,
    /// The last observation came from the snapshot: look again before writing.
    stale: bool,
    /// Records that it may and does hold, and when that was read.
    usage: Option<(Timestamp, u64, u64)>,
}

/// The DNS records that one token reaches.
pub struct CloudflareDns {
    api: Api,
    account: Option<String>,
    drift_interval: Duration,
    audit_interval: Option<Duration>,
    feed: Mutex<Feed>,
    zones: Zones,
    memory: Mutex<HashMap<String, ZoneMemory>>,
}

impl CloudflareDns {
    /// `budget` is the one of this token. Errors: an address or a token that cannot be used at all.
    pub fn new(options: CloudflareOptions, budget: Arc<Budget>) -> Result<Self, BackendError> {
        let api = Api::new(options.api_url.clone(), options.token.clone(), budget)?;
        let api = api.of_account(options.account_id.as_deref());
        let CloudflareOptions { account_id: account, drift_interval, audit_interval, .. } = options;
        let (feed, zones, memory) = (Mutex::default(), Zones::default(), Mutex::default());
        Ok(Self { api, account, drift_interval, audit_interval, feed, zones, memory })
    }

    fn records_api(&self, urgency: Urgency) -> Api {
        self.api.at(urgency).needing("Zone · DNS · Edit")
    }

    fn zone(&self, name: &str) -> Result<Zone, BackendError> {
        let host = HostName::parse(name)
            .map_err(|error| BackendError::new(ErrorClass::Permanent, "RecordInvalid", error.to_string()))?;
        self.zones.of(name).ok_or_else(|| not_found(&host))
    }

    async fn list(&self, api: &Api, zone: &str, query: &[(&str, &str)]) -> Result<Vec<Observed<Record>>, BackendError> {
        let listed = api.list(&format!("/zones/{}/dns_records", path_segment(zone)), query, RECORDS_PER_PAGE).await?;
        listed.iter().map(|value| Record::parse(value).ok_or_else(odd_record)).collect()
    }

    async fn observe_zone(
        &self,
        scope: &Scope,
        zone: &str,
        hosts: &[&HostName],
    ) -> Result<Vec<Observed<Record>>, BackendError> {
        let api = self.records_api(scope.urgency);
        let sweeping = scope.urgency == Urgency::Drift && self.zones.hosts(zone) >= LIST_FROM;
        let fresh = |snapshot: &Snapshot| self.api.budget().now().duration_since(snapshot.at) < SNAPSHOT;
        let mut listed = None;
        if sweeping {
            let memory = lock(&self.memory);
            let snapshot = memory.get(zone).and_then(|memory| memory.snapshot.as_ref()).filter(|s| fresh(s));
            listed = snapshot.map(|snapshot| snapshot.records.clone());
        }
        let stale = listed.is_some();
        if listed.is_none() && (sweeping || hosts.len() >= LIST_FROM) {
            let records = self.list(&api, zone, &[]).await?;
            if sweeping {
                let snapshot = Snapshot { at: self.api.budget().now(), records: records.clone() };
                lock(&self.memory).entry(zone.to_owned()).or_default().snapshot = Some(snapshot);
            }
            listed = Some(records);
        }
        lock(&self.memory).entry(zone.to_owned()).or_default().stale = stale;
        let at_names = |o: &Observed<Record>| o.item.blocks() && hosts.iter().any(|host| host.as_str() == o.item.name);
        let Some(listed) = listed else {
            let mut found = Vec::new();
            for host in hosts {
                let at_name = self.list(&api, zone, &[("name", host.as_str())]).await?;
                found.extend(at_name.into_iter().filter(|o| o.item.blocks() && o.item.name == host.as_str()));
            }
            return Ok(found);
        };
        let ours = |o: &Observed<Record>| matches!(&o.ownership, Ownership::Marked(mark) if scope.marks.contains(mark));
        Ok(listed.into_iter().filter(|o| ours(o) || at_names(o)).collect())
    }
}

impl CloudflareDns {
    async fn observe_hosts(&self, scope: &Scope) -> Result<Vec<Observed<Record>>, BackendError> {
        let unknown: Vec<HostName> = scope.hosts.iter().filter(|host| self.lane(host).is_none()).cloned().collect();
        if !unknown.is_empty() {
            for reach in self.discover(&unknown, scope.urgency).await {
                if let Reach::Nowhere(error) = reach {
                    return Err(error);
                }
            }
        }
        let mut by_zone: BTreeMap<String, Vec<&HostName>> = BTreeMap::new();
        let mut around: BTreeMap<String, (Zone, Vec<&HostName>)> = BTreeMap::new();
        for host in &scope.hosts {
            let zone = self.zone(host.as_str())?;
            for outer in self.zones.around(host.as_str(), &zone) {
                around.entry(outer.id.clone()).or_insert_with(|| (outer, Vec::new())).1.push(host);
            }
            by_zone.entry(zone.id).or_default().push(host);
        }
        let mut found = Vec::new();
        for (zone, hosts) in around.into_values() {
            // What a child zone took over from it serves nobody any more; there only our own is of interest.
            let there = match self.observe_zone(scope, &zone.id, &hosts).await {
                Ok(there) => there.into_iter(),
                Err(error) if error.class == ErrorClass::Throttled || error.reason == "TokenRefused" => {
                    return Err(error);
                }
                // What is the matter with that zone does not concern this one.
                Err(error) => {
                    tracing::debug!(zone = zone.name, reason = error.reason, "not looked for former records: {error}");
                    continue;
                }
            };
            let ours =
                |o: &Observed<Record>| matches!(&o.ownership, Ownership::Marked(mark) if scope.marks.contains(mark));
            let taken_over = |o: &Observed<Record>| hosts.iter().any(|host| host.as_str() == o.item.name);
            let strays = there.filter(|o| ours(o) && taken_over(o));
            found.extend(strays.map(|o| Observed { item: o.item.strayed(&zone), ..o }));
        }
        for (zone, hosts) in by_zone {
            match self.observe_zone(scope, &zone, &hosts).await {
                Ok(records) => found.extend(records),
                Err(error) => {
                    if error.reason == "ZoneNotFound" {
                        hosts.iter().for_each(|host| self.zones.forget(host.as_str()));
                    }
                    return Err(error);
                }
            }
        }
        // A host named twice in the scope is one host.
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }
}

fn odd_record() -> BackendError {
    BackendError::new(ErrorClass::Unavailable, "OddAnswer", "cloudflare sent a record without id, name or type")
}

/// The id of a record in an answer.
fn id_of(value: &Value) -> Option<String> {
    value["id"].as_str().map(str::to_owned)
}

#[async_trait]
impl Backend for CloudflareDns {
    type Item = Record;

    fn instance(&self) -> String {
        "cloudflare".to_owned()
    }

    fn desired(&self, intent: &Intent) -> Vec<Record> {
        Record::desired(intent).into_iter().collect()
    }

    async fn observe(&self, scope: &Scope) -> Result<Vec<Observed<Record>>, BackendError> {
        match self.observe_hosts(scope).await {
            // A zone that was taken out of the account and put in again has another id.
            Err(error) if error.reason == "ZoneNotFound" => self.observe_hosts(scope).await,
            found => found,
        }
    }

    async fn apply(&self, plan: &Plan<Record>) -> Vec<Result<Option<String>, BackendError>> {
        apply::apply(self, plan).await
    }

    async fn doubts(&self, items: &[Record]) -> Vec<Doubt> {
        let mut doubts = Vec::new();
        for item in items.iter().filter(|item| item.proxied) {
            let Some(zone) = self.zones.of(&item.name) else { continue };
            if let Some(error) = zone.unproxied() {
                let (reason, message) = (error.reason, error.message);
                doubts.push(Doubt { key: item.name.clone(), truth: Truth::False, reason, message });
            } else if let Some(message) = zone.too_deep(&item.name) {
                let (truth, reason) = (Truth::True, "BeyondUniversalSSL");
                doubts.push(Doubt { key: item.name.clone(), truth, reason, message });
            }
        }
        doubts
    }

    fn lane(&self, host: &HostName) -> Option<String> {
        self.zones.of(host.as_str()).filter(Zone::serves).map(|zone| zone.id)
    }

    async fn discover(&self, hosts: &[HostName], urgency: Urgency) -> Vec<Reach> {
        // What is made for the first time cannot have been anywhere else before.
        let around = urgency != Urgency::Create;
        self.zones.discover(&self.api.at(urgency), self.account.as_deref(), hosts, around).await
    }

    fn spares_reads(&self) -> bool {
        true
    }

    fn queue(&self) -> Option<&dyn Queue> {
        Some(self.api.budget().as_ref())
    }

    fn forget(&self, host: &HostName) {
        // Its zone may not be the longest any more: a child zone may have been made.
        if let Some(zone) = self.zones.of(host.as_str()) {
            lock(&self.memory).remove(&zone.id);
        }
        self.zones.doubt(host.as_str(), self.api.budget().now());
    }

    fn hint_interval(&self) -> Option<Duration> {
        self.audit_interval.filter(|_| self.account.is_some())
    }

    async fn hints(&self) -> Vec<String> {
        let Some(account) = &self.account else { return Vec::new() };
        let now = self.api.budget().now();
        let Some((since, before)) = lock(&self.feed).span(now) else { return Vec::new() };
        let api = self.api.at(Urgency::Drift).needing("Account · Audit logs · Read");
        let (since, before) = (since.to_string(), before.to_string());
        let query = [("since", since.as_str()), ("before", before.as_str()), ("per_page", "1000")];
        let path = format!("/accounts/{}/audit_logs", path_segment(account));
        match api.hint(api.http().get(&path).query(&query)).await {
            Ok(envelope) => {
                let entries = envelope["result"].as_array().cloned().unwrap_or_default();
                lock(&self.feed).read(&entries, now)
            }
            Err(error) if error.class == ErrorClass::Credential => {
                tracing::info!(
                    "the API token may not read the account's audit log, so changes by others are found by the sweep only"
                );
                lock(&self.feed).refused(now);
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    fn actor(&self, name: &str) -> Option<String> {
        let actor = lock(&self.feed).actor(name)?;
        Some(format!("{} at {}", actor.who, actor.when.strftime("%Y-%m-%d %H:%M:%S UTC")))
    }

    fn drift_interval(&self) -> Duration {
        self.drift_interval
    }

    fn conflict_reason(&self) -> &'static str {
        CONFLICT
    }
}
