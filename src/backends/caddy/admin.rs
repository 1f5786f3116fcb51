//! Caddy's admin API: parts of its configuration, read with what guards them and replaced only as they were read.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Challenges;
use crate::backends::{BackendError, ErrorClass, Remark};
use crate::config::{Secret, redact};
use crate::http::double::lock;
use crate::http::{Client, HttpError, Request, Response};
use crate::plan::Mark;
use crate::telemetry::metrics;

/// Tries of one guarded write while others write, too.
pub const TRIES: usize = 8;

/// Pause before the second try, which then doubles: whoever else writes is done soon, and something that keeps nothing of
/// what is written is not to be written to without a pause.
pub const PAUSE: Duration = Duration::from_millis(5);

/// What a write without a guard means.
pub const UNGUARDED: &str = "this Caddy shows no ETag (it is older than 2.5.2, or something before its admin API drops HTTP \
                             trailers), so it cannot refuse a write that is based on an older state: what somebody else \
                             changed in this list meanwhile may be lost; look whether something is missing";

/// Longest words of Caddy's own in a message, and of a page that something else shows, in characters.
const LONGEST_WORDS: usize = 1000;
const LONGEST_PAGE: usize = 200;

/// What a Caddy before 2.7 takes as `Host` at a socket without `admin.origins`, and later ones, too.
const NO_HOST: &str = "";
/// What it is told to add to them otherwise.
const LISTED_HOST: &str = "127.0.0.1:2019";

/// For whom a list is replaced, with the reason of the remark on it where nothing guards that. One event tells of all
/// writes of one reason, so what was removed has a reason of its own.
pub type OnBehalf<'a> = (&'a Mark, &'static str);

pub const WRITTEN: &str = "WrittenUnguarded";
pub const REMOVED: &str = "RemovedUnguarded";

/// One admin endpoint.
pub struct Admin {
    client: Client,
    /// Name for status and logs.
    instance: String,
    /// What its answers might quote.
    secrets: Vec<Secret>,
    /// Whose tokens are in what is written.
    challenges: Challenges,
    /// It is a socket, which has no name; whether it wants one all the same.
    socket: Option<AtomicBool>,
    /// What unguarded writes may have cost others, by portal, reason and list, until it is told.
    losses: Mutex<BTreeMap<(Mark, &'static str, String), Duration>>,
}

/// A part of the configuration as it was read.
pub struct Part {
    pub path: String,
    /// `Null` where there is no such key.
    pub value: Value,
    /// Absent before Caddy 2.5.2. Up to 2.7 it comes as a trailer.
    etag: Option<String>,
    /// Before the question was sent.
    asked: Instant,
}

impl Part {
    /// What is in it, if it is a list.
    pub fn items(&self) -> &[Value] {
        self.value.as_array().map_or(&[], Vec::as_slice)
    }
    /// A key that is not there is made by a call that refuses one that is.
    fn unguarded(&self) -> bool {
        !self.value.is_null() && self.etag.is_none()
    }
    /// Last part of the path.
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// What came of a write.
pub enum Outcome {
    Written,
    /// Somebody was faster, or it is not known what happened: only a new read tells.
    ReadAgain(BackendError),
}

impl Admin {
    pub fn new(client: Client, instance: String, secrets: Vec<Secret>, challenges: Challenges) -> Self {
        let socket = client.is_socket().then(AtomicBool::default);
        Self { client, instance, secrets, challenges, socket, losses: Mutex::default() }
    }

    /// The request with the `Host` that this endpoint wants.
    fn addressed(&self, request: Request) -> Request {
        match self.socket.as_ref().map(|listed| listed.load(Ordering::Relaxed)) {
            Some(true) => request.header("host", LISTED_HOST),
            Some(false) => request.header("host", NO_HOST),
            None => request,
        }
    }

