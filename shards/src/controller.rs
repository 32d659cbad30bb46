//! The driver of `__meta` on shard 0: commands in, images out.
//!
//! A command is proposed to the `__meta` group; when it is committed, the state machine applies
//! it, the new image goes to every shard, every shard confirms that it serves it (and that the
//! partitions which the command created accept appends), and only then is the command answered.
//! So a change is visible everywhere before its client hears of it.
//!
//! The state is kept as a snapshot file plus the log after it. A snapshot never covers a command
//! whose image is not yet confirmed by every shard: a group that `__meta` has created is durable
//! in its shard's WAL before the snapshot that would stop us from creating it again.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use raft::{Committed, Descriptor, EntryKind, Groups, Machine, Payload, Proposal};
use rt::local::{oneshot, Notify};
use rt::Dir;
use thiserror::Error;
use wal::{Index, Term};

use crate::api::SubmitError;
use crate::broker::Broker;
use crate::meta::{Command, Image, MetaError, Outcome, State, META_GROUP};
use crate::node::META_OWNER;

/// A snapshot is written after this many commands.
const SNAPSHOT_COMMANDS: u64 = 512;
/// The kind of control entry that carries a command.
pub(crate) const COMMAND: u8 = 1;
/// Where the snapshot files are, below the data folder.
pub const FOLDER: &str = "meta";

/// What a shard needs to hand a command to the controller, and to wait for it.
#[derive(Clone)]
pub struct Controller {
    inner: Rc<RefCell<Inner>>,
    changed: Notify,
    groups: Groups,
    /// What the checkpoint held when the node started.
    known: Arc<Image>,
}

struct Inner {
    state: State,
    /// Committed, not applied yet.
    committed: VecDeque<Committed>,
    /// Where the log has been applied up to.
    applied: (Index, Term),
    /// Up to here every shard has confirmed the image.
    published: (Index, Term),
    leading: bool,
    own_term_applied: bool,
    term: Term,
    /// Results that wait for their image to be confirmed, by index.
    results: BTreeMap<Index, Result<Outcome, MetaError>>,
    waiting: BTreeMap<Index, oneshot::Sender<Result<Outcome, SubmitError>>>,
    commands_since_snapshot: u64,
    /// Resolved when this node leads `__meta` and has applied all of its log.
    ready: Vec<oneshot::Sender<()>>,
}

impl Controller {
    /// Of a new cluster, or from the snapshot that `checkpoint` names.
    pub async fn open(
        groups: &Groups,
        data: &Dir,
        checkpoint: Option<(Index, Term, Bytes)>,
    ) -> Result<Controller, ControllerError> {
        let (state, applied) = match checkpoint {
            None => (State::new(), (Index(0), Term(0))),
            Some((index, term, app)) => (load(data, &app).await?, (index, term)),
        };
        let known = state.image();
        let inner = Inner {
            state,
            committed: VecDeque::new(),
            applied,
            published: applied,
            leading: false,
            own_term_applied: false,
            term: Term(0),
            results: BTreeMap::new(),
            waiting: BTreeMap::new(),
            commands_since_snapshot: 0,
            ready: Vec::new(),
        };
        Ok(Controller {
            inner: Rc::new(RefCell::new(inner)),
            changed: Notify::new(),
            groups: groups.clone(),
            known,
        })
    }

    /// The part of the controller that the group driver talks to.
    pub fn machine(&self) -> Rc<RefCell<MetaMachine>> {
        let machine = MetaMachine { inner: self.inner.clone(), changed: self.changed.clone() };
        Rc::new(RefCell::new(machine))
    }

    /// Resolves when this node leads `__meta` and has applied all of its log.
    pub async fn ready(&self) {
        let receiver = {
            let mut inner = self.inner.borrow_mut();
            if inner.own_term_applied {
                return;
            }
            let (sender, receiver) = rt::oneshot();
            inner.ready.push(sender);
            receiver
        };
        let _ = receiver.await;
    }

    /// The metadata as it is now.
    pub fn image(&self) -> Arc<Image> {
        self.inner.borrow().state.image()
    }

    /// Proposes `command`; resolves when every shard serves its outcome.
    pub async fn submit(&self, command: Command, now_ms: i64) -> Result<Outcome, SubmitError> {
        let bytes = command.encode(now_ms);
        let payload = [bytes];
        let proposal = Proposal {
            kind: EntryKind::Control(COMMAND),
            descriptor: Descriptor::default(),
            payload: &payload,
        };
        let proposed = self.groups.propose(META_GROUP, proposal);
        let (index, _) = proposed.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
        let (sender, receiver) = rt::oneshot();
        self.inner.borrow_mut().waiting.insert(index, sender);
        let lost = || SubmitError::Unavailable("this node stopped leading it".to_owned());
        receiver.await.map_err(|_| lost())?
    }

    /// Publishes images and writes snapshots for as long as the shard lives.
    pub async fn run(self, broker: Broker, data: Dir) {
        loop {
            self.changed.notified().await;
            self.apply_committed().await;
            // Before its own term is applied, the state may be an old one: a shard that took it
            // for the truth would remove groups that were created since.
            if !self.inner.borrow().own_term_applied {
                continue;
            }
            self.publish(&broker).await;
            if self.inner.borrow().commands_since_snapshot >= SNAPSHOT_COMMANDS {
                if let Err(error) = self.snapshot(&broker, &data).await {
                    tracing::warn!("the metadata snapshot was not written: {error}");
                }
            }
        }
    }

