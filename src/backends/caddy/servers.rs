//! The http servers of Caddy's configuration as data: which one gets the routes, and ours in the others. Pure.
//!
//! Which one that is changes with the class's listen address or scheme, and when somebody adds a server. What is of ours
//! in another one is moved by a change of all servers at once, so that no request falls between, and no `@id` is there
//! twice, which Caddy refuses since 2.8.
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::admin::overtaken;
use super::identity::{own_host, ownership};
use super::order::{Obstacle, Others, place_for};
use super::routes::{self, Route};
use crate::api::PROOF_PATH;
use crate::api::condition::Truth;
use crate::backends::{BackendError, Doubt, ErrorClass, Scope};
use crate::plan::{Change, Mark, Observed, Ownership, Plan};

/// Name of the server that is made where there is none; further ones, for other addresses, have a number behind it.
const OWN_SERVER: &str = "portalkeeper";

/// Which server of the configuration gets the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    Found(String),
    /// The configuration has no http server but those that were made for portals, and none of them fits: one may be made.
    New(NewServer),
}

/// A server for portals alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServer {
    name: String,
    listen: String,
    https: bool,
}

impl NewServer {
    pub fn name(&self) -> &str {
        &self.name
    }
    /// As Caddy is to have it.
    pub fn with(&self, routes: Vec<Value>) -> Value {
        let mut server = json!({"listen": [self.listen], "routes": routes});
        if !self.https {
            // Or Caddy serves TLS at any port but its own for http, and orders certificates.
            server["automatic_https"] = json!({"disable": true});
        }
        server
    }
}

impl Server {
    pub fn name(&self) -> &str {
        match self {
            Self::Found(name) | Self::New(NewServer { name, .. }) => name,
        }
    }
}

fn is_own_name(name: &str) -> bool {
    let number = |rest: &str| rest.strip_prefix('-').is_some_and(|number| number.parse::<usize>().is_ok());
    name.strip_prefix(OWN_SERVER).is_some_and(|rest| rest.is_empty() || number(rest))
}

/// Whether nobody put anything into a server but what it was made with.
fn as_made(server: &Value) -> bool {
    let ours = |field: &String| ["listen", "routes", "automatic_https"].contains(&field.as_str());
    server.as_object().is_some_and(|fields| fields.keys().all(ours))
}

/// The server with the wanted listen address; without a wish, the one on the scheme's own port, or else
/// the only one.
pub fn find_server(servers: &Value, listen: Option<&str>, https: bool) -> Result<Server, BackendError> {
    let empty = Map::new();
    let servers = servers.as_object().unwrap_or(&empty);
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
    let foreign: Vec<&String> =
        servers.iter().filter(|(name, server)| !(is_own_name(name) && as_made(server))).map(|(name, _)| name).collect();
    if foreign.is_empty() {
        let numbered = (2..).map(|number| format!("{OWN_SERVER}-{number}"));
        let mut names = std::iter::once(OWN_SERVER.to_owned()).chain(numbered);
        let name = names.find(|name| !servers.contains_key(name)).unwrap_or_default();
        return Ok(Server::New(NewServer { name, listen: address.to_owned(), https }));
    }
    let known = servers
        .iter()
        .map(|(name, server)| {
            let on = server["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
            format!("{name} on {}", on.collect::<Vec<_>>().join(", "))
        })
        .collect::<Vec<_>>()
        .join("; ");
    match (listen, foreign.as_slice()) {
        (None, [only]) => Ok(Server::Found((*only).clone())),
        _ => Err(BackendError::new(
            ErrorClass::Permanent,
            "ServerNotFound",
            format!(
                "no server of Caddy listens on {address} (there is {known}); name its address as proxy.caddy.listen (CADDY_LISTEN)"
            ),
        )),
    }
}

fn routes_of(server: &Value) -> &[Value] {
    server["routes"].as_array().map_or(&[], Vec::as_slice)
}

fn lists(servers: &Value) -> impl Iterator<Item = (&String, &[Value])> {
    servers.as_object().into_iter().flatten().map(|(name, server)| (name, routes_of(server)))
}

/// What is in the server that gets the routes, and these portals' routes in all others.
pub fn observe(servers: &Value, chosen: Option<&str>, marks: &[Mark]) -> Vec<Observed<Route>> {
    let (here, others): (Vec<_>, Vec<_>) = lists(servers).partition(|(name, _)| chosen == Some(name.as_str()));
    let mut found: Vec<Observed<Route>> = here.into_iter().flat_map(|(_, routes)| routes::observe(routes)).collect();
    let of_them = |one: &Observed<Route>| matches!(&one.ownership, Ownership::Marked(mark) if marks.contains(mark));
    for (name, routes) in others {
        found.extend(routes::observe(routes).into_iter().filter(of_them).map(|mut one| {
            one.item.elsewhere = Some(name.clone());
            one
        }));
    }
    found
}

/// What keeps requests from the wanted hosts' routes, once they are where they belong, by host.
pub fn obstacles(servers: &Value, chosen: &str, scope: &Scope, instance: &str) -> HashMap<String, Doubt> {
    let routes = routes_of(&servers[chosen]);
    let others = Others::of(routes);
    let marks: HashSet<&Mark> = scope.marks.iter().collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        if matches!(ownership(route), Ownership::Marked(mark) if marks.contains(&mark)) {
            places.entry(own_host(route["@id"].as_str().unwrap_or_default())).or_insert(index);
        }
    }
    let found = scope.wanted.iter().filter_map(|host| {
        let host = host.as_str();
        let place = places.get(host).copied().filter(|place| !others.hide(host, *place));
        let (truth, reason, message) = match others.obstacle(host, place.unwrap_or_else(|| place_for(routes, host)))? {
            Obstacle::Shadowed(route) => {
                let message = format!(
                    "somebody's route for {host} stands before ours in the server {chosen} of {instance} and gets its requests: \
                     a {}; remove it, or put it behind ours",
                    routes::describe(route)
                );
                (Truth::False, "Shadowed", message)
            }
            Obstacle::ProofTaken(pattern) => {
                let message = format!(
                    "{host} is in place in {instance}; somebody's route before it takes the path {pattern}, and with it \
                     {PROOF_PATH}, at which the proof of life is asked for: leave that path out there"
                );
                (Truth::True, "ProofTaken", message)
            }
        };
        Some((host.to_owned(), Doubt { key: host.to_owned(), truth, reason, message }))
    });
    found.collect()
}

