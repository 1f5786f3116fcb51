//! What Cloudflare's error codes mean. Pure.
use serde_json::Value;

use crate::backends::{BackendError, ErrorClass};
use crate::config::{Secret, redact};

/// An answer that is not a success, as an error with Cloudflare's own words. `needs` is the permission that the call needs.
pub fn refusal(status: u16, body: &Value, needs: &str, token: &Secret) -> BackendError {
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    let code = errors.first().and_then(|error| error["code"].as_i64()).unwrap_or(0);
    let chain = |error: &Value| error["error_chain"].as_array().cloned().unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    for error in &errors {
        let links = chain(error);
        let said = std::iter::once(error).chain(&links).filter_map(|link| link["message"].as_str());
        // One line of plain words, whatever comes.
        words.extend(said.map(|text| text.chars().filter(|c| !c.is_control()).take(300).collect()));
    }
    let words = if words.is_empty() { format!("status {status}") } else { words.join(": ") };
    let chained = |wanted: i64| errors.iter().any(|error| chain(error).iter().any(|link| link["code"] == wanted));
    let (class, reason, advice) = match code {
        81044 => (ErrorClass::Permanent, "RecordGone", String::new()),
        81053 | 81054 | 81057 | 81058 => (ErrorClass::Conflict, "RecordExists", String::new()),
        81045 => (ErrorClass::Permanent, "RecordQuotaExceeded", "; remove records or use a larger plan".to_owned()),
        6003 if chained(6111) => {
            let advice = "; the token has blanks, quotes or a line break in it".to_owned();
            (ErrorClass::Credential, "TokenMalformed", advice)
        }
        9109 => (ErrorClass::Credential, "TokenRefused", format!("; this needs the permission {needs}")),
        10000 | 6003 | 9106 => (ErrorClass::Credential, "TokenRefused", String::new()),
        7000 | 7003 => (ErrorClass::Permanent, "ZoneNotFound", String::new()),
        1004 => (ErrorClass::Permanent, "RecordInvalid", String::new()),
        _ if status == 401 || status == 403 => (ErrorClass::Credential, "TokenRefused", String::new()),
        _ if status >= 500 => (ErrorClass::Unavailable, "Unavailable", String::new()),
        _ if words.starts_with("Bad Configuration") => (ErrorClass::Permanent, "BadConfiguration", String::new()),
        // An unknown code is no proof that a thing is gone: whoever means to believe it asks once more.
        _ if status == 404 => (ErrorClass::Unavailable, "NotFound", String::new()),
        _ => (ErrorClass::Unavailable, "UnknownRefusal", String::new()),
    };
    let message = redact(&format!("cloudflare refused ({code}): {words}{advice}"), &[token]);
    BackendError::new(class, reason, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn codes_become_classes_and_reasons() {
        let read = |status: u16, code: i64, inner: i64| {
            let chain = json!([{"code": inner, "message": "inner\nwords"}]);
            let body = json!({"success": false, "errors": [{"code": code, "message": "words", "error_chain": chain}]});
            let error = refusal(status, &body, "Zone · DNS · Edit", &Secret::new("tok"));
            (error.class, error.reason, error.message)
        };
        let of = |status, code| {
            let (class, reason, _) = read(status, code, 0);
            (class, reason)
        };
        assert_eq!(of(400, 81053), (ErrorClass::Conflict, "RecordExists"));
        assert_eq!(of(404, 81044), (ErrorClass::Permanent, "RecordGone"));
        assert_eq!(of(403, 10000), (ErrorClass::Credential, "TokenRefused"));
        assert_eq!(of(400, 123_456), (ErrorClass::Unavailable, "UnknownRefusal"), "unknown is not gone");
        assert_eq!(of(520, 0), (ErrorClass::Unavailable, "Unavailable"));
        assert_eq!(read(400, 6003, 6111).1, "TokenMalformed");
        assert_eq!(read(400, 1004, 9313).2, "cloudflare refused (1004): words: innerwords");
        let secret = json!({"errors": [{"code": 1, "message": "bad tok-en tok"}]});
        assert!(!refusal(400, &secret, "", &Secret::new("tok-en")).message.contains("tok-en"));
    }
}
