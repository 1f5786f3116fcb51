//! Cloudflare DNS: the CNAMEs of the portals, known as ours by their comment.
mod item;
pub mod zones;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

pub use self::item::Record;
use self::zones::{Zone, usable, zone_of};
use super::cloudflare_api::Api;
use super::{Backend, BackendError, ErrorClass, Scope};
use crate::api::HostName;
use crate::config::Secret;
use crate::http::double::lock;
use crate::http::path_segment;
use crate::plan::{Change, Intent, Observed, Ownership, Plan};

/// From this many wanted names on, a zone's records are listed instead of asked for one by one.
const LIST_FROM: usize = 3;

/// One account.
#[derive(Debug, Clone)]
pub struct CloudflareOptions {
    /// Base address with its `/client/v4`.
    pub api_url: Url,
    pub token: Secret,
    /// Only zones of this account.
    pub account_id: Option<String>,
}

/// The DNS records that one token reaches.
pub struct CloudflareDns {
    api: Api,
    account: Option<String>,
    zones: Mutex<Vec<Zone>>,
}

impl CloudflareDns {
    /// Errors: an address or a token that cannot be used at all.
    pub fn new(options: CloudflareOptions) -> Result<Self, BackendError> {
        let api = Api::new(options.api_url, options.token)?;
        Ok(Self { api, account: options.account_id, zones: Mutex::default() })
    }

    async fn refresh_zones(&self) -> Result<Vec<Zone>, BackendError> {
        let listed = self.api.zones(self.account.as_deref()).await?;
        let zones: Vec<Zone> = listed.iter().filter_map(Zone::parse).collect();
        *lock(&self.zones) = zones.clone();
        Ok(zones)
    }

    /// The cached list, read anew where a host has no active zone in it.
    async fn zones_for(&self, hosts: &[HostName]) -> Result<Vec<Zone>, BackendError> {
        let zones = lock(&self.zones).clone();
        let known = |host: &HostName| zone_of(&zones, host).is_some_and(|zone| zone.status == "active" && !zone.paused);
        if hosts.iter().all(known) { Ok(zones) } else { self.refresh_zones().await }
    }

    fn zone_id(&self, name: &str) -> Result<String, BackendError> {
        let zones = lock(&self.zones);
        let host = HostName::parse(name)
            .map_err(|error| BackendError::new(ErrorClass::Permanent, "RecordInvalid", error.to_string()))?;
        Ok(usable(&zones, &host, false)?.id.clone())
    }

    async fn at_name(&self, zone: &str, name: &str) -> Result<Vec<Observed<Record>>, BackendError> {
        let listed = self.api.records(zone, &[("name", name)]).await?;
        parse_all(&listed)
    }

