//! OpenAPI v3: the index, its lasting addresses, and the documents that clients validate and explain by.
use serde_json::{Value, json};

use super::harness::{Server, on_each_server};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

async fn address(server: &Server, place: &str) -> String {
    let index: Value = server.get("/openapi/v3").await.expect(200);
    index["paths"][place]["serverRelativeURL"].as_str().unwrap_or_default().to_owned()
}

async fn document(server: &Server, place: &str) -> Value {
    server.get(&format!("/openapi/v3/{place}")).await.expect(200)
}

#[tokio::test]
async fn the_index_tells_addresses_that_stay_valid() {
    on_each_server(async |server| {
        for place in [
            "api/v1",
            "apis/apiextensions.k8s.io/v1",
            "apis/coordination.k8s.io/v1",
            "apis/events.k8s.io/v1",
            "apis/networking.k8s.io/v1",
        ] {
            let address = address(server, place).await;
            let hash = address.strip_prefix(&format!("/openapi/v3/{place}?hash=")).unwrap().to_owned();
            assert!(hash.len() == 128 && hash.chars().all(|c| "0123456789ABCDEF".contains(c)), "{hash}");
            let answer = server.get(&address).await;
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.headers["etag"], format!("\"{hash}\""));
            assert_eq!(answer.headers["cache-control"], "public, immutable");
            assert!(answer.headers["expires"].to_str().unwrap().ends_with(" UTC"));
            assert_eq!(answer.expect(200)["openapi"], "3.0.0");
        }
    })
    .await;
}

#[tokio::test]
async fn a_document_is_sent_once_and_then_only_when_it_changed() {
    on_each_server(async |server| {
        let path = "/openapi/v3/apis/coordination.k8s.io/v1";
        let answer = server.get(path).await;
        assert_eq!(answer.headers["cache-control"], "no-cache, private");
        let tag = answer.headers["etag"].to_str().unwrap().to_owned();
        let again = server.raw("GET", path, &[("if-none-match", &tag)], Default::default()).await;
        assert_eq!((again.status, again.text.as_str()), (304, ""));
        let changed = server.raw("GET", path, &[("if-none-match", "\"other\"")], Default::default()).await;
        assert_eq!(changed.status, 200);
    })
    .await;
}

#[tokio::test]
async fn an_outdated_address_leads_to_the_current_one() {
    on_each_server(async |server| {
        let current = address(server, "apis/coordination.k8s.io/v1").await;
        let answer = server.get("/openapi/v3/apis/coordination.k8s.io/v1?hash=OLD").await;
        assert_eq!((answer.status, answer.headers["location"].to_str().unwrap()), (301, current.as_str()));
    })
    .await;
}

