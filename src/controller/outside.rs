//! What a portal wants of the outside systems, and what they say about it.
use std::time::Duration;

use super::recorded::Recorded;
use super::runtime::ClassRuntime;
use super::times::stamp;
use super::validate::{Mode, ValidPortal};
use crate::api::condition::{CERTIFICATE_ISSUED, DNS_PROGRAMMED, Finding, LOADING, ROUTE_PROGRAMMED, Truth};
use crate::api::portal::{MadeResource, QueuePlace, Verified};
use crate::api::{HostName, PortalKey};
use crate::backends::{BackendError, ErrorClass, Programmed, Remark, Want, Worker};
use crate::plan::{InstallationId, Intent, Mark};
use crate::telemetry::metrics;

/// Reasons that are worth telling about what works, too.
const TELLING: [&str; 3] = ["ForeignFileBroken", "ForeignWriteLost", "PathsElsewhere"];

/// One write, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The condition that the instance stands for.
    pub condition: &'static str,
    pub words: String,
    /// It puts right what somebody else had changed.
    pub repaired: bool,
    /// Reason of an event of its own: not a write, but something to say about one.
    pub remark: Option<&'static str>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outside {
    pub findings: Vec<Finding>,
    pub resources: Vec<MadeResource>,
    /// What was written, each with the condition it belongs to.
    pub changes: Vec<Written>,
    /// What would be written, in words.
    pub pending: Vec<String>,
    /// What was found to be as wanted, where looks are counted.
    pub verified: Vec<Verified>,
    /// Systems that refused, rather than had to wait or could not be reached.
    pub refused: Vec<String>,
    /// Where the portal waits for a rate limit.
    pub queue: Option<QueuePlace>,
    /// Names that could not be looked at, though the rest could.
    pub out_of_reach: Vec<OutOfReach>,
    /// Systems in which everything that was to go is gone, but for what is out of reach.
    cleared: Vec<String>,
    /// Systems in which something that was to go may still be there.
    uncleared: Vec<String>,
    /// Asked to wait this long.
    pub wait: Option<Duration>,
}

/// A name at which something may be left, because nothing could be looked at there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfReach {
    pub system: String,
    pub host: HostName,
    /// Why, in words.
    pub words: String,
}

impl Outside {
    /// Whether something may still be there after a withdrawal.
    pub fn may_remain(&self, made: &MadeResource) -> bool {
        let unseen = |one: &OutOfReach| one.system == made.system && one.host.as_str() == made.name;
        !self.cleared.contains(&made.system) || self.out_of_reach.iter().any(unseen)
    }

    /// After a withdrawal: not every system that was to be cleared answered, or none was asked at all.
    pub fn some_uncleared(&self) -> bool {
        self.cleared.is_empty() || !self.uncleared.is_empty()
    }

    /// Together with what another withdrawal came to.
    pub fn join(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.changes.extend(other.changes);
        self.out_of_reach.extend(other.out_of_reach);
        self.cleared.extend(other.cleared);
        self.uncleared.extend(other.uncleared);
        // Two accounts may have one name: what is left in either is left.
        let uncleared = &self.uncleared;
        self.cleared.retain(|system| !uncleared.contains(system));
        self.wait = self.wait.max(other.wait);
    }

    fn unseen(&mut self, worker: &Worker, out_of_reach: Vec<(HostName, BackendError)>) {
        let system = worker.instance();
        self.out_of_reach.extend(out_of_reach.into_iter().map(|(host, error)| OutOfReach {
            system: system.to_owned(),
            host,
            words: error.message,
        }));
    }

    /// Nothing is known to be missing; what the instances cannot confirm is for the proof of life to decide, but not what
    /// they are still loading.
    pub fn programmed(&self) -> bool {
        self.findings.iter().all(|finding| finding.truth != Truth::False && finding.reason != LOADING)
    }

    /// The record is as wanted, or none is made here.
    pub fn recorded(&self) -> bool {
        self.findings.iter().all(|finding| finding.type_ != DNS_PROGRAMMED || finding.truth == Truth::True)
    }

    /// A portal that answered through record and route proves what they themselves could not confirm.
    pub fn prove(&mut self) {
        for finding in self.findings.iter_mut().filter(|finding| finding.truth == Truth::Unknown) {
            finding.truth = Truth::True;
            finding.message = format!("{}; the proof of life came through", finding.message);
            if !TELLING.contains(&finding.reason.as_str()) {
                finding.reason = "Proved".to_owned();
            }
        }
    }

