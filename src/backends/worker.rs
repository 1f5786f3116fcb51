//! The one writer of an instance: batches what is due, then observes once, plans once, applies once.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::{Backend, BackendError, Doubt, ErrorClass, Scope};
use crate::api::clock::Clock;
use crate::api::condition::Truth;
use crate::api::portal::MadeResource;
use crate::api::{ANNOTATION_ADOPT, HostName, PortalKey};
use crate::http::double::lock;
use crate::http::shutdown::Shutdown;
use crate::plan::{self, Blocked, Change, Intent, Item, Mark, Plan};

/// What a portal wants of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Record or route as intended, and nothing else of this portal. `former` are names it had before.
    Present { intent: Intent, former: Vec<HostName> },
    /// Nothing of this portal, at any of the names it has or had.
    Absent { mark: Mark, hosts: Vec<HostName> },
    /// Everything of this portal stays, without the mark.
    Released { mark: Mark, hosts: Vec<HostName> },
    /// Like `Present`, but only looks: the changes come back in words.
    Observe { intent: Intent, former: Vec<HostName> },
}

impl Want {
    fn mark(&self) -> &Mark {
        match self {
            Self::Present { intent, .. } | Self::Observe { intent, .. } => &intent.mark,
            Self::Absent { mark, .. } | Self::Released { mark, .. } => mark,
        }
    }
    fn hosts(&self) -> Vec<HostName> {
        match self {
            Self::Present { intent, former } | Self::Observe { intent, former } => {
                std::iter::once(&intent.host).chain(former).cloned().collect()
            }
            Self::Absent { hosts, .. } | Self::Released { hosts, .. } => hosts.clone(),
        }
    }
}

/// What stands outside now, as proved by a read or by the answer to a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programmed {
    pub resources: Vec<MadeResource>,
    /// The certificate that they answer with, in words, where the system sees to certificates.
    pub certificate: Option<String>,
    /// What was written now, in words.
    pub changes: Vec<String>,
    /// What would be written, in words (`Want::Observe` only).
    pub pending: Vec<String>,
    /// What the instance itself does not confirm, or has to say.
    pub doubts: Vec<Doubt>,
}

type Answer = Result<Programmed, BackendError>;

struct Job {
    portal: PortalKey,
    want: Want,
    answer: oneshot::Sender<Answer>,
}

struct Verified {
    intent: Intent,
    resources: Vec<MadeResource>,
    certificate: Option<String>,
    doubts: Vec<Doubt>,
    at: Timestamp,
}

#[derive(Clone)]
struct Memo {
    verified: Arc<Mutex<HashMap<PortalKey, Verified>>>,
    /// How long that is believed; it may change with what there is.
    drift: Arc<Mutex<SignedDuration>>,
    clock: Arc<dyn Clock>,
}

fn drift_of<B: Backend>(backend: &B) -> SignedDuration {
    SignedDuration::try_from(backend.drift_interval()).unwrap_or(SignedDuration::MAX)
}

/// Handle of an instance's worker. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    instance: String,
    jobs: mpsc::Sender<Job>,
    memo: Memo,
}

/// Wants that may wait; more are held back at [`Worker::submit`].
const QUEUE: usize = 1024;
/// Wants of one batch.
const BATCH: usize = 1024;

