//! FindCoordinator (key 10), versions 0 to 6. KIP-699 (several keys from version 4).
//!
//! The first question about a group makes `__consumer_offsets` and waits for it.
//!
//! Departures: transactions are not served yet, so their coordinator is refused with
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED: librdkafka retries any other answer for ever. Share
//! groups are not served; Kafka without them answers INVALID_REQUEST as well.

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use net::{ConnectionContext, ErrorCode};

use super::create_topics;
use super::groups::{home, Groups, OFFSETS_TOPIC};
use super::names::{broker_id, text};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// From here on a request names several keys.
const BATCHED: i16 = 4;

type Refusal = (ErrorCode, &'static str);

const NOT_AVAILABLE: Refusal =
    (ErrorCode::CoordinatorNotAvailable, "The coordinator is not available.");

pub async fn handle<G: Groups>(
    groups: &G,
    context: &ConnectionContext,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys = match version < BATCHED {
        true => vec![request.key],
        false => request.coordinator_keys,
    };
    let allowed = check_type(request.key_type);
    let allowed = match allowed {
        Ok(()) => ensure_topic(groups).await,
        refused => refused,
    };
    let found = keys.into_iter().map(|key| match allowed {
        Ok(()) => coordinator(groups, context, key),
        Err(refusal) => refused(key, refusal),
    });
    let mut found: Vec<Coordinator> = found.collect();
    if version >= BATCHED {
        return FindCoordinatorResponse::default().with_coordinators(found);
    }
    let one = found.pop().expect("one key, one coordinator");
    // Before version 4 a success says "NONE"; version 0 has no message.
    let message = match one.error_code {
        0 => Some(text("NONE")),
        _ => one.error_message,
    };
    FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_error_message(message)
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port)
}

fn check_type(key_type: i8) -> Result<(), Refusal> {
    match key_type {
        GROUP => Ok(()),
        TRANSACTION => Err((
            ErrorCode::TransactionalIdAuthorizationFailed,
            "Transactions are not supported by this broker.",
        )),
        _ => Err((ErrorCode::InvalidRequest, "The coordinator type is not supported.")),
    }
}

async fn ensure_topic<G: Groups>(groups: &G) -> Result<(), Refusal> {
    if groups.image().topic(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    for made in create_topics::ensure(groups, &[OFFSETS_TOPIC]).await {
        if let Err((code, message)) = made {
            tracing::warn!(?code, ?message, "cannot create {OFFSETS_TOPIC}");
            return Err(NOT_AVAILABLE);
        }
    }
    Ok(())
}

fn coordinator<G: Groups>(groups: &G, context: &ConnectionContext, key: StrBytes) -> Coordinator {
    let leader = || {
        let (partition, _) = home(groups, key.as_str()).ok()?;
        let node = groups.leadership(partition).leader?;
        let host = groups.host(groups.image().broker(node)?, context)?;
        Some((node, host))
    };
    match leader() {
        Some((node, host)) => Coordinator::default()
            .with_key(key)
            .with_node_id(broker_id(node))
            .with_host(StrBytes::from_string(host.name))
            .with_port(host.port.into())
            .with_error_message(Some(StrBytes::default())),
        None => refused(key, NOT_AVAILABLE),
    }
}

fn refused(key: StrBytes, (code, message): Refusal) -> Coordinator {
    Coordinator::default()
        .with_key(key)
        .with_node_id(BrokerId(-1))
        .with_port(-1)
        .with_error_code(code.code())
        .with_error_message(Some(text(message)))
}
