//! The samples of a record, column by column.
//!
//! ```text
//! count      varint
//! points     delta column; first delta from 0, a point id has 32 bits
//! times      delta column, µs; first delta from the record's acceptance time, wrapping
//! qualities  only if the record's flag says so: runs of { length varint, Quality bits varint }
//! values     runs of { type u8, length varint, that many values }
//!
//! delta column = 0u8, one zigzag varint per sample
//!              | 1u8, runs of { length varint, zigzag varint: the delta that is repeated }
//!
//! type 0               no value: no bytes
//! Int8 UInt8           1 byte each         Int16 UInt16   2 bytes each, little endian
//! Int32 Int64          zigzag varint each  UInt32 UInt64  varint each
//! Float Double         4 or 8 bytes each, IEEE 754, little endian (the bits are kept, of a NaN too)
//! Boolean              one bit each, lowest first; unused bits of the last byte are 0
//! DateTime             8 bytes each, i64 µs, little endian
//! String Bytes         varint length, then the bytes, each
//! ```
//!
//! Types are Sparkplug's codes. Runs have at least one sample and end exactly at `count`.

use model::limits::PAYLOAD_METRICS_MAX;
use model::{DataType, PointId, Quality, Sample, Timestamp, Value};

use super::RecordError;
use super::reader::{Reader, put_bytes, put_signed};
use crate::varint;

const PLAIN: u8 = 0;
const RUNS: u8 = 1;
const NO_VALUE: u8 = 0;

/// Room made before the first sample is read; more comes as samples do.
const SAMPLES_RESERVED: usize = 1024;

/// Appends all columns.
pub(super) fn put(samples: &[Sample], base: Timestamp, with_quality: bool, out: &mut Vec<u8>) {
    varint::put(samples.len() as u64, out);
    let mut before = 0;
    put_deltas(
        samples.iter().map(|sample| {
            let point = i64::from(sample.point.0);
            point - std::mem::replace(&mut before, point)
        }),
        samples.len(),
        out,
    );
    let mut before = base.0;
    put_deltas(
        samples.iter().map(|sample| {
            let time = sample.time.0;
            time.wrapping_sub(std::mem::replace(&mut before, time))
        }),
        samples.len(),
        out,
    );
    if with_quality {
        for run in samples.chunk_by(|a, b| a.quality == b.quality) {
            varint::put(run.len() as u64, out);
            varint::put(u64::from(run[0].quality.bits()), out);
        }
    }
    for run in samples.chunk_by(|a, b| type_of(a) == type_of(b)) {
        out.push(type_of(&run[0]));
        varint::put(run.len() as u64, out);
        put_values(run, out);
    }
}

fn type_of(sample: &Sample) -> u8 {
    sample.value.as_ref().map_or(NO_VALUE, |value| value.data_type().code())
}

/// Appends a delta column in the shorter of its two forms.
fn put_deltas(deltas: impl Iterator<Item = i64>, count: usize, out: &mut Vec<u8>) {
    let deltas: Vec<u64> = deltas.map(varint::zigzag).collect();
    debug_assert_eq!(deltas.len(), count);
    let plain: usize = deltas.iter().map(|delta| varint::len(*delta)).sum();
    let runs = || deltas.chunk_by(|a, b| a == b);
    let packed: usize = runs().map(|run| varint::len(run.len() as u64) + varint::len(run[0])).sum();
    if plain <= packed {
        out.push(PLAIN);
        deltas.iter().for_each(|delta| varint::put(*delta, out));
    } else {
        out.push(RUNS);
        for run in runs() {
            varint::put(run.len() as u64, out);
            varint::put(run[0], out);
        }
    }
}

/// Appends the values of one run: all of one type.
fn put_values(run: &[Sample], out: &mut Vec<u8>) {
    if let Some(Value::Boolean(_)) = run[0].value {
        for eight in run.chunks(8) {
            let bit = |(at, sample): (usize, &Sample)| {
                u8::from(matches!(sample.value, Some(Value::Boolean(true)))) << at
            };
            out.push(eight.iter().enumerate().map(bit).fold(0, |byte, bit| byte | bit));
        }
        return;
    }
    for sample in run {
        match &sample.value {
            None | Some(Value::Boolean(_)) => {}
            Some(Value::Int8(v)) => out.extend_from_slice(&v.to_le_bytes()),
            Some(Value::UInt8(v)) => out.push(*v),
            Some(Value::Int16(v)) => out.extend_from_slice(&v.to_le_bytes()),
            Some(Value::UInt16(v)) => out.extend_from_slice(&v.to_le_bytes()),
            Some(Value::Int32(v)) => put_signed(i64::from(*v), out),
            Some(Value::Int64(v)) => put_signed(*v, out),
            Some(Value::UInt32(v)) => varint::put(u64::from(*v), out),
            Some(Value::UInt64(v)) => varint::put(*v, out),
            Some(Value::Float(v)) => out.extend_from_slice(&v.to_le_bytes()),
            Some(Value::Double(v)) => out.extend_from_slice(&v.to_le_bytes()),
            Some(Value::DateTime(v)) => out.extend_from_slice(&v.0.to_le_bytes()),
            Some(Value::String(v)) => put_bytes(v.as_bytes(), out),
            Some(Value::Bytes(v)) => put_bytes(v, out),
        }
    }
}

