//! The driver contract (docs/specs/driver.md) and the table of drivers.
//!
//! A driver knows its protocol and nothing else: no log, no Sparkplug, no schedule. `acquisition` owns the loop,
//! deadlines, retries and back-off; `normalise` owns scale, unit, range and dead band.

use async_trait::async_trait;
use model::{Quality, Reason, Timestamp, Value};
use runtime::clock::Clock;
use runtime::config_file::{Problem, Problems, Section};

use crate::pace::Pace;
use crate::points::PointConfig;
use crate::shared::Shared;

mod big_endian;
pub mod ethernet_ip;
pub mod files;
mod found_points;
pub(crate) mod modbus;
pub mod opcua;
mod packet_stream;
mod places;
mod read_blocks;
mod s7;
mod simulated;
mod stop_check;

/// Every driver: register here.
pub const KINDS: &[DriverKind] = &[
    ethernet_ip::KIND,
    files::KIND,
    files::CSV_FOLDER,
    modbus::SERIAL,
    modbus::TCP,
    opcua::KIND,
    s7::KIND,
    simulated::KIND,
];

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
    /// How fast it may be asked; a driver that takes turns says so in [`Driver::manners`].
    pub pace: Pace,
    /// What devices of one agent share, such as the one connection to a gateway.
    pub shared: Shared,
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
    /// Whether all of these are from the source's history, read after an outage: newer ones may have gone before.
    pub is_historical: bool,
    /// Values that the source itself lost before it could hand them on, at least, since the last read.
    pub overflowed: u64,
}

/// Most readings that one call of `read` may add.
pub const READINGS_MAX: usize = 20_000;

/// Poll groups of a device by their numbers; group 0 is the device's own `poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups(u32);

/// Most groups of a device.
pub const GROUPS_MAX: u8 = 16;
const _: () = assert!(GROUPS_MAX as u32 <= u32::BITS);

impl Groups {
    /// None of them.
    pub const NONE: Groups = Groups(0);
    /// All of them.
    pub const ALL: Groups = Groups(u32::MAX);

    /// These and one more.
    #[must_use]
    pub const fn with(self, group: u8) -> Groups {
        Groups(self.0 | 1 << (group % GROUPS_MAX))
    }

    /// Whether the group is one of them.
    #[must_use]
    pub const fn contains(self, group: u8) -> bool {
        self.0 >> (group % GROUPS_MAX) & 1 == 1
    }
}

/// Which keys that are common to all drivers this one can follow; without, they are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manners {
    /// Reads single groups: `groups`, and the point list's column `group`.
    pub groups: bool,
    /// Takes a turn of [`DeviceSetup::pace`] before each request: `requests_per_second`.
    pub paced: bool,
}

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
    /// The device does not let us in.
    #[error("denied: {0}")]
    Denied(String),
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
            Self::Config(_) | Self::Denied(_) => Remedy::FixConfig,
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
            Self::Denied(_) => Quality::stale(Reason::AccessDenied),
        }
    }
}

/// A protocol. Calls come one at a time; each may be cut off by a deadline, after which only `close` follows.
#[async_trait]
pub trait Driver: Send {
    /// Connects. `resume` is the newest position that is on disk, `None` at the very first start.
    async fn open(&mut self, resume: Option<&[u8]>) -> Result<(), DriverError>;

    /// Which common keys this driver follows.
    fn manners(&self) -> Manners {
        Manners::default()
    }

    /// The next round of reads, up to its [`NextRead::OnSchedule`], is for the points of these groups. Without a
    /// word about it all are read. A driver without groups need not listen.
    fn select(&mut self, _due: Groups) {}

    /// Waits until the source has something of itself: then `read` is called before the next poll is due. May be cut off
    /// anywhere without loss, and is asked anew between all other calls. A source that only answers never says so.
    async fn ready(&mut self) {
        std::future::pending().await
    }

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

    /// Disconnects. Never fails, never waits long.
    async fn close(&mut self);
}

/// `host`, `host:port`, `[v6]:port`; not looked up here.
fn parse_target(text: &str, port_default: u16) -> Result<String, String> {
    let rule = || {
        format!("must be \"host:port\", such as \"10.0.3.11:{port_default}\" or \"[fe80::1]:{port_default}\"")
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        Some(_) if text.ends_with(']') => (text, None),
        Some(_) => return Err(rule()),
        None => (text, None),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(rule());
    }
    match port.map(str::parse::<u16>) {
        None => Ok(format!("{host}:{port_default}")),
        Some(Ok(number)) if number > 0 => Ok(text.to_owned()),
        Some(_) => Err(rule()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_host_and_a_port() {
        let parse = |text| parse_target(text, 502);
        assert_eq!(parse("plc").unwrap(), "plc:502");
        assert_eq!(parse("10.0.3.11:1502").unwrap(), "10.0.3.11:1502");
        assert_eq!(parse("[::1]").unwrap(), "[::1]:502");
        assert_eq!(parse("[::1]:5020").unwrap(), "[::1]:5020");
        for wrong in ["", ":502", "plc:", "plc:0", "::1", "a b:502", "plc:70000"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_unique() {
        for (nth, kind) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().skip(nth + 1).all(|other| other.name != kind.name), "{}", kind.name);
        }
    }
}
