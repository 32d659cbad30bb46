//! Kafka's APIs, one file each: decode is done, so check, route, join, and map errors to codes.
//!
//! Handlers are stateless; what they need of the broker stands in small traits ([`Admin`] for
//! everything around `__meta`), so that they run in a test against nothing but a state machine.
//! Handlers run on the shard of the connection.

pub mod acls;
pub mod admin;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod api_versions;
pub mod create_partitions;
pub mod create_topics;
pub mod delegation_tokens;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
pub mod error_codes;
mod errors;
pub mod fetch;
pub mod find_coordinator;
pub mod groups;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
mod names;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
mod placement;
pub mod produce;
pub mod quotas_and_credentials;
pub mod sasl;
pub mod scatter;
pub mod sync_group;
pub mod transactions;
pub mod unregister_broker;
pub mod update_features;

pub use admin::{Admin, Host, Leadership, Quorum, SubmitError, Voter};

#[cfg(test)]
mod tests;
