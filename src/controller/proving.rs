//! Whether a new route is right before the record leads to it: asked where it can be reached by itself.
use super::alike::{look_anew, mixed, replaces};
use super::context::Context;
use super::former::Old;
use super::moving::LONGEST_NOTE;
use super::outside::{Outside, program};
use super::probe;
use super::runtime::ClassRuntime;
use super::times::{after, passed, stamp};
use super::validate::{Mode, ValidPortal};
use crate::api::HostName;
use crate::api::portal::Move;
use crate::config::networks;
use crate::http::LookupError;

/// Names of tunnels: they lead nowhere but within Cloudflare.
pub(super) const TUNNELS: &str = ".cfargotunnel.com";

/// What a new route may be seen to show that the record must not lead to. All else that is no proof, such as a private
/// address or a certificate that only Cloudflare's edge trusts, says nothing about the way that visitors take.
const SEEN_WRONG: [&str; 13] = [
    "HttpsNotSeen",
    "ConnectionRefused",
    "ForeignServer",
    "NotRouted",
    "NotServed",
    "OtherInstallation",
    "FormerPortal",
    "CachedAnswer",
    "HostChanged",
    "UnknownProof",
    "Redirected",
    "BadGateway",
    "UnexpectedAnswer",
];

/// Errors of Cloudflare's edge that say that the record leads nowhere.
const LEADS_NOWHERE: [&str; 3] = ["OriginNameNotFound", "OriginRefused", "OriginUnreachable"];

/// Whether what visitors are shown is no matter of time, as a certificate that is being ordered is.
pub(super) fn is_wrong(reason: &str) -> bool {
    SEEN_WRONG.contains(&reason) || LEADS_NOWHERE.contains(&reason)
}

/// How a new route is proved before the record leads to it.
enum Way<'a> {
    /// At an address that the class names.
    Pinned(&'a str),
    /// At the address of its own target.
    Through(HostName),
    /// Not at all, for this reason.
    Not(&'static str),
}

fn way<'a>(old: &ClassRuntime, class: &'a ClassRuntime, from: &Option<HostName>, valid: &ValidPortal) -> Way<'a> {
    let spec = &class.class.spec;
    let pinned = spec.probe.address.as_deref().filter(|_| spec.probe.address != old.class.spec.probe.address);
    // A class without a Cloudflare account may still say where its proxy is.
    let target =
        valid.cname_target.clone().or_else(|| spec.proxy_name()).filter(|target| Some(target) != from.as_ref());
    match (pinned, target) {
        _ if replaces(old, class) => Way::Not("the proxy has one route for the host"),
        _ if !spec.probe.enabled => Way::Not("probing is switched off in the class"),
        (Some(address), _) => Way::Pinned(address),
        (None, Some(tunnel)) if tunnel.as_str().ends_with(TUNNELS) => {
            Way::Not("a tunnel can be reached through its record only")
        }
        (None, Some(target)) => Way::Through(target),
        (None, None) => Way::Not("both routes have the same address"),
    }
}

/// What the record waits for in a move, as the beginning of a line.
pub(super) fn before_the_flip(
    old: &ClassRuntime,
    class: &ClassRuntime,
    from: &Option<HostName>,
    valid: &ValidPortal,
) -> String {
    match way(old, class, from, valid) {
        Way::Pinned(address) => format!("when the new route answers at {address}, "),
        Way::Through(target) => format!("when the new route answers at {target}, "),
        Way::Not(why) => format!("when the new route is made ({why}), "),
    }
}

impl Context {
    /// Whether a proxy's name leads to where the portal's host leads, or to Cloudflare: there a request is led by its host,
    /// which is the former way still, and proves nothing.
    pub(super) async fn is_at_the_edge(&self, proxy: &HostName, valid: &ValidPortal) -> bool {
        let (names, port) = (self.names.as_ref(), 443);
        let Ok(of_proxy) = names.addresses(proxy.as_str(), port).await else { return false };
        if of_proxy.iter().any(|address| networks::is_cloudflare(address.ip())) {
            return true;
        }
        let of_host = match valid.proxied {
            true => names.addresses(valid.host.as_str(), port).await.unwrap_or_default(),
            false => Vec::new(),
        };
        of_proxy.iter().any(|address| of_host.contains(address))
    }

