//! A cursor over a record's bytes: every read is checked, nothing is allocated by a length that is not there.

use model::{Epoch, Timestamp};

use super::RecordError;
use crate::varint;

/// What of a record has not been read yet.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// Nothing may be left over.
    pub(super) fn end(&self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Damaged("bytes after its end")) }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, RecordError> {
        let (value, bytes) = varint::get(self.rest).ok_or(RecordError::Damaged("a number has no end"))?;
        self.rest = &self.rest[bytes..];
        Ok(value)
    }

    pub(super) fn signed(&mut self) -> Result<i64, RecordError> {
        self.varint().map(varint::unzigzag)
    }

    pub(super) fn number32(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.varint()?).map_err(|_| RecordError::Damaged("a number of 32 bits has more"))
    }

    /// A count of things, not of bytes: the caller bounds it.
    pub(super) fn count(&mut self) -> Result<usize, RecordError> {
        usize::try_from(self.varint()?).map_err(|_| RecordError::Damaged("a count beyond memory"))
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn double(&mut self) -> Result<f64, RecordError> {
        self.array().map(f64::from_le_bytes)
    }

    pub(super) fn timestamp(&mut self) -> Result<Timestamp, RecordError> {
        self.signed().map(Timestamp)
    }

    pub(super) fn epoch(&mut self) -> Result<Epoch, RecordError> {
        let bits = self.fixed64()?;
        Epoch::from_random(bits).filter(|epoch| epoch.0 == bits).ok_or(RecordError::Damaged("no epoch"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let count = self.count()?;
        self.take(count)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| RecordError::Damaged("a text is no UTF-8"))
    }
}

const ENDS_EARLY: RecordError = RecordError::Damaged("it ends early");

/// Appends bytes with their length before them.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a signed number.
pub(super) fn put_signed(value: i64, out: &mut Vec<u8>) {
    varint::put(varint::zigzag(value), out);
}
