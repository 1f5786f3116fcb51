//! Which route gets a request: what each takes, in the order in which Caddy asks them. Pure.
use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::identity::ownership;
use crate::api::PROOF_PATH;
use crate::plan::Ownership;

/// How a set of matchers stands to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    ByName,
    /// By a wildcard, or because it names no host.
    Broadly,
    Not,
}

/// What of a host's requests a set of matchers is for.
enum Width<'a> {
    Whole,
    /// Some paths alone.
    Paths(&'a [Value]),
    /// Whatever else it asks for.
    Other,
}

/// What a route without matchers asks for.
static NOTHING: Value = Value::Null;

fn sets(route: &Value) -> impl Iterator<Item = &Value> {
    let sets = route["match"].as_array().map_or(&[][..], Vec::as_slice);
    sets.iter().chain(sets.is_empty().then_some(&NOTHING))
}

fn hosts_of(set: &Value) -> impl Iterator<Item = &str> {
    set["host"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// As Caddy compares: label by label, each `*` for one, without case.
fn covers(pattern: &str, host: &str) -> bool {
    let labels = || pattern.split('.').zip(host.split('.'));
    let as_many = pattern.split('.').count() == host.split('.').count();
    pattern.contains('*') && as_many && labels().all(|(own, other)| own == "*" || own.eq_ignore_ascii_case(other))
}

fn fit(set: &Value, host: &str) -> Fit {
    if set["host"].is_null() {
        Fit::Broadly
    } else if hosts_of(set).any(|name| name.eq_ignore_ascii_case(host)) {
        Fit::ByName
    } else if hosts_of(set).any(|name| covers(name, host)) {
        Fit::Broadly
    } else {
        Fit::Not
    }
}

fn width(set: &Value) -> Width<'_> {
    let Some(fields) = set.as_object() else { return Width::Whole };
    if fields.keys().any(|field| field != "host" && field != "path") {
        return Width::Other;
    }
    match fields.get("path").and_then(Value::as_array) {
        Some(patterns) if !patterns.iter().any(|pattern| *pattern == "*" || *pattern == "/*") => Width::Paths(patterns),
        _ => Width::Whole,
    }
}

/// Handlers after which nothing comes.
const ANSWERING: [&str; 5] = ["reverse_proxy", "static_response", "file_server", "subroute", "error"];

fn answers(route: &Value) -> bool {
    let mut handlers = route["handle"].as_array().into_iter().flatten();
    let answering = |handler: &Value| handler["handler"].as_str().is_some_and(|name| ANSWERING.contains(&name));
    route["terminal"] == true || handlers.any(answering)
}

fn takes(route: &Value, wanted: impl Fn(&Value) -> bool) -> bool {
    sets(route).any(|set| matches!(width(set), Width::Whole) && wanted(set)) && answers(route)
}

fn takes_by_name(route: &Value, host: &str) -> bool {
    takes(route, |set| fit(set, host) == Fit::ByName)
}

fn takes_broadly(route: &Value, host: &str) -> bool {
    takes(route, |set| fit(set, host) == Fit::Broadly)
}

/// The names that a route has wholly for itself, in lower case. One for some paths of a host leaves the host free.
pub fn names(route: &Value) -> BTreeSet<String> {
    let whole = sets(route).filter(|set| matches!(width(set), Width::Whole));
    whole.flat_map(hosts_of).map(str::to_ascii_lowercase).collect()
}

/// Whether a route gets no request for any other name, whichever set of matchers fits.
pub fn is_only_for(route: &Value, host: &str) -> bool {
    let alone =
        |set: &Value| hosts_of(set).next().is_some() && hosts_of(set).all(|name| name.eq_ignore_ascii_case(host));
    sets(route).all(alone)
}

/// Where a route belongs: before whatever takes the host, behind what somebody has for some paths of it or of all.
pub fn place_for(routes: &[Value], host: &str) -> usize {
    let end = routes.iter().position(|route| takes(route, |set| fit(set, host) != Fit::Not)).unwrap_or(routes.len());
    let comes_first = |set: &Value| match fit(set, host) {
        Fit::ByName => true,
        Fit::Broadly => matches!(width(set), Width::Paths(_)),
        Fit::Not => false,
    };
    routes[..end].iter().rposition(|route| sets(route).any(comes_first)).map_or(0, |last| last + 1)
}

/// Whether a route at that place gets nothing of the host, because somebody's before it takes everything. One for this very
/// name is its owner's will, and stays where it is.
pub fn is_behind(routes: &[Value], host: &str, at: usize) -> bool {
    let before = || routes.iter().take(at);
    let foreign = |route: &Value| ownership(route) == Ownership::Foreign;
    before().any(|route| takes_broadly(route, host) && foreign(route))
        && !before().any(|route| takes_by_name(route, host) && foreign(route))
}

/// As Caddy compares: `/exact`, `/begin*`, `*end`, `*middle*`, without case.
fn path_fits(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.to_ascii_lowercase(), path.to_ascii_lowercase());
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(rest), Some(_)) => path.contains(rest.strip_suffix('*').unwrap_or(rest)),
        (Some(end), None) => path.ends_with(end),
        (None, Some(start)) => path.starts_with(start),
        (None, None) => path == pattern,
    }
}

