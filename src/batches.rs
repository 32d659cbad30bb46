//! Whether the write-ahead log takes the batches that the configuration allows: for the start, which
//! refuses, and for `doctor`. Only here the number of shards is known before there are any.

use shards::meta::NodeId;
use shards::options::Options;

use crate::config::Config;

/// What the log takes, and what is allowed.
pub struct Batches {
    /// The largest batch of the log.
    pub most_bytes: u64,
    /// `message_max_bytes`.
    pub allowed_bytes: u64,
    pub shards: u16,
}

impl Batches {
    pub fn of(config: &Config) -> Batches {
        let launch = rt::uring::Options { shards: config.shards, ..Default::default() };
        let shards = launch.shard_count();
        let options = Options {
            wal_budget_bytes: config.wal_budget_bytes,
            ..Options::new(NodeId(config.node_id), config.data_dir.clone())
        };
        let allowed = config.kafka.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        Batches {
            most_bytes: options.batch_max_bytes(shards),
            allowed_bytes: allowed.unwrap_or_default(),
            shards,
        }
    }

    pub fn fit(&self) -> bool {
        self.allowed_bytes <= self.most_bytes
    }

    /// What stands against each other.
    pub fn text(&self) -> String {
        let Batches { most_bytes, allowed_bytes, shards } = self;
        format!(
            "message_max_bytes is {allowed_bytes}; the log takes batches of up to {most_bytes} \
             bytes (wal_budget_bytes over {shards} shards)"
        )
    }

    /// What to change where they do not fit.
    pub fn change(&self) -> String {
        match Options::wal_budget_for(self.allowed_bytes, self.shards) {
            Some(budget) => format!(
                "a wal_budget_bytes of {} MiB takes such batches; so do fewer shards, or lower \
                 message_max_bytes",
                budget >> 20
            ),
            None => "no wal_budget_bytes takes such batches: lower message_max_bytes".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_that_is_named_takes_the_batches() {
        let most = |budget: u64, shards: u16| {
            let options = Options::new(NodeId(1), "/data".into());
            Options { wal_budget_bytes: budget, ..options }.batch_max_bytes(shards)
        };
        for shards in [1, 2, 16, 64] {
            for bytes in [1 << 20, 5_000_000, 10 << 20, 60 << 20] {
                let budget = Options::wal_budget_for(bytes, shards).expect("a budget");
                assert!(most(budget, shards) >= bytes, "{bytes} in {budget} over {shards}");
            }
            assert_eq!(Options::wal_budget_for(64 << 20, shards), None);
        }
        assert!(most(64 << 20, 2) > 4_000_000, "{}", most(64 << 20, 2));
    }
}
