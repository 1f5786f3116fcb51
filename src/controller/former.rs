//! Whence a portal moves: its former class as it was there, or what is known of it where that cannot be had any more.
use std::sync::Arc;

use super::classes::AMBIGUOUS_DEFAULT;
use super::context::Context;
use super::error::ControllerError;
use super::moving::{mixed, same};
use super::outside::program;
use super::places::CLASS_GONE;
use super::runtime::{ClassRuntime, Shared};
use super::status::Found;
use super::validate::{Mode, ValidPortal, validate};
use crate::api::condition::{DNS_PROGRAMMED, Finding, Truth};
use crate::api::portal::{MadeResource, Move, Place};
use crate::api::{HostName, ResetPortal};
use crate::backends::cloudflare;

/// Whence a portal moves.
pub struct Old {
    pub(super) class: Arc<ClassRuntime>,
    /// Where the record leads there.
    pub(super) target: Option<HostName>,
    /// The class, its settings or its Secrets cannot be had, so that nothing can be done there; what is there may still
    /// serve visitors.
    pub(super) lost: bool,
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

    /// Through which account the record is held while it leads to the former place. Where it led is not known of every
    /// class that cannot be had: then it is not touched.
    pub(super) fn account(&self, class: &ClassRuntime) -> Option<Shared> {
        let known = !self.lost || self.target.is_some();
        let former = || self.class.dns.clone().filter(|_| !self.gives_record_up(class));
        class.dns.clone().or_else(former).filter(|_| known)
    }

    /// Whether the portal has something there.
    pub(super) fn has(&self, valid: &ValidPortal, made: &[MadeResource]) -> bool {
        let system = self.class.proxy.as_ref().map(|shared| shared.worker.instance());
        let of_host = |made: &&MadeResource| made.name == valid.host.as_str();
        made.iter().filter(of_host).any(|made| self.lost || Some(made.system.as_str()) == system)
    }

    /// The record was made there, and is nobody's business in the new class: only a person can lead it to the other proxy.
    pub(super) fn gives_record_up(&self, class: &ClassRuntime) -> bool {
        class.dns.is_none() && self.class.dns.is_some() && !same(&self.class.proxy, &class.proxy)
    }

    /// Whether the record can be changed back.
    pub(super) fn is_way_back(&self, class: &ClassRuntime) -> bool {
        match self.lost {
            true => self.target.is_some() && class.dns.is_some(),
            false => !self.gives_record_up(class),
        }
    }
}

impl Context {
    /// Whence the portal moves that stands in `home`.
    pub(super) async fn former(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        home: &Place,
        moving: Option<&Move>,
    ) -> Result<Old, ControllerError> {
        match self.at_place(home).await? {
            Ok(former) => {
                let target = self.target_at(portal, &former);
                Ok(Old { class: former, target, lost: false })
            }
            Err(_) => {
                let mut rest = mixed(class, &None, &None);
                rest.class.name.clone_from(&home.class_name);
                rest.class.spec.probe.address = None;
                let target = moving.and_then(|moving| HostName::parse(moving.from.as_deref()?).ok());
                Ok(Old { class: Arc::new(rest), target, lost: true })
            }
        }
    }

    /// Whether the record is still as it was made in the former place. Where that cannot be seen, it is taken to be.
    pub(super) async fn record_stands(&self, old: &Old, held: &ValidPortal) -> bool {
        let look = ValidPortal { mode: Mode::ObserveOnly, ..held.clone() };
        let class = mixed(&old.class, &old.class.dns, &None);
        // What was verified says nothing about what a person changes now.
        class.dns.iter().for_each(|shared| shared.worker.forget(&held.key));
        let seen = program(&class, &look, self.store.installation(), &[], &[]).await;
        let taken = seen.findings.iter().any(|finding| {
            finding.type_ == DNS_PROGRAMMED && finding.truth == Truth::False && finding.reason == cloudflare::CONFLICT
        });
        seen.pending.is_empty() && !taken
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
