//! ListConfigResources (key 74), versions 0 and 1. KIP-714 (as ListClientMetricsResources), KIP-1142.

use kafka_protocol::messages::list_config_resources_request::ListConfigResourcesRequest;
use kafka_protocol::messages::list_config_resources_response::{
    ConfigResource as Listed, ListConfigResourcesResponse,
};
use net::ErrorCode;

use super::admin::Admin;
use super::describe_configs::resource_type;
use super::names::text;
use crate::meta::{ConfigResource, Image};

/// What an empty list of version 1 means.
const ALL: [i8; 5] = [
    resource_type::TOPIC,
    resource_type::BROKER,
    resource_type::BROKER_LOGGER,
    resource_type::CLIENT_METRICS,
    resource_type::GROUP,
];

pub fn handle<A: Admin>(
    admin: &A,
    version: i16,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let image = admin.image();
    let mut types = match version {
        0 => vec![resource_type::CLIENT_METRICS],
        _ if request.resource_types.is_empty() => ALL.to_vec(),
        _ => request.resource_types.clone(),
    };
    types.sort_unstable();
    types.dedup();
    let response = ListConfigResourcesResponse::default();
    if types.iter().any(|kind| !ALL.contains(kind)) {
        return response.with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let listed = types.into_iter().flat_map(|kind| {
        names(&image, kind).into_iter().map(move |name| {
            let listed = Listed::default().with_resource_name(text(&name));
            // Version 0 lists client metrics only and has no field for the type.
            if version == 0 {
                listed
            } else {
                listed.with_resource_type(kind)
            }
        })
    });
    response.with_config_resources(listed.collect())
}

fn names(image: &Image, kind: i8) -> Vec<String> {
    match kind {
        resource_type::TOPIC => image.topics().map(|topic| topic.name.to_string()).collect(),
        resource_type::BROKER | resource_type::BROKER_LOGGER => {
            image.brokers().map(|broker| broker.id.to_string()).collect()
        }
        _ => image
            .configured()
            .filter_map(|(resource, _)| match (kind, resource) {
                (resource_type::GROUP, ConfigResource::Group(name))
                | (resource_type::CLIENT_METRICS, ConfigResource::ClientMetrics(name)) => {
                    Some(name.clone())
                }
                _ => None,
            })
            .collect(),
    }
}
