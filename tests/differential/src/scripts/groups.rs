//! kafka.md section 9: coordinators, committed offsets, and groups without members.

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
};

use super::create;
use crate::message;
use crate::message::{text, Value};
use crate::pair::Pair;

pub fn script(pair: &mut Pair) {
    create(pair, "gr", 2, &[]);
    first_coordinator(pair);
    coordinators(pair);
    committed(pair);
    fetched(pair);
    listed(pair);
    described(pair);
    offsets_deleted(pair);
    groups_deleted(pair);
    for version in [2, 8, 9] {
        pair.ask("a commit without a group", version, |_| committing("", "gr", &[(0, 1)]));
    }
}

pub fn committing(group: &str, topic: &str, partitions: &[(i32, i64)]) -> OffsetCommitRequest {
    let partition = |(number, offset): &(i32, i64)| {
        message!(OffsetCommitRequestPartition {
            partition_index: *number,
            committed_offset: *offset,
            committed_metadata: "m",
        })
    };
    message!(OffsetCommitRequest {
        group_id: group,
        topics: vec![message!(OffsetCommitRequestTopic {
            name: topic,
            partitions: partitions.iter().map(partition).collect::<Vec<_>>(),
        })],
    })
}

/// The first question makes the offsets topic on both; Kafka loads the coordinator behind it.
pub fn first_coordinator(pair: &mut Pair) {
    pair.settle("the first coordinator", 3, |_| message!(FindCoordinatorRequest { key: "gr-a" }));
    pair.settle("the first commit", 8, |_| committing("gr-first", "gr-nope", &[(0, 5)]));
    // Kafka loads the partitions of its offsets topic behind the answer: one group in each.
    for number in 0..200 {
        let name = format!("gr-warm-{number}");
        pair.settle("every coordinator", 6, |_| {
            message!(DescribeGroupsRequest { groups: vec![GroupId(text(&name))] })
        });
    }
}

fn coordinators(pair: &mut Pair) {
    let asking = |kind: i8, version: i16, keys: &[&str]| {
        if version >= 4 {
            let keys = keys.iter().map(|key| text(key)).collect::<Vec<_>>();
            return message!(FindCoordinatorRequest { key_type: kind, coordinator_keys: keys });
        }
        message!(FindCoordinatorRequest { key_type: kind, key: keys[0] })
    };
    pair.ask_every("a coordinator", |_, version| asking(0, version, &["gr-a", "gr-b"]));
    pair.ask_every("the coordinator of an empty name", |_, version| asking(0, version, &[""]));
    for kind in [2, 3, -1, 7] {
        for version in [1, 3, 4, 5, 6] {
            pair.ask(&format!("a coordinator of type {kind}"), version, |_| {
                asking(kind, version, &["gr-a"])
            });
        }
    }
    for version in [1, 4, 6] {
        pair.ask("a coordinator of transactions", version, |_| asking(1, version, &["id"]));
    }
    pair.ask("no keys", 4, |_| asking(0, 4, &[]));
    pair.ask("the same key twice", 4, |_| asking(0, 4, &["gr-a", "gr-a"]));
}

