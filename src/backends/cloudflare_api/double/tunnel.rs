//! Tunnels and their configurations: one document each, replaced as a whole, with a version that grows.
use serde_json::{Value, json};

use super::{ACCOUNT, CloudflareDouble, denied, fail, ingress, ok};
use crate::http::double::{DoubleRequest, DoubleResponse, lock};

/// The account's tunnels, each as the API gives it with `config` and `version` beside it.
#[derive(Debug, Default)]
pub(super) struct Tunnels(Vec<Value>);

/// What the edge does with a request for a name that points to a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tunnelled {
    /// No such tunnel, or none of its connectors is up: error 1033.
    Nowhere,
    /// A connector hands it to this service, `http://127.0.0.1:5000` or `http_status:404`.
    Service(String),
}

impl CloudflareDouble {
    /// A tunnel that is managed remotely, with a connector that is up. `config` may be null.
    pub fn add_tunnel(&self, id: &str, config: Value) {
        lock(&self.state).tunnels.0.push(json!({
            "id": id, "name": format!("tunnel-{}", id.get(..8).unwrap_or(id)), "account_tag": ACCOUNT,
            "status": "healthy", "config_src": "cloudflare", "remote_config": true, "deleted_at": null,
            "created_at": "2026-01-01T00:00:00Z", "connections": [],
            "source": "cloudflare", "version": 0, "config": config,
        }));
    }

    /// Changes any field: `status`, `config_src`, `source`, `deleted_at`, `account_tag`, or `rule_limit`.
    pub fn set_tunnel(&self, id: &str, field: &str, value: Value) {
        for tunnel in lock(&self.state).tunnels.0.iter_mut().filter(|tunnel| tunnel["id"] == id) {
            tunnel[field] = value.clone();
        }
    }

    /// The tunnel is managed by a file on its connector's machine.
    pub fn make_tunnel_local(&self, id: &str) {
        for (field, value) in [("source", json!("local")), ("config_src", json!("local")), ("config", Value::Null)] {
            self.set_tunnel(id, field, value);
        }
        self.set_tunnel(id, "remote_config", json!(false));
    }

    /// The tunnel is gone without a trace.
    pub fn remove_tunnel(&self, id: &str) {
        lock(&self.state).tunnels.0.retain(|tunnel| tunnel["id"] != id);
    }

    /// The configuration as it stands, and its version.
    pub fn tunnel_document(&self, id: &str) -> (Value, u64) {
        let state = lock(&self.state);
        let tunnel = state.tunnels.0.iter().find(|tunnel| tunnel["id"] == id);
        tunnel.map_or((Value::Null, 0), |tunnel| (tunnel["config"].clone(), version(tunnel)))
    }

    /// A person or another program changes the configuration; nothing comes between its read and its write. Tells the
    /// version that it has then.
    pub fn edit_tunnel(&self, id: &str, edit: impl FnOnce(&mut Value)) -> u64 {
        let mut state = lock(&self.state);
        let Some(tunnel) = state.tunnels.0.iter_mut().find(|tunnel| tunnel["id"] == id) else { return 0 };
        edit(&mut tunnel["config"]);
        let next = version(tunnel) + 1;
        tunnel["version"] = json!(next);
        next
    }

    /// Where a request for a path of a host goes whose record points to `target`. `None`: that is no tunnel's name.
    pub fn tunnelled(&self, target: &str, host: &str, path: &str) -> Option<Tunnelled> {
        let id = target.strip_suffix(".cfargotunnel.com")?;
        let state = lock(&self.state);
        let tunnel = state
            .tunnels
            .0
            .iter()
            .find(|tunnel| tunnel["id"] == id && tunnel["deleted_at"].is_null() && tunnel["status"] == "healthy");
        let Some(tunnel) = tunnel else { return Some(Tunnelled::Nowhere) };
        // Without rules a connector answers 503 to everything.
        let service = ingress::route(&tunnel["config"], host, path).unwrap_or("http_status:503");
        Some(Tunnelled::Service(service.to_owned()))
    }
}

fn version(tunnel: &Value) -> u64 {
    tunnel["version"].as_u64().unwrap_or_default()
}

fn configuration(tunnel: &Value) -> DoubleResponse {
    ok(json!({
        "tunnel_id": tunnel["id"], "account_id": tunnel["account_tag"], "version": tunnel["version"],
        "config": tunnel["config"], "source": tunnel["source"], "created_at": tunnel["created_at"],
    }))
}

fn bad(words: &str) -> DoubleResponse {
    fail(400, 1056, &format!("Bad Configuration: Validation failed: {words}"))
}

impl Tunnels {
    pub fn handle(&mut self, request: &DoubleRequest, account: &str, rest: &[&str]) -> DoubleResponse {
        let [id, rest @ ..] = rest else {
            return fail(405, 10405, "Method not allowed for this authentication scheme");
        };
        let Some(tunnel) = self.0.iter_mut().find(|tunnel| tunnel["id"] == *id) else {
            return fail(404, 1003, "Tunnel not found");
        };
        if tunnel["account_tag"] != account {
            return denied();
        }
        let gone = !tunnel["deleted_at"].is_null();
        match (request.method.as_str(), rest) {
            ("GET", []) => {
                let mut shown = tunnel.clone();
                if let Some(fields) = shown.as_object_mut() {
                    for hidden in ["config", "version", "source", "rule_limit"] {
                        fields.remove(hidden);
                    }
                }
                ok(shown)
            }
            ("GET" | "PUT", ["configurations"]) if gone => fail(404, 1003, "Tunnel not found"),
            ("GET", ["configurations"]) => configuration(tunnel),
            ("PUT", ["configurations"]) => {
                let Some(config) = request.json().and_then(|body| body.get("config").cloned()) else {
                    return bad("no config");
                };
                if let Some(words) = ingress::refusal(&config) {
                    return bad(&words);
                }
                let count = config["ingress"].as_array().map_or(0, Vec::len);
                if tunnel["rule_limit"].as_u64().is_some_and(|limit| count as u64 > limit) {
                    return bad("too many ingress rules");
                }
                tunnel["version"] = json!(version(tunnel) + 1);
                tunnel["config"] = config;
                // A write takes a tunnel away from its file for good.
                tunnel["source"] = json!("cloudflare");
                tunnel["config_src"] = json!("cloudflare");
                configuration(tunnel)
            }
            ("GET", ["connections"]) => ok(json!([])),
            _ => fail(404, 7000, "No route for that URI"),
        }
    }
    pub fn snapshot(&self) -> Value {
        Value::Array(self.0.clone())
    }
    pub fn restore(&mut self, state: &Value) {
        if let Some(tunnels) = state.as_array() {
            self.0.clone_from(tunnels);
        }
    }
}
