//! kafka.md section 9: joining, syncing, heartbeats and leaving; static members.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::create;
use super::groups::committing;
use crate::message;
use crate::message::{text, Value};
use crate::pair::{Both, Pair};

pub fn script(pair: &mut Pair) {
    create(pair, "mb", 1, &[]);
    super::groups::first_coordinator(pair);
    pair.settle("a commit", 8, |_| committing("mb-first", "mb", &[(0, 5)]));
    refused(pair);
    one_member(pair);
    in_every_version(pair);
    two_members(pair);
    votes(pair);
    static_members(pair);
    static_leaving(pair);
    strangers(pair);
}

fn joining(group: &str, member: &str, protocols: &[(&str, &'static str)]) -> JoinGroupRequest {
    let protocol = |(name, metadata): &(&str, &'static str)| {
        message!(JoinGroupRequestProtocol { name: *name, metadata: *metadata })
    };
    message!(JoinGroupRequest {
        group_id: group,
        member_id: member,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer",
        protocols: protocols.iter().map(protocol).collect::<Vec<_>>(),
    })
}

fn syncing(
    group: &str,
    member: &str,
    generation: i32,
    assignments: &[(&str, &'static str)],
) -> SyncGroupRequest {
    let assignment = |(member, bytes): &(&str, &'static str)| {
        message!(SyncGroupRequestAssignment { member_id: *member, assignment: *bytes })
    };
    message!(SyncGroupRequest {
        group_id: group,
        member_id: member,
        generation_id: generation,
        assignments: assignments.iter().map(assignment).collect::<Vec<_>>(),
    })
}

fn beating(group: &str, member: &str, generation: i32) -> HeartbeatRequest {
    message!(HeartbeatRequest { group_id: group, member_id: member, generation_id: generation })
}

fn leaving(group: &str, members: &[(&str, Option<&str>)]) -> LeaveGroupRequest {
    let identity = |(member, instance): &(&str, Option<&str>)| {
        let mut identity = message!(MemberIdentity { member_id: *member });
        identity.group_instance_id = instance.map(Value::value);
        identity
    };
    message!(LeaveGroupRequest {
        group_id: group,
        members: members.iter().map(identity).collect::<Vec<_>>(),
    })
}

type Members = Both<StrBytes>;

fn member_of(answer: Both<Option<JoinGroupResponse>>) -> Members {
    answer.map(|answer| answer.map_or(text(""), |answer| answer.member_id))
}

/// Joins with a new member id: asks for one first, as version 4 and later must.
fn join(pair: &mut Pair, what: &str, group: &str) -> Members {
    let range = &[("range", "one")];
    let id =
        member_of(pair.ask(&format!("{what} asks for an id"), 9, |_| joining(group, "", range)));
    pair.ask(&format!("{what} joins"), 9, |side| joining(group, &id[side], range));
    id
}

/// Kafka describes what its log has taken, a moment behind its answers.
fn describe(pair: &mut Pair, what: &str, group: &str) {
    for version in [0, 5, 6] {
        pair.settle(&format!("{what} described"), version, |_| {
            message!(DescribeGroupsRequest { groups: vec![GroupId(text(group))] })
        });
    }
}

fn refused(pair: &mut Pair) {
    type Change = fn(&mut JoinGroupRequest);
    let cases: &[(&str, Change)] = &[
        ("without a group", |r| r.group_id = GroupId(text(""))),
        ("with a session of 5999 ms", |r| r.session_timeout_ms = 5_999),
        ("with a session of 1800001 ms", |r| r.session_timeout_ms = 1_800_001),
        ("with an unknown member", |r| r.member_id = text("nobody")),
        ("as somebody without a group", |r| {
            (r.group_id, r.member_id) = (GroupId(text("")), text("nobody"));
        }),
        ("as somebody with a session of 5999 ms", |r| {
            (r.session_timeout_ms, r.member_id) = (5_999, text("nobody"));
        }),
        ("as somebody without protocols", |r| {
            r.member_id = text("nobody");
            r.protocols.clear();
        }),
        ("without protocols", |r| r.protocols.clear()),
        ("without a type", |r| r.protocol_type = text("")),
        ("with a protocol without name", |r| r.protocols[0].name = text("")),
    ];
    for (what, change) in cases {
        for version in [0, 3, 4, 9] {
            pair.ask(&format!("join {what}"), version, |_| {
                let mut request = joining("mb-refused", "", &[("range", "one")]);
                change(&mut request);
                if version == 0 {
                    request.rebalance_timeout_ms = -1;
                }
                request
            });
        }
    }
    pair.ask("join with a negative rebalance timeout", 9, |_| {
        let mut request = joining("mb-negative", "", &[("range", "one")]);
        request.rebalance_timeout_ms = -1;
        request
    });
}

fn one_member(pair: &mut Pair) {
    let group = "mb-one";
    let range = &[("range", "one")];
    let id = member_of(pair.ask("an id", 9, |_| joining(group, "", range)));
    pair.ask("an id with a reason", 9, |_| {
        let mut request = joining(group, "", range);
        request.reason = "because".value();
        request
    });
    describe(pair, "a group that waits for its member", group);
    pair.ask("heartbeat before joining", 4, |side| beating(group, &id[side], 0));
    pair.ask("join", 9, |side| joining(group, &id[side], range));
    describe(pair, "a group that waits for an assignment", group);
    pair.ask("heartbeat before the assignment", 4, |side| beating(group, &id[side], 1));
    let commit = |id: &str, generation: i32| {
        let mut request: OffsetCommitRequest = committing(group, "mb", &[(0, 7)]);
        request.member_id = text(id);
        request.generation_id_or_member_epoch = generation;
        request
    };
    pair.ask("commit before the assignment", 8, |side| commit(&id[side], 1));
    type Change = fn(&mut SyncGroupRequest);
    let wrong: &[(&str, Change)] = &[
        ("a wrong generation", |r| r.generation_id = 9),
        ("another type", |r| r.protocol_type = "other".value()),
        ("another protocol", |r| r.protocol_name = "other".value()),
        ("an unknown member", |r| r.member_id = text("nobody")),
        ("no group", |r| r.group_id = GroupId(text(""))),
        ("an unknown group", |r| r.group_id = GroupId(text("mb-unknown"))),
        ("an unknown instance", |r| r.group_instance_id = "i".value()),
    ];
    let sync = |id: &str| {
        let mut request = syncing(group, id, 1, &[(id, "assigned")]);
        request.protocol_type = "consumer".value();
        request.protocol_name = "range".value();
        request
    };
    for (what, change) in wrong {
        pair.ask(&format!("sync with {what}"), 5, |side| {
            let mut request = sync(&id[side]);
            change(&mut request);
            request
        });
    }
    pair.ask("sync without type and protocol", 5, |side| {
        let mut request = sync(&id[side]);
        request.protocol_type = None;
        request.protocol_name = None;
        request
    });
    pair.ask("sync", 5, |side| sync(&id[side]));
    pair.ask("sync again", 5, |side| sync(&id[side]));
    pair.ask("sync again in an older version", 4, |side| syncing(group, &id[side], 1, &[]));
    describe(pair, "a stable group", group);
    pair.ask("stable groups", 5, |_| {
        message!(ListGroupsRequest { states_filter: &["Stable"][..] })
    });
    for version in 0..=4 {
        pair.ask("heartbeat", version, |side| beating(group, &id[side], 1));
    }
    pair.ask("heartbeat of a wrong generation", 4, |side| beating(group, &id[side], 0));
    pair.ask("heartbeat of an unknown member", 4, |_| beating(group, "nobody", 1));
    pair.ask("heartbeat of an unknown group", 4, |_| beating("mb-unknown", "nobody", 1));
    pair.ask("heartbeat of no group", 4, |_| beating("", "nobody", 1));
    pair.ask("heartbeat of an unknown instance", 4, |side| {
        let mut request = beating(group, &id[side], 1);
        request.group_instance_id = "i".value();
        request
    });
    pair.ask("commit", 8, |side| commit(&id[side], 1));
    pair.ask("commit of a wrong generation", 8, |side| commit(&id[side], 0));
    pair.ask("commit of an unknown member", 8, |_| commit("nobody", 1));
    pair.ask("commit without member", 8, |_| commit("", -1));
    pair.ask("commit of a member without generation", 8, |side| commit(&id[side], -1));
    pair.ask("delete the offsets of a subscribed topic", 0, |_| deleting_offsets(group));
    pair.ask("delete a group that is not empty", 2, |_| {
        message!(kafka_protocol::messages::DeleteGroupsRequest {
            groups_names: vec![GroupId(text(group))],
        })
    });
    pair.ask("the leader joins again", 9, |side| joining(group, &id[side], range));
    pair.ask("sync after that", 5, |side| {
        let mut request = sync(&id[side]);
        request.generation_id = 2;
        request
    });
    pair.ask("leave", 5, |side| leaving(group, &[(&id[side], None), ("nobody", None)]));
    pair.ask("leave again", 5, |side| leaving(group, &[(&id[side], None)]));
    describe(pair, "an emptied group", group);
    pair.ask("delete offsets of an empty group", 0, |_| deleting_offsets(group));
    pair.ask("leave an unknown group", 5, |_| leaving("mb-unknown", &[("nobody", None)]));
    pair.ask("leave no group", 5, |_| leaving("", &[("nobody", None)]));
    pair.ask("nobody leaves", 5, |_| leaving(group, &[]));
    let id = join(pair, "a second life", group);
    pair.ask("leave while joining", 5, |side| leaving(group, &[(&id[side], None)]));
}

fn deleting_offsets(group: &str) -> OffsetDeleteRequest {
    use kafka_protocol::messages::offset_delete_request::*;
    message!(OffsetDeleteRequest {
        group_id: group,
        topics: vec![message!(OffsetDeleteRequestTopic {
            name: "mb",
            partitions: vec![message!(OffsetDeleteRequestPartition {})],
        })],
    })
}

/// A consumer's life in each version of JoinGroup, with the version of the rest beside it.
fn in_every_version(pair: &mut Pair) {
    for version in 0..=9 {
        let group = format!("mb-version-{version}");
        let request = |member: &str| {
            let mut request = joining(&group, member, &[("range", "one"), ("other", "two")]);
            if version == 0 {
                request.rebalance_timeout_ms = -1;
            }
            request
        };
        let mut id = member_of(pair.ask("first join", version, |_| request("")));
        if version >= 4 {
            id = member_of(pair.ask("second join", version, |side| request(&id[side])));
        }
        pair.ask("sync", version.min(5), |side| {
            let mut request = syncing(&group, &id[side], 1, &[(&id[side], "assigned")]);
            if version >= 5 {
                request.protocol_type = "consumer".value();
                request.protocol_name = "range".value();
            }
            request
        });
        pair.ask("leave", version.min(5), |side| match version {
            0..=2 => message!(LeaveGroupRequest {
                group_id: group.as_str(),
                member_id: id[side].clone(),
            }),
            _ => leaving(&group, &[(&id[side], None)]),
        });
    }
}

fn two_members(pair: &mut Pair) {
    let group = "mb-two";
    let range = &[("range", "one")];
    let first = join(pair, "the first", group);
    pair.ask("the first syncs", 3, |side| syncing(group, &first[side], 1, &[]));
    let second = member_of(pair.ask("the second asks", 9, |_| joining(group, "", range)));
    let mut lane = pair.lane();
    let pending =
        pair.send_on(&mut lane, "the second joins", 9, |side| joining(group, &second[side], range));
    std::thread::sleep(Duration::from_millis(100));
    pair.ask("heartbeat while the second joins", 4, |side| beating(group, &first[side], 1));
    pair.ask("sync while the second joins", 3, |side| syncing(group, &first[side], 1, &[]));
    describe(pair, "a group that prepares", group);
    let mut other = pair.lane();
    let commit = |id: &str, generation: i32| {
        let mut request = committing(group, "mb", &[(0, 7)]);
        request.member_id = text(id);
        request.generation_id_or_member_epoch = generation;
        request
    };
    pair.ask("commit while the second joins", 8, |side| commit(&first[side], 1));
    pair.ask_on(&mut other, "the first joins again", 9, |side| joining(group, &first[side], range));
    pair.receive_on::<JoinGroupRequest>(&mut lane, pending);
    pair.ask("commit before the sync", 8, |side| commit(&first[side], 2));
    let pending = pair
        .send_on(&mut lane, "the second syncs", 3, |side| syncing(group, &second[side], 2, &[]));
    pair.ask("the first assigns to itself", 3, |side| {
        syncing(group, &first[side], 2, &[(&first[side], "mine")])
    });
    pair.receive_on::<SyncGroupRequest>(&mut lane, pending);
    pair.ask("a follower joins again, unchanged", 9, |side| joining(group, &second[side], range));
    describe(pair, "a group of two", group);
    let pending = pair.send_on(&mut lane, "a follower joins again, changed", 9, |side| {
        joining(group, &second[side], &[("range", "changed")])
    });
    std::thread::sleep(Duration::from_millis(100));
    pair.ask("the leader leaves", 5, |side| leaving(group, &[(&first[side], None)]));
    pair.receive_on::<JoinGroupRequest>(&mut lane, pending);
    pair.ask("the follower leaves", 5, |side| leaving(group, &[(&second[side], None)]));
    describe(pair, "a group that both left", group);
}

/// Protocols: what has most votes, and what nobody shares.
fn votes(pair: &mut Pair) {
    let group = "mb-votes";
    let mut lanes = [pair.lane(), pair.lane(), pair.lane()];
    let wishes: [&[(&str, &str)]; 3] =
        [&[("a", "a1"), ("b", "b1")], &[("b", "b2"), ("a", "a2")], &[("b", "b3"), ("a", "a3")]];
    let first = member_of(pair.ask("the first voter", 3, |_| joining(group, "", wishes[0])));
    let mut pending = Vec::new();
    for (number, lane) in lanes.iter_mut().enumerate().skip(1) {
        let what = format!("voter {number}");
        pending.push(pair.send_on(lane, &what, 3, |_| joining(group, "", wishes[number])));
        std::thread::sleep(Duration::from_millis(100));
    }
    pair.ask("nothing in common", 3, |_| joining(group, "", &[("c", "c")]));
    pair.ask("another type", 3, |_| {
        let mut request = joining(group, "", &[("a", "a")]);
        request.protocol_type = text("connect");
        request
    });
    pair.ask_on(&mut lanes[0], "the first voter again", 3, |side| {
        joining(group, &first[side], wishes[0])
    });
    for (lane, pending) in lanes[1..].iter_mut().zip(pending) {
        pair.receive_on::<JoinGroupRequest>(lane, pending);
    }
}

fn as_instance(mut request: JoinGroupRequest, instance: &str) -> JoinGroupRequest {
    request.group_instance_id = instance.value();
    request
}

fn static_members(pair: &mut Pair) {
    let group = "mb-static";
    let range = &[("range", "one")];
    let first =
        member_of(pair.ask("static join", 9, |_| as_instance(joining(group, "", range), "i1")));
    pair.ask("static sync", 5, |side| {
        let mut request = syncing(group, &first[side], 1, &[(&first[side], "assigned")]);
        request.group_instance_id = "i1".value();
        request.protocol_type = "consumer".value();
        request.protocol_name = "range".value();
        request
    });
    describe(pair, "a static group", group);
    pair.ask("a wrong id for the instance", 9, |_| {
        as_instance(joining(group, "wrong", range), "i1")
    });
    let second = member_of(
        pair.ask("the instance comes back", 9, |_| as_instance(joining(group, "", range), "i1")),
    );
    for (what, member, instance) in [
        ("the old id with its instance", &first, Some("i1")),
        ("the old id alone", &first, None),
        ("the new id with its instance", &second, Some("i1")),
        ("the new id alone", &second, None),
        ("the new id with another instance", &second, Some("i2")),
    ] {
        let instance: Option<StrBytes> = instance.map(text);
        pair.ask(&format!("heartbeat of {what}"), 4, |side| {
            let mut request = beating(group, &member[side], 1);
            request.group_instance_id = instance.clone();
            request
        });
        pair.ask(&format!("sync of {what}"), 5, |side| {
            let mut request = syncing(group, &member[side], 1, &[]);
            request.group_instance_id = instance.clone();
            request.protocol_type = "consumer".value();
            request.protocol_name = "range".value();
            request
        });
        pair.ask(&format!("commit of {what}"), 8, |side| {
            let mut request = committing(group, "mb", &[(0, 1)]);
            request.member_id = member[side].clone();
            request.generation_id_or_member_epoch = 1;
            request.group_instance_id = instance.clone();
            request
        });
    }
    for version in 5..=9 {
        pair.ask("the instance comes back again", version, |_| {
            as_instance(joining(group, "", range), "i1")
        });
    }
    pair.ask("the instance comes back changed", 9, |_| {
        as_instance(joining(group, "", &[("range", "changed")]), "i1")
    });
    describe(pair, "a static group after changes", group);
}

fn static_leaving(pair: &mut Pair) {
    let group = "mb-leaves";
    let range = &[("range", "one")];
    let id =
        member_of(pair.ask("a static member", 9, |_| as_instance(joining(group, "", range), "i1")));
    pair.ask("an unknown instance leaves", 5, |_| leaving(group, &[("", Some("i9"))]));
    pair.ask("a wrong id leaves with the instance", 5, |_| leaving(group, &[("x", Some("i1"))]));
    pair.ask("an id leaves with a wrong instance", 5, |side| {
        leaving(group, &[(&id[side], Some("i9"))])
    });
    pair.ask("the instance leaves", 5, |_| leaving(group, &[("", Some("i1"))]));
    describe(pair, "a group that its static member left", group);
    let bad = "x".repeat(250);
    for (what, instance) in [("long", bad.as_str()), ("odd", "a b"), ("empty", "")] {
        pair.ask(&format!("an instance with a name that is {what}"), 9, |_| {
            as_instance(joining(group, "", range), instance)
        });
    }
}

/// Groups of another kind than consumers, and members whose metadata is no subscription.
fn strangers(pair: &mut Pair) {
    let group = "mb-connect";
    let joining = || {
        let mut request = joining(group, "", &[("v2", "metadata")]);
        request.protocol_type = text("connect");
        request
    };
    let id = member_of(pair.ask("a worker of Connect", 3, |_| joining()));
    pair.ask("the worker syncs", 3, |side| {
        let mut request = syncing(group, &id[side], 1, &[]);
        request.assignments = vec![message!(SyncGroupRequestAssignment {
            member_id: id[side].clone(),
            assignment: Bytes::from_static(b"\x00\x01"),
        })];
        request
    });
    describe(pair, "a group of Connect", group);
    pair.ask("all groups", 5, |_| message!(ListGroupsRequest {}));
    pair.ask("delete offsets in a group of Connect", 0, |_| deleting_offsets(group));
}
