//! `portalkeeper sandbox`: standalone with everything outside simulated, and two portals to look at.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::daemon::{AppError, Daemon, DaemonParts, end_on_signals, listen, manifests_folder};
use super::data::DataDirectory;
use super::install;
use super::standalone::{NAMESPACE, embed};
use crate::api::clock::SystemClock;
use crate::api::{MailAddress, PortalClass, ResetPortal};
use crate::controller::{Policy, Timing};
use crate::http::PublicNames;
use crate::http::shutdown::Shutdown;
use crate::sandbox::{CLOUDFLARE_TOKEN, CNAME_TARGET, MAILBOXES, MXROUTE_KEY, Simulators};
use crate::store::{Recovery, Store};
use crate::web::{Trust, WebOptions};

/// The class of the sandbox.
pub const CLASS: &str = "sandbox";
/// The examples that a new sandbox begins with.
pub const EXAMPLES: [&str; 2] =
    [include_str!("../../manifests/sandbox/acme.yaml"), include_str!("../../manifests/sandbox/globex.yaml")];

/// What `sandbox` was asked.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub api_listen: SocketAddr,
    pub health_listen: SocketAddr,
    pub simulators_listen: SocketAddr,
    pub manifests: Option<PathBuf>,
}

/// Runs until a signal.
pub async fn sandbox(options: SandboxOptions) -> Result<(), AppError> {
    crate::http::install_crypto_provider();
    manifests_folder(options.manifests.as_ref())?;
    let (handle, shutdown) = Shutdown::new();
    let pages = listen(options.listen, "--listen").await?;
    let simulators = listen(options.simulators_listen, "--simulators-listen").await?;
    let api = listen(options.api_listen, "--api-listen").await?;
    let health = listen(options.health_listen, "--health-listen").await?;
    let data = DataDirectory::take(&options.data)?;
    let address = pages.local_addr().unwrap_or(options.listen);
    let simulators = Simulators::start(simulators, address, data.path(), shutdown.clone()).await?;
    let embedded = embed(&data, api, None, &shutdown).await?;
    let client = embedded.client.clone();
    let classes: Api<PortalClass> = Api::all(client.clone());
    let first_start = classes.get_opt(CLASS).await?.is_none();
    for object in class(&simulators, address) {
        install::put(&client, &install::resource(&object), &object).await?;
    }
    let directory = data.path().to_owned();
    if first_start {
        recovery_addresses(&Store::open(&data.join("portalkeeper.db")).await?).await?;
        let portals: Api<ResetPortal> = Api::all(client.clone());
        if portals.list(&ListParams::default()).await?.items.is_empty() {
            for object in examples()? {
                install::put(&client, &install::resource(&object), &object).await?;
            }
        }
    }
    end_on_signals(handle)?;
    if let Some(folder) = options.manifests {
        tokio::spawn(super::manifests::watch(client.clone(), folder, shutdown.clone()));
    }
    let policy = Policy { controller_namespace: NAMESPACE.to_owned(), open_grants: true, admin_host: None };
    let daemon = Daemon::start(DaemonParts {
        client,
        data,
        pages,
        health,
        environment: None,
        policy,
        web: WebOptions { force_https: false, trust: Trust::default() },
        timing: Timing::default(),
        clock: Arc::new(SystemClock),
        names: Arc::new(PublicNames),
        shutdown: shutdown.clone(),
    })
    .await?;
    print!("{}", greeting(address.port(), &simulators, &embedded.kubeconfig, &directory));
    daemon.wait(&shutdown).await
}

/// The documents of the examples.
pub fn examples() -> Result<Vec<Value>, AppError> {
    let mut documents = Vec::new();
    for text in EXAMPLES {
        let read: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| AppError::Example(error.to_string()))?;
        documents.extend(read);
    }
    Ok(documents)
}

/// The class that points at the simulators, with its Secret.
pub fn class(simulators: &Simulators, pages: SocketAddr) -> [Value; 2] {
    let at = |path: &str| format!("{}{path}", simulators.url);
    let secret = |key: &str| json!({"name": "sandbox", "key": key});
    [
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sandbox", "namespace": NAMESPACE}, "type": "Opaque",
            "stringData": {"cloudflare-token": CLOUDFLARE_TOKEN, "mxroute-key": MXROUTE_KEY},
        }),
        json!({
            "apiVersion": "portalkeeper.dev/v1alpha1", "kind": "PortalClass", "metadata": {"name": CLASS},
            "spec": {
                "default": true,
                "cloudflare": {"apiUrl": at("cloudflare/client/v4"), "apiTokenSecretRef": secret("cloudflare-token")},
                "cnameTarget": CNAME_TARGET,
                "proxy": {"caddy": {"adminUrl": at("caddy"), "origin": pages.to_string()}},
                "mailbox": {"mxroute": {
                    "server": "sandbox.mxlogin.localhost", "username": "sandbox", "apiUrl": at("mxroute"),
                    "apiKeySecretRef": secret("mxroute-key"),
                }},
                "smtp": {
                    "host": simulators.sink.address().ip().to_string(), "port": simulators.sink.address().port(),
                    "encryption": "Plain",
                },
                "publicScheme": "http",
                "publicPort": pages.port(),
                "probe": {"address": simulators.edge.to_string()},
            },
        }),
    ]
}

async fn recovery_addresses(store: &Store) -> Result<(), AppError> {
    let address = |text: &str| MailAddress::parse(text).map_err(crate::sandbox::SandboxError::Example);
    let mut entries = Vec::new();
    for (mailbox, recovery) in MAILBOXES {
        entries.push(Recovery { mailbox: address(mailbox)?, address: address(recovery)? });
    }
    store.recovery_set(&entries, jiff::Timestamp::now()).await?;
    Ok(())
}

/// What to open and what to type next.
fn greeting(port: u16, simulators: &Simulators, kubeconfig: &std::path::Path, data: &std::path::Path) -> String {
    let url = &simulators.url;
    let kubectl = format!("kubectl --kubeconfig {}", kubeconfig.display());
    format!(
        "
The sandbox runs. Everything outside is simulated; nothing leaves this machine.

Open in a browser
  a portal page    http://reset.acme.localhost:{port}/       (mailbox ann@acme.localhost)
  another one      http://password.globex.localhost:{port}/  (mailbox carla@globex.localhost)
  the inbox        {url}inbox
  the DNS records  {url}cloudflare/records/ui
  an overview      {url}

Type in another terminal
  {kubectl} get resetportals
  {kubectl} describe resetportal acme
  {kubectl} delete resetportal globex

  kubeconfig       {kubeconfig}
  data             {data} (a second start finds everything again)

Ctrl-C stops all of it.
",
        kubeconfig = kubeconfig.display(),
        data = data.display(),
    )
}
