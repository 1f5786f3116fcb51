//! What other people's files hold, and whether Traefik can read them, as far as that is certain. Pure.
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::fragment::parse;
use super::rules::{hosts_of_rule, sole_host};

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
    /// What Traefik perhaps cannot read, and this program cannot be sure of.
    pub suspect: Option<String>,
    /// It holds one router that is for one host and nothing else, with at most one service and one middleware, so that it
    /// can be taken over whole. What `Retain` leaves is such a file.
    pub simple: bool,
    /// Names of its services and middlewares.
    pub makes: Vec<String>,
    /// Names that stand in it where something is referred to, such as a router's service.
    pub uses: Vec<String>,
    /// It is made by a template, which Traefik alone can judge.
    pub template: bool,
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

/// Fields of a router in Traefik 2 and 3, up to 3.7.
const ROUTER: [&str; 11] = [
    "rule",
    "service",
    "entryPoints",
    "middlewares",
    "priority",
    "tls",
    "ruleSyntax",
    "observability",
    "parentRefs",
    "deniedEncodedPathCharacters",
    "defaultRule",
];

/// What no Traefik reads in a router (tried with 3.0 and 3.7): a priority that is no whole number, fields where words belong.
fn broken_router(path: &str, router: &Value) -> Option<String> {
    let priority = field(router, "priority");
    if !is_whole(priority) {
        return Some(format!("{path}.priority is no whole number"));
    }
    let worded = ["rule", "service"].into_iter();
    let mut holds_fields =
        worded.filter(|name| field(router, name).as_object().is_some_and(|fields| !fields.is_empty()));
    holds_fields.next().map(|name| format!("{path}.{name} holds fields; a text belongs there"))
}

/// Traefik reads a number from a text, too. What is in doubt counts as one.
fn is_whole(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => {
            let in_range = |number: f64| number.fract() == 0.0 && number.abs() < i64::MAX as f64;
            number.is_i64() || number.as_f64().is_some_and(in_range)
        }
        Value::String(text) => text.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit()),
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) => false,
    }
}

/// A field of a router that is new to this program. A newer Traefik may know it.
fn odd_field(path: &str, router: &Value) -> Option<String> {
    let known = |name: &str| ROUTER.iter().any(|one| one.eq_ignore_ascii_case(name));
    let odd = router.as_object()?.iter().find(|(name, value)| !value.is_null() && !known(name));
    odd.map(|(name, _)| format!("{path}.{name} is no field of a router up to Traefik 3.7"))
}

/// The texts in it that may be names of other things: all but rules and entry points, which only look like such names.
fn names_used(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.strip_suffix("@file").unwrap_or(text).to_owned()),
        Value::Array(items) => items.iter().for_each(|item| names_used(item, found)),
        Value::Object(fields) => {
            let other = |name: &str| !["rule", "entryPoints"].iter().any(|one| one.eq_ignore_ascii_case(name));
            fields.iter().filter(|(name, _)| other(name)).for_each(|(_, inner)| names_used(inner, found));
        }
        _ => {}
    }
}

