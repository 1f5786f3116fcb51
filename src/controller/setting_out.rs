//! Whether a portal is on its way: a move is begun, gone on with, called off, or not needed.
use super::alike::{flips, has_record, has_route, look_anew, mixed, rename, replaces, same};
use super::context::Context;
use super::deciding::is_said;
use super::error::ControllerError;
use super::former::Old;
use super::outside::program;
use super::places::{self, Standing};
use super::runtime::ClassRuntime;
use super::status::Found;
use super::times::{passed, stamp, stamp_after};
use super::validate::{Mode, ValidPortal};
use crate::api::portal::{Decider, Leaving, MadeResource, Move, MoveStage, Place};
use crate::api::{HostName, ResetPortal};

impl Context {
    /// Begins, goes on with or gives up a move, as the class wants it. `Some` while the portal is on its way. What it
    /// comes to is in the status before anything is made outside.
    pub(super) async fn on_the_way(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        host_changes: bool,
        found: &mut Found,
    ) -> Result<Option<Old>, ControllerError> {
        if valid.mode != Mode::Full {
            return Ok(None);
        }
        let (here, now) = (places::place_of(&class.class), self.clock.now());
        let before = found.standing.clone();
        let standing = &mut found.standing;
        let leave = |standing: &mut Standing, place: Place, serves: bool| {
            let known = standing.leaving.iter().any(|leaving| leaving.place == place);
            if place != here && !known {
                standing.leaving.push(Leaving { serves, ..Leaving::unserved(place, stamp(now)) });
            }
        };
        // Coming back to a place that was being left.
        let coming_back = standing.leaving.iter().find(|leaving| leaving.place == here).cloned();
        standing.leaving.retain(|leaving| leaving.place != here);
        // The host was changed in a move that was not flipped, and where the portal stood is wanted again.
        let stood = coming_back.as_ref().is_some_and(|leaving| leaving.stood);
        if stood && let Some(place) = standing.home.take_if(|home| *home != here) {
            standing.settle_in(here.clone(), false);
            leave(standing, place, false);
        }
        // Between two addresses of one proxy it is known for the way back as well.
        let mut back_in_one = false;
        let flipped =
            |moving: &Move| moving.to != here && moving.stage == MoveStage::Flipped && moving.flipped.is_some();
        if let Some(other) = standing.moving.clone().filter(flipped)
            && let Some(home) = standing.home.clone()
            && let (Ok(former), Ok(present)) = (self.at_place(&home).await?, self.at_place(&other.to).await?)
            && (replaces(&former, &present) || other.one_proxy == Some(true))
        {
            // The route has the form of the place that is called off, and the record leads there: it is home by now.
            standing.moving = None;
            standing.settle_in(other.to, true);
            leave(standing, home.clone(), false);
            let left = standing.leaving.iter_mut().filter(|leaving| leaving.place == home);
            left.for_each(|leaving| leaving.one_proxy = true);
            rename(&mut found.resources, &former, &present);
            back_in_one = home == here;
        }
        let known = standing.moving.as_ref().and_then(|moving| moving.from.clone());
        let mut called_off = None;
        if let Some(other) = standing.moving.take_if(|moving| moving.to != here) {
            // Once the record was to lead there, visitors may come there until it is seen to lead elsewhere.
            let served = other.stage != MoveStage::Proving || other.served;
            // Before the first look, nothing is made.
            if served || other.one_proxy.is_some() {
                leave(standing, other.to.clone(), served);
            }
            let asked = served && self.only_a_person_tells(standing.home.as_ref(), &other, class, valid).await?;
            let left = standing.leaving.iter_mut().filter(|leaving| leaving.place == other.to);
            left.for_each(|leaving| {
                leaving.asks = asked;
                // What is at home is seen to from there.
                leaving.one_proxy = other.one_proxy == Some(true);
                if other.stage == MoveStage::RolledBack && other.flipped.is_none() {
                    // It was seen to lead back.
                    leaving.unserved = Some(stamp_after(now));
                }
            });
            if other.one_proxy == Some(true)
                && let Some(home) = &standing.home
                && let (Ok(home), Ok(there)) = (self.at_place(home).await?, self.at_place(&other.to).await?)
            {
                rename(&mut found.resources, &there, &home);
            }
            called_off = Some(other.to);
        }
        if standing.home.as_ref() == Some(&here)
            && !stood
            && let Some(place) = self.still_served_by(class, valid, &found.resources, &standing.leaving).await?
        {
            // Host and class were changed together, and the host is changed back: that is a move like any other.
            standing.leaving.retain(|leaving| leaving.place != place);
            standing.settle_in(place, false);
        }
        let mut old = None;
        match standing.home.clone() {
            Some(home) if home != here && !(home.settings.is_empty() && home.class_name == here.class_name) => {
                let former = self.former(class, &home, known.as_deref()).await?;
                // A host that is served at home already moves like any other, whatever else is still left of another.
                let served = former.has(valid, &found.resources);
                let proved = portal.status.as_ref().is_some_and(|status| status.last_proof.is_some());
                let nothing =
                    !served && (host_changes || former.lost || self.has_nothing_at(&former.class, valid, proved).await);
                let one_system = same(&former.class.proxy, &class.proxy);
                if nothing || !flips(&former.class, class, &former.target, valid) {
                    // Nothing is flipped: the former place is left as soon as the portal is proved here.
                    standing.moving = None;
                    leave(standing, home.clone(), false);
                    let left = standing.leaving.iter_mut().filter(|leaving| leaving.place == home);
                    left.for_each(|leaving| leaving.stood |= nothing);
                    standing.settle_in(here.clone(), one_system);
                } else {
                    let (generation, host) = (valid.generation, Some(valid.host.to_string()));
                    let begun = |moving: &Move| {
                        let of_host = moving.host.is_none() || moving.host == host;
                        let again =
                            moving.generation != generation || passed(&moving.since, now) >= self.timing.move_again;
                        of_host && (moving.is_under_way() || !again)
                    };
                    if !standing.moving.as_ref().is_some_and(begun) {
                        let (to, since) = (here.clone(), stamp(now));
                        let (stage, flipped, note) = (MoveStage::Proving, None, None);
                        let from = former.target.as_ref().map(HostName::to_string);
                        let (last, decided_by) = (standing.moving.take(), None);
                        // What is there of a place that was not cleaned yet tells nothing.
                        let one_proxy = last.as_ref().and_then(|last| last.one_proxy);
                        let one_proxy = one_proxy.or(coming_back.as_ref().map(|leaving| leaving.one_proxy));
                        let one_proxy = if back_in_one { Some(true) } else { one_proxy };
                        let made = has_record(&former.class, &valid.host, &found.resources);
                        let from_seconds = made.then(|| standing.record_seconds.unwrap_or(0));
                        let from_seconds = last
                            .as_ref()
                            .filter(|last| last.host == host)
                            .and_then(|last| last.from_seconds)
                            .or(from_seconds);
                        let served = coming_back.is_some_and(|leaving| leaving.serves)
                            || last.is_some_and(|last| last.served || last.stage != MoveStage::Proving);
                        standing.moving = Some(Move {
                            to,
                            stage,
                            since,
                            generation,
                            host,
                            from,
                            from_seconds,
                            flipped,
                            one_proxy,
                            served,
                            decided_by,
                            note,
                        });
                    }
                    old = Some(former);
                }
            }
            _ => {
                standing.moving = None;
                standing.home = Some(here.clone());
            }
        }
        if found.standing != before {
            look_anew(class, valid);
            self.keep_settings(class).await?;
            self.reports.note(portal, found).await?;
        }
        if called_off.is_some_and(|to| is_said(portal, &to)) {
            self.spend_word(portal).await?;
        }
        Ok(old)
    }

