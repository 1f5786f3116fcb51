//! The one writer of an instance: collects what is due, then observes once, plans once and applies once per lane.
mod batch;
mod judging;
mod memo;
mod repairs;
mod sight;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use self::memo::Known;
use self::memo::Memo;
pub use self::repairs::Held;
use self::repairs::Repairs;
use super::{Backend, BackendError, Doubt, ErrorClass, Remark};
use crate::api::clock::Clock;
use crate::api::portal::MadeResource;
use crate::api::{HostName, PortalKey};
use crate::http::double::lock;
use crate::http::shutdown::Shutdown;
use crate::plan::{Intent, Mark};

/// What a portal wants of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Record or route as intended, and nothing else of this portal. `former` are names it had before.
    Present { intent: Intent, former: Vec<HostName> },
    /// Nothing of this portal, at any of the names it has or had.
    Absent { mark: Mark, hosts: Vec<HostName> },
    /// Nothing of this portal for now: like `Absent`, but what can be switched off for `host` and would be costly to make
    /// again may stay so.
    Dormant { mark: Mark, host: HostName, hosts: Vec<HostName> },
    /// Everything of this portal stays, without the mark.
    Released { mark: Mark, hosts: Vec<HostName> },
    /// Like `Absent`, but for the things with these ids: another credential that sees them, too, has put them in place.
    Left { mark: Mark, hosts: Vec<HostName>, but: Vec<String> },
    /// Like `Present`, but only looks: the changes come back in words.
    Observe { intent: Intent, former: Vec<HostName> },
}

