//! What a point can hold: the data types of Sparkplug B that plants use, and their values.

use std::cmp::Ordering;

use crate::Timestamp;

/// Type of a point's value. Numbers are Sparkplug 3.0 data type codes (§6.4.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's own")]
pub enum DataType {
    Int8 = 1,
    Int16 = 2,
    Int32 = 3,
    Int64 = 4,
    UInt8 = 5,
    UInt16 = 6,
    UInt32 = 7,
    UInt64 = 8,
    Float = 9,
    Double = 10,
    Boolean = 11,
    String = 12,
    DateTime = 13,
    /// Sparkplug `Text` (14) arrives as [`DataType::String`]; `DataSet` (16) and `Template` (19) do not exist
    /// here; `Bytes` is 17 and `File` (18) arrives as it.
    Bytes = 17,
}

impl DataType {
    /// Every type, in the order of the standard.
    pub const ALL: [DataType; 14] = [
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::UInt8,
        Self::UInt16,
        Self::UInt32,
        Self::UInt64,
        Self::Float,
        Self::Double,
        Self::Boolean,
        Self::String,
        Self::DateTime,
        Self::Bytes,
    ];

    /// The Sparkplug code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// From a Sparkplug code; Text and UUID count as String, File as Bytes; `None` for what is no scalar.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            14 | 15 => Some(Self::String),
            18 => Some(Self::Bytes),
            _ => Self::ALL.into_iter().find(|t| u32::from(t.code()) == code),
        }
    }

    /// The name used in point lists and in the table's `value_type`: `float`, `uint16`, `datetime` ...
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Float => "float",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::DateTime => "datetime",
            Self::Bytes => "bytes",
        }
    }

    /// From a name as [`DataType::name`] gives it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// Whether values of the type can be scaled and compared as numbers.
    #[must_use]
    pub const fn is_numeric(self) -> bool {
        !matches!(self, Self::Boolean | Self::String | Self::DateTime | Self::Bytes)
    }
}

/// One value. Equality is identity of bits, so that a NaN equals itself: see [`Value::same`].
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "named as their types")]
pub enum Value {
    Int8(i8),
    Int16(i16),
    Int32(i32),
    Int64(i64),
    UInt8(u8),
    UInt16(u16),
    UInt32(u32),
    UInt64(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    String(String),
    DateTime(Timestamp),
    Bytes(Vec<u8>),
}

impl Value {
    /// The value's type.
    #[must_use]
    pub const fn data_type(&self) -> DataType {
        match self {
            Self::Int8(_) => DataType::Int8,
            Self::Int16(_) => DataType::Int16,
            Self::Int32(_) => DataType::Int32,
            Self::Int64(_) => DataType::Int64,
            Self::UInt8(_) => DataType::UInt8,
            Self::UInt16(_) => DataType::UInt16,
            Self::UInt32(_) => DataType::UInt32,
            Self::UInt64(_) => DataType::UInt64,
            Self::Float(_) => DataType::Float,
            Self::Double(_) => DataType::Double,
            Self::Boolean(_) => DataType::Boolean,
            Self::String(_) => DataType::String,
            Self::DateTime(_) => DataType::DateTime,
            Self::Bytes(_) => DataType::Bytes,
        }
    }

