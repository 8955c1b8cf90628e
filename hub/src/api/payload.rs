//! What an MQTT payload says, for people: Sparkplug B, JSON, text, or bytes as hex.
//!
//! ```text
//! {"kind":"sparkplug","bytes":93,"cut":false,"sparkplug":{"seq":4,"metrics":[{"name":"temp","type":"double","v":21.5,…}]}}
//! {"kind":"json","bytes":12,"cut":false,"text":"{\"a\": [1]}"}          as it was sent: the page lays it out
//! {"kind":"text","bytes":4,"cut":false,"text":"21.5"}
//! {"kind":"hex","bytes":3,"cut":false,"text":"00ff10"}
//! {"kind":"empty","bytes":0,"cut":false}
//! ```
//!
//! `bytes` is the payload's length, `cut` says that not all of it is shown. Topics decide whether a payload is Sparkplug;
//! one that should be and is not is shown as what it looks like, with `problem`. Everything is bounded by a budget of
//! bytes that the caller gives.

use model::{DataType, Timestamp, Value};
use proto::sparkplug::{MetricView, PayloadView, Topic, WireValue};
use serde::de::IgnoredAny;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::json::{Scalar, special};

/// Bytes that are shown of a payload unless asked otherwise, and at most.
pub(crate) const SHOWN_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are shown of one metric's text or bytes.
const VALUE_SHOWN_BYTES: usize = 2048;
/// What a metric costs of the budget beside its name and value.
const METRIC_COST: usize = 64;

/// How a payload is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Metrics.
    Sparkplug,
    /// An object or array.
    Json,
    /// UTF-8.
    Text,
    /// Two digits for each byte.
    Hex,
    /// Nothing: with the retain flag, the topic's retained message is gone.
    Empty,
}

/// A payload, decoded as far as it is understood.
#[derive(Serialize, ToSchema)]
pub(crate) struct Payload {
    /// What it is.
    kind: Kind,
    /// Its length.
    bytes: usize,
    /// Whether less than all of it is shown.
    cut: bool,
    /// JSON and text as they were sent, other bytes as hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// What Sparkplug makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sparkplug: Option<Sparkplug>,
    /// Why it is not the Sparkplug payload that its topic says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A Sparkplug payload.
#[derive(Serialize, ToSchema)]
struct Sparkplug {
    /// Its time, ISO 8601 UTC.
    timestamp: Option<String>,
    /// 0 to 255.
    seq: Option<u64>,
    /// How many metrics it has.
    metrics_count: usize,
    /// The first of them.
    metrics: Vec<Metric>,
}

/// A metric.
#[derive(Serialize, ToSchema)]
struct Metric {
    /// As in births; data messages often have the alias only.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The number that stands for the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    alias: Option<Shown>,
    /// `double`, `uint16` …, or the standard's name of what is no scalar; data messages often have none.
    #[serde(skip_serializing_if = "Option::is_none", rename = "type")]
    data_type: Option<String>,
    /// As in readings; null if there is none or it is no scalar.
    #[schema(value_type = Option<serde_json::Value>)]
    v: Shown,
    /// `NaN`, `Infinity` or `-Infinity`, when `v` is null for that reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    special: Option<&'static str>,
    /// Its time, else the payload's, ISO 8601 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<String>,
    /// `good`, `bad:timeout` …
    q: String,
    /// Not live: sent later, from a buffer.
    historical: bool,
}

struct Shown(Option<Value>);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Scalar(self.0.as_ref()).serialize(serializer)
    }
}

impl Payload {
    /// Decodes a payload of `topic`; shows about `budget` bytes of it.
    pub(crate) fn of(topic: &str, bytes: &[u8], budget: usize) -> Payload {
        let plain = |kind, cut, text| {
            let (sparkplug, problem) = (None, None);
            Payload { kind, bytes: bytes.len(), cut, text, sparkplug, problem }
        };
        if bytes.is_empty() {
            return plain(Kind::Empty, false, None);
        }
        let mut problem = None;
        if is_sparkplug(topic) {
            match PayloadView::decode(bytes) {
                Ok(view) => {
                    let (sparkplug, cut) = Sparkplug::of(&view, budget);
                    return Payload { sparkplug: Some(sparkplug), ..plain(Kind::Sparkplug, cut, None) };
                }
                Err(error) => problem = Some(error.to_string()),
            }
        }
        let shown = match std::str::from_utf8(bytes) {
            Ok(text) if is_json(text) => {
                plain(Kind::Json, text.len() > budget, Some(head(text, budget).into()))
            }
            Ok(text) if is_readable(text) => {
                plain(Kind::Text, text.len() > budget, Some(head(text, budget).into()))
            }
            _ => {
                let shown = bytes.get(..budget / 2).unwrap_or(bytes);
                plain(Kind::Hex, shown.len() < bytes.len(), Some(hex(shown)))
            }
        };
        Payload { problem, ..shown }
    }

