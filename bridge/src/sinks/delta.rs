//! A Delta table in a folder or an object store: rows and cursor in one commit of its log (design §4.16, §10).
//!
//! Data files are ours (`parquet_file.rs`), one per day and batch, `day=2026-11-22/{hub}.{sink}-{epoch}-{start}-{end}.parquet`:
//! two files of one name have the same rows. The kernel writes the log. Each commit carries two transaction ids with the position's end as version:
//!
//! - `forebay/{hub id}/{plant-log epoch, 16 hex}/{sink}`: the cursor. It is asked back on open, newest epoch first.
//! - `forebay/{hub id}/{sink}`: the same number whatever the epoch, so that a table whose epochs the hub's log no longer
//!   holds is not taken for an empty one, and rows of an epoch that a restored log does not have are noticed.
//!
//! A commit is one file of the log, created only if it does not exist yet: two writers cannot both make version N. Who
//! loses looks at the cursor again: unmoved, it tries again on the new version; at its own end, the commit had landed
//! and only the answer was lost; elsewhere, the sink reports `Raced`. Every `CHECKPOINT_COMMITS` commits a checkpoint
//! is written, after the commit; its failure is logged and tried again later. Files staged before a crash stay, unreferenced,
//! unless the same range is staged again; the upkeep (`upkeep.rs`) removes them when they are old.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, StructArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Fields};
use async_trait::async_trait;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::expressions::Scalar;
use delta_kernel::schema::{DataType, SchemaRef, StructField, StructType};
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{CommitResult, CommittedTransaction, UpdateTableOperation, WriteState};
use delta_kernel::{EngineData, FileMeta, KernelError, Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder, build_add_file_metadata};
use futures_util::StreamExt as _;
use model::timestamp::civil;
use object_store::PutMode;
use object_store::path::Path as StorePath;
use runtime::config_file::{Problems, Section};
use tokio::runtime::{Handle, RuntimeFlavor};
use url::Url;

use super::folder::{Folder, StoreLayer, Whole, file_word, sync_folder};
use super::location::{Location, trouble};
use super::{Sink, SinkError, SinkKind, Written, blocking, in_one_line};
use crate::batch::Batch;
use crate::cursor::{Cursor, PlantLog, Span};
use crate::parquet_file::{Bounds, encode_day};
use crate::table::{COLUMNS, ColumnType, DAY, TIME_ZONE};
use crate::upkeep::{Policy, Upkeep};

/// `kind = "delta"`.
pub const KIND: SinkKind = SinkKind { name: "delta", validate };

/// Commits between checkpoints: an opening reads at most this many small files of the log.
const CHECKPOINT_COMMITS: u64 = 100;

/// How often a commit starts again because somebody else committed something that does not concern us.
const CONFLICTS_MAX: u32 = 20;

/// Files of the table's log that are read at once. The engine's own number is 1000, which is for far object stores and
/// costs 50 MB more at each checkpoint.
const FILES_AT_ONCE: NonZero<usize> = NonZero::new(4).expect("not zero");

/// Characters of a text bound that Delta's statistics keep.
const BOUND_CHARACTERS_MAX: usize = 32;

pub(crate) const ENGINE_INFO: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));

pub(crate) type Engine = DefaultEngine<TokioMultiThreadExecutor>;

fn validate(section: &mut Section<'_>, problems: &mut Problems) -> Option<Box<dyn Sink>> {
    let policy = Policy::of_section(section, problems);
    Some(Box::new(DeltaSink::new(Location::of_section(section, problems)?).kept_in_order(policy)))
}

/// The sink.
#[derive(Debug)]
pub struct DeltaSink {
    location: Location,
    layer: StoreLayer,
    /// Whether another sink of the same name in this folder is kept out on this machine.
    lock: bool,
    /// What is done beside the commits.
    upkeep: Option<Policy>,
    target: Option<Arc<Target>>,
    /// What the next commit builds on; `None` after a failure.
    table: Option<Table>,
    staged: Option<Staged>,
    /// First position and files of the last batch that may not have been committed: open looks at it again.
    doubtful: Option<(u64, Vec<String>)>,
}

