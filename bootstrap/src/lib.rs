//! The `bootstrap` crate of Chronik; see ARCHITECTURE.md.
