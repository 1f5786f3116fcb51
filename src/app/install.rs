//! Putting objects into an API: the definitions, and YAML documents.
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::crds;
use crate::api::FIELD_MANAGER;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// Creates the definitions or brings older ones up to date.
pub async fn definitions(client: &Client) -> Result<(), kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    for definition in crds::all() {
        let name = definition.metadata.name.clone().unwrap_or_default();
        if api.get_opt(&name).await?.is_none() {
            api.create(&PostParams::default(), &definition).await?;
        } else {
            let spec = serde_json::json!({"spec": definition.spec});
            api.patch(&name, &params, &Patch::Merge(&spec)).await?;
        }
    }
    Ok(())
}

/// Creates an object or sets its content, whatever it was before.
pub async fn put(client: &Client, resource: &ApiResource, object: &Value) -> Result<(), kube::Error> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let api: Api<DynamicObject> = match text("namespace") {
        "" => Api::all_with(client.clone(), resource),
        namespace => Api::namespaced_with(client.clone(), namespace, resource),
    };
    let typed: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.get_opt(text("name")).await? {
        None => api.create(&params, &typed).await.map(|_| ()),
        Some(found) => {
            let mut new = typed;
            new.metadata.resource_version = found.metadata.resource_version;
            new.metadata.finalizers = found.metadata.finalizers;
            api.replace(text("name"), &params, &new).await.map(|_| ())
        }
    }
}

/// The resource of a document, by our own knowledge of plurals.
pub fn resource(object: &Value) -> ApiResource {
    let (api_version, kind) =
        (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}