#[derive(Debug)]
struct Target {
    folder: Arc<Folder>,
    url: Url,
    engine: Engine,
    hub_id: String,
    sink: String,
    /// In an object store, where nothing keeps a second bridge out: makes file names of one opening its own, so that no
    /// other overwrites a file that is committed.
    opening: Option<String>,
}

/// The table as last seen.
#[derive(Clone, Debug)]
struct Table {
    snapshot: SnapshotRef,
    held: Option<Cursor>,
}

#[derive(Clone, Debug)]
struct Staged {
    span: Span,
    files: Vec<StagedFile>,
}

/// A data file that is written and not yet named by the table.
#[derive(Clone, Debug)]
pub(crate) struct StagedFile {
    pub(crate) day: i32,
    pub(crate) name: String,
    pub(crate) rows: usize,
    pub(crate) bytes: u64,
    pub(crate) modified_ms: i64,
    pub(crate) bounds: Bounds,
}

impl DeltaSink {
    /// A table at this place.
    #[must_use]
    pub fn new(location: impl Into<Location>) -> Self {
        DeltaSink {
            location: location.into(),
            layer: StoreLayer::default(),
            lock: true,
            upkeep: None,
            target: None,
            table: None,
            staged: None,
            doubtful: None,
        }
    }

    /// Kept in order, too.
    #[must_use]
    pub fn kept_in_order(self, policy: Policy) -> Self {
        DeltaSink { upkeep: Some(policy), ..self }
    }

    /// With something between it and its object store.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn through(self, layer: StoreLayer) -> Self {
        DeltaSink { layer, ..self }
    }

    /// As if it ran on another machine: the lock of the folder does not keep it out.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn from_elsewhere(self) -> Self {
        DeltaSink { lock: false, ..self }
    }
}

#[async_trait]
impl Sink for DeltaSink {
    async fn open(&mut self, name: &str, log: &PlantLog) -> Result<Option<Cursor>, SinkError> {
        let left_over = self.doubtful.clone();
        self.close().await;
        let (location, log, sink) = (self.location.clone(), log.clone(), name.to_owned());
        let (layer, elsewhere) = (self.layer.clone(), if self.lock { "" } else { ".elsewhere" });
        let (target, table) = blocking("cannot open the Delta table", move || {
            let lock = format!("{}.{}{elsewhere}", file_word(&log.hub_id), file_word(&sink));
            let folder = Folder::open_through(&location, &lock, &layer)?;
            let (engine, url) = engine(&location, &layer)?;
            let opening = folder.root.is_none().then(opening_word).transpose()?;
            let target = Target { url, engine, hub_id: log.hub_id.clone(), sink, folder, opening };
            let snapshot = target.load_or_create()?;
            let held = target.held(&snapshot, &log.epochs)?;
            if let Some((start, names)) = left_over
                && held.is_none_or(|cursor| cursor.position <= start)
            {
                names.iter().for_each(|name| target.folder.discard(name));
            }
            Ok((target, Table { snapshot, held }))
        })
        .await?;
        let held = table.held;
        self.doubtful = None;
        self.target = Some(Arc::new(target));
        self.table = Some(table);
        Ok(held)
    }

    async fn write(&mut self, batch: Arc<Batch>) -> Result<(), SinkError> {
        let target = Arc::clone(self.target.as_ref().ok_or(SinkError::NotOpen)?);
        self.staged = None;
        let span = batch.span().clone();
        let names = batch.days().iter().map(|day| target.file_name(&span, day.day)).collect();
        self.doubtful = Some((span.positions.start, names));
        let mut files = Vec::with_capacity(batch.days().len());
        for nth in 0..batch.days().len() {
            let (target, batch) = (Arc::clone(&target), Arc::clone(&batch));
            let file = blocking("cannot write a data file", move || target.stage(&batch, nth)).await?;
            files.extend(file);
        }
        self.staged = Some(Staged { span, files });
        Ok(())
    }

