//! Drivers over logs and links in memory, for the tests beside this folder.
//!
//! A node is a driver, a journal and the machines of its groups. Its fault model: a frame becomes
//! durable only when the test says so, in order; a crash loses every frame that was not durable
//! and all memory. Links keep their order; messages are lost only where the test says so. Every
//! message passes through the transport's bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use chronik_raft::driver::{
    Broken, Call, Driver, DriverOptions, Effects, Journal, JournalError, Opened, Outgoing,
    OutgoingPayload, Placed,
};
use chronik_raft::eraftpb::{Message, MessageType};
use chronik_raft::{
    payload_of, transport, Committed, Descriptor, EntryKind, Leadership, Machine, Payload, Proposal,
};
use wal::{
    FileSequence, FrameNumber, GroupId, HardState, Index, Location, Owner, PayloadDurable,
    RecordRef, RecoveredEntry, RecoveredReplica, ReplicaId, Term,
};

pub const GROUP: GroupId = GroupId(1);

/// A record as the journal in memory keeps it.
#[derive(Debug, Clone)]
enum Record {
    Append { owner: Owner, index: Index, term: Term, body: Bytes, location: Location },
    Truncate { owner: Owner, from: Index },
    HardState { owner: Owner, state: HardState },
    Membership { owner: Owner, index: Index, term: Term, body: Bytes },
    Checkpoint { owner: Owner, index: Index, term: Term, body: Bytes },
    Tombstone { owner: Owner },
}

/// A log in memory. A location's file is a frame number, its position the one in the frame.
#[derive(Default)]
pub struct MemoryJournal {
    /// The bytes of durable frames.
    durable: Vec<Bytes>,
    /// Frames on their way to the disk, oldest first.
    in_flight: VecDeque<(Vec<Record>, Bytes)>,
    gathering: (Vec<Record>, Vec<u8>),
    /// What a recovery would find now.
    replicas: BTreeMap<Owner, RecoveredReplica>,
    pub failed: bool,
    /// What was written since this was last taken, as text.
    trace: Vec<String>,
}

impl MemoryJournal {
    /// The frame being gathered.
    fn number(&self) -> FrameNumber {
        FrameNumber((self.durable.len() + self.in_flight.len()) as u64 + 1)
    }

    /// Ends the frame being gathered; it is on its way to the disk. `false` if it is empty.
    pub fn seal(&mut self) -> bool {
        if self.gathering.0.is_empty() {
            return false;
        }
        let (records, bytes) = std::mem::take(&mut self.gathering);
        self.in_flight.push_back((records, bytes.into()));
        true
    }

    /// The oldest frame becomes durable; the gathering one is sealed if no other is in flight.
    fn sync(&mut self) -> Option<(FrameNumber, Bytes)> {
        if self.in_flight.is_empty() && !self.seal() {
            return None;
        }
        let (records, bytes) = self.in_flight.pop_front()?;
        self.durable.push(bytes.clone());
        records.into_iter().for_each(|record| self.apply(record));
        Some((FrameNumber(self.durable.len() as u64), bytes))
    }

    fn crash(&mut self) {
        self.gathering = Default::default();
        self.in_flight.clear();
        self.trace.clear();
    }

    fn body(&self, location: Location) -> Bytes {
        let bytes = &self.durable[location.file.0 as usize - 1];
        let start = location.position as usize;
        bytes.slice(start..start + location.length as usize)
    }

    /// What a recovery would find of a replica.
    pub fn recovered(&self, owner: Owner) -> RecoveredReplica {
        self.replicas.get(&owner).cloned().unwrap_or_default()
    }

