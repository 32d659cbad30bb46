//! Bodies generated from the shapes, read by the codec; and bodies that lie.

use super::*;
use crate::registry;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::RequestKind;
use proptest::prelude::*;

/// Writes random bodies by the shapes.
struct Author<'a> {
    choices: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    version: i16,
    flexible: bool,
    out: BytesMut,
}

impl Author<'_> {
    fn choose(&mut self, below: u8) -> u8 {
        self.choices.next().map_or(0, |byte| byte % below)
    }

    fn length(&mut self, length: usize, wide: bool) {
        match (self.flexible, wide) {
            (true, _) => self.out.put_u8(length as u8 + 1),
            (false, true) => self.out.put_i32(length as i32),
            (false, false) => self.out.put_i16(length as i16),
        }
    }

    fn structure(&mut self, fields: &'static [Field]) {
        for field in fields.iter().filter(|field| field.tag.is_none()) {
            if field.is_in(self.version) {
                self.value(field.kind);
            }
        }
        if !self.flexible {
            return;
        }
        let version = self.version;
        let known: Vec<&Field> =
            fields.iter().filter(|f| f.tag.is_some() && f.is_in(version)).collect();
        self.out.put_u8(known.len() as u8 + 1);
        for field in known {
            let mut inner = Author {
                choices: self.choices.clone(),
                version,
                flexible: true,
                out: BytesMut::new(),
            };
            inner.value(field.kind);
            self.out.put_u8(field.tag.expect("a tag") as u8);
            self.out.put_u8(inner.out.len() as u8);
            self.out.put_slice(&inner.out);
        }
        self.out.put_slice(&[99, 3, 1, 2, 3]);
    }

    fn value(&mut self, kind: Kind) {
        let count = self.choose(4) as usize;
        match kind {
            Kind::Fixed(bytes) => {
                for _ in 0..bytes {
                    let byte = self.choose(255);
                    self.out.put_u8(byte);
                }
            }
            Kind::String => {
                self.length(count, false);
                self.out.put_slice(&b"xyz"[..count]);
            }
            Kind::Bytes => {
                self.length(count, true);
                self.out.put_slice(&[1, 2, 3][..count]);
            }
            Kind::FixedArray(element_bytes) => {
                self.length(count, true);
                self.out.put_bytes(7, count * element_bytes);
            }
            Kind::Strings => {
                self.length(count, true);
                for _ in 0..count {
                    self.value(Kind::String);
                }
            }
            Kind::Array(element) => {
                self.length(count, true);
                for _ in 0..count {
                    self.structure(element);
                }
            }
            Kind::Structure(fields) => self.structure(fields),
            Kind::Maybe(fields) => {
                self.out.put_i8(if count == 0 { -1 } else { 1 });
                if count > 0 {
                    self.structure(fields);
                }
            }
        }
    }
}

fn body(api: &Api, version: i16, choices: &[u8]) -> Bytes {
    let mut author = Author {
        choices: choices.iter().cycle(),
        version,
        flexible: api.is_flexible(version),
        out: BytesMut::new(),
    };
    author.structure(request(api.key).expect("a shape"));
    author.out.freeze()
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
