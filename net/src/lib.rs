//! The `net` crate of Chronik; see ARCHITECTURE.md.
