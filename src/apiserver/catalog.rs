//! What is served: built-in resources, and whatever custom resource definitions are stored.
use std::sync::Arc;

use serde_json::Value;

use super::store::Store;

/// Where custom resource definitions are kept.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// One served resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    pub has_status: bool,
    /// `openAPIV3Schema` of a custom resource.
    pub schema: Option<Arc<Value>>,
}

impl Resource {
    /// `plural` or `plural.group`: the store's name, and the one in messages.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
    /// `Kind` or `Kind.group`, as messages about invalid objects have it.
    pub fn full_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// group, version, plural, kind, namespaced, has a status subresource
const BUILT_IN: [(&str, &str, &str, &str, bool, bool); 9] = [
    ("", "v1", "namespaces", "Namespace", false, true),
    ("", "v1", "configmaps", "ConfigMap", true, false),
    ("", "v1", "secrets", "Secret", true, false),
    ("", "v1", "services", "Service", true, true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true, false),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false, true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true, false),
    ("events.k8s.io", "v1", "events", "Event", true, false),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", true, true),
];

/// The resource at this place, if it is served.
pub fn find(store: &Store, group: &str, version: &str, plural: &str) -> Option<Resource> {
    let built_in = BUILT_IN.iter().find(|(g, v, p, ..)| (*g, *v, *p) == (group, version, plural));
    if let Some((group, version, plural, kind, namespaced, has_status)) = built_in {
        return Some(Resource {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            plural: (*plural).to_owned(),
            kind: (*kind).to_owned(),
            namespaced: *namespaced,
            has_status: *has_status,
            schema: None,
        });
    }
    let definitions = store.list(DEFINITIONS, None);
    definitions.objects.iter().find_map(|definition| custom(definition, group, version, plural))
}

/// The version of a definition as a resource.
fn custom(definition: &Value, group: &str, version: &str, plural: &str) -> Option<Resource> {
    let spec = &definition["spec"];
    if spec["group"] != group || spec["names"]["plural"] != plural {
        return None;
    }
    let served = spec["versions"].as_array()?.iter().find(|v| v["name"] == version && v["served"] == true)?;
    let schema = &served["schema"]["openAPIV3Schema"];
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        kind: spec["names"]["kind"].as_str()?.to_owned(),
        namespaced: spec["scope"] == "Namespaced",
        has_status: served["subresources"]["status"].is_object(),
        schema: schema.is_object().then(|| Arc::new(schema.clone())),
    })
}
