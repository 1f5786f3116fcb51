//! The object of a portal, from typed parts only, and what other objects say about hosts. Pure.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::api::ingress::IssuerKind;
use crate::api::{FIELD_MANAGER, HostName, PortalKey};
use crate::plan::{Intent, Item, Mark, Ownership};

/// Carries the mark, and finds the objects of a portal.
pub const LABEL_MARK: &str = "portalkeeper.dev/mark";
const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Tells people which portal the object is for.
const ANNOTATION_PORTAL: &str = "portalkeeper.dev/portal";
/// Digest of what was applied, by which a setting that was taken away is noticed.
const ANNOTATION_APPLIED: &str = "portalkeeper.dev/applied";

/// Where TLS comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// The controller's default certificate, or something before it.
    None,
    /// A Secret in the Ingress' namespace.
    Secret(String),
    /// cert-manager makes a Secret for each portal.
    Issuer { kind: IssuerKind, name: String },
}

/// What kind of object is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flavour {
    /// `networking.k8s.io/v1` Ingress.
    Ingress { class_name: Option<String>, annotations: BTreeMap<String, String>, tls: Tls },
    /// `gateway.networking.k8s.io/v1` HTTPRoute; the gateway sees to TLS.
    HttpRoute { gateway: String, gateway_namespace: Option<String>, section: Option<String> },
}

/// Where the pages are, and how requests get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The Service's own namespace: neither kind may name a Service elsewhere.
    pub namespace: String,
    pub service: String,
    pub port: u16,
    pub flavour: Flavour,
}

impl Flavour {
    pub fn api_version(&self) -> &'static str {
        match self {
            Self::Ingress { .. } => "networking.k8s.io/v1",
            Self::HttpRoute { .. } => "gateway.networking.k8s.io/v1",
        }
    }
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ingress { .. } => "Ingress",
            Self::HttpRoute { .. } => "HTTPRoute",
        }
    }
    pub fn plural(&self) -> &'static str {
        match self {
            Self::Ingress { .. } => "ingresses",
            Self::HttpRoute { .. } => "httproutes",
        }
    }

    /// Hosts that an object of this kind names exactly.
    pub fn hosts(&self, object: &Value) -> Vec<String> {
        let spec = &object["spec"];
        let found: Vec<&Value> = match self {
            Self::Ingress { .. } => spec["rules"].as_array().into_iter().flatten().map(|rule| &rule["host"]).collect(),
            Self::HttpRoute { .. } => spec["hostnames"].as_array().into_iter().flatten().collect(),
        };
        let mut hosts: Vec<String> = found.into_iter().filter_map(Value::as_str).map(str::to_ascii_lowercase).collect();
        hosts.dedup();
        hosts
    }

    /// Whether another object is read by the controller that reads ours, as far as that can be told.
    pub fn rivals(&self, namespace: &str, object: &Value) -> bool {
        match self {
            Self::Ingress { class_name, .. } => {
                let other = object["spec"]["ingressClassName"].as_str();
                class_name.as_deref().zip(other).is_none_or(|(ours, theirs)| ours == theirs)
            }
            Self::HttpRoute { gateway, gateway_namespace, .. } => {
                let home = gateway_namespace.as_deref().unwrap_or(namespace);
                let own = object["metadata"]["namespace"].as_str().unwrap_or_default();
                object["spec"]["parentRefs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|parent| parent["name"] == *gateway && parent["namespace"].as_str().unwrap_or(own) == home)
            }
        }
    }
}

/// An object as the planner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub host: String,
    /// Labels, annotations and spec; ours are compared, what others add is not.
    pub body: Value,
    /// Fields that somebody else took over may be taken back.
    pub force: bool,
    /// Why it cannot be taken over, if it is somebody else's.
    pub stays: Option<Stays>,
}

/// Why an object of somebody else stays theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// Ours stand in one namespace, and it in another.
    Elsewhere,
    OtherNames,
}

impl Item for Route {
    fn key(&self) -> &str {
        &self.host
    }
    fn satisfies(&self, desired: &Self) -> bool {
        let parts = ["metadata", "spec"];
        parts.iter().all(|part| holds(&self.body[part], &desired.body[part]))
    }
    /// An object of another namespace is not for our Service.
    fn adoptable(&self) -> bool {
        self.stays.is_none()
    }
    fn says_why(&self) -> bool {
        self.stays.is_some()
    }
    fn describe(&self) -> String {
        let text = |at: &str| self.body.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = text("/kind");
        let at = match kind.as_str() {
            "HTTPRoute" => "/spec/rules/0/backendRefs/0/name",
            _ => "/spec/rules/0/http/paths/0/backend/service/name",
        };
        let object = format!("{kind} {}/{} to {}", text("/metadata/namespace"), text("/metadata/name"), text(at));
        match self.stays {
            None => object,
            Some(Stays::Elsewhere) => format!(
                "{object} (it cannot be taken over, because it stands in another namespace than the class's: delete it \
                 there, or take the host out of it)"
            ),
            Some(Stays::OtherNames) => {
                format!(
                    "{object} (it cannot be taken over, because it serves other names, too: take the host out of it)"
                )
            }
        }
    }
}

