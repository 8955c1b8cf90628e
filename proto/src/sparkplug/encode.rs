//! Payloads of an edge node and of a host, written straight into bytes.
//!
//! Fields are written in the order of their numbers. Integers of 8 and 16 bits go into `int_value` as two's
//! complement of their own width (Int8 -1 is 255): readers that mask and readers that subtract agree on it.
//! Property types are Sparkplug's: Int32 for `Quality`, String, Double, Boolean.

mod field;

use model::{DataType, PointDefinition, PointId, Quality, Sample, SampleBatch, Timestamp, Value};

use self::field::{bytes, double, fixed64, flag, float, nested, number, packed, signed, text};
use super::{BirthHead, CommandHead, RecordHead};
use crate::account::Account;
use crate::health::HealthReport;

/// A metric of a birth: definition and present state.
#[derive(Clone, Debug)]
pub struct BirthMetric<'a> {
    /// Metric name.
    pub name: &'a str,
    /// Alias for later data; `None` where the standard forbids it (`bdSeq`, `Node Control/*`).
    pub alias: Option<u64>,
    /// Type.
    pub data_type: DataType,
    /// Present value.
    pub value: Option<&'a Value>,
    /// Source time of it.
    pub time: Timestamp,
    /// Its quality, written as the `Quality` property (192, 500 or 0).
    pub quality: Quality,
    /// Written as properties: `path`, `engUnit`, `engLow`, `engHigh`, `readOnly`, `description`, `deadBand`.
    pub definition: Option<&'a PointDefinition>,
}

/// Writes an NBIRTH (`head` given, `seq` 0) or DBIRTH. Metric timestamps and values are exact to the ms.
pub fn birth(
    seq: u8,
    now: Timestamp,
    metrics: &[BirthMetric<'_>],
    head: Option<&BirthHead>,
    out: &mut Vec<u8>,
) {
    number(1, millis(now), out);
    for metric in metrics {
        nested(2, out, |out| birth_metric(metric, out));
    }
    number(3, u64::from(seq), out);
    if let Some(head) = head {
        nested(1181, out, |out| birth_extension(head, out));
    }
}

/// Writes a record as DDATA or NDATA: metrics in record order by alias, with the extension.
///
/// `historical` sets `is_historical` on every metric. `typed` says of a point whether its datatype has to be written,
/// because the value's type is not the one in the present birth. A quality other than Good is written both
/// exactly (extension) and as the `Quality` property, so that foreign readers see it.
#[expect(clippy::too_many_arguments, reason = "a session's state, a record, and where to write it")]
pub fn data(
    seq: u8,
    now: Timestamp,
    batch: &SampleBatch,
    head: &RecordHead,
    historical: bool,
    typed: &dyn Fn(&Sample) -> bool,
    alias: &dyn Fn(PointId) -> u64,
    out: &mut Vec<u8>,
) {
    number(1, millis(now), out);
    for sample in &batch.samples {
        nested(2, out, |out| {
            number(2, alias(sample.point), out);
            number(3, millis(sample.time), out);
            if let Some(value) = sample.value.as_ref().filter(|_| typed(sample)) {
                number(4, u64::from(value.data_type().code()), out);
            }
            if historical {
                flag(5, true, out);
            }
            if sample.value.is_none() {
                flag(7, true, out);
            }
            if !sample.quality.is_good() {
                nested(9, out, |out| {
                    text(1, QUALITY, out);
                    property_int(sample.quality.sparkplug_code(), out);
                });
            }
            if let Some(value) = &sample.value {
                metric_value(value, out);
            }
        });
    }
    number(3, u64::from(seq), out);
    nested(1180, out, |out| record_extension(head, &batch.samples, out));
}

/// Writes an NDEATH (will): `bdSeq` only, no `seq` (tck-id-payloads-ndeath-*).
pub fn node_death(bd_seq: u8, now: Timestamp, out: &mut Vec<u8>) {
    number(1, millis(now), out);
    nested(2, out, |out| {
        text(1, "bdSeq", out);
        number(3, millis(now), out);
        number(4, u64::from(DataType::Int64.code()), out);
        metric_value(&Value::Int64(i64::from(bd_seq)), out);
    });
}

/// Writes an NDATA that reports an agent's health and nothing else: it has no metrics.
pub fn health(seq: u8, now: Timestamp, report: &HealthReport, out: &mut Vec<u8>) {
    number(1, millis(now), out);
    number(3, u64::from(seq), out);
    bytes(1184, &report.encode(), out);
}

/// Writes a DDEATH.
pub fn device_death(seq: u8, now: Timestamp, out: &mut Vec<u8>) {
    number(1, millis(now), out);
    number(3, u64::from(seq), out);
}

/// Writes an NCMD or DCMD with one metric by name (and alias if known).
pub fn command(
    now: Timestamp,
    name: &str,
    alias: Option<u64>,
    value: &Value,
    head: Option<&CommandHead>,
    out: &mut Vec<u8>,
) {
    number(1, millis(now), out);
    nested(2, out, |out| {
        text(1, name, out);
        if let Some(alias) = alias {
            number(2, alias, out);
        }
        number(3, millis(now), out);
        number(4, u64::from(value.data_type().code()), out);
        metric_value(value, out);
    });
    if let Some(head) = head {
        nested(1182, out, |out| {
            bytes(1, &head.id.0, out);
            signed(2, head.expires_at.0, out);
            text(3, &head.author, out);
            text(4, &head.reason, out);
        });
    }
}

/// Name of the standard's quality property.
pub(super) const QUALITY: &str = "Quality";

/// ms since 1970 as Sparkplug has them; times before 1970 as two's complement.
#[expect(clippy::cast_sign_loss, reason = "the bits are kept; the decoder takes them back")]
const fn millis(time: Timestamp) -> u64 {
    time.millis() as u64
}

fn birth_metric(metric: &BirthMetric<'_>, out: &mut Vec<u8>) {
    text(1, metric.name, out);
    if let Some(alias) = metric.alias {
        number(2, alias, out);
    }
    number(3, millis(metric.time), out);
    number(4, u64::from(metric.data_type.code()), out);
    if metric.value.is_none() {
        flag(7, true, out);
    }
    if metric.definition.is_some() || !metric.quality.is_good() {
        nested(9, out, |out| properties(metric, out));
    }
    if let Some(value) = metric.value {
        metric_value(value, out);
    }
}

/// A property set is two lists, keys and values: first all keys, then as many values.
fn properties(metric: &BirthMetric<'_>, out: &mut Vec<u8>) {
    let mut values = Vec::with_capacity(128);
    if !metric.quality.is_good() {
        text(1, QUALITY, out);
        property_int(metric.quality.sparkplug_code(), &mut values);
    }
    if let Some(definition) = metric.definition {
        let texts = [
            ("path", definition.path.as_str()),
            ("engUnit", &definition.unit),
            ("description", &definition.description),
        ];
        for (key, content) in texts.into_iter().filter(|(_, content)| !content.is_empty()) {
            text(1, key, out);
            property(DataType::String, &mut values, |out| text(8, content, out));
        }
        let numbers =
            [("engLow", definition.min), ("engHigh", definition.max), ("deadBand", definition.dead_band)];
        for (key, content) in numbers {
            if let Some(content) = content {
                text(1, key, out);
                property(DataType::Double, &mut values, |out| double(6, content, out));
            }
        }
        text(1, "readOnly", out);
        property(DataType::Boolean, &mut values, |out| flag(7, !definition.writable, out));
    }
    out.extend_from_slice(&values);
}

fn property(data_type: DataType, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    nested(2, out, |out| {
        number(1, u64::from(data_type.code()), out);
        write(out);
    });
}

fn property_int(value: u16, out: &mut Vec<u8>) {
    property(DataType::Int32, out, |out| number(3, u64::from(value), out));
}

#[expect(
    clippy::cast_sign_loss,
    reason = "two's complement of the value's own width is what the standard wants"
)]
fn metric_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Int8(v) => number(10, u64::from(*v as u8), out),
        Value::Int16(v) => number(10, u64::from(*v as u16), out),
        Value::Int32(v) => number(10, u64::from(*v as u32), out),
        Value::Int64(v) => number(11, *v as u64, out),
        Value::UInt8(v) => number(10, u64::from(*v), out),
        Value::UInt16(v) => number(10, u64::from(*v), out),
        Value::UInt32(v) => number(10, u64::from(*v), out),
        Value::UInt64(v) => number(11, *v, out),
        Value::Float(v) => float(12, *v, out),
        Value::Double(v) => double(13, *v, out),
        Value::Boolean(v) => flag(14, *v, out),
        Value::String(v) => text(15, v, out),
        Value::DateTime(v) => number(11, millis(*v), out),
        Value::Bytes(v) => bytes(16, v, out),
    }
}

