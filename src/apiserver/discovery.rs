//! What is served, told to clients: the legacy lists and the aggregated form. Pure.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::catalog::Resource;

/// Content type of the aggregated form, exactly as clients ask for it.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const VERBS: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Reviews are only ever created.
pub const REVIEWS: [(&str, &str, &str, &str); 5] = [
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview"),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview"),
];

/// Whether an Accept header asks for the aggregated form in the version we have.
pub fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let parts: Vec<&str> = range.split(';').map(str::trim).collect();
        ["application/json", "g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
            .iter()
            .all(|p| parts.contains(p))
    })
}

/// Groups with their versions, the core group under the empty name.
fn groups(resources: &[Arc<Resource>]) -> BTreeMap<String, BTreeMap<String, Vec<Arc<Resource>>>> {
    let mut groups: BTreeMap<String, BTreeMap<String, Vec<Arc<Resource>>>> = BTreeMap::new();
    for resource in resources {
        let versions = groups.entry(resource.group.clone()).or_default();
        versions.entry(resource.version.clone()).or_default().push(Arc::clone(resource));
    }
    for (group, version, ..) in REVIEWS {
        groups.entry(group.to_owned()).or_default().entry(version.to_owned()).or_default();
    }
    groups
}

/// `GET /api`, legacy.
pub fn core_versions() -> Value {
    json!({"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group_json(name: &str, versions: impl Iterator<Item = String>) -> Value {
    let versions: Vec<Value> = versions.map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// `GET /apis`, legacy.
pub fn group_list(resources: &[Arc<Resource>]) -> Value {
    let groups = groups(resources);
    let named = groups.iter().filter(|(name, _)| !name.is_empty());
    let list: Vec<Value> = named.map(|(name, versions)| group_json(name, versions.keys().cloned())).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// `GET /apis/<group>`.
pub fn group(resources: &[Arc<Resource>], name: &str) -> Option<Value> {
    let groups = groups(resources);
    let mut found = group_json(name, groups.get(name).filter(|_| !name.is_empty())?.keys().cloned());
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
        list.push(json!({
            "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind,
            "verbs": VERBS, "shortNames": r.short_names, "categories": r.categories,
        }));
        if r.has_status {
            list.push(json!({
                "name": format!("{}/status", r.plural), "singularName": "", "namespaced": r.namespaced, "kind": r.kind,
                "verbs": STATUS_VERBS,
            }));
        }
    }
    for (_, _, plural, kind) in REVIEWS.iter().filter(|(g, v, ..)| (*g, *v) == (group, version)) {
        list.push(json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"],
        }));
    }
    let full = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": full, "resources": list}))
}

/// Both aggregated documents: the core group alone, or every other.
pub fn aggregated(resources: &[Arc<Resource>], core: bool) -> Value {
    let kind_of = |r: &Resource| json!({"group": r.group, "version": r.version, "kind": r.kind});
    let one = |r: &Arc<Resource>| {
        let mut entry = json!({
            "resource": r.plural, "responseKind": kind_of(r), "singularResource": r.singular, "verbs": VERBS,
            "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        });
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        if r.has_status {
            entry["subresources"] =
                json!([{"subresource": "status", "responseKind": kind_of(r), "verbs": STATUS_VERBS}]);
        }
        entry
    };
    let review = |group: &str, version: &str| {
        let of_group = REVIEWS.into_iter().filter(move |(g, v, ..)| (*g, *v) == (group, version));
        of_group
            .map(|(group, version, plural, kind)| {
                json!({
                    "resource": plural, "responseKind": {"group": group, "version": version, "kind": kind},
                    "singularResource": kind.to_lowercase(), "verbs": ["create"], "scope": "Cluster",
                })
            })
            .collect::<Vec<_>>()
    };
    let items: Vec<Value> = groups(resources)
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(version, served)| {
                    let listed: Vec<Value> = served.iter().map(one).chain(review(&name, &version)).collect();
                    json!({"version": version, "resources": listed, "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}
