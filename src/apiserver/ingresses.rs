//! The rules for Ingresses and their classes. Pure.
use std::net::IpAddr;

use serde_json::{Value, json};

use super::causes;
use super::names::{dns_label_problem, port_name_problems, subdomain_problem, wildcard_problem};
use super::schema::Cause;
use super::services::{address_problems, port_number};
use super::tidy::fill;

/// The annotation that classes replaced.
pub const OLD_CLASS: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

pub fn fill_in(object: &mut Value) {
    fill(object, "status", json!({"loadBalancer": {}}));
    let spec = &mut object["spec"];
    let mut backends = Vec::new();
    if let Some(fields) = spec.as_object_mut() {
        for (name, part) in fields.iter_mut() {
            match name.as_str() {
                "defaultBackend" => backends.push(part),
                "rules" => {
                    let rules = part.as_array_mut().into_iter().flatten();
                    let paths = rules.filter_map(|rule| rule.pointer_mut("/http/paths").and_then(Value::as_array_mut));
                    backends.extend(paths.flatten().filter_map(|path| path.get_mut("backend")));
                }
                _ => {}
            }
        }
    }
    for resource in backends.into_iter().filter_map(|backend| backend.get_mut("resource")) {
        // Always written, even if it says nothing.
        if let Some(fields) = resource.as_object_mut() {
            fields.entry("apiGroup").or_insert(Value::Null);
        }
    }
}

pub fn problems(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut found = Vec::new();
    let rules = spec["rules"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        found.push(causes::invalid("spec", &Value::Null, "either `defaultBackend` or `rules` must be specified"));
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", &mut found);
    }
    for (index, rule) in rules.iter().enumerate() {
        host(&rule["host"], &format!("spec.rules[{index}].host"), &mut found);
        if rule["http"].is_null() {
            continue;
        }
        let at = format!("spec.rules[{index}].http.paths");
        let paths = rule["http"]["paths"].as_array().map_or(&[][..], Vec::as_slice);
        if paths.is_empty() {
            found.push(causes::required(&at, ""));
        }
        for (index, path) in paths.iter().enumerate() {
            one_path(path, &format!("{at}[{index}]"), &mut found);
        }
    }
    for (index, tls) in spec["tls"].as_array().into_iter().flatten().enumerate() {
        for (place, name) in tls["hosts"].as_array().into_iter().flatten().enumerate() {
            host(name, &format!("spec.tls[{index}].hosts[{place}]"), &mut found);
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        let field = "spec.ingressClassName";
        found.extend(subdomain_problem(class).map(|words| causes::invalid(field, &json!(class), &words)));
        let old = &object["metadata"]["annotations"][OLD_CLASS];
        if old.as_str().is_some_and(|old| old != class) {
            let words = "must match `ingressClassName` when both are specified";
            found.push(causes::invalid(&format!("annotations.{OLD_CLASS}"), old, words));
        }
    }
    found.extend(address_problems(&object["status"]));
    found
}

fn host(value: &Value, field: &str, found: &mut Vec<Cause>) {
    let Some(name) = value.as_str().filter(|name| !name.is_empty()) else { return };
    if field.ends_with(".host") && name.parse::<IpAddr>().is_ok() {
        found.push(causes::invalid(field, value, "must be a DNS name, not an IP address"));
        return;
    }
    let problem = if name.contains('*') { wildcard_problem(name) } else { subdomain_problem(name) };
    found.extend(problem.map(|words| causes::invalid(field, value, &words)));
}

fn one_path(path: &Value, at: &str, found: &mut Vec<Cause>) {
    let field = format!("{at}.pathType");
    let text = path["path"].as_str().unwrap_or_default();
    let wrong = |words: &str| causes::invalid(&format!("{at}.path"), &json!(text), words);
    match path["pathType"].as_str() {
        None => found.push(causes::required(&field, "pathType must be specified")),
        Some("Exact" | "Prefix") => {
            if !text.starts_with('/') {
                found.push(wrong("must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(sequence) {
                    found.push(wrong(&format!("must not contain '{sequence}'")));
                }
            }
            for end in ["/..", "/."] {
                if text.ends_with(end) {
                    found.push(wrong(&format!("cannot end with '{end}'")));
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() && !text.starts_with('/') {
                found.push(wrong("must be an absolute path"));
            }
        }
        Some(_) => found.push(causes::unsupported(&field, &path["pathType"], &PATH_TYPES)),
    }
    backend(&path["backend"], &format!("{at}.backend"), found);
}

fn backend(backend: &Value, at: &str, found: &mut Vec<Cause>) {
    let wrong = |words: &str| causes::invalid(at, &json!(""), words);
    let service = &backend["service"];
    match (service.is_null(), backend["resource"].is_null()) {
        (false, false) => return found.push(wrong("cannot set both resource and service backends")),
        (true, true) => return found.push(wrong("resource or service backend is required")),
        (true, false) => {
            for field in ["kind", "name"] {
                if backend["resource"][field].as_str().unwrap_or_default().is_empty() {
                    found.push(causes::required(&format!("{at}.resource.{field}"), ""));
                }
            }
            return;
        }
        (false, true) => {}
    }
    let name = service["name"].as_str().unwrap_or_default();
    let field = format!("{at}.service.name");
    if name.is_empty() {
        found.push(causes::required(&field, ""));
    } else {
        found.extend(dns_label_problem(name).map(|words| causes::invalid(&field, &json!(name), &words)));
    }
    let port = &service["port"];
    match (port["name"].as_str(), port["number"].is_null()) {
        (Some(_), false) => found.push(wrong("cannot set both port name & port number")),
        (None, true) => found.push(causes::required(at, "port name or number is required")),
        (None, false) => found.extend(port_number(&port["number"], &format!("{at}.service.port.number"))),
        (Some(name), true) => {
            let field = format!("{at}.service.port.name");
            found.extend(port_name_problems(name).iter().map(|words| causes::invalid(&field, &json!(name), words)));
        }
    }
}

pub fn class_problems(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut found = Vec::new();
    let field = "spec.controller";
    match spec["controller"].as_str().unwrap_or_default() {
        "" => found.push(causes::required(field, "")),
        name => {
            let domain =
                name.split_once('/').filter(|(domain, path)| subdomain_problem(domain).is_none() && !path.is_empty());
            if domain.is_none() {
                let words = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                found.push(causes::invalid(field, &json!(name), words));
            }
        }
    }
    let parameters = &spec["parameters"];
    if !parameters.is_null() {
        for field in ["kind", "name"] {
            if parameters[field].as_str().unwrap_or_default().is_empty() {
                found.push(causes::required(&format!("spec.parameters.{field}"), ""));
            }
        }
        let namespace = "spec.parameters.namespace";
        match parameters["scope"].as_str() {
            Some("Namespace") if parameters["namespace"].is_null() => {
                found.push(causes::required(namespace, "`parameters.scope` is set to 'Namespace'"));
            }
            Some("Cluster") if !parameters["namespace"].is_null() => {
                found.push(causes::forbidden(namespace, "`parameters.scope` is set to 'Cluster'"));
            }
            Some("Namespace" | "Cluster") => {}
            _ => found.push(causes::unsupported(
                "spec.parameters.scope",
                &parameters["scope"],
                &["Cluster", "Namespace"],
            )),
        }
    }
    if let Some(old) = old.filter(|old| old["spec"]["controller"] != spec["controller"]) {
        found.retain(|cause| cause.field != field || !old.is_object());
        found.push(causes::immutable(field, &spec["controller"]));
    }
    found
}
