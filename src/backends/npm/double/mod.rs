//! A stateful stand-in for Nginx Proxy Manager 2.12 to 2.15: its API with its odd status codes, its database and
//! the nginx behind it, each of which can be behind the others as with the real one.
mod api;
mod certificates;
mod nginx;
mod overlap;
mod people;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::nginx::Visit;
use self::nginx::{Conf, Nginx};
use self::overlap::Overlap;
use super::client::Version;
use crate::api::clock::Clock;
use crate::http::double::{Double, DoubleRequest, DoubleResponse, lock};

/// Login of the user that is there from the start, an administrator.
pub const IDENTITY: &str = "portalkeeper@example.com";
pub const SECRET: &str = "npm-password-4711";

/// A user of NPM.
#[derive(Debug, Clone)]
pub struct User {
    pub identity: String,
    pub secret: String,
    pub admin: bool,
    pub second_factor: bool,
    /// Sees what others own.
    pub sees_all: bool,
    /// `manage`, `view` or `hidden`.
    pub proxy_hosts: &'static str,
    pub certificates: &'static str,
    pub others: &'static str,
}

impl User {
    /// An administrator, as NPM's first user is.
    pub fn admin() -> Self {
        Self {
            identity: IDENTITY.to_owned(),
            secret: SECRET.to_owned(),
            admin: true,
            second_factor: false,
            sees_all: true,
            proxy_hosts: "manage",
            certificates: "manage",
            others: "manage",
        }
    }
}

/// What the simulated Let's Encrypt does with the next orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    Issues,
    /// Takes orders up and ends them when [`NpmDouble::finish_certificate`] says so.
    Ponders,
    /// Refuses with these words of certbot.
    Refuses(String),
}

struct Token {
    user: usize,
    expires: Timestamp,
}

struct State {
    version: Version,
    setup: bool,
    users: Vec<User>,
    tokens: BTreeMap<String, Token>,
    logins: usize,
    hosts: BTreeMap<u64, Value>,
    certificates: BTreeMap<u64, Value>,
    redirections: Vec<Value>,
    dead: Vec<Value>,
    next: u64,
    nginx: Nginx,
    authority: Authority,
    orders: usize,
    /// Names in the order in which rows were written, for tests of fairness and counts.
    written: Vec<String>,
}

/// The simulated NPM.
pub struct NpmDouble {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    overlap: Overlap,
}

impl NpmDouble {
    /// Of this version, with one administrator and nothing else.
    pub fn new(version: Version, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            version,
            setup: true,
            users: vec![User::admin()],
            tokens: BTreeMap::new(),
            logins: 0,
            hosts: BTreeMap::new(),
            certificates: BTreeMap::new(),
            redirections: Vec::new(),
            dead: Vec::new(),
            next: 1,
            nginx: Nginx::default(),
            authority: Authority::Issues,
            orders: 0,
            written: Vec::new(),
        };
        Self { state: Mutex::new(state), clock, overlap: Overlap::default() }
    }

    /// Replaces the user.
    pub fn set_user(&self, user: User) {
        let mut state = lock(&self.state);
        state.users = vec![user];
        state.tokens.clear();
    }
    /// The installation has no user yet.
    pub fn unset_up(&self) {
        lock(&self.state).setup = false;
    }
    pub fn set_authority(&self, authority: Authority) {
        lock(&self.state).authority = authority;
    }
    /// Another program's host makes nginx refuse its whole configuration, or no longer does.
    pub fn break_nginx(&self, broken: bool) {
        lock(&self.state).nginx.broken = broken;
    }
    /// NPM's folder is rebuilt: every token that was given out is worthless.
    pub fn rebuild_keys(&self) {
        lock(&self.state).tokens.clear();
    }
    /// A token that is good.
    pub fn token(&self) -> Option<String> {
        lock(&self.state).tokens.keys().next().cloned()
    }
    pub fn logins(&self) -> usize {
        lock(&self.state).logins
    }
    /// Orders that reached Let's Encrypt.
    pub fn orders(&self) -> usize {
        lock(&self.state).orders
    }
    /// Names of the hosts written, in order.
    pub fn written(&self) -> Vec<String> {
        lock(&self.state).written.clone()
    }

    /// Rows of the database, by id.
    pub fn hosts(&self) -> Vec<Value> {
        lock(&self.state).hosts.values().cloned().collect()
    }
    /// The row that has the name.
    pub fn host(&self, name: &str) -> Option<Value> {
        self.hosts().into_iter().find(|row| has_name(row, name))
    }
    pub fn certificates(&self) -> Vec<Value> {
        lock(&self.state).certificates.values().cloned().collect()
    }

    /// What a visitor of the host gets. Nginx loads a change after the answer to the write, so the first visit
    /// after it still meets the configuration of before.
    pub fn visit(&self, host: &str, https: bool) -> Visit {
        lock(&self.state).nginx.visit(host, https)
    }

    /// The next writes of hosts wait until this many are under way, as parallel callers meet in the real one.
    pub fn meet(&self, count: usize) {
        self.overlap.meet(count);
    }
    /// Each write of a host takes so long.
    pub fn work(&self, each: Duration) {
        self.overlap.work(each);
    }
    /// Most writes that were ever under way at once.
    pub fn peak(&self) -> usize {
        self.overlap.peak()
    }
}

