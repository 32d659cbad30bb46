//! Request headers in, response headers out (kafka.md section 1).
//!
//! A request header is version 1, or 2 when the API's version is flexible; its client id keeps a
//! 16-bit length in both. A response header is the correlation id, with an empty set of tagged
//! fields when flexible, except for ApiVersions. Pure functions over the bytes of one frame.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;

use crate::reader::{LengthWidth, Malformed, Reader};
use crate::registry::{self, Api};

/// What stands before the body of a request.
#[derive(Debug, Clone)]
pub struct RequestHeader {
    pub api: &'static Api,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// Why a frame has no usable header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The frame ends inside its header, or the client id is not UTF-8. Close.
    #[error("malformed request header")]
    Malformed,
    /// No such API, or one that is not served. Close.
    #[error("API key {0} is not served")]
    UnknownKey(i16),
    /// A served API, but not this version. Close.
    #[error("version {version} of {key:?} is not served")]
    UnknownVersion { key: ApiKey, version: i16 },
    /// ApiVersions in a version from the future: answered in version 0 (KIP-511).
    #[error("version {version} of ApiVersions is not known")]
    UnknownApiVersions { version: i16, correlation_id: i32 },
}

impl From<Malformed> for HeaderError {
    fn from(_: Malformed) -> HeaderError {
        HeaderError::Malformed
    }
}

/// Bytes at the start of a frame that [`peek`] needs.
pub const PEEK_BYTES: usize = 8;

/// Key, version and correlation id: present in every header version, so they can be judged before
/// the rest of the frame is read.
pub fn peek(frame_start: &[u8]) -> Result<(&'static Api, i16, i32), HeaderError> {
    let mut reader = Reader::new(frame_start);
    let (key, version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
    let api = registry::find(key).ok_or(HeaderError::UnknownKey(key))?;
    if !api.served {
        return Err(HeaderError::UnknownKey(key));
    }
    if api.serves(version) {
        return Ok((api, version, correlation_id));
    }
    Err(match api.key {
        ApiKey::ApiVersions => HeaderError::UnknownApiVersions { version, correlation_id },
        key => HeaderError::UnknownVersion { key, version },
    })
}

/// Takes the header off the front of a frame; the body is what is left of `frame`.
pub fn decode_request_header(frame: &mut Bytes) -> Result<RequestHeader, HeaderError> {
    let (api, version, correlation_id) = peek(frame)?;
    let mut reader = Reader::new(frame);
    reader.skip(PEEK_BYTES)?;
    let client_id = reader.nullable_bytes(LengthWidth::Two)?.map(|bytes| frame.slice_ref(bytes));
    let client_id =
        client_id.map(StrBytes::from_utf8).transpose().map_err(|_| HeaderError::Malformed)?;
    if api.is_flexible(version) {
        reader.skip_tagged_fields()?;
    }
    let body = reader.position();
    let header = RequestHeader { api, version, correlation_id, client_id };
    *frame = frame.split_off(body);
    Ok(header)
}

/// Appends a response header.
pub fn encode_response_header(out: &mut BytesMut, api: &Api, version: i16, correlation_id: i32) {
    out.put_i32(correlation_id);
    if api.response_header_version(version) == 1 {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::{decode_request_header_from_buffer, Decodable, Encodable};

    fn encoded(key: i16, version: i16, client_id: Option<&'static str>) -> Bytes {
        let theirs = kafka_protocol::messages::RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(client_id.map(StrBytes::from_static_str));
        let mut out = BytesMut::new();
        let header_version = ApiKey::try_from(key).expect("a key").request_header_version(version);
        theirs.encode(&mut out, header_version).expect("encodes");
        out.put_slice(b"body");
        out.freeze()
    }

    #[test]
    fn agrees_with_the_codec_for_every_served_version() {
        for api in registry::advertised() {
            for version in api.served_min..=api.max {
                for client_id in [None, Some(""), Some("kafka-cli")] {
                    let mut frame = encoded(api.key as i16, version, client_id);
                    let theirs =
                        decode_request_header_from_buffer(&mut frame.clone()).expect("decodes");
                    let header = decode_request_header(&mut frame).expect("decodes");
                    assert_eq!(header.api.key, api.key);
                    assert_eq!((header.version, header.correlation_id), (version, 77));
                    assert_eq!(header.client_id, theirs.client_id);
                    assert_eq!(&frame[..], b"body");
                }
            }
        }
    }

    #[test]
    fn unknown_things_are_told_apart() {
        let frame = |key: i16, version: i16| {
            let mut bytes = BytesMut::new();
            bytes.put_i16(key);
            bytes.put_i16(version);
            bytes.put_i32(5);
            bytes.put_i16(-1);
            bytes.freeze()
        };
        let error = |key, version| decode_request_header(&mut frame(key, version)).unwrap_err();
        assert_eq!(error(9999, 0), HeaderError::UnknownKey(9999));
        assert_eq!(error(-1, 0), HeaderError::UnknownKey(-1));
        assert_eq!(error(ApiKey::EndTxn as i16, 0), HeaderError::UnknownKey(26));
        let produce = HeaderError::UnknownVersion { key: ApiKey::Produce, version: 2 };
        assert_eq!(error(0, 2), produce);
        let future = HeaderError::UnknownApiVersions { version: 99, correlation_id: 5 };
        assert_eq!(error(18, 99), future);
        let negative = HeaderError::UnknownApiVersions { version: -1, correlation_id: 5 };
        assert_eq!(error(18, -1), negative);
    }

    #[test]
    fn headers_cut_anywhere_are_malformed() {
        let whole = encoded(3, 12, Some("client"));
        let header_length = whole.len() - b"body".len();
        for length in 0..header_length {
            let mut cut = whole.slice(..length);
            assert_eq!(decode_request_header(&mut cut).unwrap_err(), HeaderError::Malformed);
        }
    }

    #[test]
    fn response_headers_are_read_back_by_the_codec() {
        for api in registry::advertised() {
            for version in api.served_min..=api.max {
                let mut out = BytesMut::new();
                encode_response_header(&mut out, api, version, 9);
                let header_version = api.key.response_header_version(version);
                let mut out = out.freeze();
                let theirs =
                    kafka_protocol::messages::ResponseHeader::decode(&mut out, header_version)
                        .expect("decodes");
                assert_eq!(theirs.correlation_id, 9);
                assert!(out.is_empty());
            }
        }
    }
}
