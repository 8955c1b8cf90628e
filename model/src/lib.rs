//! The words that every tier shares: values, qualities, times, points, samples, commands and their limits.
//!
//! Plain values over `std`: no clock, no I/O, no serialisation. Bytes are `proto`'s business.
//! Invariants are numbered in `docs/ARCHITECTURE.md`; the limits that bound every queue and frame are in
//! [`limits`].

pub mod address;
pub mod command;
pub mod definition;
pub mod identity;
pub mod limits;
pub mod quality;
pub mod ranges;
pub mod sample;
pub mod timestamp;
pub mod value;

pub use address::{AddressError, NodeId, PointPath};
pub use command::{CommandId, CommandOutcome, CommandState};
pub use definition::{PointDefinition, PointId};
pub use identity::{Epoch, Offset, RecordId};
pub use quality::{Quality, QualityClass, Reason};
pub use ranges::RangeSet;
pub use sample::{Sample, SampleBatch};
pub use timestamp::Timestamp;
pub use value::{DataType, Value};
