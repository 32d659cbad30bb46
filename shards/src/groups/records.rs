//! Kafka's own record formats inside `__consumer_offsets`, so that existing tools can read the
//! topic: OffsetCommitKey v0-v1 and OffsetCommitValue v0-v4, GroupMetadataKey v2 and
//! GroupMetadataValue v0-v4. Both directions, from the published schemas; big-endian.
//!
//! Written are the versions that Kafka 4.1 writes: commits as v3 (v1 when the client gave a
//! retention time), groups as v3. A key without a value is a tombstone. Decoding trusts nothing:
//! hostile bytes give an error, and no allocation follows a count that the bytes do not hold.
//! Keys of kinds that this broker does not write (KIP-848 and later) are reported, not guessed.

use bytes::Bytes;
use thiserror::Error;

use super::wire::{Reader, Writer};

/// One record of the offsets topic: a key, and its value or a tombstone.
pub type RawRecord = (Bytes, Option<Bytes>);

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// `None` removes the offset.
    Offset(OffsetKey, Option<OffsetValue>),
    /// `None` removes the group.
    Group(String, Option<GroupValue>),
}

/// Whose offset: OffsetCommitKey.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey {
    pub group: String,
    pub topic: String,
    pub partition: i32,
}

/// A committed offset: OffsetCommitValue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetValue {
    pub offset: i64,
    /// -1: none was given.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_timestamp: i64,
    /// Set when the client asked for a retention of its own (OffsetCommit v2-v4); else -1.
    pub expire_timestamp: i64,
}

/// A group's generation: GroupMetadataValue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// Empty: the group only keeps offsets.
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// Wall clock of the last change of state, or -1.
    pub state_timestamp: i64,
    pub members: Vec<MemberValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// Why bytes are not a record of the offsets topic.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// A kind of key that other coordinators write. Loading skips it.
    #[error("record key of kind {0}, which this coordinator does not keep")]
    UnknownKey(i16),
    #[error("record value of version {version} for a key of kind {key}")]
    UnknownValue { key: i16, version: i16 },
    #[error("record ends inside {0}")]
    Truncated(&'static str),
    #[error("{0} has an impossible length")]
    Length(&'static str),
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    /// Bytes remain after the last field.
    #[error("{0} bytes after the end of the record")]
    Trailing(usize),
}

const OFFSET_KEY_MAX: i16 = 1;
const GROUP_KEY: i16 = 2;
/// The first version of both values with compact lengths and tagged fields.
const FLEXIBLE: i16 = 4;

impl Record {
    pub fn encode(&self) -> RawRecord {
        match self {
            Record::Offset(key, value) => {
                (encode_offset_key(key), value.as_ref().map(encode_offset_value))
            }
            Record::Group(group, value) => {
                let mut key = Writer::new();
                key.i16(GROUP_KEY);
                key.string(group);
                (key.finish(), value.as_ref().map(encode_group_value))
            }
        }
    }

    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Record, RecordError> {
        let mut reader = Reader::new(key);
        let kind = reader.i16("key version")?;
        match kind {
            0..=OFFSET_KEY_MAX => {
                let key = OffsetKey {
                    group: reader.string(false, "group")?,
                    topic: reader.string(false, "topic")?,
                    partition: reader.i32("partition")?,
                };
                reader.finish()?;
                Ok(Record::Offset(key, value.map(decode_offset_value).transpose()?))
            }
            GROUP_KEY => {
                let group = reader.string(false, "group")?;
                reader.finish()?;
                Ok(Record::Group(group, value.map(decode_group_value).transpose()?))
            }
            kind => Err(RecordError::UnknownKey(kind)),
        }
    }
}

fn encode_offset_key(key: &OffsetKey) -> Bytes {
    let mut out = Writer::new();
    out.i16(OFFSET_KEY_MAX);
    out.string(&key.group);
    out.string(&key.topic);
    out.i32(key.partition);
    out.finish()
}

fn encode_offset_value(value: &OffsetValue) -> Bytes {
    let mut out = Writer::new();
    let own_retention = value.expire_timestamp >= 0;
    out.i16(if own_retention { 1 } else { 3 });
    out.i64(value.offset);
    if !own_retention {
        out.i32(value.leader_epoch);
    }
    out.string(&value.metadata);
    out.i64(value.commit_timestamp);
    if own_retention {
        out.i64(value.expire_timestamp);
    }
    out.finish()
}

fn decode_offset_value(bytes: &[u8]) -> Result<OffsetValue, RecordError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16("value version")?;
    if !(0..=FLEXIBLE).contains(&version) {
        return Err(RecordError::UnknownValue { key: OFFSET_KEY_MAX, version });
    }
    let compact = version >= FLEXIBLE;
    let value = OffsetValue {
        offset: reader.i64("offset")?,
        leader_epoch: if version >= 3 { reader.i32("leader epoch")? } else { -1 },
        metadata: reader.string(compact, "metadata")?,
        commit_timestamp: reader.i64("commit timestamp")?,
        // Any negative time is none.
        expire_timestamp: if version == 1 { reader.i64("expire timestamp")?.max(-1) } else { -1 },
    };
    if compact {
        reader.skip_tags()?;
    }
    reader.finish()?;
    Ok(value)
}

