//! Many small files of a day become one, in one commit that says that no data changed.
//!
//! Files of `DONE_BYTES` and more are left alone. Of the smaller ones of a day, `min_files` and more of about one size are
//! merged, so a row is rewritten a few times in its life and not at every turn; when nothing more comes for a day, what is left
//! of it is merged too. The commit removes the inputs and adds the output, or does neither: a reader
//! of any version sees every row once. If somebody else committed first, it is tried again on the newer version, as long as
//! all inputs are still there; the pump never waits for it and never gives way to it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation};
use delta_kernel::{EngineData, KernelError, Snapshot, SnapshotRef};
use object_store::path::Path as StorePath;
use tokio_util::sync::CancellationToken;

use super::Policy;
use super::merge::{MergeError, Merged, is_ours, merge};
use super::table::{Changes, LiveFile, Table};
use crate::parquet_input::ParquetInput;
use crate::sinks::SinkError;
use crate::sinks::delta::{ENGINE_INFO, StagedFile, add_action, check_schema, days_of};
use crate::sinks::location::trouble;
use crate::table::DAY;

/// A file of this size is not touched again.
pub(crate) const DONE_BYTES: u64 = 64 << 20;

/// Inputs of one merge: each costs memory.
const INPUTS_MAX: usize = 16;

/// Bytes of all inputs' largest row groups: what is held of them while they are merged.
const HELD_BYTES_MAX: u64 = 48 << 20;

/// How often a commit starts again because somebody else committed.
const CONFLICTS_MAX: u32 = 50;

/// What one merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// The day.
    pub day: String,
    /// Files before.
    pub files: u64,
    /// Their bytes.
    pub bytes_before: u64,
    /// Bytes of the one file after.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// The version that it made; `None` if it was given up because somebody else removed a file meanwhile.
    pub version: Option<u64>,
}

/// Files that cannot be merged: others made them otherwise. Remembered as long as the process.
pub(crate) type LeftAlone = HashSet<String>;

/// The files to merge next, all of one day; nothing if there are not enough.
pub(crate) fn plan(
    files: &[LiveFile],
    policy: &Policy,
    now_ms: i64,
    left_alone: &LeftAlone,
) -> Option<Vec<LiveFile>> {
    let mut days: BTreeMap<&str, Vec<&LiveFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.has_deletions && !left_alone.contains(&file.path)) {
        days.entry(&file.day).or_default().push(file);
    }
    let mut best: Option<Vec<&LiveFile>> = None;
    for mut of_day in days.into_values() {
        let newest = of_day.iter().map(|file| file.modified_ms).max().unwrap_or(now_ms);
        let age = |modified: i64| u128::try_from(now_ms.saturating_sub(modified)).unwrap_or(0);
        let is_quiet = age(newest) >= policy.quiet.as_millis();
        of_day.retain(|file| file.bytes < DONE_BYTES && age(file.modified_ms) >= policy.min_age.as_millis());
        of_day.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.path.cmp(&b.path)));
        // While a day grows, files of about one size are merged: the result is of the next size.
        let candidates = match is_quiet {
            true => of_day,
            false => of_day
                .chunk_by(|a, b| tier(a.bytes) == tier(b.bytes))
                .find(|of_tier| of_tier.len() >= policy.min_files)
                .map(<[&LiveFile]>::to_vec)
                .unwrap_or_default(),
        };
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for file in candidates {
            if taken.len() == INPUTS_MAX || bytes + file.bytes > policy.target {
                break;
            }
            bytes += file.bytes;
            taken.push(file);
        }
        if taken.len() >= 2 && best.as_ref().is_none_or(|best| best.len() < taken.len()) {
            best = Some(taken);
        }
    }
    // In the order of the log where that can be told: names of one writer ascend.
    best.map(|files| {
        let mut files: Vec<LiveFile> = files.into_iter().cloned().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    })
}

/// Which size a file has about: each is four times the one before; all below 256 KiB are one.
const fn tier(bytes: u64) -> u32 {
    match (bytes >> 16).checked_ilog(4) {
        Some(tier) => tier,
        None => 0,
    }
}

/// Merges planned files and commits. `None` if they turned out not to be for merging; then they are left alone from now on.
pub(crate) fn compact(
    table: &Table,
    files: &[LiveFile],
    left_alone: &mut LeftAlone,
    cancel: &CancellationToken,
) -> Result<Option<Compacted>, SinkError> {
    let Some(day) = files.first().and_then(|file| days_of(&file.day)) else {
        left_alone.extend(files.iter().map(|file| file.path.clone()));
        return Ok(None);
    };
    let (mut inputs, mut taken, mut held) = (Vec::new(), Vec::new(), 0);
    for file in files {
        let input = ParquetInput::open(&table.folder.store, file.location.clone(), Some(file.bytes));
        let input =
            input.map_err(|error| trouble::unavailable(&format!("cannot read {}", file.path), &error))?;
        if !is_ours(&input) {
            tracing::info!(file = %file.path, "is left as it is: its columns are not only ours");
            left_alone.insert(file.path.clone());
            continue;
        }
        let group =
            |nth| input.group(nth).map_or(0, |group| u64::try_from(group.compressed_size()).unwrap_or(0));
        let largest = (0..input.groups()).map(group).max().unwrap_or(0);
        if held + largest > HELD_BYTES_MAX && inputs.len() >= 2 {
            break;
        }
        held += largest;
        inputs.push(input);
        taken.push(file);
    }
    if inputs.len() < 2 {
        return Ok(None);
    }
    merge_and_commit(table, &inputs, &taken, day, left_alone, cancel)
}

