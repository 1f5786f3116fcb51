//! One look at one portal: what it wants, what is there, what was done about it.
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::ahead::Stand;
use super::alike::is_there_already;
use super::context::Context;
use super::deciding::is_said;
use super::error::ControllerError;
use super::findings::{DISABLED, Switches, no_resets, ready, still_there};
use super::leaving::{Made, Present};
use super::outside::{Outside, program};
use super::places::{Standing, place_of};
use super::runtime::ClassRuntime;
use super::settling;
use super::status::Found;
use super::times::signed;
use super::validate::{Mode, ValidPortal, retains, validate, validate_at};
use crate::api::condition::{ACCEPTED, DNS_PROGRAMMED, Finding, LIVE, MOVED, ROUTE_PROGRAMMED, Truth};
use crate::api::portal::{MadeResource, Verified};
use crate::api::{FIELD_MANAGER, FINALIZER, HostName, ResetPortal};
use crate::http::double::lock;
use crate::telemetry::metrics;

/// How often what was verified is doubted while a portal does not answer.
const DOUBT_EVERY: SignedDuration = SignedDuration::from_mins(30);

/// A look that takes longer tells so in a status that says nothing yet.
pub(super) const SLOW: Duration = Duration::from_secs(2);

impl Context {
    /// One look. Tells when to look again.
    pub async fn reconcile(&self, portal: &ResetPortal) -> Result<Duration, ControllerError> {
        let key = portal.key();
        // The watch may lag behind what was written down at the last look.
        let portals: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(portal) = &portals.get_opt(&key.name).await? else { return Ok(self.timing.resync) };
        if portal.metadata.deletion_timestamp.is_some() {
            return Ok(self.remove(portal).await?.unwrap_or(self.timing.resync));
        }
        let mut found = Found::default();
        let wait = {
            let mut looking = std::pin::pin!(self.look(portal, &mut found));
            match tokio::time::timeout(SLOW, &mut looking).await {
                Ok(wait) => wait?,
                Err(_) => {
                    self.reports.begun(portal, self.clock.now()).await?;
                    looking.await?
                }
            }
        };
        let switches = Switches {
            mode: Mode::of(portal),
            enabled: portal.spec.enabled,
            retain: retains(portal),
            adopt: portal.annotated(crate::api::ANNOTATION_ADOPT),
        };
        let mut summary = ready(&found.findings, switches);
        if let Some(words) = still_there(&found).filter(|_| summary.reason == DISABLED) {
            summary.message = words;
        }
        if let Some(words) = found.no_resets.as_ref().filter(|_| summary.truth == Truth::True) {
            summary.message = format!("{}; {words}", summary.message);
        }
        metrics::reconciled(&summary.reason);
        let truth = summary.truth;
        let only_live = found.findings.iter().all(|f| (f.truth == Truth::True) != (f.type_ == LIVE));
        found.findings.push(summary);
        self.reports.report(portal, found, self.clock.now()).await?;
        Ok(match wait {
            Some(wait) => wait,
            None if truth == Truth::True || !portal.spec.enabled => {
                lock(&self.memory).entry(key).or_default().failures = 0;
                self.timing.resync
            }
            // Where only the proof is missing, the next probe says when.
            None if only_live => self
                .until_probe(&key)
                .map_or(self.timing.resync, |wait| wait.clamp(self.timing.first_retry, self.timing.resync)),
            None => self.backoff(&key),
        })
    }

