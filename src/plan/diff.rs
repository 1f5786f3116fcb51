//! The difference between what is observed and what is wanted, over any backend's items.
//!
//! | observed at the key        | want `Present`            | want `Absent`      | want `Released` |
//! |----------------------------|---------------------------|--------------------|-----------------|
//! | nothing                    | create                    | –                  | –               |
//! | ours (this portal), equal  | –                         | delete             | release         |
//! | ours, different            | update                    | delete             | release         |
//! | ours, of another portal    | blocked                   | –                  | –               |
//! | foreign                    | blocked, or adopt         | –                  | –               |
//! | foreign, not adoptable     | blocked                   | –                  | –               |
//!
//! Things of this portal at keys it neither wants nor keeps are deleted with `Present`, too: a change of host. `Dormant` is
//! like `Absent`, except for what its system can switch off ([`Item::switched_off`]).
use std::collections::HashMap;
use std::fmt::Debug;

use super::mark::{Mark, Ownership};
use super::urgency::Urgency;
use crate::api::{HostName, PortalKey};

/// One thing in an outside system, in the form in which it is read back.
pub trait Item: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// What may exist once: the host name.
    fn key(&self) -> &str;
    /// Whether `self`, as observed, needs no write to be `desired`.
    fn satisfies(&self, desired: &Self) -> bool;
    /// Type and content for people, without secrets: `A record 192.0.2.1`.
    fn describe(&self) -> String;
    /// The certificate that comes with it, in words, where the system sees to certificates.
    fn certificate(&self) -> Option<String> {
        None
    }
    /// Key of the item that is still to be made with it; it is no leftover before.
    fn awaits(&self) -> Option<&str> {
        None
    }
    /// Whether it may be taken over, where it is foreign and its portal says so. Not what serves other names, too, or stands
    /// together with other things: those are somebody's as well, and would be changed or lost with it.
    fn adoptable(&self) -> bool {
        true
    }
    /// Whether its description itself says why it cannot be taken over.
    fn says_why(&self) -> bool {
        false
    }
    /// What stays of it while its portal, whose host this is, is not wanted for now; `None` where it goes.
    fn switched_off(&self, _: &HostName) -> Option<Self> {
        None
    }
}

/// An observed item, with the id the outside system gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed<I> {
    pub id: String,
    pub ownership: Ownership,
    pub item: I,
}

/// What a portal wants of the instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Want<I> {
    /// These items, and nothing else that carries the portal's mark, except what stands at a `keep` name.
    Present { mark: Mark, items: Vec<I>, adopt: bool, keep: Vec<HostName> },
    /// Nothing that carries the mark.
    Absent { mark: Mark },
    /// Nothing that carries the mark, except what can be switched off for this host.
    Dormant { mark: Mark, host: HostName },
    /// Everything that carries the mark stays, without the mark.
    Released { mark: Mark },
}

impl<I> Want<I> {
    pub fn mark(&self) -> &Mark {
        match self {
            Self::Present { mark, .. }
            | Self::Absent { mark }
            | Self::Dormant { mark, .. }
            | Self::Released { mark } => mark,
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<I> {
    Create {
        portal: PortalKey,
        mark: Mark,
        item: I,
    },
    Update {
        portal: PortalKey,
        mark: Mark,
        id: String,
        from: I,
        to: I,
    },
    /// Like an update, of a foreign thing, by explicit adoption.
    Adopt {
        portal: PortalKey,
        mark: Mark,
        id: String,
        from: I,
        to: I,
    },
    Delete {
        portal: PortalKey,
        mark: Mark,
        id: String,
        item: I,
    },
    /// Takes the mark off and leaves the thing.
    Release {
        portal: PortalKey,
        mark: Mark,
        id: String,
        item: I,
    },
}

impl<I: Item> Change<I> {
    pub fn portal(&self) -> &PortalKey {
        match self {
            Self::Create { portal, .. }
            | Self::Update { portal, .. }
            | Self::Adopt { portal, .. }
            | Self::Delete { portal, .. }
            | Self::Release { portal, .. } => portal,
        }
    }
    /// The mark of the portal.
    pub fn mark(&self) -> &Mark {
        match self {
            Self::Create { mark, .. }
            | Self::Update { mark, .. }
            | Self::Adopt { mark, .. }
            | Self::Delete { mark, .. }
            | Self::Release { mark, .. } => mark,
        }
    }
    /// The key of the thing that it changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Create { item, .. } | Self::Delete { item, .. } | Self::Release { item, .. } => item.key(),
            Self::Update { to, .. } | Self::Adopt { to, .. } => to.key(),
        }
    }
    /// The change in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Create { item, .. } => format!("create {} ({})", item.key(), item.describe()),
            Self::Update { from, to, .. } => {
                let (from, into) = (from.describe(), to.describe());
                match from == into {
                    // The words name what matters most of a thing, and not all that is compared.
                    true => format!("put {} right ({into}; something else in it differs)", to.key()),
                    false => format!("update {} from {from} to {into}", to.key()),
                }
            }
            Self::Adopt { from, to, .. } => {
                format!("take over {}: {} becomes {}", to.key(), from.describe(), to.describe())
            }
            Self::Delete { item, .. } => format!("delete {} ({})", item.key(), item.describe()),
            Self::Release { item, .. } => {
                format!("leave {} ({}) in place without our mark", item.key(), item.describe())
            }
        }
    }
}

/// A wish that cannot be met because of a thing that is not this portal's.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocked {
    pub portal: PortalKey,
    pub key: String,
    /// Type and content of what is in the way.
    pub by: String,
    /// There is more than one thing in the way, so that none can be taken over.
    pub several: bool,
    /// The thing is another portal's of this or another installation, rather than unmarked.
    pub marked: bool,
    /// It may be taken over when the portal says so; of several, one of them when it is left alone.
    pub adoptable: bool,
    /// What cannot be taken over says so itself, with the reason.
    pub said: bool,
}

