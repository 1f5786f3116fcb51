//! One look at one portal: what it wants, what is there, what was done about it.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::claims::Claims;
use super::classes::{EnvironmentClass, ResolvedClass, choose, fingerprint, resolve};
use super::error::{ControllerError, is_code};
use super::findings::{Switches, ready};
use super::logo::picture;
use super::outside::{Outside, program, withdraw};
use super::probe::{Probe, probe};
use super::run::Timing;
use super::runtime::{ClassRuntime, Registry};
use super::status::{Found, Reports};
use super::validate::{Mode, Policy, ValidPortal, retains, validate};
use crate::api::clock::Clock;
use crate::api::condition::{ACCEPTED, Finding, LIVE, Truth};
use crate::api::portal::MadeResource;
use crate::api::{FIELD_MANAGER, FINALIZER, HostName, PortalClass, PortalKey, ResetPortal};
use crate::http::double::lock;
use crate::plan::Mark;
use crate::reset::{Directory, Logo, ServedPortal};
use crate::store::Store;
use crate::telemetry::metrics;

/// What one portal's proof of life was about, and when it was given.
#[derive(Clone, PartialEq)]
struct Proof {
    url: String,
    fingerprint: String,
    at: Timestamp,
}

/// What is remembered of a portal between looks.
#[derive(Default, Clone)]
struct Memory {
    failures: u32,
    proof: Option<Proof>,
    /// Generation at which a disabled portal's things were seen to be gone.
    cleared: Option<i64>,
}

/// Everything a look needs.
pub struct Context {
    pub client: Client,
    pub store: Store,
    pub directory: Directory,
    pub clock: Arc<dyn Clock>,
    pub environment: Option<EnvironmentClass>,
    pub policy: Policy,
    pub timing: Timing,
    pub(super) claims: Claims,
    pub(super) reports: Reports,
    pub(super) registry: Registry,
    memory: Mutex<HashMap<PortalKey, Memory>>,
}

impl Context {
    pub(super) fn new(deps: super::run::Deps) -> Self {
        Self {
            claims: Claims::new(deps.client.clone()),
            reports: Reports::new(deps.client.clone()),
            registry: Registry::new(Arc::clone(&deps.clock), deps.shutdown),
            client: deps.client,
            store: deps.store,
            directory: deps.directory,
            clock: deps.clock,
            environment: deps.environment,
            policy: deps.policy,
            timing: deps.timing,
            memory: Mutex::default(),
        }
    }

    /// Waiting time after another failure: doubles from the first to the longest.
    pub(super) fn backoff(&self, key: &PortalKey) -> Duration {
        let mut memory = lock(&self.memory);
        let failures = &mut memory.entry(key.clone()).or_default().failures;
        *failures = failures.saturating_add(1);
        let factor = 1_u32.checked_shl(*failures - 1).unwrap_or(u32::MAX);
        self.timing.first_retry.saturating_mul(factor).min(self.timing.longest_retry)
    }

    pub(super) fn forget(&self, key: &PortalKey) {
        lock(&self.memory).remove(key);
    }

    /// The running class of that name, or the default one; or why there is none.
    pub(super) async fn class(
        &self,
        wanted: Option<&str>,
    ) -> Result<Result<Arc<ClassRuntime>, Finding>, ControllerError> {
        match self.resolved(wanted).await? {
            Ok(class) => Ok(self.registry.get(class)),
            Err(finding) => Ok(Err(finding)),
        }
    }

    async fn resolved(&self, wanted: Option<&str>) -> Result<Result<ResolvedClass, Finding>, ControllerError> {
        let classes: Api<PortalClass> = Api::all(self.client.clone());
        let classes: Vec<Arc<PortalClass>> =
            classes.list(&ListParams::default()).await?.items.into_iter().map(Arc::new).collect();
        let class = match choose(wanted, &classes) {
            Ok(class) => Arc::clone(class),
            Err(finding) => return Ok(Err(finding)),
        };
        self.resolve(&class).await
    }

    /// The class with its secrets, or which of them is missing.
    pub(super) async fn resolve(&self, class: &PortalClass) -> Result<Result<ResolvedClass, Finding>, ControllerError> {
        let namespace = &self.policy.controller_namespace;
        let secrets: Api<SecretObject> = Api::namespaced(self.client.clone(), namespace);
        let mut found: HashMap<String, SecretObject> = HashMap::new();
        for name in super::classes::secret_names(&class.spec) {
            if !found.contains_key(&name)
                && let Some(secret) = secrets.get_opt(&name).await?
            {
                found.insert(name, secret);
            }
        }
        let lookup = |name: &str| found.get(name).cloned();
        Ok(resolve(class, namespace, self.environment.as_ref(), &lookup))
    }

