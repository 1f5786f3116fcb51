//! Deletion: takes record and route away, then the claims, then the finalizer.
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::json;

use super::alike::mixed;
use super::context::Context;
use super::error::{ControllerError, is_code};
use super::outside::{Outside, Way, withdraw};
use super::places::{CLASS_GONE, Standing, place_of};
use super::reconcile::SLOW;
use super::recorded::Recorded;
use super::runtime::ClassRuntime;
use super::status::Found;
use super::times::{after, stamp};
use super::tombstones::Epitaph;
use super::validate::{Mode, retains, validate};
use crate::api::condition::{Finding, READY, Truth};
use crate::api::portal::{MadeResource, MoveStage, Place};
use crate::api::{FIELD_MANAGER, FINALIZER, HostName, ResetPortal};
use crate::plan::Mark;

/// Begin of the message while a deletion waits.
pub(super) const WAITING: &str = "the deletion waits";

/// System of a leftover of which it is not known where it is.
pub(super) const UNKNOWN: &str = "unknown";

impl Context {
    /// Every name under which the portal may have something outside: what it wants, what its status tells, and what it
    /// claimed, since a kill may have come between something's making and its note.
    pub(super) async fn hosts(&self, portal: &ResetPortal) -> Result<Vec<HostName>, ControllerError> {
        let made = portal.status.iter().flat_map(|status| &status.resources);
        let made = made.filter_map(|made| HostName::parse(&made.name).ok());
        let claimed = self.claims.hosts(portal.metadata.uid.as_deref().unwrap_or_default()).await?;
        let mut hosts: Vec<HostName> = portal.spec.public_host().ok().into_iter().chain(made).chain(claimed).collect();
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }

