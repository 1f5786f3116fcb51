//! Writing the records of one zone: one by one where there is one, as batches where there are several.
use serde_json::{Value, json};

use super::apply::{Outcome, Step};
use super::zones::Zone;
use super::{CloudflareDns, Record, USAGE, id_of, odd_record};
use crate::backends::cloudflare_api::Api;
use crate::backends::{BackendError, ErrorClass};
use crate::http::double::lock;
use crate::http::path_segment;
use crate::plan::{Change, Mark, Observed, Ownership};

/// Refused records of one batch that are looked for one by one.
const MOST_CULPRITS: usize = 8;

/// Operations of a batch that was refused as a whole are halved until the one at fault stands alone.
enum Sent {
    Done(Vec<(usize, Outcome)>),
    /// One of them is at fault.
    Refused(BackendError),
    /// None of them can be known to be at fault.
    Failed(BackendError),
}

/// What is written with.
pub(super) struct Work<'a> {
    pub dns: &'a CloudflareDns,
    pub api: Api,
    pub zone: Zone,
}

impl Work<'_> {
    fn records(&self) -> String {
        format!("/zones/{}/dns_records", path_segment(&self.zone.id))
    }
    fn record(&self, id: &str) -> String {
        format!("{}/{}", self.records(), path_segment(id))
    }
    fn stale(&self) -> bool {
        lock(&self.dns.memory).get(&self.zone.id).is_some_and(|memory| memory.stale)
    }

    /// Makes these changes, which are all in this zone.
    pub async fn all(&self, steps: &[Step<'_>]) -> Vec<(usize, Outcome)> {
        let mut done = Vec::new();
        let mut sure = Vec::new();
        for step in steps {
            match self.confirm(step.1).await {
                Ok(true) => sure.push(*step),
                Ok(false) => done.push((step.0, self.gone(step.1).await)),
                Err(error) => done.push((step.0, Err(error))),
            }
        }
        let mut failed: Option<BackendError> = None;
        for chunk in sure.chunks(self.zone.batch) {
            match &failed {
                Some(error) => done.extend(chunk.iter().map(|(index, _)| (*index, Err(error.clone())))),
                None => {
                    let (outcomes, error) = self.chunk(chunk).await;
                    done.extend(outcomes);
                    failed = error;
                }
            }
        }
        done
    }

    /// Whether the record is still the one that was seen: asked where it was seen a while ago.
    async fn confirm(&self, change: &Change<Record>) -> Result<bool, BackendError> {
        let (id, item, mark) = match change {
            Change::Create { .. } => return Ok(true),
            Change::Update { id, from, mark, .. } => (id, from, Some(mark)),
            Change::Adopt { id, from, .. } => (id, from, None),
            Change::Delete { id, item, mark, .. } | Change::Release { id, item, mark, .. } => (id, item, Some(mark)),
        };
        // What stands in another zone than its name's was seen by a lane that does not have this zone to itself.
        if !self.stale() && item.stray.is_none() {
            return Ok(true);
        }
        match self.api.read(self.api.http().get(&self.record(id))).await {
            Ok(envelope) => {
                let now = Record::parse(&envelope["result"]).ok_or_else(odd_record)?;
                let as_seen = match mark {
                    Some(mark) => still_ours(&now, item, mark),
                    None => now.ownership == Ownership::Foreign && now.item == *item,
                };
                if as_seen {
                    return Ok(true);
                }
                let message =
                    format!("the record at {} is not what it was when it was seen, so it is left alone", item.name);
                Err(BackendError::new(ErrorClass::Conflict, "ForeignRecord", message))
            }
            Err(error) if error.reason == "RecordGone" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is to be done about a record that is gone already.
    async fn gone(&self, change: &Change<Record>) -> Outcome {
        match change {
            Change::Update { mark, to, .. } | Change::Adopt { mark, to, .. } => self.create(to, mark).await,
            _ => Ok(None),
        }
    }

    async fn create(&self, item: &Record, mark: &Mark) -> Outcome {
        let request = self.api.http().post(&self.records()).json(&item.body(mark));
        match self.api.write(request).await {
            Ok(envelope) => Ok(id_of(&envelope["result"])),
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn single(&self, change: &Change<Record>) -> Outcome {
        match change {
            Change::Create { mark, item, .. } => self.create(item, mark).await,
            Change::Update { mark, id, to, .. } | Change::Adopt { mark, id, to, .. } => {
                let request = self.api.http().patch(&self.record(id)).json(&to.body(mark)).repeat_safe();
                match self.api.write(request).await {
                    Ok(_) => Ok(Some(id.clone())),
                    Err(error) if error.reason == "RecordGone" => self.gone(change).await,
                    Err(error) => Err(error),
                }
            }
            Change::Delete { id, .. } => {
                match self.api.write(self.api.http().delete(&self.record(id)).repeat_safe()).await {
                    Err(error) if error.reason != "RecordGone" => Err(error),
                    _ => Ok(None),
                }
            }
            Change::Release { id, .. } => {
                let request = self.api.http().patch(&self.record(id)).json(&json!({"comment": ""})).repeat_safe();
                match self.api.write(request).await {
                    Err(error) if error.reason != "RecordGone" => Err(error),
                    _ => Ok(None),
                }
            }
        }
    }

    /// Changes that fit into one batch. The error is one that stops what comes after them, too.
    async fn chunk(&self, steps: &[Step<'_>]) -> (Vec<(usize, Outcome)>, Option<BackendError>) {
        let mut done = Vec::new();
        // Groups to try, each with whether one of it is known to be at fault; what is left over waits for the end.
        let mut groups: Vec<(Vec<Step>, bool)> = vec![(steps.to_vec(), false)];
        let mut left_over: Vec<Step> = Vec::new();
        let mut was_full = false;
        let mut culprits = 0;
        while let Some((group, at_fault)) = groups.pop() {
            if let [(index, change)] = group.as_slice() {
                let outcome = self.single(change).await;
                culprits += usize::from(outcome.is_err());
                done.push((*index, outcome));
            } else {
                let (first, second) = if at_fault { halves(group) } else { (group, Vec::new()) };
                let sent = match first.as_slice() {
                    [(index, change)] => {
                        let outcome = self.single(change).await;
                        // Whether it was the one at fault tells about its neighbour.
                        let refused = outcome.is_err();
                        culprits += usize::from(refused);
                        let refusal = outcome.as_ref().err().filter(|error| {
                            // One conflict is somebody's record; several are more likely all ours, and one look tells.
                            (error.class == ErrorClass::Conflict && culprits > 1) || culprits > MOST_CULPRITS
                        });
                        if let Some(error) = refusal.cloned() {
                            done.push((*index, outcome));
                            let rest = groups.into_iter().flat_map(|(group, _)| group).chain(left_over).chain(second);
                            done.extend(rest.map(|(index, _)| (index, Err(error.clone()))));
                            return (done, None);
                        }
                        done.push((*index, outcome));
                        if refused {
                            left_over.extend(second)
                        } else {
                            groups.push((second, true))
                        }
                        continue;
                    }
                    several => self.batch(several).await,
                };
                match sent {
                    Sent::Done(outcomes) => {
                        done.extend(outcomes);
                        if !second.is_empty() {
                            groups.push((second, true));
                        }
                    }
                    Sent::Refused(error) if error.reason == "RecordQuotaExceeded" => {
                        let group = first.into_iter().chain(second).collect();
                        let (fit, over, holds) = self.room(group, was_full).await;
                        was_full = true;
                        let error = full(error, &self.zone.name, holds);
                        done.extend(over.into_iter().map(|(index, _)| (index, Err(error.clone()))));
                        if !fit.is_empty() {
                            groups.push((fit, false));
                        }
                    }
                    Sent::Refused(_) => {
                        left_over.extend(second);
                        groups.push((first, true));
                    }
                    Sent::Failed(error) => {
                        let rest = groups.into_iter().flat_map(|(group, _)| group).chain(left_over);
                        let all = first.into_iter().chain(second).chain(rest);
                        done.extend(all.map(|(index, _)| (index, Err(error.clone()))));
                        return (done, Some(error));
                    }
                }
            }
            if groups.is_empty() && !left_over.is_empty() {
                groups.push((std::mem::take(&mut left_over), false));
            }
        }
        (done, None)
    }

    async fn batch(&self, steps: &[Step<'_>]) -> Sent {
        let (mut deletes, mut patches, mut posts) = (Vec::new(), Vec::new(), Vec::new());
        for (_, change) in steps {
            match change {
                Change::Create { item, mark, .. } => posts.push(item.body(mark)),
                Change::Update { id, to, mark, .. } | Change::Adopt { id, to, mark, .. } => {
                    let mut patch = to.body(mark);
                    patch["id"] = json!(id);
                    patches.push(patch);
                }
                Change::Delete { id, .. } => deletes.push(json!({"id": id})),
                Change::Release { id, .. } => patches.push(json!({"id": id, "comment": ""})),
            }
        }
        let body = json!({"deletes": deletes, "patches": patches, "posts": posts});
        let request = self.api.http().post(&format!("{}/batch", self.records())).json(&body);
        match self.api.write(request).await {
            Ok(envelope) => {
                let made: Vec<&Value> = envelope["result"]["posts"].as_array().into_iter().flatten().collect();
                let id_at = |name: &str| {
                    made.iter().find(|record| record["name"].as_str() == Some(name)).and_then(|record| id_of(record))
                };
                let outcome = |change: &Change<Record>| match change {
                    Change::Create { item, .. } => id_at(&item.name),
                    Change::Update { id, .. } | Change::Adopt { id, .. } => Some(id.clone()),
                    Change::Delete { .. } | Change::Release { .. } => None,
                };
                Sent::Done(steps.iter().map(|(index, change)| (*index, Ok(outcome(change)))).collect())
            }
            Err(error)
                if matches!(error.class, ErrorClass::Permanent | ErrorClass::Conflict)
                    || error.reason == "UnknownRefusal" =>
            {
                Sent::Refused(error)
            }
            Err(error) => Sent::Failed(error),
        }
    }

    /// Of a full zone: what fits into it yet, what does not, and the numbers when that is in it.
    async fn room<'b>(
        &self,
        steps: Vec<Step<'b>>,
        was_full: bool,
    ) -> (Vec<Step<'b>>, Vec<Step<'b>>, Option<(u64, u64)>) {
        let (creations, others): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|(_, change)| matches!(change, Change::Create { .. }));
        let usage = self.usage(true).await;
        let room = usage.map_or(0, |(quota, used)| usize::try_from(quota.saturating_sub(used)).unwrap_or(usize::MAX));
        // Cloudflare said that they do not all fit, whatever the numbers say; said twice, none does.
        let room = if was_full { 0 } else { room.min(creations.len().saturating_sub(1)) };
        let (fit, over) = creations.split_at(room);
        let holds = usage.map(|(quota, used)| (quota, used + fit.len() as u64));
        if let Some(memory) = lock(&self.dns.memory).get_mut(&self.zone.id) {
            memory.usage = holds.map(|(quota, used)| (self.api.budget().now(), quota, used));
        }
        (others.into_iter().chain(fit.iter().copied()).collect(), over.to_vec(), holds)
    }

    /// How many records the zone may hold, and how many it holds.
    async fn usage(&self, anew: bool) -> Option<(u64, u64)> {
        let now = self.api.budget().now();
        let known = lock(&self.dns.memory).get(&self.zone.id).and_then(|memory| memory.usage);
        if let Some((_, quota, used)) = known.filter(|(at, ..)| !anew && now.duration_since(*at) < USAGE) {
            return Some((quota, used));
        }
        let envelope = self.api.read(self.api.http().get(&format!("{}/usage", self.records()))).await.ok()?;
        let numbers = (envelope["result"]["record_quota"].as_u64()?, envelope["result"]["record_usage"].as_u64()?);
        lock(&self.dns.memory).entry(self.zone.id.clone()).or_default().usage = Some((now, numbers.0, numbers.1));
        Some(numbers)
    }

    /// Adds to a refusal what can be known about it.
    async fn explain(&self, error: BackendError) -> BackendError {
        if error.reason != "RecordQuotaExceeded" {
            return error;
        }
        full(error, &self.zone.name, self.usage(false).await)
    }
}

fn full(mut error: BackendError, zone: &str, holds: Option<(u64, u64)>) -> BackendError {
    if let Some((quota, used)) = holds {
        error.message = format!("{} (the zone {zone} holds {used} of {quota} records)", error.message);
    }
    error
}

fn halves<T: Clone>(group: Vec<T>) -> (Vec<T>, Vec<T>) {
    let (first, second) = group.split_at(group.len().div_ceil(2));
    (first.to_vec(), second.to_vec())
}

fn still_ours(now: &Observed<Record>, seen: &Record, mark: &Mark) -> bool {
    now.ownership == Ownership::Marked(mark.clone()) && now.item.name == seen.name
}