fn merge_and_commit(
    table: &Table,
    inputs: &[ParquetInput],
    files: &[&LiveFile],
    day: i32,
    left_alone: &mut LeftAlone,
    cancel: &CancellationToken,
) -> Result<Option<Compacted>, SinkError> {
    let word = runtime::world::random_u64().map_err(|why| SinkError::unavailable("no random number", why))?;
    let day_text = files.first().map(|file| file.day.clone()).unwrap_or_default();
    let name = format!("{DAY}={day_text}/compact-{word:016x}.parquet");
    let merged = match merge(inputs, table.folder.store.as_ref(), &StorePath::from(name.as_str()), cancel) {
        Ok(merged) => merged,
        Err(MergeError::Input { nth, why }) => {
            let path = files.get(nth).map(|file| file.path.clone()).unwrap_or_default();
            tracing::info!(file = %path, %why, "is left as it is");
            left_alone.insert(path);
            return Ok(None);
        }
        Err(MergeError::Ended) => return Ok(None),
        Err(error) => return Err(trouble::unavailable("cannot write a compacted file", &error)),
    };
    let before: Option<u64> = files.iter().map(|file| file.rows).sum();
    if before.is_some_and(|before| before != merged.rows as u64) {
        table.folder.discard(&name);
        return Err(SinkError::Unfit(format!(
            "{} files of {day_text} have {} rows and not {before:?} as the table's log says; they are left as they are",
            files.len(),
            merged.rows
        )));
    }
    let Merged { rows, bytes, bounds } = merged;
    let modified_ms = table.folder.modified_ms(&name)?;
    let staged = StagedFile { day, name, rows, bytes, modified_ms, bounds };
    let done = Compacted {
        day: day_text,
        files: files.len() as u64,
        bytes_before: files.iter().map(|file| file.bytes).sum(),
        bytes,
        rows: rows as u64,
        version: None,
    };
    let version = commit(table, files, &staged)?;
    Ok(Some(Compacted { version, ..done }))
}

/// Removes the inputs and adds the output in one version; `None` if an input is gone.
///
/// A pump that commits often wins most races, so a try after the first one must be quick: it looks only at the versions that
/// came in between, not at the whole table again.
fn commit(table: &Table, inputs: &[&LiveFile], output: &StagedFile) -> Result<Option<u64>, SinkError> {
    let failed = |error: KernelError| trouble::unavailable("cannot commit the compaction", &error);
    let paths: HashSet<&str> = inputs.iter().map(|file| file.path.as_str()).collect();
    let mut snapshot = table.latest()?;
    check_schema(&snapshot)?;
    let removals = removals(table, &snapshot, &paths).map_err(failed)?;
    if removals.iter().flat_map(|(_, selected)| selected).filter(|is_input| **is_input).count()
        != inputs.len()
    {
        table.folder.discard(&output.name);
        return Ok(None);
    }
    for _ in 0..CONFLICTS_MAX {
        match try_commit(table, &snapshot, &removals, output).map_err(failed)? {
            CommitResult::Committed(committed) => return Ok(Some(committed.commit_version())),
            // Whether it landed is not known: the next turn sees it among the live files, or merges the inputs again.
            CommitResult::Retryable(retryable) => return Err(failed(retryable.error)),
            CommitResult::Conflicted(_) => {}
        }
        let newer = Snapshot::builder_from(Arc::clone(&snapshot)).build(&table.engine).map_err(failed)?;
        for version in snapshot.version() + 1..=newer.version() {
            match table.changes(version, &paths, &output.name)? {
                Changes::Ours => return Ok(Some(version)), // it had landed, and only the answer was lost
                Changes::Harmless => {}
                Changes::InTheWay => {
                    table.folder.discard(&output.name);
                    return Ok(None);
                }
            }
        }
        snapshot = newer;
    }
    table.folder.discard(&output.name);
    Err(SinkError::Raced(format!("the compaction lost {CONFLICTS_MAX} commits in a row to other writers")))
}

/// What the log says of the inputs, as the library wants it back: rows, and which of them are inputs.
type Removals = Vec<(RecordBatch, Vec<bool>)>;

