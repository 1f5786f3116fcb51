//! The client: envelope, errors, paging. Every call asks the token's budget first.
use serde_json::Value;

use super::budget::Budget;
use super::refusal::refusal;
use crate::backends::{BackendError, ErrorClass};
use crate::config::Secret;
use crate::http::{Client, ClientOptions, HttpError, Request, Response, path_segment};
use crate::plan::Urgency;

/// Bound on pages of one listing.
const MAX_PAGES: usize = 1000;

/// One account's API with its token. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: Client,
    token: Secret,
    budget: std::sync::Arc<Budget>,
    urgency: Urgency,
    account: Option<String>,
    /// Permission of the token that the calls need, in the dashboard's words.
    needs: &'static str,
}

/// A part of a listing.
pub struct Page {
    pub items: Vec<Value>,
    /// How many there are in all.
    pub total: usize,
}

impl Api {
    /// `base` with its `/client/v4`; `budget` is the one of this token. Errors: a base that is no address, a token that no
    /// header can carry.
    pub fn new(base: url::Url, token: Secret, budget: std::sync::Arc<Budget>) -> Result<Self, BackendError> {
        let mut options = ClientOptions::new("cloudflare", base);
        options.max_body = 16 << 20;
        options.headers = vec![("authorization", Secret::new(format!("Bearer {}", token.expose())))];
        let needs = "Zone · Zone · Read";
        Ok(Self { client: Client::new(options)?, token, budget, urgency: Urgency::default(), account: None, needs })
    }

    /// The same API, for a token that may belong to this account.
    #[must_use]
    pub fn of_account(&self, id: Option<&str>) -> Self {
        Self { account: id.map(str::to_owned), ..self.clone() }
    }

    /// The same API for calls of this urgency.
    #[must_use]
    pub fn at(&self, urgency: Urgency) -> Self {
        Self { urgency, ..self.clone() }
    }

    /// The same API for calls that need this permission, which messages name.
    #[must_use]
    pub fn needing(&self, permission: &'static str) -> Self {
        Self { needs: permission, ..self.clone() }
    }

    pub fn http(&self) -> &Client {
        &self.client
    }

    pub fn budget(&self) -> &std::sync::Arc<Budget> {
        &self.budget
    }

    /// Sends a read and gives the envelope.
    pub async fn read(&self, request: Request) -> Result<Value, BackendError> {
        let permit = self.budget.permit(self.urgency)?;
        let response = request.single().send().await.map_err(BackendError::from)?;
        permit.answered(&response);
        self.envelope(&response).await
    }

    /// Like [`Api::read`], for what is not needed: a refusal says nothing about the token.
    pub async fn hint(&self, request: Request) -> Result<Value, BackendError> {
        let permit = self.budget.permit(self.urgency)?;
        let response = request.send().await.map_err(BackendError::from)?;
        permit.answered(&response);
        let body = response.json()?;
        if (200..300).contains(&response.status) && body["success"] == true {
            return Ok(body);
        }
        Err(refusal(response.status, &body, self.needs, &self.token))
    }

    /// Sends a write and gives the envelope.
    pub async fn write(&self, request: Request) -> Result<Value, BackendError> {
        let permit = self.budget.permit(self.urgency)?;
        let response = request.single().send().await.map_err(BackendError::of_write)?;
        permit.answered(&response);
        self.envelope(&response).await.map_err(|mut error| {
            // A gateway's 5xx says nothing about what happened behind it; a refusal with an unknown code is a refusal.
            if error.class == ErrorClass::Unavailable && !matches!(error.reason, "UnknownRefusal" | "NotFound") {
                error.class = ErrorClass::OutcomeUnknown;
            }
            error
        })
    }

