//! The broker: partitions, request handlers, group coordinators, metadata.
//!
//! Lives on every shard of a node; see ARCHITECTURE.md for the life of a produce and of a fetch.

mod admin;
pub mod api;
pub mod backlog;
pub mod broker;
pub mod census;
pub mod config;
pub mod controller;
pub mod fetch;
pub mod groups;
pub mod http;
pub mod listen;
pub mod log;
pub mod meta;
pub mod metrics;
pub mod node;
mod observe;
mod observe_io;
mod observe_node;
pub mod offline;
mod offsets;
pub mod options;
pub mod partition;
pub mod placement;
pub mod router;
mod service;
pub mod stats;
pub mod storage;
mod upkeep;
mod validate;
