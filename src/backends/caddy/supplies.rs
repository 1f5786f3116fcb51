//! Getting the hosts their certificates of the Origin CA before their routes, and taking them away after.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::admin::{List, OnBehalf, Outcome, REMOVED, TRIES, WRITTEN, overtaken};
use super::certificates::{self, Own, Tls};
use super::routes::{Route, route_id};
use super::{CERTIFICATES, Caddy};
use crate::api::HostName;
use crate::api::clock::Clock;
use crate::backends::origin_ca::kept::{State, judge};
use crate::backends::origin_ca::{OriginCa, Signed, Which};
use crate::backends::{BackendError, ErrorClass, origin_ca};
use crate::http::double::lock;
use crate::plan::{Change, Mark};

/// A batch asks for certificates this long; whoever is left comes again.
const LONGEST: Duration = Duration::from_secs(20);

/// Certificates of Cloudflare's Origin CA, where Caddy's own ways are not wanted.
#[derive(Clone)]
pub struct OriginCertificates {
    pub ca: Arc<dyn OriginCa>,
    /// Tells when one has to be replaced.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for OriginCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OriginCertificates")
    }
}

/// Signed certificates that did not get into Caddy yet, by tag: each try would leave another one at Cloudflare.
#[derive(Default)]
pub struct Kept(Mutex<HashMap<String, Signed>>);

/// Host and mark of a change that needs a certificate.
fn needs(change: &Change<Route>) -> Option<(&Mark, &str)> {
    match change {
        Change::Create { mark, item, .. }
        | Change::Update { mark, to: item, .. }
        | Change::Adopt { mark, to: item, .. }
            if item.tls == Tls::Wanted =>
        {
            Some((mark, &item.host))
        }
        _ => None,
    }
}

/// What is to become of a host's certificate when its route goes.
enum End {
    Remove,
    Release,
}

fn ends(change: &Change<Route>) -> Option<(&Mark, &str, End)> {
    match change {
        Change::Delete { mark, item, .. } => Some((mark, item.name(), End::Remove)),
        Change::Release { mark, item, .. } => Some((mark, item.name(), End::Release)),
        _ => None,
    }
}

