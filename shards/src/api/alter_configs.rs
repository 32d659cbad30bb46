//! AlterConfigs (key 33), versions 0 to 2. KIP-133. Replaces everything that was set on a resource.
//!
//! Departure: Describe shows the change when the answer leaves (Kafka's lags behind).

use kafka_protocol::messages::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource};
use kafka_protocol::messages::alter_configs_response::{
    AlterConfigsResourceResponse, AlterConfigsResponse,
};

use super::admin::Admin;
use super::incremental_alter_configs::{alter_all, Asked, Changes};

pub async fn handle<A: Admin>(admin: &A, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources: Vec<Asked> = request.resources.iter().map(asked).collect();
    let results = alter_all(admin, resources, request.validate_only).await;
    let responses = request.resources.into_iter().zip(results).map(|(resource, result)| {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_message(None);
        match result {
            Ok(()) => response,
            Err(refusal) => {
                response.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

fn asked(resource: &AlterConfigsResource) -> Asked {
    let configs = resource.configs.iter().map(|config| {
        (config.name.to_string(), config.value.as_ref().map(|value| value.to_string()))
    });
    Asked {
        kind: resource.resource_type,
        name: resource.resource_name.to_string(),
        changes: Changes::Replacing(configs.collect()),
    }
}
