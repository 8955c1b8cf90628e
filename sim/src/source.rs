//! A device whose readings are numbered: what it says at a number never changes, so a row can be judged by itself.
//!
//! Readings come in thirds of a tick: three in a row share their source time, on purpose (a time is no identity).

use bridge::batch::Row;
use model::{DataType, PointId, Quality, QualityClass, Reason, Sample, Timestamp, Value};

/// 2026-01-01.
const BEGIN: i64 = 1_767_225_600_000_000;
/// Source time moves so far with every third reading.
const STEP: i64 = 250_000;

/// Points of a device: readings take turns.
pub(crate) const POINTS: u64 = 2;

/// The reading of that number.
pub(crate) fn reading(points: &[PointId], number: u64) -> Sample {
    let at = usize::try_from(number % POINTS).unwrap_or(0);
    Sample {
        point: points.get(at).copied().unwrap_or(PointId(0)),
        time: time_of(number),
        value: (number % 13 != 5).then(|| value_of(number)),
        quality: quality_of(number),
    }
}

fn time_of(number: u64) -> Timestamp {
    Timestamp(BEGIN + i64::try_from(number / 3).unwrap_or(0) * STEP)
}

fn value_of(number: u64) -> Value {
    Value::Int64(i64::try_from(number).unwrap_or(0))
}

fn quality_of(number: u64) -> Quality {
    match number % 13 {
        // Without a value the number is found by the time and this detail.
        5 => Quality::with_detail(QualityClass::Bad, Reason::DeviceException, (number % 3) as u16),
        7 => Quality::with_detail(QualityClass::Uncertain, Reason::OpcUaStatus, 3),
        _ => Quality::GOOD,
    }
}

/// The number of the reading in a row, if the row says exactly what that reading said.
pub(crate) fn number_in(row: &Row<'_>, paths: &[String]) -> Option<u64> {
    let number = match row.value {
        (0, _) => {
            let third = u64::try_from((row.time - BEGIN) / STEP).ok()?;
            third * 3 + u64::from(row.quality & 0xffff)
        }
        (kind, bits) if kind == DataType::Int64.code() => bits,
        _ => return None,
    };
    let path = paths.get(usize::try_from(number % POINTS).ok()?)?;
    let has_value = number % 13 != 5;
    let same = row.path == path
        && row.time == time_of(number).0
        && row.quality == quality_of(number).bits()
        && (row.value.0 != 0) == has_value;
    same.then_some(number)
}
