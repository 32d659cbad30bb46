//! Produce (key 0), versions 3 to 13.
//!
//! KIP-98 (idempotence), KIP-467 (record errors), KIP-516 (topic ids, version 13), KIP-951
//! (current leader). Versions 0 to 2 are advertised for librdkafka's codec check, not served.
//!
//! What needs no partition state is checked here, on the connection's shard, in Kafka's order:
//! topic, form of the batch, CRC, sizes, counts, timestamps. Then the batches go to their shards;
//! they are on their way, in order, before this handler first waits, so that requests of one
//! connection may overlap. Sequences and offsets are decided on the owning shard.
//!
//! Departures: records inside compressed batches are not looked at unless the topic compacts or
//! recompresses, or the batch's times are out of bounds. Null records are answered with
//! INVALID_RECORD (Kafka never answers). There are no transactions: a request with a batch of one
//! is refused as Kafka refuses a client that may not use the transactional id.

use std::time::Duration;

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use net::batch::{Batch, BatchHeader};
use net::wire::{encode_produce, ProduceAnswer, ProducePartition, ProduceTopic, RefusedRecord};
use net::{Answer, ApiKey, ErrorCode, LocalFuture, Request};
use wal::GroupId;

use super::scatter::{Ask, Scatter};
use crate::backlog::{Begun, Place};
use crate::broker::Broker;
use crate::config::TopicConfig;
use crate::meta::{Image, Topic, TopicId};
use crate::options::Acknowledge;
use crate::partition::{AppendError, Appended, Full, Outcome, PartitionRef, Wait};
use crate::validate::{self, Refused, Stored};

/// From this version on topics are named by id.
const TOPIC_IDS_SINCE: i16 = 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acks {
    None,
    Leader,
    All,
}

/// What is told of one partition.
#[derive(Clone, Debug)]
struct Told {
    error: ErrorCode,
    base_offset: i64,
    log_append_time_ms: i64,
    log_start: i64,
    /// (place in the batch, message)
    record_errors: Vec<(i32, String)>,
    message: Option<String>,
}

impl Told {
    fn failed(error: ErrorCode, message: Option<String>) -> Told {
        Told {
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start: -1,
            record_errors: Vec::new(),
            message,
        }
    }
}

/// What one shard is asked about one partition.
#[derive(Clone)]
enum What {
    Append(Append),
    /// The batch is refused, and the answer tells the log start.
    Refuse(Refused),
}

/// One batch on its way to its shard.
#[derive(Clone)]
struct Append {
    batch: Batch,
    /// With LogAppendTime: the time that was stamped into the batch.
    log_append_time_ms: i64,
    until: Until,
}

/// What the producer waits for, and how long.
#[derive(Clone, Copy)]
struct Until {
    acks: Acks,
    timeout: Duration,
}

/// Starts at once: everything up to the batches' departure happens before this returns.
pub fn handle(broker: Broker, request: Request, body: ProduceRequest) -> LocalFuture<Answer> {
    let version = request.version;
    let until = until(&body);
    let mut scatter = Scatter::default();
    let mut names = Vec::with_capacity(body.topic_data.len());
    {
        let image = broker.image();
        for topic in &body.topic_data {
            let known = topic_of(&image, topic, version);
            let config = known.as_ref().ok().and_then(|known| broker.topic_config(known.id));
            for partition in &topic.partition_data {
                let checked = match (until, &known) {
                    (Err(error), _) => Err(Refused::code(error)),
                    (_, Err(error)) => Err(Refused::code(*error)),
                    (Ok(until), Ok(known)) => {
                        check(&broker, known, config.as_deref(), partition, version, until)
                    }
                };
                match checked {
                    Ok((group, what)) => scatter.ask(&broker, group, what),
                    Err(refused) => scatter.answer(told_of(refused, -1)),
                }
            }
            let indexes = topic.partition_data.iter().map(|partition| partition.index).collect();
            names.push((topic.name.clone(), topic.topic_id, indexes));
        }
    }
    let answers = scatter.send(&broker, append);
    let is_unanswered = body.acks == 0;
    Box::pin(async move {
        let told = answers.await;
        for one in &told {
            broker.stats().told(ApiKey::Produce, one.error.code());
        }
        if is_unanswered {
            return match told.iter().all(|told| told.error.is_none()) {
                true => Answer::None,
                false => Answer::Close { reason: "a produce with acks=0 failed" },
            };
        }
        answer(names, told, version)
    })
}

