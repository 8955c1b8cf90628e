//! The columns of a table (docs/specs/table.md), and both ways between rows and values.
//!
//! Forward: rows of a [`Batch`] become Arrow arrays, and texts that repeat runs of dictionary keys. Backward: the columns of a row give the typed value again, exactly, so that `forebay reconcile` can
//! recompute the checksum that the agent kept. The two must stay each other's inverse; a test goes round with every type.
//!
//! | type | column |
//! |---|---|
//! | int8 … int64, uint8 … uint32, datetime (µs), uint64 up to 2^63-1 | value_long |
//! | uint64 from 2^63 on, as decimal | value_string |
//! | float (exactly, as double), double | value_double |
//! | boolean | value_bool |
//! | string; bytes as base64 | value_string |
//! | no value | none; value_type is the point's type |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder as _, ArrayRef, BooleanArray, BooleanBuilder, Date32Array, Float64Builder, Int32Array,
    Int64Array, Int64Builder, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::{DataType, Timestamp, Value};

use crate::batch::{Batch, cell_quality, cell_type};
use crate::parquet_file::{Bounds, Runs, widen};

/// Time zone of both time columns.
pub const TIME_ZONE: &str = "UTC";

/// The partition column.
pub const DAY: &str = "day";

/// What a column is, without an engine's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as they are")]
pub enum ColumnType {
    Text,
    /// µs since 1970, UTC.
    Time,
    Double,
    Long,
    Integer,
    Boolean,
    /// Days since 1970-01-01.
    Date,
}

/// Names and types of all columns, in order; `day` is the last.
pub const COLUMNS: [(&str, ColumnType); 17] = [
    ("path", ColumnType::Text),
    ("site", ColumnType::Text),
    ("agent", ColumnType::Text),
    ("device", ColumnType::Text),
    ("ts", ColumnType::Time),
    ("arrival_ts", ColumnType::Time),
    ("value_type", ColumnType::Text),
    ("value_double", ColumnType::Double),
    ("value_long", ColumnType::Long),
    ("value_bool", ColumnType::Boolean),
    ("value_string", ColumnType::Text),
    ("quality", ColumnType::Text),
    ("is_historical", ColumnType::Boolean),
    ("log_epoch", ColumnType::Long),
    ("log_offset", ColumnType::Long),
    ("batch_index", ColumnType::Integer),
    (DAY, ColumnType::Date),
];

