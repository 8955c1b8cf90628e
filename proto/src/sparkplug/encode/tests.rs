//! What is encoded is read back the same, by our decoder and by sparkplug-rs (rust-protobuf).

use std::collections::BTreeMap;

use model::{CommandId, Epoch, Offset, PointPath, QualityClass, Reason, RecordId};
use proptest::prelude::*;
use sparkplug_rs::protobuf::Message as _;

use super::*;
use crate::account::DeviceCounts;
use crate::sparkplug::{EpochAccount, PayloadView, WireValue};

const NOW: Timestamp = Timestamp(1_800_000_000_123_456);

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i8>().prop_map(Value::Int8),
        any::<i16>().prop_map(Value::Int16),
        any::<i32>().prop_map(Value::Int32),
        any::<i64>().prop_map(Value::Int64),
        any::<u8>().prop_map(Value::UInt8),
        any::<u16>().prop_map(Value::UInt16),
        any::<u32>().prop_map(Value::UInt32),
        any::<u64>().prop_map(Value::UInt64),
        any::<u32>().prop_map(|v| Value::Float(f32::from_bits(v))),
        any::<u64>().prop_map(|v| Value::Double(f64::from_bits(v))),
        any::<bool>().prop_map(Value::Boolean),
        ".{0,20}".prop_map(Value::String),
        (100..300usize).prop_map(|n| Value::String("ü".repeat(n))),
        any::<i64>().prop_map(|v| Value::DateTime(Timestamp(v))),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
    ]
}

fn quality() -> impl Strategy<Value = Quality> {
    let class = prop_oneof![
        Just(QualityClass::Good),
        Just(QualityClass::Uncertain),
        Just(QualityClass::Bad),
        Just(QualityClass::Stale)
    ];
    prop_oneof![
        2 => Just(Quality::GOOD),
        1 => (class, 0..Reason::ALL.len(), any::<u16>())
            .prop_map(|(class, at, detail)| Quality::with_detail(class, Reason::ALL[at], detail)),
    ]
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let one = (any::<u32>(), any::<i64>(), proptest::option::weighted(0.8, value()), quality()).prop_map(
        |(point, time, value, quality)| Sample {
            point: PointId(point),
            time: Timestamp(time),
            value,
            quality,
        },
    );
    proptest::collection::vec(one, 0..20)
}

fn head() -> impl Strategy<Value = RecordHead> {
    let account = proptest::option::of((any::<u64>(), any::<u64>()));
    let numbers = (1..=i64::MAX as u64, 0..u64::MAX / 2, 1..u64::MAX / 2, any::<u64>(), any::<i64>());
    let counts = proptest::option::of((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()));
    (numbers, account, counts).prop_map(|((epoch, offset, ahead, first, accepted_at), account, counts)| {
        RecordHead {
            id: RecordId { epoch: Epoch(epoch), offset: Offset(offset) },
            first_held: first % (offset + 1),
            accepted_end: offset + ahead,
            accepted_at: Timestamp(accepted_at),
            account: account.map(|(count, checksum)| Account { count, checksum }),
            counts: counts.map(|(read, dead_band, quarantined, made)| DeviceCounts {
                read,
                dead_band,
                quarantined,
                made,
            }),
        }
    })
}

proptest! {
    #[test]
    fn a_record_arrives_exactly(samples in samples(), head in head(), seq: u8, historical: bool, typed: bool) {
        let batch = SampleBatch { id: head.id, accepted_at: head.accepted_at, is_historical: false, samples };
        let mut bytes = Vec::new();
        data(seq, NOW, &batch, &head, historical, &|_| typed, &|p| u64::from(p.0) + 7, &mut bytes);
        let view = PayloadView::decode(&bytes).unwrap();
        prop_assert_eq!(view.record, Some(head));
        prop_assert_eq!((view.seq, view.timestamp), (Some(u64::from(seq)), Some(1_800_000_000_123)));
        prop_assert_eq!(view.metrics.len(), batch.samples.len());
        for (index, sample) in batch.samples.iter().enumerate() {
            let metric = &view.metrics[index];
            prop_assert_eq!(metric.alias, Some(u64::from(sample.point.0) + 7));
            prop_assert_eq!(metric.is_historical, historical);
            prop_assert_eq!(view.time(index), Some(sample.time));
            prop_assert_eq!(view.quality(index), sample.quality);
            prop_assert_eq!(metric.has_no_value(), sample.value.is_none());
            if let Some(value) = &sample.value {
                let code = value.data_type().code();
                prop_assert_eq!(metric.datatype, typed.then_some(u32::from(code)));
                prop_assert_eq!(view.value(index, value.data_type()), Some(value.clone()));
            }
            let property = (!sample.quality.is_good())
                .then(|| WireValue::Int(u32::from(sample.quality.sparkplug_code())));
            prop_assert_eq!(metric.property("Quality"), property);
        }
        agrees_with_sparkplug_rs(&bytes, &view)?;
    }
}

