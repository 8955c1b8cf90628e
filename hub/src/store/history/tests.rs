//! The index against reading everything.

use durable_log::{Log, Options};
use model::{Epoch, Offset, Quality, RecordId, SampleBatch, Value};
use proto::account::Account;
use proto::log_record::AgentId;

use super::*;

/// A log of many small segments: 3 points in turn, times mostly ascending, some from the past.
fn filled(folder: &std::path::Path, records: u64) -> Log {
    let options = Options { segment_bytes: 256 * 1024, ..Options::default() };
    let (mut log, _) = Log::open(folder, options, 5).unwrap();
    let mut bytes = Vec::new();
    for number in 0..records {
        let time = if number % 50 == 7 { number / 2 } else { number };
        let samples = (0..20).map(|k| Sample {
            point: PointId(u32::try_from((number + k) % 3).unwrap() + 64 * u32::from(number < records / 2)),
            time: Timestamp(i64::try_from(time * 100 + k).unwrap()),
            value: Some(Value::UInt64(number * 20 + k)),
            quality: Quality::GOOD,
        });
        let id = RecordId { epoch: Epoch(9), offset: Offset(number) };
        let batch =
            SampleBatch { id, accepted_at: Timestamp(0), is_historical: false, samples: samples.collect() };
        bytes.clear();
        LogRecord::Received { agent: AgentId(1), batch, account: Account::default(), counts: None }
            .encode(&mut bytes);
        log.append_group(&[&bytes]).unwrap();
    }
    log.sync().unwrap();
    log
}

fn query(points: &[u32], from: i64, to: i64) -> Query {
    let points = points.iter().copied().map(PointId).collect();
    Query { points, from: Timestamp(from), to: Timestamp(to), limit: 1_000_000, buckets: None }
}

/// The answer by reading everything.
fn naive(log: &Log, query: &Query) -> Vec<(Timestamp, Option<Value>)> {
    let mut reader = log.view().reader(durable_log::Position(0));
    let mut found = Vec::new();
    while let Some((_, record)) = reader.next().unwrap() {
        let LogRecord::Received { batch, .. } = LogRecord::decode(record).unwrap() else { continue };
        let fits = |s: &Sample| query.points.contains(&s.point) && s.time >= query.from && s.time < query.to;
        found.extend(batch.samples.into_iter().filter(fits).map(|s| (s.time, s.value)));
    }
    found.sort_by_key(|(time, value)| (*time, value.as_ref().and_then(Value::as_f64).map(f64::to_bits)));
    found
}

fn sorted(answer: Answer) -> Vec<(Timestamp, Option<Value>)> {
    let mut found: Vec<_> = answer.samples.into_iter().map(|s| (s.time, s.value)).collect();
    found.sort_by_key(|(time, value)| (*time, value.as_ref().and_then(Value::as_f64).map(f64::to_bits)));
    found
}

#[test]
fn the_index_changes_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(&folder.path().join("log"), 8000);
    let segments = log.view().segments().len();
    assert!(segments > 3, "{segments} segments");
    let queries = [
        query(&[0], i64::MIN, i64::MAX),
        query(&[64, 1], 100_000, 130_000),
        query(&[2], 790_000, 800_000),
        query(&[65], 0, 1),
        query(&[9], i64::MIN, i64::MAX),
        query(&[0], 5, 5),
    ];
    let files = folder.path().join("history");
    let history = History::new(log.view(), files.clone());
    let check = |history: &History, when: &str| {
        for query in &queries {
            let answer = history.read(query).unwrap();
            assert!(!answer.truncated && !answer.thinned, "{when} {query:?}");
            assert_eq!(sorted(answer), naive(&log, query), "{when} {query:?}");
        }
    };
    check(&history, "without an index");
    assert!(history.index().advance(&log.view(), 300_000).unwrap());
    check(&history, "with a part of it");
    while history.index().advance(&log.view(), 300_000).unwrap() {}
    check(&history, "with all of it");
    let pieces = history.index().pieces(&log.view(), &queries[2]).len();
    assert!(pieces <= 4, "{pieces} pieces for the newest moment");
    assert!(history.index().pieces(&log.view(), &queries[4]).is_empty(), "no piece for an unknown point");

    let again = History::new(log.view(), files.clone());
    again.index().load(&log.view());
    assert_eq!(std::fs::read_dir(&files).unwrap().count(), segments - 1, "a file for each sealed segment");
    let loaded = again.index().pieces(&log.view(), &queries[4]);
    assert_eq!(loaded.len(), 1, "only the last segment is unknown: {loaded:?}");
    check(&again, "from its files");
    for file in std::fs::read_dir(&files).unwrap() {
        std::fs::write(file.unwrap().path(), b"damaged").unwrap();
    }
    let damaged = History::new(log.view(), files.clone());
    damaged.index().load(&log.view());
    check(&damaged, "from damaged files");
    assert_eq!(std::fs::read_dir(&files).unwrap().count(), 0, "damaged files are deleted");
}