    /// Whether the proxy of a place has no route for the host, as is seen there. One that does not answer has none where the
    /// portal was never proved, as behind an address that was misspelled. Of a route that a person makes, nothing is known.
    async fn has_nothing_at(&self, former: &ClassRuntime, valid: &ValidPortal, proved: bool) -> bool {
        if former.proxy.is_none() {
            return false;
        }
        look_anew(former, valid);
        let look = ValidPortal { mode: Mode::ObserveOnly, ..valid.clone() };
        let seen = program(&mixed(former, &None, &former.proxy), &look, self.store.installation(), &[], &[]).await;
        // Somebody else's route for the host may be what visitors get.
        seen.resources.is_empty() && (!seen.pending.is_empty() || (seen.refused.is_empty() && !proved))
    }

    /// Whether a proof of life that comes when a move is called off may have come through the new place: both may be on one
    /// machine, or nobody is there to lead the record back.
    async fn only_a_person_tells(
        &self,
        home: Option<&Place>,
        other: &Move,
        class: &ClassRuntime,
        valid: &ValidPortal,
    ) -> Result<bool, ControllerError> {
        let Ok(there) = self.at_place(&other.to).await? else { return Ok(other.decided_by == Some(Decider::Person)) };
        let led_back = other.stage == MoveStage::RolledBack && other.flipped.is_none();
        let unled = class.dns.is_none() && there.dns.is_some() && other.stage != MoveStage::Proving && !led_back;
        let (Some(home), None) = (home, other.decided_by) else {
            return Ok(unled || other.decided_by == Some(Decider::Person));
        };
        let former = self.former(&there, home, other.from.as_deref()).await?;
        let target = there.class.spec.record_target();
        let decider = self.decider(&former, &there, &ValidPortal { cname_target: target, ..valid.clone() }).await;
        Ok(unled || (other.one_proxy != Some(true) && matches!(decider, Ok(Decider::Person) | Err(_))))
    }

    /// The place among those that are left which has the route for the host that visitors get.
    async fn still_served_by(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        made: &[MadeResource],
        left: &[Leaving],
    ) -> Result<Option<Place>, ControllerError> {
        // A route that was never proved here is no reason to lead the record to it.
        let here = has_route(class, valid, made);
        for leaving in left.iter().filter(|leaving| leaving.stood || !here) {
            if self.at_place(&leaving.place).await?.is_ok_and(|former| has_route(&former, valid, made)) {
                return Ok(Some(leaving.place.clone()));
            }
        }
        Ok(None)
    }
}