/// What the request asks for, or why it is refused as a whole.
fn until(body: &ProduceRequest) -> Result<Until, ErrorCode> {
    if body.topic_data.iter().flat_map(|topic| &topic.partition_data).any(is_transactional) {
        return Err(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    let acks = match body.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        _ => return Err(ErrorCode::InvalidRequiredAcks),
    };
    Ok(Until { acks, timeout: Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0)) })
}

fn is_transactional(data: &PartitionProduceData) -> bool {
    let header = data.records.as_ref().and_then(|records| BatchHeader::parse(records).ok());
    header.is_some_and(|header| header.is_transactional())
}

fn topic_of<'a>(
    image: &'a Image,
    topic: &TopicProduceData,
    version: i16,
) -> Result<&'a std::sync::Arc<Topic>, ErrorCode> {
    let known = if version >= TOPIC_IDS_SINCE {
        image.topic_by_id(TopicId(topic.topic_id)).ok_or(ErrorCode::UnknownTopicId)?
    } else {
        image.topic(&topic.name.0).ok_or(ErrorCode::UnknownTopicOrPartition)?
    };
    // Only the broker writes to these.
    if known.is_internal() {
        return Err(ErrorCode::InvalidTopicException);
    }
    Ok(known)
}

/// The checks that need no partition state. Gives what to ask of the partition's shard: to take
/// the batch, or only where its log starts.
fn check(
    broker: &Broker,
    topic: &Topic,
    config: Option<&TopicConfig>,
    data: &PartitionProduceData,
    version: i16,
    until: Until,
) -> Result<(GroupId, What), Refused> {
    let Some((located, config)) = topic.partition(data.index).zip(config) else {
        return Err(Refused::code(ErrorCode::UnknownTopicOrPartition));
    };
    if broker.is_disk_full() {
        let message = "the broker's disk has reached disk_reserve_bytes".to_owned();
        return Err(Refused::with_message(ErrorCode::KafkaStorageError, message));
    }
    let now_ms = broker.shard().wall_ms();
    let name = (&*topic.name, data.index);
    let what = match validate::batch(data.records.as_ref(), config, name, now_ms, version) {
        Ok(Stored { batch, log_append_time_ms }) => {
            What::Append(Append { batch, log_append_time_ms, until })
        }
        Err(refused) if refused.hides_log_start => return Err(refused),
        Err(refused) => What::Refuse(refused),
    };
    Ok((located.group, what))
}

fn told_of(refused: Refused, log_start: i64) -> Told {
    let told = Told::failed(refused.error, refused.message);
    Told { record_errors: refused.record_errors, log_start, ..told }
}

/// On the shard that owns the partitions: all appends first, in order, then the waiting.
fn append(
    broker: Broker,
    asks: Vec<Ask<What>>,
) -> impl std::future::Future<Output = Vec<(usize, Told)>> {
    let started: Vec<_> = asks.into_iter().map(|ask| (ask.slot, start(&broker, ask))).collect();
    async move {
        let mut all = Vec::with_capacity(started.len());
        for (slot, started) in started {
            let told = match started {
                Ok(started) => finish(&broker, started).await,
                Err(told) => told,
            };
            all.push((slot, told));
        }
        all
    }
}

/// A batch that has its place among all appends of its partition.
struct Started {
    partition: PartitionRef,
    stage: Stage,
    what: Append,
    at: rt::Instant,
}

enum Stage {
    /// Waits for room in the log.
    Queued(Place),
    Appended(Appended, Option<Wait>),
}

fn start(broker: &Broker, ask: Ask<What>) -> Result<Started, Told> {
    let Some(partition) = broker.partition(ask.group) else {
        return Err(Told::failed(broker.placement().absent(ask.group), None));
    };
    let what = match ask.what {
        What::Append(append) => append,
        What::Refuse(refused) => return Err(told_of(refused, partition.borrow().log_start())),
    };
    let at = broker.shard().now();
    let stage = match broker.backlog().append(&partition, &what.batch) {
        Ok(Begun::Waits(place)) => Stage::Queued(place),
        Ok(Begun::Appended(appended)) => {
            Stage::Appended(appended, note_appended(broker, &partition, &what, appended))
        }
        Err(error) => return Err(refused_by(&partition, &error)),
    };
    Ok(Started { partition, stage, what, at })
}

