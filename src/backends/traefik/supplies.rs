//! The hosts' certificates of the Origin CA in the folder: before their routes, and taken away after.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::certificates;
use super::{Body, Route, Traefik, beside};
use crate::api::HostName;
use crate::backends::origin_ca::kept::{Own, Tls};
use crate::backends::origin_ca::supply::{Needed, Needy, Supply};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{Change, Mark, Observed, Ownership};

/// The routes with the certificates of ours that there are for them, where such are wanted; certificates without a route,
/// or that are not wanted any more, stand for themselves, by the id of their route: whoever spares that spares them.
pub fn with_certificates(mut routes: Vec<Observed<Route>>, own: &[Own], wanted: bool) -> Vec<Observed<Route>> {
    let mut used = vec![false; own.len()];
    for route in routes.iter_mut().filter(|_| wanted) {
        let Ownership::Marked(mark) = &route.ownership else { continue };
        let index = own.iter().position(|own| own.mark == *mark && own.host == route.item.host);
        route.item.tls = Tls::Held(index.map(|index| own[index].state.clone()));
        index.into_iter().for_each(|index| used[index] = true);
    }
    let id = |own: &Own| {
        let of = |route: &&Observed<Route>| {
            route.ownership == Ownership::Marked(own.mark.clone()) && route.item.host == own.host
        };
        let route = routes.iter().find(of).map(|route| route.id.clone());
        route.unwrap_or_else(|| certificates::file_name(&own.mark, &own.host))
    };
    let left = own.iter().zip(used).filter(|(_, used)| !used).map(|(own, _)| Observed {
        id: id(own),
        ownership: Ownership::Marked(own.mark.clone()),
        item: Route::of(format!("certificate for {}", own.host), Body::Leftover(own.host.clone())),
    });
    let left: Vec<_> = left.collect();
    routes.extend(left);
    routes
}

/// The host that a change needs a certificate for.
fn needs(index: usize, change: &Change<Route>) -> Option<Needy> {
    match change {
        Change::Create { mark, item, .. }
        | Change::Update { mark, to: item, .. }
        | Change::Adopt { mark, to: item, .. }
            if item.tls == Tls::Wanted =>
        {
            Some(Needy { index, mark: mark.clone(), host: item.host.clone() })
        }
        _ => None,
    }
}

/// Whose certificates the changes need.
pub fn needed(changes: &[Change<Route>]) -> Needed {
    changes.iter().filter_map(|change| needs(0, change)).map(|one| (one.mark, one.host)).collect()
}

/// The host of a route, or of the certificate that is left over.
fn host(item: &Route) -> &str {
    match &item.body {
        Body::Leftover(host) => host,
        _ => &item.host,
    }
}

impl Traefik {
    /// Sees to it that the folder has the certificates that the changes need; tells which changes have to wait, and why.
    pub(super) async fn supply(&self, changes: &[Change<Route>]) -> BTreeMap<usize, BackendError> {
        let needy: Vec<Needy> = changes.iter().enumerate().filter_map(|(index, change)| needs(index, change)).collect();
        if needy.is_empty() {
            return BTreeMap::new();
        }
        let has = match self.scan().await {
            Ok(files) => certificates::ours(&files, self.supply.now()),
            Err(error) => return needy.into_iter().map(|one| (one.index, error.clone())).collect(),
        };
        let needy = needy.into_iter().filter(|one| !Supply::has(&has, one)).collect();
        let (new, mut waiting) = self.supply.sign(needy).await;
        for (Needy { index, mark, host }, signed) in new {
            let folder = Arc::clone(&self.folder);
            let written = beside(move || {
                let host = HostName::parse(&host)
                    .map_err(|error| BackendError::new(ErrorClass::Permanent, "HostInvalid", error.to_string()))?;
                certificates::write(&folder, &mark, &host, &signed)
            });
            if let Err(error) = written.await {
                waiting.insert(index, error);
            }
        }
        waiting
    }

    /// Takes away the certificate whose route is gone.
    pub(super) async fn discard(&self, change: &Change<Route>, needed: &Needed) -> Result<(), BackendError> {
        if let Change::Delete { mark, item, .. } | Change::Release { mark, item, .. } = change
            && needed.contains(&(mark.clone(), host(item).to_owned()))
        {
            return Ok(());
        }
        let folder = Arc::clone(&self.folder);
        let both = |mark: &Mark, item: &Route| (mark.clone(), host(item).to_owned());
        match change {
            Change::Delete { mark, item, .. } => {
                let (mark, host) = both(mark, item);
                let (of, name) = (mark.clone(), host.clone());
                let id = beside(move || certificates::remove(&folder, &of, &name)).await?;
                self.supply.removed(&mark, &host, id).await;
                Ok(())
            }
            Change::Release { mark, item, .. } => {
                let (mark, host) = both(mark, item);
                beside(move || certificates::release(&folder, &mark, &host)).await
            }
            _ => Ok(()),
        }
    }
}
