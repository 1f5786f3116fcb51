//! One batch of one lane: look, plan, write, and tell everybody what came of it.
use std::collections::{BTreeSet, HashMap, HashSet};

use super::judging::{Judged, count, judge};
use super::memo::digest;
use super::sight::{Sight, look};
use super::{Answer, Job, Known, Programmed, Shared, Want};
use crate::api::HostName;
use crate::api::portal::MadeResource;
use crate::api::{ANNOTATION_ADOPT, PortalKey};
use crate::backends::{Backend, BackendError, Doubt, ErrorClass};
use crate::http::double::lock;
use crate::plan::{self, Blocked, Change, Item, Mark, Plan, Urgency};

pub(super) fn most_urgent<B: Backend>(shared: &Shared<B>, jobs: &[Job]) -> Urgency {
    let memo = lock(&shared.memo);
    jobs.iter().map(|job| memo.urgency(&job.portal, &job.want)).min().unwrap_or_default()
}

/// Works on everything of a lane.
pub(super) async fn work<B: Backend>(shared: &Shared<B>, jobs: Vec<Job>) {
    let mut due: Vec<Job> = Vec::new();
    let mut later = Vec::new();
    let mut portals = HashSet::new();
    for job in jobs {
        let now = shared.clock.now();
        // Asked again here: an earlier batch may have brought the answer since.
        let answer = lock(&shared.memo).answer(&job, now);
        if let Some(answer) = answer {
            let _ = job.answer.send(answer);
        } else if portals.insert(job.portal.clone()) {
            due.push(job);
        } else {
            // Two wants of one portal never share a plan; the later one sees what the earlier one made.
            later.push(job);
        }
    }
    process(shared, due).await;
    for job in later {
        process(shared, vec![job]).await;
    }
}