/// Ordered changes (deletions of stale keys last) and what is blocked.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<I> {
    pub changes: Vec<Change<I>>,
    pub blocked: Vec<Blocked>,
    /// Of what is neither a deletion nor a creation.
    pub urgency: Urgency,
}

impl<I> Plan<I> {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.blocked.is_empty()
    }

    /// What a change is for.
    pub fn urgency_of(&self, change: &Change<I>) -> Urgency {
        match change {
            Change::Delete { .. } | Change::Release { .. } | Change::Adopt { .. } => Urgency::Edit,
            Change::Create { .. } | Change::Update { .. } => self.urgency,
        }
    }
}

/// Plans the wants of some portals against a complete observation of the keys and marks they concern.
pub fn plan<I: Item>(wants: &[(PortalKey, Want<I>)], observed: &[Observed<I>]) -> Plan<I> {
    let mut changes = Vec::new();
    let mut late = Vec::new();
    let mut blocked = Vec::new();
    let mut by_key: HashMap<&str, Vec<&Observed<I>>> = HashMap::new();
    let mut by_mark: HashMap<&Mark, Vec<&Observed<I>>> = HashMap::new();
    for o in observed {
        by_key.entry(o.item.key()).or_default().push(o);
        if let Ownership::Marked(mark) = &o.ownership {
            by_mark.entry(mark).or_default().push(o);
        }
    }
    for (portal, want) in wants {
        let mark = want.mark();
        let is_ours = |o: &&Observed<I>| matches!(&o.ownership, Ownership::Marked(other) if other == mark);
        let ours = || by_mark.get(mark).into_iter().flatten().copied();
        match want {
            Want::Present { items, adopt, keep, .. } => {
                let blocked_before = blocked.len();
                for item in items {
                    let at_key = || by_key.get(item.key()).into_iter().flatten().copied();
                    let ours: Vec<_> = at_key().filter(is_ours).collect();
                    let others: Vec<_> = at_key().filter(|o| !is_ours(o)).collect();
                    // Ours may stand beside a foreign one; then ours is kept true and the other is not our business
                    // unless nothing of ours is there.
                    if let Some((first, rest)) = ours.split_first() {
                        if !first.item.satisfies(item) {
                            changes.push(Change::Update {
                                portal: portal.clone(),
                                mark: mark.clone(),
                                id: first.id.clone(),
                                from: first.item.clone(),
                                to: item.clone(),
                            });
                        }
                        late.extend(rest.iter().map(|o| Change::Delete {
                            portal: portal.clone(),
                            mark: mark.clone(),
                            id: o.id.clone(),
                            item: o.item.clone(),
                        }));
                        continue;
                    }
                    match others.as_slice() {
                        [] => changes.push(Change::Create {
                            portal: portal.clone(),
                            mark: mark.clone(),
                            item: item.clone(),
                        }),
                        [only] if *adopt && only.ownership == Ownership::Foreign && only.item.adoptable() => {
                            changes.push(Change::Adopt {
                                portal: portal.clone(),
                                mark: mark.clone(),
                                id: only.id.clone(),
                                from: only.item.clone(),
                                to: item.clone(),
                            });
                        }
                        [first, ..] => blocked.push(Blocked {
                            portal: portal.clone(),
                            key: item.key().to_owned(),
                            by: others.iter().map(|o| o.item.describe()).collect::<Vec<_>>().join(", "),
                            several: others.len() > 1,
                            marked: matches!(first.ownership, Ownership::Marked(_)),
                            adoptable: others.iter().any(|o| o.item.adoptable()),
                            said: others.iter().all(|o| o.item.adoptable() || o.item.says_why()),
                        }),
                    }
                }
                let wanted = |key: &str| items.iter().any(|i| i.key() == key) || keep.iter().any(|k| k.as_str() == key);
                // Who cannot have the new thing keeps the old one.
                let refused = blocked.len() > blocked_before;
                let to_come = |o: &Observed<I>| {
                    let awaited = o.item.awaits().filter(|key| items.iter().any(|item| item.key() == *key));
                    awaited.is_some_and(|key| !ours().any(|o| o.item.key() == key))
                };
                let stale = ours().filter(|o| !refused && !wanted(o.item.key()) && !to_come(o));
                late.extend(stale.map(|o| Change::Delete {
                    portal: portal.clone(),
                    mark: mark.clone(),
                    id: o.id.clone(),
                    item: o.item.clone(),
                }));
            }
            Want::Absent { .. } => late.extend(ours().map(|o| Change::Delete {
                portal: portal.clone(),
                mark: mark.clone(),
                id: o.id.clone(),
                item: o.item.clone(),
            })),
            Want::Dormant { host, .. } => late.extend(ours().filter_map(|o| {
                let (portal, mark, id) = (portal.clone(), mark.clone(), o.id.clone());
                match o.item.switched_off(host) {
                    None => Some(Change::Delete { portal, mark, id, item: o.item.clone() }),
                    Some(off) if o.item.satisfies(&off) => None,
                    Some(to) => Some(Change::Update { portal, mark, id, from: o.item.clone(), to }),
                }
            })),
            Want::Released { .. } => late.extend(ours().map(|o| Change::Release {
                portal: portal.clone(),
                mark: mark.clone(),
                id: o.id.clone(),
                item: o.item.clone(),
            })),
        }
    }
    changes.extend(late);
    Plan { changes, blocked, urgency: Urgency::default() }
}
