//! What a portal had and no longer wants: a former host, a former place.
use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::EventType;

use super::alike::{mixed, same};
use super::context::Context;
use super::deciding::{is_said, said_otherwise};
use super::error::ControllerError;
use super::former::Old;
use super::outside::{OutOfReach, Outside, Way, program, withdraw};
use super::places::{CLASS_GONE, SETTINGS_GONE, Standing, place_of};
use super::recorded::AWAITING_OPERATOR;
use super::runtime::{ClassRuntime, Shared};
use super::serving::Fresh;
use super::status::Found;
use super::times::signed;
use super::underway::called_off;
use super::validate::{Mode, ValidPortal};
use crate::api::condition::{Finding, LIVE, MOVED, Truth};
use crate::api::portal::{Decider, Leaving, MadeResource};
use crate::api::{HostName, ResetPortal};
use crate::http::double::lock;
use crate::plan::Mark;

/// Reason of `Moved` while something still stands where the portal was before.
const FORMER_NOT_REMOVED: &str = "FormerNotRemoved";
/// How soon a former host that could not be looked at is tried again.
const UNREACHED_AGAIN: SignedDuration = SignedDuration::from_mins(5);

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

/// What a portal has in its present place.
#[derive(Clone, Copy)]
pub struct Present<'a> {
    pub outside: &'a Outside,
    /// The public host proved it.
    pub proved: bool,
}

