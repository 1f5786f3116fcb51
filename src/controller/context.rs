//! What every look works with, and what is remembered between looks.
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::Client;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::Store as Reflected;

use super::claims::Claims;
use super::classes::{EnvironmentClass, ResolvedClass, choose, resolve};
use super::error::ControllerError;
use super::fuse::Counted;
use super::run::{FirstLooks, Timing};
use super::runtime::{ClassRuntime, Registry};
use super::schedule::Turns;
use super::sighting::Sighting;
use super::status::Reports;
use super::tombstones::Tries;
use super::validate::Policy;
use crate::api::clock::Clock;
use crate::api::condition::Finding;
use crate::api::{PortalClass, PortalKey, ResetPortal};
use crate::http::Names;
use crate::http::double::lock;
use crate::reset::Directory;
use crate::store::Store;

/// What one portal's last probe was about, and what came of it.
#[derive(Clone, PartialEq)]
pub(super) struct Probed {
    /// Of address, class, object and generation.
    pub fingerprint: String,
    pub at: Timestamp,
    /// When it is asked again.
    pub next: Timestamp,
    pub outcome: Result<(), Sighting>,
    /// Failed probes in a row.
    pub failures: u32,
}

/// What is remembered of a portal between looks.
#[derive(Default, Clone)]
pub(super) struct Memory {
    pub failures: u32,
    pub probed: Option<Probed>,
    /// Generation at which the portal was last known to have given its proof.
    pub lived: Option<i64>,
    /// When it was last doubted that its record is still there, since it does not answer.
    pub doubted: Option<Timestamp>,
    /// Since when former names cannot be looked at, and when that was tried last.
    pub unreached: Option<(Timestamp, Timestamp)>,
    /// Generation at which a disabled portal's things were seen to be gone.
    pub cleared: Option<i64>,
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
    pub names: Arc<dyn Names>,
    pub(super) turns: Turns,
    pub(super) claims: Claims,
    pub(super) reports: Reports,
    pub(super) registry: Registry,
    pub(super) first_looks: FirstLooks,
    pub(super) memory: Mutex<HashMap<PortalKey, Memory>>,
    /// Settings that are in their class's status, by class and digest.
    pub(super) kept_settings: tokio::sync::Mutex<HashSet<(String, String)>>,
    /// Kept settings that no portal needed at the last report, by class.
    pub(super) unused_settings: Mutex<HashMap<String, HashSet<String>>>,
    /// Every portal, once the loop runs.
    pub(super) portals: std::sync::OnceLock<Reflected<ResetPortal>>,
    pub(super) counted: Mutex<Counted>,
    pub(super) tombstone_tries: Mutex<Tries>,
}

impl Context {
    pub(super) fn new(deps: super::run::Deps) -> Self {
        Self {
            claims: Claims::new(deps.client.clone()),
            reports: Reports::new(deps.client.clone()),
            registry: Registry::new(
                deps.client.clone(),
                &deps.policy.controller_namespace,
                deps.store.clone(),
                Arc::clone(&deps.clock),
                deps.shutdown,
            ),
            client: deps.client,
            store: deps.store,
            directory: deps.directory,
            clock: deps.clock,
            environment: deps.environment,
            policy: deps.policy,
            timing: deps.timing,
            names: deps.names,
            turns: Turns::default(),
            memory: Mutex::default(),
            kept_settings: Default::default(),
            unused_settings: Mutex::default(),
            portals: Default::default(),
            counted: Mutex::default(),
            tombstone_tries: Mutex::default(),
            first_looks: FirstLooks::default(),
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

    /// The class's object.
    pub(super) async fn class_object(&self, name: &str) -> Result<Option<PortalClass>, ControllerError> {
        let classes: Api<PortalClass> = Api::all(self.client.clone());
        Ok(classes.get_opt(name).await?)
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
}
