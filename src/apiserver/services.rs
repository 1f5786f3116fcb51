//! Services: what is filled in, and the rules for their fields. Nothing is routed here; addresses and ports are
//! given out because clients expect to find them. Pure.
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::causes;
use super::names::{dns_label_problem, port_name_problems, qualified_problem, subdomain_problem};
use super::schema::Cause;
use super::tidy::{fill, members, remove};

/// First address and size of the range that cluster addresses come from, and of node ports.
const ADDRESSES: (u32, u32) = (0x0a60_0000, 1 << 20);
const NODE_PORTS: (u16, u16) = (30_000, 2768);
const AFFINITY_SECONDS: u32 = 10_800;

/// What of a Service is only there if it has an address.
const OF_ADDRESSES: [&str; 6] =
    ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "externalTrafficPolicy"];

fn kind(object: &Value) -> &str {
    object["spec"]["type"].as_str().unwrap_or_default()
}

pub fn fill_in(object: &mut Value, old: Option<&Value>) {
    fill(object, "status", json!({"loadBalancer": {}}));
    fill(object, "spec", json!({}));
    let spec = &mut object["spec"];
    fill(spec, "type", json!("ClusterIP"));
    fill(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        fill(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
    } else {
        remove(spec, "sessionAffinityConfig");
    }
    for port in items_of(spec, "ports") {
        fill(port, "protocol", json!("TCP"));
        if port["targetPort"].is_null() || port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    let external_name = spec["type"] == "ExternalName";
    let on_nodes = spec["type"] == "NodePort" || spec["type"] == "LoadBalancer";
    if let Some(old) = old {
        keep(spec, &old["spec"], external_name, on_nodes);
    }
    if external_name {
        return;
    }
    fill(spec, "internalTrafficPolicy", json!("Cluster"));
    if on_nodes {
        fill(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if spec["type"] == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    let headless = spec["clusterIP"] == "None";
    if headless && members(&spec["selector"]).next().is_none() {
        fill(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
        fill(spec, "ipFamilyPolicy", json!("RequireDualStack"));
    }
    fill(spec, "ipFamilies", json!(["IPv4"]));
    fill(spec, "ipFamilyPolicy", json!("SingleStack"));
    fill(spec, "clusterIP", json!(Ipv4Addr::from(ADDRESSES.0 + random() % ADDRESSES.1).to_string()));
    let address = spec["clusterIP"].clone();
    fill(spec, "clusterIPs", json!([address]));
    if on_nodes && spec["allocateLoadBalancerNodePorts"] != false {
        for port in items_of(spec, "ports") {
            let number = u32::from(NODE_PORTS.0) + random() % u32::from(NODE_PORTS.1);
            fill(port, "nodePort", json!(number));
        }
    }
}

/// What a new version of a Service says nothing about stays as it was; what no longer applies goes.
fn keep(spec: &mut Value, old: &Value, external_name: bool, on_nodes: bool) {
    if external_name && old["type"] != "ExternalName" {
        for name in OF_ADDRESSES {
            if spec[name] == old[name] {
                remove(spec, name);
            }
        }
    } else {
        for name in &OF_ADDRESSES[..4] {
            if !old[*name].is_null() {
                fill(spec, name, old[*name].clone());
            }
        }
    }
    let mut before: HashMap<String, &Value> = HashMap::new();
    for port in old["ports"].as_array().into_iter().flatten() {
        before.entry(port_key(port)).or_insert(port);
    }
    for port in items_of(spec, "ports") {
        let known = before.get(&port_key(port)).copied().cloned().unwrap_or_default();
        if on_nodes && !known["nodePort"].is_null() {
            fill(port, "nodePort", known["nodePort"].clone());
        } else if !on_nodes && port["nodePort"] == known["nodePort"] {
            remove(port, "nodePort");
        }
    }
    if !on_nodes && spec["externalTrafficPolicy"] == old["externalTrafficPolicy"] {
        remove(spec, "externalTrafficPolicy");
    }
    if spec["type"] != "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] == old["allocateLoadBalancerNodePorts"] {
        remove(spec, "allocateLoadBalancerNodePorts");
    }
}

/// The items of a list that may be absent.
fn items_of<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

fn random() -> u32 {
    u32::try_from(uuid::Uuid::new_v4().as_u128() & 0xffff_ffff).unwrap_or(1).max(1)
}

pub fn problems(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut found = Vec::new();
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let headless = spec["clusterIP"] == "None";
    if ports.is_empty() && !headless && kind(object) != "ExternalName" {
        found.push(causes::required("spec.ports", ""));
    }
    if kind(object) == "ExternalName" {
        match spec["externalName"].as_str().unwrap_or_default().trim_end_matches('.') {
            "" => found.push(causes::required("spec.externalName", "")),
            name => found.extend(
                subdomain_problem(name)
                    .map(|words| causes::invalid("spec.externalName", &spec["externalName"], &words)),
            ),
        }
    }
    let known = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let mut seen = Seen::default();
    for (index, port) in ports.iter().enumerate() {
        port_problems(port, index, ports.len() > 1, &mut seen, &mut found);
    }
    for (key, _) in members(&spec["selector"]) {
        found.extend(qualified_problem(key).map(|words| causes::invalid("spec.selector", &json!(key), &words)));
    }
    if !["None", "ClientIP"].iter().any(|affinity| spec["sessionAffinity"] == **affinity) {
        found.push(causes::unsupported("spec.sessionAffinity", &spec["sessionAffinity"], &["ClientIP", "None"]));
    }
    if !known.contains(&kind(object)) {
        found.push(causes::unsupported("spec.type", &spec["type"], &known));
    }
    if let Some(old) = old {
        let address = &old["spec"]["clusterIP"];
        let had = address.is_string() && kind(old) != "ExternalName";
        if had && kind(object) != "ExternalName" && *address != spec["clusterIP"] {
            let words = "may not change once set";
            found.push(causes::invalid("spec.clusterIPs[0]", &json!([spec["clusterIP"]]), words));
        }
    }
    let balancer = &object["status"]["loadBalancer"]["ingress"];
    if balancer.as_array().is_some_and(|addresses| !addresses.is_empty()) && kind(object) != "LoadBalancer" {
        let words = "may only be used when `spec.type` is 'LoadBalancer'";
        found.push(causes::forbidden("status.loadBalancer.ingress", words));
    }
    found.extend(address_problems(&object["status"]));
    found
}

/// The addresses of a load balancer, of Services and Ingresses.
pub fn address_problems(status: &Value) -> Vec<Cause> {
    let mut found = Vec::new();
    for (index, address) in status["loadBalancer"]["ingress"].as_array().into_iter().flatten().enumerate() {
        let at = |field: &str| format!("status.loadBalancer.ingress[{index}].{field}");
        if let Some(text) = address["ip"].as_str().filter(|text| text.parse::<IpAddr>().is_err()) {
            let words = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            found.push(causes::invalid(&at("ip"), &json!(text), words));
        }
        if let Some(text) = address["hostname"].as_str() {
            if text.parse::<IpAddr>().is_ok() {
                found.push(causes::invalid(&at("hostname"), &json!(text), "must be a DNS name, not an IP address"));
            } else {
                found.extend(
                    subdomain_problem(text).map(|words| causes::invalid(&at("hostname"), &json!(text), &words)),
                );
            }
        }
    }
    found
}

/// What tells a port from the others.
fn port_key(port: &Value) -> String {
    format!("{}/{}", port["port"], port["protocol"])
}

/// Names and ports that an earlier port of the list has.
#[derive(Default)]
struct Seen {
    names: HashSet<String>,
    ports: HashSet<String>,
}

fn port_problems(port: &Value, index: usize, several: bool, seen: &mut Seen, found: &mut Vec<Cause>) {
    let at = |field: &str| format!("spec.ports[{index}].{field}");
    let name = port["name"].as_str().unwrap_or_default();
    if name.is_empty() && several {
        found.push(causes::required(&at("name"), ""));
    } else if !name.is_empty() {
        found.extend(dns_label_problem(name).map(|words| causes::invalid(&at("name"), &json!(name), &words)));
        if !seen.names.insert(name.to_owned()) {
            found.push(causes::duplicate(&at("name"), &json!(name)));
        }
    }
    found.extend(port_number(&port["port"], &at("port")));
    if !["SCTP", "TCP", "UDP"].iter().any(|protocol| port["protocol"] == **protocol) {
        found.push(causes::unsupported(&at("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]));
    }
    match port["targetPort"].as_str() {
        None => found.extend(port_number(&port["targetPort"], &at("targetPort"))),
        Some(text) => {
            let wrong = port_name_problems(text).into_iter();
            found.extend(wrong.map(|words| causes::invalid(&at("targetPort"), &json!(text), words)));
        }
    }
    if !seen.ports.insert(port_key(port)) {
        // Shown as the server's own type has it.
        let shown = format!(
            "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
            port["protocol"], port["port"]
        );
        let message = format!("Duplicate value: {shown}");
        found.push(Cause { reason: "FieldValueDuplicate", field: format!("spec.ports[{index}]"), message });
    }
}

/// Whether this is a port that can be connected to.
pub fn port_number(value: &Value, field: &str) -> Option<Cause> {
    let fits = value.as_i64().is_some_and(|number| (1..=65_535).contains(&number));
    (!fits).then(|| causes::invalid(field, value, "must be between 1 and 65535, inclusive"))
}
