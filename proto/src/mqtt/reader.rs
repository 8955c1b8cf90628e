//! Reads the data types of §1.5 from the front of a slice; every read checks first that the bytes are there.

use super::{DecodeError, topic};

/// What is left of a packet's body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: DecodeError = DecodeError::Malformed("ends within a field");

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Reader { rest }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error if bytes are left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes behind the last field")) }
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer in its shortest form (§1.5.5).
    #[inline]
    pub(super) fn variable(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::Malformed("a number has more bytes than it needs"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("a variable byte integer has more than 4 bytes"))
    }

    /// Binary data (§1.5.6).
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A string (§1.5.4).
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if bytes.iter().fold(false, |found, byte| found | (*byte == 0)) {
            return Err(DecodeError::Malformed("a null character in a string"));
        }
        text(bytes)
    }

    /// A topic name, which may be empty.
    #[inline]
    pub(super) fn topic_or_empty(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        let name = text(bytes)?;
        match topic::validate_name(name) {
            Ok(()) | Err(topic::Fault::Empty) => Ok(name),
            Err(topic::Fault::Nul) => Err(DecodeError::Malformed("a null character in a string")),
            Err(fault) => Err(DecodeError::TopicName(fault)),
        }
    }

    /// A packet identifier `[MQTT-2.2.1-3]`.
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::Protocol("packet identifier 0")),
            id => Ok(id),
        }
    }
}

#[inline]
fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("a string is not UTF-8"))
}

/// Bytes that a variable byte integer takes.
#[inline]
pub(super) const fn variable_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}
