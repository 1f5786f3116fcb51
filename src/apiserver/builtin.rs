//! Built-in kinds against their types: wrong types are refused, unknown fields found. Pure.
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::catalog::Resource;

/// What the kind knows of an object, and the paths of the fields that it does not. The error says which type does
/// not fit.
pub fn known(resource: &Resource, object: &Value) -> Result<(Value, Vec<String>), String> {
    match resource.kind.as_str() {
        "ConfigMap" => known_as::<ConfigMap>(object),
        "Event" => known_as::<Event>(object),
        "Namespace" => known_as::<Namespace>(object),
        "Secret" => known_as::<Secret>(object),
        "Service" => known_as::<Service>(object),
        "ServiceAccount" => known_as::<ServiceAccount>(object),
        "Lease" => known_as::<Lease>(object),
        "Ingress" => known_as::<Ingress>(object),
        "IngressClass" => known_as::<IngressClass>(object),
        "CustomResourceDefinition" => known_as::<CustomResourceDefinition>(object),
        _ => Ok((object.clone(), Vec::new())),
    }
}

pub fn known_as<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(Value, Vec<String>), String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    compare(object, &known, "", &mut unknown);
    Ok((known, unknown))
}

/// Whether a value says nothing, so that a type may have left it out.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
        _ => false,
    }
}

fn compare(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(inner) => compare(value, inner, &at, unknown),
                    None if says_nothing(value) => {}
                    None => unknown.push(at),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                compare(given, known, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}
