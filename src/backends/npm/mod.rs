//! Nginx Proxy Manager by its API: one proxy host per portal, written one at a time and believed only when a read
//! shows it online.
pub mod book;
mod call;
pub mod certificate;
mod client;
pub mod double;
mod host;
mod orders;
mod ours;
mod supplies;
mod writes;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use url::Url;

use self::book::OrderBook;
use self::certificate::{Source, Supply, Wish};
use self::client::Api;
pub use self::client::Version;
pub use self::host::{Entry, Forward};
use self::host::{Host, Tls};
use self::orders::{Orders, pending};
use super::origin_ca::OriginCa;
use super::{Backend, BackendError, ErrorClass, Remark, Scope};
use crate::api::clock::Clock;
use crate::config::Secret;
use crate::http::double::lock;
use crate::plan::{CertificateMode, Change, Intent, Mark, Observed, Plan};

/// Lets one writer at a time into an instance, whatever the number of classes that use it.
pub type Gate = Arc<tokio::sync::Mutex<()>>;

/// One instance.
#[derive(Clone)]
pub struct NpmOptions {
    /// Address of the admin pages, `http://127.0.0.1:81`, or of the API itself.
    pub api_url: Url,
    /// `false` takes any certificate at an https address.
    pub verify_tls: bool,
    pub identity: Secret,
    pub secret: Secret,
    /// Where NPM finds the pages.
    pub forward: Forward,
    /// Sends visitors who came by http to https, where the host has a certificate.
    pub force_https: bool,
    pub certificates: Source,
    /// Needed for [`Source::OriginCa`].
    pub origin_ca: Option<Arc<dyn OriginCa>>,
    pub gate: Gate,
    /// What was ordered at Let's Encrypt.
    pub book: Arc<dyn OrderBook>,
    pub pace: Pace,
}

/// How long one batch may keep the others waiting.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// After this, what is left of a batch is told its place in the queue and comes again.
    pub batch: Duration,
    /// After this, an order goes on beside the loop.
    pub order: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: Duration::from_secs(20), order: Duration::from_secs(120) }
    }
}

/// The hosts of one instance.
pub struct Npm {
    api: Arc<Api>,
    options: NpmOptions,
    clock: Arc<dyn Clock>,
    orders: Orders,
    /// Rows whose last write failed: NPM may say that they are as wanted although nginx never saw it.
    dirty: Mutex<BTreeSet<u64>>,
    /// Rows of the last list.
    rows: AtomicU64,
    /// Certificates that could not be revoked, until that is told.
    unrevoked: Mutex<Vec<(Mark, Remark)>>,
}

impl Npm {
    /// Errors: an address, a forward host or a set of options that cannot work at all.
    pub fn new(options: NpmOptions, clock: Arc<dyn Clock>) -> Result<Self, BackendError> {
        let unusable =
            |reason, message: String| -> BackendError { BackendError::new(ErrorClass::Permanent, reason, message) };
        let Forward { scheme, host, port } = &options.forward;
        // NPM writes it into nginx's configuration as it is.
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = host.starts_with('[') && bare.parse::<std::net::Ipv6Addr>().is_ok();
        if host.is_empty() || host.len() > 253 || !(plain || address) {
            let message = format!(
                "`{host}` of proxy.npm.forwardHost (NPM_FORWARD_HOST) is no host that NPM can forward to; a name or an address is needed"
            );
            return Err(unusable("ForwardHostInvalid", message));
        }
        if !matches!(scheme.as_str(), "http" | "https") || *port == 0 {
            let message =
                format!("NPM cannot forward to {scheme}, port {port}; http or https and 1 to 65535 are allowed");
            return Err(unusable("ForwardHostInvalid", message));
        }
        let hidden = match &options.certificates {
            Source::LetsEncrypt(settings) => vec![settings.dns_token.clone()],
            Source::OriginCa if options.origin_ca.is_none() => {
                let message = "certificates of Cloudflare's Origin CA need cloudflare.apiTokenSecretRef (CF_API_TOKEN)";
                return Err(unusable("CloudflareMissing", message.to_owned()));
            }
            Source::OriginCa | Source::None | Source::Existing(_) => Vec::new(),
        };
        let (identity, secret) = (options.identity.clone(), options.secret.clone());
        let api = Api::new(options.api_url.clone(), options.verify_tls, identity, secret, hidden, Arc::clone(&clock))?;
        let (api, rows) = (Arc::new(api), AtomicU64::new(0));
        let (orders, dirty, unrevoked) = (Orders::default(), Mutex::default(), Mutex::default());
        Ok(Self { api, options, clock, orders, dirty, rows, unrevoked })
    }

