//! rust-protobuf 2's `Message` for our types, as far as raft-rs uses it.
//!
//! raft-rs asks for sizes (`compute_size`), and encodes and merges its own configuration changes
//! (`write_to_bytes`, `merge_from_bytes`); all of that goes to prost. Reflection and unknown fields
//! do not exist in prost: asking for them is a bug and aborts.

use std::any::Any;

use protobuf::error::WireError;
use protobuf::reflect::MessageDescriptor;
use protobuf::{CodedInputStream, CodedOutputStream, ProtobufError, ProtobufResult, UnknownFields};

use crate::eraftpb::*;

/// rust-protobuf's error for bytes that prost refused; it has no variant that could carry prost's own.
fn refused(_: prost::DecodeError) -> ProtobufError {
    ProtobufError::WireError(WireError::Other)
}

/// Sizes are `u32` there; a message of 4 GiB is beyond every frame limit of ours.
fn size_bytes(message: &impl prost::Message) -> u32 {
    u32::try_from(message.encoded_len()).expect("a Raft message is far smaller than 4 GiB")
}

macro_rules! legacy_message {
    ($($message:ident)*) => {$(
        impl protobuf::Clear for $message {
            fn clear(&mut self) {
                prost::Message::clear(self);
            }
        }

        impl protobuf::Message for $message {
            fn descriptor(&self) -> &'static MessageDescriptor {
                unreachable!("prost has no reflection, and raft-rs asks for none")
            }

            fn is_initialized(&self) -> bool {
                true
            }

            fn merge_from(&mut self, is: &mut CodedInputStream) -> ProtobufResult<()> {
                let mut bytes = Vec::new();
                while !is.eof()? {
                    bytes.push(is.read_raw_byte()?);
                }
                self.merge_from_bytes(&bytes)
            }

            fn write_to_with_cached_sizes(&self, os: &mut CodedOutputStream) -> ProtobufResult<()> {
                os.write_raw_bytes(&prost::Message::encode_to_vec(self))
            }

            fn compute_size(&self) -> u32 {
                size_bytes(self)
            }

            fn get_cached_size(&self) -> u32 {
                size_bytes(self)
            }

            fn merge_from_bytes(&mut self, bytes: &[u8]) -> ProtobufResult<()> {
                prost::Message::merge(self, bytes).map_err(refused)
            }

            fn write_to_bytes(&self) -> ProtobufResult<Vec<u8>> {
                Ok(prost::Message::encode_to_vec(self))
            }

            fn get_unknown_fields(&self) -> &UnknownFields {
                unreachable!("prost keeps no unknown fields, and raft-rs asks for none")
            }

            fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
                unreachable!("prost keeps no unknown fields, and raft-rs asks for none")
            }

            fn as_any(&self) -> &dyn Any {
                self
            }

            fn new() -> Self {
                Self::default()
            }

            fn default_instance() -> &'static Self {
                Self::default_ref()
            }
        }
    )*};
}

legacy_message! {
    Entry SnapshotMetadata Snapshot Message HardState ConfState ConfChange ConfChangeSingle
    ConfChangeV2
}