    /// The value as a number; `None` for strings, bytes and times; a boolean is 0 or 1.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        Some(match *self {
            Self::Int8(v) => f64::from(v),
            Self::Int16(v) => f64::from(v),
            Self::Int32(v) => f64::from(v),
            Self::Int64(v) => v as f64,
            Self::UInt8(v) => f64::from(v),
            Self::UInt16(v) => f64::from(v),
            Self::UInt32(v) => f64::from(v),
            Self::UInt64(v) => v as f64,
            Self::Float(v) => f64::from(v),
            Self::Double(v) => v,
            Self::Boolean(v) => f64::from(u8::from(v)),
            Self::String(_) | Self::DateTime(_) | Self::Bytes(_) => return None,
        })
    }

    /// How a number stands to a limit, without rounding: integers beyond 2^53 keep their last digits, and a Float is
    /// compared with the Float nearest to the limit, so that a limit of 0.1 admits 0.1. `None`: a NaN, or no number.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "to the nearest Float; floor and range make it an integer"
    )]
    pub fn compared_to(&self, limit: f64) -> Option<Ordering> {
        match *self {
            Self::Float(v) => v.partial_cmp(&(limit as f32)),
            Self::Int64(v) => whole_to(i128::from(v), limit),
            Self::UInt64(v) => whole_to(i128::from(v), limit),
            _ => self.as_f64()?.partial_cmp(&limit),
        }
    }

    /// A number as a value of `data_type`; `None` where it does not fit (range, fraction, not a number type).
    ///
    /// Integers take a number only when it is one of theirs; Float rounds to the nearest.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "checked by the range before")]
    pub fn from_f64(number: f64, data_type: DataType) -> Option<Value> {
        let within = |low: f64, end: f64| number.fract() == 0.0 && number >= low && number < end;
        Some(match data_type {
            DataType::Int8 if within(-128.0, 128.0) => Self::Int8(number as i8),
            DataType::Int16 if within(-32_768.0, 32_768.0) => Self::Int16(number as i16),
            DataType::Int32 if within(-2_147_483_648.0, 2_147_483_648.0) => Self::Int32(number as i32),
            DataType::Int64 if within(-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0) => {
                Self::Int64(number as i64)
            }
            DataType::UInt8 if within(0.0, 256.0) => Self::UInt8(number as u8),
            DataType::UInt16 if within(0.0, 65_536.0) => Self::UInt16(number as u16),
            DataType::UInt32 if within(0.0, 4_294_967_296.0) => Self::UInt32(number as u32),
            DataType::UInt64 if within(0.0, 18_446_744_073_709_551_616.0) => Self::UInt64(number as u64),
            DataType::Float if number.is_nan() || number.is_infinite() || (number as f32).is_finite() => {
                Self::Float(number as f32)
            }
            DataType::Double => Self::Double(number),
            DataType::Boolean if within(0.0, 2.0) => Self::Boolean(number != 0.0),
            _ => return None,
        })
    }

    /// Whether both are of one type with the same bits; every NaN of a type is the same NaN.
    #[must_use]
    pub fn same(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Int8(a), Self::Int8(b)) => a == b,
            (Self::Int16(a), Self::Int16(b)) => a == b,
            (Self::Int32(a), Self::Int32(b)) => a == b,
            (Self::Int64(a), Self::Int64(b)) => a == b,
            (Self::UInt8(a), Self::UInt8(b)) => a == b,
            (Self::UInt16(a), Self::UInt16(b)) => a == b,
            (Self::UInt32(a), Self::UInt32(b)) => a == b,
            (Self::UInt64(a), Self::UInt64(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            (Self::Boolean(a), Self::Boolean(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::DateTime(a), Self::DateTime(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            _ => false,
        }
    }

    /// Bytes held on the heap, for bounds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
    }
}

impl Eq for Value {}

/// An integer of at most 65 bits against any limit.
#[expect(clippy::cast_possible_truncation, reason = "beyond i128 it saturates, which compares the same")]
fn whole_to(value: i128, limit: f64) -> Option<Ordering> {
    if limit.is_nan() {
        return None;
    }
    let below = limit.floor();
    let order = value.cmp(&(below as i128));
    Some(if order == Ordering::Equal && limit > below { Ordering::Less } else { order })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_or_are_refused() {
        assert_eq!(Value::from_f64(127.0, DataType::Int8), Some(Value::Int8(127)));
        assert_eq!(Value::from_f64(128.0, DataType::Int8), None);
        assert_eq!(Value::from_f64(1.5, DataType::Int32), None);
        assert_eq!(Value::from_f64(-1.0, DataType::UInt64), None);
        assert_eq!(Value::from_f64(1e300, DataType::Float), None);
        assert_eq!(Value::from_f64(f64::NAN, DataType::Float), Some(Value::Float(f32::NAN)));
        assert_eq!(Value::from_f64(f64::NAN, DataType::Int32), None);
        assert_eq!(Value::from_f64(9_223_372_036_854_775_808.0, DataType::Int64), None);
        assert_eq!(Value::from_f64(1.0, DataType::String), None);
    }

    #[test]
    fn names_and_codes_agree() {
        for data_type in DataType::ALL {
            assert_eq!(DataType::from_name(data_type.name()), Some(data_type));
            assert_eq!(DataType::from_code(u32::from(data_type.code())), Some(data_type));
        }
        assert_eq!(DataType::from_code(16), None);
        assert_eq!(DataType::from_code(14), Some(DataType::String));
    }

    #[test]
    fn a_nan_is_itself_and_zero_has_a_sign() {
        assert_eq!(Value::Double(f64::NAN), Value::Double(-f64::NAN));
        assert_ne!(Value::Double(0.0), Value::Double(-0.0));
        assert_ne!(Value::Float(1.0), Value::Double(1.0));
    }

    #[test]
    fn limits_are_compared_without_rounding() {
        use Ordering::{Equal, Greater, Less};
        for (value, limit, order) in [
            (Value::Float(0.1), 0.1, Some(Equal)),
            (Value::Float(0.7), 0.7, Some(Equal)),
            (Value::Float(0.100_000_01), 0.1, Some(Greater)),
            (Value::Double(0.1), 0.1, Some(Equal)),
            (Value::UInt64((1 << 53) + 1), 9_007_199_254_740_992.0, Some(Greater)),
            (Value::Int64(-(1 << 53) - 1), -9_007_199_254_740_992.0, Some(Less)),
            (Value::UInt64(u64::MAX), 18_446_744_073_709_551_616.0, Some(Less)),
            (Value::Int64(5), 5.5, Some(Less)),
            (Value::Int64(-5), -5.5, Some(Greater)),
            (Value::Int64(i64::MIN), f64::NEG_INFINITY, Some(Greater)),
            (Value::Int16(7), f64::NAN, None),
            (Value::UInt64(7), f64::NAN, None),
            (Value::Float(f32::NAN), 1.0, None),
            (Value::String("7".into()), 1.0, None),
        ] {
            assert_eq!(value.compared_to(limit), order, "{value:?} to {limit}");
        }
    }
}