    /// About how many bytes it takes in an answer.
    pub(crate) fn cost(&self) -> usize {
        let text = self.text.as_ref().map_or(0, String::len);
        let metrics = self.sparkplug.as_ref().map_or(0, |sparkplug| {
            sparkplug.metrics.iter().map(|metric| metric_cost(metric.name.as_deref(), &metric.v)).sum()
        });
        text + metrics
    }
}

impl Sparkplug {
    /// The metrics that the budget has room for, and whether something is left out.
    fn of(view: &PayloadView<'_>, budget: usize) -> (Sparkplug, bool) {
        let (mut metrics, mut left, mut cut) = (Vec::new(), budget, false);
        for (index, metric) in view.metrics.iter().enumerate() {
            let (value, is_cut) = value(metric, view.value_micros(index));
            let value = Shown(value);
            let Some(rest) = left.checked_sub(metric_cost(metric.name, &value)) else {
                cut = true;
                break;
            };
            (left, cut) = (rest, cut || is_cut);
            metrics.push(Metric {
                name: metric.name.map(str::to_owned),
                alias: metric.alias.map(|alias| Shown(Some(Value::UInt64(alias)))),
                data_type: type_name(metric),
                special: value.0.as_ref().and_then(special),
                v: value,
                t: view.time(index).map(|time| time.to_string()),
                q: view.quality(index).to_string(),
                historical: metric.is_historical,
            });
        }
        let timestamp = view.timestamp.and_then(time_of).map(|time| time.to_string());
        (Sparkplug { timestamp, seq: view.seq, metrics_count: view.metrics.len(), metrics }, cut)
    }
}

/// Whether the topic says that its payload is Sparkplug's; STATE is JSON.
fn is_sparkplug(topic: &str) -> bool {
    let topic = topic.strip_prefix("$sparkplug/certificates/").unwrap_or(topic);
    matches!(Topic::parse(topic), Some(Topic::Node { .. }))
}

/// Numbers and the like alone are text: they read the same.
fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn is_readable(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() && !matches!(character, '\t' | '\n' | '\r'))
}

/// The first bytes, up to the end of a character.
fn head(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or("")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").ok(); // a String takes everything
        text
    })
}

fn metric_cost(name: Option<&str>, value: &Shown) -> usize {
    let value = match &value.0 {
        Some(Value::String(text)) => text.len(),
        Some(Value::Bytes(bytes)) => bytes.len() / 3 * 4,
        _ => 16,
    };
    METRIC_COST + name.map_or(0, str::len) + value
}

/// The value, and whether it is cut. Without a type it is shown as it lies on the wire.
fn value(metric: &MetricView<'_>, micros: u16) -> (Option<Value>, bool) {
    if metric.has_no_value() {
        return (None, false);
    }
    match metric.value {
        WireValue::String(text) if text.len() > VALUE_SHOWN_BYTES => {
            return (Some(Value::String(head(text, VALUE_SHOWN_BYTES).to_owned())), true);
        }
        WireValue::Bytes(bytes) if bytes.len() > VALUE_SHOWN_BYTES => {
            return (bytes.get(..VALUE_SHOWN_BYTES).map(|bytes| Value::Bytes(bytes.to_vec())), true);
        }
        _ => {}
    }
    let typed = metric.datatype.and_then(DataType::from_code);
    let value = typed.and_then(|data_type| metric.value.to_value(data_type, micros));
    (value.or_else(|| as_it_lies(metric.value)), false)
}

fn as_it_lies(value: WireValue<'_>) -> Option<Value> {
    match value {
        WireValue::Int(number) => Some(Value::UInt32(number)),
        WireValue::Long(number) => Some(Value::UInt64(number)),
        WireValue::Float(number) => Some(Value::Float(number)),
        WireValue::Double(number) => Some(Value::Double(number)),
        WireValue::Boolean(boolean) => Some(Value::Boolean(boolean)),
        WireValue::String(text) => Some(Value::String(text.to_owned())),
        WireValue::Bytes(bytes) => Some(Value::Bytes(bytes.to_vec())),
        WireValue::None | WireValue::Unsupported(_) => None,
    }
}

fn type_name(metric: &MetricView<'_>) -> Option<String> {
    if let WireValue::Unsupported(name) = metric.value {
        return Some(name.to_owned());
    }
    let code = metric.datatype?;
    Some(DataType::from_code(code).map_or_else(|| format!("type {code}"), |known| known.name().to_owned()))
}