impl Want {
    fn mark(&self) -> &Mark {
        match self {
            Self::Present { intent, .. } | Self::Observe { intent, .. } => &intent.mark,
            Self::Absent { mark, .. }
            | Self::Released { mark, .. }
            | Self::Left { mark, .. }
            | Self::Dormant { mark, .. } => mark,
        }
    }
    fn hosts(&self) -> Vec<HostName> {
        match self {
            Self::Present { intent, former } | Self::Observe { intent, former } => {
                std::iter::once(&intent.host).chain(former).cloned().collect()
            }
            Self::Absent { hosts, .. }
            | Self::Released { hosts, .. }
            | Self::Left { hosts, .. }
            | Self::Dormant { hosts, .. } => hosts.clone(),
        }
    }
    fn intent(&self) -> Option<&Intent> {
        match self {
            Self::Present { intent, .. } | Self::Observe { intent, .. } => Some(intent),
            Self::Absent { .. } | Self::Released { .. } | Self::Left { .. } | Self::Dormant { .. } => None,
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
    /// What there is to say about the writes, such as what they may have cost others.
    pub remarks: Vec<Remark>,
    /// What was written puts right what somebody else had changed.
    pub repaired: bool,
    /// What would be written, in words (`Want::Observe` only).
    pub pending: Vec<String>,
    /// What the instance itself does not confirm, or has to say.
    pub doubts: Vec<Doubt>,
    /// Names other than the wanted one at which nothing could be looked at, each with the reason. What may be there is left.
    pub out_of_reach: Vec<(HostName, BackendError)>,
    /// What was verified and when, for [`Known::Verified`] after a restart.
    pub verified: Option<(String, jiff::Timestamp)>,
}

type Answer = Result<Programmed, BackendError>;

struct Job {
    portal: PortalKey,
    want: Want,
    known: Known,
    /// A write of it came out otherwise than the look before had promised, and it was looked at again.
    retried: bool,
    /// Its lane was found out.
    found: bool,
    answer: oneshot::Sender<Answer>,
}

/// What the tasks of one instance share.
struct Shared<B> {
    backend: B,
    memo: Arc<Mutex<Memo>>,
    repairs: Arc<Mutex<Repairs>>,
    clock: Arc<dyn Clock>,
}

/// Handle of an instance's worker. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    instance: String,
    jobs: mpsc::Sender<Job>,
    memo: Arc<Mutex<Memo>>,
    repairs: Arc<Mutex<Repairs>>,
    clock: Arc<dyn Clock>,
    forget: Arc<dyn Fn(&HostName) + Send + Sync>,
}

/// Wants that may wait; more are held back at [`Worker::submit`].
const QUEUE: usize = 4096;
/// Wants that are taken from the queue at once.
const BATCH: usize = 4096;
/// A batch is begun after this, whether the burst is over or not.
const LONGEST_SETTLE: Duration = Duration::from_secs(2);
/// Where more than one want has come, a burst is under way, and it is over when nothing comes for at least this long.
const BURST_QUIET: Duration = Duration::from_millis(100);
/// Lanes that are worked on at the same time.
const LANES: usize = 8;

impl Worker {
    /// Starts the worker of an instance; it ends with `shutdown` or with its last handle.
    pub fn spawn<B: Backend>(backend: B, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let instance = backend.instance();
        let (memo, repairs) = (Arc::<Mutex<Memo>>::default(), Arc::<Mutex<Repairs>>::default());
        let shared = Arc::new(Shared {
            backend,
            memo: Arc::clone(&memo),
            repairs: Arc::clone(&repairs),
            clock: Arc::clone(&clock),
        });
        let forgetting = Arc::clone(&shared);
        let forget = Arc::new(move |host: &HostName| forgetting.backend.forget(host));
        tokio::spawn(run(shared, queue, shutdown));
        Self { instance, jobs, memo, repairs, clock, forget }
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Brings the instance to what the portal wants. Unchanged wants that were verified within the drift
    /// interval are answered without a call.
    pub async fn submit(&self, portal: PortalKey, want: Want) -> Answer {
        self.submit_known(portal, want, Known::Nothing).await
    }

    /// Like [`Worker::submit`], with what the caller remembers of earlier answers.
    pub async fn submit_known(&self, portal: PortalKey, want: Want, known: Known) -> Answer {
        let (answer, answered) = oneshot::channel();
        let unanswered = || {
            let (reason, message) = match self.jobs.is_closed() {
                true => ("ShuttingDown", "the program is shutting down".to_owned()),
                false => {
                    let advice = "please report it, with the log; it is tried again";
                    ("InternalError", format!("the program failed while it worked on {}; {advice}", self.instance))
                }
            };
            BackendError::new(ErrorClass::Unavailable, reason, message)
        };
        self.jobs
            .send(Job { portal, want, known, retried: false, found: false, answer })
            .await
            .map_err(|_| unanswered())?;
        answered.await.map_err(|_| unanswered())?
    }

    /// The answer that a want of this would get without a call.
    pub fn remembered(&self, intent: &Intent) -> Option<Programmed> {
        lock(&self.memo).standing(intent, self.clock.now())
    }

    /// Makes the next want of this portal look again.
    pub fn forget(&self, portal: &PortalKey) {
        if let Some(host) = lock(&self.memo).forget(portal) {
            (self.forget)(&host);
        }
    }

    /// Makes the next wants of the portals at these names look again, and tells whose they are.
    pub fn forget_names(&self, concerned: &dyn Fn(&HostName) -> bool) -> Vec<PortalKey> {
        lock(&self.memo).forget_names(concerned)
    }

    /// Repairs that are held because there are too many at once.
    pub fn held(&self) -> Option<Held> {
        lock(&self.repairs).held()
    }

    /// Lets the held repairs of this id go ahead.
    pub fn approve(&self, id: &str) {
        let concerned = lock(&self.repairs).approve(id);
        let mut memo = lock(&self.memo);
        concerned.iter().for_each(|portal| {
            memo.forget(portal);
        });
    }
}

/// What a task of the worker came to.
enum Step {
    /// All of a lane's jobs are answered.
    Done,
    /// The lanes of these are known now.
    Found(Vec<Job>),
    /// Somebody else has changed something at these names.
    Hints(Vec<String>),
}

/// The lane of what must be found out first. No host has this name.
const UNKNOWN: &str = "?";

async fn run<B: Backend>(shared: Arc<Shared<B>>, mut queue: mpsc::Receiver<Job>, shutdown: Shutdown) {
    let mut waiting: HashMap<String, Vec<Job>> = HashMap::new();
    let mut busy: HashSet<String> = HashSet::new();
    let mut tasks: JoinSet<Step> = JoinSet::new();
    let mut batch = Vec::new();
    let mut lanes: HashMap<tokio::task::Id, String> = HashMap::new();
    let mut hinting: Option<tokio::task::Id> = None;
    let mut hints = shared.backend.hint_interval().map(tokio::time::interval);
    loop {
        tokio::select! {
            count = queue.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    break;
                }
                settle(shared.backend.gather(), &mut queue, &mut batch).await;
            }
            Some(step) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                // A panic of a backend must not stop the instance: the callers see that no answer came.
                let id = step.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
                hinting.take_if(|hinting| *hinting == id);
                if let Some(lane) = lanes.remove(&id) {
                    busy.remove(&lane);
                }
                match step.map(|(_, step)| step) {
                    Ok(Step::Found(jobs)) => batch.extend(jobs.into_iter().map(|job| Job { found: true, ..job })),
                    Ok(Step::Hints(names)) => {
                        names.iter().filter_map(|name| HostName::parse(name).ok()).for_each(|host| shared.backend.forget(&host));
                        let names: HashSet<String> = names.into_iter().collect();
                        lock(&shared.memo).forget_names(&|host| names.contains(host.as_str()));
                    }
                    Ok(Step::Done) | Err(_) => {}
                }
            },
            () = tick(hints.as_mut()), if hinting.is_none() => {
                let shared = Arc::clone(&shared);
                hinting = Some(tasks.spawn(async move { Step::Hints(shared.backend.hints().await) }).id());
            }
            () = shutdown.wait() => break,
        }
        for job in batch.drain(..) {
            let now = shared.clock.now();
            let mut memo = lock(&shared.memo);
            if shared.backend.spares_reads() {
                memo.believe(&shared.backend, &job, now);
            }
            match memo.answer(&job, now) {
                Some(answer) => {
                    let _ = job.answer.send(answer);
                }
                None => waiting.entry(lane(&shared.backend, &job)).or_default().push(job),
            }
        }
        for lane in free(&shared, &waiting, &busy) {
            let Some(jobs) = waiting.remove(&lane) else { continue };
            busy.insert(lane.clone());
            let (shared, unknown) = (Arc::clone(&shared), lane == UNKNOWN);
            let task = tasks.spawn(async move {
                if unknown {
                    return Step::Found(sight::discover(&shared, jobs).await);
                }
                batch::work(&shared, jobs).await;
                Step::Done
            });
            lanes.insert(task.id(), lane);
        }
    }
    // Work that was begun is finished even when shutdown begins: a write is never abandoned half-way.
    while tasks.join_next().await.is_some() {}
}

