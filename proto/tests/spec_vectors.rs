//! The examples in `docs/specs/receipts.md` are what this program writes and reads.
//!
//! An example is a code block that opens with `hex NAME`; a new or changed one is printed by the failing test.

use std::collections::BTreeMap;

use model::{
    CommandId, CommandOutcome, DataType, Epoch, Offset, PointDefinition, PointId, PointPath, Quality,
    RangeSet, Reason, RecordId, Sample, SampleBatch, Timestamp, Value,
};
use proto::account::{Account, path_hash, sample_hash};
use proto::log_record::{AgentId, CatalogueEntry, DeviceEvent, LogRecord};
use proto::receipt::{CommandReport, Receipt};
use proto::seal;
use proto::sparkplug::{BirthHead, CommandHead, EpochAccount, PayloadView, RecordHead, encode};

const TIME: Timestamp = Timestamp(1_800_000_000_123_456);
const EPOCH: Epoch = Epoch(0x0123_4567_89ab_cdef);

fn samples() -> Vec<Sample> {
    let sample = |point, value, quality| Sample { point: PointId(point), time: TIME, value, quality };
    vec![
        sample(5, Some(Value::Double(21.5)), Quality::GOOD),
        sample(6, Some(Value::Int16(-3)), Quality::GOOD),
        sample(7, None, Quality::with_detail(model::QualityClass::Bad, Reason::DeviceException, 2)),
    ]
}

fn batch() -> SampleBatch {
    let id = RecordId { epoch: EPOCH, offset: Offset(41) };
    SampleBatch { id, accepted_at: Timestamp(TIME.0 + 900), is_historical: false, samples: samples() }
}

fn account() -> Account {
    let mut account = Account::default();
    for (index, (sample, path)) in samples().iter().zip(["line/t", "line/n", "line/x"]).enumerate() {
        let index = u32::try_from(index).expect("few samples");
        account.add(sample_hash(
            Offset(41),
            index,
            path_hash(path),
            sample.time,
            sample.value.as_ref(),
            sample.quality,
        ));
    }
    account
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let record =
        LogRecord::Accepted { batch: batch(), account: account(), event: DeviceEvent::None, counts: None };
    let definition = PointDefinition {
        path: PointPath::new("line/t").expect("a path"),
        device: Some("press-1".into()),
        metric: "t".into(),
        data_type: DataType::Double,
        unit: "Cel".into(),
        min: Some(-40.0),
        max: None,
        writable: false,
        dead_band: None,
        description: "Öl".into(),
    };
    let entry = CatalogueEntry::Point { id: PointId(5), agent: AgentId(0), definition };
    let head = RecordHead {
        id: batch().id,
        first_held: 40,
        accepted_end: 42,
        accepted_at: batch().accepted_at,
        account: Some(account()),
        counts: None,
    };
    let epoch = EpochAccount { epoch: EPOCH, first_held: 40, end: 42, before: account(), total: account() };
    let birth =
        BirthHead { epochs: vec![epoch], agent_time: TIME, version: "0.1.0".into(), outbox_used: None };
    let id = CommandId([7; 16]);
    let command = CommandHead {
        id,
        expires_at: Timestamp(TIME.0 + 5_000_000),
        author: "eva".into(),
        reason: "trial".into(),
    };
    let mut held = RangeSet::of(0..40);
    held.insert(41..42);
    let receipt = Receipt { hub_time: TIME, durable: vec![(EPOCH, held)], ..Receipt::default() };
    let report =
        CommandReport { id, outcome: CommandOutcome::Done, path: "line/n".into(), read_back: "-3".into() };
    BTreeMap::from([
        ("record", written(|out| record.encode(out))),
        ("entry", written(|out| entry.encode(out))),
        (
            "ddata",
            written(|out| {
                encode::data(9, TIME, &batch(), &head, true, &|_| false, &|p| u64::from(p.0), out);
            }),
        ),
        (
            "sealed",
            written(|out| {
                encode::device_death(10, TIME, out);
                seal::put("spBv1.0/antwerp/DDEATH/line-3/press-1", out);
            }),
        ),
        ("nbirth", written(|out| encode::birth(0, TIME, &[], Some(&birth), out))),
        ("dcmd", written(|out| encode::command(TIME, "n", None, &Value::Int16(-3), Some(&command), out))),
        ("receipt", receipt.encode()),
        ("report", report.encode()),
        ("account", [account().count.to_le_bytes(), account().checksum.to_le_bytes()].concat()),
    ])
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_examples_are_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/specs/receipts.md");
    let text = std::fs::read_to_string(path).expect("the specification");
    for (name, bytes) in examples() {
        let opening = format!("```hex {name}\n");
        let stated =
            text.split_once(&opening).and_then(|(_, rest)| rest.split_once("\n```")).map(|(hex, _)| hex);
        let actual = hex(&bytes);
        assert_eq!(stated, Some(actual.as_str()), "example {name} in {path}; it is\n{actual}");
    }
    let payload = examples().remove("ddata").expect("an example");
    let view = PayloadView::decode(&payload).expect("our own payload");
    assert_eq!((view.time(0), view.quality(2)), (Some(TIME), samples()[2].quality));
}
