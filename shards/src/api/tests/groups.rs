//! The group handlers against real coordinators in simulated time: what the wire adds to what the
//! coordinator's own scenarios show. Every answer is encoded in the version it was asked in.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use rt::Shard;

use super::super::groups::{answer, Groups, OFFSETS_TOPIC};
use super::*;
use crate::groups::coordinator::GroupsConfig;
use crate::groups::runtime::{AppendError, Coordinators, OffsetsLog};

/// A broker whose one shard coordinates all groups.
struct Node {
    cluster: Cluster,
    shard: Shard,
    coordinators: Coordinators,
}

/// Forgets everything at once.
#[derive(Default)]
struct Void {
    next_offset: Cell<i64>,
}

impl OffsetsLog for Void {
    fn append(&self, batch: net::batch::Batch) -> net::LocalFuture<Result<i64, AppendError>> {
        let base = self.next_offset.get();
        self.next_offset.set(base + i64::from(batch.header.record_count));
        Box::pin(async move { Ok(base) })
    }
    fn read(&self, _: i64, _: usize) -> net::LocalFuture<Result<Vec<Bytes>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn log_start(&self) -> i64 {
        0
    }
    fn move_log_start(&self, _: i64) -> net::LocalFuture<Result<(), AppendError>> {
        Box::pin(async { Ok(()) })
    }
    fn size_bytes(&self) -> u64 {
        0
    }
}

impl Admin for Node {
    fn settings(&self) -> &Settings {
        self.cluster.settings()
    }
    fn image(&self) -> Arc<Image> {
        self.cluster.image()
    }
    async fn submit(&self, command: Command, timeout: Duration) -> Result<Outcome, SubmitError> {
        self.cluster.submit(command, timeout).await
    }
    fn leadership(&self, group: GroupId) -> Leadership {
        self.cluster.leadership(group)
    }
    fn is_alive(&self, node: NodeId) -> bool {
        self.cluster.is_alive(node)
    }
    fn host(&self, broker: &Broker, context: &ConnectionContext) -> Option<Host> {
        self.cluster.host(broker, context)
    }
    fn batch_max_bytes(&self) -> u64 {
        self.cluster.batch_max_bytes()
    }
    fn entropy(&self) -> [u8; 16] {
        self.cluster.entropy()
    }
    async fn quorum(&self) -> Quorum {
        self.cluster.quorum().await
    }
}

impl Groups for Node {
    async fn on_coordinator<T, F, Fut>(&self, _: GroupId, call: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Coordinators) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        call(self.coordinators.clone()).await
    }

    async fn on_all_coordinators<T, F, Fut>(&self, call: F) -> Vec<T>
    where
        T: Send + 'static,
        F: Fn(Coordinators) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        vec![call(self.coordinators.clone()).await]
    }
}

impl Node {
    fn new(shard: Shard) -> Node {
        let coordinators = Coordinators::new(&shard, GroupsConfig::default());
        Node { cluster: Cluster::of(1), shard, coordinators }
    }

    /// With the offsets topic, a topic `t` of two partitions, and all groups loaded.
    async fn started(shard: Shard) -> Node {
        let node = Node::new(shard);
        for made in super::super::create_topics::ensure(&node, &[OFFSETS_TOPIC, "t"]).await {
            made.unwrap();
        }
        for partition in 0..50 {
            node.coordinators.lead(partition, Rc::new(Void::default()));
        }
        while !(0..50).all(|partition| node.coordinators.is_ready(partition)) {
            node.shard.sleep(Duration::from_millis(1)).await;
        }
        node
    }

    async fn ask(&self, version: i16, request: impl Into<RequestKind>) -> ResponseKind {
        let client = text("app");
        let context = context();
        let asked = answer(self, &context, Some(&client), version, request.into());
        let response = asked.await.unwrap();
        let mut bytes = BytesMut::new();
        response.encode(&mut bytes, version).unwrap();
        response
    }
}

