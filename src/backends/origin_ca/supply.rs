//! Certificates of the Origin CA for the hosts of one proxy: signed once, written by the proxy's backend, revoked when
//! they are taken away.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::kept::{Own, State, judge};
use super::{OriginCa, Signed, Which, revoke};
use crate::api::HostName;
use crate::api::clock::Clock;
use crate::backends::{BackendError, ErrorClass, Remark};
use crate::http::double::lock;
use crate::plan::Mark;

/// A batch asks for certificates this long; whoever is left comes again.
const LONGEST: Duration = Duration::from_secs(20);

/// Who signs, where the proxy's own ways to certificates are not wanted.
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

/// A host that needs a certificate.
pub struct Needy {
    /// Place of its change in the plan.
    pub index: usize,
    pub mark: Mark,
    pub host: String,
}

/// Whose certificates a plan needs: one that was left over may be what a new route needs.
pub type Needed = BTreeSet<(Mark, String)>;

/// The certificates of one proxy.
pub struct Supply {
    wanted: Option<OriginCertificates>,
    /// What was signed, or seen in the proxy: a proxy that forgets, or a write that fails, is no reason to have another
    /// one signed.
    known: Mutex<HashMap<(Mark, String), Signed>>,
    /// What could not be revoked, until it is told.
    unrevoked: Mutex<Vec<(Mark, Remark)>>,
}

impl Supply {
    pub fn new(wanted: Option<OriginCertificates>) -> Self {
        Self { wanted, known: Mutex::default(), unrevoked: Mutex::default() }
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// The time by which certificates are judged.
    pub fn now(&self) -> Timestamp {
        self.wanted.as_ref().map_or(Timestamp::MIN, |wanted| wanted.clock.now())
    }

    /// Has certificates signed; tells which changes have to wait, and why.
    pub async fn sign(&self, needy: Vec<Needy>) -> (Vec<(Needy, Signed)>, BTreeMap<usize, BackendError>) {
        let (mut signed, mut waiting) = (Vec::new(), BTreeMap::new());
        let begun = Instant::now();
        let mut stopped: Option<BackendError> = None;
        for one in needy {
            let outcome = match &stopped {
                Some(error) => Err(error.clone()),
                None if begun.elapsed() >= LONGEST => Err(waits(&one.host)),
                None => self.sign_one(&one).await,
            };
            match outcome {
                Ok(certificate) => signed.push((one, certificate)),
                Err(error) => {
                    // What stops one stops all that come after it.
                    if matches!(error.class, ErrorClass::Throttled | ErrorClass::Credential) {
                        stopped = Some(error.clone());
                    }
                    waiting.insert(one.index, error);
                }
            }
        }
        (signed, waiting)
    }

    /// One that is known, or a new one.
    async fn sign_one(&self, Needy { mark, host, .. }: &Needy) -> Result<Signed, BackendError> {
        let key = (mark.clone(), host.clone());
        let known = lock(&self.known).get(&key).cloned();
        let fits = |signed: &Signed| {
            judge(signed.certificate.expose(), signed.key.expose(), host, self.now()) == State::Usable
        };
        if let Some(signed) = known.filter(fits) {
            return Ok(signed);
        }
        let unusable = |why: String| BackendError::new(ErrorClass::Unavailable, "CertificateFailed", why);
        let wanted = self.wanted.as_ref().ok_or_else(|| unusable("nobody signs certificates here".to_owned()))?;
        let name = HostName::parse(host).map_err(|error| unusable(error.to_string()))?;
        let signed = wanted.ca.sign(&name).await?;
        // One that the proxy cannot load could stop every change of its configuration.
        let state = judge(signed.certificate.expose(), signed.key.expose(), host, wanted.clock.now());
        if let State::Unusable(why) = state {
            return Err(unusable(format!(
                "the certificate that Cloudflare's Origin CA gave for {host} cannot be used: {why}"
            )));
        }
        lock(&self.known).insert(key, signed.clone());
        Ok(signed)
    }

    /// Notes what the proxy has.
    pub fn remember(&self, own: &[Own]) {
        let mut known = lock(&self.known);
        for Own { mark, host, signed, .. } in own.iter().filter(|own| self.is_wanted() && own.state == State::Usable) {
            known.insert((mark.clone(), host.clone()), signed.clone());
        }
    }

    /// What the host has usable in the proxy.
    pub fn has(own: &[Own], one: &Needy) -> bool {
        own.iter().any(|own| own.mark == one.mark && own.host == one.host && own.state == State::Usable)
    }

    /// The host has no use for its certificate any more, which had this id in the proxy.
    pub async fn removed(&self, mark: &Mark, host: &str, id: Option<String>) {
        let known = lock(&self.known).remove(&(mark.clone(), host.to_owned())).and_then(|signed| signed.id);
        let Some(wanted) = &self.wanted else { return };
        let known = known.filter(|known| Some(known) != id.as_ref());
        for id in id.into_iter().chain(known) {
            let failed = revoke(wanted.ca.as_ref(), host, Which::Id(&id)).await;
            lock(&self.unrevoked).extend(failed.map(|remark| (mark.clone(), remark)));
        }
    }

    /// What could not be revoked for this portal; told once.
    pub fn remarks(&self, mark: &Mark) -> Vec<Remark> {
        let told: Vec<_> = lock(&self.unrevoked).extract_if(.., |(of, _)| of == mark).collect();
        told.into_iter().map(|(_, remark)| remark).collect()
    }
}

fn waits(host: &str) -> BackendError {
    let message = format!("{host} waits for its certificate: others are being signed at Cloudflare");
    let mut error = BackendError::new(ErrorClass::Unavailable, "CertificatePending", message);
    error.retry_after = Some(Duration::from_secs(1));
    error
}
