//! Whence a portal moves: its former class as it was there, or what is known of it where that cannot be had any more.
use std::sync::Arc;

use kube::ResourceExt;

use super::alike::{has_record, mixed, same};
use super::classes::AMBIGUOUS_DEFAULT;
use super::context::Context;
use super::error::ControllerError;
use super::places::{CLASS_GONE, SETTINGS_GONE};
use super::runtime::{ClassRuntime, Shared};
use super::settling::form;
use super::status::Found;
use super::times::stamp;
use super::validate::{Mode, ValidPortal, validate, validate_at};
use crate::api::condition::Finding;
use crate::api::portal::{Decider, Leaving, MadeResource, Move, MoveStage, Place};
use crate::api::{HostName, PortalClassSpec, ResetPortal};

/// Whence a portal moves.
pub struct Old {
    pub(super) class: Arc<ClassRuntime>,
    /// Where the record leads there.
    pub(super) target: Option<HostName>,
    /// The class, its settings or its Secrets cannot be had, so that nothing can be done there; what is there may still
    /// serve visitors.
    pub(super) lost: bool,
    /// It is lost for good, so that nothing will ever be removed there.
    pub(super) gone: bool,
}

impl Old {
    /// The proxy, in words.
    pub(super) fn instance(&self) -> String {
        match (self.lost, &self.class.proxy) {
            (true, _) => format!("what PortalClass {:?} made", self.class.class.name),
            (false, Some(shared)) => shared.worker.instance().to_owned(),
            (false, None) => "the proxy made by hand".to_owned(),
        }
    }

    /// The public name of the proxy, also where no record is made that leads there.
    pub(super) fn address(&self) -> Option<HostName> {
        self.target.clone().or_else(|| self.class.class.spec.proxy_name())
    }

    /// Through which account the record is held while it leads to the former place. Where it led is not known of every
    /// class that cannot be had: then it is not touched.
    pub(super) fn account(&self, class: &ClassRuntime) -> Option<Shared> {
        let former = || self.class.dns.clone().filter(|_| same(&self.class.proxy, &class.proxy));
        // Without a target it would be taken away, whoever made it.
        class.dns.clone().or_else(former).filter(|_| self.target.is_some())
    }

    /// Whether the portal has something there.
    pub(super) fn has(&self, valid: &ValidPortal, made: &[MadeResource]) -> bool {
        let system = self.class.proxy.as_ref().map(|shared| shared.worker.instance());
        let of_host = |made: &&MadeResource| made.name == valid.host.as_str();
        made.iter().filter(of_host).any(|made| self.lost || Some(made.system.as_str()) == system)
    }

    /// Whether the record can be changed back, and the route, where one takes the place of the other.
    pub(super) fn is_way_back(&self, class: &ClassRuntime, moving: &Move) -> bool {
        let to_somewhere = class.dns.is_none() || self.address().is_some();
        let by_somebody = !self.lost || (class.dns.is_some() && moving.one_proxy != Some(true));
        to_somewhere && by_somebody
    }
}

impl Context {
    /// Whence the portal moves that stands in `home`. `known` is where the record led there, as an earlier look knew it.
    pub(super) async fn former(
        &self,
        class: &ClassRuntime,
        home: &Place,
        known: Option<&str>,
    ) -> Result<Old, ControllerError> {
        match self.at_place(home).await? {
            Ok(former) => {
                let target = former.class.spec.record_target();
                Ok(Old { class: former, target, lost: false, gone: false })
            }
            Err(finding) => {
                let mut rest = mixed(class, &None, &None);
                rest.class.name.clone_from(&home.class_name);
                // Its settings may be known all the same, as where only a Secret is missing.
                let kept = self.class_at(home).await?.ok().map(|(kept, _)| kept.spec);
                let of_kept = kept.as_ref().and_then(PortalClassSpec::record_target);
                match kept {
                    Some(kept) => rest.class.spec = kept,
                    None => (rest.class.spec.probe.address, rest.class.spec.cname_target) = (None, None),
                }
                let target = known.and_then(|name| HostName::parse(name).ok()).or(of_kept);
                let gone = [CLASS_GONE, SETTINGS_GONE].contains(&finding.reason.as_str());
                Ok(Old { class: Arc::new(rest), target, lost: true, gone })
            }
        }
    }

    /// The name at which a move was begun, where another one is wanted since: the move comes to its end there first, or
    /// nobody would lead the record back if its proof does not come.
    pub(super) async fn finishes_first(
        &self,
        found: &Found,
        valid: &ValidPortal,
        former: &[HostName],
    ) -> Result<Option<HostName>, ControllerError> {
        let made = |host: &HostName| found.resources.iter().any(|made| made.name == host.as_str());
        let moving = found.standing.moving.as_ref().filter(|moving| moving.is_at_risk());
        let Some(moving) = moving.filter(|_| valid.enabled && valid.mode == Mode::Full) else { return Ok(None) };
        let of_move = |host: &HostName| match &moving.host {
            Some(name) => host.as_str() == name,
            // Earlier versions did not note it.
            None => !made(&valid.host),
        };
        let begun: Vec<HostName> = former.iter().filter(|host| made(host) && of_move(host)).cloned().collect();
        Ok(self.claims.holds(&valid.key, &valid.uid, &begun).await?.into_iter().next())
    }

