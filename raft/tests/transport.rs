//! Frames between replicas: fixed bytes, and everything that must be refused.

use bytes::Bytes;
use chronik_raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use chronik_raft::transport::{decode, encode, frame_bytes, route, Route, TransportError};
use proptest::prelude::*;
use wal::{GroupId, ReplicaId};

const GROUP: GroupId = GroupId(0x0102_0304);

/// A data entry whose payload has `length` bytes.
fn entry(index: u64, term: u64, length: u32) -> Entry {
    let mut data = [0u8; 32];
    data[0] = 1;
    data[24..28].copy_from_slice(&length.to_le_bytes());
    Entry { term, index, data: Bytes::copy_from_slice(&data), ..Entry::default() }
}

fn append(entries: Vec<Entry>) -> Message {
    Message {
        msg_type: MessageType::MsgAppend as i32,
        to: 2,
        from: 1,
        term: 6,
        log_term: 5,
        index: 5,
        entries,
        commit: 5,
        ..Message::default()
    }
}

fn frame(message: &Message, payloads: &[Vec<Bytes>]) -> Bytes {
    encode(GROUP, message, payloads).concat().into()
}

fn refused(message: &Message) -> TransportError {
    let payloads = vec![Vec::new(); message.entries.len()];
    decode(&frame(message, &payloads)).expect_err("refused")
}

#[test]
fn a_heartbeat_is_pinned() {
    let message = Message {
        msg_type: MessageType::MsgHeartbeat as i32,
        to: 3,
        from: 2,
        term: 7,
        commit: 300,
        ..Message::default()
    };
    #[rustfmt::skip]
    let expected = [
        43, 0, 0, 0,  1, 0, 0, 0,
        4, 3, 2, 1, 0, 0, 0, 0,
        2, 0, 0, 0, 0, 0, 0, 0,
        3, 0, 0, 0, 0, 0, 0, 0,
        11, 0, 0, 0,
        0x08, 8, 0x10, 3, 0x18, 2, 0x20, 7, 0x40, 0xac, 2,
    ];
    let bytes = frame(&message, &[]);
    assert_eq!(bytes, expected[..]);
    assert_eq!(frame_bytes([43, 0, 0, 0]), bytes.len());
    let expected = Route { group: GROUP, from: ReplicaId(2), to: ReplicaId(3) };
    assert_eq!(route(&bytes), Ok(expected));
    assert_eq!(decode(&bytes).map(|incoming| incoming.message), Ok(message));
}

#[test]
fn payloads_travel_beside_the_message_uncopied() {
    let message = append(vec![entry(6, 6, 5), Entry { term: 6, index: 7, ..Entry::default() }]);
    let payload = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cde")];
    let slices = encode(GROUP, &message, &[payload.clone(), vec![]]);
    assert_eq!(slices[1].as_ptr(), payload[0].as_ptr());
    let bytes = Bytes::from(slices.concat());
    let incoming = decode(&bytes).expect("our own frame");
    assert_eq!(incoming.payloads, [&b"abcde"[..], &b""[..]]);
    assert!(bytes.as_ptr_range().contains(&incoming.payloads[0].as_ptr()));
    assert_eq!(incoming.message, message);
}

#[test]
fn kinds_that_no_peer_sends_are_refused() {
    let spoken = [3, 4, 5, 6, 8, 9, 14, 17, 18];
    for kind in -1..25 {
        let message = Message { msg_type: kind, entries: vec![], ..append(vec![]) };
        let refused = decode(&frame(&message, &[])).err();
        let expected = (!spoken.contains(&kind)).then_some(TransportError::Kind(kind));
        assert_eq!(refused, expected, "kind {kind}");
    }
    let local = Message { term: 0, ..append(vec![]) };
    assert_eq!(refused(&local), TransportError::Kind(3));
    let snapshot = Message { snapshot: Some(Snapshot::default()), ..append(vec![]) };
    assert_eq!(refused(&snapshot), TransportError::Kind(3));
}

