//! What a portal still has to go through before it stands where it is wanted, in words: the route in the new place, the
//! proof, the record, and what is removed in the former place. Looks at nothing outside.
use super::alike::flips;
use super::context::Context;
use super::deciding::decider_by_names;
use super::error::ControllerError;
use super::former::Old;
use super::places::{Standing, place_of};
use super::proving::before_the_flip;
use super::runtime::ClassRuntime;
use super::underway::{self, record_to_come};
use super::validate::ValidPortal;
use crate::api::HostName;
use crate::api::portal::{Decider, MadeResource, MoveStage, Place};

/// What is known of a portal, whose steps are asked for.
#[derive(Clone, Copy)]
pub struct Stand<'a> {
    pub standing: &'a Standing,
    /// What it has outside.
    pub made: &'a [MadeResource],
    /// Names that it had before, and leaves.
    pub former: &'a [HostName],
    /// It keeps its host, so that its record may move.
    pub moves: bool,
    /// It was proved of late.
    pub proved: bool,
    /// The route is in the wanted proxy, though it was never made there.
    pub there: bool,
}

/// The steps that are left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ahead {
    /// What the record waits for, where it is changed only after that.
    flip: Option<Flip>,
    /// What removals wait for.
    proof: String,
    /// What goes at the end.
    pub removals: Vec<String>,
    /// What cannot be removed, and why.
    pub lost: Vec<String>,
}

/// A change of the record that waits for the new route.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flip {
    /// `when …, `.
    waits: String,
    from: Option<HostName>,
}

impl Ahead {
    /// Adds what goes when the portal is proved.
    pub fn then(&mut self, lines: impl Iterator<Item = String>) {
        self.removals.extend(lines.map(|line| format!("{}{line}", self.proof)));
    }

    /// What would be written, in the order in which it would be; `pending` is what looks at record and route found.
    pub fn in_order(self, class: &ClassRuntime, pending: Vec<String>) -> Vec<String> {
        let Some(flip) = &self.flip else { return pending.into_iter().chain(self.removals).collect() };
        let of_dns = class.dns.as_ref().map(|shared| format!("{}: ", shared.worker.instance()));
        let is_record = |line: &String| of_dns.as_ref().is_some_and(|system| line.starts_with(system));
        let (dns, proxy): (Vec<String>, Vec<String>) = pending.into_iter().partition(is_record);
        let record = dns.into_iter().map(|line| format!("{}{line}", flip.waits));
        proxy.into_iter().chain(record).chain(self.removals).collect()
    }
}

impl Context {
    /// The steps of a portal towards `class`.
    pub(super) async fn ahead(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        stand: Stand<'_>,
    ) -> Result<Ahead, ControllerError> {
        let Stand { standing, made, former, moves, proved, there } = stand;
        let here = place_of(&class.class);
        let after_proof = match class.class.spec.probe.enabled {
            true => format!("when {} is proved, ", valid.host),
            false => "after that, ".to_owned(),
        };
        let used: Vec<&str> = class.dns.iter().chain(&class.proxy).map(|shared| shared.worker.instance()).collect();
        let is_here =
            |place: &Place| *place == here || (place.settings.is_empty() && place.class_name == here.class_name);
        let of_former = |made: &&MadeResource| former.iter().any(|host| host.as_str() == made.name);
        let mut going: Vec<(String, &str, &MadeResource)> =
            made.iter().filter(of_former).map(|made| (after_proof.clone(), "delete", made)).collect();
        let mut ahead = Ahead { proof: after_proof.clone(), ..Ahead::default() };
        for place in standing.places().into_iter().filter(|place| !is_here(place)) {
            let old = match self.at_place(&place).await? {
                Ok(old) => old,
                Err(finding) => {
                    ahead.lost.push(format!("{}: {}", finding.reason, finding.message));
                    continue;
                }
            };
            let is_left = standing.leaving.iter().find(|leaving| leaving.place == place).filter(|_| proved);
            let from = old.class.spec.record_target();
            let is_home = standing.home.as_ref() == Some(&place);
            let whence = Old { class: old.clone(), target: from.clone(), lost: false, gone: false };
            let moving = standing.moving.as_ref().filter(|_| is_home);
            let one_proxy = moving.and_then(|moving| moving.one_proxy).unwrap_or(is_home && there)
                || standing.leaving.iter().any(|leaving| leaving.place == place && leaving.one_proxy);
            let decided = moving.and_then(|moving| moving.decided_by);
            let decider = match decided.unwrap_or_else(|| decider_by_names(&whence, class, valid)) {
                Decider::Person if one_proxy => Decider::ProofOfLife,
                decider => decider,
            };
            let asks = is_home && moves && decider != Decider::ProofOfLife;
            let when_said = asks.then(|| underway::when_said(class, decider));
            // Of one proxy with two addresses nothing is removed.
            let proxy = old.proxy.as_ref().filter(|_| !one_proxy);
            let left = |made: &&MadeResource| {
                let of_old = old.dns.iter().chain(proxy).any(|shared| shared.worker.instance() == made.system);
                of_old && !used.contains(&made.system.as_str())
            };
            let waits = match is_left {
                Some(leaving) if leaving.serves => "when the record has settled elsewhere, ".to_owned(),
                Some(_) => String::new(),
                None => when_said.unwrap_or_else(|| after_proof.clone()),
            };
            // Whoever takes over a record that was made for a portal keeps it.
            let given_up = |made: &MadeResource| {
                let of_dns = old.dns.as_ref().is_some_and(|shared| shared.worker.instance() == made.system);
                of_dns && class.dns.is_none() && made.name == valid.host.as_str()
            };
            let verb = |made: &MadeResource| if given_up(made) { "release" } else { "delete" };
            going.extend(made.iter().filter(left).map(|made| (waits.clone(), verb(made), made)));
            if is_home && moves && flips(&old, class, &from, valid) {
                ahead.flip = Some(Flip { waits: before_the_flip(&old, class, &from, valid), from });
            }
        }
        for (waits, verb, made) in going {
            let line = format!("{waits}{}: {verb} {}", made.system, made.name);
            if !ahead.removals.contains(&line) {
                ahead.removals.push(line);
            }
        }
        Ok(ahead)
    }

    /// What a portal whose things are being written still waits for.
    pub(super) async fn still_ahead(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        stand: Stand<'_>,
    ) -> Result<Vec<String>, ControllerError> {
        let ahead = self.ahead(class, valid, stand).await?;
        let waits = stand.standing.moving.as_ref().is_some_and(|moving| moving.stage != MoveStage::Flipped);
        let record = match (&ahead.flip, &class.dns) {
            (Some(flip), Some(dns)) if waits => {
                let words = record_to_come(&valid.host, flip.from.as_ref(), valid.cname_target.as_ref());
                words.map(|words| format!("{}{}: {words}", flip.waits, dns.worker.instance()))
            }
            _ => None,
        };
        Ok(record.into_iter().chain(ahead.removals).collect())
    }
}
