//! The accessors that raft-rs calls on its messages (`get_x`, `set_x`, `mut_x`, `take_x`, `clear_x`).
//!
//! The names are rust-protobuf's, which is why they depart from the house's. `set_x` of an
//! enumeration comes from prost's derive. `get_x` of an enumeration with an unknown number answers
//! the first variant: the transport refuses such a message before it can be stepped.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::eraftpb::*;

macro_rules! accessors {
    ($($message:ident { $($kind:tt $field:ident: $type:ty, $get:ident $set:ident $mut_:ident $take:ident;)* })*) => {$(
        impl $message {
            /// The value with every field at its default, shared.
            pub fn default_ref() -> &'static Self {
                static INSTANCE: OnceLock<$message> = OnceLock::new();
                INSTANCE.get_or_init(Self::default)
            }
            $(accessors!(@ $kind $field: $type, $get $set $mut_ $take);)*
        }
    )*};
    (@ copy $field:ident: $type:ty, $get:ident $set:ident $mut_:ident $take:ident) => {
        #[inline]
        pub fn $get(&self) -> $type {
            self.$field
        }
        #[inline]
        pub fn $set(&mut self, value: $type) {
            self.$field = value;
        }
    };
    (@ kind $field:ident: $type:ty, $get:ident $set:ident $mut_:ident $take:ident) => {
        #[inline]
        pub fn $get(&self) -> $type {
            self.$field()
        }
    };
    (@ bytes $field:ident: $type:ty, $get:ident $set:ident $mut_:ident $take:ident) => {
        #[inline]
        pub fn $get(&self) -> &[u8] {
            &self.$field
        }
        #[inline]
        pub fn $set(&mut self, value: $type) {
            self.$field = value;
        }
        #[inline]
        pub fn $mut_(&mut self) -> &mut $type {
            &mut self.$field
        }
        #[inline]
        pub fn $take(&mut self) -> $type {
            std::mem::take(&mut self.$field)
        }
    };
    (@ list $field:ident: $type:ty, $get:ident $set:ident $mut_:ident $take:ident) => {
        #[inline]
        pub fn $get(&self) -> &[$type] {
            &self.$field
        }
        #[inline]
        pub fn $set(&mut self, value: Vec<$type>) {
            self.$field = value;
        }
        #[inline]
        pub fn $mut_(&mut self) -> &mut Vec<$type> {
            &mut self.$field
        }
        #[inline]
        pub fn $take(&mut self) -> Vec<$type> {
            std::mem::take(&mut self.$field)
        }
    };
    (@ nested $field:ident: $type:ty, $get:ident $set:ident $mut_:ident $take:ident) => {
        #[inline]
        pub fn $get(&self) -> &$type {
            self.$field.as_ref().unwrap_or_else(|| <$type>::default_ref())
        }
        #[inline]
        pub fn $set(&mut self, value: $type) {
            self.$field = Some(value);
        }
        #[inline]
        pub fn $mut_(&mut self) -> &mut $type {
            self.$field.get_or_insert_with(Default::default)
        }
        #[inline]
        pub fn $take(&mut self) -> $type {
            self.$field.take().unwrap_or_default()
        }
    };
}

accessors! {
    Entry {
        kind entry_type: EntryType, get_entry_type _set _mut _take;
        copy term: u64, get_term set_term _mut _take;
        copy index: u64, get_index set_index _mut _take;
        bytes data: Bytes, get_data set_data mut_data take_data;
        bytes context: Bytes, get_context set_context mut_context take_context;
        copy sync_log: bool, get_sync_log set_sync_log _mut _take;
    }
    SnapshotMetadata {
        nested conf_state: ConfState, get_conf_state set_conf_state mut_conf_state take_conf_state;
        copy index: u64, get_index set_index _mut _take;
        copy term: u64, get_term set_term _mut _take;
    }
    Snapshot {
        bytes data: Bytes, get_data set_data mut_data take_data;
        nested metadata: SnapshotMetadata, get_metadata set_metadata mut_metadata take_metadata;
    }
    Message {
        kind msg_type: MessageType, get_msg_type _set _mut _take;
        copy to: u64, get_to set_to _mut _take;
        copy from: u64, get_from set_from _mut _take;
        copy term: u64, get_term set_term _mut _take;
        copy log_term: u64, get_log_term set_log_term _mut _take;
        copy index: u64, get_index set_index _mut _take;
        list entries: Entry, get_entries set_entries mut_entries take_entries;
        copy commit: u64, get_commit set_commit _mut _take;
        copy commit_term: u64, get_commit_term set_commit_term _mut _take;
        nested snapshot: Snapshot, get_snapshot set_snapshot mut_snapshot take_snapshot;
        copy request_snapshot: u64, get_request_snapshot set_request_snapshot _mut _take;
        copy reject: bool, get_reject set_reject _mut _take;
        copy reject_hint: u64, get_reject_hint set_reject_hint _mut _take;
        bytes context: Bytes, get_context set_context mut_context take_context;
        copy deprecated_priority: u64, get_deprecated_priority set_deprecated_priority _mut _take;
        copy priority: i64, get_priority set_priority _mut _take;
    }
    HardState {
        copy term: u64, get_term set_term _mut _take;
        copy vote: u64, get_vote set_vote _mut _take;
        copy commit: u64, get_commit set_commit _mut _take;
    }
    ConfState {
        list voters: u64, get_voters set_voters mut_voters take_voters;
        list learners: u64, get_learners set_learners mut_learners take_learners;
        list voters_outgoing: u64,
            get_voters_outgoing set_voters_outgoing mut_voters_outgoing take_voters_outgoing;
        list learners_next: u64,
            get_learners_next set_learners_next mut_learners_next take_learners_next;
        copy auto_leave: bool, get_auto_leave set_auto_leave _mut _take;
    }
    ConfChange {
        kind change_type: ConfChangeType, get_change_type _set _mut _take;
        copy node_id: u64, get_node_id set_node_id _mut _take;
        bytes context: Bytes, get_context set_context mut_context take_context;
        copy id: u64, get_id set_id _mut _take;
    }
    ConfChangeSingle {
        kind change_type: ConfChangeType, get_change_type _set _mut _take;
        copy node_id: u64, get_node_id set_node_id _mut _take;
    }
    ConfChangeV2 {
        kind transition: ConfChangeTransition, get_transition _set _mut _take;
        list changes: ConfChangeSingle, get_changes set_changes mut_changes take_changes;
        bytes context: Bytes, get_context set_context mut_context take_context;
    }
}
