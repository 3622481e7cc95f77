//! Little-endian encoding of records and rows.
//!
//! The writer cannot fail. The reader never panics and never trusts a length: what is missing, too long or left over is an
//! error that names the field. Strings and lists carry a `u32` length; what may be absent carries a byte 0 or 1.

use crate::digest::Digest;

/// Bytes that are not what a decoder expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {field}: {problem}")]
pub struct DecodeError {
    /// The field at which decoding stopped.
    pub field: &'static str,
    /// What is wrong there.
    pub problem: &'static str,
}

/// Appends fields to a buffer.
#[derive(Debug, Clone)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An empty buffer, with room for most rows and records.
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(128) }
    }

    /// What was encoded.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A number in as few bytes as it takes, seven bits in each, the lowest first; all but the last have bit 7 set (LEB128).
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    /// A byte 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(value.into())
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Bytes with their length.
    ///
    /// # Panics
    /// When they are 4 GiB or longer; every caller's input is bounded far below.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).raw(bytes)
    }

    /// A string with its length.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A digest in its binary form.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        digest.encode(&mut self.bytes);
        self
    }

    /// Something that may be absent.
    pub fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.bool(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
        self
    }

    /// A list: its length, then each item.
    pub fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.count(items.len());
        for item in items {
            put(self, item);
        }
        self
    }

    fn count(&mut self, count: usize) -> &mut Self {
        assert!(u32::try_from(count).is_ok(), "a field of 4 GiB or more");
        self.u32(count as u32)
    }
}

/// Takes fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder over all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// # Errors
    /// When bytes are left over.
    pub fn finish(self, field: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError { field, problem: "bytes are left over" }) }
    }

    /// `len` bytes as they are.
    ///
    /// # Errors
    /// When fewer are left; so with all that follow.
    pub fn raw(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError { field, problem: "too short" })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError { field, problem: "too short" })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A number that [`Encoder::varint`] has written; in more bytes than it takes, it is none.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && bits > 1) {
                return Err(DecodeError { field, problem: "too large" });
            }
            value |= bits << shift;
            match byte {
                0 if shift > 0 => return Err(DecodeError { field, problem: "longer than it has to be" }),
                0..0x80 => return Ok(value),
                _ => shift += 7,
            }
        }
    }

    /// Four bytes of a key, in which numbers are big-endian.
    pub fn key_u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Eight bytes of a key.
    pub fn key_u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A byte that must be 0 or 1.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError { field, problem: "neither 0 nor 1" }),
        }
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32(field)?;
        self.raw(len as usize, field)
    }

    /// A string with its length.
    pub fn str(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DecodeError { field, problem: "not UTF-8" })
    }

    /// A string with its length that must parse.
    pub fn parsed<T: std::str::FromStr>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        self.str(field)?.parse().map_err(|_| DecodeError { field, problem: "out of its grammar" })
    }

    /// A digest in its binary form.
    pub fn digest(&mut self, field: &'static str) -> Result<Digest, DecodeError> {
        let (digest, rest) = Digest::decode(self.rest).ok_or(DecodeError { field, problem: "not a digest" })?;
        self.rest = rest;
        Ok(digest)
    }

    /// Something that may be absent.
    pub fn option<T>(
        &mut self,
        field: &'static str,
        get: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool(field)? { get(self).map(Some) } else { Ok(None) }
    }

    /// A list. Memory grows with the items that are really there, not with the count that is claimed.
    pub fn list<T>(
        &mut self,
        field: &'static str,
        mut get: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32(field)?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(get(self)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_and_every_surplus_is_an_error() {
        let mut encoder = Encoder::new();
        let digest = Digest::of(crate::digest::Algorithm::Sha256, b"x");
        encoder.u8(1).u16(2).u32(3).u64(4).bool(true).str("né").digest(&digest);
        encoder
            .option(Some(5), |e, v| {
                e.u64(v);
            })
            .list(&[6, 7], |e, v| {
                e.u32(*v);
            });
        let bytes = encoder.finish();
        let decode = |bytes: &[u8]| -> Result<(), DecodeError> {
            let mut d = Decoder::new(bytes);
            assert_eq!((d.u8("a")?, d.u16("b")?, d.u32("c")?, d.u64("d")?, d.bool("e")?), (1, 2, 3, 4, true));
            assert_eq!((d.str("f")?, d.digest("g")?), ("né", digest));
            assert_eq!(d.option("h", |d| d.u64("h"))?, Some(5));
            assert_eq!(d.list("i", |d| d.u32("i"))?, [6, 7]);
            d.finish("end")
        };
        assert_eq!(decode(&bytes), Ok(()));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode(&longer), Err(DecodeError { field: "end", problem: "bytes are left over" }));
    }

    #[test]
    fn a_varint_has_one_form_as_short_as_it_can_be() {
        let known: [(u64, &[u8]); 6] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (1 << 63, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        let decode = |bytes: &[u8]| {
            let mut d = Decoder::new(bytes);
            d.varint("n").and_then(|number| d.finish("end").map(|()| number))
        };
        let shifted = (0..64).flat_map(|shift| [1 << shift, (1 << shift) - 1, u64::MAX >> shift]);
        for number in known.map(|(number, _)| number).into_iter().chain(shifted) {
            let bytes = Encoder::new().varint(number).clone().finish();
            assert_eq!(decode(&bytes), Ok(number));
            assert_eq!(bytes.len() as u32, (64 - number.leading_zeros()).div_ceil(7).max(1), "{number}");
            assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_err()));
        }
        for (number, bytes) in known {
            assert_eq!(decode(bytes), Ok(number));
        }
        let (wide, wider) = ([&[0xff; 9][..], &[2]].concat(), [&[0xff; 10][..], &[1]].concat());
        for none in [&[0x80, 0][..], &[0xff, 0x80, 0], &wide, &wider] {
            assert!(decode(none).is_err(), "{none:?}");
        }
    }

    #[test]
    fn a_claimed_count_reserves_nothing() {
        let mut encoder = Encoder::new();
        encoder.u32(u32::MAX);
        let bytes = encoder.finish();
        assert!(Decoder::new(&bytes).list("n", |d| d.u64("n")).is_err());
        assert!(Decoder::new(&bytes).bytes("n").is_err());
    }
}
