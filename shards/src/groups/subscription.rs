//! Reads the topics out of a consumer's subscription (ConsumerProtocolSubscription). Every version
//! begins as version 0 does: version, topics, user data; the rest is not read. Pure.

use super::records::RecordError;
use super::wire::Reader;

/// The topics of a subscription.
pub fn topics(metadata: &[u8]) -> Result<Vec<String>, RecordError> {
    let mut reader = Reader::new(metadata);
    if reader.i16("subscription version")? < 0 {
        return Err(RecordError::Length("subscription version"));
    }
    let mut topics = Vec::new();
    for _ in 0..reader.count(false, "subscribed topics")? {
        topics.push(reader.string(false, "subscribed topic")?);
    }
    Ok(topics)
}

/// A subscription of version 0, for tests.
#[cfg(test)]
pub(super) fn encode(topics: &[&str]) -> bytes::Bytes {
    let mut out = super::wire::Writer::new();
    out.i16(0);
    out.count(topics.len());
    for topic in topics {
        out.string(topic);
    }
    out.i32(-1);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_the_rest_is_not() {
        let metadata = encode(&["a", "bc"]);
        assert_eq!(metadata, &b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff"[..]);
        assert_eq!(topics(&metadata), Ok(vec!["a".to_owned(), "bc".to_owned()]));
    }

    #[test]
    fn other_bytes_are_errors() {
        for hostile in [&b""[..], b"\0", b"\xff\xff\0\0\0\0", b"\0\0\x7f\xff\xff\xff\0\0"] {
            assert!(topics(hostile).is_err(), "{hostile:?}");
        }
    }
}