/// Whether everything that is said in `part` is said in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|inner| holds(inner, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        (whole, part) => whole == part,
    }
}

fn digest(text: &str, bytes: usize) -> String {
    Sha256::digest(text.as_bytes()).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

/// Mark and host in the object's name: portals of several namespaces meet in one, and one that moves has two.
fn suffix(mark: &Mark, host: &str) -> String {
    digest(&format!("{} {host}", mark.identifier()), 5)
}

/// Named from the portal, and unlike any other.
fn object_name(portal: &PortalKey, mark: &Mark, host: &str) -> String {
    let start: String = portal.name.chars().take(200).collect();
    format!("{}-{}", start.trim_end_matches(['-', '.']), suffix(mark, host))
}

/// The portal's object as it should be.
pub fn desired(intent: &Intent, target: &Target) -> Route {
    let host: &HostName = &intent.host;
    let name = object_name(&intent.portal, &intent.mark, host.as_str());
    let mut annotations: BTreeMap<String, String> = BTreeMap::new();
    let spec = match &target.flavour {
        Flavour::Ingress { class_name, annotations: given, tls } => {
            annotations.extend(given.clone());
            let backend = json!({"service": {"name": target.service, "port": {"number": target.port}}});
            let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
            let mut spec = json!({"rules": [{"host": host, "http": {"paths": [path]}}]});
            if let Some(class) = class_name {
                spec["ingressClassName"] = json!(class);
            }
            let secret = match tls {
                Tls::None => None,
                Tls::Secret(secret) => Some(secret.clone()),
                Tls::Issuer { kind, name: issuer } => {
                    let annotation = match kind {
                        IssuerKind::ClusterIssuer => "cert-manager.io/cluster-issuer",
                        IssuerKind::Issuer => "cert-manager.io/issuer",
                    };
                    annotations.insert(annotation.to_owned(), issuer.clone());
                    Some(format!("{name}-tls"))
                }
            };
            if let Some(secret) = secret {
                spec["tls"] = json!([{"hosts": [host], "secretName": secret}]);
            }
            spec
        }
        Flavour::HttpRoute { gateway, gateway_namespace, section } => {
            let mut parent = json!({"name": gateway});
            if let Some(namespace) = gateway_namespace {
                parent["namespace"] = json!(namespace);
            }
            if let Some(section) = section {
                parent["sectionName"] = json!(section);
            }
            json!({
                "parentRefs": [parent],
                "hostnames": [host],
                "rules": [{"backendRefs": [{"name": target.service, "port": target.port}]}],
            })
        }
    };
    annotations.insert(ANNOTATION_PORTAL.to_owned(), intent.portal.to_string());
    annotations.insert(ANNOTATION_APPLIED.to_owned(), digest(&json!([annotations, spec]).to_string(), 8));
    let body = json!({
        "apiVersion": target.flavour.api_version(),
        "kind": target.flavour.kind(),
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "labels": {LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_MARK: intent.mark.identifier()},
            "annotations": annotations,
        },
        "spec": spec,
    });
    Route { host: host.to_string(), body, force: intent.adopt, stays: None }
}

/// Whose the object is at a host: our label is believed only together with our name, so that a copy is not ours.
pub fn owner(object: &Value, host: &str) -> Ownership {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let label = text(&object["metadata"]["labels"][LABEL_MARK]);
    match Mark::from_identifier(&label) {
        Ownership::Marked(mark)
            if text(&object["metadata"]["name"]).ends_with(&format!("-{}", suffix(&mark, host))) =>
        {
            Ownership::Marked(mark)
        }
        _ => Ownership::Foreign,
    }
}

/// The host by which an object with our label is known: the one in its name, or else its first.
pub fn own_host(hosts: &[String], object: &Value) -> Option<String> {
    let ours = hosts.iter().find(|host| matches!(owner(object, host), Ownership::Marked(_)));
    ours.or(hosts.first()).cloned()
}

/// A patch that leaves the object in place without anything of ours that says so.
pub fn release(object: &Value) -> Value {
    json!({"metadata": {
        "uid": object["metadata"]["uid"],
        "resourceVersion": object["metadata"]["resourceVersion"],
        "labels": {LABEL_MARK: null, LABEL_MANAGED_BY: null},
        "annotations": {ANNOTATION_PORTAL: null, ANNOTATION_APPLIED: null},
    }})
}

