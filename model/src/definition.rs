//! What a point is: the entry of a point catalogue.

use crate::{DataType, PointPath};

/// Number of a point in one catalogue; the same point has another number in another catalogue.
///
/// On an agent it is also the point's Sparkplug alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointId(pub u32);

/// A point's definition. A change of `path`, `device`, `metric` or `data_type` makes another point.
#[derive(Clone, Debug, PartialEq)]
pub struct PointDefinition {
    /// ISA-95 path relative to the site.
    pub path: PointPath,
    /// Sparkplug device; `None` for a metric of the node itself.
    pub device: Option<String>,
    /// Sparkplug metric name within the device.
    pub metric: String,
    /// Type of the values after normalising.
    pub data_type: DataType,
    /// UCUM text, empty if there is none.
    pub unit: String,
    /// Lowest plausible value after scaling, and lowest that may be written.
    pub min: Option<f64>,
    /// Highest plausible value after scaling, and highest that may be written.
    pub max: Option<f64>,
    /// Whether commands may write it.
    pub writable: bool,
    /// Changes up to this size after scaling are not passed on.
    pub dead_band: Option<f64>,
    /// For people.
    pub description: String,
}

impl PointDefinition {
    /// A point of the node itself, of which nothing more is said.
    #[must_use]
    pub fn new(path: PointPath, metric: impl Into<String>, data_type: DataType) -> Self {
        PointDefinition {
            path,
            device: None,
            metric: metric.into(),
            data_type,
            unit: String::new(),
            min: None,
            max: None,
            writable: false,
            dead_band: None,
            description: String::new(),
        }
    }

    /// Whether both name the same point: only the describing fields may differ.
    #[must_use]
    pub fn is_same_point(&self, other: &PointDefinition) -> bool {
        self.path == other.path
            && self.device == other.device
            && self.metric == other.metric
            && self.data_type == other.data_type
    }
}