#[tokio::test]
async fn unknown_documents_and_forms_are_refused_without_words() {
    on_each_server(async |server| {
        for place in ["apis/nope.example/v1", "nope", "api/v9"] {
            let answer = server.get(&format!("/openapi/v3/{place}")).await;
            assert_eq!((answer.status, answer.text.as_str()), (404, ""), "{place}");
        }
        let answer = server.get_as("/openapi/v3/apis/coordination.k8s.io/v1", "text/html").await;
        assert_eq!((answer.status, answer.text.as_str()), (406, ""));
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_are_described_field_by_field() {
    on_each_server(async |server| {
        let core = document(server, "api/v1").await;
        assert_eq!(core["info"]["title"], "Kubernetes");
        let schemas = &core["components"]["schemas"];
        for kind in ["ConfigMap", "Event", "Namespace", "Secret", "Service", "ServiceAccount"] {
            let schema = &schemas[format!("io.k8s.api.core.v1.{kind}")];
            let gvk = json!([{"group": "", "version": "v1", "kind": kind}]);
            assert_eq!(schema["x-kubernetes-group-version-kind"], gvk);
            assert!(schema["description"].as_str().is_some_and(|words| words.len() > 20), "{kind}");
            assert_eq!(schema["properties"]["metadata"]["allOf"][0]["$ref"], format!("#/components/schemas/{META}"));
        }
        let map = &schemas["io.k8s.api.core.v1.ConfigMap"];
        assert_eq!(map["properties"]["data"]["additionalProperties"]["type"], "string");
        assert_eq!(map["properties"]["immutable"]["type"], "boolean");
        // An object needs no metadata to be understood.
        assert_eq!(map["required"], Value::Null);
        assert!(schemas[META]["properties"]["finalizers"]["description"].is_string());
        let network = document(server, "apis/networking.k8s.io/v1").await;
        let rule = &network["components"]["schemas"]["io.k8s.api.networking.v1.IngressRule"];
        assert_eq!(rule["properties"]["host"]["type"], "string");
    })
    .await;
}

#[tokio::test]
async fn operations_say_which_kind_they_are_about_and_what_they_check() {
    on_each_server(async |server| {
        let core = document(server, "api/v1").await;
        let maps = &core["paths"]["/api/v1/namespaces/{namespace}/configmaps"];
        let gvk = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
        let parameters = |operation: &Value| {
            let named =
                operation["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned());
            named.collect::<Vec<_>>()
        };
        for (method, action) in [("get", "list"), ("post", "post"), ("delete", "deletecollection")] {
            assert_eq!(maps[method]["x-kubernetes-group-version-kind"], gvk);
            assert_eq!(maps[method]["x-kubernetes-action"], action);
        }
        let one = &core["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"];
        for operation in [&maps["post"], &one["put"], &one["patch"]] {
            let names = parameters(operation);
            assert!(
                ["dryRun", "fieldManager", "fieldValidation"].iter().all(|p| names.iter().any(|n| n == p)),
                "{names:?}"
            );
        }
        assert!(parameters(&one["patch"]).contains(&"force".to_owned()));
        let patches = one["patch"]["requestBody"]["content"].as_object().unwrap();
        assert!(patches.contains_key("application/strategic-merge-patch+json"));
        let reference = "#/components/schemas/io.k8s.api.core.v1.ConfigMap";
        assert_eq!(
            maps["post"]["requestBody"]["content"].as_object().unwrap().values().next().unwrap()["schema"]["$ref"],
            reference
        );
        assert_eq!(core["paths"]["/api/v1/configmaps"]["get"]["x-kubernetes-action"], "list");
        assert!(core["paths"]["/api/v1/namespaces/{name}/status"]["put"].is_object());
    })
    .await;
}

#[tokio::test]
async fn a_definitions_schema_becomes_a_document() {
    on_each_server(async |server| {
        let spec = json!({"type": "object", "description": "What is wanted.", "required": ["size"], "properties": {
            "size": {"type": "integer", "description": "How big.", "minimum": 1}}});
        server.gadgets(&json!({"type": "object", "description": "A toy.", "properties": {"spec": spec}})).await;
        let place = format!("apis/{}/v1", server.group);
        server.until("the index has it", async || !address(server, &place).await.is_empty()).await;
        let document = document(server, &place).await;
        let reversed: Vec<&str> = server.group.split('.').rev().collect();
        let name = format!("{}.v1.Gadget", reversed.join("."));
        let schema = &document["components"]["schemas"][&name];
        assert_eq!((&schema["description"], &schema["properties"]["spec"]), (&json!("A toy."), &spec));
        assert_eq!(schema["properties"]["metadata"]["allOf"][0]["$ref"], format!("#/components/schemas/{META}"));
        assert!(
            schema["properties"]["kind"]["description"].is_string() && schema["properties"]["apiVersion"].is_object()
        );
        let gvk = json!({"group": server.group, "version": "v1", "kind": "Gadget"});
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]));
        let list = &document["components"]["schemas"][format!("{name}List")];
        assert_eq!(list["properties"]["items"]["items"]["$ref"], format!("#/components/schemas/{name}"));
        assert_eq!(list["required"], json!(["items"]));
        let base = format!("/apis/{}/v1", server.group);
        let collection = &document["paths"][format!("{base}/namespaces/{{namespace}}/gadgets")];
        assert_eq!(collection["post"]["x-kubernetes-group-version-kind"], gvk);
        let status = &document["paths"][format!("{base}/namespaces/{{namespace}}/gadgets/{{name}}/status")];
        assert_eq!(status["patch"]["x-kubernetes-action"], "patch");
        assert!(document["paths"][format!("{base}/gadgets")]["get"].is_object());
    })
    .await;
}

#[tokio::test]
async fn a_changed_definition_gets_another_address() {
    on_each_server(async |server| {
        server.gadgets(&json!({"type": "object"})).await;
        let place = format!("apis/{}/v1", server.group);
        server.until("the index has it", async || !address(server, &place).await.is_empty()).await;
        let before = address(server, &place).await;
        let definition = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.{}", server.group);
        let schema = json!({"type": "object", "description": "Another."});
        let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]);
        server.call("PATCH", &definition, "application/json-patch+json", &patch).await.expect(200);
        server.until("the address has changed", async || address(server, &place).await != before).await;
    })
    .await;
}
