//! How the bytes of a tag make a value, and back. Pure.

use model::{DataType, Reason, Timestamp, Value};

use super::super::big_endian;
use super::cip::{Held, STRUCTURE};

pub(super) const BOOL: u16 = 0xc1;
pub(super) const SINT: u16 = 0xc2;
pub(super) const DINT: u16 = 0xc4;
const LINT: u16 = 0xc5;
const USINT: u16 = 0xc6;
/// A text of CIP: length (2), characters.
const STRING: u16 = 0xd0;
const BYTE: u16 = 0xd1;
/// 32 bits; an array of BOOL is made of them.
pub(super) const DWORD: u16 = 0xd3;
/// A text of CIP: length (1), characters.
const SHORT_STRING: u16 = 0xda;
/// The structure of Logix' own STRING: length (4), 82 characters, filled to 88.
pub(super) const LOGIX_STRING: u16 = 0x0fce;

/// What one value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One element.
    Whole,
    /// A bit of one element.
    Bit(u8),
    /// So many elements of one byte.
    Bytes(u16),
}

/// The point type of an elementary type; none if it is no number.
pub(super) const fn data_type(code: u16) -> Option<DataType> {
    Some(match code {
        BOOL => DataType::Boolean,
        SINT => DataType::Int8,
        0xc3 => DataType::Int16,
        DINT => DataType::Int32,
        LINT => DataType::Int64,
        USINT | BYTE => DataType::UInt8,
        0xc7 | 0xd2 => DataType::UInt16,
        0xc8 | DWORD => DataType::UInt32,
        0xc9 | 0xd4 => DataType::UInt64,
        0xca => DataType::Float,
        0xcb => DataType::Double,
        STRING | SHORT_STRING => DataType::String,
        _ => return None,
    })
}

/// The type's name in Studio 5000.
pub(super) const fn name(code: u16) -> &'static str {
    match code {
        BOOL => "BOOL",
        SINT => "SINT",
        0xc3 => "INT",
        DINT => "DINT",
        LINT => "LINT",
        USINT => "USINT",
        0xc7 => "UINT",
        0xc8 => "UDINT",
        0xc9 => "ULINT",
        0xca => "REAL",
        0xcb => "LREAL",
        BYTE => "BYTE",
        0xd2 => "WORD",
        DWORD => "DWORD or array of BOOL",
        0xd4 => "LWORD",
        STRING | SHORT_STRING => "STRING",
        STRUCTURE => "structure",
        _ => "type unknown here",
    }
}

/// Bytes of one element of an elementary type of fixed size.
pub(super) const fn size(code: u16) -> Option<usize> {
    match data_type(code) {
        Some(DataType::Boolean | DataType::Int8 | DataType::UInt8) => Some(1),
        Some(DataType::Int16 | DataType::UInt16) => Some(2),
        Some(DataType::Int32 | DataType::UInt32 | DataType::Float) => Some(4),
        Some(DataType::Int64 | DataType::UInt64 | DataType::Double) => Some(8),
        _ => None,
    }
}

/// The bytes of each of so many elements; none if there are more or fewer bytes.
pub(super) fn elements(held: Held, bytes: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    let text = |rest: &[u8]| match held.code {
        STRING => Some(2 + usize::from(u16::from_le_bytes(*rest.first_chunk()?))),
        _ => Some(1 + usize::from(*rest.first()?)),
    };
    if matches!(held.code, STRING | SHORT_STRING) {
        let (mut rest, mut found) = (bytes, Vec::new());
        for _ in 0..count {
            let (element, after) = rest.split_at_checked(text(rest)?)?;
            found.push(element);
            rest = after;
        }
        return rest.len().lt(&2).then_some(found); // some fill up to an even number
    }
    let each = bytes.len().checked_div(count).filter(|each| *each > 0 && each * count == bytes.len())?;
    if size(held.code).is_some_and(|size| size != each) {
        return None;
    }
    Some(bytes.chunks_exact(each).collect())
}