    async fn apply_committed(&self) {
        loop {
            let Some(entry) = self.inner.borrow_mut().committed.pop_front() else { return };
            let payload = match entry.kind {
                EntryKind::Control(COMMAND) => Some(self.payload(&entry).await),
                _ => None,
            };
            self.inner.borrow_mut().apply(&entry, payload.as_ref());
        }
    }

    async fn payload(&self, entry: &Committed) -> Bytes {
        if let Payload::Bytes(bytes) = &entry.payload {
            return bytes.clone();
        }
        match self.groups.read_payload(META_OWNER, entry.index).await {
            Ok(Some(bytes)) => bytes,
            // Only our own checkpoint can pass an entry, and it waits for its application.
            Ok(None) => panic!("metadata entry {} is not in the log", entry.index.0),
            Err(error) => panic!("metadata entry {}: {error}", entry.index.0),
        }
    }

    async fn publish(&self, broker: &Broker) {
        let (image, upto, results) = {
            let mut inner = self.inner.borrow_mut();
            let results = std::mem::take(&mut inner.results);
            (inner.state.image(), inner.applied, results)
        };
        broker.install_everywhere(image, self.known.clone()).await;
        let mut inner = self.inner.borrow_mut();
        inner.published = upto;
        for (index, result) in results {
            if let Some(sender) = inner.waiting.remove(&index) {
                let _ = sender.send(result.map_err(SubmitError::Refused));
            }
        }
    }

    /// Writes the published state as a snapshot file and makes it the group's checkpoint.
    pub async fn snapshot(&self, broker: &Broker, data: &Dir) -> Result<(), ControllerError> {
        let (index, term, bytes) = {
            let inner = self.inner.borrow();
            if inner.published != inner.applied {
                // A later turn has a state that every shard confirmed.
                return Ok(());
            }
            (inner.applied.0, inner.applied.1, inner.state.snapshot())
        };
        let folder = broker.shard().create_dir(data.path().join(FOLDER)).await?;
        let name = file_name(index);
        folder.replace(&name, &bytes).await?;
        let log = |error: String| ControllerError::Log(error);
        let frame = self.groups.checkpoint(META_GROUP, index, term, name.as_bytes());
        if let Some(frame) = frame.map_err(|error| log(error.to_string()))? {
            let durable = self.groups.wait_durable(frame).await;
            durable.map_err(|error| log(error.to_string()))?;
        }
        self.inner.borrow_mut().commands_since_snapshot = 0;
        for entry in folder.list().await? {
            if entry.name != name {
                folder.unlink(&entry.name).await?;
            }
        }
        Ok(())
    }
}

fn file_name(index: Index) -> String {
    format!("{:020}.snapshot", index.0)
}

/// The state of the snapshot file that a checkpoint names.
pub(crate) async fn load(data: &Dir, app: &Bytes) -> Result<State, ControllerError> {
    let name = String::from_utf8(app.to_vec())
        .map_err(|_| ControllerError::Damaged("its checkpoint names no file".to_owned()))?;
    let folder = data.open_subdir(FOLDER).await?;
    let bytes = folder.read(&name).await?;
    State::restore(&bytes).map_err(|error| ControllerError::Damaged(error.to_string()))
}

/// The metadata cannot be read or kept.
#[derive(Debug, Error)]
pub enum ControllerError {
    #[error("metadata snapshot: {0}")]
    Io(#[from] std::io::Error),
    #[error("the metadata snapshot is damaged: {0}")]
    Damaged(String),
    #[error("metadata log: {0}")]
    Log(String),
}

/// The state machine as the group driver sees it.
pub struct MetaMachine {
    inner: Rc<RefCell<Inner>>,
    changed: Notify,
}

impl Machine for MetaMachine {
    fn leadership(&mut self, change: raft::Leadership) {
        let mut inner = self.inner.borrow_mut();
        inner.leading = change.is_leader;
        inner.own_term_applied = false;
        inner.term = change.term;
        if !change.is_leader {
            // Dropping the senders tells the submitters that the outcome is unknown.
            inner.waiting.clear();
        }
    }

    fn truncated(&mut self, from: Index) {
        self.inner.borrow_mut().waiting.split_off(&from);
    }

    fn persisted(&mut self, _: Index) {}

    fn committed(&mut self, entries: Vec<Committed>) {
        self.inner.borrow_mut().committed.extend(entries);
        self.changed.notify_one();
    }
}

impl Inner {
    /// Applies one committed entry; `payload` is that of a control entry.
    fn apply(&mut self, entry: &Committed, payload: Option<&Bytes>) {
        if let Some(bytes) = payload {
            let (now_ms, command) = match Command::decode(bytes) {
                Ok(decoded) => decoded,
                // Committed by a newer version, or not by us: going on would fork the state.
                Err(error) => panic!("metadata entry {}: {error}", entry.index.0),
            };
            let result = self.state.apply(command, now_ms);
            self.results.insert(entry.index, result);
            self.commands_since_snapshot += 1;
        }
        self.applied = (entry.index, entry.term);
        if self.leading && entry.term == self.term && !self.own_term_applied {
            self.own_term_applied = true;
            for sender in self.ready.drain(..) {
                let _ = sender.send(());
            }
        }
    }
}
