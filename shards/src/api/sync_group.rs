//! SyncGroup (key 14), versions 0 to 5. KIP-345 (static members, 3), KIP-559 (protocol type and
//! name, 5: there they must be given).

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::groups::{code, copied, home_of_members, owned, owned_option, wire_option, Groups};
use crate::groups::types::{GroupError, Sync, SyncAnswer};

pub async fn handle<G: Groups>(
    groups: &G,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let sync = Sync {
        group: owned(&request.group_id.0),
        generation: request.generation_id,
        member_id: owned(&request.member_id),
        instance_id: owned_option(&request.group_instance_id),
        protocol_type: owned_option(&request.protocol_type),
        protocol: owned_option(&request.protocol_name),
        assignments: request
            .assignments
            .iter()
            .map(|one| (owned(&one.member_id), copied(&one.assignment)))
            .collect(),
    };
    let answer = if version >= 5 && (sync.protocol_type.is_none() || sync.protocol.is_none()) {
        SyncAnswer::error(GroupError::InconsistentGroupProtocol)
    } else {
        match home_of_members(groups, &sync.group) {
            Ok((shard_group, partition)) => {
                let call = move |coordinators: crate::groups::runtime::Coordinators| async move {
                    coordinators.sync(partition, sync).await
                };
                groups.on_coordinator(shard_group, call).await
            }
            Err(error) => SyncAnswer::error(error),
        }
    };
    SyncGroupResponse::default()
        .with_error_code(answer.error.map_or(0, code))
        .with_protocol_type(wire_option(answer.protocol_type))
        .with_protocol_name(wire_option(answer.protocol))
        .with_assignment(answer.assignment)
}
