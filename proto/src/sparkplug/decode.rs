//! The borrowed decoder of the hot path: a payload's metrics without copying a byte of them.
//!
//! It must agree with prost on every byte string (a property test and a fuzz target hold it to that), except that
//! it is stricter where a bound is passed: at most `PAYLOAD_METRICS_MAX` metrics, `PAYLOAD_DEPTH_MAX` levels.

use model::{DataType, Quality, Timestamp, Value};

use super::{BirthHead, CommandHead, RecordHead};

/// Why bytes are no Sparkplug payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not valid protobuf: what, at which byte.
    #[error("malformed payload at byte {at}: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Byte position.
        at: usize,
    },
    /// A bound was passed.
    #[error("payload has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

/// A metric's value as it lies in the payload.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum WireValue<'a> {
    None,
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    String(&'a str),
    Bytes(&'a [u8]),
    /// DataSet, Template or an extension: no scalar.
    Unsupported(&'static str),
}

impl WireValue<'_> {
    /// The value as one of `data_type` by Sparkplug's rules (§6.4.16: signed integers as two's complement in
    /// `int_value`/`long_value`, DateTime as ms in `long_value`); `None` if they do not fit together.
    ///
    /// Lenient where real nodes are: an 8- to 32-bit integer may come in `long_value`, a 64-bit one in `int_value`,
    /// if it fits.
    #[must_use]
    pub fn to_value(&self, _data_type: DataType, _value_micros: u16) -> Option<Value> {
        todo!()
    }
}

/// One metric, borrowed from the payload's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the standard's own names")]
pub struct MetricView<'a> {
    pub name: Option<&'a str>,
    pub alias: Option<u64>,
    /// ms since 1970 UTC.
    pub timestamp: Option<u64>,
    pub datatype: Option<u32>,
    pub is_historical: bool,
    pub is_transient: bool,
    pub is_null: bool,
    pub value: WireValue<'a>,
    /// The encoded property set; read with [`MetricView::property`].
    pub properties: Option<&'a [u8]>,
}

impl<'a> MetricView<'a> {
    /// A property by name, if it is a scalar.
    #[must_use]
    pub fn property(&self, _key: &str) -> Option<WireValue<'a>> {
        todo!()
    }
}

/// A payload, borrowed from its bytes.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the standard's own names")]
pub struct PayloadView<'a> {
    /// ms since 1970 UTC.
    pub timestamp: Option<u64>,
    pub metrics: Vec<MetricView<'a>>,
    pub seq: Option<u64>,
    pub uuid: Option<&'a str>,
    pub body: Option<&'a [u8]>,
    /// Which record this is; `None` for nodes without the extension.
    pub record: Option<RecordHead>,
    pub birth: Option<BirthHead>,
    pub command: Option<CommandHead>,
    /// The extension's packed columns; empty where all are 0 / Good.
    pub(crate) time_micros: Vec<u32>,
    pub(crate) quality: Vec<u32>,
    pub(crate) value_micros: Vec<u32>,
}

impl<'a> PayloadView<'a> {
    /// Decodes a payload.
    pub fn decode(_bytes: &'a [u8]) -> Result<PayloadView<'a>, DecodeError> {
        todo!()
    }

    /// Exact time of metric `index`: its timestamp (else the payload's) with the extension's µs; `None` if it has none.
    #[must_use]
    pub fn time(&self, _index: usize) -> Option<Timestamp> {
        todo!()
    }

    /// Quality of metric `index`: the extension's, else the `Quality` property's code, else Good.
    #[must_use]
    pub fn quality(&self, _index: usize) -> Quality {
        todo!()
    }

    /// µs of a DateTime value of metric `index` beyond its milliseconds.
    #[must_use]
    pub fn value_micros(&self, _index: usize) -> u16 {
        todo!()
    }
}
