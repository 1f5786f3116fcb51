//! A stateful stand-in for the part of Caddy's admin API that is called here.
use std::sync::Mutex;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::double::{Double, DoubleRequest, DoubleResponse, lock};

/// How a Caddy shows the ETag of what it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Etag {
    /// 2.8 and newer.
    #[default]
    Header,
    /// 2.5.2 to 2.7, behind the body.
    Trailer,
    /// Older ones, and those behind something that drops trailers.
    None,
}

/// The simulated Caddy: its configuration document.
#[derive(Debug)]
pub struct CaddyDouble {
    config: Mutex<Value>,
    /// Without the module for DNS challenges at Cloudflare.
    stock: bool,
    /// With one that looks at the form of tokens, as its versions from 0.2 on do.
    strict: bool,
    etag: Etag,
}

impl Default for CaddyDouble {
    fn default() -> Self {
        let config = json!({"apps": {"http": {"servers": {"srv0": {"listen": [":80"], "routes": []}}}}});
        Self { config: Mutex::new(config), stock: false, strict: false, etag: Etag::Header }
    }
}

impl CaddyDouble {
    /// With one server on `:80` that has no routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stock Caddy: without the module for DNS challenges at Cloudflare.
    pub fn without_dns_module(self) -> Self {
        Self { stock: true, ..self }
    }

    /// With a module for DNS challenges that looks at the form of tokens, and nothing in the environment to fill a
    /// placeholder with.
    pub fn with_strict_dns_module(self) -> Self {
        Self { strict: true, ..self }
    }

    /// As Debian's 2.6.
    pub fn of_debian(self) -> Self {
        Self { etag: Etag::Trailer, ..self }
    }

    /// One that shows no ETag, so that nothing guards a write.
    pub fn without_etag(self) -> Self {
        Self { etag: Etag::None, ..self }
    }

    /// The whole configuration.
    pub fn config(&self) -> Value {
        lock(&self.config).clone()
    }

    /// A person loads another configuration.
    pub fn load(&self, config: Value) {
        *lock(&self.config) = config;
    }

    /// Where a request to this host is sent: the first route of any server that names it or names no host.
    pub fn route_for(&self, host: &str) -> Option<String> {
        let config = lock(&self.config);
        let servers = config.pointer("/apps/http/servers")?.as_object()?;
        let routes = servers.values().flat_map(|server| server["routes"].as_array()).flatten();
        let fits = |route: &&Value| match route["match"].as_array() {
            None => true,
            Some(sets) => sets.iter().any(|set| match set["host"].as_array() {
                None => true,
                Some(hosts) => hosts.iter().filter_map(Value::as_str).any(|h| h.eq_ignore_ascii_case(host)),
            }),
        };
        let first = routes.into_iter().find(fits)?;
        first.pointer("/handle/0/upstreams/0/dial")?.as_str().map(str::to_owned)
    }
}

fn refuse(status: u16, words: &str) -> DoubleResponse {
    DoubleResponse::json(status, &json!({"error": words}))
}

fn etag(path: &str, value: &Value) -> String {
    let digest = Sha256::digest(value.to_string().as_bytes());
    let hash: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("\"{path} {hash}\"")
}

fn pointer(path: &str) -> String {
    let inner = path.trim_matches('/').strip_prefix("config").unwrap_or_default().trim_matches('/');
    if inner.is_empty() { String::new() } else { format!("/{inner}") }
}

fn duplicate_ids(value: &Value) -> Option<String> {
    fn collect(value: &Value, seen: &mut Vec<String>) -> Option<String> {
        match value {
            Value::Object(fields) => {
                if let Some(id) = fields.get("@id").and_then(Value::as_str) {
                    if seen.iter().any(|s| s == id) {
                        return Some(id.to_owned());
                    }
                    seen.push(id.to_owned());
                }
                fields.values().find_map(|v| collect(v, seen))
            }
            Value::Array(items) => items.iter().find_map(|v| collect(v, seen)),
            _ => None,
        }
    }
    collect(value, &mut Vec::new())
}

