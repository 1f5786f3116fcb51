//! What a portal's status tells a later look.
use crate::api::condition::LIVE;
use crate::api::portal::{MadeResource, Verified};
use crate::api::{ResetPortal, ResetPortalStatus};
use crate::backends::Known;

/// Before the first proof the reason says who is waited for; after it, what is seen instead of the proof.
pub(super) const AWAITING_OPERATOR: &str = "AwaitingOperator";

/// Whether the portal was live at this generation, as far as its condition tells.
fn lived(status: &ResetPortalStatus, generation: Option<i64>) -> bool {
    let proved_once = status.last_proof.is_some();
    proved_once
        && status.conditions.iter().any(|condition| {
            condition.type_ == LIVE
                && condition.observed_generation == generation
                && match condition.status.as_str() {
                    "True" => true,
                    "False" => ![AWAITING_OPERATOR, "NotProgrammed"].contains(&condition.reason.as_str()),
                    _ => false,
                }
        })
}

/// What the portal's status says about its things outside.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// It has given its proof since it was edited last.
    pub lived: bool,
    resources: Vec<MadeResource>,
    verified: Vec<Verified>,
    /// Something may have been made that nobody noted.
    unnoted: bool,
}

impl Recorded {
    pub fn of(portal: &ResetPortal) -> Self {
        let status = portal.status.as_ref();
        Self {
            lived: status.is_some_and(|status| lived(status, portal.metadata.generation)),
            resources: status.map(|status| status.resources.clone()).unwrap_or_default(),
            // An edit that was begun and not noted may have changed what was verified before it.
            verified: status
                .filter(|status| status.observed_generation == portal.metadata.generation && status.moving.is_none())
                .map(|status| status.verified.clone())
                .unwrap_or_default(),
            unnoted: false,
        }
    }

    /// What is not noted may still have been made.
    pub fn unnoted(self) -> Self {
        Self { unnoted: true, ..self }
    }

    /// What was verified is not believed any more.
    pub fn doubt(&mut self) {
        self.verified.clear();
    }

    /// What a tombstone says.
    pub fn left(leftovers: &[MadeResource]) -> Self {
        Self { resources: leftovers.to_vec(), ..Self::default() }
    }

    /// What is known of the portal's things in a system before it is asked.
    pub fn known(&self, system: &str) -> Known {
        let resources: Vec<MadeResource> =
            self.resources.iter().filter(|made| made.system == system).cloned().collect();
        let verified = self.verified.iter().find(|verified| verified.system == system);
        match verified.and_then(|verified| Some((verified.digest.clone(), verified.at.parse().ok()?))) {
            Some((digest, at)) => Known::Verified { digest, at, resources },
            None if resources.is_empty() && !self.unnoted => Known::NeverMade,
            None => Known::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lived(generation: i64, status: &str, reason: &str) -> bool {
        let time = "2026-11-30T00:00:00Z";
        let condition = json!({"type": "Live", "status": status, "reason": reason, "message": "", "lastTransitionTime": time,
            "observedGeneration": generation});
        let portal: ResetPortal = serde_json::from_value(json!({
            "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "ResetPortal", "metadata": {"name": "acme", "generation": 2},
            "spec": {"domain": "acme.example"}, "status": {"lastProof": time, "conditions": [condition]},
        }))
        .unwrap();
        Recorded::of(&portal).lived
    }

    #[test]
    fn a_portal_lived_if_it_was_proved_since_its_last_edit() {
        assert!(lived(2, "True", "Proved") && lived(2, "False", "CertificateWrongName"));
        assert!(!lived(1, "True", "Proved"), "proved before the edit");
        assert!(!lived(2, "False", "AwaitingOperator") && !lived(2, "Unknown", "ProbeQueued"));
    }
}
