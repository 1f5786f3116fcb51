//! Wiring: what each command does with the parts.
pub mod backup;
mod connect;
pub mod crds;
pub mod daemon;
pub mod data;
mod environment;
pub mod install;
pub mod manifests;
pub mod places;
pub mod plan;
pub mod recovery;
pub mod sandbox;
pub mod show;
pub mod snippets;
mod standalone;

pub use daemon::{AppError, RunOptions, run};
pub use standalone::{StandaloneOptions, standalone};
