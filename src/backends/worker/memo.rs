//! What a worker remembers of its answers, so that nothing is asked twice.
use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::{Answer, Job, Programmed, Want};
use crate::api::condition::Truth;
use crate::api::portal::MadeResource;
use crate::api::{HostName, PortalKey};
use crate::backends::{Backend, BackendError, Doubt, ErrorClass};
use crate::plan::{Intent, Urgency};

/// What a caller knows of a portal's things before it asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Known {
    #[default]
    Nothing,
    /// Nothing was ever made at any of its names.
    NeverMade,
    /// What an earlier answer said, possibly of an earlier process.
    Verified { digest: String, at: Timestamp, resources: Vec<MadeResource> },
}

/// First and longest time after which a refusal is tried again where reads are scarce.
const RETRY: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(1), SignedDuration::from_mins(10));
/// How soon a look that had to wait is tried again.
const POSTPONED: SignedDuration = SignedDuration::from_secs(60);
/// Longest time for which a mere look is believed.
const OBSERVED: SignedDuration = SignedDuration::from_mins(10);

struct Entry {
    want: Want,
    answer: Answer,
    /// What was in place at last.
    made: Option<Intent>,
    /// When it was last looked.
    at: Timestamp,
    /// Until when the answer holds without a look.
    until: Timestamp,
    refusals: u32,
    /// Somebody else is known to have changed something at the name since.
    doubted: bool,
}

/// The answers, by portal.
#[derive(Default)]
pub(super) struct Memo(HashMap<PortalKey, Entry>);

/// What a want is about; its former names do not count once they are gone.
fn same(a: &Want, b: &Want) -> bool {
    match (a, b) {
        (Want::Present { intent: a, .. }, Want::Present { intent: b, former }) => a == b && former.is_empty(),
        (Want::Observe { intent: a, former: was }, Want::Observe { intent: b, former }) => a == b && was == former,
        _ => false,
    }
}

impl Memo {
    /// The answer to a want, where none has to be looked for.
    pub fn answer(&self, job: &Job, now: Timestamp) -> Option<Answer> {
        let entry = self.0.get(&job.portal)?;
        let fresh = now < entry.until && now >= entry.at;
        if !fresh || !same(&entry.want, &job.want) {
            return None;
        }
        Some(match &entry.answer {
            Ok(done) => Ok(Programmed { changes: Vec::new(), repaired: false, ..done.clone() }),
            Err(error) => {
                let mut error = error.clone();
                error.retry_after = std::time::Duration::try_from(entry.until.duration_since(now)).ok();
                Err(error)
            }
        })
    }

    /// What is known to stand as intended.
    pub fn standing(&self, intent: &Intent, now: Timestamp) -> Option<Programmed> {
        let entry = self.0.get(&intent.portal)?;
        let fresh = now < entry.until && now >= entry.at;
        let same = matches!(&entry.want, Want::Present { intent: was, .. } if was == intent);
        let done = entry.answer.as_ref().ok().filter(|_| fresh && same)?;
        Some(Programmed { changes: Vec::new(), repaired: false, ..done.clone() })
    }

    /// What a look for this want is for.
    pub fn urgency(&self, portal: &PortalKey, want: &Want) -> Urgency {
        let Some(intent) = want.intent() else { return Urgency::Edit };
        match self.0.get(portal).map(|entry| (entry.made.as_ref(), entry.want.intent())) {
            Some((Some(made), _)) if made == intent => Urgency::Drift,
            Some((Some(_), _)) => Urgency::Edit,
            Some((None, Some(asked))) if asked != intent => Urgency::Edit,
            _ => Urgency::Create,
        }
    }

    /// Believes what an earlier process verified, where it is about the same things and not too old.
    pub fn believe<B: Backend>(&mut self, backend: &B, job: &Job, now: Timestamp) {
        let (Known::Verified { digest: was, at, resources }, Want::Present { intent, .. }) = (&job.known, &job.want)
        else {
            return;
        };
        if self.0.contains_key(&job.portal) || *was != digest(backend, intent) || *at > now {
            return;
        }
        let verified = Some((was.clone(), *at));
        let answer = Ok(Programmed { resources: resources.clone(), verified, ..Programmed::default() });
        let until = at.checked_add(drift(backend, &job.portal)).unwrap_or(now);
        let (want, made) = (job.want.clone(), Some(intent.clone()));
        self.0.insert(job.portal.clone(), Entry { want, answer, made, at: *at, until, refusals: 0, doubted: false });
    }

