//! What is served, told to clients: the legacy lists and the aggregated form. Pure.
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::catalog::{EVENTS, Resource};

/// Content type of the aggregated form, exactly as clients ask for it.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Verbs of built-in resources; namespaces have no collection to delete.
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// The same of custom resources, in the order in which a real server tells them.
const CUSTOM_VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A resource that is only ever created, and answered at once.
pub struct Review {
    pub group: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

/// Version of every review.
const REVIEW_VERSION: &str = "v1";

const fn review(group: &'static str, plural: &'static str, kind: &'static str) -> Review {
    Review { group, plural, kind, namespaced: false }
}

const REVIEWS: [Review; 6] = [
    review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    review("authentication.k8s.io", "tokenreviews", "TokenReview"),
    Review {
        namespaced: true,
        ..review("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview")
    },
    review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    review("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
];

impl Review {
    /// The review as a resource, for what treats all kinds alike.
    pub fn resource(&self) -> Resource {
        Resource {
            group: self.group.to_owned(),
            version: REVIEW_VERSION.to_owned(),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            kind: self.kind.to_owned(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: self.namespaced,
            has_status: false,
            schema: None,
            rules: None,
            columns: Vec::new(),
            storage_version: REVIEW_VERSION.to_owned(),
            selectable: Vec::new(),
            defaulted_after: 0,
        }
    }
}

/// The review at a path, with the path's namespace.
pub fn review_at<'a>(segments: &[&'a str]) -> Option<(&'static Review, Option<&'a str>)> {
    let (group, namespace, plural) = match segments {
        ["apis", group, REVIEW_VERSION, plural] => (group, None, plural),
        ["apis", group, REVIEW_VERSION, "namespaces", namespace, plural] => (group, Some(*namespace), plural),
        _ => return None,
    };
    let found = REVIEWS.iter().find(|r| r.group == *group && r.plural == *plural)?;
    (found.namespaced == namespace.is_some()).then_some((found, namespace))
}

pub fn is_review_group(group: &str) -> bool {
    REVIEWS.iter().any(|review| review.group == group)
}

pub fn is_review(api_version: &str, kind: &str) -> bool {
    REVIEWS.iter().any(|r| r.kind == kind && api_version == format!("{}/{REVIEW_VERSION}", r.group))
}

/// Groups with their versions, the core group under the empty name.
fn groups(resources: &[Arc<Resource>]) -> BTreeMap<String, BTreeMap<String, Vec<Arc<Resource>>>> {
    let mut groups: BTreeMap<String, BTreeMap<String, Vec<Arc<Resource>>>> = BTreeMap::new();
    for resource in resources {
        let versions = groups.entry(resource.group.clone()).or_default();
        versions.entry(resource.version.clone()).or_default().push(Arc::clone(resource));
    }
    for review in &REVIEWS {
        groups.entry(review.group.to_owned()).or_default().entry(REVIEW_VERSION.to_owned()).or_default();
    }
    groups
}

/// Versions in the order of preference: stable before beta before alpha, newer before older, others by name.
fn preferred<'a>(versions: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let rank = |version: &str| {
        let rest = version.strip_prefix('v')?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let major: u64 = rest[..digits].parse().ok()?;
        match &rest[digits..] {
            "" => Some((2, major, 0)),
            pre => {
                let (level, minor) = match (pre.strip_prefix("beta"), pre.strip_prefix("alpha")) {
                    (Some(minor), _) => (1, minor),
                    (_, Some(minor)) => (0, minor),
                    _ => return None,
                };
                Some((level, major, minor.parse::<u64>().ok()?))
            }
        }
    };
    let mut versions: Vec<&String> = versions.collect();
    versions.sort_by(|a, b| match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (None, None) => a.cmp(b),
    });
    versions
}

/// Paths of discovery, for the list at the root.
pub fn paths(resources: &[Arc<Resource>]) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for (group, versions) in groups(resources) {
        let base = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        paths.extend(versions.keys().map(|version| format!("{base}/{version}")));
        if !group.is_empty() {
            paths.push(base);
        }
    }
    paths
}

/// Eight bytes that stand for the form in which objects are stored.
fn storage_hash(resource: &Resource) -> String {
    // A real server stores events in their old form, whichever they are written in.
    let group = if resource.stored_as() == EVENTS { "" } else { &resource.group };
    let digest = Sha256::digest(format!("{group}/{}/{}", resource.storage_version, resource.kind));
    STANDARD.encode(&digest[..8])
}

