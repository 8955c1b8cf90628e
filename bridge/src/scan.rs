//! The table's side of `forebay reconcile`: what a table really holds, counted and summed from its rows.
//!
//! For every (agent, log epoch) the scan gives the account of its rows, recomputed from the columns by the agent's own
//! formula, the offsets that occur, and how many rows have an identity that another row has too. It reads the files of one
//! version of a Delta table, or all `*.parquet` of a folder, one commit's files at a time, and keeps ranges, not rows. The
//! identities of a commit (16 bytes a row) are compared in parts of at most `IDENTITIES_MAX`: a compacted file has tens of
//! millions of rows. Records mostly do not cross commits, so offsets that occur in two files are suspects; a second pass
//! compares those row by row, up to `SUSPECTS_MAX`. A record that spans a midnight is such a one after compaction.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use delta_kernel::Snapshot;
use delta_kernel::scan::state::ScanFile;
use model::{Epoch, Offset, Quality, RangeSet, Timestamp};
use object_store::path::Path as StorePath;
use proto::account::{Account, path_hash, sample_hash};
use tokio::runtime::Handle;

use crate::parquet_input::ParquetInput;
use crate::sinks::delta::{engine, has_log};
use crate::sinks::folder::{Folder, StoreLayer};
use crate::sinks::location::Location;
use crate::sinks::{SinkError, in_one_line};
use crate::table::{RowProblem, ValueColumns, value_of_row};

/// Columns that the account needs.
const NEEDED: [&str; 12] = [
    "path",
    "agent",
    "ts",
    "value_type",
    "value_double",
    "value_long",
    "value_bool",
    "value_string",
    "quality",
    "log_epoch",
    "log_offset",
    "batch_index",
];

/// Columns that say which row it is.
const IDENTITY: [&str; 4] = ["agent", "log_epoch", "log_offset", "batch_index"];

/// Rows decoded at a time.
const READ_ROWS: usize = 8192;

/// Identities of one commit that are compared at a time: 64 MB.
const IDENTITIES_MAX: usize = 4_000_000;

/// Neighbouring offsets stay in one part, so that they make one range.
const PART_OFFSETS: u64 = 4096;

/// Identities that the second pass compares at most; beyond, duplicates are a lower bound.
const SUSPECTS_MAX: usize = 2_000_000;

/// Texts of problems that are kept.
const PROBLEMS_MAX: usize = 20;

/// What a table holds.
#[derive(Clone, Debug, Default)]
pub struct TableScan {
    /// The Delta table's version; `None` for a folder.
    pub version: Option<u64>,
    /// Files read.
    pub files: u64,
    /// Rows read, all of them.
    pub rows: u64,
    /// Rows that cannot be ours: no account has them.
    pub foreign_rows: u64,
    /// The first such rows, and why.
    pub problems: Vec<String>,
    /// Per agent (`group/node`) and log epoch.
    pub epochs: BTreeMap<(String, Epoch), EpochRows>,
}

/// The rows of one agent's epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochRows {
    /// Count and checksum over all rows, repeated ones included.
    pub account: Account,
    /// Offsets that have at least one row.
    pub offsets: RangeSet,
    /// Rows whose identity another row has already.
    pub duplicates: u64,
    /// Offsets of those rows.
    pub doubled: RangeSet,
    /// Whether there are more duplicates than were counted.
    pub duplicates_at_least: bool,
    /// Offsets that occur in more than one commit.
    suspects: RangeSet,
}

