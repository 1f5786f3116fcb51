//! A list of routes of Caddy's configuration as data: reading and changing it. Pure.
use std::collections::HashSet;

use serde_json::{Value, json};

use super::identity::{self, route_id};
use super::order::{self, Others};
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
    /// A route of ours before which somebody's takes everything by a wildcard or without a host, so that it gets nothing.
    pub behind: bool,
    /// Name of the server that it is in, where that is not the one that gets the routes.
    pub elsewhere: Option<String>,
}

/// Begins the key of a certificate of ours whose host has no route. No host has a blank in it.
const LEFTOVER: &str = "certificate for ";

impl Route {
    /// It stands for a certificate without a route.
    pub fn is_leftover(&self) -> bool {
        self.host.starts_with(LEFTOVER)
    }
    /// The host of the route, or of the certificate that is left over.
    pub fn name(&self) -> &str {
        self.host.strip_prefix(LEFTOVER).unwrap_or(&self.host)
    }
    /// Whether it gets requests for its host alone: only such a route of somebody else may be taken over, because all of
    /// it is replaced.
    pub fn is_only_for_its_host(&self) -> bool {
        order::is_only_for(&self.body, &self.host)
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
        Self { host: format!("{LEFTOVER}{}", own.host), body: Value::Null, tls, behind: false, elsewhere: None }
    }
}

impl Item for Route {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        let same = self.body == desired.body;
        let in_place = self.elsewhere == desired.elsewhere && self.behind == desired.behind;
        self.host == desired.host && same && in_place && self.tls.satisfies(&desired.tls)
    }
    /// All of a route that is taken over is replaced.
    fn adoptable(&self) -> bool {
        self.is_only_for_its_host()
    }
    fn certificate(&self) -> Option<String> {
        self.tls.describe().filter(|_| self.tls == Tls::Wanted)
    }
    fn describe(&self) -> String {
        if self.is_leftover() {
            return "an unused certificate of Cloudflare's Origin CA".to_owned();
        }
        let mut route = describe(&self.body);
        if self.behind {
            route.push_str(" behind a route that takes its requests");
        }
        if let Some(server) = &self.elsewhere {
            route.push_str(&format!(" in the server {server}"));
        }
        self.tls.describe().map_or(route.clone(), |tls| format!("{route} {tls}"))
    }
}

/// A route in words.
pub fn describe(route: &Value) -> String {
    let handle = &route["handle"][0];
    match handle["handler"].as_str() {
        Some("reverse_proxy") => {
            format!("route to {}", handle["upstreams"][0]["dial"].as_str().unwrap_or("several upstreams"))
        }
        Some(handler) => format!("route with the handler {handler}"),
        None => "route without a handler".to_owned(),
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
    Route { host: host.to_owned(), body, tls, behind: false, elsewhere: None }
}

/// Every route that has a host for itself: of somebody else's one item per host, by the place in the array; of ours one
/// item by its `@id`, at the host that this names, so that a host that somebody added makes it no other thing.
pub fn observe(routes: &[Value]) -> Vec<Observed<Route>> {
    let others = Others::of(routes);
    let mut known = HashSet::new();
    let mut found = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let body = identity::bare(route);
        let ownership = identity::ownership(route);
        let item =
            |host: String, behind| Route { host, body: body.clone(), tls: Tls::Elsewhere, behind, elsewhere: None };
        if ownership == Ownership::Foreign {
            found.extend(order::names(route).into_iter().map(|host| {
                let (id, ownership) = (format!("index {index}"), Ownership::Foreign);
                Observed { id, ownership, item: item(host, false) }
            }));
            continue;
        }
        let id = route["@id"].as_str().unwrap_or_default();
        // Old Caddys take an `@id` twice: the first one serves, and both go together.
        if known.insert(id) {
            let host = identity::own_host(id).to_ascii_lowercase();
            let behind = others.hide(&host, index);
            found.push(Observed { id: id.to_owned(), ownership, item: item(host, behind) });
        }
    }
    found
}

/// The routes after the plan: new ones are put where they take what comes for their hosts, and so are those of ours before
/// which somebody put what takes everything; all others keep value and order. Each change is judged against these very
/// routes, so the function may be run again on newer ones.
pub fn apply(routes: &[Value], plan: &Plan<Route>) -> (Vec<Value>, Vec<Result<Option<String>, BackendError>>) {
    let mut routes = routes.to_vec();
    let mut outcomes = Vec::new();
    for change in &plan.changes {
        outcomes.push(apply_one(&mut routes, change));
    }
    (routes, outcomes)
}

