//! One Parquet file: our settings, chosen by measurement (design §10), and the statistics a table format wants.
//!
//! Times are DELTA_BINARY_PACKED without dictionary; numbers take a dictionary and fall back to BYTE_STREAM_SPLIT
//! (doubles) or DELTA_BINARY_PACKED (integers) where too many differ; texts that repeat are runs of dictionary keys
//! ([`runs`]); zstd 1. Rows come sorted by (path, ts), which halves the size against arrival order. The Arrow schema is not embedded, so readers see
//! plain texts, not our dictionaries.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriter, ArrowWriterOptions, compute_leaves,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use crate::batch::{Batch, DayRows};
use crate::table::{COLUMNS, ColumnType, Columns, DAY, Part, Texts, arrow_schema};

mod runs;

pub(crate) use runs::Runs;

/// Rows converted to Arrow at a time: bounds the memory beside the batch itself (about 100 bytes a row).
const SLICE_ROWS: usize = 16_384;

/// Rows of a row group: what a reader can skip or hand to a thread.
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The columns do not fit together.
    #[error("cannot make columns")]
    Arrow(#[from] ArrowError),
    /// The writer refused them.
    #[error("cannot write Parquet")]
    Parquet(#[from] ParquetError),
}

/// A whole file in memory, and what stands in it.
#[derive(Debug)]
pub struct EncodedFile {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its rows.
    pub rows: usize,
    /// What a reader may skip it by.
    pub bounds: Bounds,
}

/// Lowest and highest of the columns that queries select by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Paths.
    pub path: Option<(Arc<str>, Arc<str>)>,
    /// Source times.
    pub time: Option<(i64, i64)>,
    /// Arrival times.
    pub arrival: Option<(i64, i64)>,
    /// Offsets.
    pub offset: Option<(i64, i64)>,
}

/// The rows of one day, without the column `day`.
pub fn encode_day(batch: &Batch, day: &DayRows) -> Result<EncodedFile, EncodeError> {
    let rows: Vec<(i32, u32)> = day.order().iter().map(|row| (day.day, *row)).collect();
    encode(batch, &rows, false)
}

/// All rows, with the column `day`.
pub fn encode_all(batch: &Batch) -> Result<EncodedFile, EncodeError> {
    encode(batch, &batch.order_over_days(), true)
}

fn encode(batch: &Batch, rows: &[(i32, u32)], with_day: bool) -> Result<EncodedFile, EncodeError> {
    let (columns, schema) = (Columns::new(batch, with_day), arrow_schema(with_day));
    let parquet = ArrowSchemaConverter::new().convert(&schema)?;
    let mut file = SerializedFileWriter::new(Vec::new(), parquet.root_schema_ptr(), Arc::new(properties()))?;
    let factory = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema));
    let mut bounds = Bounds::default();
    for (group, nth) in rows.chunks(ROW_GROUP_ROWS).zip(0..) {
        let mut texts = Texts::default();
        let mut open: Vec<Open> = factory.create_column_writers(nth)?.into_iter().map(Open::new).collect();
        for slice in group.chunks(SLICE_ROWS) {
            let parts = columns.parts(slice, &mut texts, &mut bounds);
            for ((column, field), part) in open.iter_mut().zip(schema.fields()).zip(parts) {
                column.write(field, part, slice.len())?;
            }
        }
        columns.widen_paths(&texts, &mut bounds);
        let count = u32::try_from(group.len()).unwrap_or(u32::MAX);
        let mut row_group = file.next_row_group()?;
        for (column, descriptor) in open.into_iter().zip(parquet.columns()) {
            let name = descriptor.name();
            let chunk = match columns.texts(name, &texts) {
                Some((runs, text)) => runs::texts(Arc::clone(descriptor), runs, text, has_bounds(name))?,
                None if column.is_empty => runs::nothing(Arc::clone(descriptor), count)?,
                None => {
                    column.writer.close()?.append_to_row_group(&mut row_group)?;
                    continue;
                }
            };
            row_group.append_column(&chunk.bytes, chunk.close)?;
        }
        row_group.close()?;
    }
    Ok(EncodedFile { bytes: file.into_inner()?, rows: rows.len(), bounds })
}

/// A column of a row group while it grows.
struct Open {
    writer: ArrowColumnWriter,
    /// Rows without a value before the first one with.
    before: usize,
    is_empty: bool,
}

impl Open {
    fn new(writer: ArrowColumnWriter) -> Self {
        Open { writer, before: 0, is_empty: true }
    }

    fn write(&mut self, field: &FieldRef, part: Part, rows: usize) -> Result<(), ParquetError> {
        let array = match part {
            Part::Text => return Ok(()),
            Part::Nothing if self.is_empty => {
                self.before += rows;
                return Ok(());
            }
            Part::Nothing => new_null_array(field.data_type(), rows),
            Part::Array(array) => array,
        };
        self.is_empty = false;
        let before = std::mem::take(&mut self.before);
        if before > 0 {
            self.put(field, &new_null_array(field.data_type(), before))?;
        }
        self.put(field, &array)
    }

    fn put(&mut self, field: &FieldRef, array: &ArrayRef) -> Result<(), ParquetError> {
        compute_leaves(field, array)?.iter().try_for_each(|leaf| self.writer.write(leaf))
    }
}

/// A writer of a compacted file: the same settings, for rows that come sorted.
pub(crate) fn compacted_writer(schema: SchemaRef) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let options = ArrowWriterOptions::new().with_properties(properties()).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), schema, options)
}

fn properties() -> WriterProperties {
    let sorting = |nth: usize| SortingColumn {
        column_idx: i32::try_from(nth).unwrap_or(0),
        descending: false,
        nulls_first: false,
    };
    let place = |name: &str| COLUMNS.iter().position(|(column, _)| *column == name).unwrap_or(0);
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_sorting_columns(Some(vec![sorting(place("path")), sorting(place("ts"))]));
    for (name, column) in COLUMNS {
        builder = encoding(builder, name, column);
    }
    builder.build()
}

fn encoding(builder: WriterPropertiesBuilder, name: &str, column: ColumnType) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(name);
    let (dictionary, fallback) = match (name, column) {
        ("value_long", _) => (true, Encoding::DELTA_BINARY_PACKED),
        (_, ColumnType::Double) => (true, Encoding::BYTE_STREAM_SPLIT),
        (DAY, _) => (true, Encoding::PLAIN),
        (_, ColumnType::Time | ColumnType::Long | ColumnType::Integer | ColumnType::Date) => {
            (false, Encoding::DELTA_BINARY_PACKED)
        }
        (_, ColumnType::Boolean) => (false, Encoding::RLE),
        (_, ColumnType::Text) => (true, Encoding::PLAIN),
    };
    let statistics = if has_bounds(name) { EnabledStatistics::Chunk } else { EnabledStatistics::None };
    builder
        .set_column_dictionary_enabled(path.clone(), dictionary)
        .set_column_statistics_enabled(path.clone(), statistics)
        .set_column_encoding(path, fallback)
}

/// Nobody skips a row group by the others, and comparing every text costs as much as encoding it.
fn has_bounds(name: &str) -> bool {
    !matches!(name, "site" | "value_type" | "value_bool" | "value_string" | "quality" | "is_historical")
}

/// Lowest and highest so far, and of these.
pub(crate) fn widen(range: &mut Option<(i64, i64)>, values: impl Iterator<Item = i64>) {
    for value in values {
        let (low, high) = range.unwrap_or((value, value));
        *range = Some((low.min(value), high.max(value)));
    }
}
