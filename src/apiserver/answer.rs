//! Answers as bytes: JSON, YAML, streams and refusals, with the headers that every answer has.
use std::convert::Infallible;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::accept::Encoding;
use super::rest::{AnswerBody, Call};
use super::status::ApiError;

/// Clients that show answers to people get them indented.
const FOR_EYES: [&str; 3] = ["curl", "Wget", "Mozilla"];

/// Text with percent-encoded bytes decoded; what is no encoding stays.
pub fn decoded(path: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = (bytes.get(at + 1).copied().and_then(digit), bytes.get(at + 2).copied().and_then(digit));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes an answer as it was asked for, and adds what every answer has.
pub async fn finish(mut response: Response<AnswerBody>, call: &Call) -> Response<AnswerBody> {
    let pretty = match call.parameter("pretty") {
        Some(asked) => ["1", "t", "T", "TRUE", "true", "True"].contains(&asked),
        None => FOR_EYES.contains(&call.agent.as_str()),
    };
    let json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    // A watch is JSON lines whatever happens.
    if json && !call.watching && (pretty || call.encoding == Encoding::Yaml) {
        response = rewritten(response, call.encoding).await;
    }
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert("audit-id", id);
    }
    response
}

async fn rewritten(response: Response<AnswerBody>, encoding: Encoding) -> Response<AnswerBody> {
    let (mut parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(never) => match never {},
    };
    let value: Option<Value> = serde_json::from_slice(&bytes).ok();
    let text = value.and_then(|value| match encoding {
        Encoding::Json => serde_json::to_string_pretty(&value).ok(),
        Encoding::Yaml => serde_saphyr::to_string(&value).ok(),
    });
    if text.is_some() && encoding == Encoding::Yaml {
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    }
    Response::from_parts(parts, Full::new(text.map_or(bytes, Bytes::from)).boxed_unsync())
}

pub fn json_answer(status: u16, value: &Value) -> Response<AnswerBody> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub fn stream_answer(lines: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Response<AnswerBody> {
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(line)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds warnings to an answer, as kubectl shows them.
pub fn with_warnings(mut response: Response<AnswerBody>, warnings: &[String]) -> Response<AnswerBody> {
    for warning in warnings.iter().take(20) {
        let plain: String = warning.chars().filter(|c| !c.is_control()).take(250).collect();
        let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append("warning", value);
        }
    }
    response
}

/// Text that is not an object, as health checks and unknown paths answer.
pub fn text_answer(status: u16, text: String) -> Response<AnswerBody> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A refusal.
pub fn status_answer(error: &ApiError) -> Response<AnswerBody> {
    match error.plain {
        true => text_answer(error.code, error.message.clone()),
        false => json_answer(error.code, &error.body()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoded_bytes_are_decoded_once() {
        assert_eq!(decoded("/a%20b%2Fc"), "/a b/c");
        assert_eq!(decoded("/100%/%2"), "/100%/%2");
        assert_eq!(decoded("/%2541"), "/%41");
    }
}
