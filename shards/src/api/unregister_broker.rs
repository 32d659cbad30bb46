//! UnregisterBroker (key 64), version 0. KIP-500.
//!
//! Departure: a broker that is alive or still holds replicas is not forgotten.

use kafka_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use kafka_protocol::messages::unregister_broker_response::UnregisterBrokerResponse;
use net::ErrorCode;

use super::admin::{Admin, SubmitError, SUBMIT_TIMEOUT};
use super::errors::Refusal;
use crate::meta::{Command, MetaError, NodeId};

pub async fn handle<A: Admin>(
    admin: &A,
    request: &UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let response = UnregisterBrokerResponse::default().with_error_message(None);
    match unregister(admin, NodeId(request.broker_id.0)).await {
        Ok(()) => response,
        Err(refusal) => {
            response.with_error_code(refusal.code.code()).with_error_message(refusal.text())
        }
    }
}

async fn unregister<A: Admin>(admin: &A, node: NodeId) -> Result<(), Refusal> {
    let unknown = || {
        let message = format!("Broker ID {node} is not currently registered");
        Refusal::new(ErrorCode::BrokerIdNotRegistered, message)
    };
    if admin.image().broker(node).is_none() {
        return Err(unknown());
    }
    if admin.is_alive(node) {
        let message = format!("Broker {node} is alive; stop it before it is forgotten.");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    match admin.submit(Command::UnregisterBroker { node }, SUBMIT_TIMEOUT).await {
        Ok(_) => Ok(()),
        Err(SubmitError::Refused(MetaError::UnknownBroker(_))) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}
