//! Our decoder agrees with prost on every byte string, and with sparkplug-rs on every payload that it accepts.
//!
//! Sources of bytes: valid payloads of every shape, the same damaged and joined, arbitrary fields nested at random,
//! nearly valid payloads (shaped.rs), and plain bytes. The last two are fuzz targets:
//! `cargo bolero test sparkplug::decode::tests::shaped_bytes_agree` runs one without end.

mod generator;
mod shaped;

use bolero::check;
use model::Reason;
use model::limits::PAYLOAD_DEPTH_MAX;
use proptest::prelude::*;
use prost::Message as _;
use sparkplug_rs::protobuf::Message as _;

use super::*;
use crate::account::Account;
use crate::generated::sparkplug as wire;

/// Reads the bytes with both decoders and compares everything; whether both accept.
fn agree(bytes: &[u8]) -> bool {
    let theirs = wire::Payload::decode(bytes);
    match (PayloadView::decode(bytes), theirs) {
        (Err(DecodeError::TooMany { .. }), _) | (Err(_), Err(_)) => false,
        (Ok(view), Ok(payload)) => {
            assert!(extension_follows_our_rules(&payload), "accepted against our rules: {payload:?}");
            same_payload(&view, &payload);
            same_as_sparkplug_rs(&view, bytes, &payload);
            true
        }
        (Err(error), Ok(payload)) => {
            assert!(!extension_follows_our_rules(&payload), "{error}, but prost reads {payload:?}");
            false
        }
        (Ok(view), Err(error)) => panic!("prost says {error}, but we read {view:?}"),
    }
}

fn extension_follows_our_rules(payload: &wire::Payload) -> bool {
    let is_epoch = |epoch: Option<u64>| epoch.is_some_and(|epoch| epoch != 0 && epoch >> 63 == 0);
    let record = payload.forebay_record.as_ref().is_none_or(|record| {
        let count = payload.metrics.len();
        is_epoch(record.epoch)
            && record.offset.is_some_and(|offset| record.held.unwrap_or(0) <= offset)
            && record.offset.unwrap_or(0).checked_add(record.ahead.unwrap_or(1)).is_some()
            && record.ahead != Some(0)
            && record.accepted_at.is_some()
            && record.time_micros.len() <= count
            && record.quality.len() <= count
            && record.value_micros.len() <= count
            && record.time_micros.iter().chain(&record.value_micros).all(|micros| *micros < 1000)
            && record.quality.iter().all(|bits| Quality::from_bits(*bits).is_some())
    });
    let birth = payload.forebay_birth.as_ref().is_none_or(|birth| {
        birth.agent_time.is_some()
            && birth.epochs.iter().all(|epoch| is_epoch(epoch.epoch) && epoch.first_held() <= epoch.end())
    });
    let command = payload.forebay_command.as_ref().is_none_or(|command| {
        command.id.as_ref().is_some_and(|id| id.len() == 16) && command.expires_at.is_some()
    });
    record && birth && command
}

