//! raft/proto
