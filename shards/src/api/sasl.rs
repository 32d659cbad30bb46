//! SaslHandshake (key 17), versions 0 and 1, and SaslAuthenticate (key 36), versions 0 to 2, on a
//! listener without SASL. KIP-43, KIP-152.

use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

const CODE: i16 = ErrorCode::IllegalSaslState.code();

pub fn handshake() -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(CODE)
}

pub fn authenticate() -> SaslAuthenticateResponse {
    let message = "SaslAuthenticate request received after successful authentication";
    SaslAuthenticateResponse::default()
        .with_error_code(CODE)
        .with_error_message(Some(StrBytes::from_static_str(message)))
}
