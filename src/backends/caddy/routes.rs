//! Caddy's configuration as data: finding the server, reading and changing its routes. Pure.
use serde_json::{Map, Value, json};

use crate::backends::origin_ca::certified::Certified;
use crate::backends::origin_ca::kept::{Own, Tls};
use crate::backends::{BackendError, ErrorClass};
use crate::plan::{Change, Intent, Item, Mark, Observed, Ownership, Plan};

/// Client-made headers that Caddy would pass on.
const DROPPED_HEADERS: [&str; 7] = [
    "Forwarded",
    "X-Real-Ip",
    "Cf-Connecting-Ip",
    "True-Client-Ip",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
];

/// A route as the planner sees it: a host and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub host: String,
    /// What stands in the configuration, without `@id`. Ours is compared whole.
    pub body: Value,
    pub tls: Tls,
}

/// Begins the key of a certificate of ours whose host has no route. No host has a blank in it.
const LEFTOVER: &str = "certificate for ";

impl Route {
    fn is_leftover(&self) -> bool {
        self.host.starts_with(LEFTOVER)
    }
    /// The host of the route, or of the certificate that is left over.
    pub fn name(&self) -> &str {
        self.host.strip_prefix(LEFTOVER).unwrap_or(&self.host)
    }
}

impl Certified for Route {
    fn host(&self) -> &str {
        &self.host
    }
    fn tls(&self) -> &Tls {
        &self.tls
    }
    fn set_tls(&mut self, tls: Tls) {
        self.tls = tls;
    }
    fn leftover(own: &Own) -> Self {
        let tls = Tls::Held(Some(own.state.clone()));
        Self { host: format!("{LEFTOVER}{}", own.host), body: Value::Null, tls }
    }
}

impl Item for Route {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        self.host == desired.host && self.body == desired.body && self.tls.satisfies(&desired.tls)
    }
    fn certificate(&self) -> Option<String> {
        self.tls.describe().filter(|_| self.tls == Tls::Wanted)
    }
    fn describe(&self) -> String {
        if self.is_leftover() {
            return "an unused certificate of Cloudflare's Origin CA".to_owned();
        }
        let handle = &self.body["handle"][0];
        let route = match handle["handler"].as_str() {
            Some("reverse_proxy") => {
                format!("route to {}", handle["upstreams"][0]["dial"].as_str().unwrap_or("several upstreams"))
            }
            Some(handler) => format!("route with the handler {handler}"),
            None => "route without a handler".to_owned(),
        };
        self.tls.describe().map_or(route.clone(), |tls| format!("{route} {tls}"))
    }
}

/// The portal's route: its host, to the origin, nothing after it.
pub fn desired(intent: &Intent, origin: &str, tls: Tls) -> Route {
    let host = intent.host.as_str();
    let body = json!({
        "match": [{"host": [host]}],
        "handle": [{
            "handler": "reverse_proxy",
            "upstreams": [{"dial": origin}],
            "headers": {"request": {"delete": DROPPED_HEADERS}},
        }],
        "terminal": true,
    });
    Route { host: host.to_owned(), body, tls }
}

/// Which server of the configuration gets the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    Found(String),
    /// The configuration has no http server at all: one of ours may be made.
    None,
}

/// The server with the wanted listen address; without a wish, the one on the scheme's own port, or else
/// the only one.
pub fn find_server(servers: &Value, listen: Option<&str>, https: bool) -> Result<Server, BackendError> {
    let empty = Map::new();
    let servers = servers.as_object().unwrap_or(&empty);
    if servers.is_empty() {
        return Ok(Server::None);
    }
    let listens = |server: &Value, address: &str| {
        server["listen"].as_array().is_some_and(|all| {
            all.iter().filter_map(Value::as_str).any(|one| one == address || one.strip_prefix("tcp/") == Some(address))
        })
    };
    let own_port = if https { ":443" } else { ":80" };
    let address = listen.unwrap_or(own_port);
    let mut fitting = servers.iter().filter(|(_, server)| listens(server, address)).map(|(name, _)| name);
    if let Some(name) = fitting.next() {
        return Ok(Server::Found(name.clone()));
    }
    let known = servers
        .iter()
        .map(|(name, server)| {
            let on = server["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
            format!("{name} on {}", on.collect::<Vec<_>>().join(", "))
        })
        .collect::<Vec<_>>()
        .join("; ");
    match (listen, servers.len()) {
        (None, 1) => Ok(Server::Found(servers.keys().next().cloned().unwrap_or_default())),
        _ => Err(BackendError::new(
            ErrorClass::Permanent,
            "ServerNotFound",
            format!(
                "no server of Caddy listens on {address} (there is {known}); name its address in the class as proxy.caddy.listen"
            ),
        )),
    }
}

/// Hosts that a route names exactly, in any of its matchers.
fn hosts(route: &Value) -> impl Iterator<Item = &str> {
    route["match"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|m| m["host"].as_array())
        .flatten()
        .filter_map(Value::as_str)
}

/// Every route that names a host, one item per host. The id is the place in the array for foreign routes and
/// the `@id` for ours.
pub fn observe(routes: &[Value]) -> Vec<Observed<Route>> {
    let mut found = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let id = route["@id"].as_str();
        let ownership = id.map_or(Ownership::Foreign, |id| Mark::from_identifier(own_part(id)));
        let mut body = route.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("@id");
        }
        let id = match &ownership {
            Ownership::Marked(_) => id.unwrap_or_default().to_owned(),
            Ownership::Foreign => format!("index {index}"),
        };
        found.extend(hosts(route).map(|host| Observed {
            id: id.clone(),
            ownership: ownership.clone(),
            item: Route { host: host.to_ascii_lowercase(), body: body.clone(), tls: Tls::Elsewhere },
        }));
    }
    found
}

