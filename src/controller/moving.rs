//! A portal's move from one proxy to another, when its class or the class's proxy changes. The new route is made
//! first and proved where it can be reached; then the record is changed; only when the public host proves itself is
//! the old route removed, and when it does not, the record is changed back. Each stage is in the status before its
//! effect, so that whoever goes on after a kill does the same.
use std::time::Duration;

use jiff::SignedDuration;
use kube::runtime::events::EventType;

use super::alike::{has_route, look_anew, mixed, rename, replaces};
use super::context::Context;
use super::deciding::{Undecided, asking, is_said, said_otherwise};
use super::error::ControllerError;
use super::former::Old;
use super::leaving::Made;
use super::outside::{Outside, program};
use super::proving::is_wrong;
use super::recorded::AWAITING_OPERATOR;
use super::runtime::ClassRuntime;
use super::serving::Fresh;
use super::settling::{form, record_seconds, settled};
use super::status::Found;
use super::times::{after, passed, stamp, stamp_after};
use super::underway;
use super::validate::ValidPortal;
use crate::api::condition::{DNS_PROGRAMMED, Finding, MOVED, Truth};
use crate::api::portal::{Decider, Leaving, Move, MoveStage};
use crate::api::{HostName, ResetPortal};

fn instance(class: &ClassRuntime) -> String {
    class.proxy.as_ref().map_or("the proxy made by hand".to_owned(), |shared| shared.worker.instance().to_owned())
}

