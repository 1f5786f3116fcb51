//! Plain values from the outside: secrets, files, the environment.
pub mod environment;
pub mod files;
pub mod networks;
pub mod room;
pub mod rules;
pub mod secret;
mod visible;

pub use environment::{ConfigError, Environment};
pub use secret::{Secret, redact};
pub use visible::{shortened, visible};
