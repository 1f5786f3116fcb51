//! The embedded Kubernetes-compatible API: a stated subset, kept in SQLite, used in process through
//! `kube::Client` and over HTTPS by kubectl.
//!
//! What is not served answers as Kubernetes does, never with a guess.
mod accept;
pub mod access;
mod answer;
mod apply;
mod body;
mod builtin;
pub mod catalog;
mod causes;
mod cel;
mod celrules;
mod checks;
mod collector;
mod columns;
mod definitions;
mod deletion;
pub mod discovery;
mod eventrules;
mod events;
mod fieldlabels;
mod fieldset;
mod formats;
mod front;
mod gofmt;
mod gotext;
mod ingresses;
mod itself;
mod jsonpatch;
mod jsonpath;
mod kinds;
mod labelparser;
mod leftovers;
mod listoptions;
mod managed;
mod managers;
mod metadata;
mod names;
mod namespaces;
mod naming;
mod openapi;
mod options;
mod ownership;
mod paging;
mod patch;
pub mod protobuf;
mod reading;
mod render;
mod replacement;
mod rest;
mod reviews;
mod rules;
pub mod schema;
pub mod selector;
mod services;
mod shape;
pub mod status;
pub mod store;
mod strategic;
mod strategy;
mod strict;
mod structural;
mod table;
mod tidy;
mod typecheck;
mod typed;
mod validate;
mod verbs;
mod versionparts;
mod watch;
mod write;

pub use access::{Access, AccessError, GivenCertificate};
pub use front::FrontLimits;
pub use rest::ApiServer;

/// Kubernetes version whose behaviour is offered.
pub const VERSION: &str = "v1.36.0";

/// What `GET /version` answers.
fn version_info() -> serde_json::Value {
    serde_json::json!({
        "major": "1", "minor": "36", "gitVersion": format!("{VERSION}+portalkeeper"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}
