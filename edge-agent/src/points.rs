//! The point list of a device: what is read where, and how it becomes a sample.

use model::{DataType, PointDefinition};

/// One point of a device, as its list gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct PointConfig {
    /// What hubs and tables will know.
    pub definition: PointDefinition,
    /// Where it is, in the driver's own syntax.
    pub address: String,
    /// Type at the source, before scaling. The definition's type is the same unless `scale` or `offset` make it
    /// Double (Float stays Float).
    pub raw_type: DataType,
    /// Factor applied first.
    pub scale: Option<f64>,
    /// Added afterwards.
    pub offset: Option<f64>,
    /// Line in the point list, from 1, for messages.
    pub line: usize,
}
