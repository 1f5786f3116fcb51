//! The systems that hold records and routes, one folder each, behind one seam.
//!
//! A backend says what a portal's intent means in its own items (pure), observes what is there, and makes a
//! plan's changes. It never decides: [`crate::plan`] does. One [`Worker`] per instance makes every write.
pub mod caddy;
pub mod cloudflare;
pub mod cloudflare_api;
pub mod cloudflare_tunnel;
pub mod conformance;
pub mod error;
pub mod ingress;
pub mod manual;
pub mod memory;
pub mod npm;
pub mod origin_ca;
pub mod traefik;
pub mod worker;

use std::time::Duration;

use async_trait::async_trait;

use crate::api::condition::Truth;
use crate::api::{HostName, PortalKey};
use crate::plan::{Intent, Item, Mark, Observed, Plan, Urgency};

pub use error::{BackendError, ErrorClass, Place};
pub use worker::{Held, Known, Programmed, Want, Worker};

/// What an observation must be complete for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Everything at these names, whosever it is.
    pub hosts: Vec<HostName>,
    /// Those of them at which something is wanted, so that what somebody else has there matters.
    pub wanted: Vec<HostName>,
    /// The marks of the portals concerned; a system that can tell reports their things at other names, too.
    pub marks: Vec<Mark>,
    /// What the look is for, where reads are counted.
    pub urgency: Urgency,
}

/// Whether the place where a host's things belong can be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Open,
    /// What is there can be looked at and removed, but nothing can be made.
    Closed(BackendError),
    /// It cannot be found or asked: what may be there is not known. A permanent error says that it is not to be seen with
    /// these credentials at all, which is no proof that nothing is there.
    Nowhere(BackendError),
}

/// Who waits for a limit of an outside system, and where each stands.
pub trait Queue: Send + Sync {
    /// The portal's work was refused for the limit. It keeps its place if it has one.
    fn enter(&self, portal: &PortalKey, urgency: Urgency);
    /// The portal's work got through, or is not wanted any more.
    fn leave(&self, portal: &PortalKey);
    /// The number of its turn, smaller for those who came earlier.
    fn order(&self, portal: &PortalKey) -> Option<u64>;
    fn place(&self, portal: &PortalKey) -> Option<Place>;
}

/// What an instance itself says about something that was written into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Key of the item.
    pub key: String,
    /// `False`: it says that it does not work. `Unknown`: it cannot tell, or not yet. `True`: it works, and there is
    /// something to say about it.
    pub truth: Truth,
    pub reason: &'static str,
    pub message: String,
}

/// Something that a portal's owner should hear of once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Reason of the event.
    pub reason: &'static str,
    pub message: String,
}

/// One instance of one kind of outside system.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    type Item: Item;

    /// Name for status and logs: `cloudflare`, `caddy/127.0.0.1:2019`.
    fn instance(&self) -> String;

    /// What the intent means here, in the form in which it will be read back. Pure.
    fn desired(&self, intent: &Intent) -> Vec<Self::Item>;

    /// Reads; changes nothing. The answer is complete for the scope or it is an error: a failed or partial
    /// read is never "empty".
    async fn observe(&self, scope: &Scope) -> Result<Vec<Observed<Self::Item>>, BackendError>;

    /// Makes the plan's changes and tells the outcome of each, in order: the id the system gave, or why
    /// not. Idempotent: creating what is there with our mark and deleting what is gone are successes. One
    /// failed change does not stop the others.
    async fn apply(&self, plan: &Plan<Self::Item>) -> Vec<Result<Option<String>, BackendError>>;

    /// Keeps up what all portals of the instance share, before a batch that may write. What cannot be kept up is told by
    /// [`Backend::doubts`].
    async fn upkeep(&self, _: &Mark) {}

    /// What there is to say about items that are written, beyond that they are. Asked after each batch; while a doubt is
    /// not `True`, the state is looked at again before the drift interval ends.
    async fn doubts(&self, _: &[Self::Item]) -> Vec<Doubt> {
        Vec::new()
    }

    /// What there is to say about the last writes for this portal beyond that they are done, such as what they may have
    /// cost others; each is told once.
    fn remarks(&self, _: &Mark) -> Vec<Remark> {
        Vec::new()
    }

    /// What a host's wants are worked on with: one after the other within a lane, lanes beside each other. `None` where
    /// that must be found out by [`Backend::discover`] first.
    fn lane(&self, _: &HostName) -> Option<String> {
        Some(String::new())
    }

    /// Finds out the lanes of hosts, and for each host whether it can be worked on.
    async fn discover(&self, hosts: &[HostName], _: Urgency) -> Vec<Reach> {
        hosts.iter().map(|_| Reach::Open).collect()
    }

    /// Reads are scarce here: what was verified before a restart is believed for the rest of the drift interval, what was
    /// never made is made without a look, and refusals are not tried again at once.
    fn spares_reads(&self) -> bool {
        false
    }

    /// The limit that calls wait for.
    fn queue(&self) -> Option<&dyn Queue> {
        None
    }

    /// How often to ask for [`Backend::hints`].
    fn hint_interval(&self) -> Option<Duration> {
        None
    }

    /// Names at which somebody else has changed something of late, where the system can tell. Never complete.
    async fn hints(&self) -> Vec<String> {
        Vec::new()
    }

    /// Who changed the thing at this name last, where the system can tell.
    fn actor(&self, _: &str) -> Option<String> {
        None
    }

    /// What is remembered about a host may be wrong.
    fn forget(&self, _: &HostName) {}

    /// Whether an `Unknown` doubt is one that no further look can answer, only a proof of life. The state is then believed
    /// for the drift interval all the same.
    fn proof_decides(&self) -> bool {
        false
    }

    /// A lone want waits this long for others that belong to one burst with it.
    fn gather(&self) -> Duration {
        Duration::from_millis(10)
    }

    /// How long a verified state is believed without a look.
    fn drift_interval(&self) -> Duration;

    /// Reason of a condition when a foreign thing is in the way: `ForeignRecord`.
    fn conflict_reason(&self) -> &'static str;
}