/// Why a table cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// There is no table.
    #[error("{0} is neither a Delta table nor a folder of Parquet files")]
    NoTable(Location),
    /// A file is no Parquet file of ours.
    #[error("cannot read {path}: {why}")]
    File {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// The table's log cannot be read.
    #[error("cannot read the table's log: {0}")]
    Log(String),
    /// A thread failed.
    #[error("the scan was cut off")]
    Thread(#[from] tokio::task::JoinError),
}

impl From<SinkError> for ScanError {
    fn from(error: SinkError) -> Self {
        Self::Log(in_one_line(&error))
    }
}

impl From<delta_kernel::KernelError> for ScanError {
    fn from(error: delta_kernel::KernelError) -> Self {
        Self::Log(in_one_line(&error))
    }
}

/// Scans a table; runs beside the runtime's own threads.
pub async fn scan(place: impl Into<Location>) -> Result<TableScan, ScanError> {
    let place = place.into();
    tokio::task::spawn_blocking(move || scan_blocking(&place)).await?
}

fn scan_blocking(place: &Location) -> Result<TableScan, ScanError> {
    if place.folder().is_some_and(|folder| !folder.exists()) {
        return Err(ScanError::NoTable(place.clone()));
    }
    let folder = Folder::look_into(place, &StoreLayer::default())?;
    let (version, mut files) =
        if has_log(&folder)? { delta_files(place, &folder)? } else { (None, folder_files(&folder)?) };
    if version.is_none() && files.is_empty() {
        return Err(ScanError::NoTable(place.clone()));
    }
    files.sort_by(|a, b| a.commit().cmp(b.commit()).then_with(|| a.path.cmp(&b.path)));
    let mut scanner = Scanner::default();
    for commit in files.chunk_by(|a, b| a.commit() == b.commit()) {
        scanner.first_pass(commit)?;
    }
    if scanner.epochs.values().any(|rows| !rows.suspects.is_empty()) {
        let mut seen = HashSet::new();
        for commit in files.chunk_by(|a, b| a.commit() == b.commit()) {
            scanner.second_pass(commit, &mut seen)?;
        }
    }
    Ok(TableScan {
        version,
        files: files.len() as u64,
        rows: scanner.rows,
        foreign_rows: scanner.foreign_rows,
        problems: scanner.problems,
        epochs: scanner
            .names
            .into_iter()
            .map(|(name, number)| (name, scanner.epochs.remove(&number).unwrap_or_default()))
            .collect(),
    })
}

/// A data file, and which of its rows are deleted.
struct DataFile {
    folder: Arc<Folder>,
    path: StorePath,
    size: u64,
    /// `false` for a row that is deleted; rows beyond its end are not.
    selected: Option<Vec<bool>>,
}

impl DataFile {
    /// Our files of one commit have one name, in the folders of its days.
    fn commit(&self) -> &str {
        self.path.filename().unwrap_or_default()
    }

    fn open(&self) -> Result<ParquetInput, ScanError> {
        ParquetInput::open(&self.folder.store, self.path.clone(), Some(self.size))
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &dyn std::error::Error) -> ScanError {
        ScanError::File { path: self.path.to_string(), why: in_one_line(error) }
    }
}

fn folder_files(folder: &Arc<Folder>) -> Result<Vec<DataFile>, ScanError> {
    let listed = Handle::current().block_on(folder.store.list_with_delimiter(None));
    let listed = listed.map_err(|error| ScanError::File { path: String::new(), why: in_one_line(&error) })?;
    let files = listed.objects.into_iter().filter(|file| file.location.extension() == Some("parquet"));
    Ok(files
        .map(|file| DataFile {
            folder: Arc::clone(folder),
            path: file.location,
            size: file.size,
            selected: None,
        })
        .collect())
}

fn delta_files(place: &Location, folder: &Arc<Folder>) -> Result<(Option<u64>, Vec<DataFile>), ScanError> {
    let (engine, url) = engine(place, &StoreLayer::default())?;
    let snapshot = Snapshot::builder_for(url.as_str()).build(&engine)?;
    let version = snapshot.version();
    let scan = snapshot.scan_builder().build()?;
    let mut found: Vec<ScanFile> = Vec::new();
    for metadata in scan.scan_metadata(&engine)? {
        found = metadata?.visit_scan_files(found, |files, file| files.push(file))?;
    }
    let mut files = Vec::with_capacity(found.len());
    for file in found {
        let outside = || ScanError::Log(format!("{} is not within the table", file.path));
        files.push(DataFile {
            folder: Arc::clone(folder),
            path: StorePath::from_url_path(&file.path).map_err(|_| outside())?,
            size: u64::try_from(file.size).map_err(|_| outside())?,
            selected: file.dv_info.get_selection_vector(&engine, &url)?,
        });
    }
    Ok((Some(version), files))
}

/// Who a row is: number of its (agent, epoch), offset, index.
type Identity = (u32, u64, u32);

#[derive(Default)]
struct Scanner {
    rows: u64,
    foreign_rows: u64,
    problems: Vec<String>,
    names: BTreeMap<(String, Epoch), u32>,
    epochs: BTreeMap<u32, EpochRows>,
}

impl Scanner {
    fn number(&mut self, agent: &str, epoch: Epoch) -> u32 {
        // Rows of one agent follow each other, but a map of few names is fast enough.
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        *self.names.entry((agent.to_owned(), epoch)).or_insert(next)
    }

    fn first_pass(&mut self, commit: &[DataFile]) -> Result<(), ScanError> {
        let mut rows = 0;
        for file in commit {
            let mut last = Last::default();
            read(file, &NEEDED, |batch, selected| {
                let columns = RowColumns::of(batch)?;
                for row in selected {
                    self.rows += 1;
                    rows += 1;
                    match columns.sample(row, &mut last) {
                        Ok(sample) => {
                            let number = last
                                .number(sample.agent, sample.epoch, |agent, epoch| self.number(agent, epoch));
                            self.epochs.entry(number).or_default().account.add(sample.hash);
                        }
                        Err(problem) => {
                            self.foreign_rows += 1;
                            if self.problems.len() < PROBLEMS_MAX {
                                self.problems.push(format!("{}: {problem}", file.path));
                            }
                        }
                    }
                }
                Ok(())
            })?;
        }
        let parts = usize::div_ceil(rows, IDENTITIES_MAX).max(1) as u64;
        (0..parts).try_for_each(|part| self.compare_part(commit, part, parts))
    }

    /// Counts repetitions within a commit, of the offsets of one part.
    fn compare_part(&mut self, commit: &[DataFile], part: u64, parts: u64) -> Result<(), ScanError> {
        let identities =
            self.identities(commit, |_, (_, offset, _)| (offset / PART_OFFSETS) % parts == part)?;
        for of_epoch in identities.chunk_by(|a, b| a.0 == b.0) {
            let Some((number, _, _)) = of_epoch.first() else { continue };
            let known = self.epochs.entry(*number).or_default();
            for pair in of_epoch.windows(2).filter(|pair| pair.first() == pair.last()) {
                known.duplicates += 1;
                if let Some(identity) = pair.first() {
                    known.doubled.insert(identity.1..identity.1.saturating_add(1));
                }
            }
            for range in runs(of_epoch) {
                known.note(range);
            }
        }
        Ok(())
    }

    /// Who the rows of a commit are, as far as they are wanted; sorted.
    fn identities(
        &mut self,
        commit: &[DataFile],
        is_wanted: impl Fn(&Self, Identity) -> bool,
    ) -> Result<Vec<Identity>, ScanError> {
        let mut identities: Vec<Identity> = Vec::new();
        for file in commit {
            let mut last = Last::default();
            read(file, &IDENTITY, |batch, selected| {
                let columns = IdentityColumns::of(batch)?;
                for (agent, epoch, offset, index) in selected.filter_map(|row| columns.identity(row).ok()) {
                    let number = last.number(agent, epoch, |agent, epoch| self.number(agent, epoch));
                    let identity = (number, offset.0, index);
                    if is_wanted(self, identity) {
                        identities.push(identity);
                    }
                }
                Ok(())
            })?;
        }
        identities.sort_unstable();
        Ok(identities)
    }

    fn second_pass(&mut self, commit: &[DataFile], seen: &mut HashSet<Identity>) -> Result<(), ScanError> {
        let mut identities = self.identities(commit, |scanner, (number, offset, _)| {
            scanner.epochs.get(&number).is_some_and(|rows| rows.suspects.contains(offset))
        })?;
        identities.dedup(); // repetition within a commit is counted already
        for identity in identities {
            let known = self.epochs.entry(identity.0).or_default();
            if seen.contains(&identity) {
                known.duplicates += 1;
                known.doubled.insert(identity.1..identity.1.saturating_add(1));
            } else if seen.len() < SUSPECTS_MAX {
                seen.insert(identity);
            } else {
                known.duplicates_at_least = true;
            }
        }
        Ok(())
    }
}

impl EpochRows {
    /// Offsets that a commit holds; those that another one holds too become suspects.
    fn note(&mut self, range: std::ops::Range<u64>) {
        let length = range.end - range.start;
        let missing = self.offsets.missing(range.clone());
        if missing.iter().map(|gap| gap.end - gap.start).sum::<u64>() < length {
            let mut repeated = RangeSet::of(range.clone());
            for gap in missing {
                repeated.remove(gap);
            }
            self.suspects.extend(&repeated);
        }
        self.offsets.insert(range);
    }
}

/// Runs of consecutive offsets of sorted identities.
fn runs(identities: &[Identity]) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for (_, offset, _) in identities {
        match runs.last_mut() {
            Some(run) if *offset < run.end => {}
            Some(run) if *offset == run.end => run.end = offset.saturating_add(1),
            _ => runs.push(*offset..offset.saturating_add(1)),
        }
    }
    runs
}

