//! Whence a portal moves: its former class as it was there, or what is known of it where that cannot be had any more.
use std::net::SocketAddr;
use std::sync::Arc;

use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::alike::{mixed, same};
use super::classes::AMBIGUOUS_DEFAULT;
use super::context::Context;
use super::error::{ControllerError, is_code};
use super::outside::program;
use super::places::{CLASS_GONE, SETTINGS_GONE};
use super::runtime::{ClassRuntime, Shared};
use super::status::Found;
use super::validate::{Mode, ValidPortal, validate};
use crate::api::condition::Finding;
use crate::api::portal::{MadeResource, Move, Place};
use crate::api::{ANNOTATION_MOVED_BY_HAND, FIELD_MANAGER, HostName, ResetPortal};
use crate::backends::cloudflare;
use crate::config::networks;

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
    /// The move was begun in this look, so that nothing was made in the new place yet.
    pub(super) begins: bool,
}

/// Why only a person can say when the new place has the visitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByHand {
    /// The new class makes no record, and is to have one that leads elsewhere.
    NoAccount,
    /// Both routes are reached by one public address: a proof of life may come through either of them.
    OneAddress,
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

    /// Whether the new route has the public name of the former one, or may have it.
    fn is_alike(&self, class: &ClassRuntime, valid: &ValidPortal) -> bool {
        let unknown = self.lost && self.target.is_none();
        match class.proxy {
            Some(_) => !self.gone && !unknown && valid.cname_target == self.target,
            None => unknown || valid.cname_target == self.target,
        }
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
                Ok(Old { class: former, target, lost: false, gone: false, begins: false })
            }
            Err(finding) => {
                let mut rest = mixed(class, &None, &None);
                rest.class.name.clone_from(&home.class_name);
                rest.class.spec.probe.address = None;
                let target = known.and_then(|name| HostName::parse(name).ok());
                let gone = [CLASS_GONE, SETTINGS_GONE].contains(&finding.reason.as_str());
                Ok(Old { class: Arc::new(rest), target, lost: true, gone, begins: false })
            }
        }
    }

    /// Whether only a person can say when the new place has the visitors, and why.
    pub(super) async fn is_by_hand(&self, old: &Old, class: &ClassRuntime, valid: &ValidPortal) -> Option<ByHand> {
        let has_route = old.lost || old.class.proxy.is_some();
        if !has_route || same(&old.class.proxy, &class.proxy) {
            return None;
        }
        let named = || HostName::parse(class.class.spec.cname_target.as_deref()?).ok();
        let target = valid.cname_target.clone().or_else(named);
        let one_name = class.dns.is_none() && target.is_some() && target == old.address();
        if old.is_alike(class, valid) || one_name || self.is_one_machine(old, target.as_ref(), valid).await {
            return Some(ByHand::OneAddress);
        }
        class.dns.is_none().then_some(ByHand::NoAccount)
    }

    /// Whether the public names of both proxies lead to one address, at which only one of them can listen.
    async fn is_one_machine(&self, old: &Old, target: Option<&HostName>, valid: &ValidPortal) -> bool {
        let (Some(target), Some(before)) = (target, old.address().filter(|_| !old.gone)) else { return false };
        if *target == before || self.is_at_the_edge(target, valid).await {
            return false;
        }
        let addresses = async |name: &HostName| self.names.addresses(name.as_str(), 443).await.unwrap_or_default();
        let (of_new, of_old) = (addresses(target).await, addresses(&before).await);
        of_new.iter().any(|address| of_old.contains(address))
    }

    /// Whether the record is seen to lead to the new place of a move by hand, or a person says so.
    pub(super) async fn is_led_by_hand(
        &self,
        portal: &ResetPortal,
        old: &Old,
        class: &ClassRuntime,
        held: &ValidPortal,
        why: ByHand,
    ) -> bool {
        let said = portal.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_MOVED_BY_HAND));
        if said.is_some_and(|said| said.trim() == class.class.name) {
            return true;
        }
        let target = class.class.spec.cname_target.as_deref().and_then(|name| HostName::parse(name).ok());
        let (Some(target), Some(before)) = (target, old.address().filter(|_| why == ByHand::NoAccount)) else {
            return false;
        };
        if let Some(content) = self.record_content(old, held).await {
            return content == target;
        }
        let addresses = async |name: &HostName| self.names.addresses(name.as_str(), 443).await.unwrap_or_default();
        let (of_host, of_new, of_old) =
            (addresses(&held.host).await, addresses(&target).await, addresses(&before).await);
        let tells = |address: &SocketAddr| !networks::is_cloudflare(address.ip()) && !of_old.contains(address);
        let known = !of_host.is_empty() && !of_old.is_empty();
        known && of_host.iter().all(|address| of_new.contains(address) && tells(address))
    }

    /// A person's word is for one move: it would be taken for the next one to the same class, too.
    pub(super) async fn spend_word(&self, portal: &ResetPortal) -> Result<(), ControllerError> {
        if !portal.metadata.annotations.iter().flatten().any(|(name, _)| name == ANNOTATION_MOVED_BY_HAND) {
            return Ok(());
        }
        let key = portal.key();
        let api: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"annotations": {ANNOTATION_MOVED_BY_HAND: null}}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&key.name, &params, &Patch::Merge(&patch)).await {
            Err(error) if !is_code(&error, 404) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Where the record leads, as the account shows it through which it was made.
    async fn record_content(&self, old: &Old, held: &ValidPortal) -> Option<HostName> {
        let class = mixed(&old.class, &Some(old.class.dns.clone()?), &None);
        // What was verified says nothing about what a person changes now.
        class.dns.iter().for_each(|shared| shared.worker.forget(&held.key));
        let look = ValidPortal { mode: Mode::ObserveOnly, ..held.clone() };
        let seen = program(&class, &look, self.store.installation(), &[], &[]).await;
        let conflict = seen.findings.iter().find(|finding| finding.reason == cloudflare::CONFLICT);
        if seen.pending.is_empty() && conflict.is_none() {
            return old.target.clone().filter(|_| seen.recorded());
        }
        let words = seen.pending.iter().chain(conflict.map(|finding| &finding.message));
        words.into_iter().find_map(|words| cloudflare::content_in(words, &held.host))
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
        let concerned = valid.enabled && valid.mode == Mode::Full && !made(&valid.host);
        if !concerned || !found.standing.moving.as_ref().is_some_and(Move::is_under_way) {
            return Ok(None);
        }
        let begun: Vec<HostName> = former.iter().filter(|host| made(host)).cloned().collect();
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
