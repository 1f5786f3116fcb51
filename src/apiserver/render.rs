//! The JSON of objects in the form that a request wants. Whole custom resources are passed on as they are stored.
use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::answer::json_answer;
use super::catalog::Resource;
use super::events;
use super::rest::AnswerBody;
use super::schema::apply_defaults;
use super::store::Object;
use super::table::{Form, metadata, table};
use crate::api::clock::Clock;

/// Parts of a long list are sent in pieces of about this many bytes.
const PIECE: usize = 128 * 1024;

/// An object as a resource's version shows it.
pub fn shown(resource: &Resource, object: Value) -> Value {
    if resource.is_core_event() {
        return events::to_core(&object);
    }
    let mut object = object;
    // Versions differ in their names alone: the only conversion there is.
    if object["apiVersion"] != *resource.api_version() {
        object["apiVersion"] = json!(resource.api_version());
    }
    let version = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
    if let Some(schema) = &resource.schema
        && version.is_some_and(|version| version <= resource.defaulted_after)
    {
        // An object that has no room for all of them is shown with those that it has room for.
        let _ = apply_defaults(schema, &mut object);
    }
    object
}

/// How one request wants its objects.
pub struct Rendering {
    pub resource: Arc<Resource>,
    pub form: Form,
    /// `includeObject` of tables.
    pub include: String,
    pub clock: Arc<dyn Clock>,
}

impl Rendering {
    pub fn value(&self, object: &Object) -> Value {
        shown(&self.resource, object.value())
    }

    /// One object by itself: the answer to a get, or an event of a watch.
    pub fn one(&self, object: &Value) -> Value {
        match self.form {
            Form::Whole => object.clone(),
            Form::Metadata => metadata(object),
            Form::Table => {
                let about = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table(&self.resource, &[object], &about, &self.include, self.clock.now())
            }
        }
    }

    /// The text of [`Self::one`], read only where it has to be.
    pub fn text<'a>(&self, object: &'a Object) -> Cow<'a, [u8]> {
        if self.form == Form::Whole
            && let Some(text) = self.as_stored(object)
        {
            return text;
        }
        Cow::Owned(self.one(&self.value(object)).to_string().into_bytes())
    }

    /// The text of an event's object. A table tells its columns only in the first event of a watch.
    pub fn event<'a>(&self, object: &'a Object, first: bool) -> Cow<'a, [u8]> {
        if self.form != Form::Table || first {
            return self.text(object);
        }
        Cow::Owned(self.event_of(&self.value(object), first))
    }

    /// The same for an object that does not stand in the store so.
    pub fn event_of(&self, object: &Value, first: bool) -> Vec<u8> {
        let shown = self.one(object);
        let shown = if self.form == Form::Table && !first { without_columns(shown) } else { shown };
        shown.to_string().into_bytes()
    }

    /// The object of a bookmark.
    pub fn bookmark(&self, metadata: &Value, first: bool) -> Value {
        let object =
            json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
        let shown = self.one(&object);
        if self.form == Form::Table && !first { without_columns(shown) } else { shown }
    }

    /// The stored text, if it is of the wanted version.
    fn as_stored<'a>(&self, object: &'a Object) -> Option<Cow<'a, [u8]>> {
        let text = object.text();
        // Fields are in the order of their names, and this is the first of them.
        let start = format!("{{\"apiVersion\":\"{}\"", self.resource.api_version());
        let current = !self.resource.is_core_event() && object.version() > self.resource.defaulted_after;
        (current && text.starts_with(start.as_bytes())).then_some(text)
    }

    /// An object within a list: those of built-in kinds do not repeat their kind.
    fn item<'a>(&self, object: &'a Object) -> Cow<'a, [u8]> {
        if self.form == Form::Whole && !self.resource.is_custom() {
            let mut value = self.value(object);
            if let Some(fields) = value.as_object_mut() {
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            return Cow::Owned(value.to_string().into_bytes());
        }
        self.text(object)
    }

    /// A list with this metadata. Its text is made piece by piece, while it is sent.
    pub fn list(self, about: &Value, objects: Vec<Arc<Object>>) -> Response<AnswerBody> {
        if self.form == Form::Table {
            let values: Vec<Value> = objects.iter().map(|object| self.value(object)).collect();
            let table =
                table(&self.resource, &values.iter().collect::<Vec<_>>(), about, &self.include, self.clock.now());
            return json_answer(200, &table);
        }
        let (kind, version) = match self.form {
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            _ => (format!("{}List", self.resource.kind), self.resource.api_version()),
        };
        let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{about},\"items\":[");
        let begun =
            Pieces { rendering: self, objects: objects.into_iter(), head: Some(head), first: true, done: false };
        let pieces = stream::unfold(begun, |mut pieces| async move {
            let piece = pieces.next()?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), pieces))
        });
        let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn without_columns(mut table: Value) -> Value {
    table["columnDefinitions"] = Value::Null;
    table
}

/// A list that is being sent.
struct Pieces {
    rendering: Rendering,
    objects: std::vec::IntoIter<Arc<Object>>,
    head: Option<String>,
    first: bool,
    done: bool,
}

impl Pieces {
    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut piece = BytesMut::from(self.head.take().unwrap_or_default().as_bytes());
        while piece.len() < PIECE {
            let Some(object) = self.objects.next() else {
                piece.extend_from_slice(b"]}");
                self.done = true;
                break;
            };
            if !std::mem::take(&mut self.first) {
                piece.extend_from_slice(b",");
            }
            piece.extend_from_slice(&self.rendering.item(&object));
        }
        Some(piece.freeze())
    }
}
