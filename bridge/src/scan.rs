//! The table's side of `forebay reconcile`: what a table really holds, counted and summed from its rows.
//!
//! For every (agent, log epoch) the scan gives the account of its rows, recomputed from the columns by the agent's own
//! formula, the offsets that occur, and how many rows have an identity that another row has too. It reads the files of one
//! version of a Delta table, or all `*.parquet` of a folder, one commit's files at a time, and keeps ranges, not rows: memory
//! is that of the largest commit's identities (16 bytes a row). Records never cross commits, so offsets that occur in two
//! commits are suspects; a second pass over the files compares those row by row, up to `SUSPECTS_MAX`.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use delta_kernel::Snapshot;
use delta_kernel::scan::state::ScanFile;
use model::{Epoch, Offset, Quality, RangeSet, Timestamp};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use proto::account::{Account, path_hash, sample_hash};

use crate::sinks::delta::{engine, has_log, table_url};
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

/// Rows decoded at a time.
const READ_ROWS: usize = 8192;

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
    NoTable(PathBuf),
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is no Parquet file of ours.
    #[error("cannot read {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
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
pub async fn scan(root: PathBuf) -> Result<TableScan, ScanError> {
    tokio::task::spawn_blocking(move || scan_blocking(&root)).await?
}

fn scan_blocking(root: &Path) -> Result<TableScan, ScanError> {
    let root = root.canonicalize().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ScanError::NoTable(root.to_owned()),
        _ => ScanError::Io { path: root.to_owned(), source },
    })?;
    let (version, mut files) =
        if has_log(&root) { delta_files(&root)? } else { (None, folder_files(&root)?) };
    if version.is_none() && files.is_empty() {
        return Err(ScanError::NoTable(root));
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
    path: PathBuf,
    /// `false` for a row that is deleted; rows beyond its end are not.
    selected: Option<Vec<bool>>,
}

impl DataFile {
    /// Our files of one commit have one name, in the folders of its days.
    fn commit(&self) -> &std::ffi::OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

fn folder_files(root: &Path) -> Result<Vec<DataFile>, ScanError> {
    let failed = |source| ScanError::Io { path: root.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(DataFile { path, selected: None });
        }
    }
    Ok(files)
}

