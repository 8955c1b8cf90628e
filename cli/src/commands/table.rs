//! `forebay table`: inspect, compact and vacuum a Delta table by hand.

use std::sync::{Arc, Mutex, PoisonError};

use bridge::sinks::in_one_line;
use bridge::sinks::location::Location;
use bridge::upkeep::{self, Inspection, Policy};
use runtime::config_file::Problems;
use serde_json::json;

use crate::arguments::table::{Compact, Table, TableWhat, Vacuum, Which};
use crate::output::{DONE, FAILED, USAGE, size};
use crate::{complain, plant, say};

/// Days that are shown; the newest.
const DAYS_SHOWN: usize = 14;

/// Exit 0 done, 1 failed, 2 if the configuration is not good.
#[must_use]
pub fn run(options: &Table) -> u8 {
    let which = match &options.what {
        TableWhat::Inspect(which) => which,
        TableWhat::Compact(compact) => &compact.which,
        TableWhat::Vacuum(vacuum) => &vacuum.which,
    };
    let place = match place(which) {
        Ok(place) => place,
        Err(why) => {
            complain!("{why}");
            return USAGE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("no runtime: {error}");
            return FAILED;
        }
    };
    let done = runtime.block_on(async {
        match &options.what {
            TableWhat::Inspect(which) => inspect(place, which).await,
            TableWhat::Compact(options) => compact(place, options).await,
            TableWhat::Vacuum(options) => vacuum(place, options).await,
        }
    });
    match done {
        Ok(()) => DONE,
        Err(error) => {
            complain!("{}", in_one_line(&error));
            FAILED
        }
    }
}

fn place(which: &Which) -> Result<Location, String> {
    let Some(file) = &which.config else {
        let table = which.table.as_deref().unwrap_or_default();
        return table.strip_prefix("file://").unwrap_or(table).parse();
    };
    let mut problems = Problems::default();
    let plant = plant::load(file, &mut problems);
    if !problems.is_empty() {
        plant::print_problems(&problems);
        return Err(format!("{} is not good", file.display()));
    }
    let bridge =
        plant.and_then(|plant| plant.bridge).ok_or_else(|| format!("{} has no [bridge]", file.display()))?;
    let sink = bridge.sinks.iter().find(|sink| sink.name == which.sink);
    let sink = sink.ok_or_else(|| format!("{} has no sink named {}", file.display(), which.sink))?;
    sink.sink.location().cloned().ok_or_else(|| format!("the sink {} has no table", which.sink))
}

async fn inspect(place: Location, which: &Which) -> Result<(), bridge::sinks::SinkError> {
    let seen = upkeep::inspect(place.clone()).await?;
    if which.json {
        let days: serde_json::Map<_, _> = seen
            .days
            .iter()
            .map(|(day, (files, bytes, rows))| {
                (day.clone(), json!({"files": files, "bytes": bytes, "rows": rows}))
            })
            .collect();
        say!(
            "{}",
            json!({
                "table": place.to_string(), "version": seen.version, "files": seen.files, "bytes": seen.bytes,
                "rows": seen.rows, "small_files": seen.small_files, "mergeable": seen.mergeable, "days": days,
            })
        );
    } else {
        print_inspection(&place, &seen);
    }
    Ok(())
}

fn print_inspection(place: &Location, seen: &Inspection) {
    say!(
        "{place}: version {}, {} rows in {} files, {} ({:.2} bytes per row); {} files below 64 MiB",
        seen.version,
        seen.rows,
        seen.files,
        size(seen.bytes),
        seen.bytes as f64 / (seen.rows.max(1)) as f64,
        seen.small_files
    );
    let hidden = seen.days.len().saturating_sub(DAYS_SHOWN);
    if hidden > 0 {
        say!("  … {hidden} earlier days");
    }
    for (day, (files, bytes, rows)) in seen.days.iter().skip(hidden) {
        say!("  {day}  {files:>6} files  {:>10}  {rows:>12} rows", size(*bytes));
    }
    match seen.mergeable {
        0 => say!("nothing to compact"),
        files => say!("`forebay table compact` would begin with {files} files"),
    }
}

async fn compact(place: Location, options: &Compact) -> Result<(), bridge::sinks::SinkError> {
    if options.dry_run {
        return inspect(place, &options.which).await;
    }
    let is_json = options.which.json;
    let sums = Arc::new(Mutex::new((0, 0)));
    let counted = Arc::clone(&sums);
    let left = upkeep::compact_now(place, Policy::NOW, move |done| {
        if !is_json {
            match done.version {
                Some(version) => say!(
                    "  {}: {} files, {} -> one of {}, {} rows; version {version}",
                    done.day,
                    done.files,
                    size(done.bytes_before),
                    size(done.bytes),
                    done.rows
                ),
                None => say!("  {}: given up, somebody else changed these files", done.day),
            }
        }
        let mut sums = counted.lock().unwrap_or_else(PoisonError::into_inner);
        *sums = (sums.0 + done.files, sums.1 + done.rows);
    })
    .await?;
    let (merged, rows) = *sums.lock().unwrap_or_else(PoisonError::into_inner);
    if is_json {
        say!("{}", json!({"merged_files": merged, "rows": rows, "files": left}));
    } else {
        say!("{merged} files merged; the table has {left}");
    }
    Ok(())
}

async fn vacuum(place: Location, options: &Vacuum) -> Result<(), bridge::sinks::SinkError> {
    let done = upkeep::vacuum_now(place, options.retain, options.dry_run).await?;
    if options.which.json {
        say!(
            "{}",
            json!({
                "dry_run": options.dry_run, "files": done.files, "bytes": done.bytes, "young": done.young,
                "named": done.named, "log_files": done.log_files, "log_from": done.log_from,
            })
        );
        return Ok(());
    }
    let verb = if options.dry_run { "would remove" } else { "removed" };
    say!("{verb} {} data files, {}, and {} files of the log", done.files, size(done.bytes), done.log_files);
    say!(
        "kept {} that versions within the retention name, and {} that nothing names but that are too young",
        done.named,
        done.young
    );
    Ok(())
}
