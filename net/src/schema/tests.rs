//! Bodies generated from the shapes, read by the codec; and bodies that lie.

use super::*;
use crate::registry;
use crate::schema::sample::{sample, Palette};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestKind;
use proptest::prelude::*;

fn body(api: &Api, version: i16, choices: &[u8]) -> Bytes {
    let palette = Palette { strings: &["", "x", "xy", "xyz"], blobs: &[b"", b"\x01\x02\x03"] };
    sample(api, version, choices, &palette).expect("a shape")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The codec reads what the shapes write, to the last byte, and the walk accepts it. Cut
    /// short anywhere, the walk refuses it.
    #[test]
    fn shapes_agree_with_the_codec(choices in proptest::collection::vec(any::<u8>(), 1..64)) {
        for api in registry::advertised() {
            for version in api.served_min..=api.max {
                let body = body(api, version, &choices);
                prop_assert!(check(api, version, &body).is_ok(), "{} {}", api.name(), version);
                let mut rest = body.clone();
                let decoded = RequestKind::decode(api.key, &mut rest, version);
                prop_assert!(decoded.is_ok(), "{} {version}: {:?}", api.name(), decoded.err());
                prop_assert!(rest.is_empty(), "{} {version}: {} left", api.name(), rest.len());
                for length in 0..body.len() {
                    prop_assert!(check(api, version, &body[..length]).is_err());
                }
            }
        }
    }

    /// Whatever the walk accepts, the codec decodes without reserving more than the frame's
    /// elements. Random bytes: the codec is only reached when the walk says so.
    #[test]
    fn garbage_reaches_the_codec_only_through_the_walk(
        garbage in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        for api in registry::advertised() {
            if check(api, api.max, &garbage).is_ok() {
                let mut bytes = Bytes::copy_from_slice(&garbage);
                let _ = RequestKind::decode(api.key, &mut bytes, api.max);
            }
        }
    }
}

fn api(key: ApiKey) -> &'static Api {
    registry::api(key).expect("a row")
}

#[test]
fn counts_beyond_the_bytes_left_are_refused() {
    let metadata = api(ApiKey::Metadata);
    assert_eq!(check(metadata, 1, &i32::MAX.to_be_bytes()), Err(Malformed));
    assert_eq!(check(metadata, 1, &2i32.to_be_bytes()), Err(Malformed));
    assert_eq!(check(metadata, 1, &(-2i32).to_be_bytes()), Err(Malformed));
    assert_eq!(check(metadata, 1, &(-1i32).to_be_bytes()), Ok(0));
    assert_eq!(check(metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Malformed));
    let fetch = api(ApiKey::Fetch);
    assert_eq!(check(fetch, 12, &[0xff; 64]), Err(Malformed));
}

#[test]
fn too_many_elements_are_refused_though_they_fit() {
    let groups = api(ApiKey::DeleteGroups);
    let request = |count: u32| {
        let mut body = BytesMut::new();
        body.put_u32(count);
        body.put_bytes(0, 2 * count as usize);
        body
    };
    assert_eq!(check(groups, 0, &request(ELEMENTS_MAX)), Ok(ELEMENTS_MAX));
    assert_eq!(check(groups, 0, &request(ELEMENTS_MAX + 1)), Err(Malformed));
}

/// A known tagged field whose size lies would send the codec elsewhere than the walk.
#[test]
fn known_tags_fill_their_size() {
    let fetch = api(ApiKey::Fetch);
    let mut body = BytesMut::new();
    body.put_bytes(0, 4 + 4 + 4 + 4 + 1 + 4 + 4);
    body.put_slice(&[1, 1, 1]);
    let with_tag = |size: u8| {
        let mut body = body.clone();
        body.put_slice(&[1, 0, size, 3, b'a', b'b', 0, 0, 0]);
        check(fetch, 12, &body)
    };
    assert!(with_tag(3).is_ok());
    assert_eq!(with_tag(2), Err(Malformed));
    assert_eq!(with_tag(4), Err(Malformed));
}

#[test]
fn every_served_api_has_a_shape() {
    for api in registry::APIS {
        assert_eq!(request(api.key).is_some(), api.served, "{}", api.name());
    }
}