    /// Reads one record again by id, right before it is changed.
    async fn still_marked(
        &self,
        zone: &str,
        id: &str,
        mark: &crate::plan::Mark,
        item: &Record,
    ) -> Result<bool, BackendError> {
        let path = format!("/zones/{}/dns_records/{}", path_segment(zone), path_segment(id));
        match self.api.read(self.api.http().get(&path)).await {
            Ok(envelope) => {
                let now = Record::parse(&envelope["result"]).ok_or_else(odd_record)?;
                let ours = now.ownership == Ownership::Marked(mark.clone()) && now.item.name == item.name;
                if ours {
                    return Ok(true);
                }
                Err(BackendError::new(
                    ErrorClass::Conflict,
                    "ForeignRecord",
                    format!("the record at {} no longer carries our mark, so it is left alone", item.name),
                ))
            }
            Err(error) if error.reason == "RecordGone" => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(
        &self,
        zone: &str,
        item: &Record,
        mark: &crate::plan::Mark,
    ) -> Result<Option<String>, BackendError> {
        let path = format!("/zones/{}/dns_records", path_segment(zone));
        let refused = match self.api.write(self.api.http().post(&path).json(&item.body(mark))).await {
            Ok(envelope) => return Ok(envelope["result"]["id"].as_str().map(str::to_owned)),
            Err(error) => error,
        };
        if !matches!(refused.class, ErrorClass::Conflict | ErrorClass::OutcomeUnknown) {
            return Err(refused);
        }
        // Somebody, perhaps an earlier try of ours, was first: one look decides.
        let there = self.at_name(zone, &item.name).await?;
        if let Some(ours) = there.iter().find(|o| o.ownership == Ownership::Marked(mark.clone()) && o.item == *item) {
            return Ok(Some(ours.id.clone()));
        }
        match there.iter().find(|o| o.item.blocks()) {
            Some(other) => Err(BackendError::new(
                ErrorClass::Conflict,
                "ForeignRecord",
                format!(
                    "{} is taken by something that is not ours: {}",
                    item.name,
                    crate::plan::Item::describe(&other.item)
                ),
            )),
            None => Err(refused),
        }
    }

    async fn change(&self, change: &Change<Record>) -> Result<Option<String>, BackendError> {
        let record = |zone: &str, id: &str| format!("/zones/{}/dns_records/{}", path_segment(zone), path_segment(id));
        match change {
            Change::Create { mark, item, .. } => self.create(&self.zone_id(&item.name)?, item, mark).await,
            Change::Update { mark, id, from, to, .. } => {
                let zone = self.zone_id(&to.name)?;
                if !self.still_marked(&zone, id, mark, from).await? {
                    return self.create(&zone, to, mark).await;
                }
                let request = self.api.http().patch(&record(&zone, id)).json(&to.body(mark)).repeat_safe();
                self.api.write(request).await.map(|_| Some(id.clone()))
            }
            Change::Adopt { mark, id, to, .. } => {
                let zone = self.zone_id(&to.name)?;
                let request = self.api.http().patch(&record(&zone, id)).json(&to.body(mark)).repeat_safe();
                self.api.write(request).await.map(|_| Some(id.clone()))
            }
            Change::Delete { mark, id, item, .. } => {
                let zone = self.zone_id(&item.name)?;
                if !self.still_marked(&zone, id, mark, item).await? {
                    return Ok(None);
                }
                match self.api.write(self.api.http().delete(&record(&zone, id)).repeat_safe()).await {
                    Ok(_) => Ok(None),
                    Err(error) if error.reason == "RecordGone" => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Change::Release { mark, id, item, .. } => {
                let zone = self.zone_id(&item.name)?;
                if !self.still_marked(&zone, id, mark, item).await? {
                    return Ok(None);
                }
                let body = serde_json::json!({"comment": ""});
                let request = self.api.http().patch(&record(&zone, id)).json(&body).repeat_safe();
                self.api.write(request).await.map(|_| None)
            }
        }
    }
}

fn odd_record() -> BackendError {
    BackendError::new(ErrorClass::Unavailable, "OddAnswer", "cloudflare sent a record without id, name or type")
}

fn parse_all(listed: &[serde_json::Value]) -> Result<Vec<Observed<Record>>, BackendError> {
    listed.iter().map(|value| Record::parse(value).ok_or_else(odd_record)).collect()
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
        let zones = self.zones_for(&scope.hosts).await?;
        let mut by_zone: BTreeMap<&str, Vec<&HostName>> = BTreeMap::new();
        for host in &scope.hosts {
            by_zone.entry(&usable(&zones, host, false)?.id).or_default().push(host);
        }
        let mut found = Vec::new();
        for (zone, hosts) in by_zone {
            if hosts.len() >= LIST_FROM {
                let listed = parse_all(&self.api.records(zone, &[]).await?)?;
                let ours = |o: &Observed<Record>| matches!(&o.ownership, Ownership::Marked(mark) if scope.marks.contains(mark));
                found.extend(
                    listed.into_iter().filter(|o| {
                        ours(o) || (o.item.blocks() && hosts.iter().any(|host| host.as_str() == o.item.name))
                    }),
                );
                continue;
            }
            for host in hosts {
                let listed = self.at_name(zone, host.as_str()).await?;
                found.extend(listed.into_iter().filter(|o| o.item.blocks() && o.item.name == host.as_str()));
            }
        }
        // A host named twice in the scope is one host.
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    async fn apply(&self, plan: &Plan<Record>) -> Vec<Result<Option<String>, BackendError>> {
        let mut outcomes = Vec::with_capacity(plan.changes.len());
        let mut stopped: Option<BackendError> = None;
        for change in &plan.changes {
            // A throttled or refused token is refused for every other record as well: not one call more.
            if let Some(error) = &stopped {
                outcomes.push(Err(error.clone()));
                continue;
            }
            let outcome = self.change(change).await;
            if let Err(error) = &outcome
                && matches!(error.class, ErrorClass::Throttled)
            {
                stopped = Some(error.clone());
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    fn drift_interval(&self) -> Duration {
        Duration::from_secs(24 * 60 * 60)
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignRecord"
    }
}
