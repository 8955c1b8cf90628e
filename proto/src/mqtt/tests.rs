//! The codec against the standards' examples and rules, against itself, and against rumqttc's.

mod fuzz;
mod generator;
mod peer;
mod round_trip;
mod strict;
mod vectors;

use super::*;

const BYTES_MAX: usize = 1 << 20;

/// The one packet that `bytes` are.
fn read(bytes: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    let frame = frame(bytes, BYTES_MAX)?.unwrap_or_else(|| panic!("a part of a packet: {bytes:02x?}"));
    assert_eq!(frame.total, bytes.len(), "more than a packet");
    assert_eq!(needed(bytes), Some(bytes.len()));
    decode(frame, version)
}

/// A packet of these parts.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut length = body.len();
    while length > 127 {
        out.push(low(length) | 0x80);
        length >>= 7;
    }
    out.push(low(length));
    out.extend(body);
    out
}

/// The lowest byte.
fn low(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

/// A string or binary data.
fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

const BOTH: [Version; 2] = [Version::V311, Version::V5];