    /// The class of a move that is called off, where nothing else would lead the record back: the look is one of that class,
    /// and the move is rolled back before anything else is done.
    pub(super) async fn rolls_back_first(
        &self,
        portal: &ResetPortal,
        valid: &ValidPortal,
        here: &Place,
        found: &mut Found,
    ) -> Result<Option<(ClassRuntime, ValidPortal)>, ControllerError> {
        let called_off = |moving: &Move| {
            let by_a_person = moving.decided_by == Some(Decider::Record);
            moving.is_at_risk() && moving.to != *here && !by_a_person && valid.mode == Mode::Full
        };
        let Some(mut moving) = found.standing.moving.clone().filter(called_off) else { return Ok(None) };
        let Ok(there) = self.at_place(&moving.to).await? else { return Ok(None) };
        let Ok(checked) = validate_at(portal, &valid.host, &there.class, &self.policy) else { return Ok(None) };
        let mut class = mixed(&there, &there.dns, &there.proxy);
        class.class.name.clone_from(&moving.to.class_name);
        if moving.stage != MoveStage::RolledBack {
            let (note, since) = (Some("it is called off".to_owned()), stamp(self.clock.now()));
            // Until it is seen to lead back: an answer may have been lost.
            moving.flipped.get_or_insert_with(|| since.clone());
            (moving.stage, moving.since, moving.note) = (MoveStage::RolledBack, since, note);
            found.standing.moving = Some(moving);
            self.forget_probe(&valid.key);
            self.reports.note(portal, found).await?;
        }
        Ok(Some((class, ValidPortal { recorded: valid.recorded.clone(), ..checked })))
    }

    /// The class in which the portal is looked at and what it wants there; or why it is not accepted.
    pub(super) async fn accepted(
        &self,
        portal: &ResetPortal,
        found: &mut Found,
    ) -> Result<Result<(Arc<ClassRuntime>, ValidPortal), Finding>, ControllerError> {
        let accepted = match self.class(portal.spec.class_name.as_deref()).await? {
            Ok(class) => validate(portal, &class.class, &self.policy)
                .map(|valid| (class.clone(), valid))
                .map_err(|finding| (finding, Some(class.class.name.clone()))),
            Err(finding) => Err((finding, None)),
        };
        match accepted {
            Ok(accepted) => Ok(Ok(accepted)),
            Err((finding, refuses)) => match self.stand_in(portal, found, &finding, refuses.as_deref()).await? {
                Some(stand_in) => {
                    let words = format!(
                        "{}; meanwhile the portal stays in PortalClass {:?}",
                        finding.message, stand_in.0.class.name
                    );
                    found.findings.push(Finding { message: words, ..finding });
                    Ok(Ok(stand_in))
                }
                None if refuses.is_some() => {
                    self.directory.withdraw(&portal.key());
                    Ok(Err(finding))
                }
                None => Ok(Err(self.serve_as_before(portal, found, finding).await?)),
            },
        }
    }

    /// The class in which the portal stands, while the one that it asks for does not exist or is not the only default; or
    /// refuses it, or cannot lead a record on that may lead to nowhere there. `why` is what is said of it.
    async fn stand_in(
        &self,
        portal: &ResetPortal,
        found: &Found,
        why: &Finding,
        refuses: Option<&str>,
    ) -> Result<Option<(Arc<ClassRuntime>, ValidPortal)>, ControllerError> {
        let unknown = [CLASS_GONE, AMBIGUOUS_DEFAULT].contains(&why.reason.as_str());
        let led_there = |leaving: &Leaving| leaving.serves && leaving.unserved.is_none();
        let at_risk = found.standing.moving.as_ref().is_some_and(Move::is_at_risk)
            || found.standing.leaving.iter().any(led_there);
        let stays = |home: &&Place| unknown || at_risk || refuses.is_some_and(|name| name != home.class_name);
        let Some(home) = found.standing.home.as_ref().filter(stays) else { return Ok(None) };
        let Ok(class) = self.class(Some(&home.class_name)).await? else { return Ok(None) };
        if refuses.is_none() {
            let valid = validate(portal, &class.class, &self.policy);
            return Ok(valid.ok().map(|valid| (class, valid)));
        }
        // What is refused is not carried out elsewhere: host and record stay as they are.
        let host = portal.status.as_ref().and_then(|status| HostName::parse(status.host.as_deref()?).ok());
        let held = self.claims.holds(&portal.key(), &portal.uid().unwrap_or_default(), host.as_slice()).await?;
        let Some(host) = held.first() else { return Ok(None) };
        let made = has_record(&class, host, &found.resources);
        let seconds = made.then(|| found.standing.record_seconds.unwrap_or(0));
        let mut asked = portal.clone();
        asked.spec.dns.proxied = seconds.map_or(asked.spec.dns.proxied, |seconds| seconds == 0);
        let Ok(valid) = validate_at(&asked, host, &class.class, &self.policy) else { return Ok(None) };
        let (proxied, ttl) = seconds.map_or((valid.proxied, valid.ttl), |seconds| form(seconds, &valid));
        Ok(Some((class, ValidPortal { proxied, ttl, ..valid })))
    }
}
