//! Where a portal stands, where it goes, and what it has left, as its status tells it.
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A class with the settings that it had.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub class_name: String,
    /// Digest of the class's DNS account, proxy and CNAME target; the class's status has what it stands for.
    #[serde(default)]
    pub settings: String,
}

/// A move from the portal's place to another one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    pub to: Place,
    pub stage: MoveStage,
    /// Begin of the stage (RFC 3339).
    pub since: String,
    /// Generation of the spec that is moved.
    pub generation: i64,
    /// The name whose record is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Where the record led when the move began (host name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// TTL in seconds of the record that leads to the former place, 0 where it is proxied; absent where none is known. It
    /// stays so while it leads there, whatever the portal wants by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_seconds: Option<i64>,
    /// Since when the record is seen to lead to the new place (RFC 3339), which may be long after the stage began. After a
    /// roll-back it stays until the record is seen to lead back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flipped: Option<String>,
    /// Whether both places are one proxy, by one address or by two, so that the route was in the new place before anything was
    /// made there; absent while nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_proxy: Option<bool>,
    /// The record led to the new place before the move began, and visitors may still come there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub served: bool,
    /// What tells that visitors come to the new place; absent until the record is to lead there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<Decider>,
    /// What was not as hoped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Move {
    /// Fields that a move may be without.
    pub const OPTIONAL: [&str; 8] =
        ["host", "from", "fromSeconds", "flipped", "oneProxy", "served", "decidedBy", "note"];

    /// Whether the record may lead to the new place, or is about to.
    pub fn is_under_way(&self) -> bool {
        self.stage != MoveStage::RolledBack || self.flipped.is_some()
    }

    /// Whether visitors may be led to the new place by now, so that the move has to come to its end.
    pub fn is_at_risk(&self) -> bool {
        let flips =
            self.stage == MoveStage::Flipped && !matches!(self.decided_by, Some(Decider::Person | Decider::Record));
        flips || self.flipped.is_some()
    }
}

/// What tells that visitors come to the new place of a move.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    /// A proof of life through the public host.
    ProofOfLife,
    /// Somebody's word: both routes have one public address, so that a proof of life may come through either of them.
    Person,
    /// The record, which somebody leads there because the class has no account, or somebody's word.
    Record,
}

/// How far a move has come.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStage {
    /// The new route is made and proved; the record still leads to the old one.
    Proving,
    /// The record leads to the new one, which is to prove itself through the public host.
    Flipped,
    /// It did not, and the record leads to the old one again.
    RolledBack,
}

/// A place that the portal has left.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Leaving {
    pub place: Place,
    /// RFC 3339.
    pub since: String,
    /// The record led there, and visitors may still be led there by it or by what caches remember of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serves: bool,
    /// Since when the record is seen to lead elsewhere (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<String>,
    /// The portal stood there, and has not been proved anywhere else since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stood: bool,
    /// It is the proxy that the portal has now, by another address: nothing of it is to be removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_proxy: bool,
    /// The move there is called off, and only somebody's word tells that visitors do not come there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
}

impl Leaving {
    /// A place to which no record leads any more.
    pub fn unserved(place: Place, since: String) -> Self {
        Self { place, since, serves: false, unserved: None, stood: false, one_proxy: false, asks: false }
    }
}
