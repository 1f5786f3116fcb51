//! What Kubernetes demands of names, labels and keys, with its messages. Pure.
use std::sync::LazyLock;

use regex::Regex;

const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const NAME_PART: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const DNS1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";

/// A rule with its pattern, compiled once.
struct Rule(LazyLock<Option<Regex>>);

impl Rule {
    fn holds(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

fn whole(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

static SUBDOMAIN_RULE: Rule = Rule(LazyLock::new(|| whole(SUBDOMAIN)));
static LABEL_RULE: Rule = Rule(LazyLock::new(|| whole(LABEL)));
static NAME_PART_RULE: Rule = Rule(LazyLock::new(|| whole(NAME_PART)));
static LABEL_VALUE_RULE: Rule = Rule(LazyLock::new(|| whole(LABEL_VALUE)));
static DNS1035_RULE: Rule = Rule(LazyLock::new(|| whole(DNS1035)));
static WILDCARD_RULE: Rule = Rule(LazyLock::new(|| whole(&format!(r"\*\.{SUBDOMAIN}"))));
static KEY_RULE: Rule = Rule(LazyLock::new(|| whole("[-._a-zA-Z0-9]+")));

pub fn subdomain_problem(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!SUBDOMAIN_RULE.holds(text)).then(|| {
        format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
             with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
        )
    })
}

pub fn dns_label_problem(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!LABEL_RULE.holds(text)).then(|| {
        format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
        )
    })
}

/// A label that begins with a letter.
pub fn dns1035_problem(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!DNS1035_RULE.holds(text)).then(|| {
        format!(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with \
             an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{DNS1035}')"
        )
    })
}

/// `*.example.com`.
pub fn wildcard_problem(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!WILDCARD_RULE.holds(text)).then(|| {
        format!(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case \
             alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for \
             validation is '\\*\\.{SUBDOMAIN}')"
        )
    })
}

/// What is wrong with a label's name where it stands in a selector.
pub fn selector_key_problem(key: &str) -> Option<String> {
    if key.matches('/').count() > 1 {
        return Some(format!(
            "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME_PART}') with an optional DNS \
             subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ));
    }
    qualified_problem(key)
}

/// `prefix/name` or `name`.
pub fn qualified_problem(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".to_owned());
        }
        if let Some(problem) = subdomain_problem(prefix) {
            return Some(format!("prefix part {problem}"));
        }
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".to_owned());
    }
    (!NAME_PART_RULE.holds(name)).then(|| {
        format!(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
             (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{NAME_PART}')"
        )
    })
}

pub fn label_value_problem(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 bytes".to_owned());
    }
    (!LABEL_VALUE_RULE.holds(text)).then(|| {
        format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
             an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{LABEL_VALUE}')"
        )
    })
}

/// A key of a Secret's or ConfigMap's data.
pub fn key_problem(key: &str) -> Option<String> {
    match key {
        "." | ".." => Some(format!("must not be '{key}'")),
        _ if key.len() > 253 => Some("must be no more than 253 characters".to_owned()),
        _ if KEY_RULE.holds(key) => None,
        _ if key.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => Some(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  \
             or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        ),
    }
}

/// What is wrong with the name of a port, each by itself.
pub fn port_name_problems(name: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    if name.len() > 15 {
        found.push("must be no more than 15 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') || name.is_empty() {
        found.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        found.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        found.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        found.push("must not begin or end with a hyphen");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_follow_kubernetes() {
        for good in ["a", "a.b/c", "example.com/My_Name.x", "123-abc"] {
            assert_eq!(qualified_problem(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "a b", "UPPER.example/x", &"a".repeat(64)] {
            assert!(qualified_problem(bad).is_some(), "{bad}");
        }
        for good in ["", "a", "A.b_c-1"] {
            assert_eq!(label_value_problem(good), None, "{good}");
        }
        for bad in ["a b", "-a", "a-", "ä", &"a".repeat(64)] {
            assert!(label_value_problem(bad).is_some(), "{bad}");
        }
        assert!(subdomain_problem("a..b").is_some() && subdomain_problem("a.b-c.d").is_none());
    }
}
