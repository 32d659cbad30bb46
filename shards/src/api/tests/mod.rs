//! The admin handlers against a bare state machine: no broker, no tasks, no disk.

mod configs;
mod describe;
mod groups;
mod topics;
mod versions;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kafka_protocol::messages::{RequestKind, ResponseKind, TopicName};
use kafka_protocol::protocol::StrBytes;
use net::ConnectionContext;
use uuid::Uuid;

use super::{Admin, Host, Leadership, Quorum, SubmitError, Voter};
use crate::config::Settings;
use crate::meta::{
    Broker, Command, Endpoint, GroupId, Image, NodeId, Outcome, State, FEATURE_LEVEL, META_GROUP,
};

/// What the log of the brokers takes.
const BATCH_MAX_BYTES: u64 = 4_000_000;

/// A cluster whose commands take effect at once and whose leaders are the preferred replicas.
struct Cluster {
    state: RefCell<State>,
    settings: Settings,
    dead: BTreeSet<NodeId>,
    /// What submit answers instead of carrying out the command.
    failing: RefCell<Option<SubmitError>>,
    drawn: Cell<u8>,
}

impl Cluster {
    /// Brokers 1 to `nodes`, asked through the first.
    fn of(nodes: i32) -> Cluster {
        let mut state = State::new();
        let cluster_id = Uuid::from_u128(7);
        state.apply(Command::Found { cluster_id, feature_level: FEATURE_LEVEL }, 0).unwrap();
        for node in 1..=nodes {
            let endpoint = Endpoint { name: "PLAINTEXT".into(), host: "h".into(), port: 9092 };
            let command = Command::RegisterBroker {
                node: NodeId(node),
                node_uuid: Uuid::from_u128(node as u128),
                endpoints: vec![endpoint],
                rack: None,
            };
            state.apply(command, 0).unwrap();
        }
        Cluster {
            state: RefCell::new(state),
            settings: Settings::new(NodeId(1)),
            dead: BTreeSet::new(),
            failing: RefCell::new(None),
            drawn: Cell::new(0),
        }
    }

    fn with(mut self, name: &str, value: &str) -> Cluster {
        self.settings = self.settings.with(name, value).unwrap();
        self
    }

    fn ask(&self, version: i16, request: impl Into<RequestKind>) -> ResponseKind {
        run(super::admin::answer(self, &context(), version, request.into())).unwrap()
    }
}

impl Admin for Cluster {
    fn settings(&self) -> &Settings {
        &self.settings
    }
    fn image(&self) -> Arc<Image> {
        self.state.borrow().image()
    }
    async fn submit(&self, command: Command, timeout: Duration) -> Result<Outcome, SubmitError> {
        assert!(timeout > Duration::ZERO, "a request without time must not change anything");
        if let Some(error) = self.failing.borrow().clone() {
            return Err(error);
        }
        let (now_ms, command) = Command::decode(&command.encode(1)).unwrap();
        Ok(self.state.borrow_mut().apply(command, now_ms)?)
    }
    fn leadership(&self, group: GroupId) -> Leadership {
        let image = self.image();
        let nodes: Vec<NodeId> = match image.partition_by_group(group) {
            Some(found) => found.partition.replicas.iter().map(|r| r.node).collect(),
            None if group == META_GROUP => vec![NodeId(1)],
            None => return Leadership { epoch: -1, ..Leadership::default() },
        };
        Leadership { leader: nodes.first().copied(), epoch: 6, in_sync: nodes }
    }
    fn is_alive(&self, node: NodeId) -> bool {
        !self.dead.contains(&node)
    }
    fn host(&self, broker: &Broker, context: &ConnectionContext) -> Option<Host> {
        let port = broker.endpoints.first()?.port;
        Some(Host { name: context.local.ip().to_string(), port })
    }
    fn batch_max_bytes(&self) -> u64 {
        BATCH_MAX_BYTES
    }
    fn entropy(&self) -> [u8; 16] {
        self.drawn.set(self.drawn.get() + 1);
        [self.drawn.get(); 16]
    }
    async fn quorum(&self) -> Quorum {
        let voter = Voter {
            node: NodeId(1),
            directory: Uuid::from_u128(1),
            log_end: 42,
            last_fetch_ms: 5,
            last_caught_up_ms: 5,
        };
        Quorum {
            leader: Some(NodeId(1)),
            epoch: 6,
            high_watermark: 41,
            voters: vec![voter],
            observers: vec![],
        }
    }
}

fn context() -> ConnectionContext {
    let address: SocketAddr = "127.0.0.1:9092".parse().unwrap();
    ConnectionContext { id: 1, peer: address, local: address, software: RefCell::new(None) }
}

/// Runs a future that never waits.
fn run<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

fn name(s: &str) -> TopicName {
    TopicName(text(s))
}
