//! A Delta table as its caretakers see it: which files it has now, and what its log still needs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::scan::state::ScanFile;
use delta_kernel::{Snapshot, SnapshotRef};
use object_store::ObjectStoreExt as _;
use object_store::path::Path as StorePath;
use tokio::runtime::Handle;
use url::Url;

use crate::sinks::SinkError;
use crate::sinks::delta::{Engine, check_schema, engine, has_log};
use crate::sinks::folder::{Folder, StoreLayer};
use crate::sinks::location::{Location, trouble};
use crate::table::DAY;

/// How long Delta keeps the names of removed files where the table does not say otherwise.
const REMOVED_NAMES_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// An opened table. Every call blocks, on a thread that may.
pub(crate) struct Table {
    pub(crate) folder: Arc<Folder>,
    pub(crate) engine: Engine,
    pub(crate) url: Url,
}

/// A data file of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveFile {
    /// As the log writes it, which is as part of a URL.
    pub(crate) path: String,
    /// Where it is in the store.
    pub(crate) location: StorePath,
    /// Its partition, as the log writes it.
    pub(crate) day: String,
    pub(crate) bytes: u64,
    pub(crate) rows: Option<u64>,
    pub(crate) modified_ms: i64,
    /// Rows of it are deleted by a list beside it.
    pub(crate) has_deletions: bool,
}

/// Paths that no vacuum may touch: those of the newest version, and those removed since; with the time of removal.
pub(crate) type Named = HashMap<StorePath, Option<i64>>;

impl Table {
    /// Opens a table that is there.
    pub(crate) fn open(place: &Location, layer: &StoreLayer) -> Result<Self, SinkError> {
        let folder = Folder::look_into(place, layer)?;
        if !has_log(&folder)? {
            return Err(SinkError::Unfit(format!("there is no Delta table at {place}")));
        }
        let (engine, url) = engine(place, layer)?;
        let table = Table { folder, engine, url };
        check_schema(table.latest()?.as_ref())?;
        Ok(table)
    }

    pub(crate) fn latest(&self) -> Result<SnapshotRef, SinkError> {
        Snapshot::builder_for(self.url.as_str())
            .build(&self.engine)
            .map_err(|error| trouble::unavailable("cannot read the Delta table's log", &error))
    }

    /// The files of a version.
    pub(crate) fn files(&self, snapshot: &SnapshotRef) -> Result<Vec<LiveFile>, SinkError> {
        let failed = |error| trouble::unavailable("cannot list the Delta table's files", &error);
        let scan = Arc::clone(snapshot).scan_builder().build().map_err(failed)?;
        let mut found: Vec<ScanFile> = Vec::new();
        for metadata in scan.scan_metadata(&self.engine).map_err(failed)? {
            found = metadata
                .and_then(|metadata| metadata.visit_scan_files(found, |files, file| files.push(file)))
                .map_err(failed)?;
        }
        let live = found.into_iter().map(|file| LiveFile {
            location: location(&file.path),
            day: file.partition_values.get(DAY).cloned().unwrap_or_default(),
            bytes: u64::try_from(file.size).unwrap_or(0),
            rows: file.stats.as_ref().map(|stats| stats.num_records),
            modified_ms: file.modification_time,
            has_deletions: file.dv_info.has_vector(),
            path: file.path,
        });
        Ok(live.collect())
    }

    /// What a version that somebody committed meanwhile means for a compaction of `inputs` into `output`.
    pub(crate) fn changes(
        &self,
        version: u64,
        inputs: &HashSet<&str>,
        output: &str,
    ) -> Result<Changes, SinkError> {
        let doing = format!("cannot read version {version} of the Delta table's log");
        let file = StorePath::from(format!("_delta_log/{version:020}.json"));
        let read = async { self.folder.store.get(&file).await?.bytes().await };
        let bytes = Handle::current().block_on(read).map_err(|error| trouble::unavailable(&doing, &error))?;
        let text = String::from_utf8_lossy(&bytes);
        changes_of(&text, inputs, output).map_err(|error| SinkError::unavailable(doing, error))
    }