/// What the last row had: sorted rows mostly repeat it.
#[derive(Default)]
struct Last {
    path: String,
    path_hash: u64,
    quality_text: String,
    quality: Option<Quality>,
    agent: String,
    epoch: Option<Epoch>,
    number: u32,
}

impl Last {
    fn number(&mut self, agent: &str, epoch: Epoch, find: impl FnOnce(&str, Epoch) -> u32) -> u32 {
        if self.epoch != Some(epoch) || self.agent != agent {
            self.number = find(agent, epoch);
            agent.clone_into(&mut self.agent);
            self.epoch = Some(epoch);
        }
        self.number
    }

    fn path_hash(&mut self, path: &str) -> u64 {
        if self.path != path || self.path_hash == 0 {
            path.clone_into(&mut self.path);
            self.path_hash = path_hash(path);
        }
        self.path_hash
    }

    fn quality(&mut self, text: &str) -> Option<Quality> {
        if self.quality.is_none() || self.quality_text != text {
            self.quality = text.parse().ok();
            text.clone_into(&mut self.quality_text);
        }
        self.quality
    }
}

/// Why a row is none of ours.
#[derive(Debug, thiserror::Error)]
enum RowError {
    #[error("row has no {0}")]
    Null(&'static str),
    #[error("row has an impossible {0}")]
    Impossible(&'static str),
    #[error(transparent)]
    Value(#[from] RowProblem),
}

struct RowSample<'r> {
    agent: &'r str,
    epoch: Epoch,
    hash: u64,
}

/// The columns of one record batch that say which row it is.
struct IdentityColumns<'b> {
    agent: &'b arrow::array::StringArray,
    epoch: &'b arrow::array::Int64Array,
    offset: &'b arrow::array::Int64Array,
    index: &'b arrow::array::Int32Array,
}

/// The columns of one record batch that the account needs.
struct RowColumns<'b> {
    identity: IdentityColumns<'b>,
    texts: [&'b arrow::array::StringArray; 4],
    time: &'b arrow::array::TimestampMicrosecondArray,
    double: &'b arrow::array::Float64Array,
    long: &'b arrow::array::Int64Array,
    boolean: &'b BooleanArray,
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b arrow::array::ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"))
}

fn wrong(name: &str) -> String {
    format!("column {name} has another type")
}

fn text<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b arrow::array::StringArray, String> {
    column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name))
}