/// The value of a point of this type. `is_text` says which structures are texts: length and characters.
pub(super) fn decode(
    held: Held,
    elements: &[&[u8]],
    form: Form,
    wanted: DataType,
    is_text: impl Fn(u16) -> bool,
) -> Result<Value, Reason> {
    let first = elements.first().copied().ok_or(Reason::Undecodable)?;
    let number = || number(data_type(held.code)?, first);
    match (form, wanted) {
        (Form::Bit(bit), _) => {
            let bytes = size(held.code).filter(|_| is_integer(held.code)).ok_or(Reason::TypeMismatch)?;
            let byte = first.get(usize::from(bit / 8)).filter(|_| usize::from(bit) < bytes * 8);
            Ok(Value::Boolean(byte.ok_or(Reason::TypeMismatch)? >> (bit % 8) & 1 == 1))
        }
        (Form::Bytes(_), _) if !matches!(held.code, SINT | USINT | BYTE) => Err(Reason::TypeMismatch),
        (Form::Bytes(_), DataType::Bytes) => Ok(Value::Bytes(elements.concat())),
        (Form::Bytes(_), _) => {
            let bytes = elements.concat();
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            Ok(Value::String(characters(text)))
        }
        (Form::Whole, DataType::Boolean) if held.code == BOOL => {
            Ok(Value::Boolean(first.iter().any(|byte| *byte != 0)))
        }
        (Form::Whole, DataType::String) => match held.code {
            STRING => Ok(Value::String(characters(first.get(2..).unwrap_or_default()))),
            SHORT_STRING => Ok(Value::String(characters(first.get(1..).unwrap_or_default()))),
            STRUCTURE if is_text(held.handle) => {
                let (length, room) = first.split_first_chunk().ok_or(Reason::Undecodable)?;
                let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Reason::Undecodable)?;
                room.get(..length).map(|text| Value::String(characters(text))).ok_or(Reason::Undecodable)
            }
            _ => Err(Reason::TypeMismatch),
        },
        (Form::Whole, DataType::DateTime) if held.code == LINT => match number() {
            Some(Value::Int64(micros)) => Ok(Value::DateTime(Timestamp(micros))),
            _ => Err(Reason::Undecodable),
        },
        (Form::Whole, _) => {
            let held = data_type(held.code).filter(|held| *held == wanted && held.is_numeric());
            held.ok_or(Reason::TypeMismatch)?;
            number().ok_or(Reason::Undecodable)
        }
    }
}

const fn is_integer(code: u16) -> bool {
    matches!(code, 0xc2..=0xc9 | 0xd1..=0xd4)
}

/// Of Latin-1.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// A number whose least significant byte comes first.
fn number(data_type: DataType, bytes: &[u8]) -> Option<Value> {
    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
    big_endian::number(data_type, &reversed)
}

/// What a write puts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// A bit of a number of so many bytes.
    Bit { bytes: usize, bit: u8, on: bool },
    /// So many elements.
    Elements { count: u16, bytes: Vec<u8> },
}

/// What to write to a tag that holds this, one element of which has so many bytes.
pub(super) fn encode(
    held: Held,
    element: usize,
    form: Form,
    value: &Value,
    is_text: impl Fn(u16) -> bool,
) -> Result<Written, String> {
    let other = || {
        format!(
            "the tag is of type {}: {} cannot be written to it",
            name(held.code),
            value.data_type().name()
        )
    };
    let one = |bytes| Ok(Written::Elements { count: 1, bytes });
    match (form, value) {
        (Form::Bit(bit), Value::Boolean(on)) => {
            let bytes = size(held.code).filter(|_| is_integer(held.code)).ok_or_else(other)?;
            if usize::from(bit) >= bytes * 8 {
                return Err(format!("the tag has {} bits", bytes * 8));
            }
            Ok(Written::Bit { bytes, bit, on: *on })
        }
        (Form::Bytes(count), _) => {
            if !matches!(held.code, SINT | USINT | BYTE) {
                return Err(other());
            }
            let room = usize::from(count);
            let bytes = match value {
                Value::Bytes(bytes) if bytes.len() == room => bytes.clone(),
                Value::Bytes(_) => return Err(format!("must be exactly {room} bytes")),
                Value::String(text) => filled(text, room)?,
                _ => return Err(other()),
            };
            Ok(Written::Elements { count, bytes })
        }
        (Form::Whole, Value::Boolean(on)) if held.code == BOOL => one(vec![u8::from(*on)]),
        (Form::Whole, Value::String(text)) => {
            let length = text.chars().count();
            let too_long = || format!("there is no room for {length} characters");
            match held.code {
                STRING => {
                    let head = u16::try_from(length).map_err(|_| too_long())?.to_le_bytes();
                    // Filled up to an even number; the length says where it ends.
                    one([&head[..], &filled(text, length.next_multiple_of(2))?].concat())
                }
                SHORT_STRING => {
                    let head = u8::try_from(length).map_err(|_| too_long())?;
                    one([&[head][..], &filled(text, length)?].concat())
                }
                STRUCTURE if is_text(held.handle) => {
                    // 82 of Logix' own 84 bytes are characters.
                    let spare = if held.handle == LOGIX_STRING { 2 } else { 0 };
                    let room = element.checked_sub(4).ok_or_else(other)?;
                    if length + spare > room {
                        return Err(format!("there is room for {} characters", room.saturating_sub(spare)));
                    }
                    let head = u32::try_from(length).map_err(|_| too_long())?.to_le_bytes();
                    one([&head[..], &filled(text, room)?].concat())
                }
                _ => Err(other()),
            }
        }
        (Form::Whole, Value::DateTime(time)) if held.code == LINT => one(time.0.to_le_bytes().into()),
        (Form::Whole, _)
            if value.data_type().is_numeric() && data_type(held.code) == Some(value.data_type()) =>
        {
            let mut bytes = big_endian::bytes(value).ok_or_else(other)?;
            bytes.reverse();
            one(bytes)
        }
        _ => Err(other()),
    }
}

