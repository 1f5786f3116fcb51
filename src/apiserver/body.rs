//! Request bodies: which content types are read, and what is said about those that cannot be. Pure.
//!
//! The words around a reason are a real server's; what a parser of another language says about a syntax error is
//! not imitated.
use serde_json::{Value, json};

use super::catalog::Resource;
use super::protobuf::{self, ProtobufError};
use super::schema::Cause;
use super::status::ApiError;
use super::strict::{json_words, kind_word, yaml};

/// What bodies can be written in, as refusals list it.
const READ: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// Patches of custom resources, as refusals list them.
const CUSTOM_PATCHES: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// How much of a body is quoted, in bytes.
const QUOTED: usize = 30;

/// The media type of a header, without parameters; `None` where a parameter has no value. Lower case.
pub fn media_type(header: &str) -> Option<String> {
    let mut parts = header.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut rest = parts.filter(|part| !part.is_empty());
    rest.all(|part| part.contains('=')).then_some(kind)
}

fn unknown_format(accepted: &str) -> ApiError {
    let words = "the body of the request was in an unknown format - accepted media types include: ";
    ApiError::unsupported(format!("{words}{accepted}"))
}

/// Whether a resource takes patches of this media type. Errors: 415.
pub fn check_patch_type(resource: &Resource, media_type: &str) -> Result<(), ApiError> {
    let known = CUSTOM_PATCHES.split(", ").any(|known| known == media_type);
    match (known || (media_type == STRATEGIC && !resource.is_custom()), resource.is_custom()) {
        (true, _) => Ok(()),
        (false, true) => Err(unknown_format(CUSTOM_PATCHES)),
        (false, false) => Err(ApiError::unsupported_type()),
    }
}

/// The beginning of a body, as refusals quote it: text where it looks like JSON, else hexadecimal.
fn quoted(body: &[u8]) -> String {
    let part = &body[..body.len().min(QUOTED)];
    let more = if body.len() > QUOTED { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(part)),
        Some(_) => {
            let digits: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{more}")
        }
    }
}

/// A body as JSON, whatever it was sent as. Errors: 415, and what is wrong in words without an object's kind.
pub fn decode(media_type: &str, body: &[u8]) -> Result<Value, Result<ApiError, String>> {
    match media_type {
        "" | "application/json" => serde_json::from_slice(body)
            .map_err(|error| Err(format!("couldn't get version/kind; json parse error: {}", json_words(&error)))),
        "application/yaml" => yaml(body).map_err(|words| Err(format!("yaml: {words}"))),
        PROTOBUF => protobuf::decode(body).map_err(|error| match error {
            ProtobufError::Envelope => {
                Err("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".to_owned())
            }
            ProtobufError::UnknownKind(_) => Ok(ApiError::unsupported(error.to_string())),
            ProtobufError::Damaged => Err(error.to_string()),
        }),
        _ => Err(Ok(unknown_format(READ))),
    }
}

/// The object of a create or replace request. Built-in kinds may leave out what their place says; custom resources
/// say both, as their definition's API does. Errors: 400, 415, 422.
pub fn object(
    resource: &Resource,
    served: impl Fn(&str, &str) -> bool,
    media_type: &str,
    body: &[u8],
) -> Result<Value, ApiError> {
    let unrecognized = |words: &str| {
        let kind = &resource.kind;
        let quote = quoted(body);
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {words} ({quote})"
        ))
    };
    let mut object = decode(media_type, body).map_err(|error| error.unwrap_or_else(|words| unrecognized(&words)))?;
    if object.is_null() && !resource.is_custom() {
        object = json!({});
    }
    if !object.is_object() {
        let go =
            r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        let what = kind_word(&object);
        return Err(unrecognized(&format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type {go}"
        )));
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    if resource.is_custom() && kind.is_empty() {
        return Err(unrecognized(&format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body).trim())));
    }
    let expected = resource.api_version();
    let same_version = api_version == expected || (api_version.is_empty() && !resource.is_custom());
    let same_kind = kind == resource.kind || kind.is_empty();
    if !same_version && resource.is_custom() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    if !same_kind && resource.is_custom() {
        let cause = Cause {
            reason: "FieldValueInvalid",
            field: "kind".to_owned(),
            message: format!("Invalid value: {}: must be {}", json!(kind), resource.kind),
        };
        let full = format!("{kind}.{}", resource.group);
        return Err(ApiError::invalid(&full, object["metadata"]["name"].as_str().unwrap_or_default(), &[cause]));
    }
    // Another version of the same API is refused in the same words as another kind.
    if !(same_kind && same_version) {
        let kind = if kind.is_empty() { &resource.kind } else { &kind };
        let given = if api_version.is_empty() { &expected } else { &api_version };
        let version = given.rsplit('/').next().unwrap_or_default();
        let why = if served(given, kind) {
            format!("converting ({version}.{kind}) to ({}): unknown conversion", resource.go_type())
        } else {
            format!(
                "no kind \"{kind}\" is registered for version \"{given}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
            )
        };
        return Err(unhandled(kind, version, resource, &why));
    }
    let metadata = &object["metadata"];
    if !metadata.is_object() && !metadata.is_null() {
        let place = match resource.is_custom() {
            true => "Go value".to_owned(),
            false => format!("Go struct field {}.metadata", resource.kind),
        };
        let why = format!("json: cannot unmarshal {} into {place} of type v1.ObjectMeta", kind_word(metadata));
        return Err(unhandled(&resource.kind, &resource.version, resource, &why));
    }
    Ok(object)
}

fn unhandled(kind: &str, version: &str, resource: &Resource, why: &str) -> ApiError {
    let expected = &resource.kind;
    ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {expected}: {why}"))
}

/// The options in the body of a deletion; `null` where there is none. Errors: 400, 415.
pub fn delete_options(media_type: &str, body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let options = decode(media_type, body).map_err(|error| error.unwrap_or_else(ApiError::bad_request))?;
    if !options.is_object() {
        return Err(ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into the options of a deletion",
            kind_word(&options)
        )));
    }
    match options["kind"].as_str().unwrap_or("DeleteOptions") {
        "DeleteOptions" | "" => Ok(options),
        other => {
            let version = options["apiVersion"].as_str().unwrap_or_default();
            Err(ApiError::bad_request(format!(
                "no kind \"{other}\" is registered for version \"{version}\" in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bodys_beginning_is_quoted_as_text_only_where_it_looks_like_json() {
        assert_eq!(quoted(b""), "<empty>");
        assert_eq!(quoted(b"[]"), "5b5d");
        assert_eq!(quoted(br#"{"apiVersion": "pa.example/v1", "kind""#), r#"{"apiVersion": "pa.example/v1" ..."#);
    }

    #[test]
    fn parameters_of_a_content_type_must_have_values() {
        assert_eq!(media_type("Application/JSON; charset=utf-8").as_deref(), Some("application/json"));
        assert_eq!(media_type(""), Some(String::new()));
        assert_eq!(media_type("application/json;foo"), None);
    }
}
