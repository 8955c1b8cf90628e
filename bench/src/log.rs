//! Appends to a durable log, each group synced: the two workloads of design §5.

use std::path::Path;
use std::time::{Duration, Instant};

use durable_log::{Log, Options};

use crate::figures::Figures;

/// Runs both workloads in `dir` for `time` each.
pub fn run(dir: &Path, time: Duration) -> Result<Figures, String> {
    let mut figures = Figures::default();
    let small = appended(&dir.join("log-small"), 256, 1000, time)?;
    figures.push("log_records_per_s", small / 256.0, "records/s", "256 B, fsync per 1000");
    let large = appended(&dir.join("log-large"), 4096, 100, time)?;
    figures.push("log_mb_per_s", large / 1e6, "MB/s", "4 KiB, fsync per 100");
    Ok(figures)
}

/// Bytes per second.
fn appended(dir: &Path, record_bytes: usize, records_per_sync: usize, time: Duration) -> Result<f64, String> {
    std::fs::remove_dir_all(dir).ok();
    let options = Options { when_full: durable_log::WhenFull::DropOldest, ..Options::default() };
    let (mut log, _) = Log::open(dir, options, 1).map_err(|error| error.to_string())?;
    let record: Vec<u8> = (0_u8..=255).cycle().take(record_bytes).collect();
    let (started, mut bytes) = (Instant::now(), 0_u64);
    while started.elapsed() < time {
        for _ in 0..records_per_sync {
            log.append_group(&[&record]).map_err(|error| error.to_string())?;
            bytes += record.len() as u64;
        }
        log.sync().map_err(|error| error.to_string())?;
    }
    let seconds = started.elapsed().as_secs_f64();
    drop(log);
    std::fs::remove_dir_all(dir).ok();
    Ok(bytes as f64 / seconds)
}
