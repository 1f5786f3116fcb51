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
mod probe;
mod provider;
mod reconcile;
mod remove;
mod run;
mod runtime;
mod serving;
mod status;
mod tunnel;
pub mod validate;

pub use classes::{ClassSecrets, EnvironmentClass, EnvironmentSecrets};
pub use error::ControllerError;
pub use plan::{PortalPlan, plan};
pub use run::{Controller, Deps, Readiness, Timing};
pub use validate::Policy;
