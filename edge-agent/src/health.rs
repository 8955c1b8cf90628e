//! How the agent is: one place that tasks write and consoles read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Quality, QualityClass, Timestamp, Value};

use crate::normalise::Normalised;
use crate::pace::{Figures, Pace};

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
    /// How it has been asked and has answered lately; all zero where the driver sends no requests.
    pub figures: Figures,
    /// How its points are.
    pub qualities: Qualities,
}

/// Points by the quality of their last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qualities {
    /// Good.
    pub good: usize,
    /// Uncertain.
    pub uncertain: usize,
    /// Bad.
    pub bad: usize,
    /// Stale.
    pub stale: usize,
    /// Not yet read.
    pub unread: usize,
}

/// The last reading of a point: what the device gave, and what became of it by the point's rules.
#[derive(Clone, Debug, PartialEq)]
pub struct PointLook {
    /// Before scale, offset and range.
    pub raw: Option<Value>,
    /// Afterwards, before the dead band.
    pub result: Normalised,
}

/// The last readings of a device's points. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    points: Arc<Mutex<Vec<Option<PointLook>>>>,
}

impl Looks {
    fn of(points: usize) -> Looks {
        Looks { points: Arc::new(Mutex::new(vec![None; points])) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<PointLook>>> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readings came.
    pub fn took(&self, looks: Vec<(usize, PointLook)>) {
        let mut points = self.lock();
        for (at, look) in looks {
            if let Some(place) = points.get_mut(at) {
                *place = Some(look);
            }
        }
    }

    /// All points have this quality from now on; their values are kept.
    pub fn became(&self, quality: Quality, time: Timestamp) {
        for place in self.lock().iter_mut() {
            let old = place.take();
            let (raw, value) = old.map_or((None, None), |look| (look.raw, look.result.value));
            *place = Some(PointLook { raw, result: Normalised { time, value, quality } });
        }
    }

    /// One point's.
    #[must_use]
    pub fn point(&self, at: usize) -> Option<PointLook> {
        self.lock().get(at).cloned().flatten()
    }

    /// How many are how.
    #[must_use]
    pub fn qualities(&self) -> Qualities {
        let mut count = Qualities::default();
        for look in self.lock().iter() {
            *match look.as_ref().map(|look| look.result.quality.class()) {
                None => &mut count.unread,
                Some(QualityClass::Good) => &mut count.good,
                Some(QualityClass::Uncertain) => &mut count.uncertain,
                Some(QualityClass::Bad) => &mut count.bad,
                Some(QualityClass::Stale) => &mut count.stale,
            } += 1;
        }
        count
    }
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
    devices: Vec<Device>,
    session: SessionStatus,
}

#[derive(Debug)]
struct Device {
    status: DeviceStatus,
    pace: Pace,
    looks: Looks,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a device of so many points that has not been read yet; returns its number.
    pub fn add_device(
        &self,
        name: &str,
        driver: &'static str,
        points: usize,
        pace: Pace,
        now: Timestamp,
    ) -> usize {
        let status = DeviceStatus {
            name: name.to_owned(),
            driver,
            points,
            state: DeviceState::Connecting,
            since: now,
            is_off_clock: false,
            last_read: None,
            error: None,
            figures: Figures::default(),
            qualities: Qualities::default(),
        };
        let mut inner = self.lock();
        inner.devices.push(Device { status, pace, looks: Looks::of(points) });
        inner.devices.len() - 1
    }

    /// The last readings of a device's points.
    #[must_use]
    pub fn looks(&self, number: usize) -> Looks {
        self.lock().devices.get(number).map(|device| device.looks.clone()).unwrap_or_default()
    }

    /// Changes a device.
    pub fn device(&self, number: usize, change: impl FnOnce(&mut DeviceStatus)) {
        if let Some(device) = self.lock().devices.get_mut(number) {
            change(&mut device.status);
        }
    }

    /// Changes the session.
    pub fn session(&self, change: impl FnOnce(&mut SessionStatus)) {
        change(&mut self.lock().session);
    }

    /// All devices.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceStatus> {
        let look = |device: &Device| DeviceStatus {
            figures: device.pace.figures(),
            qualities: device.looks.qualities(),
            ..device.status.clone()
        };
        self.lock().devices.iter().map(look).collect()
    }

    /// The session.
    #[must_use]
    pub fn session_status(&self) -> SessionStatus {
        self.lock().session.clone()
    }
}