    async fn commit(&mut self, upto: Cursor) -> Result<Written, SinkError> {
        let target = Arc::clone(self.target.as_ref().ok_or(SinkError::NotOpen)?);
        let table = self.table.take().ok_or(SinkError::NotOpen)?;
        if table.held == Some(upto) {
            self.table = Some(table);
            self.staged = None;
            return Ok(Written::default());
        }
        let staged =
            self.staged.take().filter(|staged| staged.span.end() == upto).ok_or(SinkError::NotOpen)?;
        let written = Written {
            rows: staged.files.iter().map(|f| f.rows as u64).sum(),
            files: staged.files.len() as u64,
            bytes: staged.files.iter().map(|f| f.bytes).sum(),
        };
        let table =
            blocking("cannot commit to the Delta table", move || target.commit(table, &staged)).await?;
        self.table = Some(table);
        self.doubtful = None;
        Ok(written)
    }

    async fn close(&mut self) {
        self.staged = None;
        self.table = None;
        self.target = None;
    }

    fn location(&self) -> Option<&Location> {
        Some(&self.location)
    }

    fn upkeep(&self) -> Option<Upkeep> {
        let policy = self.upkeep.filter(|policy| policy.compact || policy.vacuum)?;
        Some(Upkeep { place: self.location.clone(), layer: self.layer.clone(), policy })
    }
}

impl Target {
    fn cursor_id(&self, epoch: model::Epoch) -> String {
        format!("forebay/{}/{epoch}/{}", self.hub_id, self.sink)
    }

    fn sink_id(&self) -> String {
        format!("forebay/{}/{}", self.hub_id, self.sink)
    }

    fn file_name(&self, span: &Span, day: i32) -> String {
        let opening = self.opening.as_deref().map(|word| format!("-{word}")).unwrap_or_default();
        format!(
            "{DAY}={}/{}.{}-{}-{:020}-{:020}{opening}.parquet",
            date_text(day),
            file_word(&self.hub_id),
            file_word(&self.sink),
            span.epoch,
            span.positions.start,
            span.positions.end
        )
    }

    /// Writes the file of a batch's nth day. Nothing refers to it yet.
    fn stage(&self, batch: &Batch, nth: usize) -> Result<Option<StagedFile>, SinkError> {
        let Some(day) = batch.days().get(nth) else { return Ok(None) };
        let file = encode_day(batch, day)?;
        let name = self.file_name(batch.span(), day.day);
        let bytes = file.bytes.len() as u64;
        self.folder.put(&name, file.bytes, PutMode::Overwrite)?;
        let modified_ms = self.folder.modified_ms(&name)?;
        Ok(Some(StagedFile { day: day.day, name, rows: file.rows, bytes, modified_ms, bounds: file.bounds }))
    }

    fn load_or_create(&self) -> Result<SnapshotRef, SinkError> {
        if !has_log(&self.folder)? {
            let layout = DataLayout::partitioned([DAY]);
            let created = create_table(self.url.as_str(), delta_schema()?, ENGINE_INFO, false)
                .with_data_layout(layout)
                .build(&self.engine, Box::new(FileSystemCommitter::new()))
                .and_then(|transaction| transaction.commit(&self.engine))
                .map_err(|error| trouble::unavailable("cannot create the Delta table", &error))?;
            // Lost against another creator: its table is checked like any other.
            drop(created);
        }
        if let Some(root) = &self.folder.root {
            sync_folder(&root.join("_delta_log"))
                .map_err(|error| SinkError::unavailable("cannot sync the Delta table's log", error))?;
        }
        let snapshot = self.latest(None)?;
        check_schema(&snapshot)?;
        Ok(snapshot)
    }

