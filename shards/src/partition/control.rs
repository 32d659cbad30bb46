//! Control entries of a partition's Raft group: what the leader decides for all replicas and
//! that is not a record of a client.
//!
//! Encoded as the payload of an entry of kind control; fixed width, big endian:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | kind: 1 = log start |
//! | 8 | log start: the new log start offset |

use thiserror::Error;

const LOG_START: u8 = 1;

/// A decision that every replica of the partition applies when it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Records below this offset are gone (retention, DeleteRecords).
    LogStart(i64),
}

/// The payload of a control entry is not one that this version knows.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("control entry of {length} bytes and kind {kind:?} is not known to this version")]
pub struct UnknownControl {
    length: usize,
    kind: Option<u8>,
}

impl Control {
    /// Told apart in the log without the payload, for tools.
    pub fn kind(self) -> u8 {
        let Control::LogStart(_) = self;
        LOG_START
    }

    pub fn encode(self) -> [u8; 9] {
        let Control::LogStart(offset) = self;
        let mut bytes = [0; 9];
        bytes[0] = LOG_START;
        bytes[1..].copy_from_slice(&offset.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Control, UnknownControl> {
        match bytes {
            [LOG_START, offset @ ..] if offset.len() == 8 => {
                let mut field = [0; 8];
                field.copy_from_slice(offset);
                Ok(Control::LogStart(i64::from_be_bytes(field)))
            }
            _ => Err(UnknownControl { length: bytes.len(), kind: bytes.first().copied() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_start_is_pinned_byte_by_byte() {
        let bytes = Control::LogStart(0x0102_0304).encode();
        assert_eq!(bytes, [1, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(Control::decode(&bytes), Ok(Control::LogStart(0x0102_0304)));
    }

    #[test]
    fn other_payloads_are_refused() {
        assert!(Control::decode(&[]).is_err());
        assert!(Control::decode(&[1, 2]).is_err());
        assert!(Control::decode(&[9; 9]).is_err());
    }
}
