//! `__meta` as it stands in the data folder of a node that does not run: the newest snapshot, and
//! the commands of the log after it.
//!
//! Reads only. Judges like a start: the checkpoint in the log says which snapshot counts, and a sole
//! voter has committed whatever its log holds. Nothing here serves a client.

use std::sync::Arc;

use bytes::Bytes;
use raft::EntryKind;
use rt::{Dir, Shard};
use wal::inspect::{read_replica, OfflineReplica};
use wal::{Damage, Index, WalError};

use crate::controller::{self, ControllerError, COMMAND};
use crate::meta::{Command, Image, State};
use crate::node::META_OWNER;

/// The metadata of a node, and what it was read from.
#[derive(Debug, Clone)]
pub struct Metadata {
    pub image: Arc<Image>,
    /// Name of the snapshot file; none before the first one.
    pub snapshot: Option<String>,
    /// The last entry that is contained.
    pub index: Index,
    /// Commands of the log that came on top of the snapshot.
    pub commands: usize,
    /// The log has lost something of it: a broker would not start from this.
    pub damage: Option<Damage>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("write-ahead log: {0}")]
    Wal(#[from] WalError),
    #[error(transparent)]
    Snapshot(#[from] ControllerError),
    #[error("the checkpoint of the metadata is damaged: {0}")]
    Checkpoint(String),
    #[error("metadata entry {index}: {reason}")]
    Entry { index: Index, reason: String },
}

/// Reads the metadata; `log` is the folder of shard 0's log. `None` if the log has none yet.
pub async fn metadata(
    shard: &Shard,
    data: &Dir,
    log: &Dir,
) -> Result<Option<Metadata>, OfflineError> {
    let Some(OfflineReplica { replica, bodies }) = read_replica(shard, log, META_OWNER).await?
    else {
        return Ok(None);
    };
    let app = match &replica.checkpoint {
        Some((_, _, body)) => {
            let decoded = raft::decode_checkpoint(body);
            decoded.map_err(|error| OfflineError::Checkpoint(error.to_string()))?.1
        }
        None => Bytes::new(),
    };
    let mut index = replica.checkpoint.as_ref().map_or(Index(0), |(index, ..)| *index);
    // The checkpoint of the group's creation names no snapshot.
    let snapshot = (!app.is_empty()).then(|| String::from_utf8_lossy(&app).into_owned());
    let mut state = match &snapshot {
        Some(_) => controller::load(data, &app).await?,
        None => State::new(),
    };
    let mut commands = 0;
    for (entry, body) in replica.entries.iter().zip(&bodies) {
        index = entry.index;
        commands += usize::from(apply(&mut state, index, body)?);
    }
    let image = state.image();
    Ok(Some(Metadata { image, snapshot, index, commands, damage: replica.damaged }))
}

/// Applies an entry if it is a command.
fn apply(state: &mut State, index: Index, body: &Bytes) -> Result<bool, OfflineError> {
    let failed = |reason: String| OfflineError::Entry { index, reason };
    let entry = raft::entry_of(body).ok_or_else(|| failed("it is of no known kind".to_owned()))?;
    let (EntryKind::Control(COMMAND), payload) = entry else { return Ok(false) };
    let (now_ms, command) = Command::decode(&payload).map_err(|error| failed(error.to_string()))?;
    // A refusal changed nothing when it was made, and changes nothing now.
    let _ = state.apply(command, now_ms);
    Ok(true)
}
