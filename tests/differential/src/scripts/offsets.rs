//! kafka.md section 8: ListOffsets and OffsetForLeaderEpoch.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest};

use super::{create, produce, T0};
use crate::batch::{Batch, GZIP};
use crate::message;
use crate::pair::Pair;

const FOREVER: (&str, &str) = ("retention.ms", "-1");

pub fn script(pair: &mut Pair) {
    create(pair, "of", 2, &[FOREVER]);
    let later = |codec: i16, from: i64| {
        let batch = Batch::of(&["a", "b", "c"], from).compressed(codec);
        batch.with(|b| {
            b.records[1].timestamp_delta = 50;
            b.records[2].timestamp_delta = 20;
        })
    };
    produce(pair, "plain", "of", later(0, T0).bytes());
    produce(pair, "compressed", "of", later(GZIP, T0 + 100).bytes());
    produce(pair, "earlier", "of", later(0, T0 - 500).bytes());
    special(pair);
    by_time(pair);
    mistakes(pair);
    epochs(pair);
}

fn listing(topic: &str, partition: i32, timestamp: i64) -> ListOffsetsRequest {
    message!(ListOffsetsRequest {
        replica_id: -1,
        topics: vec![message!(ListOffsetsTopic {
            name: topic,
            partitions: vec![message!(ListOffsetsPartition {
                partition_index: partition,
                timestamp: timestamp,
            })],
        })],
    })
}

fn special(pair: &mut Pair) {
    for timestamp in [-1, -2, -3, -4, -5, -6, -7, i64::MIN] {
        pair.ask_every(&format!("timestamp {timestamp}"), |_, _| listing("of", 0, timestamp));
        pair.ask(&format!("timestamp {timestamp} of nothing"), 10, |_| listing("of", 1, timestamp));
    }
    for timestamp in [-1, -2, -3] {
        for isolation in [1, 7] {
            pair.ask(&format!("timestamp {timestamp}, isolation {isolation}"), 10, |_| {
                let mut request = listing("of", 0, timestamp);
                request.isolation_level = isolation;
                request
            });
        }
    }
}

fn by_time(pair: &mut Pair) {
    let times =
        [-600, -500, -499, -450, -449, 0, 1, 20, 49, 50, 51, 99, 100, 101, 120, 121, 150, 151];
    for after in times {
        for version in [1, 4, 10] {
            pair.ask(&format!("time {after}"), version, |_| listing("of", 0, T0 + after));
        }
    }
    pair.ask("time 0", 10, |_| listing("of", 0, 0));
    pair.ask("the end of time", 10, |_| listing("of", 0, i64::MAX));
    pair.ask("time of nothing", 10, |_| listing("of", 1, T0));
}

fn mistakes(pair: &mut Pair) {
    for version in [1, 10] {
        pair.ask("unknown topic", version, |_| listing("of-nope", 0, -1));
        pair.ask("bad name", version, |_| listing("a b", 0, -1));
        pair.ask("unknown partition", version, |_| listing("of", 7, -1));
        pair.ask("negative partition", version, |_| listing("of", -1, -1));
        pair.ask("no topics", version, |_| message!(ListOffsetsRequest { replica_id: -1 }));
    }
    pair.ask("a partition twice", 10, |_| {
        let mut request = listing("of", 0, -1);
        let again = message!(ListOffsetsPartition { timestamp: -2 });
        request.topics[0].partitions.push(again);
        request
    });
    for replica in [-2, 1, 9] {
        pair.ask(&format!("as replica {replica}"), 10, |_| {
            let mut request = listing("of", 0, -1);
            request.replica_id = BrokerId(replica);
            request
        });
    }
    let epochs = pair.leader_epochs("of");
    for (what, change) in [("the current", 0), ("a future", 1)] {
        for timestamp in [-1, T0] {
            pair.ask(&format!("{what} epoch, timestamp {timestamp}"), 10, |side| {
                let mut request = listing("of", 0, timestamp);
                request.topics[0].partitions[0].current_leader_epoch = epochs[side] + change;
                request
            });
        }
    }
}

fn epochs(pair: &mut Pair) {
    let asking = |topic: &str, partition: i32, current: i32, epoch: i32| {
        message!(OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![message!(OffsetForLeaderTopic {
                topic: topic,
                partitions: vec![message!(OffsetForLeaderPartition {
                    partition: partition,
                    current_leader_epoch: current,
                    leader_epoch: epoch,
                })],
            })],
        })
    };
    let epochs = pair.leader_epochs("of");
    pair.ask_every("the end of the current epoch", |side, version| {
        let mut request = asking("of", 0, -1, epochs[side]);
        if version < 3 {
            request.replica_id = BrokerId(-2);
        }
        request
    });
    let asked: &[(&str, &str, i32, i32, i32)] = &[
        ("a future epoch", "of", 0, 0, 5),
        ("with a future current epoch", "of", 0, 1, 0),
        ("in an empty partition", "of", 1, 0, 0),
        ("in an unknown partition", "of", 7, 0, 0),
        ("in an unknown topic", "of-nope", 0, 0, 0),
    ];
    for (what, topic, partition, current, epoch) in asked {
        pair.ask(&format!("the end of an epoch {what}"), 4, |side| {
            asking(topic, *partition, epochs[side] + current, epochs[side] + epoch)
        });
    }
    pair.ask("the end of epoch -1", 4, |_| asking("of", 0, -1, -1));
    pair.ask("the end of epoch -2", 4, |_| asking("of", 0, -1, -2));
    pair.ask("no topics", 4, |_| message!(OffsetForLeaderEpochRequest { replica_id: -1 }));
}
