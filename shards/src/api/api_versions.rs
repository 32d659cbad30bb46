//! ApiVersions (key 18), versions 0 to 4. KIP-35, KIP-511 (client software), KIP-584 (features).
//!
//! The only feature is the metadata version: what else Kafka 4.1 finalises would make Java clients
//! use protocols that are not served. Requests of an unknown version are answered by [`unsupported`].

use kafka_protocol::messages::api_versions_request::ApiVersionsRequest;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;
use net::{registry, ErrorCode};

use super::admin::Admin;
use crate::meta::FEATURE_LEVEL;

pub(super) const METADATA_VERSION: &str = "metadata.version";
/// Kafka 3.3-IV3, the oldest that Kafka 4 still knows. Not 0, so old Java clients can read it.
pub(super) const METADATA_VERSION_MIN: i16 = 7;

pub fn handle<A: Admin>(
    admin: &A,
    version: i16,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    let named = |text: &StrBytes| is_software_name(text);
    if version >= 3
        && !(named(&request.client_software_name) && named(&request.client_software_version))
    {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    let apis = registry::advertised().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.min)
            .with_max_version(api.max)
    });
    let response = ApiVersionsResponse::default().with_api_keys(apis.collect());
    if version < 3 {
        return response;
    }
    let image = admin.image();
    let supported = SupportedFeatureKey::default()
        .with_name(StrBytes::from_static_str(METADATA_VERSION))
        .with_min_version(METADATA_VERSION_MIN)
        .with_max_version(FEATURE_LEVEL);
    let finalized = FinalizedFeatureKey::default()
        .with_name(StrBytes::from_static_str(METADATA_VERSION))
        .with_min_version_level(image.feature_level())
        .with_max_version_level(image.feature_level());
    response
        .with_supported_features(vec![supported])
        .with_finalized_features_epoch(i64::try_from(image.version()).unwrap_or(i64::MAX))
        .with_finalized_features(vec![finalized])
}

/// The answer to an ApiVersions request of a version that is not known, to be encoded as version 0:
/// it tells the client which one to ask with (KIP-511).
pub fn unsupported() -> ApiVersionsResponse {
    let api = registry::api(ApiKey::ApiVersions).map_or((0, 0), |api| (api.min, api.max));
    let own = ApiVersion::default()
        .with_api_key(ApiKey::ApiVersions as i16)
        .with_min_version(api.0)
        .with_max_version(api.1);
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![own])
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_software_name(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}
