//! IncrementalAlterConfigs (key 44), versions 0 and 1. KIP-339.
//!
//! Also holds what it shares with AlterConfigs: from a resource of the request to what is altered
//! in `__meta`. Departures: an unknown broker key is refused (Kafka keeps it and shows a secret);
//! log levels cannot be altered; an unknown operation is 42 and not -1.

use std::collections::BTreeMap;

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, IncrementalAlterConfigsRequest,
};
use kafka_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use net::ErrorCode;

use super::admin::{Admin, SUBMIT_TIMEOUT};
use super::create_topics::results_of;
use super::describe_configs::{check_broker, resource_type};
use super::errors::Refusal;
use super::names::check_topic_name;
use crate::config::alter::{self, Change, Target};
use crate::config::{batches, BrokerView, ConfigError};
use crate::meta::{AlteredResource, Command, ConfigChange, ConfigResource, Configs, Image};

pub async fn handle<A: Admin>(
    admin: &A,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
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
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn asked(resource: &AlterConfigsResource) -> Asked {
    let changes = resource.configs.iter().map(|config| Change {
        name: config.name.to_string(),
        operation: config.config_operation,
        value: config.value.as_ref().map(|value| value.to_string()),
    });
    Asked {
        kind: resource.resource_type,
        name: resource.resource_name.to_string(),
        changes: Changes::Incremental(changes.collect()),
    }
}

/// One resource of an alter request.
pub(super) struct Asked {
    pub kind: i8,
    pub name: String,
    pub changes: Changes,
}

pub(super) enum Changes {
    Incremental(Vec<Change>),
    /// Exactly these keys, nothing else.
    Replacing(Vec<(String, Option<String>)>),
}

/// Checks all resources and alters those that are in order, with one command.
pub(super) async fn alter_all<A: Admin>(
    admin: &A,
    resources: Vec<Asked>,
    validate_only: bool,
) -> Vec<Result<(), Refusal>> {
    let image = admin.image();
    let mut times: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for asked in &resources {
        *times.entry((asked.kind, &asked.name)).or_default() += 1;
    }
    let check = |asked: &Asked| {
        if times[&(asked.kind, asked.name.as_str())] > 1 {
            let message = "Each resource must appear at most once.";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        altered(admin, &image, asked)
    };
    let mut planned: Vec<Result<AlteredResource, Refusal>> = resources.iter().map(check).collect();
    let commanded: Vec<AlteredResource> =
        planned.iter().filter_map(|result| result.as_ref().ok()).cloned().collect();
    if !validate_only && !commanded.is_empty() {
        let count = commanded.len();
        let command = Command::AlterConfigs { resources: commanded };
        let mut results =
            results_of(admin.submit(command, SUBMIT_TIMEOUT).await, count).into_iter();
        for result in planned.iter_mut().filter(|result| result.is_ok()) {
            if let Some(Err(refusal)) = results.next() {
                *result = Err(refusal);
            }
        }
    }
    planned.into_iter().map(|result| result.map(|_| ())).collect()
}

fn altered<A: Admin>(admin: &A, image: &Image, asked: &Asked) -> Result<AlteredResource, Refusal> {
    let resource = resource(admin, image, asked)?;
    let none = Configs::new();
    let set: &Configs = image.configs(&resource).map_or(&none, |configs| configs.as_ref());
    let view = BrokerView::new(admin.settings(), image);
    let target = match &resource {
        ConfigResource::Topic(_) => Target::Topic { set, brokers: &view },
        ConfigResource::Broker(_) => Target::Broker { set, brokers: &view },
        ConfigResource::AllBrokers => Target::AllBrokers { set },
        ConfigResource::Group(_) => Target::Group { set },
        ConfigResource::ClientMetrics(_) => Target::ClientMetrics { set },
    };
    let (changes, replace): (Result<Vec<ConfigChange>, ConfigError>, bool) = match &asked.changes {
        Changes::Incremental(changes) => (alter::incremental(&target, changes), false),
        Changes::Replacing(configs) => (alter::replacing(&target, configs), true),
    };
    let changes = changes?;
    for change in &changes {
        if let Some(value) = &change.value {
            batches::check(&change.name, value, admin.batch_max_bytes())?;
        }
    }
    Ok(AlteredResource { changes, resource, replace })
}

/// What the client means by a type and a name.
fn resource<A: Admin>(admin: &A, image: &Image, asked: &Asked) -> Result<ConfigResource, Refusal> {
    let name = asked.name.as_str();
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    match asked.kind {
        resource_type::TOPIC if name.is_empty() => {
            invalid("Default topic resources are not allowed.")
        }
        resource_type::TOPIC => {
            check_topic_name(name)?;
            match image.topic(name) {
                Some(topic) => Ok(ConfigResource::Topic(topic.id)),
                None => {
                    let message = format!("The topic '{name}' does not exist.");
                    Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message))
                }
            }
        }
        resource_type::BROKER if name.is_empty() => Ok(ConfigResource::AllBrokers),
        resource_type::BROKER => {
            check_broker(admin, name, "Node", ",")?;
            Ok(ConfigResource::Broker(admin.settings().node()))
        }
        resource_type::BROKER_LOGGER => {
            check_broker(admin, name, "Node", ",")?;
            invalid("Log levels of this broker are set by RUST_LOG and not through the protocol.")
        }
        resource_type::CLIENT_METRICS if name.is_empty() => {
            invalid("Subscription name can't be empty")
        }
        resource_type::CLIENT_METRICS => Ok(ConfigResource::ClientMetrics(name.to_owned())),
        resource_type::GROUP if name.is_empty() => {
            invalid("Default group resources are not allowed.")
        }
        resource_type::GROUP => Ok(ConfigResource::Group(name.to_owned())),
        other => invalid(&format!("Unknown resource type {other}")),
    }
}