/// Milliseconds since 1970 as a time, if there is such a time.
fn time_of(millis: u64) -> Option<Timestamp> {
    Some(Timestamp(i64::try_from(millis).ok()?.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Quality;
    use proto::sparkplug::encode::{BirthMetric, birth};
    use serde_json::{Value as Json, json};

    fn shown(topic: &str, bytes: &[u8], budget: usize) -> Json {
        serde_json::to_value(Payload::of(topic, bytes, budget)).unwrap()
    }

    fn a_birth(count: u64, value: &Value) -> Vec<u8> {
        let now = Timestamp(1_790_000_000_000_000);
        let names: Vec<String> = (0..count).map(|number| format!("metric {number}")).collect();
        let metric = |(name, alias)| BirthMetric {
            name,
            alias: Some(alias),
            data_type: value.data_type(),
            value: Some(value),
            time: now,
            quality: Quality::GOOD,
            definition: None,
        };
        let metrics: Vec<_> = names.iter().map(String::as_str).zip(0..).map(metric).collect();
        let mut bytes = Vec::new();
        birth(7, now, &metrics, None, &mut bytes);
        bytes
    }

    #[test]
    fn sparkplug_is_shown_by_its_metrics() {
        let bytes = a_birth(2, &Value::Double(21.5));
        for topic in ["spBv1.0/g/DBIRTH/n/d", "$sparkplug/certificates/spBv1.0/g/NBIRTH/n"] {
            let payload = shown(topic, &bytes, 1000);
            assert_eq!((&payload["kind"], &payload["bytes"]), (&json!("sparkplug"), &json!(bytes.len())));
            let sparkplug = &payload["sparkplug"];
            assert_eq!((&sparkplug["seq"], &sparkplug["metrics_count"]), (&json!(7), &json!(2)));
            let metric = &sparkplug["metrics"][1];
            let time = "2026-09-21T14:13:20.000000Z";
            let expected = json!({"name": "metric 1", "alias": 1, "type": "double", "v": 21.5, "t": time, "q": "good",
                "historical": false});
            assert_eq!(metric, &expected);
        }
        let elsewhere = shown("some/topic", &bytes, 1000);
        assert_eq!(elsewhere["kind"], "hex", "the topic decides");
    }

    #[test]
    fn what_claims_to_be_sparkplug_and_is_not_says_why() {
        let payload = shown("spBv1.0/g/NDATA/n", b"hello", 1000);
        assert_eq!((&payload["kind"], &payload["text"]), (&json!("text"), &json!("hello")));
        assert!(payload["problem"].as_str().unwrap().contains("malformed"), "{payload}");
        let state = shown("spBv1.0/STATE/h", br#"{"online":true,"timestamp":1}"#, 1000);
        assert_eq!((&state["kind"], &state["problem"]), (&json!("json"), &Json::Null));
    }

    #[test]
    fn json_text_and_bytes_are_told_apart() {
        let kind = |bytes: &[u8]| shown("a/b", bytes, 1000)["kind"].as_str().unwrap().to_owned();
        assert_eq!(kind(br#" {"a":[1,2.50]}"#), "json");
        assert_eq!(kind(b"[1"), "text");
        assert_eq!(kind(b"21.5"), "text");
        assert_eq!(kind("Öl\n".as_bytes()), "text");
        assert_eq!(kind(b"a\0b"), "hex");
        assert_eq!(kind(&[0xff, 0xfe]), "hex");
        assert_eq!(kind(b""), "empty");
        assert_eq!(kind("[".repeat(100_000).as_bytes()), "text", "depth is bounded");
        assert_eq!(shown("a", &[0, 255, 16], 1000)["text"], "00ff10");
    }

    #[test]
    fn budgets_hold_and_cuts_are_marked() {
        let text = "ä".repeat(1000);
        let payload = shown("a", text.as_bytes(), 101);
        assert_eq!((&payload["cut"], &payload["bytes"]), (&json!(true), &json!(2000)));
        assert_eq!(payload["text"].as_str().unwrap().len(), 100);
        assert_eq!(shown("a", &[0; 100], 100)["text"].as_str().unwrap().len(), 100);
        let document = format!("[{}1]", "1,".repeat(1000));
        let payload = shown("a", document.as_bytes(), 100);
        assert_eq!((&payload["kind"], &payload["cut"]), (&json!("json"), &json!(true)));

        let births = a_birth(1000, &Value::Boolean(true));
        let payload = Payload::of("spBv1.0/g/NBIRTH/n", &births, 10_000);
        assert!(payload.cut && payload.cost() <= 10_000, "{}", payload.cost());
        let sparkplug = payload.sparkplug.as_ref().unwrap();
        assert!(sparkplug.metrics.len() > 50 && sparkplug.metrics_count == 1000);
        assert!(serde_json::to_string(&payload).unwrap().len() < 30_000);
        let long = a_birth(1, &Value::String("x".repeat(10_000)));
        let payload = shown("spBv1.0/g/NBIRTH/n", &long, 60_000);
        assert_eq!(payload["cut"], true);
        assert_eq!(payload["sparkplug"]["metrics"][0]["v"].as_str().unwrap().len(), VALUE_SHOWN_BYTES);
    }
}
