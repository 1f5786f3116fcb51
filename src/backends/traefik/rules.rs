//! What other people's files say about hosts. Pure.
//!
//! A host counts as taken where a rule names it exactly, in the notation of Traefik 1, 2 or 3. Patterns do not count:
//! our routers stand before them by their priority.
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::fragment::parse;

/// Parts of a file that Traefik reads, and what it knows in each: anything else there stops it from reading the whole
/// folder. Other parts it passes over (tried with 3.0 and 3.7, YAML and TOML).
const PARTS: [(&str, &[&str]); 4] = [
    ("http", &["routers", "services", "middlewares", "models", "serversTransports"]),
    ("tcp", &["routers", "services", "middlewares", "models", "serversTransports"]),
    ("udp", &["routers", "services"]),
    ("tls", &["certificates", "options", "stores"]),
];

/// A file that is not ours.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Foreign {
    /// Name and hosts of each router.
    pub routers: Vec<(String, Vec<String>)>,
    /// Why Traefik cannot read it, which stops every change of the folder.
    pub broken: Option<String>,
    /// It holds this one router with at most one service and nothing else, so that it can be taken over whole.
    pub simple: bool,
    /// It is made by a template, which Traefik alone can judge.
    pub template: bool,
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

/// Reads a file by its name's ending. A template is searched for rules line by line; of it only what no template may have
/// is found to be broken.
pub fn foreign(name: &str, text: &str) -> Foreign {
    if text.contains("{{") {
        return from_template(text);
    }
    match if name.ends_with(".toml") { parse_toml(text) } else { parse(text) } {
        Ok(value) => from_fields(&value),
        Err(error) => Foreign { broken: Some(error), ..Foreign::default() },
    }
}

fn parse_toml(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        format!("{} in line {line}", error.message())
    })
}

fn from_template(text: &str) -> Foreign {
    let line = |line: &str| {
        let hosts = hosts_of_rule(line);
        (!line.trim_start().starts_with('#') && !hosts.is_empty()).then(|| ("?".to_owned(), hosts))
    };
    let routers = text.lines().filter_map(line).collect();
    Foreign { routers, broken: unfinished(text), template: true, ..Foreign::default() }
}

/// What is begun in a template and not ended, or ended and not begun.
fn unfinished(text: &str) -> Option<String> {
    static ACTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r#"^\{\{-?\s*((?:/\*(?s:.*?)\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`|[^"'`{}])*?)\s*-?\}\}"#,
        )
        .ok()
    });
    let action = ACTION.as_ref()?;
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("{{") {
        at += found;
        let line = text[..at].matches('\n').count() + 1;
        let Some(whole) = action.captures(&text[at..]) else {
            return Some(format!("the action that begins in line {line} is not ended by }}}}"));
        };
        match whole[1].split_whitespace().next() {
            Some("if" | "range" | "with" | "define" | "block") => open.push(line),
            Some("end") if open.pop().is_none() => return Some(format!("the end in line {line} ends nothing")),
            _ => {}
        }
        at += whole[0].len();
    }
    open.last().map(|line| format!("what begins in line {line} has no {{{{ end }}}}"))
}

/// A field whatever the case of its letters, as Traefik reads them.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    let found = value.as_object().and_then(|fields| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
    found.map_or(&Value::Null, |(_, inner)| inner)
}

/// The first thing in a part at which Traefik stops reading: a field that it does not know, or a group of things that is
/// empty or none.
fn misfit(part: &str, value: &Value, known: &[&str]) -> Option<String> {
    let group = |path: &str, value: &Value| match value {
        Value::Object(fields) if !fields.is_empty() => None,
        Value::Object(_) | Value::Null => Some(format!("{path} is empty; leave it out")),
        _ => Some(format!("{path} holds no fields")),
    };
    if value.is_null() {
        return None;
    }
    group(part, value).or_else(|| {
        value.as_object()?.iter().find_map(|(name, inner)| {
            let path = format!("{part}.{name}");
            if !known.iter().any(|one| one.eq_ignore_ascii_case(name)) {
                return Some(format!("unknown field {path}"));
            }
            if part == "tls" && name.eq_ignore_ascii_case("certificates") {
                return None;
            }
            let nothing = || inner.as_object()?.iter().find(|(_, thing)| thing.is_null());
            group(&path, inner).or_else(|| nothing().map(|(thing, _)| format!("{path}.{thing} is empty; leave it out")))
        })
    })
}

