//! Which log start the retention settings ask for. A decision only: the leader proposes it as a
//! control entry, and every replica moves its log start when that entry is committed.
//! Pure; any shard.

use super::types::Offset;

/// Retention settings of a topic, under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// `cleanup.policy` contains `delete`; without it retention deletes nothing.
    pub delete: bool,
    /// `retention.ms`; negative for no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; negative for no limit.
    pub retention_bytes: i64,
}

/// One segment as retention sees it, oldest first; the last is the active one, which includes
/// what is committed and not flushed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentView {
    /// First offset.
    pub base_offset: Offset,
    /// Offset after its last record.
    pub next_offset: Offset,
    /// Bytes of batches.
    pub bytes: u64,
    /// Largest timestamp of its batches, or the wall clock at its last write when they have none.
    pub newest_ms: i64,
}

/// The log start that the settings ask for, or `None` when the present one stands.
///
/// As in Kafka: segments go oldest first and stop at the first that may not. By time, a segment
/// goes when its newest record is older than `retention_ms`; by size, when what would be left
/// without it is still at least `retention_bytes`.
pub fn new_log_start(
    config: &RetentionConfig,
    segments: &[SegmentView],
    log_start: Offset,
    now_ms: i64,
) -> Option<Offset> {
    if !config.delete {
        return None;
    }
    let mut excess = excess_bytes(config, segments);
    let mut start = log_start;
    for segment in segments {
        let expired = config.retention_ms >= 0
            && now_ms.saturating_sub(segment.newest_ms) > config.retention_ms;
        let fits = segment.bytes > 0 && excess.is_some_and(|excess| excess >= segment.bytes);
        let below = segment.next_offset <= log_start;
        if !(expired || fits || below) {
            break;
        }
        excess = excess.map(|excess| excess.saturating_sub(segment.bytes));
        start = start.max(segment.next_offset);
    }
    (start > log_start).then_some(start)
}

/// How much the log holds above `retention_bytes`; `None` when it is not above.
fn excess_bytes(config: &RetentionConfig, segments: &[SegmentView]) -> Option<u64> {
    let limit = u64::try_from(config.retention_bytes).ok()?;
    let total: u64 = segments.iter().map(|segment| segment.bytes).sum();
    total.checked_sub(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<SegmentView> {
        let view = |base, next, bytes, newest_ms| SegmentView {
            base_offset: Offset(base),
            next_offset: Offset(next),
            bytes,
            newest_ms,
        };
        vec![view(0, 10, 100, 1000), view(10, 20, 100, 3000), view(20, 30, 50, 2000)]
    }

    fn config(retention_ms: i64, retention_bytes: i64) -> RetentionConfig {
        RetentionConfig { delete: true, retention_ms, retention_bytes }
    }

    fn start(config: RetentionConfig, log_start: i64, now_ms: i64) -> Option<i64> {
        new_log_start(&config, &segments(), Offset(log_start), now_ms).map(|offset| offset.0)
    }

    #[test]
    fn time_stops_at_the_first_segment_that_is_young_enough() {
        assert_eq!(start(config(500, -1), 0, 1500), None, "exactly the limit stays");
        assert_eq!(start(config(500, -1), 0, 1501), Some(10));
        assert_eq!(
            start(config(500, -1), 0, 2600),
            Some(10),
            "an old one behind a young one stays"
        );
        assert_eq!(start(config(500, -1), 0, 9000), Some(30), "the active one goes too");
        assert_eq!(start(config(-1, -1), 0, i64::MAX), None);
    }

    #[test]
    fn size_never_goes_below_the_limit() {
        assert_eq!(start(config(-1, 250), 0, 0), None);
        assert_eq!(start(config(-1, 150), 0, 0), Some(10));
        assert_eq!(start(config(-1, 151), 0, 0), None);
        assert_eq!(start(config(-1, 50), 0, 0), Some(20));
        assert_eq!(start(config(-1, 0), 0, 0), Some(30));
    }

    #[test]
    fn compacted_topics_are_exempt_and_the_start_never_goes_back() {
        let compact = RetentionConfig { delete: false, ..config(0, 0) };
        assert_eq!(start(compact, 0, i64::MAX), None);
        assert_eq!(start(config(500, -1), 10, 1501), None);
        assert_eq!(start(config(500, -1), 15, 1501), None, "a start inside a young segment stands");
        assert_eq!(new_log_start(&config(0, 0), &[], Offset(7), i64::MAX), None);
    }
}
