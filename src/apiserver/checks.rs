//! How a write is checked, and what is said of what cannot be read. Pure.
use std::collections::HashSet;

use serde_json::Value;

use super::catalog::Resource;
use super::schema::Cause;
use super::status::ApiError;
use super::strict;
use super::validate::Patterns;

/// What to do about fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    Refuse,
    /// Drop them and tell; what the API does when nothing is said.
    Warn,
    Drop,
}

/// How a write is checked, and what it is told.
pub struct Checks<'a> {
    pub unknown: UnknownFields,
    pub patterns: &'a Patterns,
    /// Whether an event is written in its older version.
    pub core_event: bool,
    /// Warnings for the answer's headers.
    pub warnings: &'a mut Vec<String>,
    /// What was found while the body was read: repeated and unknown fields.
    pub found: Vec<String>,
    /// What messages quote, where the object is a patched one.
    pub quoted: Option<String>,
}

/// Nothing can be done with an object whose metadata is none.
pub fn metadata_fits(resource: &Resource, object: &Value, checks: &Checks<'_>) -> Result<(), ApiError> {
    if object["metadata"].is_object() {
        return Ok(());
    }
    let found = strict::kind_word(&object["metadata"]);
    let place = match resource.is_custom() {
        true => "Go value".to_owned(),
        false => format!("Go struct field {}.metadata", resource.kind),
    };
    Err(checks.unreadable(resource, &format!("json: cannot unmarshal {found} into {place} of type v1.ObjectMeta")))
}

/// An object of a definition has to say which one; built-in kinds are known by their place.
pub fn wrong_kind(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    if !resource.is_custom() {
        return Ok(());
    }
    let expected = [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())];
    let causes: Vec<Cause> = expected
        .into_iter()
        .filter(|(field, expected)| object[field].as_str().is_some_and(|given| given != expected))
        .map(|(field, expected)| {
            let message = format!("Invalid value: {}: must be {expected}", object[field]);
            Cause { reason: "FieldValueInvalid", field: field.to_owned(), message }
        })
        .collect();
    if causes.is_empty() {
        return Ok(());
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let kind = match text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{}.{group}", text("kind")),
        None => text("kind").to_owned(),
    };
    Err(ApiError::invalid(&kind, object["metadata"]["name"].as_str().unwrap_or_default(), &causes))
}

impl Checks<'_> {
    /// Refuses, warns or stays silent about what was found while reading and `gone`, which was dropped since.
    pub fn tell(&mut self, resource: &Resource, gone: Vec<String>) -> Result<(), ApiError> {
        let mut words = std::mem::take(&mut self.found);
        let known: HashSet<String> = words.iter().cloned().collect();
        words.extend(gone.into_iter().filter(|one| !known.contains(one)));
        match self.unknown {
            UnknownFields::Refuse if !words.is_empty() => {
                // The YAML reader's own words begin with a line.
                let told = words.iter().map(|one| match one.starts_with("line ") {
                    true => format!("yaml: unmarshal errors:\n  {one}"),
                    false => one.clone(),
                });
                let told = told.collect::<Vec<_>>().join(", ");
                Err(self.unreadable(resource, &format!("strict decoding error: {told}")))
            }
            UnknownFields::Warn => {
                self.warnings.extend(words);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The refusal of what a patch made that is no object at all.
    pub fn no_object(&self, resource: &Resource, made: &Value) -> ApiError {
        let (found, wanted) = match resource.is_custom() {
            true => (strict::kind_word(made), "map[string]interface {}".to_owned()),
            false => (strict::kind_word(made), format!("{}.{}", resource.version, resource.kind)),
        };
        self.unreadable(resource, &format!("json: cannot unmarshal {found} into Go value of type {wanted}"))
    }

    /// The refusal of an object that cannot be read as its kind.
    pub fn unreadable(&self, resource: &Resource, words: &str) -> ApiError {
        match &self.quoted {
            Some(quoted) => {
                let message = format!("Invalid value: {}: {words}", Value::from(quoted.as_str()));
                ApiError::invalid("", "", &[Cause { reason: "FieldValueInvalid", field: "patch".to_owned(), message }])
            }
            None => {
                let (kind, version) = (&resource.kind, &resource.version);
                ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {words}"))
            }
        }
    }
}
