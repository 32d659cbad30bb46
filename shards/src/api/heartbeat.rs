//! Heartbeat (key 12), versions 0 to 4. KIP-345 (static members, 3).

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::groups::{code_of, home_of_members, owned, owned_option, Groups};
use crate::groups::runtime::Coordinators;
use crate::groups::types::Heartbeat;

pub async fn handle<G: Groups>(groups: &G, request: HeartbeatRequest) -> HeartbeatResponse {
    let beat = Heartbeat {
        group: owned(&request.group_id.0),
        generation: request.generation_id,
        member_id: owned(&request.member_id),
        instance_id: owned_option(&request.group_instance_id),
    };
    let outcome = match home_of_members(groups, &beat.group) {
        Ok((shard_group, partition)) => {
            let call = move |coordinators: Coordinators| async move {
                coordinators.heartbeat(partition, beat).await
            };
            groups.on_coordinator(shard_group, call).await
        }
        Err(error) => Err(error),
    };
    HeartbeatResponse::default().with_error_code(code_of(&outcome))
}
