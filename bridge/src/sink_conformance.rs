//! The contract of a sink as functions that every sink's tests call (docs/specs/sink.md).
//!
//! Each case gets a fresh folder and a way to make the sink over it, plays a pump that crashes at the worst moments, and
//! then counts what the table really holds with `scan.rs`.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "this is a test suite; a panic is its verdict"
)]

use std::path::Path;
use std::sync::Arc;

use model::{
    DataType, Epoch, NodeId, Offset, PointDefinition, PointId, PointPath, Quality, Reason, RecordId, Sample,
    SampleBatch, Timestamp, Value,
};
use proto::account::{Account, path_hash, sample_hash};
use proto::log_record::{AgentId, CatalogueEntry};

use crate::batch::{Batch, BatchBuilder};
use crate::catalogue::Catalogue;
use crate::cursor::{Cursor, Misfit, PlantLog, Span};
use crate::scan::{TableScan, scan};
use crate::sinks::{Sink, Written};

/// Makes the sink over a folder, or over the place of an object store that stands for it; called again for every reopening.
pub type Make<'m> = &'m (dyn Fn(&Path) -> Box<dyn Sink> + Send + Sync);

/// 2026-11-22T06:00:00Z.
pub const START: Timestamp = Timestamp(1_795_327_200_000_000);

/// The agents' log epoch in all cases.
pub const AGENT_EPOCH: Epoch = Epoch(0x5eed);

/// The plant log's first and second epoch.
pub const FIRST: Epoch = Epoch(0x11);
/// See [`FIRST`].
pub const SECOND: Epoch = Epoch(0x22);

const AGENT: AgentId = AgentId(0);
const NAME: &str = "lake";
const DAY: i64 = 86_400_000_000;

/// All cases; needs a runtime of several threads.
pub async fn conforms(make: Make<'_>) {
    commits_and_says_so_when_opened_again(make).await;
    every_type_and_quality_comes_back(make).await;
    what_was_only_staged_is_not_there(make).await;
    a_commit_counts_once(make).await;
    an_abandoned_commit_counts_once(make).await;
    the_newest_epoch_is_the_cursor(make).await;
    a_target_of_another_log_is_noticed(make).await;
    many_days_are_one_commit(make).await;
    two_sinks_share_a_target(make).await;
}

/// One point of every type, one more of a node itself, and names that are hard on file formats.
#[must_use]
pub fn catalogue_entries() -> Vec<CatalogueEntry> {
    let mut entries =
        vec![CatalogueEntry::Agent { id: AGENT, node: NodeId::new("plant", "linie-ü").unwrap() }];
    for (nth, data_type) in (0u32..).zip(DataType::ALL) {
        let path = format!("hall 1/press+#/{}/Öl \"{{}}\"", data_type.name());
        entries.push(point(nth, &path, Some("press, 1"), data_type));
    }
    entries.push(point(14, "node/only", None, DataType::Double));
    entries
}

/// The same as a bridge keeps it.
#[must_use]
pub fn catalogue() -> Catalogue {
    let entries = catalogue_entries();
    let mut catalogue = Catalogue::default();
    let count = entries.len() as u64;
    catalogue.apply(entries, count).unwrap();
    catalogue
}

fn point(id: u32, path: &str, device: Option<&str>, data_type: DataType) -> CatalogueEntry {
    CatalogueEntry::Point {
        id: PointId(id),
        agent: AGENT,
        definition: PointDefinition {
            device: device.map(str::to_owned),
            ..PointDefinition::new(PointPath::new(path).unwrap(), path, data_type)
        },
    }
}

/// The plant log of the cases.
#[must_use]
pub fn plant_log(epochs: &[(Epoch, u64)], durable_end: u64) -> PlantLog {
    PlantLog {
        hub_id: "hub-ü/1".to_owned(),
        epochs: epochs.to_vec(),
        first: epochs.first().map_or(0, |(_, start)| *start),
        durable_end,
    }
}

/// A record: its offset is the plant log's position in these cases.
#[must_use]
pub fn record(position: u64, samples: Vec<Sample>) -> SampleBatch {
    SampleBatch {
        id: RecordId { epoch: AGENT_EPOCH, offset: Offset(position) },
        accepted_at: Timestamp(START.0 + i64::try_from(position).unwrap() * 1000),
        is_historical: position % 2 == 1,
        samples,
    }
}

/// A sample of the point of a type.
#[must_use]
pub fn sample(point: u32, time: i64, value: Option<Value>, quality: Quality) -> Sample {
    Sample { point: PointId(point), time: Timestamp(time), value, quality }
}

