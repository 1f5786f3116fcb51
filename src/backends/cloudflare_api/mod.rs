//! Cloudflare's v4 API, as every backend uses it that needs a Cloudflare token: envelope, errors, paging, and the
//! simulator that answers like it.
mod client;
pub mod double;

pub use client::Api;

/// Cloudflare's own API.
pub const DEFAULT_API_URL: &str = "https://api.cloudflare.com/client/v4";