    /// The look itself. `Some` asks for a wait of its own.
    async fn look(&self, portal: &ResetPortal, found: &mut Found) -> Result<Option<Duration>, ControllerError> {
        let key = portal.key();
        let before = portal.status.clone().unwrap_or_default();
        // Until something better is known, what was made is still there.
        found.resources.clone_from(&before.resources);
        found.verified.clone_from(&before.verified);
        found.class_name.clone_from(&before.class_name);
        found.backend.clone_from(&before.backend);
        found.standing = Standing::of(&before);
        let (class, valid) = match self.accepted(portal, found).await? {
            Ok(accepted) => accepted,
            Err(finding) => {
                found.findings.push(finding);
                found.host = portal.spec.public_host().ok().map(String::from);
                return Ok(None);
            }
        };
        found.host = Some(valid.host.to_string());
        found.url = Some(valid.url.clone());
        if found.findings.is_empty() {
            let words = format!("served by PortalClass {:?}", class.class.name);
            found.findings.push(Finding::new(ACCEPTED, Truth::True, "Accepted", words));
        }
        self.ensure_finalizer(portal).await?;
        let claimed = self.claims.take(&key, &valid.uid, &valid.host, &valid.domain).await?;
        let lost = claimed.truth != Truth::True;
        found.findings.push(claimed);
        let former = former_hosts(&before.resources, self.claims.hosts(&valid.uid).await?, &valid.host);
        let (valid, former) = match lost {
            false => (valid, former),
            // A wanted name that cannot be had is no reason to stop serving the one that is held, or to stop half way in a
            // move.
            true => match self.claims.holds(&key, &valid.uid, &former).await?.split_first() {
                Some((host, others))
                    if valid.enabled && validate_at(portal, host, &class.class, &self.policy).is_ok() =>
                {
                    let url = class.class.spec.public_url(host);
                    found.host = Some(host.to_string());
                    found.url = Some(url.clone());
                    (ValidPortal { host: host.clone(), url, ..valid }, others.to_vec())
                }
                // A class that does not grant it serves nothing there, whatever else is asked for.
                _ => {
                    self.directory.withdraw(&key);
                    return Ok(None);
                }
            },
        };
        let wanted = valid.host.clone();
        let (valid, former) = match self.finishes_first(found, &valid, &former).await? {
            Some(host) => {
                let url = class.class.spec.public_url(&host);
                found.host = Some(host.to_string());
                found.url = Some(url.clone());
                // What is at the wanted one already stays, too.
                let made = |name: &HostName| found.resources.iter().any(|made| made.name == name.as_str());
                let all = former.into_iter().chain(made(&wanted).then(|| wanted.clone()));
                let others = all.filter(|one| *one != host).collect();
                (ValidPortal { host, url, ..valid }, others)
            }
            None => (valid, former),
        };
        if !valid.enabled {
            return self.clear(portal, &class, &valid, &former, found).await;
        }
        lock(&self.memory).entry(key.clone()).or_default().cleared = None;
        let logo = self.logo(portal).await?;
        let granted = self.granted(portal, &class, found, &former).await?;
        self.publish(&class, &valid, &granted, logo);

        let held = self.hold_back(portal, &class, &valid).await?;
        let frozen = held.as_ref().is_some_and(|held| held.frozen);
        let unled = valid.host != wanted || class.dns.is_none() || held.is_some();
        let called_off = match unled {
            true => self.rolls_back_first(portal, &valid, &place_of(&class.class), found).await?,
            false => None,
        };
        let serving = class.clone();
        let (class, valid) = called_off.map_or((class, valid), |(class, valid)| (Arc::new(class), valid));
        let is_called_off = !Arc::ptr_eq(&class, &serving);
        let frozen = frozen && !is_called_off;
        let (class, mut valid, here, held) = match held.filter(|_| !is_called_off) {
            Some(held) => {
                found.findings.push(held.finding);
                (held.class, held.valid, held.place, true)
            }
            None => {
                let here = place_of(&class.class);
                (class, valid, here, false)
            }
        };
        let old = match held {
            true => None,
            false => {
                if found.standing.home.as_ref() != Some(&here) {
                    // What was verified elsewhere says nothing about here.
                    valid.recorded.doubt();
                }
                self.on_the_way(portal, &class, &valid, !former.is_empty(), found).await?
            }
        };
        let (made, kept) = match &old {
            Some(old) => (self.travel(portal, &class, &valid, old, &former, found).await?, Vec::new()),
            None if frozen => {
                let words = "not looked at while the change is held: the settings or Secrets under which it was made cannot be had";
                for type_ in [DNS_PROGRAMMED, ROUTE_PROGRAMMED] {
                    found.findings.push(Finding::new(type_, Truth::Unknown, "ChangesHeld", words));
                }
                (self.stay(portal, &class, &valid, &[], found).await?.0, before.resources.clone())
            }
            None => self.stay(portal, &class, &valid, &former, found).await?,
        };
        if let Some(moved) = found.findings.iter_mut().find(|one| one.type_ == MOVED && valid.host != wanted && !lost) {
            moved.message.push_str(&format!("; the host is changed to {wanted} when that is done"));
        }
        let Made { mut outside, live, mut wait } = made;
        let now = self.clock.now();
        // A former place has what serves visitors until the new host is proved.
        let proved = former.is_empty() || live.truth == Truth::True || !class.class.spec.probe.enabled;
        if proved && !frozen {
            let before = found.changes.len();
            let live = live.truth == Truth::True || !class.class.spec.probe.enabled;
            let present = Present { outside: &outside, proved: live };
            let kept = self.leave_places(portal, &class, &valid, Some(present), found).await?;
            wait = wait.into_iter().chain(kept).min();
            if found.changes[before..].iter().any(|written| written.condition == ROUTE_PROGRAMMED) {
                self.look_after_leaving(&class, &valid, &former, live, &mut outside, found).await;
            }
        }
        let moved = found.standing.settled(&here);
        let at_home = old.is_none() && !frozen && found.standing.home.as_ref() == Some(&here);
        if at_home && found.standing.moving.is_none() && outside.recorded() && class.dns.is_some() {
            found.standing.note_record(settling::record_seconds(&valid), now);
        }
        // A kill may have come before it was taken away.
        if moved && valid.mode == Mode::Full && is_said(portal, &here) {
            self.spend_word(portal).await?;
        }
        let missing =
            |made: &&MadeResource| !outside.resources.iter().any(|o| o.system == made.system && o.name == made.name);
        // What could not be looked at is not forgotten.
        let failed = outside.findings.iter().any(|finding| finding.truth != Truth::True);
        // What was removed at a former host is not there any more, though something is still left elsewhere.
        let used: Vec<&str> = class.dns.iter().chain(&class.proxy).map(|shared| shared.worker.instance()).collect();
        let stays = old.is_none() && !frozen && valid.mode == Mode::Full && !failed;
        let given_up = |made: &MadeResource| {
            let of_former = former.iter().any(|host| host.as_str() == made.name);
            stays && of_former && used.contains(&made.system.as_str()) && !kept.contains(made)
        };
        let remembered: Vec<MadeResource> = match (failed, moved) {
            (false, true) => kept.iter().filter(missing).cloned().collect(),
            _ => found.resources.iter().filter(missing).filter(|made| !given_up(made)).cloned().collect(),
        };
        // What is in place now is not left behind.
        let in_place = |made: &MadeResource| outside.resources.contains(made);
        found.standing.left_behind.retain(|made| !in_place(made));
        let left = &found.standing.left_behind;
        let remembered = remembered.into_iter().filter(|made| !left.contains(made));
        found.resources = outside.resources.iter().cloned().chain(remembered).collect();
        let proved = live.truth == Truth::True;
        let there = valid.mode != Mode::Full
            && is_there_already(&class, &valid.host, &outside, &before.resources, &before.left_behind);
        let stand = Stand {
            standing: &found.standing,
            made: &found.resources,
            former: &former,
            moves: former.is_empty(),
            proved,
            there,
        };
        found.pending = match valid.mode {
            Mode::Full => self.still_ahead(&class, &valid, stand).await?,
            Mode::Paused | Mode::ObserveOnly => {
                let ahead = self.ahead(&class, &valid, stand).await?;
                ahead.in_order(&class, std::mem::take(&mut outside.pending))
            }
        };
        let systems: Vec<&String> = found.resources.iter().map(|made| &made.system).collect();
        // Whoever was refused has nothing that a restart might believe.
        let refused = |system: &String| outside.refused.contains(system);
        found.verified.retain(|old| {
            !refused(&old.system)
                && systems.contains(&&old.system)
                && !outside.verified.iter().any(|new| new.system == old.system)
        });
        found.verified.append(&mut outside.verified);
        found.queue = outside.queue.take();
        if found.standing.home.as_ref().is_none_or(|home| *home == here) {
            found.class_name = Some(here.class_name.clone());
            found.backend = Some(class.class.spec.backend_name().to_owned());
        }
        self.look_again_where_dead(&class, &valid, &outside, &found.verified, &live);
        found.findings.append(&mut outside.findings);
        found.no_resets = no_resets(&serving.class);
        if let Some(account) = &serving.account {
            let ready = serving.facts.provider_ready(account.provider.as_ref(), &valid.domain, now).await;
            // A provider that cannot be used need not be asked more.
            let usable = ready.truth == Truth::True;
            found.findings.push(ready);
            if serving.mailer.is_some() && usable {
                found.findings.push(serving.facts.sender_verified(account.provider.as_ref(), &valid, now).await);
            }
        }
        found.last_proof = match live.truth {
            Truth::True => {
                lock(&self.memory).get(&key).and_then(|memory| memory.probed.as_ref().map(|probed| probed.at))
            }
            _ => before.last_proof.as_deref().and_then(|text| text.parse().ok()),
        };
        found.findings.push(live);
        Ok(wait)
    }

