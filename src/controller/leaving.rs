//! What a portal had and no longer wants: a disabled one's record and route, a former host, a former place.
use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::events::EventType;

use super::context::Context;
use super::error::ControllerError;
use super::moving::{same, signed};
use super::outside::{Outside, program, withdraw};
use super::places::{CLASS_GONE, SETTINGS_GONE, place_of};
use super::runtime::{ClassRuntime, Shared};
use super::serving::Fresh;
use super::status::Found;
use super::validate::{Mode, ValidPortal};
use crate::api::condition::{Finding, LIVE, MOVED, Truth};
use crate::api::portal::{Leaving, MadeResource};
use crate::api::{HostName, ResetPortal};
use crate::http::double::lock;
use crate::plan::Mark;

/// What a look made outside, and what came of it.
pub struct Made {
    pub outside: Outside,
    pub live: Finding,
    /// When to look again, where that matters.
    pub wait: Option<Duration>,
}

fn named(made: &[MadeResource]) -> String {
    let words: Vec<String> = made.iter().map(|made| format!("{} in {}", made.name, made.system)).collect();
    words.join(", ")
}

impl Context {
    /// `enabled: false`: record and route go, the claim stays, the host is served no longer.
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
        if cleared && found.resources.is_empty() {
            return Ok(Some(self.timing.resync));
        }
        if valid.mode != Mode::Full {
            found.pending =
                found.resources.iter().map(|made| format!("delete {} in {}", made.name, made.system)).collect();
            return Ok(Some(self.timing.resync));
        }
        let here = place_of(&class.class);
        let (home, moving) = (found.standing.home.take(), found.standing.moving.take().map(|moving| moving.to));
        for place in home.into_iter().chain(moving).filter(|place| *place != here) {
            let since = super::moving::stamp(self.clock.now());
            if !found.standing.leaving.iter().any(|leaving| leaving.place == place) {
                found.standing.leaving.push(Leaving { place, since });
            }
        }
        found.standing.home = Some(here);
        let hosts: Vec<HostName> = former.iter().chain([&valid.host]).cloned().collect();
        let mark = Mark::new(self.store.installation(), &valid.key);
        let mut outside = withdraw(class, &mark, &valid.key, &hosts, &valid.recorded, false).await;
        self.leave_places(portal, class, valid, &[], found).await?;
        found.changes.append(&mut outside.changes);
        if outside.findings.is_empty() && !found.standing.leaving.is_empty() {
            return Ok(Some(self.backoff(&valid.key)));
        }
        if outside.findings.is_empty() {
            found.resources.clear();
            found.verified.clear();
            lock(&self.memory).entry(valid.key.clone()).or_default().cleared = Some(valid.generation);
            self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
            found.class_name = Some(class.class.name.clone());
            found.backend = Some(class.class.spec.backend_name().to_owned());
            return Ok(Some(self.timing.resync));
        }
        found.findings.append(&mut outside.findings);
        Ok(Some(outside.wait.unwrap_or_else(|| self.backoff(&valid.key))))
    }

    /// One look at a portal that stays where it is. A changed host is proved before the former one goes.
    pub(super) async fn stay(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        found: &mut Found,
    ) -> Result<(Made, Vec<MadeResource>), ControllerError> {
        let probing = class.class.spec.probe.enabled;
        let keep: &[HostName] = if probing { former } else { &[] };
        let gone: &[HostName] = if probing { &[] } else { former };
        let mut outside = program(class, valid, self.store.installation(), keep, gone).await;
        let fresh = if former.is_empty() { Fresh::Recent } else { Fresh::Now };
        let mut live = self.live(class, valid, &outside, fresh).await;
        found.changes.append(&mut outside.changes);
        let mut kept: Vec<MadeResource> = Vec::new();
        if !former.is_empty() && valid.mode == Mode::Full {
            if !probing || live.truth == Truth::True {
                outside = self.leave_former(portal, class, valid, former, outside, found).await?;
                if !outside.programmed() {
                    live = Finding::new(LIVE, Truth::False, "NotProgrammed", "waits for record and route");
                }
            } else {
                let of_former = |made: &&MadeResource| former.iter().any(|f| f.as_str() == made.name);
                kept = found.resources.iter().filter(of_former).cloned().collect();
            }
        }
        if live.truth == Truth::True {
            outside.prove();
        }
        let wait = outside.wait;
        Ok((Made { outside, live, wait }, kept))
    }

    /// The new host is proved: what stands at the former ones goes, then the claims on them.
    async fn leave_former(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        programmed: Outside,
        found: &mut Found,
    ) -> Result<Outside, ControllerError> {
        let mut outside = program(class, valid, self.store.installation(), &[], former).await;
        found.changes.append(&mut outside.changes);
        if !outside.programmed() {
            return Ok(outside);
        }
        self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
        let logo = self.logo(portal).await?;
        self.publish(class, valid, &[], logo);
        Ok(Outside { findings: programmed.findings, ..outside })
    }

    /// Removes what the portal has in places that it left. A place that cannot be used any more is given up: at once
    /// where it is gone for good, else after half an hour; what may remain there is told and stays in the status.
    pub(super) async fn leave_places(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        made: &[MadeResource],
        found: &mut Found,
    ) -> Result<(), ControllerError> {
        if valid.mode == Mode::Full && !found.standing.leaving.is_empty() {
            self.try_to_leave(portal, class, valid, made, found).await?;
        }
        if !found.findings.iter().any(|finding| finding.type_ == MOVED) && !found.standing.left_behind.is_empty() {
            let words = format!(
                "what stood in former places may remain, and has to be removed by hand: {}",
                named(&found.standing.left_behind)
            );
            found.findings.push(Finding::new(MOVED, Truth::True, "LeftBehind", words));
        }
        Ok(())
    }

    async fn try_to_leave(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        made: &[MadeResource],
        found: &mut Found,
    ) -> Result<(), ControllerError> {
        let here = place_of(&class.class);
        let mut others = Vec::new();
        let moving = found.standing.moving.iter().map(|moving| &moving.to);
        for place in found.standing.home.iter().chain(moving).filter(|place| **place != here) {
            others.extend(self.at_place(place).await?);
        }
        // An instance that holds what the portal has now is not left.
        let in_use = |shared: &Shared| {
            let one = Some(shared.clone());
            let used = |class: &ClassRuntime| same(&one, &class.dns) || same(&one, &class.proxy);
            used(class) || others.iter().any(|other| used(other))
        };
        let (hosts, mark) = (super::remove::hosts(portal), Mark::new(self.store.installation(), &valid.key));
        let mut problems = Vec::new();
        for leaving in std::mem::take(&mut found.standing.leaving) {
            let (words, systems, lost) = match self.at_place(&leaving.place).await? {
                Ok(former) => {
                    let free = |shared: &Option<Shared>| shared.clone().filter(|shared| !in_use(shared));
                    let old = ClassRuntime {
                        class: former.class.clone(),
                        dns: free(&former.dns),
                        proxy: free(&former.proxy),
                        account: None,
                        mailer: None,
                        facts: Default::default(),
                    };
                    let mut outside = withdraw(&old, &mark, &valid.key, &hosts, &valid.recorded, false).await;
                    found.changes.append(&mut outside.changes);
                    let words: Vec<String> = outside.findings.into_iter().map(|finding| finding.message).collect();
                    let systems: HashSet<String> =
                        old.dns.iter().chain(&old.proxy).map(|shared| shared.worker.instance().to_owned()).collect();
                    (words, Some(systems), false)
                }
                Err(finding) => {
                    let lost = finding.reason == CLASS_GONE || finding.reason == SETTINGS_GONE;
                    (vec![finding.message], None, lost)
                }
            };
            if words.is_empty() {
                continue;
            }
            let words = words.join("; ");
            let since: Timestamp = leaving.since.parse().unwrap_or(self.clock.now());
            if !lost && self.clock.now().duration_since(since) < signed(self.timing.letting_go) {
                problems.push(words);
                found.standing.leaving.push(leaving);
                continue;
            }
            let stands = |one: &&MadeResource| match &systems {
                Some(systems) => systems.contains(&one.system),
                None => !made.iter().any(|other| other.system == one.system),
            };
            let remains: Vec<MadeResource> = found.resources.iter().filter(stands).cloned().collect();
            let class_name = &leaving.place.class_name;
            let note = format!("what PortalClass {class_name:?} made may remain ({}): {words}", named(&remains));
            self.reports.event(portal, EventType::Warning, "LeftBehind", "Reconcile", &note).await;
            let new = remains.into_iter().filter(|one| !found.standing.left_behind.contains(one)).collect::<Vec<_>>();
            found.standing.left_behind.extend(new);
        }
        if !problems.is_empty() && !found.findings.iter().any(|finding| finding.type_ == MOVED) {
            let until = self.timing.letting_go.as_secs() / 60;
            let words = format!(
                "served from the new place; the former one cannot be cleaned yet (given up after {until} minutes): {}",
                problems.join("; ")
            );
            found.findings.push(Finding::new(MOVED, Truth::Unknown, "FormerNotRemoved", words));
        }
        Ok(())
    }
}
