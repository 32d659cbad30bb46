//! What a batch from a client must satisfy before it goes to its partition, and how it is
//! stored: the checks of a Produce that need the topic's configuration and no partition state.
//!
//! Pure. The order is Kafka's (kafka.md section 5), so that a batch with two faults is answered
//! with the same one. The records of a plain batch are walked: their number, their offsets, their
//! times. Those of a compressed batch are unfolded only where its header cannot answer for them:
//! for a missing key on a compacted topic, when the header's times are out of bounds, to compress
//! anew. So a compressed batch may lie about what is inside, and every reader assumes that it does.

use std::ops::RangeInclusive;

use bytes::Bytes;
use net::batch::{Batch, BatchError, BatchHeader};
use net::compress::{Codec, DECOMPRESSED_MAX_BYTES};
use net::records::{Record, RecordError, Unfolded};
use net::ErrorCode;

use crate::config::{Compression, TimestampType, TopicConfig};

/// Offenders that an answer names at most.
const OFFENDERS_MAX: usize = 100;

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
    let rules = Rules {
        partition,
        keys: config.cleanup.compact,
        times: (!append_time).then(|| {
            let from = now_ms.saturating_sub(config.timestamp_before_max_ms);
            from..=now_ms.saturating_add(config.timestamp_after_max_ms)
        }),
    };
    let target = target_codec(config).filter(|(codec, _)| batch.header.codec() != Some(*codec));
    let mut max_timestamp = batch.header.max_timestamp;
    if target.is_some() || rules.must_look_into(&batch.header) {
        let unfolded = Unfolded::new(&batch, DECOMPRESSED_MAX_BYTES).map_err(unreadable)?;
        max_timestamp = rules.check(&unfolded)?;
        if let Some((codec, level)) = target {
            batch = unfolded.refold(codec, level).map_err(unreadable)?;
        }
    }
    if append_time {
        batch.header.set_log_append_time(now_ms);
    } else {
        batch.header.set_create_time(max_timestamp);
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

/// What the topic demands of each record.
struct Rules<'a> {
    partition: (&'a str, i32),
    /// Every record has a key.
    keys: bool,
    /// Every record's time lies within, or is -1 (none).
    times: Option<RangeInclusive<i64>>,
}

impl Rules<'_> {
    /// Always into a plain batch, which costs next to nothing. Into a compressed one only when
    /// its header cannot answer for its records.
    fn must_look_into(&self, header: &BatchHeader) -> bool {
        let suspect = |time| self.is_outside(time);
        self.keys
            || header.codec() == Some(Codec::None)
            || suspect(header.base_timestamp)
            || suspect(header.max_timestamp)
    }

    fn is_outside(&self, time: i64) -> bool {
        time != -1 && self.times.as_ref().is_some_and(|range| !range.contains(&time))
    }

    /// Reads all records; gives their largest time. Names the offenders.
    fn check(&self, unfolded: &Unfolded) -> Result<i64, Refused> {
        let mut largest = -1;
        let mut offenders = Offenders::default();
        for (place, record) in (0..).zip(unfolded) {
            let record = record.map_err(unreadable)?;
            record.check_headers().map_err(unreadable)?;
            largest = largest.max(record.timestamp);
            if self.keys && record.key.is_none() {
                offenders.add(place, ErrorCode::InvalidRecord, || self.keyless());
            } else if self.is_outside(record.timestamp) {
                offenders.add(place, ErrorCode::InvalidTimestamp, || self.untimely(&record));
            }
        }
        match offenders.refusal() {
            Some(refused) => Err(refused),
            None => Ok(largest),
        }
    }

    fn keyless(&self) -> String {
        let (topic, number) = self.partition;
        format!(
            "Compacted topic cannot accept message without key in topic partition {topic}-{number}"
        )
    }

    fn untimely(&self, record: &Record<'_>) -> String {
        let range = self.times.clone().unwrap_or(i64::MIN..=i64::MAX);
        format!(
            "Timestamp {} of message with offset {} is out of range. The timestamp should be \
             within [{}, {}]",
            record.timestamp,
            record.offset,
            range.start(),
            range.end()
        )
    }
}

/// The records that break a rule, the first [`OFFENDERS_MAX`] of them with their message.
#[derive(Default)]
struct Offenders {
    named: Vec<(i32, String)>,
    count: usize,
    untimely: bool,
}

impl Offenders {
    fn add(&mut self, place: i32, error: ErrorCode, message: impl FnOnce() -> String) {
        self.count += 1;
        self.untimely |= error == ErrorCode::InvalidTimestamp;
        if self.named.len() < OFFENDERS_MAX {
            self.named.push((place, message()));
        }
    }

    /// Where records break both rules, the answer is about the times.
    fn refusal(self) -> Option<Refused> {
        if self.count == 0 {
            return None;
        }
        let (error, message) = match self.untimely {
            true => (
                ErrorCode::InvalidTimestamp,
                "One or more records have been rejected due to invalid timestamp".to_owned(),
            ),
            false => (
                ErrorCode::InvalidRecord,
                format!(
                    "One or more records have been rejected due to {} record errors in total",
                    self.count
                ),
            ),
        };
        Some(Refused {
            hides_log_start: false,
            record_errors: self.named,
            ..Refused::with_message(error, message)
        })
    }
}

/// The inside of the batch is not what its header says.
fn unreadable(error: RecordError) -> Refused {
    let code = match error {
        RecordError::Compress(_) => ErrorCode::CorruptMessage,
        _ => ErrorCode::InvalidRecord,
    };
    let message = format!("the records of the batch cannot be read: {error}");
    Refused { hides_log_start: false, ..Refused::with_message(code, message) }
}

#[cfg(test)]
mod tests;
