//! Which repairs of a batch are made, which wait and why, and what came of those that were tried.
use std::collections::HashMap;

use super::repairs::{Repair, Tried, Verdict};
use super::{Job, Shared};
use crate::api::{HostName, PortalKey};
use crate::backends::{Backend, BackendError, ErrorClass};
use crate::http::double::lock;
use crate::plan::{Change, Plan, Urgency};

/// What was decided about a batch.
pub(super) struct Judged {
    /// Portals whose repairs wait, each with what it is told.
    pub held_back: HashMap<PortalKey, BackendError>,
    /// Portals whose repairs are tried now.
    pub repairing: Vec<PortalKey>,
}

/// Takes repairs out of the plan that must wait, and tells why they do.
pub(super) fn judge<B: Backend>(shared: &Shared<B>, jobs: &[Job], plan: &mut Plan<B::Item>) -> Judged {
    let now = shared.clock.now();
    let memo = lock(&shared.memo);
    let mut repairs = lock(&shared.repairs);
    let mut wanted = Vec::new();
    let mut by_portal: HashMap<&PortalKey, Vec<&Change<B::Item>>> = HashMap::new();
    for change in &plan.changes {
        by_portal.entry(change.portal()).or_default().push(change);
    }
    let hosts: HashMap<&PortalKey, &HostName> =
        jobs.iter().filter_map(|job| Some((&job.portal, &job.want.intent()?.host))).collect();
    for job in jobs {
        let changes = by_portal.remove(&job.portal).unwrap_or_default();
        match memo.urgency(&job.portal, &job.want) {
            Urgency::Edit => repairs.forget(&job.portal),
            Urgency::Drift if !changes.is_empty() => {
                let words: Vec<String> = changes.iter().map(|change| change.describe()).collect();
                let overwrites = changes.iter().any(|change| !matches!(change, Change::Create { .. }));
                wanted.push(Repair { portal: job.portal.clone(), words: words.join("; "), overwrites });
            }
            _ if changes.is_empty() => repairs.fine(&job.portal),
            _ => {}
        }
    }
    let instance = shared.backend.instance();
    let verdicts = repairs.judge(&instance, &wanted, memo.owned(), now);
    let (mut held_back, mut repairing) = (HashMap::new(), Vec::new());
    for Repair { portal, words, .. } in &wanted {
        let mut error = match verdicts.get(portal) {
            Some(Verdict::Contested { times, next }) => {
                let actor = hosts.get(portal).and_then(|host| shared.backend.actor(host.as_str()));
                let message = format!(
                    "somebody else keeps changing this in {instance}{}: it was put right {times} times within an hour and needs again: {words}; the next time is {}",
                    actor.map(|actor| format!(" (the last was {actor})")).unwrap_or_default(),
                    next.strftime("%H:%M:%S UTC")
                );
                let mut error = BackendError::new(ErrorClass::Conflict, "Contested", message);
                error.retry_after = std::time::Duration::try_from(next.duration_since(now)).ok();
                error
            }
            Some(Verdict::Held(case)) => {
                let message = format!(
                    "held, because {} of {} things in {instance} were changed by somebody else: {words}; to put them right, annotate the PortalClass with portalkeeper.dev/approve-plan={}",
                    case.changing, case.owned, case.id
                );
                BackendError::new(ErrorClass::Permanent, "ChangesHeld", message)
            }
            Some(Verdict::Go) | None => {
                repairing.push(portal.clone());
                continue;
            }
        };
        error.message.truncate(error.message.floor_char_boundary(2000));
        held_back.insert(portal.clone(), error);
    }
    plan.changes.retain(|change| !held_back.contains_key(change.portal()));
    Judged { held_back, repairing }
}

/// Notes what came of the repairs. One that failed put nothing right, and is told by its own error.
pub(super) fn count<B: Backend>(
    shared: &Shared<B>,
    repairing: &[PortalKey],
    plan: &Plan<B::Item>,
    outcomes: &[Result<Option<String>, BackendError>],
) {
    if repairing.is_empty() {
        return;
    }
    let mut tried: HashMap<&PortalKey, Tried> = HashMap::new();
    for (index, change) in plan.changes.iter().enumerate() {
        let tried = tried.entry(change.portal()).or_insert(Tried { made: true, touched: false });
        let outcome = outcomes.get(index);
        tried.made &= matches!(outcome, Some(Ok(_)));
        let refused = matches!(outcome, Some(Err(error)) if error.class != ErrorClass::OutcomeUnknown);
        tried.touched |= !refused;
    }
    let now = shared.clock.now();
    let mut repairs = lock(&shared.repairs);
    for portal in repairing {
        let tried = tried.get(portal).copied().unwrap_or(Tried { made: false, touched: false });
        repairs.note(portal, tried, now);
    }
}
