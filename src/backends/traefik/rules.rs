//! What other people's files say about hosts. Pure.
//!
//! A host counts as taken where a rule names it exactly, in the notation of Traefik 1, 2 or 3. Patterns do not count:
//! our routers stand before them by their priority.
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::fragment::parse;

/// Parts of a file that Traefik knows; any other stops it from reading the whole folder.
const PARTS: [&str; 4] = ["http", "tcp", "udp", "tls"];
const HTTP_PARTS: [&str; 5] = ["routers", "services", "middlewares", "models", "serversTransports"];

/// A file that is not ours.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Foreign {
    /// Name and hosts of each router.
    pub routers: Vec<(String, Vec<String>)>,
    /// Why Traefik cannot read it, which stops every change of the folder.
    pub broken: Option<String>,
    /// It holds this one router with at most one service and nothing else, so that it can be taken over whole.
    pub simple: bool,
}

/// Hosts that a rule names exactly, in lower case and without a dot at the end.
pub fn hosts_of_rule(rule: &str) -> Vec<String> {
    static CALL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\bHost(?:Header|SNI)?\(([^)]*)\)").ok());
    static VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"[`"']\s*([^`"'\\]+?)\s*\\?[`"']"#).ok());
    static OLD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\bHost:\s*([^;|&]+)").ok());
    let mut hosts: Vec<String> = Vec::new();
    let mut add = |host: &str| {
        let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
        if !host.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
    };
    if let (Some(call), Some(value), Some(old)) = (CALL.as_ref(), VALUE.as_ref(), OLD.as_ref()) {
        for inner in call.captures_iter(rule) {
            value.captures_iter(&inner[1]).for_each(|found| add(&found[1]));
        }
        for found in old.captures_iter(rule) {
            found[1].split(',').for_each(&mut add);
        }
    }
    hosts
}

/// Reads a file by its name's ending. TOML and templates are searched for rules line by line; whether Traefik can
/// read those is not judged.
pub fn foreign(name: &str, text: &str) -> Foreign {
    let yaml = !name.ends_with(".toml");
    match parse(text) {
        Ok(value) if yaml => from_yaml(&value),
        Err(error) if yaml && !text.contains("{{") => Foreign { broken: Some(error), ..Foreign::default() },
        _ => {
            let line = |line: &str| {
                let hosts = hosts_of_rule(line);
                (!line.trim_start().starts_with('#') && !hosts.is_empty()).then(|| ("?".to_owned(), hosts))
            };
            Foreign { routers: text.lines().filter_map(line).collect(), ..Foreign::default() }
        }
    }
}

/// A field whatever the case of its letters, as Traefik reads them.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    let found = value.as_object().and_then(|fields| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
    found.map_or(&Value::Null, |(_, inner)| inner)
}

/// The first field that Traefik does not know, or that is there and empty, which it does not take either.
fn misfit(value: &Value, known: &[&str], before: &str) -> Option<String> {
    value.as_object()?.iter().find_map(|(name, inner)| {
        if !known.iter().any(|one| one.eq_ignore_ascii_case(name)) {
            return Some(format!("unknown field {before}{name}"));
        }
        let empty = inner.as_object().is_some_and(Map::is_empty);
        empty.then(|| format!("{before}{name} is empty; leave it out"))
    })
}

fn from_yaml(value: &Value) -> Foreign {
    if !matches!(value, Value::Null | Value::Object(_)) {
        return Foreign { broken: Some("it holds no fields".to_owned()), ..Foreign::default() };
    }
    let empty = Map::new();
    let parts = value.as_object().unwrap_or(&empty);
    let http = field(value, "http");
    let broken = misfit(value, &PARTS, "").or_else(|| misfit(http, &HTTP_PARTS, "http."));
    let things = |kind: &str| field(http, kind).as_object().unwrap_or(&empty);
    let rule = |router: &Value| hosts_of_rule(field(router, "rule").as_str().unwrap_or_default());
    let routers: Vec<_> = things("routers").iter().map(|(name, router)| (name.clone(), rule(router))).collect();
    let mut kinds = http.as_object().unwrap_or(&empty).keys();
    let only_routes = kinds.all(|kind| kind.eq_ignore_ascii_case("routers") || kind.eq_ignore_ascii_case("services"));
    let simple = parts.len() == 1
        && only_routes
        && routers.len() == 1
        && routers[0].1.len() == 1
        && things("services").len() <= 1;
    Foreign { routers, broken, simple }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_every_notation() {
        for (rule, hosts) in [
            ("Host(`a.example`)", &["a.example"][..]),
            ("Host(`A.example.`, `b.example`) && PathPrefix(`/x`)", &["a.example", "b.example"]),
            ("(Host(\"a.example\") || Host('b.example'))", &["a.example", "b.example"]),
            ("Host:a.example,b.example;PathPrefix:/x", &["a.example", "b.example"]),
            ("HostHeader(`a.example`)", &["a.example"]),
            ("HostRegexp(`^.+\\.example$`) || PathPrefix(`/`)", &[]),
        ] {
            assert_eq!(hosts_of_rule(rule), hosts, "{rule}");
        }
    }

    #[test]
    fn a_file_is_judged_by_its_contents() {
        let theirs = foreign("a.yml", "http: {routers: {x: {rule: 'Host(`a.example`)', service: s}}}");
        assert_eq!((theirs.routers[0].0.as_str(), theirs.simple, &theirs.broken), ("x", true, &None));
        assert!(foreign("a.yml", "http: [").broken.is_some());
        assert_eq!(foreign("a.yml", "bogus: 1").broken.as_deref(), Some("unknown field bogus"));
        assert_eq!(foreign("a.yml", "http: {bogus: {}}").broken.as_deref(), Some("unknown field http.bogus"));
        assert_eq!(foreign("a.yml", "http: {}").broken.as_deref(), Some("http is empty; leave it out"));
        assert_eq!(
            foreign("a.yml", "http: {services: {}}").broken.as_deref(),
            Some("http.services is empty; leave it out")
        );
        assert_eq!(foreign("a.yml", "[]").broken.as_deref(), Some("it holds no fields"));
        for fine in ["", "http:", "---\nhttp: {Routers: {x: {Rule: 'Host(`a.example`)'}}}\n---\ntcp: {}\n"] {
            assert_eq!(foreign("a.yml", fine).broken, None, "{fine}");
        }
        assert_eq!(foreign("a.yml", "HTTP: {Routers: {x: {Rule: 'Host(`a.example`)'}}}").routers[0].1, ["a.example"]);
        assert_eq!(foreign("a.yml", "# nothing yet\n").broken, None);
        let toml = "[http.routers.x]\n  rule = \"Host(`a.example`)\"\n  # rule = \"Host(`b.example`)\"\n";
        assert_eq!(foreign("a.toml", toml).routers[0].1, ["a.example"]);
        let template = "http:\n  routers:\n{{ range .x }}\n    r: {rule: \"Host(\\\"a.example\\\")\"}\n{{ end }}\n";
        let theirs = foreign("a.yml", template);
        assert_eq!((theirs.routers.len(), theirs.broken, theirs.simple), (1, None, false));
        let two = "http: {routers: {x: {rule: 'Host(`a.example`)'}}, middlewares: {m: {}}}";
        assert!(!foreign("a.yml", two).simple);
    }
}