    fn latest(&self, known: Option<SnapshotRef>) -> Result<SnapshotRef, SinkError> {
        match known {
            Some(known) => Snapshot::builder_from(known).build(&self.engine),
            None => Snapshot::builder_for(self.url.as_str()).build(&self.engine),
        }
        .map_err(|error| trouble::unavailable("cannot read the Delta table's log", &error))
    }

    fn version_of(&self, snapshot: &Snapshot, id: &str) -> Result<Option<u64>, SinkError> {
        let version = snapshot
            .get_app_id_version(id, &self.engine)
            .map_err(|error| trouble::unavailable("cannot read the cursor from the Delta table", &error))?;
        match version.map(u64::try_from) {
            None => Ok(None),
            Some(Ok(position)) => Ok(Some(position)),
            Some(Err(_)) => {
                Err(SinkError::Unfit(format!("the table's transaction {id} has a negative version")))
            }
        }
    }

    fn held(&self, snapshot: &Snapshot, epochs: &[(model::Epoch, u64)]) -> Result<Option<Cursor>, SinkError> {
        let Some(newest) = self.version_of(snapshot, &self.sink_id())? else { return Ok(None) };
        for (epoch, _) in epochs.iter().rev() {
            if let Some(position) = self.version_of(snapshot, &self.cursor_id(*epoch))? {
                // Later commits of an epoch that the log does not have: the hub was restored from an older copy.
                let position = position.max(newest);
                return Ok(Some(Cursor { epoch: Some(*epoch), position }));
            }
        }
        Ok(Some(Cursor { epoch: None, position: newest }))
    }

    /// Commits the staged files with their cursor; the table as it is afterwards.
    fn commit(&self, table: Table, staged: &Staged) -> Result<Table, SinkError> {
        let failed = |error: KernelError| trouble::unavailable("cannot commit to the Delta table", &error);
        let end = staged.span.end();
        let mut table = table;
        for _ in 0..CONFLICTS_MAX {
            match self.try_commit(&table, staged).map_err(failed)? {
                CommitResult::Committed(committed) => {
                    let snapshot = match committed.post_commit_snapshot() {
                        Some(snapshot) => Arc::clone(snapshot),
                        None => self.latest(Some(table.snapshot))?,
                    };
                    let snapshot = self.checkpoint_if_due(&committed, snapshot);
                    return Ok(Table { snapshot, held: Some(end) });
                }
                CommitResult::Retryable(retryable) => return Err(failed(retryable.error)),
                CommitResult::Conflicted(_) => {}
            }
            let snapshot = self.latest(None)?;
            let before = table.held;
            let now = self.version_of(&snapshot, &self.sink_id())?;
            if now == Some(end.position)
                && self.version_of(&snapshot, &self.cursor_id(staged.span.epoch))? == now
            {
                return Ok(Table { snapshot, held: Some(end) });
            }
            if now != before.map(|cursor| cursor.position) {
                let now = now.map_or_else(|| "nowhere".to_owned(), |position| position.to_string());
                return Err(SinkError::Raced(format!("it stands at {now} instead of {before:?}")));
            }
            check_schema(&snapshot)?;
            table.snapshot = snapshot;
        }
        Err(SinkError::Raced(format!("lost {CONFLICTS_MAX} commits in a row to other writers of the table")))
    }

    fn try_commit(&self, table: &Table, staged: &Staged) -> Result<CommitResult, KernelError> {
        let version = i64::try_from(staged.span.positions.end)
            .map_err(|_| KernelError::generic("the position does not fit a Delta transaction version"))?;
        let mut transaction = Arc::clone(&table.snapshot)
            .update_table(UpdateTableOperation::StreamingUpdate, ENGINE_INFO, true)
            .with_transaction_id(self.cursor_id(staged.span.epoch), version)
            .with_transaction_id(self.sink_id(), version)
            .build(&self.engine, Box::new(FileSystemCommitter::new()))?;
        let state = transaction.write_state()?;
        for file in &staged.files {
            transaction.add_files(add_action(&state, &self.url, file)?);
        }
        transaction.commit(&self.engine)
    }

