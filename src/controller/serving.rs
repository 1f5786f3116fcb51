//! The portal's page: what is published of it, and the proof that it is reached.
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;

use super::classes::fingerprint;
use super::context::{Context, Probed};
use super::error::{ControllerError, is_code};
use super::logo::picture;
use super::outside::Outside;
use super::places::CLASS_GONE;
use super::probe::{self, Probe, Way};
use super::recorded::AWAITING_OPERATOR;
use super::run::Timing;
use super::runtime::ClassRuntime;
use super::schedule;
use super::sighting::Sighting;
use super::status::Found;
use super::underway;
use super::validate::{Mode, ValidPortal, validate, validate_at};
use crate::api::condition::{Finding, LIVE, Truth};
use crate::api::{HostName, PortalKey, ResetPortal};
use crate::http::double::lock;
use crate::reset::{ByHand, Logo, ServedPortal};

/// How new a proof must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// At most as old as the probing interval.
    Recent,
    /// Asked for now, unless the last one failed a moment ago.
    Now,
    /// Not from before this time.
    After(Timestamp),
}

impl Context {
    pub(super) async fn logo(&self, portal: &ResetPortal) -> Result<Option<Logo>, ControllerError> {
        let Some(reference) = &portal.spec.branding.logo else { return Ok(None) };
        let key = portal.key();
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        let map = match maps.get_opt(&reference.config_map_name).await {
            Ok(map) => map,
            Err(error) if is_code(&error, 403) => None,
            Err(error) => return Err(error.into()),
        };
        match picture(map.as_ref(), &reference.config_map_name, &reference.key) {
            Ok(picture) => {
                let etag = fingerprint(&[&String::from_utf8_lossy(&picture.bytes)]);
                Ok(Some(Logo { bytes: picture.bytes, content_type: picture.content_type, etag }))
            }
            // A missing logo is no reason not to serve the page; the event says what is wrong with it.
            Err(words) => {
                let note = format!("spec.branding.logo: {words}; the page is served without a logo");
                self.reports
                    .event(portal, kube::runtime::events::EventType::Warning, "LogoUnusable", "Serve", &note)
                    .await;
                Ok(None)
            }
        }
    }

    pub(super) fn publish(&self, class: &ClassRuntime, valid: &ValidPortal, former: &[HostName], logo: Option<Logo>) {
        let reset = &class.class.spec.reset;
        let portal = ServedPortal {
            key: valid.key.clone(),
            uid: valid.uid.clone(),
            hosts: std::iter::once(&valid.host).chain(former).cloned().collect(),
            domain: valid.domain.clone(),
            url: valid.url.clone(),
            branding: valid.branding.clone(),
            logo,
            link_minutes: reset.link_minutes,
            minimum_password_length: reset.minimum_password_length,
            account: class.account.clone(),
            mailer: class.mailer.clone(),
            from: valid.from.clone(),
            reply_to: valid.reply_to.clone(),
            by_hand: ByHand {
                origin: class.class.spec.origin(),
                cname_target: class.class.spec.proxy_name(),
                proxied: valid.proxied,
            },
        };
        self.directory.publish(&portal, |host| class.class.spec.public_url(host));
    }

    /// Those of its former hosts at which the portal may be served still: by its class, or by the one in which it stands.
    pub(super) async fn granted(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        found: &Found,
        former: &[HostName],
    ) -> Result<Vec<HostName>, ControllerError> {
        if former.is_empty() {
            return Ok(Vec::new());
        }
        let home = match &found.standing.home {
            Some(home) => self.class(Some(&home.class_name)).await?.ok(),
            None => None,
        };
        let by = |class: &ClassRuntime, host: &HostName| validate_at(portal, host, &class.class, &self.policy).is_ok();
        let granted = |host: &&HostName| by(class, host) || home.as_ref().is_some_and(|home| by(home, host));
        Ok(former.iter().filter(granted).cloned().collect())
    }

    /// The class that the portal asks for cannot be used, as while a Secret of it is missing, which is no fault of the
    /// portal's: its page stays. Where it stands in another class, that one serves it; else what is published stays so.
    /// `why` comes back, with what became of the page.
    pub(super) async fn serve_as_before(
        &self,
        portal: &ResetPortal,
        found: &Found,
        mut why: Finding,
    ) -> Result<Finding, ControllerError> {
        let key = portal.key();
        let home = found.standing.home.as_ref().map(|home| home.class_name.as_str());
        let class = match home {
            _ if !portal.spec.enabled => None,
            Some(home) => match self.class(Some(home)).await? {
                Ok(class) => Some(class),
                Err(finding) if finding.reason == CLASS_GONE => None,
                Err(_) => return Ok(why),
            },
            None => None,
        };
        let valid = class.as_ref().and_then(|class| validate(portal, &class.class, &self.policy).ok());
        if let Some((class, valid)) = class.zip(valid) {
            let mut hosts = self.claims.hosts(&valid.uid).await?;
            hosts.retain(|host| validate_at(portal, host, &class.class, &self.policy).is_ok());
            // What links are made with is the wanted name, if it is held already.
            hosts.sort_by_key(|host| *host != valid.host);
            let held = self.claims.holds(&key, &valid.uid, &hosts).await?;
            if let Some((host, others)) = held.split_first() {
                let logo = self.logo(portal).await?;
                let url = class.class.spec.public_url(host);
                self.publish(&class, &ValidPortal { host: host.clone(), url, ..valid }, others, logo);
                why.message.push_str(&format!(
                    "; meanwhile the page is served by PortalClass {:?} as before, and nothing is changed outside",
                    class.class.name
                ));
                return Ok(why);
            }
        }
        self.directory.withdraw(&key);
        Ok(why)
    }

