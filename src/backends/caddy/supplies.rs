//! The hosts' certificates of the Origin CA in Caddy: before their routes, and taken away after.
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;

use super::admin::{OnBehalf, Outcome, Part, REMOVED, TRIES, WRITTEN, overtaken};
use super::certificates;
use super::identity::route_id;
use super::routes::Route;
use super::{CERTIFICATES, Caddy, SERVERS, servers};
use crate::backends::origin_ca::certified::needy;
use crate::backends::origin_ca::kept::Own;
use crate::backends::origin_ca::supply::{Needed, Supply};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{Change, Mark};

/// A host's certificate that is to go.
struct Ending<'a> {
    mark: &'a Mark,
    host: &'a str,
    /// It stays without our tags.
    released: bool,
    /// Its route goes, too; otherwise it is left over.
    with_route: bool,
}

fn ending(change: &Change<Route>) -> Option<Ending<'_>> {
    let (Change::Delete { mark, item, .. } | Change::Release { mark, item, .. }) = change else { return None };
    let released = matches!(change, Change::Release { .. });
    Some(Ending { mark, host: item.name(), released, with_route: !item.is_leftover() })
}

impl Caddy {
    /// What there is of ours, where it matters: where certificates are wanted, and once where they may be left over
    /// from former settings.
    pub(super) async fn own_certificates(&self) -> Result<Vec<Own>, BackendError> {
        let wanted = self.supply.is_wanted();
        if !wanted && self.no_leftovers.load(Relaxed) {
            return Ok(Vec::new());
        }
        match self.admin.list(CERTIFICATES).await {
            Ok(list) => {
                let found = certificates::ours(list.items(), self.supply.now());
                self.no_leftovers.store(found.is_empty(), Relaxed);
                self.supply.remember(&found);
                Ok(found)
            }
            // Whoever may not read certificates has none there.
            Err(error) if !wanted && error.class != ErrorClass::Unavailable => {
                self.no_leftovers.store(true, Relaxed);
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Sees to it that Caddy has the certificates that the changes need; tells which changes have to wait, and why.
    pub(super) async fn supply(&self, changes: &[Change<Route>]) -> BTreeMap<usize, BackendError> {
        let needy = needy(changes);
        if needy.is_empty() {
            return BTreeMap::new();
        }
        let list = match self.admin.list(CERTIFICATES).await {
            Ok(list) => list,
            Err(error) => return needy.into_iter().map(|one| (one.index, error.clone())).collect(),
        };
        let has = certificates::ours(list.items(), self.supply.now());
        let needy = needy.into_iter().filter(|one| !Supply::has(&has, one)).collect();
        let (new, mut waiting) = self.supply.sign(needy).await;
        if new.is_empty() {
            return waiting;
        }
        let on_behalf: Vec<_> = new.iter().map(|(one, _)| (&one.mark, WRITTEN)).collect();
        let change = |entries: &[Value]| {
            new.iter().fold(entries.to_vec(), |entries, (one, signed)| {
                certificates::with(&entries, &one.mark, &one.host, signed)
            })
        };
        if let Err(error) = self.change_certificates(list, change, &on_behalf).await {
            waiting.extend(new.iter().map(|(one, _)| (one.index, error.clone())));
        }
        waiting
    }

    /// Takes away the certificates whose routes are gone.
    pub(super) async fn discard(&self, changes: &[Change<Route>], needed: &Needed) -> Result<(), BackendError> {
        let kept = |one: &Ending| needed.contains(&(one.mark.clone(), one.host.to_owned()));
        let mut gone: Vec<_> = changes.iter().filter_map(ending).filter(|one| !kept(one)).collect();
        if gone.is_empty() || (!self.supply.is_wanted() && self.no_leftovers.load(Relaxed)) {
            return Ok(());
        }
        if gone.iter().any(|one| one.with_route) {
            // Of a route that was there twice one stays, and needs its certificate.
            let servers = self.admin.read(SERVERS).await?.value;
            let stays = |one: &Ending| servers::has_route(&servers, |id| id == route_id(one.mark, one.host));
            gone.retain(|one| !one.with_route || !stays(one));
        }
        let list = self.admin.list(CERTIFICATES).await?;
        let had = certificates::ours(list.items(), self.supply.now());
        let on_behalf: Vec<_> = gone.iter().map(|one| (one.mark, REMOVED)).collect();
        let change = |entries: &[Value]| {
            gone.iter().fold(entries.to_vec(), |entries, one| match one.released {
                false => certificates::without(&entries, one.mark, one.host),
                true => certificates::released(&entries, one.mark, one.host),
            })
        };
        self.change_certificates(list, change, &on_behalf).await?;
        for Ending { mark, host, .. } in gone.iter().filter(|one| !one.released) {
            let own = had.iter().find(|own| own.mark == **mark && own.host == *host);
            self.supply.removed(mark, host, own.and_then(|own| own.signed.id.clone())).await;
        }
        Ok(())
    }

    /// One guarded write, made again on a newer list while others write, too.
    async fn change_certificates(
        &self,
        mut list: Part,
        change: impl Fn(&[Value]) -> Vec<Value>,
        on_behalf: &[OnBehalf<'_>],
    ) -> Result<(), BackendError> {
        let mut last = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                list = self.admin.list(CERTIFICATES).await?;
            }
            let wanted = change(list.items());
            if wanted == list.items() {
                return Ok(());
            }
            match self.admin.replace(&list, Value::Array(wanted), on_behalf).await? {
                (Outcome::Written, _) => return Ok(()),
                (Outcome::ReadAgain(error), _) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(overtaken))
    }
}
