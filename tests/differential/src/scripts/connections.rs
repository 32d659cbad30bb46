//! kafka.md section 1: frames and headers, well-formed and not.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::message;
use crate::pair::Pair;

pub fn script(pair: &mut Pair) {
    frames(pair);
    requests(pair);
    unknown_versions(pair);
}

fn frames(pair: &mut Pair) {
    pair.raw("frame of length 0", &[0, 0, 0, 0]);
    pair.raw("frame of length -1", &[0xff; 4]);
    pair.raw("frame over the limit", &(104_857_601i32).to_be_bytes());
    pair.raw("frame of one byte", &[0, 0, 0, 1, 0]);
    pair.raw("GET", b"GET /nowhere-at-all HTTP/1.1\r\n\r\n");
    pair.raw("TLS hello", &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
}

fn framed(header: &RequestHeader, header_version: i16, body: &[u8]) -> Vec<u8> {
    let mut request = BytesMut::new();
    header.encode(&mut request, header_version).expect("a header");
    request.extend_from_slice(body);
    let mut frame = (request.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&request);
    frame
}

fn header(key: i16, version: i16) -> RequestHeader {
    message!(RequestHeader {
        request_api_key: key,
        request_api_version: version,
        correlation_id: 7,
        client_id: Some(StrBytes::from_static_str("c")),
    })
}

fn requests(pair: &mut Pair) {
    let nothing = message!(MetadataRequest { topics: Some(Vec::<MetadataRequestTopic>::new()) });
    let mut body = BytesMut::new();
    nothing.encode(&mut body, 1).expect("a request");
    // Cut, with an impossible count, with a negative one.
    pair.raw("a body that is cut", &framed(&header(3, 1), 1, &body[..2]));
    pair.raw("a count of 2^31 - 1", &framed(&header(3, 1), 1, &i32::MAX.to_be_bytes()));
    pair.raw("a count of -2", &framed(&header(3, 1), 1, &(-2i32).to_be_bytes()));
    pair.raw("an unknown key", &framed(&header(999, 0), 1, &[]));
    pair.raw("a negative key", &framed(&header(-1, 0), 1, &[]));
    pair.raw("a key of brokers", &framed(&header(4, 7), 2, &[0; 8]));
    // SaslHandshake answers with bytes that are the same on both.
    let mut mechanism = BytesMut::new();
    mechanism.put_i16(1);
    mechanism.put_u8(b'X');
    let nobody = header(17, 1).with_client_id(None);
    pair.raw("no client id", &framed(&nobody, 1, &mechanism));
    mechanism.extend_from_slice(&[1, 2, 3]);
    pair.raw("bytes after the request", &framed(&header(17, 1), 1, &mechanism));
    // An unknown tagged field (number 77, two bytes) in header and body of RenewDelegationToken.
    let mut tagged = BytesMut::new();
    tagged.extend_from_slice(&[1]);
    tagged.put_i64(1);
    tagged.extend_from_slice(&[1, 77, 2, 9, 9]);
    let mut renew = BytesMut::new();
    header(39, 2).encode(&mut renew, 1).expect("a header");
    renew.extend_from_slice(&[1, 77, 2, 9, 9]);
    renew.extend_from_slice(&tagged);
    let mut frame = (renew.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&renew);
    pair.raw("unknown tagged fields", &frame);
}

/// One version below and one above what is advertised.
fn unknown_versions(pair: &mut Pair) {
    let [kafka, _] = pair.advertised();
    for api in kafka.api_keys {
        let Ok(key) = ApiKey::try_from(api.api_key) else { continue };
        if key == ApiKey::ApiVersions {
            continue;
        }
        for version in [api.min_version - 1, api.max_version + 1] {
            let frame = framed(&header(api.api_key, version), 1, &[0; 32]);
            pair.raw(&format!("{key:?} v{version}"), &frame);
        }
    }
}
