//! Tombstones: claims of portals that are gone, with what is left of them outside. They are finished when the class's
//! credentials or systems are back; until then nobody else gets the host.
use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::context::Context;
use super::error::{ControllerError, is_code};
use super::outside::{Outside, Way, withdraw};
use super::recorded::Recorded;
use crate::api::claim::PortalClaimStatus;
use crate::api::condition::LONGEST_MESSAGE;
use crate::api::portal::{Leaving, MadeResource, Place};
use crate::api::{FIELD_MANAGER, HostName, PortalClaim, PortalKey, ResetPortal};
use crate::config::shortened;
use crate::http::double::lock;
use crate::plan::Mark;
use crate::telemetry::metrics;

/// Label of claims that are tombstones, so that they are found without reading all claims.
pub const TOMBSTONE: &str = "portalkeeper.dev/tombstone";
/// First and longest wait between two tries.
const WAIT: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(1), SignedDuration::from_hours(1));

/// When a tombstone is tried again, and how often it was tried.
#[derive(Default)]
pub struct Tries(HashMap<String, (Timestamp, u32)>);

impl Tries {
    fn due(&self, uid: &str, now: Timestamp) -> bool {
        self.0.get(uid).is_none_or(|(next, _)| now >= *next)
    }
    fn failed(&mut self, uid: &str, now: Timestamp) {
        let tries = self.0.get(uid).map_or(0, |(_, tries)| *tries);
        let wait = WAIT.0.saturating_mul(1_i32.checked_shl(tries).unwrap_or(i32::MAX)).min(WAIT.1);
        self.0.insert(uid.to_owned(), (now.checked_add(wait).unwrap_or(now), (tries + 1).min(16)));
    }
}

/// What is written on a tombstone.
pub struct Epitaph {
    pub leftovers: Vec<MadeResource>,
    /// Where they are.
    pub places: Vec<Place>,
    /// They are to stay, without the mark.
    pub retain: bool,
    /// Why they could not be removed.
    pub message: String,
}

/// What a try left.
struct Left {
    /// What is in the way.
    words: String,
    leftovers: Vec<MadeResource>,
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

impl Context {
    /// Leaves the portal's claims as tombstones.
    pub(super) async fn bury(&self, key: &PortalKey, uid: &str, epitaph: Epitaph) -> Result<(), ControllerError> {
        let api: Api<PortalClaim> = Api::all(self.client.clone());
        let Epitaph { leftovers, places, retain, message } = epitaph;
        let since = super::times::stamp(self.clock.now());
        let status = PortalClaimStatus {
            leftovers,
            places,
            retain,
            since: Some(since),
            message: Some(shortened(&message, LONGEST_MESSAGE)),
        };
        for claim in self.claims.held(key, uid).await? {
            let name = claim.name_any();
            // The status first: a label without leftovers would be taken for a finished one.
            api.patch_status(&name, &patch_params(), &Patch::Merge(&json!({"status": status}))).await?;
            let label = json!({"metadata": {"labels": {TOMBSTONE: "true"}}});
            api.patch(&name, &patch_params(), &Patch::Merge(&label)).await?;
        }
        Ok(())
    }

    /// Where something is left.
    pub(super) async fn tombstone_places(&self) -> Result<Vec<Place>, ControllerError> {
        let api: Api<PortalClaim> = Api::all(self.client.clone());
        let found = api.list(&ListParams::default().labels(&format!("{TOMBSTONE}=true"))).await?.items;
        Ok(found.into_iter().filter_map(|claim| claim.status).flat_map(|status| status.places).collect())
    }

    /// Every wait is over: something about classes or Secrets has changed.
    pub(super) fn try_tombstones_again(&self) {
        lock(&self.tombstone_tries).0.clear();
    }

