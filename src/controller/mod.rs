//! The controller: from `ResetPortal` objects to claims, records, routes, served pages and truthful status.
mod claims;
pub mod classes;
mod context;
mod environment;
mod error;
mod findings;
mod leaving;
mod logo;
mod npm;
mod outside;
mod plan;
pub mod probe;
mod provider;
mod reconcile;
mod remove;
mod run;
mod runtime;
mod schedule;
mod serving;
pub mod sighting;
mod status;
pub mod validate;

pub use classes::{ClassSecrets, EnvironmentClass, EnvironmentSecrets};
pub use error::ControllerError;
pub use plan::{PortalPlan, plan};
pub use run::{Controller, Deps, Readiness, Timing};
pub use validate::Policy;
