//! Reviews: who am I, may I. There are no roles here: whoever has the token may do everything.
use serde_json::{Value, json};

use super::status::ApiError;
use crate::config::Secret;

/// Name of the one user.
pub const USER: &str = "portalkeeper-admin";

fn user() -> Value {
    json!({"username": USER, "uid": USER, "groups": ["system:masters", "system:authenticated"]})
}

/// Answers a review by its resource name.
pub fn answer(plural: &str, mut review: Value, token: Option<&Secret>) -> Result<Value, ApiError> {
    if !review.is_object() {
        return Err(ApiError::bad_request("the object provided is not a JSON object"));
    }
    review["status"] = match plural {
        "selfsubjectreviews" => json!({"userInfo": user()}),
        "selfsubjectaccessreviews" => json!({"allowed": true, "reason": "the token may do everything"}),
        "selfsubjectrulesreviews" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        "subjectaccessreviews" => {
            let allowed = review["spec"]["user"] == USER
                || review["spec"]["groups"]
                    .as_array()
                    .is_some_and(|groups| groups.iter().any(|g| g == "system:masters"));
            json!({"allowed": allowed})
        }
        "tokenreviews" => {
            let given = Secret::new(review["spec"]["token"].as_str().unwrap_or_default());
            let known = token.is_some_and(|token| !token.is_empty() && *token == given);
            // The token is not sent back.
            review["spec"]["token"] = json!("");
            if known { json!({"authenticated": true, "user": user()}) } else { json!({"authenticated": false}) }
        }
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(review)
}
