//! One test for each way in which raft-rs bites, and for each promise of the driver that a
//! scenario does not show well. Logs and links in memory.

use std::rc::Rc;

use crate::harness::{owner, Net, Recorder, GROUP};
use bytes::Bytes;
use chronik_raft::driver::{DriverOptions, MachineRef, OpenError, Opened, ProposeError};
use chronik_raft::eraftpb::{Message, MessageType};
use chronik_raft::transport::Incoming;
use chronik_raft::{decode_checkpoint, Descriptor, EntryKind, Payload, Proposal};
use wal::{GroupId, Index, Owner, ReplicaId, Term};

fn machine() -> MachineRef {
    Rc::<std::cell::RefCell<Recorder>>::default()
}

/// A group of one voter that leads, everything durable: entry 6 is its first.
fn one_voter(options: DriverOptions) -> Net {
    let mut net = Net::new(1, options);
    net.create(&[1]);
    net.settle();
    assert_eq!(net.leader(), Some(1));
    net
}

fn three_voters() -> Net {
    let mut net = Net::new(3, DriverOptions::default());
    net.create(&[1, 2, 3]);
    net.settle();
    net.node(1).driver.campaign(GROUP);
    net.settle();
    assert_eq!(net.leader(), Some(1));
    net
}

/// The leader's heartbeat tells followers what is committed.
fn heartbeat(net: &mut Net) {
    net.tick(1);
    net.tick(1);
    net.settle();
}

fn data(payload: &[Bytes]) -> Proposal<'_> {
    Proposal { kind: EntryKind::Data, descriptor: Descriptor::default(), payload }
}

fn message(kind: MessageType, from: u64, to: u64) -> Message {
    Message { msg_type: kind as i32, from, to, term: 6, ..Message::default() }
}

fn receive(net: &mut Net, message: Message) {
    let payloads = vec![Bytes::new(); message.entries.len()];
    let to = message.to;
    net.node(to).driver.receive(Incoming { group: GROUP, message, payloads });
}

#[test]
fn all_sole_voters_campaign_in_one_frame() {
    let mut net = Net::new(1, DriverOptions::default());
    let node = net.node(1);
    for group in 1..=100 {
        let owner = Owner { group: GroupId(group), replica: ReplicaId(1) };
        let start = (Index(5), Term(5));
        let replicas = [ReplicaId(1)];
        node.driver
            .create(&mut node.journal, owner, &replicas, start, machine())
            .expect("a new group");
    }
    net.turn(1);
    assert!(net.sync(1));
    net.turn(1);
    assert!(!net.sync(1), "one frame was enough");
    for group in 1..=100 {
        let status = net.node(1).driver.status(GroupId(group)).expect("the group");
        assert!(status.is_leader);
        assert_eq!((status.commit, status.applied), (Index(6), Index(6)));
    }
    assert!(!net.node(1).driver.is_ticking(), "a sole voter that leads needs no ticks");
}

#[test]
fn an_idle_group_is_never_looked_at() {
    let mut net = one_voter(DriverOptions::default());
    assert!(!net.node(1).driver.is_ready());
    for _ in 0..100 {
        net.tick(1);
    }
    assert!(!net.node(1).driver.is_ready());
    assert!(net.node(1).driver.take_effects().is_empty());
}

#[test]
fn a_quiescent_group_neither_ticks_nor_campaigns_until_something_happens() {
    let mut net = three_voters();
    assert!(net.node(1).driver.is_ticking());
    for _ in 0..4 {
        net.tick(1);
        net.settle();
    }
    assert!(net.node(1).driver.is_settled(GROUP), "everyone has everything and knows it");
    for id in 1..=3 {
        net.node(id).driver.quiesce(GROUP);
        assert!(!net.node(id).driver.is_ticking());
    }
    net.trace.clear();
    for _ in 0..100 {
        (1..=3).for_each(|id| net.tick(id));
        net.settle();
    }
    assert_eq!(net.trace, Vec::<String>::new());
    net.propose(1, "a").expect("it still leads");
    net.settle();
    assert!(net.node(1).driver.is_ticking() && net.node(2).driver.is_ticking());
}

#[test]
fn the_payload_is_a_slice_of_the_durable_frame() {
    let mut net = one_voter(DriverOptions::default());
    net.propose(1, "a").expect("it leads");
    net.propose(1, "b").expect("it leads");
    net.settle();
    let machine = net.node(1).machine.clone();
    let machine = machine.borrow();
    let [.., a, b] = &machine.committed[..] else { panic!("two entries") };
    let (Payload::Bytes(a), Payload::Bytes(b)) = (&a.payload, &b.payload) else {
        panic!("in memory")
    };
    assert_eq!((&a[..], &b[..]), (&b"a"[..], &b"b"[..]));
    // Both lie in one frame: a descriptor stands between them, and nothing else.
    assert_eq!(b.as_ptr() as usize - a.as_ptr() as usize, 33);
}

