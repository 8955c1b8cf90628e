//! The newest accepted sample of every point, and which devices are up: what a birth says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{PointId, Quality, Sample, Timestamp, Value};
use proto::log_record::DeviceEvent;

use crate::catalogue::{DeviceIndex, Points};

/// Longer texts are not repeated in births (they read null there), so that births and memory stay bounded.
const BIRTH_VALUE_BYTES_MAX: usize = 1024;

/// A point's newest durable sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// Source time.
    pub time: Timestamp,
    /// Value.
    pub value: Option<Value>,
    /// Quality.
    pub quality: Quality,
}

/// Shared between the writer, which fills it, and births. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Present {
    points: Arc<Points>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    latest: Vec<Option<Latest>>,
    up: Vec<bool>,
}

/// A view that does not change while it is held; nothing is accepted meanwhile, so hold it shortly.
#[derive(Debug)]
pub struct PresentGuard<'a>(MutexGuard<'a, State>);

impl Present {
    /// Nothing seen yet, every device down.
    #[must_use]
    pub fn new(points: Arc<Points>) -> Self {
        let state = State { latest: vec![None; points.end()], up: vec![false; points.devices().len()] };
        Present { points, state: Arc::new(Mutex::new(state)) }
    }

    /// Takes a durable record; of a source's history only what is newer than what is there.
    pub fn apply(&self, samples: Vec<Sample>, event: DeviceEvent, is_historical: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let device =
            samples.first().and_then(|sample| self.points.get(sample.point)).map(|entry| entry.device);
        for sample in samples {
            let Some(slot) = usize::try_from(sample.point.0).ok().and_then(|at| state.latest.get_mut(at))
            else {
                continue;
            };
            if is_historical && slot.as_ref().is_some_and(|held| held.time >= sample.time) {
                continue;
            }
            let value = sample.value.filter(|value| value.heap_bytes() <= BIRTH_VALUE_BYTES_MAX);
            *slot = Some(Latest { time: sample.time, value, quality: sample.quality });
        }
        if let Some(up) = device.and_then(|device| state.up.get_mut(device.0)) {
            *up = event == DeviceEvent::None;
        }
    }

    /// Looks at it.
    #[must_use]
    pub fn look(&self) -> PresentGuard<'_> {
        PresentGuard(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PresentGuard<'_> {
    /// A point's newest sample.
    #[must_use]
    pub fn latest(&self, id: PointId) -> Option<&Latest> {
        self.0.latest.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    /// Whether a device's newest record says that it is up.
    #[must_use]
    pub fn is_up(&self, device: DeviceIndex) -> bool {
        self.0.up.get(device.0).copied().unwrap_or(false)
    }
}
