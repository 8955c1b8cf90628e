//! Payloads of an edge node and of a host, written straight into bytes.

use model::{DataType, PointDefinition, PointId, Quality, Sample, SampleBatch, Timestamp, Value};

use super::{BirthHead, CommandHead, RecordHead};

/// A metric of a birth: definition and present state.
#[derive(Clone, Debug)]
pub struct BirthMetric<'a> {
    /// Metric name.
    pub name: &'a str,
    /// Alias for later data; `None` where the standard forbids it (`bdSeq`, `Node Control/*`).
    pub alias: Option<u64>,
    /// Type.
    pub data_type: DataType,
    /// Present value.
    pub value: Option<&'a Value>,
    /// Source time of it.
    pub time: Timestamp,
    /// Its quality, written as the `Quality` property (192, 500 or 0).
    pub quality: Quality,
    /// Written as properties: `path`, `engUnit`, `engLow`, `engHigh`, `readOnly`, `description`, `deadBand`.
    pub definition: Option<&'a PointDefinition>,
}

/// Writes an NBIRTH (`head` given, `seq` 0) or DBIRTH. Metric timestamps and values are exact to the ms.
pub fn birth(
    _seq: u8,
    _now: Timestamp,
    _metrics: &[BirthMetric<'_>],
    _head: Option<&BirthHead>,
    _out: &mut Vec<u8>,
) {
    todo!()
}

/// Writes a record as DDATA or NDATA: metrics in record order by alias, with the extension.
///
/// `historical` sets `is_historical` on every metric. `typed` says of a point whether its datatype has to be written,
/// because the value's type is not the one in the present birth. A quality other than Good is written both
/// exactly (extension) and as the `Quality` property, so that foreign readers see it.
pub fn data(
    _seq: u8,
    _now: Timestamp,
    _batch: &SampleBatch,
    _head: &RecordHead,
    _historical: bool,
    _typed: &dyn Fn(&Sample) -> bool,
    _alias: &dyn Fn(PointId) -> u64,
    _out: &mut Vec<u8>,
) {
    todo!()
}

/// Writes an NDEATH (will): `bdSeq` only, no `seq` (tck-id-payloads-ndeath-*).
pub fn node_death(_bd_seq: u8, _now: Timestamp, _out: &mut Vec<u8>) {
    todo!()
}

/// Writes a DDEATH.
pub fn device_death(_seq: u8, _now: Timestamp, _out: &mut Vec<u8>) {
    todo!()
}

/// Writes an NCMD or DCMD with one metric by name (and alias if known).
pub fn command(
    _now: Timestamp,
    _name: &str,
    _alias: Option<u64>,
    _value: &Value,
    _head: Option<&CommandHead>,
    _out: &mut Vec<u8>,
) {
    todo!()
}
