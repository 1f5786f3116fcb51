//! The body of a server-side apply. Pure.
use serde_json::{Value, json};

use super::checks::UnknownFields;
use super::events;
use super::rest::{Call, Target};
use super::status::ApiError;
use super::strict;

/// Reads the applied configuration. Errors: a 400 for what is no object of the kind.
pub fn configuration(target: &Target, call: &Call) -> Result<Value, ApiError> {
    let unreadable = |words: String| ApiError::bad_request(format!("error decoding YAML: {words}"));
    let config = strict::yaml(&call.body)
        .map_err(|words| unreadable(format!("error converting YAML to JSON: yaml: {words}")))?;
    let mut config = if config.is_null() { json!({}) } else { config };
    if !config.is_object() {
        let found = strict::kind_word(&config);
        let wanted = "Go value of type map[string]interface {}";
        return Err(unreadable(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into {wanted}"
        )));
    }
    let resource = &target.resource;
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    if text("kind") != resource.kind || text("apiVersion") != resource.api_version() {
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let (version, kind) = if version.is_empty() { ("", text("kind")) } else { (version, text("kind")) };
        return Err(ApiError::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")));
    }
    if resource.is_core_event() {
        config = events::from_core(&config);
    }
    Ok(config)
}

/// What is said about a field that stands twice. Errors: a 400 where that is not allowed.
pub fn repeated(call: &Call, found: Option<&str>) -> Result<Vec<String>, ApiError> {
    let Some(found) = found else { return Ok(Vec::new()) };
    let words = format!("error converting YAML to JSON: yaml: unmarshal errors:\n  {found}");
    match call.unknown_fields() {
        UnknownFields::Refuse => Err(ApiError::bad_request(format!("error strict decoding YAML: {words}"))),
        UnknownFields::Warn => Ok(vec![words]),
        UnknownFields::Drop => Ok(Vec::new()),
    }
}
