//! The rules of resetting a password: which portals are served, how links are made, sent and used, and how a
//! portal proves that it is alive.
pub mod directory;
pub mod form;
pub mod link;
pub mod live;
mod mails;
pub mod service;

pub use directory::{ByHand, Directory, Logo, ServedPortal};
pub use service::{ConfirmOutcome, ResetService};
