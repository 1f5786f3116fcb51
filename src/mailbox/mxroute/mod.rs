//! MXroute by its REST API: one server and one account.
pub mod double;

use async_trait::async_trait;
use serde_json::{Value, json};
use url::Url;

use super::{MailboxProvider, MailboxState, PasswordPolicy, ProviderError, SenderState};
use crate::api::{MailAddress, MailDomain};
use crate::config::{Secret, redact};
use crate::http::{Client, ClientOptions, HttpError, Response, path_segment};

/// MXroute's own address.
pub const DEFAULT_API_URL: &str = "https://api.mxroute.com";

/// What MXroute demands.
const POLICY: PasswordPolicy = PasswordPolicy { minimum: 8, upper_case: true, lower_case: true, digit: true };

/// One account.
#[derive(Debug, Clone)]
pub struct MxrouteOptions {
    pub api_url: Url,
    /// Mail server host name, sent as `X-Server`.
    pub server: String,
    /// DirectAdmin user name, sent as `X-Username`.
    pub username: String,
    pub api_key: Secret,
}

/// An account at MXroute.
pub struct Mxroute {
    client: Client,
    username: String,
    api_key: Secret,
}

impl Mxroute {
    /// Errors: an address or credential that cannot be sent at all.
    pub fn new(options: MxrouteOptions) -> Result<Self, ProviderError> {
        let mut client = ClientOptions::new("mxroute", options.api_url);
        client.headers = vec![
            ("x-server", Secret::new(options.server)),
            ("x-username", Secret::new(options.username.clone())),
            ("x-api-key", options.api_key.clone()),
        ];
        let client = Client::new(client).map_err(|error| ProviderError::Unavailable { message: error.to_string() })?;
        Ok(Self { client, username: options.username.to_ascii_lowercase(), api_key: options.api_key })
    }

    fn account_path(address: &MailAddress) -> String {
        let domain = path_segment(address.domain().as_str());
        format!("/domains/{domain}/email-accounts/{}", path_segment(address.local()))
    }