    fn wish(&self, intent: &Intent) -> Wish {
        match (&self.options.certificates, intent.certificate) {
            (_, CertificateMode::None) | (Source::None, _) => Wish::None,
            (Source::LetsEncrypt(_), _) => Wish::LetsEncrypt,
            (Source::OriginCa, _) => Wish::OriginCa(certificate::own_name(&intent.mark, intent.host.as_str())),
            (Source::Existing(choice), _) => Wish::Existing(choice.clone()),
        }
    }

    /// What a change needs before its host can be written; `None` for changes that need no certificate.
    fn needs(change: &Change<Entry>) -> Option<(&Host, &Wish)> {
        match change {
            Change::Create { item: Entry::Host(host), .. }
            | Change::Update { to: Entry::Host(host), .. }
            | Change::Adopt { to: Entry::Host(host), .. } => match &host.tls {
                Tls::Wanted(wish) => Some((host, wish)),
                Tls::Held(_) => None,
            },
            _ => None,
        }
    }
}

/// What is known of a batch that is being made.
struct Batch {
    outcomes: Vec<Option<Result<Option<String>, BackendError>>>,
    started: Instant,
    done: u32,
    /// Failure that every other call would meet, too.
    stopped: Option<BackendError>,
    /// Writes in a row at which NPM failed: nginx refuses its configuration as a whole.
    failed: u32,
}

impl Batch {
    fn note(&mut self, index: usize, outcome: Result<Option<String>, BackendError>) {
        self.done += 1;
        match &outcome {
            Err(error) if matches!(error.class, ErrorClass::Credential | ErrorClass::Throttled) => {
                self.stopped = Some(error.clone());
            }
            Err(error) if matches!(error.reason, "Unreachable" | "Timeout") => self.stopped = Some(error.clone()),
            Err(error) if error.reason == client::FAILED => {
                self.failed += 1;
                if self.failed >= 2 {
                    self.stopped = Some(error.clone());
                }
            }
            _ => self.failed = 0,
        }
        self.outcomes[index] = Some(outcome);
    }

    /// What the last `left` changes of a batch are told when its time is over.
    fn queued(&self, place: usize, left: usize) -> BackendError {
        let each = self.started.elapsed() / self.done.max(1);
        let wait = each * u32::try_from(place).unwrap_or(u32::MAX);
        let message = format!(
            "NPM takes one write at a time: {place} of {left} that wait, about {} s to go",
            wait.as_secs().max(1)
        );
        let mut error = BackendError::new(ErrorClass::Unavailable, "Queued", message);
        error.retry_after = Some(wait.clamp(Duration::from_secs(1), Duration::from_secs(60)));
        error
    }
}

/// Whether the portal of a deletion wants something, too.
fn wants(plan: &Plan<Entry>, deletion: &Change<Entry>) -> bool {
    let wanted = |change: &&Change<Entry>| !matches!(change, Change::Delete { .. });
    plan.changes.iter().filter(wanted).any(|change| change.portal() == deletion.portal())
}

#[async_trait]
impl Backend for Npm {
    type Item = Entry;

    fn instance(&self) -> String {
        let host = self.options.api_url.host_str().unwrap_or_default();
        match self.options.api_url.port_or_known_default() {
            Some(port) => format!("npm/{host}:{port}"),
            None => format!("npm/{host}"),
        }
    }

    fn desired(&self, intent: &Intent) -> Vec<Entry> {
        let wish = self.wish(intent);
        let secure = wish != Wish::None;
        let name = intent.host.to_string();
        vec![Entry::Host(Host {
            names: vec![name.clone()],
            name,
            forward: self.options.forward.clone(),
            ssl_forced: secure && self.options.force_https,
            http2: secure,
            // Behind Cloudflare's edge the visitor's scheme is what the edge says, or a zone that connects by http
            // would be sent round in circles.
            trust_forwarded_proto: Some(secure && intent.proxied),
            tls: Tls::Wanted(wish),
            off: false,
            flaws: Vec::new(),
        })]
    }

