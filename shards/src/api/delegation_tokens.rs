//! CreateDelegationToken (key 38), versions 1 to 3, Renew and Expire (39, 40), versions 1 and 2,
//! Describe (41), versions 1 to 3. KIP-48.
//!
//! Kafka does not allow them on a connection without authentication, and there is none here.

use kafka_protocol::messages::{
    CreateDelegationTokenResponse, DescribeDelegationTokenResponse, ExpireDelegationTokenResponse,
    RenewDelegationTokenResponse,
};
use net::ErrorCode;

const CODE: i16 = ErrorCode::DelegationTokenRequestNotAllowed.code();

pub fn create() -> CreateDelegationTokenResponse {
    CreateDelegationTokenResponse::default().with_error_code(CODE)
}

pub fn renew() -> RenewDelegationTokenResponse {
    RenewDelegationTokenResponse::default().with_error_code(CODE).with_expiry_timestamp_ms(-1)
}

pub fn expire() -> ExpireDelegationTokenResponse {
    ExpireDelegationTokenResponse::default().with_error_code(CODE)
}

pub fn describe() -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse::default().with_error_code(CODE)
}