    /// Every path that the log still names, and how long it names removed ones.
    pub(crate) fn named(&self, snapshot: &SnapshotRef) -> Result<(Named, Duration), SinkError> {
        let failed =
            |error| trouble::unavailable("cannot read which files the Delta table's log names", &error);
        let kept = snapshot.table_properties().deleted_file_retention_duration.unwrap_or(REMOVED_NAMES_KEPT);
        let writer = Arc::clone(snapshot).create_checkpoint_writer(&self.engine).map_err(failed)?;
        let mut named = Named::new();
        for actions in writer.checkpoint_data(&self.engine).map_err(failed)? {
            let (data, selected) = actions.map_err(failed)?.into_parts();
            let data = ArrowEngineData::try_from_engine_data(data).map_err(failed)?;
            note(data.record_batch(), &selected, &mut named)?;
        }
        // Two ways to the same list: should they differ, nothing may be removed.
        let unnamed = self.files(snapshot)?.into_iter().find(|file| named.get(&file.location) != Some(&None));
        match unnamed {
            Some(file) => Err(SinkError::Unfit(format!(
                "the table's log is read in two ways, and one lacks {}",
                file.path
            ))),
            None => Ok((named, kept)),
        }
    }
}

/// What a version did, as far as a compaction that was made before it must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changes {
    /// It is this compaction's own.
    Ours,
    /// It leaves the inputs and the table's schema alone.
    Harmless,
    /// It does not.
    InTheWay,
}

/// Reads the actions of one commit's text.
fn changes_of(commit: &str, inputs: &HashSet<&str>, output: &str) -> Result<Changes, serde_json::Error> {
    let mut changes = Changes::Harmless;
    for line in commit.lines().filter(|line| !line.trim().is_empty()) {
        let action: serde_json::Value = serde_json::from_str(line)?;
        let path = |kind: &str| action[kind]["path"].as_str();
        if path("add") == Some(output) {
            return Ok(Changes::Ours);
        }
        // An input that is added again has got a list of deleted rows beside it.
        let touches = [path("remove"), path("add")].into_iter().flatten().any(|path| inputs.contains(path));
        if touches || action.get("metaData").is_some() || action.get("protocol").is_some() {
            changes = Changes::InTheWay;
        }
    }
    Ok(changes)
}

/// Adds the paths of a batch of actions; a batch that cannot be read is an error, or a vacuum would take what it names.
fn note(batch: &RecordBatch, selected: &[bool], named: &mut Named) -> Result<(), SinkError> {
    let unreadable =
        |what: &str| SinkError::Unfit(format!("the table's log has actions that cannot be read: {what}"));
    for (action, is_removal) in [("add", false), ("remove", true)] {
        let of_action = batch.column_by_name(action).and_then(|column| column.as_struct_opt());
        let of_action = of_action.ok_or_else(|| unreadable(action))?;
        let paths = of_action.column_by_name("path").and_then(|column| column.as_string_opt::<i32>());
        let paths = paths.ok_or_else(|| unreadable("path"))?;
        let times = of_action.column_by_name("deletionTimestamp");
        let times = times.and_then(|column| column.as_primitive_opt::<Int64Type>());
        for row in 0..batch.num_rows() {
            if of_action.is_null(row) || paths.is_null(row) || !selected.get(row).copied().unwrap_or(true) {
                continue;
            }
            let removed =
                times.filter(|times| is_removal && times.is_valid(row)).map(|times| times.value(row));
            named.insert(location(paths.value(row)), removed);
        }
    }
    Ok(())
}

/// A path of the log, which is part of a URL, in the store.
fn location(path: &str) -> StorePath {
    StorePath::from_url_path(path).unwrap_or_else(|_| StorePath::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_between_is_harmless_ours_or_in_the_way() {
        let inputs = HashSet::from(["day=1/a.parquet"]);
        let of = |commit: &str| changes_of(commit, &inputs, "day=1/compact.parquet").unwrap();
        let append = "{\"commitInfo\":{}}\n{\"txn\":{}}\n{\"add\":{\"path\":\"day=1/b.parquet\"}}\n";
        assert_eq!(of(append), Changes::Harmless);
        assert_eq!(of("{\"remove\":{\"path\":\"day=1/a.parquet\"}}"), Changes::InTheWay);
        assert_eq!(of("{\"add\":{\"path\":\"day=1/a.parquet\"}}"), Changes::InTheWay);
        assert_eq!(of("{\"metaData\":{}}"), Changes::InTheWay);
        let ours =
            "{\"remove\":{\"path\":\"day=1/a.parquet\"}}\n{\"add\":{\"path\":\"day=1/compact.parquet\"}}";
        assert_eq!(of(ours), Changes::Ours);
        assert!(changes_of("{", &inputs, "x").is_err());
    }
}
