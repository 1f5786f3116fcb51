//! A stateful stand-in for Cloudflare's account: zones, DNS records, tunnels, certificates, tokens, the audit log and the
//! rate limit, as the public schema and the documents say. The sandbox runs on it, too.
mod certificates;
mod dns;
pub mod ingress;
mod limits;
mod page;
mod records;
mod tunnel;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use self::limits::Limits;
pub use self::tunnel::Tunnelled;
use self::tunnel::Tunnels;
use crate::api::clock::{Clock, SystemClock};
use crate::http::double::{Double, DoubleRequest, DoubleResponse, lock};

/// The account that everything stands in where nothing else is said.
pub const ACCOUNT: &str = "0acc0000000000000000000000000001";

/// A token that is taken.
#[derive(Debug, Clone)]
struct Token {
    value: String,
    /// The only zones that it sees; `None`: all.
    zones: Option<Vec<String>>,
    /// What it may not do: `dns`, `tunnel`, `certificates`, `audit`.
    denied: Vec<String>,
    /// Belongs to an account, not to a user.
    account_owned: bool,
}

#[derive(Debug, Default)]
struct State {
    zones: Vec<Value>,
    /// Each with the internal field `zone_id`.
    records: Vec<Value>,
    certificates: Vec<Value>,
    audit: Vec<Value>,
    tunnels: Tunnels,
    next: u64,
    /// Accepted tokens; `None` accepts any that is not blank.
    tokens: Option<Vec<Token>>,
    limits: Limits,
}

/// Done to the double right after it has answered a call.
type Action = Box<dyn FnOnce(&CloudflareDouble) + Send>;

struct Hook {
    method: &'static str,
    path: &'static str,
    action: Action,
}

/// The simulated account.
pub struct CloudflareDouble {
    state: Mutex<State>,
    hooks: Mutex<Vec<Hook>>,
    clock: Arc<dyn Clock>,
}

impl Default for CloudflareDouble {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

fn ok(result: Value) -> DoubleResponse {
    DoubleResponse::json(200, &json!({"success": true, "errors": [], "messages": [], "result": result}))
}

fn fail(status: u16, code: i64, message: &str) -> DoubleResponse {
    let errors = json!([{"code": code, "message": message}]);
    DoubleResponse::json(status, &json!({"success": false, "errors": errors, "messages": [], "result": null}))
}

fn fail_chained(code: i64, message: &str, inner: i64, words: &str) -> DoubleResponse {
    let errors = json!([{"code": code, "message": message, "error_chain": [{"code": inner, "message": words}]}]);
    DoubleResponse::json(400, &json!({"success": false, "errors": errors, "messages": [], "result": null}))
}

fn denied() -> DoubleResponse {
    fail(403, 10000, "Authentication error")
}

impl CloudflareDouble {
    pub fn new() -> Self {
        Self::default()
    }

    /// Rate windows and audit entries follow this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), hooks: Mutex::default(), clock }
    }

    /// From now on only the accepted tokens are taken.
    pub fn accept_token(&self, token: &str) {
        let token = Token { value: token.to_owned(), zones: None, denied: Vec::new(), account_owned: false };
        lock(&self.state).tokens.get_or_insert_default().push(token);
    }

    /// An accepted token belongs to the account from now on.
    pub fn own_by_account(&self, token: &str) {
        for known in lock(&self.state).tokens.iter_mut().flatten().filter(|known| known.value == token) {
            known.account_owned = true;
        }
    }

    /// Refuses every token that was accepted so far.
    pub fn revoke_tokens(&self) {
        lock(&self.state).tokens = Some(Vec::new());
    }

    /// Refuses one token.
    pub fn revoke_token(&self, token: &str) {
        lock(&self.state).tokens.get_or_insert_default().retain(|known| known.value != token);
    }

    /// Lets an accepted token see these zones only.
    pub fn narrow_token(&self, token: &str, zones: &[&str]) {
        for known in lock(&self.state).tokens.iter_mut().flatten().filter(|known| known.value == token) {
            known.zones = Some(zones.iter().map(|zone| (*zone).to_owned()).collect());
        }
    }

    /// Takes a permission from an accepted token: `dns`, `tunnel`, `certificates` or `audit`.
    pub fn deny(&self, token: &str, permission: &str) {
        for known in lock(&self.state).tokens.iter_mut().flatten().filter(|known| known.value == token) {
            known.denied.push(permission.to_owned());
        }
    }

    /// Requests that a token has in five minutes; 1,200 at first.
    pub fn set_quota(&self, requests: u32) {
        lock(&self.state).limits.quota = requests;
    }

    /// Does something right after the next call of this method whose path contains `path`: what another writer does
    /// between two calls of ours.
    pub fn after(&self, method: &'static str, path: &'static str, action: impl FnOnce(&Self) + Send + 'static) {
        lock(&self.hooks).push(Hook { method, path, action: Box::new(action) });
    }

    fn run_hook(&self, request: &DoubleRequest) {
        let hook = {
            let mut hooks = lock(&self.hooks);
            let at = hooks.iter().position(|hook| hook.method == request.method && request.path.contains(hook.path));
            at.map(|at| hooks.remove(at))
        };
        if let Some(hook) = hook {
            (hook.action)(self);
        }
    }

