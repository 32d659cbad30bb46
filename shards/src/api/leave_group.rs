//! LeaveGroup (key 13), versions 0 to 5. KIP-345 (several members, each with its error, 3), KIP-800
//! (reason, 5; not kept).

use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::groups::{code, code_of, home_of_members, owned, owned_option, Groups};
use crate::groups::runtime::Coordinators;
use crate::groups::types::{GroupError, Leaving};

/// From here on a request names several members.
const BATCHED: i16 = 3;

pub async fn handle<G: Groups>(
    groups: &G,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let members = match version < BATCHED {
        true => vec![MemberIdentity::default().with_member_id(request.member_id)],
        false => request.members,
    };
    let outcome = leave(groups, owned(&request.group_id.0), &members).await;
    let outcomes = match outcome {
        Ok(outcomes) => outcomes,
        Err(error) => return LeaveGroupResponse::default().with_error_code(code(error)),
    };
    if version < BATCHED {
        let only = outcomes.first().map_or(0, code_of);
        return LeaveGroupResponse::default().with_error_code(only);
    }
    let members = members.into_iter().zip(&outcomes).map(|(member, outcome)| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code_of(outcome))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

async fn leave<G: Groups>(
    groups: &G,
    group: String,
    members: &[MemberIdentity],
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let leaving = |member: &MemberIdentity| Leaving {
        member_id: owned(&member.member_id),
        instance_id: owned_option(&member.group_instance_id),
    };
    let leaving: Vec<Leaving> = members.iter().map(leaving).collect();
    let (shard_group, partition) = home_of_members(groups, &group)?;
    let call = move |coordinators: Coordinators| async move {
        coordinators.leave(partition, group, leaving).await
    };
    groups.on_coordinator(shard_group, call).await
}
