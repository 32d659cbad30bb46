//! DescribeGroups (key 15), versions 0 to 6. KIP-430 (operations, 3), KIP-345 (instance ids, 4),
//! KIP-1043 (an unknown group is an error, 6; before, a dead group).

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId as GroupName,
};
use net::ErrorCode;

use super::groups::{code, home, owned, wire, wire_option, Groups, GROUP_OPERATIONS};
use super::metadata::NO_OPERATIONS;
use super::names::text;
use crate::groups::runtime::Coordinators;
use crate::groups::types::{DescribedMember, Description, GroupError};

/// From here on an unknown group has an error.
const KNOWS_NOT_FOUND: i16 = 6;

pub async fn handle<G: Groups>(
    groups: &G,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = match request.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => NO_OPERATIONS,
    };
    let mut described = Vec::with_capacity(request.groups.len());
    for name in request.groups {
        let group = match describe(groups, owned(&name.0)).await {
            Ok(Some(description)) => shown(description).with_authorized_operations(operations),
            Ok(None) => dead(version, &name).with_authorized_operations(operations),
            Err(error) => DescribedGroup::default().with_error_code(code(error)),
        };
        described.push(group.with_group_id(name));
    }
    DescribeGroupsResponse::default().with_groups(described)
}

async fn describe<G: Groups>(groups: &G, group: String) -> Result<Option<Description>, GroupError> {
    let (shard_group, partition) = home(groups, &group)?;
    let call = move |coordinators: Coordinators| async move {
        coordinators.describe(partition, group).await
    };
    groups.on_coordinator(shard_group, call).await
}

fn dead(version: i16, name: &GroupName) -> DescribedGroup {
    let dead = DescribedGroup::default().with_group_state(text("Dead"));
    if version < KNOWS_NOT_FOUND {
        return dead;
    }
    let message = format!("Group {} not found.", name.as_str());
    dead.with_error_code(ErrorCode::GroupIdNotFound.code()).with_error_message(Some(wire(message)))
}

fn shown(group: Description) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_state(text(group.state))
        .with_protocol_type(wire(group.protocol_type))
        .with_protocol_data(wire(group.protocol))
        .with_members(group.members.into_iter().map(member).collect())
}

fn member(member: DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember::default()
        .with_member_id(wire(member.member_id))
        .with_group_instance_id(wire_option(member.instance_id))
        .with_client_id(wire(member.client_id))
        .with_client_host(wire(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
