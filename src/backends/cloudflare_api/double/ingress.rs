//! What a tunnel's connector makes of a configuration: whether it takes it, and where it sends a request. Pure.
use serde_json::{Map, Value};

/// Settings that are whole seconds.
const SECONDS: [&str; 4] = ["connectTimeout", "tlsTimeout", "tcpKeepAlive", "keepAliveTimeout"];

fn text<'a>(rule: &'a Value, field: &str) -> &'a str {
    rule[field].as_str().unwrap_or_default()
}

/// Why the connector, and the API before it, refuses a configuration; `None` when it is taken.
pub fn refusal(config: &Value) -> Option<String> {
    let none = Vec::new();
    let rules = config["ingress"].as_array().unwrap_or(&none);
    if rules.is_empty() {
        return Some("No ingress rules were specified in the config file".to_owned());
    }
    if let Some(words) = settings(config.get("originRequest")) {
        return Some(words);
    }
    for (index, rule) in rules.iter().enumerate() {
        let number = index + 1;
        if let Some(words) = service(text(rule, "service"), number) {
            return Some(words);
        }
        if let Some(words) = settings(rule.get("originRequest")) {
            return Some(words);
        }
        let host = text(rule, "hostname");
        if host.contains(':') {
            return Some("Hostname cannot contain a port".to_owned());
        }
        if host != "*" && host.strip_prefix("*.").unwrap_or(host).contains('*') {
            return Some(format!(
                "Rule #{number} has a wildcard in its hostname that does not stand for all subdomains"
            ));
        }
        let path = text(rule, "path");
        if regex::Regex::new(path).is_err() {
            return Some(format!("Rule #{number} has an invalid regex"));
        }
        let all = matches!(host, "" | "*") && path.is_empty();
        if number == rules.len() && !all {
            return Some(
                "The last ingress rule must match all URLs (i.e. it should not have a hostname or path filter)"
                    .to_owned(),
            );
        }
        if number < rules.len() && all {
            return Some(format!(
                "Rule #{number} is matching the hostname '{host}', but this will match every hostname, meaning the rules which follow it will never be triggered."
            ));
        }
    }
    None
}

fn service(service: &str, number: usize) -> Option<String> {
    if let Some(status) = service.strip_prefix("http_status:") {
        let taken = status.parse::<u16>().is_ok_and(|status| (100..=999).contains(&status));
        return (!taken).then(|| format!("Rule #{number}: {status} is not a valid HTTP status code"));
    }
    if matches!(service, "hello_world" | "hello-world" | "bastion") || service.starts_with("unix:") {
        return None;
    }
    let Ok(url) = url::Url::parse(service) else {
        return Some(format!("Rule #{number}: parse \"{service}\": first path segment in URL cannot contain colon"));
    };
    if url.host_str().is_none_or(str::is_empty) {
        return Some(format!("{service} is an invalid address, please make sure it has a scheme and a hostname"));
    }
    let bare = service.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
    (!bare).then(|| {
        format!(
            "{service} is an invalid address, ingress rules don't support proxying to a different path on the origin service. The path will be the same as the eyeball request's path"
        )
    })
}

fn settings(settings: Option<&Value>) -> Option<String> {
    let empty = Map::new();
    let fields = settings.and_then(Value::as_object).unwrap_or(&empty);
    let wrong = SECONDS.iter().find(|name| fields.get(**name).is_some_and(|value| !value.is_i64()))?;
    Some(format!("json: cannot unmarshal the value of {wrong} into a number of seconds"))
}