fn removals(table: &Table, snapshot: &SnapshotRef, paths: &HashSet<&str>) -> Result<Removals, KernelError> {
    let scan = Arc::clone(snapshot).scan_builder().build()?;
    let mut found = Removals::new();
    for metadata in scan.scan_metadata(&table.engine)? {
        let (data, selected) = metadata?.scan_files.into_parts();
        let batch = ArrowEngineData::try_from_engine_data(data)?.record_batch().clone();
        let column = batch.column_by_name("path").and_then(|column| column.as_string_opt::<i32>());
        let column = column.ok_or_else(|| KernelError::generic("the list of files has no paths"))?;
        let is_input = |(row, path): (usize, Option<&str>)| {
            selected.get(row).copied().unwrap_or(true) && path.is_some_and(|path| paths.contains(path))
        };
        let inputs: Vec<bool> = column.iter().enumerate().map(is_input).collect();
        if inputs.contains(&true) {
            found.push((batch, inputs));
        }
    }
    Ok(found)
}

fn try_commit(
    table: &Table,
    snapshot: &SnapshotRef,
    removals: &Removals,
    output: &StagedFile,
) -> Result<CommitResult, KernelError> {
    let mut transaction = Arc::clone(snapshot)
        .update_table(UpdateTableOperation::Optimize, ENGINE_INFO, false)
        .build(&table.engine, Box::new(FileSystemCommitter::new()))?;
    for (batch, inputs) in removals {
        let data: Box<dyn EngineData> = Box::new(ArrowEngineData::new(batch.clone()));
        transaction.remove_files(FilteredEngineData::try_new(data, inputs.clone())?);
    }
    let action = add_action(&transaction.write_state()?, &table.url, output)?;
    transaction.add_files(action);
    transaction.commit(&table.engine)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: Policy = Policy {
        target: 256 << 20,
        min_files: 8,
        min_age: Duration::from_secs(60),
        quiet: Duration::from_secs(3600),
        ..Policy::DEFAULT
    };
    const NOW: i64 = 1_000_000_000;

    fn files(day: &str, sizes: &[u64], age_s: i64) -> Vec<LiveFile> {
        let file = |(nth, bytes): (usize, &u64)| LiveFile {
            path: format!("day={day}/{nth:05}.parquet"),
            location: StorePath::from("x"),
            day: day.to_owned(),
            bytes: *bytes,
            rows: None,
            modified_ms: NOW - age_s * 1000,
            has_deletions: false,
        };
        sizes.iter().enumerate().map(file).collect()
    }

    fn sizes_planned(files: &[LiveFile]) -> Vec<u64> {
        let mut sizes: Vec<u64> = plan(files, &POLICY, NOW, &LeftAlone::new())
            .unwrap_or_default()
            .iter()
            .map(|file| file.bytes)
            .collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn enough_small_files_are_merged_and_large_ones_are_left() {
        const MB: u64 = 1 << 20;
        assert_eq!(sizes_planned(&files("1", &[MB; 7], 100)), [0u64; 0]);
        assert_eq!(sizes_planned(&files("1", &[MB; 8], 100)), [MB; 8]);
        assert_eq!(sizes_planned(&files("1", &[MB; 8], 10)), [0u64; 0], "too young");
        assert_eq!(sizes_planned(&files("1", &[MB; 100], 100)).len(), INPUTS_MAX);
        assert_eq!(sizes_planned(&files("1", &[64 * MB; 100], 100)), [0u64; 0], "done");
        let mut with_a_larger = vec![MB; 8];
        with_a_larger.push(40 * MB);
        assert_eq!(
            sizes_planned(&files("1", &with_a_larger, 100)),
            [MB; 8],
            "rewritten when others of its size have come"
        );
        assert_eq!(sizes_planned(&files("1", &with_a_larger, 4000)).len(), 9, "nothing more comes");
        assert_eq!(sizes_planned(&files("1", &[60 * MB; 8], 4000)).len(), 4, "up to the target");
        assert_eq!(sizes_planned(&files("1", &[MB], 4000)), [0u64; 0]);
        assert_eq!(sizes_planned(&files("1", &[MB, 70 * MB], 4000)), [0u64; 0]);
    }

    /// A day of commits every 5 s: how often is a byte rewritten?
    #[test]
    fn a_byte_is_rewritten_a_few_times_only() {
        let (mut all, mut written, mut rewritten) = (Vec::new(), 0, 0);
        for nth in 0..17_280u64 {
            let mut new = files("1", &[30_000], 100);
            new[0].path = format!("{nth:08}");
            all.extend(new);
            written += 30_000;
            while let Some(taken) = plan(&all, &POLICY, NOW, &LeftAlone::new()) {
                let bytes: u64 = taken.iter().map(|file| file.bytes).sum();
                rewritten += bytes;
                all.retain(|file| !taken.iter().any(|gone| gone.path == file.path));
                let mut merged = files("1", &[bytes], 100);
                merged[0].path = format!("m{nth:08}");
                all.extend(merged);
            }
        }
        let times = rewritten as f64 / written as f64;
        println!("{times:.1} times, {} files left", all.len());
        assert!(times < 5.0 && all.len() < 40, "{times} times, {} files", all.len());
    }
}