/// The mark within an `@id` or a tag: a portal that moves holds two routes at once, so the host follows the mark.
pub fn own_part(id: &str) -> &str {
    id.split('.').next().unwrap_or_default()
}

pub fn route_id(mark: &Mark, host: &str) -> String {
    format!("{}.{host}", mark.identifier())
}

/// The routes after the plan: ours are put first, in the order of the plan; all others keep value and order.
/// Each change is judged against these very routes, so the function may be run again on newer ones.
pub fn apply(routes: &[Value], plan: &Plan<Route>) -> (Vec<Value>, Vec<Result<Option<String>, BackendError>>) {
    let mut routes = routes.to_vec();
    let mut outcomes = Vec::new();
    for change in &plan.changes {
        outcomes.push(apply_one(&mut routes, change));
    }
    (routes, outcomes)
}

fn apply_one(routes: &mut Vec<Value>, change: &Change<Route>) -> Result<Option<String>, BackendError> {
    let with_id = |mark: &Mark, item: &Route| {
        let mut body = item.body.clone();
        body["@id"] = Value::String(route_id(mark, &item.host));
        body
    };
    let place = |routes: &[Value], id: &str| routes.iter().position(|route| route["@id"] == *id);
    match change {
        Change::Create { mark, item, .. } | Change::Update { mark, to: item, .. } => {
            let id = route_id(mark, &item.host);
            let body = with_id(mark, item);
            let there = match change {
                Change::Update { id, .. } => place(routes, id).or_else(|| place(routes, &route_id(mark, &item.host))),
                _ => place(routes, &id),
            };
            match there {
                Some(index) => routes[index] = body,
                None => {
                    let taken = observe(routes)
                        .into_iter()
                        .find(|o| o.item.host == item.host && o.ownership != Ownership::Marked(mark.clone()));
                    if let Some(other) = taken {
                        let message =
                            format!("{} is taken by something that is not ours: {}", item.host, other.item.describe());
                        return Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message));
                    }
                    routes.insert(0, body);
                }
            }
            Ok(Some(id))
        }
        Change::Adopt { mark, from, to, .. } => {
            let index = routes.iter().position(|route| {
                let mut body = route.clone();
                if let Some(fields) = body.as_object_mut() {
                    fields.remove("@id");
                }
                body == from.body
            });
            let changed = || {
                let message =
                    format!("the route for {} changed while it was taken over; the next try looks again", to.host);
                BackendError::new(ErrorClass::Conflict, "ForeignRoute", message)
            };
            let index = index.ok_or_else(changed)?;
            if hosts(&routes[index]).count() != 1 {
                let message = format!("the route for {} serves other names, too, so it cannot be taken over", to.host);
                return Err(BackendError::new(ErrorClass::Conflict, "ForeignRoute", message));
            }
            routes[index] = with_id(mark, to);
            Ok(Some(route_id(mark, &to.host)))
        }
        // There is no route to a certificate that is left over.
        Change::Delete { item, .. } | Change::Release { item, .. } if item.is_leftover() => Ok(None),
        Change::Delete { id, .. } => {
            routes.retain(|route| route["@id"] != *id);
            Ok(None)
        }
        Change::Release { id, .. } => {
            if let Some(fields) = place(routes, id).and_then(|index| routes[index].as_object_mut()) {
                fields.remove("@id");
            }
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_by_its_listen_address() {
        let servers = json!({"srv0": {"listen": [":443"]}, "srv1": {"listen": [":8080", "tcp/:9000"]}});
        let found = |listen, https| find_server(&servers, listen, https);
        assert_eq!(found(None, true).unwrap(), Server::Found("srv0".into()));
        assert_eq!(found(Some(":9000"), true).unwrap(), Server::Found("srv1".into()));
        assert_eq!(
            found(None, false).unwrap_err().message,
            "no server of Caddy listens on :80 (there is srv0 on :443; srv1 on :8080, tcp/:9000); name its address in the class as proxy.caddy.listen"
        );
        assert_eq!(
            find_server(&json!({"only": {"listen": [":1"]}}), None, true).unwrap(),
            Server::Found("only".into())
        );
        assert_eq!(find_server(&Value::Null, None, true).unwrap(), Server::None);
    }

    #[test]
    fn other_peoples_routes_keep_value_and_order() {
        let theirs = vec![json!({"match": [{"host": ["www.acme.example"]}], "handle": []}), json!({"handle": []})];
        let plan = Plan { changes: Vec::new(), blocked: Vec::new(), urgency: Default::default() };
        assert_eq!(apply(&theirs, &plan).0, theirs);
        assert_eq!(observe(&theirs).len(), 1, "a catch-all names no host");
    }
}
