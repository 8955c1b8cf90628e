//! Protobuf's wire format, read from borrowed bytes with prost's rules of what is malformed.

use model::limits::PAYLOAD_DEPTH_MAX;

use super::DecodeError;
use crate::varint;

/// A boxed error, so that the results of the hot path stay in registers.
pub(super) type Failure = Box<DecodeError>;

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// One field's number and wire type, as they lie in the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u32);

impl Key {
    pub(super) const fn new(tag: u32, wire_type: u32) -> Self {
        Key(tag << 3 | wire_type)
    }

    #[inline]
    pub(super) const fn tag(self) -> u32 {
        self.0 >> 3
    }

    #[inline]
    const fn wire_type(self) -> u32 {
        self.0 & 7
    }
}

/// What of a message has not been read yet.
#[derive(Clone, Copy)]
pub(super) struct Wire<'a> {
    rest: &'a [u8],
    /// Where `rest` ends in the whole payload: errors name a byte of it.
    end: usize,
}

impl<'a> Wire<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Wire { rest: bytes, end: bytes.len() }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) const fn at(&self) -> usize {
        self.end - self.rest.len()
    }

    #[cold]
    pub(super) fn malformed(&self, what: &'static str) -> Failure {
        Box::new(DecodeError::Malformed { what, at: self.at() })
    }

    /// The next field's key; `None` at the end of the message.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Option<Key>, Failure> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| self.malformed("a field's key is too large"))?;
        let key = Key(key);
        if key.tag() == 0 || key.wire_type() > FIXED32 {
            return Err(self.malformed("no such field or wire type"));
        }
        Ok(Some(key))
    }

    #[inline]
    fn expect(&self, key: Key, wire_type: u32) -> Result<(), Failure> {
        if key.wire_type() == wire_type {
            Ok(())
        } else {
            Err(self.malformed("a field has another wire type"))
        }
    }

    /// A number whose key has been seen. Most have one byte.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Failure> {
        match self.rest {
            [first @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Failure> {
        let (value, bytes) = varint::get(self.rest).ok_or_else(|| self.malformed("a number has no end"))?;
        self.rest = &self.rest[bytes..];
        Ok(value)
    }

    /// Bytes of a fixed-width number whose key has been seen.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed("a number ends early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// `uint64`.
    #[inline]
    pub(super) fn number(&mut self, key: Key) -> Result<u64, Failure> {
        self.expect(key, VARINT)?;
        self.varint()
    }

    /// `uint32`: of a longer number the lower half, as protobuf has it.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "protobuf's rule")]
    pub(super) fn number32(&mut self, key: Key) -> Result<u32, Failure> {
        self.number(key).map(|value| value as u32)
    }

    /// `bool`.
    #[inline]
    pub(super) fn flag(&mut self, key: Key) -> Result<bool, Failure> {
        self.number(key).map(|value| value != 0)
    }

    /// `fixed64`, or the bits of a `double`.
    #[inline]
    pub(super) fn fixed64(&mut self, key: Key) -> Result<u64, Failure> {
        self.expect(key, FIXED64)?;
        self.array().map(u64::from_le_bytes)
    }

    /// `double`.
    #[inline]
    pub(super) fn double(&mut self, key: Key) -> Result<f64, Failure> {
        self.fixed64(key).map(f64::from_bits)
    }

    /// `float`.
    #[inline]
    pub(super) fn float(&mut self, key: Key) -> Result<f32, Failure> {
        self.expect(key, FIXED32)?;
        self.array().map(f32::from_le_bytes)
    }

    /// `bytes`.
    #[inline]
    pub(super) fn bytes(&mut self, key: Key) -> Result<&'a [u8], Failure> {
        self.message(key).map(|wire| wire.rest)
    }

    /// `string`.
    #[inline]
    pub(super) fn text(&mut self, key: Key) -> Result<&'a str, Failure> {
        let bytes = self.bytes(key)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a text is no UTF-8"))
    }

    /// A message within this one.
    #[inline]
    pub(super) fn message(&mut self, key: Key) -> Result<Wire<'a>, Failure> {
        self.expect(key, LENGTH)?;
        let length = self.varint()?;
        let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| self.malformed("a field is longer than its message"))?;
        self.rest = rest;
        Ok(Wire { rest: taken, end: self.end - rest.len() })
    }

    /// `repeated uint32`, packed or not: each number is handed on.
    #[expect(clippy::cast_possible_truncation, reason = "protobuf's rule")]
    pub(super) fn numbers32(
        &mut self,
        key: Key,
        mut take: impl FnMut(u32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if key.wire_type() != LENGTH {
            return take(self.number32(key)?);
        }
        let mut inner = self.message(key)?;
        while !inner.rest.is_empty() {
            take(inner.varint()? as u32)?;
        }
        Ok(())
    }

    /// Steps over a field that nobody knows; groups nest up to `PAYLOAD_DEPTH_MAX` in all.
    pub(super) fn skip(&mut self, key: Key, depth: usize) -> Result<(), Failure> {
        match key.wire_type() {
            VARINT => self.varint().map(|_| ()),
            FIXED64 => self.array::<8>().map(|_| ()),
            FIXED32 => self.array::<4>().map(|_| ()),
            LENGTH => self.message(key).map(|_| ()),
            START_GROUP => {
                let depth = deeper(depth)?;
                loop {
                    let inner = self.key()?.ok_or_else(|| self.malformed("a group has no end"))?;
                    if inner.wire_type() != END_GROUP {
                        self.skip(inner, depth)?;
                    } else if inner.tag() == key.tag() {
                        return Ok(());
                    } else {
                        return Err(self.malformed("a group ends that did not begin"));
                    }
                }
            }
            _ => Err(self.malformed("a group ends that did not begin")),
        }
    }
}

/// One level further in, if that is allowed.
pub(super) fn deeper(depth: usize) -> Result<usize, Failure> {
    if depth < PAYLOAD_DEPTH_MAX {
        Ok(depth + 1)
    } else {
        Err(Box::new(DecodeError::TooMany { what: "levels of nesting", limit: PAYLOAD_DEPTH_MAX }))
    }
}