fn encode_group_value(value: &GroupValue) -> Bytes {
    let mut out = Writer::new();
    out.i16(3);
    out.string(&value.protocol_type);
    out.i32(value.generation);
    out.nullable(value.protocol.as_deref());
    out.nullable(value.leader.as_deref());
    out.i64(value.state_timestamp);
    out.count(value.members.len());
    for member in &value.members {
        out.string(&member.member_id);
        out.nullable(member.instance_id.as_deref());
        out.string(&member.client_id);
        out.string(&member.client_host);
        out.i32(member.rebalance_timeout_ms);
        out.i32(member.session_timeout_ms);
        out.bytes(&member.subscription);
        out.bytes(&member.assignment);
    }
    out.finish()
}

fn decode_group_value(bytes: &[u8]) -> Result<GroupValue, RecordError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16("value version")?;
    if !(0..=FLEXIBLE).contains(&version) {
        return Err(RecordError::UnknownValue { key: GROUP_KEY, version });
    }
    let compact = version >= FLEXIBLE;
    let mut value = GroupValue {
        protocol_type: reader.string(compact, "protocol type")?,
        generation: reader.i32("generation")?,
        protocol: reader.nullable(compact, "protocol")?,
        leader: reader.nullable(compact, "leader")?,
        state_timestamp: if version >= 2 { reader.i64("state timestamp")? } else { -1 },
        members: Vec::new(),
    };
    for _ in 0..reader.count(compact, "members")? {
        value.members.push(decode_member(&mut reader, version)?);
    }
    if compact {
        reader.skip_tags()?;
    }
    reader.finish()?;
    Ok(value)
}

fn decode_member(reader: &mut Reader<'_>, version: i16) -> Result<MemberValue, RecordError> {
    let compact = version >= FLEXIBLE;
    let member_id = reader.string(compact, "member id")?;
    let instance_id =
        if version >= 3 { reader.nullable(compact, "group instance id")? } else { None };
    let client_id = reader.string(compact, "client id")?;
    let client_host = reader.string(compact, "client host")?;
    let rebalance = if version >= 1 { Some(reader.i32("rebalance timeout")?) } else { None };
    let session_timeout_ms = reader.i32("session timeout")?;
    let member = MemberValue {
        member_id,
        instance_id,
        client_id,
        client_host,
        // Version 0 knew one timeout for both.
        rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription: reader.bytes(compact, "subscription")?,
        assignment: reader.bytes(compact, "assignment")?,
    };
    if compact {
        reader.skip_tags()?;
    }
    Ok(member)
}

#[cfg(test)]
mod tests;
