//! What the server says about itself: groups, resources, version, health.
use serde_json::{Value, json};

use super::harness::{Server, on_each_server};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const OLDER: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The entry with this name in a list of discovery.
fn named<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry[field] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// A legacy entry without the hash of its stored form.
async fn resource(server: &Server, group_version: &str, name: &str) -> Value {
    let list = server.get(group_version).await.expect(200);
    assert_eq!(list["kind"], "APIResourceList");
    let mut entry = named(&list["resources"], "name", name).clone();
    entry.as_object_mut().unwrap().remove("storageVersionHash");
    entry
}

fn sorted(verbs: &Value) -> Vec<&str> {
    let mut verbs: Vec<&str> = verbs.as_array().unwrap().iter().map(|verb| verb.as_str().unwrap()).collect();
    verbs.sort_unstable();
    verbs
}

#[tokio::test]
async fn the_core_versions_are_told_with_the_servers_address() {
    on_each_server(async |server| {
        let answer = server.get("/api").await;
        assert_eq!(answer.headers["content-type"], "application/json");
        let versions = answer.expect(200);
        assert_eq!((&versions["kind"], &versions["versions"]), (&json!("APIVersions"), &json!(["v1"])));
        let address = &versions["serverAddressByClientCIDRs"][0];
        assert_eq!(address["clientCIDR"], "0.0.0.0/0");
        assert!(address["serverAddress"].as_str().unwrap().contains(':'), "{address}");
    })
    .await;
}

