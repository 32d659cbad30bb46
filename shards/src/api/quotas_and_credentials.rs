//! DescribeClientQuotas (key 48), versions 0 and 1, KIP-546; DescribeUserScramCredentials (key 50),
//! version 0, KIP-554.
//!
//! Neither quotas nor users can be set here, so there are none; the APIs that alter them are not
//! advertised.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{
    DescribeClientQuotasResponse, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;
use net::ErrorCode;

pub fn describe_quotas() -> DescribeClientQuotasResponse {
    DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(Vec::new()))
}

/// Null and an empty list ask for all users.
pub fn describe_scram(
    request: &DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for user in request.users.iter().flatten() {
        *times.entry(&user.name).or_default() += 1;
    }
    let results = times.into_iter().map(|(name, count)| {
        let (code, message) = if count > 1 {
            (
                ErrorCode::DuplicateResource,
                format!("Cannot describe SCRAM credentials for the same user twice in a single request: {name}"),
            )
        } else {
            (
                ErrorCode::ResourceNotFound,
                format!("Attempt to describe a user credential that does not exist: {name}"),
            )
        };
        DescribeUserScramCredentialsResult::default()
            .with_user(StrBytes::from_string(name.to_owned()))
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(message)))
    });
    DescribeUserScramCredentialsResponse::default()
        .with_error_message(None)
        .with_results(results.collect())
}
