//! The broker as the admin handlers see it: metadata, who leads what, where clients find us.

use std::sync::Arc;
use std::time::Duration;

use net::ConnectionContext;
use wal::{GroupId, Term};

use crate::api::{Admin, Host, Leadership, Quorum, SubmitError, Voter};
use crate::broker::{Broker, META_SHARD};
use crate::config::Settings;
use crate::meta::{self, Command, Image, NodeId, Outcome, META_GROUP};
use crate::partition::epoch_of;

impl Admin for Broker {
    fn settings(&self) -> &Settings {
        &self.options().settings
    }

    fn image(&self) -> Arc<Image> {
        Broker::image(self)
    }

    async fn submit(&self, command: Command, timeout: Duration) -> Result<Outcome, SubmitError> {
        let submitted = Broker::submit(self, command);
        match self.shard().timeout(timeout, submitted).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SubmitError::TimedOut),
        }
    }

    fn leadership(&self, group: GroupId) -> Leadership {
        let Some(term) = self.led_in(group) else {
            return Leadership { leader: None, epoch: -1, in_sync: Vec::new() };
        };
        let leader = self.node_id();
        Leadership { leader: Some(leader), epoch: epoch_of(term), in_sync: vec![leader] }
    }

    fn is_alive(&self, node: NodeId) -> bool {
        node == self.node_id()
    }

    fn host(&self, broker: &meta::Broker, context: &ConnectionContext) -> Option<Host> {
        if broker.id != self.node_id() {
            let endpoint = broker.endpoints.first().filter(|endpoint| !endpoint.host.is_empty())?;
            return Some(Host { name: endpoint.host.clone(), port: endpoint.port });
        }
        let options = self.options();
        // Without a name of our own, the address that this client's connection reached works for
        // this client, through containers and tunnels too.
        let reached = || context.local.ip().to_canonical().to_string();
        Some(Host {
            name: options.advertised_addr.clone().unwrap_or_else(reached),
            port: options.advertised_port.unwrap_or_else(|| self.port()),
        })
    }

    fn batch_max_bytes(&self) -> u64 {
        self.options().batch_max_bytes(self.shard().count())
    }

    fn entropy(&self) -> [u8; 16] {
        self.shard().entropy()
    }

    async fn quorum(&self) -> Quorum {
        self.call(META_SHARD, |broker| async move { quorum(&broker) }).await
    }
}

/// The one voter of `__meta`, on the shard where it lives.
fn quorum(broker: &Broker) -> Quorum {
    let node = broker.node_id();
    let now_ms = broker.shard().wall_ms();
    let status = broker.groups().status(META_GROUP);
    let (term, commit, last) = match &status {
        Some(status) => (status.term, status.commit.0, status.last_index.0),
        None => (Term(0), 0, 0),
    };
    let leads = status.is_some_and(|status| status.is_leader);
    let image = broker.image();
    let voter = Voter {
        node,
        directory: image.broker(node).map(|broker| broker.uuid).unwrap_or_default(),
        log_end: last as i64,
        last_fetch_ms: now_ms,
        last_caught_up_ms: now_ms,
    };
    Quorum {
        leader: leads.then_some(node),
        epoch: epoch_of(term),
        high_watermark: commit as i64,
        voters: vec![voter],
        observers: Vec::new(),
    }
}
