//! A Delta table kept in order beside the pump: small files become large ones (`compact.rs`), what nobody needs any more goes
//! (`vacuum.rs`). Rows stay the same rows: no reader of any version sees one twice or not at all.
//!
//! It runs in a thread of its own with the lowest priority, holds about 80 MB while it merges, and never holds up the pump:
//! the two meet only in the table's log, where each commit is made or refused as a whole. A crash at any point leaves at
//! worst files that nothing names; a vacuum removes them when they are old enough. `forebay table` does the same by hand.

mod compact;
mod merge;
mod table;
mod vacuum;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::config_file::{Problems, Section};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use compact::Compacted;
pub use vacuum::Vacuumed;

use crate::sinks::folder::StoreLayer;
use crate::sinks::location::Location;
use crate::sinks::{SinkError, blocking, in_one_line};
use crate::status::Reporter;
use compact::{DONE_BYTES, LeftAlone};
use table::Table;

/// Between vacuums.
const VACUUM_EVERY: Duration = Duration::from_secs(86_400);

/// Niceness of the thread: what is left of the processor.
#[cfg(target_os = "linux")]
const NICE: i32 = 15;

/// What is done by itself, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Small files are merged.
    pub compact: bool,
    /// Old files are removed.
    pub vacuum: bool,
    /// Bytes of a merged file at most.
    pub target: u64,
    /// So many small files of a day are merged, fewer not while the day grows.
    pub min_files: usize,
    /// Files younger than this are not touched.
    pub min_age: Duration,
    /// A day for which nothing came for so long: what is small is merged, however few.
    pub quiet: Duration,
    /// Versions younger than this stay readable.
    pub retain: Duration,
    /// Between looks at the table.
    pub every: Duration,
}

impl Policy {
    /// What holds where nothing is written.
    pub const DEFAULT: Policy = Policy {
        compact: true,
        vacuum: true,
        target: 192 << 20,
        min_files: 8,
        min_age: Duration::from_secs(60),
        quiet: Duration::from_secs(3600),
        retain: Duration::from_secs(7 * 86_400),
        every: Duration::from_secs(60),
    };

    /// Everything that can be merged now: for a person who asks for it.
    pub const NOW: Policy = Policy { min_age: Duration::ZERO, quiet: Duration::ZERO, ..Policy::DEFAULT };

    /// Reads `[bridge.sinks.upkeep]`.
    pub(crate) fn of_section(section: &mut Section<'_>, problems: &mut Problems) -> Policy {
        let mut policy = Policy::DEFAULT;
        let Some(mut upkeep) = section.section("upkeep", problems) else { return policy };
        let seconds = Duration::from_secs;
        policy.compact = upkeep.boolean("compact", problems).map_or(policy.compact, |found| found.value);
        policy.vacuum = upkeep.boolean("vacuum", problems).map_or(policy.vacuum, |found| found.value);
        match upkeep.size("target", problems) {
            Some(found) if !(DONE_BYTES..=1 << 30).contains(&found.value) => {
                problems.push(found.problem("must be from 64MiB to 1GiB"));
            }
            found => policy.target = found.map_or(policy.target, |found| found.value),
        }
        if let Some(found) = upkeep.integer("min_files", problems, 2..=16) {
            policy.min_files = usize::try_from(found.value).unwrap_or(policy.min_files);
        }
        for (key, value, range) in [
            ("min_age", &mut policy.min_age, seconds(1)..=seconds(86_400)),
            ("quiet", &mut policy.quiet, seconds(60)..=seconds(30 * 86_400)),
            ("retain", &mut policy.retain, seconds(3600)..=seconds(3650 * 86_400)),
            ("every", &mut policy.every, seconds(1)..=seconds(86_400)),
        ] {
            *value = upkeep.duration(key, problems, range).map_or(*value, |found| found.value);
        }
        upkeep.finish(problems);
        policy
    }
}

/// What of a table is to be kept in order.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Which.
    pub place: Location,
    /// Between it and its store.
    pub layer: StoreLayer,
    /// When.
    pub policy: Policy,
}

/// What upkeep has done since the process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpkeepStatus {
    /// Data files of the table when last looked at.
    pub files: u64,
    /// Merges.
    pub compactions: u64,
    /// Files that were merged.
    pub merged: u64,
    /// Data files that were removed.
    pub removed: u64,
    /// The last failure, until a turn goes well.
    pub last_error: Option<String>,
}

/// Looks after a table until shutdown; a merge that is under way is given up then.
pub(crate) async fn run(upkeep: Upkeep, reporter: Arc<Reporter>, shutdown: CancellationToken) {
    let cancel = shutdown.child_token();
    let _ends_with_this = cancel.clone().drop_guard();
    let mut left_alone = LeftAlone::new();
    let mut next_vacuum = Instant::now() + upkeep.policy.every;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(upkeep.policy.every) => {}
        }
        let vacuums = upkeep.policy.vacuum && Instant::now() >= next_vacuum;
        let turn = Turn {
            upkeep: upkeep.clone(),
            reporter: Arc::clone(&reporter),
            cancel: cancel.clone(),
            left_alone: std::mem::take(&mut left_alone),
            vacuums,
        };
        match on_a_thread(move || turn.take()).await {
            Ok((kept, result)) => {
                left_alone = kept;
                if vacuums && result.is_ok() {
                    next_vacuum = Instant::now() + VACUUM_EVERY;
                }
                reporter.upkeep_went(result.err().map(|error| in_one_line(&error)));
            }
            Err(why) => reporter.upkeep_went(Some(why)),
        }
    }
}

