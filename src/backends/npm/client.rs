//! Nginx Proxy Manager's API: where it is, its version, the login, and what its status codes mean.
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use url::Url;

pub use super::call::Call;
use super::call::{Body, Method};
use crate::api::clock::Clock;
use crate::backends::{BackendError, ErrorClass};
use crate::config::{Secret, redact};
use crate::http::{Client, ClientOptions, Request, Response};

/// Time limit of a call about hosts: a write takes about five seconds with a thousand of them.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of an order, as the server has it.
const ORDER_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// A token is replaced this long before its end.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);
/// A refused login is not repeated for so long: each costs NPM about a second of its processor.
const LOGIN_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// Largest answer: a thousand hosts take 629 KiB.
const MAX_BODY: usize = 64 << 20;

/// Reasons by which callers tell failures apart.
pub const GONE: &str = "HostGone";
pub const REFUSED: &str = "NpmRefused";
pub const FAILED: &str = "NpmFailed";

/// A release of NPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64, pub u64, pub u64);

impl Version {
    /// The oldest that is supported.
    pub const OLDEST: Self = Self(2, 12, 0);
    /// From here on an order's contact is NPM's own user, and naming one is refused.
    pub const CONTACT_OF_USER: Self = Self(2, 13, 0);
    /// From here on hosts have `trust_forwarded_proto`; before, naming it is refused.
    pub const TRUST_FORWARDED_PROTO: Self = Self(2, 14, 0);
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A login at an instance whose version is known.
#[derive(Debug, Clone)]
pub struct Session {
    /// `/api`, or nothing where the address names it already or is the API itself.
    prefix: &'static str,
    pub version: Version,
    /// Id of the user that is logged in.
    user: Option<u64>,
    token: Secret,
    expires: Timestamp,
}

#[derive(Default)]
struct Login {
    session: Option<Session>,
    refused: Option<(BackendError, Timestamp)>,
}

/// One instance's API with its login.
pub struct Api {
    http: Client,
    orders: Client,
    identity: Secret,
    secret: Secret,
    /// Never shown, whatever NPM's words quote.
    hidden: Vec<Secret>,
    clock: Arc<dyn Clock>,
    login: tokio::sync::Mutex<Login>,
}

/// What an answer means.
enum Verdict {
    Done(Value),
    /// The token is not good, or the user may not do it: NPM does not always tell which. With a good token, it is
    /// this failure.
    Doubtful(BackendError),
    Failed(BackendError),
}

/// What answers instead of NPM, where it says so.
fn something_before(response: &Response) -> Option<BackendError> {
    let status = response.status;
    let (class, reason, words) = match status {
        429 => (ErrorClass::Throttled, "Throttled", "asks to wait".to_owned()),
        300..=399 => {
            let to = response.headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or_default();
            // What follows may be a secret of somebody's login page.
            let to: String = to.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect();
            (
                ErrorClass::Permanent,
                "NotNpm",
                format!("leads to {to}; name the address at which the API itself answers"),
            )
        }
        401 | 403 => {
            let words = "refuses; something before it asks for a login or does not let this program through";
            (ErrorClass::Permanent, "NotNpm", words.to_owned())
        }
        _ => return None,
    };
    let message = format!("what answers at NPM's address {words} ({status})");
    let mut error = BackendError::new(class, reason, message);
    error.retry_after = response.retry_after();
    Some(error)
}

impl Api {
    /// Errors: an address that cannot be used at all.
    pub fn new(
        base: Url,
        verify_tls: bool,
        identity: Secret,
        secret: Secret,
        hidden: Vec<Secret>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BackendError> {
        let client = |timeout| {
            let mut options = ClientOptions::new("npm", base.clone());
            options.timeout = timeout;
            options.max_body = MAX_BODY;
            // Each write reloads nginx, which closes every idle connection.
            options.pooled = false;
            options.verify_tls = verify_tls;
            Client::new(options)
        };
        let (http, orders) = (client(TIMEOUT)?, client(ORDER_TIMEOUT)?);
        Ok(Self { http, orders, identity, secret, hidden, clock, login: tokio::sync::Mutex::default() })
    }

    /// The version, as told when the session began.
    pub async fn version(&self) -> Result<Version, BackendError> {
        Ok(self.session(None).await?.version)
    }

    /// Id of NPM's user that the calls are made as, where NPM tells it.
    pub async fn user(&self) -> Result<Option<u64>, BackendError> {
        Ok(self.session(None).await?.user)
    }

    /// Makes a call. NPM hides expired tokens and missing permissions behind other statuses, so what may be one of
    /// them is repeated once after a new login, unless it may have been done already.
    pub async fn call(&self, call: &Call) -> Result<Value, BackendError> {
        let session = self.session(None).await?;
        match self.once(&session, call).await? {
            Verdict::Done(value) => return Ok(value),
            Verdict::Failed(error) => return Err(error),
            Verdict::Doubtful(_) => {}
        }
        let session = self.session(Some(&session.token)).await?;
        match self.once(&session, call).await? {
            Verdict::Done(value) => Ok(value),
            Verdict::Failed(error) | Verdict::Doubtful(error) => Err(error),
        }
    }

    /// Makes a call that the user need not be allowed to make; no new login is tried for it.
    pub async fn glance(&self, call: &Call) -> Option<Value> {
        let session = self.session(None).await.ok()?;
        match self.once(&session, call).await {
            Ok(Verdict::Done(value)) => Some(value),
            _ => None,
        }
    }

    async fn once(&self, session: &Session, call: &Call) -> Result<Verdict, BackendError> {
        let request = self.request(call, session.prefix);
        let request = request.header("authorization", &format!("Bearer {}", session.token.expose()));
        let unsent = if call.reads() { BackendError::from } else { BackendError::of_write };
        let response = request.send().await.map_err(unsent).map_err(|error| self.redacted(error))?;
        let quoted = |mut error: BackendError| {
            error.message = redact(&error.message, &[&session.token]);
            error
        };
        Ok(match self.judge(&response, call) {
            Verdict::Done(value) => Verdict::Done(value),
            Verdict::Doubtful(error) => Verdict::Doubtful(quoted(error)),
            Verdict::Failed(error) => Verdict::Failed(quoted(error)),
        })
    }

    fn request(&self, call: &Call, prefix: &str) -> Request {
        let client = if call.slow { &self.orders } else { &self.http };
        let path = format!("{prefix}{}", call.path);
        let request = match call.method {
            Method::Get => client.get(&path),
            Method::Post => client.post(&path),
            Method::Put => client.put(&path),
            Method::Delete => client.delete(&path),
        };
        let request = if call.query.is_empty() { request } else { request.query(call.query) };
        match &call.body {
            Body::Empty => request,
            Body::Json(body) => request.json(body),
            Body::Form(files) => request.form(files),
        }
    }

    fn judge(&self, response: &Response, call: &Call) -> Verdict {
        let status = response.status;
        let body = response.json();
        if (200..300).contains(&status) {
            return match body {
                Ok(body) => Verdict::Done(body),
                Err(error) => Verdict::Failed(self.doubtful(call, "OddAnswer", error.to_string())),
            };
        }
        let body = body.unwrap_or(Value::Null);
        let words = body["error"]["message"].as_str().unwrap_or_default();
        let about = words.rsplit(" - ").next().unwrap_or_default();
        let failed =
            |class, reason, message: String| Verdict::Failed(self.redacted(BackendError::new(class, reason, message)));
        let not_permitted = || {
            let message = format!("NPM does not let its user reach {}; {WANTED_PERMISSIONS}", call.path);
            Verdict::Doubtful(BackendError::new(ErrorClass::Credential, "PermissionMissing", message))
        };
        match status {
            400 if words == "Token has expired" => not_permitted(),
            401 | 403 => not_permitted(),
            // The message of what is really missing ends with its id; a path means that the user may not see it.
            404 if about.starts_with('/') => not_permitted(),
            404 if !about.is_empty() && about.bytes().all(|b| b.is_ascii_digit()) => {
                failed(ErrorClass::Permanent, GONE, format!("NPM has no {} any more", call.path))
            }
            429 => {
                let mut error = BackendError::new(ErrorClass::Throttled, "RateLimited", "NPM asks to wait");
                error.retry_after = response.retry_after();
                Verdict::Failed(error)
            }
            400..=499 => {
                let said = if words.is_empty() { "it gave no words" } else { words };
                failed(ErrorClass::Permanent, REFUSED, format!("NPM refused ({status}): {said}"))
            }
            // A read that fails so has probably a token of another installation's keys.
            500 if call.reads() => {
                let message = format!("NPM failed ({status}) at {}: {}", call.path, words.trim());
                Verdict::Doubtful(BackendError::new(ErrorClass::Unavailable, FAILED, message))
            }
            500 => {
                let said = if words.is_empty() { "Internal Error" } else { words };
                // Only an order's trace has words for people in it: the first line is the message, the rest the trace.
                let trace = if call.slow { trace(&body) } else { String::new() };
                let message = format!("NPM failed ({status}): {said}\n{trace}").trim_end().to_owned();
                Verdict::Failed(self.redacted(self.doubtful(call, FAILED, message)))
            }
            _ => Verdict::Failed(self.doubtful(call, "Unavailable", format!("NPM answered {status} at {}", call.path))),
        }
    }

    /// A failure that tells nothing about whether a write was done.
    fn doubtful(&self, call: &Call, reason: &'static str, message: String) -> BackendError {
        let class = if call.reads() { ErrorClass::Unavailable } else { ErrorClass::OutcomeUnknown };
        BackendError::new(class, reason, message)
    }

    /// The error without any credential that its words may quote.
    pub fn redacted(&self, mut error: BackendError) -> BackendError {
        let secrets: Vec<&Secret> = self.hidden.iter().chain([&self.secret]).collect();
        error.message = redact(&error.message, &secrets);
        error
    }

    /// The session, or a new one where there is none, it ends soon, or its token was `refused`.
    async fn session(&self, refused: Option<&Secret>) -> Result<Session, BackendError> {
        let mut login = self.login.lock().await;
        let now = self.clock.now();
        if let Some(session) = &login.session
            && refused != Some(&session.token)
            && session.expires.duration_since(now) > RENEW_BEFORE
        {
            return Ok(session.clone());
        }
        if let Some((error, at)) = &login.refused
            && now >= *at
            && now.duration_since(*at) < LOGIN_PAUSE
        {
            return Err(error.clone());
        }
        login.session = None;
        match self.connect(now).await {
            Ok(session) => {
                *login = Login { session: Some(session.clone()), refused: None };
                Ok(session)
            }
            Err(error) => {
                let error = self.redacted(error);
                login.refused = matches!(error.class, ErrorClass::Credential).then(|| (error.clone(), now));
                Err(error)
            }
        }
    }

    async fn connect(&self, now: Timestamp) -> Result<Session, BackendError> {
        let (prefix, version) = self.find().await?;
        let credentials = json!({"identity": self.identity.expose(), "secret": self.secret.expose()});
        let request = self.request(&Call::post("/tokens").json(credentials), prefix);
        let response = request.send().await?;
        let body = response.json().unwrap_or(Value::Null);
        let refused = |reason, message: String| BackendError::new(ErrorClass::Credential, reason, message);
        let said = body["error"]["message"].as_str().unwrap_or("no words");
        match response.status {
            200 if body["requires_2fa"] == true => {
                return Err(refused(
                    "TwoFactorRequired",
                    format!(
                        "the login at NPM asks for a second factor, which a program has not; make a user without it for Portalkeeper: {WANTED_PERMISSIONS}"
                    ),
                ));
            }
            200 => {}
            400 | 401 | 403 => {
                let message = format!("NPM refused the login ({}): {said}; check identity and secret", response.status);
                return Err(refused("LoginRefused", message));
            }
            status => {
                let message = format!("NPM could not log in ({status}): {said}");
                return Err(BackendError::new(ErrorClass::Unavailable, FAILED, message));
            }
        }
        let token = body["token"].as_str().map(Secret::new).ok_or_else(|| odd("sent no token at the login"))?;
        // Tokens live a day; without a readable end, that is assumed.
        let day = now.saturating_add(SignedDuration::from_hours(24)).unwrap_or(now);
        let expires = body["expires"].as_str().and_then(|text| text.parse().ok()).unwrap_or(day);
        let session = Session { prefix, version, user: None, token, expires };
        let user = self.check_permissions(&session).await?;
        Ok(Session { user, ..session })
    }

    /// Finds the API under the address and reads its version, which needs no login.
    async fn find(&self) -> Result<(&'static str, Version), BackendError> {
        let prefixes: &[&'static str] = if self.http.base().path() == "/" { &["/api", ""] } else { &[""] };
        for prefix in prefixes {
            let response = self.http.get(&format!("{prefix}/")).send().await?;
            if response.status >= 500 {
                let message = format!("NPM answered {} to the question for its version", response.status);
                return Err(BackendError::new(ErrorClass::Unavailable, "Unavailable", message));
            }
            if let Some(error) = something_before(&response) {
                return Err(error);
            }
            let body = response.json().unwrap_or(Value::Null);
            let part = |name: &str| body["version"][name].as_u64();
            let (Some(major), Some(minor), Some(revision)) = (part("major"), part("minor"), part("revision")) else {
                continue;
            };
            let version = Version(major, minor, revision);
            if version < Version::OLDEST {
                let message = format!("NPM {version} is too old; {} is the oldest that is supported", Version::OLDEST);
                return Err(BackendError::new(ErrorClass::Permanent, "VersionUnsupported", message));
            }
            if body["setup"] == false {
                let message = "NPM has no user yet; finish its setup in the browser first";
                return Err(BackendError::new(ErrorClass::Permanent, "SetupUnfinished", message));
            }
            return Ok((prefix, version));
        }
        let message = "what answers there is not the API of Nginx Proxy Manager; its address is that of the admin pages, like http://127.0.0.1:81";
        Err(BackendError::new(ErrorClass::Permanent, "NotNpm", message))
    }

    /// Asks what the user may do, because NPM's refusals later on do not tell. Gives its id.
    async fn check_permissions(&self, session: &Session) -> Result<Option<u64>, BackendError> {
        let call = Call::get("/users/me").query(&[("expand", "permissions")]);
        let user = match self.once(session, &call).await? {
            Verdict::Done(user) => user,
            Verdict::Failed(error) | Verdict::Doubtful(error) => return Err(error),
        };
        let admin = user["roles"].as_array().is_some_and(|roles| roles.iter().any(|role| role == "admin"));
        let may = |what: &str| user["permissions"][what] == "manage";
        if admin || (may("proxy_hosts") && may("certificates")) {
            return Ok(user["id"].as_u64());
        }
        let message = format!("the user that is logged in at NPM may not do enough; {WANTED_PERMISSIONS}");
        Err(BackendError::new(ErrorClass::Credential, "PermissionMissing", message))
    }
}

const WANTED_PERMISSIONS: &str = "it needs the permission `manage` for proxy hosts and for certificates";

/// An answer that cannot be what it should be.
pub fn odd(what: &str) -> BackendError {
    BackendError::new(ErrorClass::Unavailable, "OddAnswer", format!("NPM {what}"))
}

/// What NPM tells about a failure of a call about certificates: the words of certbot and the CA are in it.
fn trace(body: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    };
    [text(&body["debug"]["stack"]), text(&body["debug"]["previous"])].join("\n").trim().to_owned()
}
