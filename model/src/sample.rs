//! One value of one point at one time, and the batches that travel together.

use crate::{PointId, Quality, RecordId, Timestamp, Value};

/// One reading of one point after normalising.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The point, in the catalogue of whoever holds the sample.
    pub point: PointId,
    /// When the source says that it was so.
    pub time: Timestamp,
    /// The value; `None` where there is none (a failed read, a Sparkplug null).
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
}

/// The samples of one record: one device (or the node itself), one identity, one payload (design §4.2).
///
/// `batch_index` of a sample is its index in `samples`; the device is that of the points' definitions.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleBatch {
    /// Identity within its agent.
    pub id: RecordId,
    /// When the agent accepted it; for foreign nodes, when the hub did.
    pub accepted_at: Timestamp,
    /// Whether it was delivered as history, not live. Always `false` in an agent's log.
    pub is_historical: bool,
    /// In record order, never empty.
    pub samples: Vec<Sample>,
}