fn refused_by(partition: &PartitionRef, error: &AppendError) -> Told {
    let log_start = partition.borrow().log_start();
    Told { log_start, ..Told::failed(code_of(error), Some(error.to_string())) }
}

/// Counts an append; answers what its client has to wait for.
fn note_appended(
    broker: &Broker,
    partition: &PartitionRef,
    what: &Append,
    appended: Appended,
) -> Option<Wait> {
    let mut state = partition.borrow_mut();
    if appended.duplicate_of_ms.is_none() {
        let (bytes, records) =
            (what.batch.bytes.len() as u64, what.batch.header.record_count as u64);
        state.traffic().appended(bytes, records);
        broker.stats().appended(bytes, records);
    }
    match what.until.acks {
        _ if broker.options().acknowledge == Acknowledge::Relaxed => None,
        Acks::None => None,
        Acks::Leader => Some(state.wait_for_persist(appended.index)),
        Acks::All => Some(state.wait_for_commit(appended.index)),
    }
}

async fn finish(broker: &Broker, started: Started) -> Told {
    let Started { partition, stage, what, at } = started;
    let left = |limit: Duration| (at + limit).saturating_since(broker.shard().now());
    let (appended, wait) = match stage {
        Stage::Appended(appended, wait) => (appended, wait),
        // Half of the time, so that the client is still there when it is told.
        Stage::Queued(place) => {
            match broker.shard().timeout(left(what.until.timeout / 2), place).await {
                Ok(Ok(appended)) => (appended, note_appended(broker, &partition, &what, appended)),
                Ok(Err(error)) => return refused_by(&partition, &error),
                Err(_) => return refused_by(&partition, &AppendError::Full(Full::Log)),
            }
        }
    };
    let outcome = match wait {
        None => Ok(Outcome::Done),
        Some(Wait::Over(outcome)) => Ok(outcome),
        Some(pending) => broker.shard().timeout(left(what.until.timeout), pending).await,
    };
    let error = match outcome {
        Ok(Outcome::Done) => {
            return Told {
                base_offset: appended.base_offset,
                log_append_time_ms: appended.duplicate_of_ms.unwrap_or(what.log_append_time_ms),
                log_start: partition.borrow().log_start(),
                ..Told::failed(ErrorCode::None, None)
            };
        }
        Ok(Outcome::LeadershipLost) => ErrorCode::NotLeaderOrFollower,
        Ok(Outcome::Deleted) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::RequestTimedOut,
    };
    Told::failed(error, None)
}

/// The code of an append that the partition refused.
pub fn code_of(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::Deleted => ErrorCode::UnknownTopicOrPartition,
        AppendError::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::FencedProducer => ErrorCode::InvalidProducerEpoch,
        // Nothing was appended. Retriable for every client, and it does not make them refresh
        // their metadata.
        AppendError::Full(_) => ErrorCode::NotEnoughReplicas,
        AppendError::TooLarge => ErrorCode::MessageTooLarge,
        AppendError::Failed(_) => ErrorCode::KafkaStorageError,
    }
}

type AskedTopic = (TopicName, uuid::Uuid, Vec<i32>);

fn answer(topics: Vec<AskedTopic>, told: Vec<Told>, version: i16) -> Answer {
    let mut told = told.into_iter();
    let topics = topics.into_iter().map(|(name, id, indexes)| {
        let partitions = indexes.into_iter().zip(&mut told);
        let partitions = partitions.map(|(index, told)| partition_answer(index, told)).collect();
        ProduceTopic { name: name.0, id, partitions }
    });
    let answer =
        ProduceAnswer { topics: topics.collect(), throttle_time_ms: 0, node_endpoints: Vec::new() };
    Answer::Encoded(encode_produce(&answer, version))
}

fn partition_answer(index: i32, told: Told) -> ProducePartition {
    let record_errors = told
        .record_errors
        .into_iter()
        .map(|(batch_index, message)| RefusedRecord { batch_index, message: Some(message) });
    ProducePartition {
        index,
        error: told.error,
        base_offset: told.base_offset,
        log_append_time_ms: told.log_append_time_ms,
        log_start_offset: told.log_start,
        record_errors: record_errors.collect(),
        error_message: told.message,
        current_leader: None,
    }
}