macro_rules! ask {
    ($node:expr, $version:expr, $request:expr => $kind:ident) => {
        match $node.ask($version, $request).await {
            ResponseKind::$kind(response) => response,
            other => panic!("{other:?}"),
        }
    };
}

fn sim<F: Future<Output = ()> + 'static>(test: impl FnOnce(Shard) -> F + 'static) {
    rt::sim::run(1, test);
}

fn group(name: &str) -> m::GroupId {
    m::GroupId(text(name))
}

fn find(version: i16, key_type: i8, keys: &[&str]) -> m::FindCoordinatorRequest {
    let request = m::FindCoordinatorRequest::default().with_key_type(key_type);
    match version >= 4 {
        true => request.with_coordinator_keys(keys.iter().map(|key| text(key)).collect()),
        false => request.with_key(text(keys[0])),
    }
}

fn join(member_id: &str) -> m::JoinGroupRequest {
    let protocol = m::join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"));
    m::JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

fn commit(
    generation: i32,
    member_id: &str,
    topic: &str,
    partitions: &[i32],
) -> m::OffsetCommitRequest {
    let partitions = partitions.iter().map(|number| {
        m::offset_commit_request::OffsetCommitRequestPartition::default()
            .with_partition_index(*number)
            .with_committed_offset(42)
            .with_committed_metadata(None)
    });
    let topic = m::offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(name(topic))
        .with_partitions(partitions.collect());
    m::OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member_id))
        .with_topics(vec![topic])
}

