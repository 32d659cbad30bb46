//! kafka.md section 4: CreateTopics, CreatePartitions, DeleteTopics, DeleteRecords.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, MetadataRequest, TopicName,
};
use uuid::Uuid;

use super::{creatable, create, produce, T0, TIMEOUT_MS};
use crate::batch::Batch;
use crate::message;
use crate::message::text;
use crate::pair::Pair;

pub fn script(pair: &mut Pair) {
    made(pair);
    mistakes(pair);
    assignments(pair);
    grown(pair);
    records_deleted(pair);
    deleted(pair);
}

fn creation(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    message!(CreateTopicsRequest { topics: topics, timeout_ms: TIMEOUT_MS })
}

fn made(pair: &mut Pair) {
    pair.ask_every("make", |_, version| {
        let name = format!("tp-made-{version}");
        creation(vec![creatable(&name, 2, 1, &[("retention.ms", "86400000")])])
    });
    pair.ask_every("validate", |_, version| {
        let name = format!("tp-valid-{version}");
        let mut request = creation(vec![creatable(&name, 2, 1, &[("segment.bytes", "2000000")])]);
        request.validate_only = true;
        request
    });
    pair.ask_every("broker's counts", |_, version| {
        creation(vec![creatable(&format!("tp-default-{version}"), -1, -1, &[])])
    });
    pair.ask_every("one of three is bad", |_, version| {
        let (first, last) = (format!("tp-first-{version}"), format!("tp-last-{version}"));
        creation(vec![
            creatable(&first, 1, 1, &[]),
            creatable("tp bad", 1, 1, &[]),
            creatable(&last, 1, 1, &[]),
        ])
    });
    pair.ask("nothing", 7, |_| creation(vec![]));
}

/// Every row of the table of mistakes, in an old and in the newest version.
fn mistakes(pair: &mut Pair) {
    create(pair, "tp.there", 1, &[]);
    let long = "x".repeat(250);
    let longest = "y".repeat(249);
    let topics = [
        ("exists", creatable("tp.there", 1, 1, &[])),
        ("looks alike", creatable("tp_there", 1, 1, &[])),
        ("no partitions", creatable("tp-new", 0, 1, &[])),
        ("-2 partitions", creatable("tp-new", -2, 1, &[])),
        ("no replicas", creatable("tp-new", 1, 0, &[])),
        ("-2 replicas", creatable("tp-new", 1, -2, &[])),
        ("3 replicas", creatable("tp-new", 1, 3, &[])),
        ("empty name", creatable("", 1, 1, &[])),
        ("one dot", creatable(".", 1, 1, &[])),
        ("two dots", creatable("..", 1, 1, &[])),
        ("a space", creatable("a b", 1, 1, &[])),
        ("a long name", creatable(&long, 1, 1, &[])),
        ("the longest name", creatable(&longest, 1, 1, &[])),
        ("unknown configuration", creatable("tp-new", 1, 1, &[("x", "1")])),
        ("not a number", creatable("tp-new", 1, 1, &[("retention.ms", "abc")])),
        ("too small", creatable("tp-new", 1, 1, &[("retention.ms", "-2")])),
        ("not in the list", creatable("tp-new", 1, 1, &[("cleanup.policy", "shrink")])),
        ("two bad configurations", creatable("tp-new", 1, 1, &[("x", "1"), ("y", "1")])),
        ("metadata log", creatable("__cluster_metadata", 1, 1, &[])),
        ("bad name and bad count", creatable("a b", 0, 1, &[])),
        ("exists and bad count", creatable("tp.there", 0, 1, &[])),
        ("bad count and bad configuration", creatable("tp-new", 0, 1, &[("x", "1")])),
        ("bad counts", creatable("tp-new", 0, 0, &[])),
    ];
    for (what, topic) in topics {
        for version in [2, 7] {
            pair.ask(what, version, |_| {
                let mut request = creation(vec![topic.clone()]);
                request.validate_only = what == "the longest name";
                request
            });
        }
    }
    pair.ask("null value", 7, |_| {
        let mut topic = creatable("tp-new", 1, 1, &[]);
        topic.configs = vec![message!(CreatableTopicConfig { name: "retention.ms" })];
        topic.configs[0].value = None;
        creation(vec![topic])
    });
    pair.ask("twice in one request", 7, |_| {
        creation(vec![creatable("tp-two", 1, 1, &[]), creatable("tp-two", 1, 1, &[])])
    });
    pair.ask("twice, and a third", 7, |_| {
        creation(vec![
            creatable("tp-two", 1, 1, &[]),
            creatable("tp-third", 1, 1, &[]),
            creatable("tp-two", 1, 1, &[]),
        ])
    });
    for timeout in [0, -1] {
        pair.ask(&format!("a timeout of {timeout}"), 7, |_| {
            let mut request = creation(vec![creatable("tp-late", 1, 1, &[])]);
            request.timeout_ms = timeout;
            request
        });
    }
    pair.ask("too many partitions", 7, |_| {
        creation(vec![creatable("tp-many", 6000, 1, &[]), creatable("tp-more", 6000, 1, &[])])
    });
    pair.ask("one configuration twice", 7, |_| {
        let twice = [("retention.ms", "1000"), ("retention.ms", "2000")];
        creation(vec![creatable("tp-twice", 1, 1, &twice)])
    });
}

