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
mod harness;
mod lists;
mod managed;
mod namespaces;
mod naming;
mod objects;
mod patches;
mod records;
mod resources;
mod rules;
mod selectors;
mod smoke;
mod strategic;
mod strictness;
mod watches;

pub use harness::{Answer, Server, on_each_server};
