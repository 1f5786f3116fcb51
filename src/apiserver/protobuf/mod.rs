//! Protobuf request bodies, which kubectl sends for built-in kinds since 1.32. Only decoding: answers are JSON.
//!
//! The tables follow the published `generated.proto` files. Input is untrusted: lengths, depth and the number
//! of fields are bounded, and unknown fields are skipped.
mod fields;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// First bytes of every body.
const MAGIC: &[u8] = b"k8s\0";
const DEEPEST: usize = 12;
const MOST_FIELDS: usize = 100_000;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("the body is not in Kubernetes' protobuf envelope")]
    Envelope,
    #[error("the body is damaged")]
    Damaged,
    #[error("{0} is not understood in protobuf; send JSON")]
    UnknownKind(String),
}

impl ProtobufError {
    /// Stable CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Envelope => "NotAnEnvelope",
            Self::Damaged => "Damaged",
            Self::UnknownKind(_) => "UnknownKind",
        }
    }
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Texts,
    Bool,
    /// Always written by Go, and left out of JSON when false.
    Flag,
    /// Always written by Go, and left out of JSON when zero.
    Int,
    /// Written only where it is given, zero included.
    GivenInt,
    /// Seconds and nanoseconds, shown in whole seconds.
    Time,
    /// The same, shown in microseconds.
    MicroTime,
    /// JSON within a message of its own.
    Json,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    TextMap,
    BytesMap,
    /// Either an integer or a text.
    IntOrText,
    /// A message whose fields belong to the outer one.
    Inline(&'static [Field]),
}

pub(super) type Field = (u64, &'static str, Kind);

/// A body as the JSON it stands for.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::Envelope)?;
    let mut reader = Reader { left: MOST_FIELDS };
    let type_meta: &[Field] = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];
    let mut types = Map::new();
    let mut raw: &[u8] = &[];
    reader.fields(body, |reader, number, content| {
        match (number, content) {
            (1, Content::Bytes(bytes)) => types = reader.message(bytes, type_meta, 0)?,
            (2, Content::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
        Ok(())
    })?;
    let kind = types.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let api_version = types.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let fields = fields::of(api_version, &kind).ok_or(ProtobufError::UnknownKind(kind))?;
    let mut object = reader.message(raw, fields, 0)?;
    object.extend(types);
    Ok(Value::Object(object))
}

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader {
    left: usize,
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(ProtobufError::Damaged)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Damaged)
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], ProtobufError> {
    let length = usize::try_from(length).map_err(|_| ProtobufError::Damaged)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(ProtobufError::Damaged)?;
    *bytes = rest;
    Ok(taken)
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Damaged)
}

impl Reader {
    fn fields<'a>(
        &mut self,
        mut bytes: &'a [u8],
        mut each: impl FnMut(&mut Self, u64, Content<'a>) -> Result<(), ProtobufError>,
    ) -> Result<(), ProtobufError> {
        while !bytes.is_empty() {
            self.left = self.left.checked_sub(1).ok_or(ProtobufError::Damaged)?;
            let tag = varint(&mut bytes)?;
            let content = match tag & 7 {
                0 => Content::Number(varint(&mut bytes)?),
                1 => Content::Bytes(take(&mut bytes, 8)?),
                2 => {
                    let length = varint(&mut bytes)?;
                    Content::Bytes(take(&mut bytes, length)?)
                }
                5 => Content::Bytes(take(&mut bytes, 4)?),
                _ => return Err(ProtobufError::Damaged),
            };
            each(self, tag >> 3, content)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        bytes: &[u8],
        known: &'static [Field],
        depth: usize,
    ) -> Result<Map<String, Value>, ProtobufError> {
        if depth > DEEPEST {
            return Err(ProtobufError::Damaged);
        }
        let mut object = Map::new();
        self.fields(bytes, |reader, number, content| {
            let Some((_, name, kind)) = known.iter().find(|(known, ..)| *known == number) else { return Ok(()) };
            reader.put(&mut object, name, *kind, &content, depth)
        })?;
        Ok(object)
    }

    /// Puts one field into the object. What Go always writes although it is empty is left out.
    fn put(
        &mut self,
        object: &mut Map<String, Value>,
        name: &str,
        kind: Kind,
        content: &Content<'_>,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let value = match (kind, content) {
            (Kind::Text, Content::Bytes([])) => return Ok(()),
            (Kind::Text, Content::Bytes(bytes)) => Value::String(text(bytes)?),
            (Kind::Bool, Content::Number(number)) => Value::Bool(*number != 0),
            (Kind::Flag, Content::Number(0)) | (Kind::Int, Content::Number(0)) => return Ok(()),
            (Kind::Flag, Content::Number(_)) => Value::Bool(true),
            (Kind::Int | Kind::GivenInt, Content::Number(number)) => json!(*number as i64),
            (Kind::Texts, Content::Bytes(bytes)) => return push(object, name, Value::String(text(bytes)?)),
            (Kind::Message(known), Content::Bytes(bytes)) => {
                let inner = self.message(bytes, known, depth + 1)?;
                if inner.is_empty() && name != "metadata" {
                    return Ok(());
                }
                Value::Object(inner)
            }
            (Kind::Messages(known), Content::Bytes(bytes)) => {
                let inner = self.message(bytes, known, depth + 1)?;
                return push(object, name, Value::Object(inner));
            }
            (Kind::Inline(known), Content::Bytes(bytes)) => {
                object.extend(self.message(bytes, known, depth + 1)?);
                return Ok(());
            }
            (Kind::Json, Content::Bytes(bytes)) => self.json(bytes)?,
            (Kind::Time | Kind::MicroTime, Content::Bytes(bytes)) => match self.time(bytes, kind)? {
                Some(time) => Value::String(time),
                None => return Ok(()),
            },
            (Kind::IntOrText, Content::Bytes(bytes)) => self.int_or_text(bytes)?,
            (Kind::TextMap | Kind::BytesMap, Content::Bytes(bytes)) => {
                let (key, value) = self.entry(bytes)?;
                let value = if matches!(kind, Kind::BytesMap) { STANDARD.encode(&value) } else { text(&value)? };
                let map = object.entry(name).or_insert_with(|| json!({}));
                map[key] = Value::String(value);
                return Ok(());
            }
            _ => return Err(ProtobufError::Damaged),
        };
        object.insert(name.to_owned(), value);
        Ok(())
    }