fn number<'b, T: arrow::datatypes::ArrowPrimitiveType>(
    batch: &'b RecordBatch,
    name: &str,
) -> Result<&'b arrow::array::PrimitiveArray<T>, String> {
    column(batch, name)?.as_primitive_opt::<T>().ok_or_else(|| wrong(name))
}

impl<'b> IdentityColumns<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, String> {
        Ok(IdentityColumns {
            agent: text(batch, "agent")?,
            epoch: number::<Int64Type>(batch, "log_epoch")?,
            offset: number::<Int64Type>(batch, "log_offset")?,
            index: number::<Int32Type>(batch, "batch_index")?,
        })
    }

    fn identity(&self, row: usize) -> Result<(&'b str, Epoch, Offset, u32), RowError> {
        if self.agent.is_null(row)
            || self.epoch.is_null(row)
            || self.offset.is_null(row)
            || self.index.is_null(row)
        {
            return Err(RowError::Null("identity"));
        }
        let epoch = u64::try_from(self.epoch.value(row)).map_err(|_| RowError::Impossible("log_epoch"))?;
        let offset = u64::try_from(self.offset.value(row)).map_err(|_| RowError::Impossible("log_offset"))?;
        let index = u32::try_from(self.index.value(row)).map_err(|_| RowError::Impossible("batch_index"))?;
        Ok((self.agent.value(row), Epoch(epoch), Offset(offset), index))
    }
}

