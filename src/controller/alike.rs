//! What two places of a portal have in common: the proxy, the route, where the record leads. Pure.
use super::outside::Outside;
use super::remove::UNKNOWN;
use super::runtime::{ClassRuntime, Shared};
use super::validate::ValidPortal;
use crate::api::HostName;
use crate::api::portal::MadeResource;

/// Whether both are one system.
pub(super) fn same(a: &Option<Shared>, b: &Option<Shared>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a.worker.instance() == b.worker.instance())
}

/// Whether a move between these places changes where the record leads, or which proxy serves it: then the new route is
/// proved first. `from` is where the record leads now.
pub(super) fn flips(old: &ClassRuntime, class: &ClassRuntime, from: &Option<HostName>, valid: &ValidPortal) -> bool {
    let manual = old.proxy.is_none() && class.proxy.is_none();
    let there = manual || same(&old.proxy, &class.proxy);
    !(there && *from == valid.cname_target)
}

/// Whether the new route takes the place of the former one, in the same proxy by other settings.
pub(super) fn replaces(old: &ClassRuntime, class: &ClassRuntime) -> bool {
    same(&old.proxy, &class.proxy)
        && matches!((&old.proxy, &class.proxy), (Some(former), Some(present)) if !former.is(present))
}

/// Whether a route for the portal's host was made in the class's proxy.
pub(super) fn has_route(class: &ClassRuntime, valid: &ValidPortal, made: &[MadeResource]) -> bool {
    let system = class.proxy.as_ref().map(|shared| shared.worker.instance());
    made.iter().any(|made| Some(made.system.as_str()) == system && made.name == valid.host.as_str())
}

/// Whether a record for the portal's host was made through the class's account.
pub(super) fn has_record(class: &ClassRuntime, host: &HostName, made: &[MadeResource]) -> bool {
    let system = class.dns.as_ref().map(|shared| shared.worker.instance());
    made.iter().any(|made| Some(made.system.as_str()) == system && made.name == host.as_str())
}

/// Whether the route for the host is in the class's proxy, though it was never made there: then it is the one that was
/// made under another address of the same proxy. `seen` is a look that wrote nothing.
pub(super) fn is_there_already(
    class: &ClassRuntime,
    host: &HostName,
    seen: &Outside,
    made: &[MadeResource],
    left_behind: &[MadeResource],
) -> bool {
    let Some(system) = class.proxy.as_ref().map(|shared| shared.worker.instance()) else { return false };
    let there = |made: &MadeResource| made.system == system && made.name == host.as_str();
    let may_be = |made: &MadeResource| there(made) || (made.system == UNKNOWN && made.name == host.as_str());
    let known = made.iter().chain(left_behind).any(may_be);
    seen.resources.iter().any(there) && !known
}

/// Of one proxy by two addresses, what was made by one was made by the other: else it would look like another's later.
pub(super) fn rename(made: &mut Vec<MadeResource>, from: &ClassRuntime, to: &ClassRuntime) {
    let system = |class: &ClassRuntime| class.proxy.as_ref().map(|shared| shared.worker.instance().to_owned());
    let (Some(from), Some(to)) = (system(from), system(to)) else { return };
    let (renamed, rest): (Vec<MadeResource>, Vec<MadeResource>) = made.drain(..).partition(|one| one.system == from);
    *made = rest;
    for one in renamed {
        if !made.iter().any(|other| other.system == to && other.name == one.name) {
            made.push(MadeResource { system: to.clone(), ..one });
        }
    }
}

/// What was verified of the route may be past: the same proxy may have been written by another class's settings since.
pub(super) fn look_anew(class: &ClassRuntime, valid: &ValidPortal) {
    class.proxy.iter().for_each(|shared| shared.worker.forget(&valid.key));
}

/// Record and route of different classes.
pub(super) fn mixed(class: &ClassRuntime, dns: &Option<Shared>, proxy: &Option<Shared>) -> ClassRuntime {
    let (class, dns, proxy) = (class.class.clone(), dns.clone(), proxy.clone());
    ClassRuntime { class, dns, proxy, account: None, mailer: None, facts: Default::default() }
}
