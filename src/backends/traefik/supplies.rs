//! The hosts' certificates of the Origin CA in the folder: before their routes, and taken away after.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::certificates;
use super::{Body, Route, Traefik, beside};
use crate::api::HostName;
use crate::backends::origin_ca::certified::needy;
use crate::backends::origin_ca::supply::{Needed, Needy, Supply};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{Change, Mark};

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
        let needy = needy(changes);
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
