//! How the agent is: one place that tasks write and consoles read.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{DataType, PointId, Quality, QualityClass, Timestamp, Value};
use proto::health::{DeviceHealth, LookAnswer, PointCounts};

use crate::normalise::Normalised;
use crate::pace::{Figures, Pace};

pub use proto::health::DeviceState;

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
    recipes: Arc<[Recipe]>,
}

/// Where a point is in its device, and what is done to its raw value.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The point.
    pub id: PointId,
    /// In the driver's words.
    pub address: Box<str>,
    /// Type there.
    pub raw_type: DataType,
    /// Factor applied first.
    pub scale: Option<f64>,
    /// Added afterwards.
    pub offset: Option<f64>,
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
        inner.devices.push(Device { status, pace, looks: Looks::of(points), recipes: Arc::default() });
        inner.devices.len() - 1
    }

    /// Says how a device's points are made, in the order of its list.
    pub fn describe(&self, number: usize, recipes: Vec<Recipe>) {
        if let Some(device) = self.lock().devices.get_mut(number) {
            device.recipes = recipes.into();
        }
    }

    /// What the device said of a point, and what became of it: all but what its definition says.
    #[must_use]
    pub fn look(&self, device: &str, id: PointId) -> Option<LookAnswer> {
        let (recipes, looks) = {
            let inner = self.lock();
            let device = inner.devices.iter().find(|known| known.status.name == device)?;
            (device.recipes.clone(), device.looks.clone())
        };
        let at = recipes.iter().position(|recipe| recipe.id == id)?;
        let recipe = recipes.get(at)?;
        let seen = looks.point(at);
        let result = seen.as_ref().map(|look| &look.result);
        Some(LookAnswer {
            is_known: true,
            address: recipe.address.to_string(),
            raw_type: recipe.raw_type.name().to_owned(),
            raw: seen.as_ref().and_then(|look| look.raw.as_ref()).map(value_text),
            scale: recipe.scale,
            offset: recipe.offset,
            value: result.and_then(|made| made.value.as_ref()).map(value_text),
            quality: result.map(|made| made.quality),
            time: result.map(|made| made.time),
            ..LookAnswer::default()
        })
    }

    /// A number that changes when a device's state or trouble does; cheap, however many points there are.
    #[must_use]
    pub fn trouble(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for device in &self.lock().devices {
            let status = &device.status;
            (status.state as u8, &status.error, status.is_off_clock).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// All devices, as a hub is told of them.
    #[must_use]
    pub fn report(&self) -> Vec<DeviceHealth> {
        self.devices().into_iter().map(told).collect()
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

fn told(status: DeviceStatus) -> DeviceHealth {
    let (figures, qualities) = (status.figures, status.qualities);
    let micros = |latency: Option<std::time::Duration>| {
        latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX))
    };
    DeviceHealth {
        name: status.name,
        driver: status.driver.to_owned(),
        state: status.state,
        since: status.since,
        last_read: status.last_read,
        error: status.error,
        is_off_clock: status.is_off_clock,
        requests: figures.requests,
        failed: figures.failed,
        per_second: figures.per_second,
        p50_micros: micros(figures.p50),
        p99_micros: micros(figures.p99),
        points: PointCounts {
            good: qualities.good as u64,
            uncertain: qualities.uncertain as u64,
            bad: qualities.bad as u64,
            stale: qualities.stale as u64,
            unread: qualities.unread as u64,
        },
    }
}

/// A value for people.
#[must_use]
pub fn value_text(value: &Value) -> String {
    match value {
        Value::Boolean(v) => v.to_string(),
        Value::String(v) => v.clone(),
        Value::Bytes(v) => format!("{} bytes", v.len()),
        Value::DateTime(v) => v.to_string(),
        Value::Int64(v) => v.to_string(),
        Value::UInt64(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        number => number.as_f64().map_or_else(String::new, |number| number.to_string()),
    }
}
