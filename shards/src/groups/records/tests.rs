//! Fixed vectors, written down by hand from Kafka's schemas; round trips; and hostile bytes.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn commit() -> (OffsetKey, OffsetValue) {
    let key = OffsetKey { group: "g".into(), topic: "ab".into(), partition: 3 };
    let value = OffsetValue {
        offset: 0x0102,
        leader_epoch: 5,
        metadata: "m".into(),
        commit_timestamp: 0x0a0b,
        expire_timestamp: -1,
    };
    (key, value)
}

const COMMIT_KEY: &str = "0001 0001 67 0002 6162 00000003";

#[test]
fn a_commit_is_written_as_version_3() {
    let (key, value) = commit();
    let (raw_key, raw_value) = Record::Offset(key, Some(value)).encode();
    assert_eq!(raw_key, bytes(COMMIT_KEY));
    let expected = "0003 0000000000000102 00000005 0001 6d 0000000000000a0b";
    assert_eq!(raw_value.unwrap(), bytes(expected));
}

#[test]
fn a_commit_with_its_own_retention_is_written_as_version_1() {
    let (key, value) = commit();
    let value = OffsetValue { expire_timestamp: 0x0c, ..value };
    let (_, raw_value) = Record::Offset(key, Some(value)).encode();
    let expected = "0001 0000000000000102 0001 6d 0000000000000a0b 000000000000000c";
    assert_eq!(raw_value.unwrap(), bytes(expected));
}

#[test]
fn every_version_of_a_commit_is_read() {
    let (key, value) = commit();
    let no_epoch = OffsetValue { leader_epoch: -1, ..value.clone() };
    let versions = [
        ("0000 0000000000000102 0001 6d 0000000000000a0b", no_epoch.clone()),
        (
            "0001 0000000000000102 0001 6d 0000000000000a0b 000000000000000c",
            OffsetValue { expire_timestamp: 12, ..no_epoch.clone() },
        ),
        // Found by a fuzzer: read as it stood, it was written back as another.
        (
            "0001 0000000000000102 0001 6d 0000000000000a0b ffffffffffff6800",
            OffsetValue { expire_timestamp: -1, ..no_epoch.clone() },
        ),
        ("0002 0000000000000102 0001 6d 0000000000000a0b", no_epoch),
        ("0003 0000000000000102 00000005 0001 6d 0000000000000a0b", value.clone()),
        ("0004 0000000000000102 00000005 02 6d 0000000000000a0b 00", value.clone()),
        ("0004 0000000000000102 00000005 02 6d 0000000000000a0b 01 00 02 ffff", value),
    ];
    for (hex, expected) in versions {
        let read = Record::decode(&bytes(COMMIT_KEY), Some(&bytes(hex)));
        assert_eq!(read, Ok(Record::Offset(key.clone(), Some(expected))), "{hex}");
    }
    let old_key = bytes("0000 0001 67 0002 6162 00000003");
    assert_eq!(Record::decode(&old_key, None), Ok(Record::Offset(key, None)));
}

fn group() -> GroupValue {
    GroupValue {
        protocol_type: "consumer".into(),
        generation: 7,
        protocol: Some("range".into()),
        leader: Some("m1".into()),
        state_timestamp: 0x0a,
        members: vec![MemberValue {
            member_id: "m1".into(),
            instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 0x10,
            session_timeout_ms: 0x20,
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::from_static(b"as"),
        }],
    }
}

const GROUP_KEY_HEX: &str = "0002 0001 67";

#[test]
fn a_group_is_written_as_version_3() {
    let (raw_key, raw_value) = Record::Group("g".into(), Some(group())).encode();
    assert_eq!(raw_key, bytes(GROUP_KEY_HEX));
    let expected = "0003 0008 636f6e73756d6572 00000007 0005 72616e6765 0002 6d31
        000000000000000a 00000001 0002 6d31 0001 69 0001 63 0002 2f68 00000010 00000020
        00000001 73 00000002 6173";
    assert_eq!(raw_value.unwrap(), bytes(expected));
    let empty = GroupValue { protocol: None, leader: None, members: Vec::new(), ..group() };
    let (_, raw_value) = Record::Group("g".into(), Some(empty)).encode();
    let expected = "0003 0008 636f6e73756d6572 00000007 ffff ffff 000000000000000a 00000000";
    assert_eq!(raw_value.unwrap(), bytes(expected));
}

