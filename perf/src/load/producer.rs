//! One producing connection: a thread that sends what is due, a thread that takes the answers.
//!
//! The sender never waits for an answer unless the window is full; records that come due meanwhile
//! are sent late, and their latency says so.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::protocol::Decodable;
use net::ErrorCode;

use super::clock::{wake_on_time, Clock, Schedule};
use super::encode::{Batch, Encoder, PRODUCE_VERSION};
use super::histogram;
use super::options::Options;
use super::topics::{self, code_of};
use super::window::{Sent, Window};
use crate::connection::{connect, Connection};
use crate::error::PerfError;
use crate::frames::Frames;

/// Kafka's `max.request.size`.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The longest that the last answers may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// How long after the end records may be sent that were due before it.
const LATE_LIMIT: Duration = Duration::from_millis(500);

/// What all producers have in common.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub options: &'a Options,
    pub topics: &'a [String],
    pub clock: Clock,
    /// Records due from here on are counted.
    pub measure_from_ns: u64,
    /// Nothing is due from here on.
    pub end_ns: u64,
}

/// What one producer saw.
pub struct Produced {
    /// Microseconds from due to acknowledged, of records due in the measured time.
    pub latency_us: Histogram<u64>,
    /// Acknowledged within the measured time.
    pub records: u64,
    /// Acknowledged at all.
    pub records_total: u64,
    pub requests: u64,
    /// Records due in time and never sent: the rate was too high.
    pub unsent: u64,
    pub refused: BTreeMap<ErrorCode, u64>,
    pub last_answer_ns: u64,
}

impl Produced {
    pub fn nothing() -> Produced {
        Produced {
            latency_us: histogram(),
            records: 0,
            records_total: 0,
            requests: 0,
            unsent: 0,
            refused: BTreeMap::new(),
            last_answer_ns: 0,
        }
    }

    pub fn add(&mut self, other: &Produced) {
        self.latency_us.add(&other.latency_us).expect("the same bounds");
        self.records += other.records;
        self.records_total += other.records_total;
        self.requests += other.requests;
        self.unsent += other.unsent;
        for (code, count) in &other.refused {
            *self.refused.entry(*code).or_default() += count;
        }
        self.last_answer_ns = self.last_answer_ns.max(other.last_answer_ns);
    }

    /// Counts an answer to a request.
    fn count(&mut self, sent: Sent, plan: &Plan<'_>, schedule: &Schedule, code: ErrorCode) {
        let now_ns = plan.clock.now_ns();
        self.requests += 1;
        self.last_answer_ns = now_ns;
        if code != ErrorCode::None {
            *self.refused.entry(code).or_default() += sent.count;
            return;
        }
        self.records_total += sent.count;
        if (plan.measure_from_ns..plan.end_ns).contains(&now_ns) {
            self.records += sent.count;
        }
        let latency_us = |since_ns: u64| now_ns.saturating_sub(since_ns) / 1_000;
        if !schedule.is_paced() {
            if sent.sent_ns >= plan.measure_from_ns {
                self.latency_us.saturating_record_n(latency_us(sent.sent_ns), sent.count);
            }
            return;
        }
        for record in sent.first..sent.first + sent.count {
            let due_ns = schedule.due_ns(record);
            if due_ns >= plan.measure_from_ns {
                self.latency_us.saturating_record(latency_us(due_ns));
            }
        }
    }
}

/// Runs one producer to its end.
pub fn run(plan: &Plan<'_>, schedule: Schedule, nth: usize) -> Result<Produced, PerfError> {
    let stream = connect(&plan.options.broker)?;
    let reading = stream.try_clone().map_err(PerfError::io(&*plan.options.broker))?;
    let window = Window::new(plan.options.in_flight);
    let sender = Sender::new(plan, schedule, nth, stream, &window)?;
    thread::scope(|scope| {
        let receiver = (plan.options.acks != 0).then(|| {
            let window = &window;
            scope.spawn(move || {
                let received = receive(plan, &schedule, reading, window);
                window.break_off();
                received
            })
        });
        let sent = sender.run();
        let received = receiver.map(|receiver| receiver.join().expect("it does not panic"));
        match (sent, received) {
            (Ok(sent), None) => Ok(sent),
            (Ok(sent), Some(received)) => {
                let mut produced = received?;
                produced.unsent = sent.unsent;
                Ok(produced)
            }
            // Why the receiver stopped says more than that the sender could not go on.
            (Err(_), Some(Err(error))) | (Err(error), _) => Err(error),
        }
    })
}

