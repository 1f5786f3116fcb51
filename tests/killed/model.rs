//! What must stand after all is said and done, whatever happened on the way.
use serde_json::{Value, json};

use super::bench::{Bench, Life, Proxy, TARGET, TUNNEL};
use crate::world::condition_of;

pub const NAME: &str = "acme";
pub const HOST: &str = "reset.acme.localhost";
pub const OTHER: &str = "new.acme.localhost";

/// A portal as its spec wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portal {
    Gone,
    Off(&'static str),
    Ready(&'static str, Proxy),
}

impl Portal {
    fn host(self) -> Option<&'static str> {
        match self {
            Self::Gone => None,
            Self::Off(host) | Self::Ready(host, _) => Some(host),
        }
    }
}

/// What stands outside, in comparable words. Others' things are in it whole, ours by name and target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    pub records: Vec<String>,
    /// `host by proxy`, as often as it is there.
    pub routes: Vec<String>,
    foreign: Vec<String>,
}

fn is_ours(host: &Value) -> bool {
    host == HOST || host == OTHER
}

/// Puts in what others have.
pub fn others(bench: &Bench) {
    bench.cloudflare.add_zone("acme.localhost");
    bench.cloudflare.put_foreign("www.acme.localhost", "A", "192.0.2.1");
    bench.cloudflare.put_foreign("old.acme.localhost", "CNAME", TARGET);
    bench.cloudflare.add_tunnel(
        TUNNEL,
        json!({
            "ingress": [
                {"hostname": "www.acme.localhost", "service": "http://10.0.0.1:80", "originRequest": {"noTLSVerify": true}},
                {"hostname": "*.acme.localhost", "service": "http_status:418"},
                {"service": "http_status:404"},
            ],
            "warp-routing": {"enabled": true},
        }),
    );
    bench.caddy.load(json!({"apps": {"http": {"servers": {"srv0": {"listen": [":80"], "routes": [
        {"match": [{"host": ["www.acme.localhost"]}], "handle": [{"handler": "static_response", "status_code": 418}]},
        {"@id": "theirs", "match": [{"host": ["old.acme.localhost"]}], "handle": []},
    ]}}}, "other": {"kept": [1, null, "x"]}}}));
}

/// What stands outside now.
pub fn outside(bench: &Bench) -> Outside {
    let mut foreign = Vec::new();
    let mut records = Vec::new();
    for record in bench.cloudflare.records() {
        match is_ours(&record["name"]) {
            true => records.push(format!("{} to {}", record["name"], record["content"])),
            false => foreign.push(record.to_string()),
        }
    }
    records.sort();
    let mut routes = Vec::new();
    let mut config = bench.caddy.config();
    let list = config.pointer_mut("/apps/http/servers/srv0/routes").and_then(Value::as_array_mut).unwrap();
    list.retain(|route| {
        let host = &route["match"][0]["host"][0];
        let ours = is_ours(host);
        routes.extend(ours.then(|| format!("{host} by {:?}", Proxy::Caddy)));
        !ours
    });
    let mut document = bench.cloudflare.tunnel_document(TUNNEL).0;
    document["ingress"].as_array_mut().unwrap().retain(|rule| {
        let ours = is_ours(&rule["hostname"]);
        routes.extend(ours.then(|| format!("{} by {:?}", rule["hostname"], Proxy::Tunnel)));
        !ours
    });
    routes.sort();
    foreign.extend([config.to_string(), document.to_string()]);
    Outside { records, routes, foreign }
}

/// What must stand outside for a portal, beside what others have.
pub fn wanted(portal: Portal, others: &Outside) -> Outside {
    let (records, routes) = match portal {
        Portal::Ready(host, proxy) => {
            let target = match proxy {
                Proxy::Caddy => TARGET.to_owned(),
                Proxy::Tunnel => format!("{TUNNEL}.cfargotunnel.com"),
            };
            (vec![format!("{:?} to {target:?}", host)], vec![format!("{host:?} by {proxy:?}")])
        }
        _ => Default::default(),
    };
    Outside { records, routes, foreign: others.foreign.clone() }
}

fn differs<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, wanted: &T) -> Result<(), String> {
    if is == wanted { Ok(()) } else { Err(format!("{what}: {is:#?}\nwanted: {wanted:#?}")) }
}

/// Errors: how the portal, the claims or the outside differ from what is wanted.
pub fn compare(life: &Life<'_>, portal: Portal, others: &Outside) -> Result<(), String> {
    // First what costs least to look at.
    differs("outside", &outside(life.bench), &wanted(portal, others))?;
    let found = life.user(life.portals().get_opt(NAME)).unwrap();
    let (ready, reason) = match portal {
        Portal::Gone => {
            differs("the portal", &found.as_ref().map(|_| "is there"), &None)?;
            ("", "")
        }
        Portal::Off(_) => ("False", "Disabled"),
        Portal::Ready(..) => ("True", "Live"),
    };
    if let Some(found) = &found {
        let status = found.status.clone().unwrap_or_default();
        let condition = condition_of(found, "Ready")
            .filter(|condition| condition.observed_generation == found.metadata.generation)
            .map(|condition| (condition.status, condition.reason));
        differs(&format!("its status {:?}\nReady", status), &condition, &Some((ready.to_owned(), reason.to_owned())))?;
        let made: Vec<&str> = status.resources.iter().map(|made| made.name.as_str()).collect();
        let expected = match portal {
            Portal::Ready(host, _) => vec![host, host],
            _ => Vec::new(),
        };
        differs("what the status knows of", &made, &expected)?;
        let on_the_way = (status.moving.is_some(), status.leaving.len(), status.left_behind.len());
        differs("on its way", &on_the_way, &(false, 0, 0))?;
    }
    let mut claims = life.claims();
    claims.sort();
    let expected = portal.host().map(|host| vec![format!("host--{host}"), "mail--acme.localhost".to_owned()]);
    differs("claims", &claims, &expected.unwrap_or_default())
}