async fn process<B: Backend>(shared: &Shared<B>, mut jobs: Vec<Job>) {
    if jobs.is_empty() {
        return;
    }
    {
        let memo = lock(&shared.memo);
        jobs.sort_by_key(|job| memo.urgency(&job.portal, &job.want));
    }
    if let Some(job) = jobs.iter().find(|job| matches!(job.want, Want::Present { .. })) {
        shared.backend.upkeep(job.want.mark()).await;
    }
    // What was never made is made without a look where the system itself refuses a second one.
    let unseen = |job: &Job| {
        let Want::Present { intent, former } = &job.want else { return false };
        shared.backend.spares_reads() && job.known == Known::NeverMade && former.is_empty() && !intent.adopt
    };
    let urgency = most_urgent(shared, &jobs);
    let looked: Vec<&Job> = jobs.iter().filter(|job| !unseen(job)).collect();
    let seen = if looked.is_empty() { Ok(Sight::nothing()) } else { look(shared, &looked, urgency).await };
    let seen = match seen {
        Ok(seen) => seen,
        // One bad name must not hold the others: ask for each by itself, unless the instance is down for all.
        Err(error) if jobs.len() > 1 && matches!(error.class, ErrorClass::Permanent | ErrorClass::Conflict) => {
            for job in jobs {
                Box::pin(process(shared, vec![job])).await;
            }
            return;
        }
        Err(error) => {
            conclude(shared, jobs.into_iter().map(|job| (job, Err(error.clone()))).collect());
            return;
        }
    };
    let wants: Vec<_> = jobs.iter().map(|job| (job.portal.clone(), item_want(&shared.backend, &job.want))).collect();
    let mut plan = plan::plan(&wants, &seen.observed);
    plan.urgency = urgency;
    for job in &jobs {
        if let Want::Left { but, .. } = &job.want {
            let spared = |change: &Change<B::Item>| matches!(change, Change::Delete { id, .. } if but.contains(id));
            plan.changes.retain(|change| *change.portal() != job.portal || !spared(change));
        }
    }
    // A listed zone shows all that is ours, and what is only let go at some names stays as it is at others.
    for job in jobs.iter().filter(|job| matches!(job.want, Want::Released { .. } | Want::Left { .. })) {
        let hosts = job.want.hosts();
        let elsewhere = |key: &str| HostName::parse(key).is_ok_and(|name| !hosts.contains(&name));
        plan.changes.retain(|change| *change.portal() != job.portal || !elsewhere(change.key()));
    }
    let looks_only: HashSet<PortalKey> =
        jobs.iter().filter(|job| matches!(job.want, Want::Observe { .. })).map(|job| job.portal.clone()).collect();
    let (pending, changes) = plan.changes.into_iter().partition(|change| looks_only.contains(change.portal()));
    let pending: Vec<Change<B::Item>> = pending;
    plan.changes = changes;
    let Judged { held_back, repairing } = judge(shared, &jobs, &mut plan);
    let outcomes = if plan.changes.is_empty() { Vec::new() } else { shared.backend.apply(&plan).await };
    count(shared, &repairing, &plan, &outcomes);

    let bench = Bench::new(&shared.backend, &plan, &outcomes, &pending, &seen);
    let mut answers: Vec<(Job, Answer)> = Vec::new();
    let mut again = Vec::new();
    for job in jobs {
        let answer = match held_back.get(&job.portal) {
            Some(error) => Err(error.clone()),
            None => bench.settle(&job),
        };
        let planned = !bench.blocked.contains_key(&job.portal);
        let surprised =
            matches!(&answer, Err(error) if matches!(error.class, ErrorClass::Conflict | ErrorClass::OutcomeUnknown));
        if planned && surprised && shared.backend.spares_reads() && !job.retried && !held_back.contains_key(&job.portal)
        {
            // Something is there after all, perhaps of an earlier try of ours: now a look decides.
            again.push(Job { known: Known::Nothing, retried: true, ..job });
        } else {
            answers.push((job, answer));
        }
    }
    doubt(&shared.backend, &mut answers).await;
    let repaired: HashSet<PortalKey> = {
        let memo = lock(&shared.memo);
        let drifted = |job: &Job| memo.urgency(&job.portal, &job.want) == Urgency::Drift;
        answers.iter().filter(|(job, _)| drifted(job)).map(|(job, _)| job.portal.clone()).collect()
    };
    let now = shared.clock.now();
    for (job, answer) in &mut answers {
        if let Ok(done) = answer {
            done.remarks = shared.backend.remarks(job.want.mark());
        }
        if let (Ok(done), Want::Present { intent, .. }) = (answer, &job.want) {
            done.repaired = !done.changes.is_empty() && repaired.contains(&job.portal);
            // What there is something to say about is looked at again after a restart.
            if done.doubts.is_empty() && shared.backend.spares_reads() {
                done.verified = Some((digest(&shared.backend, intent), now));
            }
        }
    }
    conclude(shared, answers);
    if !again.is_empty() {
        Box::pin(process(shared, again)).await;
    }
}

/// Remembers the answers, sees to the queue, and sends them.
pub(super) fn conclude<B: Backend>(shared: &Shared<B>, answers: Vec<(Job, Answer)>) {
    let now = shared.clock.now();
    let answers: Vec<(Job, Answer, bool)> = answers
        .into_iter()
        .map(|(job, answer)| match answer {
            // A mere look that has to wait says nothing against what was verified before.
            Err(error) if error.class == ErrorClass::Throttled => {
                match lock(&shared.memo).postponed(&shared.backend, &job.portal, &job.want, now) {
                    Some(known) => (job, Ok(known), true),
                    None => (job, Err(error), false),
                }
            }
            answer => (job, answer, false),
        })
        .collect();
    let queue = shared.backend.queue();
    if let Some(queue) = queue {
        let memo = lock(&shared.memo);
        for (job, answer, _) in &answers {
            match answer {
                Err(error) if error.class == ErrorClass::Throttled => {
                    queue.enter(&job.portal, memo.urgency(&job.portal, &job.want));
                }
                _ => queue.leave(&job.portal),
            }
        }
    }
    for (job, mut answer, postponed) in answers {
        if !postponed {
            lock(&shared.memo).note(&shared.backend, &job.portal, &job.want, &answer, now);
        }
        if let (Err(error), Some(queue)) = (&mut answer, queue) {
            error.place = queue.place(&job.portal);
        }
        // A caller that stopped waiting asks again.
        let _ = job.answer.send(answer);
    }
}