    /// Whether the record is to lead to a name that does not exist. A class without probing is one whose names are perhaps not
    /// to be seen from here.
    pub(super) async fn leads_nowhere(&self, old: &Old, class: &ClassRuntime, valid: &ValidPortal) -> bool {
        if !class.class.spec.probe.enabled {
            return false;
        }
        let Some(target) = valid.cname_target.as_ref().filter(|target| Some(*target) != old.target.as_ref()) else {
            return false;
        };
        let leads = self.names.addresses(target.as_str(), 443).await;
        !target.as_str().ends_with(TUNNELS) && matches!(leads, Err(LookupError::NotFound(_)))
    }

    /// Whether the record may be changed now, with what there is to say about that; or what is waited for.
    pub(super) async fn prove_before(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        old: &Old,
        outside: &Outside,
        moving: &Move,
    ) -> Result<Option<String>, String> {
        if !outside.programmed() {
            return Err("the new route is made".to_owned());
        }
        let target;
        let way = match way(&old.class, class, &old.address(), valid) {
            Way::Pinned(address) => probe::Way::Pinned(address),
            Way::Through(name) if self.is_at_the_edge(&name, valid).await => {
                return Ok(Some(format!(
                    "{name} leads to Cloudflare's edge, which knows the way to the former route only, so the new one could \
                     not be tried by itself"
                )));
            }
            Way::Through(name) => {
                target = name;
                probe::Way::Through(self.names.as_ref(), &target)
            }
            Way::Not(why) => return Ok(Some(why.to_owned())),
        };
        let outcome = match self.turns.take().await {
            Some(_turn) => probe::probe(&self.probe_of(valid), way).await,
            None => return Err("the new route is proved; many portals wait for that".to_owned()),
        };
        let Err(seen) = outcome else { return Ok(None) };
        if seen.reason == "NameNotFound" {
            let advice = match &class.class.spec.probe.address {
                None => "name the proxy's address and port in the class as probe.address".to_owned(),
                Some(address) => format!(
                    "name an address of this proxy alone in the class as probe.address: {address} is that of the former \
                     class, too, so that the former route may answer there"
                ),
            };
            return Err(format!(
                "the new route can be reached: {}; where only visitors see that name, {advice}",
                seen.message
            ));
        }
        if SEEN_WRONG.contains(&seen.reason) {
            return Err(format!("the new route leads to this portal; it was asked and does not: {}", seen.message));
        }
        // Whoever makes the route by hand has all the time there is.
        let in_time =
            class.class.spec.proxy.manual.is_some() || passed(&moving.since, self.clock.now()) < self.timing.move_proof;
        if seen.reason != "PrivateAddress" && in_time {
            if class.class.spec.proxy.manual.is_some() {
                return Err(format!("the new route is proved; not yet: {}", seen.message));
            }
            let then = stamp(after(&moving.since, self.timing.move_proof));
            return Err(format!(
                "the new route is proved; not yet: {}; from {then} on the record is changed all the same, to try the route \
                 that way, and changed back if it shows no proof there",
                seen.message
            ));
        }
        Ok(Some(seen.message.chars().take(LONGEST_NOTE).collect()))
    }

    /// One proxy by two addresses can be tried at the new one while the route needs no change for it. Tells what could not be
    /// tried, or what is waited for.
    pub(super) async fn try_as_it_is(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        held: &ValidPortal,
        old: &Old,
        former: &[HostName],
        moving: &Move,
    ) -> Result<Option<String>, String> {
        let untried = "the proxy has one route for the host, so the new one could not be tried";
        if replaces(&old.class, class) {
            return Ok(Some(untried.to_owned()));
        }
        look_anew(class, valid);
        let look = ValidPortal { mode: Mode::ObserveOnly, ..held.clone() };
        let seen = program(&mixed(class, &None, &class.proxy), &look, self.store.installation(), former, &[]).await;
        if !seen.pending.is_empty() {
            return Ok(Some(untried.to_owned()));
        }
        self.prove_before(class, valid, old, &seen, moving).await
    }
}
