//! ListGroups (key 16), versions 0 to 5. KIP-518 (state filter, 4), KIP-848 (type filter, 5).
//!
//! A broker lists the groups that it coordinates. Filters ignore case; what they do not know, they
//! do not find.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::groups::{code, wire, Groups};
use super::names::text;
use crate::groups::runtime::Coordinators;
use crate::groups::types::Listing;

/// The only type of group that is served.
const CLASSIC: &str = "classic";

pub async fn handle<G: Groups>(groups: &G, request: ListGroupsRequest) -> ListGroupsResponse {
    let call = |coordinators: Coordinators| async move { coordinators.list().await };
    let mut all = Vec::new();
    for outcome in groups.on_all_coordinators(call).await {
        match outcome {
            Ok(listed) => all.extend(listed),
            Err(error) => return ListGroupsResponse::default().with_error_code(code(error)),
        }
    }
    if !wanted(&request.types_filter, CLASSIC) {
        all.clear();
    }
    all.retain(|group| wanted(&request.states_filter, group.state));
    all.sort_by(|a, b| a.group.cmp(&b.group));
    ListGroupsResponse::default().with_groups(all.into_iter().map(shown).collect())
}

/// An empty filter wants everything.
fn wanted(filter: &[StrBytes], value: &str) -> bool {
    filter.is_empty() || filter.iter().any(|one| one.as_str().eq_ignore_ascii_case(value))
}

fn shown(group: Listing) -> ListedGroup {
    ListedGroup::default()
        .with_group_id(GroupId(wire(group.group)))
        .with_protocol_type(wire(group.protocol_type))
        .with_group_state(text(group.state))
        .with_group_type(text(CLASSIC))
}