impl Context {
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
        // Former names go by a look of their own: what is new must be in order first.
        let mut outside = program(class, valid, self.store.installation(), former, &[]).await;
        let fresh = if former.is_empty() { Fresh::Recent } else { Fresh::Now };
        let mut live = self.live(class, valid, &outside, fresh).await;
        found.changes.append(&mut outside.changes);
        let mut kept: Vec<MadeResource> = Vec::new();
        if !former.is_empty() && valid.mode == Mode::Full {
            if live.truth == Truth::True || (!probing && outside.programmed()) {
                (outside, kept) = self.leave_former(portal, class, valid, former, outside, found).await?;
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

    /// The new host is proved: what stands at the former ones goes, then the claims on them. Tells what was kept.
    async fn leave_former(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        programmed: Outside,
        found: &mut Found,
    ) -> Result<(Outside, Vec<MadeResource>), ControllerError> {
        let at_former = |found: &Found| -> Vec<MadeResource> {
            let stands = |made: &&MadeResource| former.iter().any(|host| host.as_str() == made.name);
            found.resources.iter().filter(stands).cloned().collect()
        };
        let now = self.clock.now();
        let unreached = lock(&self.memory).get(&valid.key).and_then(|memory| memory.unreached);
        if let Some((_, tried)) = unreached.filter(|(_, tried)| now.duration_since(*tried) < UNREACHED_AGAIN) {
            let again = super::times::after(&super::times::stamp(tried), UNREACHED_AGAIN.unsigned_abs());
            let words = format!("what is at a former host cannot be looked at; the next try is at {again}");
            found.findings.push(Finding::new(MOVED, Truth::Unknown, FORMER_NOT_REMOVED, words));
            return Ok((programmed, at_former(found)));
        }
        let mut outside = program(class, valid, self.store.installation(), &[], former).await;
        found.changes.append(&mut outside.changes);
        if !outside.programmed() {
            return Ok((outside, at_former(found)));
        }
        if let Some(words) = self.give_names_up(portal, valid, &outside.out_of_reach, found).await? {
            found.findings.push(Finding::new(MOVED, Truth::Unknown, FORMER_NOT_REMOVED, words));
            let unseen = |made: &MadeResource| {
                let same = |one: &OutOfReach| one.system == made.system && one.host.as_str() == made.name;
                outside.out_of_reach.iter().any(same)
            };
            let kept = at_former(found).into_iter().filter(unseen).collect();
            outside.findings = programmed.findings;
            return Ok((outside, kept));
        }
        self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
        let logo = self.logo(portal).await?;
        self.publish(class, valid, &[], logo);
        outside.findings = programmed.findings;
        Ok((outside, Vec::new()))
    }

    /// Names at which nothing can be looked at any more, because their zone is not to be seen, are tried for half an hour.
    /// `Some` with what is waited for; after that, what may be there is told and stays in the status.
    pub(super) async fn give_names_up(
        &self,
        portal: &ResetPortal,
        valid: &ValidPortal,
        unseen: &[OutOfReach],
        found: &mut Found,
    ) -> Result<Option<String>, ControllerError> {
        let now = self.clock.now();
        let since = {
            let mut memory = lock(&self.memory);
            let unreached = &mut memory.entry(valid.key.clone()).or_default().unreached;
            let since = unreached.map_or(now, |(since, _)| since);
            *unreached = (!unseen.is_empty()).then_some((since, now));
            since
        };
        if unseen.is_empty() {
            return Ok(None);
        }
        let words: Vec<&str> = unseen.iter().map(|one| one.words.as_str()).collect();
        let words = words.join("; ");
        if now.duration_since(since) < signed(self.timing.letting_go) {
            let minutes = self.timing.letting_go.as_secs() / 60;
            return Ok(Some(format!(
                "what is at a former host cannot be looked at (given up {minutes} minutes after {}): {words}",
                super::times::stamp(since)
            )));
        }
        let remains: Vec<MadeResource> = unseen
            .iter()
            .map(|one| {
                let made = |made: &&MadeResource| made.system == one.system && made.name == one.host.as_str();
                let noted = found.resources.iter().find(made).cloned();
                let (system, name) = (one.system.clone(), one.host.to_string());
                noted.unwrap_or(MadeResource { system, name, id: None })
            })
            .collect();
        let note = format!("what was made at a former host may remain ({}): {words}", named(&remains));
        self.reports.event(portal, EventType::Warning, "LeftBehind", "Reconcile", &note).await;
        found.standing.leave_behind(remains);
        lock(&self.memory).entry(valid.key.clone()).or_default().unreached = None;
        Ok(None)
    }

    /// Removes what the portal has in places that it left. A place that cannot be used any more is given up: at once
    /// where it is gone for good, else after half an hour; what may remain there is told and stays in the status. Tells
    /// how long a place is still kept that visitors may be led to; without `present`, nobody is to come any more.
    pub(super) async fn leave_places(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        present: Option<Present<'_>>,
        found: &mut Found,
    ) -> Result<Option<Duration>, ControllerError> {
        let (mut kept, mut asked) = (None, false);
        if valid.mode == Mode::Full && !found.standing.leaving.is_empty() {
            let mut still = Vec::new();
            if let Some(Present { outside, proved }) = present {
                let mut gone = Vec::new();
                // A class without an account says nothing about the record until a person has led it there.
                let known = class.dns.is_some() || found.standing.moving.is_none();
                let recorded = known.then(|| outside.recorded());
                let caches = found.standing.clone();
                for mut leaving in std::mem::take(&mut found.standing.leaving) {
                    leaving.stood &= !proved;
                    let at_home = caches.home.as_ref().is_some_and(|home| is_said(portal, home));
                    leaving.asks &= !at_home && !is_said(portal, &place_of(&class.class));
                    // What a resolver owed when the move was called off may be known by now.
                    leaving.asks = leaving.asks && self.still_asks(&leaving, class, valid, &caches).await?;
                    if leaving.asks {
                        asked = true;
                        still.push(leaving);
                        continue;
                    }
                    match self.still_serves(&mut leaving, valid, recorded, proved, &caches) {
                        Some(wait) => {
                            kept = Some(kept.map_or(wait, |before: Duration| before.min(wait)));
                            still.push(leaving);
                        }
                        None => gone.push(leaving),
                    }
                }
                found.standing.leaving = gone;
            }
            let made = present.map_or(&[][..], |present| &present.outside.resources);
            self.try_to_leave(portal, class, valid, made, &still, found).await?;
            found.standing.leaving.append(&mut still);
        }
        if asked && !found.findings.iter().any(|finding| finding.type_ == MOVED) {
            let words = called_off(&place_of(&class.class)) + &said_otherwise(portal);
            found.findings.push(Finding::new(MOVED, Truth::Unknown, AWAITING_OPERATOR, words));
        }
        if kept.is_some() && !found.findings.iter().any(|finding| finding.type_ == MOVED) {
            let words =
                "what stands in the place that the record led to stays until that is seen to have settled elsewhere";
            found.findings.push(Finding::new(MOVED, Truth::True, "FormerKept", words));
        }
        if !found.findings.iter().any(|finding| finding.type_ == MOVED) && !found.standing.left_behind.is_empty() {
            let words = format!(
                "what stood in former places may remain, and has to be removed by hand: {}",
                named(&found.standing.left_behind)
            );
            found.findings.push(Finding::new(MOVED, Truth::True, "LeftBehind", words));
        }
        Ok(kept)
    }

    /// Whether it is still not to be seen which of both serves visitors, the place that is left or the one where the portal
    /// stands.
    async fn still_asks(
        &self,
        leaving: &Leaving,
        class: &ClassRuntime,
        valid: &ValidPortal,
        standing: &Standing,
    ) -> Result<bool, ControllerError> {
        let Some(home) = standing.home.as_ref().filter(|_| class.dns.is_some()) else { return Ok(true) };
        let (Ok(home), Ok(there)) = (self.at_place(home).await?, self.at_place(&leaving.place).await?) else {
            return Ok(true);
        };
        let valid = ValidPortal { cname_target: home.class.spec.record_target(), ..valid.clone() };
        let target = there.class.spec.record_target();
        let there = Old { class: there, target, lost: false, gone: false };
        Ok(!matches!(self.decider(&there, &home, &valid).await, Ok(Decider::ProofOfLife)))
    }

    async fn try_to_leave(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        made: &[MadeResource],
        still: &[Leaving],
        found: &mut Found,
    ) -> Result<(), ControllerError> {
        let here = place_of(&class.class);
        let mut others = Vec::new();
        let moving = found.standing.moving.iter().map(|moving| &moving.to);
        let serving = still.iter().map(|leaving| &leaving.place);
        for place in found.standing.home.iter().chain(moving).chain(serving).filter(|place| **place != here) {
            others.extend(self.at_place(place).await?);
        }
        // An instance that holds what the portal has now is not left.
        let in_use = |shared: &Shared| {
            let one = Some(shared.clone());
            let used = |class: &ClassRuntime| same(&one, &class.dns) || same(&one, &class.proxy);
            used(class) || others.iter().any(|other| used(other))
        };
        let in_others = |system: &str| {
            let mut all = others.iter().flat_map(|other| other.dns.iter().chain(&other.proxy));
            all.any(|shared| shared.worker.instance() == system)
        };
        let account =
            |class: &ClassRuntime| class.class.spec.cloudflare.as_ref().and_then(|dns| dns.account_id.clone());
        // Of two accounts that have one zone each has a record of its own, though both are one system by name. What is in
        // place now carries the mark as well, and must be told from it by its id.
        let twin = |former: &ClassRuntime| {
            let (old, new) = (former.dns.clone()?, class.dns.clone()?);
            let one_name = same(&former.dns, &class.dns) && !others.iter().any(|other| same(&former.dns, &other.dns));
            let one_account = old.is(&new) || (account(former).is_some() && account(former) == account(class));
            let in_place = |one: &MadeResource| one.system == new.worker.instance() && one.id.is_some();
            let told_apart = !valid.enabled || made.iter().any(in_place);
            (one_name && !one_account && told_apart).then_some(old)
        };
        let (hosts, mark) = (self.hosts(portal).await?, Mark::new(self.store.installation(), &valid.key));
        let (mut problems, mut noted) = (Vec::new(), false);
        for leaving in std::mem::take(&mut found.standing.leaving) {
            let (words, systems, lost) = match self.at_place(&leaving.place).await? {
                Ok(former) => {
                    let free = |shared: &Option<Shared>| shared.clone().filter(|shared| !in_use(shared));
                    let proxy = free(&former.proxy).filter(|_| !leaving.one_proxy);
                    let old = mixed(&former, &free(&former.dns), &proxy);
                    // Whoever takes over a record that was made for a portal keeps it.
                    let given_up = old.dns.clone().filter(|_| valid.enabled && class.dns.is_none());
                    let rest = match &given_up {
                        Some(_) => mixed(&old, &None, &old.proxy),
                        None => mixed(&old, &old.dns, &old.proxy),
                    };
                    let mut outside = withdraw(&rest, &mark, &valid.key, &hosts, &valid.recorded, Way::Delete).await;
                    if given_up.is_some() {
                        // Names that the portal had before are nobody's.
                        let record = mixed(&old, &given_up, &None);
                        let (kept, gone): (Vec<HostName>, Vec<HostName>) =
                            hosts.iter().cloned().partition(|host| *host == valid.host);
                        outside.join(withdraw(&record, &mark, &valid.key, &kept, &valid.recorded, Way::Release).await);
                        if !gone.is_empty() {
                            let way = Way::LeaveBut(&[]);
                            outside.join(withdraw(&record, &mark, &valid.key, &gone, &valid.recorded, way).await);
                        }
                    }
                    if let Some(dns) = twin(&former) {
                        let (one, way) = (mixed(&former, &Some(dns), &None), Way::LeaveBut(made));
                        let mut twin = withdraw(&one, &mark, &valid.key, &hosts, &valid.recorded, way).await;
                        // Where nothing says that it is another account, a refusal is no sign that something is left.
                        if account(&former).is_none() || account(class).is_none() {
                            twin.findings.clear();
                        }
                        outside.join(twin);
                    }
                    found.changes.append(&mut outside.changes);
                    let words: Vec<String> = outside.findings.into_iter().map(|finding| finding.message).collect();
                    let systems: HashSet<String> =
                        old.dns.iter().chain(&old.proxy).map(|shared| shared.worker.instance().to_owned()).collect();
                    (words, Some(systems), false)
                }
                // What is there is the present place's own.
                Err(_) if leaving.one_proxy => continue,
                Err(finding) => {
                    let lost = finding.reason == CLASS_GONE || finding.reason == SETTINGS_GONE;
                    (vec![finding.message], None, lost)
                }
            };
            if words.is_empty() {
                // What was told to remain there is gone.
                let looked_at = |made: &MadeResource| hosts.iter().any(|host| host.as_str() == made.name);
                let cleaned = |made: &MadeResource| {
                    looked_at(made) && systems.as_ref().is_some_and(|all| all.contains(&made.system))
                };
                found.standing.left_behind.retain(|made| !cleaned(made));
                found.resources.retain(|made| !cleaned(made));
                continue;
            }
            let words = words.join("; ");
            let since: Timestamp = leaving.since.parse().unwrap_or(self.clock.now());
            if !lost && self.clock.now().duration_since(since) < signed(self.timing.letting_go) {
                problems.push(words);
                let of_place = |made: &MadeResource| systems.as_ref().is_none_or(|all| all.contains(&made.system));
                noted |= found.resources.iter().any(of_place);
                found.standing.leaving.push(leaving);
                continue;
            }
            let stands = |one: &&MadeResource| match &systems {
                Some(systems) => systems.contains(&one.system),
                None => !made.iter().any(|other| other.system == one.system) && !in_others(&one.system),
            };
            let remains: Vec<MadeResource> = found.resources.iter().filter(stands).cloned().collect();
            if lost && remains.is_empty() {
                continue;
            }
            // A write whose answer was lost is in no list.
            let guessed =
                |system: &String| MadeResource { system: system.clone(), name: valid.host.to_string(), id: None };
            let remains = match (remains.is_empty(), &systems) {
                (true, Some(systems)) => systems.iter().map(guessed).collect(),
                _ => remains,
            };
            let class_name = &leaving.place.class_name;
            let note = format!("what PortalClass {class_name:?} made may remain ({}): {words}", named(&remains));
            self.reports.event(portal, EventType::Warning, "LeftBehind", "Reconcile", &note).await;
            found.standing.leave_behind(remains);
        }
        if !problems.is_empty() && !found.findings.iter().any(|finding| finding.type_ == MOVED) {
            let until = self.timing.letting_go.as_secs() / 60;
            let words = format!(
                "served from the new place; the former one cannot be cleaned yet (given up after {until} minutes): {}",
                problems.join("; ")
            );
            // Of what was never seen there, an address that was misspelled say, nobody has to wait for the end.
            let truth = if noted { Truth::Unknown } else { Truth::True };
            found.findings.push(Finding::new(MOVED, truth, FORMER_NOT_REMOVED, words));
        }
        Ok(())
    }
}