/// The first token whose form the module refuses, as Caddy filled it in.
fn malformed_token(policies: &[Value]) -> Option<String> {
    let issuers = policies.iter().filter_map(|policy| policy["issuers"].as_array()).flatten();
    let tokens = issuers.filter_map(|issuer| issuer.pointer("/challenges/dns/provider/api_token")?.as_str());
    let filled_in = tokens.map(|token| if token.starts_with('{') { "" } else { token });
    let in_form = |token: &str| {
        let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        plain && (35..=50).contains(&token.len())
    };
    filled_in.filter(|token| !in_form(token)).map(str::to_owned).next()
}

impl Double for CaddyDouble {
    fn name(&self) -> &'static str {
        "caddy"
    }

    fn handle(&self, request: &DoubleRequest) -> DoubleResponse {
        let mut config = lock(&self.config);
        if request.path != "/config" && !request.path.starts_with("/config/") {
            return refuse(404, "unrecognized endpoint");
        }
        let at = pointer(&request.path);
        if request.method == "GET" {
            return match config.pointer(&at) {
                Some(value) => {
                    let (answer, hash) =
                        (DoubleResponse::json(200, value), etag(request.path.trim_end_matches('/'), value));
                    match self.etag {
                        Etag::Header => answer.with_header("etag", &hash),
                        Etag::Trailer => answer.with_trailer("etag", &hash),
                        Etag::None => answer,
                    }
                }
                None => refuse(400, &format!("invalid traversal path at: {}", request.path.trim_matches('/'))),
            };
        }
        if let Some(wanted) = request.headers.get("if-match") {
            let path = wanted.trim_matches('"').split(' ').next().unwrap_or_default();
            let Some(guarded) = config.pointer(&pointer(path)) else {
                return refuse(400, "malformed If-Match header");
            };
            if etag(path, guarded) != *wanted {
                return refuse(412, "If-Match header did not match current config hash");
            }
        }
        let Some(body) = request.json() else { return refuse(400, "decoding request body") };
        let mut changed = config.clone();
        match request.method.as_str() {
            "PATCH" => match changed.pointer_mut(&at) {
                Some(place) => *place = body,
                None => return refuse(404, "key does not exist"),
            },
            "PUT" => {
                if changed.pointer(&at).is_some() {
                    let status = if self.etag == Etag::Header { 409 } else { 500 };
                    return refuse(status, &format!("[{}] key already exists", request.path));
                }
                let mut place = &mut changed;
                for key in at.trim_matches('/').split('/') {
                    if place.is_null() {
                        *place = json!({});
                    }
                    let Some(fields) = place.as_object_mut() else { return refuse(500, "invalid traversal path") };
                    place = fields.entry(key.to_owned()).or_insert(Value::Null);
                }
                *place = body;
            }
            _ => return refuse(405, "method not allowed"),
        }
        let policies = changed.pointer("/apps/tls/automation/policies").and_then(Value::as_array);
        let for_all = |policy: &&Value| policy["subjects"].as_array().is_none_or(Vec::is_empty);
        if policies.is_some_and(|policies| policies.iter().filter(for_all).count() > 1) {
            return refuse(500, "automation policy 1: cannot have more than one default/catch-all automation policy");
        }
        if self.stock
            && policies.is_some_and(|policies| Value::Array(policies.clone()).to_string().contains("\"cloudflare\""))
        {
            return refuse(
                500,
                "loading new config: loading tls app module: provision tls: unknown module: dns.providers.cloudflare",
            );
        }
        if let Some(token) = policies.filter(|_| self.strict).and_then(|policies| malformed_token(policies)) {
            let words = format!(
                "loading new config: loading tls app module: provision tls: provisioning automation policy 0: loading TLS \
                 automation management module: position 0: loading module 'acme': provision tls.issuance.acme: loading DNS \
                 provider module: loading module 'cloudflare': provision dns.providers.cloudflare: API token '{token}' appears \
                 invalid; ensure it's correctly entered and not wrapped in braces nor quotes"
            );
            return refuse(500, &words);
        }
        if let Some(id) = duplicate_ids(&changed) {
            return refuse(400, &format!("indexing config: duplicate ID '{id}' found"));
        }
        *config = changed;
        DoubleResponse::empty(200)
    }

    fn snapshot(&self) -> Value {
        self.config()
    }

    fn restore(&self, state: Value) {
        if state.is_object() {
            self.load(state);
        }
    }
}
