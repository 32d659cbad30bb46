//! What comes out of the driver: calls of machines, messages to other replicas.
//!
//! Effects are carried out in order, after the turn that made them, with the driver not borrowed.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use raft_rs::eraftpb::Message;
use wal::{DiskError, Index, Owner, PayloadDurable};

use crate::{Committed, Leadership, Machine};

/// A machine as the driver keeps it.
pub type MachineRef = Rc<RefCell<dyn Machine>>;

/// A call to be made.
#[derive(Debug)]
pub enum Call {
    Leadership(Leadership),
    Truncated(Index),
    Committed(Vec<Committed>),
    Persisted(Index),
}

/// The payload of an entry that a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingPayload {
    Memory(Vec<Bytes>),
    /// To be read from the log before sending ([`crate::Groups::read_payload`]).
    Wal(Index),
}

/// A message to another replica of the group; whatever it promises is durable.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Who sends it; `message.from` is its replica, `message.to` the receiver's.
    pub from: Owner,
    pub message: Message,
    /// One per entry of the message, in order.
    pub payloads: Vec<OutgoingPayload>,
}

/// A payload that an entry waits for. When it answers, `told` is given the answer, and then
/// [`super::Driver::payload_arrived`] is to be called, also if there is no answer.
pub struct Awaited {
    pub owner: Owner,
    pub index: Index,
    pub payload: PayloadDurable,
    pub told: rt::local::oneshot::Sender<Result<(), DiskError>>,
}

/// The effects of a turn.
#[derive(Default)]
pub struct Effects {
    pub calls: Vec<(MachineRef, Call)>,
    pub messages: Vec<Outgoing>,
    pub payloads: Vec<Awaited>,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.messages.is_empty() && self.payloads.is_empty()
    }
}

impl Call {
    /// Makes the call.
    pub fn make(self, machine: &MachineRef) {
        let mut machine = machine.borrow_mut();
        match self {
            Call::Leadership(leadership) => machine.leadership(leadership),
            Call::Truncated(from) => machine.truncated(from),
            Call::Committed(entries) => machine.committed(entries),
            Call::Persisted(index) => machine.persisted(index),
        }
    }
}