impl State {
    fn id(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Puts a row into the database, in the form in which NPM keeps it.
    fn insert_host(&mut self, body: &Value, owner: usize, now: Timestamp) -> u64 {
        let id = self.id();
        let mut row = json!({
            "id": id, "created_on": date(now), "modified_on": date(now), "owner_user_id": owner,
            "domain_names": [], "forward_host": "", "forward_port": 0, "forward_scheme": "http", "access_list_id": 0,
            "certificate_id": 0, "ssl_forced": false, "caching_enabled": false, "block_exploits": false,
            "advanced_config": "", "meta": {}, "allow_websocket_upgrade": false, "http2_support": false,
            "enabled": true, "locations": null, "hsts_enabled": false, "hsts_subdomains": false,
        });
        if self.version >= Version::TRUST_FORWARDED_PROTO {
            row["trust_forwarded_proto"] = json!(false);
        }
        merge(&mut row, body);
        normalise(&mut row);
        self.hosts.insert(id, row);
        id
    }

    /// Nginx is tested, the host's file rewritten, tested again, and loaded. `false`: NPM fails before the host's
    /// row says anything new.
    fn configure(&mut self, id: u64) -> bool {
        let Some(row) = self.hosts.get(&id).cloned() else { return false };
        if row["enabled"] == false {
            return true;
        }
        let known: Vec<u64> = self.certificates.keys().copied().collect();
        let orders: Vec<u64> = self
            .certificates
            .values()
            .filter(|c| c["provider"] == "letsencrypt")
            .filter_map(|c| c["id"].as_u64())
            .collect();
        if self.nginx.test(&known).is_err() {
            return false;
        }
        self.nginx.files.insert(id, Conf::of(id, &row, &known, &orders));
        let empty = self
            .certificates
            .get(&row["certificate_id"].as_u64().unwrap_or(0))
            .is_some_and(|c| c["provider"] == "other" && !c["meta"]["certificate"].is_string());
        let tested = if empty { Err("cannot load certificate".to_owned()) } else { self.nginx.test(&known) };
        self.tell(id, tested.clone());
        if tested.is_err() {
            self.nginx.files.remove(&id);
        }
        self.nginx.reload();
        true
    }

    fn tell(&mut self, id: u64, tested: Result<(), String>) {
        let Some(row) = self.hosts.get_mut(&id) else { return };
        if !row["meta"].is_object() {
            row["meta"] = json!({});
        }
        row["meta"]["nginx_online"] = json!(tested.is_ok());
        row["meta"]["nginx_err"] = tested.err().map_or(Value::Null, Value::String);
    }

    /// `false`: nginx cannot load, so that the host is served on, though row and file say otherwise.
    fn disable(&mut self, id: u64) -> bool {
        if let Some(row) = self.hosts.get_mut(&id) {
            row["enabled"] = json!(false);
        }
        self.nginx.files.remove(&id);
        let known: Vec<u64> = self.certificates.keys().copied().collect();
        if self.nginx.test(&known).is_err() {
            return false;
        }
        self.nginx.reload();
        true
    }
}

impl Double for NpmDouble {
    fn name(&self) -> &'static str {
        "npm"
    }

    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        // The server proper knows no `/api`; the web server before it takes that off.
        let path = request.path.strip_prefix("/api").unwrap_or("/no-api");
        let writes = request.method != "GET" && path.starts_with("/nginx/proxy-hosts");
        let lost = if writes { self.overlap.pass() } else { false };
        let answer = lock(&self.state).answer(request, path, self.clock.now(), lost);
        if writes {
            self.overlap.leave();
        }
        answer
    }

    fn snapshot(&self) -> Value {
        let state = lock(&self.state);
        json!({"hosts": state.hosts, "certificates": state.certificates, "next": state.next})
    }

    fn restore(&self, snapshot: Value) {
        let mut state = lock(&self.state);
        let rows = |value: &Value| -> BTreeMap<u64, Value> {
            let entries = value.as_object().into_iter().flatten();
            entries.filter_map(|(id, row)| Some((id.parse().ok()?, row.clone()))).collect()
        };
        state.hosts = rows(&snapshot["hosts"]);
        state.certificates = rows(&snapshot["certificates"]);
        state.next = snapshot["next"].as_u64().unwrap_or(1);
        for id in state.hosts.keys().copied().collect::<Vec<_>>() {
            state.configure(id);
        }
    }
}

fn has_name(row: &Value, name: &str) -> bool {
    let names = row["domain_names"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).any(|other| other.eq_ignore_ascii_case(name))
}

fn merge(row: &mut Value, fields: &Value) {
    if let (Some(row), Some(fields)) = (row.as_object_mut(), fields.as_object()) {
        row.extend(fields.clone());
    }
}

/// Sorted names; no TLS switches without a certificate.
fn normalise(row: &mut Value) {
    if let Some(names) = row["domain_names"].as_array_mut() {
        names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    if row["certificate_id"].as_u64().unwrap_or(0) == 0 {
        row["ssl_forced"] = json!(false);
        row["http2_support"] = json!(false);
    }
    if row["ssl_forced"] == false {
        row["hsts_enabled"] = json!(false);
    }
    if row["hsts_enabled"] == false {
        row["hsts_subdomains"] = json!(false);
    }
}

fn certificate_row(id: u64, provider: &str, nice_name: &str, names: &[&str], now: Timestamp) -> Value {
    json!({
        "id": id, "created_on": date(now), "modified_on": date(now), "owner_user_id": 0, "provider": provider,
        "nice_name": nice_name, "domain_names": names, "expires_on": date(now), "meta": {},
    })
}

/// NPM's dates with SQLite: local time, no zone, whole seconds.
fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
