//! The borrowed decoder of the hot path: a payload's metrics without copying a byte of them.
//!
//! It must agree with prost on every byte string (a property test and a fuzz target hold it to that), except that
//! it is stricter where a bound is passed: at most `PAYLOAD_METRICS_MAX` metrics, `PAYLOAD_DEPTH_MAX` levels of
//! templates, property sets and groups, and where Forebay's extension breaks its own rules (extension.rs).
//!
//! Protobuf's rules hold: of a repeated singular field the last counts, of a oneof too, messages merge, unknown
//! fields are skipped, a known field with another wire type is an error, texts must be UTF-8.

mod extension;
mod metric;
mod scalar;
mod shape;
mod wire;

use model::limits::PAYLOAD_METRICS_MAX;
use model::{DataType, Quality, Timestamp, Value};

use self::extension::{RawBirth, RawCommand, RawRecord};
use self::scalar::exact_time;
use self::wire::Wire;
use super::encode::QUALITY;
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

impl From<Box<DecodeError>> for DecodeError {
    fn from(failure: Box<DecodeError>) -> Self {
        *failure
    }
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
    /// The metric has several property sets, which merge: `properties` holds the whole metric instead.
    pub(crate) several_property_sets: bool,
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
    /// An agent's report of its health, encoded ([`crate::health`]).
    pub health: Option<&'a [u8]>,
    /// The extension's packed columns; empty where all are 0 / Good.
    pub(crate) time_micros: Vec<u32>,
    pub(crate) quality: Vec<u32>,
    pub(crate) value_micros: Vec<u32>,
}

/// Room made at the first metric, guessed from its size; more comes as metrics do.
const METRICS_RESERVED: usize = 4096;

impl<'a> PayloadView<'a> {
    /// Decodes a payload.
    pub fn decode(bytes: &'a [u8]) -> Result<PayloadView<'a>, DecodeError> {
        let mut wire = Wire::new(bytes);
        let (mut timestamp, mut seq, mut uuid, mut body) = (None, None, None, None);
        let mut metrics = Vec::new();
        let (mut record, mut has_record) = (RawRecord::default(), false);
        let (mut birth, mut command, mut health) = (None, None, None);
        while let Some(key) = wire.key()? {
            match key.tag() {
                1 => timestamp = Some(wire.number(key)?),
                2 => {
                    let inner = wire.message(key)?;
                    if metrics.is_empty() {
                        let guess = wire.rest().len() / (inner.rest().len() + 2) + 1;
                        metrics.reserve(guess.min(METRICS_RESERVED));
                    } else if metrics.len() == PAYLOAD_METRICS_MAX {
                        return Err(DecodeError::TooMany { what: "metrics", limit: PAYLOAD_METRICS_MAX });
                    }
                    metric::read(inner, metrics.push_mut(MetricView::EMPTY))?;
                }
                3 => seq = Some(wire.number(key)?),
                4 => uuid = Some(wire.text(key)?),
                5 => body = Some(wire.bytes(key)?),
                1180 => {
                    has_record = true;
                    record.merge(wire.message(key)?, 0)?;
                }
                1181 => birth.get_or_insert_with(RawBirth::default).merge(wire.message(key)?, 0)?,
                1182 => command.get_or_insert_with(RawCommand::default).merge(wire.message(key)?, 0)?,
                1184 => health = Some(wire.bytes(key)?),
                _ => wire.skip(key, 0)?,
            }
        }
        let broken = |what| *wire.malformed(what);
        let head = has_record.then(|| record.head(metrics.len())).transpose().map_err(broken)?;
        let birth = birth.map(RawBirth::head).transpose().map_err(broken)?;
        let command = command.map(RawCommand::head).transpose().map_err(broken)?;
        let RawRecord { time_micros, quality, value_micros, .. } = record;
        Ok(PayloadView {
            timestamp,
            metrics,
            seq,
            uuid,
            body,
            record: head,
            birth,
            command,
            health,
            time_micros,
            quality,
            value_micros,
        })
    }

    /// Exact time of metric `index`: its timestamp (else the payload's) with the extension's µs; `None` if it has none.
    #[must_use]
    #[inline]
    pub fn time(&self, index: usize) -> Option<Timestamp> {
        let millis = self.metrics.get(index)?.timestamp.or(self.timestamp)?;
        Some(exact_time(millis, micros_at(&self.time_micros, index)))
    }

    /// Quality of metric `index`: the extension's, else the `Quality` property's code, else Good.
    ///
    /// A payload with a record's identity says every quality in the extension; its properties are for others.
    #[must_use]
    #[inline]
    pub fn quality(&self, index: usize) -> Quality {
        if self.record.is_some() {
            let bits = self.quality.get(index).copied().filter(|bits| *bits != 0);
            return bits.and_then(Quality::from_bits).unwrap_or(Quality::GOOD);
        }
        let property = self.metrics.get(index).and_then(|metric| metric.property(QUALITY));
        property.and_then(|value| value.as_integer()).map_or(Quality::GOOD, Quality::from_sparkplug_code)
    }

    /// µs of a DateTime value of metric `index` beyond its milliseconds.
    #[must_use]
    #[inline]
    pub fn value_micros(&self, index: usize) -> u16 {
        micros_at(&self.value_micros, index)
    }

    /// Value of metric `index` as one of `data_type`, exact; `None` if it is null or does not fit the type.
    ///
    /// [`MetricView::has_no_value`] tells the two apart.
    #[must_use]
    #[inline]
    pub fn value(&self, index: usize, data_type: DataType) -> Option<Value> {
        let metric = self.metrics.get(index).filter(|metric| !metric.has_no_value())?;
        metric.value.to_value(data_type, self.value_micros(index))
    }
}

#[inline]
fn micros_at(column: &[u32], index: usize) -> u16 {
    column.get(index).and_then(|micros| u16::try_from(*micros).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
