//! The shape of every served request, and the walk that checks counts before anything is decoded.
//!
//! The codec reserves memory for as many elements as an array's count says, so a frame of fifty
//! bytes could ask for gigabytes. Before a body reaches the codec, [`check`] walks it by the
//! shapes below: every length and count must fit the bytes that are left, and the elements of
//! all arrays together stay under [`ELEMENTS_MAX`]. Allocates nothing, does not recurse deeper
//! than the shapes are nested, and costs one pass over the body without its payloads.
//! A test generates bodies from the shapes and has the codec read them, for every version.

pub mod sample;

use kafka_protocol::messages::ApiKey;

use crate::reader::{LengthWidth, Malformed, Reader};
use crate::registry::Api;

/// Elements of all arrays and tagged fields in one request. Decoded elements take about a hundred
/// bytes, so this bounds what a request can grow to: far above what clients send (a Fetch of
/// 200,000 partitions), far below what hurts.
pub const ELEMENTS_MAX: u32 = 1 << 19;

/// Longest string, also where its length field could say more: as in Kafka. Names are repeated in
/// messages, so they must not be as long as a frame.
const STRING_MAX_BYTES: usize = i16::MAX as usize;

/// One field of a message, in wire order.
#[derive(Debug, Clone, Copy)]
struct Field {
    kind: Kind,
    from: i16,
    until: i16,
    /// The number of a tagged field; it then stands in the tagged section, not in order.
    tag: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// Possibly null.
    String,
    /// Possibly null.
    Bytes,
    /// Possibly null, of elements of so many bytes.
    FixedArray(usize),
    /// Possibly null.
    Strings,
    /// Possibly null, of structures.
    Array(&'static [Field]),
    Structure(&'static [Field]),
    /// A structure behind a byte that says whether it is there.
    Maybe(&'static [Field]),
}

const fn field(kind: Kind) -> Field {
    Field { kind, from: 0, until: i16::MAX, tag: None }
}

const fn fixed(bytes: usize) -> Field {
    field(Kind::Fixed(bytes))
}

const fn string() -> Field {
    field(Kind::String)
}

const fn bytes() -> Field {
    field(Kind::Bytes)
}

const fn fixed_array(element_bytes: usize) -> Field {
    field(Kind::FixedArray(element_bytes))
}

const fn strings() -> Field {
    field(Kind::Strings)
}

const fn array(element: &'static [Field]) -> Field {
    field(Kind::Array(element))
}

const fn structure(fields: &'static [Field]) -> Field {
    field(Kind::Structure(fields))
}

const fn maybe(fields: &'static [Field]) -> Field {
    field(Kind::Maybe(fields))
}

impl Field {
    /// First version that has the field.
    const fn from(self, from: i16) -> Field {
        Field { from, ..self }
    }

    /// Last version that has the field.
    const fn until(self, until: i16) -> Field {
        Field { until, ..self }
    }

    const fn tagged(self, tag: u32) -> Field {
        Field { tag: Some(tag), ..self }
    }

    fn is_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.until
    }
}

/// The fields of every served request, by key.
#[rustfmt::skip]
static REQUESTS: &[(ApiKey, &[Field])] = &[
    (ApiKey::Produce, &[string(), fixed(2), fixed(4), array(&[string().until(12),
        fixed(16).from(13), array(&[fixed(4), bytes()])])]),
    (ApiKey::Fetch, &[fixed(4).until(14), fixed(4), fixed(4), fixed(4), fixed(1),
        fixed(4).from(7), fixed(4).from(7), array(&[string().until(12), fixed(16).from(13),
        array(&[fixed(4), fixed(4).from(9), fixed(8), fixed(4).from(12), fixed(8).from(5),
        fixed(4), fixed(16).from(17).tagged(0), fixed(8).from(18).tagged(1)])]),
        array(&[string().until(12), fixed(16).from(13), fixed_array(4)]).from(7),
        string().from(11), string().from(12).tagged(0), structure(&[fixed(4),
        fixed(8)]).from(15).tagged(1)]),
    (ApiKey::ListOffsets, &[fixed(4), fixed(1).from(2), array(&[string(), array(&[fixed(4),
        fixed(4).from(4), fixed(8)])]), fixed(4).from(10)]),
    (ApiKey::Metadata, &[array(&[fixed(16).from(10), string()]), fixed(1).from(4),
        fixed(1).from(8).until(10), fixed(1).from(8)]),
    (ApiKey::OffsetCommit, &[string(), fixed(4), string(), string().from(7), fixed(8).until(4),
        array(&[string(), array(&[fixed(4), fixed(8), fixed(4).from(6), string()])])]),
    (ApiKey::OffsetFetch, &[string().until(7), array(&[string().until(7),
        fixed_array(4).until(7)]).until(7), array(&[string().from(8), string().from(9),
        fixed(4).from(9), array(&[string().from(8), fixed_array(4).from(8)]).from(8)]).from(8),
        fixed(1).from(7)]),
    (ApiKey::FindCoordinator, &[string().until(3), fixed(1).from(1), strings().from(4)]),
    (ApiKey::JoinGroup, &[string(), fixed(4), fixed(4).from(1), string(), string().from(5),
        string(), array(&[string(), bytes()]), string().from(8)]),
    (ApiKey::Heartbeat, &[string(), fixed(4), string(), string().from(3)]),
    (ApiKey::LeaveGroup, &[string(), string().until(2), array(&[string().from(3),
        string().from(3), string().from(5)]).from(3)]),
    (ApiKey::SyncGroup, &[string(), fixed(4), string(), string().from(3), string().from(5),
        string().from(5), array(&[string(), bytes()])]),
    (ApiKey::DescribeGroups, &[strings(), fixed(1).from(3)]),
    (ApiKey::ListGroups, &[strings().from(4), strings().from(5)]),
    (ApiKey::SaslHandshake, &[string()]),
    (ApiKey::ApiVersions, &[string().from(3), string().from(3)]),
    (ApiKey::CreateTopics, &[array(&[string(), fixed(4), fixed(2), array(&[fixed(4),
        fixed_array(4)]), array(&[string(), string()])]), fixed(4), fixed(1)]),
    (ApiKey::DeleteTopics, &[array(&[string().from(6), fixed(16).from(6)]).from(6),
        strings().until(5), fixed(4)]),
    (ApiKey::DeleteRecords, &[array(&[string(), array(&[fixed(4), fixed(8)])]), fixed(4)]),
    (ApiKey::InitProducerId, &[string(), fixed(4), fixed(8).from(3), fixed(2).from(3)]),
    (ApiKey::OffsetForLeaderEpoch, &[fixed(4).from(3), array(&[string(), array(&[fixed(4),
        fixed(4), fixed(4)])])]),
    (ApiKey::DescribeAcls, &[fixed(1), string(), fixed(1), string(), string(), fixed(1), fixed(1)]),
    (ApiKey::CreateAcls, &[array(&[fixed(1), string(), fixed(1), string(), string(), fixed(1),
        fixed(1)])]),
    (ApiKey::DeleteAcls, &[array(&[fixed(1), string(), fixed(1), string(), string(), fixed(1),
        fixed(1)])]),
    (ApiKey::DescribeConfigs, &[array(&[fixed(1), string(), strings()]), fixed(1),
        fixed(1).from(3)]),
    (ApiKey::AlterConfigs, &[array(&[fixed(1), string(), array(&[string(), string()])]), fixed(1)]),
    (ApiKey::DescribeLogDirs, &[array(&[string(), fixed_array(4)])]),
    (ApiKey::SaslAuthenticate, &[bytes()]),
    (ApiKey::CreatePartitions, &[array(&[string(), fixed(4), array(&[fixed_array(4)])]), fixed(4),
        fixed(1)]),
    (ApiKey::CreateDelegationToken, &[string().from(3), string().from(3), array(&[string(),
        string()]), fixed(8)]),
    (ApiKey::RenewDelegationToken, &[bytes(), fixed(8)]),
    (ApiKey::ExpireDelegationToken, &[bytes(), fixed(8)]),
    (ApiKey::DescribeDelegationToken, &[array(&[string(), string()])]),
    (ApiKey::DeleteGroups, &[strings()]),
    (ApiKey::ElectLeaders, &[fixed(1).from(1), array(&[string(), fixed_array(4)]), fixed(4)]),
    (ApiKey::IncrementalAlterConfigs, &[array(&[fixed(1), string(), array(&[string(), fixed(1),
        string()])]), fixed(1)]),
    (ApiKey::AlterPartitionReassignments, &[fixed(4), fixed(1).from(1), array(&[string(),
        array(&[fixed(4), fixed_array(4)])])]),
    (ApiKey::ListPartitionReassignments, &[fixed(4), array(&[string(), fixed_array(4)])]),
    (ApiKey::OffsetDelete, &[string(), array(&[string(), array(&[fixed(4)])])]),
    (ApiKey::DescribeClientQuotas, &[array(&[string(), fixed(1), string()]), fixed(1)]),
    (ApiKey::DescribeUserScramCredentials, &[array(&[string()])]),
    (ApiKey::DescribeQuorum, &[array(&[string(), array(&[fixed(4)])])]),
    (ApiKey::UpdateFeatures, &[fixed(4), array(&[string(), fixed(2), fixed(1).until(0),
        fixed(1).from(1)]), fixed(1).from(1)]),
    (ApiKey::DescribeCluster, &[fixed(1), fixed(1).from(1), fixed(1).from(2)]),
    (ApiKey::DescribeProducers, &[array(&[string(), fixed_array(4)])]),
    (ApiKey::UnregisterBroker, &[fixed(4)]),
    (ApiKey::DescribeTransactions, &[strings()]),
    (ApiKey::ListTransactions, &[strings(), fixed_array(8), fixed(8).from(1), string().from(2)]),
    (ApiKey::ListConfigResources, &[fixed_array(1).from(1)]),
    (ApiKey::DescribeTopicPartitions, &[array(&[string()]), fixed(4), maybe(&[string(),
        fixed(4)])]),
];

/// The fields of a request; nothing for an API that is not served.
fn request(key: ApiKey) -> Option<&'static [Field]> {
    let at = REQUESTS.binary_search_by_key(&(key as i16), |(key, _)| *key as i16).ok()?;
    Some(REQUESTS[at].1)
}

/// The number of elements of all arrays in the body. Fails when it cannot be decoded within its
/// own length. Bytes after the body are allowed.
pub fn check(api: &Api, version: i16, body: &[u8]) -> Result<u32, Malformed> {
    let fields = request(api.key).ok_or(Malformed)?;
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        flexible: api.is_flexible(version),
        elements_left: ELEMENTS_MAX,
    };
    walk.structure(fields)?;
    Ok(ELEMENTS_MAX - walk.elements_left)
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    elements_left: u32,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.value(field.kind)?;
            }
        }
        match self.flexible {
            true => self.tagged_section(fields),
            false => Ok(()),
        }
    }

    /// A known tagged field must fill exactly the size it names: the codec does not look at the
    /// size, and would go on at another place than this walk.
    fn tagged_section(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        let count = self.reader.unsigned_varint()?;
        self.count(count as usize, 2)?;
        for _ in 0..count {
            let tag = self.reader.unsigned_varint()?;
            let size = self.reader.unsigned_varint()? as usize;
            match fields.iter().find(|field| field.tag == Some(tag)) {
                None => self.reader.skip(size)?,
                Some(field) if field.is_in(self.version) => {
                    let start = self.reader.position();
                    self.value(field.kind)?;
                    if self.reader.position() - start != size {
                        return Err(Malformed);
                    }
                }
                Some(_) => return Err(Malformed),
            }
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.reader.skip(bytes),
            Kind::String => match self.reader.nullable_bytes(self.string_width())? {
                Some(text) if text.len() > STRING_MAX_BYTES => Err(Malformed),
                _ => Ok(()),
            },
            Kind::Bytes => self.reader.nullable_bytes(self.array_width()).map(|_| ()),
            Kind::FixedArray(element_bytes) => {
                let count = self.array_count(element_bytes)?;
                // Cannot overflow: `array_count` has compared the product with the bytes left.
                self.reader.skip(count * element_bytes)
            }
            Kind::Strings => {
                for _ in 0..self.array_count(1)? {
                    self.value(Kind::String)?;
                }
                Ok(())
            }
            Kind::Array(element) => {
                for _ in 0..self.array_count(1)? {
                    self.structure(element)?;
                }
                Ok(())
            }
            Kind::Structure(fields) => self.structure(fields),
            Kind::Maybe(fields) => match self.reader.i8()? {
                1 => self.structure(fields),
                _ => Ok(()),
            },
        }
    }

    /// An array's count, once it is known to fit: an element takes at least `element_bytes`.
    fn array_count(&mut self, element_bytes: usize) -> Result<usize, Malformed> {
        let count = self.reader.length(self.array_width())?.unwrap_or(0);
        self.count(count, element_bytes)?;
        Ok(count)
    }

    fn count(&mut self, count: usize, element_bytes: usize) -> Result<(), Malformed> {
        if count > self.reader.remaining() / element_bytes {
            return Err(Malformed);
        }
        let count = u32::try_from(count).map_err(|_| Malformed)?;
        self.elements_left = self.elements_left.checked_sub(count).ok_or(Malformed)?;
        Ok(())
    }

    fn string_width(&self) -> LengthWidth {
        match self.flexible {
            true => LengthWidth::Compact,
            false => LengthWidth::Two,
        }
    }

    fn array_width(&self) -> LengthWidth {
        match self.flexible {
            true => LengthWidth::Compact,
            false => LengthWidth::Four,
        }
    }
}

#[cfg(test)]
mod tests;