    fn apply(&mut self, record: Record) {
        let replicas = &mut self.replicas;
        match record {
            Record::Append { owner, index, term, body, location } => {
                let entries = &mut replicas.entry(owner).or_default().entries;
                entries.retain(|entry| entry.index < index);
                let prefix = body.slice(..body.len().min(wal::PREFIX_BYTES));
                entries.push(RecoveredEntry { index, term, prefix, location, pointer: false });
            }
            Record::Truncate { owner, from } => {
                replicas.entry(owner).or_default().entries.retain(|entry| entry.index < from);
            }
            Record::HardState { owner, state } => {
                replicas.entry(owner).or_default().hard_state = state;
            }
            Record::Membership { owner, index, term, body } => {
                replicas.entry(owner).or_default().membership = Some((index, term, body));
            }
            Record::Checkpoint { owner, index, term, body } => {
                let replica = replicas.entry(owner).or_default();
                replica.checkpoint = Some((index, term, body));
                replica.entries.retain(|entry| entry.index > index);
            }
            Record::Tombstone { owner } => {
                let tombstone = true;
                replicas.insert(owner, RecoveredReplica { tombstone, ..Default::default() });
            }
        }
    }

    /// The term of a durable entry; `None` if there is none. Below the checkpoint all is well.
    fn durable_term(&self, owner: Owner, index: Index) -> Option<Term> {
        let replica = self.replicas.get(&owner)?;
        let entry = replica.entries.iter().find(|entry| entry.index == index);
        let checkpoint = replica.checkpoint.as_ref().filter(|(at, ..)| *at >= index);
        entry.map(|entry| entry.term).or(checkpoint.map(|(_, term, _)| *term))
    }

    /// Term and vote that a recovery would find, from the hard state or the checkpoint.
    fn durable_vote(&self, owner: Owner) -> (Term, ReplicaId) {
        let replica = self.recovered(owner);
        let checkpoint = replica.checkpoint.as_ref().map(|(_, _, body)| {
            let (head, _) = chronik_raft::decode_checkpoint(body).expect("our own checkpoint");
            (head.hard_state.term, head.hard_state.vote)
        });
        let record = (replica.hard_state.term, replica.hard_state.vote);
        record.max(checkpoint.unwrap_or_default())
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, record: RecordRef<'_>) -> Result<Placed, JournalError> {
        if self.failed {
            return Err(JournalError::Failed("the test broke it".into()));
        }
        let frame = self.number();
        let (records, bytes) = &mut self.gathering;
        let position = bytes.len() as u32;
        let mut put = |slices: &[&[u8]]| {
            slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            Bytes::from(slices.concat())
        };
        let (record, text) = match record {
            RecordRef::Append { owner, index, term, body } => {
                let body = put(body);
                let (position, length) = (u64::from(position), body.len() as u32);
                let location = Location { file: FileSequence(frame.0), position, length };
                let text = format!("append {index}/{term} {}", text(&payload_of(&body)));
                (Record::Append { owner, index, term, body, location }, text)
            }
            RecordRef::Truncate { owner, from, term: _ } => {
                (Record::Truncate { owner, from }, format!("truncate from {from}"))
            }
            RecordRef::HardState { owner, state } => {
                let HardState { term, vote, commit } = state;
                let text = format!("hard state term {term} vote {vote} commit {commit}");
                (Record::HardState { owner, state }, text)
            }
            RecordRef::Membership { owner, index, term, body } => {
                let body = put(body);
                (Record::Membership { owner, index, term, body }, format!("membership {index}"))
            }
            RecordRef::Checkpoint { owner, index, term, body } => {
                let body = put(body);
                (
                    Record::Checkpoint { owner, index, term, body },
                    format!("checkpoint {index}/{term}"),
                )
            }
            RecordRef::Tombstone { owner } => (Record::Tombstone { owner }, "tombstone".into()),
            other @ RecordRef::Pointer { .. } => panic!("the driver does not write {other:?}"),
        };
        let length = bytes.len() as u32 - position;
        records.push(record);
        self.trace.push(text.trim_end().to_string());
        let location =
            Location { file: FileSequence(frame.0), position: u64::from(position), length };
        Ok(Placed { frame, position, location })
    }

    fn append_pointer(
        &mut self,
        record: RecordRef<'_>,
        _: PayloadDurable,
    ) -> Result<Placed, JournalError> {
        panic!("no group here has a staging area: {record:?}")
    }
}

