//! The `rt` crate of Chronik; see ARCHITECTURE.md.
