//! The command line.
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::app;

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
}

/// Parses the arguments and runs the command; a failure is printed as one line.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Crds { out } => app::crds::run(out.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portalkeeper: {error}");
            ExitCode::FAILURE
        }
    }
}