fn verbs(resource: &Resource) -> Vec<&'static str> {
    let all = if resource.is_custom() { CUSTOM_VERBS } else { VERBS };
    all.into_iter().filter(|verb| *verb != "deletecollection" || resource.full_name() != "namespaces").collect()
}

/// `GET /api`, legacy. `host` is what the client calls this server.
pub fn core_versions(host: &str) -> Value {
    let addresses = match host {
        "" => json!([]),
        host => json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]),
    };
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses})
}

fn group_json<'a>(name: &str, versions: impl Iterator<Item = &'a String>) -> Value {
    let versions: Vec<Value> =
        preferred(versions).into_iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// `GET /apis`, legacy.
pub fn group_list(resources: &[Arc<Resource>]) -> Value {
    let groups = groups(resources);
    let named = groups.iter().filter(|(name, _)| !name.is_empty());
    let list: Vec<Value> = named.map(|(name, versions)| group_json(name, versions.keys())).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// `GET /apis/<group>`.
pub fn group(resources: &[Arc<Resource>], name: &str) -> Option<Value> {
    let groups = groups(resources);
    let mut found = group_json(name, groups.get(name).filter(|_| !name.is_empty())?.keys());
    found["kind"] = json!("APIGroup");
    found["apiVersion"] = json!("v1");
    Some(found)
}

/// `GET /api/v1` and `GET /apis/<group>/<version>`.
pub fn resource_list(resources: &[Arc<Resource>], group: &str, version: &str) -> Option<Value> {
    let groups = groups(resources);
    let served = groups.get(group)?.get(version)?;
    let mut list = Vec::new();
    for r in served {
        let mut entry = json!({
            "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind,
            "verbs": verbs(r), "storageVersionHash": storage_hash(r),
        });
        told_names(&mut entry, r);
        list.push(entry);
        if r.has_status {
            list.push(json!({
                "name": format!("{}/status", r.plural), "singularName": "", "namespaced": r.namespaced, "kind": r.kind,
                "verbs": STATUS_VERBS,
            }));
        }
    }
    for review in REVIEWS.iter().filter(|r| r.group == group && version == REVIEW_VERSION) {
        list.push(json!({
            "name": review.plural, "singularName": review.kind.to_lowercase(), "namespaced": review.namespaced,
            "kind": review.kind, "verbs": ["create"],
        }));
    }
    let full = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": full, "resources": list}))
}

/// Short names and categories stand there only where there are any.
fn told_names(entry: &mut Value, resource: &Resource) {
    for (field, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !names.is_empty() {
            entry[field] = json!(names);
        }
    }
}

/// Both aggregated documents: the core group alone, or every other.
pub fn aggregated(resources: &[Arc<Resource>], core: bool) -> Value {
    // Built-in kinds leave group and version to the place where they stand.
    let kind_of = |r: &Resource| match r.is_custom() {
        true => json!({"group": r.group, "version": r.version, "kind": r.kind}),
        false => json!({"group": "", "version": "", "kind": r.kind}),
    };
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    let one = |r: &Arc<Resource>| {
        let mut entry = json!({
            "resource": r.plural, "responseKind": kind_of(r), "singularResource": r.singular, "verbs": verbs(r),
            "scope": scope(r.namespaced),
        });
        told_names(&mut entry, r);
        if r.has_status {
            entry["subresources"] =
                json!([{"subresource": "status", "responseKind": kind_of(r), "verbs": STATUS_VERBS}]);
        }
        entry
    };
    let reviews = |group: &str| -> Vec<Value> {
        let of_group = REVIEWS.iter().filter(|r| r.group == group);
        of_group
            .map(|r| {
                json!({
                    "resource": r.plural, "responseKind": {"group": "", "version": "", "kind": r.kind},
                    "singularResource": r.kind.to_lowercase(), "verbs": ["create"], "scope": scope(r.namespaced),
                })
            })
            .collect()
    };
    let items: Vec<Value> = groups(resources)
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, served)| {
            let versions: Vec<Value> = preferred(served.keys())
                .into_iter()
                .map(|version| {
                    let listed = served[version].iter().map(one).chain(reviews(&name));
                    json!({"version": version, "resources": listed.collect::<Vec<_>>(), "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_the_order_of_preference() {
        let versions = ["v1alpha1", "v2beta1", "foo1", "v1", "v10", "v2", "v1beta2", "v2beta3"].map(str::to_owned);
        let sorted: Vec<&str> = preferred(versions.iter()).into_iter().map(String::as_str).collect();
        assert_eq!(sorted, ["v10", "v2", "v1", "v2beta3", "v2beta1", "v1beta2", "v1alpha1", "foo1"]);
    }
}