fn foreign_route(message: String) -> BackendError {
    BackendError::new(ErrorClass::Conflict, "ForeignRoute", message)
}

/// What is in the way of a new route for that host.
fn in_the_way<'a>(routes: &'a [Value], mark: &Mark, host: &str) -> Option<&'a Value> {
    routes.iter().find(|route| match identity::ownership(route) {
        Ownership::Foreign => order::names(route).contains(host),
        Ownership::Marked(other) => other != *mark && route["@id"].as_str().map(identity::own_host) == Some(host),
    })
}

/// Puts the route in the place of the one that is there, or where it gets what comes for its host.
fn put(routes: &mut Vec<Value>, at: usize, host: &str, body: Value) {
    if order::is_behind(routes, host, at) {
        routes.remove(at);
        routes.insert(order::place_for(routes, host), body);
    } else {
        routes[at] = body;
    }
}

/// One change of a list.
pub fn apply_one(routes: &mut Vec<Value>, change: &Change<Route>) -> Result<Option<String>, BackendError> {
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
                Some(index) => put(routes, index, &item.host, body),
                None => {
                    if let Some(other) = in_the_way(routes, mark, &item.host) {
                        let (host, other) = (&item.host, describe(other));
                        return Err(foreign_route(format!("{host} is taken by something that is not ours: {other}")));
                    }
                    routes.insert(order::place_for(routes, &item.host), body);
                }
            }
            Ok(Some(id))
        }
        Change::Adopt { mark, from, to, .. } => {
            let theirs = |route: &Value| identity::ownership(route) == Ownership::Foreign;
            let same = |route: &Value| theirs(route) && identity::bare(route) == from.body;
            let Some(index) = routes.iter().position(same) else {
                let host = &to.host;
                return Err(foreign_route(format!(
                    "the route for {host} changed while it was taken over; the next try looks again"
                )));
            };
            if !from.is_only_for_its_host() {
                let host = &to.host;
                return Err(foreign_route(format!(
                    "the route for {host} takes requests for other names, too, so it cannot be taken over; take {host} out \
                     of it, or give that name a route of its own"
                )));
            }
            put(routes, index, &to.host, with_id(mark, to));
            Ok(Some(route_id(mark, &to.host)))
        }
        // There is no route to a certificate that is left over.
        Change::Delete { item, .. } | Change::Release { item, .. } if item.is_leftover() => Ok(None),
        Change::Delete { id, .. } => {
            routes.retain(|route| route["@id"] != *id);
            Ok(None)
        }
        Change::Release { id, .. } => {
            for fields in routes.iter_mut().filter(|route| route["@id"] == *id).filter_map(Value::as_object_mut) {
                fields.remove("@id");
            }
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortalKey;
    use crate::plan::InstallationId;

    const HOST: &str = "reset.acme.example";

    fn mark() -> Mark {
        let portal = PortalKey { namespace: "mail".into(), name: "acme".into() };
        Mark::new(&InstallationId::parse("0123456789abcdef").unwrap(), &portal)
    }

    #[test]
    fn other_peoples_routes_keep_value_and_order() {
        let theirs = vec![json!({"match": [{"host": ["www.acme.example"]}], "handle": []}), json!({"handle": []})];
        let plan = Plan { changes: Vec::new(), blocked: Vec::new(), urgency: Default::default() };
        assert_eq!(apply(&theirs, &plan).0, theirs);
        assert_eq!(observe(&theirs).len(), 1, "a catch-all names no host");
    }

    #[test]
    fn a_route_of_ours_is_one_item_at_the_host_of_its_id_whatever_its_matchers_say() {
        let id = route_id(&mark(), HOST);
        for sets in [
            json!([{"host": [HOST, "www.acme.example"]}]),
            json!([{"host": ["www.acme.example"]}, {"host": [HOST], "path": ["/x"]}]),
            json!([]),
        ] {
            let ours = json!({"@id": id, "match": sets, "handle": []});
            // and an old Caddy may have it twice
            let found = observe(&[ours.clone(), ours]);
            assert_eq!(found.len(), 1, "{sets}");
            assert_eq!((found[0].item.host.as_str(), &found[0].id), (HOST, &id), "{sets}");
            assert_eq!(found[0].ownership, Ownership::Marked(mark()), "{sets}");
        }
    }

    #[test]
    fn two_sets_of_matchers_for_one_name_are_one_thing_in_the_way() {
        let sets = json!([{"host": [HOST]}, {"host": ["Reset.ACME.example"], "path": ["*"]}]);
        assert_eq!(observe(&[json!({"match": sets, "handle": []})]).len(), 1);
    }
}