/// Plain records for positions: some doubles each.
#[must_use]
pub fn plain(positions: std::ops::Range<u64>) -> Vec<SampleBatch> {
    positions
        .map(|position| {
            let time = START.0 + i64::try_from(position).unwrap() * 1_000_000;
            let values = (0..3u32).map(|nth| {
                let value = f64::from(nth) + position as f64 / 8.0;
                sample(9, time + i64::from(nth), Some(Value::Double(value)), Quality::GOOD)
            });
            record(position, values.collect())
        })
        .collect()
}

/// The account of records.
#[must_use]
pub fn account(records: &[SampleBatch], catalogue: &Catalogue) -> Account {
    let mut account = Account::default();
    for batch in records {
        for (index, s) in (0u32..).zip(&batch.samples) {
            let hash = path_hash(&catalogue.point(s.point).unwrap().path);
            account.add(sample_hash(batch.id.offset, index, hash, s.time, s.value.as_ref(), s.quality));
        }
    }
    account
}

/// A batch of records.
#[must_use]
pub fn batch(epoch: Epoch, positions: std::ops::Range<u64>, records: &[SampleBatch]) -> Arc<Batch> {
    let catalogue = catalogue();
    let mut builder = BatchBuilder::new();
    for record in records {
        assert!(builder.has_room_for(record));
        builder.push(AGENT, record, &catalogue).unwrap();
    }
    Arc::new(builder.finish("antwerp", Span { epoch, positions }))
}

const fn cursor(epoch: Epoch, position: u64) -> Cursor {
    Cursor { epoch: Some(epoch), position }
}

async fn bring(sink: &mut Box<dyn Sink>, epoch: Epoch, positions: std::ops::Range<u64>) -> Written {
    let records = plain(positions.clone());
    sink.write(batch(epoch, positions.clone(), &records)).await.unwrap();
    sink.commit(cursor(epoch, positions.end)).await.unwrap()
}

async fn expect(make: Make<'_>, root: &Path, records: &[SampleBatch]) -> TableScan {
    let table = scan(make(root).location().unwrap().clone()).await.unwrap();
    let of_agent: Vec<_> = table.epochs.values().collect();
    assert_eq!(
        (table.foreign_rows, of_agent.len()),
        (0, usize::from(!records.is_empty())),
        "{:?}",
        table.problems
    );
    if let Some(rows) = of_agent.first() {
        assert_eq!(rows.account, account(records, &catalogue()));
        assert_eq!((rows.duplicates, rows.duplicates_at_least), (0, false));
        let mut offsets = model::RangeSet::new();
        for record in records {
            offsets.insert_one(record.id.offset.0);
        }
        assert_eq!(rows.offsets, offsets);
    }
    table
}

async fn commits_and_says_so_when_opened_again(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep/täble #1, 50 ?");
    let log = plant_log(&[(FIRST, 0)], 20);
    let mut sink = make(&root);
    assert_eq!(sink.open(NAME, &log).await.unwrap(), None);
    let written = bring(&mut sink, FIRST, 0..10).await;
    assert_eq!((written.rows, written.files > 0, written.bytes > 0), (30, true, true));
    bring(&mut sink, FIRST, 10..20).await;
    sink.close().await;
    let mut again = make(&root);
    assert_eq!(again.open(NAME, &log).await.unwrap(), Some(cursor(FIRST, 20)));
    expect(make, &root, &plain(0..20)).await;
}

/// A value of every type at its ends, no value, and every quality class.
#[must_use]
pub fn every_type() -> Vec<SampleBatch> {
    let values = [
        vec![Value::Int8(i8::MIN), Value::Int8(i8::MAX)],
        vec![Value::Int16(i16::MIN), Value::Int16(i16::MAX)],
        vec![Value::Int32(i32::MIN), Value::Int32(i32::MAX)],
        vec![Value::Int64(i64::MIN), Value::Int64(i64::MAX)],
        vec![Value::UInt8(0), Value::UInt8(u8::MAX)],
        vec![Value::UInt16(0), Value::UInt16(u16::MAX)],
        vec![Value::UInt32(0), Value::UInt32(u32::MAX)],
        vec![
            Value::UInt64(0),
            Value::UInt64(i64::MAX as u64),
            Value::UInt64(1 << 63),
            Value::UInt64(u64::MAX),
        ],
        vec![
            Value::Float(0.1),
            Value::Float(-0.0),
            Value::Float(f32::NAN),
            Value::Float(f32::INFINITY),
            Value::Float(1e-45),
        ],
        vec![
            Value::Double(0.1),
            Value::Double(-0.0),
            Value::Double(f64::NAN),
            Value::Double(f64::NEG_INFINITY),
            Value::Double(5e-324),
        ],
        vec![Value::Boolean(false), Value::Boolean(true)],
        vec![
            Value::String(String::new()),
            Value::String("Öl,\n\"ß\" \u{1f6e2} NULL".into()),
            Value::String("x".repeat(65_536)),
        ],
        vec![Value::DateTime(Timestamp(-1)), Value::DateTime(Timestamp(i64::MAX))],
        vec![Value::Bytes(vec![]), Value::Bytes((0..=255).collect())],
    ];
    let qualities = [
        Quality::GOOD,
        Quality::uncertain(Reason::OutOfRange),
        Quality::with_detail(model::QualityClass::Bad, Reason::DeviceException, 2),
        Quality::stale(Reason::NoData),
    ];
    let mut records = Vec::new();
    for (position, (nth, values)) in (0u64..).zip((0u32..).zip(values)) {
        let mut samples: Vec<Sample> = values
            .into_iter()
            .zip(qualities.iter().cycle())
            .zip(0i64..)
            .map(|((value, quality), n)| sample(nth, START.0 + n, Some(value), *quality))
            .collect();
        samples.push(sample(nth, START.0 - 1, None, Quality::bad(Reason::Timeout)));
        samples.push(sample(14, START.0, Some(Value::Double(1.5)), Quality::GOOD));
        records.push(record(position, samples));
    }
    // Times that no plant can mean take the day of their arrival, and stay as they are.
    let strange = [0, -1, i64::MAX, i64::MIN, Timestamp::PLAUSIBLE_END.0];
    let samples =
        strange.map(|time| sample(9, time, Some(Value::Double(1.0)), Quality::uncertain(Reason::Clock)));
    records.push(record(records.len() as u64, samples.to_vec()));
    records
}