/// Asks the instance once about everything that stands in it as wanted.
async fn doubt<B: Backend>(backend: &B, answers: &mut [(Job, Answer)]) {
    let mut items = Vec::new();
    for (job, answer) in answers.iter() {
        if let (Some(intent), Ok(done)) = (job.want.intent(), answer)
            && done.pending.is_empty()
        {
            items.extend(backend.desired(intent));
        }
    }
    if items.is_empty() {
        return;
    }
    let mut by_key: HashMap<String, Vec<Doubt>> = HashMap::new();
    for doubt in backend.doubts(&items).await {
        by_key.entry(doubt.key.clone()).or_default().push(doubt);
    }
    for done in answers.iter_mut().filter_map(|(_, answer)| answer.as_mut().ok()) {
        let names: BTreeSet<&String> = done.resources.iter().map(|made| &made.name).collect();
        let about: Vec<Doubt> = names.into_iter().filter_map(|name| by_key.remove(name)).flatten().collect();
        done.doubts.extend(about);
    }
}

fn item_want<B: Backend>(backend: &B, want: &Want) -> plan::Want<B::Item> {
    match want {
        Want::Present { intent, .. } | Want::Observe { intent, .. } => plan::Want::Present {
            mark: intent.mark.clone(),
            items: backend.desired(intent),
            adopt: intent.adopt,
            keep: intent.keep.clone(),
        },
        Want::Absent { mark, .. } | Want::Left { mark, .. } => plan::Want::Absent { mark: mark.clone() },
        Want::Dormant { mark, host, .. } => plan::Want::Dormant { mark: mark.clone(), host: host.clone() },
        Want::Released { mark, .. } => plan::Want::Released { mark: mark.clone() },
    }
}

/// What a batch came to, told apart by portal.
struct Bench<'a, B: Backend> {
    backend: &'a B,
    seen: &'a Sight<B::Item>,
    blocked: HashMap<&'a PortalKey, &'a Blocked>,
    /// Changes that were tried, with what came of each.
    tried: HashMap<&'a PortalKey, Vec<Tried<'a, B::Item>>>,
    /// Changes that were only looked for, in words.
    pending: HashMap<&'a PortalKey, Vec<String>>,
    /// What stands already, by its owner's mark.
    standing: HashMap<&'a Mark, Vec<&'a plan::Observed<B::Item>>>,
}

/// A change, and what the system answered, if it did.
type Tried<'a, I> = (&'a Change<I>, Option<&'a Result<Option<String>, BackendError>>);

impl<'a, B: Backend> Bench<'a, B> {
    fn new(
        backend: &'a B,
        plan: &'a Plan<B::Item>,
        outcomes: &'a [Result<Option<String>, BackendError>],
        looked_for: &'a [Change<B::Item>],
        seen: &'a Sight<B::Item>,
    ) -> Self {
        let mut bench = Self {
            backend,
            seen,
            blocked: HashMap::new(),
            tried: HashMap::new(),
            pending: HashMap::new(),
            standing: HashMap::new(),
        };
        for blocked in &plan.blocked {
            bench.blocked.entry(&blocked.portal).or_insert(blocked);
        }
        for (index, change) in plan.changes.iter().enumerate() {
            bench.tried.entry(change.portal()).or_default().push((change, outcomes.get(index)));
        }
        for change in looked_for {
            bench.pending.entry(change.portal()).or_default().push(change.describe());
        }
        for observed in &seen.observed {
            if let plan::Ownership::Marked(mark) = &observed.ownership {
                bench.standing.entry(mark).or_default().push(observed);
            }
        }
        bench
    }