    /// Two addresses of one system, such as a name and an IP address, look like two systems, and everything of the portal
    /// has one mark there: what was just removed in the former place may be what serves. So that is looked at anew.
    async fn look_after_leaving(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        live: bool,
        outside: &mut Outside,
        found: &mut Found,
    ) {
        let Some(proxy) = &class.proxy else { return };
        proxy.worker.forget(&valid.key);
        // A record that is not to be changed yet must not be: the next look sees to the route then.
        if found.standing.moving.is_some() {
            return;
        }
        *outside = program(class, valid, self.store.installation(), former, &[]).await;
        found.changes.append(&mut outside.changes);
        if live {
            outside.prove();
        }
    }

    /// A portal that does not answer although all is in place: perhaps it is not. Where looks are counted, what was
    /// verified is doubted at once and then every half hour.
    fn look_again_where_dead(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        outside: &Outside,
        verified: &[Verified],
        live: &Finding,
    ) {
        let now = self.clock.now();
        let mut memory = lock(&self.memory);
        let doubted = &mut memory.entry(valid.key.clone()).or_default().doubted;
        if live.truth != Truth::False || !outside.programmed() || valid.mode != Mode::Full {
            if live.truth == Truth::True {
                *doubted = None;
            }
            return;
        }
        let dns = class.dns.as_ref().map(|shared| shared.worker.instance());
        let of_dns = verified.iter().find(|verified| Some(verified.system.as_str()) == dns);
        let verified = of_dns.and_then(|verified| verified.at.parse::<Timestamp>().ok());
        let new = verified.is_some_and(|at| now.duration_since(at) < signed(self.timing.doubt_after));
        if !new && doubted.is_none_or(|at| now.duration_since(at) >= DOUBT_EVERY) {
            *doubted = Some(now);
            class.dns.iter().for_each(|shared| shared.worker.forget(&valid.key));
        }
    }

