//! The command line.
pub mod reference;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::apiserver::GivenCertificate;
use crate::app::plan::PlanOptions;
use crate::app::sandbox::SandboxOptions;
use crate::app::show::ShowOptions;
use crate::app::snippets::{DEFAULT_ORIGIN, Setting, SnippetsError, SnippetsOptions};
use crate::app::{self, RunOptions, StandaloneOptions, data};
use crate::telemetry;

/// Branded password reset portals, declared as Kubernetes objects.
#[derive(Debug, Parser)]
#[command(name = "portalkeeper", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Which log lines are written to standard error: levels, also per module.
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// How log lines look.
    #[arg(long, global = true, env = "LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run with a Kubernetes cluster: the one this process is in, or the one of KUBECONFIG.
    Run {
        #[command(flatten)]
        data: Data,
        /// Where the pages are served.
        #[arg(long, default_value = "0.0.0.0:5000", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Where health, readiness and metrics are served.
        #[arg(long, default_value = "0.0.0.0:9090", value_name = "ADDRESS:PORT")]
        health_listen: SocketAddr,
        /// The controller's own namespace, where the classes' Secrets are.
        #[arg(long, env = "POD_NAMESPACE", default_value = "portalkeeper")]
        namespace: String,
    },
    /// Run on one machine without a cluster, with an embedded Kubernetes-compatible API.
    Standalone {
        #[command(flatten)]
        data: Data,
        #[command(flatten)]
        ports: Ports,
        #[command(flatten)]
        certificate: ApiCertificate,
        /// Folder of YAML files that is applied at start and whenever it changes.
        #[arg(long, value_name = "DIR")]
        manifests: Option<PathBuf>,
    },
    /// Run with everything outside simulated, and two portals to look at. Needs no account.
    Sandbox {
        /// Where everything is kept.
        #[arg(long, env = "PORTALKEEPER_SANDBOX_DATA", value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(flatten)]
        ports: Ports,
        /// Where the simulators and the inbox are served.
        #[arg(long, default_value = "127.0.0.1:5001", value_name = "ADDRESS:PORT")]
        simulators_listen: SocketAddr,
        /// Folder of YAML files that is applied at start and whenever it changes.
        #[arg(long, value_name = "DIR")]
        manifests: Option<PathBuf>,
    },
    /// Print what would change outside; change nothing.
    Plan {
        #[command(flatten)]
        data: Data,
        /// The cluster; without it the kubeconfig of the data directory, then the usual places.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// The controller's own namespace.
        #[arg(long, env = "POD_NAMESPACE", default_value = "portalkeeper")]
        namespace: String,
    },
    /// Print every portal with its state, as `kubectl get resetportals -A` would.
    Get {
        #[command(flatten)]
        data: Data,
        /// The cluster; without it the kubeconfig of the data directory, then the usual places.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Print one portal's conditions, what was made for it, and its events.
    Describe {
        name: String,
        /// The portal's namespace.
        #[arg(long, short, default_value = "default")]
        namespace: String,
        #[command(flatten)]
        data: Data,
        /// The cluster; without it the kubeconfig of the data directory, then the usual places.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Copy the data into a new folder, also while the program runs.
    Backup {
        #[command(flatten)]
        data: Data,
        /// Folder that is made; it will hold Secrets.
        to: PathBuf,
    },
    /// Put a backup back, while the program is stopped; what was there is kept beside it.
    Restore {
        #[command(flatten)]
        data: Data,
        /// Folder that `backup` made.
        from: PathBuf,
    },
    /// Set and list the addresses to which reset links are sent.
    Recovery {
        /// Where everything is kept; without it ~/.local/share/portalkeeper.
        #[arg(long, global = true, env = "PORTALKEEPER_DATA", value_name = "DIR")]
        data: Option<PathBuf>,
        #[command(subcommand)]
        command: RecoveryCommand,
    },
    /// Print the custom resource definitions as YAML, or write them to a folder, one file each.
    Crds {
        /// Folder to write to; without it they are printed.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Write the reference pages of the documentation.
    #[command(hide = true)]
    Reference {
        /// Folder to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print what to put into a proxy by hand, for a portal or for the program itself, and the record to publish.
    Snippets {
        /// The public host, `reset.example.com`.
        host: String,
        /// Where the proxy finds Portalkeeper; without it MANUAL_PROXY_ORIGIN, else 127.0.0.1:5000.
        #[arg(long, value_name = "HOST:PORT")]
        origin: Option<String>,
        /// Public name that the portals' CNAMEs point to; without it RESET_PORTAL_CNAME_TARGET.
        #[arg(long, value_name = "HOST")]
        cname_target: Option<String>,
        /// Only this proxy: nginx, nginx-old, caddy, haproxy, apache, traefik, swag, ingress, npm or pangolin.
        #[arg(long)]
        proxy: Option<String>,
        /// What stands before the proxy: cloudflare (a proxied record) or direct.
        #[arg(long, default_value = "cloudflare")]
        edge: String,
        /// The host is that of the program itself (ADMIN_HOST) and not of a portal.
        #[arg(long)]
        main_app: bool,
    },
}

/// What to do with recovery addresses.
#[derive(Debug, Subcommand)]
pub enum RecoveryCommand {
    /// Set one mailbox's recovery address.
    Set { mailbox: String, address: String },
    /// Print every mailbox with its recovery address.
    List,
    /// Import a file with one `mailbox,address` a line, all or nothing.
    Import { file: PathBuf },
    /// Remove one mailbox's recovery address.
    Remove { mailbox: String },
}

/// Where data is kept.
#[derive(Debug, Args)]
pub struct Data {
    /// Where everything is kept; without it ~/.local/share/portalkeeper.
    #[arg(long, env = "PORTALKEEPER_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl Data {
    fn directory(self) -> PathBuf {
        self.data.unwrap_or_else(|| data::default_directory("portalkeeper"))
    }
}

/// The ports of a machine of its own; port 0 takes a free one.
#[derive(Debug, Args)]
pub struct Ports {
    /// Where the pages are served.
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where the embedded Kubernetes API is served, over HTTPS.
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDRESS:PORT")]
    pub api_listen: SocketAddr,
    /// Where health, readiness and metrics are served.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS:PORT")]
    pub health_listen: SocketAddr,
}

/// A certificate of one's own for the embedded API.
#[derive(Debug, Args)]
pub struct ApiCertificate {
    /// Certificate of the embedded API with its chain, PEM; without it one of an own authority is made.
    #[arg(long, requires = "api_tls_key", value_name = "FILE")]
    pub api_tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "api_tls_cert", value_name = "FILE")]
    pub api_tls_key: Option<PathBuf>,
    /// Authority that the kubeconfig is to trust, PEM; without it what the system trusts.
    #[arg(long, requires = "api_tls_cert", value_name = "FILE")]
    pub api_tls_ca: Option<PathBuf>,
}

impl ApiCertificate {
    fn given(self) -> Option<GivenCertificate> {
        let (certificate, key) = self.api_tls_cert.zip(self.api_tls_key)?;
        Some(GivenCertificate { certificate, key, authority: self.api_tls_ca })
    }
}

/// Parses the arguments and runs the command; a failure is printed as one line or a short list.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    // A variable names the directory for every command; only the flag says that it is meant here.
    let named = matches.subcommand().is_some_and(|(_, given)| {
        given.try_contains_id("data").is_ok() && given.value_source("data") == Some(ValueSource::CommandLine)
    });
    let format = match cli.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    let done =
        telemetry::init(format, &cli.log).map_err(|error| error.to_string()).and_then(|()| execute(cli.command, named));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("portalkeeper: {message}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, named: bool) -> Result<(), String> {
    match command {
        Command::Reference { out } => {
            for (name, text) in reference::pages() {
                let path = out.join(name);
                std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            }
            Ok(())
        }
        Command::Crds { out } => app::crds::run(out.as_deref()).map_err(|error| error.to_string()),
        Command::Snippets { host, origin, cname_target, proxy, edge, main_app } => {
            let text = || {
                let origin = Setting::given("--origin", origin, "MANUAL_PROXY_ORIGIN")?;
                let origin = origin.unwrap_or_else(|| Setting::new("--origin", DEFAULT_ORIGIN));
                let cname_target = Setting::given("--cname-target", cname_target, "RESET_PORTAL_CNAME_TARGET")?;
                app::snippets::text(&SnippetsOptions { host, origin, cname_target, proxy, edge, main_app })
            };
            text().map(|text| print!("{text}")).map_err(|error: SnippetsError| error.to_string())
        }
        Command::Run { data, listen, health_listen, namespace } => {
            block_on(app::run(RunOptions { data: data.directory(), listen, health_listen, namespace }))
        }
        Command::Standalone { data, ports, certificate, manifests } => block_on(app::standalone(StandaloneOptions {
            data: data.directory(),
            listen: ports.listen,
            api_listen: ports.api_listen,
            api_certificate: certificate.given(),
            health_listen: ports.health_listen,
            manifests,
        })),
        Command::Sandbox { data, ports, simulators_listen, manifests } => {
            block_on(app::sandbox::sandbox(SandboxOptions {
                data: data.unwrap_or_else(|| data::default_directory("portalkeeper-sandbox")),
                listen: ports.listen,
                api_listen: ports.api_listen,
                health_listen: ports.health_listen,
                simulators_listen,
                manifests,
            }))
        }
        Command::Plan { data, kubeconfig, namespace } => {
            let plan = app::plan::text(PlanOptions { data: data.directory(), kubeconfig, namespace });
            block_on(plan).map(|(text, _)| print!("{text}"))
        }
        Command::Get { data, kubeconfig } => {
            let options = ShowOptions { data: data.directory(), named, kubeconfig };
            block_on(app::show::list(&options)).map(|text| print!("{text}"))
        }
        Command::Describe { name, namespace, data, kubeconfig } => {
            let options = ShowOptions { data: data.directory(), named, kubeconfig };
            block_on(app::show::describe(&options, &namespace, &name)).map(|text| print!("{text}"))
        }
        Command::Backup { data, to } => {
            block_on(app::backup::backup(&data.directory(), &to)).map(|text| print!("{text}"))
        }
        Command::Restore { data, from } => {
            block_on(app::backup::restore(&data.directory(), &from)).map(|text| print!("{text}"))
        }
        Command::Recovery { data, command } => {
            let data = Data { data }.directory();
            let work = async {
                match command {
                    RecoveryCommand::Set { mailbox, address } => app::recovery::set(&data, &mailbox, &address).await,
                    RecoveryCommand::List => app::recovery::list(&data).await,
                    RecoveryCommand::Import { file } => app::recovery::import(&data, &file).await,
                    RecoveryCommand::Remove { mailbox } => app::recovery::remove(&data, &mailbox).await,
                }
            };
            block_on(work).map(|text| print!("{text}"))
        }
    }
}

fn block_on<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    let done = runtime.block_on(work).map_err(|error| error.to_string());
    // What still waits for the network need not be waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}