    /// What stays switched off.
    fn dormant(&self, want: &Want) -> Vec<MadeResource> {
        let Want::Dormant { mark, host, .. } = want else { return Vec::new() };
        let standing = self.standing.get(mark).into_iter().flatten();
        let kept = standing.filter(|o| o.item.switched_off(host).is_some());
        let (system, name) = (self.backend.instance(), |o: &plan::Observed<B::Item>| o.item.key().to_owned());
        kept.map(|o| MadeResource { system: system.clone(), name: name(o), id: Some(o.id.clone()) }).collect()
    }

    fn settle(&self, job: &Job) -> Answer {
        if let Some(blocked) = self.blocked.get(&job.portal) {
            return Err(conflict(self.backend.conflict_reason(), blocked));
        }
        let standing = self.standing.get(job.want.mark()).into_iter().flatten();
        let mut ids: HashMap<&str, &str> = standing.map(|o| (o.item.key(), o.id.as_str())).collect();
        let mut words = Vec::new();
        for (change, outcome) in self.tried.get(&job.portal).into_iter().flatten() {
            match outcome {
                Some(Ok(id)) => {
                    words.push(change.describe());
                    let (Change::Create { item, .. }
                    | Change::Update { to: item, .. }
                    | Change::Adopt { to: item, .. }) = change
                    else {
                        continue;
                    };
                    if let Some(id) = id {
                        ids.insert(item.key(), id);
                    }
                }
                Some(Err(error)) => return Err(error.clone()),
                None => {
                    let message = format!("{} gave no outcome for: {}", self.backend.instance(), change.describe());
                    return Err(BackendError::new(ErrorClass::OutcomeUnknown, "NoOutcome", message));
                }
            }
        }
        let desired = job.want.intent().map(|intent| self.backend.desired(intent)).unwrap_or_default();
        let resources = desired
            .iter()
            .filter(|item| ids.contains_key(item.key()) || matches!(job.want, Want::Present { .. }))
            .map(|item| MadeResource {
                system: self.backend.instance(),
                name: item.key().to_owned(),
                id: ids.get(item.key()).map(|id| (*id).to_owned()),
            })
            .chain(self.dormant(&job.want))
            .collect();
        let pending = self.pending.get(&job.portal).cloned().unwrap_or_default();
        let certificate = desired.iter().filter(|_| pending.is_empty()).find_map(Item::certificate);
        let out_of_reach = self.seen.out_of_reach(&job.want);
        Ok(Programmed { resources, certificate, changes: words, pending, out_of_reach, ..Programmed::default() })
    }
}

fn conflict(reason: &'static str, blocked: &Blocked) -> BackendError {
    let Blocked { key, by, marked, several, adoptable, said, .. } = blocked;
    let why = if *said { String::new() } else { format!("; {NOT_ADOPTABLE}") };
    let message = match (marked, several, adoptable) {
        (true, ..) => format!(
            "{key} is held by another portal or another installation of Portalkeeper: {by}; if that one is gone for good, remove this by hand"
        ),
        (false, true, true) => format!(
            "{key} is taken by several things that are not ours: {by}; remove them, or all but one and set the annotation {ANNOTATION_ADOPT}=true to take that over"
        ),
        (false, true, false) => {
            format!("{key} is taken by several things that are not ours: {by}; take {key} out of them by hand{why}")
        }
        (false, false, true) => format!(
            "{key} is taken by something that is not ours: {by}; remove it, or set the annotation {ANNOTATION_ADOPT}=true to take it over"
        ),
        (false, false, false) => {
            format!("{key} is taken by something that is not ours: {by}; take {key} out of it by hand{why}")
        }
    };
    BackendError::new(ErrorClass::Conflict, reason, message)
}

/// Why something is left to whoever made it, also where its portal may adopt.
const NOT_ADOPTABLE: &str =
    "it serves other names, too, or stands together with other things, so it cannot be taken over";
