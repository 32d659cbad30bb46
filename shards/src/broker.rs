//! One shard of the broker: what it owns, and how the rest reaches it.
//!
//! A [`Broker`] is a handle that handlers, connections and background tasks of the shard share.
//! It owns the shard's partitions, its Raft groups, its log storage and its ends of the rings to
//! the other shards. Shard 0 also runs the controller of `__meta`.
//!
//! Partitions are placed by their group: group id modulo the number of shards. `__meta` is group
//! 0, so it lives on shard 0.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use raft::Groups;
use rt::{Dir, Notify, Shard, ShardId};
use wal::{GroupId, Term, Wal};

use crate::api::init_producer_id::IdBlock;
use crate::api::SubmitError;
use crate::backlog::Backlog;
use crate::census::ConnectionLimits;
use crate::config::{BrokerConfig, BrokerView, TopicConfig};
use crate::controller::Controller;
use crate::fetch::sessions::Sessions;
use crate::groups::runtime::Coordinators;
use crate::meta::{Command, Image, NodeId, Outcome, TopicId, META_GROUP};
use crate::offsets::groups_config;
use crate::options::Options;
use crate::partition::PartitionRef;
use crate::placement::Placement;
use crate::router::{CallFuture, Router};
use crate::stats::Stats;

/// The shard on which `__meta` lives.
pub const META_SHARD: ShardId = ShardId(0);

#[derive(Clone)]
pub struct Broker {
    inner: Rc<Inner>,
}

/// What a broker is made of; see [`crate::node`] for how it is put together.
pub struct Parts {
    pub shard: Shard,
    pub options: Arc<Options>,
    pub router: Router<Broker>,
    pub groups: Groups,
    pub placement: Placement,
    pub data: Dir,
    pub wal: Wal,
    /// On shard 0 only.
    pub controller: Option<Controller>,
}

struct Inner {
    parts: Parts,
    image: RefCell<Arc<Image>>,
    /// Groups that this node leads, on all shards, with their terms.
    led: RefCell<BTreeMap<GroupId, Term>>,
    topic_configs: RefCell<BTreeMap<TopicId, Arc<TopicConfig>>>,
    /// The broker's configuration as that image has it.
    config: RefCell<Rc<BrokerConfig>>,
    sessions: RefCell<Sessions>,
    producer_ids: RefCell<IdBlock>,
    stats: Stats,
    network: net::Network,
    coordinators: Coordinators,
    backlog: Backlog,
    /// The port that clients reach this node at, once it is bound.
    port: Cell<u16>,
    /// Set while the disk has too little space left for more records.
    disk_full: Cell<bool>,
    stopping: Cell<bool>,
    stopped: Notify,
}

impl Broker {
    pub fn new(parts: Parts) -> Broker {
        let image = Arc::new(Image::empty());
        let config = BrokerConfig::resolve(&parts.options.settings, &image);
        let slots = config.fetch_sessions_max as usize / usize::from(parts.shard.count());
        let shares = u64::from(parts.shard.count());
        let request_memory_bytes = parts.options.request_memory_bytes / shares;
        let network =
            net::Network::new(limits(&config, &parts.options), request_memory_bytes as usize);
        let inner = Inner {
            image: RefCell::new(image),
            led: RefCell::new(BTreeMap::new()),
            topic_configs: RefCell::new(BTreeMap::new()),
            sessions: RefCell::new(Sessions::new(slots.max(1))),
            producer_ids: RefCell::new(0..0),
            stats: Stats::default(),
            network,
            coordinators: Coordinators::new(&parts.shard, groups_config(&config)),
            // The rest is for requests that do not wait for the log.
            backlog: Backlog::new(request_memory_bytes / 4),
            config: RefCell::new(Rc::new(config)),
            port: Cell::new(0),
            disk_full: Cell::new(false),
            stopping: Cell::new(false),
            stopped: Notify::new(),
            parts,
        };
        Broker { inner: Rc::new(inner) }
    }

    pub fn shard(&self) -> &Shard {
        &self.inner.parts.shard
    }

    pub fn options(&self) -> &Arc<Options> {
        &self.inner.parts.options
    }

