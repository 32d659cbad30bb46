//! Short notation for requests: `message!(Type { field: value })`, with texts as they are.
//!
//! The codec crate's messages cannot be written as literals from outside. Owns conversions only.

use bytes::Bytes;
use kafka_protocol::messages::{BrokerId, GroupId, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::StrBytes;

/// A message with these fields, and defaults for the rest.
#[macro_export]
macro_rules! message {
    ($type:path {}) => {
        <$type>::default()
    };
    ($type:path { $($field:ident: $value:expr),+ $(,)? }) => {{
        let mut message = <$type>::default();
        $(message.$field = $crate::message::Value::value($value);)+
        message
    }};
}

/// What may stand for a field of type `T`.
pub trait Value<T> {
    fn value(self) -> T;
}

impl<T> Value<T> for T {
    fn value(self) -> T {
        self
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Value<StrBytes> for &str {
    fn value(self) -> StrBytes {
        text(self)
    }
}

impl Value<Option<StrBytes>> for &str {
    fn value(self) -> Option<StrBytes> {
        Some(text(self))
    }
}

impl Value<Vec<StrBytes>> for &[&str] {
    fn value(self) -> Vec<StrBytes> {
        self.iter().map(|one| text(one)).collect()
    }
}

impl Value<Option<Vec<StrBytes>>> for &[&str] {
    fn value(self) -> Option<Vec<StrBytes>> {
        Some(Value::value(self))
    }
}

impl Value<TopicName> for &str {
    fn value(self) -> TopicName {
        TopicName(text(self))
    }
}

impl Value<Option<TopicName>> for &str {
    fn value(self) -> Option<TopicName> {
        Some(TopicName(text(self)))
    }
}

impl Value<GroupId> for &str {
    fn value(self) -> GroupId {
        GroupId(text(self))
    }
}

impl Value<TransactionalId> for &str {
    fn value(self) -> TransactionalId {
        TransactionalId(text(self))
    }
}

impl Value<Option<TransactionalId>> for &str {
    fn value(self) -> Option<TransactionalId> {
        Some(TransactionalId(text(self)))
    }
}

impl Value<BrokerId> for i32 {
    fn value(self) -> BrokerId {
        BrokerId(self)
    }
}

impl Value<ProducerId> for i64 {
    fn value(self) -> ProducerId {
        ProducerId(self)
    }
}

impl Value<Bytes> for &'static str {
    fn value(self) -> Bytes {
        Bytes::from_static(self.as_bytes())
    }
}
