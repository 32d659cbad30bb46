//! Which batches stand in segments that only the log points to: read from the files of a disk,
//! with the scan that recovery uses.

use std::collections::BTreeMap;
use std::ops::Range;

use wal::format::{FileHeader, Laxness, Pointer, RecordKind, POINTER_BYTES};
use wal::{Index, Owner, Scan, ScannedFrame, Step};

/// A pointer without which its batch is lost: no checkpoint has passed its entry.
pub struct Live {
    /// The log file that it stands in.
    pub path: String,
    /// Where it stands there.
    pub at: Range<u64>,
    pub pointer: Pointer,
}

/// Of the logs of all shards.
pub fn live(files: &BTreeMap<String, Vec<u8>>) -> Vec<Live> {
    let mut logs: BTreeMap<&str, Vec<Log<'_>>> = BTreeMap::new();
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".wal")) {
        let header = FileHeader::decode(bytes).expect("the run leaves whole files");
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        logs.entry(folder).or_default().push(Log { path, header, bytes });
    }
    logs.into_values().flat_map(live_in).collect()
}

struct Log<'a> {
    path: &'a str,
    header: FileHeader,
    bytes: &'a [u8],
}

fn live_in(mut logs: Vec<Log<'_>>) -> Vec<Live> {
    logs.sort_by_key(|log| log.header.sequence);
    let mut scan = Scan::new(logs.iter().map(|log| log.header).collect(), Laxness::default());
    let mut live = BTreeMap::new();
    loop {
        match scan.step() {
            Step::Read { file, position, length } => {
                let end = logs[file].bytes.len().min((position + length) as usize);
                let bytes = &logs[file].bytes[position as usize..end];
                scan.supply(file, position, bytes.to_vec().into());
            }
            Step::Frame(frame) => {
                let log = logs.iter().find(|log| log.header.sequence == frame.header.file);
                take(&frame, log.expect("a frame stands in a file").path, &mut live);
            }
            Step::Finished(_) => return live.into_values().collect(),
        }
    }
}

fn take(frame: &ScannedFrame, path: &str, live: &mut BTreeMap<(Owner, Index), Live>) {
    for record in frame.records() {
        let (owner, index) = (record.header.owner, record.header.index);
        match record.header.kind {
            RecordKind::Pointer => {
                let pointer = Pointer::decode(record.body).expect("a pointer is whole");
                let start = record.location(&frame.header).position;
                let at = start..start + POINTER_BYTES as u64;
                live.insert((owner, index), Live { path: path.to_owned(), at, pointer });
            }
            RecordKind::Checkpoint => live.retain(|(of, at), _| *of != owner || *at > index),
            RecordKind::Tombstone => live.retain(|(of, _), _| *of != owner),
            _ => {}
        }
    }
}
