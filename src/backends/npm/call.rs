//! Calls of Nginx Proxy Manager's API as data.
use serde_json::Value;

use crate::http::FormFile;

/// One call. It has no `Debug`: bodies hold passwords and tokens.
#[derive(Clone)]
pub struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) body: Body,
    pub(super) slow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

#[derive(Clone)]
pub(super) enum Body {
    Empty,
    Json(Value),
    Form(Vec<FormFile>),
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: &[], body: Body::Empty, slow: false }
    }
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::Get, path)
    }
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::Post, path)
    }
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::Put, path)
    }
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::Delete, path)
    }
    pub fn query(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }
    pub fn json(self, body: Value) -> Self {
        Self { body: Body::Json(body), ..self }
    }
    pub fn form(self, files: Vec<FormFile>) -> Self {
        Self { body: Body::Form(files), ..self }
    }
    /// May take as long as an order at Let's Encrypt.
    pub fn slow(self) -> Self {
        Self { slow: true, ..self }
    }
    pub(super) fn reads(&self) -> bool {
        self.method == Method::Get
    }
}