fn assigned(partitions: &[(i32, &[i32])]) -> CreatableTopic {
    let mut topic = creatable("tp-assigned", -1, -1, &[]);
    let assignment = |(number, brokers): &(i32, &[i32])| {
        message!(CreatableReplicaAssignment {
            partition_index: *number,
            broker_ids: brokers.iter().copied().map(BrokerId).collect::<Vec<_>>(),
        })
    };
    topic.assignments = partitions.iter().map(assignment).collect();
    topic
}

fn assignments(pair: &mut Pair) {
    let asked: &[(&str, &[(i32, &[i32])])] = &[
        ("does not start at 0", &[(1, &[1])]),
        ("a gap", &[(0, &[1]), (2, &[1])]),
        ("a partition twice", &[(0, &[1]), (0, &[1])]),
        ("a broker twice", &[(0, &[1, 1])]),
        ("an unknown broker", &[(0, &[9])]),
        ("no broker", &[(0, &[])]),
        ("unequal", &[(0, &[1]), (1, &[1, 9])]),
        ("a negative partition", &[(-1, &[1])]),
    ];
    for (what, partitions) in asked {
        pair.ask(&format!("assignment: {what}"), 7, |_| creation(vec![assigned(partitions)]));
    }
    pair.ask("assignment and a count", 7, |_| {
        let mut topic = assigned(&[(0, &[1])]);
        topic.num_partitions = 1;
        creation(vec![topic])
    });
    pair.ask("assignment and a factor", 7, |_| {
        let mut topic = assigned(&[(0, &[1])]);
        topic.replication_factor = 1;
        creation(vec![topic])
    });
    pair.ask("assignment", 7, |_| creation(vec![assigned(&[(1, &[1]), (0, &[1])])]));
}

