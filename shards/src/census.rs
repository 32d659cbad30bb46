//! Who is connected to this node, and whether one more may come.
//!
//! The one thing that the shards share by memory: connections per shard and per address, changed
//! once when a connection comes and once when it goes, under a lock that nothing else takes.
//! Decides; the accept loop acts. A connection beyond a limit is closed at once, where Kafka
//! leaves it in the kernel's queue: a client that is told tries elsewhere or says why.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rt::{Instant, ShardId};

use crate::broker::Broker;

/// What the configuration allows now. Numbers of connections, over all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `max.connections`, and what the limit of open files leaves.
    pub total_max: u32,
    /// `max.connections.per.ip`.
    pub per_address_max: u32,
    /// `max.connections.per.ip.overrides`.
    pub overrides: BTreeMap<IpAddr, u32>,
    /// `max.connection.creation.rate`: new connections a second.
    pub rate_max: u32,
}

impl ConnectionLimits {
    fn of_address(&self, address: &IpAddr) -> u32 {
        self.overrides.get(address).copied().unwrap_or(self.per_address_max)
    }
}

/// Why a connection is closed right after it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("max.connections = {max} is reached")]
    Total { max: u32 },
    #[error("max.connections.per.ip = {max} is reached")]
    Address { max: u32 },
}

/// The counts of one node, as all of its shards share them.
#[derive(Clone)]
pub struct Census(Arc<Mutex<Counts>>);

struct Counts {
    /// Invariant: the sum of these is the sum of `addresses`.
    shards: Vec<u32>,
    /// Only addresses with a connection.
    addresses: BTreeMap<IpAddr, u32>,
    creation: Bucket,
}

impl Census {
    /// The census of the node that this shard belongs to.
    pub fn of(broker: &Broker) -> Census {
        let shards = broker.shard().count();
        broker.shard().common(|| Census::new(shards))
    }

    fn new(shards: u16) -> Census {
        let (shards, addresses) = (vec![0; usize::from(shards)], BTreeMap::new());
        Census(Arc::new(Mutex::new(Counts { shards, addresses, creation: Bucket::default() })))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Counts one more connection of `address`, at the shard that has the fewest; `here` wins a
    /// draw.
    pub fn admit(
        &self,
        here: ShardId,
        address: IpAddr,
        limits: &ConnectionLimits,
    ) -> Result<Admitted, Refusal> {
        let mut counts = self.counts();
        let total: u32 = counts.shards.iter().sum();
        if total >= limits.total_max {
            return Err(Refusal::Total { max: limits.total_max });
        }
        let of_address = counts.addresses.get(&address).copied().unwrap_or(0);
        let max = limits.of_address(&address);
        if of_address >= max {
            return Err(Refusal::Address { max });
        }
        let shard = counts.least(here);
        counts.shards[usize::from(shard.0)] += 1;
        counts.addresses.insert(address, of_address + 1);
        drop(counts);
        Ok(Admitted { census: self.clone(), shard, address })
    }

    /// How long the next connection has to wait for `max.connection.creation.rate`; zero takes
    /// the turn.
    pub fn creation_delay(&self, now: Instant, rate_max: u32) -> Duration {
        self.counts().creation.take(now, rate_max)
    }

    /// Open connections of one shard.
    pub fn of_shard(&self, shard: ShardId) -> u32 {
        self.counts().shards[usize::from(shard.0)]
    }
}

impl Counts {
    fn least(&self, here: ShardId) -> ShardId {
        let here_count = self.shards[usize::from(here.0)];
        let least = (0u16..).zip(&self.shards).min_by_key(|(_, count)| **count);
        least.filter(|(_, count)| **count < here_count).map_or(here, |(shard, _)| ShardId(shard))
    }
}

/// A connection that counts until this is dropped.
pub struct Admitted {
    census: Census,
    /// The shard that is to serve it.
    pub shard: ShardId,
    address: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.census.counts();
        counts.shards[usize::from(self.shard.0)] -= 1;
        if let Some(count) = counts.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.addresses.remove(&self.address);
            }
        }
    }
}

/// New connections that may still come: at most those of one second, refilled steadily.
#[derive(Default)]
struct Bucket {
    left: f64,
    filled: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, now: Instant, rate_max: u32) -> Duration {
        if rate_max == i32::MAX as u32 {
            return Duration::ZERO;
        }
        // A rate of 0 would refuse everything for ever, the operator's own tools included.
        let rate = f64::from(rate_max.max(1));
        let passed = self.filled.map_or(1.0, |filled| now.saturating_since(filled).as_secs_f64());
        self.left = (self.left + passed * rate).min(rate);
        self.filled = Some(now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.left) / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ShardId = ShardId(0);

    fn limits(total_max: u32, per_address_max: u32) -> ConnectionLimits {
        let (overrides, rate_max) = (BTreeMap::new(), i32::MAX as u32);
        ConnectionLimits { total_max, per_address_max, overrides, rate_max }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn each_limit_refuses_and_a_connection_that_goes_makes_room() {
        let (census, limits) = (Census::new(2), limits(3, 2));
        let first = census.admit(HERE, address(1), &limits).expect("the first");
        let _second = census.admit(HERE, address(1), &limits).expect("the second");
        let refusal = |last| census.admit(HERE, address(last), &limits).err();
        assert_eq!(refusal(1), Some(Refusal::Address { max: 2 }));
        let _other = census.admit(HERE, address(2), &limits).expect("another address");
        assert_eq!(refusal(3), Some(Refusal::Total { max: 3 }));
        drop(first);
        assert_eq!(refusal(1), None);
        assert_eq!(census.counts().addresses.len(), 2, "what was refused is not counted");
    }

    #[test]
    fn an_override_beats_the_limit_of_all_addresses() {
        let census = Census::new(1);
        let mut limits = limits(10, 0);
        limits.overrides.insert(address(7), 1);
        assert_eq!(
            census.admit(HERE, address(1), &limits).err(),
            Some(Refusal::Address { max: 0 })
        );
        let _kept = census.admit(HERE, address(7), &limits).expect("one of one");
        assert_eq!(
            census.admit(HERE, address(7), &limits).err(),
            Some(Refusal::Address { max: 1 })
        );
    }

    #[test]
    fn connections_go_to_the_shard_with_the_fewest() {
        let (census, limits) = (Census::new(3), limits(100, 100));
        let shards: Vec<u16> = (0..6)
            .map(|_| {
                let admitted = census.admit(ShardId(1), address(1), &limits).expect("room");
                let shard = admitted.shard.0;
                std::mem::forget(admitted);
                shard
            })
            .collect();
        assert_eq!(shards, [1, 0, 2, 1, 0, 2]);
    }

    #[test]
    fn a_rate_lets_a_second_of_them_through_and_then_one_at_a_time() {
        let mut bucket = Bucket::default();
        let start = Instant::ZERO;
        assert!((0..10).all(|_| bucket.take(start, 10).is_zero()));
        let wait = bucket.take(start, 10);
        assert_eq!(wait, Duration::from_millis(100));
        assert!(bucket.take(start + wait, 10).is_zero());
        assert!(!bucket.take(start + wait, 10).is_zero());
        assert!((0..1000).all(|_| bucket.take(start, i32::MAX as u32).is_zero()), "no limit");
    }
}