    /// One look. Tells when to look again.
    pub async fn reconcile(&self, portal: &ResetPortal) -> Result<Duration, ControllerError> {
        let key = portal.key();
        if portal.metadata.deletion_timestamp.is_some() {
            return Ok(self.remove(portal).await?.unwrap_or(self.timing.resync));
        }
        let mut found = Found::default();
        let wait = self.look(portal, &mut found).await?;
        let switches = Switches {
            mode: Mode::of(portal),
            enabled: portal.spec.enabled,
            retain: retains(portal),
            adopt: portal.annotated(crate::api::ANNOTATION_ADOPT),
        };
        let summary = ready(&found.findings, switches);
        metrics::reconciled(&summary.reason);
        let truth = summary.truth;
        found.findings.push(summary);
        self.reports.report(portal, found, self.clock.now()).await?;
        Ok(match wait {
            Some(wait) => wait,
            None if truth == Truth::True || !portal.spec.enabled => {
                lock(&self.memory).entry(key).or_default().failures = 0;
                self.timing.resync
            }
            None => self.backoff(&key),
        })
    }

    /// The look itself. `Some` asks for a wait of its own.
    async fn look(&self, portal: &ResetPortal, found: &mut Found) -> Result<Option<Duration>, ControllerError> {
        let key = portal.key();
        let before = portal.status.clone().unwrap_or_default();
        // Until something better is known, what was made is still there.
        found.resources.clone_from(&before.resources);
        found.class_name.clone_from(&before.class_name);
        found.backend.clone_from(&before.backend);
        let (class, valid) = match self.accept(portal).await? {
            Ok(accepted) => accepted,
            Err(finding) => {
                self.directory.withdraw(&key);
                found.findings.push(finding);
                found.host = portal.spec.public_host().ok().map(String::from);
                return Ok(None);
            }
        };
        found.host = Some(valid.host.to_string());
        found.url = Some(valid.url.clone());
        found.findings.push(Finding::new(
            ACCEPTED,
            Truth::True,
            "Accepted",
            format!("served by PortalClass {:?}", class.class.name),
        ));
        self.ensure_finalizer(portal).await?;
        let claimed = self.claims.take(&key, &valid.uid, &valid.host, &valid.domain).await?;
        let lost = claimed.truth != Truth::True;
        found.findings.push(claimed);
        let former = former_hosts(&before.resources, &valid.host);
        if lost {
            // A wanted name that cannot be had is no reason to stop serving the one that is held.
            let held = self.claims.holds(&key, &valid.uid, &former).await?;
            match held.split_first() {
                Some((host, others)) if valid.enabled => {
                    let logo = self.logo(portal).await?;
                    let url = class.class.spec.public_url(host);
                    self.publish(&class, &ValidPortal { host: host.clone(), url, ..valid }, others, logo);
                }
                _ => self.directory.withdraw(&key),
            }
            return Ok(None);
        }
        if !valid.enabled {
            return self.clear(portal, &class, &valid, &former, found).await;
        }
        lock(&self.memory).entry(key.clone()).or_default().cleared = None;
        let logo = self.logo(portal).await?;
        self.publish(&class, &valid, &former, logo);

        let probing = class.class.spec.probe.enabled;
        // A changed host is proved before the former one goes.
        let keep: &[HostName] = if probing { &former } else { &[] };
        let gone: &[HostName] = if probing { &[] } else { &former };
        let mut outside = program(&class, &valid, self.store.installation(), keep, gone).await;
        found.changes.append(&mut outside.changes);
        let now = self.clock.now();
        let mut live = self.live(&class, &valid, &outside, !former.is_empty()).await;
        let mut kept: Vec<MadeResource> = Vec::new();
        if !former.is_empty() && valid.mode == Mode::Full {
            if !probing || live.truth == Truth::True {
                outside = self.leave_former(portal, &class, &valid, &former, outside, found).await?;
                if !outside.programmed() {
                    live = Finding::new(LIVE, Truth::False, "NotProgrammed", "waits for record and route");
                }
            } else {
                kept = before
                    .resources
                    .iter()
                    .filter(|made| former.iter().any(|f| f.as_str() == made.name))
                    .cloned()
                    .collect();
            }
        }
        let moved = self.leave_former_class(portal, &class, &valid, found).await?;
        let wait = outside.wait;
        found.pending = outside.pending;
        let missing =
            |made: &&MadeResource| !outside.resources.iter().any(|o| o.system == made.system && o.name == made.name);
        // What could not be looked at is not forgotten.
        let failed = outside.findings.iter().any(|finding| finding.truth != Truth::True);
        let remembered: Vec<MadeResource> = match (failed, moved) {
            (false, true) => kept.iter().filter(missing).cloned().collect(),
            _ => before.resources.iter().filter(missing).cloned().collect(),
        };
        found.resources = outside.resources.iter().cloned().chain(remembered).collect();
        if moved {
            found.class_name = Some(class.class.name.clone());
            found.backend = Some(class.class.spec.backend_name().to_owned());
        }
        found.findings.append(&mut outside.findings);
        if let Some(account) = &class.account {
            let ready = class.facts.provider_ready(account.provider.as_ref(), &valid.domain, now).await;
            // A provider that cannot be used need not be asked more.
            let usable = ready.truth == Truth::True;
            found.findings.push(ready);
            if class.mailer.is_some() && usable {
                found.findings.push(class.facts.sender_verified(account.provider.as_ref(), &valid, now).await);
            }
        }
        found.last_proof = match live.truth {
            Truth::True => lock(&self.memory).get(&key).and_then(|memory| memory.proof.as_ref().map(|proof| proof.at)),
            _ => before.last_proof.as_deref().and_then(|text| text.parse().ok()),
        };
        found.findings.push(live);
        Ok(wait)
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

    /// `enabled: false`: record and route go, the claim stays, the host is served no longer.
    async fn clear(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        found: &mut Found,
    ) -> Result<Option<Duration>, ControllerError> {
        self.directory.withdraw(&valid.key);
        let cleared = lock(&self.memory).get(&valid.key).is_some_and(|memory| memory.cleared == Some(valid.generation));
        if cleared && found.resources.is_empty() {
            return Ok(Some(self.timing.resync));
        }
        if valid.mode != Mode::Full {
            found.pending =
                found.resources.iter().map(|made| format!("delete {} in {}", made.name, made.system)).collect();
            return Ok(Some(self.timing.resync));
        }
        let hosts: Vec<HostName> = former.iter().chain([&valid.host]).cloned().collect();
        let mark = Mark::new(self.store.installation(), &valid.key);
        let mut outside = withdraw(class, &mark, &valid.key, &hosts, false).await;
        let moved = self.leave_former_class(portal, class, valid, found).await?;
        found.changes.append(&mut outside.changes);
        if outside.findings.is_empty() && !moved {
            return Ok(Some(self.backoff(&valid.key)));
        }
        if outside.findings.is_empty() {
            found.resources.clear();
            lock(&self.memory).entry(valid.key.clone()).or_default().cleared = Some(valid.generation);
            self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
            found.class_name = Some(class.class.name.clone());
            found.backend = Some(class.class.spec.backend_name().to_owned());
            return Ok(Some(self.timing.resync));
        }
        found.findings.append(&mut outside.findings);
        Ok(Some(outside.wait.unwrap_or_else(|| self.backoff(&valid.key))))
    }

    /// The new host is proved: what stands at the former ones goes, then the claims on them.
    async fn leave_former(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        former: &[HostName],
        programmed: Outside,
        found: &mut Found,
    ) -> Result<Outside, ControllerError> {
        let mut outside = program(class, valid, self.store.installation(), &[], former).await;
        found.changes.append(&mut outside.changes);
        if !outside.programmed() {
            return Ok(outside);
        }
        self.claims.release(&valid.key, &valid.uid, Some((&valid.host, &valid.domain))).await?;
        let logo = self.logo(portal).await?;
        self.publish(class, valid, &[], logo);
        Ok(Outside { findings: programmed.findings, ..outside })
    }

    /// Removes what the portal had under another class. `false` while that is not done.
    async fn leave_former_class(
        &self,
        portal: &ResetPortal,
        class: &ClassRuntime,
        valid: &ValidPortal,
        found: &mut Found,
    ) -> Result<bool, ControllerError> {
        let before = portal.status.as_ref();
        let Some(was) = before.and_then(|status| status.class_name.as_deref()).filter(|was| *was != class.class.name)
        else {
            return Ok(true);
        };
        if valid.mode != Mode::Full {
            return Ok(false);
        }
        let former = match self.class(Some(was)).await? {
            Ok(former) => former,
            // The former class is gone and its credentials with it: nothing can be done there any more but say so.
            Err(finding) => {
                let left: Vec<String> = before
                    .iter()
                    .flat_map(|status| &status.resources)
                    .map(|made| format!("{} in {}", made.name, made.system))
                    .collect();
                let note =
                    format!("what PortalClass {was:?} made may remain ({}): {}", left.join(", "), finding.message);
                let kind = kube::runtime::events::EventType::Warning;
                self.reports.event(portal, kind, "LeftBehind", "Reconcile", &note).await;
                return Ok(true);
            }
        };
        // The same instance under both classes holds what the portal has now.
        let same = |a: &Option<super::runtime::Shared>, b: &Option<super::runtime::Shared>| matches!((a, b), (Some(a), Some(b)) if a.worker.instance() == b.worker.instance());
        let old = ClassRuntime {
            class: former.class.clone(),
            dns: former.dns.clone().filter(|_| !same(&former.dns, &class.dns)),
            proxy: former.proxy.clone().filter(|_| !same(&former.proxy, &class.proxy)),
            account: None,
            mailer: None,
            facts: Default::default(),
        };
        let hosts = super::remove::hosts(portal);
        let mark = Mark::new(self.store.installation(), &valid.key);
        let mut outside = withdraw(&old, &mark, &valid.key, &hosts, false).await;
        found.changes.append(&mut outside.changes);
        Ok(outside.findings.is_empty())
    }

    async fn logo(&self, portal: &ResetPortal) -> Result<Option<Logo>, ControllerError> {
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

    fn publish(&self, class: &ClassRuntime, valid: &ValidPortal, former: &[HostName], logo: Option<Logo>) {
        let reset = &class.class.spec.reset;
        self.directory.publish(ServedPortal {
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
        });
    }

    /// `Live`, by a proof that is at most as old as the probing interval and about this very address.
    async fn live(&self, class: &ClassRuntime, valid: &ValidPortal, outside: &Outside, fresh_only: bool) -> Finding {
        let spec = &class.class.spec;
        if !spec.probe.enabled {
            return Finding::new(LIVE, Truth::Unknown, "ProbeDisabled", "probing is switched off in the class");
        }
        if !outside.programmed() && valid.mode == Mode::Full {
            lock(&self.memory).entry(valid.key.clone()).or_default().proof = None;
            return Finding::new(LIVE, Truth::False, "NotProgrammed", "waits for record and route");
        }
        let now = self.clock.now();
        let print = fingerprint(&[&class.class.fingerprint, &valid.uid, &valid.generation.to_string()]);
        let interval = SignedDuration::try_from(self.timing.probe_every).unwrap_or(SignedDuration::MAX);
        if !fresh_only
            && outside.changes.is_empty()
            && let Some(proof) = lock(&self.memory).get(&valid.key).and_then(|memory| memory.proof.clone())
            && proof.url == valid.url
            && proof.fingerprint == print
            && now >= proof.at
            && now.duration_since(proof.at) < interval
        {
            return Finding::new(
                LIVE,
                Truth::True,
                "Proved",
                format!("{} answered with this portal's proof", valid.url),
            );
        }
        let mut finding = probe(&Probe {
            key: self.store.probe_key(),
            url: &valid.url,
            host: &valid.host,
            uid: &valid.uid,
            address: spec.probe.address.as_deref(),
        })
        .await;
        let proof =
            (finding.truth == Truth::True).then(|| Proof { url: valid.url.clone(), fingerprint: print, at: now });
        lock(&self.memory).entry(valid.key.clone()).or_default().proof = proof;
        if finding.truth != Truth::True && spec.proxy.manual.is_some() {
            let message = format!(
                "record and route are made by hand: see `portalkeeper snippets {}`. Not there yet: {}",
                valid.host, finding.message
            );
            finding = Finding::new(LIVE, Truth::False, "AwaitingOperator", message);
        }
        finding
    }
}

/// Names at which something was made that are not the wanted one.
pub(super) fn former_hosts(made: &[MadeResource], host: &HostName) -> Vec<HostName> {
    let mut former: Vec<HostName> =
        made.iter().filter_map(|made| HostName::parse(&made.name).ok()).filter(|name| name != host).collect();
    former.sort();
    former.dedup();
    former
}
