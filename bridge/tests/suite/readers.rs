//! Tables as other people's readers see them: Python deltalake, pyarrow, pandas and DuckDB, none of them told anything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use bridge::batch::day_of;
use bridge::cursor::Cursor;
use bridge::scan::scan;
use bridge::sink_conformance::{
    FIRST, START, account, batch, catalogue, every_type, plain, plant_log, record, sample,
};
use bridge::sinks::Sink;
use bridge::sinks::delta::DeltaSink;
use bridge::sinks::parquet::ParquetSink;
use model::{DataType, Quality, SampleBatch, Value};
use serde_json::Value as Json;

use crate::upkeep::fill;

/// The Python of the peers' environment: `$FOREBAY_VENV`, or `.venv` in the repository.
pub(crate) fn python() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| repository.join(".venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: make the environment with `python3 -m venv .venv && .venv/bin/pip install -r \
         tests/peers/requirements.txt`, or set FOREBAY_VENV",
        python.display()
    );
    python
}

pub(crate) fn peer(script: &str, arguments: &[&str], table: &Path) -> Json {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/peers").join(script);
    let output = Command::new(python()).arg(script).args(arguments).arg(table).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What every reader must answer, computed from the samples alone.
fn expected(records: &[SampleBatch]) -> Json {
    let catalogue = catalogue();
    let samples =
        || records.iter().flat_map(|r| (0u64..).zip(&r.samples).map(move |(index, s)| (r, index, s)));
    let values = || samples().filter_map(|(_, _, s)| s.value.as_ref());
    let long = |value: &Value| -> i128 {
        match *value {
            Value::UInt64(v) => i64::try_from(v).map_or(0, i128::from),
            Value::Int64(v) => v.into(),
            Value::DateTime(v) => v.0.into(),
            Value::Float(_) | Value::Double(_) | Value::Boolean(_) => 0,
            #[expect(clippy::cast_possible_truncation, reason = "small integers")]
            ref other => other.as_f64().map_or(0, |v| v as i128),
        }
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len().div_ceil(3) * 4,
        Value::UInt64(v) if i64::try_from(*v).is_err() => v.to_string().len(),
        _ => 0,
    };
    let double = |value: &Value| match value {
        Value::Float(v) => Some(f64::from(*v)),
        Value::Double(v) => Some(*v),
        _ => None,
    };
    let days: BTreeSet<i32> = samples().map(|(r, _, s)| day_of(s.time.0, r.accepted_at.0)).collect();
    let count = |n: usize| Json::from(n);
    serde_json::json!({
        "rows": count(samples().count()),
        "identities": count(samples().count()),
        "paths": count(samples().map(|(_, _, s)| s.point).collect::<BTreeSet<_>>().len()),
        "days": count(days.len()),
        "sum_double": values().filter_map(double).filter(|v| v.is_finite()).sum::<f64>(),
        "sum_long": values().map(long).sum::<i128>().to_string(),
        "true": count(values().filter(|v| **v == Value::Boolean(true)).count()),
        "strings": count(values().map(text).sum::<usize>()),
        "good": count(samples().filter(|(_, _, s)| s.quality == Quality::GOOD).count()),
        "historical": count(samples().filter(|(r, _, _)| r.is_historical).count()),
        "no_device": count(samples().filter(|(_, _, s)| catalogue.point(s.point).unwrap().device.is_none()).count()),
        "first_ts_us": samples().map(|(_, _, s)| s.time.0).min(),
        "last_ts_us": samples().map(|(_, _, s)| s.time.0).max(),
        "indices": samples().map(|(_, index, _)| index).sum::<u64>(),
    })
}

/// Every type, then commits of plain records over some days, with a few times that no plant can mean.
fn records() -> Vec<SampleBatch> {
    let mut records = every_type();
    records.pop(); // times at the ends of i64 mean "infinite" or "not a time" to other engines
    let odd =
        [0, -1, 5_679_590_961_000_000].map(|time| sample(9, time, Some(Value::Double(1.0)), Quality::GOOD));
    records.push(record(records.len() as u64, odd.to_vec()));
    let next = records.len() as u64;
    records.extend(plain(next..next + 300));
    for (nth, record) in (0i64..).zip(records.iter_mut().skip(20)) {
        for sample in &mut record.samples {
            sample.time.0 = START.0 + nth * 900_000_000 + sample.time.0 % 1_000_000;
        }
    }
    records
}

/// Rows and distinct identities as two readers that are not ours count them.
pub(crate) fn counted_by_others(table: &Path) -> Vec<(u64, u64)> {
    let seen = peer("read_table.py", &["delta"], table);
    let count = |reader: &str, question: &str| seen[reader]["answers"][question].as_u64().unwrap();
    ["duckdb_delta"].map(|reader| (count(reader, "rows"), count(reader, "identities"))).to_vec()
}

fn check(reader: &str, seen: &Json, expected: &Json) {
    let answers =
        seen[reader]["answers"].as_object().unwrap_or_else(|| panic!("{reader} answered nothing: {seen}"));
    assert!(answers.len() >= 5);
    for (question, answer) in answers {
        let wanted = &expected[question];
        match (answer.as_f64(), wanted.as_f64()) {
            (Some(a), Some(b)) if question == "sum_double" => {
                assert!((a - b).abs() < 1e-6, "{reader}: {question}")
            }
            _ => assert_eq!(answer, wanted, "{reader}: {question}"),
        }
    }
}

fn check_types(reader: &str, seen: &Json, types: &[(&str, &str)]) {
    for (column, data_type) in types {
        assert_eq!(seen[reader]["columns"][column], *data_type, "{reader}: {column}");
    }
}

const ARROW_TYPES: [(&str, &str); 9] = [
    ("ts", "timestamp[us, tz=UTC]"),
    ("arrival_ts", "timestamp[us, tz=UTC]"),
    ("value_double", "double"),
    ("value_long", "int64"),
    ("value_bool", "bool"),
    ("log_epoch", "int64"),
    ("log_offset", "int64"),
    ("batch_index", "int32"),
    ("day", "date32[day]"),
];

const DUCKDB_TYPES: [(&str, &str); 8] = [
    ("path", "VARCHAR"),
    ("ts", "TIMESTAMP WITH TIME ZONE"),
    ("value_type", "VARCHAR"),
    ("value_double", "DOUBLE"),
    ("value_long", "BIGINT"),
    ("value_bool", "BOOLEAN"),
    ("batch_index", "INTEGER"),
    ("day", "DATE"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltalake_duckdb_pyarrow_and_pandas_open_the_delta_table() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("plant lake, Öl #1");
    let records = records();
    fill(&mut DeltaSink::new(table.clone()), &records, 0, 3).await;
    let checkpoints: Vec<String> = std::fs::read_dir(table.join("_delta_log"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("checkpoint"))
        .collect();
    assert_eq!(checkpoints.len(), 2, "one of version 100, and the note that it is the last: {checkpoints:?}");
    let seen = peer("read_table.py", &["delta"], &table);
    let expected = expected(&records);
    for reader in ["deltalake", "deltalake_pandas", "pyarrow_dataset", "duckdb_delta"] {
        check(reader, &seen, &expected);
    }
    check_types("deltalake", &seen, &ARROW_TYPES);
    check_types("duckdb_delta", &seen, &DUCKDB_TYPES);
    assert_eq!(seen["deltalake_filtered"]["rows"], expected["rows"]);
    assert_eq!(seen["deltalake"]["partitions"], serde_json::json!(["day"]));
    assert_eq!(seen["deltalake"]["version"], Json::from(records.len().div_ceil(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyarrow_pandas_and_duckdb_open_the_parquet_folder() {
    let folder = tempfile::tempdir().unwrap();
    let records = records();
    fill(&mut ParquetSink::new(folder.path().to_owned()), &records, 0, 50).await;
    let seen = peer("read_table.py", &["parquet"], folder.path());
    let expected = expected(&records);
    for reader in ["pyarrow", "pandas", "duckdb"] {
        check(reader, &seen, &expected);
    }
    check_types("pyarrow", &seen, &ARROW_TYPES);
    check_types("pyarrow", &seen, &[("path", "string"), ("quality", "string")]);
    check_types("duckdb", &seen, &DUCKDB_TYPES);
}

/// Another writer rewrites all files, checkpoints and cleans the log: the cursor stays, rows stay the same rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_deltalake_compacted_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (plain(0..90), plain(90..120));
    fill(&mut DeltaSink::new(folder.path().to_owned()), &old, 0, 3).await;
    let done = peer("compact_table.py", &[], folder.path());
    assert!(done["files"].as_u64().unwrap() < 30 && done["removed"].as_u64().unwrap() >= 30, "{done}");
    let mut sink = DeltaSink::new(folder.path().to_owned());
    let held = sink.open("lake", &plant_log(&[(FIRST, 0)], 200)).await.unwrap();
    assert_eq!(held, Some(Cursor { epoch: Some(FIRST), position: 90 }));
    sink.write(batch(FIRST, 90..120, &new)).await.unwrap();
    sink.commit(Cursor { epoch: Some(FIRST), position: 120 }).await.unwrap();
    sink.close().await;
    let all = [old, new].concat();
    let table = scan(folder.path().to_owned()).await.unwrap();
    let rows = table.epochs.values().next().unwrap();
    assert_eq!((table.foreign_rows, rows.duplicates, rows.account), (0, 0, account(&all, &catalogue())));
    check("duckdb_delta", &peer("read_table.py", &["delta"], folder.path()), &expected(&all));
}

#[test]
fn every_data_type_is_among_the_records() {
    let records = records();
    let seen: BTreeSet<DataType> = records
        .iter()
        .flat_map(|r| &r.samples)
        .filter_map(|s| s.value.as_ref())
        .map(Value::data_type)
        .collect();
    assert_eq!(seen.len(), DataType::ALL.len());
}
