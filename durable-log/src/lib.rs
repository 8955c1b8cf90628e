//! An append-only, segmented log of opaque bytes that survives what disks and power do (design §5).
//!
//! It knows only bytes: no model, no tasks, no threads, no clock. One writer ([`Log`]), any number of readers
//! ([`Reader`], through a cheap cloneable [`LogView`]). The format is drawn in `docs/specs/log_format.md`.
//!
//! Rules it keeps:
//! - Nobody reads, and nobody is told of, a position at or above the durable end.
//! - A group is atomic: after a crash it is there whole or not at all.
//! - Every writable opening begins a new segment with a new epoch, given by the caller.
//! - The first failed write or sync shuts a latch: reads go on, writes are refused with that cause.

mod cursor;
mod disk_storage;
mod error;
#[cfg(feature = "test-util")]
mod faulty_storage;
mod frames;
mod inspect;
mod latch;
mod log;
mod options;
mod position;
mod reader;
mod record;
mod recovery;
mod repair;
mod retention;
mod salvage;
mod segment;
mod storage;
mod twin;
mod view;
mod writer;

pub use disk_storage::DiskStorage;
pub use error::{LogError, Remedy};
#[cfg(feature = "test-util")]
pub use faulty_storage::{Faults, FaultyStorage, Fuse};
pub use inspect::{InspectReport, SegmentCheck, VerifyReport, inspect, refuse_newer, verify};
pub use log::Log;
pub use options::{Options, WhenDamaged, WhenFull};
pub use position::Position;
pub use reader::Reader;
pub use recovery::{Cut, Recovery};
pub use repair::{Plan, Repaired, Step, plan, repair};
pub use segment::SegmentInfo;
pub use storage::{Entry, Storage, StorageFile};
pub use twin::TwinLog;
pub use view::LogView;
pub use writer::{Budget, Committer, Intake, RETRY, Taken, last, round, run};
