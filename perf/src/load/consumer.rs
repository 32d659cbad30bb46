//! One fetching connection: reads its partitions from where it was told to, without a group.
//!
//! Answers are read where they lie in the buffer. Where the producers of the same load wrote the
//! records, each tells when it was due, and the time until here is the end-to-end latency.

use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use net::batch::{BatchHeader, HEADER_BYTES};
use net::reader::{LengthWidth, Malformed, Reader};
use net::ErrorCode;

use super::clock::Clock;
use super::histogram;
use super::options::Options;
use super::topics::{self, code_of, topic_name, End};
use crate::connection::Connection;
use crate::error::PerfError;

/// The newest version that names topics.
const FETCH_VERSION: i16 = 12;
const MALFORMED: PerfError = PerfError::Malformed("Fetch");

/// What all consumers have in common.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub options: &'a Options,
    pub topics: &'a [String],
    pub clock: Clock,
    /// What arrives from here on is counted.
    pub measure_from_ns: u64,
    /// And until here.
    pub end_ns: u64,
    /// The producers are done.
    pub stop: &'a AtomicBool,
}

/// What one consumer saw.
pub struct Consumed {
    /// Microseconds from due to read, of records due in the measured time.
    pub latency_us: Histogram<u64>,
    /// Within the measured time.
    pub records: u64,
    pub bytes: u64,
    /// The same, by the second of the measured time.
    pub bytes_by_second: Vec<u64>,
    pub records_total: u64,
    pub fetches: u64,
    pub last_data_ns: u64,
}

impl Consumed {
    pub fn nothing() -> Consumed {
        Consumed {
            latency_us: histogram(),
            records: 0,
            bytes: 0,
            bytes_by_second: Vec::new(),
            records_total: 0,
            fetches: 0,
            last_data_ns: 0,
        }
    }

    pub fn add(&mut self, other: &Consumed) {
        self.latency_us.add(&other.latency_us).expect("the same bounds");
        self.records += other.records;
        self.bytes += other.bytes;
        for (second, bytes) in other.bytes_by_second.iter().enumerate() {
            self.read_in(second, *bytes);
        }
        self.records_total += other.records_total;
        self.fetches += other.fetches;
        self.last_data_ns = self.last_data_ns.max(other.last_data_ns);
    }

    fn read_in(&mut self, second: usize, bytes: u64) {
        if self.bytes_by_second.len() <= second {
            self.bytes_by_second.resize(second + 1, 0);
        }
        self.bytes_by_second[second] += bytes;
    }
}

/// A partition that is read.
struct Position {
    topic: usize,
    partition: i32,
    offset: i64,
    /// Where a consumer that only catches up is done.
    end: i64,
}

/// A consumer with its positions, ready to run.
pub struct Consumer<'a> {
    plan: &'a Plan<'a>,
    connection: Connection,
    positions: Vec<Position>,
    consumed: Consumed,
}

impl<'a> Consumer<'a> {
    /// Takes every partition whose number in the row of all is `nth` modulo the consumers.
    pub fn open(plan: &'a Plan<'a>, nth: usize) -> Result<Consumer<'a>, PerfError> {
        let options = plan.options;
        let mut connection = Connection::open(&options.broker)?;
        let mut positions = Vec::new();
        for (topic, name) in plan.topics.iter().enumerate() {
            let ends = topics::offsets(&mut connection, name, options.partitions, End::Latest)?;
            let starts = match options.from_beginning {
                true => topics::offsets(&mut connection, name, options.partitions, End::Earliest)?,
                false => ends.clone(),
            };
            for (partition, (offset, end)) in starts.into_iter().zip(ends).enumerate() {
                if (topic * options.partitions + partition) % options.consumers == nth {
                    let partition = partition as i32;
                    positions.push(Position { topic, partition, offset, end });
                }
            }
        }
        Ok(Consumer { plan, connection, positions, consumed: Consumed::nothing() })
    }

    /// Reads until the load is over, or, without producers, until the end is reached.
    pub fn run(mut self) -> Result<Consumed, PerfError> {
        // A stopped load may still have records on their way: one empty fetch ends it.
        loop {
            let stopping = self.plan.stop.load(Ordering::Acquire);
            let records = self.fetch()?;
            let caught_up = self.positions.iter().all(|p| p.offset >= p.end);
            let alone = self.plan.options.producers == 0;
            let over = alone && self.plan.clock.now_ns() >= self.plan.end_ns;
            if over || (alone && caught_up) || (stopping && records == 0) {
                return Ok(self.consumed);
            }
        }
    }

    /// One fetch; how many new records it brought.
    fn fetch(&mut self) -> Result<u64, PerfError> {
        let request = self.request();
        let producers = self.plan.options.producers;
        let frame = self.connection.exchange(&request, FETCH_VERSION)?;
        let now_ns = self.plan.clock.now_ns();
        let counted = (self.plan.measure_from_ns..self.plan.end_ns).contains(&now_ns);
        let mut arrival = Arrival {
            now_ns,
            stamped: (producers > 0).then_some(self.plan.measure_from_ns),
            latency_us: &mut self.consumed.latency_us,
            records: 0,
            bytes: 0,
        };
        arrival.answer(frame, &mut self.positions)?;
        let (records, bytes) = (arrival.records, arrival.bytes);
        self.consumed.fetches += 1;
        self.consumed.records_total += records;
        if counted {
            self.consumed.records += records;
            self.consumed.bytes += bytes;
            let second = (now_ns - self.plan.measure_from_ns) / 1_000_000_000;
            self.consumed.read_in(second as usize, bytes);
        }
        if records > 0 {
            self.consumed.last_data_ns = now_ns;
        }
        Ok(records)
    }

    fn request(&self) -> FetchRequest {
        let options = self.plan.options;
        let topics = self.positions.chunk_by(|a, b| a.topic == b.topic).map(|positions| {
            let partitions = positions.iter().map(|position| {
                FetchPartition::default()
                    .with_partition(position.partition)
                    .with_current_leader_epoch(-1)
                    .with_last_fetched_epoch(-1)
                    .with_fetch_offset(position.offset)
                    .with_log_start_offset(-1)
                    .with_partition_max_bytes(options.partition_max_bytes)
            });
            FetchTopic::default()
                .with_topic(topic_name(&self.plan.topics[positions[0].topic]))
                .with_partitions(partitions.collect())
        });
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(options.max_wait.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(options.fetch_max_bytes)
            .with_session_epoch(-1)
            .with_topics(topics.collect())
    }
}

