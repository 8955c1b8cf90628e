//! Between OPC UA's variants and the values of points.

use std::borrow::Cow;

use model::{DataType, Quality, QualityClass, Reason, Timestamp, Value};
use opcua::types::{ByteString, DataValue, DateTime, StatusCode, UAString, Variant};

use super::address::Part;
use super::fault::{code, quality};
use super::structures::Structures;
use crate::drivers::Reading;

/// 100 ns ticks from 1601 to 1970.
const TICKS_TO_1970: i64 = 116_444_736_000_000_000;

/// A part of a value, or why it is not there.
fn pick<'a>(
    variant: &'a Variant,
    parts: &[Part],
    structures: &Structures,
) -> Result<Cow<'a, Variant>, Quality> {
    let mut at = Cow::Borrowed(variant);
    for part in parts {
        let next = match (part, at.as_ref()) {
            (Part::Element(indices), Variant::Array(array)) => {
                let flat = flat(indices, array.dimensions.as_deref());
                let element = flat.and_then(|flat| array.values.get(flat));
                element.ok_or_else(|| bad(StatusCode::BadIndexRangeNoData))?.clone()
            }
            (Part::Element(_), Variant::Empty) => return Err(bad(StatusCode::BadIndexRangeNoData)),
            (Part::Field(name), Variant::ExtensionObject(object)) => {
                structures.field(object, name).ok_or(Quality::bad(Reason::Undecodable))?
            }
            _ => return Err(Quality::bad(Reason::TypeMismatch)),
        };
        at = Cow::Owned(next);
    }
    Ok(at)
}

fn bad(status: StatusCode) -> Quality {
    Quality::with_detail(QualityClass::Bad, Reason::OpcUaStatus, code(status))
}

/// Place in the flat list of a matrix, the last index fastest.
fn flat(indices: &[u32], dimensions: Option<&[u32]>) -> Option<usize> {
    if let [index] = indices {
        return usize::try_from(*index).ok();
    }
    let dimensions = dimensions.filter(|dimensions| dimensions.len() == indices.len())?;
    indices.iter().zip(dimensions).try_fold(0_usize, |flat, (index, size)| {
        let is_inside = index < size;
        is_inside.then_some(())?;
        flat.checked_mul(usize::try_from(*size).ok()?)?.checked_add(usize::try_from(*index).ok()?)
    })
}

/// A point's reading from a value of its node.
pub(super) fn reading(
    point: usize,
    raw_type: DataType,
    parts: &[Part],
    value: &DataValue,
    structures: &Structures,
) -> Reading {
    let status = value.status.unwrap_or(StatusCode::Good);
    let time = value.source_timestamp.as_ref().and_then(timestamp);
    let mut said = quality(status);
    let value = match value.value.as_ref().map(|variant| pick(variant, parts, structures)) {
        Some(Ok(variant)) => match scalar(&variant) {
            Some(value) if value.data_type() == raw_type => Some(value),
            None if matches!(variant.as_ref(), Variant::Empty) => None,
            _ => {
                said = worse(said, Quality::bad(Reason::TypeMismatch));
                None
            }
        },
        Some(Err(why)) => {
            said = worse(said, why);
            None
        }
        None => None,
    };
    if value.is_none() && said.class() != QualityClass::Bad {
        said = Quality::bad(Reason::NoData);
    }
    Reading { point, time, value, quality: said }
}

/// What the server says of a value without value stands; else our own reason.
fn worse(said: Quality, own: Quality) -> Quality {
    if said.class() == QualityClass::Bad { said } else { own }
}

/// A reading without value.
pub(super) fn without(point: usize, status: StatusCode) -> Reading {
    let said = quality(status);
    let quality = if said.class() == QualityClass::Bad { said } else { Quality::bad(Reason::NoData) };
    Reading { point, time: None, value: None, quality }
}

/// A variant as one value; arrays, structures and things without a twin are none.
pub(super) fn scalar(variant: &Variant) -> Option<Value> {
    Some(match variant {
        Variant::Boolean(value) => Value::Boolean(*value),
        Variant::SByte(value) => Value::Int8(*value),
        Variant::Byte(value) => Value::UInt8(*value),
        Variant::Int16(value) => Value::Int16(*value),
        Variant::UInt16(value) => Value::UInt16(*value),
        Variant::Int32(value) => Value::Int32(*value),
        Variant::UInt32(value) => Value::UInt32(*value),
        Variant::Int64(value) => Value::Int64(*value),
        Variant::UInt64(value) => Value::UInt64(*value),
        Variant::Float(value) => Value::Float(*value),
        Variant::Double(value) => Value::Double(*value),
        Variant::String(text) => Value::String(text.value().clone()?),
        Variant::XmlElement(text) => Value::String(text.to_string()),
        Variant::LocalizedText(text) => Value::String(text.text.value().clone()?),
        Variant::QualifiedName(name) => Value::String(name.name.value().clone()?),
        Variant::Guid(guid) => Value::String(guid.to_string()),
        Variant::NodeId(node) => Value::String(node.to_string()),
        Variant::ExpandedNodeId(node) => Value::String(node.to_string()),
        Variant::StatusCode(status) => Value::UInt32(status.bits()),
        Variant::DateTime(time) => Value::DateTime(timestamp(time)?),
        Variant::ByteString(bytes) => Value::Bytes(bytes.value.as_ref()?.to_vec()),
        Variant::Variant(inner) if !matches!(**inner, Variant::Variant(_)) => return scalar(inner),
        _ => return None,
    })
}