impl Caddy {
    /// What there is of ours, where it matters: where certificates are wanted, and once where they may be left over
    /// from former settings.
    pub(super) async fn own_certificates(&self) -> Result<Vec<Own>, BackendError> {
        use std::sync::atomic::Ordering::Relaxed;
        let now = self.options.origin_ca.as_ref().map_or(jiff::Timestamp::MIN, |wanted| wanted.clock.now());
        let wanted = self.options.origin_ca.is_some();
        if !wanted && self.no_leftovers.load(Relaxed) {
            return Ok(Vec::new());
        }
        match self.admin.list(CERTIFICATES).await {
            Ok(list) => {
                let found = certificates::ours(list.items(), now);
                self.no_leftovers.store(found.is_empty(), Relaxed);
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
        let needy: Vec<_> = changes.iter().enumerate().filter_map(|(i, change)| Some((i, needs(change)?))).collect();
        let mut failed = BTreeMap::new();
        let Some(origin_ca) = self.options.origin_ca.as_ref().filter(|_| !needy.is_empty()) else { return failed };
        let list = match self.admin.list(CERTIFICATES).await {
            Ok(list) => list,
            Err(error) => return needy.into_iter().map(|(index, _)| (index, error.clone())).collect(),
        };
        let now = origin_ca.clock.now();
        let has = certificates::ours(list.items(), now);
        let usable = |mark: &Mark, host: &str| {
            has.iter().any(|own| own.mark == *mark && own.host == host && own.state == State::Usable)
        };
        let begun = Instant::now();
        let mut stopped: Option<BackendError> = None;
        let mut new = Vec::new();
        for (index, (mark, host)) in needy.into_iter().filter(|(_, (mark, host))| !usable(mark, host)) {
            let signed = match &stopped {
                Some(error) => Err(error.clone()),
                None if begun.elapsed() >= LONGEST => Err(waits(host)),
                None => self.signed(origin_ca, mark, host).await,
            };
            match signed {
                Ok(signed) => new.push((index, mark, host, signed)),
                Err(error) => {
                    // What stops one stops all that come after it.
                    if matches!(error.class, ErrorClass::Throttled | ErrorClass::Credential) {
                        stopped = Some(error.clone());
                    }
                    failed.insert(index, error);
                }
            }
        }
        if new.is_empty() {
            return failed;
        }
        let on_behalf: Vec<_> = new.iter().map(|(_, mark, ..)| (*mark, WRITTEN)).collect();
        let change = |entries: &[Value]| {
            new.iter().fold(entries.to_vec(), |entries, (_, mark, host, signed)| {
                certificates::with(&entries, mark, host, signed)
            })
        };
        match self.change_certificates(list, change, &on_behalf).await {
            Ok(()) => {
                let mut kept = lock(&self.kept.0);
                for (_, mark, host, _) in &new {
                    kept.remove(&route_id(mark, host));
                }
            }
            Err(error) => failed.extend(new.iter().map(|(index, ..)| (*index, error.clone()))),
        }
        failed
    }

    /// A certificate of an earlier try, or a new one.
    async fn signed(&self, origin_ca: &OriginCertificates, mark: &Mark, host: &str) -> Result<Signed, BackendError> {
        let tag = route_id(mark, host);
        if let Some(signed) = lock(&self.kept.0).get(&tag) {
            return Ok(signed.clone());
        }
        let name = HostName::parse(host)
            .map_err(|error| BackendError::new(ErrorClass::Permanent, "HostInvalid", error.to_string()))?;
        let signed = origin_ca.ca.sign(&name).await?;
        // One that Caddy cannot load would stop every change of its configuration.
        let state = judge(signed.certificate.expose(), signed.key.expose(), host, origin_ca.clock.now());
        if let State::Unusable(why) = state {
            let message = format!("the certificate that Cloudflare's Origin CA gave for {host} cannot be used: {why}");
            return Err(BackendError::new(ErrorClass::Unavailable, "CertificateFailed", message));
        }
        lock(&self.kept.0).insert(tag, signed.clone());
        Ok(signed)
    }

    /// Takes away the certificates whose routes are gone.
    pub(super) async fn discard(&self, changes: &[Change<Route>]) -> Result<(), BackendError> {
        let gone: Vec<_> = changes.iter().filter_map(ends).collect();
        let wanted = self.options.origin_ca.is_some();
        if gone.is_empty() || (!wanted && self.no_leftovers.load(std::sync::atomic::Ordering::Relaxed)) {
            return Ok(());
        }
        let list = self.admin.list(CERTIFICATES).await?;
        let had = certificates::ours(list.items(), jiff::Timestamp::MIN);
        let on_behalf: Vec<_> = gone.iter().map(|(mark, ..)| (*mark, REMOVED)).collect();
        let change = |entries: &[Value]| {
            gone.iter().fold(entries.to_vec(), |entries, (mark, host, end)| match end {
                End::Remove => certificates::without(&entries, mark, host),
                End::Release => certificates::released(&entries, mark, host),
            })
        };
        self.change_certificates(list, change, &on_behalf).await?;
        for (mark, host, end) in &gone {
            let unwritten = lock(&self.kept.0).remove(&route_id(mark, host)).and_then(|signed| signed.id);
            let (Some(origin_ca), End::Remove) = (&self.options.origin_ca, end) else { continue };
            let written = had.iter().filter(|own| own.mark == **mark && own.host == *host);
            for id in written.filter_map(|own| own.id.as_deref()).chain(unwritten.as_deref()) {
                let failed = origin_ca::revoke(origin_ca.ca.as_ref(), host, Which::Id(id)).await;
                lock(&self.unrevoked).extend(failed.map(|remark| ((*mark).clone(), remark)));
            }
        }
        Ok(())
    }

    /// One guarded write, made again on a newer list while others write, too.
    async fn change_certificates(
        &self,
        mut list: List,
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
            match self.admin.replace(&list, &wanted, on_behalf).await? {
                (Outcome::Written, _) => return Ok(()),
                (Outcome::ReadAgain(error), _) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(overtaken))
    }
}

fn waits(host: &str) -> BackendError {
    let message = format!("{host} waits for its certificate: others are being signed at Cloudflare");
    let mut error = BackendError::new(ErrorClass::Unavailable, "CertificatePending", message);
    error.retry_after = Some(Duration::from_secs(1));
    error
}
