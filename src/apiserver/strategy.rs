//! What the kinds do differently when they are written. Pure.
use serde_json::Value;

use super::catalog::{DEFINITIONS, Resource};

/// Whether objects count their changes in `metadata.generation`.
pub fn counts_generations(resource: &Resource) -> bool {
    resource.is_custom() || matches!(resource.kind.as_str(), "Ingress" | "IngressClass" | "CustomResourceDefinition")
}

/// Whether a replacement may leave out the version that it replaces.
pub fn replaces_any_version(resource: &Resource) -> bool {
    !resource.is_custom() && resource.kind != "Lease" && resource.full_name() != DEFINITIONS
}

/// Whether a replacement of what is not there makes it.
pub fn replaces_nothing(resource: &Resource) -> bool {
    !resource.is_custom() && matches!(resource.kind.as_str(), "Lease" | "Event")
}

/// Whether a deletion answers the object instead of a note about it.
pub fn answers_the_deleted(resource: &Resource) -> bool {
    !resource.is_custom() && matches!(resource.kind.as_str(), "Service" | "ServiceAccount")
}

/// Whether a write to the status may also change labels, annotations and finalizers.
pub fn status_takes_metadata(resource: &Resource) -> bool {
    !resource.is_custom()
}

/// Namespaces that stay.
pub fn may_be_deleted(namespace: &str) -> bool {
    !matches!(namespace, "default" | "kube-system" | "kube-public")
}

/// Whether the version of a replacement names none: then the newest is replaced, where the kind allows that.
pub fn names_no_version(object: &Value) -> bool {
    matches!(object["metadata"]["resourceVersion"].as_str(), None | Some("" | "0"))
}

/// Places of what the server gives out by itself, such as addresses, where a client names none. Nobody owns them.
pub fn given_out(resource: &Resource) -> &'static [&'static str] {
    match resource.kind.as_str() {
        "Service" if !resource.is_custom() => {
            &["/spec/clusterIP", "/spec/clusterIPs", "/spec/ipFamilies", "/spec/ipFamilyPolicy"]
        }
        "Namespace" if !resource.is_custom() => &["/spec/finalizers", "/status"],
        _ => &[],
    }
}