fn growth(topic: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsRequest {
    let assignments = assignments.map(|all| {
        let one = |brokers: &&[i32]| {
            let brokers: Vec<_> = brokers.iter().copied().map(BrokerId).collect();
            message!(CreatePartitionsAssignment { broker_ids: brokers })
        };
        all.iter().map(one).collect::<Vec<_>>()
    });
    message!(CreatePartitionsRequest {
        topics: vec![message!(CreatePartitionsTopic {
            name: topic,
            count: count,
            assignments: assignments,
        })],
        timeout_ms: TIMEOUT_MS,
    })
}

fn grown(pair: &mut Pair) {
    create(pair, "tp-grown", 3, &[]);
    let asked: &[(&str, &str, i32, Option<&[&[i32]]>)] = &[
        ("fewer", "tp-grown", 2, None),
        ("as many", "tp-grown", 3, None),
        ("zero", "tp-grown", 0, None),
        ("negative", "tp-grown", -1, None),
        ("unknown topic", "tp-nope", 4, None),
        ("bad name", "a b", 4, None),
        ("too many assignments", "tp-grown", 4, Some(&[&[1], &[1]])),
        ("too few assignments", "tp-grown", 6, Some(&[&[1], &[1]])),
        ("an unknown broker", "tp-grown", 4, Some(&[&[9]])),
        ("another number of replicas", "tp-grown", 4, Some(&[&[1, 1]])),
        ("an empty assignment", "tp-grown", 4, Some(&[&[]])),
        ("no assignments", "tp-grown", 4, Some(&[])),
    ];
    for (what, topic, count, assignments) in asked {
        for version in [0, 3] {
            pair.ask(&format!("grow: {what}"), version, |_| growth(topic, *count, *assignments));
        }
    }
    for (version, count) in (0..=3).zip(4..) {
        pair.ask("grow: validate", version, |_| {
            let mut request = growth("tp-grown", count, None);
            request.validate_only = true;
            request
        });
        pair.ask("grow", version, |_| growth("tp-grown", count, None));
    }
    pair.ask("grow with an assignment", 3, |_| growth("tp-grown", 8, Some(&[&[1]])));
    pair.ask("grow: the same twice", 3, |_| {
        let mut request = growth("tp-grown", 10, None);
        request.topics.push(request.topics[0].clone());
        request
    });
    pair.settle("grown", 12, |_| metadata("tp-grown"));
}

fn metadata(topic: &str) -> MetadataRequest {
    message!(MetadataRequest {
        topics: Some(vec![message!(MetadataRequestTopic { name: topic })]),
        allow_auto_topic_creation: false,
    })
}

fn records_deleted(pair: &mut Pair) {
    let forever = [("retention.ms", "-1")];
    create(pair, "tp-cut", 1, &forever);
    create(pair, "tp-kept", 1, &[("cleanup.policy", "compact"), ("retention.ms", "-1")]);
    create(pair, "tp-both", 1, &[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]);
    produce(pair, "ten records", "tp-cut", Batch::of(&["x"; 10], T0).bytes());
    produce(pair, "one record", "tp-kept", Batch::keyed(&[("k", "v")], T0).bytes());
    produce(pair, "one record", "tp-both", Batch::keyed(&[("k", "v")], T0).bytes());
    let deletion = |topic: &str, partition: i32, offset: i64| {
        message!(DeleteRecordsRequest {
            topics: vec![message!(DeleteRecordsTopic {
                name: topic,
                partitions: vec![message!(DeleteRecordsPartition {
                    partition_index: partition,
                    offset: offset,
                })],
            })],
            timeout_ms: TIMEOUT_MS,
        })
    };
    for (version, offset) in (0..=2).zip([2, 3, 5]) {
        pair.ask("delete records", version, |_| deletion("tp-cut", 0, offset));
    }
    let asked = [
        ("below the start", "tp-cut", 0, 1),
        ("at the start", "tp-cut", 0, 5),
        ("beyond the end", "tp-cut", 0, 11),
        ("at -2", "tp-cut", 0, -2),
        ("of an unknown partition", "tp-cut", 1, 1),
        ("of a negative partition", "tp-cut", -1, 1),
        ("of an unknown topic", "tp-nope", 0, 1),
        ("of a compacted topic", "tp-kept", 0, 1),
        ("of a topic that compacts and deletes", "tp-both", 0, 1),
        ("to the end", "tp-cut", 0, -1),
        ("to the end again", "tp-cut", 0, -1),
    ];
    for (what, topic, partition, offset) in asked {
        pair.ask(&format!("delete records {what}"), 2, |_| deletion(topic, partition, offset));
    }
}

fn deleted(pair: &mut Pair) {
    for version in 1..=6 {
        create(pair, &format!("tp-gone-{version}"), 1, &[]);
    }
    let by_name = |names: &[&str]| {
        message!(DeleteTopicsRequest {
            topic_names: names.iter().map(|name| TopicName(text(name))).collect::<Vec<_>>(),
            timeout_ms: TIMEOUT_MS,
        })
    };
    let by_state = |topics: &[(Option<&str>, Uuid)]| {
        let state = |(name, id): &(Option<&str>, Uuid)| {
            let mut state = message!(DeleteTopicState { topic_id: *id });
            state.name = name.map(crate::message::Value::value);
            state
        };
        message!(DeleteTopicsRequest {
            topics: topics.iter().map(state).collect::<Vec<_>>(),
            timeout_ms: TIMEOUT_MS,
        })
    };
    for version in 1..=5 {
        let name = format!("tp-gone-{version}");
        pair.ask("delete unknown", version, |_| by_name(&["tp-nope"]));
        pair.ask("delete", version, |_| by_name(&[&name, "tp-nope"]));
        pair.settle("deleted", 12, |_| metadata(&name));
    }
    let ids = pair.topic_ids("tp-gone-6");
    let nil = Uuid::nil();
    let asked: &[(&str, &[(Option<&str>, usize)])] = &[
        ("unknown name", &[(Some("tp-nope"), 0)]),
        ("unknown id", &[(None, 2)]),
        ("name and id", &[(Some("tp-gone-6"), 1)]),
        ("neither", &[(None, 0)]),
        ("the same name twice", &[(Some("tp-gone-6"), 0), (Some("tp-gone-6"), 0)]),
        ("the same id twice", &[(None, 1), (None, 1)]),
        ("by name and by id", &[(Some("tp-gone-6"), 0), (None, 1)]),
        ("bad name", &[(Some("a b"), 0)]),
    ];
    for (what, topics) in asked {
        pair.ask(&format!("delete: {what}"), 6, |side| {
            let id = |which: usize| [nil, ids[side], Uuid::from_u128(99)][which];
            let topics: Vec<_> = topics.iter().map(|(name, which)| (*name, id(*which))).collect();
            by_state(&topics)
        });
    }
    pair.ask("delete by id", 6, |side| by_state(&[(None, ids[side])]));
    pair.settle("deleted by id", 12, |_| metadata("tp-gone-6"));
    pair.ask("delete by an old id", 6, |side| by_state(&[(None, ids[side])]));
    pair.ask("delete without time", 6, |_| {
        let mut request = by_state(&[(Some("tp-grown"), nil)]);
        request.timeout_ms = 0;
        request
    });
}