    fn entry(&mut self, bytes: &[u8]) -> Result<(String, Vec<u8>), ProtobufError> {
        let (mut key, mut value) = (String::new(), Vec::new());
        self.fields(bytes, |_, number, content| {
            match (number, content) {
                (1, Content::Bytes(bytes)) => key = text(bytes)?,
                (2, Content::Bytes(bytes)) => value = bytes.to_vec(),
                _ => {}
            }
            Ok(())
        })?;
        Ok((key, value))
    }

    fn json(&mut self, bytes: &[u8]) -> Result<Value, ProtobufError> {
        let mut value = Value::Null;
        self.fields(bytes, |_, number, content| {
            if let (1, Content::Bytes(bytes)) = (number, content) {
                value = serde_json::from_slice(bytes).map_err(|_| ProtobufError::Damaged)?;
            }
            Ok(())
        })?;
        Ok(value)
    }

    fn time(&mut self, bytes: &[u8], kind: Kind) -> Result<Option<String>, ProtobufError> {
        let (mut seconds, mut nanoseconds) = (None, 0);
        self.fields(bytes, |_, number, content| {
            match (number, content) {
                (1, Content::Number(number)) => seconds = Some(number as i64),
                (2, Content::Number(number)) => nanoseconds = i32::try_from(number).unwrap_or(0),
                _ => {}
            }
            Ok(())
        })?;
        // Go's zero time, or none at all.
        let Some(seconds) = seconds.filter(|seconds| *seconds > 0) else { return Ok(None) };
        let time = jiff::Timestamp::new(seconds, nanoseconds).map_err(|_| ProtobufError::Damaged)?;
        let form = if matches!(kind, Kind::MicroTime) { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
        Ok(Some(time.strftime(form).to_string()))
    }

    fn int_or_text(&mut self, bytes: &[u8]) -> Result<Value, ProtobufError> {
        let (mut is_text, mut number_value, mut text_value) = (false, 0_i64, String::new());
        self.fields(bytes, |_, number, content| {
            match (number, content) {
                (1, Content::Number(kind)) => is_text = kind == 1,
                (2, Content::Number(value)) => number_value = value as i64,
                (3, Content::Bytes(bytes)) => text_value = text(bytes)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(if is_text { json!(text_value) } else { json!(number_value) })
    }
}

fn push(object: &mut Map<String, Value>, name: &str, value: Value) -> Result<(), ProtobufError> {
    object.entry(name).or_insert_with(|| json!([])).as_array_mut().ok_or(ProtobufError::Damaged)?.push(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &types), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_secret_is_read() {
        let entry = [field(1, b"token"), field(2, b"abc")].concat();
        let meta = [field(1, b"cf"), field(2, b""), field(3, b"ns"), field(8, b"")].concat();
        let raw = [field(1, &meta), field(2, &entry), field(3, b"Opaque")].concat();
        let expected = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cf", "namespace": "ns"},
            "data": {"token": "YWJj"}, "type": "Opaque",
        });
        assert_eq!(decode(&body("Secret", &raw)).unwrap(), expected);
        assert_eq!(decode(&body("Pod", b"")).unwrap_err().reason(), "UnknownKind");
        assert_eq!(decode(b"{}").unwrap_err().reason(), "NotAnEnvelope");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(raw: Vec<u8>, kind in 0_usize..14) {
            let kinds = ["Secret", "ConfigMap", "Namespace", "ServiceAccount", "Service", "Ingress", "DeleteOptions",
                "SelfSubjectReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview", "Lease", "Event", "IngressClass",
                "TokenReview"];
            let _ = decode(&raw);
            let _ = decode(&[MAGIC, &raw].concat());
            if raw.len() < 120 {
                let _ = decode(&body(kinds[kind], &raw));
            }
        }
    }
}
