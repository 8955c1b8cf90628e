//! The driver contract (docs/specs/driver.md) and the table of drivers.
//!
//! A driver knows its protocol and nothing else: no log, no Sparkplug, no schedule. `acquisition` owns the loop,
//! deadlines, retries and back-off; `normalise` owns scale, unit, range and dead band.

use async_trait::async_trait;
use model::{Quality, Reason, Timestamp, Value};
use runtime::clock::Clock;
use runtime::config_file::{Problem, Problems, Section};

use crate::points::PointConfig;

pub mod files;
mod modbus;
mod simulated;

/// Every driver: register here.
pub const KINDS: &[DriverKind] = &[files::KIND, files::CSV_FOLDER, modbus::KIND, simulated::KIND];

/// A driver's entry in the table.
pub struct DriverKind {
    /// The `driver = "…"` of a device.
    pub name: &'static str,
    /// One line for `--help` and error messages.
    pub summary: &'static str,
    /// Pure: reads the driver's own keys from the device's section and checks the points' addresses and types;
    /// pushes every mistake. Touches no network; a folder need not exist yet.
    pub validate: fn(&mut Section<'_>, &DeviceSetup, &mut Problems) -> Option<Box<dyn Driver>>,
}

/// What a driver is told about its device.
#[derive(Clone, Debug)]
pub struct DeviceSetup {
    /// The device's name.
    pub name: String,
    /// Its points; a [`Reading`] names them by index.
    pub points: Vec<PointConfig>,
    /// The point list's file, for messages.
    pub points_file: std::path::PathBuf,
    /// Folder in which the driver may keep files of its own (quarantine ...), below the agent's `data_dir`.
    pub state_dir: std::path::PathBuf,
    /// The clock.
    pub clock: Clock,
}

impl DeviceSetup {
    /// A problem with a point's address, placed in the point list.
    #[must_use]
    pub fn address_problem(&self, point: &PointConfig, rule: impl Into<String>) -> Problem {
        Problem {
            file: self.points_file.clone(),
            line: point.line,
            key: "address".into(),
            value: point.address.clone(),
            rule: rule.into(),
        }
    }
}

/// One value as the source gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Index in [`DeviceSetup::points`].
    pub point: usize,
    /// When the source says that it was so; `None` where the protocol has no such time (then: when it was read).
    pub time: Option<Timestamp>,
    /// Of the point's raw type; `None` where there is none.
    pub value: Option<Value>,
    /// What the protocol says about it.
    pub quality: Quality,
}

/// What one read brought; bounded by the driver (at most [`READINGS_MAX`] at a time).
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// In source order.
    pub list: Vec<Reading>,
    /// Where the source stands after these readings: stored in one atomic group with them, handed to `open` after a
    /// restart and to `acknowledge` when it is on disk.
    pub position: Option<Vec<u8>>,
    /// Input that was put into the driver's quarantine with these readings, counted.
    pub quarantined: u64,
}

/// Most readings that one call of `read` may add.
pub const READINGS_MAX: usize = 20_000;

/// When to read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRead {
    /// At the device's next poll time.
    OnSchedule,
    /// As soon as these readings are accepted: there is more.
    AtOnce,
}

/// What went wrong, by who must act (habit 9).
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No connection could be made, or it broke.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// The device did not answer in time.
    #[error("no answer within {0:?}")]
    Silent(std::time::Duration),
    /// The device answered something that is not its protocol.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// The device refused: its reason and code.
    #[error("refused: {reason}")]
    Refused {
        /// In the protocol's words.
        reason: String,
        /// The protocol's code.
        code: u16,
    },
    /// The device answered, but not whether it did as asked.
    #[error("in doubt: {reason}")]
    InDoubt {
        /// In the protocol's words.
        reason: String,
        /// The protocol's code.
        code: u16,
    },
    /// The configuration cannot work with what is there.
    #[error("configuration: {0}")]
    Config(String),
}

/// What to do about a [`DriverError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again on this connection.
    RetryLater,
    /// Close, wait, open again.
    Reconnect,
    /// A person must change something; try again slowly.
    FixConfig,
}

impl DriverError {
    /// What now?
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Silent(_) | Self::NotConnected(_) | Self::Malformed(_) => Remedy::Reconnect,
            Self::Refused { .. } | Self::InDoubt { .. } => Remedy::RetryLater,
            Self::Config(_) => Remedy::FixConfig,
        }
    }

    /// Quality of the device's points while this lasts.
    #[must_use]
    pub const fn quality(&self) -> Quality {
        match self {
            Self::NotConnected(_) => Quality::stale(Reason::NotConnected),
            Self::Silent(_) => Quality::stale(Reason::Timeout),
            Self::Malformed(_) => Quality::stale(Reason::Undecodable),
            Self::Refused { code, .. } | Self::InDoubt { code, .. } => {
                Quality::with_detail(model::QualityClass::Bad, Reason::DeviceException, *code)
            }
            Self::Config(_) => Quality::stale(Reason::TypeMismatch),
        }
    }
}

/// A protocol. Calls come one at a time; each may be cut off by a deadline, after which only `close` follows.
#[async_trait]
pub trait Driver: Send {
    /// Connects. `resume` is the newest position that is on disk, `None` at the very first start.
    async fn open(&mut self, resume: Option<&[u8]>) -> Result<(), DriverError>;

    /// Reads what is due. One point's trouble is that point's quality, not an error.
    async fn read(&mut self, into: &mut Readings) -> Result<NextRead, DriverError>;

    /// Writes a raw value to a point. An error means that it was certainly not written, except `Silent`,
    /// `NotConnected`, `Malformed` and `InDoubt`, after which nobody can say. Cut off and closed, it lets nothing reach
    /// the device any more that had not left this machine: a write that arrives later is worse than none.
    async fn write(&mut self, point: usize, value: &Value) -> Result<(), DriverError>;

    /// Reads one point now, to see what a write did.
    async fn read_one(&mut self, point: usize) -> Result<Reading, DriverError>;

    /// The position, with the readings that it covers, is on disk. May move or delete; never more.
    async fn acknowledge(&mut self, position: &[u8]) -> Result<(), DriverError>;

    /// Returns when the source has something before its next poll is due, which is then read at once. May be cut off at
    /// any time without loss: what it would have said is said by the next call.
    async fn ready(&mut self) {
        std::future::pending().await
    }

    /// Disconnects. Never fails, never waits long.
    async fn close(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (nth, kind) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().skip(nth + 1).all(|other| other.name != kind.name), "{}", kind.name);
        }
    }
}