/// Every standard field as sparkplug-rs reads it is what our view says.
fn agrees_with_sparkplug_rs(bytes: &[u8], view: &PayloadView<'_>) -> Result<(), TestCaseError> {
    use sparkplug_rs::payload::metric::Value as Theirs;
    let theirs = sparkplug_rs::Payload::parse_from_bytes(bytes).expect("sparkplug-rs reads it");
    prop_assert_eq!(theirs.timestamp, view.timestamp);
    prop_assert_eq!(theirs.seq, view.seq);
    prop_assert_eq!(theirs.metrics.len(), view.metrics.len());
    for (their, our) in theirs.metrics.iter().zip(&view.metrics) {
        prop_assert_eq!(their.name.as_deref(), our.name);
        prop_assert_eq!(their.alias, our.alias);
        prop_assert_eq!(their.timestamp, our.timestamp);
        prop_assert_eq!(their.datatype, our.datatype);
        prop_assert_eq!(their.is_historical(), our.is_historical);
        prop_assert_eq!(their.is_null(), our.is_null);
        let same = match (&their.value, our.value) {
            (None, WireValue::None) => true,
            (Some(Theirs::IntValue(a)), WireValue::Int(b)) => *a == b,
            (Some(Theirs::LongValue(a)), WireValue::Long(b)) => *a == b,
            (Some(Theirs::FloatValue(a)), WireValue::Float(b)) => a.to_bits() == b.to_bits(),
            (Some(Theirs::DoubleValue(a)), WireValue::Double(b)) => a.to_bits() == b.to_bits(),
            (Some(Theirs::BooleanValue(a)), WireValue::Boolean(b)) => *a == b,
            (Some(Theirs::StringValue(a)), WireValue::String(b)) => a == b,
            (Some(Theirs::BytesValue(a)), WireValue::Bytes(b)) => a == b,
            _ => false,
        };
        prop_assert!(same, "{their:?} is not {our:?}");
        let set = &their.properties;
        prop_assert_eq!(set.keys.len(), set.values.len());
        for (key, value) in set.keys.iter().zip(&set.values) {
            use sparkplug_rs::payload::property_value::Value as Property;
            let expected = match &value.value {
                Some(Property::IntValue(v)) => WireValue::Int(*v),
                Some(Property::DoubleValue(v)) => WireValue::Double(*v),
                Some(Property::BooleanValue(v)) => WireValue::Boolean(*v),
                Some(Property::StringValue(v)) => WireValue::String(v),
                other => panic!("we write no such property: {other:?}"),
            };
            prop_assert_eq!(our.property(key), Some(expected));
        }
    }
    Ok(())
}

fn definition() -> PointDefinition {
    PointDefinition {
        path: PointPath::new("halle/presse 1/druck").unwrap(),
        device: Some("press-1".into()),
        metric: "druck/öl".into(),
        data_type: DataType::Float,
        unit: "bar".into(),
        min: Some(0.0),
        max: Some(250.5),
        writable: true,
        dead_band: Some(0.1),
        description: "Öldruck".into(),
    }
}

