//! Tables: a day of a recorded plant at 1 s, brought into a Delta table, compacted, and read by DuckDB; beside pyarrow and DuckDB
//! writing the same rows to Parquet.
//!
//! The recording is played again and again, a line per second; rows come in the order of the log, as from a hub. What DuckDB reads is
//! what the kernel counts for its process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bridge::batch::BatchBuilder;
use bridge::catalogue::Catalogue;
use bridge::cursor::{Cursor, PlantLog, Span};
use bridge::sinks::Sink;
use bridge::sinks::delta::DeltaSink;
use bridge::upkeep::{self, Policy};
use model::{
    DataType, Epoch, NodeId, Offset, PointDefinition, PointId, PointPath, Quality, RecordId, Sample,
    SampleBatch, Timestamp, Value,
};
use proto::log_record::{AgentId, CatalogueEntry};

use crate::figures::Figures;

/// 2026-11-22T00:00:00Z.
const START: Timestamp = Timestamp(1_795_305_600_000_000);

/// Seconds of a day.
pub const DAY_SECONDS: usize = 86_400;

/// Rows of a commit, as a bridge that catches up makes it.
const COMMIT_ROWS: usize = 1_000_000;

const EPOCH: Epoch = Epoch(0x7ab1e);

/// Runs in the Python that has the peers.
const SCRIPT: &str = include_str!("../../tests/peers/bench_table.py");

/// Measures in `dir`, on so many seconds of a recording as CSV with a line of names; `python` is one that has the peers.
pub fn run(recording: &str, seconds: usize, dir: &Path, python: Option<&Path>) -> Result<Figures, String> {
    std::fs::remove_dir_all(dir).ok();
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let plant = Plant::of(recording)?;
    let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
    let table = dir.join("lake");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let mut figures = Figures::default();
    runtime.block_on(measure(&plant, seconds, &table, &mut figures))?;
    if let Some(python) = python {
        beside(python, &table, &plant.names, &mut figures)?;
    }
    std::fs::remove_dir_all(dir).ok();
    Ok(figures)
}

/// The recording's columns and lines.
struct Plant {
    names: Vec<String>,
    lines: Vec<Vec<f64>>,
    catalogue: Catalogue,
}

impl Plant {
    fn of(recording: &str) -> Result<Self, String> {
        let mut lines = recording.lines();
        let names: Vec<String> = lines
            .next()
            .unwrap_or_default()
            .split(',')
            .filter(|name| name.starts_with('X'))
            .map(str::to_owned)
            .collect();
        let skip =
            recording.lines().next().unwrap_or_default().split(',').count().saturating_sub(names.len());
        let number =
            |text: &str| text.parse::<f64>().map_err(|_| format!("{text:?} of the recording is no number"));
        let lines = lines
            .map(|line| line.split(',').skip(skip).map(number).collect())
            .collect::<Result<Vec<Vec<f64>>, String>>()?;
        if names.is_empty() || lines.is_empty() || lines.iter().any(|line| line.len() != names.len()) {
            return Err("the recording has no lines of equal length".to_owned());
        }
        let mut entries = vec![CatalogueEntry::Agent {
            id: AgentId(0),
            node: NodeId::new("acme", "line-1").map_err(|error| error.to_string())?,
        }];
        for (id, name) in (0_u32..).zip(&names) {
            entries.push(CatalogueEntry::Point {
                id: PointId(id),
                agent: AgentId(0),
                definition: point(name)?,
            });
        }
        let mut catalogue = Catalogue::default();
        let count = entries.len() as u64;
        catalogue.apply(entries, count).map_err(|error| error.to_string())?;
        Ok(Plant { names, lines, catalogue })
    }

    fn record(&self, second: usize) -> SampleBatch {
        let micros = i64::try_from(second).unwrap_or(0) * 1_000_000;
        let line = self.lines.get(second % self.lines.len()).map_or(&[][..], Vec::as_slice);
        let sample = |(id, value): (u32, &f64)| Sample {
            point: PointId(id),
            time: Timestamp(START.0 + micros),
            value: Some(Value::Double(*value)),
            quality: Quality::GOOD,
        };
        SampleBatch {
            id: RecordId { epoch: EPOCH, offset: Offset(second as u64) },
            accepted_at: Timestamp(START.0 + micros + 1_500),
            is_historical: false,
            samples: (0..).zip(line).map(sample).collect(),
        }
    }
}

fn point(name: &str) -> Result<PointDefinition, String> {
    let path = format!("tennessee-eastman/plant/unit/{}", name.to_ascii_lowercase());
    Ok(PointDefinition {
        device: Some("plc".to_owned()),
        ..PointDefinition::new(
            PointPath::new(&path).map_err(|error| error.to_string())?,
            name,
            DataType::Double,
        )
    })
}

