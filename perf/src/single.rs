//! One record, acknowledged: how a figure knows that a broker works.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::ProduceRequest;
use net::builder::BatchBuilder;
use net::ErrorCode;

use crate::connection::Connection;
use crate::error::PerfError;
use crate::load::topics::{code_of, topic_name};

const PRODUCE_VERSION: i16 = 9;

/// Sends one record to partition 0 with acks=all.
pub fn produce(connection: &mut Connection, topic: &str) -> Result<(), PerfError> {
    let now_ms = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
    let batch = BatchBuilder::new().record(now_ms, None, Some(b"a record")).build();
    let bytes: Bytes = batch.map_err(|error| PerfError::Codec(error.to_string()))?.bytes;
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(bytes));
    let data = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![partition]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
    let answer = connection.call(&request, PRODUCE_VERSION)?;
    let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    let code = partition.ok_or(PerfError::Malformed("Produce"))?.error_code;
    match code_of(code) {
        ErrorCode::None => Ok(()),
        code => Err(PerfError::Refused { what: format!("a record for {topic}"), code }),
    }
}

/// Tries, with a new connection each time, until a record is acknowledged.
pub fn produce_until_acknowledged(
    broker: &str,
    topic: &str,
    deadline: Instant,
) -> Result<(), PerfError> {
    loop {
        let tried = Connection::open(broker).and_then(|mut open| produce(&mut open, topic));
        match tried {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}
