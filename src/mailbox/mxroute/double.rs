//! A stateful stand-in for MXroute's API.
use std::collections::BTreeMap;
use std::sync::Mutex;

use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::MailAddress;
use crate::http::double::{Double, DoubleRequest, DoubleResponse, lock};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Account {
    password: String,
    suspended: bool,
    /// Times the password was set through the API.
    changes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Domain {
    accounts: BTreeMap<String, Account>,
    forwarders: BTreeMap<String, Vec<String>>,
    /// `fail`, `blackhole` or an address.
    catch_all: String,
}

impl Default for Domain {
    fn default() -> Self {
        Self { accounts: BTreeMap::new(), forwarders: BTreeMap::new(), catch_all: "fail".to_owned() }
    }
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<String>,
    domains: BTreeMap<String, Domain>,
}

/// The simulated MXroute: one account.
#[derive(Debug, Default)]
pub struct MxrouteDouble(Mutex<State>);

fn failure(status: u16, code: &str, message: &str, field: Option<&str>) -> DoubleResponse {
    let mut error = json!({"code": code, "message": message});
    if let Some(field) = field {
        error["field"] = json!(field);
    }
    DoubleResponse::json(status, &json!({"success": false, "error": error}))
}

fn success(data: &Value) -> DoubleResponse {
    DoubleResponse::json(200, &json!({"success": true, "data": data}))
}

fn not_found() -> DoubleResponse {
    failure(404, "NOT_FOUND", "Resource not found", None)
}

fn account_json(domain: &str, user: &str, account: &Account) -> Value {
    json!({
        "username": user, "email": format!("{user}@{domain}"), "quota": 0, "usage": 1.5, "limit": 9600, "sent": 0,
        "suspended": account.suspended,
    })
}

fn strong(password: &str) -> bool {
    password.chars().count() >= 8
        && password.chars().any(|c| c.is_ascii_uppercase())
        && password.chars().any(|c| c.is_ascii_lowercase())
        && password.chars().any(|c| c.is_ascii_digit())
}

impl MxrouteDouble {
    pub fn new() -> Self {
        Self::default()
    }
    /// Takes calls with this key.
    pub fn accept_key(&self, key: &str) {
        lock(&self.0).keys.push(key.to_owned());
    }
    /// Takes no key any more.
    pub fn revoke_keys(&self) {
        lock(&self.0).keys.clear();
    }
    pub fn add_domain(&self, name: &str) {
        lock(&self.0).domains.entry(name.to_owned()).or_default();
    }
    /// Adds a mailbox, and its domain where it is not there yet.
    pub fn add_mailbox(&self, address: &str, password: &str) {
        self.with_account(address, |account| password.clone_into(&mut account.password));
    }
    pub fn suspend(&self, address: &str) {
        self.with_account(address, |account| account.suspended = true);
    }
    fn with_account(&self, address: &str, change: impl FnOnce(&mut Account)) {
        let Ok(address) = MailAddress::parse(address) else { return };
        let mut state = lock(&self.0);
        let domain = state.domains.entry(address.domain().to_string()).or_default();
        change(domain.accounts.entry(address.local().to_owned()).or_default());
    }
    pub fn remove_mailbox(&self, address: &str) {
        if let Ok(address) = MailAddress::parse(address)
            && let Some(domain) = lock(&self.0).domains.get_mut(address.domain().as_str())
        {
            domain.accounts.remove(address.local());
        }
    }
    /// The mailbox's password.
    pub fn password(&self, address: &str) -> Option<String> {
        let address = MailAddress::parse(address).ok()?;
        let state = lock(&self.0);
        let account = state.domains.get(address.domain().as_str())?.accounts.get(address.local())?;
        Some(account.password.clone())
    }
    pub fn add_forwarder(&self, address: &str, destination: &str) {
        let Ok(address) = MailAddress::parse(address) else { return };
        let mut state = lock(&self.0);
        let domain = state.domains.entry(address.domain().to_string()).or_default();
        domain.forwarders.insert(address.local().to_owned(), vec![destination.to_owned()]);
    }

    fn page(&self) -> String {
        let state = lock(&self.0);
        let page = html! {
            (maud::DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { "Simulated MXroute" }
                    style { (maud::PreEscaped(STYLE)) }
                }
                body {
                    main {
                        h1 { "Mailboxes" }
                        p { a href="/" { "Overview" } }
                        @for (name, domain) in &state.domains {
                            h2 { (name) }
                            table {
                                thead { tr { th { "Mailbox" } th { "Password changes" } th { "State" } } }
                                tbody {
                                    @for (user, account) in &domain.accounts {
                                        tr {
                                            td { (user) "@" (name) }
                                            td { (account.changes) }
                                            td { @if account.suspended { "suspended" } @else { "active" } }
                                        }
                                    }
                                }
                            }
                            @for (alias, to) in &domain.forwarders { p { (alias) "@" (name) " → " (to.join(", ")) } }
                        }
                    }
                }
            }
        };
        page.into_string()
    }

    fn patch(domain: &str, user: &str, account: &mut Account, body: Option<Value>) -> DoubleResponse {
        let Some(body) = body else { return failure(400, "VALIDATION_ERROR", "Body is not JSON", None) };
        if let Some(password) = body.get("password") {
            let Some(password) = password.as_str().filter(|password| strong(password)) else {
                let words = "Password must be at least 8 characters with upper case, lower case and a number";
                return failure(400, "VALIDATION_ERROR", words, Some("password"));
            };
            password.clone_into(&mut account.password);
            account.changes += 1;
        }
        success(&account_json(domain, user, account))
    }
}

