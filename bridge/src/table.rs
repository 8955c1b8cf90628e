//! The columns of a table (docs/specs/table.md), and both ways between rows and values.
//!
//! Forward: a slice of a [`Batch`] becomes an Arrow record batch; texts that repeat stay dictionary keys until the
//! Parquet writer. Backward: the columns of a row give the typed value again, exactly, so that `forebay reconcile` can
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
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Array, DictionaryArray, Float64Builder, Int32Array, Int64Array,
    Int64Builder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType as ArrowType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::{DataType, Timestamp, Value};

use crate::batch::{Batch, cell_quality, cell_type};

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

/// The Arrow schema of the record batches that [`columns`] makes, with or without `day`.
///
/// Every column may be null as far as engines are concerned; which are not is in docs/specs/table.md.
#[must_use]
pub fn arrow_schema(with_day: bool) -> SchemaRef {
    let text = || ArrowType::Dictionary(Box::new(ArrowType::Int32), Box::new(ArrowType::Utf8));
    let fields: Vec<Field> = COLUMNS
        .iter()
        .filter(|(name, _)| with_day || *name != DAY)
        .map(|(name, column)| {
            let arrow = match column {
                ColumnType::Text if *name == "value_string" => ArrowType::Utf8,
                ColumnType::Text => text(),
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

/// Makes record batches of slices of a batch's rows; what all slices share is made once.
#[derive(Debug)]
pub struct Columns<'b> {
    batch: &'b Batch,
    schema: SchemaRef,
    with_day: bool,
    paths: ArrayRef,
    devices: ArrayRef,
    /// Per point: index into `devices`.
    device_of: Vec<Option<i32>>,
    sites: ArrayRef,
    agents: ArrayRef,
    types: ArrayRef,
}

impl<'b> Columns<'b> {
    /// For the rows of `batch`.
    #[must_use]
    pub fn new(batch: &'b Batch, with_day: bool) -> Self {
        let names: BTreeSet<&str> = batch.points().iter().filter_map(|p| p.device.as_deref()).collect();
        let numbers: BTreeMap<&str, i32> = names.iter().copied().zip(0i32..).collect();
        let device_of = batch.points().iter().map(|p| numbers.get(p.device.as_deref()?).copied()).collect();
        Columns {
            batch,
            schema: arrow_schema(with_day),
            with_day,
            paths: strings(batch.points().iter().map(|p| &*p.path)),
            devices: strings(names),
            device_of,
            sites: strings([&**batch.site()]),
            agents: strings(batch.agents().iter().map(|a| &**a)),
            types: strings(DataType::ALL.iter().map(|t| t.name())),
        }
    }

    /// The schema of every slice.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows `(day, row)` as a record batch.
    pub fn slice(&self, rows: impl ExactSizeIterator<Item = (i32, u32)>) -> Result<RecordBatch, ArrowError> {
        let mut slice = Slice::with_capacity(rows.len());
        for (day, row) in rows {
            let view = self.batch.row(row);
            let point = self.batch.points().get(view.point as usize);
            slice.path.push(key(view.point));
            slice.agent.push(key(view.record.agent));
            slice.device.push(self.device_of.get(view.point as usize).copied().flatten());
            slice.time.push(view.time);
            slice.arrival.push(view.record.arrival);
            let data_type = cell_type(view.kind);
            let shown = data_type.or_else(|| point.map(|p| p.data_type)).unwrap_or(DataType::String);
            slice.data_type.push(type_key(shown));
            slice.put(data_type, view.bits, self.batch);
            slice.put_quality(view.quality);
            slice.historical.append_value(view.record.is_historical);
            slice.epoch.push(view.record.epoch);
            slice.offset.push(view.record.offset);
            slice.index.push(key(view.index));
            if self.with_day {
                slice.day.push(day);
            }
        }
        self.assemble(slice)
    }

    fn assemble(&self, mut slice: Slice) -> Result<RecordBatch, ArrowError> {
        let length = slice.time.len();
        let mut columns = vec![
            dictionary(Int32Array::from(slice.path), &self.paths)?,
            dictionary(Int32Array::from(vec![0; length]), &self.sites)?,
            dictionary(Int32Array::from(slice.agent), &self.agents)?,
            dictionary(Int32Array::from(slice.device), &self.devices)?,
            Arc::new(TimestampMicrosecondArray::from(slice.time).with_timezone(TIME_ZONE)) as ArrayRef,
            Arc::new(TimestampMicrosecondArray::from(slice.arrival).with_timezone(TIME_ZONE)),
            dictionary(Int32Array::from(slice.data_type), &self.types)?,
            Arc::new(slice.double.finish()),
            Arc::new(slice.long.finish()),
            Arc::new(slice.boolean.finish()),
            Arc::new(slice.string.finish()),
            dictionary(Int32Array::from(slice.quality), &strings(slice.qualities.iter().map(|q| &*q.1)))?,
            Arc::new(slice.historical.finish()),
            Arc::new(Int64Array::from(slice.epoch)),
            Arc::new(Int64Array::from(slice.offset)),
            Arc::new(Int32Array::from(slice.index)),
        ];
        if self.with_day {
            columns.push(Arc::new(Date32Array::from(slice.day)));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// The columns of one slice while it grows.
struct Slice {
    path: Vec<i32>,
    agent: Vec<i32>,
    device: Vec<Option<i32>>,
    time: Vec<i64>,
    arrival: Vec<i64>,
    data_type: Vec<i32>,
    double: Float64Builder,
    long: Int64Builder,
    boolean: BooleanBuilder,
    string: StringBuilder,
    quality: Vec<i32>,
    /// Distinct qualities of the slice: bits and text.
    qualities: Vec<(u32, String)>,
    historical: BooleanBuilder,
    epoch: Vec<i64>,
    offset: Vec<i64>,
    index: Vec<i32>,
    day: Vec<i32>,
}

impl Slice {
    fn with_capacity(rows: usize) -> Self {
        Slice {
            path: Vec::with_capacity(rows),
            agent: Vec::with_capacity(rows),
            device: Vec::with_capacity(rows),
            time: Vec::with_capacity(rows),
            arrival: Vec::with_capacity(rows),
            data_type: Vec::with_capacity(rows),
            double: Float64Builder::with_capacity(rows),
            long: Int64Builder::with_capacity(rows),
            boolean: BooleanBuilder::with_capacity(rows),
            string: StringBuilder::new(),
            quality: Vec::with_capacity(rows),
            qualities: Vec::new(),
            historical: BooleanBuilder::with_capacity(rows),
            epoch: Vec::with_capacity(rows),
            offset: Vec::with_capacity(rows),
            index: Vec::with_capacity(rows),
            day: Vec::new(),
        }
    }

    /// Puts the value into its one column and null into the others.
    #[expect(clippy::cast_possible_wrap, reason = "bits are kept, not the number")]
    fn put(&mut self, data_type: Option<DataType>, bits: u64, batch: &Batch) {
        let (mut double, mut long, mut boolean) = (None, None, None);
        match data_type {
            None => self.string.append_null(),
            Some(DataType::String) => self.string.append_value(String::from_utf8_lossy(batch.text(bits))),
            Some(DataType::Bytes) => self.string.append_value(BASE64.encode(batch.text(bits))),
            Some(DataType::UInt64) if bits > i64::MAX as u64 => {
                write!(self.string, "{bits}").ok(); // a builder never fails to grow
                self.string.append_value("");
            }
            Some(other) => {
                self.string.append_null();
                match other {
                    DataType::Float | DataType::Double => double = Some(f64::from_bits(bits)),
                    DataType::Boolean => boolean = Some(bits != 0),
                    _ => long = Some(bits as i64),
                }
            }
        }
        self.double.append_option(double);
        self.long.append_option(long);
        self.boolean.append_option(boolean);
    }

    /// Nearly all rows of a slice have one of very few qualities.
    fn put_quality(&mut self, bits: u32) {
        let known = self.qualities.iter().position(|(known, _)| *known == bits).unwrap_or_else(|| {
            self.qualities.push((bits, cell_quality(bits).to_string()));
            self.qualities.len() - 1
        });
        self.quality.push(i32::try_from(known).unwrap_or(0));
    }
}

fn key(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn type_key(data_type: DataType) -> i32 {
    DataType::ALL.iter().position(|t| *t == data_type).and_then(|nth| i32::try_from(nth).ok()).unwrap_or(0)
}

fn strings<'t>(texts: impl IntoIterator<Item = &'t str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

fn dictionary(keys: Int32Array, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::clone(values))?))
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