    /// `None` for what is not there.
    async fn read(&self, path: &str) -> Result<Option<Value>, ProviderError> {
        let response = self.client.get(path).send().await.map_err(unavailable)?;
        match self.envelope(&response) {
            Ok(data) => Ok(Some(data)),
            Err(ProviderError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The data of a success, or the failure by its code; the status counts only where no envelope can be read.
    fn envelope(&self, response: &Response) -> Result<Value, ProviderError> {
        let status = response.status;
        if status == 204 {
            return Ok(Value::Null);
        }
        let body = response.json().ok().filter(|body| body["success"].is_boolean());
        let Some(mut body) = body else {
            return Err(match status {
                401 | 403 => ProviderError::Credential { message: format!("status {status}") },
                429 => ProviderError::Throttled { retry_after: response.retry_after() },
                _ => ProviderError::Unavailable {
                    message: format!("mxroute answered {status} with something that is not its API's"),
                },
            });
        };
        if body["success"] == true && (200..300).contains(&status) {
            return Ok(body["data"].take());
        }
        let error = &body["error"];
        let words = error["message"].as_str().unwrap_or("no reason given");
        let words: String = words.chars().filter(|c| !c.is_control()).take(300).collect();
        let message = redact(&words, &[&self.api_key]);
        let field = error["field"].as_str().unwrap_or_default();
        Err(match error["code"].as_str().unwrap_or_default() {
            "VALIDATION_ERROR" | "BUSINESS_ERROR" if field == "password" => ProviderError::PolicyRejected { message },
            "UNAUTHORIZED" | "FORBIDDEN" => ProviderError::Credential { message },
            "NOT_FOUND" => ProviderError::Missing,
            "RATE_LIMITED" => ProviderError::Throttled { retry_after: response.retry_after() },
            code => {
                let code: String = code.chars().filter(char::is_ascii_graphic).take(60).collect();
                ProviderError::Unavailable { message: format!("{code}: {message}") }
            }
        })
    }
}

fn unavailable(error: HttpError) -> ProviderError {
    ProviderError::Unavailable { message: error.to_string() }
}

fn odd(what: &str) -> ProviderError {
    ProviderError::Unavailable { message: format!("mxroute's answer about {what} has an unexpected shape") }
}

#[async_trait]
impl MailboxProvider for Mxroute {
    async fn list_domains(&self) -> Result<Vec<MailDomain>, ProviderError> {
        let data = self.read("/domains").await?.ok_or_else(|| odd("domains"))?;
        let names = data.as_array().ok_or_else(|| odd("domains"))?;
        let names = names.iter().map(|name| name.as_str().ok_or_else(|| odd("domains")));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        Ok(names.into_iter().filter_map(|name| MailDomain::parse(&name.to_ascii_lowercase()).ok()).collect())
    }

    async fn mailbox(&self, address: &MailAddress) -> Result<MailboxState, ProviderError> {
        // That mailbox shares its password with the control panel of the whole account.
        if address.local() == self.username {
            return Ok(MailboxState::Missing);
        }
        let Some(account) = self.read(&Self::account_path(address)).await? else { return Ok(MailboxState::Missing) };
        match account["suspended"].as_bool() {
            Some(true) => Ok(MailboxState::Suspended),
            Some(false) => Ok(MailboxState::Exists),
            None => Err(odd("a mailbox")),
        }
    }

    async fn set_password(&self, address: &MailAddress, password: &Secret) -> Result<(), ProviderError> {
        if address.local() == self.username {
            return Err(ProviderError::Missing);
        }
        let request = self.client.patch(&Self::account_path(address)).json(&json!({"password": password.expose()}));
        let response = request.send().await.map_err(|error| {
            let message = redact(&error.to_string(), &[password]);
            match error.outcome_unknown() {
                true => ProviderError::OutcomeUnknown { message },
                false => ProviderError::Unavailable { message },
            }
        })?;
        let hide = |message: String| redact(&message, &[password]);
        match self.envelope(&response) {
            Ok(_) => Ok(()),
            // A gateway's own error says nothing about what happened behind it.
            Err(ProviderError::Unavailable { message }) if response.status >= 500 => {
                Err(ProviderError::OutcomeUnknown { message: hide(message) })
            }
            Err(ProviderError::PolicyRejected { message }) => {
                Err(ProviderError::PolicyRejected { message: hide(message) })
            }
            Err(ProviderError::Unavailable { message }) => Err(ProviderError::Unavailable { message: hide(message) }),
            Err(error) => Err(error),
        }
    }

    async fn sender(&self, _domain: &MailDomain, from: &MailAddress) -> Result<SenderState, ProviderError> {
        if !self.list_domains().await?.contains(from.domain()) {
            let words = format!("{from} is not of a domain of this account, so the mail host does not verify it");
            return Ok(SenderState::Ok(words));
        }
        if self.read(&Self::account_path(from)).await?.is_some() {
            return Ok(SenderState::Ok(format!("{from} is a mailbox")));
        }
        let domain = path_segment(from.domain().as_str());
        let forwarders = self.read(&format!("/domains/{domain}/forwarders")).await?.unwrap_or(Value::Null);
        let listed = forwarders.as_array().ok_or_else(|| odd("forwarders"))?;
        if listed.iter().any(|f| f["alias"].as_str().is_some_and(|alias| alias.eq_ignore_ascii_case(from.local()))) {
            return Ok(SenderState::Ok(format!("{from} is a forwarder")));
        }
        let catch_all = self.read(&format!("/domains/{domain}/catch-all")).await?.unwrap_or(Value::Null);
        match catch_all["type"].as_str() {
            Some("address" | "blackhole") => Ok(SenderState::Ok(format!("{from} is caught by the domain's catch-all"))),
            Some(_) => Ok(SenderState::NeedsAction(format!(
                "the mail host will refuse mails from {from}, because nothing receives mail there: add a mailbox or a \
                 forwarder for it at the mail host, or set smtp.from (RESET_SMTP_FROM) to an address that exists"
            ))),
            None => Err(odd("the catch-all")),
        }
    }

    fn policy(&self) -> PasswordPolicy {
        POLICY
    }
}