    /// One page of a listing, the first being 1.
    pub async fn page(
        &self,
        path: &str,
        query: &[(&str, &str)],
        page: usize,
        per_page: usize,
    ) -> Result<Page, BackendError> {
        let (number, size) = (page.to_string(), per_page.to_string());
        let request =
            self.client.get(path).query(query).query(&[("page", number.as_str()), ("per_page", size.as_str())]);
        let envelope = self.read(request).await?;
        let items = envelope["result"].as_array().ok_or_else(|| odd(path, "holds no list"))?.clone();
        let total =
            envelope["result_info"]["total_count"].as_u64().ok_or_else(|| odd(path, "does not say how long it is"))?;
        Ok(Page { items, total: usize::try_from(total).unwrap_or(usize::MAX) })
    }

    /// Every page of a listing; one failed or inconsistent page and the listing does not count.
    pub async fn list(&self, path: &str, query: &[(&str, &str)], per_page: usize) -> Result<Vec<Value>, BackendError> {
        let first = self.page(path, query, 1, per_page).await?;
        self.rest(path, query, per_page, first).await
    }

    /// The whole of a listing whose first page has been read already.
    pub async fn rest(
        &self,
        path: &str,
        query: &[(&str, &str)],
        per_page: usize,
        first: Page,
    ) -> Result<Vec<Value>, BackendError> {
        let Page { items: mut all, total } = first;
        for number in 2..=MAX_PAGES {
            if all.len() == total {
                return Ok(all);
            }
            let page = self.page(path, query, number, per_page).await?;
            // A thing that comes or goes between two pages moves others across the border unseen.
            if page.total != total || all.len() + page.items.len() > total {
                return Err(odd(path, "changed while it was read"));
            }
            if page.items.is_empty() {
                return Err(odd(path, "ended before its stated length"));
            }
            all.extend(page.items);
        }
        Err(odd(path, "has no end"))
    }

    async fn envelope(&self, response: &Response) -> Result<Value, BackendError> {
        let status = response.status;
        if status == 429 {
            let message = "cloudflare asks to wait: the rate limit of the API token is used up";
            let mut error = BackendError::new(ErrorClass::Throttled, "RateLimited", message);
            error.retry_after = self.budget.wait();
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
        let mut error = refusal(status, &body, self.needs, &self.token);
        if error.class == ErrorClass::Credential {
            self.blame(&mut error).await;
        }
        Err(error)
    }

    /// Cloudflare uses one code for a token that is gone and for one that may not do this. A call that every valid token may
    /// make tells which it is, once for all that wait.
    async fn blame(&self, error: &mut BackendError) {
        if self.budget.is_valid() {
            error.reason = "PermissionMissing";
            error.message.push_str(&format!("; the API token is valid, but it lacks the permission {}", self.needs));
            return;
        }
        // Tokens that belong to an account are asked for elsewhere.
        let account = self.account.as_ref().map(|id| format!("/accounts/{}/tokens/verify", path_segment(id)));
        for path in std::iter::once("/user/tokens/verify".to_owned()).chain(account) {
            let Ok(permit) = self.budget.permit(Urgency::Edit) else { return };
            let Ok(response) = self.client.get(&path).single().send().await else { return };
            let body = response.json().unwrap_or_default();
            match (response.status, body["result"]["status"].as_str()) {
                (200, Some("active")) => {
                    permit.answered(&response);
                    self.budget.found_valid();
                    error.reason = "PermissionMissing";
                    let advice = format!("; the API token is valid, but it lacks the permission {}", self.needs);
                    error.message.push_str(&advice);
                    return;
                }
                (200, Some(status)) => {
                    error.message.push_str(&format!("; the API token is {status}"));
                    error.retry_after = Some(self.budget.refuse(error));
                    return;
                }
                _ => permit.answered(&response),
            }
        }
        let advice = format!("; the API token is not valid any more, or lacks the permission {}", self.needs);
        error.message.push_str(&advice);
        if !self.budget.works() {
            error.retry_after = Some(self.budget.refuse(error));
        }
    }
}

fn odd(path: &str, what: &str) -> BackendError {
    BackendError::new(ErrorClass::Unavailable, "OddAnswer", format!("cloudflare's list at {path} {what}"))
}
