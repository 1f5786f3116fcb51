//! Routes that want certificates of the Origin CA, whatever the proxy: which changes need one, and what is seen of them.
use std::collections::BTreeMap;

use super::kept::{Own, Tls};
use super::supply::{Needed, Needy};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{Change, Item, Observed, Ownership, Plan};

/// A route of a proxy that has certificates beside its routes.
pub trait Certified: Item {
    fn host(&self) -> &str;
    fn tls(&self) -> &Tls;
    fn set_tls(&mut self, tls: Tls);
    /// A certificate of ours that has no route.
    fn leftover(own: &Own) -> Self;
}

/// The host that a change needs a certificate for.
fn needs<I: Certified>(index: usize, change: &Change<I>) -> Option<Needy> {
    let (Change::Create { mark, item, .. }
    | Change::Update { mark, to: item, .. }
    | Change::Adopt { mark, to: item, .. }) = change
    else {
        return None;
    };
    (*item.tls() == Tls::Wanted).then(|| Needy { index, mark: mark.clone(), host: item.host().to_owned() })
}

/// What the changes need, in their order.
pub fn needy<I: Certified>(changes: &[Change<I>]) -> Vec<Needy> {
    changes.iter().enumerate().filter_map(|(index, change)| needs(index, change)).collect()
}

/// Whose certificates the changes need.
pub fn needed<I: Certified>(changes: &[Change<I>]) -> Needed {
    needy(changes).into_iter().map(|one| (one.mark, one.host)).collect()
}

/// The plan without the changes that wait for their certificates.
pub fn ready<I: Item>(plan: &Plan<I>, waiting: &BTreeMap<usize, BackendError>) -> Plan<I> {
    let ready = plan.changes.iter().enumerate().filter(|(index, _)| !waiting.contains_key(index));
    Plan { changes: ready.map(|(_, change)| change.clone()).collect(), blocked: Vec::new(), urgency: plan.urgency }
}

/// The outcomes of all changes in their order: of those that waited, and of those that were ready.
pub fn in_order(
    count: usize,
    mut waiting: BTreeMap<usize, BackendError>,
    ready: Vec<Result<Option<String>, BackendError>>,
    system: &str,
) -> Vec<Result<Option<String>, BackendError>> {
    let mut ready = ready.into_iter();
    let missing =
        || Err(BackendError::new(ErrorClass::OutcomeUnknown, "NoOutcome", format!("{system} gave no outcome")));
    let outcome = |index| match waiting.remove(&index) {
        Some(error) => Err(error),
        None => ready.next().unwrap_or_else(missing),
    };
    (0..count).map(outcome).collect()
}

/// The routes with the certificates of ours that there are for them, where such are wanted. Certificates without a route,
/// or that are not wanted any more, stand for themselves, by the id of their route: whoever spares that spares them. `id`
/// gives that of a certificate whose route is not there.
pub fn with_certificates<I: Certified>(
    mut routes: Vec<Observed<I>>,
    own: &[Own],
    wanted: bool,
    id: impl Fn(&Own) -> String,
) -> Vec<Observed<I>> {
    let of = |route: &Observed<I>, own: &Own| {
        route.ownership == Ownership::Marked(own.mark.clone()) && route.item.host() == own.host
    };
    let mut used = vec![false; own.len()];
    for route in routes.iter_mut().filter(|route| wanted && matches!(route.ownership, Ownership::Marked(_))) {
        let index = own.iter().position(|own| of(route, own));
        route.item.set_tls(Tls::Held(index.map(|index| own[index].state.clone())));
        index.into_iter().for_each(|index| used[index] = true);
    }
    let left = own.iter().zip(used).filter(|(_, used)| !used).map(|(own, _)| Observed {
        id: routes.iter().find(|route| of(route, own)).map_or_else(|| id(own), |route| route.id.clone()),
        ownership: Ownership::Marked(own.mark.clone()),
        item: I::leftover(own),
    });
    let left: Vec<_> = left.collect();
    routes.extend(left);
    routes
}