async fn every_type_and_quality_comes_back(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let log = plant_log(&[(FIRST, 0)], 100);
    let mut sink = make(folder.path());
    sink.open(NAME, &log).await.unwrap();
    let records = every_type();
    let end = records.len() as u64;
    sink.write(batch(FIRST, 0..end, &records)).await.unwrap();
    sink.commit(cursor(FIRST, end)).await.unwrap();
    sink.close().await;
    expect(make, folder.path(), &records).await;
}

async fn what_was_only_staged_is_not_there(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let log = plant_log(&[(FIRST, 0)], 100);
    let mut sink = make(folder.path());
    sink.open(NAME, &log).await.unwrap();
    bring(&mut sink, FIRST, 0..5).await;
    sink.write(batch(FIRST, 5..9, &plain(5..9))).await.unwrap();
    drop(sink); // the process dies between write and commit
    let mut sink = make(folder.path());
    assert_eq!(sink.open(NAME, &log).await.unwrap(), Some(cursor(FIRST, 5)));
    expect(make, folder.path(), &plain(0..5)).await;
    bring(&mut sink, FIRST, 5..9).await; // the very same span
    bring(&mut sink, FIRST, 9..12).await;
    sink.write(batch(FIRST, 12..13, &plain(12..13))).await.unwrap();
    assert_eq!(
        sink.open(NAME, &log).await.unwrap(),
        Some(cursor(FIRST, 12)),
        "the same object, opened again"
    );
    bring(&mut sink, FIRST, 12..20).await; // another span from there
    sink.close().await;
    expect(make, folder.path(), &plain(0..20)).await;
}

async fn a_commit_counts_once(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let log = plant_log(&[(FIRST, 0)], 100);
    let mut sink = make(folder.path());
    sink.open(NAME, &log).await.unwrap();
    bring(&mut sink, FIRST, 0..5).await;
    assert_eq!(sink.commit(cursor(FIRST, 5)).await.unwrap(), Written::default());
    assert_eq!(
        bring(&mut sink, FIRST, 0..5).await,
        Written::default(),
        "staged again after it was committed"
    );
    drop(sink);
    let mut sink = make(folder.path());
    assert_eq!(sink.open(NAME, &log).await.unwrap(), Some(cursor(FIRST, 5)));
    assert_eq!(bring(&mut sink, FIRST, 0..5).await, Written::default());
    assert!(sink.commit(cursor(FIRST, 7)).await.is_err(), "nothing is staged for it");
    drop(sink);
    expect(make, folder.path(), &plain(0..5)).await;
}

