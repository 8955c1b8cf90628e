//! Records: every kind survives; damaged, truncated and arbitrary bytes are errors; sizes stay small.

use bolero::check;
use model::{DataType, QualityClass, Reason, Sample, Value};
use proptest::prelude::*;

use super::*;

fn value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        any::<i8>().prop_map(|v| Some(Value::Int8(v))),
        any::<i16>().prop_map(|v| Some(Value::Int16(v))),
        any::<i32>().prop_map(|v| Some(Value::Int32(v))),
        any::<i64>().prop_map(|v| Some(Value::Int64(v))),
        any::<u8>().prop_map(|v| Some(Value::UInt8(v))),
        any::<u16>().prop_map(|v| Some(Value::UInt16(v))),
        any::<u32>().prop_map(|v| Some(Value::UInt32(v))),
        any::<u64>().prop_map(|v| Some(Value::UInt64(v))),
        any::<u32>().prop_map(|v| Some(Value::Float(f32::from_bits(v)))),
        any::<u64>().prop_map(|v| Some(Value::Double(f64::from_bits(v)))),
        any::<bool>().prop_map(|v| Some(Value::Boolean(v))),
        ".{0,20}".prop_map(|v| Some(Value::String(v))),
        any::<i64>().prop_map(|v| Some(Value::DateTime(Timestamp(v)))),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|v| Some(Value::Bytes(v))),
    ]
}

fn quality() -> impl Strategy<Value = Quality> {
    prop_oneof![
        3 => Just(Quality::GOOD),
        1 => (0..Reason::ALL.len(), any::<u16>())
            .prop_map(|(at, detail)| Quality::with_detail(QualityClass::Bad, Reason::ALL[at], detail)),
    ]
}

/// A few samples alike, so that runs form.
fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let one = (any::<u32>(), any::<i64>(), value(), quality(), 1..12usize, 0..2u32, 0..2i64);
    proptest::collection::vec(one, 0..12).prop_map(|groups| {
        let mut samples = Vec::new();
        for (point, time, value, quality, count, step, tick) in groups {
            for i in 0..u32::try_from(count).unwrap() {
                samples.push(Sample {
                    point: PointId(point.saturating_add(i * step)),
                    time: Timestamp(time.wrapping_add(i64::from(i) * tick)),
                    value: value.clone(),
                    quality,
                });
            }
        }
        samples
    })
}

fn batch() -> impl Strategy<Value = SampleBatch> {
    (1..=i64::MAX as u64, any::<u64>(), any::<i64>(), any::<bool>(), samples()).prop_map(
        |(epoch, offset, accepted_at, is_historical, samples)| SampleBatch {
            id: RecordId { epoch: Epoch(epoch), offset: Offset(offset) },
            accepted_at: Timestamp(accepted_at),
            is_historical,
            samples,
        },
    )
}

fn account() -> impl Strategy<Value = Account> {
    (any::<u64>(), any::<u64>()).prop_map(|(count, checksum)| Account { count, checksum })
}

fn counts() -> impl Strategy<Value = Option<DeviceCounts>> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    proptest::option::of(numbers.prop_map(|(read, dead_band, quarantined, made)| DeviceCounts {
        read,
        dead_band,
        quarantined,
        made,
    }))
}

fn record() -> impl Strategy<Value = LogRecord> {
    let down = any::<bool>().prop_map(|down| if down { DeviceEvent::Down } else { DeviceEvent::None });
    let position = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (batch(), account(), down, counts())
            .prop_map(|(batch, account, event, counts)| LogRecord::Accepted { batch, account, event, counts }),
        4 => (any::<u32>(), batch(), account(), counts()).prop_map(|(agent, batch, account, counts)| {
            LogRecord::Received { agent: AgentId(agent), batch, account, counts }
        }),
        2 => (".{0,20}", any::<u32>(), batch(), account()).prop_map(|(sink, agent, batch, account)| {
            LogRecord::Again { sink, agent: AgentId(agent), batch, account }
        }),
        1 => (any::<u8>(), any::<u64>(), any::<u64>())
            .prop_map(|(origin, epoch, position)| LogRecord::Retried { origin, epoch, position }),
        1 => (".{0,20}", position)
            .prop_map(|(source, position)| LogRecord::SourcePosition { source, position }),
        1 => (any::<[u8; 16]>(), any::<i64>())
            .prop_map(|(id, at)| LogRecord::CommandSeen { id, expires_at: Timestamp(at) }),
        1 => (1..=i64::MAX as u64, any::<u64>(), account())
            .prop_map(|(epoch, end, account)| LogRecord::EpochGone { epoch: Epoch(epoch), end, account }),
        1 => (any::<u32>(), 1..=i64::MAX as u64, 0..1000u64, 1..=u64::MAX - 1000, ".{0,20}").prop_map(
            |(agent, epoch, start, length, reason)| LogRecord::Lost {
                agent: AgentId(agent), epoch: Epoch(epoch), start, end: start + length, reason,
            }
        ),
    ]
}

fn number() -> impl Strategy<Value = Option<f64>> {
    proptest::option::of(-1e9..1e9f64)
}