#[test]
fn every_version_of_a_group_is_read() {
    let head = "0008 636f6e73756d6572 00000007 0005 72616e6765 0002 6d31";
    let tail = "00000001 73 00000002 6173";
    let v0 = format!("0000 {head} 00000001 0002 6d31 0001 63 0002 2f68 00000020 {tail}");
    let v1 = format!("0001 {head} 00000001 0002 6d31 0001 63 0002 2f68 00000010 00000020 {tail}");
    let v2 = format!(
        "0002 {head} 000000000000000a 00000001 0002 6d31 0001 63 0002 2f68 00000010 00000020 {tail}"
    );
    let v4 = "0004 09 636f6e73756d6572 00000007 06 72616e6765 03 6d31 000000000000000a
        02 03 6d31 02 69 02 63 03 2f68 00000010 00000020 02 73 03 6173 00 00";
    let with = |state_timestamp, instance_id: Option<&str>, rebalance_timeout_ms| {
        let mut value = group();
        value.state_timestamp = state_timestamp;
        value.members[0].instance_id = instance_id.map(str::to_owned);
        value.members[0].rebalance_timeout_ms = rebalance_timeout_ms;
        value
    };
    let versions = [
        (v0.as_str(), with(-1, None, 0x20)),
        (v1.as_str(), with(-1, None, 0x10)),
        (v2.as_str(), with(10, None, 0x10)),
        (v4, group()),
    ];
    for (hex, expected) in versions {
        let read = Record::decode(&bytes(GROUP_KEY_HEX), Some(&bytes(hex)));
        assert_eq!(read, Ok(Record::Group("g".into(), Some(expected))), "{hex}");
    }
}

#[test]
fn tombstones_come_back_as_such() {
    let (key, _) = commit();
    for record in [Record::Offset(key, None), Record::Group("g".into(), None)] {
        let (raw_key, raw_value) = record.encode();
        assert_eq!(raw_value, None);
        assert_eq!(Record::decode(&raw_key, None), Ok(record));
    }
}

#[test]
fn unknown_kinds_and_versions_are_named() {
    assert_eq!(Record::decode(&bytes("0005 0001 67"), None), Err(RecordError::UnknownKey(5)));
    assert_eq!(Record::decode(&bytes("ffff"), None), Err(RecordError::UnknownKey(-1)));
    let value = bytes("0005 0000");
    let error = RecordError::UnknownValue { key: 2, version: 5 };
    assert_eq!(Record::decode(&bytes(GROUP_KEY_HEX), Some(&value)), Err(error));
}

#[test]
fn every_cut_and_every_trailing_byte_is_an_error() {
    let (key, value) = commit();
    for record in [Record::Offset(key, Some(value)), Record::Group("g".into(), Some(group()))] {
        let (raw_key, raw_value) = record.encode();
        let raw_value = raw_value.unwrap();
        for length in 0..raw_key.len() {
            assert!(Record::decode(&raw_key[..length], Some(&raw_value)).is_err());
        }
        for length in 0..raw_value.len() {
            assert!(Record::decode(&raw_key, Some(&raw_value[..length])).is_err());
        }
        let longer = [&raw_value[..], &[0]].concat();
        assert_eq!(Record::decode(&raw_key, Some(&longer)), Err(RecordError::Trailing(1)));
    }
}

#[test]
fn hostile_counts_and_lengths_are_errors() {
    let key = bytes(GROUP_KEY_HEX);
    let huge_count = bytes("0003 0000 00000000 ffff ffff 0000000000000000 7fffffff");
    let error = Err(RecordError::Truncated("members"));
    assert_eq!(Record::decode(&key, Some(&huge_count)), error);
    let negative = bytes("0003 fffe 00000000");
    assert_eq!(Record::decode(&key, Some(&negative)), Err(RecordError::Length("protocol type")));
    let null = bytes("0003 ffff 00000000");
    assert_eq!(Record::decode(&key, Some(&null)), Err(RecordError::Length("protocol type")));
    let endless = bytes("0004 ffffffffff 00");
    assert_eq!(Record::decode(&key, Some(&endless)), Err(RecordError::Length("protocol type")));
    let latin1 = bytes("0003 0001 ff 00000000");
    assert_eq!(Record::decode(&key, Some(&latin1)), Err(RecordError::NotUtf8("protocol type")));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(key in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
                      value in proptest::collection::vec(proptest::num::u8::ANY, 0..120),
                      kind in 0u8..4, version in 0u8..6) {
        let key = [&[0, kind][..], &key].concat();
        let value = [&[0, version][..], &value].concat();
        let _ = Record::decode(&key, Some(&value));
    }
}