/// The service that gets a request: the first rule that fits. Hosts are compared as they are written and in A-labels, but for
/// wildcards, which stand for any number of labels.
pub fn route<'a>(config: &'a Value, host: &str, path: &str) -> Option<&'a str> {
    let fits = |rule: &&Value| {
        let name = text(rule, "hostname");
        let below = name.strip_prefix('*').filter(|below| below.starts_with('.'));
        let labels = |name: &str| !name.contains('*') && idna::domain_to_ascii(name).is_ok_and(|name| name == host);
        let host = matches!(name, "" | "*")
            || name == host
            || labels(name)
            || below.is_some_and(|below| host.ends_with(below));
        host && regex::Regex::new(text(rule, "path")).is_ok_and(|expression| expression.is_match(path))
    };
    config["ingress"].as_array()?.iter().find(fits)?["service"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_taken_and_refused_as_by_a_real_connector() {
        let last = json!({"service": "http_status:404"});
        let rule = |rule: Value| json!({"ingress": [rule, last.clone()]});
        let with = |host: &str, service: &str| rule(json!({"hostname": host, "service": service}));
        let http = "http://127.0.0.1:5000";
        let twice = json!({"hostname": "a.com", "service": http});
        for (document, words) in [
            (with("a.com", http), None),
            (json!({"ingress": [twice.clone()]}), Some("The last ingress rule must match all URLs")),
            (rule(json!({"service": http})), Some("never be triggered")),
            (rule(json!({"hostname": "", "service": http})), Some("never be triggered")),
            (rule(json!({"path": "/x", "service": http})), None),
            (json!({"ingress": []}), Some("No ingress rules")),
            (json!({}), Some("No ingress rules")),
            (with("a.com:443", http), Some("Hostname cannot contain a port")),
            (with("a.com", "http://127.0.0.1:5000/x"), Some("different path")),
            (with("a.com", "http://127.0.0.1:5000/"), Some("different path")),
            (with("a.com", "127.0.0.1:5000"), Some("first path segment")),
            (rule(json!({"hostname": "a.com", "path": "(", "service": http})), Some("invalid regex")),
            (with("a.*.com", http), Some("wildcard")),
            (with("*.a.com", http), None),
            (with("a.com", "http_status:9999"), Some("not a valid HTTP status")),
            (
                rule(json!({"hostname": "a.com", "service": http, "originRequest": {"connectTimeout": "10s"}})),
                Some("connectTimeout"),
            ),
            (rule(json!({"hostname": "a.com", "service": http, "originRequest": {"connectTimeout": 10}})), None),
            (json!({"ingress": [twice.clone(), twice, last.clone()]}), None),
            (with("Reset.A.com", http), None),
            (with("a.com.", http), None),
            (json!({"ingress": [last.clone()], "warp-routing": {"enabled": true}, "new": [1, {"a": null}]}), None),
        ] {
            let said = refusal(&document);
            match words {
                None => assert_eq!(said, None, "{document}"),
                Some(words) => assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{document}: {said:?}"),
            }
        }
    }

    #[test]
    fn the_first_rule_that_fits_gets_the_request() {
        let config = json!({"ingress": [
            {"hostname": "Upper.a.com", "service": "s0"},
            {"hostname": "b\u{fc}cher.a.com", "service": "s6"},
            {"hostname": "*.Down.a.com", "service": "s7"},
            {"hostname": "dot.a.com.", "service": "s8"},
            {"hostname": "one.a.com", "path": "^/api", "service": "s1"},
            {"hostname": "one.a.com", "service": "s2"},
            {"hostname": "*.a.com", "service": "s3"},
            {"hostname": "late.a.com", "service": "s4"},
            {"service": "s5"},
        ]});
        for (host, path, service) in [
            ("one.a.com", "/api/x", "s1"),
            ("one.a.com", "/", "s2"),
            // as a real connector does it: names are compared in A-labels, too, but wildcards as they are written
            ("upper.a.com", "/", "s0"),
            ("xn--bcher-kva.a.com", "/", "s6"),
            ("dot.a.com", "/", "s3"),
            ("deep.down.a.com", "/", "s3"),
            ("late.a.com", "/", "s3"),
            ("ONE.a.com", "/", "s3"),
            ("a.com", "/", "s5"),
            ("xa.com", "/", "s5"),
        ] {
            assert_eq!(route(&config, host, path), Some(service), "{host}{path}");
        }
    }
}