async fn measure(plant: &Plant, seconds: usize, table: &Path, figures: &mut Figures) -> Result<(), String> {
    let failed = |error: bridge::sinks::SinkError| bridge::sinks::in_one_line(&error);
    let rows = seconds * plant.names.len();
    let log = PlantLog {
        hub_id: "bench".to_owned(),
        epochs: vec![(EPOCH, 0)],
        first: 0,
        durable_end: seconds as u64,
    };
    let per_commit = (COMMIT_ROWS / plant.names.len()).min(seconds.div_ceil(10)).max(1);
    let mut sink = DeltaSink::new(table.to_owned());
    sink.open("lake", &log).await.map_err(failed)?;
    let (mut from, mut built, mut written) = (0, Duration::ZERO, Duration::ZERO);
    while from < seconds {
        let end = (from + per_commit).min(seconds);
        let records: Vec<SampleBatch> = (from..end).map(|second| plant.record(second)).collect();
        let started = Instant::now();
        let mut builder = BatchBuilder::new();
        for record in &records {
            builder.push(AgentId(0), record, &plant.catalogue).map_err(|error| error.to_string())?;
        }
        let positions = from as u64..end as u64;
        let batch = Arc::new(builder.finish("antwerp", Span { epoch: EPOCH, positions }));
        built += started.elapsed();
        let started = Instant::now();
        sink.write(batch).await.map_err(failed)?;
        sink.commit(Cursor { epoch: Some(EPOCH), position: end as u64 }).await.map_err(failed)?;
        written += started.elapsed();
        from = end;
    }
    sink.close().await;
    let what = format!("{} points at 1 s for {seconds} s, {rows} rows", plant.names.len());
    let per_s = |time: Duration| rows as f64 / time.as_secs_f64();
    figures.push("table_build_rows_per_s", per_s(built), "rows/s", format!("records to sorted rows: {what}"));
    figures.push(
        "table_write_rows_per_s",
        per_s(written),
        "rows/s",
        "sorted rows to Parquet, fsync and Delta commit",
    );
    let place = bridge::sinks::location::Location::from(table.to_owned());
    let before = upkeep::inspect(place.clone()).await.map_err(failed)?;
    let started = Instant::now();
    let files = upkeep::compact_now(place.clone(), Policy::NOW, |_| {}).await.map_err(failed)?;
    let compacted = started.elapsed();
    let after = upkeep::inspect(place).await.map_err(failed)?;
    if after.rows != rows as u64 {
        return Err(format!("the table has {} rows", after.rows));
    }
    let per_row = |bytes: u64| bytes as f64 / rows as f64;
    figures.push(
        "table_bytes_per_row",
        per_row(before.bytes),
        "B",
        format!("in {} files, as committed", before.files),
    );
    figures.push(
        "table_compacted_bytes_per_row",
        per_row(after.bytes),
        "B",
        format!("in {files} files, compacted"),
    );
    figures.push("table_compact_rows_per_s", per_s(compacted), "rows/s", "compaction, commit included");
    Ok(())
}

/// What others do with the same rows, and what DuckDB reads of ours for one point of the day.
fn beside(python: &Path, table: &Path, names: &[String], figures: &mut Figures) -> Result<(), String> {
    let point = format!(
        "tennessee-eastman/plant/unit/{}",
        names.get(names.len() / 2).map_or("", |n| n).to_ascii_lowercase()
    );
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .args([table.as_os_str(), point.as_ref()])
        .output()
        .map_err(|error| format!("{}: {error}", python.display()))?;
    if !output.status.success() {
        return Err(format!("the peers' script: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let seen: serde_json::Value =
        serde_json::from_str(last_line(&output.stdout)?).map_err(|error| error.to_string())?;
    let number = |name: &str| seen[name].as_f64().ok_or_else(|| format!("the peers' script gave no {name}"));
    let of_file =
        format!("of {:.1} MB; one point of one day, {} rows", number("file_mb")?, seen["point_rows"]);
    figures.push("duckdb_point_read_mb", number("point_read_mb")?, "MB", format!("read by DuckDB {of_file}"));
    figures.push(
        "duckdb_full_read_mb",
        number("full_read_mb")?,
        "MB",
        "read by DuckDB for the average of every value",
    );
    for (name, unit, what) in [
        ("pyarrow_rows_per_s", "rows/s", "pyarrow writes the same rows, zstd, its defaults"),
        ("pyarrow_bytes_per_row", "B", "pyarrow"),
        ("duckdb_rows_per_s", "rows/s", "DuckDB writes the same rows, zstd, its defaults, two threads"),
        ("duckdb_bytes_per_row", "B", "DuckDB"),
    ] {
        figures.push(name, number(name)?, unit, what);
    }
    Ok(())
}

/// The script's answer; DuckDB may have drawn a progress bar before it.
fn last_line(output: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(output).map_err(|error| error.to_string())?;
    text.lines().last().ok_or_else(|| "the peers' script said nothing".to_owned())
}

/// Python with the peers, if it is here: `$FOREBAY_VENV`, or `.venv`.
#[must_use]
pub fn peers() -> Option<PathBuf> {
    let venv = std::env::var_os("FOREBAY_VENV").map_or_else(|| PathBuf::from(".venv"), PathBuf::from);
    Some(venv.join("bin/python")).filter(|python| python.is_file())
}