async fn tick(interval: Option<&mut tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Collects what comes with a burst, so that it becomes one batch.
async fn settle(quiet: Duration, queue: &mut mpsc::Receiver<Job>, batch: &mut Vec<Job>) {
    let latest = tokio::time::Instant::now() + LONGEST_SETTLE;
    while batch.len() < BATCH {
        let quiet = if batch.len() > 1 { quiet.max(BURST_QUIET) } else { quiet };
        let until = latest.min(tokio::time::Instant::now() + quiet);
        match tokio::time::timeout_at(until, queue.recv()).await {
            Ok(Some(job)) => batch.push(job),
            _ => return,
        }
    }
}

fn lane<B: Backend>(backend: &B, job: &Job) -> String {
    // The name that it has now decides; names from before may stand in other lanes, which is safe where lanes matter. Of
    // things that are to go, the first that can be worked on decides.
    let hosts = match job.want.intent() {
        Some(intent) => vec![intent.host.clone()],
        None => job.want.hosts(),
    };
    match hosts.iter().find_map(|host| backend.lane(host)) {
        Some(lane) => lane,
        None if job.found || hosts.is_empty() => String::new(),
        None => UNKNOWN.to_owned(),
    }
}

/// Lanes that can be worked on, in the order of those that wait in them.
fn free<B: Backend>(shared: &Shared<B>, waiting: &HashMap<String, Vec<Job>>, busy: &HashSet<String>) -> Vec<String> {
    let room = LANES.saturating_sub(busy.len());
    if room == 0 {
        return Vec::new();
    }
    let memo = lock(&shared.memo);
    let place = |job: &Job| {
        let order = shared.backend.queue().and_then(|queue| queue.order(&job.portal));
        (memo.urgency(&job.portal, &job.want), order.unwrap_or(u64::MAX))
    };
    let mut free: Vec<_> = waiting
        .iter()
        .filter(|(lane, _)| !busy.contains(*lane))
        .map(|(lane, jobs)| (jobs.first().map(place), lane))
        .collect();
    if free.len() > room {
        free.select_nth_unstable(room - 1);
        free.truncate(room);
    }
    free.sort();
    free.into_iter().map(|(_, lane)| lane.clone()).collect()
}
