//! Wiring: what each command does with the parts.
pub mod crds;
pub mod snippets;
