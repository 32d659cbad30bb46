//! JoinGroup (key 11), versions 0 to 9. KIP-62 (rebalance timeout, 1), KIP-394 (member id, 4),
//! KIP-345 (static members, 5), KIP-559 (protocol type, 7), KIP-800 (reason, 8; not kept), KIP-814
//! (skip the assignment, 9).

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use net::ConnectionContext;

use super::groups::{
    client_host, code, copied, home, owned, owned_option, wire, wire_option, Groups,
};
use crate::config::BrokerConfig;
use crate::groups::coordinator::check_group_and_session;
use crate::groups::types::{Join, JoinAnswer, JoinedMember};

pub async fn handle<G: Groups>(
    groups: &G,
    context: &ConnectionContext,
    client_id: Option<&StrBytes>,
    version: i16,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let join = Join {
        group: owned(&request.group_id.0),
        member_id: owned(&request.member_id),
        instance_id: owned_option(&request.group_instance_id),
        protocol_type: owned(&request.protocol_type),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| (owned(&protocol.name), copied(&protocol.metadata)))
            .collect(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: match version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        },
        client_id: client_id.map(owned).unwrap_or_default(),
        client_host: client_host(context),
        member_id_required: version >= 4,
        can_skip_assignment: version >= 9,
    };
    let config = BrokerConfig::resolve(groups.settings(), &groups.image());
    let limits_ms = config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms;
    if let Err(error) = check_group_and_session(&join, limits_ms) {
        return response(version, JoinAnswer::error(&join.member_id, error));
    }
    let answer = match home(groups, &join.group) {
        Ok((shard_group, partition)) => {
            let call = move |coordinators: crate::groups::runtime::Coordinators| async move {
                coordinators.join(partition, join).await
            };
            groups.on_coordinator(shard_group, call).await
        }
        Err(error) => JoinAnswer::error("", error),
    };
    response(version, answer)
}

fn response(version: i16, answer: JoinAnswer) -> JoinGroupResponse {
    let protocol = match answer.protocol {
        // Nullable from version 7 on.
        None if version < 7 => Some(StrBytes::default()),
        protocol => wire_option(protocol),
    };
    JoinGroupResponse::default()
        .with_error_code(answer.error.map_or(0, code))
        .with_generation_id(answer.generation)
        .with_protocol_type(wire_option(answer.protocol_type))
        .with_protocol_name(protocol)
        .with_leader(wire(answer.leader))
        .with_skip_assignment(answer.skip_assignment)
        .with_member_id(wire(answer.member_id))
        .with_members(answer.members.into_iter().map(member).collect())
}

fn member(member: JoinedMember) -> JoinGroupResponseMember {
    JoinGroupResponseMember::default()
        .with_member_id(wire(member.member_id))
        .with_group_instance_id(wire_option(member.instance_id))
        .with_metadata(member.metadata)
}
