//! The Caddy backend against its simulator and against real Caddys.
mod challenges;
mod editors;
mod order;
mod origin_ca;
mod real;
mod remote;
mod servers;
mod simulator;
mod tls;

use portalkeeper::api::HostName;
use portalkeeper::backends::caddy::CaddyOptions;
use portalkeeper::plan::{Mark, Ownership};
use serde_json::{Value, json};
use url::Url;

use crate::scene::{Scene, four_hosts, host};

/// The configuration of somebody who uses Caddy for other things, too.
fn users_config(admin: u16, listen: u16) -> Value {
    json!({
        "admin": {"listen": format!("127.0.0.1:{admin}")},
        "apps": {"http": {"servers": {"mine": {
            "listen": [format!("127.0.0.1:{listen}")],
            "automatic_https": {"disable": true},
            "routes": [
                {"match": [{"host": ["www.acme.example"]}],
                 "handle": [{"handler": "static_response", "body": "<b>my own site</b>"}], "terminal": true},
                {"handle": [{"handler": "static_response", "status_code": 404, "body": "catch-all"}]},
            ],
        }}}},
    })
}

fn routes_of(config: &Value) -> Vec<Value> {
    config.pointer("/apps/http/servers/mine/routes").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn is_ours(route: &Value) -> bool {
    let id = route["@id"].as_str().unwrap_or_default();
    matches!(Mark::from_identifier(id.split('.').next().unwrap_or_default()), Ownership::Marked(_))
}

fn owned_of(routes: &[Value]) -> Vec<(String, String)> {
    let text = |route: &Value, at: &str| route.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut owned: Vec<_> = routes
        .iter()
        .filter(|route| is_ours(route))
        .map(|r| (text(r, "/match/0/host/0"), text(r, "/handle/0/upstreams/0/dial")))
        .collect();
    owned.sort();
    owned
}

fn foreign_of(routes: &[Value]) -> String {
    Value::Array(routes.iter().filter(|route| !is_ours(route)).cloned().collect()).to_string()
}

fn foreign_route(host: &HostName) -> Value {
    json!({"match": [{"host": [host]}], "handle": [{"handler": "static_response", "body": "theirs"}], "terminal": true})
}

fn options(admin: &Url, origin: &str, listen: Option<String>) -> CaddyOptions {
    CaddyOptions {
        admin_url: admin.clone(),
        origin: origin.to_owned(),
        admin_token: None,
        listen,
        https: false,
        verify_tls: true,
        tls: Default::default(),
        dns_challenge: None,
        challenges: Default::default(),
        origin_ca: None,
    }
}
