//! DescribeCluster (key 60), versions 0 to 2. KIP-700, KIP-919 (endpoint types), KIP-1073 (fenced).

use kafka_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use kafka_protocol::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};
use kafka_protocol::protocol::StrBytes;
use net::{ConnectionContext, ErrorCode};

use super::admin::Admin;
use super::metadata::{controller, CLUSTER_OPERATIONS, NO_OPERATIONS};
use super::names::{broker_id, text};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub fn handle<A: Admin>(
    admin: &A,
    context: &ConnectionContext,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    if version >= 1 && request.endpoint_type != BROKERS {
        return wrong_endpoint(request.endpoint_type);
    }
    let image = admin.image();
    let wants_fenced = version >= 2 && request.include_fenced_brokers;
    let brokers = image.brokers().filter_map(|broker| {
        let is_fenced = !admin.is_alive(broker.id);
        if is_fenced && !wants_fenced {
            return None;
        }
        let host = admin.host(broker, context)?;
        let answer = DescribeClusterBroker::default()
            .with_broker_id(broker_id(broker.id))
            .with_host(StrBytes::from_string(host.name))
            .with_port(host.port.into())
            .with_rack(broker.rack.as_deref().map(text))
            .with_is_fenced(is_fenced);
        Some(answer)
    });
    let operations = match request.include_cluster_authorized_operations {
        true => CLUSTER_OPERATIONS,
        false => NO_OPERATIONS,
    };
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_endpoint_type(BROKERS)
        .with_cluster_id(text(&image.cluster_id()))
        .with_controller_id(controller(admin))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations)
}

fn wrong_endpoint(asked: i8) -> DescribeClusterResponse {
    let (code, message) = match asked {
        CONTROLLERS => (
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type \
             CONTROLLER"
                .to_owned(),
        ),
        other => (ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")),
    };
    DescribeClusterResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(message)))
        .with_endpoint_type(BROKERS)
}
