//! One replica of one partition, on the shard that owns it.
//!
//! It ties four things together and keeps their invariants: the Raft group (which decides what
//! is committed), the partition log (which keeps what is committed readable), the producer
//! states (which make retries harmless) and the requests that wait for either.
//!
//! Everything here is synchronous: the group driver calls it through [`raft::Machine`], request
//! handlers through the methods of [`Partition`]. It never reads a clock and never waits; time is
//! an argument, waiting is a [`rt::local::oneshot`] that the handler awaits.
//!
//! ```text
//! log_start <= high_watermark <= next_offset        (offsets)
//! committed_index <= last proposed index            (Raft indexes)
//! ```

mod append;
pub mod control;
mod machine;
pub mod producers;
pub mod staging;
mod waiters;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use raft::Groups;
use wal::{Index, Owner, Term};

pub use append::{AppendError, Appended, Full};
pub use waiters::{Outcome, Wait};

use crate::config::TopicConfig;
use crate::log::{Offset, PartitionLog};
use crate::meta::TopicId;
use crate::stats::Traffic;
use crate::storage::segment_config;
use producers::ProducerStates;
use waiters::Waiters;

/// A partition as its shard shares it between the driver and the handlers.
pub type PartitionRef = Rc<RefCell<Partition>>;

/// Which partition of which topic this is, and which replica of it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub topic_id: TopicId,
    pub topic: Arc<str>,
    pub partition: i32,
    pub owner: Owner,
}

pub struct Partition {
    identity: Identity,
    groups: Groups,
    config: Arc<TopicConfig>,
    log: PartitionLog,
    producers: ProducerStates,
    leadership: Leadership,
    /// The offset that the next record gets: the end of the log, uncommitted records included.
    next_offset: i64,
    committed_index: Index,
    persisted_index: Index,
    waiters: Waiters,
    traffic: Traffic,
    /// Set when the topic is deleted: everything that waits, and everything later, is refused.
    deleted: bool,
}

/// Who leads this partition, as far as this replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leadership {
    /// Somebody else does, or nobody.
    Follower { term: Term },
    /// This replica was elected, and has not yet committed an entry of its own term: what
    /// earlier leaders acknowledged may still be uncommitted here (design 4.3).
    Elected { term: Term, first_index: Index },
    /// This replica leads and its high watermark is at least what any client has seen.
    Leader { term: Term },
}

impl Partition {
    pub fn new(
        groups: &Groups,
        identity: Identity,
        config: Arc<TopicConfig>,
        log: PartitionLog,
        producers: ProducerStates,
    ) -> Partition {
        Partition {
            groups: groups.clone(),
            config,
            next_offset: log.log_end().0,
            committed_index: Index(0),
            persisted_index: Index(0),
            producers,
            leadership: Leadership::Follower { term: Term(0) },
            waiters: Waiters::default(),
            traffic: Traffic::default(),
            deleted: false,
            identity,
            log,
        }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn config(&self) -> &Arc<TopicConfig> {
        &self.config
    }

    /// The log below this partition, for reads; a handle that may be kept across an await.
    pub fn log(&self) -> &PartitionLog {
        &self.log
    }

    /// What this partition counts, for metrics.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// True once this replica leads and knows the high watermark.
    pub fn is_leader(&self) -> bool {
        matches!(self.leadership, Leadership::Leader { .. })
    }

    /// True if this replica was elected, even if it does not know the high watermark yet.
    pub fn leads(&self) -> bool {
        !matches!(self.leadership, Leadership::Follower { .. })
    }

    /// The term in which this replica leads or follows; the leader epoch that clients see.
    pub fn term(&self) -> Term {
        match self.leadership {
            Leadership::Follower { term }
            | Leadership::Elected { term, .. }
            | Leadership::Leader { term } => term,
        }
    }

    pub fn leader_epoch(&self) -> i32 {
        epoch_of(self.term())
    }

    pub fn high_watermark(&self) -> i64 {
        self.log.log_end().0
    }

    /// The first offset that a read_committed consumer may not see. Without transactions this is
    /// the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        self.high_watermark()
    }

    /// Where the largest epoch not above `epoch` ends: (that epoch, end offset); (-1, -1) if
    /// there is no answer (KIP-101).
    pub fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        let end = self.log.epoch_end(epoch, self.leader_epoch(), Offset(self.log_end()));
        end.map_or((-1, -1), |(epoch, end)| (epoch, end.0))
    }

    pub fn log_start(&self) -> i64 {
        self.log.log_start().0
    }

    /// The end of the log, uncommitted records included.
    pub fn log_end(&self) -> i64 {
        self.next_offset
    }

    /// Replaces the topic's configuration; appends and retention follow it from now on.
    pub fn configure(&mut self, config: Arc<TopicConfig>) {
        self.log.set_config(segment_config(&config));
        self.config = config;
    }

    /// Ends everything that waits for this partition: its topic is gone.
    pub fn mark_deleted(&mut self) {
        self.deleted = true;
        self.waiters.fail_all();
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// A wait for the moment at which more can be read than up to `offset`.
    pub fn wait_for_data(&mut self, offset: i64) -> Wait {
        self.waiters.wait_for_data(offset, self.high_watermark(), self.deleted)
    }

    /// A wait for the moment at which this replica leads and knows the high watermark.
    pub fn wait_for_leadership(&mut self) -> Wait {
        self.waiters.wait_for_leadership(self.is_leader())
    }

    /// A wait for the commit of the entry at `index`.
    pub fn wait_for_commit(&mut self, index: Index) -> Wait {
        self.waiters.wait_for_commit(index, self.committed_index)
    }
}

/// A Raft term as the leader epoch on the wire. Terms grow by one per election: 2^31 of them
/// do not happen in the life of a group, and a silent wrap would break every consumer.
pub fn epoch_of(term: Term) -> i32 {
    i32::try_from(term.0).expect("a Raft term beyond 2^31")
}