impl Context {
    /// One look at a portal on its way. What is at its former hosts stays meanwhile.
    pub(super) async fn travel(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        old: &Old,
        former: &[HostName],
        found: &mut Found,
    ) -> Result<Made, ControllerError> {
        let installation = self.store.installation();
        let seconds = found.standing.moving.as_ref().and_then(|moving| moving.from_seconds);
        let (proxied, ttl) = seconds.map_or((valid.proxied, valid.ttl), |seconds| form(seconds, valid));
        let held = ValidPortal { cname_target: old.target.clone(), proxied, ttl, ..valid.clone() };
        let dns = old.account(class);
        let (from, to) = (old.instance(), instance(class));
        let way = underway::way(&from, &to, &old.target, &valid.cname_target);
        let one_route = |moving: &Move| replaces(&old.class, class) || moving.one_proxy == Some(true);
        let held_record = underway::record(&mixed(class, &dns, &None), &old.target).cloned();
        let new_record = underway::record(class, &valid.cname_target).cloned();
        let until = |seen: bool, waiting: &str| underway::proving(&way, held_record.as_ref(), seen, waiting);
        loop {
            let Some(mut moving) = found.standing.moving.clone() else {
                let words = Finding::new(MOVED, Truth::Unknown, "Moving", way);
                return Ok(Made { outside: Outside::default(), live: words, wait: None });
            };
            let now = self.clock.now();
            let nothing_written = Outside::default();
            let (decider, undecided) = match moving.decided_by {
                Some(decider) => (Some(decider), None),
                None => match self.decides(&moving, old, class, valid).await {
                    Ok(decider) => (Some(decider), None),
                    Err(why) => (None, Some(why)),
                },
            };
            let is_way_back = decider != Some(Decider::Record) && old.is_way_back(class, &moving);
            let awaited = match (moving.stage, decider) {
                (MoveStage::Flipped, Some(decider @ (Decider::Person | Decider::Record))) => {
                    let led = self.is_led_by_hand(portal, old, class, &held, (&moving.to, decider)).await;
                    (!led).then_some(decider)
                }
                _ => None,
            };
            match (moving.stage, awaited) {
                // One proxy has one route for a host, so that its new form cannot be tried beside the former one.
                (MoveStage::Proving, _) if one_route(&moving) && self.leads_nowhere(old, class, valid).await => {
                    let told = |seen| until(seen, "the new route can be reached: its name does not exist in DNS");
                    let as_it_is = mixed(class, &dns, &old.class.proxy);
                    return Ok(self
                        .holds(portal, old, &as_it_is, (&held, former), Outside::default(), &told, found)
                        .await);
                }
                (MoveStage::Proving, _) if one_route(&moving) => {
                    let note = match self.try_as_it_is(class, valid, &held, old, former, &moving).await {
                        Ok(note) => note,
                        Err(waiting) => {
                            let told = |seen| until(seen, &waiting);
                            let (as_it_is, nothing) = (mixed(class, &dns, &old.class.proxy), Outside::default());
                            return Ok(self
                                .holds(portal, old, &as_it_is, (&held, former), nothing, &told, found)
                                .await);
                        }
                    };
                    let (stage, decided_by, one_proxy) = (MoveStage::Flipped, decider, Some(true));
                    found.standing.moving =
                        Some(Move { stage, since: stamp(now), decided_by, one_proxy, note, ..moving });
                    self.forget_probe(&valid.key);
                    look_anew(class, valid);
                    self.reports.note(portal, found).await?;
                }
                (MoveStage::Proving, _) if self.is_in_use_otherwise(class, valid, &found.standing).await? => {
                    let waiting = "the record is seen to lead away from the route whose place the new one takes";
                    let (record, told) = (mixed(class, &dns, &None), |seen| until(seen, waiting));
                    return Ok(self
                        .holds(portal, old, &record, (&held, former), Outside::default(), &told, found)
                        .await);
                }
                // The route of a class that cannot be had is in this very proxy.
                (MoveStage::Proving, _)
                    if moving.one_proxy.is_none() && old.lost && has_route(class, valid, &found.resources) =>
                {
                    moving.one_proxy = Some(true);
                    found.standing.moving = Some(moving);
                    self.reports.note(portal, found).await?;
                }
                (MoveStage::Proving, _) if moving.one_proxy.is_none() => {
                    match self.look_before(class, &held, former, found).await {
                        // It may be what was made for another place, which is left.
                        Ok(true) if found.standing.leaving.iter().any(|leaving| !leaving.one_proxy) => {
                            let told = |seen| until(seen, "what was made in other places is removed");
                            let (record, nothing) = (mixed(class, &dns, &None), Outside::default());
                            return Ok(self.holds(portal, old, &record, (&held, former), nothing, &told, found).await);
                        }
                        Ok(there) => {
                            moving.one_proxy = Some(there);
                            found.standing.moving = Some(moving);
                            self.reports.note(portal, found).await?;
                        }
                        Err(seen) => {
                            let told = |seen| until(seen, "the new route is made");
                            let record = mixed(class, &dns, &None);
                            return Ok(self.holds(portal, old, &record, (&held, former), seen, &told, found).await);
                        }
                    }
                }
                (MoveStage::Proving, _) => {
                    let mut outside =
                        program(&mixed(class, &dns, &class.proxy), &held, installation, former, &[]).await;
                    found.changes.append(&mut outside.changes);
                    // The proof takes its time, and whoever goes on after a kill has to know what is there.
                    let known = found.resources.len();
                    found.keep(&outside.resources);
                    if found.resources.len() > known {
                        self.reports.note(portal, found).await?;
                    }
                    let waiting = match self.prove_before(class, valid, old, &outside, &moving).await {
                        Ok(note) => {
                            let (stage, decided_by) = (MoveStage::Flipped, decider);
                            moving = Move { stage, since: stamp(now), decided_by, note, ..moving };
                            found.standing.moving = Some(moving);
                            found.keep(&outside.resources);
                            self.forget_probe(&valid.key);
                            self.reports.note(portal, found).await?;
                            continue;
                        }
                        Err(words) if class.class.spec.proxy.manual.is_some() => {
                            format!("{words}; it is made by hand: see `{}`", underway::snippets(class, valid))
                        }
                        Err(words) => words,
                    };
                    let live = self.live(&old.class, valid, &nothing_written, Fresh::Recent).await;
                    let words = underway::proving(&way, held_record.as_ref(), outside.recorded(), &waiting);
                    found.findings.push(Finding::new(MOVED, Truth::Unknown, "Moving", words));
                    let left = self.timing.move_proof.saturating_sub(passed(&moving.since, now));
                    let backoff = self.backoff(&valid.key);
                    let wait = outside.wait.unwrap_or(if left.is_zero() { backoff } else { backoff.min(left) });
                    return Ok(Made { outside, live, wait: Some(wait.max(self.timing.first_retry)) });
                }
                (MoveStage::Flipped, Some(decider)) => {
                    let mut outside =
                        program(&mixed(class, &dns, &class.proxy), &held, installation, former, &[]).await;
                    found.changes.append(&mut outside.changes);
                    moving.flipped = None;
                    moving.decided_by = Some(decider);
                    found.standing.moving = Some(moving);
                    let made = old.target.as_ref().filter(|_| old.class.dns.is_some());
                    let words = underway::by_hand(&way, class, made, decider) + &said_otherwise(portal);
                    return Ok(self.waits(old, valid, outside, (AWAITING_OPERATOR, words), found).await);
                }
                (MoveStage::Flipped, None) => {
                    // One proxy has one route for the host: the former one stays until the record is seen to be changed.
                    let first = moving.flipped.is_none() && one_route(&moving);
                    let proxy = if first { &old.class.proxy } else { &class.proxy };
                    let mut outside = program(&mixed(class, &class.dns, proxy), valid, installation, former, &[]).await;
                    // A record that is written again led elsewhere meanwhile: what was seen before is no proof.
                    let written =
                        outside.changes.iter().any(|one| one.condition == DNS_PROGRAMMED && one.remark.is_none());
                    found.changes.append(&mut outside.changes);
                    // Read again: the write may have taken its time, and only what is asked after it tells anything.
                    let now = self.clock.now();
                    if (moving.flipped.is_none() || written) && outside.recorded() {
                        moving.flipped = Some(stamp_after(now));
                        // It may be called off, and then this is what caches have.
                        found.standing.record_seconds = found.standing.record_seconds.max(record_seconds(valid));
                        found.standing.moving = Some(moving.clone());
                        found.keep(&outside.resources);
                        self.forget_probe(&valid.key);
                        self.reports.note(portal, found).await?;
                        if first {
                            continue;
                        }
                    }
                    let Some(flipped) = moving.flipped.clone() else {
                        // A rate limit ends; whatever else keeps the record from being changed may not.
                        let late = outside.queue.is_none() && passed(&moving.since, now) >= self.timing.move_patience;
                        if late && is_way_back {
                            look_anew(&old.class, valid);
                            self.roll_back(portal, moving, "the record cannot be changed", &way, &outside, found)
                                .await?;
                            continue;
                        }
                        let live = self.live(&old.class, valid, &nothing_written, Fresh::Recent).await;
                        let words = underway::to_be_flipped(&way, new_record.as_ref());
                        found.findings.push(Finding::new(MOVED, Truth::Unknown, "Moving", words));
                        let mut wait = outside.wait.unwrap_or_else(|| self.backoff(&valid.key));
                        if outside.queue.is_none() && !late {
                            wait = wait.min(self.timing.move_patience.saturating_sub(passed(&moving.since, now)));
                        }
                        return Ok(Made { outside, live, wait: Some(wait.max(self.timing.first_retry)) });
                    };
                    let settled = settled(&self.timing, valid, &found.standing, &flipped);
                    let live = self.live(class, valid, &outside, Fresh::After(settled)).await;
                    let probing = class.class.spec.probe.enabled;
                    let proved = if probing {
                        live.truth == Truth::True && self.probed_at(&valid.key).is_some_and(|at| at >= settled)
                    } else {
                        outside.programmed()
                    };
                    let undecided = undecided.filter(|_| !is_said(portal, &moving.to));
                    if moving.decided_by != decider {
                        moving.decided_by = decider;
                        found.standing.moving = Some(moving.clone());
                    }
                    if proved
                        && now >= settled
                        && let Some(why) = undecided
                    {
                        let words = underway::undecided(&way, &moving.to, &why) + &said_otherwise(portal);
                        found.findings.push(Finding::new(MOVED, Truth::Unknown, AWAITING_OPERATOR, words));
                        return Ok(Made { outside, live, wait: Some(self.backoff(&valid.key)) });
                    }
                    if proved && now >= settled {
                        let (one_proxy, home) = (moving.one_proxy == Some(true), found.standing.home.take());
                        found.standing.settle_in(moving.to, one_proxy);
                        found.standing.leaving.iter_mut().for_each(|leaving| leaving.asks = false);
                        if one_proxy {
                            rename(&mut found.resources, &old.class, class);
                        }
                        let left = home.map(|home| Leaving { one_proxy, ..Leaving::unserved(home, stamp(now)) });
                        found.standing.leaving.extend(left);
                        found.standing.moving = None;
                        // That long was waited.
                        found.standing.record_seconds = record_seconds(valid);
                        found.standing.record_until = None;
                        self.reports.note(portal, found).await?;
                        self.spend_word(portal).await?;
                        let mut words = underway::moved(&way, new_record.as_ref(), moving.note.as_deref());
                        if one_proxy && from != to {
                            words.push_str(&underway::taken_for_one(&from, &valid.host));
                        }
                        self.reports.event(portal, EventType::Normal, "Moved", "Move", &words).await;
                        return Ok(Made { outside, live, wait: None });
                    }
                    let patience = self.timing.move_patience;
                    let patience = if is_wrong(&live.reason) { patience / 5 } else { patience };
                    let left = after(&stamp(settled), patience).duration_since(now);
                    if left <= SignedDuration::ZERO && is_way_back {
                        let seen = if outside.programmed() { &live.message } else { "record or route cannot be made" };
                        look_anew(&old.class, valid);
                        self.roll_back(portal, moving, seen, &way, &outside, found).await?;
                        continue;
                    }
                    let words = underway::flipped(&way, new_record.as_ref(), &flipped, &stamp(settled));
                    found.findings.push(Finding::new(MOVED, Truth::Unknown, "Moving", words));
                    let left = Duration::try_from(left).ok().filter(|left| !left.is_zero());
                    let backoff = self.backoff(&valid.key);
                    let wait = outside.wait.unwrap_or_else(|| left.map_or(backoff, |left| backoff.min(left)));
                    return Ok(Made { outside, live, wait: Some(wait.max(self.timing.first_retry)) });
                }
                (MoveStage::RolledBack, _) => {
                    // A record that a person made before led to the proxy's name as well.
                    let back = ValidPortal { cname_target: old.address(), ..held.clone() };
                    let dns = dns.clone().or_else(|| class.dns.clone().filter(|_| back.cname_target.is_some()));
                    let mut outside =
                        program(&mixed(class, &dns, &old.class.proxy), &back, installation, former, &[]).await;
                    found.changes.append(&mut outside.changes);
                    let led_back = outside.recorded();
                    // Whatever else is wanted of the portal waits for that, but not without end.
                    let given_up = !led_back && passed(&moving.since, now) >= self.timing.letting_go;
                    let at_last = (led_back || given_up) && moving.flipped.take().is_some();
                    if at_last {
                        found.standing.moving = Some(moving.clone());
                    }
                    if at_last && given_up {
                        let words =
                            format!("{way}: the record cannot be led back; nothing else waits for that any more");
                        self.reports.event(portal, EventType::Warning, "MoveRolledBack", "Move", &words).await;
                    }
                    let live = self.live(&old.class, valid, &nothing_written, Fresh::Recent).await;
                    let seen = moving.note.as_deref().unwrap_or("no proof of life in time");
                    let again = stamp(after(&moving.since, self.timing.move_again));
                    let back = back.cname_target.as_ref().filter(|_| dns.is_some()).map(|target| (target, led_back));
                    let words = underway::rolled_back(&way, back, &to, seen, &again);
                    found.findings.push(Finding::new(MOVED, Truth::False, "MoveRolledBack", words));
                    let resync = self.timing.resync;
                    let wait = self.until_probe(&valid.key).filter(|_| live.truth != Truth::True);
                    let wait = match (led_back, at_last) {
                        (false, false) => outside.wait.unwrap_or_else(|| self.backoff(&valid.key)),
                        (_, true) => self.timing.first_retry,
                        (true, false) => wait.map_or(resync, |wait| wait.clamp(self.timing.first_retry, resync)),
                    };
                    return Ok(Made { outside, live, wait: Some(wait) });
                }
            }
        }
    }

