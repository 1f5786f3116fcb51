//! The command line.
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app::{self, snippets::SnippetsOptions};

/// Branded password reset portals, declared as Kubernetes objects.
#[derive(Debug, Parser)]
#[command(name = "portalkeeper", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the custom resource definitions as YAML, or write them to a folder, one file each.
    Crds {
        /// Folder to write to; without it they are printed.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Print what to put into nginx, Caddy, HAProxy or Apache for a portal, and the record to publish.
    Snippets {
        /// The portal's public host, `reset.example.com`.
        host: String,
        /// Where the proxy finds Portalkeeper.
        #[arg(long, env = "MANUAL_PROXY_ORIGIN", default_value = "127.0.0.1:5000", value_name = "HOST:PORT")]
        origin: String,
        /// Public name that the portals' CNAMEs point to.
        #[arg(long, env = "RESET_PORTAL_CNAME_TARGET", value_name = "HOST")]
        cname_target: Option<String>,
        /// Only this proxy: nginx, caddy, haproxy or apache.
        #[arg(long)]
        proxy: Option<String>,
    },
}

/// Parses the arguments and runs the command; a failure is printed as one line.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Crds { out } => app::crds::run(out.as_deref()).map_err(|error| error.to_string()),
        Command::Snippets { host, origin, cname_target, proxy } => {
            app::snippets::text(&SnippetsOptions { host, origin, cname_target, proxy })
                .map(|text| print!("{text}"))
                .map_err(|error| error.to_string())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("portalkeeper: {message}");
            ExitCode::FAILURE
        }
    }
}
