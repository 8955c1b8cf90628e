//! Whether a write may be sent, and as which value. Pure; every refusal names its rule first.

use std::cmp::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::limits::{PATH_BYTES_MAX, VALUE_BYTES_MAX};
use model::{DataType, PointDefinition, Timestamp, Value};

use super::{CommandRecord, EXPIRY_MAX, EXPIRY_MIN, Target};

/// Longest author and reason.
const TEXT_BYTES_MAX: usize = 1000;

/// Checks everything that the hub can know; the agent checks again.
pub(super) fn authorise(
    enabled: bool,
    record: &CommandRecord,
    expires_in: Duration,
    target: Option<&Target>,
) -> Result<Value, String> {
    if !enabled {
        return Err("commands: disabled; set enabled = true in [hub.commands] to allow them".into());
    }
    if !(EXPIRY_MIN..=EXPIRY_MAX).contains(&expires_in) {
        return Err(format!("expiry: must be from {EXPIRY_MIN:?} to {EXPIRY_MAX:?}"));
    }
    for (name, text) in [("author", &record.author), ("reason", &record.reason)] {
        if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(format!("{name}: must be given, in at most {TEXT_BYTES_MAX} bytes"));
        }
    }
    let Target { definition, place } = target.ok_or("point: there is none of this path")?;
    if place.foreign {
        return Err(format!(
            "agent: {} is not one of ours; it knows neither expiry nor once-only, so nothing is written there",
            place.node
        ));
    }
    if !definition.writable {
        return Err("point: is not writable; its point list must say so".into());
    }
    let value = parse(&record.value, definition.data_type).map_err(|why| format!("value: {why}"))?;
    in_range(&value, definition)?;
    if !place.online {
        return Err(format!("agent: {} or its device is offline", place.node));
    }
    Ok(value)
}

/// Whether a request is too long to be recorded as it is; no point has such a path or value.
pub(super) fn is_oversized(record: &CommandRecord) -> bool {
    record.path.len() > PATH_BYTES_MAX
        || record.value.len() > VALUE_BYTES_MAX
        || record.author.len() > TEXT_BYTES_MAX
        || record.reason.len() > TEXT_BYTES_MAX
}

fn in_range(value: &Value, definition: &PointDefinition) -> Result<(), String> {
    let Some(number) = value.as_f64() else { return Ok(()) };
    let outside = |side: &str, limit: f64| {
        Err(format!("range: {number} is {side} {limit} {}", definition.unit).trim_end().to_owned())
    };
    match (definition.min, definition.max) {
        (Some(min), _) if value.compared_to(min) == Some(Ordering::Less) => outside("below", min),
        (_, Some(max)) if value.compared_to(max) == Some(Ordering::Greater) => outside("above", max),
        _ => Ok(()),
    }
}

/// The text as a value of the type. Numbers must fit exactly (a Float takes the nearest) and be finite.
fn parse(text: &str, data_type: DataType) -> Result<Value, String> {
    fn number<T: std::str::FromStr>(text: &str, data_type: DataType) -> Result<T, String> {
        text.trim().parse().map_err(|_| format!("{text:?} is no {}", data_type.name()))
    }
    let finite =
        |value: f64| if value.is_finite() { Ok(value) } else { Err(format!("{text:?} is not finite")) };
    Ok(match data_type {
        DataType::Int8 => Value::Int8(number(text, data_type)?),
        DataType::Int16 => Value::Int16(number(text, data_type)?),
        DataType::Int32 => Value::Int32(number(text, data_type)?),
        DataType::Int64 => Value::Int64(number(text, data_type)?),
        DataType::UInt8 => Value::UInt8(number(text, data_type)?),
        DataType::UInt16 => Value::UInt16(number(text, data_type)?),
        DataType::UInt32 => Value::UInt32(number(text, data_type)?),
        DataType::UInt64 => Value::UInt64(number(text, data_type)?),
        DataType::Float => {
            let value: f32 = number(text, data_type)?;
            finite(f64::from(value))?;
            Value::Float(value)
        }
        DataType::Double => Value::Double(finite(number(text, data_type)?)?),
        DataType::Boolean => match text.trim() {
            "true" | "1" => Value::Boolean(true),
            "false" | "0" => Value::Boolean(false),
            _ => return Err(format!("{text:?} is no boolean; write true or false")),
        },
        DataType::String => Value::String(text.to_owned()),
        DataType::DateTime => {
            let time = chrono::DateTime::parse_from_rfc3339(text.trim())
                .map_err(|error| format!("{text:?} is no time such as 2026-11-22T05:53:00Z: {error}"))?;
            Value::DateTime(Timestamp(time.timestamp_micros()))
        }
        DataType::Bytes => {
            let bytes = STANDARD.decode(text.trim()).map_err(|error| format!("is no base64: {error}"))?;
            Value::Bytes(bytes)
        }
    })
}