    /// The snapshot, with its checkpoint if one was due: the next is counted from there.
    fn checkpoint_if_due(&self, committed: &CommittedTransaction, snapshot: SnapshotRef) -> SnapshotRef {
        let since = committed.post_commit_stats().commits_since_checkpoint;
        if since < CHECKPOINT_COMMITS || !since.is_multiple_of(CHECKPOINT_COMMITS) {
            return snapshot; // after a failure, try again only as many commits later
        }
        match snapshot.checkpoint(&self.engine, None) {
            Ok((_, snapshot)) => snapshot,
            Err(error) => {
                tracing::warn!(table = %self.url, error = %in_one_line(&error), "no checkpoint this time");
                snapshot
            }
        }
    }
}

/// The table library over a place, and the table's URL; needs a runtime of several threads around it.
pub(crate) fn engine(location: &Location, layer: &StoreLayer) -> Result<(Engine, Url), SinkError> {
    let handle = Handle::current();
    if handle.runtime_flavor() != RuntimeFlavor::MultiThread {
        return Err(SinkError::Unfit("Delta tables need a runtime of several threads".to_owned()));
    }
    let Whole { store, url } = Folder::whole(location, layer)?;
    let engine =
        DefaultEngineBuilder::new(store).with_task_executor(Arc::new(TokioMultiThreadExecutor::new(handle)));
    Ok((engine.with_buffer_size(FILES_AT_ONCE).build(), url))
}