    async fn observe(&self, _: &Scope) -> Result<Vec<Observed<Entry>>, BackendError> {
        let noted = self.noted().await?;
        let rows = self.rows().await?;
        let certificates = self.certificates().await?;
        self.rows.store(rows.len() as u64, Ordering::Relaxed);
        let dirty = lock(&self.dirty).clone();
        let mut found = Vec::new();
        for row in &rows {
            let mut entries = row.observed(&certificates);
            for entry in entries.iter_mut().filter(|_| dirty.contains(&row.id)) {
                if let Entry::Host(host) = &mut entry.item {
                    host.flaws.push("not written to its end".to_owned());
                }
            }
            found.extend(entries);
        }
        found.extend(self.leftovers(&rows, &certificates, &noted).await?);
        Ok(found)
    }

    async fn apply(&self, plan: &Plan<Entry>) -> Vec<Result<Option<String>, BackendError>> {
        let count = plan.changes.len();
        let mut batch =
            Batch { outcomes: vec![None; count], started: Instant::now(), done: 0, stopped: None, failed: 0 };
        let mut orders = Vec::new();
        for (index, change) in plan.changes.iter().enumerate() {
            // What makes nginx load again may be a deletion, so those go on.
            let deletes = matches!(change, Change::Delete { .. });
            if let Some(error) = batch.stopped.clone().filter(|e| !deletes || e.reason != client::FAILED) {
                batch.outcomes[index] = Some(Err(error));
                continue;
            }
            if batch.started.elapsed() >= self.options.pace.batch && batch.done > 0 {
                let left = count - index;
                for place in 0..left {
                    batch.outcomes[index + place] = Some(Err(batch.queued(place + 1, left)));
                }
                break;
            }
            // A certificate that is left over may be the one that this portal's host is still to get.
            let waits = |(before, other): (usize, &Change<Entry>)| {
                other.portal() == change.portal() && !matches!(batch.outcomes[before], Some(Ok(_)))
            };
            let leftover = matches!(change, Change::Delete { item: Entry::Leftover { .. }, .. });
            if leftover && plan.changes[..index].iter().enumerate().any(waits) {
                batch.outcomes[index] = Some(Ok(None));
                continue;
            }
            let Some((host, wish)) = Self::needs(change) else {
                let outcome = match self.change(change, 0).await {
                    // The portal has what it wants; what is still being ordered is looked for at a later look.
                    Err(error) if leftover && error.reason == orders::PENDING && wants(plan, change) => Ok(None),
                    outcome => outcome,
                };
                batch.note(index, outcome);
                continue;
            };
            match self.supply(host, wish).await {
                Ok(Supply::Order) => orders.push(index),
                Ok(supply) => {
                    let outcome = self.supplied(change, host, supply).await;
                    batch.note(index, outcome);
                }
                Err(error) => batch.note(index, Err(error)),
            }
        }
        // An order takes a minute or more, so orders come after everything else, and a batch whose time is over makes
        // one at most; the others come again.
        let mut turn = true;
        let waiting = orders.len();
        for (place, index) in orders.into_iter().enumerate() {
            if batch.outcomes[index].is_some() {
                continue;
            }
            let change = &plan.changes[index];
            let outcome = match (&batch.stopped, self.may_order(change).await) {
                (Some(error), _) => Err(error.clone()),
                (None, Err(error)) => Err(error),
                (None, Ok(())) if turn => {
                    let outcome = self.ordered(change).await;
                    turn = batch.started.elapsed() < self.options.pace.batch;
                    outcome
                }
                (None, Ok(())) => Err(pending(format!(
                    "{} waits for its certificate: NPM orders one at a time, and this is number {place} of {waiting}",
                    change.key()
                ))),
            };
            batch.note(index, outcome);
        }
        let missing = || Err(BackendError::new(ErrorClass::OutcomeUnknown, "NoOutcome", "npm gave no outcome"));
        batch.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect()
    }

    fn remarks(&self, mark: &Mark) -> Vec<Remark> {
        let unrevoked: Vec<_> = lock(&self.unrevoked).extract_if(.., |(of, _)| of == mark).collect();
        unrevoked.into_iter().map(|(_, remark)| remark).collect()
    }

    /// There is no watch. A look costs NPM about 0.2 s with a thousand hosts, so more hosts are looked at less often.
    fn drift_interval(&self) -> Duration {
        Duration::from_secs((self.rows.load(Ordering::Relaxed) * 3).clamp(60, 3600))
    }

    fn conflict_reason(&self) -> &'static str {
        "ForeignHost"
    }
}