#[cfg(test)]
mod tests {
    use model::{CommandId, CommandState, NodeId, PointPath};

    use super::*;
    use crate::host::PointTarget;

    fn target() -> Target {
        Target {
            definition: PointDefinition {
                device: Some("press".into()),
                unit: "bar".into(),
                min: Some(0.0),
                max: Some(8.0),
                writable: true,
                ..PointDefinition::new(PointPath::new("press/setpoint").unwrap(), "setpoint", DataType::Float)
            },
            place: PointTarget {
                node: NodeId::new("g", "n").unwrap(),
                device: Some("press".into()),
                metric: "setpoint".into(),
                online: true,
                foreign: false,
            },
        }
    }

    fn record(value: &str) -> CommandRecord {
        CommandRecord {
            id: CommandId([1; 16]),
            path: "press/setpoint".into(),
            value: value.into(),
            author: "anna".into(),
            reason: "test".into(),
            at: Timestamp(0),
            expires_at: Timestamp(5_000_000),
            state: CommandState::Recorded,
            outcome: None,
            read_back: String::new(),
            ended_at: None,
        }
    }

    const EXPIRY: Duration = Duration::from_secs(5);

    #[test]
    fn a_good_request_becomes_a_typed_value() {
        assert_eq!(authorise(true, &record("4.5"), EXPIRY, Some(&target())), Ok(Value::Float(4.5)));
        assert_eq!(authorise(true, &record("8"), EXPIRY, Some(&target())), Ok(Value::Float(8.0)));
    }

    #[test]
    fn every_rule_refuses_by_its_name() {
        let refusal = |enabled, record: &CommandRecord, expiry, target: Option<&Target>| {
            let why = authorise(enabled, record, expiry, target).unwrap_err();
            why.split(':').next().unwrap().to_owned()
        };
        let change = |change: fn(&mut Target)| {
            let mut target = target();
            change(&mut target);
            target
        };
        let good = target();
        let one = record("1");
        assert_eq!(refusal(false, &one, EXPIRY, Some(&good)), "commands");
        assert_eq!(refusal(true, &one, Duration::from_millis(999), Some(&good)), "expiry");
        assert_eq!(refusal(true, &one, Duration::from_secs(301), Some(&good)), "expiry");
        assert_eq!(
            refusal(true, &CommandRecord { reason: " ".into(), ..one.clone() }, EXPIRY, Some(&good)),
            "reason"
        );
        assert_eq!(refusal(true, &one, EXPIRY, None), "point");
        assert_eq!(refusal(true, &one, EXPIRY, Some(&change(|t| t.definition.writable = false))), "point");
        assert_eq!(refusal(true, &one, EXPIRY, Some(&change(|t| t.place.foreign = true))), "agent");
        assert_eq!(refusal(true, &one, EXPIRY, Some(&change(|t| t.place.online = false))), "agent");
        for value in ["-0.1", "8.0001"] {
            assert_eq!(refusal(true, &record(value), EXPIRY, Some(&good)), "range", "{value}");
        }
        for value in ["NaN", "inf", "1e39", "x", ""] {
            assert_eq!(refusal(true, &record(value), EXPIRY, Some(&good)), "value", "{value}");
        }
        let share = change(|target| (target.definition.min, target.definition.max) = (Some(0.1), Some(0.7)));
        for value in ["0.1", "0.7"] {
            assert!(
                authorise(true, &record(value), EXPIRY, Some(&share)).is_ok(),
                "the Float nearest to a limit"
            );
        }
        assert_eq!(refusal(true, &record("0.7000001"), EXPIRY, Some(&share)), "range");
        assert!(is_oversized(&record(&"9".repeat(VALUE_BYTES_MAX + 1))) && !is_oversized(&one));
    }

    #[test]
    fn texts_parse_as_their_types_or_not_at_all() {
        for (text, data_type, value) in [
            ("-128", DataType::Int8, Some(Value::Int8(-128))),
            ("128", DataType::Int8, None),
            ("1.5", DataType::Int32, None),
            ("18446744073709551615", DataType::UInt64, Some(Value::UInt64(u64::MAX))),
            ("-1", DataType::UInt16, None),
            ("true", DataType::Boolean, Some(Value::Boolean(true))),
            ("2", DataType::Boolean, None),
            (" x ", DataType::String, Some(Value::String(" x ".into()))),
            ("1970-01-01T01:00:00.000001+01:00", DataType::DateTime, Some(Value::DateTime(Timestamp(1)))),
            ("yesterday", DataType::DateTime, None),
            ("AP8=", DataType::Bytes, Some(Value::Bytes(vec![0, 255]))),
            ("A", DataType::Bytes, None),
        ] {
            assert_eq!(parse(text, data_type).ok(), value, "{text}");
        }
    }
}
