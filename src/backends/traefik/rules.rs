//! What rules say about hosts. Pure.
//!
//! A host counts as taken where a rule names it exactly, in the notation of Traefik 1, 2 or 3. Patterns do not count:
//! our routers stand before them by their priority.
use std::sync::LazyLock;

use regex::Regex;

/// Hosts that a rule names exactly, in lower case and without a dot at the end. A host that the rule rules out does not
/// count; one in a group that is ruled out does, because that takes a grammar to be sure of.
pub fn hosts_of_rule(rule: &str) -> Vec<String> {
    // Traefik takes a matcher's name in lower and in upper case, too, and blanks behind it.
    static CALL: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?i)([!\s]*)\bHost(?:Header|SNI)?\s*\(([^)]*)\)").ok());
    static VALUE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"[`"']\s*([^`"'\\]+?)\s*\\?[`"']"#).ok());
    static OLD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\bHost:\s*([^;|&]+)").ok());
    let mut hosts: Vec<String> = Vec::new();
    let mut add = |host: &str| {
        let host = plain(host);
        if !host.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
    };
    if let (Some(call), Some(value), Some(old)) = (CALL.as_ref(), VALUE.as_ref(), OLD.as_ref()) {
        let ruled_out = |before: &str| before.matches('!').count() % 2 == 1;
        for inner in call.captures_iter(rule).filter(|call| !ruled_out(&call[1])) {
            value.captures_iter(&inner[2]).for_each(|found| add(&found[1]));
        }
        for found in old.captures_iter(rule) {
            found[1].split(',').for_each(&mut add);
        }
    }
    hosts
}

/// The host of a rule that is nothing else: whoever takes that host over takes everything that the rule is for.
pub fn sole_host(rule: &str) -> Option<String> {
    static CALL: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r#"^(?i:Host|HostHeader)\s*\(\s*(?:`([^`"',\s]+)`|"([^`"',\s\\]+)"|'([^`"',\s\\]+)')\s*\)$"#).ok()
    });
    static OLD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^Host:\s*([^\s;|&,()!]+)$").ok());
    let mut rule = rule.trim();
    while let Some(inner) = rule.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        rule = inner.trim();
    }
    let found = CALL.as_ref()?.captures(rule).or_else(|| OLD.as_ref()?.captures(rule))?;
    found.iter().skip(1).flatten().next().map(|host| plain(host.as_str()))
}

fn plain(host: &str) -> String {
    host.trim().trim_end_matches('.').to_ascii_lowercase()
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
            ("host(`a.example`) || HOST (`b.example`)", &["a.example", "b.example"]),
            ("HostRegexp(`^.+\\.example$`) || PathPrefix(`/`)", &[]),
        ] {
            assert_eq!(hosts_of_rule(rule), hosts, "{rule}");
        }
    }

    #[test]
    fn a_host_that_is_ruled_out_is_not_taken() {
        for (rule, hosts) in [
            ("PathPrefix(`/`) && !Host(`a.example`)", &[][..]),
            ("PathPrefix(`/`) && ! \t Host( `a.example` )", &[]),
            ("!HostHeader(`a.example`, `b.example`)", &[]),
            ("!(!Host(`a.example`))", &[]),
            ("Host(`a.example`) && !Host(`b.example`)", &["a.example"]),
            ("!PathPrefix(`/x`) && Host(`a.example`)", &["a.example"]),
            // twice is not at all
            ("!!Host(`a.example`)", &["a.example"]),
            // a group is not looked into
            ("!(Host(`a.example`) || PathPrefix(`/x`))", &["a.example"]),
        ] {
            assert_eq!(hosts_of_rule(rule), hosts, "{rule}");
        }
    }

    #[test]
    fn a_rule_is_for_one_host_alone_only_where_it_says_nothing_else() {
        for rule in [
            "Host(`a.example`)",
            " Host ( `A.example.` ) ",
            "(Host(\"a.example\"))",
            "( ( HostHeader('a.example') ) )",
            "host(`a.example`)",
            "Host:a.example",
            "Host: a.example",
        ] {
            assert_eq!(sole_host(rule).as_deref(), Some("a.example"), "{rule}");
        }
        for rule in [
            "Host(`a.example`) || PathPrefix(`/status`)",
            "Host(`a.example`) && PathPrefix(`/x`)",
            "(Host(`a.example`) || PathPrefix(`/status`))",
            "(Host(`a.example`)) || (PathPrefix(`/status`))",
            "Host(`a.example`) || Host(`b.example`)",
            "Host(`a.example`, `b.example`)",
            "!Host(`a.example`)",
            "!(Host(`a.example`))",
            "(!Host(`a.example`))",
            "HostRegexp(`a.example`)",
            "HostSNI(`a.example`)",
            "Host:a.example,b.example",
            "Host:a.example;PathPrefix:/x",
            "PathPrefix(`/`)",
            "",
        ] {
            assert_eq!(sole_host(rule), None, "{rule}");
        }
    }
}
