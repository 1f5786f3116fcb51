//! Manual mode: nothing is made automatically; the operator gets snippets and the record to publish.
pub mod snippets;

pub use snippets::{Dialect, Snippet, record, snippet, snippets};