    /// Whether the `Host` of a socket was refused that has none, and is another one from now on.
    fn wants_listed_host(&self, response: &Response) -> bool {
        let refused = response.status == 403 && String::from_utf8_lossy(&response.body).contains(HOST_REFUSED);
        self.socket.as_ref().is_some_and(|listed| refused && !listed.swap(true, Ordering::Relaxed))
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    fn refusal(&self, response: &Response) -> BackendError {
        let body = String::from_utf8_lossy(&response.body);
        let told = serde_json::from_slice::<Value>(&response.body).ok();
        let told = told.and_then(|value| value["error"].as_str().map(str::to_owned));
        let is_caddys = told.is_some();
        let words = told.unwrap_or_else(|| body.into_owned());
        // Caddy's own words may quote a token of its configuration.
        let words = match words.find("API token '") {
            Some(at) => format!("{}API token [redacted]", &words[..at]),
            None => words,
        };
        let shared = self.challenges.secrets();
        let hidden: Vec<&Secret> = self.secrets.iter().chain(&shared).collect();
        // Cut first, half a secret would be left.
        let longest = if is_caddys { LONGEST_WORDS } else { LONGEST_PAGE };
        let words: String = redact(&words, &hidden).chars().take(longest).collect();
        let status = response.status;
        let words = match response.headers.get("location").and_then(|to| to.to_str().ok()) {
            // What follows may be a secret of somebody's login page.
            Some(to) if (300..400).contains(&status) => {
                let to = redact(to.split(['?', '#']).next().unwrap_or_default(), &hidden);
                let to: String = to.chars().take(LONGEST_PAGE).collect();
                format!("it leads to {to}")
            }
            _ => words,
        };
        let (class, reason, advice) = match status {
            300..=399 => (ErrorClass::Permanent, "CaddyRefused", NOT_ITSELF),
            401 if words.contains("client identity") => (ErrorClass::Credential, CLIENT_REFUSED, ALLOW_KEY),
            401 => (ErrorClass::Credential, "TokenRefused", ""),
            403 if words.contains("not authorized to") => (ErrorClass::Credential, "AdminPathRefused", ALLOW_PATHS),
            403 if words.contains(HOST_REFUSED) => (
                ErrorClass::Permanent,
                "AdminHostRefused",
                match self.socket {
                    Some(_) => "; add it to admin.origins in Caddy's configuration, or leave these out",
                    None => "; add the host of the admin address to admin.origins in Caddy's configuration",
                },
            ),
            403 => (ErrorClass::Credential, "TokenRefused", ""),
            404 if !is_caddys => (ErrorClass::Permanent, "CaddyRefused", NO_ADMIN),
            500.. => (ErrorClass::Unavailable, "CaddyRefused", ""),
            _ => (ErrorClass::Permanent, "CaddyRefused", ""),
        };
        BackendError::new(class, reason, format!("caddy refused ({status}): {}{advice}", words.trim()))
    }

    /// Reads a part of the configuration, with what guards it.
    pub async fn read(&self, path: &str) -> Result<Part, BackendError> {
        let asked = Instant::now();
        let part = |value, etag| Part { path: path.to_owned(), value, etag, asked };
        let ask = || self.addressed(self.client.get(path).header("te", "trailers"));
        let mut response = ask().send().await.map_err(unreachable)?;
        if self.wants_listed_host(&response) {
            response = ask().send().await.map_err(unreachable)?;
        }
        if response.status == 400 && String::from_utf8_lossy(&response.body).contains("invalid traversal path") {
            return Ok(part(Value::Null, None));
        }
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        let etag = response.headers.get("etag").or_else(|| response.trailers.get("etag"));
        let etag = etag.and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let value = response.json().map_err(|error| {
            let mut failure = BackendError::from(error);
            failure.message.push_str(NO_ADMIN);
            failure
        })?;
        Ok(part(value, etag))
    }

    /// Reads a list.
    pub async fn list(&self, path: &str) -> Result<Part, BackendError> {
        let part = self.read(path).await?;
        if part.value.is_array() || part.value.is_null() {
            return Ok(part);
        }
        let message = format!("caddy's {path} is no list");
        Err(BackendError::new(ErrorClass::Unavailable, "OddAnswer", message))
    }

    /// Replaces a part as it was read, for the sake of these portals. Where nothing guards it, it is read once more, and
    /// what the write may have cost others is kept to be told; the time is that in which their change is lost.
    pub async fn replace(
        &self,
        part: &Part,
        value: Value,
        on_behalf: &[OnBehalf<'_>],
    ) -> Result<(Outcome, Option<Duration>), BackendError> {
        let request = if part.value.is_null() { self.client.put(&part.path) } else { self.client.patch(&part.path) };
        let request = request.json(&value);
        let request = match &part.etag {
            Some(etag) => request.header("if-match", etag),
            None => request,
        };
        let outcome = self.write(request).await;
        let window = part.unguarded().then(|| part.asked.elapsed());
        if let Some(window) = window {
            self.note(part.name(), window, on_behalf);
        }
        let outcome = outcome.map_err(|error| with_loss(error, window))?;
        if window.is_some() && matches!(outcome, Outcome::Written) {
            // Such a Caddy answers 200 whoever wrote in between: only a second look tells.
            let now = self.read(&part.path).await.map_err(|error| with_loss(error, window))?;
            if now.value != value {
                return Ok((Outcome::ReadAgain(with_loss(overtaken(), window)), window));
            }
        }
        Ok((outcome, window))
    }

    /// Makes what is not there; a key that is there by then stays.
    pub async fn create(&self, path: &str, value: &Value) -> Result<Outcome, BackendError> {
        self.write(self.client.put(path).json(value)).await
    }

    async fn write(&self, request: Request) -> Result<Outcome, BackendError> {
        match self.addressed(request).send().await {
            Ok(response) if response.status == 200 => Ok(Outcome::Written),
            Ok(response) if matches!(response.status, 409 | 412) || exists(&response) => {
                Ok(Outcome::ReadAgain(overtaken()))
            }
            Ok(response) => Err(self.refusal(&response)),
            // Each change restarts Caddy's admin endpoint: the next read tells what happened.
            Err(error) if error.outcome_unknown() => Ok(Outcome::ReadAgain(BackendError::of_write(error))),
            Err(error) => Err(unreachable(error)),
        }
    }

    fn note(&self, list: &str, window: Duration, on_behalf: &[OnBehalf<'_>]) {
        let mut losses = lock(&self.losses);
        for (mark, reason) in on_behalf {
            let longest = losses.entry(((*mark).clone(), reason, list.to_owned())).or_default();
            *longest = window.max(*longest);
        }
        metrics::foreign_write_lost(&self.instance);
        let (instance, milliseconds) = (&self.instance, window.as_millis());
        tracing::warn!(%instance, list, milliseconds, "a list was replaced without a guard; {UNGUARDED}");
    }

    /// What was written for this portal without a guard, in words; each is told once.
    pub fn remarks(&self, mark: &Mark) -> Vec<Remark> {
        let mut losses = lock(&self.losses);
        let told = losses.extract_if(.., |(of, ..), _| of == mark);
        let remark = |((_, reason, list), window): ((Mark, &'static str, String), Duration)| {
            let (instance, within) = (&self.instance, within(window));
            let message = format!("{instance}: the list of {list} was replaced without a guard {within}: {UNGUARDED}");
            Remark { reason, message }
        };
        told.map(remark).collect()
    }
}

/// The time of a write without a guard, in words.
pub fn within(window: Duration) -> String {
    format!("within {} ms", window.as_millis().max(1))
}

/// Without the time, which event and log have: a message that differs with each try is a new status each time, which is a
/// reason to look at the portal again at once.
fn with_loss(mut error: BackendError, window: Option<Duration>) -> BackendError {
    if window.is_some() {
        error.message.push_str(&format!("; it was written without a guard: {UNGUARDED}"));
    }
    error
}

/// Caddy up to 2.6 has no status of its own for a key that is there already.
fn exists(response: &Response) -> bool {
    response.status == 500 && String::from_utf8_lossy(&response.body).contains("key already exists")
}

/// Somebody wrote each time in between.
pub fn overtaken() -> BackendError {
    BackendError::new(
        ErrorClass::Unavailable,
        "TooManyWriters",
        "caddy's configuration changed each time while it was being written; the next try looks again",
    )
}

/// Caddy's words.
const HOST_REFUSED: &str = "host not allowed";

/// Said where something else than Caddy's admin API answers.
const NO_ADMIN: &str = "; is proxy.caddy.adminUrl (CADDY_ADMIN_URL) the address of Caddy's admin API, without a path?";

const NOT_ITSELF: &str = "; something before Caddy's admin API answers, such as a login page or a redirect to https: \
                          proxy.caddy.adminUrl (CADDY_ADMIN_URL) must lead to the API itself";

/// Reason of a client certificate that is missing or that Caddy does not know.
pub const CLIENT_REFUSED: &str = "ClientCertificateRefused";
const ALLOW_KEY: &str = "; proxy.caddy.clientCertificateSecretRef (CADDY_ADMIN_CLIENT_CERT) and \
                         proxy.caddy.clientKeySecretRef (CADDY_ADMIN_CLIENT_KEY) are needed, and Caddy needs that \
                         certificate among the public_keys of admin.remote.access_control";
const ALLOW_PATHS: &str = "; allow the path /config/apps/ with the methods GET, PUT and PATCH in the permissions of \
                           admin.remote.access_control";

fn unreachable(error: HttpError) -> BackendError {
    use crate::http::{CertificateFault, ConnectFault};
    if let HttpError::Connect { address, fault: ConnectFault::ClientRefused, cause, .. } = &error {
        let message = format!("Caddy's admin endpoint {address} refused the client certificate ({cause}){ALLOW_KEY}");
        return BackendError::new(ErrorClass::Credential, CLIENT_REFUSED, message);
    }
    if let HttpError::Connect { address, fault: ConnectFault::Certificate(fault), cause, .. } = &error {
        let advice = match fault {
            CertificateFault::NotTrusted => {
                "; name the authority that signed it as proxy.caddy.caSecretRef (CADDY_ADMIN_CA)"
            }
            CertificateFault::WrongName => "; add this host to admin.identity.identifiers in Caddy's configuration",
            _ => "",
        };
        let message = format!("the certificate of Caddy's admin endpoint {address} is refused ({cause}){advice}");
        return BackendError::new(ErrorClass::Permanent, "AdminCertificateRefused", message);
    }
    let mut failure = BackendError::from(error);
    if failure.reason == "Unreachable" {
        failure.message = failure.message.replacen("cannot reach caddy", "cannot reach Caddy's admin API", 1);
        failure.message.push_str("; check that Caddy runs and that this is its admin address");
    }
    failure
}
