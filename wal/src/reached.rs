//! How far the log is known to reach: the file `reached` beside the log files.
//!
//! Nothing in a log tells an end that turned to zeros from one that was never written. So a frame
//! that is durable is named elsewhere, soon after it is, and once more when the log is stopped. What
//! the file says never turns false, since a log only grows: it needs no order with the frames, and
//! is neither taken back nor renewed by a start. Written in place, in one sector: a power cut leaves
//! the old or the new one. One that is damaged proves nothing; it is reported and made anew.
//! One task per shard's log. FORMAT.md, "How far the log reaches".

use std::rc::Rc;
use std::time::Duration;

use rt::{Dir, File, FileOptions, Shard};

use crate::core::{Core, Stop};
use crate::error::{DiskError, WalError};
use crate::files;
use crate::format::{put_u16, put_u32, put_u64, u16_at, u32_at, u64_at, BLOCK_BYTES};
use crate::options::Flush;
use crate::types::{FrameNumber, Identity};

pub(crate) const FILE: &str = "reached";
/// A durable frame is named within this time: what is lost of a killed log beyond it is noticed.
const NAMED_AFTER: Duration = Duration::from_secs(1);

const MAGIC: &[u8; 8] = b"CHRONEND";
const VERSION: u32 = 1;
const RECORD_BYTES: usize = 64;
// A disk writes it whole.
const _: () = assert!(RECORD_BYTES <= 512);

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub identity: Identity,
    /// A frame that is durable, as are all before it; 0 if none was written yet.
    pub frame: FrameNumber,
}

impl Reached {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        block[0..8].copy_from_slice(MAGIC);
        put_u32(&mut block, 8, VERSION);
        block[16..32].copy_from_slice(&self.identity.node);
        put_u16(&mut block, 32, self.identity.shard.0);
        put_u32(&mut block, 36, self.identity.generation);
        put_u64(&mut block, 40, self.frame.0);
        let crc = checksum(&block);
        put_u32(&mut block, 12, crc);
        block
    }

    /// `None` if it is damaged, or of a version that this program does not know.
    pub fn decode(block: &[u8]) -> Option<Reached> {
        if block.len() < RECORD_BYTES || &block[0..8] != MAGIC || u32_at(block, 8) != VERSION {
            return None;
        }
        if u32_at(block, 12) != checksum(block) {
            return None;
        }
        let mut node = [0; 16];
        node.copy_from_slice(&block[16..32]);
        let shard = rt::ShardId(u16_at(block, 32));
        let identity = Identity { node, shard, generation: u32_at(block, 36) };
        Some(Reached { identity, frame: FrameNumber(u64_at(block, 40)) })
    }
}

fn checksum(block: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&block[..12]);
    crc32c::crc32c_append(crc, &block[16..RECORD_BYTES])
}

/// What was found in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Found {
    /// The log never came so far, or was written before there was such a file.
    #[default]
    Nothing,
    Damaged,
    Says(FrameNumber),
}

pub(crate) async fn read(
    dir: &Dir,
    options: FileOptions,
    expected: Option<Identity>,
) -> Result<Found, WalError> {
    let file = dir.open_file(FILE, options).await?;
    let block = file.read_at(0, BLOCK_BYTES as usize).await?;
    let Some(reached) = Reached::decode(&block) else { return Ok(Found::Damaged) };
    match expected.filter(|expected| *expected != reached.identity) {
        Some(expected) => {
            Err(WalError::Foreign { name: FILE.to_owned(), found: reached.identity, expected })
        }
        None => Ok(Found::Says(reached.frame)),
    }
}

/// The file, open for writing, and what it says.
pub(crate) struct Mark {
    file: File,
    identity: Identity,
    says: FrameNumber,
}

impl Mark {
    /// Opens the file that was `found`, or makes it, durably. `last` is the last frame of the log,
    /// and durable. On a full disk there is none.
    pub async fn open(
        shard: &Shard,
        dir: &Dir,
        found: Found,
        identity: Identity,
        flush: Flush,
        last: FrameNumber,
    ) -> Result<Option<Mark>, DiskError> {
        let says = match found {
            Found::Says(frame) => frame,
            Found::Nothing | Found::Damaged => {
                if found == Found::Damaged {
                    let shard = shard.id().0;
                    tracing::warn!(
                        shard,
                        "the file `{FILE}` of the log was damaged, and is made anew"
                    );
                }
                let content = Reached { identity, frame: last }.encode();
                match dir.replace(FILE, &content).await.map_err(DiskError::from) {
                    Err(error) if error.is_no_space() => return Ok(None),
                    made => made?,
                }
                last
            }
        };
        let file = dir.open_file(FILE, files::open_options(shard, flush)).await?;
        Ok(Some(Mark { file, identity, says }))
    }

    /// Says another frame, durably.
    pub async fn say(&mut self, core: &Core, frame: FrameNumber) -> Result<(), DiskError> {
        let content = Reached { identity: self.identity, frame }.encode();
        let mut buf = core.shard.buffer(content.len());
        buf.extend_from_slice(&content);
        self.file.write_at(buf, 0).await?;
        if core.options.flush == Flush::Fdatasync {
            self.file.sync().await?;
        }
        self.says = frame;
        Ok(())
    }
}

/// Names durable frames until the log has ended, the last one included.
pub(crate) async fn run(core: Rc<Core>, mut mark: Mark) {
    loop {
        rt::either(core.mark_bell.notified(), core.end_bell.notified()).await;
        if core.running() {
            let soon = core.shard.sleep(NAMED_AFTER);
            rt::either(core.end_bell.notified(), soon).await;
        }
        let (reached, stop) = {
            let state = core.state();
            if state.poisoned.is_some() {
                return;
            }
            (state.reached, state.stop)
        };
        // Between the two a last frame is on its way.
        let now = matches!(stop, Stop::Running | Stop::Done);
        if now && reached > mark.says {
            if let Err(error) = mark.say(&core, reached).await {
                core.poison(error);
                return;
            }
        }
        if stop == Stop::Done {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REACHED: Reached = Reached {
        identity: Identity { node: *b"0123456789abcdef", shard: rt::ShardId(3), generation: 2 },
        frame: FrameNumber(41),
    };

    /// The bytes of version 1, written down once from FORMAT.md: they may never change.
    #[test]
    fn golden_bytes() {
        let block = REACHED.encode();
        assert_eq!(block.len() as u64, BLOCK_BYTES);
        let hex: String = block[..64].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "4348524f4e454e440100000019f9cc8730313233343536373839616263646566\
             0300000002000000290000000000000000000000000000000000000000000000"
        );
        assert!(block[64..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let block = REACHED.encode();
        assert_eq!(Reached::decode(&block), Some(REACHED));
        for bit in 0..RECORD_BYTES * 8 {
            let mut broken = block.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Reached::decode(&broken), None, "bit {bit}");
        }
        assert_eq!(Reached::decode(&block[..RECORD_BYTES - 1]), None);
    }
}
