//! Cloudflare's v4 API, as every backend uses it that needs a Cloudflare token: envelope, errors, paging, and the
//! simulator that answers like it.
pub mod budget;
mod client;
pub mod double;
mod refusal;

pub use budget::Budget;
pub use client::{Api, Page};

/// Cloudflare's own API.
pub const DEFAULT_API_URL: &str = "https://api.cloudflare.com/client/v4";
