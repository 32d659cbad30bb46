//! Offline reader: what stands in a WAL folder, as text. Changes nothing.
//!
//! Used by `chronik-server inspect`. Judges with the scan that recovery uses, so that it never
//! tells another story. On the shard that calls it, with nobody else in the folder.

use std::fmt::Write as _;

use bytes::Bytes;
use rt::{Dir, FileOptions, Shard};

use crate::error::WalError;
use crate::format::{Pointer, RecordAt, RecordKind};
use crate::layout::hyphens;
use crate::record::Damage;
use crate::recover::{self, RecoveredReplica};
use crate::scan::ScannedFrame;
use crate::types::{GroupId, Owner, LOG_ITSELF};
use crate::{reached, recycle, replay};

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InspectOptions {
    /// A line for every frame.
    pub frames: bool,
    /// A line for every record.
    pub records: bool,
    /// Only records of this group.
    pub group: Option<GroupId>,
}

/// Writes what stands in the folder to `line`, one line at a time.
pub async fn inspect(
    shard: &Shard,
    dir: &Dir,
    options: InspectOptions,
    mut line: impl FnMut(&str),
) -> Result<(), WalError> {
    let found = replay::find(dir, FileOptions::READ_DIRECT, None).await?;
    for file in &found.files {
        line(&describe_file(file));
    }
    for name in &found.unreadable {
        line(&format!("{name}: the header is DAMAGED"));
    }
    match found.reached {
        reached::Found::Says(frame) => line(&format!("{}: frame {frame}", reached::FILE)),
        reached::Found::Damaged => line(&format!("{}: DAMAGED", reached::FILE)),
        reached::Found::Nothing => {}
    }
    for (name, bytes) in &found.spares {
        line(&format!("{name}: spare, {bytes} bytes"));
    }
    if options.frames || options.records {
        replay::scan(shard, &found.files, |frame| describe_frame(&frame, &options, &mut line))
            .await?;
    }
    let replayed = replay::replay(shard, &found).await?;
    for (owner, replica) in replayed.index.replicas() {
        if *owner != LOG_ITSELF && options.group.is_none_or(|group| group == owner.group) {
            line(&describe_replica(replica, &owner.to_string()));
        }
    }
    let verdict = &replayed.verdict;
    let end = match (verdict.torn, verdict.stopped) {
        (Some(torn), _) => format!("a torn write after it ({torn}), which is normal"),
        (None, true) => "stopped in order".to_owned(),
        (None, false) => "not stopped in order".to_owned(),
    };
    line(&format!("last frame {}, {} records, {end}", verdict.last, replayed.records));
    for damage in &verdict.damage {
        line(&format!("DAMAGE: {damage}"));
    }
    if let Some(lost) = replayed.lost() {
        line(&format!("no start has dealt with this loss: {lost}"));
    }
    Ok(())
}

/// One replica as a recovery would find it, with the bodies of its entries in order.
#[derive(Debug, Clone)]
pub struct OfflineReplica {
    pub replica: RecoveredReplica,
    pub bodies: Vec<Bytes>,
}

/// Reads one replica out of the folder. `None` if the log knows nothing of it.
pub async fn read_replica(
    shard: &Shard,
    dir: &Dir,
    owner: Owner,
) -> Result<Option<OfflineReplica>, WalError> {
    let found = replay::find(dir, FileOptions::READ_DIRECT, None).await?;
    let replayed = replay::replay(shard, &found).await?;
    let (mut recovered, _) = recover::describe(&found, &replayed);
    let Some(replica) = recovered.replicas.remove(&owner) else { return Ok(None) };
    let mut bodies = Vec::with_capacity(replica.entries.len());
    for entry in &replica.entries {
        let at = entry.location;
        let file = found.files.iter().find(|file| file.header.sequence == at.file);
        let file = file.ok_or(WalError::Gone(at))?;
        bodies.push(recycle::read_body(shard, &file.file, at).await?);
    }
    Ok(Some(OfflineReplica { replica, bodies }))
}