/// Whether a Delta log has been begun at the place. Blocks.
pub(crate) fn has_log(folder: &Folder) -> Result<bool, SinkError> {
    let prefix = StorePath::from("_delta_log");
    let mut entries = folder.store.list(Some(&prefix));
    Handle::current().block_on(async {
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|error| {
                trouble::unavailable(&format!("cannot list {}/_delta_log", folder.name), &error)
            })?;
            if matches!(entry.location.extension(), Some("json" | "parquet")) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

fn opening_word() -> Result<String, SinkError> {
    let word = runtime::world::random_u64().map_err(|why| SinkError::unavailable("no random number", why))?;
    Ok(format!("{word:016x}"))
}

/// What the table's log will say of a file.
pub(crate) fn add_action(
    state: &Arc<WriteState>,
    table: &Url,
    file: &StagedFile,
) -> Result<Box<dyn EngineData>, KernelError> {
    let day = HashMap::from([(DAY.to_owned(), Scalar::Date(file.day))]);
    let context = state.write_context_builder().with_partition_values(day).build()?;
    let location = table.join(&file.name).map_err(KernelError::generic_err)?;
    let meta = FileMeta::new(location, file.modified_ms, file.bytes);
    let meta = DataFileMetadata::new(meta, statistics(file)?);
    build_add_file_metadata(meta, &context)
}

fn delta_schema() -> Result<SchemaRef, SinkError> {
    let fields = COLUMNS.iter().map(|(name, column)| StructField::nullable(*name, delta_type(*column)));
    let schema = StructType::try_new(fields).map_err(|error| SinkError::Unfit(in_one_line(&error)))?;
    Ok(Arc::new(schema))
}

const fn delta_type(column: ColumnType) -> DataType {
    match column {
        ColumnType::Text => DataType::STRING,
        ColumnType::Time => DataType::TIMESTAMP,
        ColumnType::Double => DataType::DOUBLE,
        ColumnType::Long => DataType::LONG,
        ColumnType::Integer => DataType::INTEGER,
        ColumnType::Boolean => DataType::BOOLEAN,
        ColumnType::Date => DataType::DATE,
    }
}

/// A table of ours has our columns with our types; columns that others added may be null, and stay null in our rows.
pub(crate) fn check_schema(snapshot: &Snapshot) -> Result<(), SinkError> {
    let schema = snapshot.schema();
    for (name, column) in COLUMNS {
        let expected = delta_type(column);
        match schema.field(name) {
            Some(field) if *field.data_type() == expected => {}
            Some(field) => {
                let found = field.data_type();
                return Err(SinkError::Unfit(format!(
                    "column {name} of the table is {found}, not {expected}; give the sink another folder"
                )));
            }
            None => {
                return Err(SinkError::Unfit(format!(
                    "the table has no column {name}; it is none of ours: give the sink another folder"
                )));
            }
        }
    }
    let foreign =
        schema.fields().find(|f| !f.is_nullable() && !COLUMNS.iter().any(|(name, _)| name == f.name()));
    match foreign {
        Some(field) => Err(SinkError::Unfit(format!(
            "column {} of the table, which is none of ours, must not be null; make it nullable",
            field.name()
        ))),
        None => Ok(()),
    }
}

/// Days since 1970-01-01 of `2026-11-22`.
pub(crate) fn days_of(date: &str) -> Option<i32> {
    let mut parts = date.splitn(3, '-').map(str::parse::<i32>);
    let (year, month, _) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    // Near enough, and then to the day: `date_text` is the only calendar here.
    let guess = (year.checked_sub(1970)?).checked_mul(365)? + (year - 1969).div_euclid(4) + (month - 1) * 30;
    (guess - 40..guess + 80).find(|day| date_text(*day) == date)
}

/// `2026-11-22`.
fn date_text(day: i32) -> String {
    let (year, month, day) = civil(i64::from(day));
    format!("{year:04}-{month:02}-{day:02}")
}

/// The statistics of one file as the kernel takes them: `numRecords`, `nullCount`, `minValues`, `maxValues`, `tightBounds`.
fn statistics(file: &StagedFile) -> Result<StructArray, KernelError> {
    let (low, high, tight) = bound_columns(&file.bounds);
    let zeros: Vec<(&str, ArrayRef)> =
        low.iter().map(|(name, _)| (*name, Arc::new(Int64Array::from(vec![0i64])) as ArrayRef)).collect();
    let rows = i64::try_from(file.rows).unwrap_or(i64::MAX);
    structure(vec![
        ("numRecords", Arc::new(Int64Array::from(vec![rows])) as ArrayRef),
        ("nullCount", Arc::new(structure(zeros)?)),
        ("minValues", Arc::new(structure(low)?)),
        ("maxValues", Arc::new(structure(high)?)),
        ("tightBounds", Arc::new(BooleanArray::from(vec![tight]))),
    ])
}

type NamedColumns = Vec<(&'static str, ArrayRef)>;

/// Lower and upper bounds per column, and whether all of them are values that occur.
///
/// Every file has bounds for the same columns: some readers (deltalake's pyarrow dataset) take a missing bound beside files
/// that have it for "no row matches". The kernel writes times with milliseconds, cut off; so bounds are whole
/// milliseconds here, rounded outwards, or readers would skip rows in the last one.
fn bound_columns(bounds: &Bounds) -> (NamedColumns, NamedColumns, bool) {
    let (mut low, mut high, mut tight) = (Vec::new(), Vec::new(), true);
    if let Some((first, last)) = &bounds.path {
        let (lower, upper) = (lower_bound(first), upper_bound(last));
        tight = lower == **first && upper == **last;
        low.push(("path", Arc::new(StringArray::from(vec![lower])) as ArrayRef));
        high.push(("path", Arc::new(StringArray::from(vec![upper])) as ArrayRef));
    }
    for (name, range) in [("ts", bounds.time), ("arrival_ts", bounds.arrival)] {
        if let Some((first, last)) = range {
            let (lower, upper) = time_bounds(first, last);
            tight &= lower == first && upper == last;
            let time = |micros| TimestampMicrosecondArray::from(vec![micros]).with_timezone(TIME_ZONE);
            low.push((name, Arc::new(time(lower))));
            high.push((name, Arc::new(time(upper))));
        }
    }
    if let Some((first, last)) = bounds.offset {
        low.push(("log_offset", Arc::new(Int64Array::from(vec![first]))));
        high.push(("log_offset", Arc::new(Int64Array::from(vec![last]))));
    }
    (low, high, tight)
}

/// Whole milliseconds around a range, within the years 1 to 9999 that every reader of statistics can parse.
fn time_bounds(first: i64, last: i64) -> (i64, i64) {
    const YEAR_1: i64 = -62_135_596_800_000_000;
    const YEAR_9999_LAST_MS: i64 = 253_402_300_799_999_000;
    let within = |micros: i64| micros.clamp(YEAR_1, YEAR_9999_LAST_MS);
    (within(first).div_euclid(1000) * 1000, within(within(last) + 999).div_euclid(1000) * 1000)
}

/// The first characters: never above the text.
fn lower_bound(text: &str) -> String {
    text.chars().take(BOUND_CHARACTERS_MAX).collect()
}

/// The text, or its first characters with the highest one after them: never below the text.
fn upper_bound(text: &str) -> String {
    let mut rest = text.chars();
    let mut prefix: String = rest.by_ref().take(BOUND_CHARACTERS_MAX).collect();
    match rest.next() {
        None | Some(char::MAX) => text.to_owned(),
        Some(_) => {
            prefix.push(char::MAX);
            prefix
        }
    }
}

fn structure(columns: Vec<(&str, ArrayRef)>) -> Result<StructArray, KernelError> {
    let fields: Fields =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    StructArray::try_new(fields, columns.into_iter().map(|(_, array)| array).collect(), None)
        .map_err(|error| KernelError::generic(error.to_string()))
}

/// The Arrow schema that an engine sees; used to check that ours and the kernel's agree.
#[cfg(test)]
fn engine_view() -> arrow::datatypes::Schema {
    use delta_kernel::engine::arrow_conversion::TryIntoArrow as _;
    let schema = delta_schema().unwrap();
    schema.as_ref().try_into_arrow().unwrap()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType as ArrowType;

    use super::*;

    #[test]
    fn the_kernel_reads_our_columns_as_we_write_them() {
        let ours = crate::table::arrow_schema(true);
        for field in engine_view().fields() {
            let written = ours.field_with_name(field.name()).unwrap();
            let plain = match written.data_type() {
                ArrowType::Dictionary(_, value) => value.as_ref(),
                other => other,
            };
            assert_eq!(plain, field.data_type(), "{}", field.name());
        }
    }

    #[test]
    fn bounds_of_long_texts_enclose_them() {
        assert_eq!((lower_bound("short"), upper_bound("short")), ("short".to_owned(), "short".to_owned()));
        let long = "ü".repeat(40);
        assert!(lower_bound(&long) < long && upper_bound(&long) > long);
        assert_eq!(upper_bound(&long).chars().count(), 33);
        let strange = format!("{}{}x", "a".repeat(32), char::MAX);
        assert_eq!(upper_bound(&strange), strange);
    }

    #[test]
    fn bounds_of_times_enclose_them_in_whole_milliseconds() {
        assert_eq!(time_bounds(1_001, 1_001), (1_000, 2_000));
        assert_eq!(time_bounds(-1, 0), (-1_000, 0));
        let (low, high) = time_bounds(i64::MIN, i64::MAX);
        assert_eq!(model::Timestamp(low).to_string(), "0001-01-01T00:00:00.000000Z");
        assert_eq!(model::Timestamp(high).to_string(), "9999-12-31T23:59:59.999000Z");
        assert_eq!(date_text(0), "1970-01-01");
        assert_eq!(date_text(20_779), "2026-11-22");
        assert!((0..50_000).all(|day| days_of(&date_text(day)) == Some(day)));
        assert_eq!(
            (days_of("2026-02-30"), days_of("x"), days_of("__HIVE_DEFAULT_PARTITION__")),
            (None, None, None)
        );
    }
}
