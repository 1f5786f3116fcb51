//! Getting certificates: one order at a time at Let's Encrypt through NPM, uploads, and taking away what is no
//! longer used.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::book::{OUTCOME_UNKNOWN, OrderBook, Refusal};
use super::certificate::{self, Certificate, LetsEncrypt};
use super::client::{Api, Call, FAILED, GONE, odd};
use super::ours::failed;
use crate::api::HostName;
use crate::api::clock::Clock;
use crate::backends::origin_ca::Signed;
use crate::backends::{BackendError, ErrorClass};
use crate::config::Secret;
use crate::http::FormFile;
use crate::http::double::lock;

/// A portal whose order runs, or waits for its turn, is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Seconds before another order after one whose end was not seen.
const UNSEEN_PAUSE: i64 = 900;

/// Reason of whatever waits for an order.
pub const PENDING: &str = "CertificatePending";

type Running = JoinHandle<Result<u64, (BackendError, i64)>>;

/// Where one instance's orders are noted.
pub struct Book<'a> {
    pub book: &'a dyn OrderBook,
    pub instance: String,
    pub clock: &'a dyn Clock,
}

/// The orders of one instance.
#[derive(Default)]
pub struct Orders {
    /// Signed by the Origin CA and not uploaded yet, by the name they are to be kept under.
    signed: Mutex<HashMap<String, Signed>>,
    running: tokio::sync::Mutex<Option<(HostName, Running)>>,
}

/// Answer for a portal whose certificate is not there yet.
pub fn pending(message: String) -> BackendError {
    let mut error = BackendError::new(ErrorClass::Unavailable, PENDING, message);
    error.retry_after = Some(LOOK_AGAIN);
    error
}

impl Orders {
    /// Whether an order for this host goes on beside the loop.
    pub async fn running_for(&self, host: &str) -> bool {
        let running = self.running.lock().await;
        running.as_ref().is_some_and(|(other, task)| other.as_str() == host && !task.is_finished())
    }

    pub fn signed(&self, name: &str) -> Option<Signed> {
        lock(&self.signed).get(name).cloned()
    }
    pub fn keep(&self, name: &str, signed: Signed) -> Signed {
        lock(&self.signed).insert(name.to_owned(), signed.clone());
        signed
    }
    pub fn uploaded(&self, name: &str) {
        lock(&self.signed).remove(name);
    }

    /// Whether an order for this host may be made now; if not, what its portal is told.
    pub async fn ready(&self, host: &HostName, book: &Book<'_>) -> Result<(), BackendError> {
        let now = book.clock.now();
        let mut running = self.running.lock().await;
        if let Some((other, task)) = running.as_ref() {
            if !task.is_finished() {
                return Err(pending(format!(
                    "{host} waits for its certificate: NPM is still ordering one for {other}"
                )));
            }
            if let Some((host, task)) = running.take() {
                let _ = self.settle(&host, task.await, book).await;
            }
        }
        let Some(refusal) = book.book.refusal(&book.instance, host.as_str()).await.map_err(failed)? else {
            return Ok(());
        };
        match refusal.left(now) {
            Some(left) => Err(refusal.error(left)),
            None => book.book.forgive(&book.instance, host.as_str()).await.map_err(failed),
        }
    }

    /// Notes what came of an order. What cannot be noted stops the next one, because then the notes cannot be read.
    async fn settle(
        &self,
        host: &HostName,
        ended: Result<Result<u64, (BackendError, i64)>, tokio::task::JoinError>,
        book: &Book<'_>,
    ) -> Result<u64, BackendError> {
        let (mut error, pause) = match ended {
            Ok(Ok(id)) => {
                let _ = book.book.forgive(&book.instance, host.as_str()).await;
                return Ok(id);
            }
            Ok(Err(failed)) => failed,
            Err(error) => {
                (odd(&format!("was asked for a certificate and the call ended badly: {error}")), UNSEEN_PAUSE)
            }
        };
        if pause > 0 {
            let (host, reason, message) = (host.to_string(), error.reason.to_owned(), error.message.clone());
            let at = book.clock.now();
            let refusal = Refusal { host, reason, message, at, pause: SignedDuration::from_secs(pause) };
            if let Err(why) = book.book.refuse(&book.instance, &refusal).await {
                tracing::warn!("a refused order of a certificate for {} cannot be noted: {why}", refusal.host);
            }
            error.retry_after = Duration::try_from(refusal.pause).ok();
        }
        Err(error)
    }