/// The type of a point for a node of this built-in type.
pub(super) fn data_type(number: u32) -> Option<DataType> {
    Some(match number {
        1 => DataType::Boolean,
        2 => DataType::Int8,
        3 => DataType::UInt8,
        4 => DataType::Int16,
        5 => DataType::UInt16,
        6 | 29 => DataType::Int32,  // 29: enumerations travel as Int32
        7 | 19 => DataType::UInt32, // 19: status codes
        8 => DataType::Int64,
        9 => DataType::UInt64,
        10 => DataType::Float,
        11 => DataType::Double,
        12 | 14 | 16 | 17 | 18 | 20 | 21 => DataType::String,
        13 => DataType::DateTime,
        15 => DataType::Bytes,
        _ => return None,
    })
}

/// What a write sends.
pub(super) fn variant(value: &Value) -> Variant {
    match value {
        Value::Int8(value) => Variant::SByte(*value),
        Value::Int16(value) => Variant::Int16(*value),
        Value::Int32(value) => Variant::Int32(*value),
        Value::Int64(value) => Variant::Int64(*value),
        Value::UInt8(value) => Variant::Byte(*value),
        Value::UInt16(value) => Variant::UInt16(*value),
        Value::UInt32(value) => Variant::UInt32(*value),
        Value::UInt64(value) => Variant::UInt64(*value),
        Value::Float(value) => Variant::Float(*value),
        Value::Double(value) => Variant::Double(*value),
        Value::Boolean(value) => Variant::Boolean(*value),
        Value::String(text) => Variant::String(UAString::from(text.as_str())),
        Value::DateTime(time) => Variant::DateTime(Box::new(date_time(*time))),
        Value::Bytes(bytes) => Variant::ByteString(ByteString::from(bytes.as_slice())),
    }
}

/// `None` for the null time.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    (!time.is_null()).then(|| Timestamp(time.as_chrono().timestamp_micros()))
}

/// To OPC UA's ticks; what lies before 1601 or beyond its calendar is cut to it.
pub(super) fn date_time(time: Timestamp) -> DateTime {
    DateTime::from(time.micros().saturating_mul(10).saturating_add(TICKS_TO_1970).max(1))
}

#[cfg(test)]
mod tests {
    use opcua::types::Array;

    use super::*;

    fn value_of(variant: Variant) -> DataValue {
        DataValue { value: Some(variant), ..DataValue::default() }
    }

    fn read(variant: Variant, raw_type: DataType, parts: &[Part]) -> Reading {
        reading(0, raw_type, parts, &value_of(variant), &Structures::default())
    }

    #[test]
    fn values_go_there_and_back() {
        let time = Timestamp(1_764_119_000_123_456);
        let values = [
            Value::Int8(-1),
            Value::Int16(-2),
            Value::Int32(-3),
            Value::Int64(i64::MIN),
            Value::UInt8(255),
            Value::UInt16(1),
            Value::UInt32(2),
            Value::UInt64(u64::MAX),
            Value::Float(0.5),
            Value::Double(-1e300),
            Value::Boolean(true),
            Value::String("Öl".into()),
            Value::DateTime(time),
            Value::Bytes(vec![0, 255]),
        ];
        for value in values {
            let back = read(variant(&value), value.data_type(), &[]);
            assert_eq!((back.value.as_ref(), back.quality), (Some(&value), Quality::GOOD));
        }
        assert_eq!(timestamp(&DateTime::null()), None);
    }

    #[test]
    fn another_type_and_a_missing_element_are_the_points_quality() {
        let mismatch = read(Variant::Int32(1), DataType::Double, &[]);
        assert_eq!((mismatch.value, mismatch.quality), (None, Quality::bad(Reason::TypeMismatch)));
        let matrix: Vec<Variant> = (0..6).map(Variant::Int32).collect();
        let type_id = opcua::types::VariantScalarTypeId::Int32;
        let matrix = Variant::Array(Box::new(Array::new_multi(type_id, matrix, vec![2_u32, 3]).unwrap()));
        let element =
            |indices: &[u32]| read(matrix.clone(), DataType::Int32, &[Part::Element(indices.to_vec())]);
        assert_eq!(element(&[1, 2]).value, Some(Value::Int32(5)));
        assert_eq!(element(&[4]).value, Some(Value::Int32(4)));
        for indices in [&[6][..], &[2, 0], &[0, 3], &[0, 0, 0], &[u32::MAX, u32::MAX]] {
            assert_eq!(element(indices).quality, bad(StatusCode::BadIndexRangeNoData), "{indices:?}");
        }
        assert_eq!(read(matrix.clone(), DataType::Int32, &[]).quality, Quality::bad(Reason::TypeMismatch));
    }
}
