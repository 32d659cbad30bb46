//! What ApiVersions needs from the wire's side: client names, the table, and the answer to a
//! version from the future (KIP-511). The rest of the answer (features) is the broker's.
//! Pure; on any shard.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};

use crate::error::ErrorCode;
use crate::registry;
use crate::service::Software;

/// Whether a client's name or version is well-formed:
/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`. An ill-formed one is answered with 42.
pub fn is_well_formed(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && bytes.iter().all(inner)
        }
        _ => false,
    }
}

/// What a well-formed request of version 3 and up says of the client. Copied out of the frame.
pub(crate) fn from_request(request: &ApiVersionsRequest, version: i16) -> Option<Software> {
    let (name, software) = (&request.client_software_name, &request.client_software_version);
    if version < 3 || !is_well_formed(name) || !is_well_formed(software) {
        return None;
    }
    Some(Software { name: name.to_string(), version: software.to_string() })
}

/// The keys of an ApiVersions answer: one row per API that is served.
pub fn api_versions() -> Vec<ApiVersion> {
    registry::advertised()
        .map(|api| {
            ApiVersion::default()
                .with_api_key(api.key as i16)
                .with_min_version(api.min)
                .with_max_version(api.max)
        })
        .collect()
}

/// The version 0 body for an ApiVersions of an unknown version: error 35, and ApiVersions' own
/// range, so that the client can ask again.
pub(crate) fn unknown_version_body() -> Bytes {
    let mut body = BytesMut::new();
    body.put_i16(ErrorCode::UnsupportedVersion.code());
    let own = registry::advertised().filter(|api| api.key == ApiKey::ApiVersions);
    body.put_i32(1);
    for api in own {
        body.put_i16(api.key as i16);
        body.put_i16(api.min);
        body.put_i16(api.max);
    }
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiVersionsResponse;
    use kafka_protocol::protocol::Decodable;

    #[test]
    fn names_follow_the_pattern() {
        for good in ["a", "apache-kafka-java", "4.1.1", "A9", "a..b"] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "a b", "ü", "a_b"] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn the_answer_to_the_future_is_read_as_version_0() {
        let mut body = unknown_version_body();
        let answer = ApiVersionsResponse::decode(&mut body, 0).expect("decodes");
        assert_eq!(answer.error_code, 35);
        let keys: Vec<_> =
            answer.api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
        assert_eq!(keys, vec![(18, 0, 4)]);
        assert!(body.is_empty());
    }

    #[test]
    fn what_is_advertised_is_served_but_for_old_produce() {
        for row in api_versions() {
            let api = registry::find(row.api_key).expect("a row");
            for version in row.min_version..=row.max_version {
                let old_produce = api.key == ApiKey::Produce && version < 3;
                assert_eq!(api.serves(version), !old_produce, "{} {version}", api.name());
            }
        }
    }
}
