//! The loop: watches, triggers and retries.
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use kube::api::{Api, ListParams};
use kube::runtime::controller::{Action, Controller as Loop};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, predicates};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::mpsc;

use super::classes::EnvironmentClass;
use super::context::Context;
use super::error::{ControllerError, is_code};
use super::validate::Policy;
use crate::api::claim::ClaimKind;
use crate::api::clock::Clock;
use crate::api::{PortalClaim, PortalClass, PortalKey, ResetPortal};
use crate::http::Names;
use crate::http::double::lock;
use crate::http::shutdown::Shutdown;
use crate::reset::Directory;
use crate::store::Store;

/// How often things are looked at.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between looks at a portal in order; drift is found within the backends' own intervals.
    pub resync: Duration,
    /// Age up to which a proof of life is believed.
    pub probe_every: Duration,
    /// Longest wait between probes of a portal that does not answer; the first is `first_retry`.
    pub longest_probe_wait: Duration,
    /// First and longest wait after a failure.
    pub first_retry: Duration,
    pub longest_retry: Duration,
    /// Longest wait for a new route's proof before the record is changed.
    pub move_proof: Duration,
    /// How long a proof does not count after a record was changed.
    pub move_settle: Duration,
    /// After that, the longest wait for a proof before the record is changed back.
    pub move_patience: Duration,
    /// Until a move that was rolled back is tried again.
    pub move_again: Duration,
    /// How long what was verified is not doubted although the portal does not answer: what is new takes its time.
    pub doubt_after: Duration,
    /// How long a deletion, or leaving a former place, waits for systems that cannot be reached or that refuse the
    /// credential, before it lets go and leaves a tombstone that lists what remains.
    pub letting_go: Duration,
    /// Between reports on the classes.
    pub class_report: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            resync: Duration::from_secs(60),
            probe_every: Duration::from_secs(300),
            longest_probe_wait: Duration::from_secs(300),
            first_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(60),
            move_proof: Duration::from_mins(2),
            move_settle: Duration::from_secs(30),
            move_patience: Duration::from_mins(5),
            move_again: Duration::from_hours(6),
            doubt_after: Duration::from_mins(10),
            letting_go: Duration::from_mins(30),
            class_report: Duration::from_secs(10),
        }
    }
}

/// Tells whether the program can serve: the portals of the API have been seen.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The portals that were there at the start and have not been looked at yet. The program is ready when there are
/// none left, so that a restart does not answer 421 for portals that are served.
#[derive(Default)]
pub(super) struct FirstLooks(Mutex<Option<(HashSet<PortalKey>, Readiness)>>);

impl FirstLooks {
    fn begin(&self, keys: impl Iterator<Item = PortalKey>, readiness: Readiness) {
        *lock(&self.0) = Some((keys.collect(), readiness));
        self.settle(|_| {});
    }
    fn done(&self, key: &PortalKey) {
        self.settle(|keys| {
            keys.remove(key);
        });
    }
    fn pending(&self) -> bool {
        lock(&self.0).is_some()
    }
    fn forget_others(&self, there: &HashSet<PortalKey>) {
        self.settle(|keys| keys.retain(|key| there.contains(key)));
    }
    fn settle(&self, change: impl FnOnce(&mut HashSet<PortalKey>)) {
        let mut waiting = lock(&self.0);
        let Some((keys, readiness)) = waiting.as_mut() else { return };
        change(keys);
        if keys.is_empty() {
            readiness.set();
            *waiting = None;
        }
    }
}

/// What the controller works with.
pub struct Deps {
    pub client: Client,
    pub store: Store,
    pub directory: Directory,
    pub clock: Arc<dyn Clock>,
    pub environment: Option<EnvironmentClass>,
    pub policy: Policy,
    pub timing: Timing,
    /// Where public hosts may be asked.
    pub names: Arc<dyn Names>,
    pub readiness: Readiness,
    pub shutdown: Shutdown,
}

/// The controller.
pub struct Controller {
    context: Arc<Context>,
    readiness: Readiness,
    shutdown: Shutdown,
}

impl Controller {
    pub fn new(deps: Deps) -> Self {
        let (readiness, shutdown) = (deps.readiness.clone(), deps.shutdown.clone());
        Self { context: Arc::new(Context::new(deps)), readiness, shutdown }
    }