fn record_extension(head: &RecordHead, samples: &[Sample], out: &mut Vec<u8>) {
    let offset = head.id.offset.0;
    fixed64(1, head.id.epoch.0, out);
    number(2, offset, out);
    number(3, offset.saturating_sub(head.first_held), out);
    number(4, head.accepted_end.saturating_sub(offset).max(1), out);
    signed(5, head.accepted_at.0, out);
    packed(6, samples, |sample| u32::from(sample.time.micros_of_milli()), out);
    packed(7, samples, |sample| sample.quality.bits(), out);
    let value_micros = |sample: &Sample| match sample.value {
        Some(Value::DateTime(time)) => u32::from(time.micros_of_milli()),
        _ => 0,
    };
    packed(8, samples, value_micros, out);
    if let Some(held) = &head.account {
        nested(9, out, |out| account(held, out));
    }
    if let Some(counts) = head.counts {
        nested(10, out, |out| {
            let numbers = [counts.read, counts.dead_band, counts.quarantined, counts.made];
            (1..).zip(numbers).for_each(|(tag, count)| number(tag, count, out));
        });
    }
}

fn birth_extension(head: &BirthHead, out: &mut Vec<u8>) {
    for epoch in &head.epochs {
        nested(1, out, |out| {
            fixed64(1, epoch.epoch.0, out);
            number(2, epoch.first_held, out);
            number(3, epoch.end, out);
            nested(4, out, |out| account(&epoch.before, out));
            nested(5, out, |out| account(&epoch.total, out));
        });
    }
    signed(2, head.agent_time.0, out);
    text(3, &head.version, out);
    if let Some(percent) = head.outbox_used {
        number(4, u64::from(percent), out);
    }
}

fn account(account: &Account, out: &mut Vec<u8>) {
    number(1, account.count, out);
    fixed64(2, account.checksum, out);
}

#[cfg(test)]
mod tests;