/// A payload as scenarios show it.
pub fn text(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => String::new(),
        1..=40 => format!("{:?}", String::from_utf8_lossy(bytes)),
        long => format!("{long} bytes"),
    }
}

/// A machine that remembers what it was told.
#[derive(Default)]
pub struct Recorder {
    pub committed: Vec<Committed>,
    pub leadership: Option<Leadership>,
    pub truncations: Vec<Index>,
    pub persisted: Index,
    trace: Vec<String>,
}

impl Machine for Recorder {
    fn leadership(&mut self, leadership: Leadership) {
        let Leadership { term, leader, is_leader, first_index } = leadership;
        self.leadership = Some(leadership);
        self.trace.push(match (is_leader, leader, first_index) {
            (true, _, Some(first)) => format!("leads term {term} from {first}"),
            (true, _, None) => "leads without a first index".into(),
            (false, Some(leader), _) => format!("follows {leader} in term {term}"),
            (false, None, _) => format!("no leader in term {term}"),
        });
    }

    fn truncated(&mut self, from: Index) {
        self.truncations.push(from);
        self.trace.push(format!("truncated from {from}"));
    }

    fn committed(&mut self, entries: Vec<Committed>) {
        for entry in entries {
            let expected = self.committed.last().map(|last| last.index.next());
            assert!(expected.is_none_or(|expected| expected == entry.index), "{entry:?}");
            let payload = match &entry.payload {
                Payload::Bytes(bytes) => text(bytes),
                Payload::Wal { prefix } => format!("in the log {}", text(prefix)),
            };
            let Committed { index, term, .. } = entry;
            let line = format!("committed {index}/{term} {payload}");
            self.trace.push(line.trim_end().to_string());
            self.committed.push(entry);
        }
    }

    fn persisted(&mut self, index: Index) {
        self.persisted = index;
        self.trace.push(format!("persisted {index}"));
    }
}

/// A node.
pub struct Node {
    pub driver: Driver,
    pub journal: MemoryJournal,
    pub machine: Rc<RefCell<Recorder>>,
    options: DriverOptions,
    seed: u64,
    pub broken: Broken,
}

/// Nodes and the links between them.
pub struct Net {
    pub nodes: BTreeMap<u64, Node>,
    /// Promises that were made before they were durable.
    pub violations: Vec<String>,
    pub links: VecDeque<Bytes>,
    pub isolated: Vec<u64>,
    pub trace: Vec<String>,
}

fn generator(seed: u64) -> Box<dyn FnMut() -> u64> {
    let mut state = seed;
    Box::new(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    })
}

pub fn owner(node: u64) -> Owner {
    Owner { group: GROUP, replica: ReplicaId(node) }
}

impl Net {
    /// Nodes 1 to `count`, without groups.
    pub fn new(count: u64, options: DriverOptions) -> Net {
        let node = |id: u64| Node {
            driver: Driver::new(options, generator(id)),
            journal: MemoryJournal::default(),
            machine: Rc::default(),
            options,
            seed: id,
            broken: Broken::default(),
        };
        Net {
            nodes: (1..=count).map(|id| (id, node(id))).collect(),
            links: VecDeque::new(),
            isolated: Vec::new(),
            violations: Vec::new(),
            trace: Vec::new(),
        }
    }

    /// Creates the group on every voter, at 5/5.
    pub fn create(&mut self, voters: &[u64]) {
        voters.iter().for_each(|id| self.create_on(*id, voters));
    }

    /// Creates the group of these voters on one node.
    pub fn create_on(&mut self, id: u64, voters: &[u64]) {
        let replicas: Vec<ReplicaId> = voters.iter().copied().map(ReplicaId).collect();
        let node = self.node(id);
        let start = (Index(5), Term(5));
        let machine = node.machine.clone();
        node.driver
            .create(&mut node.journal, owner(id), &replicas, start, machine)
            .expect("a new group");
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the test")
    }