/// The pump's future is dropped while a write or commit still runs on its thread.
async fn an_abandoned_commit_counts_once(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let log = plant_log(&[(FIRST, 0)], 1000);
    let mut end = 0;
    for pause_us in (0..12_000).step_by(400) {
        let mut sink = make(folder.path());
        let held = loop {
            match sink.open(NAME, &log).await {
                Ok(held) => break held.map_or(0, |cursor| cursor.position),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await, // still held by the last one
            }
        };
        assert!(held % 2 == 0 && held >= end, "{held} after {end}");
        end = held;
        let attempt = async move {
            sink.write(batch(FIRST, held..held + 2, &plain(held..held + 2))).await.unwrap();
            sink.commit(cursor(FIRST, held + 2)).await.unwrap();
        };
        tokio::time::timeout(std::time::Duration::from_micros(pause_us), attempt).await.ok();
    }
    let mut sink = make(folder.path());
    if sink.location().is_some_and(|place| place.folder().is_none()) {
        // No lock tells when the last abandoned commit is over.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    let held = loop {
        if let Ok(held) = sink.open(NAME, &log).await {
            break held.map_or(0, |cursor| cursor.position);
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    };
    sink.close().await;
    expect(make, folder.path(), &plain(0..held)).await;
}

async fn the_newest_epoch_is_the_cursor(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = make(folder.path());
    sink.open(NAME, &plant_log(&[(FIRST, 0)], 10)).await.unwrap();
    bring(&mut sink, FIRST, 0..10).await;
    let both = plant_log(&[(FIRST, 0), (SECOND, 10)], 30);
    assert_eq!(sink.open(NAME, &both).await.unwrap(), Some(cursor(FIRST, 10)));
    bring(&mut sink, SECOND, 10..20).await;
    assert_eq!(sink.open(NAME, &both).await.unwrap(), Some(cursor(SECOND, 20)));
    let trimmed = plant_log(&[(SECOND, 10)], 30);
    assert_eq!(sink.open(NAME, &trimmed).await.unwrap(), Some(cursor(SECOND, 20)));
    sink.close().await;
    expect(make, folder.path(), &plain(0..20)).await;
}

async fn a_target_of_another_log_is_noticed(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = make(folder.path());
    sink.open(NAME, &plant_log(&[(FIRST, 0)], 10)).await.unwrap();
    bring(&mut sink, FIRST, 0..10).await;
    let shorter = plant_log(&[(FIRST, 0), (SECOND, 8)], 9);
    let held = sink.open(NAME, &shorter).await.unwrap();
    assert_eq!(shorter.resume(held), Err(Misfit::Ahead { missing: 8..10 }));
    let fresh = plant_log(&[(SECOND, 0)], 50);
    let held = sink.open(NAME, &fresh).await.unwrap();
    assert_eq!(
        held,
        Some(Cursor { epoch: None, position: 10 }),
        "a table of a forgotten epoch is not taken for empty"
    );
    assert_eq!(fresh.resume(held), Err(Misfit::Ahead { missing: 0..10 }));
    let mut later = plant_log(&[(SECOND, 40)], 50);
    later.first = 40;
    let held = sink.open(NAME, &later).await.unwrap();
    assert_eq!(later.resume(held), Err(Misfit::Behind { missing: 10..40 }));
    // Restored from a copy that ends with the first epoch: the second one's rows are of no epoch that it has.
    bring(&mut sink, SECOND, 10..15).await;
    let restored = plant_log(&[(FIRST, 0), (Epoch(0x33), 10)], 40);
    let held = sink.open(NAME, &restored).await.unwrap();
    assert_eq!(restored.resume(held), Err(Misfit::Ahead { missing: 10..15 }));
    sink.close().await;
}

async fn many_days_are_one_commit(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = make(folder.path());
    sink.open(NAME, &plant_log(&[(FIRST, 0)], 10)).await.unwrap();
    let days = i64::try_from(model::limits::COMMIT_DAYS_MAX).unwrap();
    let per_record = model::limits::RECORD_DAYS_MAX;
    let records: Vec<SampleBatch> = (0..days / per_record)
        .map(|nth| {
            let of_day = |day: i64| {
                let time = START.0 - (nth * per_record + day) * DAY;
                sample(9, time, Some(Value::Double(1.0)), Quality::GOOD)
            };
            record(u64::try_from(nth).unwrap(), (0..per_record).map(of_day).collect())
        })
        .collect();
    let end = records.len() as u64;
    let all = batch(FIRST, 0..end, &records);
    assert_eq!(all.days().len(), model::limits::COMMIT_DAYS_MAX);
    sink.write(all).await.unwrap();
    sink.commit(cursor(FIRST, end)).await.unwrap();
    sink.close().await;
    expect(make, folder.path(), &records).await;
}

/// Two cursors in one target do not see each other.
async fn two_sinks_share_a_target(make: Make<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let log = plant_log(&[(FIRST, 0)], 100);
    let (mut one, mut two) = (make(folder.path()), make(folder.path()));
    assert_eq!(one.open("one", &log).await.unwrap(), None);
    assert_eq!(two.open("two", &log).await.unwrap(), None);
    bring(&mut one, FIRST, 0..5).await;
    bring(&mut two, FIRST, 5..8).await;
    bring(&mut one, FIRST, 8..10).await;
    assert_eq!(two.open("two", &log).await.unwrap(), Some(cursor(FIRST, 8)));
    one.close().await;
    two.close().await;
    expect(make, folder.path(), &plain(0..10)).await;
}