    fn answer(&self, request: &DoubleRequest) -> DoubleResponse {
        let path = request.path.strip_prefix("/client/v4").unwrap_or(&request.path).to_owned();
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let bearer = request.headers.get("authorization").and_then(|h| h.strip_prefix("Bearer ")).map(str::to_owned);
        if let Err(refusal) = state.limits.take(bearer.as_deref().unwrap_or_default(), now) {
            return refusal;
        }
        let answer = match state.authorise(bearer.as_deref()) {
            Err(refusal) => refusal,
            Ok(token) => state.route(request, &path, &token, now),
        };
        state.limits.stamp(answer, bearer.as_deref().unwrap_or_default(), now)
    }
}

impl State {
    fn authorise(&self, bearer: Option<&str>) -> Result<Token, DoubleResponse> {
        let Some(token) = bearer else {
            return Err(fail(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers"));
        };
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(fail_chained(6003, "Invalid request headers", 6111, "Invalid format for Authorization header"));
        }
        match &self.tokens {
            None => Ok(Token { value: token.to_owned(), zones: None, denied: Vec::new(), account_owned: false }),
            Some(known) => known.iter().find(|known| known.value == token).cloned().ok_or_else(denied),
        }
    }

    fn id(&mut self, kind: u64) -> String {
        self.next += 1;
        format!("{:032x}", kind + self.next)
    }

    fn route(&mut self, request: &DoubleRequest, path: &str, token: &Token, now: jiff::Timestamp) -> DoubleResponse {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let may = |permission: &str| !token.denied.iter().any(|denied| denied == permission);
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["user", "tokens", "verify"]) if token.account_owned => fail(401, 1000, "Invalid API Token"),
            ("GET", ["user", "tokens", "verify"] | ["accounts", _, "tokens", "verify"]) => {
                ok(json!({"id": "70ce0000000000000000000000000001", "status": "active"}))
            }
            ("GET", ["zones"]) => self.list_zones(request, token),
            (_, ["zones", zone, "dns_records", ..]) if !self.sees(token, zone) => fail(
                404,
                7003,
                &format!("Could not route to /zones/{zone}/dns_records, perhaps your object identifier is invalid?"),
            ),
            (_, ["zones", _, "dns_records", ..]) if !may("dns") => denied(),
            (_, ["zones", zone, "dns_records", rest @ ..]) => self.records(request, zone, rest, now),
            (_, ["accounts", _, "audit_logs"]) if !may("audit") => denied(),
            ("GET", ["accounts", _, "audit_logs"]) => self.audit_log(request),
            (_, ["accounts", _, "cfd_tunnel", ..]) if !may("tunnel") => denied(),
            (_, ["accounts", account, "cfd_tunnel", rest @ ..]) => self.tunnels.handle(request, account, rest),
            (_, ["certificates", ..]) if !may("certificates") => denied(),
            (_, ["certificates", rest @ ..]) => self.certificates(request, rest, now),
            _ => fail(404, 7000, "No route for that URI"),
        }
    }

    fn audit_log(&self, request: &DoubleRequest) -> DoubleResponse {
        let time = |text: Option<&str>| text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let (since, before) = (time(request.parameter("since")), time(request.parameter("before")));
        let fits = |entry: &&Value| {
            let when = time(entry["when"].as_str());
            since.is_none_or(|since| when >= Some(since)) && before.is_none_or(|before| when <= Some(before))
        };
        let entries: Vec<Value> = self.audit.iter().rev().filter(fits).cloned().collect();
        paged(request, &entries, 100, 1000)
    }

    /// Writes an entry as a person's or a program's change leaves it.
    fn note(&mut self, now: jiff::Timestamp, actor: &str, action: &str, zone: &str, record: &Value) {
        let id = self.id(0xa0d1_0000);
        self.audit.push(json!({
            "id": id, "when": now.to_string(), "interface": if actor == "token" { "API" } else { "UI" },
            "action": {"type": action, "result": true},
            "actor": {"type": "user", "email": if actor == "token" { "operator@example.com" } else { actor }},
            "resource": {"type": "DNS_record", "id": record["id"]},
            "metadata": {"zone_name": zone, "name": record["name"], "type": record["type"]},
            "owner": {"id": ACCOUNT},
        }));
    }
}

fn paged(request: &DoubleRequest, items: &[Value], standard: usize, most: usize) -> DoubleResponse {
    let number = |name: &str, or: usize| request.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(or);
    let page = number("page", 1).max(1);
    let size = number("per_page", standard).clamp(1, most);
    let shown: Vec<_> = items.iter().skip((page - 1) * size).take(size).cloned().collect();
    let info = json!({
        "page": page, "per_page": size, "count": shown.len(), "total_count": items.len(),
        "total_pages": items.len().div_ceil(size),
    });
    DoubleResponse::json(
        200,
        &json!({"success": true, "errors": [], "messages": [], "result": shown, "result_info": info}),
    )
}

impl Double for CloudflareDouble {
    fn name(&self) -> &'static str {
        "cloudflare"
    }

    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        if request.path == "/records/ui" {
            return DoubleResponse::html(200, &self.page());
        }
        let answer = self.answer(request);
        self.run_hook(request);
        answer
    }

    fn snapshot(&self) -> Value {
        let state = lock(&self.state);
        json!({
            "zones": state.zones, "records": state.records, "certificates": state.certificates, "next": state.next,
            "tunnels": state.tunnels.snapshot(),
        })
    }

    fn restore(&self, state: Value) {
        let mut own = lock(&self.state);
        let list = |name: &str| state[name].as_array().cloned();
        if let (Some(zones), Some(records)) = (list("zones"), list("records")) {
            own.zones = zones;
            own.records = records;
            own.certificates = list("certificates").unwrap_or_default();
            own.next = state["next"].as_u64().unwrap_or(own.next).max(own.next);
        }
        own.tunnels.restore(&state["tunnels"]);
    }
}