/// What the object's controller says against it: reason and words, `true` where it is refused and not only late.
pub fn status_trouble(target: &Target, object: &Value) -> Option<(bool, &'static str, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = format!("{}/{}", target.namespace, text(&object["metadata"]["name"]));
    match &target.flavour {
        Flavour::Ingress { class_name, .. } => {
            let addresses = object["status"]["loadBalancer"]["ingress"].as_array().map_or(0, Vec::len);
            let class = class_name.as_deref().map_or("the default class".to_owned(), |class| format!("class {class}"));
            (addresses == 0).then(|| {
                let message =
                    format!("the Ingress {name} is made; the controller of {class} has not given it an address yet");
                (false, "AwaitingLoadBalancer", message)
            })
        }
        Flavour::HttpRoute { gateway, .. } => {
            let empty = Vec::new();
            let parents = object["status"]["parents"].as_array().unwrap_or(&empty);
            let Some(parent) = parents.iter().find(|parent| parent["parentRef"]["name"] == *gateway) else {
                let message = format!("the HTTPRoute {name} is made; the gateway {gateway} has not taken it up yet");
                return Some((false, "AwaitingGateway", message));
            };
            let refused = parent["conditions"].as_array().into_iter().flatten().find(|condition| {
                matches!(condition["type"].as_str(), Some("Accepted" | "ResolvedRefs")) && condition["status"] != "True"
            })?;
            let (type_, reason, message) =
                (text(&refused["type"]), text(&refused["reason"]), text(&refused["message"]));
            Some((true, "RouteRefused", format!("the gateway {gateway} says {type_}=False ({reason}): {message}")))
        }
    }
}

/// The object without what the API server keeps for itself, for planning.
pub fn shown(object: &Value) -> Value {
    let empty = Map::new();
    let about = object["metadata"].as_object().unwrap_or(&empty);
    let kept = ["name", "namespace", "uid", "resourceVersion", "labels", "annotations", "deletionTimestamp"];
    let about: Map<String, Value> =
        about.iter().filter(|(name, _)| kept.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect();
    json!({"kind": object["kind"], "metadata": about, "spec": object["spec"]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{CertificateMode, InstallationId};

    fn intent(name: &str, host: &str) -> Intent {
        let portal = PortalKey { namespace: "mail".into(), name: name.into() };
        Intent {
            mark: Mark::new(&InstallationId::parse("0123456789abcdef").unwrap(), &portal),
            portal,
            host: HostName::parse(host).unwrap(),
            cname_target: None,
            proxied: true,
            ttl: 1,
            certificate: CertificateMode::Proxy,
            adopt: false,
            keep: Vec::new(),
        }
    }

    fn target(tls: Tls) -> Target {
        let annotations = BTreeMap::from([("example.com/x".to_owned(), "y".to_owned())]);
        let flavour = Flavour::Ingress { class_name: Some("public".into()), annotations, tls };
        Target { namespace: "apps".into(), service: "portalkeeper".into(), port: 5000, flavour }
    }

    #[test]
    fn the_object_is_named_from_the_portal_and_says_what_the_class_says() {
        let tls = Tls::Issuer { kind: IssuerKind::ClusterIssuer, name: "letsencrypt".into() };
        let route = desired(&intent("acme", "reset.acme.example"), &target(tls));
        let body = &route.body;
        let name = body["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("acme-") && name.len() == 15, "{name}");
        assert_eq!(body["metadata"]["annotations"]["cert-manager.io/cluster-issuer"], "letsencrypt");
        assert_eq!(body["metadata"]["annotations"]["portalkeeper.dev/portal"], "mail/acme");
        assert_eq!(body["spec"]["tls"][0]["secretName"], format!("{name}-tls"));
        assert_eq!(body["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"]["number"], 5000);
        assert!(body["metadata"]["labels"][LABEL_MARK].as_str().unwrap().len() <= 63, "labels are short");
        assert!(matches!(owner(body, "reset.acme.example"), Ownership::Marked(_)));
    }

    #[test]
    fn a_copy_is_not_ours() {
        let mut copy = desired(&intent("acme", "reset.acme.example"), &target(Tls::None)).body;
        copy["metadata"]["name"] = json!("copy-of-acme");
        assert_eq!(owner(&copy, "reset.acme.example"), Ownership::Foreign);
    }

    #[test]
    fn what_others_add_is_no_difference_and_what_the_class_drops_is() {
        let want = desired(&intent("acme", "reset.acme.example"), &target(Tls::None));
        let mut have = want.clone();
        have.body["metadata"]["annotations"]["other.example/x"] = json!("theirs");
        have.body["spec"]["defaultBackend"] = json!({});
        assert!(have.satisfies(&want));
        have.body["spec"]["rules"].as_array_mut().unwrap().push(json!({"host": "b.example"}));
        assert!(!have.satisfies(&want));
        let Flavour::Ingress { class_name, tls, .. } = target(Tls::None).flavour else { panic!() };
        let fewer = Flavour::Ingress { class_name, annotations: BTreeMap::new(), tls };
        let less = desired(&intent("acme", "reset.acme.example"), &Target { flavour: fewer, ..target(Tls::None) });
        assert!(!want.satisfies(&less), "an annotation is to go");
    }
}
