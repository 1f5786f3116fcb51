//! Pure planning: intents, ownership marks, the difference between observed and desired.
//! No I/O and no clock.
pub mod diff;
pub mod intent;
pub mod mark;

pub use diff::{Blocked, Change, Item, Observed, Plan, Want, plan};
pub use intent::{CertificateMode, Intent};
pub use mark::{InstallationId, Mark, Ownership};