    pub fn propose(&mut self, id: u64, payload: &str) -> Result<(Index, Term), String> {
        let payload = [Bytes::copy_from_slice(payload.as_bytes())];
        let descriptor = Descriptor { records: 1, ..Descriptor::default() };
        let proposal = Proposal { kind: EntryKind::Data, descriptor, payload: &payload };
        self.node(id).driver.propose(GROUP, &proposal).map_err(|error| error.to_string())
    }

    /// One turn of a node's driver; its effects are carried out.
    pub fn turn(&mut self, id: u64) {
        let node = self.node(id);
        node.driver.turn(&mut node.journal).expect("the journal works");
        self.effects(id);
    }

    /// What was gathered becomes durable, without a turn.
    pub fn sync(&mut self, id: u64) -> bool {
        let node = self.node(id);
        let Some((frame, bytes)) = node.journal.sync() else { return false };
        node.driver.durable(frame, &bytes);
        self.trace.push(format!("{id} durable {frame}"));
        self.effects(id);
        true
    }

    fn effects(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node of the test");
        let written = std::mem::take(&mut node.journal.trace);
        let Effects { calls, messages, payloads } = node.driver.take_effects();
        assert!(payloads.is_empty(), "no group here has a staging area");
        for (machine, call) in calls {
            self.violations.extend(judge_call(&node.journal, id, &call));
            call.make(&machine);
        }
        let told = std::mem::take(&mut node.machine.borrow_mut().trace);
        self.trace.extend(written.into_iter().map(|line| format!("{id} writes {line}")));
        self.trace.extend(told.into_iter().map(|line| format!("{id} {line}")));
        for message in messages {
            self.violations.extend(judge_message(&node.journal, &message));
            let (text, frame) = encode(&node.journal, message);
            self.trace.push(text);
            self.links.push_back(frame);
        }
    }

    /// Delivers one message; `false` if there is none.
    pub fn deliver(&mut self) -> bool {
        let Some(frame) = self.links.pop_front() else { return false };
        let route = transport::route(&frame).expect("our own frame");
        if self.isolated.contains(&route.from.0) || self.isolated.contains(&route.to.0) {
            return true;
        }
        let incoming = transport::decode(&frame).unwrap_or_else(|error| {
            let tail = &self.trace[self.trace.len().saturating_sub(40)..];
            panic!("our own frame is refused: {error}\n{}", tail.join("\n"))
        });
        if let Some(node) = self.nodes.get_mut(&route.to.0) {
            node.driver.receive(incoming);
        }
        true
    }

    /// Runs everything until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            let mut idle = true;
            for id in ids {
                if self.node(id).driver.is_ready() {
                    self.turn(id);
                    idle = false;
                }
                idle &= !self.sync(id);
            }
            while self.deliver() {
                idle = false;
            }
            if idle {
                return;
            }
        }
        panic!("the nodes do not come to rest");
    }

    /// One tick of every group on a node.
    pub fn tick(&mut self, id: u64) {
        for _ in 0..chronik_raft::driver::TICK_SLOTS {
            self.node(id).driver.tick();
        }
    }

    /// The node loses what was not durable, and starts again from its log.
    pub fn crash(&mut self, id: u64) -> Vec<Result<Opened, String>> {
        let node = self.node(id);
        node.journal.crash();
        node.seed += 1000;
        node.driver = Driver::new(node.options, generator(node.seed));
        node.driver.set_broken(node.broken);
        node.machine = Rc::default();
        node.journal
            .replicas
            .iter()
            .map(|(owner, replica)| {
                let machine = node.machine.clone();
                node.driver.open(*owner, replica, machine).map_err(|error| error.to_string())
            })
            .collect()
    }

    /// The records that a node's machine was given, those in the log read back.
    pub fn committed_texts(&mut self, id: u64) -> Vec<(Index, String)> {
        let node = self.node(id);
        let machine = node.machine.borrow();
        let bytes = |entry: &Committed| match &entry.payload {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Wal { .. } => payload_of(&node.journal.body(entry.location)),
        };
        let text = |entry: &Committed| String::from_utf8_lossy(&bytes(entry)).into_owned();
        let data = machine.committed.iter().filter(|entry| entry.kind == EntryKind::Data);
        data.map(|entry| (entry.index, text(entry))).collect()
    }

    pub fn leader(&mut self) -> Option<u64> {
        let leads = |node: &Node| node.driver.status(GROUP).is_some_and(|status| status.is_leader);
        self.nodes.iter().find(|(_, node)| leads(node)).map(|(id, _)| *id)
    }
}