fn describe_file(file: &replay::FoundFile) -> String {
    let header = &file.header;
    let mut text = format!(
        "{}: file {} of node {} shard {} generation {}, {} bytes, ",
        file.name,
        header.sequence,
        hyphens(&header.identity.node),
        header.identity.shard.0,
        header.identity.generation,
        header.file_bytes,
    );
    let _ = match header.base {
        Some(base) => write!(text, "opened after frame {base}"),
        None => write!(text, "prepared ahead"),
    };
    if header.damage_found {
        text.push_str(", after DAMAGE in older files");
    }
    text
}

fn describe_frame(frame: &ScannedFrame, options: &InspectOptions, line: &mut impl FnMut(&str)) {
    let header = &frame.header;
    if options.frames {
        line(&format!(
            "frame {} file {} position {} length {} records {} durable {} oldest file {}{}",
            header.number,
            header.file,
            header.position,
            header.length,
            header.records,
            header.durable,
            header.oldest_file,
            if header.stop { " stop" } else { "" },
        ));
    }
    if options.records {
        for record in frame.records() {
            if options.group.is_none_or(|group| group == record.header.owner.group) {
                line(&describe_record(&record, frame));
            }
        }
    }
}

fn describe_record(record: &RecordAt<'_>, frame: &ScannedFrame) -> String {
    let header = &record.header;
    let mut text = format!("  {} ", header.owner);
    let (index, term) = (header.index, header.term);
    let _ = match header.kind {
        RecordKind::Append => write!(text, "append {index} term {term}"),
        RecordKind::Relocated => write!(text, "relocated {index} term {term}"),
        RecordKind::Truncate => write!(text, "truncate from {index}"),
        RecordKind::HardState => {
            let mut vote = [0; 8];
            if let Some(bytes) = record.body.get(..8) {
                vote.copy_from_slice(bytes);
            }
            let vote = u64::from_le_bytes(vote);
            write!(text, "hard state term {term} vote {vote} commit {index}")
        }
        RecordKind::Membership => write!(text, "membership at {index} term {term}"),
        RecordKind::Checkpoint => write!(text, "checkpoint {index} term {term}"),
        RecordKind::Tombstone => write!(text, "tombstone"),
        RecordKind::Pointer => match Pointer::decode(record.body) {
            Some(pointer) => write!(
                text,
                "pointer {index} term {term} to segment {} position {} length {}",
                pointer.segment, pointer.position, pointer.length
            ),
            None => write!(text, "pointer {index} term {term}, too short"),
        },
        RecordKind::Fence => match Damage::decode(record.body) {
            Ok(Some(damage)) => write!(text, "fence: {damage}"),
            Ok(None) => write!(text, "fence lifted"),
            Err(()) => write!(text, "fence, too short"),
        },
    };
    let position = frame.header.position + record.body_start() as u64;
    let _ = write!(text, ", {} bytes at {position}", header.body_length);
    if header.relocated {
        text.push_str(", relocated");
    }
    text
}

fn describe_replica<P>(replica: &crate::index::Replica<P>, owner: &str) -> String {
    let mut text = owner.to_owned();
    if replica.tombstone.is_some() {
        text.push_str(": removed");
        return text;
    }
    if let Some((state, _)) = replica.hard_state {
        let _ = write!(text, ": term {} vote {} commit {}", state.term, state.vote, state.commit);
    }
    if let Some(mark) = &replica.checkpoint {
        let _ = write!(text, ", checkpoint {} term {}", mark.index, mark.term);
    }
    match (replica.entries.first_key_value(), replica.entries.last_key_value()) {
        (Some((first, _)), Some((last, _))) => {
            let _ = write!(text, ", entries {first} to {last}");
        }
        _ => text.push_str(", no entries"),
    }
    if let Some((damage, _)) = replica.fence {
        let _ = write!(text, ", FENCED: {damage}");
    } else if let Some(damage) = replica.damage() {
        let _ = write!(text, ", DAMAGED: {damage}");
    }
    text
}
