//! Refusals as Kubernetes' `Status` objects.
use std::collections::HashSet;

use serde_json::{Value, json};

use super::cel::WorkError;
use super::schema::Cause;
use super::store::StoreError;

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: u16,
    /// Kubernetes' own word: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, …
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
    /// Paths outside of every API are refused in plain text.
    pub plain: bool,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: None, plain: false }
    }
    pub fn reason(&self) -> &'static str {
        self.reason
    }
    /// `resource` is `plural` or `plural.group`.
    pub fn not_found(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found")).about(resource, name)
    }
    /// No such resource in a group that is served.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource".to_owned()).with_empty_details()
    }
    /// A path outside of every API that is served.
    pub fn no_such_page() -> Self {
        Self { plain: true, ..Self::new(404, "NotFound", "404 page not found\n".to_owned()) }
    }
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message.into())
    }
    /// Refusals that say nothing about an object but have the field for it, as those of unknown paths.
    pub fn with_empty_details(mut self) -> Self {
        self.details = Some(json!({}));
        self
    }
    pub fn already_exists(resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists")).about(resource, name)
    }
    pub fn conflict(resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(resource, name)
    }
    pub fn modified(resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }
    pub fn apply_conflict(message: String, causes: Vec<Value>) -> Self {
        let mut error = Self::new(409, "Conflict", message);
        error.details = Some(json!({"causes": causes}));
        error
    }
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message.into())
    }
    pub fn expired(message: &str) -> Self {
        Self::new(410, "Expired", message.to_owned())
    }
    /// Somebody wants a state that there is not yet.
    pub fn too_large_version(asked: u64, newest: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {newest}");
        let mut error = Self::new(504, "Timeout", message);
        error.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        error
    }
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }
    pub fn no_impersonation() -> Self {
        let message = "impersonation is not offered: the one token may do everything, and nobody else is known here";
        Self::new(403, "Forbidden", message.to_owned())
    }
    pub fn forbidden(resource: &str, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{resource} \"{name}\" is forbidden: {why}")).about(resource, name)
    }
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }
    pub fn too_many_requests() -> Self {
        let message = "The server is busy with other requests; try again after a second.".to_owned();
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details = Some(json!({"retryAfterSeconds": 1}));
        error
    }
    pub fn not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(405, "MethodNotAllowed", message).with_empty_details()
    }
    /// A method that a resource of the kind does not have.
    pub fn not_supported(method: &str, resource: &str) -> Self {
        let message = format!("{method} is not supported on resources of kind \"{resource}\"");
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }
    /// `kind` is `Kind.group`, or `Kind` for the core group.
    pub fn invalid(kind: &str, name: &str, causes: &[Cause]) -> Self {
        // What two rules say is said once.
        let mut said = HashSet::new();
        let sentences = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message));
        let words: Vec<String> = sentences.filter(|sentence| said.insert(sentence.clone())).collect();
        let listed = match words.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let mut error = Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {listed}"));
        let causes: Vec<Value> =
            causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field})).collect();
        let (bare, group) = kind.split_once('.').unwrap_or((kind, ""));
        error.details = Some(json!({"name": name, "group": group, "kind": bare, "causes": causes}));
        error.spare()
    }
    fn about(mut self, resource: &str, name: &str) -> Self {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        self.details = Some(json!({"name": name, "group": group, "kind": plural}));
        self.spare()
    }
    /// Kubernetes leaves out what is empty.
    fn spare(mut self) -> Self {
        if let Some(details) = self.details.as_mut().and_then(Value::as_object_mut) {
            details.retain(|_, value| value != "");
        }
        self
    }
    /// A patch that does not apply; Kubernetes does not say why.
    pub fn rejected() -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        let mut error = Self::new(422, "Invalid", message);
        error.details = Some(json!({}));
        error
    }
    /// Rules that could not be asked.
    pub fn unasked(error: &WorkError) -> Self {
        match error {
            WorkError::Busy => Self::too_many_requests(),
            WorkError::Failed => Self::internal(&error.to_string()),
        }
    }
    /// Something went wrong that must not.
    pub fn internal(why: &str) -> Self {
        let mut error = Self::new(500, "InternalError", format!("Internal error occurred: {why}"));
        error.details = Some(json!({"causes": [{"message": why}]}));
        error
    }
    /// A body of a type that no built-in kind takes.
    pub fn unsupported_type() -> Self {
        let mut error = Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type".to_owned());
        error.details = Some(json!({}));
        error
    }
    pub fn too_large_because(words: String) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {words}"))
    }
    /// An error without a reason, as Kubernetes gives where it does not expect one.
    pub fn unnamed(code: u16, message: String) -> Self {
        Self::new(code, "", message)
    }
    /// The object that is answered.
    pub fn body(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Expired { .. } => Self::new(410, "Expired", error.to_string()),
            StoreError::TooLarge { .. } => Self::too_large_because(error.to_string()),
            _ => Self::new(500, "InternalError", format!("Internal error occurred: {error}")),
        }
    }
}