/// Why a route of ours does not get all that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle<'a> {
    /// This route for the very name stands before it.
    Shadowed(&'a Value),
    /// A route before it takes the path of the proof of life, by this pattern.
    ProofTaken(&'a str),
}

/// Somebody else's routes that answer, by what they are for: a look at a thousand hosts goes through them once.
pub struct Others<'a> {
    routes: &'a [Value],
    /// Places, by the names that a route has.
    named: HashMap<String, Vec<usize>>,
    /// Places of those with wildcards or without hosts.
    broad: Vec<usize>,
}

impl<'a> Others<'a> {
    pub fn of(routes: &'a [Value]) -> Self {
        let mut others = Self { routes, named: HashMap::new(), broad: Vec::new() };
        let answering = |(_, route): &(usize, &Value)| ownership(route) == Ownership::Foreign && answers(route);
        for (index, route) in routes.iter().enumerate().filter(answering) {
            if sets(route).any(|set| set["host"].is_null() || hosts_of(set).any(|name| name.contains('*'))) {
                others.broad.push(index);
            }
            let named: BTreeSet<String> = sets(route).flat_map(hosts_of).map(str::to_ascii_lowercase).collect();
            named.into_iter().for_each(|name| others.named.entry(name).or_default().push(index));
        }
        others
    }

