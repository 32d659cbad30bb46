//! What a batch from a client must satisfy before it goes to its partition, and how it is
//! stored: the checks of a Produce that need the topic's configuration and no partition state.
//!
//! Pure. The order is Kafka's (kafka.md section 5), so that a batch with two faults is answered
//! with the same one. The records of a plain batch are walked: their number, their offsets, their
//! times. Those of a compressed batch are unfolded only where its header cannot answer for them:
//! for a missing key on a compacted topic, when the header's times are out of bounds, to compress
//! anew. So a compressed batch may lie about what is inside, and every reader assumes that it does.

use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;
use net::batch::{Batch, BatchError, BatchHeader};
use net::compress::{Codec, CompressError};
use net::records::RecordError;
use net::scan::{recompress, scan, Seen, Target};
use net::unfold::unfolded_max_bytes;
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
    let target = target(config).filter(|target| batch.header.codec() != Some(target.codec));
    let mut max_timestamp = batch.header.max_timestamp;
    if let Some(target) = target {
        (batch, max_timestamp) = rules.check_and_recompress(&batch, target)?;
        batch.check_integrity(limit(config.max_message_bytes), limit(config.segment_bytes))?;
    } else if rules.must_look_into(&batch.header) {
        max_timestamp = rules.check(&batch)?;
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
fn target(config: &TopicConfig) -> Option<Target> {
    let (codec, level) = match config.compression {
        Compression::Producer => return None,
        Compression::Uncompressed => (Codec::None, None),
        Compression::Gzip { level } => (Codec::Gzip, Some(level)),
        Compression::Snappy => (Codec::Snappy, None),
        Compression::Lz4 { level } => (Codec::Lz4, Some(level)),
        Compression::Zstd { level } => (Codec::Zstd, Some(level)),
    };
    Some(Target { codec, level, batch_max_bytes: config.max_message_bytes as usize })
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

    /// Looks at all records; gives their largest time. Names the offenders.
    fn check(&self, batch: &Batch) -> Result<i64, Refused> {
        let mut found = Found::default();
        let scanned = scan(batch, unfolded_max_bytes(batch), |seen| {
            self.judge(seen, &mut found);
            ControlFlow::Continue(())
        });
        scanned.map_err(unreadable)?;
        found.largest_time()
    }

    /// The same, and the batch in another codec.
    fn check_and_recompress(&self, batch: &Batch, target: Target) -> Result<(Batch, i64), Refused> {
        let (limit, mut found) = (unfolded_max_bytes(batch), Found::default());
        let anew = recompress(batch, target, limit, |seen| self.judge(seen, &mut found));
        let anew = anew.map_err(unreadable)?;
        Ok((anew, found.largest_time()?))
    }

    fn judge(&self, seen: Seen, found: &mut Found) {
        found.largest = found.largest.max(seen.timestamp);
        if self.keys && !seen.has_key {
            found.offender(ErrorCode::InvalidRecord, || self.keyless());
        } else if self.is_outside(seen.timestamp) {
            found.offender(ErrorCode::InvalidTimestamp, || self.untimely(&seen));
        }
        found.place += 1;
    }

    fn keyless(&self) -> String {
        let (topic, number) = self.partition;
        format!(
            "Compacted topic cannot accept message without key in topic partition {topic}-{number}"
        )
    }

    fn untimely(&self, record: &Seen) -> String {
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

/// What the records of a batch are like; those that break a rule, the first [`OFFENDERS_MAX`] of
/// them with their message.
struct Found {
    /// Of the next record in the batch.
    place: i32,
    largest: i64,
    named: Vec<(i32, String)>,
    count: usize,
    untimely: bool,
}

impl Default for Found {
    fn default() -> Found {
        Found { place: 0, largest: -1, named: Vec::new(), count: 0, untimely: false }
    }
}

impl Found {
    fn offender(&mut self, error: ErrorCode, message: impl FnOnce() -> String) {
        self.count += 1;
        self.untimely |= error == ErrorCode::InvalidTimestamp;
        if self.named.len() < OFFENDERS_MAX {
            self.named.push((self.place, message()));
        }
    }

    /// Where records break both rules, the answer is about the times.
    fn largest_time(self) -> Result<i64, Refused> {
        if self.count == 0 {
            return Ok(self.largest);
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
        Err(Refused {
            hides_log_start: false,
            record_errors: self.named,
            ..Refused::with_message(error, message)
        })
    }
}

/// The inside of the batch is not what its header says.
fn unreadable(error: RecordError) -> Refused {
    let code = match error {
        // What it would be if the producer had sent them so.
        RecordError::Compress(CompressError::FoldedTooLarge { .. }) => ErrorCode::MessageTooLarge,
        RecordError::Compress(_) => ErrorCode::CorruptMessage,
        _ => ErrorCode::InvalidRecord,
    };
    let message = format!("the records of the batch cannot be read: {error}");
    Refused { hides_log_start: false, ..Refused::with_message(code, message) }
}

#[cfg(test)]
mod tests;