#[test]
fn a_limit_keeps_the_newest_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(folder.path(), 3000);
    let history = History::new(log.view(), folder.path().join("history"));
    let all = naive(&log, &query(&[0], i64::MIN, i64::MAX));
    let mut limited = query(&[0], i64::MIN, i64::MAX);
    limited.limit = 100;
    while history.index().advance(&log.view(), 300_000).unwrap() {}
    let answer = history.read(&limited).unwrap();
    assert!(answer.truncated && answer.samples.len() == 100);
    assert_eq!(answer.samples.last().unwrap().time, all.last().unwrap().0);
    limited.buckets = Some(10);
    let answer = history.read(&limited).unwrap();
    assert!(answer.thinned && !answer.truncated && answer.samples.len() <= 50, "{}", answer.samples.len());
    assert_eq!(answer.samples.first().unwrap().time, all.first().unwrap().0);
}

#[test]
fn large_texts_are_bounded_whatever_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(folder.path(), Options::default(), 5).unwrap();
    for number in 0..400_u64 {
        let sample = Sample {
            point: PointId(0),
            time: Timestamp(i64::try_from(number).unwrap()),
            value: Some(Value::String("x".repeat(100_000))),
            quality: Quality::GOOD,
        };
        let id = RecordId { epoch: Epoch(9), offset: Offset(number) };
        let batch =
            SampleBatch { id, accepted_at: Timestamp(0), is_historical: false, samples: vec![sample] };
        let mut bytes = Vec::new();
        LogRecord::Received { agent: AgentId(1), batch, account: Account::default(), counts: None }
            .encode(&mut bytes);
        log.append_group(&[&bytes]).unwrap();
    }
    log.sync().unwrap();
    let history = History::new(log.view(), folder.path().join("history"));
    for buckets in [None, Some(1000)] {
        let answer = history.read(&Query { buckets, ..query(&[0], i64::MIN, i64::MAX) }).unwrap();
        let bytes: usize = answer.samples.iter().map(heap_bytes).sum();
        assert!(answer.truncated && bytes <= HEAP_BYTES_MAX && bytes > HEAP_BYTES_MAX / 4, "{bytes} bytes");
        assert_eq!(answer.samples.last().unwrap().time, Timestamp(399));
    }
}

#[test]
fn trimming_takes_the_index_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = filled(&folder.path().join("log"), 8000);
    let files = folder.path().join("history");
    let history = History::new(log.view(), files.clone());
    while history.index().advance(&log.view(), usize::MAX).unwrap() {}
    let before = std::fs::read_dir(&files).unwrap().count();
    let first = log.trim(durable_log::Position(4000)).unwrap();
    assert!(first.0 > 0);
    let mut reader = log.view().reader(first);
    assert!(reader.next().unwrap().is_some());
    assert!(!history.read(&query(&[64], i64::MIN, i64::MAX)).unwrap().truncated);
    while history.index().advance(&log.view(), usize::MAX).unwrap() {}
    assert!(std::fs::read_dir(&files).unwrap().count() < before);
}