fn committed(pair: &mut Pair) {
    pair.ask_every("a commit", |_, _| committing("gr-old", "gr", &[(0, 5), (1, 6)]));
    let asked: &[(&str, &str, &str, &[(i32, i64)])] = &[
        ("to an unknown partition", "gr-old", "gr", &[(0, 7), (9, 1)]),
        ("to a negative partition", "gr-old", "gr", &[(-1, 1)]),
        ("to an unknown topic", "gr-old", "gr-nope", &[(0, 1)]),
        ("to a bad name", "gr-old", "a b", &[(0, 1)]),
        ("of offset -1", "gr-odd", "gr", &[(0, -1)]),
        ("of offset -5", "gr-odd", "gr", &[(0, -5)]),
        ("of a large offset", "gr-odd", "gr", &[(0, i64::MAX)]),
        ("of nothing", "gr-none", "gr", &[]),
    ];
    for (what, group, topic, partitions) in asked {
        for version in [2, 8, 9] {
            pair.ask(&format!("a commit {what}"), version, |_| {
                committing(group, topic, partitions)
            });
        }
    }
    for (what, group, member, generation) in [
        ("a generation in an unknown group", "gr-unknown", "", 1),
        ("a member and a generation in an unknown group", "gr-unknown", "m", 1),
        ("a member in an unknown group", "gr-unknown", "m", -1),
        ("a generation in an empty group", "gr-old", "", 1),
        ("a member and a generation in an empty group", "gr-old", "m", 1),
        ("a member in an empty group", "gr-old", "m", -1),
    ] {
        for version in [2, 8, 9] {
            pair.ask(&format!("a commit with {what}"), version, |_| {
                let mut request = committing(group, "gr", &[(0, 1)]);
                request.member_id = text(member);
                request.generation_id_or_member_epoch = generation;
                request
            });
        }
    }
    for bytes in [4096, 4097] {
        pair.ask(&format!("a commit with {bytes} bytes of metadata"), 9, |_| {
            let mut request = committing("gr-odd", "gr", &[(1, 3)]);
            let long = "m".repeat(bytes);
            request.topics[0].partitions[0].committed_metadata = long.as_str().value();
            request
        });
    }
    pair.ask("a commit without metadata", 9, |_| {
        let mut request = committing("gr-odd", "gr", &[(0, 3)]);
        request.topics[0].partitions[0].committed_metadata = None;
        request
    });
    pair.ask("a commit with an epoch", 9, |_| {
        let mut request = committing("gr-epoch", "gr", &[(0, 3)]);
        request.topics[0].partitions[0].committed_leader_epoch = 4;
        request
    });
    pair.ask("a commit with a retention time", 2, |_| {
        let mut request = committing("gr-old", "gr", &[(0, 5)]);
        request.retention_time_ms = 60_000;
        request
    });
}

/// A request in the form of its version: from 8 on several groups, before that one.
fn fetching(version: i16, group: &str, topics: Option<&[(&str, &[i32])]>) -> OffsetFetchRequest {
    if version >= 8 {
        let topics = topics.map(|topics| {
            let topic = |(name, partitions): &(&str, &[i32])| {
                message!(OffsetFetchRequestTopics {
                    name: *name,
                    partition_indexes: partitions.to_vec(),
                })
            };
            topics.iter().map(topic).collect::<Vec<_>>()
        });
        let group = message!(OffsetFetchRequestGroup { group_id: group, topics: topics });
        return message!(OffsetFetchRequest { groups: vec![group.with_member_id(None)] });
    }
    let topics = topics.map(|topics| {
        let topic = |(name, partitions): &(&str, &[i32])| {
            message!(OffsetFetchRequestTopic {
                name: *name,
                partition_indexes: partitions.to_vec(),
            })
        };
        topics.iter().map(topic).collect::<Vec<_>>()
    });
    message!(OffsetFetchRequest { group_id: group, topics: topics })
}

fn fetched(pair: &mut Pair) {
    let asked: &[(&str, &str, &[(&str, &[i32])])] = &[
        ("committed offsets", "gr-old", &[("gr", &[0, 1])]),
        ("odd offsets", "gr-odd", &[("gr", &[0, 1])]),
        ("offsets with an epoch", "gr-epoch", &[("gr", &[0])]),
        ("offsets never committed", "gr-old", &[("gr", &[7, -1]), ("gr-nope", &[0])]),
        ("offsets of an unknown group", "gr-unknown", &[("gr", &[0])]),
        ("offsets of an empty name", "", &[("gr", &[0])]),
        ("offsets of no partitions", "gr-old", &[("gr", &[])]),
        ("offsets of no topics", "gr-old", &[]),
        ("offsets of a bad name", "gr-old", &[("a b", &[0])]),
    ];
    for (what, group, topics) in asked {
        pair.ask_every(what, |_, version| fetching(version, group, Some(topics)));
    }
    for version in 2..=9 {
        for group in ["gr-old", "gr-unknown"] {
            pair.ask(&format!("all offsets of {group}"), version, |_| {
                fetching(version, group, None)
            });
        }
    }
    for version in [7, 8, 9] {
        pair.ask("stable offsets", version, |_| {
            let mut request = fetching(version, "gr-old", None);
            request.require_stable = true;
            request
        });
    }
    pair.ask("offsets of two groups", 8, |_| {
        let mut request = fetching(8, "gr-old", Some(&[("gr", &[0])]));
        request.groups.extend(fetching(8, "gr-unknown", None).groups);
        request
    });
    pair.ask("offsets of no group", 8, |_| message!(OffsetFetchRequest {}));
    for (member, epoch) in [("m", 1), ("", -1), ("m", -1)] {
        pair.ask(&format!("offsets for member '{member}' {epoch}"), 9, |_| {
            let mut request = fetching(9, "gr-old", None);
            request.groups[0].member_id = member.value();
            request.groups[0].member_epoch = epoch;
            request
        });
    }
}