/// Runs work in a thread of low priority, with the runtime around it.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (done, waits) = tokio::sync::oneshot::channel();
    let handle = Handle::current();
    let thread = std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
        let _inside = handle.enter();
        #[cfg(target_os = "linux")]
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE).ok(); // the priority is a wish
        done.send(work()).ok(); // who no longer waits does not want it
    });
    thread.map_err(|error| format!("no thread for the table's upkeep: {error}"))?;
    waits.await.map_err(|_| "the table's upkeep was cut off".to_owned())
}

/// One look at the table and what follows from it.
struct Turn {
    upkeep: Upkeep,
    reporter: Arc<Reporter>,
    cancel: CancellationToken,
    left_alone: LeftAlone,
    vacuums: bool,
}

impl Turn {
    fn take(mut self) -> (LeftAlone, Result<(), SinkError>) {
        let result = self.go();
        (self.left_alone, result)
    }

    fn go(&mut self) -> Result<(), SinkError> {
        let Upkeep { place, layer, policy } = &self.upkeep;
        let table = match Table::open(place, layer) {
            Ok(table) => table,
            Err(SinkError::Unfit(_)) => return Ok(()), // not there yet, or none of ours: the pump says so
            Err(error) => return Err(error),
        };
        let reporter = Arc::clone(&self.reporter);
        if policy.compact {
            let files = compact_all(&table, policy, &mut self.left_alone, &self.cancel, &mut |done| {
                reporter.compacted(done);
            })?;
            reporter.table_files(files);
        }
        if self.vacuums && !self.cancel.is_cancelled() {
            reporter.vacuumed(&vacuum::vacuum(&table, policy.retain, now_ms(), false)?);
        }
        Ok(())
    }
}

/// Merges as long as there is something to merge; the number of files that are left.
fn compact_all(
    table: &Table,
    policy: &Policy,
    left_alone: &mut LeftAlone,
    cancel: &CancellationToken,
    tell: &mut dyn FnMut(&Compacted),
) -> Result<u64, SinkError> {
    loop {
        let files = table.files(&table.latest()?)?;
        let planned = compact::plan(&files, policy, now_ms(), left_alone);
        let Some(planned) = planned.filter(|_| !cancel.is_cancelled()) else { return Ok(files.len() as u64) };
        let before = left_alone.len();
        match compact::compact(table, &planned, left_alone, cancel)? {
            Some(done) => tell(&done),
            None if left_alone.len() > before => {} // others may be left to merge
            None => return Ok(files.len() as u64),
        }
    }
}

fn now_ms() -> i64 {
    runtime::clock::Clock::machine().now().millis()
}

/// Merges what can be merged now, telling each merge; the files that are left.
pub async fn compact_now(
    place: Location,
    policy: Policy,
    mut tell: impl FnMut(&Compacted) + Send + 'static,
) -> Result<u64, SinkError> {
    blocking("cannot compact the table", move || {
        let table = Table::open(&place, &StoreLayer::default())?;
        compact_all(&table, &policy, &mut LeftAlone::new(), &CancellationToken::new(), &mut tell)
    })
    .await
}

/// Removes what no version younger than `retain` needs; with `dry_run` only counts.
pub async fn vacuum_now(place: Location, retain: Duration, dry_run: bool) -> Result<Vacuumed, SinkError> {
    blocking("cannot vacuum the table", move || {
        vacuum::vacuum(&Table::open(&place, &StoreLayer::default())?, retain, now_ms(), dry_run)
    })
    .await
}

/// A table at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Newest version.
    pub version: u64,
    /// Data files, their bytes and rows.
    pub files: u64,
    /// See `files`.
    pub bytes: u64,
    /// See `files`; those that the log counts.
    pub rows: u64,
    /// Files below 64 MiB.
    pub small_files: u64,
    /// Per day: files, bytes, rows.
    pub days: BTreeMap<String, (u64, u64, u64)>,
    /// Files that the next merge by hand would begin with.
    pub mergeable: u64,
}

/// Looks at a table.
pub async fn inspect(place: Location) -> Result<Inspection, SinkError> {
    blocking("cannot look at the table", move || {
        let table = Table::open(&place, &StoreLayer::default())?;
        let snapshot = table.latest()?;
        let files = table.files(&snapshot)?;
        let planned = compact::plan(&files, &Policy::NOW, now_ms(), &LeftAlone::new());
        let mut seen = Inspection {
            version: snapshot.version(),
            mergeable: planned.map_or(0, |files| files.len() as u64),
            ..Inspection::default()
        };
        for file in files {
            let rows = file.rows.unwrap_or(0);
            seen.files += 1;
            seen.bytes += file.bytes;
            seen.rows += rows;
            seen.small_files += u64::from(file.bytes < DONE_BYTES);
            let day = seen.days.entry(file.day).or_default();
            *day = (day.0 + 1, day.1 + file.bytes, day.2 + rows);
        }
        Ok(seen)
    })
    .await
}
