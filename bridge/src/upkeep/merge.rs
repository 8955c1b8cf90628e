//! Several sorted files of one day into one sorted file, in bounded memory.
//!
//! Of every input one row group's bytes and one decoded piece are held; texts that repeat become numbers of one list while
//! they pass. The output goes to the store in parts while it is made. Runs of rows, not single rows, move from the input
//! with the lowest (path, ts); of equal ones the earlier input's come first, so log order stays.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use object_store::path::Path as StorePath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::arrow_writer::ArrowWriter;
use parquet::errors::ParquetError;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::parquet_file::{Bounds, compacted_writer, widen};
use crate::parquet_input::{InputError, ParquetInput};
use crate::sinks::folder::PART_BYTES;
use crate::table::{COLUMNS, ColumnType, DAY};

/// Rows decoded of an input at a time.
const PIECE_ROWS: usize = 4096;

/// Rows written at a time.
const CHUNK_ROWS: usize = 16_384;

/// Bytes of a row group that grows: it is closed early where texts are long.
const GROUP_BYTES_MAX: usize = 24 << 20;

/// Why files were not merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// This input, by number, cannot be merged with ours; others can.
    #[error("{why}")]
    Input { nth: usize, why: String },
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error("cannot write Parquet")]
    Parquet(#[from] ParquetError),
    #[error("cannot make columns")]
    Arrow(#[from] ArrowError),
    #[error("the bridge is closing")]
    Ended,
}

/// The file that was made; nothing refers to it yet.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) rows: usize,
    pub(crate) bytes: u64,
    pub(crate) bounds: Bounds,
}

/// Whether a file has our columns, and no others that would be lost.
pub(crate) fn is_ours(input: &ParquetInput) -> bool {
    let schema = input.schema();
    let ours = COLUMNS.iter().filter(|(name, _)| *name != DAY);
    let is_there = |(name, column): &(&str, ColumnType)| {
        schema.field_with_name(name).is_ok_and(|field| *field.data_type() == plain_type(*column))
    };
    ours.clone().count() == schema.fields().len() && ours.clone().all(is_there)
}

fn plain_type(column: ColumnType) -> DataType {
    match column {
        ColumnType::Text => DataType::Utf8,
        ColumnType::Time => {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(crate::table::TIME_ZONE.into()))
        }
        ColumnType::Double => DataType::Float64,
        ColumnType::Long => DataType::Int64,
        ColumnType::Integer => DataType::Int32,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Date => DataType::Date32,
    }
}

/// What is written: texts that repeat come as numbers of a list; in the file they are texts.
fn schema() -> SchemaRef {
    let numbered = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |(name, column): &(&str, ColumnType)| {
        let written = if repeats(name, *column) { numbered() } else { plain_type(*column) };
        Field::new(*name, written, true)
    };
    let fields: Vec<Field> = COLUMNS.iter().filter(|(name, _)| *name != DAY).map(field).collect();
    Arc::new(Schema::new(fields))
}

/// Whether a column's texts repeat.
fn repeats(name: &str, column: ColumnType) -> bool {
    column == ColumnType::Text && name != "value_string"
}

/// Merges the inputs into a new file. Blocks. After an error no file is there.
pub(crate) fn merge(
    inputs: &[ParquetInput],
    store: &dyn ObjectStore,
    output: &StorePath,
    cancel: &CancellationToken,
) -> Result<Merged, MergeError> {
    let upload = Handle::current().block_on(store.put_multipart(output))?;
    let mut output = Output { upload, unsent: Vec::new(), bytes: 0 };
    let merged = Merge::new(inputs).and_then(|mut merge| merge.run(&mut output, cancel));
    let ended = match &merged {
        Ok(_) => Handle::current().block_on(output.upload.complete()).map(drop),
        Err(_) => Handle::current().block_on(output.upload.abort()),
    };
    match (merged, ended) {
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(error.into()),
        (Ok(merged), Ok(())) => Ok(merged),
    }
}