fn commit_codes(response: &m::OffsetCommitResponse) -> Vec<i16> {
    response.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

#[test]
fn the_first_question_makes_the_offsets_topic() {
    sim(|shard| async move {
        let node = Node::new(shard);
        assert!(node.image().topic(OFFSETS_TOPIC).is_none());
        let found = ask!(node, 3, find(3, 0, &["g"]) => FindCoordinator);
        assert_eq!((found.error_code, found.node_id.0, found.port), (0, 1, 9092));
        assert_eq!(found.error_message, Some(text("NONE")));
        assert_eq!(node.image().topic(OFFSETS_TOPIC).unwrap().partitions.len(), 50);
        let found = ask!(node, 6, find(6, 0, &["g", "h"]) => FindCoordinator);
        assert_eq!(found.coordinators.len(), 2);
        assert_eq!(found.coordinators[1].key, text("h"));
        assert_eq!(found.coordinators[1].error_message, Some(text("")));
    });
}

#[test]
fn bad_names_and_sessions_are_named_before_there_is_an_offsets_topic() {
    sim(|shard| async move {
        let node = Node::new(shard);
        let nobody = join("").with_group_id(group(""));
        assert_eq!(ask!(node, 9, nobody => JoinGroup).error_code, 24);
        for session_ms in [5_999, 1_800_001] {
            let hasty = join("").with_session_timeout_ms(session_ms);
            assert_eq!(ask!(node, 9, hasty => JoinGroup).error_code, 26);
        }
        assert_eq!(ask!(node, 9, join("") => JoinGroup).error_code, 16);
        let sync = m::SyncGroupRequest::default()
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")));
        assert_eq!(ask!(node, 5, sync => SyncGroup).error_code, 24);
        assert_eq!(ask!(node, 4, m::HeartbeatRequest::default() => Heartbeat).error_code, 24);
        assert_eq!(ask!(node, 5, m::LeaveGroupRequest::default() => LeaveGroup).error_code, 24);
    });
}

#[test]
fn other_kinds_of_coordinator_are_refused() {
    sim(|shard| async move {
        let node = Node::new(shard);
        for (version, key_type, code) in [(1, 1, 53), (3, 1, 53), (1, 2, 42), (3, 7, 42)] {
            let found = ask!(node, version, find(version, key_type, &["x"]) => FindCoordinator);
            assert_eq!((found.error_code, found.node_id.0, found.port), (code, -1, -1));
            assert!(found.error_message.is_some_and(|message| !message.is_empty()));
        }
        for (version, key_type, code) in [(4, 1, 53), (6, 2, 42)] {
            let found = ask!(node, version, find(version, key_type, &["x"]) => FindCoordinator);
            let one = &found.coordinators[0];
            assert_eq!((one.error_code, one.node_id.0, one.port), (code, -1, -1));
        }
        assert!(node.image().topic(OFFSETS_TOPIC).is_none(), "nobody asked about a group");
    });
}

#[test]
fn a_group_that_cannot_be_made_room_for_is_asked_for_again() {
    sim(|shard| async move {
        let node = Node::new(shard);
        *node.cluster.failing.borrow_mut() = Some(SubmitError::Unavailable("election".into()));
        let found = ask!(node, 4, find(4, 0, &["g"]) => FindCoordinator);
        assert_eq!(found.coordinators[0].error_code, 15);
        // Without the topic nobody coordinates anything; but listing is no error.
        let beat = m::HeartbeatRequest::default().with_group_id(group("g"));
        assert_eq!(ask!(node, 4, beat => Heartbeat).error_code, 16);
        let listed = ask!(node, 5, m::ListGroupsRequest::default() => ListGroups);
        assert_eq!((listed.error_code, listed.groups.len()), (0, 0));
    });
}

#[test]
fn a_member_goes_through_its_life_in_every_version() {
    sim(|shard| async move {
        for version in 0..=9 {
            let node = Node::started(shard.clone()).await;
            let mut joined = ask!(node, version, join("") => JoinGroup);
            if version >= 4 {
                assert_eq!((joined.error_code, joined.generation_id), (79, -1));
                assert!(joined.member_id.starts_with("app-"));
                joined = ask!(node, version, join(&joined.member_id) => JoinGroup);
            }
            assert_eq!((joined.error_code, joined.generation_id), (0, 1));
            assert_eq!((&joined.leader, joined.members.len()), (&joined.member_id, 1));
            let id = joined.member_id.clone();
            let version = version.min(5);
            let assignment = m::sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(id.clone())
                .with_assignment(Bytes::from_static(b"all"));
            let mut sync = m::SyncGroupRequest::default()
                .with_group_id(group("g"))
                .with_generation_id(1)
                .with_member_id(id.clone())
                .with_assignments(vec![assignment]);
            if version == 5 {
                assert_eq!(ask!(node, 5, sync.clone() => SyncGroup).error_code, 23);
                sync.protocol_type = Some(text("consumer"));
                sync.protocol_name = Some(text("range"));
            }
            let synced = ask!(node, version, sync => SyncGroup);
            assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
            let beat = m::HeartbeatRequest::default()
                .with_group_id(group("g"))
                .with_generation_id(1)
                .with_member_id(id.clone());
            assert_eq!(ask!(node, version.min(4), beat => Heartbeat).error_code, 0);
            let leaving = m::leave_group_request::MemberIdentity::default();
            let leave = m::LeaveGroupRequest::default().with_group_id(group("g"));
            let left = match version < 3 {
                true => ask!(node, version, leave.with_member_id(id) => LeaveGroup),
                false => {
                    let members = ["x".into(), id].map(|id| leaving.clone().with_member_id(id));
                    ask!(node, version, leave.with_members(members.to_vec()) => LeaveGroup)
                }
            };
            assert_eq!(left.error_code, 0);
            let codes: Vec<i16> = left.members.iter().map(|member| member.error_code).collect();
            assert_eq!(codes, if version < 3 { vec![] } else { vec![25, 0] });
        }
    });
}

#[test]
fn the_rebalance_timeout_of_version_0_is_the_session_timeout() {
    sim(|shard| async move {
        let node = Node::started(shard.clone()).await;
        let first = ask!(node, 0, join("").with_rebalance_timeout_ms(-1) => JoinGroup);
        let start = shard.now();
        let request = join("").with_rebalance_timeout_ms(-1).with_session_timeout_ms(6_000);
        // The first one is silent: it is waited for as long as its rebalance timeout says.
        let second = ask!(node, 0, request => JoinGroup);
        assert_ne!(second.member_id, first.member_id);
        assert_eq!((second.error_code, second.members.len()), (0, 1));
        assert_eq!((shard.now() - start).as_secs(), 10);
    });
}

#[test]
fn a_commit_names_what_does_not_exist_and_asks_about_the_rest() {
    sim(|shard| async move {
        let node = Node::started(shard).await;
        for version in 2..=9 {
            let committed = ask!(node, version, commit(-1, "", "t", &[0, 7, -1]) => OffsetCommit);
            assert_eq!(commit_codes(&committed), [0, 3, 3]);
            let committed = ask!(node, version, commit(-1, "", "u", &[0]) => OffsetCommit);
            assert_eq!(commit_codes(&committed), [3]);
            let refused = ask!(node, version, commit(5, "x", "t", &[7, 0]) => OffsetCommit);
            assert_eq!(commit_codes(&refused), [3, 25]);
        }
        let mut unknown = commit(5, "x", "t", &[0]);
        unknown.group_id = group("unknown");
        assert_eq!(commit_codes(&ask!(node, 8, unknown.clone() => OffsetCommit)), [22]);
        assert_eq!(commit_codes(&ask!(node, 9, unknown => OffsetCommit)), [69]);
        let nobody = commit(-1, "", "t", &[0]).with_group_id(group(""));
        assert_eq!(commit_codes(&ask!(node, 9, nobody => OffsetCommit)), [24]);
        let nothing = ask!(node, 9, commit(-1, "", "t", &[]) => OffsetCommit);
        assert_eq!(nothing.topics, [], "a topic without partitions is not answered");
    });
}

#[test]
fn offsets_are_fetched_in_every_version() {
    sim(|shard| async move {
        let node = Node::started(shard).await;
        ask!(node, 9, commit(-1, "", "t", &[0]) => OffsetCommit);
        let topic = m::offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0, 1]);
        for version in 1..=7 {
            let asked = m::OffsetFetchRequest::default()
                .with_group_id(group("g"))
                .with_topics(Some(vec![topic.clone()]));
            let fetched = ask!(node, version, asked.clone() => OffsetFetch);
            let offsets = fetched.topics[0].partitions.iter().map(|p| p.committed_offset);
            assert_eq!(offsets.collect::<Vec<_>>(), [42, -1]);
            let metadata = fetched.topics[0].partitions[1].metadata.as_deref();
            assert_eq!(metadata, Some(""), "never null");
            let nobody = ask!(node, version, asked.with_group_id(group("")) => OffsetFetch);
            match version {
                1 => assert_eq!(nobody.topics[0].partitions[0].error_code, 24),
                _ => assert_eq!((nobody.error_code, nobody.topics.len()), (24, 0)),
            }
        }
        for version in 8..=9 {
            let all = |name: &str| {
                m::offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(group(name))
                    .with_topics(None)
            };
            let request = m::OffsetFetchRequest::default().with_groups(vec![
                all("g"),
                all("unknown"),
                all(""),
            ]);
            let fetched = ask!(node, version, request => OffsetFetch);
            let shown: Vec<(i16, usize)> =
                fetched.groups.iter().map(|group| (group.error_code, group.topics.len())).collect();
            assert_eq!(shown, [(0, 1), (0, 0), (24, 0)]);
            assert_eq!(fetched.groups[0].topics[0].partitions[0].committed_offset, 42);
        }
    });
}

