//! Consumer groups: who is a member, who reads what, and how far they have read.
//!
//! A group belongs to one partition of `__consumer_offsets` ([`partition_of`]), and its state lives
//! on the shard that leads that partition, in a [`coordinator::Coordinator`]: a pure state machine.
//! [`records`] owns the bytes of the topic, [`runtime`] what lies between the two: loading, writing,
//! timers and compaction.

mod alarms;
pub mod coordinator;
mod group;
mod join;
mod offsets;
pub mod records;
pub mod runtime;
pub mod subscription;
mod sync;
#[cfg(test)]
mod tests;
pub mod types;
mod wire;

/// The partition of `__consumer_offsets` that keeps a group (and, of `__transaction_state`, a
/// transactional id): Java's `String.hashCode`, its absolute value, modulo the partitions. The
/// one value without an absolute value counts as 0.
pub fn partition_of(id: &str, partitions: i32) -> i32 {
    let hash = id
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}