/// The file on its way.
struct Output {
    upload: Box<dyn MultipartUpload>,
    unsent: Vec<u8>,
    bytes: u64,
}

impl Output {
    /// Sends whole parts; the rest, too, at the end.
    fn send(&mut self, more: Vec<u8>, is_end: bool) -> Result<(), object_store::Error> {
        self.bytes += more.len() as u64;
        if self.unsent.is_empty() {
            self.unsent = more;
        } else {
            self.unsent.extend_from_slice(&more);
        }
        while self.unsent.len() >= PART_BYTES || (is_end && !self.unsent.is_empty()) {
            let rest = self.unsent.split_off(self.unsent.len().min(PART_BYTES));
            let part = std::mem::replace(&mut self.unsent, rest);
            Handle::current().block_on(self.upload.put_part(part.into()))?;
        }
        Ok(())
    }
}

/// All texts that repeat, of all columns; a column's keys are numbers in it.
#[derive(Default)]
struct Texts {
    numbers: HashMap<Arc<str>, i32>,
    texts: Vec<Arc<str>>,
    /// As a column's values, while no text is new.
    values: Option<ArrayRef>,
}

impl Texts {
    fn number(&mut self, text: &str) -> i32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = i32::try_from(self.texts.len()).unwrap_or(i32::MAX);
        let text: Arc<str> = text.into();
        self.numbers.insert(Arc::clone(&text), number);
        self.texts.push(text);
        self.values = None;
        number
    }

    fn text(&self, number: i32) -> &str {
        usize::try_from(number).ok().and_then(|at| self.texts.get(at)).map_or("", |text| text)
    }

    fn keys(&mut self, column: &StringArray) -> Int32Array {
        let mut last: Option<(&str, i32)> = None;
        column
            .iter()
            .map(|text| {
                let text = text?;
                let number = match last {
                    Some((known, number)) if known == text => number,
                    _ => self.number(text),
                };
                last = Some((text, number));
                Some(number)
            })
            .collect()
    }

    fn values(&mut self) -> ArrayRef {
        let texts = &self.texts;
        Arc::clone(
            self.values.get_or_insert_with(|| {
                Arc::new(StringArray::from_iter_values(texts.iter().map(|text| &**text)))
            }),
        )
    }
}

/// Decoded rows of an input.
struct Piece {
    columns: Vec<ArrayRef>,
    path: Int32Array,
    time: TimestampMicrosecondArray,
}

/// One input while it is read.
struct Source<'i> {
    nth: usize,
    input: &'i ParquetInput,
    mask: ProjectionMask,
    group: usize,
    reader: Option<ParquetRecordBatchReader>,
    /// Number of its piece among those that are held.
    piece: usize,
    row: usize,
    /// Of its last row: it must not go back.
    last: Option<(i32, i64)>,
}

/// A row's place in the order.
type Place = (i32, i64);

struct Merge<'i> {
    sources: Vec<Source<'i>>,
    texts: Texts,
    held: Vec<Piece>,
    picked: Vec<(usize, usize)>,
    rows: usize,
    /// Numbers of the first and the last path.
    paths: Option<(i32, i32)>,
    bounds: Bounds,
}

impl<'i> Merge<'i> {
    fn new(inputs: &'i [ParquetInput]) -> Result<Self, MergeError> {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).filter(|name| *name != DAY).collect();
        let mut merge = Merge {
            sources: Vec::new(),
            texts: Texts::default(),
            held: Vec::new(),
            picked: Vec::new(),
            rows: 0,
            paths: None,
            bounds: Bounds::default(),
        };
        for (nth, input) in inputs.iter().enumerate() {
            let mask = input.mask(&names);
            let mut source =
                Source { nth, input, mask, group: 0, reader: None, piece: 0, row: 0, last: None };
            if merge.next_piece(&mut source)? {
                merge.sources.push(source);
            }
        }
        Ok(merge)
    }

