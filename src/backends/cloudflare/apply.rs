//! Sorting a plan's changes by zone, in the order in which they are made.
use std::collections::{BTreeMap, HashMap};

use super::item::Stray;
use super::work::Work;
use super::zones::Zone;
use super::{CloudflareDns, Record};
use crate::api::PortalKey;
use crate::backends::{BackendError, ErrorClass};
use crate::http::double::lock;
use crate::plan::{Change, Plan, Urgency};

pub(super) type Outcome = Result<Option<String>, BackendError>;

/// One change with its place in the plan.
pub(super) type Step<'a> = (usize, &'a Change<Record>);

/// Makes the changes, the urgent ones first, zone by zone. What stands in a zone that a child zone took over from goes
/// last, and only when what takes its place is made.
pub(super) async fn apply(dns: &CloudflareDns, plan: &Plan<Record>) -> Vec<Outcome> {
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    let (late, early): (Vec<Step>, Vec<Step>) =
        plan.changes.iter().enumerate().partition(|(_, change)| stray(change).is_some());
    let stopped = round(dns, plan, early, &mut outcomes).await;
    let mut failed: HashMap<&PortalKey, BackendError> = HashMap::new();
    for (index, change) in plan.changes.iter().enumerate().filter(|(_, change)| makes(change)) {
        if let Some(Err(error)) = outcomes.get(&index) {
            failed.insert(change.portal(), error.clone());
        }
    }
    let mut last = Vec::new();
    for step in late {
        match stopped.as_ref().or_else(|| failed.get(step.1.portal())) {
            Some(error) => {
                outcomes.insert(step.0, Err(error.clone()));
            }
            None => last.push(step),
        }
    }
    round(dns, plan, last, &mut outcomes).await;
    let mut feed = lock(&dns.feed);
    for change in plan.changes.iter().enumerate().filter(|(index, _)| outcomes.get(index).is_some_and(Result::is_ok)) {
        feed.wrote(&item_of(change.1).name, dns.api.budget().now());
    }
    outcomes.into_values().collect()
}

/// Changes of several zones. Tells what refuses every further call of the token.
async fn round(
    dns: &CloudflareDns,
    plan: &Plan<Record>,
    steps: Vec<Step<'_>>,
    outcomes: &mut BTreeMap<usize, Outcome>,
) -> Option<BackendError> {
    let mut zones: BTreeMap<(Urgency, String), (Zone, Vec<Step>)> = BTreeMap::new();
    for (index, change) in steps {
        match zone_of(dns, change) {
            Ok(zone) => {
                let key = (plan.urgency_of(change), zone.id.clone());
                zones.entry(key).or_insert_with(|| (zone, Vec::new())).1.push((index, change));
            }
            Err(error) => {
                outcomes.insert(index, Err(error));
            }
        }
    }
    let mut stopped: Option<BackendError> = None;
    for ((urgency, _), (zone, steps)) in zones {
        let work = Work { dns, api: dns.records_api(urgency), zone };
        if let Some(error) = &stopped {
            outcomes.extend(steps.iter().map(|(index, _)| (*index, Err(error.clone()))));
            continue;
        }
        let done = work.all(&steps).await;
        // A throttled or refused token is refused for every other record as well: not one call more.
        let stops = |error: &&BackendError| error.class == ErrorClass::Throttled || error.reason == "TokenRefused";
        stopped = done.iter().find_map(|(_, outcome)| outcome.as_ref().err().filter(stops)).cloned();
        outcomes.extend(done);
        if let Some(memory) = lock(&dns.memory).get_mut(&work.zone.id) {
            memory.snapshot = None;
        }
    }
    stopped
}

/// The record that a change is about, as it is to be or as it was seen.
fn item_of(change: &Change<Record>) -> &Record {
    match change {
        Change::Create { item, .. } | Change::Delete { item, .. } | Change::Release { item, .. } => item,
        Change::Update { to, .. } | Change::Adopt { to, .. } => to,
    }
}

fn makes(change: &Change<Record>) -> bool {
    matches!(change, Change::Create { .. } | Change::Update { .. } | Change::Adopt { .. })
}

fn stray(change: &Change<Record>) -> Option<&Stray> {
    item_of(change).stray.as_ref()
}

/// The zone in which a change is made. Where a zone cannot take new records, what is in it can still go.
fn zone_of(dns: &CloudflareDns, change: &Change<Record>) -> Result<Zone, BackendError> {
    let name = &item_of(change).name;
    if let Some(zone) = stray(change).and_then(|stray| dns.zones.by_id(&stray.zone_id)) {
        return Ok(zone);
    }
    let zone = dns.zone(name)?;
    match zone.unusable().filter(|_| makes(change)) {
        Some(error) => Err(error),
        None => proxiable(&zone, change).map(|()| zone),
    }
}

/// A paused zone proxies nothing, so what is to be proxied is not made in it.
fn proxiable(zone: &Zone, change: &Change<Record>) -> Result<(), BackendError> {
    let (Change::Create { item, .. } | Change::Update { to: item, .. } | Change::Adopt { to: item, .. }) = change
    else {
        return Ok(());
    };
    match zone.unproxied().filter(|_| item.proxied) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
