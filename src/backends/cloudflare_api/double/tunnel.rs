//! Tunnels and their configurations: one document each, replaced as a whole, with a version that grows.
use serde_json::Value;

use super::fail;
use crate::http::double::{DoubleRequest, DoubleResponse};

/// The account's tunnels.
#[derive(Debug, Default)]
pub(super) struct Tunnels {}

impl Tunnels {
    pub fn handle(&mut self, _: &DoubleRequest, _: &str, _: &[&str]) -> DoubleResponse {
        fail(404, 1003, "Tunnel not found")
    }
    pub fn snapshot(&self) -> Value {
        Value::Null
    }
    pub fn restore(&mut self, _: &Value) {}
}