#[test]
fn proposals_are_refused_where_raft_would_panic_or_forward() {
    let mut net = three_voters();
    let payload = [Bytes::from_static(b"x")];
    let refused = net.node(2).driver.propose(GROUP, &data(&payload));
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(ReplicaId(1)) }));
    let refused = net.node(2).driver.propose(GroupId(9), &data(&payload));
    assert_eq!(refused, Err(ProposeError::UnknownGroup));

    // A leader that has just been told of a higher term, before any turn.
    receive(&mut net, Message { term: 7, ..message(MessageType::MsgHeartbeat, 2, 1) });
    assert!(net.node(1).driver.propose(GROUP, &data(&payload)).is_err());
}

#[test]
fn uncommitted_bytes_are_limited_but_one_entry_always_fits() {
    let options = DriverOptions { uncommitted_max_bytes: 10, ..DriverOptions::default() };
    let mut net = one_voter(options);
    net.propose(1, "larger than ten bytes").expect("the first always fits");
    let refused = net.propose(1, "x").expect_err("the limit is reached");
    assert_eq!(refused, ProposeError::TooMuchUncommitted.to_string());
    net.turn(1);
    assert!(net.propose(1, "x").is_err(), "written, not committed");
    net.settle();
    net.propose(1, "12345").expect("committed");
    net.propose(1, "67890").expect("exactly at the limit");
    net.propose(1, "x").expect_err("beyond it");
    net.settle();
    assert_eq!(net.node(1).driver.status(GROUP).expect("the group").uncommitted_bytes, 0);
}

#[test]
fn an_entry_that_no_record_can_hold_is_refused() {
    let options = DriverOptions { entry_max_bytes: 4, ..DriverOptions::default() };
    let mut net = one_voter(options);
    net.propose(1, "1234").expect("fits");
    assert_eq!(net.propose(1, "12345"), Err(ProposeError::TooLarge.to_string()));
    let steps = vec![Bytes::from(vec![0; 161])];
    let kind = EntryKind::Membership;
    let change = Proposal { kind, descriptor: Descriptor::default(), payload: &steps };
    let refused = net.node(1).driver.propose(GROUP, &change);
    assert_eq!(refused, Err(ProposeError::TooLarge));
}

/// raft-rs panics on these; a peer must not be able to make us.
#[test]
fn messages_from_beyond_the_log_are_refused() {
    let mut net = three_voters();
    receive(&mut net, Message { commit: 999, ..message(MessageType::MsgHeartbeat, 1, 2) });
    let append = Message { index: 6, log_term: 1, ..message(MessageType::MsgAppend, 1, 2) };
    receive(&mut net, append);
    receive(&mut net, Message { index: 999, ..message(MessageType::MsgAppendResponse, 2, 1) });
    net.settle();
    let status = net.node(2).driver.status(GROUP).expect("the group");
    assert_eq!((status.last_index, status.leader), (Index(6), Some(ReplicaId(1))));
    net.propose(1, "a").expect("it leads");
    net.settle();
    heartbeat(&mut net);
    assert_eq!(net.committed_texts(2), [(Index(7), "a".to_string())]);
}

#[test]
fn messages_for_another_replica_are_dropped() {
    let mut net = three_voters();
    let other = Message { term: 99, ..message(MessageType::MsgHeartbeat, 1, 77) };
    net.node(2).driver.receive(Incoming { group: GROUP, message: other, payloads: vec![] });
    net.settle();
    assert_eq!(net.node(2).driver.status(GROUP).expect("the group").term, Term(6));
}

/// Proposed, then replaced by a new leader's entry before any turn: the proposer is told.
#[test]
fn a_proposal_that_never_reached_the_log_is_truncated() {
    let mut net = three_voters();
    let (index, _) = net.propose(1, "lost").expect("it leads");
    let empty = chronik_raft::eraftpb::Entry { index: 7, term: 7, ..Default::default() };
    let append = Message {
        term: 7,
        index: 6,
        log_term: 6,
        entries: vec![empty],
        ..message(MessageType::MsgAppend, 2, 1)
    };
    receive(&mut net, append);
    net.turn(1);
    assert_eq!(net.node(1).machine.borrow().truncations, [index]);
}