fn same_payload(view: &PayloadView<'_>, payload: &wire::Payload) {
    assert_eq!(view.timestamp, payload.timestamp);
    assert_eq!(view.seq, payload.seq);
    assert_eq!(view.uuid, payload.uuid.as_deref());
    assert_eq!(view.body, payload.body.as_deref());
    assert_eq!(view.metrics.len(), payload.metrics.len());
    for (ours, theirs) in view.metrics.iter().zip(&payload.metrics) {
        same_metric(ours, theirs);
    }
    let account = |a: &wire::Account| Account { count: a.count(), checksum: a.checksum() };
    assert_eq!(view.record.is_some(), payload.forebay_record.is_some());
    if let (Some(ours), Some(theirs)) = (&view.record, &payload.forebay_record) {
        assert_eq!((ours.id.epoch.0, ours.id.offset.0), (theirs.epoch(), theirs.offset()));
        assert_eq!(ours.first_held, theirs.offset() - theirs.held());
        assert_eq!(ours.accepted_end, theirs.offset() + theirs.ahead.unwrap_or(1));
        assert_eq!(ours.accepted_at.0, theirs.accepted_at());
        assert_eq!(ours.account, theirs.account.as_ref().map(account));
        assert_eq!(view.time_micros, theirs.time_micros);
        assert_eq!(view.quality, theirs.quality);
        assert_eq!(view.value_micros, theirs.value_micros);
    }
    assert_eq!(view.health, payload.forebay_health.as_deref());
    assert_eq!(view.birth.is_some(), payload.forebay_birth.is_some());
    if let (Some(ours), Some(theirs)) = (&view.birth, &payload.forebay_birth) {
        assert_eq!((ours.agent_time.0, ours.version.as_str()), (theirs.agent_time(), theirs.version()));
        assert_eq!(ours.epochs.len(), theirs.epochs.len());
        for (ours, theirs) in ours.epochs.iter().zip(&theirs.epochs) {
            assert_eq!(
                (ours.epoch.0, ours.first_held, ours.end),
                (theirs.epoch(), theirs.first_held(), theirs.end())
            );
            assert_eq!(ours.before, theirs.before.as_ref().map(account).unwrap_or_default());
            assert_eq!(ours.total, theirs.total.as_ref().map(account).unwrap_or_default());
        }
    }
    assert_eq!(view.command.is_some(), payload.forebay_command.is_some());
    if let (Some(ours), Some(theirs)) = (&view.command, &payload.forebay_command) {
        assert_eq!((&ours.id.0[..], ours.expires_at.0), (theirs.id(), theirs.expires_at()));
        assert_eq!((ours.author.as_str(), ours.reason.as_str()), (theirs.author(), theirs.reason()));
    }
}

fn same_metric(ours: &MetricView<'_>, theirs: &wire::Metric) {
    use wire::metric::Value as Theirs;
    assert_eq!(ours.name, theirs.name.as_deref());
    assert_eq!(ours.alias, theirs.alias);
    assert_eq!(ours.timestamp, theirs.timestamp);
    assert_eq!(ours.datatype, theirs.datatype);
    assert_eq!(ours.is_historical, theirs.is_historical());
    assert_eq!(ours.is_transient, theirs.is_transient());
    assert_eq!(ours.is_null, theirs.is_null());
    let expected = match &theirs.value {
        None => WireValue::None,
        Some(Theirs::IntValue(v)) => WireValue::Int(*v),
        Some(Theirs::LongValue(v)) => WireValue::Long(*v),
        Some(Theirs::FloatValue(v)) => WireValue::Float(*v),
        Some(Theirs::DoubleValue(v)) => WireValue::Double(*v),
        Some(Theirs::BooleanValue(v)) => WireValue::Boolean(*v),
        Some(Theirs::StringValue(v)) => WireValue::String(v),
        Some(Theirs::BytesValue(v)) => WireValue::Bytes(v),
        Some(Theirs::DatasetValue(_)) => WireValue::Unsupported("DataSet"),
        Some(Theirs::TemplateValue(_)) => WireValue::Unsupported("Template"),
        Some(Theirs::ExtensionValue(_)) => WireValue::Unsupported("extension"),
    };
    assert!(same_value(ours.value, expected), "{:?} is not {expected:?}", ours.value);
    assert_eq!(ours.properties.is_some(), theirs.properties.is_some());
    let Some(set) = &theirs.properties else { return };
    for (index, key) in set.keys.iter().enumerate().filter(|(at, key)| !set.keys[..*at].contains(key)) {
        let expected = set.values.get(index).and_then(scalar_property);
        match (ours.property(key), expected) {
            (None, None) => {}
            (Some(a), Some(b)) => assert!(same_value(a, b), "{key}: {a:?} is not {b:?}"),
            (a, b) => panic!("{key}: {a:?} is not {b:?}"),
        }
    }
    assert_eq!(ours.property("no such key"), None);
}

fn scalar_property(value: &wire::PropertyValue) -> Option<WireValue<'_>> {
    use wire::property_value::Value as Theirs;
    if value.is_null() {
        return Some(WireValue::None);
    }
    match &value.value {
        None => Some(WireValue::None),
        Some(Theirs::IntValue(v)) => Some(WireValue::Int(*v)),
        Some(Theirs::LongValue(v)) => Some(WireValue::Long(*v)),
        Some(Theirs::FloatValue(v)) => Some(WireValue::Float(*v)),
        Some(Theirs::DoubleValue(v)) => Some(WireValue::Double(*v)),
        Some(Theirs::BooleanValue(v)) => Some(WireValue::Boolean(*v)),
        Some(Theirs::StringValue(v)) => Some(WireValue::String(v)),
        _ => None,
    }
}

