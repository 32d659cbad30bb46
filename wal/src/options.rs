//! Settings of a shard's log, resolved by the caller; the defaults are those of one shard that
//! has the whole budget to itself.

use crate::error::WalError;
use crate::format::{
    blocks, BLOCK_BYTES, FRAME_HEADER_BYTES, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES,
};
use crate::recycle;

/// Lengths in frames have 32 bits.
const FILE_MAX_BYTES: u64 = u32::MAX as u64 / BLOCK_BYTES * BLOCK_BYTES;

/// How a frame is made durable. Chosen by [`crate::probe`] or by configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// The file is open with O_DSYNC: a write is durable when it is answered.
    Dsync,
    /// A write, then fdatasync.
    Fdatasync,
}

/// See the fields. `budget_bytes >= 4 * file_bytes`, `frame_max_bytes <= file_bytes / 2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOptions {
    /// Size of a log file.
    pub file_bytes: u64,
    /// Size of a file that is made when the log must be opened and no spare file is there.
    pub first_file_bytes: u64,
    /// What all files of the shard may take, spare ones included.
    pub budget_bytes: u64,
    /// A longer gathering is split into frames of this size; only a single record may need more.
    pub frame_max_bytes: u64,
    pub flush: Flush,
    /// Zero-fill files ahead until the budget is used, so that the log never meets a full disk.
    pub fill_ahead: bool,
}

impl WalOptions {
    /// The share of one of `shards` shards in a node's budget.
    pub fn for_shards(node_budget_bytes: u64, shards: u16) -> WalOptions {
        let budget_bytes = node_budget_bytes / u64::from(shards.max(1));
        let file_bytes = (budget_bytes / 16).clamp(4 << 20, 64 << 20) / BLOCK_BYTES * BLOCK_BYTES;
        WalOptions {
            file_bytes,
            first_file_bytes: file_bytes.min(4 << 20),
            budget_bytes: budget_bytes.max(4 * file_bytes),
            frame_max_bytes: file_bytes.min(4 << 20) / 2,
            flush: Flush::Fdatasync,
            fill_ahead: true,
        }
    }

    pub(crate) fn check(&self) -> Result<(), WalError> {
        let whole = |bytes: u64| bytes.is_multiple_of(BLOCK_BYTES) && bytes >= 4 * BLOCK_BYTES;
        let complaint = if !whole(self.file_bytes) || !whole(self.first_file_bytes) {
            "file sizes must be multiples of 4096, and at least 16384"
        } else if self.first_file_bytes > self.file_bytes {
            "the first file must not be larger than the others"
        } else if self.budget_bytes < 4 * self.file_bytes {
            "the budget must hold at least four files"
        } else if self.frame_max_bytes < BLOCK_BYTES || self.frame_max_bytes > self.file_bytes / 2 {
            "frame_max_bytes must lie between 4096 and half a file"
        } else if self.file_bytes > FILE_MAX_BYTES {
            "a file must be smaller than 4 GiB"
        } else {
            return Ok(());
        };
        Err(WalError::Options(complaint.to_owned()))
    }

    /// The options under which a log goes on whose longest live record takes so many bytes: it was
    /// written under others and must fit into a file, or it could never be stated again.
    pub(crate) fn fitted_to(self, longest: u64) -> WalOptions {
        if longest <= self.record_max_bytes() {
            return self;
        }
        // As much as a file is recycled for when room gets short (`recycle::candidate`).
        let file_bytes = blocks(recycle::relocation_bytes(longest, &self).div_ceil(7) * 8);
        let file_bytes = file_bytes.min(FILE_MAX_BYTES);
        WalOptions { file_bytes, budget_bytes: self.budget_bytes.max(4 * file_bytes), ..self }
    }

    /// The longest body that a record of such a log can have.
    pub fn body_max_bytes(&self) -> u64 {
        self.record_max_bytes() - (RECORD_HEADER_BYTES + RECORD_ALIGN_BYTES) as u64
    }

    /// Bytes of the largest record, its header included.
    pub(crate) fn record_max_bytes(&self) -> u64 {
        self.file_bytes - BLOCK_BYTES - FRAME_HEADER_BYTES as u64
    }
}