/// Whether any server has a route with such an `@id`.
pub fn has_route(servers: &Value, fits: impl Fn(&str) -> bool) -> bool {
    let found = |route: &Value| route["@id"].as_str().is_some_and(&fits);
    lists(servers).any(|(_, routes)| routes.iter().any(found))
}

/// The server in which a change finds its route, where that is not the one that gets the routes, and the route's id.
pub fn elsewhere(change: &Change<Route>) -> Option<(&str, &str)> {
    match change {
        Change::Update { id, from: item, .. } | Change::Delete { id, item, .. } | Change::Release { id, item, .. } => {
            Some((item.elsewhere.as_deref()?, id))
        }
        Change::Create { .. } | Change::Adopt { .. } => None,
    }
}

/// Whether a change of the server's routes has to be one of all servers: Caddy reads no other names from the path of a
/// call or from an ETag, and of a server of ours that loses a route nothing may be left.
pub fn needs_all(server: &str, plan: &Plan<Route>) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let removal = |change: &Change<Route>| matches!(change, Change::Delete { .. } | Change::Release { .. });
    let named_oddly = server.is_empty() || !server.bytes().all(plain);
    named_oddly || (is_own_name(server) && plan.changes.iter().any(removal))
}

/// Outcomes of a plan's changes, in its order: the route's id, or why not.
pub type Outcomes = Vec<Result<Option<String>, BackendError>>;

/// Outcomes where no server gets the routes: what is to be made cannot be.
pub fn without_server(plan: &Plan<Route>, error: &BackendError) -> Outcomes {
    let outcome = |change: &Change<Route>| match change {
        Change::Delete { .. } | Change::Release { .. } => Ok(None),
        _ => Err(error.clone()),
    };
    plan.changes.iter().map(outcome).collect()
}

/// All servers after the plan, some of whose routes are in others than the chosen one.
pub fn rearrange(servers: &Value, chosen: &Result<Server, BackendError>, plan: &Plan<Route>) -> (Value, Outcomes) {
    let mut all: BTreeMap<String, Vec<Value>> =
        lists(servers).map(|(name, routes)| (name.clone(), routes.to_vec())).collect();
    let mut outcomes = Outcomes::new();
    for change in &plan.changes {
        let leaves = matches!(change, Change::Delete { .. } | Change::Release { .. });
        let outcome = match (chosen, elsewhere(change)) {
            (_, Some((server, _))) if leaves => {
                all.get_mut(server).map_or(Ok(None), |routes| routes::apply_one(routes, change))
            }
            (Ok(Server::New(_)), None) if leaves => Ok(None),
            (Ok(to), from) => {
                if matches!(to, Server::New(_)) {
                    all.entry(to.name().to_owned()).or_default();
                }
                let made =
                    all.get_mut(to.name()).map_or_else(|| Err(overtaken()), |routes| routes::apply_one(routes, change));
                if let (Ok(_), Some((server, id))) = (&made, from.filter(|(server, _)| *server != to.name()))
                    && let Some(routes) = all.get_mut(server)
                {
                    routes.retain(|route| route["@id"] != *id);
                }
                made
            }
            (Err(_), _) if leaves => Ok(None),
            (Err(error), _) => Err(error.clone()),
        };
        outcomes.push(outcome);
    }
    let mut after = servers.clone();
    for (name, routes) in all {
        match (chosen, after.get_mut(&name)) {
            (_, Some(server)) if !routes.is_empty() || !server["routes"].is_null() => {
                server["routes"] = Value::Array(routes);
            }
            (Ok(Server::New(new)), None) if new.name == name && !routes.is_empty() => after[&name] = new.with(routes),
            _ => {}
        }
    }
    if let Some(all) = after.as_object_mut() {
        all.retain(|name, server| !(is_own_name(name) && is_spent(&servers[name], server)));
    }
    (after, outcomes)
}