    fn named(&self, host: &str, at: usize) -> impl Iterator<Item = &'a Value> {
        let routes = self.routes;
        let places = self.named.get(host).into_iter().flatten().copied();
        places.take_while(move |index| *index < at).map(move |index| &routes[index])
    }

    fn broad(&self, at: usize) -> impl Iterator<Item = &'a Value> {
        self.broad.iter().take_while(move |index| **index < at).map(|index| &self.routes[*index])
    }

    /// The same as [`is_behind`], of these.
    pub fn hide(&self, host: &str, at: usize) -> bool {
        self.broad(at).any(|route| takes_broadly(route, host))
            && !self.named(host, at).any(|route| takes_by_name(route, host))
    }

    /// What keeps requests from a route of ours at that place.
    pub fn obstacle(&self, host: &str, at: usize) -> Option<Obstacle<'a>> {
        if let Some(route) = self.named(host, at).find(|route| takes_by_name(route, host)) {
            return Some(Obstacle::Shadowed(route));
        }
        let narrow = self.named(host, at).chain(self.broad(at)).flat_map(sets);
        let patterns = narrow.filter(|set| fit(set, host) != Fit::Not).filter_map(|set| match width(set) {
            Width::Paths(patterns) => Some(patterns),
            Width::Whole | Width::Other => None,
        });
        let mut patterns = patterns.flatten().filter_map(Value::as_str);
        patterns.find(|pattern| path_fits(pattern, PROOF_PATH)).map(Obstacle::ProofTaken)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOST: &str = "reset.acme.example";

    fn answering(sets: Value) -> Value {
        json!({"match": sets, "handle": [{"handler": "static_response"}]})
    }

    #[test]
    fn a_new_route_stands_behind_what_somebody_has_for_some_paths_and_before_what_takes_the_host() {
        let paths = answering(json!([{"host": ["Reset.Acme.Example"], "path": ["/.well-known/*"]}]));
        let everywhere = answering(json!([{"path": ["/metrics"]}]));
        let below = answering(json!([{"host": ["*.ACME.example"], "path": ["/status"]}]));
        let all_paths = answering(json!([{"path": ["/metrics", "/*"]}]));
        let methods = answering(json!([{"method": ["OPTIONS"]}]));
        let headers = json!({"handle": [{"handler": "headers"}]});
        let wildcard = answering(json!([{"host": ["*.ACME.example"]}]));
        let deeper = answering(json!([{"host": ["*.example"]}]));
        let nobody = answering(json!([{"host": []}]));
        let all = answering(json!([]));
        for (routes, place) in [
            (vec![], 0),
            (vec![&all], 0),
            (vec![&paths, &all], 1),
            (vec![&headers, &paths, &all], 2),
            (vec![&wildcard, &paths], 0),
            (vec![&all, &paths], 0),
            (vec![&everywhere, &all], 1),
            (vec![&everywhere, &below, &wildcard, &paths], 2),
            (vec![&all_paths, &everywhere], 0),
            (vec![&methods, &all], 0),
            (vec![&deeper, &nobody, &paths], 3),
        ] {
            let routes: Vec<Value> = routes.into_iter().cloned().collect();
            assert_eq!(place_for(&routes, HOST), place, "{routes:?}");
        }
        assert_eq!(names(&paths), BTreeSet::new(), "the host itself is free");
    }

    #[test]
    fn a_route_is_behind_what_takes_everything_unless_its_own_name_comes_first() {
        let (wildcard, all) = (answering(json!([{"host": ["*.ACME.example"]}])), answering(json!([{}])));
        let named = answering(json!([{"host": [HOST, "www.acme.example"]}]));
        let passing = json!({"handle": [{"handler": "headers"}]});
        for (before, behind) in [
            (vec![], false),
            (vec![&passing], false),
            (vec![&wildcard], true),
            (vec![&all], true),
            (vec![&named], false),
            (vec![&named, &all], false),
        ] {
            let routes: Vec<Value> = before.into_iter().cloned().collect();
            assert_eq!(is_behind(&routes, HOST, routes.len()), behind, "{routes:?}");
            assert_eq!(Others::of(&routes).hide(HOST, routes.len()), behind, "{routes:?}");
            assert!(!is_behind(&routes, HOST, 0), "what stands behind it takes nothing");
        }
        let routes = [all, named.clone()];
        assert_eq!(Others::of(&routes).obstacle(HOST, 2), Some(Obstacle::Shadowed(&named)));
        assert_eq!(Others::of(&routes).obstacle(HOST, 1), None);
    }

    #[test]
    fn a_path_of_somebody_takes_the_proof_where_its_pattern_fits() {
        for (pattern, taken) in [
            ("/.well-known/*", true),
            ("/.WELL-KNOWN/Portalkeeper/live", true),
            ("*/live", true),
            ("*portalkeeper*", true),
            ("/.well-known/acme-challenge/*", false),
            ("/.well-known/portalkeeper", false),
            ("/live", false),
        ] {
            let routes = [answering(json!([{"method": ["POST"], "path": ["/*"]}, {"path": [pattern]}]))];
            let found = Others::of(&routes).obstacle(HOST, 1);
            assert_eq!(found, taken.then_some(Obstacle::ProofTaken(pattern)), "{pattern}");
        }
    }

    #[test]
    fn a_route_is_only_for_a_host_when_each_set_of_matchers_names_it_alone() {
        for (sets, alone) in [
            (json!([{"host": ["Reset.acme.example"]}]), true),
            (json!([{"host": [HOST]}, {"host": [HOST], "path": ["/x"]}]), true),
            (json!([{"host": [HOST]}, {"path": ["/status/*"]}]), false),
            (json!([{"host": [HOST, "www.acme.example"]}]), false),
            (json!([{"host": [HOST]}, {"host": ["www.acme.example"], "path": ["/x"]}]), false),
            (json!([]), false),
        ] {
            assert_eq!(is_only_for(&answering(sets.clone()), HOST), alone, "{sets}");
        }
    }
}