    /// Notes what a worker answered under the condition it belongs to.
    fn note(
        &mut self,
        type_: &'static str,
        worker: &Worker,
        answer: Result<Programmed, BackendError>,
        observing: bool,
    ) {
        match answer {
            Ok(done) => {
                metrics::changed(worker.instance(), done.changes.len());
                let finding = if !done.pending.is_empty() {
                    let message = format!("not done while writes are stopped: {}", done.pending.join("; "));
                    Finding::new(type_, Truth::False, "ChangePending", message)
                } else if let Some(doubt) = done.doubts.iter().min_by_key(|doubt| weight(doubt.truth)) {
                    Finding::new(type_, doubt.truth, doubt.reason, doubt.message.clone())
                } else {
                    let names: Vec<&str> = done.resources.iter().map(|r| r.name.as_str()).collect();
                    if let Some(certificate) = &done.certificate {
                        let message = format!("{} is served {certificate}", names.join(", "));
                        self.findings.push(Finding::new(CERTIFICATE_ISSUED, Truth::True, "Issued", message));
                    }
                    let verb = if observing { "is as wanted" } else { "is in place" };
                    let message = format!("{} {verb} in {}", names.join(", "), worker.instance());
                    Finding::new(type_, Truth::True, "Programmed", message)
                };
                self.findings.push(finding);
                self.resources.extend(done.resources);
                if done.repaired {
                    metrics::repaired(worker.instance());
                }
                self.verified.extend(done.verified.map(|(digest, at)| Verified {
                    system: worker.instance().to_owned(),
                    digest,
                    at: stamp(at),
                }));
                self.unseen(worker, done.out_of_reach);
                self.changes.extend(written(type_, worker, done.changes, done.repaired));
                self.changes.extend(told(type_, done.remarks));
                self.pending.extend(done.pending.into_iter().map(|words| format!("{}: {words}", worker.instance())));
            }
            Err(error) => {
                self.wait = self.wait.max(error.retry_after);
                if !matches!(error.class, ErrorClass::Throttled | ErrorClass::Unavailable) {
                    self.refused.push(worker.instance().to_owned());
                }
                self.queue = self.queue.take().or(error.place.map(|place| QueuePlace {
                    system: worker.instance().to_owned(),
                    position: i64::try_from(place.position).unwrap_or(i64::MAX),
                    expected: stamp(place.expected),
                }));
                let mut finding = Finding::new(type_, Truth::False, error.reason(), error.message);
                if type_ == ROUTE_PROGRAMMED && finding.reason.starts_with("Certificate") {
                    self.findings.push(Finding { type_: CERTIFICATE_ISSUED, ..finding.clone() });
                    finding.reason = "CertificateMissing".to_owned();
                    finding.message = "the route waits for its certificate".to_owned();
                }
                self.findings.push(finding);
            }
        }
    }
}

/// The worst comes first.
fn weight(truth: Truth) -> u8 {
    match truth {
        Truth::False => 0,
        Truth::Unknown => 1,
        Truth::True => 2,
    }
}

fn written(
    condition: &'static str,
    worker: &Worker,
    changes: Vec<String>,
    repaired: bool,
) -> impl Iterator<Item = Written> {
    let instance = worker.instance().to_owned();
    changes.into_iter().map(move |words| Written {
        condition,
        words: format!("{instance}: {words}"),
        repaired,
        remark: None,
    })
}

fn told(condition: &'static str, remarks: Vec<Remark>) -> impl Iterator<Item = Written> {
    let told =
        move |Remark { reason, message }| Written { condition, words: message, repaired: false, remark: Some(reason) };
    remarks.into_iter().map(told)
}

type Role<'a> = (&'static str, &'a Worker);

/// Workers of a class, with the condition each stands for.
fn roles(class: &ClassRuntime) -> (Option<Role<'_>>, Option<Role<'_>>) {
    let dns = class.dns.as_ref().map(|shared| (DNS_PROGRAMMED, &shared.worker));
    let proxy = class.proxy.as_ref().map(|shared| (ROUTE_PROGRAMMED, &shared.worker));
    (dns, proxy)
}

/// A record that leads to a tunnel without a rule shows visitors the tunnel's catch-all, while a rule without a record is
/// seen by nobody. So there the rule is made before the record and goes after it; elsewhere both are done at once.
fn in_order(class: &ClassRuntime) -> bool {
    class.class.spec.proxy.cloudflare_tunnel.is_some() && class.dns.is_some()
}

/// Makes record and route, or only looks where the portal's mode says so. Things at the names in `keep` stay;
/// those at the names in `former` go.
pub async fn program(
    class: &ClassRuntime,
    portal: &ValidPortal,
    installation: &InstallationId,
    keep: &[HostName],
    former: &[HostName],
) -> Outside {
    let intent = Intent { keep: keep.to_vec(), ..portal.intent(installation) };
    let asking = Asking { intent, observing: portal.mode != Mode::Full, recorded: &portal.recorded };
    let (dns, proxy) = roles(class);
    let mut outside = Outside::default();
    if !in_order(class) {
        let asked = [dns, proxy].into_iter().flatten().map(|role| asking.ask(role, former));
        for (role, answer) in futures_util::future::join_all(asked).await {
            outside.note(role.0, role.1, answer, asking.observing);
        }
        return outside;
    }
    if former.is_empty() || asking.observing {
        asking.one_by_one(proxy, dns, former, &mut outside).await;
        return outside;
    }
    // First what is new, with the former names kept; then those go, the record before the rule.
    let intent = Intent { keep: former.to_vec(), ..asking.intent.clone() };
    Asking { intent, ..asking }.one_by_one(proxy, dns, &[], &mut outside).await;
    if outside.programmed() {
        let changes = std::mem::take(&mut outside).changes;
        asking.one_by_one(dns, proxy, former, &mut outside).await;
        outside.changes.splice(0..0, changes);
    }
    outside
}

