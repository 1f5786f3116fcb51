//! The columns of built-in kinds, as `kubectl get` shows them; those of priority 1 with `-o wide`. Pure.
use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::api::core::v1::{ConfigMap, Event, ObjectReference, Secret, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::catalog::Resource;
use super::events;
use super::openapi::described;
use super::table::since;

/// Hosts of an Ingress that are shown before the rest is only counted.
const HOSTS: usize = 3;
const NONE: &str = "<none>";

type Cell = fn(&Value, Timestamp) -> Value;

/// One column of a built-in kind.
pub struct BuiltIn {
    pub name: &'static str,
    /// `string`, or `date` where the client makes the age.
    pub kind: &'static str,
    pub format: &'static str,
    pub description: String,
    pub priority: i64,
    pub cell: Cell,
}

fn column(name: &'static str, description: impl Into<String>, cell: Cell) -> BuiltIn {
    BuiltIn { name, kind: "string", format: "", description: description.into(), priority: 0, cell }
}

impl BuiltIn {
    fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

static NAME: LazyLock<String> = LazyLock::new(|| described::<ObjectMeta>("name"));
static MADE: LazyLock<String> = LazyLock::new(|| described::<ObjectMeta>("creationTimestamp"));

/// What is said of the column with an object's name.
pub fn about_name() -> &'static str {
    &NAME
}

/// What is said of the column with an object's age.
pub fn about_age() -> &'static str {
    &MADE
}

fn name() -> BuiltIn {
    BuiltIn { format: "name", ..column("Name", about_name(), |o, _| o["metadata"]["name"].clone()) }
}

fn age() -> BuiltIn {
    column("Age", about_age(), |o, now| json!(since(&o["metadata"]["creationTimestamp"], now)))
}

type Columns = LazyLock<Vec<BuiltIn>>;

// Made once: the words come out of the types' schemas.
static NAMESPACE: Columns = LazyLock::new(|| {
    vec![name(), column("Status", "The status of the namespace", |o, _| o["status"]["phase"].clone()), age()]
});
static SECRET: Columns = LazyLock::new(|| {
    vec![
        name(),
        column("Type", described::<Secret>("type"), |o, _| o["type"].clone()),
        column("Data", described::<Secret>("data"), |o, _| json!(length(&o["data"]))),
        age(),
    ]
});
static CONFIG_MAP: Columns = LazyLock::new(|| {
    let count: Cell = |o, _| json!(length(&o["data"]) + length(&o["binaryData"]));
    vec![name(), column("Data", described::<ConfigMap>("data"), count), age()]
});
static LEASE: Columns = LazyLock::new(|| {
    let holder: Cell = |o, _| json!(text(&o["spec"]["holderIdentity"]));
    vec![name(), column("Holder", described::<LeaseSpec>("holderIdentity"), holder), age()]
});
static DEFINITION: Columns = LazyLock::new(|| {
    let made: Cell = |o, _| o["metadata"]["creationTimestamp"].clone();
    vec![name(), BuiltIn { kind: "date", ..column("Created At", about_age(), made) }]
});
static INGRESS_CLASS: Columns = LazyLock::new(|| {
    vec![
        BuiltIn { cell: class_name, ..name() },
        column("Controller", "Controller that is responsible for handling this class", |o, _| {
            o["spec"]["controller"].clone()
        }),
        column("Parameters", "A reference to a resource with additional parameters", class_parameters),
        age(),
    ]
});
static INGRESS: Columns = LazyLock::new(|| {
    let class = "The name of the IngressClass resource that should be used for additional configuration";
    let hosts = "Hosts that incoming requests are matched against before the ingress rule";
    vec![
        name(),
        column("Class", class, |o, _| or_none(text(&o["spec"]["ingressClassName"]).to_owned())),
        column("Hosts", hosts, |o, _| json!(hosts_of(&o["spec"]["rules"]))),
        column("Address", "Address is a list containing ingress points for the load-balancer", |o, _| {
            json!(balancers(o).join(","))
        }),
        column("Ports", "Ports of TLS configurations that open", |o, _| {
            json!(if length(&o["spec"]["tls"]) > 0 { "80, 443" } else { "80" })
        }),
        age(),
    ]
});
static SERVICE: Columns = LazyLock::new(|| {
    vec![
        name(),
        column("Type", described::<ServiceSpec>("type"), |o, _| json!(service_type(o))),
        column("Cluster-IP", described::<ServiceSpec>("clusterIP"), |o, _| {
            or_none(text(&o["spec"]["clusterIP"]).to_owned())
        }),
        column("External-IP", described::<ServiceSpec>("externalIPs"), |o, _| json!(external(o))),
        column("Port(s)", described::<ServiceSpec>("ports"), |o, _| or_none(ports(&o["spec"]["ports"]))),
        age(),
        column("Selector", described::<ServiceSpec>("selector"), |o, _| or_none(pairs(&o["spec"]["selector"]))).wide(),
    ]
});
static EVENT: Columns = LazyLock::new(|| {
    let last = "The time at which the most recent occurrence of this event was recorded.";
    vec![
        column("Last Seen", last, |o, now| json!(since(&last_seen(&as_core(o)), now))),
        column("Type", described::<Event>("type"), |o, _| json!(text(&o["type"]))),
        column("Reason", described::<Event>("reason"), |o, _| json!(text(&o["reason"]))),
        column("Object", described::<Event>("involvedObject"), |o, _| json!(event_object(&as_core(o)))),
        column("Subobject", described::<ObjectReference>("fieldPath"), |o, _| {
            json!(text(&as_core(o)["involvedObject"]["fieldPath"]))
        })
        .wide(),
        column("Source", described::<Event>("source"), |o, _| json!(event_source(&as_core(o)))).wide(),
        column("Message", described::<Event>("message"), |o, _| json!(text(&as_core(o)["message"]).trim())),
        column("First Seen", described::<Event>("firstTimestamp"), |o, now| {
            json!(since(&as_core(o)["firstTimestamp"], now))
        })
        .wide(),
        column("Count", described::<Event>("count"), |o, _| event_count(&as_core(o))).wide(),
        name().wide(),
    ]
});
static OTHER: Columns = LazyLock::new(|| vec![name(), age()]);

