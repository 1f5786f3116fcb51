//! A list of routes of Caddy's configuration as data: reading and changing it. Pure.
use serde_json::{Value, json};

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
        Self { host: format!("{LEFTOVER}{}", own.host), body: Value::Null, tls, elsewhere: None }
    }
}

impl Item for Route {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        let (same, in_place) = (self.body == desired.body, self.elsewhere == desired.elsewhere);
        self.host == desired.host && same && in_place && self.tls.satisfies(&desired.tls)
    }
    fn certificate(&self) -> Option<String> {
        self.tls.describe().filter(|_| self.tls == Tls::Wanted)
    }
    fn describe(&self) -> String {
        if self.is_leftover() {
            return "an unused certificate of Cloudflare's Origin CA".to_owned();
        }
        let handle = &self.body["handle"][0];
        let mut route = match handle["handler"].as_str() {
            Some("reverse_proxy") => {
                format!("route to {}", handle["upstreams"][0]["dial"].as_str().unwrap_or("several upstreams"))
            }
            Some(handler) => format!("route with the handler {handler}"),
            None => "route without a handler".to_owned(),
        };
        if let Some(server) = &self.elsewhere {
            route.push_str(&format!(" in the server {server}"));
        }
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
    Route { host: host.to_owned(), body, tls, elsewhere: None }
}

fn matchers(route: &Value) -> &[Value] {
    route["match"].as_array().map_or(&[], Vec::as_slice)
}

fn hosts_of(matcher: &Value) -> impl Iterator<Item = &str> {
    matcher["host"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// It asks for nothing but the host, so whatever comes for that is its.
fn is_for_all_paths(matcher: &Value) -> bool {
    matcher.as_object().is_none_or(|fields| fields.keys().all(|field| field == "host"))
}

/// Every route that has a host for itself, one item per host. The id is the place in the array for foreign routes and the
/// `@id` for ours. A foreign route for some paths of a host leaves the host free: it stays before ours.
pub fn observe(routes: &[Value]) -> Vec<Observed<Route>> {
    let mut found = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let id = route["@id"].as_str();
        let ownership = id.map_or(Ownership::Foreign, |id| Mark::from_identifier(own_part(id)));
        let foreign = ownership == Ownership::Foreign;
        let mut body = route.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("@id");
        }
        let id = if foreign { format!("index {index}") } else { id.unwrap_or_default().to_owned() };
        let matchers = matchers(route).iter().filter(|matcher| !foreign || is_for_all_paths(matcher));
        found.extend(matchers.flat_map(hosts_of).map(|host| {
            let (host, body) = (host.to_ascii_lowercase(), body.clone());
            let item = Route { host, body, tls: Tls::Elsewhere, elsewhere: None };
            Observed { id: id.clone(), ownership: ownership.clone(), item }
        }));
    }
    found
}

/// Handlers after which nothing comes.
const ANSWERING: [&str; 5] = ["reverse_proxy", "static_response", "file_server", "subroute", "error"];

/// It answers whatever comes for the host.
fn takes_all(route: &Value, host: &str) -> bool {
    let fits = |name: &str| {
        let parent = name.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        name.eq_ignore_ascii_case(host) || parent.is_some_and(|rest| host.ends_with(rest))
    };
    let whole = |matcher: &Value| {
        let any = matcher["host"].as_array().is_none_or(Vec::is_empty);
        is_for_all_paths(matcher) && (any || hosts_of(matcher).any(fits))
    };
    let matchers = matchers(route);
    let handlers = route["handle"].as_array().into_iter().flatten().filter_map(|handler| handler["handler"].as_str());
    let answers = route["terminal"] == true || handlers.into_iter().any(|handler| ANSWERING.contains(&handler));
    answers && (matchers.is_empty() || matchers.iter().any(whole))
}

/// Where a new route belongs: before whatever takes the host, behind what somebody has for some of its paths.
fn place_for(routes: &[Value], host: &str) -> usize {
    let end = routes.iter().position(|route| takes_all(route, host)).unwrap_or(routes.len());
    let of_host = |route: &Value| matchers(route).iter().flat_map(hosts_of).any(|name| name.eq_ignore_ascii_case(host));
    routes[..end].iter().rposition(of_host).map_or(0, |last| last + 1)
}

/// The mark within an `@id` or a tag: a portal that moves holds two routes at once, so the host follows the mark.
pub fn own_part(id: &str) -> &str {
    id.split('.').next().unwrap_or_default()
}

pub fn route_id(mark: &Mark, host: &str) -> String {
    format!("{}.{host}", mark.identifier())
}

/// The routes after the plan: new ones are put where they take what comes for their hosts; all others keep value and
/// order. Each change is judged against these very routes, so the function may be run again on newer ones.
pub fn apply(routes: &[Value], plan: &Plan<Route>) -> (Vec<Value>, Vec<Result<Option<String>, BackendError>>) {
    let mut routes = routes.to_vec();
    let mut outcomes = Vec::new();
    for change in &plan.changes {
        outcomes.push(apply_one(&mut routes, change));
    }
    (routes, outcomes)
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
                    routes.insert(place_for(routes, &item.host), body);
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
            if matchers(&routes[index]).iter().flat_map(hosts_of).count() != 1 {
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
    fn other_peoples_routes_keep_value_and_order() {
        let theirs = vec![json!({"match": [{"host": ["www.acme.example"]}], "handle": []}), json!({"handle": []})];
        let plan = Plan { changes: Vec::new(), blocked: Vec::new(), urgency: Default::default() };
        assert_eq!(apply(&theirs, &plan).0, theirs);
        assert_eq!(observe(&theirs).len(), 1, "a catch-all names no host");
    }

    #[test]
    fn a_new_route_stands_behind_what_somebody_has_for_some_paths_and_before_what_takes_the_host() {
        let host = "reset.acme.example";
        let answer = json!([{"handler": "static_response"}]);
        let paths = json!({"match": [{"host": ["Reset.Acme.Example"], "path": ["/.well-known/*"]}], "handle": answer});
        let headers = json!({"handle": [{"handler": "headers"}]});
        let wildcard = json!({"match": [{"host": ["*.acme.example"]}], "handle": answer});
        let all = json!({"handle": answer});
        for (routes, place) in [
            (vec![], 0),
            (vec![&all], 0),
            (vec![&paths, &all], 1),
            (vec![&headers, &paths, &all], 2),
            (vec![&wildcard, &paths], 0),
            (vec![&all, &paths], 0),
        ] {
            let routes: Vec<Value> = routes.into_iter().cloned().collect();
            assert_eq!(place_for(&routes, host), place, "{routes:?}");
        }
        assert_eq!(observe(&[paths]), [], "the host itself is free");
    }
}