fn entry() -> impl Strategy<Value = CatalogueEntry> {
    let texts = ("[^\\x00]{1,30}", proptest::option::of(".{0,12}"), ".{0,12}", ".{0,8}", ".{0,40}");
    let rest = (0..DataType::ALL.len(), any::<bool>(), number(), number(), number());
    prop_oneof![
        (any::<u32>(), "[a-zü ]{1,10}", "[A-Z0-9._-]{1,10}").prop_map(|(id, group, node)| {
            CatalogueEntry::Agent { id: AgentId(id), node: NodeId::new(&group, &node).unwrap() }
        }),
        (any::<u32>(), any::<u32>(), texts, rest).prop_map(|(id, agent, texts, rest)| {
            let (path, device, metric, unit, description) = texts;
            let (data_type, writable, min, max, dead_band) = rest;
            let path = PointPath::new(&path).unwrap();
            let data_type = DataType::ALL[data_type];
            let definition = PointDefinition {
                path,
                device,
                metric,
                data_type,
                unit,
                min,
                max,
                writable,
                dead_band,
                description,
            };
            CatalogueEntry::Point { id: PointId(id), agent: AgentId(agent), definition }
        }),
    ]
}

fn encoded(record: &LogRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn every_record_survives_and_no_part_of_it_does(record in record()) {
        let bytes = encoded(&record);
        prop_assert_eq!(LogRecord::decode(&bytes), Ok(record));
        for end in 0..bytes.len() {
            prop_assert!(LogRecord::decode(&bytes[..end]).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(LogRecord::decode(&longer).is_err());
    }

    #[test]
    fn every_entry_survives_and_no_part_of_it_does(entry in entry()) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        prop_assert_eq!(CatalogueEntry::decode(&bytes), Ok(entry));
        for end in 0..bytes.len() {
            prop_assert!(CatalogueEntry::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn a_damaged_record_is_read_or_refused(record in record(), at in any::<usize>(), bits in 1..=255u8) {
        let mut bytes = encoded(&record);
        let at = at % bytes.len();
        bytes[at] ^= bits;
        read_again(&bytes);
    }
}

/// What can be read at all can be written and is then read the same.
fn read_again(bytes: &[u8]) {
    if let Ok(record) = LogRecord::decode(bytes) {
        assert_eq!(LogRecord::decode(&encoded(&record)), Ok(record));
    }
    if let Ok(entry) = CatalogueEntry::decode(bytes) {
        let mut again = Vec::new();
        entry.encode(&mut again);
        assert!(CatalogueEntry::decode(&again).is_ok(), "{entry:?}");
    }
}

#[test]
fn arbitrary_bytes_are_read_or_refused() {
    check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
        read_again(bytes);
        for kind in [ACCEPTED, RECEIVED, LOST, AGENT, POINT] {
            let mut headed = vec![VERSION, kind];
            headed.extend_from_slice(bytes);
            read_again(&headed);
        }
    });
}

/// One poll of a device: `count` consecutive points of one type at one time, all Good.
fn poll(count: u32, value: impl Fn(u32) -> Value) -> LogRecord {
    let time = Timestamp(1_800_000_000_123_456);
    let sample = |i| Sample { point: PointId(500 + i), time, value: Some(value(i)), quality: Quality::GOOD };
    let batch = SampleBatch {
        id: RecordId { epoch: Epoch(0x1234_5678_9abc_def0), offset: Offset(1_000_000) },
        accepted_at: Timestamp(time.0 + 900),
        is_historical: false,
        samples: (0..count).map(sample).collect(),
    };
    LogRecord::Accepted { batch, account: Account::default(), event: DeviceEvent::None, counts: None }
}

#[test]
fn a_poll_costs_little_more_than_its_values() {
    let header = encoded(&poll(1, |_| Value::Boolean(true))).len();
    assert!(header <= 56, "{header}");
    assert!(encoded(&poll(100, |i| Value::Float(i as f32))).len() <= header + 410);
    assert!(encoded(&poll(1000, |i| Value::Boolean(i % 3 == 0))).len() <= header + 140);
}

#[test]
fn claims_without_bytes_take_no_memory() {
    // 2^60 samples, a text of 2^60 bytes, and a run of 2^60: all refused before anything is allocated.
    let mut head = vec![VERSION, ACCEPTED, 0];
    head.extend_from_slice(&[0; 8]);
    head.push(0);
    head.extend_from_slice(&7u64.to_le_bytes());
    head.extend_from_slice(&[0, 0]);
    let mut many = head.clone();
    varint::put(1 << 60, &mut many);
    assert_eq!(LogRecord::decode(&many), Err(RecordError::Damaged("more samples than a record can have")));
    let mut run = head;
    varint::put(100, &mut run);
    run.push(1);
    varint::put(1 << 60, &mut run);
    run.push(2);
    assert_eq!(LogRecord::decode(&run), Err(RecordError::Damaged("a run is empty or too long")));
    let mut text = vec![VERSION, SOURCE_POSITION];
    varint::put(1 << 60, &mut text);
    assert_eq!(LogRecord::decode(&text), Err(RecordError::Damaged("it ends early")));
}

#[test]
fn later_versions_and_kinds_name_themselves() {
    assert_eq!(LogRecord::decode(&[2, 1]), Err(RecordError::Version(2)));
    assert_eq!(LogRecord::decode(&[1, 99]), Err(RecordError::Kind(99)));
    assert_eq!(LogRecord::decode(&[1, POINT]), Err(RecordError::Kind(POINT)));
    assert_eq!(CatalogueEntry::decode(&[1, ACCEPTED]), Err(RecordError::Kind(ACCEPTED)));
    assert!(matches!(LogRecord::decode(&[0, 1]), Err(RecordError::Damaged(_))));
}
