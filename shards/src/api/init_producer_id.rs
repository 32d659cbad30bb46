//! InitProducerId (key 22), versions 0 to 5. KIP-98, KIP-360.
//!
//! Ids come from blocks that `__meta` has reserved for this node, so they are never given twice.
//!
//! Departures: transactions are not served yet. A transactional id is refused with
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED, the one code that no client retries for ever.

use std::ops::Range;

use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducerId, ResponseKind,
};
use net::{Answer, ErrorCode, Request};

use crate::broker::Broker;
use crate::meta::{Command, Outcome};

/// What one shard may give out before it must reserve more. Empty at first.
pub type IdBlock = Range<i64>;

pub async fn handle(broker: Broker, _: Request, body: InitProducerIdRequest) -> Answer {
    let result = match body.transactional_id.as_ref().map(|id| id.0.as_str()) {
        Some("") => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None => next_id(&broker).await,
    };
    let response = InitProducerIdResponse::default();
    let response = match result {
        Ok(id) => response.with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => response
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    };
    Answer::Message(ResponseKind::InitProducerId(response))
}

async fn next_id(broker: &Broker) -> Result<i64, ErrorCode> {
    loop {
        if let Some(id) = broker.producer_ids().borrow_mut().next() {
            return Ok(id);
        }
        let node = broker.node_id();
        match broker.submit(Command::AllocateProducerIds { node }).await {
            Ok(Outcome::ProducerIds { first, count }) => {
                // Requests that arrived meanwhile may have reserved a block as well; the one
                // that is replaced here is lost, which costs numbers and nothing else.
                *broker.producer_ids().borrow_mut() = first..first + i64::from(count);
            }
            Ok(other) => {
                tracing::error!(?other, "a reservation of producer ids gave something else");
                return Err(ErrorCode::UnknownServerError);
            }
            Err(error) => {
                tracing::warn!("no producer ids: {error}");
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
        }
    }
}
