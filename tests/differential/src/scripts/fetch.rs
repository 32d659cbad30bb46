//! kafka.md section 8: Fetch and its sessions.

use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use uuid::Uuid;

use super::{create, produce, producing, T0};
use crate::batch::{Batch, LZ4};
use crate::message;
use crate::pair::Pair;

const FOREVER: (&str, &str) = ("retention.ms", "-1");

pub fn script(pair: &mut Pair) {
    create(pair, "fe", 2, &[FOREVER]);
    create(pair, "fe-empty", 1, &[FOREVER]);
    for i in 0..4 {
        let batch = Batch::of(&["aaaa", "bbbb", "cccc"], T0 + i * 100);
        produce(pair, "three records", "fe", batch.bytes());
    }
    produce(pair, "a record", "fe", Batch::of(&["d"], T0).compressed(LZ4).bytes());
    every_version(pair);
    places(pair);
    room(pair);
    epochs(pair);
    waiting(pair);
    sessions(pair);
    session_ids(pair);
}

/// Everything of partition 0, by name.
pub fn whole(topic: &str) -> FetchRequest {
    fetching(topic, &[(0, 0)])
}

fn fetching(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(number, offset): &(i32, i64)| {
        message!(FetchPartition {
            partition: *number,
            fetch_offset: *offset,
            partition_max_bytes: 1 << 20,
        })
    };
    message!(FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![message!(FetchTopic {
            topic: topic,
            partitions: partitions.iter().map(partition).collect::<Vec<_>>(),
        })],
    })
}

fn every_version(pair: &mut Pair) {
    let ids = pair.topic_ids("fe");
    for isolation in [0, 1] {
        let what = format!("two partitions, isolation {isolation}");
        pair.ask_every(&what, |side, version| {
            let mut request = fetching("fe", &[(0, 0), (1, 0)]);
            request.isolation_level = isolation;
            if version >= 13 {
                request.topics[0].topic = Default::default();
                request.topics[0].topic_id = ids[side];
            }
            request
        });
    }
    pair.ask("isolation 7", 12, |_| {
        let mut request = whole("fe");
        request.isolation_level = 7;
        request
    });
    for version in [4, 12] {
        pair.ask("an unknown topic", version, |_| whole("fe-nope"));
        pair.ask("a bad name", version, |_| whole("a b"));
        pair.ask("no topics", version, |_| {
            let mut request = whole("fe");
            request.topics.clear();
            request
        });
    }
    for (what, id) in [("an unknown id", 77), ("no id", 0)] {
        for version in [13, 18] {
            pair.ask(what, version, |_| {
                let mut request = whole("");
                request.topics[0].topic_id = Uuid::from_u128(id);
                request
            });
        }
    }
    for replica in [-2, 1, 9] {
        pair.ask(&format!("as replica {replica}"), 11, |_| {
            let mut request = whole("fe");
            request.replica_id = BrokerId(replica);
            request
        });
    }
    pair.ask("with a rack", 12, |_| {
        let mut request = whole("fe");
        request.rack_id = crate::message::text("r1");
        request
    });
}

fn places(pair: &mut Pair) {
    for offset in [0, 1, 2, 3, 5, 12, 13, 14, 100, -1, -2] {
        pair.ask(&format!("from offset {offset}"), 12, |_| fetching("fe", &[(0, offset)]));
    }
    pair.ask("from an unknown partition", 12, |_| fetching("fe", &[(7, 0), (0, 12), (-1, 0)]));
    pair.ask("one partition twice", 12, |_| fetching("fe", &[(0, 12), (0, 3)]));
    pair.ask("one bad and one good", 12, |_| fetching("fe", &[(0, 100), (1, 0)]));
    pair.ask("an empty topic", 12, |_| whole("fe-empty"));
}

fn room(pair: &mut Pair) {
    for bytes in [0, 1, 100, 101, 250, 1000, -1] {
        pair.ask(&format!("{bytes} bytes of a partition"), 12, |_| {
            let mut request = whole("fe");
            request.topics[0].partitions[0].partition_max_bytes = bytes;
            request
        });
        pair.ask(&format!("{bytes} bytes in all"), 12, |_| {
            let mut request = whole("fe");
            request.max_bytes = bytes;
            request
        });
    }
    pair.ask("no wait", 12, |_| {
        let mut request = whole("fe-empty");
        request.max_wait_ms = 0;
        request
    });
    pair.ask("a negative wait", 12, |_| {
        let mut request = whole("fe-empty");
        request.max_wait_ms = -1;
        request
    });
    pair.ask("more than there is", 12, |_| {
        let mut request = whole("fe");
        request.min_bytes = 1 << 19;
        request
    });
}

/// Kafka's first epoch is 0 and stays so without a restart, so there is no older one to ask with.
fn epochs(pair: &mut Pair) {
    let epochs = pair.leader_epochs("fe");
    for (what, change) in [("the current", 0), ("a future", 1)] {
        for version in [9, 12] {
            pair.ask(&format!("{what} leader epoch"), version, |side| {
                let mut request = whole("fe");
                request.topics[0].partitions[0].current_leader_epoch = epochs[side] + change;
                request
            });
        }
    }
    let asked = [("the current", 0, 13), ("the current", 0, 14), ("a future", 3, 5)];
    for (what, change, offset) in asked {
        pair.ask(&format!("{what} last epoch at {offset}"), 12, |side| {
            let mut request = fetching("fe", &[(0, offset)]);
            request.topics[0].partitions[0].last_fetched_epoch = epochs[side] + change;
            request
        });
    }
}