#[test]
fn a_birth_says_what_a_point_is() {
    let (definition, five) = (definition(), Value::Float(5.5));
    let zero = Value::Int64(3);
    let plain = BirthMetric {
        name: "bdSeq",
        alias: None,
        data_type: DataType::Int64,
        value: Some(&zero),
        time: NOW,
        quality: Quality::GOOD,
        definition: None,
    };
    let known = BirthMetric {
        name: &definition.metric,
        alias: Some(9),
        data_type: DataType::Float,
        value: Some(&five),
        definition: Some(&definition),
        ..plain.clone()
    };
    let stale = BirthMetric { value: None, quality: Quality::stale(Reason::NoData), ..known.clone() };
    let account = |count| Account { count, checksum: count << 40 };
    let epoch =
        EpochAccount { epoch: Epoch(7), first_held: 3, end: 9, before: account(5), total: account(u64::MAX) };
    let head =
        BirthHead { epochs: vec![epoch; 3], agent_time: NOW, version: "0.1.0".into(), outbox_used: Some(83) };
    let mut bytes = Vec::new();
    birth(0, NOW, &[plain, known, stale], Some(&head), &mut bytes);
    let view = PayloadView::decode(&bytes).unwrap();
    assert_eq!((view.birth.as_ref(), view.seq), (Some(&head), Some(0)));
    let properties: BTreeMap<_, _> =
        ["path", "engUnit", "engLow", "engHigh", "readOnly", "description", "deadBand"]
            .into_iter()
            .filter_map(|key| Some((key, view.metrics[1].property(key)?)))
            .collect();
    let expected = [
        ("path", WireValue::String("halle/presse 1/druck")),
        ("engUnit", WireValue::String("bar")),
        ("engLow", WireValue::Double(0.0)),
        ("engHigh", WireValue::Double(250.5)),
        ("readOnly", WireValue::Boolean(false)),
        ("description", WireValue::String("Öldruck")),
        ("deadBand", WireValue::Double(0.1)),
    ];
    assert_eq!(properties, BTreeMap::from(expected));
    assert_eq!(view.metrics[0].property("path"), None);
    assert_eq!(view.value(0, DataType::Int64), Some(Value::Int64(3)));
    assert_eq!(view.value(1, DataType::Float), Some(five.clone()));
    assert_eq!((view.quality(1), view.quality(2).class()), (Quality::GOOD, QualityClass::Stale));
    assert!(view.metrics[2].has_no_value() && view.metrics[2].is_null);
    agrees_with_sparkplug_rs(&bytes, &view).unwrap();
}

#[test]
fn deaths_and_commands() {
    let mut bytes = Vec::new();
    node_death(200, NOW, &mut bytes);
    // [tck-id-topics-ndeath-payload] [tck-id-topics-ndeath-seq]
    let view = PayloadView::decode(&bytes).unwrap();
    assert_eq!((view.metrics.len(), view.metrics[0].name, view.seq), (1, Some("bdSeq"), None));
    assert_eq!(view.value(0, DataType::Int64), Some(Value::Int64(200)));
    agrees_with_sparkplug_rs(&bytes, &view).unwrap();

    bytes.clear();
    device_death(255, NOW, &mut bytes);
    let view = PayloadView::decode(&bytes).unwrap();
    assert_eq!((view.metrics.len(), view.seq, view.timestamp), (0, Some(255), Some(1_800_000_000_123)));

    bytes.clear();
    let head = CommandHead {
        id: CommandId([7; 16]),
        expires_at: Timestamp(NOW.0 + 5_000_000),
        author: "Jürgen".into(),
        reason: String::new(),
    };
    command(NOW, "soll/druck", Some(4), &Value::Int16(-3), Some(&head), &mut bytes);
    let view = PayloadView::decode(&bytes).unwrap();
    assert_eq!((view.command.as_ref(), view.seq), (Some(&head), None));
    assert_eq!(view.metrics[0].name, Some("soll/druck"));
    assert_eq!(view.value(0, DataType::Int16), Some(Value::Int16(-3)));
    agrees_with_sparkplug_rs(&bytes, &view).unwrap();
}

#[test]
fn the_largest_value_fits() {
    let text = "ß".repeat(model::limits::VALUE_BYTES_MAX / 2);
    let mut bytes = Vec::new();
    command(NOW, "text", None, &Value::String(text.clone()), None, &mut bytes);
    let view = PayloadView::decode(&bytes).unwrap();
    assert_eq!(view.value(0, DataType::String), Some(Value::String(text)));
}