/// Reads all columns.
///
/// A writer keeps to `RECORD_SAMPLES_MAX`; a reader takes as many as one payload can have had.
pub(super) fn read(
    reader: &mut Reader<'_>,
    base: Timestamp,
    with_quality: bool,
) -> Result<Vec<Sample>, RecordError> {
    let count = reader.count()?;
    if count > PAYLOAD_METRICS_MAX {
        return Err(RecordError::Damaged("more samples than a record can have"));
    }
    let mut samples = Vec::with_capacity(count.min(SAMPLES_RESERVED));
    let mut point = 0i64;
    read_deltas(reader, count, |delta, run| {
        for _ in 0..run {
            point = point.checked_add(delta).ok_or(BAD_POINT)?;
            let point = PointId(u32::try_from(point).map_err(|_| BAD_POINT)?);
            samples.push(Sample { point, time: base, value: None, quality: Quality::GOOD });
        }
        Ok(())
    })?;
    let (mut time, mut at) = (base.0, 0);
    read_deltas(reader, count, |delta, run| {
        for sample in &mut samples[at..at + run] {
            time = time.wrapping_add(delta);
            sample.time = Timestamp(time);
        }
        at += run;
        Ok(())
    })?;
    if with_quality {
        read_qualities(reader, &mut samples)?;
    }
    let mut rest = samples.as_mut_slice();
    while !rest.is_empty() {
        let code = reader.byte()?;
        let run = run_length(reader, rest.len())?;
        let (these, others) = rest.split_at_mut(run);
        read_values(reader, code, these)?;
        rest = others;
    }
    Ok(samples)
}

const BAD_POINT: RecordError = RecordError::Damaged("a point id has 32 bits");

fn run_length(reader: &mut Reader<'_>, left: usize) -> Result<usize, RecordError> {
    let run = reader.count()?;
    if run == 0 || run > left {
        return Err(RecordError::Damaged("a run is empty or too long"));
    }
    Ok(run)
}

fn read_deltas(
    reader: &mut Reader<'_>,
    count: usize,
    mut take: impl FnMut(i64, usize) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    match reader.byte()? {
        PLAIN => (0..count).try_for_each(|_| take(reader.signed()?, 1)),
        RUNS => {
            let mut left = count;
            while left > 0 {
                let run = run_length(reader, left)?;
                take(reader.signed()?, run)?;
                left -= run;
            }
            Ok(())
        }
        _ => Err(RecordError::Damaged("an unknown form of column")),
    }
}

fn read_qualities(reader: &mut Reader<'_>, samples: &mut [Sample]) -> Result<(), RecordError> {
    let mut rest = samples;
    while !rest.is_empty() {
        let run = run_length(reader, rest.len())?;
        let quality = Quality::from_bits(reader.number32()?)
            .ok_or(RecordError::Damaged("a quality unknown to this program"))?;
        let (these, others) = rest.split_at_mut(run);
        these.iter_mut().for_each(|sample| sample.quality = quality);
        rest = others;
    }
    Ok(())
}

/// Reads the values of one run into its samples.
fn read_values(reader: &mut Reader<'_>, code: u8, run: &mut [Sample]) -> Result<(), RecordError> {
    if code == NO_VALUE {
        return Ok(());
    }
    let mut each = |read: &mut dyn FnMut(&mut Reader<'_>) -> Result<Value, RecordError>| {
        run.iter_mut().try_for_each(|sample| {
            sample.value = Some(read(reader)?);
            Ok(())
        })
    };
    match data_type(code)? {
        DataType::Int8 => each(&mut |r| Ok(Value::Int8(i8::from_le_bytes(r.array()?)))),
        DataType::UInt8 => each(&mut |r| Ok(Value::UInt8(r.byte()?))),
        DataType::Int16 => each(&mut |r| Ok(Value::Int16(i16::from_le_bytes(r.array()?)))),
        DataType::UInt16 => each(&mut |r| Ok(Value::UInt16(u16::from_le_bytes(r.array()?)))),
        DataType::Int32 => each(&mut |r| {
            let number = i32::try_from(r.signed()?);
            number.map(Value::Int32).map_err(|_| RecordError::Damaged("a number of 32 bits has more"))
        }),
        DataType::Int64 => each(&mut |r| Ok(Value::Int64(r.signed()?))),
        DataType::UInt32 => each(&mut |r| Ok(Value::UInt32(r.number32()?))),
        DataType::UInt64 => each(&mut |r| Ok(Value::UInt64(r.varint()?))),
        DataType::Float => each(&mut |r| Ok(Value::Float(f32::from_le_bytes(r.array()?)))),
        DataType::Double => each(&mut |r| Ok(Value::Double(r.double()?))),
        DataType::DateTime => each(&mut |r| Ok(Value::DateTime(Timestamp(i64::from_le_bytes(r.array()?))))),
        DataType::String => each(&mut |r| Ok(Value::String(r.text()?.to_owned()))),
        DataType::Bytes => each(&mut |r| Ok(Value::Bytes(r.bytes()?.to_vec()))),
        DataType::Boolean => read_bits(reader, run),
    }
}

fn read_bits(reader: &mut Reader<'_>, run: &mut [Sample]) -> Result<(), RecordError> {
    let bits = reader.take(run.len().div_ceil(8))?;
    for (eight, byte) in run.chunks_mut(8).zip(bits) {
        if eight.len() < 8 && byte >> eight.len() != 0 {
            return Err(RecordError::Damaged("unused bits are set"));
        }
        for (at, sample) in eight.iter_mut().enumerate() {
            sample.value = Some(Value::Boolean(byte >> at & 1 == 1));
        }
    }
    Ok(())
}

/// The type of a code, which must be one of ours exactly: Sparkplug's Text or File are no types here.
pub(super) fn data_type(code: u8) -> Result<DataType, RecordError> {
    DataType::from_code(u32::from(code))
        .filter(|data_type| data_type.code() == code)
        .ok_or(RecordError::Damaged("an unknown type"))
}
