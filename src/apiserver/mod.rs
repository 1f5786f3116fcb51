//! The embedded Kubernetes-compatible API: a stated subset, kept in SQLite.
//!
//! So far: durable objects with a watch log, custom resources by their schemas, and the verbs in process
//! through `kube::Client`. Server-side apply, strategic merge, CEL rules, discovery and the HTTPS front are
//! not there yet; what is not served answers as Kubernetes does, never with a guess.
pub mod catalog;
mod rest;
pub mod schema;
pub mod selector;
pub mod status;
pub mod store;
mod watch;
mod write;

pub use rest::ApiServer;