#[test]
fn malformed_entries_are_refused() {
    let wrong = |entries| refused(&append(entries));
    assert_eq!(wrong(vec![entry(7, 6, 0)]), TransportError::Entry(0));
    assert_eq!(wrong(vec![entry(6, 6, 0), entry(6, 6, 0)]), TransportError::Entry(1));
    assert_eq!(wrong(vec![entry(6, 4, 0)]), TransportError::Entry(0));
    assert_eq!(wrong(vec![entry(6, 7, 0)]), TransportError::Entry(0));
    assert_eq!(wrong(vec![entry(6, 6, 0), entry(7, 5, 0)]), TransportError::Entry(1));
    let context = Entry { context: Bytes::from_static(b"x"), ..entry(6, 6, 0) };
    assert_eq!(wrong(vec![context]), TransportError::Entry(0));
    let beside =
        Message { msg_type: MessageType::MsgHeartbeat as i32, ..append(vec![entry(6, 6, 0)]) };
    assert_eq!(refused(&beside), TransportError::Entry(0));

    // These our own encoder refuses too, so the bytes are made by hand.
    let bad = |entry_type: EntryType, data: &'static [u8]| {
        let mut message = append(vec![entry(6, 6, 0)]);
        let bytes = frame(&message, &[vec![]]);
        message.entries[0].entry_type = entry_type as i32;
        message.entries[0].data = Bytes::from_static(data);
        let message = prost::Message::encode_to_vec(&message);
        let mut forged = bytes[..32].to_vec();
        forged.extend_from_slice(&(message.len() as u32).to_le_bytes());
        forged.extend_from_slice(&message);
        let length = forged.len() as u32 - 4;
        forged[..4].copy_from_slice(&length.to_le_bytes());
        decode(&forged.into()).expect_err("refused")
    };
    assert_eq!(bad(EntryType::EntryNormal, &[1; 31]), TransportError::Entry(0));
    assert_eq!(bad(EntryType::EntryNormal, &[9; 32]), TransportError::Entry(0));
    assert_eq!(bad(EntryType::EntryNormal, &[0; 32]), TransportError::Entry(0));
    assert_eq!(bad(EntryType::EntryConfChange, &[]), TransportError::Entry(0));
    assert_eq!(bad(EntryType::EntryConfChangeV2, &[0xff]), TransportError::Entry(0));
    assert_eq!(bad(EntryType::EntryConfChangeV2, &[0; 161]), TransportError::Entry(0));
}

#[test]
fn replicas_of_frame_and_message_must_agree() {
    for (at, field) in [(16, 1), (24, 2)] {
        let mut bytes = frame(&append(vec![]), &[]).to_vec();
        assert_eq!(bytes[at], field);
        bytes[at] = 9;
        assert_eq!(decode(&bytes.into()), Err(TransportError::Replica));
    }
    let nobody = Message { to: 0, ..append(vec![]) };
    assert_eq!(decode(&frame(&nobody, &[])), Err(TransportError::Replica));
}

#[test]
fn every_cut_every_surplus_and_another_format_are_refused() {
    let payloads = [vec![Bytes::from_static(b"abc")]];
    let bytes = frame(&append(vec![entry(6, 6, 3)]), &payloads);
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes.slice(..length)), Err(TransportError::Short(length)));
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(decode(&longer.clone().into()), Err(TransportError::Long(1)));
    longer[0] += 1;
    assert_eq!(decode(&longer.into()), Err(TransportError::Long(1)));
    let mut later = bytes.to_vec();
    later[4] = 2;
    assert_eq!(decode(&later.into()), Err(TransportError::Format(2)));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        start in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0usize..120,
        value: u8,
    ) {
        let _ = decode(&Bytes::from(start));
        let payloads = [vec![Bytes::from_static(b"abc")]];
        let mut bytes = frame(&append(vec![entry(6, 6, 3)]), &payloads).to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = decode(&bytes.into());
    }
}