fn waiting(pair: &mut Pair) {
    let mut lane = pair.lane();
    let pending = pair.send_on(&mut lane, "waits for a record", 12, |_| {
        let mut request = whole("fe-empty");
        request.max_wait_ms = 10_000;
        request
    });
    std::thread::sleep(Duration::from_millis(50));
    produce(pair, "the record", "fe-empty", Batch::of(&["x"], T0).bytes());
    pair.receive_on::<FetchRequest>(&mut lane, pending);
    create(pair, "fe-gone", 1, &[FOREVER]);
    let ids = pair.topic_ids("fe-gone");
    let mut by_id = pair.lane();
    let pending = pair.send_on(&mut lane, "waits for a topic that goes", 12, |_| {
        let mut request = whole("fe-gone");
        request.max_wait_ms = 3_000;
        request
    });
    let pending_by_id = pair.send_on(&mut by_id, "waits for a topic that goes", 13, |side| {
        let mut request = whole("");
        request.max_wait_ms = 3_000;
        request.topics[0].topic_id = ids[side];
        request
    });
    std::thread::sleep(Duration::from_millis(50));
    pair.ask("the topic goes", 6, |_| {
        use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
        message!(kafka_protocol::messages::DeleteTopicsRequest {
            topics: vec![message!(DeleteTopicState { name: "fe-gone" })],
            timeout_ms: super::TIMEOUT_MS,
        })
    });
    pair.receive_on::<FetchRequest>(&mut lane, pending);
    pair.receive_on::<FetchRequest>(&mut by_id, pending_by_id);
    pair.settle("an old id", 13, |side| {
        let mut request = whole("");
        request.topics[0].topic_id = ids[side];
        request
    });
}

fn in_session(mut request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    request.session_id = id;
    request.session_epoch = epoch;
    request.max_wait_ms = 50;
    request
}

fn nothing() -> FetchRequest {
    let mut request = whole("fe");
    request.topics.clear();
    request
}

fn sessions(pair: &mut Pair) {
    create(pair, "fe-session", 2, &[FOREVER]);
    let both = || fetching("fe-session", &[(0, 0), (1, 0)]);
    let answer = pair.ask("a new session", 12, |_| in_session(both(), 0, 0));
    let id = answer.map(|answer| answer.map_or(0, |answer| answer.session_id));
    pair.ask("nothing new", 12, |side| in_session(nothing(), id[side], 1));
    produce(pair, "a record", "fe-session", Batch::of(&["x"], T0).bytes());
    pair.ask("a record", 12, |side| in_session(nothing(), id[side], 2));
    pair.ask("the record again", 12, |side| in_session(nothing(), id[side], 3));
    pair.ask("from behind the record", 12, |side| {
        in_session(fetching("fe-session", &[(0, 1)]), id[side], 4)
    });
    pair.ask("nothing behind the record", 12, |side| in_session(nothing(), id[side], 5));
    pair.ask("a repeated epoch", 12, |side| in_session(nothing(), id[side], 5));
    pair.ask("a skipped epoch", 12, |side| in_session(nothing(), id[side], 9));
    pair.ask("the right epoch after that", 12, |side| in_session(nothing(), id[side], 6));
    pair.ask("one partition forgotten", 12, |side| {
        let mut request = in_session(nothing(), id[side], 7);
        request.forgotten_topics_data =
            vec![message!(ForgottenTopic { topic: "fe-session", partitions: vec![0] })];
        request
    });
    pair.ask("both produced to", 9, |_| {
        let mut request = producing("fe-session", Some(Batch::of(&["y"], T0).bytes()));
        let mut other = request.topic_data[0].partition_data[0].clone();
        other.index = 1;
        request.topic_data[0].partition_data.push(other);
        request
    });
    pair.ask("only the other is seen", 12, |side| in_session(nothing(), id[side], 8));
    pair.ask("an unknown topic joins", 12, |side| in_session(whole("fe-nope"), id[side], 9));
    pair.ask("the unknown topic stays", 12, |side| in_session(nothing(), id[side], 10));
    pair.ask("closed", 12, |side| in_session(nothing(), id[side], -1));
    pair.ask("after closing", 12, |side| in_session(nothing(), id[side], 11));
    pair.ask("an unknown session", 12, |_| in_session(nothing(), 12_345, 1));
    pair.ask("an unknown session is closed", 12, |_| in_session(both(), 12_345, -1));
    pair.ask("epoch 1 without session", 12, |_| in_session(both(), 0, 1));
    pair.ask("epoch -2", 12, |_| in_session(both(), 0, -2));
    let answer = pair.ask("a second session", 12, |_| in_session(both(), 0, 0));
    let id = answer.map(|answer| answer.map_or(0, |answer| answer.session_id));
    pair.ask("renewed", 12, |side| in_session(both(), id[side], 0));
    pair.ask("the old one after renewal", 12, |side| in_session(nothing(), id[side], 1));
}

/// Sessions by topic id: what becomes of them when versions or ids change.
fn session_ids(pair: &mut Pair) {
    let ids = pair.topic_ids("fe-session");
    let by_id = |id: Uuid| {
        let mut request = fetching("", &[(0, 0)]);
        request.topics[0].topic_id = id;
        request
    };
    let answer = pair.ask("a session by id", 13, |side| in_session(by_id(ids[side]), 0, 0));
    let id = answer.map(|answer| answer.map_or(0, |answer| answer.session_id));
    pair.ask("a session by id goes on", 13, |side| in_session(nothing(), id[side], 1));
    pair.ask("an unknown id joins", 13, |side| in_session(by_id(Uuid::from_u128(5)), id[side], 2));
    pair.ask("the unknown id stays", 13, |side| in_session(nothing(), id[side], 3));
    pair.ask("by name in a session by id", 12, |side| in_session(nothing(), id[side], 4));
    pair.ask("a session of nothing", 12, |_| in_session(nothing(), 0, 0));
}
