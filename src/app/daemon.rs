//! What `run`, `standalone` and `sandbox` have in common: pages, health port, controller.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::data::{DataDirectory, DataError};
use crate::api::HostName;
use crate::api::clock::{Clock, SystemClock};
use crate::apiserver::AccessError;
use crate::config::room::WriteCheck;
use crate::config::{ConfigError, Environment};
use crate::controller::{Controller, ControllerError, Deps, EnvironmentClass, Policy, Readiness, Timing};
use crate::http::serve::{Limits, serve};
use crate::http::shutdown::{Shutdown, ShutdownHandle};
use crate::http::{Names, PublicNames};
use crate::reset::{Directory, ResetService};
use crate::sandbox::SandboxError;
use crate::store::{Store, StoreError};
use crate::web::{HealthPages, Site, SnippetsQuery, Trust, WebOptions, service};

/// Why a command did not do its work. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}: {cause}; choose another address with {flag}")]
    Listen { address: SocketAddr, cause: String, flag: &'static str },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    ApiStore(#[from] crate::apiserver::store::StoreError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the environment has {} wrong value(s):\n{}", .0.len(), list(.0))]
    Environment(Vec<ConfigError>),
    #[error(
        "cannot reach a Kubernetes API: {0}; run in a cluster, set KUBECONFIG, name the data directory of a program that runs here with --data, or use `portalkeeper standalone`"
    )]
    NoCluster(String),
    #[error("the Kubernetes API refused or failed: {0}")]
    Api(Box<kube::Error>),
    #[error("the Kubernetes API at {0} cannot be reached; is the program or the cluster that it belongs to running?")]
    NoAnswer(String),
    #[error("there is no portal {name} in namespace {namespace}; `portalkeeper get` lists them")]
    NoPortal { namespace: String, name: String },
    #[error("cannot read the folder of manifests {path}: {source}; make it, or choose another with --manifests", path = .path.display())]
    Manifests { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("an example cannot be read: {0}")]
    Example(String),
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

fn list(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("  {error}")).collect::<Vec<_>>().join("\n")
}

impl AppError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "CannotListen",
            Self::Data(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::ApiStore(error) => error.reason(),
            Self::Access(error) => error.reason(),
            Self::Environment(_) => "InvalidEnvironment",
            Self::NoCluster(_) => "NoCluster",
            Self::Api(_) => "ApiFailed",
            Self::NoAnswer(_) => "ApiUnreachable",
            Self::NoPortal { .. } => "NoSuchPortal",
            Self::Manifests { .. } => "FolderUnreadable",
            Self::Controller(error) => error.reason(),
            Self::Sandbox(error) => error.reason(),
            Self::Example(_) => "InvalidExample",
            Self::Signals(_) => "SignalsFailed",
        }
    }
}

impl From<kube::Error> for AppError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl AppError {
    /// A failed call to the API at this address.
    pub fn of_call(error: kube::Error, address: &str) -> Self {
        match error {
            kube::Error::Service(_) | kube::Error::HyperError(_) => Self::NoAnswer(address.to_owned()),
            other => other.into(),
        }
    }
}

/// Opens a port, or says which flag chooses another.
pub async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|error| {
        let cause = match error.kind() {
            std::io::ErrorKind::AddrInUse => "the port is in use by another program".to_owned(),
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need special rights".to_owned(),
            _ => error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase(),
        };
        AppError::Listen { address, cause, flag }
    })
}

/// Refuses a folder of manifests that is not there, before anything is started.
pub fn manifests_folder(folder: Option<&PathBuf>) -> Result<(), AppError> {
    let Some(path) = folder else { return Ok(()) };
    std::fs::read_dir(path).map(|_| ()).map_err(|source| AppError::Manifests { path: path.clone(), source })
}

/// The environment, with its warnings logged.
pub fn environment() -> Result<Environment, AppError> {
    let environment = Environment::from_process().map_err(AppError::Environment)?;
    let wrong = super::environment::wrong_names(&environment);
    if !wrong.is_empty() {
        return Err(AppError::Environment(wrong));
    }
    for warning in &environment.warnings {
        tracing::warn!("{warning}");
    }
    Ok(environment)
}