fn from_fields(value: &Value) -> Foreign {
    if !matches!(value, Value::Null | Value::Object(_)) {
        return Foreign { broken: Some("it holds no fields".to_owned()), ..Foreign::default() };
    }
    let empty = Map::new();
    let parts = value.as_object().unwrap_or(&empty);
    let http = field(value, "http");
    let things = |kind: &str| field(http, kind).as_object().unwrap_or(&empty);
    let rule = |router: &Value| hosts_of_rule(field(router, "rule").as_str().unwrap_or_default());
    let routers: Vec<_> = things("routers").iter().map(|(name, router)| (name.clone(), rule(router))).collect();
    let in_routers = |what: fn(&str, &Value) -> Option<String>| {
        things("routers").iter().find_map(|(name, router)| what(&format!("http.routers.{name}"), router))
    };
    let misfit = PARTS.iter().find_map(|(part, known)| misfit(part, field(value, part), known));
    let broken = misfit.or_else(|| in_routers(broken_router));
    let known = ["routers", "services", "middlewares"];
    let mut kinds = http.as_object().unwrap_or(&empty).keys();
    let only_routes = kinds.all(|kind| known.iter().any(|one| one.eq_ignore_ascii_case(kind)));
    let only_host = things("routers").values().all(|router| {
        let rule = field(router, "rule").as_str().unwrap_or_default();
        sole_host(rule).is_some_and(|host| hosts_of_rule(rule) == [host])
    });
    let simple = parts.len() == 1
        && only_routes
        && routers.len() == 1
        && only_host
        && things("services").len() <= 1
        && things("middlewares").len() <= 1;
    let makes = things("services").keys().chain(things("middlewares").keys()).cloned().collect();
    let mut uses = Vec::new();
    names_used(value, &mut uses);
    Foreign { routers, broken, suspect: in_routers(odd_field), simple, makes, uses, template: false }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn a_file_can_be_taken_over_whole_only_where_it_is_for_one_host_and_nothing_else() {
        let file = |rule: &str, rest: &str| format!("http: {{routers: {{x: {{rule: '{rule}', service: s}}}}{rest}}}");
        let host = "Host(`a.example`)";
        for rest in ["", ", services: {s: {}}", ", services: {s: {}}, middlewares: {m: {}}", ", Middlewares: {x: {}}"] {
            assert!(foreign("a.yml", &file(host, rest)).simple, "{rest}");
        }
        for rest in [
            ", services: {s: {}, t: {}}",
            ", middlewares: {m: {}, n: {}}",
            ", serversTransports: {t: {}}",
            "}, tls: {certificates: []",
            "}, other: {a: 1",
        ] {
            assert!(!foreign("a.yml", &file(host, rest)).simple, "{rest}");
        }
        for rule in [
            "Host(`a.example`) || PathPrefix(`/status`)",
            "Host(`a.example`) && PathPrefix(`/x`)",
            "!(Host(`a.example`))",
        ] {
            let theirs = foreign("a.yml", &file(rule, ""));
            assert_eq!(
                (theirs.routers[0].1.as_slice(), theirs.simple),
                (&["a.example".to_owned()][..], false),
                "{rule}"
            );
        }
    }

    #[test]
    fn of_a_routers_fields_only_what_is_certain_is_broken_and_what_is_new_is_a_suspect() {
        let file = |fields: &str| format!("http: {{routers: {{x: {{rule: 'Host(`a.example`)', {fields}}}}}}}");
        for (fields, why) in [
            ("priority: high", "http.routers.x.priority is no whole number"),
            ("priority: 1.5", "http.routers.x.priority is no whole number"),
            ("priority: true", "http.routers.x.priority is no whole number"),
            ("priority: ''", "http.routers.x.priority is no whole number"),
            ("priority: [1]", "http.routers.x.priority is no whole number"),
            ("priority: 99999999999999999999", "http.routers.x.priority is no whole number"),
            ("service: {a: 1}", "http.routers.x.service holds fields; a text belongs there"),
        ] {
            assert_eq!(foreign("a.yml", &file(fields)).broken.as_deref(), Some(why), "{fields}");
        }
        let whole = ["priority: '10'", "PRIORITY: -5", "priority: 1e3", "priority: ", "service: [a]", "middlewares: x"];
        for fields in whole.into_iter().chain(["observability: {metrics: false}", "parentRefs: [a]", "bogus: "]) {
            let theirs = foreign("a.yml", &file(fields));
            assert_eq!((theirs.broken, theirs.suspect), (None, None), "{fields}");
        }
        let theirs = foreign("a.yml", &file("bogus: 1"));
        let words = "http.routers.x.bogus is no field of a router up to Traefik 3.7";
        assert_eq!((theirs.broken, theirs.suspect.as_deref()), (None, Some(words)));
    }

    #[test]
    fn what_a_file_makes_and_uses_is_known() {
        let text = "http: {routers: {x: {rule: 'Host(`s`)', entryPoints: [web], service: s@file, middlewares: [m]}}, services: {s: {}}}";
        let theirs = foreign("a.yml", text);
        assert_eq!((theirs.makes, theirs.uses), (vec!["s".to_owned()], vec!["m".to_owned(), "s".to_owned()]));
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
