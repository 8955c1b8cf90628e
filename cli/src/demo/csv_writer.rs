//! A simulated machine that writes CSV files: it replays a real temperature recording that ends with a breakdown.
//!
//! Files `machine-000001.csv`, `machine-000002.csv` … in one folder, each with a header and [`ROWS_PER_FILE`] rows at
//! most; a row is one write of a whole line. Time stamps are the machine's now. After a restart it goes on where it
//! stopped, in the newest file; nothing that was written is ever changed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::clock::Clock;
use runtime::tasks::{TaskKind, Tasks};
use tokio::io::AsyncWriteExt;

/// The point list of the machine's files.
pub const POINTS: &str = include_str!("../../demo-data/nab_points.csv");
const RECORDING: &str = include_str!("../../demo-data/nab_excerpt.csv");
const HEADER: &str = "timestamp,temperature\n";

/// Rows of one file: some days of the recording.
pub const ROWS_PER_FILE: usize = 1000;

/// Why the machine cannot write.
#[derive(Debug, thiserror::Error)]
#[error("the simulated machine's file {path}: {source}")]
pub struct WriterError {
    path: PathBuf,
    source: io::Error,
}

/// Starts the machine: one row per `spacing` into `folder`; it ends with `tasks`.
///
/// # Errors
/// If the folder cannot be made or read.
pub async fn start(folder: &Path, spacing: Duration, clock: Clock, tasks: &Tasks) -> Result<(), WriterError> {
    let mut writer = Writer::open(folder, ROWS_PER_FILE).await?;
    let values: Vec<&'static str> =
        RECORDING.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
    let shutdown = tasks.shutdown();
    tasks.spawn(TaskKind::Server, "demo machine", async move {
        let mut ticks = tokio::time::interval(spacing.max(Duration::from_millis(1)));
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let Some(value) = values.get(writer.written() % values.len().max(1)) else { break };
            writer.append(&format!("{},{value}\n", clock.now())).await?;
        }
        Ok::<(), WriterError>(())
    });
    Ok(())
}

/// The newest file and what it holds.
struct Writer {
    folder: PathBuf,
    rows_per_file: usize,
    number: usize,
    rows: usize,
    file: tokio::fs::File,
}

impl Writer {
    async fn open(folder: &Path, rows_per_file: usize) -> Result<Writer, WriterError> {
        let fault = |source| WriterError { path: folder.to_owned(), source };
        tokio::fs::create_dir_all(folder).await.map_err(fault)?;
        let mut number = 1;
        let mut entries = tokio::fs::read_dir(folder).await.map_err(fault)?;
        while let Some(entry) = entries.next_entry().await.map_err(fault)? {
            number = number.max(number_of(&entry.file_name().to_string_lossy()).unwrap_or(1));
        }
        let (file, rows) = Self::open_file(folder, number).await?;
        Ok(Writer { folder: folder.to_owned(), rows_per_file, number, rows, file })
    }

    /// Opens a file for appending, makes it whole and counts its rows.
    async fn open_file(folder: &Path, number: usize) -> Result<(tokio::fs::File, usize), WriterError> {
        let path = folder.join(format!("machine-{number:06}.csv"));
        let opened = async {
            let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(&path).await?;
            let text = tokio::fs::read(&path).await?;
            let missing = match text.last() {
                None => HEADER,
                Some(b'\n') => "",
                Some(_) => "\n", // a line cut short by the machine's own end stays as it is
            };
            file.write_all(missing.as_bytes()).await?;
            file.flush().await?;
            Ok((file, text.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1)))
        };
        opened.await.map_err(|source| WriterError { path, source })
    }

    /// Rows of all files together.
    fn written(&self) -> usize {
        (self.number - 1) * self.rows_per_file + self.rows
    }

    async fn append(&mut self, line: &str) -> Result<(), WriterError> {
        if self.rows >= self.rows_per_file {
            self.number += 1;
            (self.file, self.rows) = Self::open_file(&self.folder, self.number).await?;
        }
        let written = async {
            self.file.write_all(line.as_bytes()).await?;
            self.file.flush().await
        };
        written.await.map_err(|source| WriterError { path: self.folder.clone(), source })?;
        self.rows += 1;
        Ok(())
    }
}

fn number_of(name: &str) -> Option<usize> {
    name.strip_prefix("machine-")?.strip_suffix(".csv")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use edge_agent::driver_conformance::{self as conformance, Candidate};
    use edge_agent::drivers::{NextRead, Readings};
    use edge_agent::points::parse_list;
    use runtime::config_file::Problems;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn the_driver_reads_what_the_machine_writes() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("machine");
        let mut problems = Problems::default();
        let points = parse_list(Path::new("nab_points.csv"), POINTS.as_bytes(), "machine", &mut problems);
        assert!(problems.is_empty(), "{:?}", problems.list);
        let candidate = Candidate {
            driver: "csv-folder",
            text: format!("folder = {:?}\npattern = \"machine-*.csv\"", folder.display().to_string()),
            setup: conformance::setup(points, Clock::machine(), root.path().join("state")),
        };
        let (mut read, mut position) = (Vec::new(), None);
        for _ in 0..3 {
            let tasks = Tasks::new(CancellationToken::new());
            start(&folder, Duration::from_millis(2), Clock::machine(), &tasks).await.unwrap();
            let mut driver = candidate.driver();
            driver.open(position.as_deref()).await.unwrap();
            for _ in 0..10 {
                let mut readings = Readings::default();
                while driver.read(&mut readings).await.unwrap() == NextRead::AtOnce {}
                assert_eq!(readings.quarantined, 0);
                read.extend(readings.list.into_iter().filter_map(|reading| reading.value?.as_f64()));
                position = readings.position.or(position);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            driver.close().await;
            assert!(tasks.drain().await.is_graceful());
        }
        let recorded: Vec<f64> =
            RECORDING.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect();
        assert!(read.len() > 50, "{}", read.len());
        assert_eq!(read, recorded[..read.len()]);
    }

    #[tokio::test]
    async fn a_restart_appends() {
        let folder = tempfile::tempdir().unwrap();
        for row in 0..7 {
            let mut writer = Writer::open(folder.path(), 3).await.unwrap();
            assert_eq!(writer.written(), row);
            writer.append(&format!("2026-11-22T06:00:0{row}Z,{row}\n")).await.unwrap();
        }
        let texts: Vec<String> = (1..=3)
            .map(|n| std::fs::read_to_string(folder.path().join(format!("machine-00000{n}.csv"))).unwrap())
            .collect();
        assert_eq!(texts.iter().map(|text| text.lines().count()).collect::<Vec<_>>(), [4, 4, 2]);
        assert!(texts.iter().all(|text| text.starts_with(HEADER)));
        assert!(texts[2].ends_with("2026-11-22T06:00:06Z,6\n"));
    }

    #[tokio::test]
    async fn rows_come_at_their_pace() {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        start(folder.path(), Duration::from_millis(5), Clock::machine(), &tasks).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(tasks.drain().await.is_graceful());
        let text = std::fs::read_to_string(folder.path().join("machine-000001.csv")).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert!(rows.len() > 10 && rows[0].ends_with("Z,49.66754302"), "{rows:?}");
        assert!(RECORDING.lines().count() <= 3001);
    }
}
