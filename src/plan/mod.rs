//! Pure planning: intents, ownership marks, the difference between observed and desired.
//! No I/O and no clock.
pub mod diff;
pub mod fuse;
pub mod intent;
pub mod mark;
pub mod urgency;

pub use diff::{Blocked, Change, Item, Observed, Plan, Want, plan};
pub use intent::{CertificateMode, Intent};
pub use mark::{InstallationId, Mark, Ownership};
pub use urgency::Urgency;