fn listed(pair: &mut Pair) {
    pair.ask_every("groups", |_, _| message!(ListGroupsRequest {}));
    let states: &[&[&str]] = &[&["Empty"], &["empty", "Stable"], &["Stable"], &["nonsense"], &[""]];
    for filter in states {
        for version in [4, 5] {
            pair.ask(&format!("groups in state {filter:?}"), version, |_| {
                message!(ListGroupsRequest { states_filter: *filter })
            });
        }
    }
    let types: &[&[&str]] = &[&["classic"], &["CLASSIC"], &["consumer"], &["share"], &["nonsense"]];
    for filter in types {
        pair.ask(&format!("groups of type {filter:?}"), 5, |_| {
            message!(ListGroupsRequest { types_filter: *filter })
        });
    }
}

fn described(pair: &mut Pair) {
    let asking = |groups: &[&str]| {
        let groups = groups.iter().map(|group| GroupId(text(group))).collect::<Vec<_>>();
        message!(DescribeGroupsRequest { groups: groups })
    };
    pair.ask_every("describe", |_, _| asking(&["gr-old", "gr-unknown", ""]));
    pair.ask("describe none", 6, |_| asking(&[]));
    pair.ask("describe one twice", 6, |_| asking(&["gr-old", "gr-old"]));
    for version in 3..=6 {
        pair.ask("describe with operations", version, |_| {
            let mut request = asking(&["gr-old", "gr-unknown"]);
            request.include_authorized_operations = true;
            request
        });
    }
}

fn offsets_deleted(pair: &mut Pair) {
    let deleting = |group: &str, topic: &str, partitions: &[i32]| {
        let partition =
            |number: &i32| message!(OffsetDeleteRequestPartition { partition_index: *number });
        message!(OffsetDeleteRequest {
            group_id: group,
            topics: vec![message!(OffsetDeleteRequestTopic {
                name: topic,
                partitions: partitions.iter().map(partition).collect::<Vec<_>>(),
            })],
        })
    };
    let asked: &[(&str, &str, &str, &[i32])] = &[
        ("of an unknown group", "gr-unknown", "gr", &[0]),
        ("of an unknown topic", "gr-old", "gr-nope", &[0]),
        ("of unknown partitions", "gr-old", "gr", &[7, -1]),
        ("of no partitions", "gr-old", "gr", &[]),
        ("of one partition", "gr-old", "gr", &[1]),
        ("of one partition again", "gr-old", "gr", &[1]),
        ("of an empty name", "", "gr", &[0]),
    ];
    for (what, group, topic, partitions) in asked {
        pair.ask(&format!("delete offsets {what}"), 0, |_| deleting(group, topic, partitions));
    }
    pair.ask("offsets that are left", 7, |_| fetching(7, "gr-old", None));
}

fn groups_deleted(pair: &mut Pair) {
    let deleting = |groups: &[&str]| {
        let names = groups.iter().map(|group| GroupId(text(group))).collect::<Vec<_>>();
        message!(DeleteGroupsRequest { groups_names: names })
    };
    pair.ask("delete unknown groups", 2, |_| deleting(&["gr-unknown", "gr-unheard"]));
    pair.ask("delete no groups", 2, |_| deleting(&[]));
    pair.ask("delete a group twice", 2, |_| deleting(&["gr-odd", "gr-odd"]));
    for version in 0..=2 {
        let name = format!("gr-delete-{version}");
        pair.ask("a commit", 8, |_| committing(&name, "gr", &[(0, 5)]));
        pair.ask("delete a group", version, |_| deleting(&[&name]));
        pair.ask("offsets of a deleted group", 7, |_| fetching(7, &name, None));
    }
    pair.ask("groups that are left", 5, |_| message!(ListGroupsRequest {}));
}
