//! What the clients of a world asked for and were told, and every rule that this must keep.
//!
//! Rules hold as things happen where they can (an offset never holds two different batches, a
//! high watermark never goes back) and over the whole log at the end. The first violation is
//! kept and ends the run. Shared by all nodes of one world, which run on one thread.

use std::collections::BTreeMap;

use bytes::Bytes;
use net::batch::Batch;
use net::compress::DECOMPRESSED_MAX_BYTES;
use net::records::Unfolded;

pub const PARTITIONS: i32 = 3;

/// A record's value tells where it is from: `<producer> <sequence> <padding>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    pub producer: u32,
    pub sequence: u32,
}

#[derive(Debug, Default)]
pub struct Producer {
    pub partition: i32,
    pub idempotent: bool,
    /// Values that were ever sent: those below.
    pub sent: u32,
    /// Sequence to the offset that was answered.
    pub acknowledged: BTreeMap<u32, i64>,
}

#[derive(Default)]
pub struct History {
    pub producers: Vec<Producer>,
    /// Batches by partition and base offset, as they were read first.
    read: BTreeMap<(i32, i64), Bytes>,
    /// Highest watermark that an answer told, per reader and partition.
    watermarks: BTreeMap<(u32, i32), i64>,
    /// The group's last acknowledged and last attempted offset.
    pub committed: i64,
    pub attempted: i64,
    /// Clients are to finish.
    pub finish: bool,
    pub finished: usize,
    pub clients: usize,
    /// The whole log, once it was read at the end.
    pub whole: BTreeMap<i32, Vec<Value>>,
    pub violation: Option<String>,
    pub lives: u32,
    pub start_errors: Vec<String>,
    pub fetched: u64,
    /// The last answer that made a client try again.
    pub refused: String,
}

impl History {
    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub fn watermark(&mut self, reader: u32, partition: i32, high: i64) {
        let seen = self.watermarks.entry((reader, partition)).or_insert(high);
        if high < *seen {
            let seen = *seen;
            self.violate(format!("high watermark of {partition} went from {seen} to {high}"));
        } else {
            *seen = high;
        }
    }

    /// Takes in what a fetch at `position` gave; the position after it, and the values.
    pub fn records(
        &mut self,
        partition: i32,
        position: i64,
        mut bytes: Bytes,
    ) -> (i64, Vec<Value>) {
        let mut next = position;
        let mut values = Vec::new();
        while !bytes.is_empty() {
            let Ok(batch) = Batch::split_from(&mut bytes) else {
                // The last batch may be cut by the limit of bytes.
                break;
            };
            if let Err(error) = batch.check_crc() {
                self.violate(format!("partition {partition} at {next}: {error}"));
                break;
            }
            let base = batch.header.base_offset;
            let dense = if next == position { base <= next } else { base == next };
            if !dense || batch.header.last_offset() < next {
                self.violate(format!("partition {partition}: offset {base} where {next} is due"));
                break;
            }
            let raw = batch.bytes.clone();
            if let Some(before) = self.read.insert((partition, base), raw.clone()) {
                if before != raw {
                    self.violate(format!("partition {partition} offset {base} changed"));
                }
            }
            next = batch.header.next_offset();
            values.extend(self.values(partition, &batch));
            self.fetched += 1;
        }
        (next, values)
    }

    fn values(&mut self, partition: i32, batch: &Batch) -> Vec<Value> {
        let mut values = Vec::new();
        let Ok(records) = Unfolded::new(batch, DECOMPRESSED_MAX_BYTES) else {
            self.violate(format!("partition {partition}: an unreadable batch"));
            return values;
        };
        for record in &records {
            let parsed = record.ok().and_then(|record| parse(record.value?));
            let known = parsed.filter(|value| {
                let producer = self.producers.get(value.producer as usize);
                producer.is_some_and(|p| p.partition == partition && value.sequence < p.sent)
            });
            match known {
                Some(value) => values.push(value),
                None => self.violate(format!("partition {partition}: invented {parsed:?}")),
            }
        }
        values
    }

    pub fn acknowledge(&mut self, producer: u32, sequence: u32, count: u32, base_offset: i64) {
        for step in 0..count {
            let offset = base_offset + i64::from(step);
            let map = &mut self.producers[producer as usize].acknowledged;
            map.insert(sequence + step, offset);
        }
    }

    pub fn offset_fetched(&mut self, offset: i64) {
        if offset < self.committed || offset > self.attempted {
            let (committed, attempted) = (self.committed, self.attempted);
            self.violate(format!(
                "the group's offset is {offset}; {committed} was acknowledged, {attempted} sent"
            ));
        }
    }

    /// Where everybody stands, for a run that hangs.
    pub fn progress(&self) -> String {
        let producers = self.producers.iter().map(|p| (p.sent, p.acknowledged.len()));
        let producers: Vec<_> = producers.collect();
        let (committed, attempted) = (self.committed, self.attempted);
        let refused = &self.refused;
        format!("sent and acknowledged {producers:?}, offsets {committed} of {attempted}, last refusal {refused}")
    }

    /// The whole log against everything that was acknowledged.
    pub fn judge(&self) -> Result<(), String> {
        for (number, producer) in self.producers.iter().enumerate() {
            let log = self.whole.get(&producer.partition).map_or(&[][..], Vec::as_slice);
            let own = |value: &&Value| value.producer as usize == number;
            let mut next = 0;
            for value in log.iter().filter(own) {
                match value.sequence {
                    sequence if sequence == next => next += 1,
                    sequence if sequence < next && !producer.idempotent => {}
                    sequence => {
                        return Err(format!(
                            "producer {number}: {sequence} where {next} is due (lost, doubled or \
                             out of order)"
                        ));
                    }
                }
            }
            for (&sequence, &offset) in &producer.acknowledged {
                let there = usize::try_from(offset).ok().and_then(|place| log.get(place));
                let value = Value { producer: number as u32, sequence };
                if there != Some(&value) {
                    return Err(format!(
                        "{value:?} was acknowledged at {offset} of partition {}, where {there:?} \
                         stands (of {})",
                        producer.partition,
                        log.len()
                    ));
                }
            }
        }
        Ok(())
    }
}

fn parse(value: &[u8]) -> Option<Value> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let producer = words.next()?.parse().ok()?;
    let sequence = words.next()?.parse().ok()?;
    Some(Value { producer, sequence })
}
