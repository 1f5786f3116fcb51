//! `portalkeeper standalone`: one machine, no cluster, with the embedded API.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::daemon::{
    AppError, Daemon, DaemonParts, end_on_signals, environment, listen, manifests_folder, policy, web_options,
};
use super::data::DataDirectory;
use super::install;
use crate::api::clock::SystemClock;
use crate::apiserver::{Access, ApiServer, GivenCertificate};
use crate::controller::Timing;
use crate::http::PublicNames;
use crate::http::shutdown::Shutdown;

/// The controller's own namespace in the embedded API.
pub const NAMESPACE: &str = "portalkeeper";

/// What `standalone` was asked.
#[derive(Debug, Clone)]
pub struct StandaloneOptions {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub api_listen: SocketAddr,
    /// The API's certificate, if it is not to be one of its own.
    pub api_certificate: Option<GivenCertificate>,
    pub health_listen: SocketAddr,
    /// Folder of YAML documents that is kept applied.
    pub manifests: Option<PathBuf>,
}

/// A client of the embedded API, and what kubectl needs to reach it.
pub struct Embedded {
    pub client: kube::Client,
    pub kubeconfig: PathBuf,
}

/// Opens the embedded API in a data directory and serves it.
pub async fn embed(
    data: &DataDirectory,
    listener: tokio::net::TcpListener,
    certificate: Option<&GivenCertificate>,
    shutdown: &Shutdown,
) -> Result<Embedded, AppError> {
    data.check_api_files()?;
    let server = ApiServer::open(&data.join("api.db"), Arc::new(SystemClock)).await?;
    let client = server.client("default");
    install::definitions(&client).await?;
    let address = listener.local_addr().map_err(AppError::Signals)?;
    let access = match certificate {
        Some(given) => Access::given(data.path(), address, given)?,
        None => Access::prepare(data.path(), address)?,
    };
    let kubeconfig = access.kubeconfig.clone();
    tokio::spawn(server.clone().listen(listener, access, shutdown.clone()));
    tokio::spawn(server.clone().sweep_events(shutdown.clone()));
    Ok(Embedded { client, kubeconfig })
}

/// Runs until a signal.
pub async fn standalone(options: StandaloneOptions) -> Result<(), AppError> {
    crate::http::install_crypto_provider();
    let environment = environment()?;
    let policy = policy(&environment, NAMESPACE, true)?;
    manifests_folder(options.manifests.as_ref())?;
    let (handle, shutdown) = Shutdown::new();
    let pages = listen(options.listen, "--listen").await?;
    let api = listen(options.api_listen, "--api-listen").await?;
    let health = listen(options.health_listen, "--health-listen").await?;
    let data = DataDirectory::take(&options.data)?;
    let embedded = embed(&data, api, options.api_certificate.as_ref(), &shutdown).await?;
    end_on_signals(handle)?;
    if let Some(folder) = options.manifests {
        tokio::spawn(super::manifests::watch(embedded.client.clone(), folder, shutdown.clone()));
    }
    let address = pages.local_addr().unwrap_or(options.listen);
    let daemon = Daemon::start(DaemonParts {
        client: embedded.client.clone(),
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
    println!("Pages       http://{address}/ (by the portals' host names)");
    println!("kubeconfig  {}", embedded.kubeconfig.display());
    println!("Try         kubectl --kubeconfig {} get resetportals -A", embedded.kubeconfig.display());
    daemon.wait(&shutdown).await
}