    /// Reconciles until shutdown. Errors: the definitions are not installed, or the API cannot be asked at all.
    pub async fn run(self) -> Result<(), ControllerError> {
        let context = self.context;
        let client = context.client.clone();
        let portals: Api<ResetPortal> = Api::all(client.clone());
        let first =
            portals.list_metadata(&ListParams::default()).await.map_err(|error| match is_code(&error, 404) {
                true => {
                    ControllerError::NotInstalled("apply the files of crds/ (or `portalkeeper crds`) first".to_owned())
                }
                false => error.into(),
            })?;
        let keys = first
            .items
            .into_iter()
            .map(|portal| PortalKey { namespace: portal.namespace().unwrap_or_default(), name: portal.name_any() });
        context.first_looks.begin(keys, self.readiness);
        context.keep_environment_class().await?;

        let (poke, pokes) = mpsc::unbounded_channel();
        let namespace = context.policy.controller_namespace.clone();
        spawn_until(&self.shutdown, on_change::<PortalClass>(Api::all(client.clone()), poke.clone(), class_version));
        spawn_until(
            &self.shutdown,
            on_change::<SecretObject>(Api::namespaced(client.clone(), &namespace), poke.clone(), version),
        );

        let main = Loop::new(portals, watcher::Config::default());
        let store = main.store();
        let others = store.clone();
        let awaited = move |claim: &PortalClaim| others.state().iter().any(|portal| lost(portal, claim));
        spawn_until(&self.shutdown, on_deletion::<PortalClaim>(Api::all(client.clone()), poke, awaited));
        context.watch_portals(store.clone());
        let mapped = store.clone();
        let shutdown = self.shutdown.clone();
        let with_logo = move |map: ConfigMap| {
            let (namespace, name) = (map.namespace(), map.name_any());
            let concerned = mapped.state().into_iter().filter(move |portal| {
                let logo = portal.spec.branding.logo.as_ref();
                portal.namespace() == namespace && logo.is_some_and(|logo| logo.config_map_name == name)
            });
            concerned.map(|portal| ObjectRef::from_obj(portal.as_ref())).collect::<Vec<_>>()
        };
        spawn_until(&self.shutdown, report_classes(Arc::clone(&context), store));
        spawn_until(&self.shutdown, keep_graveyard(Arc::clone(&context)));
        let keeper = Arc::clone(&context);
        let triggers = debounced(pokes).then(move |settings| {
            let context = Arc::clone(&keeper);
            if settings {
                context.try_tombstones_again();
            }
            async move {
                if let Err(error) = context.keep_environment_class().await {
                    tracing::warn!(reason = error.reason(), "{error}");
                }
            }
        });
        main.watches(Api::<ConfigMap>::all(client), watcher::Config::default(), with_logo)
            .reconcile_all_on(triggers)
            .graceful_shutdown_on(async move { shutdown.wait().await })
            .run(reconcile, retry, context)
            .for_each(|_| std::future::ready(()))
            .await;
        Ok(())
    }
}

async fn reconcile(portal: Arc<ResetPortal>, context: Arc<Context>) -> Result<Action, ControllerError> {
    let looked = context.reconcile(&portal).await;
    // Whatever came of it: this portal holds nobody back any more.
    context.first_looks.done(&portal.key());
    Ok(Action::requeue(looked?))
}

fn retry(portal: Arc<ResetPortal>, error: &ControllerError, context: Arc<Context>) -> Action {
    // A conflict only means that somebody wrote in between: the newer object is on its way.
    if matches!(error, ControllerError::Api(error) if is_code(error, 409)) {
        return Action::requeue(Duration::from_millis(50));
    }
    tracing::warn!(portal = %portal.key(), reason = error.reason(), "a portal could not be looked at: {error}");
    Action::requeue(context.backoff(&portal.key()))
}

fn spawn_until(shutdown: &Shutdown, work: impl Future<Output = ()> + Send + 'static) {
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = work => {}
            () = shutdown.wait() => {}
        }
    });
}

/// What changes with an object's content. Kinds without a generation change with every version.
fn version<K: Resource<DynamicType = ()>>(object: &K) -> Option<u64> {
    match object.meta().generation {
        Some(_) => predicates::generation(object).map(|generation| generation ^ 1),
        None => predicates::resource_version(object),
    }
}