    fn run(&mut self, output: &mut Output, cancel: &CancellationToken) -> Result<Merged, MergeError> {
        let mut writer = compacted_writer(schema())?;
        while !self.sources.is_empty() {
            self.take_run()?;
            if self.picked.len() >= CHUNK_ROWS {
                if cancel.is_cancelled() {
                    return Err(MergeError::Ended);
                }
                self.write(&mut writer)?;
                output.send(std::mem::take(writer.inner_mut()), false)?;
            }
        }
        self.write(&mut writer)?;
        output.send(writer.into_inner()?, true)?;
        let mut bounds = std::mem::take(&mut self.bounds);
        let text = |number: i32| Arc::<str>::from(self.texts.text(number));
        bounds.path = self.paths.map(|(low, high)| (text(low), text(high)));
        Ok(Merged { rows: self.rows, bytes: output.bytes, bounds })
    }

    /// Takes rows of the lowest source up to the next one's, or to the end of its piece.
    fn take_run(&mut self) -> Result<(), MergeError> {
        let mut lowest: Option<(usize, Place)> = None;
        let mut next: Option<Place> = None;
        for at in 0..self.sources.len() {
            let Some(place) = self.sources.get(at).and_then(|source| self.place(source.piece, source.row))
            else {
                continue;
            };
            match lowest {
                None => lowest = Some((at, place)),
                Some((_, low)) if self.is_below(place, low) => {
                    next = Some(low);
                    lowest = Some((at, place));
                }
                Some(_) if next.is_none_or(|next| self.is_below(place, next)) => next = Some(place),
                Some(_) => {}
            }
        }
        let Some((at, mut place)) = lowest else {
            self.sources.clear();
            return Ok(());
        };
        let mut source = self.sources.remove(at);
        let mut ended = false;
        loop {
            if source.last.is_some_and(|last| self.is_below(place, last)) {
                let why = "its rows are not in order".to_owned();
                return Err(MergeError::Input { nth: source.nth, why });
            }
            source.last = Some(place);
            self.picked.push((source.piece, source.row));
            source.row += 1;
            match self.place(source.piece, source.row) {
                None => {
                    ended = !self.next_piece(&mut source)?;
                    break;
                }
                Some(here) => {
                    if next.is_some_and(|next| !self.is_below(here, next)) {
                        break;
                    }
                    place = here;
                }
            }
            if self.picked.len() >= CHUNK_ROWS {
                break;
            }
        }
        if !ended {
            self.sources.insert(at, source);
        }
        Ok(())
    }

    fn place(&self, piece: usize, row: usize) -> Option<Place> {
        let piece = self.held.get(piece)?;
        if row >= piece.path.len() {
            return None;
        }
        let path = if piece.path.is_null(row) { -1 } else { piece.path.value(row) };
        let time = if piece.time.is_null(row) { i64::MIN } else { piece.time.value(row) };
        Some((path, time))
    }

    fn is_below(&self, one: Place, other: Place) -> bool {
        if one.0 == other.0 {
            return one.1 < other.1;
        }
        self.texts.text(one.0) < self.texts.text(other.0)
    }

    /// Decodes the source's next piece; whether there was one.
    fn next_piece(&mut self, source: &mut Source<'i>) -> Result<bool, MergeError> {
        let nth = source.nth;
        let bad =
            |error: &dyn std::error::Error| MergeError::Input { nth, why: crate::sinks::in_one_line(error) };
        loop {
            if let Some(reader) = &mut source.reader {
                match reader.next().transpose().map_err(|error| bad(&error))? {
                    Some(batch) if batch.num_rows() == 0 => continue,
                    Some(batch) => {
                        let piece = self.piece(&batch).map_err(|error| bad(&error))?;
                        source.piece = self.held.len();
                        source.row = 0;
                        self.held.push(piece);
                        return Ok(true);
                    }
                    None => source.reader = None,
                }
            }
            if source.group >= source.input.groups() {
                return Ok(false);
            }
            let reader =
                source.input.read(source.group, &source.mask, PIECE_ROWS).map_err(|error| match error {
                    InputError::Store(error) => MergeError::Store(error),
                    InputError::Parquet(error) => bad(&error),
                })?;
            source.reader = Some(reader);
            source.group += 1;
        }
    }

