//! What a batch from a client must satisfy before it goes to its partition, and how it is
//! stored: the checks of a Produce that need the topic's configuration and no partition state.
//!
//! Pure. The order is Kafka's (kafka.md section 5), so that a batch with two faults is answered
//! with the same one. Records are looked at only where the topic demands it: for a missing key on
//! a compacted topic, to name the records with a wrong timestamp, to compress anew.

use bytes::Bytes;
use net::batch::{Batch, BatchError};
use net::compress::{Codec, DECOMPRESSED_MAX_BYTES};
use net::records::{offenders, recompress};
use net::ErrorCode;

use crate::config::{Compression, TimestampType, TopicConfig};

/// Why a batch is refused, as it is told to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub error: ErrorCode,
    /// Kafka finds this before it looks at the log: the answer has log start -1.
    pub hides_log_start: bool,
    /// (place in the batch, message)
    pub record_errors: Vec<(i32, String)>,
    pub message: Option<String>,
}

impl Refused {
    /// Without a word to the code.
    pub fn code(error: ErrorCode) -> Refused {
        Refused { error, hides_log_start: true, record_errors: Vec::new(), message: None }
    }

    pub fn with_message(error: ErrorCode, message: String) -> Refused {
        Refused { message: Some(message), ..Refused::code(error) }
    }
}

impl From<BatchError> for Refused {
    fn from(error: BatchError) -> Refused {
        Refused {
            error: error.code(),
            hides_log_start: error.hides_log_start(),
            record_errors: Vec::new(),
            message: Some(error.to_string()),
        }
    }
}

/// A batch as it will be stored, but for its base offset and leader epoch.
#[derive(Clone, Debug)]
pub struct Stored {
    pub batch: Batch,
    /// The time that was stamped into it; -1 unless the topic says LogAppendTime.
    pub log_append_time_ms: i64,
}

/// Checks the records of one partition of a Produce of `version`, and makes them what the topic
/// wants. `partition` is (topic, number), for messages.
pub fn batch(
    records: Option<&Bytes>,
    config: &TopicConfig,
    partition: (&str, i32),
    now_ms: i64,
    version: i16,
) -> Result<Stored, Refused> {
    let mut batch = Batch::from_produce(records, version)?;
    batch.check_integrity(limit(config.max_message_bytes), limit(config.segment_bytes))?;
    batch.check_fields()?;
    let append_time = config.timestamp_type == TimestampType::LogAppendTime;
    if !append_time {
        let (before, after) = (config.timestamp_before_max_ms, config.timestamp_after_max_ms);
        if let Err(error) = batch.check_timestamp(now_ms, before, after) {
            return Err(wrong_timestamps(&batch, error));
        }
    }
    if config.cleanup.compact {
        check_keys(&batch, partition)?;
    }
    if let Some((codec, level)) = target_codec(config) {
        batch = recompress(&batch, codec, level, DECOMPRESSED_MAX_BYTES).map_err(unreadable)?;
    }
    if append_time {
        batch.header.set_log_append_time(now_ms);
    } else {
        batch.header.set_create_time();
    }
    let log_append_time_ms = if append_time { now_ms } else { -1 };
    Ok(Stored { batch, log_append_time_ms })
}

/// The codec that the topic wants; none if it takes what the producer chose.
fn target_codec(config: &TopicConfig) -> Option<(Codec, Option<i32>)> {
    match config.compression {
        Compression::Producer => None,
        Compression::Uncompressed => Some((Codec::None, None)),
        Compression::Gzip { level } => Some((Codec::Gzip, Some(level))),
        Compression::Snappy => Some((Codec::Snappy, None)),
        Compression::Lz4 { level } => Some((Codec::Lz4, Some(level))),
        Compression::Zstd { level } => Some((Codec::Zstd, Some(level))),
    }
}

/// Sizes are validated to fit the wire's type.
fn limit(bytes: u32) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

fn check_keys(batch: &Batch, (topic, number): (&str, i32)) -> Result<(), Refused> {
    let keyless = offenders(batch, DECOMPRESSED_MAX_BYTES, |record| record.key.is_none());
    let keyless = keyless.map_err(unreadable)?;
    if keyless.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Compacted topic cannot accept message without key in topic partition {topic}-{number}."
    );
    Err(Refused {
        error: ErrorCode::InvalidRecord,
        hides_log_start: false,
        record_errors: keyless.into_iter().map(|place| (place, message.clone())).collect(),
        message: Some("One or more records have been rejected".to_owned()),
    })
}

/// The batch's largest timestamp is out of bounds: names the records that are.
fn wrong_timestamps(batch: &Batch, error: BatchError) -> Refused {
    let BatchError::Timestamp { from, to, .. } = error else { return error.into() };
    let is_wrong = |time: i64| time != -1 && !(from..=to).contains(&time);
    let places = offenders(batch, DECOMPRESSED_MAX_BYTES, |record| is_wrong(record.timestamp));
    let message = format!("The record's timestamp is not within [{from}, {to}]");
    let errors = places.unwrap_or_default().into_iter().map(|place| (place, message.clone()));
    Refused { record_errors: errors.collect(), ..Refused::from(error) }
}

fn unreadable(error: net::records::RecordError) -> Refused {
    let message = format!("the records of the batch cannot be read: {error}");
    Refused { hides_log_start: false, ..Refused::with_message(ErrorCode::CorruptMessage, message) }
}
