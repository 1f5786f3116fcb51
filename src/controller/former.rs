//! Whence a portal moves: its former class as it was there, or what is known of it where that cannot be had any more.
use std::sync::Arc;

use super::alike::{mixed, same};
use super::classes::AMBIGUOUS_DEFAULT;
use super::context::Context;
use super::error::ControllerError;
use super::places::{CLASS_GONE, SETTINGS_GONE};
use super::runtime::{ClassRuntime, Shared};
use super::status::Found;
use super::validate::{Mode, ValidPortal, validate};
use crate::api::condition::Finding;
use crate::api::portal::{MadeResource, Place};
use crate::api::{HostName, ResetPortal};

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
        let named = || HostName::parse(self.class.class.spec.cname_target.as_deref()?).ok();
        self.target.clone().or_else(|| named().filter(|_| !self.lost))
    }

    /// Through which account the record is held while it leads to the former place. Where it led is not known of every
    /// class that cannot be had: then it is not touched.
    pub(super) fn account(&self, class: &ClassRuntime) -> Option<Shared> {
        let known = !self.lost || self.target.is_some();
        let former = || self.class.dns.clone().filter(|_| same(&self.class.proxy, &class.proxy));
        class.dns.clone().or_else(former).filter(|_| known)
    }

    /// Whether the portal has something there.
    pub(super) fn has(&self, valid: &ValidPortal, made: &[MadeResource]) -> bool {
        let system = self.class.proxy.as_ref().map(|shared| shared.worker.instance());
        let of_host = |made: &&MadeResource| made.name == valid.host.as_str();
        made.iter().filter(of_host).any(|made| self.lost || Some(made.system.as_str()) == system)
    }

    /// Whether the record can be changed back.
    pub(super) fn is_way_back(&self, class: &ClassRuntime) -> bool {
        !self.lost || (self.target.is_some() && class.dns.is_some())
    }
}

impl Context {
    /// Whence the portal moves that stands in `home`. `known` is where the record led there, as an earlier look knew it.
    pub(super) async fn former(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        home: &Place,
        known: Option<&str>,
    ) -> Result<Old, ControllerError> {
        match self.at_place(home).await? {
            Ok(former) => {
                let target = self.target_at(portal, &former);
                Ok(Old { class: former, target, lost: false, gone: false })
            }
            Err(finding) => {
                let mut rest = mixed(class, &None, &None);
                rest.class.name.clone_from(&home.class_name);
                rest.class.spec.probe.address = None;
                let target = known.and_then(|name| HostName::parse(name).ok());
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
        here: &Place,
    ) -> Result<Option<HostName>, ControllerError> {
        let made = |host: &HostName| found.resources.iter().any(|made| made.name == host.as_str());
        let moving = found.standing.moving.as_ref().filter(|moving| moving.is_at_risk() && moving.to == *here);
        let Some(moving) = moving.filter(|_| valid.enabled && valid.mode == Mode::Full) else { return Ok(None) };
        let of_move = |host: &HostName| match &moving.host {
            Some(name) => host.as_str() == name,
            // Earlier versions did not note it.
            None => !made(&valid.host),
        };
        let begun: Vec<HostName> = former.iter().filter(|host| made(host) && of_move(host)).cloned().collect();
        Ok(self.claims.holds(&valid.key, &valid.uid, &begun).await?.into_iter().next())
    }

    /// The class in which the portal stands, while the one that it asks for does not exist or is not the only default.
    pub(super) async fn stand_in(
        &self,
        portal: &ResetPortal,
        found: &Found,
        why: &Finding,
    ) -> Result<Option<(Arc<ClassRuntime>, ValidPortal)>, ControllerError> {
        let unknown = [CLASS_GONE, AMBIGUOUS_DEFAULT].contains(&why.reason.as_str());
        let Some(home) = found.standing.home.as_ref().filter(|_| unknown) else { return Ok(None) };
        let Ok(class) = self.class(Some(&home.class_name)).await? else { return Ok(None) };
        let valid = validate(portal, &class.class, &self.policy);
        Ok(valid.ok().map(|valid| (class, valid)))
    }
}