    pub fn node_id(&self) -> NodeId {
        self.options().settings.node()
    }

    pub fn groups(&self) -> &Groups {
        &self.inner.parts.groups
    }

    pub fn placement(&self) -> &Placement {
        &self.inner.parts.placement
    }

    pub fn stats(&self) -> &Stats {
        &self.inner.stats
    }

    /// The metadata that this shard serves.
    pub fn image(&self) -> Arc<Image> {
        self.inner.image.borrow().clone()
    }

    /// The broker's configuration in force.
    pub fn config(&self) -> Rc<BrokerConfig> {
        self.inner.config.borrow().clone()
    }

    /// How many connections may come, by configuration and by what the process may open.
    pub fn connection_limits(&self) -> ConnectionLimits {
        let (config, ceiling) = (self.config(), self.options().connections_ceiling);
        let unlimited = i32::MAX as u32;
        ConnectionLimits {
            total_max: config.connections_max.min(ceiling),
            per_address_max: match config.connections_per_address_max {
                // One address cannot shut out all others, unless the operator says so.
                max if max == unlimited => (ceiling / 2).max(1),
                max => max,
            },
            overrides: config.connections_per_address_overrides.clone(),
            rate_max: config.connection_rate_max,
        }
    }

    pub fn sessions(&self) -> &RefCell<Sessions> {
        &self.inner.sessions
    }

    pub fn producer_ids(&self) -> &RefCell<IdBlock> {
        &self.inner.producer_ids
    }

    /// The shard that owns a group.
    pub fn shard_of(&self, group: GroupId) -> ShardId {
        shard_of(group, self.shard().count())
    }

    /// A partition that this shard owns.
    pub fn partition(&self, group: GroupId) -> Option<PartitionRef> {
        self.placement().partition(group)
    }