/// What the machine is told must be durable on its node.
fn judge_call(journal: &MemoryJournal, id: u64, call: &Call) -> Option<String> {
    let owner = owner(id);
    match call {
        Call::Committed(entries) => entries.iter().find_map(|entry| {
            let durable = journal.durable_term(owner, entry.index);
            let checkpoint = journal.recovered(owner).checkpoint.map(|(index, ..)| index);
            let below = checkpoint.is_some_and(|checkpoint| entry.index <= checkpoint);
            (!below && durable != Some(entry.term))
                .then(|| format!("{id} committed {} before it was durable", entry.index))
        }),
        Call::Persisted(index) => journal
            .durable_term(owner, *index)
            .is_none()
            .then(|| format!("{id} persisted {index} before it was durable")),
        Call::Leadership(leadership) => {
            let (term, _) = journal.durable_vote(owner);
            (leadership.is_leader && term < leadership.term)
                .then(|| format!("{id} leads term {} before it is durable", leadership.term))
        }
        Call::Truncated(_) => None,
    }
}

/// Whatever a message promises must be durable on its sender.
fn judge_message(journal: &MemoryJournal, outgoing: &Outgoing) -> Option<String> {
    let Message { to, term, index, reject, .. } = outgoing.message;
    let kind = outgoing.message.msg_type();
    let (durable_term, durable_vote) = journal.durable_vote(outgoing.from);
    let line = describe(&outgoing.message);
    match kind {
        MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => None,
        _ if term > durable_term.0 => Some(format!("{line}: the term is not durable")),
        MessageType::MsgRequestVoteResponse if !reject => {
            let kept = term < durable_term.0 || durable_vote.0 == to;
            (!kept).then(|| format!("{line}: the vote is not durable"))
        }
        MessageType::MsgAppendResponse if !reject => {
            // A later Ready of the same turn may have cut the entry; then the term is higher.
            let kept = index == 0 || journal.durable_term(outgoing.from, Index(index)).is_some();
            (!kept && term == durable_term.0).then(|| format!("{line}: the entry is not durable"))
        }
        _ => None,
    }
}

/// A message as its line in the trace, and as bytes.
fn encode(journal: &MemoryJournal, outgoing: Outgoing) -> (String, Bytes) {
    let Outgoing { from, message, payloads } = outgoing;
    let payloads: Vec<Vec<Bytes>> = payloads
        .into_iter()
        .map(|payload| match payload {
            OutgoingPayload::Memory(slices) => slices,
            OutgoingPayload::Wal(index) => {
                let replica = journal.recovered(from);
                let entry = replica.entries.iter().find(|entry| entry.index == index);
                vec![payload_of(&journal.body(entry.expect("in the log").location))]
            }
        })
        .collect();
    let frame = transport::encode(from.group, &message, &payloads).concat();
    (describe(&message), frame.into())
}

fn describe(message: &Message) -> String {
    let Message { from, to, term, index, log_term, commit, reject, .. } = message;
    let kind = format!("{:?}", message.msg_type());
    let kind = kind.trim_start_matches("Msg");
    let mut line = format!("{from}->{to} {kind} term {term}");
    match message.msg_type() {
        MessageType::MsgAppend => {
            let entries: Vec<String> = message
                .entries
                .iter()
                .map(|entry| format!("{}/{}", entry.index, entry.term))
                .collect();
            line += &format!(" after {index}/{log_term} [{}] commit {commit}", entries.join(" "));
        }
        MessageType::MsgAppendResponse | MessageType::MsgRequestVote => {
            line += &format!(" index {index}");
        }
        MessageType::MsgHeartbeat => line += &format!(" commit {commit}"),
        _ => {}
    }
    if *reject {
        line += " rejected";
    }
    line
}
