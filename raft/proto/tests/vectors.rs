//! The wire format, pinned: each message with every field set, and its bytes written out by hand.
//!
//! The bytes follow from the protobuf encoding and raft-rs' field numbers alone. A change of one of
//! them is a change of the format between nodes, and never an accident.

use bytes::Bytes;
use prost::Message as _;
use protobuf::Message as _;
use raft_proto::eraftpb::*;
use raft_proto::{conf_state_eq, parse_conf_change, stringify_conf_change, ConfChangeI};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("a hex digit"))
        .collect()
}

fn pinned<M: prost::Message + protobuf::Message + PartialEq + Default>(message: M, text: &str) {
    let bytes = hex(text);
    assert_eq!(message.encode_to_vec(), bytes, "prost encodes {message:?}");
    assert_eq!(M::decode(&bytes[..]).expect("the vector decodes"), message);
    assert_eq!(message.compute_size() as usize, bytes.len());
    assert_eq!(message.write_to_bytes().expect("encodes"), bytes);
    let mut merged = M::default();
    merged.merge_from_bytes(&bytes).expect("merges");
    assert_eq!(merged, message);
    assert_eq!(M::parse_from_bytes(&bytes).expect("parses"), message);
}

fn conf_state() -> ConfState {
    ConfState {
        voters: vec![1, 2, 300],
        learners: vec![4],
        voters_outgoing: vec![5],
        learners_next: vec![6],
        auto_leave: true,
    }
}

const CONF_STATE: &str = "0a04 0102ac02  1201 04  1a01 05  2201 06  2801";

fn entry() -> Entry {
    Entry {
        entry_type: EntryType::EntryConfChangeV2 as i32,
        term: 5,
        index: 300,
        data: Bytes::from_static(b"abc"),
        context: Bytes::from_static(b"z"),
        sync_log: true,
    }
}

const ENTRY: &str = "0802 1005 18ac02 2203616263 2801 32017a";

#[test]
fn small_messages_are_pinned() {
    pinned(conf_state(), CONF_STATE);
    pinned(entry(), ENTRY);
    pinned(HardState { term: 7, vote: 1, commit: u64::MAX }, "0807 1001 18ffffffffffffffffff01");
    pinned(
        ConfChange {
            change_type: ConfChangeType::AddLearnerNode as i32,
            node_id: 9,
            context: Bytes::from_static(b"c"),
            id: 3,
        },
        "0803 1002 1809 220163",
    );
    pinned(
        ConfChangeV2 {
            transition: ConfChangeTransition::Explicit as i32,
            changes: vec![
                ConfChangeSingle { change_type: ConfChangeType::RemoveNode as i32, node_id: 8 },
                ConfChangeSingle { change_type: ConfChangeType::AddNode as i32, node_id: 10 },
            ],
            context: Bytes::from_static(b"x"),
        },
        "0802 1204 0801 1008 1202 100a 1a0178",
    );
}

#[test]
fn a_message_with_every_field_is_pinned() {
    let snapshot = Snapshot {
        data: Bytes::from_static(b"m"),
        metadata: Some(SnapshotMetadata {
            conf_state: Some(ConfState::from((vec![1], vec![]))),
            index: 5,
            term: 6,
        }),
    };
    pinned(snapshot.clone(), "0a016d 1209 0a03 0a0101 1005 1806");
    pinned(
        Message {
            msg_type: MessageType::MsgAppend as i32,
            to: 2,
            from: 1,
            term: 6,
            log_term: 5,
            index: 299,
            entries: vec![entry()],
            commit: 298,
            commit_term: 4,
            snapshot: Some(snapshot),
            request_snapshot: 11,
            reject: true,
            reject_hint: 12,
            context: Bytes::from_static(b"q"),
            deprecated_priority: 13,
            priority: -1,
        },
        "0803 1002 1801 2006 2805 30ab02
         3a11 0802 1005 18ac02 2203616263 2801 32017a
         40aa02
         4a0e 0a016d 1209 0a03 0a0101 1005 1806
         5001 580c 620171 680b 700d 7804
         8001ffffffffffffffffff01",
    );
}

#[test]
fn message_numbers_are_pinned() {
    let kinds = [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        assert_eq!(kind as i32, number as i32);
    }
}

#[test]
fn garbage_is_refused_and_never_panics() {
    assert!(Message::decode(&hex("3a7f")[..]).is_err());
    assert!(HardState::parse_from_bytes(&hex("08")).is_err());
    let unknown = Message::decode(&hex("08ff01")[..]).expect("an unknown kind decodes");
    assert!(MessageType::try_from(unknown.msg_type).is_err());
}

#[test]
fn bytes_fields_share_the_buffer_they_were_decoded_from() {
    let wire = Bytes::from(entry().encode_to_vec());
    let decoded = Entry::decode(wire.clone()).expect("decodes");
    assert!(wire.as_ptr_range().contains(&decoded.data.as_ptr()));
}

#[test]
fn conf_changes_convert_and_read_as_text() {
    let steps = parse_conf_change("v1 l2  r30").expect("parses");
    assert_eq!(stringify_conf_change(&steps), "v1 l2 r30");
    for wrong in ["x1", "v", "v-1", "é1"] {
        assert!(parse_conf_change(wrong).is_err(), "{wrong}");
    }
    let one = ConfChange {
        change_type: ConfChangeType::RemoveNode as i32,
        node_id: 3,
        ..ConfChange::default()
    };
    assert!(one.as_v1().is_some());
    let two = one.into_v2();
    assert_eq!(stringify_conf_change(&two.changes), "r3");
    assert_eq!(two.enter_joint(), None);
    assert!(!two.leave_joint() && ConfChangeV2::default().leave_joint());
    let many = ConfChangeV2 { changes: steps, ..ConfChangeV2::default() };
    assert_eq!(many.enter_joint(), Some(true));
}

#[test]
fn memberships_compare_without_order() {
    let mut other = conf_state();
    other.voters.reverse();
    assert!(conf_state_eq(&conf_state(), &other));
    other.voters.pop();
    assert!(!conf_state_eq(&conf_state(), &other));
    assert!(!conf_state_eq(&other, &conf_state()));
}
