//! What tells that visitors come to the new place of a move: a proof of life, the record, or a person.
use std::net::SocketAddr;

use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::alike::{is_there_already, mixed, same};
use super::context::Context;
use super::error::{ControllerError, is_code};
use super::former::Old;
use super::outside::{Outside, program};
use super::places::Standing;
use super::proving::TUNNELS;
use super::recorded::AWAITING_OPERATOR;
use super::runtime::ClassRuntime;
use super::status::Found;
use super::underway;
use super::validate::{Mode, ValidPortal};
use crate::api::portal::{Decider, Place};
use crate::api::{ANNOTATION_MOVED_BY_HAND, FIELD_MANAGER, HostName, ResetPortal};
use crate::backends::cloudflare;
use crate::config::{networks, shortened};
use crate::http::LookupError;

/// Of a word that is for nothing, so much is told, in characters.
const LONGEST_WORD: usize = 80;
/// Characters of a place's digest in a person's word.
const DIGEST: usize = 8;

/// Why it is not known what decides: whether both names are of one machine, where a proof of life may come through the
/// former route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undecided {
    /// The resolver gives no answer.
    NoAnswer,
    /// This name leads to Cloudflare's edge, which tells nobody what machine is behind it.
    AtTheEdge(HostName),
}

/// What a person says when visitors come to a place. It holds for that proxy and no other: a word that is left over would
/// be taken for the next move otherwise.
pub(super) fn word(place: &Place) -> String {
    let digest: String = place.settings.chars().take(DIGEST).collect();
    format!("{}-{digest}", place.class_name)
}

/// Whether a person says that visitors come there.
pub(super) fn is_said(portal: &ResetPortal, place: &Place) -> bool {
    let said = portal.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_MOVED_BY_HAND));
    said.is_some_and(|said| said.trim() == word(place))
}

/// What is told to a person whose word is for nothing that is asked.
pub(super) fn said_otherwise(portal: &ResetPortal) -> String {
    let said = portal.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_MOVED_BY_HAND));
    said.map(|said| format!("; the annotation says {:?}, which is for nothing", shortened(said, LONGEST_WORD)))
        .unwrap_or_default()
}

/// What is told while something is waited for in other places: a person may be asked about one of them.
pub(super) fn asking(portal: &ResetPortal, words: String, standing: &Standing) -> (&'static str, String) {
    match &standing.home {
        Some(home) if standing.leaving.iter().any(|leaving| leaving.asks) => {
            let asked = underway::called_off(home) + &said_otherwise(portal);
            (AWAITING_OPERATOR, format!("{words}; {asked}"))
        }
        _ => ("Moving", words),
    }
}

/// The public name of a class's proxy, also where no record is made that leads there.
fn public_name(class: &ClassRuntime, valid: &ValidPortal) -> Option<HostName> {
    valid.cname_target.clone().or_else(|| class.class.spec.proxy_name())
}

/// What decides, as far as names tell.
pub(super) fn decider_by_names(old: &Old, class: &ClassRuntime, valid: &ValidPortal) -> Decider {
    let has_route = old.lost || old.class.proxy.is_some();
    if !has_route || same(&old.class.proxy, &class.proxy) {
        return Decider::ProofOfLife;
    }
    let target = public_name(class, valid);
    let one_name = target.is_some() && target == old.address() && !is_told_apart(old, class, valid);
    let unknown = old.lost && old.target.is_none();
    let alike = match class.proxy {
        // Of a class that is gone for good nothing will ever be removed.
        Some(_) => one_name && !old.gone,
        None => one_name || unknown,
    };
    match class.dns {
        _ if alike => Decider::Person,
        Some(_) => Decider::ProofOfLife,
        None => Decider::Record,
    }
}

/// Whether visitors ask for another scheme or port there, so that two programs of one machine are told apart.
fn is_told_apart(old: &Old, class: &ClassRuntime, valid: &ValidPortal) -> bool {
    let url = |class: &ClassRuntime| class.class.spec.public_url(&valid.host);
    !old.lost && url(&old.class) != url(class)
}