/// A class changes with its approval, too.
fn class_version(class: &PortalClass) -> Option<u64> {
    let approval = super::fuse::approval(class);
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(version(class), approval), &mut hasher);
    Some(std::hash::Hasher::finish(&hasher))
}

/// Pokes when an object's content changes; a status of our own making is no change.
async fn on_change<K>(api: Api<K>, poke: mpsc::UnboundedSender<bool>, version: fn(&K) -> Option<u64>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut known: HashMap<String, Option<u64>> = HashMap::new();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let version = version(&object);
                let name = object.name_any();
                if known.get(&name) != Some(&version) {
                    known.insert(name, version);
                    let _ = poke.send(true);
                }
            }
            Ok(Event::Delete(object)) => {
                known.remove(&object.name_any());
                let _ = poke.send(true);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a watch broke off and starts again"),
        }
    }
}

/// Pokes when an object is gone that somebody waits for.
async fn on_deletion<K>(api: Api<K>, poke: mpsc::UnboundedSender<bool>, awaited: impl Fn(&K) -> bool)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        if let Ok(Event::Delete(object)) = event
            && awaited(&object)
        {
            let _ = poke.send(false);
        }
    }
}

/// Whether a portal wants the name of another one's claim: it may have it when the claim goes.
fn lost(portal: &ResetPortal, claim: &PortalClaim) -> bool {
    let (claim, wanted) = (&claim.spec, &portal.spec);
    let holds = portal.uid().is_some_and(|uid| claim.held_by(&portal.key(), &uid));
    // By the text alone, because there may be many portals: a name that is accepted is written as its claim has it.
    let wants = match (claim.kind, &wanted.host) {
        (ClaimKind::MailDomain, _) => wanted.domain == claim.value,
        (ClaimKind::Host, Some(host)) => *host == claim.value,
        (ClaimKind::Host, None) => {
            let first = claim.value.strip_suffix(&wanted.domain).and_then(|rest| rest.strip_suffix('.'));
            first == Some(wanted.subdomain.as_deref().unwrap_or("reset"))
        }
    };
    wants && !holds
}

/// Several pokes within a tenth of a second are one; `true` where classes or Secrets are among what has changed.
fn debounced(pokes: mpsc::UnboundedReceiver<bool>) -> impl Stream<Item = bool> + Send {
    stream::unfold(pokes, |mut pokes| async move {
        let mut settings = pokes.recv().await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        while let Ok(other) = pokes.try_recv() {
            settings |= other;
        }
        Some((settings, pokes))
    })
}

async fn report_classes(context: Arc<Context>, portals: kube::runtime::reflector::Store<ResetPortal>) {
    loop {
        // Until every portal has been looked at, the store may not have been filled yet: what it does not know then
        // is not gone, neither from the first looks nor from what a class is needed for.
        let pending = context.first_looks.pending();
        let done = match pending {
            true => context.forget_deleted().await,
            false => context.report_classes(&portals).await,
        };
        if let Err(error) = done {
            tracing::warn!(reason = error.reason(), "the classes' status could not be written: {error}");
        }
        // After a start the first report comes as soon as it can.
        let wait = if pending { Duration::from_secs(1) } else { context.timing.class_report };
        tokio::time::sleep(wait.min(context.timing.class_report)).await;
    }
}

impl Context {
    /// A portal that was deleted before its first look never gets one.
    async fn forget_deleted(&self) -> Result<(), ControllerError> {
        let portals: Api<ResetPortal> = Api::all(self.client.clone());
        let there = portals.list_metadata(&ListParams::default()).await?.items;
        let key = |portal: &kube::core::PartialObjectMeta<ResetPortal>| PortalKey {
            namespace: portal.namespace().unwrap_or_default(),
            name: portal.name_any(),
        };
        self.first_looks.forget_others(&there.iter().map(key).collect());
        Ok(())
    }
}

/// In a loop of its own: a system that hangs holds no report up.
async fn keep_graveyard(context: Arc<Context>) {
    loop {
        if let Err(error) = context.finish_tombstones().await {
            tracing::warn!(
                reason = error.reason(),
                "what is left of deleted portals could not be looked after: {error}"
            );
        }
        tokio::time::sleep(context.timing.class_report).await;
    }
}
