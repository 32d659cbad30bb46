//! kafka.md section 3: Metadata, DescribeCluster, DescribeTopicPartitions.

use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeTopicPartitionsRequest, MetadataRequest,
};
use uuid::Uuid;

use super::create;
use crate::message;
use crate::pair::Pair;

pub fn script(pair: &mut Pair) {
    create(pair, "md-one", 1, &[]);
    create(pair, "md.three", 3, &[]);
    by_name(pair);
    by_id(pair);
    creating(pair);
    cluster(pair);
    pages(pair);
}

fn asking(names: &[&str], create: bool) -> MetadataRequest {
    let topics = names.iter().map(|name| message!(MetadataRequestTopic { name: *name }));
    message!(MetadataRequest {
        topics: Some(topics.collect::<Vec<_>>()),
        allow_auto_topic_creation: create,
    })
}

fn by_name(pair: &mut Pair) {
    pair.ask_every("known topics", |_, _| asking(&["md.three", "md-one"], true));
    pair.ask_every("no topics", |_, version| match version {
        0 => asking(&["md-one"], true),
        _ => asking(&[], true),
    });
    pair.ask_every("an unknown topic", |_, version| match version {
        0..=3 => asking(&["md-one"], true),
        _ => asking(&["md-nope", "md-one"], false),
    });
    let long = "x".repeat(250);
    let bad = ["", ".", "..", "a b", "a/b", "ä", long.as_str()];
    for (create, what) in [(true, "bad names, creating"), (false, "bad names")] {
        for version in [4, 9, 12, 13] {
            for name in bad {
                let shown = if name.len() > 9 { "long" } else { name };
                pair.ask(&format!("{what} '{shown}'"), version, |_| asking(&[name], create));
            }
        }
    }
    pair.ask("the same twice", 12, |_| asking(&["md-one", "md-one"], false));
    for version in [8, 9, 10] {
        pair.ask("operations of topic and cluster", version, |_| {
            let mut request = asking(&["md-one"], false);
            request.include_cluster_authorized_operations = true;
            request.include_topic_authorized_operations = true;
            request
        });
    }
    pair.ask("operations of topics", 13, |_| {
        let mut request = asking(&["md-one", "md-nope"], false);
        request.include_topic_authorized_operations = true;
        request
    });
}

fn by_id(pair: &mut Pair) {
    let ids = pair.topic_ids("md-one");
    let by = |id: Uuid, name: Option<&str>| {
        let mut topic = message!(MetadataRequestTopic { topic_id: id });
        topic.name = name.map(crate::message::Value::value);
        message!(MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: false })
    };
    for version in 10..=13 {
        pair.ask("an id and a name", version, |side| by(ids[side], Some("md-nope")));
    }
    for version in 12..=13 {
        pair.ask("an id", version, |side| by(ids[side], None));
        pair.ask("an unknown id", version, |_| by(Uuid::from_u128(77), None));
    }
    pair.ask("no name and no id", 12, |_| by(Uuid::nil(), None));
}

fn creating(pair: &mut Pair) {
    pair.ask("creates", 12, |_| asking(&["md-made"], true));
    pair.settle("created", 12, |_| asking(&["md-made"], false));
    pair.ask("creates below version 4", 1, |_| asking(&["md-old"], true));
    pair.settle("created below version 4", 12, |_| asking(&["md-old"], false));
    pair.ask("names that look alike", 12, |_| asking(&["md_three"], true));
    pair.settle("no topic that looks alike", 12, |_| asking(&["md_three"], false));
    pair.ask("an internal topic", 12, |_| asking(&["__cluster_metadata"], true));
}

fn cluster(pair: &mut Pair) {
    pair.ask_every("cluster", |_, _| message!(DescribeClusterRequest {}));
    for version in 0..=2 {
        pair.ask("cluster with operations", version, |_| {
            message!(DescribeClusterRequest { include_cluster_authorized_operations: true })
        });
    }
    for endpoint in [0, 2, 3] {
        for version in 1..=2 {
            pair.ask(&format!("endpoint type {endpoint}"), version, |_| {
                message!(DescribeClusterRequest { endpoint_type: endpoint })
            });
        }
    }
    pair.ask("with fenced brokers", 2, |_| {
        message!(DescribeClusterRequest { include_fenced_brokers: true })
    });
}

fn pages(pair: &mut Pair) {
    let page = |names: &[&str], limit: i32, cursor: Option<(&str, i32)>| {
        let topics = names.iter().map(|name| message!(TopicRequest { name: *name }));
        let cursor = cursor.map(|(topic, partition)| {
            message!(Cursor { topic_name: topic, partition_index: partition })
        });
        message!(DescribeTopicPartitionsRequest {
            topics: topics.collect::<Vec<_>>(),
            response_partition_limit: limit,
            cursor: cursor,
        })
    };
    let both: &[&str] = &["md.three", "md-one"];
    let asked: &[(&str, &[&str], i32, Option<(&str, i32)>)] = &[
        ("all of two", both, 100, None),
        ("a page of 2", both, 2, None),
        ("a page of 3", both, 3, None),
        ("a page of 4", both, 4, None),
        ("from a cursor", both, 2, Some(("md.three", 1))),
        ("from the last partition", both, 2, Some(("md.three", 2))),
        ("from beyond the last partition", both, 2, Some(("md.three", 3))),
        ("from a topic that is not asked for", both, 2, Some(("md-p", 0))),
        ("from a negative partition", both, 2, Some(("md.three", -1))),
        ("no room", both, 0, None),
        ("negative room", both, -1, None),
        ("unknown", &["md-nope"], 10, None),
        ("a bad name", &["a b"], 10, None),
        ("known and unknown", &["md-nope", "md-one"], 1, None),
        ("the same twice", &["md-one", "md-one"], 10, None),
        ("a cursor at an unknown topic", &["md-nope"], 10, Some(("md-nope", 0))),
    ];
    for (what, names, limit, cursor) in asked {
        pair.ask(what, 0, |_| page(names, *limit, *cursor));
    }
}
