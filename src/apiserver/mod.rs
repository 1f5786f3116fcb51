//! The embedded Kubernetes-compatible API: a stated subset, kept in SQLite.
//!
//! So far: durable objects with a watch log ([`store`]) and structural schemas ([`schema`]).
pub mod schema;
pub mod store;