#[tokio::test]
async fn groups_are_listed_with_their_preferred_version() {
    on_each_server(async |server| {
        let list = server.get("/apis").await.expect(200);
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("APIGroupList"), &json!("v1")));
        for group in [
            "apiextensions.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "coordination.k8s.io",
            "events.k8s.io",
            "networking.k8s.io",
        ] {
            let version = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
            let expected = json!({"name": group, "versions": [version], "preferredVersion": version});
            assert_eq!(*named(&list["groups"], "name", group), expected);
            let mut alone = server.get(&format!("/apis/{group}")).await.expect(200);
            for field in ["kind", "apiVersion"] {
                alone.as_object_mut().unwrap().remove(field);
            }
            assert_eq!(alone, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn built_in_resources_are_listed_with_their_verbs_and_names() {
    on_each_server(async |server| {
        let expected = json!({
            "name": "configmaps", "singularName": "configmap", "namespaced": true, "kind": "ConfigMap",
            "verbs": VERBS, "shortNames": ["cm"],
        });
        assert_eq!(resource(server, "/api/v1", "configmaps").await, expected);
        // a namespace is never deleted together with others
        let without: Vec<&str> = VERBS.into_iter().filter(|verb| *verb != "deletecollection").collect();
        let expected = json!({
            "name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace",
            "verbs": without, "shortNames": ["ns"],
        });
        assert_eq!(resource(server, "/api/v1", "namespaces").await, expected);
        let expected = json!({
            "name": "namespaces/status", "singularName": "", "namespaced": false, "kind": "Namespace",
            "verbs": ["get", "patch", "update"],
        });
        assert_eq!(resource(server, "/api/v1", "namespaces/status").await, expected);
        let expected = json!({
            "name": "services", "singularName": "service", "namespaced": true, "kind": "Service",
            "verbs": VERBS, "shortNames": ["svc"], "categories": ["all"],
        });
        assert_eq!(resource(server, "/api/v1", "services").await, expected);
        // no short names and no categories means no such fields
        let expected = json!({
            "name": "secrets", "singularName": "secret", "namespaced": true, "kind": "Secret", "verbs": VERBS,
        });
        assert_eq!(resource(server, "/api/v1", "secrets").await, expected);
        let expected = json!({
            "name": "customresourcedefinitions", "singularName": "customresourcedefinition", "namespaced": false,
            "kind": "CustomResourceDefinition", "verbs": VERBS, "shortNames": ["crd", "crds"],
            "categories": ["api-extensions"],
        });
        assert_eq!(resource(server, "/apis/apiextensions.k8s.io/v1", "customresourcedefinitions").await, expected);
    })
    .await;
}

#[tokio::test]
async fn the_hash_of_the_stored_form_is_that_of_group_version_and_kind() {
    on_each_server(async |server| {
        let list = server.get("/apis/coordination.k8s.io/v1").await.expect(200);
        assert_eq!(named(&list["resources"], "name", "leases")["storageVersionHash"], "gqkMMb/YqFM=");
        let list = server.get("/apis/events.k8s.io/v1").await.expect(200);
        assert_eq!(named(&list["resources"], "name", "events")["storageVersionHash"], "r2yiGXH7wu8=");
    })
    .await;
}

#[tokio::test]
async fn reviews_are_listed_as_created_only() {
    on_each_server(async |server| {
        let expected = json!({
            "name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
            "kind": "SelfSubjectAccessReview", "verbs": ["create"],
        });
        assert_eq!(resource(server, "/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews").await, expected);
        let expected = json!({
            "name": "localsubjectaccessreviews", "singularName": "localsubjectaccessreview", "namespaced": true,
            "kind": "LocalSubjectAccessReview", "verbs": ["create"],
        });
        assert_eq!(resource(server, "/apis/authorization.k8s.io/v1", "localsubjectaccessreviews").await, expected);
    })
    .await;
}

#[tokio::test]
async fn aggregated_discovery_has_its_own_type_and_a_tag() {
    on_each_server(async |server| {
        for path in ["/api", "/apis"] {
            let answer = server.get_as(path, &format!("{AGGREGATED},{OLDER},application/json")).await;
            assert_eq!(answer.headers["content-type"], AGGREGATED);
            assert_eq!(answer.headers["vary"], "Accept");
            assert_eq!(answer.headers["cache-control"], "public");
            assert_eq!(
                (&answer.body["kind"], &answer.body["apiVersion"]),
                (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
            );
            // given the tag of what is known
            let tag = answer.headers["etag"].to_str().unwrap().to_owned();
            assert!(tag.starts_with('"') && tag.len() == 130, "{tag}");
            // when it is asked for again, then nothing is sent
            let headers = [("accept", AGGREGATED), ("if-none-match", &tag)];
            let answer = server.raw("GET", path, &headers, Default::default()).await;
            assert_eq!((answer.status, answer.text.as_str()), (304, ""));
        }
    })
    .await;
}

#[tokio::test]
async fn aggregated_discovery_tells_resources_with_their_subresources() {
    on_each_server(async |server| {
        let core = server.get_as("/api", AGGREGATED).await.expect(200);
        assert_eq!(core["items"][0]["metadata"], json!({}));
        let version = &core["items"][0]["versions"][0];
        assert_eq!((&version["version"], &version["freshness"]), (&json!("v1"), &json!("Current")));
        let kind = json!({"group": "", "version": "", "kind": "ConfigMap"});
        let expected = json!({
            "resource": "configmaps", "responseKind": kind, "scope": "Namespaced", "singularResource": "configmap",
            "verbs": VERBS, "shortNames": ["cm"],
        });
        assert_eq!(*named(&version["resources"], "resource", "configmaps"), expected);
        let groups = server.get_as("/apis", AGGREGATED).await.expect(200);
        let found = groups["items"].as_array().unwrap().iter();
        let network = found.clone().find(|group| group["metadata"]["name"] == "networking.k8s.io").unwrap();
        let kind = json!({"group": "", "version": "", "kind": "Ingress"});
        let expected = json!({
            "resource": "ingresses", "responseKind": kind, "scope": "Namespaced", "singularResource": "ingress",
            "verbs": VERBS, "shortNames": ["ing"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]}],
        });
        assert_eq!(*named(&network["versions"][0]["resources"], "resource", "ingresses"), expected);
    })
    .await;
}

#[tokio::test]
async fn a_client_of_the_older_aggregated_form_gets_the_legacy_lists() {
    on_each_server(async |server| {
        for (path, kind) in [("/api", "APIVersions"), ("/apis", "APIGroupList")] {
            let answer = server.get_as(path, &format!("{OLDER},application/json")).await;
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.expect(200)["kind"], kind);
            let (reason, message) = server.get_as(path, OLDER).await.refused(406);
            assert_eq!(reason, "NotAcceptable");
            assert!(
                message.starts_with("only the following media types are accepted: application/json, "),
                "{message}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_definition_shows_up_in_both_forms_of_discovery() {
    on_each_server(async |server| {
        server.gadgets(&json!({"type": "object"})).await;
        let group_version = format!("/apis/{}/v1", server.group);
        let entry = resource(server, &group_version, "gadgets").await;
        assert_eq!((&entry["kind"], &entry["namespaced"]), (&json!("Gadget"), &json!(true)));
        assert_eq!(sorted(&entry["verbs"]), VERBS);
        let status = resource(server, &group_version, "gadgets/status").await;
        assert_eq!(status["verbs"], json!(["get", "patch", "update"]));
        server.until("the aggregated form has the group", async || aggregated(server).await.is_some()).await;
        let group = aggregated(server).await.unwrap();
        let kind = json!({"group": server.group, "version": "v1", "kind": "Gadget"});
        let entry = named(&group["versions"][0]["resources"], "resource", "gadgets");
        assert_eq!((&entry["responseKind"], &entry["scope"]), (&kind, &json!("Namespaced")));
        assert_eq!(entry["subresources"][0]["responseKind"], kind);
    })
    .await;
}

async fn aggregated(server: &Server) -> Option<Value> {
    let groups = server.get_as("/apis", AGGREGATED).await.expect(200);
    groups["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == *server.group).cloned()
}

#[tokio::test]
async fn versions_of_a_definition_stand_in_the_order_of_preference() {
    on_each_server(async |server| {
        let version = |name: &str, storage: bool| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}})
        };
        let all = [version("v1beta1", false), version("v2alpha1", false), version("v1", true), version("v10", false)];
        server.define(&json!(all)).await;
        let path = format!("/apis/{}", server.group);
        let versions = async || {
            let group = server.get(&path).await.body;
            let versions = group["versions"].as_array().cloned().unwrap_or_default();
            versions.iter().map(|v| v["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        server.until("all are told", async || versions().await.len() == 4).await;
        assert_eq!(versions().await, ["v10", "v1", "v1beta1", "v2alpha1"]);
        assert_eq!(server.get(&path).await.expect(200)["preferredVersion"]["version"], "v10");
    })
    .await;
}

#[tokio::test]
async fn names_of_a_definition_are_told_to_clients() {
    on_each_server(async |server| {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("gadgets.{}", server.group)},
            "spec": {
                "group": server.group, "scope": "Cluster",
                "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "shortNames": ["gd"],
                    "categories": ["all", "toys"]},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        server.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await.expect(201);
        let path = format!("/apis/{}/v1", server.group);
        server.until("the group is served", async || server.get(&path).await.status == 200).await;
        server.until("the resource is told", async || !server.get(&path).await.body["resources"][0].is_null()).await;
        let entry = resource(server, &path, "gadgets").await;
        assert_eq!((&entry["shortNames"], &entry["categories"]), (&json!(["gd"]), &json!(["all", "toys"])));
        assert_eq!((&entry["namespaced"], &entry["singularName"]), (&json!(false), &json!("gadget")));
    })
    .await;
}

#[tokio::test]
async fn the_version_is_told_in_json_only() {
    on_each_server(async |server| {
        let version = server.get("/version").await.expect(200);
        assert_eq!(version["major"], "1");
        assert!(version["minor"].as_str().unwrap().parse::<u32>().unwrap() >= 29, "{version}");
        assert!(version["gitVersion"].as_str().unwrap().starts_with("v1."), "{version}");
        assert!(version["platform"].as_str().unwrap().starts_with("linux/"), "{version}");
        let (_, message) = server.get_as("/version", "text/html").await.refused(406);
        assert_eq!(message, "406: Not Acceptable\n\nAvailable representations: application/json");
        server.put("/version", &json!({})).await.refused(405);
    })
    .await;
}

#[tokio::test]
async fn health_is_plain_text_and_verbose_on_demand() {
    on_each_server(async |server| {
        for check in ["healthz", "livez", "readyz"] {
            let answer = server.get(&format!("/{check}")).await;
            assert_eq!((answer.status, answer.text.as_str()), (200, "ok"));
            assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
            assert_eq!(answer.headers["x-content-type-options"], "nosniff");
            let answer = server.get(&format!("/{check}?verbose")).await;
            assert!(answer.text.starts_with("[+]ping ok\n[+]log ok\n"), "{}", answer.text);
            assert!(answer.text.ends_with(&format!("ok\n{check} check passed\n")), "{}", answer.text);
            let answer = server.get(&format!("/{check}?verbose&exclude=ping")).await;
            assert!(answer.text.starts_with("[+]ping excluded: ok\n"), "{}", answer.text);
            assert_eq!(server.get(&format!("/{check}/ping")).await.text, "ok");
            let answer = server.get(&format!("/{check}/nope")).await;
            assert_eq!((answer.status, answer.text.as_str()), (404, "404 page not found\n"));
        }
        // Every method will do for a prober.
        assert_eq!(server.post("/healthz", &Value::Null).await.text, "ok");
    })
    .await;
}

#[tokio::test]
async fn the_root_lists_what_is_there() {
    on_each_server(async |server| {
        let root = server.get("/").await.expect(200);
        let paths: Vec<&str> = root["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
        for path in [
            "/api",
            "/api/v1",
            "/apis",
            "/apis/coordination.k8s.io",
            "/apis/coordination.k8s.io/v1",
            "/healthz",
            "/healthz/ping",
            "/livez",
            "/openapi/v3",
            "/readyz",
            "/version",
        ] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
        }
        assert!(paths.is_sorted(), "{paths:?}");
    })
    .await;
}
