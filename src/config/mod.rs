//! Plain values from the outside: secrets, files, the environment.
pub mod environment;
pub mod files;
pub mod networks;
pub mod room;
pub mod rules;
pub mod secret;

pub use environment::{ConfigError, Environment};
pub use secret::{Secret, redact};