    /// One step of a deletion. `None` when it is done, else when to look again.
    pub async fn remove(&self, portal: &ResetPortal) -> Result<Option<Duration>, ControllerError> {
        let key = portal.key();
        self.directory.withdraw(&key);
        if !portal.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER) {
            return Ok(None);
        }
        let uid = portal.metadata.uid.clone().unwrap_or_default();
        self.store.links_void_portal(&uid).await?;
        let mode = Mode::of(portal);
        if mode == Mode::Paused {
            let words = "the deletion waits: the portal is paused; remove the annotation portalkeeper.dev/paused";
            self.waiting(portal, "Paused", words.to_owned(), &|_| false).await?;
            return Ok(Some(self.timing.resync));
        }
        // Nothing is written for an observed portal, and what was never made need not be removed.
        let outside = match mode {
            Mode::ObserveOnly => Ok(Outside::default()),
            _ => {
                let mut withdrawing = std::pin::pin!(self.withdraw_all(portal));
                match tokio::time::timeout(SLOW, &mut withdrawing).await {
                    Ok(outside) => outside?,
                    Err(_) if !is_ready(portal) => withdrawing.await?,
                    Err(_) => {
                        let words = "the page is off; record and route are still being removed, because a system is slow to answer";
                        self.waiting(portal, "Deleting", words.to_owned(), &|_| false).await?;
                        withdrawing.await?
                    }
                }
            }
        };
        let (problems, outside) = match outside {
            Ok(mut outside) => {
                for written in &outside.changes {
                    self.reports.written(portal, written).await;
                }
                if outside.findings.is_empty() {
                    return self.let_go(portal, &uid).await;
                }
                (std::mem::take(&mut outside.findings), outside)
            }
            Err(finding) => (vec![finding], Outside::default()),
        };
        let words: Vec<String> = problems.iter().map(|finding| finding.message.clone()).collect();
        let since = portal.metadata.deletion_timestamp.as_ref().map_or(self.clock.now(), |time| time.0);
        // Of a system in which nothing was ever seen to be made, nobody waits as long.
        let made = portal.status.iter().flat_map(|status| &status.resources);
        let noted = made.into_iter().any(|made| outside.may_remain(made));
        let patience = if noted { self.timing.letting_go } else { self.timing.letting_go / 15 };
        let until = after(&stamp(since), patience);
        if self.clock.now() >= until {
            self.give_up(portal, &uid, &outside, words.join("; ")).await?;
            return Ok(None);
        }
        let reason = problems.first().map(|finding| finding.reason.clone()).unwrap_or_default();
        let class_gone = problems.iter().any(|finding| finding.reason == CLASS_GONE);
        let gone = |made: &MadeResource| !outside.may_remain(made);
        self.waiting(portal, &reason, why_it_waits(&words.join("; "), class_gone, &stamp(until)), &gone).await?;
        Ok(Some(self.backoff(&key)))
    }

    /// Lets go of a portal whose things could not all be removed in time.
    async fn give_up(
        &self,
        portal: &ResetPortal,
        uid: &str,
        outside: &Outside,
        message: String,
    ) -> Result<(), ControllerError> {
        let status = portal.status.clone().unwrap_or_default();
        let mut leftovers: Vec<MadeResource> =
            status.resources.iter().filter(|made| outside.may_remain(made)).cloned().collect();
        // What was made may not have been noted yet: its names are known all the same.
        for unseen in &outside.out_of_reach {
            let (system, name) = (unseen.system.clone(), unseen.host.to_string());
            if !leftovers.iter().any(|made| made.system == system && made.name == name) {
                leftovers.push(MadeResource { system, name, id: None });
            }
        }
        if outside.some_uncleared() {
            for host in self.hosts(portal).await? {
                if !leftovers.iter().any(|made| made.name == host.as_str()) {
                    leftovers.push(MadeResource { system: UNKNOWN.to_owned(), name: host.to_string(), id: None });
                }
            }
        }
        let names: Vec<String> = leftovers.iter().map(|made| format!("{} in {}", made.name, made.system)).collect();
        let note = format!("let go with leftovers ({}): {message}", names.join(", "));
        self.reports.event(portal, EventType::Warning, "LeftBehind", "Delete", &note).await;
        let mut places = Standing::of(&status).places();
        if let Ok(class) = self.class(portal.spec.class_name.as_deref()).await? {
            let here = place_of(&class.class);
            self.keep_settings(&class).await?;
            if !places.contains(&here) {
                places.push(here);
            }
        }
        let retain = retains(portal);
        self.bury(&portal.key(), uid, Epitaph { leftovers, places, retain, message }).await?;
        self.drop_finalizer(portal).await
    }

    /// Removes the portal's things from the class it is in and from the one it was in.
    async fn withdraw_all(&self, portal: &ResetPortal) -> Result<Result<Outside, Finding>, ControllerError> {
        let key = portal.key();
        let mark = Mark::new(self.store.installation(), &key);
        let hosts = self.hosts(portal).await?;
        let status = portal.status.as_ref();
        let uid = portal.metadata.uid.as_deref().unwrap_or_default();
        let claimed = !self.claims.hosts(uid).await?.is_empty();
        let never_made = status.is_none_or(|status| status.resources.is_empty()) && !claimed;
        let recorded = match status.and_then(|status| status.observed_generation) {
            // Killed in its first look, perhaps after something was made.
            None if claimed => Recorded::of(portal).unnoted(),
            _ => Recorded::of(portal),
        };
        let way = if retains(portal) { Way::Release } else { Way::Delete };
        let mut all = Outside::default();
        let wanted = self.class(portal.spec.class_name.as_deref()).await?;
        let here = wanted.as_ref().ok().map(|class| place_of(&class.class));
        let standing = status.map(Standing::of).unwrap_or_default();
        // A route that was only tried leads nobody, and nobody is to keep it.
        let trial = |place: &Place| {
            let moving = standing.moving.as_ref().filter(|moving| moving.to == *place);
            moving.is_some_and(|moving| {
                moving.stage == MoveStage::Proving && !moving.served && moving.one_proxy == Some(false)
            })
        };
        let mut classes = Vec::new();
        for place in standing.places().into_iter().filter(|place| Some(place) != here.as_ref()) {
            let current = here.as_ref().is_some_and(|here| here.class_name == place.class_name);
            if !(current && place.settings.is_empty()) {
                classes.push((self.at_place(&place).await?, trial(&place)));
            }
        }
        // Where the portal stands is noted before anything is made there: a class that it only asks for has nothing, and one
        // that refuses it neither.
        let accepts = |class: &ClassRuntime| validate(portal, &class.class, &self.policy).is_ok();
        let stands = here
            .as_ref()
            .is_some_and(|here| standing.places().iter().any(|place| place == here || place.settings.is_empty()));
        if wanted.as_ref().is_ok_and(|class| stands || accepts(class)) || standing.home.is_none() {
            classes.push((wanted, here.as_ref().is_some_and(trial)));
        }
        for (class, trial) in classes {
            match class {
                Ok(class) if trial => {
                    let (record, route) = (mixed(&class, &class.dns, &None), mixed(&class, &None, &class.proxy));
                    all.join(withdraw(&route, &mark, &key, &hosts, &recorded, Way::Delete).await);
                    all.join(withdraw(&record, &mark, &key, &hosts, &recorded, way).await);
                }
                Ok(class) => {
                    all.join(withdraw(&class, &mark, &key, &hosts, &recorded, way).await);
                }
                // A portal that never got anything made need not wait for a class that never worked.
                Err(_) if never_made => {}
                Err(finding) => return Ok(Err(finding)),
            }
        }
        Ok(Ok(all))
    }

    async fn let_go(&self, portal: &ResetPortal, uid: &str) -> Result<Option<Duration>, ControllerError> {
        let key = portal.key();
        self.claims.release(&key, uid, None).await?;
        self.drop_finalizer(portal).await?;
        self.forget(&key);
        Ok(None)
    }

    async fn drop_finalizer(&self, portal: &ResetPortal) -> Result<(), ControllerError> {
        let key = portal.key();
        let api: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        let finalizers: Vec<&String> =
            portal.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
        // The version makes sure that nobody's finalizer is taken off unseen.
        let patch =
            json!({"metadata": {"finalizers": finalizers, "resourceVersion": portal.metadata.resource_version}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&key.name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(error) if is_code(&error, 404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells what is waited for; what is `gone` is not there any more.
    async fn waiting(
        &self,
        portal: &ResetPortal,
        reason: &str,
        message: String,
        gone: &(dyn Fn(&MadeResource) -> bool + Sync),
    ) -> Result<(), ControllerError> {
        let mut status = portal.status.clone().unwrap_or_default();
        status.resources.retain(|made| !gone(made));
        let standing = Standing::of(&status);
        let found = Found {
            findings: vec![Finding::new(READY, Truth::False, reason, message)],
            host: status.host,
            url: status.url,
            class_name: status.class_name,
            backend: status.backend,
            resources: status.resources,
            standing,
            ..Found::default()
        };
        self.reports.report(portal, found, self.clock.now()).await
    }
}

/// Whether the portal is still told to be live.
fn is_ready(portal: &ResetPortal) -> bool {
    let conditions = portal.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == READY && condition.status == "True")
}

/// What a deletion waits for, until when, and what becomes of it then.
fn why_it_waits(problems: &str, class_gone: bool, until: &str) -> String {
    let advice = match class_gone {
        true => "; make the class again as it was, and what was made under it is removed",
        false => "",
    };
    format!(
        "{WAITING}: {problems}{advice}; it is tried again until {until}, and then the portal goes without that: \
         its PortalClaims stay, tell what may be left, and go when that can be removed after all, or when you delete them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_that_waits_tells_until_when_and_what_can_be_done() {
        assert_eq!(
            why_it_waits("PortalClass \"prod\" does not exist", true, "2026-01-01T00:30:00Z"),
            "the deletion waits: PortalClass \"prod\" does not exist; make the class again as it was, and what was made under it \
             is removed; it is tried again until 2026-01-01T00:30:00Z, and then the portal goes without that: its PortalClaims \
             stay, tell what may be left, and go when that can be removed after all, or when you delete them"
        );
        let told = why_it_waits("NPM cannot be reached", false, "2026-01-01T00:30:00Z");
        assert!(told.starts_with("the deletion waits: NPM cannot be reached; it is tried again until "), "{told}");
    }
}