fn delta_files(root: &Path) -> Result<(Option<u64>, Vec<DataFile>), ScanError> {
    let (engine, url) = (engine()?, table_url(root)?);
    let snapshot = Snapshot::builder_for(url.as_str()).build(&engine)?;
    let version = snapshot.version();
    let scan = snapshot.scan_builder().build()?;
    let mut found: Vec<ScanFile> = Vec::new();
    for metadata in scan.scan_metadata(&engine)? {
        found = metadata?.visit_scan_files(found, |files, file| files.push(file))?;
    }
    let mut files = Vec::with_capacity(found.len());
    for file in found {
        let location = url.join(&file.path).map_err(|error| ScanError::Log(error.to_string()))?;
        let path =
            location.to_file_path().map_err(|()| ScanError::Log(format!("{location} is no local file")))?;
        files.push(DataFile { path, selected: file.dv_info.get_selection_vector(&engine, &url)? });
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
        let mut identities: Vec<Identity> = Vec::new();
        for file in commit {
            let mut last = Last::default();
            read(file, |columns, row| {
                self.rows += 1;
                match columns.sample(row, &mut last) {
                    Ok(sample) => {
                        let number =
                            last.number(sample.agent, sample.epoch, |agent, epoch| self.number(agent, epoch));
                        self.epochs.entry(number).or_default().account.add(sample.hash);
                        identities.push((number, sample.offset.0, sample.index));
                    }
                    Err(problem) => {
                        self.foreign_rows += 1;
                        if self.problems.len() < PROBLEMS_MAX {
                            self.problems.push(format!("{}: {problem}", file.path.display()));
                        }
                    }
                }
            })?;
        }
        identities.sort_unstable();
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

    fn second_pass(&mut self, commit: &[DataFile], seen: &mut HashSet<Identity>) -> Result<(), ScanError> {
        let mut identities: Vec<Identity> = Vec::new();
        for file in commit {
            let mut last = Last::default();
            read(file, |columns, row| {
                let Ok((agent, epoch, offset, index)) = columns.identity(row) else { return };
                let number = last.number(agent, epoch, |agent, epoch| self.number(agent, epoch));
                if self.epochs.get(&number).is_some_and(|rows| rows.suspects.contains(offset.0)) {
                    identities.push((number, offset.0, index));
                }
            })?;
        }
        identities.sort_unstable();
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
    offset: Offset,
    index: u32,
    hash: u64,
}

/// The columns of one record batch, in the order of [`NEEDED`] by name.
struct RowColumns<'b> {
    texts: [&'b arrow::array::StringArray; 5],
    time: &'b arrow::array::TimestampMicrosecondArray,
    double: &'b arrow::array::Float64Array,
    long: &'b arrow::array::Int64Array,
    boolean: &'b BooleanArray,
    epoch: &'b arrow::array::Int64Array,
    offset: &'b arrow::array::Int64Array,
    index: &'b arrow::array::Int32Array,
}

impl<'b> RowColumns<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, String> {
        let column =
            |name: &'static str| batch.column_by_name(name).ok_or(format!("it has no column {name}"));
        let wrong = |name: &'static str| format!("column {name} has another type");
        let text = |name| column(name)?.as_string_opt::<i32>().ok_or(wrong(name));
        let long = |name| column(name)?.as_primitive_opt::<Int64Type>().ok_or(wrong(name));
        Ok(RowColumns {
            texts: [
                text("path")?,
                text("agent")?,
                text("value_type")?,
                text("value_string")?,
                text("quality")?,
            ],
            time: column("ts")?.as_primitive_opt::<TimestampMicrosecondType>().ok_or(wrong("ts"))?,
            double: column("value_double")?.as_primitive_opt::<Float64Type>().ok_or(wrong("value_double"))?,
            long: long("value_long")?,
            boolean: column("value_bool")?.as_boolean_opt().ok_or(wrong("value_bool"))?,
            epoch: long("log_epoch")?,
            offset: long("log_offset")?,
            index: column("batch_index")?.as_primitive_opt::<Int32Type>().ok_or(wrong("batch_index"))?,
        })
    }

    fn identity(&self, row: usize) -> Result<(&'b str, Epoch, Offset, u32), RowError> {
        let [_, agent, ..] = self.texts;
        if agent.is_null(row)
            || self.epoch.is_null(row)
            || self.offset.is_null(row)
            || self.index.is_null(row)
        {
            return Err(RowError::Null("identity"));
        }
        let epoch = u64::try_from(self.epoch.value(row)).map_err(|_| RowError::Impossible("log_epoch"))?;
        let offset = u64::try_from(self.offset.value(row)).map_err(|_| RowError::Impossible("log_offset"))?;
        let index = u32::try_from(self.index.value(row)).map_err(|_| RowError::Impossible("batch_index"))?;
        Ok((agent.value(row), Epoch(epoch), Offset(offset), index))
    }

    fn sample(&self, row: usize, last: &mut Last) -> Result<RowSample<'b>, RowError> {
        let (agent, epoch, offset, index) = self.identity(row)?;
        let [path, _, value_type, string, quality] = self.texts;
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
        Ok(RowSample { agent, epoch, offset, index, hash })
    }
}

/// Calls `visit` for every row of a file that is not deleted.
fn read(file: &DataFile, mut visit: impl FnMut(&RowColumns<'_>, usize)) -> Result<(), ScanError> {
    let opened =
        File::open(&file.path).map_err(|source| ScanError::Io { path: file.path.clone(), source })?;
    let failed = |why: String| ScanError::File { path: file.path.clone(), why };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options)
        .map_err(|error| failed(error.to_string()))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), NEEDED);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(READ_ROWS)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let mut nth = 0usize;
    for batch in reader {
        let batch = batch.map_err(|error| failed(error.to_string()))?;
        let columns = RowColumns::of(&batch).map_err(failed)?;
        for row in 0..batch.num_rows() {
            let selected =
                file.selected.as_ref().and_then(|rows| rows.get(nth + row)).copied().unwrap_or(true);
            if selected {
                visit(&columns, row);
            }
        }
        nth += batch.num_rows();
    }
    Ok(())
}