    /// What decides a move of which that is not known yet.
    async fn decides(
        &self,
        moving: &Move,
        old: &Old,
        class: &ClassRuntime,
        valid: &ValidPortal,
    ) -> Result<Decider, Undecided> {
        match moving.one_proxy {
            Some(true) => Ok(Decider::ProofOfLife),
            _ => self.decider(old, class, valid).await,
        }
    }

    /// What is in `class` is held as it is, and nothing more is done in this look; `told` says what is waited for, by whether
    /// the record is seen to lead where it is to. `seen` is what was looked at besides.
    #[expect(clippy::too_many_arguments, reason = "one look has that many parts")]
    async fn holds(
        &self,
        portal: &ResetPortal,
        old: &Old,
        class: &ClassRuntime,
        (held, former): (&ValidPortal, &[HostName]),
        seen: Outside,
        told: &(dyn Fn(bool) -> String + Sync),
        found: &mut Found,
    ) -> Made {
        let mut outside = program(class, held, self.store.installation(), former, &[]).await;
        found.changes.append(&mut outside.changes);
        outside.join(seen);
        let moved = asking(portal, told(outside.recorded()), &found.standing);
        self.waits(old, held, outside, moved, found).await
    }

    /// Nothing more is done in this look; `moved` says why.
    async fn waits(
        &self,
        old: &Old,
        valid: &ValidPortal,
        outside: Outside,
        moved: (&str, String),
        found: &mut Found,
    ) -> Made {
        let live = self.live(&old.class, valid, &Outside::default(), Fresh::Recent).await;
        found.findings.push(Finding::new(MOVED, Truth::Unknown, moved.0, moved.1));
        let wait = outside.wait.unwrap_or_else(|| self.backoff(&valid.key));
        Made { outside, live, wait: Some(wait.max(self.timing.first_retry)) }
    }

    /// The record is changed back at the next look.
    async fn roll_back(
        &self,
        portal: &ResetPortal,
        moving: Move,
        seen: &str,
        way: &str,
        outside: &Outside,
        found: &mut Found,
    ) -> Result<(), ControllerError> {
        let (note, since) = (Some(seen.chars().take(LONGEST_NOTE).collect()), stamp(self.clock.now()));
        // Until it is seen to lead back: the answer to its change may have been lost.
        let flipped = moving.flipped.clone().or_else(|| Some(since.clone()));
        found.standing.moving = Some(Move { stage: MoveStage::RolledBack, since, note, flipped, ..moving });
        found.keep(&outside.resources);
        self.forget_probe(&portal.key());
        self.reports.note(portal, found).await?;
        let words = format!("the move {way} is rolled back: {seen}");
        self.reports.event(portal, EventType::Warning, "MoveRolledBack", "Move", &words).await;
        Ok(())
    }
}

/// Longest note in the status, in characters.
pub(super) const LONGEST_NOTE: usize = 500;
