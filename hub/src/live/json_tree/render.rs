//! Topics and payloads of the JSON tree, as drawn in its parent file. Pure.

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{PointPath, Value};

use crate::live::LiveValue;

/// `{enterprise}/{site}`, each one level.
pub(super) fn root(enterprise: &str, site: &str) -> String {
    let mut root = String::new();
    if let Some(rest) = enterprise.strip_prefix('$') {
        root.push_str("%24");
        level(rest, true, &mut root);
    } else {
        level(enterprise, true, &mut root);
    }
    root.push('/');
    level(site, true, &mut root);
    root
}

/// Appends the topic of a point.
pub(super) fn topic(root: &str, path: &PointPath, out: &mut String) {
    out.push_str(root);
    for name in path.levels() {
        out.push('/');
        level(name, false, out);
    }
}

fn level(name: &str, slash: bool, out: &mut String) {
    if name.is_empty() {
        out.push_str("%00");
    }
    for character in name.chars() {
        let special = matches!(character, '+' | '#' | '%') || (slash && character == '/');
        if special || character.is_control() || is_non_character(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                write!(out, "%{byte:02X}").ok();
            }
        } else {
            out.push(character);
        }
    }
}

/// MQTT lets a receiver close the connection for these (3.1.1 §1.5.3).
fn is_non_character(character: char) -> bool {
    let code = u32::from(character);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

/// Appends the payload.
pub(super) fn payload(live: &LiveValue, unit: &str, out: &mut Vec<u8>) {
    write!(out, "{{\"t\":\"{}\",\"v\":", live.time).ok();
    let special = value(live.value.as_ref(), out);
    if let Some(special) = special {
        write!(out, ",\"special\":\"{special}\"").ok();
    }
    write!(out, ",\"q\":\"{}\"", live.quality).ok();
    if !unit.is_empty() {
        out.extend_from_slice(b",\"u\":");
        text(unit, out);
    }
    out.push(b'}');
}

/// Appends the value; the name of what JSON has no number for, if it is such.
fn value(value: Option<&Value>, out: &mut Vec<u8>) -> Option<&'static str> {
    match value {
        None => out.extend_from_slice(b"null"),
        Some(Value::Int8(v)) => number(v, out),
        Some(Value::Int16(v)) => number(v, out),
        Some(Value::Int32(v)) => number(v, out),
        Some(Value::Int64(v)) => number(v, out),
        Some(Value::UInt8(v)) => number(v, out),
        Some(Value::UInt16(v)) => number(v, out),
        Some(Value::UInt32(v)) => number(v, out),
        Some(Value::UInt64(v)) => number(v, out),
        Some(Value::Float(v)) if v.is_finite() => json(v, out),
        Some(Value::Double(v)) if v.is_finite() => json(v, out),
        Some(Value::Float(v)) => return Some(not_finite(f64::from(*v), out)),
        Some(Value::Double(v)) => return Some(not_finite(*v, out)),
        Some(Value::Boolean(v)) => number(v, out),
        Some(Value::String(v)) => text(v, out),
        Some(Value::DateTime(v)) => {
            write!(out, "\"{v}\"").ok();
        }
        Some(Value::Bytes(v)) => {
            write!(out, "\"{}\"", STANDARD.encode(v)).ok();
        }
    }
    None
}

fn not_finite(value: f64, out: &mut Vec<u8>) -> &'static str {
    out.extend_from_slice(b"null");
    match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

fn number(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    write!(out, "{value}").ok();
}

/// A float in the fewest digits that read back the same.
fn json(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).ok();
}

fn text(value: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).ok();
}

#[cfg(test)]
mod tests {
    use model::{Quality, Reason, Timestamp};

    use super::*;

    fn topic_of(path: &str) -> String {
        let mut out = String::new();
        topic(&root("acme", "antwerp"), &PointPath::new(path).unwrap(), &mut out);
        out
    }

    fn payload_of(value: Option<Value>, unit: &str) -> String {
        let time = Timestamp(1_700_000_000_123_456);
        let live = LiveValue { time, arrival: time, value, quality: Quality::GOOD };
        let mut out = Vec::new();
        payload(&live, unit, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn odd_names_make_valid_topics() {
        assert_eq!(topic_of("hall/Ölpumpe/temp"), "acme/antwerp/hall/Ölpumpe/temp");
        assert_eq!(topic_of("a+b/#1/50%"), "acme/antwerp/a%2Bb/%231/50%25");
        assert_eq!(topic_of("/a//"), "acme/antwerp/%00/a/%00/%00");
        assert_eq!(topic_of("a\u{7}\u{85}\u{ffff}"), "acme/antwerp/a%07%C2%85%EF%BF%BF");
        assert_eq!(topic_of("$x"), "acme/antwerp/$x", "only a topic's start is special");
        assert_eq!(root("$acme", "a/b"), "%24acme/a%2Fb");
    }

    #[test]
    fn values_are_exact_json() {
        const HEAD: &str = "{\"t\":\"2023-11-14T22:13:20.123456Z\",\"v\":";
        for (value, unit, rest) in [
            (Some(Value::Double(4.2)), "bar", "4.2,\"q\":\"good\",\"u\":\"bar\"}"),
            (Some(Value::Float(0.1)), "", "0.1,\"q\":\"good\"}"),
            (Some(Value::UInt64(u64::MAX)), "", "18446744073709551615,\"q\":\"good\"}"),
            (Some(Value::Int64(i64::MIN)), "", "-9223372036854775808,\"q\":\"good\"}"),
            (Some(Value::Boolean(true)), "", "true,\"q\":\"good\"}"),
            (Some(Value::String("a\"b\n".into())), "", "\"a\\\"b\\n\",\"q\":\"good\"}"),
            (Some(Value::Bytes(vec![0, 255])), "", "\"AP8=\",\"q\":\"good\"}"),
            (Some(Value::DateTime(Timestamp(0))), "", "\"1970-01-01T00:00:00.000000Z\",\"q\":\"good\"}"),
            (Some(Value::Float(f32::NAN)), "", "null,\"special\":\"NaN\",\"q\":\"good\"}"),
            (Some(Value::Double(f64::NEG_INFINITY)), "", "null,\"special\":\"-Infinity\",\"q\":\"good\"}"),
            (None, "\"", "null,\"q\":\"good\",\"u\":\"\\\"\"}"),
        ] {
            let text = payload_of(value, unit);
            assert_eq!(text, format!("{HEAD}{rest}"));
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
        let live = LiveValue {
            time: Timestamp(0),
            arrival: Timestamp(0),
            value: None,
            quality: Quality::with_detail(model::QualityClass::Bad, Reason::DeviceException, 2),
        };
        let mut out = Vec::new();
        payload(&live, "", &mut out);
        assert!(String::from_utf8(out).unwrap().contains("\"q\":\"bad:device-exception:2\""));
    }
}