    /// What is still believed of a want whose look has to wait: looked for again in a minute, and believed no longer
    /// than one more drift interval, since a proof that is never renewed is none.
    pub fn postponed<B: Backend>(
        &mut self,
        backend: &B,
        portal: &PortalKey,
        want: &Want,
        now: Timestamp,
    ) -> Option<Programmed> {
        let entry = self.0.get_mut(portal).filter(|entry| same(&entry.want, want) && !entry.doubted)?;
        let end = entry.at.checked_add(drift(backend, portal).saturating_mul(2)).ok()?;
        let done = entry.answer.as_ref().ok().filter(|_| now < end)?.clone();
        entry.until = now.checked_add(POSTPONED).unwrap_or(now).min(end);
        Some(Programmed { changes: Vec::new(), repaired: false, ..done })
    }

    /// Remembers what came of a want.
    pub fn note<B: Backend>(&mut self, backend: &B, portal: &PortalKey, want: &Want, answer: &Answer, now: Timestamp) {
        if want.intent().is_none() {
            self.0.remove(portal);
            return;
        }
        let believed = match answer {
            Ok(_) => backend.spares_reads() || certain(backend, answer),
            Err(error) if backend.spares_reads() && lasting(error) => true,
            // What was known before is still the last that is known.
            Err(_) => {
                if let Some(entry) = self.0.get_mut(portal) {
                    entry.until = entry.at;
                }
                return;
            }
        };
        let refusals = match self.0.get(portal) {
            Some(entry) if !(certain(backend, answer) || certain(backend, &entry.answer)) && entry.want == *want => {
                entry.refusals + 1
            }
            _ => 0,
        };
        let interval = match (answer, want) {
            _ if !certain(backend, answer) => {
                RETRY.0.saturating_mul(1_i32.checked_shl(refusals).unwrap_or(i32::MAX)).min(RETRY.1)
            }
            (_, Want::Observe { .. }) => drift(backend, portal).min(OBSERVED),
            _ => drift(backend, portal),
        };
        let until = if believed { now.checked_add(interval).unwrap_or(now) } else { now };
        let refusals = refusals.min(16);
        let made = match (answer, want) {
            (Ok(_), Want::Present { intent, .. }) => Some(intent.clone()),
            _ => self.0.get(portal).and_then(|entry| entry.made.clone()),
        };
        // What there was to say about the writes and about former names is said once.
        let answer = answer.clone().map(|done| Programmed { remarks: Vec::new(), out_of_reach: Vec::new(), ..done });
        let want = want.clone();
        self.0.insert(portal.clone(), Entry { want, answer, made, at: now, until, refusals, doubted: false });
    }

    /// The next want of this portal looks again. Tells the host that it has.
    pub fn forget(&mut self, portal: &PortalKey) -> Option<HostName> {
        let entry = self.0.get_mut(portal)?;
        entry.until = entry.at;
        entry.want.intent().map(|intent| intent.host.clone())
    }

    /// Somebody else has changed something at these names: what was verified there is not believed while a look waits.
    pub fn forget_names(&mut self, concerned: &dyn Fn(&HostName) -> bool) -> Vec<PortalKey> {
        let mut portals = Vec::new();
        for (portal, entry) in &mut self.0 {
            if entry.want.intent().is_some_and(|intent| concerned(&intent.host)) {
                entry.until = entry.at;
                entry.doubted = true;
                portals.push(portal.clone());
            }
        }
        portals.sort();
        portals
    }

    /// How many portals have something here, as far as is known.
    pub fn owned(&self) -> usize {
        self.0.values().filter(|entry| entry.made.is_some()).count()
    }
}

/// An answer that leaves nothing to be seen to.
fn certain<B: Backend>(backend: &B, answer: &Answer) -> bool {
    let settled = |doubt: &Doubt| match doubt.truth {
        Truth::True => true,
        Truth::Unknown => backend.proof_decides(),
        Truth::False => false,
    };
    answer.as_ref().is_ok_and(|done| done.doubts.iter().all(settled))
}

/// Refusals that a mere repetition does not change.
fn lasting(error: &BackendError) -> bool {
    matches!(error.class, ErrorClass::Conflict | ErrorClass::Permanent | ErrorClass::Credential)
}

/// The drift interval less up to a tenth, by portal, so that what was made at once is not looked at at once.
fn drift<B: Backend>(backend: &B, portal: &PortalKey) -> SignedDuration {
    let interval = SignedDuration::try_from(backend.drift_interval()).unwrap_or(SignedDuration::MAX);
    let hash = Sha256::digest(portal.to_string().as_bytes());
    let part = i32::from(hash.first().copied().unwrap_or_default());
    interval.saturating_sub(interval / 2560 * part)
}

/// What a portal's intent means in an instance, in a form that can be kept: 32 hexadecimal digits.
pub(super) fn digest<B: Backend>(backend: &B, intent: &Intent) -> String {
    let text = format!("{} {} {:?}", backend.instance(), intent.mark, backend.desired(intent));
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
