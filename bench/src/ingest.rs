//! The whole road on one machine: Sparkplug over TCP → broker → decode → dedup → plant log with fsync → receipt → Delta.
//!
//! Hub and bridge run in a process of their own. The load is built beforehand and sent by one thread of this process, whose
//! CPU is reported apart. Two plants carry it: a hub alone, whose log a bridge is then let loose on (catch-up), and a hub with
//! a bridge that writes the table meanwhile.

mod load;
mod plant;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::machine::{ProcessUse, process_use};
use load::Load;
use plant::Plant;

pub(crate) use plant::add_login;

/// For a hub to start, a log to be exported.
const PATIENCE: Duration = Duration::from_secs(120);
/// Values built per second of measuring: more than any machine is expected to carry.
const VALUES_PER_SECOND: usize = 12_000_000;
/// Memory for the load.
const LOAD_BYTES_MAX: usize = 1 << 30;

/// Measures with `metrics` per message and a load of at most `time`, as often as `repeat` says, and gives medians;
/// `program` is the forebay binary, `dir` a folder on a real disk.
pub fn run(
    program: &Path,
    dir: &Path,
    metrics: usize,
    time: Duration,
    repeat: usize,
) -> Result<Figures, String> {
    let mut runs = Vec::new();
    for _ in 0..repeat.max(1) {
        runs.push(once(program, dir, metrics, time)?);
    }
    std::fs::remove_dir_all(dir).ok();
    Ok(Figures::medians(runs))
}

fn once(program: &Path, dir: &Path, metrics: usize, time: Duration) -> Result<Figures, String> {
    let mut figures = Figures::default();
    let values_max = VALUES_PER_SECOND.saturating_mul(usize::try_from(time.as_secs()).unwrap_or(1).max(1));
    // A message costs more than its values: with few of them in each, fewer are carried.
    let records = (values_max / metrics.max(12)).max(1);

    let mut plant = Plant::start(program, dir, false)?;
    let mut load = Load::build(metrics, records, LOAD_BYTES_MAX);
    let values = load.values() as f64;
    let what = format!("{metrics} per message, {} messages, {} MB", load.records(), load.bytes() / 1_000_000);
    let before = plant.used();
    let (durable, own) = timed(|| load.send(&plant))?;
    let used = since(before, plant.used());
    figures.push("values_per_s", values / durable, "values/s", format!("to receipt, hub alone; {what}"));
    figures.push(
        "cpu_s_per_million",
        used.cpu_seconds / values * 1e6,
        "s",
        "CPU of the hub per million values",
    );
    figures.push("load_cores", own, "cores", "the load's own");
    figures.push("hub_peak_mb", used.peak as f64 / 1e6, "MB", "peak memory of the hub");
    drop(load);
    plant.restart(program, true)?;
    let before = plant.used();
    let (exported, _) = timed(|| plant.wait_until_exported())?;
    let used = since(before, plant.used());
    figures.push(
        "catch_up_rows_per_s",
        values / exported,
        "rows/s",
        "the hub's log to Delta, nothing else going on",
    );
    figures.push(
        "catch_up_cpu_s_per_million",
        used.cpu_seconds / values * 1e6,
        "s",
        "CPU of hub and bridge per million",
    );
    figures.push("catch_up_peak_mb", used.peak as f64 / 1e6, "MB", "peak memory of hub and bridge");
    drop(plant);

    let plant = Plant::start(program, dir, true)?;
    let mut load = Load::build(metrics, records, LOAD_BYTES_MAX);
    let (before, started) = (plant.used(), Instant::now());
    let (durable, _) = timed(|| load.send(&plant))?;
    plant.wait_until_exported()?;
    let exported = started.elapsed().as_secs_f64();
    let used = since(before, plant.used());
    figures.push(
        "values_per_s_with_table",
        values / durable,
        "values/s",
        "to receipt, while the bridge writes the table",
    );
    figures.push(
        "table_values_per_s",
        values / exported,
        "values/s",
        "to the Delta commit of the last value",
    );
    figures.push(
        "table_cpu_s_per_million",
        used.cpu_seconds / values * 1e6,
        "s",
        "CPU of hub and bridge per million",
    );
    figures.push("hub_bridge_peak_mb", used.peak as f64 / 1e6, "MB", "peak memory of hub and bridge");
    Ok(figures)
}

/// Seconds, and cores that this process used in them.
fn timed(work: impl FnOnce() -> Result<(), String>) -> Result<(f64, f64), String> {
    let own = std::process::id();
    let (before, started) = (process_use(own), Instant::now());
    work()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((seconds, since(before, process_use(own)).cpu_seconds / seconds))
}

fn since(before: ProcessUse, now: ProcessUse) -> ProcessUse {
    ProcessUse { cpu_seconds: now.cpu_seconds - before.cpu_seconds, ..now }
}