/// Takes answers until the connection is shut down.
fn receive(
    plan: &Plan<'_>,
    schedule: &Schedule,
    stream: TcpStream,
    window: &Window,
) -> Result<Produced, PerfError> {
    let mut produced = Produced::nothing();
    let mut frames = Frames::new(stream);
    while let Some(frame) = frames.read().map_err(PerfError::io("reading an answer"))? {
        let malformed = || PerfError::Malformed("Produce");
        let sent = window.pop().ok_or_else(malformed)?;
        let (id, body) = frame.split_first_chunk().ok_or_else(malformed)?;
        if i32::from_be_bytes(*id) != sent.correlation_id {
            return Err(malformed());
        }
        // The header of a flexible answer ends with tagged fields, of which there are none.
        let mut body = Bytes::copy_from_slice(body.get(1..).ok_or_else(malformed)?);
        let answer = ProduceResponse::decode(&mut body, PRODUCE_VERSION)
            .map_err(|error| PerfError::Codec(error.to_string()))?;
        let mut codes = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let refused = codes.find(|partition| partition.error_code != 0);
        let code = refused.map_or(ErrorCode::None, |partition| code_of(partition.error_code));
        produced.count(sent, plan, schedule, code);
    }
    Ok(produced)
}

struct Sender<'a> {
    plan: &'a Plan<'a>,
    schedule: Schedule,
    stream: TcpStream,
    window: &'a Window,
    encoder: Encoder,
    /// Records that fill a batch, and the most in one request.
    batch_records: usize,
    request_records: usize,
    /// The first record that is not sent.
    next: u64,
    correlation_id: i32,
    /// All partitions of all topics in one row, and where the next batch without key goes.
    turn: usize,
    /// The records of the next request, by partition; emptied with every request.
    bins: Vec<Vec<u64>>,
    touched: Vec<usize>,
    sequences: Vec<i32>,
    out: Vec<u8>,
}