/// The Arrow schema of a file, with or without `day`; texts that repeat are dictionaries in memory.
///
/// Every column may be null as far as engines are concerned; which are not is in docs/specs/table.md.
#[must_use]
pub fn arrow_schema(with_day: bool) -> SchemaRef {
    let repeated = || ArrowType::Dictionary(Box::new(ArrowType::Int32), Box::new(ArrowType::Utf8));
    let fields: Vec<Field> = COLUMNS
        .iter()
        .filter(|(name, _)| with_day || *name != DAY)
        .map(|(name, column)| {
            let arrow = match column {
                ColumnType::Text if *name == "value_string" => ArrowType::Utf8,
                ColumnType::Text => repeated(),
                ColumnType::Time => ArrowType::Timestamp(TimeUnit::Microsecond, Some(TIME_ZONE.into())),
                ColumnType::Double => ArrowType::Float64,
                ColumnType::Long => ArrowType::Int64,
                ColumnType::Integer => ArrowType::Int32,
                ColumnType::Boolean => ArrowType::Boolean,
                ColumnType::Date => ArrowType::Date32,
            };
            Field::new(*name, arrow, true)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Makes columns of a batch's rows; what all rows share is made once.
#[derive(Debug)]
pub(crate) struct Columns<'b> {
    batch: &'b Batch,
    with_day: bool,
    devices: Vec<&'b str>,
    /// Per point: index into `devices`.
    device_of: Vec<Option<u32>>,
}

/// The texts of a row group that repeat, as they come.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    path: Runs,
    site: Runs,
    agent: Runs,
    device: Runs,
    data_type: Runs,
    quality: Runs,
    /// Distinct qualities: bits and text.
    qualities: Vec<(u32, String)>,
}

/// One column of some rows.
pub(crate) enum Part {
    /// In [`Texts`].
    Text,
    /// No row has a value.
    Nothing,
    /// Values.
    Array(ArrayRef),
}

impl<'b> Columns<'b> {
    /// For the rows of `batch`.
    pub(crate) fn new(batch: &'b Batch, with_day: bool) -> Self {
        let names: BTreeSet<&str> = batch.points().iter().filter_map(|p| p.device.as_deref()).collect();
        let numbers: BTreeMap<&str, u32> = names.iter().copied().zip(0u32..).collect();
        let device_of = batch.points().iter().map(|p| numbers.get(p.device.as_deref()?).copied()).collect();
        Columns { batch, with_day, devices: names.into_iter().collect(), device_of }
    }

    /// The rows `(day, row)`, column by column in the order of [`COLUMNS`]; widens `bounds`.
    #[expect(clippy::indexing_slicing, reason = "rows are those that `Batch::finish` ordered")]
    pub(crate) fn parts(&self, rows: &[(i32, u32)], texts: &mut Texts, bounds: &mut Bounds) -> Vec<Part> {
        let (columns, records) = (self.batch.columns(), self.batch.records());
        let record = |row: usize| &records[columns.record[row] as usize];
        texts.site.push_many(Some(0), u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let mut values = Values::default();
        for ((_, row), at) in rows.iter().zip(0..) {
            let row = *row as usize;
            let (point, data_type) = (columns.point[row], cell_type(columns.kind[row]));
            texts.path.push(Some(point));
            texts.agent.push(Some(record(row).agent));
            texts.device.push(self.device_of.get(point as usize).copied().flatten());
            let of_point = || self.batch.points().get(point as usize).map(|point| point.data_type);
            texts.data_type.push(Some(type_key(data_type.or_else(of_point).unwrap_or(DataType::String))));
            texts.put_quality(columns.quality[row]);
            values.put(at, data_type, columns.bits[row], self.batch);
        }
        let times = gather(rows, |row| columns.time[row]);
        let arrivals = gather(rows, |row| record(row).arrival);
        let offsets = gather(rows, |row| record(row).offset);
        widen(&mut bounds.time, times.iter().copied());
        widen(&mut bounds.arrival, arrivals.iter().copied());
        widen(&mut bounds.offset, offsets.iter().copied());
        let indices = gather(rows, |row| i32::try_from(columns.index[row]).unwrap_or(i32::MAX));
        let [double, long, boolean, string] = values.finish(rows.len());
        let array = |array: ArrayRef| Part::Array(array);
        let mut parts = vec![
            Part::Text,
            Part::Text,
            Part::Text,
            Part::Text,
            array(Arc::new(TimestampMicrosecondArray::from(times).with_timezone(TIME_ZONE))),
            array(Arc::new(TimestampMicrosecondArray::from(arrivals).with_timezone(TIME_ZONE))),
            Part::Text,
            double,
            long,
            boolean,
            string,
            Part::Text,
            array(Arc::new(BooleanArray::from(gather(rows, |row| record(row).is_historical)))),
            array(Arc::new(Int64Array::from(gather(rows, |row| record(row).epoch)))),
            array(Arc::new(Int64Array::from(offsets))),
            array(Arc::new(Int32Array::from(indices))),
        ];
        if self.with_day {
            parts.push(array(Arc::new(Date32Array::from_iter_values(rows.iter().map(|(day, _)| *day)))));
        }
        parts
    }

    /// The runs of a text column, and the text of each key.
    pub(crate) fn texts<'t>(&'t self, name: &str, of: &'t Texts) -> Option<(&'t Runs, TextOf<'t>)> {
        let batch = self.batch;
        Some(match name {
            "path" => (&of.path, Box::new(|key| batch.points().get(key as usize).map_or("", |p| &p.path))),
            "site" => (&of.site, Box::new(|_| batch.site())),
            "agent" => (&of.agent, Box::new(|key| batch.agents().get(key as usize).map_or("", |name| name))),
            "device" => (&of.device, Box::new(|key| self.devices.get(key as usize).copied().unwrap_or(""))),
            "value_type" => {
                (&of.data_type, Box::new(|key| DataType::ALL.get(key as usize).map_or("", |t| t.name())))
            }
            "quality" => {
                (&of.quality, Box::new(|key| of.qualities.get(key as usize).map_or("", |(_, text)| text)))
            }
            _ => return None,
        })
    }

    /// Lowest and highest path of a row group.
    pub(crate) fn widen_paths(&self, texts: &Texts, bounds: &mut Bounds) {
        let points = self.batch.points();
        for key in texts.path.keys() {
            let Some(path) = points.get(key as usize).map(|point| &point.path) else { continue };
            match &mut bounds.path {
                None => bounds.path = Some((Arc::clone(path), Arc::clone(path))),
                Some((low, high)) => {
                    if path < low {
                        *low = Arc::clone(path);
                    }
                    if path > high {
                        *high = Arc::clone(path);
                    }
                }
            }
        }
    }
}

/// The text of a key.
pub(crate) type TextOf<'t> = Box<dyn Fn(u32) -> &'t str + 't>;

impl Texts {
    /// Nearly all rows have one of very few qualities.
    fn put_quality(&mut self, bits: u32) {
        let known = self.qualities.iter().position(|(known, _)| *known == bits).unwrap_or_else(|| {
            self.qualities.push((bits, cell_quality(bits).to_string()));
            self.qualities.len() - 1
        });
        self.quality.push(u32::try_from(known).ok());
    }
}

/// The four value columns; one that no row has used is not there.
#[derive(Default)]
struct Values {
    double: Option<Float64Builder>,
    long: Option<Int64Builder>,
    boolean: Option<BooleanBuilder>,
    string: Option<StringBuilder>,
}

/// The builder, filled with nulls up to row `at`.
macro_rules! up_to {
    ($builder:expr, $at:expr) => {{
        let builder = $builder.get_or_insert_default();
        let behind = $at - builder.len();
        if behind > 0 {
            builder.append_nulls(behind);
        }
        builder
    }};
}

impl Values {
    /// Puts the value of row `at` into its one column.
    #[expect(clippy::cast_possible_wrap, reason = "bits are kept, not the number")]
    fn put(&mut self, at: usize, data_type: Option<DataType>, bits: u64, batch: &Batch) {
        match data_type {
            None => {}
            Some(DataType::Float | DataType::Double) => {
                up_to!(self.double, at).append_value(f64::from_bits(bits));
            }
            Some(DataType::Boolean) => up_to!(self.boolean, at).append_value(bits != 0),
            Some(DataType::String) => {
                up_to!(self.string, at).append_value(String::from_utf8_lossy(batch.text(bits)));
            }
            Some(DataType::Bytes) => up_to!(self.string, at).append_value(BASE64.encode(batch.text(bits))),
            Some(DataType::UInt64) if bits > i64::MAX as u64 => {
                up_to!(self.string, at).append_value(bits.to_string());
            }
            Some(_) => up_to!(self.long, at).append_value(bits as i64),
        }
    }

    fn finish(self, rows: usize) -> [Part; 4] {
        let Values { mut double, mut long, mut boolean, mut string } = self;
        let is_used = [double.is_some(), long.is_some(), boolean.is_some(), string.is_some()];
        let arrays: [ArrayRef; 4] = [
            Arc::new(up_to!(double, rows).finish()),
            Arc::new(up_to!(long, rows).finish()),
            Arc::new(up_to!(boolean, rows).finish()),
            Arc::new(up_to!(string, rows).finish()),
        ];
        let mut used = is_used.into_iter();
        arrays.map(|array| if used.next() == Some(true) { Part::Array(array) } else { Part::Nothing })
    }
}

fn gather<T>(rows: &[(i32, u32)], of: impl Fn(usize) -> T) -> Vec<T> {
    rows.iter().map(|(_, row)| of(*row as usize)).collect()
}

fn type_key(data_type: DataType) -> u32 {
    DataType::ALL.iter().position(|t| *t == data_type).and_then(|nth| u32::try_from(nth).ok()).unwrap_or(0)
}

/// The value columns of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "named as the columns")]
pub struct ValueColumns<'r> {
    pub double: Option<f64>,
    pub long: Option<i64>,
    pub boolean: Option<bool>,
    pub string: Option<&'r str>,
}