    /// `Live`, by a proof that is at most as old as the probing interval and about this very address.
    pub(super) async fn live(
        &self,
        class: &ClassRuntime,
        valid: &ValidPortal,
        outside: &Outside,
        fresh: Fresh,
    ) -> Finding {
        let spec = &class.class.spec;
        if !spec.probe.enabled {
            return Finding::new(LIVE, Truth::Unknown, "ProbeDisabled", "probing is switched off in the class");
        }
        if !outside.programmed() && valid.mode == Mode::Full {
            lock(&self.memory).entry(valid.key.clone()).or_default().probed = None;
            return Finding::new(LIVE, Truth::False, "NotProgrammed", "waits for record and route");
        }
        let now = self.clock.now();
        let print = fingerprint(&[&valid.url, &class.class.fingerprint, &valid.uid, &valid.generation.to_string()]);
        // What was just written is looked at at once, and what was seen before it counts no more.
        let last = lock(&self.memory)
            .get(&valid.key)
            .and_then(|memory| memory.probed.clone())
            .filter(|last| last.fingerprint == print && outside.changes.is_empty());
        let due = |last: &Probed| {
            let asked_for = match fresh {
                Fresh::Recent => false,
                Fresh::Now => last.outcome.is_ok(),
                Fresh::After(time) => last.at < time && now >= time,
            };
            asked_for || now >= last.next || now < last.at
        };
        let probed = match last {
            Some(last) if !due(&last) => last,
            last => {
                let Some(_turn) = self.turns.take().await else {
                    let words = "no recent proof; the next one waits for its turn behind other portals";
                    return Finding::new(LIVE, Truth::Unknown, "ProbeQueued", words);
                };
                let probe = self.probe_of(valid);
                let way = match &spec.probe.address {
                    Some(address) => Way::Pinned(address),
                    None => Way::Public(self.names.as_ref()),
                };
                let outcome = probe::probe(&probe, way).await;
                self.remember(valid, print, outcome, last.map_or(0, |last| last.failures))
            }
        };
        let lived = self.lived(valid, probed.outcome.is_ok());
        match probed.outcome {
            Ok(()) => {
                let words = format!("{} answered with this portal's proof", valid.url);
                Finding::new(LIVE, Truth::True, "Proved", words)
            }
            Err(seen) if spec.proxy.manual.is_some() => {
                let what = if class.dns.is_some() { "the route is" } else { "record and route are" };
                let by_hand = format!("{what} made by hand: see `{}`", underway::snippets(class, valid));
                let (reason, message) = match lived {
                    // It was there, so that what is wrong now says more than that it is made by hand.
                    true => (seen.reason, format!("{}; {by_hand}", seen.message)),
                    false => (AWAITING_OPERATOR, format!("{by_hand}. Not there yet: {}", seen.message)),
                };
                Finding::new(LIVE, Truth::False, reason, message)
            }
            Err(seen) => Finding::new(LIVE, Truth::False, seen.reason, seen.message),
        }
    }

    /// Whether the portal has given its proof since it was last edited, now or at any time.
    fn lived(&self, valid: &ValidPortal, now: bool) -> bool {
        let mut memory = lock(&self.memory);
        let memory = memory.entry(valid.key.clone()).or_default();
        if now || valid.recorded.lived {
            memory.lived = Some(valid.generation);
        }
        memory.lived == Some(valid.generation)
    }

    pub(super) fn probe_of<'a>(&'a self, valid: &'a ValidPortal) -> Probe<'a> {
        Probe { key: self.store.probe_key(), url: &valid.url, host: &valid.host, uid: &valid.uid }
    }

    fn remember(
        &self,
        valid: &ValidPortal,
        fingerprint: String,
        outcome: Result<(), Sighting>,
        failures: u32,
    ) -> Probed {
        let failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
        let Timing { probe_every, first_retry, longest_probe_wait, .. } = &self.timing;
        let chance = rand::random::<f64>();
        let wait = match failures {
            0 => schedule::early(*probe_every, chance),
            _ => schedule::pause(failures, *first_retry, *longest_probe_wait, chance),
        };
        let at = self.clock.now();
        let next = SignedDuration::try_from(wait).ok().and_then(|wait| at.checked_add(wait).ok());
        let probed = Probed { fingerprint, at, next: next.unwrap_or(Timestamp::MAX), outcome, failures };
        lock(&self.memory).entry(valid.key.clone()).or_default().probed = Some(probed.clone());
        probed
    }

    /// What was seen until now was about a record that is changed now.
    pub(super) fn forget_probe(&self, key: &PortalKey) {
        if let Some(memory) = lock(&self.memory).get_mut(key) {
            memory.probed = None;
        }
    }

    /// When the portal was last asked for its proof.
    pub(super) fn probed_at(&self, key: &PortalKey) -> Option<Timestamp> {
        lock(&self.memory).get(key)?.probed.as_ref().map(|probed| probed.at)
    }

    /// How long until the portal is asked for its proof again.
    pub(super) fn until_probe(&self, key: &PortalKey) -> Option<Duration> {
        let next = lock(&self.memory).get(key)?.probed.as_ref()?.next;
        Some(Duration::try_from(next.duration_since(self.clock.now())).unwrap_or_default())
    }
}