impl Worker {
    /// Starts the worker of an instance; it ends with `shutdown` or with its last handle.
    pub fn spawn<B: Backend>(backend: B, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let drift = Arc::new(Mutex::new(drift_of(&backend)));
        let memo = Memo { verified: Arc::default(), drift, clock };
        let instance = backend.instance();
        tokio::spawn(run(backend, queue, memo.clone(), shutdown));
        Self { instance, jobs, memo }
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Brings the instance to what the portal wants. Unchanged wants that were verified within the drift
    /// interval are answered without a call.
    pub async fn submit(&self, portal: PortalKey, want: Want) -> Answer {
        let (answer, answered) = oneshot::channel();
        let stopping = || BackendError::new(ErrorClass::Unavailable, "ShuttingDown", "the program is shutting down");
        self.jobs.send(Job { portal, want, answer }).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Makes the next want of this portal look again.
    pub fn forget(&self, portal: &PortalKey) {
        lock(&self.memo.verified).remove(portal);
    }

    /// What was verified of just this intent within the drift interval, if it was. Asks nobody.
    pub fn remembered(&self, intent: &Intent) -> Option<Programmed> {
        self.memo.remembered(intent)
    }
}

async fn run<B: Backend>(backend: B, mut queue: mpsc::Receiver<Job>, memo: Memo, shutdown: Shutdown) {
    let mut batch = Vec::new();
    loop {
        let count = tokio::select! {
            count = queue.recv_many(&mut batch, BATCH) => count,
            () = shutdown.wait() => return,
        };
        if count == 0 {
            return;
        }
        *lock(&memo.drift) = drift_of(&backend);
        let mut begun = Begun::default();
        begun.sort(&mut batch, &memo);
        let end = tokio::time::Instant::now() + backend.gather();
        while !begun.due.is_empty() && begun.due.len() < BATCH && !backend.gather().is_zero() {
            match tokio::time::timeout_at(end, queue.recv_many(&mut batch, BATCH - begun.due.len())).await {
                Ok(1..) => begun.sort(&mut batch, &memo),
                Ok(0) | Err(_) => break,
            }
        }
        // Work that was begun is finished even when shutdown begins: a write is never abandoned half-way.
        process(&backend, begun.due, &memo).await;
        for job in begun.later {
            process(&backend, vec![job], &memo).await;
        }
    }
}

/// Jobs of one batch that need a look.
#[derive(Default)]
struct Begun {
    due: Vec<Job>,
    /// Further wants of a portal that is among the due ones. Two of one portal never share a plan; the later one sees
    /// what the earlier one made.
    later: Vec<Job>,
}

impl Begun {
    /// Answers what is remembered and takes the rest.
    fn sort(&mut self, batch: &mut Vec<Job>, memo: &Memo) {
        for job in batch.drain(..) {
            let remembered = match &job.want {
                Want::Present { intent, former } if former.is_empty() => memo.remembered(intent),
                _ => None,
            };
            if let Some(programmed) = remembered {
                let _ = job.answer.send(Ok(programmed));
            } else if self.due.iter().any(|other| other.portal == job.portal) {
                self.later.push(job);
            } else {
                self.due.push(job);
            }
        }
    }
}

impl Memo {
    fn remembered(&self, intent: &Intent) -> Option<Programmed> {
        let (now, drift) = (self.clock.now(), *lock(&self.drift));
        let all = lock(&self.verified);
        let verified = all.get(&intent.portal)?;
        let fresh = now.duration_since(verified.at) < drift && now >= verified.at;
        (fresh && verified.intent == *intent).then(|| Programmed {
            resources: verified.resources.clone(),
            certificate: verified.certificate.clone(),
            doubts: verified.doubts.clone(),
            ..Programmed::default()
        })
    }
}

async fn process<B: Backend>(backend: &B, jobs: Vec<Job>, memo: &Memo) {
    if jobs.is_empty() {
        return;
    }
    let scope = Scope {
        hosts: jobs.iter().flat_map(|job| job.want.hosts()).collect(),
        marks: jobs.iter().map(|job| job.want.mark().clone()).collect(),
    };
    let observed = match backend.observe(&scope).await {
        Ok(observed) => observed,
        // One bad name must not hold the others: ask for each by itself, unless the instance is down for all.
        Err(error) if jobs.len() > 1 && matches!(error.class, ErrorClass::Permanent | ErrorClass::Conflict) => {
            for job in jobs {
                Box::pin(process(backend, vec![job], memo)).await;
            }
            return;
        }
        Err(error) => {
            for job in jobs {
                lock(&memo.verified).remove(&job.portal);
                let _ = job.answer.send(Err(error.clone()));
            }
            return;
        }
    };
    let wants: Vec<_> = jobs.iter().map(|job| (job.portal.clone(), item_want(backend, &job.want))).collect();
    let mut plan = plan::plan(&wants, &observed);
    let looks_only =
        |portal: &PortalKey| jobs.iter().any(|job| job.portal == *portal && matches!(job.want, Want::Observe { .. }));
    let (pending, changes) = plan.changes.into_iter().partition(|change| looks_only(change.portal()));
    let pending: Vec<Change<B::Item>> = pending;
    plan.changes = changes;
    let outcomes = if plan.changes.is_empty() { Vec::new() } else { backend.apply(&plan).await };

    let mut results: Vec<Answer> =
        jobs.iter().map(|job| settle(backend, job, &plan, &outcomes, &pending, &observed)).collect();
    doubt(backend, &jobs, &mut results).await;
    for (job, result) in jobs.into_iter().zip(results) {
        match (&job.want, &result) {
            (Want::Present { intent, .. }, Ok(done)) if done.doubts.iter().all(|doubt| believed(backend, doubt)) => {
                let Programmed { resources, certificate, doubts, .. } = done.clone();
                let verified =
                    Verified { intent: intent.clone(), resources, certificate, doubts, at: memo.clock.now() };
                lock(&memo.verified).insert(job.portal.clone(), verified);
            }
            _ => {
                lock(&memo.verified).remove(&job.portal);
            }
        }
        // A caller that stopped waiting asks again.
        let _ = job.answer.send(result);
    }
}

fn believed<B: Backend>(backend: &B, doubt: &Doubt) -> bool {
    match doubt.truth {
        Truth::True => true,
        Truth::Unknown => backend.proof_decides(),
        Truth::False => false,
    }
}

/// Asks the instance once about everything that stands in it as wanted.
async fn doubt<B: Backend>(backend: &B, jobs: &[Job], results: &mut [Answer]) {
    let mut items = Vec::new();
    for (job, result) in jobs.iter().zip(results.iter()) {
        if let (Want::Present { intent, .. } | Want::Observe { intent, .. }, Ok(done)) = (&job.want, result)
            && done.pending.is_empty()
        {
            items.extend(backend.desired(intent));
        }
    }
    if items.is_empty() {
        return;
    }
    for doubt in backend.doubts(&items).await {
        let about = |done: &&mut Programmed| done.resources.iter().any(|made| made.name == doubt.key);
        if let Some(done) = results.iter_mut().filter_map(|result| result.as_mut().ok()).find(about) {
            done.doubts.push(doubt.clone());
        }
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
        Want::Absent { mark, .. } => plan::Want::Absent { mark: mark.clone() },
        Want::Released { mark, .. } => plan::Want::Released { mark: mark.clone() },
    }
}

fn settle<B: Backend>(
    backend: &B,
    job: &Job,
    plan: &Plan<B::Item>,
    outcomes: &[Result<Option<String>, BackendError>],
    pending: &[Change<B::Item>],
    observed: &[plan::Observed<B::Item>],
) -> Answer {
    if let Some(blocked) = plan.blocked.iter().find(|blocked| blocked.portal == job.portal) {
        return Err(conflict(backend.conflict_reason(), blocked));
    }
    let mut ids: HashMap<String, String> = observed
        .iter()
        .filter(|o| matches!(&o.ownership, plan::Ownership::Marked(other) if other == job.want.mark()))
        .map(|o| (o.item.key().to_owned(), o.id.clone()))
        .collect();
    let mut words = Vec::new();
    for (index, change) in plan.changes.iter().enumerate().filter(|(_, change)| *change.portal() == job.portal) {
        match outcomes.get(index) {
            Some(Ok(id)) => {
                let (Change::Create { item, .. } | Change::Update { to: item, .. } | Change::Adopt { to: item, .. }) =
                    change
                else {
                    words.push(change.describe());
                    continue;
                };
                if let Some(id) = id {
                    ids.insert(item.key().to_owned(), id.clone());
                }
                words.push(change.describe());
            }
            Some(Err(error)) => return Err(error.clone()),
            None => {
                return Err(BackendError::new(
                    ErrorClass::OutcomeUnknown,
                    "NoOutcome",
                    format!("{} gave no outcome for: {}", backend.instance(), change.describe()),
                ));
            }
        }
    }
    let resources = match &job.want {
        Want::Present { intent, .. } | Want::Observe { intent, .. } => backend
            .desired(intent)
            .iter()
            .filter(|item| ids.contains_key(item.key()) || matches!(job.want, Want::Present { .. }))
            .map(|item| MadeResource {
                system: backend.instance(),
                name: item.key().to_owned(),
                id: ids.get(item.key()).cloned(),
            })
            .collect(),
        Want::Absent { .. } | Want::Released { .. } => Vec::new(),
    };
    let pending: Vec<String> =
        pending.iter().filter(|change| *change.portal() == job.portal).map(Change::describe).collect();
    let certificate = match &job.want {
        Want::Present { intent, .. } | Want::Observe { intent, .. } if pending.is_empty() => {
            backend.desired(intent).iter().find_map(Item::certificate)
        }
        _ => None,
    };
    Ok(Programmed { resources, certificate, changes: words, pending, doubts: Vec::new() })
}

fn conflict(reason: &'static str, blocked: &Blocked) -> BackendError {
    let Blocked { key, by, marked, .. } = blocked;
    let message = if *marked {
        format!("{key} is held by another portal or another installation of Portalkeeper: {by}")
    } else {
        format!(
            "{key} is taken by something that is not ours: {by}; remove it, or set the annotation {ANNOTATION_ADOPT}=true to take it over"
        )
    };
    BackendError::new(ErrorClass::Conflict, reason, message)
}
