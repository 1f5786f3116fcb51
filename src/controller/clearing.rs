//! A disabled portal: record and route go or are switched off, and its names stay its own.
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::context::Context;
use super::error::ControllerError;
use super::findings::DISABLED;
use super::outside::{Way, withdraw};
use super::places::place_of;
use super::runtime::ClassRuntime;
use super::status::Found;
use super::validate::{Mode, ValidPortal};
use crate::api::condition::READY;
use crate::api::portal::{Leaving, MadeResource};
use crate::api::{HostName, ResetPortal};
use crate::http::double::lock;
use crate::plan::Mark;

/// Whether a thing is in a system that only switches it off while its portal is disabled.
fn rests(class: &ClassRuntime, made: &MadeResource) -> bool {
    let in_proxy = class.proxy.as_ref().is_some_and(|shared| shared.worker.instance() == made.system);
    class.class.spec.proxy.npm.is_some() && in_proxy
}

/// What becomes of a thing when its portal is disabled, in words.
pub(super) fn going(class: &ClassRuntime, made: &MadeResource) -> String {
    format!("{}: {} {}", made.system, if rests(class, made) { "switch off" } else { "delete" }, made.name)
}

/// Whether a disabled portal's things are gone or switched off already.
pub(super) fn is_cleared(portal: &ResetPortal) -> bool {
    let Some(status) = &portal.status else { return true };
    let disabled = |condition: &Condition| condition.type_ == READY && condition.reason == DISABLED;
    status.pending.is_empty() && (status.resources.is_empty() || status.conditions.iter().any(disabled))
}

impl Context {
    /// `enabled: false`: record and route go or are switched off, the claim stays, the host is served no longer.
    pub(super) async fn clear(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        found: &mut Found,
    ) -> Result<Option<Duration>, ControllerError> {
        self.directory.withdraw(&valid.key);
        let cleared = lock(&self.memory).get(&valid.key).is_some_and(|memory| memory.cleared == Some(valid.generation));
        let rest = found.resources.iter().all(|made| rests(class, made) && made.name.ends_with(valid.host.as_str()));
        if cleared && rest && found.standing.leaving.is_empty() && valid.mode == Mode::Full {
            // Switched on again, it begins where it is to be by then.
            found.standing.home = Some(place_of(&class.class)).filter(|_| !found.resources.is_empty());
            found.standing.moving = None;
            return Ok(Some(self.timing.resync));
        }
        if valid.mode != Mode::Full {
            if !is_cleared(portal) {
                found.pending = found.resources.iter().map(|made| going(class, made)).collect();
            }
            return Ok(Some(self.timing.resync));
        }
        let here = place_of(&class.class);
        let one_proxy = found.standing.moving.as_ref().is_some_and(|moving| moving.one_proxy == Some(true));
        let (home, moving) = (found.standing.home.take(), found.standing.moving.take().map(|moving| moving.to));
        // What is at one of two addresses is seen to by the other.
        let by_new = one_proxy && moving.as_ref() == Some(&here);
        let left = home.into_iter().map(|home| (home, by_new)).chain(moving.into_iter().map(|to| (to, one_proxy)));
        for (place, one_proxy) in left.filter(|(place, _)| *place != here) {
            let since = super::times::stamp(self.clock.now());
            if !found.standing.leaving.iter().any(|leaving| leaving.place == place) {
                found.standing.leaving.push(Leaving { one_proxy, ..Leaving::unserved(place, since) });
            }
        }
        found.standing.home = Some(here);
        let hosts: Vec<HostName> = former.iter().chain([&valid.host]).cloned().collect();
        let mark = Mark::new(self.store.installation(), &valid.key);
        let way = Way::SwitchOff(&valid.host);
        let mut outside = withdraw(class, &mark, &valid.key, &hosts, &valid.recorded, way).await;
        self.leave_places(portal, class, valid, None, found).await?;
        found.changes.append(&mut outside.changes);
        if !outside.some_uncleared() && !outside.out_of_reach.iter().any(|one| one.host == valid.host) {
            let waiting = self.give_names_up(portal, valid, &outside.out_of_reach, found).await?;
            if waiting.is_none() {
                outside.findings.clear();
            }
        }
        if outside.findings.is_empty() && !found.standing.leaving.is_empty() {
            return Ok(Some(self.backoff(&valid.key)));
        }
        if outside.findings.is_empty() {
            found.resources = outside.resources;
            found.verified.clear();
            if found.resources.is_empty() {
                found.standing.home = None;
            }
            lock(&self.memory).entry(valid.key.clone()).or_default().cleared = Some(valid.generation);
            self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
            found.class_name = Some(class.class.name.clone());
            found.backend = Some(class.class.spec.backend_name().to_owned());
            return Ok(Some(self.timing.resync));
        }
        found.findings.append(&mut outside.findings);
        Ok(Some(outside.wait.unwrap_or_else(|| self.backoff(&valid.key))))
    }
}