impl<'a> Sender<'a> {
    fn new(
        plan: &'a Plan<'a>,
        schedule: Schedule,
        nth: usize,
        stream: TcpStream,
        window: &'a Window,
    ) -> Result<Sender<'a>, PerfError> {
        let options = plan.options;
        let mut encoder = Encoder::new(options.acks, options.record_bytes, options.keys);
        if options.idempotent {
            let mut connection = Connection::open(&options.broker)?;
            (encoder.producer_id, encoder.producer_epoch) = topics::producer_id(&mut connection)?;
        }
        let partitions = plan.topics.len() * options.partitions;
        let batch_records = encoder.records_in(options.batch_bytes);
        let batches = (REQUEST_BYTES_MAX / options.batch_bytes.max(1)).clamp(1, partitions);
        Ok(Sender {
            plan,
            schedule,
            stream,
            window,
            encoder,
            batch_records,
            request_records: batch_records * batches,
            next: 0,
            correlation_id: 0,
            // Producers start at different partitions.
            turn: nth * partitions / options.producers,
            bins: vec![Vec::new(); partitions],
            touched: Vec::new(),
            sequences: vec![0; partitions],
            out: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Produced, PerfError> {
        wake_on_time();
        let mut produced = Produced::nothing();
        let wanted = self.wanted();
        while self.next < wanted {
            let now_ns = self.plan.clock.now_ns();
            // What was due in time and is only a little late is sent all the same.
            let late_ns = if self.schedule.is_paced() { LATE_LIMIT.as_nanos() as u64 } else { 0 };
            if now_ns >= self.plan.end_ns + late_ns {
                break;
            }
            let waiting = self.schedule.count_due(now_ns).min(wanted) - self.next;
            let ready_ns = self.ready_ns(waiting);
            if now_ns < ready_ns {
                self.plan.clock.sleep_until(ready_ns);
                continue;
            }
            if !self.window.wait_for_room() {
                return Err(PerfError::Closed);
            }
            let sent = self.send(wanted)?;
            if self.encoder.acks == 0 {
                produced.count(sent, self.plan, &self.schedule, ErrorCode::None);
            }
        }
        if self.schedule.is_paced() {
            produced.unsent = wanted - self.next;
        }
        if !self.window.wait_until_empty(DRAIN_LIMIT) {
            let message = format!("the last answers did not come within {DRAIN_LIMIT:?}");
            return Err(PerfError::Late(message));
        }
        // Ends the receiver. A socket that is closed already has ended it before.
        let _ = self.stream.shutdown(Shutdown::Both);
        Ok(produced)
    }

    /// When the next request can go: a batch is full, or its first record has lingered.
    fn ready_ns(&self, waiting: u64) -> u64 {
        if waiting >= self.batch_records as u64 {
            return 0;
        }
        let lingered = self.schedule.due_ns(self.next) + self.plan.options.linger.as_nanos() as u64;
        lingered.min(self.schedule.due_ns(self.next + self.batch_records as u64 - 1))
    }

    /// Records that are due before the end.
    fn wanted(&self) -> u64 {
        match self.schedule.is_paced() {
            true => self.schedule.count_due(self.plan.end_ns.saturating_sub(1)),
            false => self.schedule.records(),
        }
    }

    /// Sends one request with what is due now.
    fn send(&mut self, wanted: u64) -> Result<Sent, PerfError> {
        let now_ns = self.plan.clock.now_ns();
        let due = self.schedule.count_due(now_ns).min(wanted) - self.next;
        let first = self.next;
        match self.encoder.keys {
            0 => self.fill_in_turn(due),
            _ => self.fill_by_key(due),
        }
        self.correlation_id = self.correlation_id.wrapping_add(1);
        self.encode(now_ns);
        let sent = Sent {
            correlation_id: self.correlation_id,
            first,
            count: self.next - first,
            sent_ns: now_ns,
        };
        if self.encoder.acks != 0 {
            self.window.push(sent);
        }
        self.stream.write_all(&self.out).map_err(PerfError::io("sending a request"))?;
        Ok(sent)
    }

    /// Whole batches to one partition after the other.
    fn fill_in_turn(&mut self, due: u64) {
        let mut left = due.min(self.request_records as u64);
        while left > 0 {
            let count = left.min(self.batch_records as u64);
            self.bins[self.turn].extend(self.next..self.next + count);
            self.touched.push(self.turn);
            self.turn = (self.turn + 1) % self.bins.len();
            self.next += count;
            left -= count;
        }
    }

    /// Each record to the partition of its key, until one batch is full.
    fn fill_by_key(&mut self, due: u64) {
        for _ in 0..due.min(self.request_records as u64) {
            let place = (self.encoder.key(self.next) % self.bins.len() as u64) as usize;
            if self.bins[place].is_empty() {
                self.touched.push(place);
            }
            self.bins[place].push(self.next);
            self.next += 1;
            if self.bins[place].len() >= self.batch_records {
                break;
            }
        }
    }

    fn encode(&mut self, now_ns: u64) {
        self.touched.sort_unstable();
        let partitions = self.plan.options.partitions;
        let batch = |place: &usize| Batch {
            topic: place / partitions,
            partition: (place % partitions) as i32,
            base_sequence: if self.encoder.producer_id < 0 { -1 } else { self.sequences[*place] },
            records: &self.bins[*place],
        };
        let batches: Vec<Batch<'_>> = self.touched.iter().map(batch).collect();
        let (schedule, clock_ms) = (self.schedule, wall_ms());
        let due_ns = |record| match schedule.is_paced() {
            true => schedule.due_ns(record),
            false => now_ns,
        };
        self.encoder.request(
            &mut self.out,
            self.correlation_id,
            self.plan.topics,
            &batches,
            clock_ms,
            due_ns,
        );
        for place in self.touched.drain(..) {
            let sequence = &mut self.sequences[place];
            *sequence = net::batch::sequence_after(*sequence, self.bins[place].len() as i32);
            self.bins[place].clear();
        }
    }
}

fn wall_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64)
}
