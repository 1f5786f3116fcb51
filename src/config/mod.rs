//! Plain values from flags, the process environment and `.env`. Nothing here knows Kubernetes.
pub mod secret;
pub use secret::{Secret, redact};
pub mod files;