    /// The class and the checked portal, or why it is not accepted.
    pub(super) async fn accept(
        &self,
        portal: &ResetPortal,
    ) -> Result<Result<(Arc<ClassRuntime>, ValidPortal), Finding>, ControllerError> {
        let class = match self.class(portal.spec.class_name.as_deref()).await? {
            Ok(class) => class,
            Err(finding) => return Ok(Err(finding)),
        };
        Ok(validate(portal, &class.class, &self.policy).map(|valid| (class, valid)))
    }

    /// Before anything is made outside, the object is held until it is removed again.
    async fn ensure_finalizer(&self, portal: &ResetPortal) -> Result<(), ControllerError> {
        let finalizers: Vec<String> = portal.metadata.finalizers.iter().flatten().cloned().collect();
        if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        let key = portal.key();
        let api: Api<ResetPortal> = Api::namespaced(self.client.clone(), &key.namespace);
        let all: Vec<String> = finalizers.into_iter().chain([FINALIZER.to_owned()]).collect();
        let patch = json!({"metadata": {
            "finalizers": all, "uid": portal.metadata.uid, "resourceVersion": portal.metadata.resource_version,
        }});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(&key.name, &params, &Patch::Merge(&patch)).await?;
        Ok(())
    }
}

/// Names at which something was made, or may have been, that are not the wanted one.
pub(super) fn former_hosts(made: &[MadeResource], claimed: Vec<HostName>, host: &HostName) -> Vec<HostName> {
    let made = made.iter().filter_map(|made| HostName::parse(&made.name).ok());
    let mut former: Vec<HostName> = made.chain(claimed).filter(|name| name != host).collect();
    former.sort();
    former.dedup();
    former
}
