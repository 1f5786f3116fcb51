//! The same scenarios against the embedded API and, where one is named, a real API server:
//!
//! ```sh
//! PORTALKEEPER_PARITY_KUBECONFIG=~/.kube/config cargo test parity::
//! ```
//!
//! Each scenario speaks plain HTTP or `kube::Client` and knows nothing of the server but what the Kubernetes
//! documentation promises. What only a real server offers is listed in `docs/embedded-api.md`.
mod apply;
mod builtins;
mod definitions;
mod deletions;
mod discovery;
mod harness;
mod kubectl;
mod lists;
mod managed;
mod namespaces;
mod naming;
mod negotiation;
mod objects;
mod openapi;
mod parameters;
mod patches;
mod protobuf;
mod records;
mod refusals;
mod resources;
mod reviews;
mod rules;
mod selectors;
mod smoke;
mod strategic;
mod strictness;
mod tables;
mod watches;

pub use harness::{Answer, Server, on_each_server};
