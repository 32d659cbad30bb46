//! DeleteGroups (key 42), versions 0 to 2. KIP-229. Each group has its own outcome.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::groups::{code_of, home, owned, Groups};
use crate::groups::coordinator::check_group_id;
use crate::groups::runtime::Coordinators;
use crate::groups::types::GroupError;

pub async fn handle<G: Groups>(groups: &G, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for name in request.groups_names {
        let outcome = delete(groups, owned(&name.0)).await;
        results.push(
            DeletableGroupResult::default().with_group_id(name).with_error_code(code_of(&outcome)),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete<G: Groups>(groups: &G, group: String) -> Result<(), GroupError> {
    check_group_id(&group)?;
    let (shard_group, partition) = home(groups, &group)?;
    let call = move |coordinators: Coordinators| async move {
        coordinators.delete_group(partition, group).await
    };
    groups.on_coordinator(shard_group, call).await
}
