//! Whose a route is: what its `@id` says. Pure.
use serde_json::Value;

use crate::plan::{Mark, Ownership};

/// The mark within an `@id` or a tag: a portal that moves holds two routes at once, so the host follows the mark.
pub fn own_part(id: &str) -> &str {
    id.split('.').next().unwrap_or_default()
}

pub fn route_id(mark: &Mark, host: &str) -> String {
    format!("{}.{host}", mark.identifier())
}

pub fn ownership(route: &Value) -> Ownership {
    route["@id"].as_str().map_or(Ownership::Foreign, |id| Mark::from_identifier(own_part(id)))
}

/// The host that a route of ours was made for, whatever somebody made of its matchers since. Without one in the `@id`
/// nothing but that tells it from others.
pub fn own_host(id: &str) -> &str {
    id.split_once('.').map_or(id, |(_, host)| host)
}

/// The route as it is compared, without its `@id`.
pub fn bare(route: &Value) -> Value {
    let mut body = route.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("@id");
    }
    body
}
