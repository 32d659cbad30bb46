//! Tests of the coordinator: scenarios in text, and random events against its invariants.

mod properties;
mod scenarios;

use crate::groups::coordinator::{Coordinator, GroupsConfig};
use crate::groups::records::Record;
use crate::groups::types::*;
use rt::Instant;
use std::time::Duration;

/// A coordinator with its log and its clock.
struct World {
    coordinator: Coordinator,
    config: GroupsConfig,
    log: Vec<Record>,
    elapsed: Duration,
}

/// Member ids count up, so that a test can name them.
fn counting_uuids(from: u8) -> Box<dyn FnMut() -> [u8; 16]> {
    let mut count = from;
    Box::new(move || {
        count += 1;
        let mut bytes = [0; 16];
        bytes[15] = count;
        bytes
    })
}

impl World {
    fn new(config: GroupsConfig) -> World {
        let coordinator = Coordinator::new(config.clone(), counting_uuids(0));
        World { coordinator, config, log: Vec::new(), elapsed: Duration::ZERO }
    }

    fn now(&self) -> Now {
        let mono = Instant::from_nanos(self.elapsed.as_nanos() as u64);
        Now { mono, wall_ms: 1_000_000 + self.elapsed.as_millis() as i64 }
    }

    /// Takes the output: records go to the log at once.
    fn settle(&mut self) -> Output {
        let output = self.coordinator.take_output();
        self.log.extend(output.records.iter().cloned());
        output
    }

    /// A coordinator that knows only the log, read through its bytes.
    fn reloaded(&self, first_uuid: u8) -> Coordinator {
        let mut coordinator = Coordinator::new(self.config.clone(), counting_uuids(first_uuid));
        for record in &self.log {
            let (key, value) = record.encode();
            coordinator.replay(Record::decode(&key, value.as_deref()).unwrap());
        }
        coordinator
    }

    fn live(&self) -> Vec<Record> {
        self.coordinator.live_records().collect()
    }
}
