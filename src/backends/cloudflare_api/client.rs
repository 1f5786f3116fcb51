//! Cloudflare's v4 API: envelope, errors, paging.
use serde_json::Value;

use crate::backends::{BackendError, ErrorClass};
use crate::config::{Secret, redact};
use crate::http::{Client, ClientOptions, HttpError, Request, Response};

/// Most zones a page of the zone list may hold.
const ZONES_PER_PAGE: usize = 50;
/// Records asked for per page; Cloudflare may give fewer.
const RECORDS_PER_PAGE: usize = 5000;
/// Bound on pages of one listing.
const MAX_PAGES: usize = 1000;

/// One account's API with its token.
#[derive(Clone)]
pub struct Api {
    client: Client,
    token: Secret,
}

impl Api {
    /// Errors: a base that is no address, a token that no header can carry.
    pub fn new(base: url::Url, token: Secret) -> Result<Self, BackendError> {
        let mut options = ClientOptions::new("cloudflare", base);
        options.max_body = 16 << 20;
        options.headers = vec![("authorization", Secret::new(format!("Bearer {}", token.expose())))];
        Ok(Self { client: Client::new(options)?, token })
    }

    pub fn http(&self) -> &Client {
        &self.client
    }

    /// Sends a read and gives the envelope.
    pub async fn read(&self, request: Request) -> Result<Value, BackendError> {
        let response = request.send().await.map_err(BackendError::from)?;
        self.envelope(&response)
    }

    /// Sends a write and gives the envelope.
    pub async fn write(&self, request: Request) -> Result<Value, BackendError> {
        let response = request.send().await.map_err(BackendError::of_write)?;
        self.envelope(&response).map_err(|mut error| {
            // A gateway's 5xx says nothing about what happened behind it.
            if error.class == ErrorClass::Unavailable {
                error.class = ErrorClass::OutcomeUnknown;
            }
            error
        })
    }

    /// Every page of a listing; one failed or inconsistent page and the listing does not count.
    pub async fn list(&self, path: &str, query: &[(&str, &str)], per_page: usize) -> Result<Vec<Value>, BackendError> {
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let (page_text, size) = (page.to_string(), per_page.to_string());
            let request =
                self.client.get(path).query(query).query(&[("page", page_text.as_str()), ("per_page", size.as_str())]);
            let envelope = self.read(request).await?;
            let odd = |what: &str| {
                BackendError::new(ErrorClass::Unavailable, "OddAnswer", format!("cloudflare's list at {path} {what}"))
            };
            let items = envelope["result"].as_array().ok_or_else(|| odd("holds no list"))?;
            all.extend(items.iter().cloned());
            let info = &envelope["result_info"];
            let total = info["total_count"].as_u64().ok_or_else(|| odd("does not say how long it is"))?;
            let total = usize::try_from(total).unwrap_or(usize::MAX);
            match all.len() {
                count if count == total => return Ok(all),
                count if count > total => return Err(odd("changed while it was read")),
                _ if items.is_empty() => return Err(odd("ended before its stated length")),
                _ => {}
            }
        }
        Err(BackendError::new(ErrorClass::Unavailable, "OddAnswer", format!("cloudflare's list at {path} has no end")))
    }

    pub async fn zones(&self, account: Option<&str>) -> Result<Vec<Value>, BackendError> {
        let filter: Vec<_> = account.iter().map(|id| ("account.id", *id)).collect();
        self.list("/zones", &filter, ZONES_PER_PAGE).await
    }

    pub async fn records(&self, zone: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, BackendError> {
        self.list(&format!("/zones/{}/dns_records", crate::http::path_segment(zone)), query, RECORDS_PER_PAGE).await
    }

    fn envelope(&self, response: &Response) -> Result<Value, BackendError> {
        let status = response.status;
        if status == 429 {
            let mut error = BackendError::new(
                ErrorClass::Throttled,
                "RateLimited",
                "cloudflare asks to wait: the token's rate limit is used up",
            );
            error.retry_after = response.retry_after();
            return Err(error);
        }
        let body = match response.json() {
            Ok(body) => body,
            Err(error @ HttpError::NotJson { .. }) => {
                return Err(BackendError::new(ErrorClass::Unavailable, "OddAnswer", error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        if (200..300).contains(&status) && body["success"] == true {
            return Ok(body);
        }
        Err(self.refusal(status, &body))
    }

    fn refusal(&self, status: u16, body: &Value) -> BackendError {
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        let code = errors.first().and_then(|error| error["code"].as_i64()).unwrap_or(0);
        let mut words: Vec<String> = Vec::new();
        for error in &errors {
            words.extend(error["message"].as_str().map(str::to_owned));
            let chain = error["error_chain"].as_array().into_iter().flatten();
            words.extend(chain.filter_map(|link| link["message"].as_str().map(str::to_owned)));
        }
        let words = if words.is_empty() { format!("status {status}") } else { words.join(": ") };
        let chained = |wanted: i64| {
            errors.iter().any(|e| e["error_chain"].as_array().into_iter().flatten().any(|l| l["code"] == wanted))
        };
        let (class, reason, advice) = match code {
            81044 => (ErrorClass::Permanent, "RecordGone", ""),
            81053 | 81054 | 81057 | 81058 => (ErrorClass::Conflict, "RecordExists", ""),
            81045 => (ErrorClass::Permanent, "RecordQuotaExceeded", "; remove records or use a larger plan"),
            6003 if chained(6111) => {
                (ErrorClass::Credential, "TokenRefused", "; the token has blanks, quotes or a line break in it")
            }
            10000 | 9109 | 6003 => {
                (ErrorClass::Credential, "TokenRefused", "; the API token needs Zone Read and DNS Edit for this zone")
            }
            7000 | 7003 => (ErrorClass::Permanent, "ZoneNotFound", ""),
            1004 => (ErrorClass::Permanent, "RecordInvalid", ""),
            _ if status == 401 || status == 403 => {
                (ErrorClass::Credential, "TokenRefused", "; the API token needs Zone Read and DNS Edit for this zone")
            }
            _ if status >= 500 => (ErrorClass::Unavailable, "Unavailable", ""),
            _ if words.starts_with("Bad Configuration") => (ErrorClass::Permanent, "BadConfiguration", ""),
            // An unknown code is no proof that a thing is gone: whoever means to believe it asks once more.
            _ if status == 404 => (ErrorClass::Unavailable, "NotFound", ""),
            _ => (ErrorClass::Unavailable, "UnknownRefusal", ""),
        };
        let message = redact(&format!("cloudflare refused ({code}): {words}{advice}"), &[&self.token]);
        BackendError::new(class, reason, message)
    }
}