/// Whether the server that was made for ours alone has lost the last of them, so that it would keep a port open for
/// nothing. One that somebody put something into stays.
fn is_spent(before: &Value, after: &Value) -> bool {
    !routes_of(before).is_empty() && routes_of(after).is_empty() && as_made(after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::identity::route_id;
    use super::*;
    use crate::api::{HostName, PortalKey};
    use crate::backends::origin_ca::kept::Tls;
    use crate::plan::{CertificateMode, InstallationId, Intent, Want, plan};

    #[test]
    fn of_a_route_that_is_in_two_servers_the_one_in_the_right_server_stays() {
        let portal = PortalKey { namespace: "mail".into(), name: "acme".into() };
        let mark = Mark::new(&InstallationId::parse("0123456789abcdef").unwrap(), &portal);
        let intent = Intent {
            mark: mark.clone(),
            portal: portal.clone(),
            host: HostName::parse("reset.acme.example").unwrap(),
            cname_target: None,
            proxied: true,
            ttl: 1,
            certificate: CertificateMode::None,
            adopt: false,
            keep: Vec::new(),
        };
        let item = routes::desired(&intent, "127.0.0.1:5000", Tls::Elsewhere);
        let mut ours = item.body.clone();
        ours["@id"] = json!(route_id(&mark, &item.host));
        let theirs = json!({"handle": [{"handler": "static_response"}]});
        let servers = json!({
            "mine": {"listen": [":443"], "routes": [ours, theirs]}, "old": {"listen": [":80"], "routes": [theirs, ours]},
            "bare": {"listen": [":81"]},
        });
        let wants = [(portal, Want::Present { mark: mark.clone(), items: vec![item], adopt: false, keep: vec![] })];
        let planned = plan(&wants, &observe(&servers, Some("mine"), std::slice::from_ref(&mark)));
        assert!(matches!(planned.changes.as_slice(), [Change::Delete { .. }]), "{planned:?}");
        assert_eq!(elsewhere(&planned.changes[0]).unwrap().0, "old");
        let (after, outcomes) = rearrange(&servers, &Ok(Server::Found("mine".into())), &planned);
        let mut wanted = servers.clone();
        wanted["old"]["routes"] = json!([theirs]);
        assert_eq!((after, outcomes.len()), (wanted, 1));
        // what somebody else has in another server is not looked at
        assert_eq!(observe(&servers, Some("mine"), &[]).len(), 1);
    }

    #[test]
    fn the_server_is_found_by_its_listen_address() {
        let servers = json!({"srv0": {"listen": [":443"]}, "srv1": {"listen": [":8080", "tcp/:9000"]}});
        let found = |listen, https| find_server(&servers, listen, https);
        assert_eq!(found(None, true).unwrap(), Server::Found("srv0".into()));
        assert_eq!(found(Some(":9000"), true).unwrap(), Server::Found("srv1".into()));
        assert_eq!(
            found(None, false).unwrap_err().message,
            "no server of Caddy listens on :80 (there is srv0 on :443; srv1 on :8080, tcp/:9000); name its address as proxy.caddy.listen (CADDY_LISTEN)"
        );
        assert_eq!(
            find_server(&json!({"only": {"listen": [":1"]}}), None, true).unwrap(),
            Server::Found("only".into())
        );
        // where there are none but ours, one is made for each address
        let ours = |name: &str, listen: &str| {
            Ok(Server::New(NewServer { name: name.into(), listen: listen.into(), https: true }))
        };
        assert_eq!(find_server(&Value::Null, None, true), ours("portalkeeper", ":443"));
        let mut servers = json!({"portalkeeper": {"listen": [":8443"], "routes": []}});
        assert_eq!(find_server(&servers, None, true), ours("portalkeeper-2", ":443"));
        assert_eq!(find_server(&servers, Some(":8443"), true), Ok(Server::Found("portalkeeper".into())));
        assert_eq!(find_server(&servers, Some(":9443"), true), ours("portalkeeper-2", ":9443"));
        // but one into which somebody put something is somebody's
        servers["portalkeeper"]["read_timeout"] = json!(1);
        assert_eq!(find_server(&servers, None, true), Ok(Server::Found("portalkeeper".into())));
        assert_eq!(find_server(&servers, Some(":9443"), true).unwrap_err().reason, "ServerNotFound");
    }
}