fn from_fields(value: &Value) -> Foreign {
    if !matches!(value, Value::Null | Value::Object(_)) {
        return Foreign { broken: Some("it holds no fields".to_owned()), ..Foreign::default() };
    }
    let empty = Map::new();
    let parts = value.as_object().unwrap_or(&empty);
    let http = field(value, "http");
    let broken = PARTS.iter().find_map(|(part, known)| misfit(part, field(value, part), known));
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
    Foreign { routers, broken, simple, template: false }
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
        for (text, why) in [
            ("http: {bogus: {}}", "unknown field http.bogus"),
            ("udp: {middlewares: {a: {b: 1}}}", "unknown field udp.middlewares"),
            ("http: {}", "http is empty; leave it out"),
            ("http: {services: {}}", "http.services is empty; leave it out"),
            ("http: {routers: }", "http.routers is empty; leave it out"),
            ("http: {routers: {x: }}", "http.routers.x is empty; leave it out"),
            ("tls: {options: []}", "tls.options holds no fields"),
            ("http: 1", "http holds no fields"),
            ("[]", "it holds no fields"),
        ] {
            assert_eq!(foreign("a.yml", text).broken.as_deref(), Some(why), "{text}");
        }
        for fine in [
            "",
            "http:",
            "bogus: 1",
            "tls: {certificates: []}",
            "http: {routers: {x: {}}}",
            "---\nhttp: {Routers: {x: {Rule: 'Host(`a.example`)'}}}\n---\ntcp: {}\n",
        ] {
            assert_eq!(foreign("a.yml", fine).broken, None, "{fine}");
        }
        assert_eq!(foreign("a.yml", "HTTP: {Routers: {x: {Rule: 'Host(`a.example`)'}}}").routers[0].1, ["a.example"]);
        assert_eq!(foreign("a.yml", "# nothing yet\n").broken, None);
        let toml = "[http.routers.x]\n  rule = \"Host(`a.example`)\"\n  # rule = \"Host(`b.example`)\"\n";
        assert_eq!(foreign("a.toml", toml).routers[0].1, ["a.example"]);
        assert_eq!(
            foreign("a.toml", "[http.routers.x]\nrule = \"x").broken.as_deref(),
            Some("invalid basic string, expected `\"` in line 2")
        );
        assert_eq!(foreign("a.toml", "[bogus]\n").broken, None);
        let template = "http:\n  routers:\n{{ range .x }}\n    r: {rule: \"Host(\\\"a.example\\\")\"}\n{{ end }}\n";
        let theirs = foreign("a.yml", template);
        assert_eq!((theirs.routers.len(), theirs.broken, theirs.simple), (1, None, false));
        assert!(theirs.template);
        let two = "http: {routers: {x: {rule: 'Host(`a.example`)'}}, middlewares: {m: {}}}";
        assert!(!foreign("a.yml", two).simple);
    }

    #[test]
    fn of_a_template_only_what_is_unfinished_is_broken() {
        for (text, why) in [
            ("{{ if .a }}\nx: 1\n{{ else }}\n{{- end -}}", None),
            ("x: {{ env \"}}\" }}\n{{/* a note }} */}}\n{{ `}}` }}", None),
            ("a: 1\nx: {{ env \"HOME\" }\n", Some("the action that begins in line 2 is not ended by }}")),
            ("{{ range .x }}\nx: 1\n", Some("what begins in line 1 has no {{ end }}")),
            ("x: 1\n{{ end }}\n", Some("the end in line 2 ends nothing")),
        ] {
            assert_eq!(foreign("a.yml", text).broken.as_deref(), why, "{text}");
        }
    }
}
