//! What a portal wants of the outside systems, and what they say about it.
use std::time::Duration;

use super::runtime::ClassRuntime;
use super::validate::{Mode, ValidPortal};
use crate::api::HostName;
use crate::api::condition::{CERTIFICATE_ISSUED, DNS_PROGRAMMED, Finding, ROUTE_PROGRAMMED, Truth};
use crate::api::portal::MadeResource;
use crate::backends::{BackendError, Programmed, Want, Worker};
use crate::plan::{InstallationId, Intent, Mark};
use crate::telemetry::metrics;

/// One write, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The condition that the instance stands for.
    pub condition: &'static str,
    pub words: String,
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
    /// Asked to wait this long.
    pub wait: Option<Duration>,
}

impl Outside {
    /// Nothing is known to be missing; what the instances cannot confirm is for the proof of life to decide.
    pub fn programmed(&self) -> bool {
        self.findings.iter().all(|finding| finding.truth != Truth::False)
    }

    /// A portal that answered through record and route proves what they themselves could not confirm.
    pub fn prove(&mut self) {
        for finding in self.findings.iter_mut().filter(|finding| finding.truth == Truth::Unknown) {
            finding.truth = Truth::True;
            finding.message = format!("{}; the proof of life came through", finding.message);
            if finding.reason != "ForeignFileBroken" {
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
                self.changes.extend(written(type_, worker, done.changes));
                self.pending.extend(done.pending.into_iter().map(|words| format!("{}: {words}", worker.instance())));
            }
            Err(error) => {
                self.wait = self.wait.max(error.retry_after);
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

fn written(condition: &'static str, worker: &Worker, changes: Vec<String>) -> impl Iterator<Item = Written> {
    let instance = worker.instance().to_owned();
    changes.into_iter().map(move |words| Written { condition, words: format!("{instance}: {words}") })
}

/// Workers of a class, with the condition each stands for.
fn workers(class: &ClassRuntime) -> impl Iterator<Item = (&'static str, &Worker)> {
    let dns = class.dns.iter().map(|shared| (DNS_PROGRAMMED, &shared.worker));
    dns.chain(class.proxy.iter().map(|shared| (ROUTE_PROGRAMMED, &shared.worker)))
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
    let observing = portal.mode != Mode::Full;
    let asked = workers(class).map(|(type_, worker)| {
        let (intent, former) = (intent.clone(), former.to_vec());
        let want = if observing { Want::Observe { intent, former } } else { Want::Present { intent, former } };
        async move { (type_, worker, worker.submit(portal.key.clone(), want).await) }
    });
    let mut outside = Outside::default();
    for (type_, worker, answer) in futures_util::future::join_all(asked).await {
        outside.note(type_, worker, answer, observing);
    }
    outside
}

/// Takes record and route away, or the mark off them. Failures come back with the words for each system.
pub async fn withdraw(
    class: &ClassRuntime,
    mark: &Mark,
    key: &crate::api::PortalKey,
    hosts: &[HostName],
    release: bool,
) -> Outside {
    let asked = workers(class).map(|(type_, worker)| {
        let (mark, hosts) = (mark.clone(), hosts.to_vec());
        let want = if release { Want::Released { mark, hosts } } else { Want::Absent { mark, hosts } };
        async move { (type_, worker, worker.submit(key.clone(), want).await) }
    });
    let mut outside = Outside::default();
    for (type_, worker, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok(done) => {
                metrics::changed(worker.instance(), done.changes.len());
                outside.changes.extend(written(type_, worker, done.changes));
            }
            Err(error) => {
                outside.wait = outside.wait.max(error.retry_after);
                outside.findings.push(Finding::new(type_, Truth::False, error.reason(), error.message));
            }
        }
    }
    outside
}
