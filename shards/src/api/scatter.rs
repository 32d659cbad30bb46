//! Splitting a request by the shards that own its partitions, and joining their answers.
//!
//! The slots of a request are its partitions in request order. A handler first decides for each
//! slot whether it is refused outright or asked of a shard; the answers come back by slot.

use std::collections::BTreeMap;
use std::future::Future;

use rt::ShardId;
use wal::GroupId;

use crate::broker::Broker;

/// What one shard is asked about one slot.
#[derive(Clone, Copy, Debug)]
pub struct Ask<A> {
    pub slot: usize,
    pub group: GroupId,
    pub what: A,
}

/// The slots of one request: answered ones, and those that still are to be asked.
pub struct Scatter<A, T> {
    asks: BTreeMap<ShardId, Vec<Ask<A>>>,
    found: Vec<Option<T>>,
}

impl<A, T> Default for Scatter<A, T> {
    fn default() -> Scatter<A, T> {
        Scatter { asks: BTreeMap::new(), found: Vec::new() }
    }
}

impl<A: Send + 'static, T: Send + 'static> Scatter<A, T> {
    /// The next slot has its answer already.
    pub fn answer(&mut self, found: T) {
        self.found.push(Some(found));
    }

    /// The next slot is asked of the shard that owns `group`.
    pub fn ask(&mut self, broker: &Broker, group: GroupId, what: A) {
        let slot = self.found.len();
        self.found.push(None);
        let asks = self.asks.entry(broker.shard_of(group)).or_default();
        asks.push(Ask { slot, group, what });
    }

    /// Asks all shards at once. The calls are on their way, in order, when this returns; the
    /// future gives the answers of all slots in request order.
    pub fn send<F, Fut>(self, broker: &Broker, run: F) -> impl Future<Output = Vec<T>>
    where
        F: Fn(Broker, Vec<Ask<A>>) -> Fut + Copy + Send + 'static,
        Fut: Future<Output = Vec<(usize, T)>> + 'static,
    {
        let mut found = self.found;
        let calls: Vec<_> = self
            .asks
            .into_iter()
            .map(|(shard, asks)| broker.call(shard, move |broker| run(broker, asks)))
            .collect();
        async move {
            for call in calls {
                for (slot, one) in call.await {
                    found[slot] = Some(one);
                }
            }
            let all = found.into_iter().map(|one| one.expect("a shard answers every ask"));
            all.collect()
        }
    }
}