#[test]
fn groups_are_listed_described_and_deleted() {
    sim(|shard| async move {
        let node = Node::started(shard).await;
        ask!(node, 9, commit(-1, "", "t", &[0]) => OffsetCommit);
        let filtered = |states: &[&str], types: &[&str]| {
            m::ListGroupsRequest::default()
                .with_states_filter(states.iter().map(|state| text(state)).collect())
                .with_types_filter(types.iter().map(|one| text(one)).collect())
        };
        for (states, types, count) in [
            (&[][..], &[][..], 1),
            (&["eMPTY", "Stable"][..], &["CLASSIC"][..], 1),
            (&["Stable"][..], &[][..], 0),
            (&[][..], &["consumer", "nonsense"][..], 0),
        ] {
            let listed = ask!(node, 5, filtered(states, types) => ListGroups);
            assert_eq!((listed.error_code, listed.groups.len()), (0, count));
        }
        let listed = ask!(node, 5, filtered(&[], &[]) => ListGroups);
        let one = &listed.groups[0];
        assert_eq!((&one.group_state[..], &one.group_type[..]), ("Empty", "classic"));
        for version in 0..=6 {
            let request = m::DescribeGroupsRequest::default()
                .with_groups(vec![group("g"), group("h")])
                .with_include_authorized_operations(version >= 3);
            let described = ask!(node, version, request => DescribeGroups).groups;
            let shown = described.iter().map(|one| (one.error_code, one.group_state.to_string()));
            let unknown = if version < 6 { 0 } else { 69 };
            assert_eq!(
                shown.collect::<Vec<_>>(),
                [(0, "Empty".to_owned()), (unknown, "Dead".to_owned())]
            );
            let message = described[1].error_message.as_deref();
            assert_eq!(message, (version == 6).then_some("Group h not found."));
            let operations = if version < 3 { i32::MIN } else { 3400 };
            assert_eq!(described[0].authorized_operations, operations);
        }
        for version in 0..=2 {
            ask!(node, 9, commit(-1, "", "t", &[0]) => OffsetCommit);
            let request = m::DeleteGroupsRequest::default().with_groups_names(vec![
                group("h"),
                group("g"),
                group(""),
            ]);
            let deleted = ask!(node, version, request => DeleteGroups).results;
            let codes: Vec<i16> = deleted.iter().map(|one| one.error_code).collect();
            assert_eq!(codes, [69, 0, 24]);
        }
    });
}