impl Context {
    /// What decides, or why that is not known. A name that leads nowhere says that there are two machines.
    pub(super) async fn decider(
        &self,
        old: &Old,
        class: &ClassRuntime,
        valid: &ValidPortal,
    ) -> Result<Decider, Undecided> {
        let by_names = decider_by_names(old, class, valid);
        let has_route = old.lost || old.class.proxy.is_some();
        let (Some(target), Some(before)) = (public_name(class, valid), old.address()) else { return Ok(by_names) };
        let tunnel = |name: &HostName| name.as_str().ends_with(TUNNELS);
        let settled = by_names == Decider::Person
            || !has_route
            || old.gone
            || target == before
            || tunnel(&target)
            || tunnel(&before)
            || same(&old.class.proxy, &class.proxy)
            || is_told_apart(old, class, valid);
        if settled {
            return Ok(by_names);
        }
        let answers =
            futures_util::join!(self.names.everywhere(target.as_str()), self.names.everywhere(before.as_str()));
        let undecided = match answers {
            (Ok(of_new), Ok(of_old)) => {
                // Cloudflare's edge has the same addresses for all.
                let machine = |address: &SocketAddr| !networks::is_cloudflare(address.ip());
                if of_new.iter().any(|address| machine(address) && of_old.contains(address)) {
                    return Ok(Decider::Person);
                }
                if !of_new.iter().all(machine) {
                    Undecided::AtTheEdge(target)
                } else if !of_old.iter().all(machine) {
                    Undecided::AtTheEdge(before)
                } else {
                    return Ok(by_names);
                }
            }
            (Err(LookupError::NotFound(_)), _) | (_, Err(LookupError::NotFound(_))) => return Ok(by_names),
            _ => Undecided::NoAnswer,
        };
        // A record that a person leads is looked up anew.
        if by_names == Decider::Record { Ok(by_names) } else { Err(undecided) }
    }

    /// Whether the route is in the new place before anything is made there. `Err` with what was seen where it cannot be
    /// looked at.
    pub(super) async fn look_before(
        &self,
        class: &ClassRuntime,
        held: &ValidPortal,
        former: &[HostName],
        found: &Found,
    ) -> Result<bool, Outside> {
        let Some(shared) = &class.proxy else { return Ok(false) };
        shared.worker.forget(&held.key);
        let look = ValidPortal { mode: Mode::ObserveOnly, ..held.clone() };
        let seen = program(&mixed(class, &None, &class.proxy), &look, self.store.installation(), former, &[]).await;
        if seen.resources.is_empty() && seen.pending.is_empty() {
            return Err(seen);
        }
        Ok(is_there_already(class, &held.host, &seen, &found.resources, &found.standing.left_behind))
    }

    /// Whether visitors are seen to be led to the new place of a move by hand, or a person says so.
    pub(super) async fn is_led_by_hand(
        &self,
        portal: &ResetPortal,
        old: &Old,
        class: &ClassRuntime,
        held: &ValidPortal,
        (to, decider): (&Place, Decider),
    ) -> bool {
        if is_said(portal, to) {
            return true;
        }
        let (Some(target), Some(before)) =
            (class.class.spec.proxy_name(), old.address().filter(|_| decider == Decider::Record))
        else {
            return false;
        };
        if target == before {
            return false;
        }
        if let Some(content) = self.record_content(old, held).await {
            return content == target;
        }
        let addresses = async |name: &HostName| self.names.addresses(name.as_str(), 443).await.unwrap_or_default();
        let (of_host, of_new, of_old) =
            futures_util::join!(addresses(&held.host), addresses(&target), addresses(&before));
        let tells = |address: &SocketAddr| !networks::is_cloudflare(address.ip()) && !of_old.contains(address);
        let known = !of_host.is_empty() && !of_old.is_empty();
        known && of_host.iter().all(|address| of_new.contains(address) && tells(address))
    }

    /// A person's word is for one move: it would be taken for the next one to the same place, too.
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
}