    fn piece(&mut self, batch: &RecordBatch) -> Result<Piece, ArrowError> {
        let missing = |name: &str| ArrowError::SchemaError(format!("no column {name}"));
        let mut columns = Vec::with_capacity(COLUMNS.len());
        let mut path = None;
        for (name, column) in COLUMNS.iter().filter(|(name, _)| *name != DAY) {
            let array = batch.column_by_name(name).ok_or_else(|| missing(name))?;
            if !repeats(name, *column) {
                columns.push(Arc::clone(array));
                continue;
            }
            let keys = self.texts.keys(array.as_string_opt::<i32>().ok_or_else(|| missing(name))?);
            if *name == "path" {
                path = Some(keys.clone());
            }
            columns.push(Arc::new(keys) as ArrayRef);
        }
        let time =
            batch.column_by_name("ts").and_then(|time| time.as_primitive_opt::<TimestampMicrosecondType>());
        Ok(Piece {
            columns,
            path: path.ok_or_else(|| missing("path"))?,
            time: time.ok_or_else(|| missing("ts"))?.clone(),
        })
    }

    /// Writes what was picked, and lets go of pieces that are used up.
    fn write(&mut self, writer: &mut ArrowWriter<Vec<u8>>) -> Result<(), MergeError> {
        if !self.picked.is_empty() {
            let values = self.texts.values();
            let mut columns = Vec::with_capacity(COLUMNS.len());
            for (nth, (name, column)) in COLUMNS.iter().filter(|(name, _)| *name != DAY).enumerate() {
                let arrays: Vec<&dyn Array> = self
                    .held
                    .iter()
                    .filter_map(|piece| piece.columns.get(nth).map(|array| &**array))
                    .collect();
                let picked = interleave(&arrays, &self.picked)?;
                self.note(name, &picked);
                columns.push(if repeats(name, *column) {
                    let keys = picked.as_primitive::<Int32Type>().clone();
                    Arc::new(DictionaryArray::try_new(keys, Arc::clone(&values))?) as ArrayRef
                } else {
                    picked
                });
            }
            writer.write(&RecordBatch::try_new(schema(), columns)?)?;
            self.rows += self.picked.len();
            self.picked.clear();
        }
        if writer.in_progress_size() > GROUP_BYTES_MAX {
            writer.flush()?;
        }
        let mut kept = Vec::with_capacity(self.sources.len());
        let mut held: Vec<Option<Piece>> = std::mem::take(&mut self.held).into_iter().map(Some).collect();
        for source in &mut self.sources {
            if let Some(piece) = held.get_mut(source.piece).and_then(Option::take) {
                source.piece = kept.len();
                kept.push(piece);
            }
        }
        self.held = kept;
        Ok(())
    }

    /// Widens the bounds.
    fn note(&mut self, name: &str, column: &ArrayRef) {
        match name {
            "path" => {
                let mut last = None;
                for number in column.as_primitive::<Int32Type>().iter().flatten() {
                    if last.replace(number) != Some(number) {
                        let (low, high) = self.paths.unwrap_or((number, number));
                        let text = self.texts.text(number);
                        let low = if text < self.texts.text(low) { number } else { low };
                        let high = if text > self.texts.text(high) { number } else { high };
                        self.paths = Some((low, high));
                    }
                }
            }
            "ts" => widen(&mut self.bounds.time, times(column)),
            "arrival_ts" => widen(&mut self.bounds.arrival, times(column)),
            "log_offset" => {
                let offsets: &Int64Array = column.as_primitive::<Int64Type>();
                widen(&mut self.bounds.offset, offsets.iter().flatten());
            }
            _ => {}
        }
    }
}

fn times(column: &ArrayRef) -> impl Iterator<Item = i64> + '_ {
    column.as_primitive::<TimestampMicrosecondType>().iter().flatten()
}