const STYLE: &str = "
:root{color-scheme:light dark}body{margin:0;font:16px/1.5 system-ui,sans-serif;background:light-dark(#f4f6f8,#12161a);color:light-dark(#1c2430,#e6ebf0)}
main{max-width:60rem;margin:0 auto;padding:1rem 1.25rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}
table{width:100%;border-collapse:collapse;background:light-dark(#fff,#1b2026)}th,td{text-align:left;padding:.45rem .7rem;border:1px solid light-dark(#d8dde3,#39414b);overflow-wrap:anywhere}th,td+td{overflow-wrap:normal}td:last-child,th:last-child{white-space:nowrap}a{color:inherit}";

impl Double for MxrouteDouble {
    fn name(&self) -> &'static str {
        "mxroute"
    }

    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        if request.method == "GET" && request.path == "/ui" {
            return DoubleResponse::html(200, &self.page());
        }
        let mut state = lock(&self.0);
        let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
        let known = state.keys.iter().any(|key| key == header("x-api-key"));
        if header("x-server").is_empty() || header("x-username").is_empty() || !known {
            return failure(401, "UNAUTHORIZED", "Invalid credentials", None);
        }
        let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let names: Vec<&String> = state.domains.keys().collect();
        let answer = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["domains"]) => success(&json!(names)),
            (method, ["domains", name, rest @ ..]) => {
                let name = (*name).to_owned();
                match state.domains.get_mut(&name) {
                    Some(domain) => domain_answer(method, &name, domain, rest, request),
                    // Another account's domain looks as if it did not exist.
                    None => not_found(),
                }
            }
            _ => not_found(),
        };
        let limit = if request.method == "GET" { "200" } else { "20" };
        answer.with_header("x-ratelimit-limit", limit).with_header("x-ratelimit-remaining", limit)
    }

    fn snapshot(&self) -> Value {
        serde_json::to_value(&lock(&self.0).domains).unwrap_or_default()
    }

    fn restore(&self, state: Value) {
        if let Ok(domains) = serde_json::from_value::<BTreeMap<String, Domain>>(state) {
            lock(&self.0).domains.extend(domains);
        }
    }
}

fn domain_answer(
    method: &str,
    name: &str,
    domain: &mut Domain,
    rest: &[&str],
    request: &DoubleRequest,
) -> DoubleResponse {
    match (method, rest) {
        ("GET", []) => {
            // Live, an empty list of pointers is an array and a filled one an object.
            success(&json!({"domain": name, "mail_hosting": true, "ssl_enabled": true, "pointers": []}))
        }
        ("GET", ["email-accounts"]) => {
            let accounts = domain.accounts.iter().map(|(user, account)| account_json(name, user, account));
            success(&accounts.collect())
        }
        ("GET", ["email-accounts", user]) => match domain.accounts.get(*user) {
            Some(account) => success(&account_json(name, user, account)),
            None => not_found(),
        },
        ("PATCH", ["email-accounts", user]) => match domain.accounts.get_mut(*user) {
            Some(account) => MxrouteDouble::patch(name, user, account, request.json()),
            None => not_found(),
        },
        ("GET", ["forwarders"]) => {
            let listed = domain
                .forwarders
                .iter()
                .map(|(alias, to)| json!({"alias": alias, "email": format!("{alias}@{name}"), "destinations": to}));
            success(&listed.collect())
        }
        ("GET", ["catch-all"]) => match domain.catch_all.as_str() {
            kind @ ("fail" | "blackhole") => success(&json!({"type": kind})),
            address => success(&json!({"type": "address", "address": address})),
        },
        _ => not_found(),
    }
}