/// Equal, and a NaN equals one with the same bits.
fn same_value(a: WireValue<'_>, b: WireValue<'_>) -> bool {
    match (a, b) {
        (WireValue::Float(a), WireValue::Float(b)) => a.to_bits() == b.to_bits(),
        (WireValue::Double(a), WireValue::Double(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

/// What we accept, sparkplug-rs accepts, and reads the same in every field of the standard.
///
/// One exception: of a 32-bit number with more bits protobuf (and prost) takes the lower ones, sparkplug-rs refuses
/// it. Then the payload as prost writes it again must be read.
fn same_as_sparkplug_rs(view: &PayloadView<'_>, bytes: &[u8], payload: &wire::Payload) {
    use sparkplug_rs::payload::metric::Value as Theirs;
    let theirs = sparkplug_rs::Payload::parse_from_bytes(bytes)
        .or_else(|error| {
            let error = error.to_string();
            assert!(error.contains("varint") || error.contains("too large for u32"), "sparkplug-rs: {error}");
            sparkplug_rs::Payload::parse_from_bytes(&payload.encode_to_vec())
        })
        .expect("sparkplug-rs reads it");
    assert_eq!(view.timestamp, theirs.timestamp);
    assert_eq!(view.seq, theirs.seq);
    assert_eq!(view.uuid, theirs.uuid.as_deref());
    assert_eq!(view.body, theirs.body.as_deref());
    assert_eq!(view.metrics.len(), theirs.metrics.len());
    for (ours, theirs) in view.metrics.iter().zip(&theirs.metrics) {
        assert_eq!(ours.name, theirs.name.as_deref());
        assert_eq!(ours.alias, theirs.alias);
        assert_eq!(ours.timestamp, theirs.timestamp);
        assert_eq!(ours.datatype, theirs.datatype);
        assert_eq!(ours.is_historical, theirs.is_historical());
        assert_eq!(ours.is_transient, theirs.is_transient());
        assert_eq!(ours.is_null, theirs.is_null());
        let expected = match &theirs.value {
            None => WireValue::None,
            Some(Theirs::IntValue(v)) => WireValue::Int(*v),
            Some(Theirs::LongValue(v)) => WireValue::Long(*v),
            Some(Theirs::FloatValue(v)) => WireValue::Float(*v),
            Some(Theirs::DoubleValue(v)) => WireValue::Double(*v),
            Some(Theirs::BooleanValue(v)) => WireValue::Boolean(*v),
            Some(Theirs::StringValue(v)) => WireValue::String(v),
            Some(Theirs::BytesValue(v)) => WireValue::Bytes(v),
            Some(Theirs::DatasetValue(_)) => WireValue::Unsupported("DataSet"),
            Some(Theirs::TemplateValue(_)) => WireValue::Unsupported("Template"),
            Some(_) => WireValue::Unsupported("extension"),
        };
        assert!(same_value(ours.value, expected), "{:?} is not {expected:?}", ours.value);
    }
}

const CASES: u32 = 400;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn valid_payloads_agree(payload in generator::payload()) {
        let bytes = payload.encode_to_vec();
        agree(&bytes);
        let mut plain = payload;
        (plain.forebay_record, plain.forebay_birth, plain.forebay_command) = (None, None, None);
        prop_assert!(agree(&plain.encode_to_vec()), "a payload of the standard is accepted");
    }

    /// Written by sparkplug-rs, with the extension among its unknown fields, which it keeps.
    #[test]
    fn what_sparkplug_rs_writes_is_read_the_same(payload in generator::payload()) {
        let read = sparkplug_rs::Payload::parse_from_bytes(&payload.encode_to_vec()).unwrap();
        let again = read.write_to_bytes().unwrap();
        prop_assert_eq!(&wire::Payload::decode(&again[..]).unwrap().metrics, &payload.metrics);
        agree(&again);
    }

    #[test]
    fn damaged_payloads_agree(
        payload in generator::payload(),
        damage in proptest::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = payload.encode_to_vec();
        for (kind, at, byte) in damage {
            let at = at % (bytes.len() + 1);
            match kind % 4 {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 if at < bytes.len() => bytes[at] ^= byte,
                _ => bytes.truncate(at),
            }
        }
        agree(&bytes);
    }

    /// Protobuf merges messages that are joined: the last singular field counts, sub-messages merge.
    #[test]
    fn joined_payloads_agree(first in generator::payload(), second in generator::payload()) {
        let mut bytes = first.encode_to_vec();
        bytes.extend_from_slice(&second.encode_to_vec());
        agree(&bytes);
    }

    /// A metric with the fields of two: oneofs are overwritten, property sets merge.
    #[test]
    fn joined_metrics_agree(first in generator::metric(), second in generator::metric()) {
        let mut metric = first.encode_to_vec();
        metric.extend_from_slice(&second.encode_to_vec());
        let mut bytes = vec![2 << 3 | 2];
        varint_put(metric.len(), &mut bytes);
        bytes.extend_from_slice(&metric);
        prop_assert!(agree(&bytes));
    }

    #[test]
    fn arbitrary_fields_agree(bytes in generator::fields()) {
        agree(&bytes);
    }
}

fn varint_put(value: usize, out: &mut Vec<u8>) {
    crate::varint::put(value as u64, out);
}

#[test]
fn arbitrary_bytes_agree() {
    check!().with_iterations(30_000).for_each(|bytes: &[u8]| {
        agree(bytes);
        // The same bytes inside a metric, and inside each part of the extension.
        for tag in [2u64, 1180, 1181, 1182] {
            let mut nested = Vec::new();
            crate::varint::put(tag << 3 | 2, &mut nested);
            varint_put(bytes.len(), &mut nested);
            nested.extend_from_slice(bytes);
            agree(&nested);
        }
    });
}

#[test]
fn shaped_bytes_agree() {
    let accepted = std::sync::atomic::AtomicU32::new(0);
    check!().with_iterations(30_000).with_max_len(400).for_each(|entropy: &[u8]| {
        let both = agree(&shaped::payload(entropy));
        accepted.fetch_add(u32::from(both), std::sync::atomic::Ordering::Relaxed);
    });
    println!("accepted {accepted:?}");
}

/// `levels` templates, each in a metric of the one before.
fn templates(levels: usize) -> wire::Payload {
    let mut metric = wire::Metric::default();
    for _ in 0..levels {
        let template = wire::Template { metrics: vec![metric], ..Default::default() };
        let value = Some(wire::metric::Value::TemplateValue(template));
        metric = wire::Metric { value, ..Default::default() };
    }
    wire::Payload { metrics: vec![metric], ..Default::default() }
}

#[test]
fn nesting_is_bounded() {
    assert!(agree(&templates(PAYLOAD_DEPTH_MAX).encode_to_vec()));
    let refused = Err(DecodeError::TooMany { what: "levels of nesting", limit: PAYLOAD_DEPTH_MAX });
    assert_eq!(PayloadView::decode(&templates(PAYLOAD_DEPTH_MAX + 1).encode_to_vec()), refused);
    let groups = vec![7 << 3 | 3; 1_000_000];
    assert_eq!(PayloadView::decode(&groups), refused);
    let open = [7 << 3 | 3, 7 << 3 | 4, 8 << 3 | 3];
    assert!(agree(&open[..2]));
    assert!(!agree(&open));
}

#[test]
fn metrics_are_bounded() {
    let bytes = |count: usize| [2 << 3 | 2, 0].repeat(count);
    assert!(PayloadView::decode(&bytes(PAYLOAD_METRICS_MAX)).is_ok());
    let refused = Err(DecodeError::TooMany { what: "metrics", limit: PAYLOAD_METRICS_MAX });
    assert_eq!(PayloadView::decode(&bytes(PAYLOAD_METRICS_MAX + 1)), refused);
}

#[test]
fn errors_name_the_byte() {
    // seq = 1, then a metric of five bytes of which three are there.
    let bytes = [3 << 3, 1, 2 << 3 | 2, 5, 0, 0, 0];
    let what = "a field is longer than its message";
    assert_eq!(PayloadView::decode(&bytes), Err(DecodeError::Malformed { what, at: 4 }));
    let bytes = [2 << 3 | 2, 3, 1 << 3 | 2, 1, 0xff, 3 << 3, 1];
    assert_eq!(
        PayloadView::decode(&bytes),
        Err(DecodeError::Malformed { what: "a text is no UTF-8", at: 5 })
    );
}

#[test]
fn integers_of_real_nodes_are_understood() {
    let int = |bits: u32, data_type| WireValue::Int(bits).to_value(data_type, 0);
    let long = |bits: u64, data_type| WireValue::Long(bits).to_value(data_type, 0);
    // Tahu for Python writes the value's own width, Tahu for Java 32 bits, some nodes always long_value.
    for minus_one in
        [int(0xff, DataType::Int8), int(u32::MAX, DataType::Int8), long(u64::MAX, DataType::Int8)]
    {
        assert_eq!(minus_one, Some(Value::Int8(-1)));
    }
    assert_eq!(int(0xffff, DataType::Int16), Some(Value::Int16(-1)));
    assert_eq!(int(0xffff_8000, DataType::Int16), Some(Value::Int16(i16::MIN)));
    assert_eq!(int(u32::MAX, DataType::Int32), Some(Value::Int32(-1)));
    assert_eq!(long(0xffff_ffff, DataType::Int32), Some(Value::Int32(-1)));
    assert_eq!(long(u64::MAX, DataType::Int64), Some(Value::Int64(-1)));
    assert_eq!(int(u32::MAX, DataType::Int64), Some(Value::Int64(-1)));
    assert_eq!(long(7, DataType::UInt32), Some(Value::UInt32(7)));
    assert_eq!(int(7, DataType::UInt64), Some(Value::UInt64(7)));
    for misfit in [
        int(300, DataType::Int8),
        int(256, DataType::UInt8),
        int(0xffff_7fff, DataType::Int16),
        long(1 << 32, DataType::Int32),
        long(1 << 32, DataType::UInt32),
        WireValue::Double(1.0).to_value(DataType::Int32, 0),
        WireValue::Int(1).to_value(DataType::Boolean, 0),
        WireValue::Unsupported("Template").to_value(DataType::String, 0),
        WireValue::Double(0.1).to_value(DataType::Float, 0),
    ] {
        assert_eq!(misfit, None);
    }
    assert_eq!(WireValue::Double(0.5).to_value(DataType::Float, 0), Some(Value::Float(0.5)));
    assert_eq!(WireValue::Float(0.5).to_value(DataType::Double, 0), Some(Value::Double(0.5)));
    let early = WireValue::Long((-5i64).cast_unsigned()).to_value(DataType::DateTime, 250);
    assert_eq!(early, Some(Value::DateTime(Timestamp(-4750))));
}

#[test]
fn a_foreign_node_says_quality_by_property_and_time_by_payload() {
    let quality = |code: u32| {
        let value = wire::PropertyValue {
            r#type: Some(3),
            is_null: None,
            value: Some(wire::property_value::Value::IntValue(code)),
        };
        let properties =
            wire::PropertySet { keys: vec!["x".into(), "Quality".into()], values: vec![value; 2] };
        wire::Metric { properties: Some(properties), ..Default::default() }
    };
    let metrics = vec![quality(192), quality(500), quality(0), quality(12), wire::Metric::default()];
    let bytes = wire::Payload { timestamp: Some(5), metrics, ..Default::default() }.encode_to_vec();
    let view = PayloadView::decode(&bytes).unwrap();
    let expected = [
        Quality::GOOD,
        Quality::stale(Reason::SourceMarked),
        Quality::bad(Reason::SourceMarked),
        Quality::from_sparkplug_code(12),
        Quality::GOOD,
    ];
    for (index, expected) in expected.into_iter().enumerate() {
        assert_eq!((view.quality(index), view.time(index)), (expected, Some(Timestamp(5000))));
    }
    assert_eq!((view.time(5), view.quality(5), view.value(5, DataType::Int8)), (None, Quality::GOOD, None));
}
