//! OpenAPI v3 documents, as far as kubectl reads them: which operations take `fieldValidation`, and the
//! schemas that `explain` prints. Pure.
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::catalog::Resource;

/// Path of a group version under `/openapi/v3/`.
fn place(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `GET /openapi/v3`.
pub fn index(resources: &[Arc<Resource>]) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let at = place(&resource.group, &resource.version);
        if !paths.contains_key(&at) {
            let text =
                document(resources, &resource.group, &resource.version).map(|d| d.to_string()).unwrap_or_default();
            let hash: String = Sha256::digest(text.as_bytes()).iter().take(16).map(|b| format!("{b:02X}")).collect();
            paths.insert(at.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{at}?hash={hash}")}));
        }
    }
    json!({"paths": paths})
}

/// The document of one group version; `None` where none is served.
pub fn document(resources: &[Arc<Resource>], group: &str, version: &str) -> Option<Value> {
    let served: Vec<&Arc<Resource>> = resources.iter().filter(|r| r.group == group && r.version == version).collect();
    if served.is_empty() {
        return None;
    }
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    generator.subschema_for::<ObjectMeta>();
    let mut own = Map::new();
    let mut paths = Map::new();
    for resource in served {
        let name = schema_name(resource);
        let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let mut schema = match &resource.schema {
            Some(schema) => {
                let mut schema = Value::clone(schema);
                schema["properties"]["metadata"] =
                    json!({"$ref": reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")});
                let standard =
                    "of this representation; see https://kubernetes.io/docs/reference/using-api/api-concepts/";
                for field in ["apiVersion", "kind"] {
                    schema["properties"][field] =
                        json!({"type": "string", "description": format!("The {field} {standard}")});
                }
                schema
            }
            None => built_in(&resource.kind, &resource.group, &mut generator),
        };
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        own.insert(name.clone(), schema);
        let namespaced = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{}{namespaced}/{}", place(group, version), resource.plural);
        let operation = |action: &str, writes: bool| operation(action, writes, &gvk, &name);
        paths.insert(collection.clone(), json!({"get": operation("list", false), "post": operation("post", true)}));
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation("get", false), "put": operation("put", true),
                "patch": operation("patch", true), "delete": operation("delete", false),
            }),
        );
    }
    let mut schemas = generator.take_definitions(true);
    schemas.extend(own);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Portalkeeper's Kubernetes-compatible API", "version": super::VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

fn schema_name(resource: &Resource) -> String {
    let group = if resource.group.is_empty() { "core".to_owned() } else { resource.group.clone() };
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind)
}

fn operation(action: &str, writes: bool, gvk: &Value, schema: &str) -> Value {
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let mut operation = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
        "parameters": [],
        "responses": {"200": {
            "description": "OK", "content": {"application/json": {"schema": {"$ref": reference(schema)}}},
        }},
    });
    if writes {
        operation["parameters"] = json!(["dryRun", "fieldManager", "fieldValidation"].map(parameter));
    }
    operation
}

/// The schema of a built-in kind, with its inner types put into the document.
pub(super) fn built_in(kind: &str, group: &str, generator: &mut SchemaGenerator) -> Value {
    let schema = match (group, kind) {
        ("", "ConfigMap") => generator.root_schema_for::<ConfigMap>(),
        ("", "Event") => generator.root_schema_for::<CoreEvent>(),
        ("", "Namespace") => generator.root_schema_for::<Namespace>(),
        ("", "Secret") => generator.root_schema_for::<Secret>(),
        ("", "Service") => generator.root_schema_for::<Service>(),
        ("", "ServiceAccount") => generator.root_schema_for::<ServiceAccount>(),
        (_, "Event") => generator.root_schema_for::<Event>(),
        (_, "Lease") => generator.root_schema_for::<Lease>(),
        (_, "Ingress") => generator.root_schema_for::<Ingress>(),
        (_, "IngressClass") => generator.root_schema_for::<IngressClass>(),
        _ => generator.root_schema_for::<CustomResourceDefinition>(),
    };
    let mut value = schema.to_value();
    if let Some(fields) = value.as_object_mut() {
        for extra in ["components", "$schema", "title"] {
            fields.remove(extra);
        }
    }
    value
}
