//! Manual mode: nothing is made automatically; the operator gets snippets and the record to publish.
pub mod snippets;
mod texts;

pub use snippets::{Dialect, Edge, Place, Purpose, Snippet, record, snippet, snippets};