/// An answer while it is read.
struct Arrival<'a> {
    now_ns: u64,
    /// Records carry the time they were due; those due from then on are counted.
    stamped: Option<u64>,
    latency_us: &'a mut Histogram<u64>,
    records: u64,
    bytes: u64,
}

impl Arrival<'_> {
    fn answer(&mut self, frame: &[u8], positions: &mut [Position]) -> Result<(), PerfError> {
        let mut reader = Reader::new(frame);
        let reader = &mut reader;
        reader.i32().map_err(|_| MALFORMED)?;
        reader.skip_tagged_fields().map_err(|_| MALFORMED)?;
        reader.i32().map_err(|_| MALFORMED)?;
        refuse("a fetch", reader.i16().map_err(|_| MALFORMED)?)?;
        reader.i32().map_err(|_| MALFORMED)?;
        // Topics and partitions come in the order of the request.
        let mut positions = positions.iter_mut();
        for _ in 0..count(reader)? {
            reader.nullable_bytes(LengthWidth::Compact).map_err(|_| MALFORMED)?;
            for _ in 0..count(reader)? {
                let (index, code, records) = partition(reader).map_err(|_| MALFORMED)?;
                refuse("a fetch", code)?;
                let position =
                    positions.by_ref().find(|p| p.partition == index).ok_or(MALFORMED)?;
                self.batches(records, position).map_err(|_| MALFORMED)?;
            }
            reader.skip_tagged_fields().map_err(|_| MALFORMED)?;
        }
        Ok(())
    }

    /// Moves the position past every whole batch.
    fn batches(&mut self, mut records: &[u8], position: &mut Position) -> Result<(), Malformed> {
        while records.len() >= HEADER_BYTES {
            let header = BatchHeader::parse(records).map_err(|_| Malformed)?;
            let Some((batch, rest)) = records.split_at_checked(header.size_bytes()) else { break };
            if header.next_offset() > position.offset {
                position.offset = header.next_offset();
                self.records += header.record_count.max(0) as u64;
                self.bytes += batch.len() as u64;
                if let Some(from_ns) = self.stamped {
                    self.stamps(&batch[HEADER_BYTES..], from_ns)?;
                }
            }
            records = rest;
        }
        Ok(())
    }

    /// The time from due to here of each record.
    fn stamps(&mut self, records: &[u8], from_ns: u64) -> Result<(), Malformed> {
        let mut reader = Reader::new(records);
        while reader.remaining() > 0 {
            let length = usize::try_from(reader.varint()?).map_err(|_| Malformed)?;
            let mut record = Reader::new(reader.take(length)?);
            record.i8()?;
            record.varlong()?;
            record.varint()?;
            let key = record.varint()?;
            record.skip(key.max(0) as usize)?;
            record.varint()?;
            let due_ns = record.i64()? as u64;
            if due_ns >= from_ns {
                self.latency_us.saturating_record(self.now_ns.saturating_sub(due_ns) / 1_000);
            }
        }
        Ok(())
    }
}

fn count(reader: &mut Reader<'_>) -> Result<usize, PerfError> {
    Ok(reader.length(LengthWidth::Compact).map_err(|_| MALFORMED)?.unwrap_or_default())
}

/// Number, error code and records of one partition of an answer.
fn partition<'a>(reader: &mut Reader<'a>) -> Result<(i32, i16, &'a [u8]), Malformed> {
    let (index, code) = (reader.i32()?, reader.i16()?);
    reader.skip(3 * 8)?; // high watermark, last stable offset, log start
    for _ in 0..reader.length(LengthWidth::Compact)?.unwrap_or_default() {
        reader.skip(2 * 8)?;
        reader.skip_tagged_fields()?;
    }
    reader.i32()?; // preferred replica
    let records = reader.nullable_bytes(LengthWidth::Compact)?.unwrap_or_default();
    reader.skip_tagged_fields()?;
    Ok((index, code, records))
}

fn refuse(what: &str, code: i16) -> Result<(), PerfError> {
    match code_of(code) {
        ErrorCode::None => Ok(()),
        code => Err(PerfError::Refused { what: what.to_owned(), code }),
    }
}