    /// Runs `call` on another shard (or this one); see [`Router::call`].
    pub fn call<T, F, Fut>(&self, to: ShardId, call: F) -> CallFuture<Broker, T>
    where
        T: Send + 'static,
        F: FnOnce(Broker) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.inner.parts.router.call(to, self, call)
    }

    /// Runs `call` on every shard at once; the results in order of shards.
    pub async fn call_all<T, F, Fut>(&self, call: F) -> Vec<T>
    where
        T: Send + 'static,
        F: Fn(Broker) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let calls: Vec<_> = (0..self.shard().count())
            .map(|shard| {
                let call = call.clone();
                self.call(ShardId(shard), call)
            })
            .collect();
        rt::join_all(calls).await
    }

    /// Has `__meta` carry out a command; resolves when its outcome is visible on every shard.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        let now_ms = self.shard().wall_ms();
        self.call(META_SHARD, move |broker| async move {
            broker.controller().submit(command, now_ms).await
        })
        .await
    }

    /// The controller; on shard 0 only.
    pub fn controller(&self) -> Controller {
        let controller = self.inner.parts.controller.clone();
        controller.expect("the controller lives on shard 0")
    }

    /// Gives every shard a new image and waits until all of them serve it.
    /// `known` is what `__meta`'s checkpoint held when the node started.
    pub async fn install_everywhere(&self, image: Arc<Image>, known: Arc<Image>) {
        let installed = self.call_all(move |broker| {
            let (image, known) = (image.clone(), known.clone());
            async move { broker.install(image, &known).await }
        });
        let led: Vec<(GroupId, Term)> = installed.await.into_iter().flatten().collect();
        if !led.is_empty() {
            let note = move |broker: Broker| {
                broker.inner.led.borrow_mut().extend(led.iter().copied());
                std::future::ready(())
            };
            self.call_all(note).await;
        }
    }

    /// The term in which this node leads a group, on whichever shard; none if it does not.
    pub fn led_in(&self, group: GroupId) -> Option<Term> {
        self.inner.led.borrow().get(&group).copied()
    }

    /// Takes on the partitions that `image` adds to this shard, serves the image, and gives up
    /// the partitions that are gone from it. Gives the groups that it leads since. Called one
    /// image after the other.
    async fn install(&self, image: Arc<Image>, known: &Image) -> Vec<(GroupId, Term)> {
        let old = self.image();
        if old.version() == 0 && self.shard().id() == META_SHARD {
            let swept = self.placement().storage().sweep(self.shard(), self.data(), &image).await;
            if let Err(error) = swept {
                tracing::warn!("files of deleted topics remain: {error}");
            }
        }
        self.resolve_topics(&old, &image);
        let change = self.placement().prepare(self, &old, &image, known).await;
        if old.broker_configs_version() != image.broker_configs_version() {
            let config = BrokerConfig::resolve(&self.options().settings, &image);
            self.coordinators().set_config(groups_config(&config));
            self.inner.config.replace(Rc::new(config));
        }
        self.inner.image.replace(image.clone());
        self.inner
            .led
            .borrow_mut()
            .retain(|group, _| *group == META_GROUP || image.partition_by_group(*group).is_some());
        let gone = old.topics().filter(|topic| image.topic_by_id(topic.id).is_none());
        for topic in gone {
            self.coordinators().topic_deleted(topic.name.to_string()).await;
        }
        self.placement().finish(self, change)
    }

    pub fn port(&self) -> u16 {
        self.inner.port.get()
    }

    pub fn set_port(&self, port: u16) {
        self.inner.port.set(port);
    }

    pub fn is_disk_full(&self) -> bool {
        self.inner.disk_full.get()
    }

    pub fn set_disk_full(&self, full: bool) {
        self.inner.disk_full.set(full);
    }

    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.get()
    }

    pub fn set_stopping(&self) {
        self.inner.stopping.set(true);
        self.inner.stopped.notify_all();
    }

    /// Resolves when the broker begins to stop.
    pub async fn stopped(&self) {
        let stopped = self.inner.stopped.notified();
        if !self.is_stopping() {
            stopped.await;
        }
    }

    pub fn wal(&self) -> &Wal {
        &self.inner.parts.wal
    }

    /// The group coordinators of this shard.
    pub fn coordinators(&self) -> &Coordinators {
        &self.inner.coordinators
    }

    /// Appends that wait for room in the log.
    pub fn backlog(&self) -> &Backlog {
        &self.inner.backlog
    }

    /// What the connections of this shard share: limits, counts, memory.
    pub fn network(&self) -> &net::Network {
        &self.inner.network
    }

    /// The effective configuration of a topic that the served image has.
    pub fn topic_config(&self, topic: TopicId) -> Option<Arc<TopicConfig>> {
        self.inner.topic_configs.borrow().get(&topic).cloned()
    }

    /// Resolves the configurations that `new` has changed since `old`, of all topics: each shard
    /// checks the batches that its own connections receive.
    fn resolve_topics(&self, old: &Image, new: &Image) {
        let view = BrokerView::new(&self.options().settings, new);
        let defaults_changed = old.broker_configs_version() != new.broker_configs_version();
        let mut configs = self.inner.topic_configs.borrow_mut();
        configs.retain(|topic, _| new.topic_by_id(*topic).is_some());
        for topic in new.topics() {
            let before = old.topic_by_id(topic.id);
            let same = before.is_some_and(|before| before.configs_version == topic.configs_version);
            if !same || defaults_changed {
                let config = TopicConfig::resolve(&topic.configs, &view);
                configs.insert(topic.id, Arc::new(config));
            }
        }
    }

    /// The data folder, as the operator named it.
    pub fn data_folder(&self) -> String {
        self.options().data_dir.display().to_string()
    }

    pub fn data(&self) -> &Dir {
        &self.inner.parts.data
    }

    pub async fn space(&self) -> std::io::Result<rt::Space> {
        self.data().space().await
    }
}

fn limits(config: &BrokerConfig, options: &Options) -> net::Limits {
    let idle_ms = u64::try_from(config.connections_max_idle_ms).unwrap_or(u64::MAX);
    net::Limits {
        frame_max_bytes: config.socket_request_max_bytes,
        idle: Duration::from_millis(idle_ms),
        http_sniffing: options.http_on_kafka_port,
        ..net::Limits::default()
    }
}

/// Placement of groups on shards.
pub fn shard_of(group: GroupId, shards: u16) -> ShardId {
    ShardId((group.0 % u64::from(shards)) as u16)
}