/// The columns of a built-in kind.
pub fn of(resource: &Resource) -> &'static [BuiltIn] {
    match resource.kind.as_str() {
        "Namespace" => &NAMESPACE,
        "Secret" => &SECRET,
        "ConfigMap" => &CONFIG_MAP,
        "Lease" => &LEASE,
        "CustomResourceDefinition" => &DEFINITION,
        "IngressClass" => &INGRESS_CLASS,
        "Ingress" => &INGRESS,
        "Service" => &SERVICE,
        "Event" => &EVENT,
        _ => &OTHER,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn length(value: &Value) -> usize {
    value.as_object().map(serde_json::Map::len).or_else(|| value.as_array().map(Vec::len)).unwrap_or(0)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn or_none(text: String) -> Value {
    if text.is_empty() { json!(NONE) } else { Value::String(text) }
}

fn class_name(class: &Value, _: Timestamp) -> Value {
    let default = class["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"] == "true";
    let name = text(&class["metadata"]["name"]);
    if default { json!(format!("{name} (default)")) } else { json!(name) }
}

fn class_parameters(class: &Value, _: Timestamp) -> Value {
    let parameters = &class["spec"]["parameters"];
    if !parameters.is_object() {
        return json!(NONE);
    }
    let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
    json!(format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"])))
}

fn hosts_of(rules: &Value) -> String {
    let hosts: Vec<&str> =
        items(rules).map(|rule| text(&rule["host"])).filter(|host| !host.is_empty()).take(HOSTS).collect();
    match (hosts.len(), length(rules)) {
        (0, _) => "*".to_owned(),
        (HOSTS, rules) if rules > HOSTS => format!("{} + {} more...", hosts.join(","), rules - HOSTS),
        _ => hosts.join(","),
    }
}

/// Addresses that a load balancer gave, sorted, each once.
fn balancers(object: &Value) -> Vec<String> {
    let ingress = items(&object["status"]["loadBalancer"]["ingress"]);
    let addresses = ingress.map(|at| if text(&at["ip"]).is_empty() { text(&at["hostname"]) } else { text(&at["ip"]) });
    let mut addresses: Vec<String> = addresses.filter(|a| !a.is_empty()).map(str::to_owned).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn service_type(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let own = items(&spec["externalIPs"]).map(|ip| text(ip).to_owned());
    match service_type(service) {
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let all: Vec<String> = balancers(service).into_iter().chain(own).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => {
            let all: Vec<String> = own.collect();
            if all.is_empty() { NONE.to_owned() } else { all.join(",") }
        }
    }
}

fn ports(list: &Value) -> String {
    let words = items(list).map(|port| {
        let (number, protocol) = (port["port"].as_u64().unwrap_or(0), port["protocol"].as_str().unwrap_or("TCP"));
        match port["nodePort"].as_u64() {
            Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    });
    words.collect::<Vec<_>>().join(",")
}

fn pairs(map: &Value) -> String {
    let words = map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value)));
    words.collect::<Vec<_>>().join(",")
}

/// An event in its old form, whichever it is shown in.
fn as_core(event: &Value) -> Value {
    if event["involvedObject"].is_null() { events::to_core(event) } else { event.clone() }
}

fn last_seen(event: &Value) -> Value {
    let places = [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
    places.into_iter().find(|time| time.is_string()).cloned().unwrap_or_default()
}

fn event_object(event: &Value) -> String {
    let about = &event["involvedObject"];
    let kind = text(&about["kind"]).to_lowercase();
    if text(&about["name"]).is_empty() { kind } else { format!("{kind}/{}", text(&about["name"])) }
}

fn event_source(event: &Value) -> String {
    let either =
        |old: &Value, new: &Value| if text(old).is_empty() { text(new).to_owned() } else { text(old).to_owned() };
    let component = either(&event["source"]["component"], &event["reportingComponent"]);
    let instance = either(&event["source"]["host"], &event["reportingInstance"]);
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

fn event_count(event: &Value) -> Value {
    match (&event["series"]["count"], event["count"].as_i64()) {
        (Value::Number(series), _) => json!(series),
        (_, Some(count)) if count > 0 => json!(count),
        _ => json!(1),
    }
}
