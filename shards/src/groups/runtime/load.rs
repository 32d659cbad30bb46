//! Making a coordinator from the partition's log. On the partition's shard.

use net::batch::Batches;
use net::records::Unfolded;
use rt::Shard;

use super::OffsetsLog;
use crate::groups::coordinator::{Coordinator, GroupsConfig};
use crate::groups::records::{Record, RecordError};
use crate::groups::types::Now;

/// How much is read at once, and then the shard does something else.
const READ_BYTES: usize = 256 << 10;
/// The most that one batch may unfold to; ours are not compressed.
const UNFOLDED_MAX_BYTES: usize = 64 << 20;

pub(super) fn now(shard: &Shard) -> Now {
    Now { mono: shard.now(), wall_ms: shard.wall_ms() }
}

/// Replays all committed records. An error is one of reading: nothing is lost, try again.
pub(super) async fn load(
    shard: &Shard,
    log: &dyn OffsetsLog,
    config: GroupsConfig,
) -> Result<Coordinator, String> {
    let entropy = shard.clone();
    let mut coordinator = Coordinator::new(config, Box::new(move || entropy.entropy()));
    let mut offset = log.log_start();
    loop {
        let chunk = log.read(offset, READ_BYTES).await?;
        let before = offset;
        for bytes in chunk {
            for batch in Batches::new(bytes) {
                let batch = batch.map_err(|error| error.to_string())?;
                offset = offset.max(batch.header.next_offset());
                if batch.header.is_control() {
                    continue;
                }
                let unfolded = Unfolded::new(&batch, UNFOLDED_MAX_BYTES)
                    .map_err(|error| format!("batch at {}: {error}", batch.header.base_offset))?;
                for record in &unfolded {
                    let record = record.map_err(|error| {
                        format!("record of the batch at {}: {error}", batch.header.base_offset)
                    })?;
                    replay(&mut coordinator, record.offset, record.key, record.value);
                }
            }
        }
        if offset == before {
            break;
        }
        shard.yield_now().await;
    }
    coordinator.loaded(now(shard));
    Ok(coordinator)
}

/// A record that this coordinator cannot read must not keep all other groups away.
fn replay(coordinator: &mut Coordinator, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
    match Record::decode(key.unwrap_or_default(), value) {
        Ok(record) => coordinator.replay(record),
        Err(RecordError::UnknownKey(kind)) => {
            tracing::debug!(offset, kind, "skipped a group record of another kind");
        }
        Err(error) => tracing::error!(offset, "skipped a group record: {error}"),
    }
}