#[test]
fn members_are_described_with_their_address() {
    sim(|shard| async move {
        let node = Node::started(shard).await;
        ask!(node, 3, join("") => JoinGroup);
        let request = m::DescribeGroupsRequest::default().with_groups(vec![group("g")]);
        let described = ask!(node, 5, request => DescribeGroups);
        let member = &described.groups[0].members[0];
        assert_eq!((&member.client_id[..], &member.client_host[..]), ("app", "/127.0.0.1"));
    });
}

#[test]
fn offsets_are_deleted_where_the_group_does_not_read() {
    sim(|shard| async move {
        let node = Node::started(shard).await;
        let delete = |topic: &str, partitions: &[i32]| {
            let partitions = partitions.iter().map(|number| {
                m::offset_delete_request::OffsetDeleteRequestPartition::default()
                    .with_partition_index(*number)
            });
            let topic = m::offset_delete_request::OffsetDeleteRequestTopic::default()
                .with_name(name(topic))
                .with_partitions(partitions.collect());
            m::OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![topic])
        };
        let codes = |response: &m::OffsetDeleteResponse| -> Vec<i16> {
            response.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
        };
        assert_eq!(ask!(node, 0, delete("t", &[0]) => OffsetDelete).error_code, 69);
        ask!(node, 9, commit(-1, "", "t", &[0]) => OffsetCommit);
        let deleted = ask!(node, 0, delete("t", &[0, 9]) => OffsetDelete);
        assert_eq!((deleted.error_code, codes(&deleted)), (0, vec![0, 3]));
        assert_eq!(ask!(node, 0, delete("t", &[]) => OffsetDelete).topics, []);
        ask!(node, 3, join("") => JoinGroup);
        let deleted = ask!(node, 0, delete("t", &[0, 9]) => OffsetDelete);
        assert_eq!((deleted.error_code, codes(&deleted)), (0, vec![86, 3]));
    });
}
