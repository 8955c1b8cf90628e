//! Numbers whose most significant byte comes first, as PLCs keep them, and packed decimal digits.

use model::{DataType, Value};

/// The number of this type at the beginning of `bytes`; `None` if there are too few, or the type is no number.
pub(super) fn number(data_type: DataType, bytes: &[u8]) -> Option<Value> {
    Some(match data_type {
        DataType::UInt8 => Value::UInt8(*bytes.first()?),
        DataType::Int8 => Value::Int8(bytes.first()?.cast_signed()),
        DataType::UInt16 => Value::UInt16(u16::from_be_bytes(*bytes.first_chunk()?)),
        DataType::Int16 => Value::Int16(i16::from_be_bytes(*bytes.first_chunk()?)),
        DataType::UInt32 => Value::UInt32(u32::from_be_bytes(*bytes.first_chunk()?)),
        DataType::Int32 => Value::Int32(i32::from_be_bytes(*bytes.first_chunk()?)),
        DataType::Float => Value::Float(f32::from_be_bytes(*bytes.first_chunk()?)),
        DataType::UInt64 => Value::UInt64(u64::from_be_bytes(*bytes.first_chunk()?)),
        DataType::Int64 => Value::Int64(i64::from_be_bytes(*bytes.first_chunk()?)),
        DataType::Double => Value::Double(f64::from_be_bytes(*bytes.first_chunk()?)),
        DataType::Boolean | DataType::String | DataType::DateTime | DataType::Bytes => return None,
    })
}

/// The bytes of a number; `None` if it is none.
pub(super) fn bytes(value: &Value) -> Option<Vec<u8>> {
    Some(match value {
        Value::UInt8(v) => vec![*v],
        Value::Int8(v) => vec![v.cast_unsigned()],
        Value::UInt16(v) => v.to_be_bytes().into(),
        Value::Int16(v) => v.to_be_bytes().into(),
        Value::UInt32(v) => v.to_be_bytes().into(),
        Value::Int32(v) => v.to_be_bytes().into(),
        Value::Float(v) => v.to_be_bytes().into(),
        Value::UInt64(v) => v.to_be_bytes().into(),
        Value::Int64(v) => v.to_be_bytes().into(),
        Value::Double(v) => v.to_be_bytes().into(),
        Value::Boolean(_) | Value::String(_) | Value::DateTime(_) | Value::Bytes(_) => return None,
    })
}

/// Two decimal digits in one byte; `None` if a half of it is no digit.
pub(super) fn from_bcd(byte: u8) -> Option<u8> {
    (byte >> 4 < 10 && byte & 15 < 10).then_some((byte >> 4) * 10 + (byte & 15))
}