/// Why a row is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowProblem {
    /// `value_type` is no type's name.
    #[error("value_type {0:?} is unknown")]
    Type(String),
    /// The value does not belong to its type, or stands in a column of another.
    #[error("the value columns do not make a {0}")]
    Value(&'static str),
}

/// The typed value that a row was made of.
pub fn value_of_row(value_type: &str, columns: ValueColumns<'_>) -> Result<Option<Value>, RowProblem> {
    let data_type = DataType::from_name(value_type).ok_or_else(|| RowProblem::Type(value_type.to_owned()))?;
    if columns == ValueColumns::default() {
        return Ok(None);
    }
    let wrong = || RowProblem::Value(data_type.name());
    let ValueColumns { double, long, boolean, string } = columns;
    let value = match (data_type, double, long, boolean, string) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it was widened from a float, so narrowing is exact"
        )]
        (DataType::Float, Some(v), None, None, None) => Value::Float(v as f32),
        (DataType::Double, Some(v), None, None, None) => Value::Double(v),
        (DataType::Boolean, None, None, Some(v), None) => Value::Boolean(v),
        (DataType::String, None, None, None, Some(v)) => Value::String(v.to_owned()),
        (DataType::Bytes, None, None, None, Some(v)) => Value::Bytes(BASE64.decode(v).map_err(|_| wrong())?),
        (DataType::UInt64, None, None, None, Some(v)) => Value::UInt64(v.parse().map_err(|_| wrong())?),
        (_, None, Some(v), None, None) => integer(data_type, v).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    Ok(Some(value))
}

fn integer(data_type: DataType, long: i64) -> Option<Value> {
    Some(match data_type {
        DataType::Int8 => Value::Int8(long.try_into().ok()?),
        DataType::Int16 => Value::Int16(long.try_into().ok()?),
        DataType::Int32 => Value::Int32(long.try_into().ok()?),
        DataType::Int64 => Value::Int64(long),
        DataType::UInt8 => Value::UInt8(long.try_into().ok()?),
        DataType::UInt16 => Value::UInt16(long.try_into().ok()?),
        DataType::UInt32 => Value::UInt32(long.try_into().ok()?),
        DataType::UInt64 => Value::UInt64(long.try_into().ok()?),
        DataType::DateTime => Value::DateTime(Timestamp(long)),
        DataType::Float | DataType::Double | DataType::Boolean | DataType::String | DataType::Bytes => {
            return None;
        }
    })
}
