//! The custom resources of group `portalkeeper.dev`, their conditions and their validated names.
// Several printer columns of one type are no duplicates, whatever the lint thinks of `type_`.
#![allow(clippy::duplicated_attributes)]

use kube::core::Rule;

use crate::config::rules::{Exception, TextRule};

pub mod claim;
pub mod class;
pub mod clock;
pub mod condition;
pub mod ingress;
mod moves;
pub mod names;
pub mod origin;
pub mod portal;
pub mod proxy;
pub mod tunnel;

pub use claim::{PortalClaim, PortalClaimSpec};
pub use class::{PortalClass, PortalClassSpec};
pub use names::{HostName, MailAddress, MailDomain, NameError, PortalKey};
pub use origin::{Origin, OriginError};
pub use portal::{ResetPortal, ResetPortalSpec, ResetPortalStatus};
pub use tunnel::{TunnelError, TunnelId, TunnelOrigin};

/// The rule as a class's definition has it, with the same words.
fn fits(rule: &TextRule) -> Rule {
    Rule::new(format!("self.{}", matches(rule.pattern))).message(rule.words)
}

/// The same for each of a list.
fn all_fit(rule: &TextRule) -> Rule {
    Rule::new(format!("self.all(one, one.{})", matches(rule.pattern))).message(rule.words)
}

/// The same where nothing is allowed as well.
fn fits_or_empty(rule: &TextRule) -> Rule {
    Rule::new(format!("self == '' || self.{}", matches(rule.pattern))).message(rule.words)
}

/// What a text must not be.
fn is_none_of(exception: &Exception) -> Rule {
    Rule::new(format!("!self.{}", matches(exception.pattern))).message(exception.words)
}

fn matches(pattern: &str) -> String {
    // Backslashes are doubled inside a text of CEL.
    format!("matches('{}')", pattern.replace('\\', r"\\"))
}

/// API group of every custom resource.
pub const GROUP: &str = "portalkeeper.dev";
/// Served and stored version.
pub const VERSION: &str = "v1alpha1";
/// Finalizer that holds a portal until its record and route are gone.
pub const FINALIZER: &str = "portalkeeper.dev/cleanup";
/// Field manager of every write the controller makes.
pub const FIELD_MANAGER: &str = "portalkeeper";
/// Stops all writes for a portal while serving goes on, when `"true"`.
pub const ANNOTATION_PAUSED: &str = "portalkeeper.dev/paused";
/// Takes over a foreign record or route at the portal's name, once, when `"true"`.
pub const ANNOTATION_ADOPT: &str = "portalkeeper.dev/adopt";
/// Says that visitors come to the new place of a move, where only a person can tell; the condition `Moved` has the value.
pub const ANNOTATION_MOVED_BY_HAND: &str = "portalkeeper.dev/moved-by-hand";
/// On a `PortalClass`: lets the held plan of this id go ahead.
pub const ANNOTATION_APPROVE_PLAN: &str = "portalkeeper.dev/approve-plan";
/// Path of a portal at which it is asked for its proof of life.
pub const PROOF_PATH: &str = "/.well-known/portalkeeper/live";
/// Name of the class that is built from the process environment.
pub const ENVIRONMENT_CLASS: &str = "environment";
