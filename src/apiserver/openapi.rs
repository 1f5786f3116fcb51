//! OpenAPI v3 documents, as far as kubectl reads them: which operations take `fieldValidation`, and the
//! schemas that `explain` prints. Pure.
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::catalog::Resource;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Path of a resource's group version under `/openapi/v3/`.
fn place(resource: &Resource) -> String {
    match resource.group.as_str() {
        "" => format!("api/{}", resource.version),
        group => format!("apis/{group}/{}", resource.version),
    }
}

/// What changes exactly when the document does.
pub fn hash(document: &Value) -> String {
    Sha512::digest(document.to_string().as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Address of a document with its hash.
pub fn address(place: &str, hash: &str) -> String {
    format!("/openapi/v3/{place}?hash={hash}")
}

/// `GET /openapi/v3`.
pub fn index(resources: &[Arc<Resource>]) -> Value {
    let mut paths = Map::new();
    for resource in resources {
        let at = place(resource);
        if !paths.contains_key(&at) {
            let hash = document(resources, &at).as_ref().map(hash).unwrap_or_default();
            paths.insert(at.clone(), json!({"serverRelativeURL": address(&at, &hash)}));
        }
    }
    json!({"paths": paths})
}

/// The document of one group version; `None` where none is served.
pub fn document(resources: &[Arc<Resource>], at: &str) -> Option<Value> {
    let served: Vec<&Arc<Resource>> = resources.iter().filter(|resource| place(resource) == at).collect();
    let custom = served.first()?.is_custom();
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Status>();
    let mut own = Map::new();
    let mut paths = Map::new();
    for resource in &served {
        let name = match &resource.schema {
            Some(schema) => {
                let name = custom_name(resource);
                own.insert(name.clone(), custom_schema(schema));
                name
            }
            None => put_built_in(resource, &mut generator),
        };
        let list = list_schema(resource, &name);
        own.insert(format!("{name}List"), list);
        operations(resource, &name, &mut paths);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.extend(own);
    for resource in &served {
        let name = if resource.is_custom() { custom_name(resource) } else { built_in_name(resource) };
        for (name, kind) in
            [(name.clone(), resource.kind.clone()), (format!("{name}List"), format!("{}List", resource.kind))]
        {
            let Some(schema) = schemas.get_mut(&name) else { continue };
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": resource.group, "version": resource.version, "kind": kind}]);
            // The generated types say that an object without metadata is none; the API does not.
            if let Some(fields) = schema["required"].as_array_mut() {
                fields.retain(|field| field != "metadata");
                if fields.is_empty()
                    && let Some(schema) = schema.as_object_mut()
                {
                    schema.remove("required");
                }
            }
        }
    }
    let (title, version) = match custom {
        true => ("Kubernetes CRD Swagger", "v0.1.0"),
        false => ("Kubernetes", super::VERSION),
    };
    Some(json!({
        "openapi": "3.0.0", "info": {"title": title, "version": version}, "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Group reversed, version and kind.
fn custom_name(resource: &Resource) -> String {
    let reversed: Vec<&str> = resource.group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind)
}

/// The definition's schema with the fields that every object has.
fn custom_schema(schema: &Value) -> Value {
    let mut schema = schema.clone();
    for (field, words) in [("apiVersion", "apiVersion"), ("kind", "kind")] {
        schema["properties"][field] = json!({"type": "string", "description": described::<ConfigMap>(words)});
    }
    let words = described::<ConfigMap>("metadata");
    schema["properties"]["metadata"] = json!({"description": words, "allOf": [reference(OBJECT_META)]});
    schema
}

fn list_schema(resource: &Resource, name: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("{}List is a list of {}", resource.kind, resource.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": described::<ConfigMap>("apiVersion")},
            "kind": {"type": "string", "description": described::<ConfigMap>("kind")},
            "metadata": {"allOf": [reference(LIST_META)]},
            "items": {"type": "array", "description": format!("List of {}.", resource.plural), "items": reference(name)},
        },
    })
}

/// What Kubernetes says about a field of one of its types.
pub fn described<T: JsonSchema>(field: &str) -> String {
    let schema: Schema = SchemaGenerator::new(SchemaSettings::openapi3()).into_root_schema_for::<T>();
    schema.as_value()["properties"][field]["description"].as_str().unwrap_or_default().to_owned()
}

/// The paths of a resource. Clients find a kind's operations by their `x-kubernetes-group-version-kind`.
fn operations(resource: &Resource, name: &str, paths: &mut Map<String, Value>) {
    let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let base = format!("/{}", place(resource));
    let namespaced = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{namespaced}/{}", resource.plural);
    let of = |action: &str, body: bool, schema: &str| operation(action, body, &gvk, schema, resource.is_custom());
    let (read, write) = (|action: &str| of(action, false, name), |action: &str| of(action, true, name));
    let list = || of("list", false, &format!("{name}List"));
    let in_path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let (mut around, mut here) = (Vec::new(), vec![in_path("name")]);
    if resource.namespaced {
        around.push(in_path("namespace"));
        here.push(in_path("namespace"));
        paths.insert(format!("{base}/{}", resource.plural), json!({"get": list()}));
    }
    let all = json!({"get": list(), "post": write("post"), "delete": of("deletecollection", false, STATUS), "parameters": around});
    paths.insert(collection.clone(), all);
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "get": read("get"), "put": write("put"), "patch": write("patch"),
            "delete": of("delete", false, STATUS), "parameters": here,
        }),
    );
    if resource.has_status {
        let status = json!({"get": read("get"), "put": write("put"), "patch": write("patch"), "parameters": here});
        paths.insert(format!("{collection}/{{name}}/status"), status);
    }
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

fn operation(action: &str, writes: bool, gvk: &Value, schema: &str, custom: bool) -> Value {
    let parameter = |name: &str| {
        let kind = if name == "force" { "boolean" } else { "string" };
        json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
    };
    let content =
        json!({"application/json": {"schema": reference(schema)}, "application/yaml": {"schema": reference(schema)}});
    let mut operation = json!({
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "parameters": [],
        "responses": {"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}},
    });
    if writes {
        let mut known = vec!["dryRun", "fieldManager", "fieldValidation"];
        let mut body = content;
        if action == "patch" {
            known.push("force");
            let strategic = if custom { None } else { Some("application/strategic-merge-patch+json") };
            let kinds = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
            let any = json!({"schema": {"type": "object"}});
            body = kinds
                .into_iter()
                .chain(strategic)
                .map(|kind| (kind.to_owned(), any.clone()))
                .collect::<Map<_, _>>()
                .into();
        }
        operation["parameters"] = known.into_iter().map(parameter).collect();
        operation["requestBody"] = json!({"required": true, "content": body});
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

fn built_in_name(resource: &Resource) -> String {
    named(resource).0
}

/// Puts a built-in kind and its inner types into the document, and gives its name there.
fn put_built_in(resource: &Resource, generator: &mut SchemaGenerator) -> String {
    let (name, put) = named(resource);
    put(generator);
    name
}

type Put = fn(&mut SchemaGenerator);

fn named(resource: &Resource) -> (String, Put) {
    fn of<T: JsonSchema>() -> (String, Put) {
        (T::schema_name().into_owned(), |generator| {
            generator.subschema_for::<T>();
        })
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "ConfigMap") => of::<ConfigMap>(),
        ("", "Event") => of::<CoreEvent>(),
        ("", "Namespace") => of::<Namespace>(),
        ("", "Secret") => of::<Secret>(),
        ("", "Service") => of::<Service>(),
        ("", "ServiceAccount") => of::<ServiceAccount>(),
        (_, "Event") => of::<Event>(),
        (_, "Lease") => of::<Lease>(),
        (_, "Ingress") => of::<Ingress>(),
        (_, "IngressClass") => of::<IngressClass>(),
        _ => of::<CustomResourceDefinition>(),
    }
}