    /// Orders at Let's Encrypt. NPM does not stop an order when its caller stops waiting, so one that takes longer
    /// than `patience` goes on beside the loop, and nothing else is ordered until it ends.
    pub async fn place(
        &self,
        api: &Arc<Api>,
        settings: &LetsEncrypt,
        host: &HostName,
        patience: Duration,
        book: &Book<'_>,
    ) -> Result<u64, BackendError> {
        let body = certificate::order(settings, host, api.version().await?);
        let (caller, name) = (Arc::clone(api), host.clone());
        let mut task = tokio::spawn(async move {
            let call = Call::post("/nginx/certificates").json(body).slow();
            let answer = caller.call(&call).await.map_err(|error| of_order(&name, error))?;
            answer["id"].as_u64().ok_or_else(|| (odd("gave a certificate without an id"), UNSEEN_PAUSE))
        });
        match tokio::time::timeout(patience, &mut task).await {
            Ok(ended) => self.settle(host, ended, book).await,
            Err(_) => {
                *self.running.lock().await = Some((host.clone(), task));
                Err(pending(format!("NPM has been ordering a certificate for {host} for {} s", patience.as_secs())))
            }
        }
    }
}

/// What an order's failure says, and seconds before another.
fn of_order(host: &HostName, error: BackendError) -> (BackendError, i64) {
    if error.reason == FAILED {
        let trace = error.message.split_once('\n').map_or("", |(_, trace)| trace);
        let (reason, pause, words) = certificate::failure(trace);
        let message = format!("Let's Encrypt gave no certificate for {host}: {words}");
        return (BackendError::new(ErrorClass::Unavailable, reason, message), pause);
    }
    if error.class == ErrorClass::OutcomeUnknown {
        let message =
            format!("it is not known what became of the certificate for {host}: {}; NPM's log tells", error.message);
        return (BackendError::new(ErrorClass::OutcomeUnknown, OUTCOME_UNKNOWN, message), UNSEEN_PAUSE);
    }
    (error, 0)
}

impl Api {
    /// Every certificate that the user may see.
    pub async fn certificates(&self, now: Timestamp) -> Result<Vec<Certificate>, BackendError> {
        let listed = self.call(&Call::get("/nginx/certificates")).await?;
        let entries = listed.as_array().ok_or_else(|| odd("sent something else than a list of certificates"))?;
        let parsed = entries.iter().map(|value| Certificate::parse(value, now));
        parsed.collect::<Option<_>>().ok_or_else(|| odd("sent a certificate without id, name or dates"))
    }

    /// Uploads a signed certificate under our name, into the one of this id where there is one. Nginx takes it up
    /// with the next write of its host.
    pub async fn upload(&self, existing: Option<u64>, name: &str, signed: Signed) -> Result<u64, BackendError> {
        let id = match existing {
            Some(id) => id,
            None => {
                let body = json!({"provider": "other", "nice_name": name});
                let made = self.call(&Call::post("/nginx/certificates").json(body)).await?;
                made["id"].as_u64().ok_or_else(|| odd("made a certificate without an id"))?
            }
        };
        let file = |field, content: Secret| FormFile { field, content };
        let files = vec![file("certificate", signed.certificate), file("certificate_key", signed.key)];
        self.call(&Call::post(format!("/nginx/certificates/{id}/upload")).form(files)).await?;
        Ok(id)
    }

    /// Deletes a certificate of ours that nothing uses: deleting one in use can keep nginx from starting again.
    /// One that is used or for something else by now is left alone. Gives the one that it was; `None` where it is gone.
    /// An uploaded one that was deleted now comes with its PEM.
    pub async fn discard(
        &self,
        id: u64,
        ours: impl Fn(&Certificate) -> bool,
        now: Timestamp,
    ) -> Result<Option<(Certificate, Option<String>)>, BackendError> {
        let path = format!("/nginx/certificates/{id}");
        let users = Call::get(path.as_str()).query(&[("expand", "proxy_hosts,redirection_hosts,dead_hosts,streams")]);
        let found = match self.call(&users).await {
            Ok(found) => found,
            Err(error) if error.reason == GONE => return Ok(None),
            Err(error) => return Err(error),
        };
        let used = ["proxy_hosts", "redirection_hosts", "dead_hosts", "streams"]
            .iter()
            .any(|kind| found[kind].as_array().is_none_or(|users| !users.is_empty()));
        let certificate = Certificate::parse(&found, now).ok_or_else(|| odd("sent a certificate without dates"))?;
        if used || !ours(&certificate) {
            return Ok(Some((certificate, None)));
        }
        // What NPM does about one whose order is under way is not known; it ends in minutes.
        if certificate.state == certificate::State::Pending {
            return Err(pending(format!(
                "NPM is still ordering certificate {id}, which nobody needs any more; it is deleted when the order has ended"
            )));
        }
        match self.call(&Call::delete(path)).await {
            Ok(Value::Bool(true)) => {}
            Ok(_) => return Err(odd("did not say that it deleted a certificate")),
            Err(error) if error.reason == GONE => {}
            Err(error) => return Err(error),
        }
        let pem = found["meta"]["certificate"].as_str().map(str::to_owned).filter(|_| certificate.marked().is_some());
        Ok(Some((certificate, pem)))
    }
}