    /// Tries to finish the tombstones that are due.
    pub(super) async fn finish_tombstones(&self) -> Result<(), ControllerError> {
        let api: Api<PortalClaim> = Api::all(self.client.clone());
        let found = api.list(&ListParams::default().labels(&format!("{TOMBSTONE}=true"))).await?.items;
        let mut graves: BTreeMap<String, Vec<PortalClaim>> = BTreeMap::new();
        for claim in found {
            graves.entry(claim.spec.portal_uid.clone()).or_default().push(claim);
        }
        metrics::tombstones(graves.len());
        lock(&self.tombstone_tries).0.retain(|uid, _| graves.contains_key(uid));
        for (uid, claims) in graves {
            let now = self.clock.now();
            if !lock(&self.tombstone_tries).due(&uid, now) {
                continue;
            }
            let left = match self.finish(&uid, &claims).await {
                Ok(left) => left,
                // One that cannot be looked after does not hold the others.
                Err(error) => {
                    lock(&self.tombstone_tries).failed(&uid, now);
                    tracing::warn!(
                        reason = error.reason(),
                        "what is left of a deleted portal could not be looked after: {error}"
                    );
                    continue;
                }
            };
            if let Some(Left { words, leftovers }) = left {
                let words = shortened(&words, LONGEST_MESSAGE);
                lock(&self.tombstone_tries).failed(&uid, now);
                for claim in &claims {
                    let told = |status: &PortalClaimStatus| {
                        status.message.as_ref() == Some(&words) && status.leftovers == leftovers
                    };
                    if !claim.status.as_ref().is_some_and(told) {
                        let patch = json!({"status": {"message": words, "leftovers": leftovers}});
                        ignore_gone(api.patch_status(&claim.name_any(), &patch_params(), &Patch::Merge(&patch)).await)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One try. `Some` with what is left and what is in the way.
    async fn finish(&self, uid: &str, claims: &[PortalClaim]) -> Result<Option<Left>, ControllerError> {
        let Some(first) = claims.first() else { return Ok(None) };
        let key = PortalKey { namespace: first.spec.portal_namespace.clone(), name: first.spec.portal_name.clone() };
        let portals: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        match portals.get_opt(&key.name).await? {
            // On its way out, held by somebody else's finalizer perhaps.
            Some(going) if going.metadata.deletion_timestamp.is_some() => return Ok(None),
            Some(heir) => {
                self.hand_over(&portals, &heir, claims).await?;
                return Ok(None);
            }
            None => {}
        }
        let status = first.status.clone().unwrap_or_default();
        let mut hosts: Vec<HostName> =
            status.leftovers.iter().filter_map(|left| HostName::parse(&left.name).ok()).collect();
        hosts.sort();
        hosts.dedup();
        let mark = Mark::new(self.store.installation(), &key);
        let recorded = Recorded::left(&status.leftovers);
        let way = if status.retain { Way::Release } else { Way::Delete };
        let mut outside = Outside::default();
        let mut problems = Vec::new();
        for place in &status.places {
            match self.at_place(place).await? {
                Ok(class) => outside.join(withdraw(&class, &mark, &key, &hosts, &recorded, way).await),
                Err(finding) => problems.push(finding.message),
            }
        }
        problems.extend(outside.findings.iter().map(|finding| finding.message.clone()));
        if status.places.is_empty() {
            problems.push(
                "the class under which they were made is not known; remove them by hand, then delete this claim"
                    .to_owned(),
            );
        }
        if !problems.is_empty() {
            let may_remain = |made: &&MadeResource| outside.may_remain(made);
            let leftovers = status.leftovers.iter().filter(may_remain).cloned().collect();
            return Ok(Some(Left { words: problems.join("; "), leftovers }));
        }
        tracing::info!(portal = %key, "what was left of a deleted portal is removed");
        self.claims.release(&key, uid, None).await?;
        self.forget(&key);
        Ok(None)
    }

    /// A portal that was made anew: what carries its mark is its own again. What it does not want at those names and places
    /// is noted in its status, from where its own looks clean it up.
    async fn hand_over(
        &self,
        portals: &Api<ResetPortal>,
        heir: &ResetPortal,
        claims: &[PortalClaim],
    ) -> Result<(), ControllerError> {
        let Some(left) = claims.iter().find_map(|claim| claim.status.clone()) else { return Ok(()) };
        let mut status = heir.status.clone().unwrap_or_default();
        let Some(home) = status.place.clone() else {
            // It has not been looked at yet; then it will be known what it wants.
            return Ok(());
        };
        status.resources.extend(left.leftovers.into_iter().filter(|one| !heir_has(heir, one)));
        let since = super::times::stamp(self.clock.now());
        let places = left.places.into_iter().filter(|place| *place != home);
        let new: Vec<Leaving> = places
            .filter(|place| !status.leaving.iter().any(|leaving| leaving.place == *place))
            .map(|place| Leaving::unserved(place, since.clone()))
            .collect();
        status.leaving.extend(new);
        let patch = json!({
            "metadata": {"resourceVersion": heir.metadata.resource_version},
            "status": {"resources": status.resources, "leaving": status.leaving},
        });
        match portals.patch_status(&heir.name_any(), &patch_params(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            // It was written in between: the next try sees how it is then.
            Err(error) if is_code(&error, 409) || is_code(&error, 404) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let api: Api<PortalClaim> = Api::all(self.client.clone());
        let label = json!({"metadata": {"labels": {TOMBSTONE: null}}});
        let epitaph = json!({"status": {
            "leftovers": null, "places": null, "retain": null, "since": null, "message": null,
        }});
        for claim in claims {
            ignore_gone(api.patch_status(&claim.name_any(), &patch_params(), &Patch::Merge(&epitaph)).await)?;
            ignore_gone(api.patch(&claim.name_any(), &patch_params(), &Patch::Merge(&label)).await)?;
        }
        Ok(())
    }
}

fn heir_has(heir: &ResetPortal, one: &MadeResource) -> bool {
    let made = heir.status.iter().flat_map(|status| &status.resources);
    made.into_iter().any(|made| made.system == one.system && made.name == one.name)
}

fn ignore_gone<T>(done: kube::Result<T>) -> Result<(), ControllerError> {
    match done {
        Err(error) if !is_code(&error, 404) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_tried_ever_more_seldom() {
        let mut tries = Tries::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert!(tries.due("u", now));
            tries.failed("u", now);
            let next = tries.0["u"].0;
            waits.push(next.duration_since(now).as_mins());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