#[test]
fn a_fenced_replica_takes_no_part() {
    let mut net = three_voters();
    net.propose(1, "a").expect("it leads");
    net.settle();
    let node = net.node(2);
    let mut replica = node.journal.recovered(owner(2));
    replica.entries.pop();
    replica.hard_state.commit = Index(7);
    let mut fresh = Net::new(1, DriverOptions::default());
    let opened = fresh.node(1).driver.open(owner(2), &replica, machine());
    assert!(matches!(opened, Ok(Opened::Fenced(_))), "{opened:?}");
    fresh.node(1).driver.campaign(GROUP);
    let vote =
        Message { term: 9, index: 99, log_term: 9, ..message(MessageType::MsgRequestVote, 1, 2) };
    fresh.node(1).driver.receive(Incoming { group: GROUP, message: vote, payloads: vec![] });
    fresh.settle();
    assert!(fresh.links.is_empty() && fresh.trace.is_empty(), "{:?}", fresh.trace);
    let payload = [Bytes::from_static(b"x")];
    let refused = fresh.node(1).driver.propose(GROUP, &data(&payload));
    assert_eq!(refused, Err(ProposeError::Fenced));
    assert!(fresh.node(1).driver.status(GROUP).is_some_and(|status| status.fence.is_some()));
}

#[test]
fn a_checkpoint_carries_the_application_and_what_raft_needs() {
    let mut net = one_voter(DriverOptions::default());
    net.propose(1, "a").expect("it leads");
    net.settle();
    let node = net.node(1);
    let at = (Index(7), Term(6));
    node.driver.checkpoint(&mut node.journal, GROUP, at, b"application").expect("written");
    net.settle();
    assert_eq!(net.node(1).driver.status(GROUP).expect("the group").entries_in_memory, 0);
    let (index, _, body) = net.node(1).journal.recovered(owner(1)).checkpoint.expect("durable");
    let (head, application) = decode_checkpoint(&body).expect("our own");
    assert_eq!((index, &application[..]), (Index(7), &b"application"[..]));
    assert_eq!((head.hard_state.term, head.hard_state.vote), (Term(6), ReplicaId(1)));
    assert_eq!(head.membership.voters, [1]);
    // From the checkpoint alone.
    assert_eq!(net.crash(1), [Ok(Opened::Running)]);
    net.propose(1, "early").expect_err("not before its term is durable");
    net.settle();
    net.propose(1, "b").expect("it leads again");
    net.settle();
    assert_eq!(net.committed_texts(1), [(Index(9), "b".to_string())]);
}

#[test]
fn a_group_id_is_taken_once_and_a_removed_replica_stays_removed() {
    let mut net = one_voter(DriverOptions::default());
    let node = net.node(1);
    let start = (Index(5), Term(5));
    let again = node.driver.create(&mut node.journal, owner(1), &[ReplicaId(1)], start, machine());
    assert_eq!(again, Err(OpenError::Exists(owner(1))));
    let other = Owner { replica: ReplicaId(2), ..owner(1) };
    assert_eq!(node.driver.remove(&mut node.journal, other), Ok(None));
    assert!(matches!(node.driver.remove(&mut node.journal, owner(1)), Ok(Some(_))));
    assert_eq!(node.driver.status(GROUP), None);
    net.settle();
    assert_eq!(net.crash(1), [Err(OpenError::Removed(owner(1)).to_string())]);
}

#[test]
fn a_failed_journal_ends_the_turn() {
    let mut net = one_voter(DriverOptions::default());
    net.propose(1, "a").expect("it leads");
    let node = net.node(1);
    node.journal.failed = true;
    assert!(node.driver.turn(&mut node.journal).is_err());
}

/// Append messages are limited by the payloads beside them, which raft-rs never sees.
#[test]
fn large_payloads_are_spread_over_messages() {
    let options = DriverOptions { message_max_bytes: 10, ..DriverOptions::default() };
    let mut net = Net::new(3, options);
    net.create(&[1, 2, 3]);
    net.settle();
    net.node(1).driver.campaign(GROUP);
    net.settle();
    for payload in ["12345678", "9", "abcdefgh", "0123456789012"] {
        net.propose(1, payload).expect("it leads");
    }
    net.trace.clear();
    net.turn(1);
    let sent: Vec<&String> = net.trace.iter().filter(|line| line.starts_with("1->2")).collect();
    assert_eq!(
        sent,
        [
            "1->2 Append term 6 after 6/6 [7/6 8/6] commit 6",
            "1->2 Append term 6 after 8/6 [9/6] commit 6",
            "1->2 Append term 6 after 9/6 [10/6] commit 6",
        ]
    );
    net.settle();
    heartbeat(&mut net);
    assert_eq!(net.committed_texts(3).len(), 4);
}
