//! What a written object has to say about which object it is. Pure.
use serde_json::{Value, json};

use super::catalog::Resource;
use super::causes;
use super::rest::Target;
use super::status::ApiError;
use super::verbs::same_namespace;
use super::{strategy, tidy};

/// Before a replacement: its name and namespace are those of the path. Errors: 400.
pub fn check(target: &Target, name: &str, new: &mut Value) -> Result<(), ApiError> {
    match new["metadata"]["name"].as_str().unwrap_or_default() {
        "" => Err(nameless(name)),
        given if given != name => Err(other_name(given, name)),
        _ => belongs(target, new),
    }
}

fn nameless(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the name of the object ({name} based on URL) was undeterminable: name must be provided"
    ))
}

fn other_name(given: &str, name: &str) -> ApiError {
    ApiError::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})"))
}

fn belongs(target: &Target, new: &mut Value) -> Result<(), ApiError> {
    match &target.namespace {
        Some(namespace) => {
            same_namespace(new, namespace)?;
            new["metadata"]["namespace"] = json!(namespace);
        }
        None => tidy::remove(&mut new["metadata"], "namespace"),
    }
    Ok(())
}

/// After any change: the object is still the one of the path. Errors: 400.
pub fn stays(target: &Target, name: &str, new: &mut Value) -> Result<(), ApiError> {
    if !new["metadata"].is_object() {
        new["metadata"] = json!({});
    }
    belongs(target, new)?;
    match new["metadata"]["name"].as_str().unwrap_or_default() {
        "" => Err(nameless(name)),
        given if given != name => Err(other_name(given, name)),
        _ => Ok(()),
    }
}

/// Whether a replacement of what is not there may make it. Errors: 409 where it means one that was there before.
pub fn makes(target: &Target, name: &str, new: &Value) -> Result<(), ApiError> {
    match new["metadata"]["uid"].as_str().unwrap_or_default() {
        "" => Ok(()),
        uid => Err(other_uid(&target.resource, name, uid, "")),
    }
}

fn other_uid(resource: &Resource, name: &str, wanted: &str, had: &str) -> ApiError {
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {had}");
    ApiError::conflict(&resource.full_name(), name, &why)
}

/// Whether this is the object that a replacement means. Errors: 409, 422 without a version where one is needed, 500
/// for one that is none.
pub fn meets(resource: &Resource, new: &Value, old: &Value) -> Result<(), ApiError> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let version = new["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if strategy::names_no_version(new) && !strategy::replaces_any_version(resource) {
        let cause = causes::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(ApiError::invalid(&resource.full_name(), name, &[cause]));
    }
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let message = format!("strconv.ParseUint: parsing {}: invalid syntax", json!(version));
        return Err(ApiError::unnamed(500, message));
    }
    let (wanted, had) = (&new["metadata"]["uid"], old["metadata"]["uid"].as_str().unwrap_or_default());
    match wanted.as_str().unwrap_or_default() {
        "" => Ok(()),
        uid if uid != had => Err(other_uid(resource, name, uid, had)),
        _ => Ok(()),
    }
}
