//! Protobuf fields appended to bytes: key, then value.

use crate::varint;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

#[inline]
fn key(tag: u32, wire_type: u32, out: &mut Vec<u8>) {
    varint::put(u64::from(tag << 3 | wire_type), out);
}

/// `uint32`, `uint64`.
#[inline]
pub(super) fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    key(tag, VARINT, out);
    varint::put(value, out);
}

/// `sint64`.
pub(super) fn signed(tag: u32, value: i64, out: &mut Vec<u8>) {
    number(tag, varint::zigzag(value), out);
}

/// `bool`.
pub(super) fn flag(tag: u32, value: bool, out: &mut Vec<u8>) {
    number(tag, u64::from(value), out);
}

/// `fixed64`.
pub(super) fn fixed64(tag: u32, value: u64, out: &mut Vec<u8>) {
    key(tag, FIXED64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// `double`.
pub(super) fn double(tag: u32, value: f64, out: &mut Vec<u8>) {
    fixed64(tag, value.to_bits(), out);
}

/// `float`.
pub(super) fn float(tag: u32, value: f32, out: &mut Vec<u8>) {
    key(tag, FIXED32, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// `bytes`.
pub(super) fn bytes(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    key(tag, LENGTH, out);
    varint::put(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// `string`.
pub(super) fn text(tag: u32, value: &str, out: &mut Vec<u8>) {
    bytes(tag, value.as_bytes(), out);
}

/// A message. Most have less than 128 bytes, so one byte is kept for the length; longer ones are moved up.
pub(super) fn nested(tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    key(tag, LENGTH, out);
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    match u8::try_from(length) {
        Ok(short @ ..128) => out[at] = short,
        _ => {
            let mut prefix = Vec::with_capacity(10);
            varint::put(length as u64, &mut prefix);
            out.splice(at..=at, prefix);
        }
    }
}

/// `repeated uint32`, packed, up to the last number that is not 0; nothing if all are 0.
pub(super) fn packed<T>(tag: u32, items: &[T], of: impl Fn(&T) -> u32, out: &mut Vec<u8>) {
    let Some(last) = items.iter().rposition(|item| of(item) != 0) else { return };
    nested(tag, out, |out| items[..=last].iter().for_each(|item| varint::put(u64::from(of(item)), out)));
}