/// The text in Latin-1, with NULs behind it.
fn filled(text: &str, room: usize) -> Result<Vec<u8>, String> {
    let one = |c: char| u8::try_from(u32::from(c)).map_err(|_| format!("{c:?} is not in Latin-1"));
    let mut bytes: Vec<u8> = text.chars().map(one).collect::<Result<_, _>>()?;
    if bytes.len() > room {
        return Err(format!("there is room for {room} characters"));
    }
    bytes.resize(room, 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn held(code: u16) -> Held {
        Held { code, handle: if code == STRUCTURE { LOGIX_STRING } else { 0 } }
    }

    #[test]
    fn a_type_that_is_another_one_is_no_value() {
        let decode = |code, bytes: &[u8], form, wanted| decode(held(code), &[bytes], form, wanted, |_| true);
        assert_eq!(decode(0xc3, &[0xfe, 0xff], Form::Whole, DataType::Int16), Ok(Value::Int16(-2)));
        assert_eq!(decode(0xc3, &[1, 0], Form::Whole, DataType::UInt16), Err(Reason::TypeMismatch));
        assert_eq!(
            decode(DINT, &[0, 0, 0, 0x80], Form::Bit(31), DataType::Boolean),
            Ok(Value::Boolean(true))
        );
        assert_eq!(decode(0xc3, &[0, 0], Form::Bit(16), DataType::Boolean), Err(Reason::TypeMismatch));
        assert_eq!(decode(0xca, &[0; 4], Form::Bit(1), DataType::Boolean), Err(Reason::TypeMismatch));
        let text = [3, 0, 0, 0, b'a', 0xd6, b'c', 0];
        assert_eq!(decode(STRUCTURE, &text, Form::Whole, DataType::String), Ok(Value::String("aÖc".into())));
        assert_eq!(
            decode(STRUCTURE, &[9, 0, 0, 0, 1], Form::Whole, DataType::String),
            Err(Reason::Undecodable)
        );
        assert_eq!(decode(DINT, &[0; 4], Form::Whole, DataType::String), Err(Reason::TypeMismatch));
        assert_eq!(elements(held(0xc3), &[1, 2, 3, 4], 2), Some(vec![&[1, 2][..], &[3, 4]]));
        assert_eq!(elements(held(0xc3), &[1, 2, 3, 4], 1), None);
        assert_eq!(elements(held(STRING), &[1, 0, 7, 0, 0], 2), Some(vec![&[1, 0, 7][..], &[0, 0]]));
        assert_eq!(elements(held(STRING), &[9, 0, 7], 1), None);
    }

    /// Any bytes of any type: no panic; a value is of the type that was asked for, and what is written is read back.
    #[test]
    fn any_bytes_make_a_value_or_a_reason() {
        bolero::check!().with_type::<(Vec<u8>, u16, u16, u8)>().for_each(|(bytes, code, handle, count)| {
            let types =
                [DataType::Boolean, DataType::Int32, DataType::Double, DataType::String, DataType::Bytes];
            for held in [Held { code: *code, handle: *handle }, held(0xc1 + code % 0x20), held(STRUCTURE)] {
                let Some(elements) = elements(held, bytes, (*count).into()) else { continue };
                for form in [Form::Whole, Form::Bit(*count % 64), Form::Bytes((*count).into())] {
                    for wanted in types {
                        let Ok(value) = decode(held, &elements, form, wanted, |_| true) else { continue };
                        let fits =
                            value.data_type() == wanted || matches!(form, Form::Bit(_) | Form::Bytes(_));
                        assert!(fits, "{value:?}");
                        drop(encode(held, bytes.len(), form, &value, |_| true));
                    }
                }
            }
        });
    }
}