/// Begins the shutdown at the first SIGINT or SIGTERM; the second ends the process at once.
pub fn end_on_signals(handle: ShutdownHandle) -> Result<(), AppError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    tokio::spawn(async move {
        let handle = handle;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        handle.begin();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(())
}

/// What the common part works with.
pub struct DaemonParts {
    pub client: kube::Client,
    pub data: DataDirectory,
    pub pages: TcpListener,
    pub health: TcpListener,
    pub environment: Option<EnvironmentClass>,
    pub policy: Policy,
    pub web: WebOptions,
    pub timing: Timing,
    pub clock: Arc<dyn Clock>,
    /// Where public hosts may be asked.
    pub names: Arc<dyn Names>,
    pub shutdown: Shutdown,
}

/// The running common part.
pub struct Daemon {
    pub store: Store,
    pub readiness: Readiness,
    servers: Vec<JoinHandle<()>>,
    controller: JoinHandle<Result<(), ControllerError>>,
    _data: DataDirectory,
}

impl Daemon {
    pub async fn start(parts: DaemonParts) -> Result<Self, AppError> {
        let DaemonParts { client, data, pages, health, environment, policy, web, timing, clock, names, shutdown } =
            parts;
        let store = Store::open(&data.join("portalkeeper.db")).await?;
        let (directory, readiness) = (Directory::default(), Readiness::default());
        let resets = ResetService::start(store.clone(), Arc::clone(&clock), shutdown.clone());
        let site = Site::new(directory.clone(), resets, web);
        let ready = readiness.clone();
        let is_ready = move || match ready.is_set() {
            true => Ok(()),
            false => Err("the portals have not been read from the API yet".to_owned()),
        };
        let served = directory.clone();
        let (admin_host, own_class) = (policy.admin_host.clone(), environment.as_ref().map(|class| class.spec.clone()));
        let snippets = move |asked: &SnippetsQuery| {
            let text = match served.lookup(&asked.host) {
                Some(portal) => super::snippets::of_portal(&portal, asked),
                None if admin_host.as_ref().is_some_and(|host| host.as_str() == asked.host) => {
                    super::snippets::of_main_app(own_class.as_ref(), asked)
                }
                None => return None,
            };
            Some(text.map_err(|error| error.to_string()))
        };
        let health_pages = HealthPages::new(is_ready, snippets).with_disk(WriteCheck::new(data.path()));
        let servers = vec![
            tokio::spawn(serve(pages, service(site), Limits::sharing(4, 1024), shutdown.clone(), None)),
            tokio::spawn(serve(health, health_pages.service(), Limits::sharing(16, 64), shutdown.clone(), None)),
        ];
        let controller = Controller::new(Deps {
            client,
            store: store.clone(),
            directory,
            clock,
            environment,
            policy,
            timing,
            names,
            readiness: readiness.clone(),
            shutdown,
        });
        let controller = tokio::spawn(controller.run());
        Ok(Self { store, readiness, servers, controller, _data: data })
    }

    /// Runs until shutdown, or until the controller cannot go on.
    pub async fn wait(self, shutdown: &Shutdown) -> Result<(), AppError> {
        let mut controller = self.controller;
        let ended = tokio::select! {
            ended = &mut controller => Some(ended),
            () = shutdown.wait() => None,
        };
        let result = match ended {
            Some(Ok(result)) => result.map_err(AppError::from),
            Some(Err(_)) => Ok(()),
            None => {
                // What was begun outside is finished, within bounds.
                let _ = tokio::time::timeout(std::time::Duration::from_secs(5), controller).await;
                Ok(())
            }
        };
        if result.is_ok() {
            for server in self.servers {
                let _ = server.await;
            }
        }
        result
    }
}

/// What `run` was asked.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub health_listen: SocketAddr,
    /// The controller's own namespace, where the classes' Secrets are.
    pub namespace: String,
}

/// The policy that follows from the environment.
pub fn policy(environment: &Environment, namespace: &str, open_grants: bool) -> Result<Policy, AppError> {
    // Checked when the environment was read.
    let admin_host = environment.admin_host.as_deref().and_then(|host| HostName::parse(host).ok());
    Ok(Policy { controller_namespace: namespace.to_owned(), open_grants, admin_host })
}

/// How the pages are reached, by the environment.
pub fn web_options(environment: &Environment) -> WebOptions {
    let trust = Trust { count: environment.trusted_proxy_count, networks: environment.trusted_proxies.clone() };
    WebOptions { force_https: environment.force_https, trust }
}

/// `portalkeeper run`: with the cluster this process is in, or the one of the kubeconfig.
pub async fn run(options: RunOptions) -> Result<(), AppError> {
    crate::http::install_crypto_provider();
    let environment = environment()?;
    let policy = policy(&environment, &options.namespace, false)?;
    let (handle, shutdown) = Shutdown::new();
    let pages = listen(options.listen, "--listen").await?;
    let health = listen(options.health_listen, "--health-listen").await?;
    let data = DataDirectory::take(&options.data)?;
    let client = kube::Client::try_default().await.map_err(|error| AppError::NoCluster(error.to_string()))?;
    end_on_signals(handle)?;
    let daemon = Daemon::start(DaemonParts {
        client,
        data,
        pages,
        health,
        environment: environment.class.as_ref().map(super::environment::class),
        policy,
        web: web_options(&environment),
        timing: Timing::default(),
        clock: Arc::new(SystemClock),
        names: Arc::new(PublicNames),
        shutdown: shutdown.clone(),
    })
    .await?;
    tracing::info!(pages = %options.listen, health = %options.health_listen, "running");
    daemon.wait(&shutdown).await
}
