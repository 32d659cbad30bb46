//! When the active segment is closed and the next begun. Pure; any shard.

use super::types::{Offset, SegmentConfig};

/// Offsets of one segment span at most this much, so that an index can store them in 32 bits.
const OFFSET_SPAN_MAX: i64 = i32::MAX as i64;
/// Bytes by which Kafka counts an index entry against `segment.index.bytes`.
const KAFKA_INDEX_ENTRY_BYTES: u64 = 8;

/// What the decision needs to know of the active segment.
#[derive(Debug, Clone, Copy)]
pub struct SegmentFill {
    /// First offset.
    pub base_offset: Offset,
    /// Bytes assigned to it so far.
    pub bytes: u64,
    /// Entries of its index.
    pub index_entries: u64,
    /// Largest timestamp of its first batch, or the wall clock when that batch had none.
    pub first_timestamp: i64,
    /// Drawn once per segment, at most `segment.jitter.ms`.
    pub jitter_ms: i64,
}

/// The batch that is to be placed.
#[derive(Debug, Clone, Copy)]
pub struct NextBatch {
    /// Offset after its last record.
    pub next_offset: Offset,
    /// Its length.
    pub bytes: u64,
    /// Its largest timestamp, or the wall clock when it has none.
    pub timestamp: i64,
}

/// Does `batch` begin a new segment? Never when the active one is empty.
pub fn must_roll(config: &SegmentConfig, fill: &SegmentFill, batch: &NextBatch) -> bool {
    if fill.bytes == 0 {
        return false;
    }
    let age = batch.timestamp.saturating_sub(fill.first_timestamp);
    fill.bytes + batch.bytes > config.segment_bytes
        || age > config.segment_ms.saturating_sub(fill.jitter_ms)
        || fill.index_entries >= (config.segment_index_bytes / KAFKA_INDEX_ENTRY_BYTES).max(1)
        || batch.next_offset.0 - fill.base_offset.0 > OFFSET_SPAN_MAX
}

/// The jitter of a new segment, from a random number.
pub fn draw_jitter(config: &SegmentConfig, random: u64) -> i64 {
    let most = config.segment_jitter_ms.min(config.segment_ms).max(0) as u64;
    if most == 0 {
        0
    } else {
        (random % most) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill() -> SegmentFill {
        SegmentFill {
            base_offset: Offset(100),
            bytes: 900,
            index_entries: 2,
            first_timestamp: 1000,
            jitter_ms: 0,
        }
    }

    fn config() -> SegmentConfig {
        SegmentConfig {
            segment_bytes: 1000,
            segment_ms: 50,
            segment_jitter_ms: 20,
            segment_index_bytes: 24,
            index_interval_bytes: 4096,
        }
    }

    fn batch(bytes: u64, timestamp: i64) -> NextBatch {
        NextBatch { next_offset: Offset(110), bytes, timestamp }
    }

    #[test]
    fn size_time_index_and_span_each_roll() {
        let roll = |fill: &SegmentFill, next| must_roll(&config(), fill, &next);
        assert!(!roll(&fill(), batch(100, 1050)));
        assert!(roll(&fill(), batch(101, 1050)), "size");
        assert!(roll(&fill(), batch(100, 1051)), "time");
        assert!(roll(&SegmentFill { jitter_ms: 20, ..fill() }, batch(100, 1031)), "jitter");
        assert!(roll(&SegmentFill { index_entries: 3, ..fill() }, batch(1, 1000)), "index");
        let far = NextBatch { next_offset: Offset(101 + OFFSET_SPAN_MAX), ..batch(1, 1000) };
        assert!(roll(&fill(), far), "span of offsets");
        assert!(
            !roll(&SegmentFill { bytes: 0, ..fill() }, batch(5000, 9999)),
            "an empty one never"
        );
    }

    #[test]
    fn jitter_is_below_both_limits() {
        assert!((0..100).all(|random| draw_jitter(&config(), random) < 20));
        let none = SegmentConfig { segment_jitter_ms: 0, ..config() };
        assert_eq!(draw_jitter(&none, 77), 0);
    }
}
