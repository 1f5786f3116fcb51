//! Reviews: who am I, may I. There are no roles here: whoever has the token may do everything. Pure.
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use serde_json::{Value, json};

use super::builtin;
use super::catalog::Resource;
use super::checks::UnknownFields;
use super::schema::Cause;
use super::status::ApiError;
use crate::config::Secret;

/// Name of the one user.
pub const USER: &str = "portalkeeper-admin";
/// Members may do everything, as in every Kubernetes.
const MASTERS: &str = "system:masters";
/// What a token is for where nothing else is said.
const AUDIENCE: &str = "https://kubernetes.default.svc";

fn user() -> Value {
    json!({"username": USER, "uid": USER, "groups": [MASTERS, "system:authenticated"]})
}

/// A review with the fields that its kind has. Errors: 400.
pub fn checked(
    resource: &Resource,
    given: Value,
    unknown_fields: UnknownFields,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let read = match resource.kind.as_str() {
        "SelfSubjectReview" => builtin::known_as::<SelfSubjectReview>,
        "TokenReview" => builtin::known_as::<TokenReview>,
        "LocalSubjectAccessReview" => builtin::known_as::<LocalSubjectAccessReview>,
        "SelfSubjectAccessReview" => builtin::known_as::<SelfSubjectAccessReview>,
        "SelfSubjectRulesReview" => builtin::known_as::<SelfSubjectRulesReview>,
        _ => builtin::known_as::<SubjectAccessReview>,
    };
    let kind = &resource.kind;
    let refused = |why: String| {
        let version = &resource.version;
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    let mut given = given;
    for (field, value) in [("apiVersion", resource.api_version()), ("kind", kind.clone())] {
        given[field] = json!(value);
    }
    let (known, unknown) = read(&given).map_err(refused)?;
    let words = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect::<Vec<_>>();
    match unknown_fields {
        UnknownFields::Refuse if !words.is_empty() => {
            return Err(refused(format!("strict decoding error: {}", words.join(", "))));
        }
        UnknownFields::Warn => warnings.extend(words),
        _ => {}
    }
    Ok(known)
}

/// Answers a review. `namespace` is that of its path. Errors: 400, 422.
pub fn answer(
    resource: &Resource,
    mut review: Value,
    namespace: Option<&str>,
    token: Option<&Secret>,
    now: Timestamp,
) -> Result<Value, ApiError> {
    let spec = review["spec"].clone();
    let status = match resource.kind.as_str() {
        "SelfSubjectReview" => {
            review["metadata"] = json!({"creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
            json!({"userInfo": user()})
        }
        "TokenReview" => token_status(&spec, token)?,
        "SelfSubjectRulesReview" => {
            if spec["namespace"].as_str().unwrap_or_default().is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            review["spec"] = json!({});
            json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": false,
            })
        }
        kind => {
            let whose = kind != "SelfSubjectAccessReview";
            let causes = access_problems(&spec, whose, namespace);
            if !causes.is_empty() {
                return Err(ApiError::invalid(&format!(".{}", resource.group), "", &causes));
            }
            let mut groups = spec["groups"].as_array().into_iter().flatten();
            json!({"allowed": !whose || spec["user"] == USER || groups.any(|group| group == MASTERS)})
        }
    };
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    if let Some(namespace) = namespace {
        review["metadata"]["namespace"] = json!(namespace);
    }
    review["status"] = status;
    Ok(review)
}

fn token_status(spec: &Value, token: Option<&Secret>) -> Result<Value, ApiError> {
    let given = spec["token"].as_str().unwrap_or_default();
    if given.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let mut asked = spec["audiences"].as_array().into_iter().flatten().peekable();
    let meant = asked.peek().is_none() || asked.any(|audience| audience == AUDIENCE);
    // Compared in constant time.
    let known = token.is_some_and(|token| *token == Secret::new(given));
    Ok(match known && meant {
        true => json!({"authenticated": true, "user": user(), "audiences": [AUDIENCE]}),
        false => json!({"user": {}, "error": "invalid bearer token"}),
    })
}

/// What is wrong with the question whether somebody may do something.
fn access_problems(spec: &Value, whose: bool, namespace: Option<&str>) -> Vec<Cause> {
    let invalid = |field: &str, value: &Value, words: &str| Cause {
        reason: "FieldValueInvalid",
        field: format!("spec.{field}"),
        message: format!("Invalid value: {value}: {words}"),
    };
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut causes = Vec::new();
    match (resource.is_object(), other.is_object()) {
        (true, true) => {
            let shown = json!({"Path": other["path"].as_str().unwrap_or_default(), "Verb": other["verb"].as_str().unwrap_or_default()});
            causes.push(invalid(
                "nonResourceAttributes",
                &shown,
                "cannot be specified in combination with resourceAttributes",
            ));
        }
        (false, false) => {
            let words = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            causes.push(invalid("resourceAttributes", &Value::Null, words));
        }
        _ => {}
    }
    if whose && spec["user"].as_str().unwrap_or_default().is_empty() && !spec["groups"].is_array() {
        causes.push(invalid("user", &json!(""), "at least one of user or group must be specified"));
    }
    let own = json!(resource["namespace"].as_str().unwrap_or_default());
    if resource.is_object() && namespace.is_some_and(|namespace| own != namespace) {
        causes.push(invalid("resourceAttributes.namespace", &own, "must match metadata.namespace"));
    }
    causes
}
