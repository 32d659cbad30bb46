//! Well-formed bodies of every request and version, made from the shapes.
//!
//! For tests: what is whole can be cut, grown and changed by whoever wants to see it refused. The
//! broker itself writes no requests. Pure; the same choices give the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{request, Field, Kind};
use crate::registry::Api;

/// What strings and byte fields are taken from; neither may be empty.
#[derive(Debug, Clone, Copy)]
pub struct Palette<'a> {
    pub strings: &'a [&'a str],
    pub blobs: &'a [&'a [u8]],
}

/// A body of that version; nothing for an API that is not served. `choices` decides counts and
/// values, over and over again.
pub fn sample(api: &Api, version: i16, choices: &[u8], palette: &Palette<'_>) -> Option<Bytes> {
    let flexible = api.is_flexible(version);
    let out = BytesMut::new();
    let mut author = Author { choices, taken: 0, palette, version, flexible, out };
    author.structure(request(api.key)?);
    Some(author.out.freeze())
}

/// Elements of an array at most.
const ELEMENTS_MAX: usize = 3;

struct Author<'a> {
    choices: &'a [u8],
    taken: usize,
    palette: &'a Palette<'a>,
    version: i16,
    flexible: bool,
    out: BytesMut,
}

impl Author<'_> {
    fn choose(&mut self, below: usize) -> usize {
        let choice = self.choices.get(self.taken % self.choices.len().max(1));
        self.taken += 1;
        usize::from(choice.copied().unwrap_or(0)) % below
    }

    fn structure(&mut self, fields: &'static [Field]) {
        for field in fields.iter().filter(|field| field.tag.is_none()) {
            if field.is_in(self.version) {
                self.value(field.kind);
            }
        }
        if self.flexible {
            self.tagged_section(fields);
        }
    }

    /// Every tagged field that is known, and one that nobody knows.
    fn tagged_section(&mut self, fields: &'static [Field]) {
        let known = fields.iter().filter(|field| field.is_in(self.version));
        let known: Vec<_> = known.filter_map(|field| Some((field.tag?, field.kind))).collect();
        self.varint(known.len() + 1);
        for (tag, kind) in known {
            let before = std::mem::take(&mut self.out);
            self.value(kind);
            let inner = std::mem::replace(&mut self.out, before);
            self.varint(tag as usize);
            self.varint(inner.len());
            self.out.put_slice(&inner);
        }
        self.out.put_slice(&[99, 3, 1, 2, 3]);
    }

    fn value(&mut self, kind: Kind) {
        match kind {
            Kind::Fixed(bytes) => self.fixed(bytes),
            Kind::String => {
                let strings = self.palette.strings;
                let string = strings[self.choose(strings.len())];
                self.length(string.len(), false);
                self.out.put_slice(string.as_bytes());
            }
            Kind::Bytes => {
                let blobs = self.palette.blobs;
                let blob = blobs[self.choose(blobs.len())];
                self.length(blob.len(), true);
                self.out.put_slice(blob);
            }
            Kind::FixedArray(element_bytes) => {
                for _ in 0..self.count() {
                    self.fixed(element_bytes);
                }
            }
            Kind::Strings => {
                for _ in 0..self.count() {
                    self.value(Kind::String);
                }
            }
            Kind::Array(element) => {
                for _ in 0..self.count() {
                    self.structure(element);
                }
            }
            Kind::Structure(fields) => self.structure(fields),
            Kind::Maybe(fields) => {
                let is_there = self.choose(2) == 1;
                self.out.put_i8(if is_there { 1 } else { -1 });
                if is_there {
                    self.structure(fields);
                }
            }
        }
    }

    /// A number: none, minus one, small, or any.
    fn fixed(&mut self, bytes: usize) {
        match self.choose(4) {
            0 => self.out.put_bytes(0, bytes),
            1 => self.out.put_bytes(0xff, bytes),
            2 => {
                self.out.put_bytes(0, bytes - 1);
                let small = self.choose(8);
                self.out.put_u8(small as u8);
            }
            _ => {
                for _ in 0..bytes {
                    let byte = self.choose(256);
                    self.out.put_u8(byte as u8);
                }
            }
        }
    }

    fn count(&mut self) -> usize {
        let count = self.choose(ELEMENTS_MAX + 1);
        self.length(count, true);
        count
    }

    fn length(&mut self, length: usize, wide: bool) {
        match (self.flexible, wide) {
            (true, _) => self.varint(length + 1),
            (false, true) => self.out.put_i32(length as i32),
            (false, false) => self.out.put_i16(length as i16),
        }
    }

    fn varint(&mut self, value: usize) {
        let mut rest = value;
        while rest >= 0x80 {
            self.out.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.put_u8(rest as u8);
    }
}
