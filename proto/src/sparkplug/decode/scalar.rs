//! From the wire's few kinds of value to a type's values (Sparkplug 3.0 §6.4.16).

use model::{DataType, Timestamp, Value};

use super::WireValue;

/// ms as Sparkplug has them (before 1970 as two's complement) with µs; a time beyond 64 bits of µs saturates.
#[inline]
#[expect(clippy::cast_possible_wrap, reason = "two's complement")]
pub(super) fn exact_time(millis: u64, micros: u16) -> Timestamp {
    let (millis, micros) = (millis as i64, i64::from(micros));
    match millis.checked_mul(1000).and_then(|whole| whole.checked_add(micros)) {
        Some(exact) => Timestamp(exact),
        None => near_the_end_of_time(millis, micros),
    }
}

#[cold]
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn near_the_end_of_time(millis: i64, micros: i64) -> Timestamp {
    let exact = i128::from(millis) * 1000 + i128::from(micros);
    Timestamp(exact.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
}

impl WireValue<'_> {
    /// The value as one of `data_type` by Sparkplug's rules (§6.4.16: signed integers as two's complement in
    /// `int_value`/`long_value`, DateTime as ms in `long_value`); `None` if they do not fit together.
    ///
    /// Lenient where real nodes are: an 8- to 32-bit integer may come in `long_value`, a 64-bit one in `int_value`,
    /// if it fits; a negative integer may be two's complement of its own width, of 32 or of 64 bits; Float and
    /// Double take each other's values where nothing is lost.
    #[must_use]
    pub fn to_value(&self, data_type: DataType, value_micros: u16) -> Option<Value> {
        Some(match data_type {
            DataType::Int8 => Value::Int8(self.signed(8)?.try_into().ok()?),
            DataType::Int16 => Value::Int16(self.signed(16)?.try_into().ok()?),
            DataType::Int32 => Value::Int32(self.signed(32)?.try_into().ok()?),
            DataType::Int64 => Value::Int64(self.signed(64)?),
            DataType::UInt8 => Value::UInt8(self.unsigned()?.try_into().ok()?),
            DataType::UInt16 => Value::UInt16(self.unsigned()?.try_into().ok()?),
            DataType::UInt32 => Value::UInt32(self.unsigned()?.try_into().ok()?),
            DataType::UInt64 => Value::UInt64(self.unsigned()?),
            DataType::DateTime => Value::DateTime(exact_time(self.unsigned()?, value_micros)),
            DataType::Float => Value::Float(self.float()?),
            DataType::Double => match *self {
                Self::Double(value) => Value::Double(value),
                Self::Float(value) => Value::Double(f64::from(value)),
                _ => return None,
            },
            DataType::Boolean => match *self {
                Self::Boolean(value) => Value::Boolean(value),
                _ => return None,
            },
            DataType::String => match *self {
                Self::String(value) => Value::String(value.to_owned()),
                _ => return None,
            },
            DataType::Bytes => match *self {
                Self::Bytes(value) => Value::Bytes(value.to_vec()),
                _ => return None,
            },
        })
    }

    /// A whole number of any kind, as a property such as `Quality` holds it.
    pub(super) fn as_integer(&self) -> Option<i64> {
        self.signed(64)
    }

    const fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Int(bits) => Some(bits as u64),
            Self::Long(bits) => Some(bits),
            _ => None,
        }
    }

    /// Two's complement of `bits` if no higher bit is set, else of the field's own 32 or 64 bits.
    #[expect(clippy::cast_possible_wrap, reason = "two's complement")]
    fn signed(&self, bits: u32) -> Option<i64> {
        let (raw, number) = match *self {
            Self::Int(raw) => (u64::from(raw), i64::from(raw as i32)),
            Self::Long(raw) => (raw, raw as i64),
            _ => return None,
        };
        if bits == 64 || raw >> bits != 0 {
            return Some(number);
        }
        let shift = 64 - bits;
        Some(((raw << shift) as i64) >> shift)
    }

    #[expect(clippy::cast_possible_truncation, reason = "compared afterwards")]
    fn float(&self) -> Option<f32> {
        match *self {
            Self::Float(value) => Some(value),
            Self::Double(value) => {
                let narrow = value as f32;
                (value.is_nan() || f64::from(narrow) == value).then_some(narrow)
            }
            _ => None,
        }
    }
}
