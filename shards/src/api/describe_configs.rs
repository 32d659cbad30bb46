//! DescribeConfigs (key 32), versions 1 to 4. KIP-133, KIP-226 (synonyms), KIP-569 (types and
//! documentation), KIP-714 and KIP-1043 (client metrics, groups).
//!
//! Departures: entries stand sorted by name; broker loggers have no configurations here.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

use super::admin::Admin;
use super::errors::Refusal;
use super::names::{check_topic_name, text};
use crate::config::topic::Described;
use crate::config::{broker, client_metrics, group, topic, BrokerView, Type};
use crate::meta::{ConfigResource, Configs, Image};

/// Kafka's numbers for what has configurations.
pub(super) mod resource_type {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
    pub const BROKER_LOGGER: i8 = 8;
    pub const CLIENT_METRICS: i8 = 16;
    pub const GROUP: i8 = 32;
}

pub fn handle<A: Admin>(
    admin: &A,
    version: i16,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = admin.image();
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(Some(StrBytes::new()));
        match describe(admin, &image, resource) {
            Ok(configs) => result.with_configs(shown(version, request, resource, configs)),
            Err(refusal) => result
                .with_error_code(refusal.code.code())
                .with_error_message(Some(refusal.text().unwrap_or_default())),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// All configurations of one resource.
fn describe<A: Admin>(
    admin: &A,
    image: &Image,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, Refusal> {
    let name = resource.resource_name.as_str();
    let view = BrokerView::new(admin.settings(), image);
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let set_on =
        |resource| image.configs(&resource).map_or_else(Configs::new, |c| Configs::clone(c));
    match resource.resource_type {
        resource_type::TOPIC => {
            check_topic_name(name)?;
            let unknown = || Refusal::bare(ErrorCode::UnknownTopicOrPartition);
            let found = image.topic(name).ok_or_else(unknown)?;
            Ok(topic::describe(&found.configs, &view))
        }
        resource_type::BROKER if name.is_empty() => {
            Ok(broker::describe_all_brokers(&set_on(ConfigResource::AllBrokers)))
        }
        resource_type::BROKER => {
            check_broker(admin, name, "Broker", " or empty string,")?;
            Ok(broker::describe(&view))
        }
        resource_type::BROKER_LOGGER => {
            check_broker(admin, name, "Broker", "")?;
            invalid("Log levels of this broker are set by RUST_LOG and not through the protocol.")
        }
        resource_type::CLIENT_METRICS if name.is_empty() => {
            invalid("Client metrics subscription name must not be empty")
        }
        resource_type::CLIENT_METRICS => {
            Ok(client_metrics::describe(&set_on(ConfigResource::ClientMetrics(name.to_owned()))))
        }
        resource_type::GROUP if name.is_empty() => invalid("Group name must not be empty"),
        resource_type::GROUP => {
            Ok(group::describe(&set_on(ConfigResource::Group(name.to_owned()))))
        }
        other => invalid(&format!("Unknown resource type {other}")),
    }
}

/// A broker answers for itself only; clients send such requests to the broker they name. The words
/// differ by request: `what` kind of id, and what stands `then` behind the expected one.
pub(super) fn check_broker<A: Admin>(
    admin: &A,
    name: &str,
    what: &str,
    then: &str,
) -> Result<(), Refusal> {
    let own = admin.settings().node().0;
    let message = match name.parse::<i32>() {
        Ok(id) if id == own => return Ok(()),
        Ok(id) => format!("Unexpected broker id, expected {own}{then} but received {id}"),
        Err(_) if name.is_empty() && then.is_empty() => format!("{what} id must not be empty"),
        Err(_) => format!("{what} id must be an integer, but it is: {name}"),
    };
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

/// The entries that the client asked for: null or no keys are all of them, unknown ones are left out.
fn shown(
    version: i16,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
    configs: Vec<Described>,
) -> Vec<DescribeConfigsResourceResult> {
    let keys: BTreeSet<&str> =
        resource.configuration_keys.iter().flatten().map(|key| key.as_str()).collect();
    configs
        .into_iter()
        .filter(|entry| keys.is_empty() || keys.contains(entry.definition.name))
        .map(|entry| result(version, request, entry))
        .collect()
}

fn result(
    version: i16,
    request: &DescribeConfigsRequest,
    entry: Described,
) -> DescribeConfigsResourceResult {
    let definition = entry.definition;
    let is_secret = definition.kind == Type::Password;
    let open = |value: String| (!is_secret).then(|| StrBytes::from_string(value));
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(text(definition.name))
        .with_value(entry.value.and_then(open))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(is_secret)
        .with_documentation(None);
    if request.include_synonyms {
        let synonyms = entry.synonyms.into_iter().map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(text(synonym.name))
                .with_value(open(synonym.value))
                .with_source(synonym.source as i8)
        });
        result = result.with_synonyms(synonyms.collect());
    }
    if version >= 3 {
        result = result.with_config_type(definition.kind as i8);
        if request.include_documentation {
            result = result.with_documentation(Some(text(definition.documentation)));
        }
    }
    result
}