/// What one portal asks of its class's workers.
struct Asking<'a> {
    intent: Intent,
    observing: bool,
    recorded: &'a Recorded,
}

impl Asking<'_> {
    async fn ask<'a>(&self, role: Role<'a>, former: &[HostName]) -> (Role<'a>, Result<Programmed, BackendError>) {
        let (intent, former) = (self.intent.clone(), former.to_vec());
        let portal = intent.portal.clone();
        let want = if self.observing { Want::Observe { intent, former } } else { Want::Present { intent, former } };
        let known = self.recorded.known(role.1.instance());
        (role, role.1.submit_known(portal, want, known).await)
    }

    /// The second one is left as it is while the first is not in place: nothing is written, and nothing asked.
    async fn one_by_one(
        &self,
        first: Option<Role<'_>>,
        second: Option<Role<'_>>,
        former: &[HostName],
        outside: &mut Outside,
    ) {
        for role in [first, second].into_iter().flatten() {
            if self.observing || outside.programmed() {
                let (role, answer) = self.ask(role, former).await;
                outside.note(role.0, role.1, answer, self.observing);
            } else if let Some(known) = role.1.remembered(&self.intent) {
                outside.note(role.0, role.1, Ok(known), self.observing);
            } else {
                let other = if role.0 == DNS_PROGRAMMED { "rule in the tunnel" } else { "record" };
                let message = format!("waits until the {other} is in order, and was not looked at meanwhile");
                outside.findings.push(Finding::new(role.0, Truth::Unknown, "WaitsForOrder", message));
            }
        }
    }
}

/// How things are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    Delete,
    /// Deleted, but for what can be switched off for this host, to which the portal is to come back.
    SwitchOff(&'a HostName),
    /// They stay, without the mark.
    Release,
    /// Deleted, but for these: another credential that sees them, too, has put them in place.
    LeaveBut(&'a [MadeResource]),
}

/// Takes record and route away, or the mark off them. Failures come back with the words for each system; what is only
/// switched off is among the resources.
pub async fn withdraw(
    class: &ClassRuntime,
    mark: &Mark,
    key: &PortalKey,
    hosts: &[HostName],
    recorded: &Recorded,
    way: Way<'_>,
) -> Outside {
    let ask = |(type_, worker): Role<'_>| {
        let (mark, hosts, worker) = (mark.clone(), hosts.to_vec(), worker.clone());
        let known = recorded.known(worker.instance());
        let want = match way {
            Way::Delete => Want::Absent { mark, hosts },
            Way::SwitchOff(host) => Want::Dormant { mark, host: host.clone(), hosts },
            Way::Release => Want::Released { mark, hosts },
            Way::LeaveBut(made) => {
                let of_system = made.iter().filter(|made| made.system == worker.instance());
                Want::Left { mark, hosts, but: of_system.filter_map(|made| made.id.clone()).collect() }
            }
        };
        async move {
            let answer = worker.submit_known(key.clone(), want, known).await;
            (type_, worker, answer)
        }
    };
    let (dns, proxy) = roles(class);
    let asked = [dns, proxy].into_iter().flatten().map(ask);
    let answers = if in_order(class) {
        // A record that cannot be removed is no reason to leave the rule: what it shows then is not a portal any more.
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await);
        }
        answers
    } else {
        futures_util::future::join_all(asked).await
    };
    let mut outside = Outside::default();
    for (type_, worker, answer) in answers {
        match answer {
            Ok(done) => {
                metrics::changed(worker.instance(), done.changes.len());
                if let Some((_, error)) = done.out_of_reach.first() {
                    outside.findings.push(Finding::new(type_, Truth::False, error.reason(), error.message.clone()));
                }
                outside.cleared.push(worker.instance().to_owned());
                outside.unseen(&worker, done.out_of_reach);
                outside.changes.extend(written(type_, &worker, done.changes, false));
                outside.resources.extend(done.resources);
                outside.changes.extend(told(type_, done.remarks));
            }
            Err(error) => {
                outside.uncleared.push(worker.instance().to_owned());
                outside.wait = outside.wait.max(error.retry_after);
                outside.findings.push(Finding::new(type_, Truth::False, error.reason(), error.message));
            }
        }
    }
    outside
}
