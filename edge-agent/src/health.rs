//! How the agent is: one place that tasks write and consoles read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Timestamp;

/// What a device is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Not yet read, or not answering, but not long enough to be down.
    Connecting,
    /// Answers.
    Up,
    /// Its points are Stale.
    Down,
}

/// One device.
#[derive(Clone, Debug)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: &'static str,
    /// How many points it has.
    pub points: usize,
    /// What it is doing.
    pub state: DeviceState,
    /// Since when.
    pub since: Timestamp,
    /// Whether the last read brought times beyond the bound for clocks.
    pub is_off_clock: bool,
    /// Last successful read.
    pub last_read: Option<Timestamp>,
    /// What went wrong last, until it goes right again.
    pub error: Option<String>,
}

/// Which promise holds towards the host (design §4.15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Promise {
    /// No host has answered yet.
    #[default]
    Unknown,
    /// Receipts come: data is kept until the hub has it on disk.
    Receipts,
    /// A foreign host without receipts: data is kept until the bound, and handed over once.
    RetentionOnly,
}

impl Promise {
    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "no host has answered yet; everything accepted is kept up to the bound",
            Self::Receipts => {
                "the hub sends receipts; everything accepted is kept until the hub has it on disk"
            }
            Self::RetentionOnly => {
                "the host sends no receipts; data is handed over once and kept up to the bound, without proof"
            }
        }
    }
}

/// The session with the hub.
#[derive(Clone, Debug, Default)]
pub struct SessionStatus {
    /// Whether births were sent and the session stands.
    pub is_online: bool,
    /// In words.
    pub text: String,
    /// Sessions so far.
    pub sessions: u64,
    /// When the last receipt came.
    pub last_receipt: Option<Timestamp>,
    /// Why the hub cannot write, in its words.
    pub holding: Option<String>,
    /// Which promise holds.
    pub promise: Promise,
    /// Receipts that could not be true.
    pub receipts_refused: u64,
}

/// All of it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    devices: Vec<DeviceStatus>,
    session: SessionStatus,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a device; returns its number.
    pub fn add_device(&self, device: DeviceStatus) -> usize {
        let mut inner = self.lock();
        inner.devices.push(device);
        inner.devices.len() - 1
    }

    /// Changes a device.
    pub fn device(&self, number: usize, change: impl FnOnce(&mut DeviceStatus)) {
        if let Some(device) = self.lock().devices.get_mut(number) {
            change(device);
        }
    }

    /// Changes the session.
    pub fn session(&self, change: impl FnOnce(&mut SessionStatus)) {
        change(&mut self.lock().session);
    }

    /// All devices.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceStatus> {
        self.lock().devices.clone()
    }

    /// The session.
    #[must_use]
    pub fn session_status(&self) -> SessionStatus {
        self.lock().session.clone()
    }
}
