//! Identifiers of the metadata layer. Plain values, any shard.
//!
//! `GroupId` and `ReplicaId` belong to the `wal` crate, whose records carry them.

use std::fmt;

use uuid::Uuid;

pub use wal::{GroupId, ReplicaId};

/// A Kafka broker id. `0` is legal, negative values are not ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of one life of a topic: a topic that is deleted and created again has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// Makes an id from 16 random bytes, or `None` if they would make one that Kafka reserves
    /// (zero, one) or that starts with `-` in text and would look like an option to the tools.
    pub fn from_random(bytes: [u8; 16]) -> Option<TopicId> {
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        let starts_with_dash = id.as_bytes()[0] >> 2 == 62;
        (!starts_with_dash).then_some(TopicId(id))
    }
}

/// Kafka's text form of a UUID: 22 characters of unpadded base64url.
pub(crate) fn base64url(id: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = id.as_u128();
    (0..22)
        .map(|i| {
            // 128 bits in groups of six from the top; the last group has two bits, then zeros.
            let shift = 122 - 6 * i;
            let six = if shift >= 0 { bits >> shift } else { bits << -shift };
            char::from(ALPHABET[(six & 63) as usize])
        })
        .collect()
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(self.0))
    }
}