impl<'b> RowColumns<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, String> {
        let boolean = column(batch, "value_bool")?.as_boolean_opt().ok_or_else(|| wrong("value_bool"))?;
        Ok(RowColumns {
            identity: IdentityColumns::of(batch)?,
            texts: [
                text(batch, "path")?,
                text(batch, "value_type")?,
                text(batch, "value_string")?,
                text(batch, "quality")?,
            ],
            time: number::<TimestampMicrosecondType>(batch, "ts")?,
            double: number::<Float64Type>(batch, "value_double")?,
            long: number::<Int64Type>(batch, "value_long")?,
            boolean,
        })
    }

    fn sample(&self, row: usize, last: &mut Last) -> Result<RowSample<'b>, RowError> {
        let (agent, epoch, offset, index) = self.identity.identity(row)?;
        let [path, value_type, string, quality] = self.texts;
        if path.is_null(row) || value_type.is_null(row) || quality.is_null(row) || self.time.is_null(row) {
            return Err(RowError::Null("path, ts, value_type or quality"));
        }
        let quality = last.quality(quality.value(row)).ok_or(RowError::Impossible("quality"))?;
        let columns = ValueColumns {
            double: self.double.is_valid(row).then(|| self.double.value(row)),
            long: self.long.is_valid(row).then(|| self.long.value(row)),
            boolean: self.boolean.is_valid(row).then(|| self.boolean.value(row)),
            string: string.is_valid(row).then(|| string.value(row)),
        };
        let value = value_of_row(value_type.value(row), columns)?;
        let time = Timestamp(self.time.value(row));
        let hash = sample_hash(offset, index, last.path_hash(path.value(row)), time, value.as_ref(), quality);
        Ok(RowSample { agent, epoch, hash })
    }
}

/// Calls `visit` with every piece of a file and its rows that are not deleted.
fn read(
    file: &DataFile,
    names: &[&str],
    mut visit: impl FnMut(&RecordBatch, &mut dyn Iterator<Item = usize>) -> Result<(), String>,
) -> Result<(), ScanError> {
    let input = file.open()?;
    let mask = input.mask(names);
    let mut nth = 0usize;
    for group in 0..input.groups() {
        for batch in input.read(group, &mask, READ_ROWS).map_err(|error| file.failed(&error))? {
            let batch = batch.map_err(|error| file.failed(&error))?;
            let is_selected = |row: &usize| {
                file.selected.as_ref().and_then(|rows| rows.get(nth + row)).copied().unwrap_or(true)
            };
            visit(&batch, &mut (0..batch.num_rows()).filter(is_selected))
                .map_err(|why| ScanError::File { path: file.path.to_string(), why })?;
            nth += batch.num_rows();
        }
    }
    Ok(())
}
