//! The live view: the last value of every point, and cursors that tell what changed.
//!
//! It is a view: it may skip values, never logs them, and is rebuilt from the store's checkpoint at start. Rules:
//! - Historical values never replace newer ones, and neither do late ones (see [`latest`]).
//! - A cursor is two numbers; a slow consumer sees fewer intermediate values and costs no memory (habit 16).
//! - A stale mark is live-only, never a row; the next value or [`Live::confirm`] takes it away.
//!
//! [`json_tree`] renders it as retained MQTT topics.

mod fanout;
pub mod json_tree;
mod latest;

use std::ops::BitOr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::{PointId, Quality, SampleBatch, Timestamp, Value};
use runtime::clock::Clock;
use tokio::sync::watch;

pub use fanout::ChangeCursor;
use latest::Latest;

/// The last value of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveValue {
    /// When the source says that it was so.
    pub time: Timestamp,
    /// When the agent (for foreign nodes, the hub) accepted it.
    pub arrival: Timestamp,
    /// The value, if there is one.
    pub value: Option<Value>,
    /// How far it can be trusted; Stale while the point's node or device is away.
    pub quality: Quality,
}

/// Handle of the live view. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    clock: Clock,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    latest: RwLock<Latest>,
    /// Version of the newest change; behind `latest` by at most one notification.
    version: watch::Sender<u64>,
}

impl Live {
    /// An empty view.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let shared = Shared { latest: RwLock::default(), version: watch::Sender::new(0) };
        Live { clock, shared: Arc::new(shared) }
    }

    /// Takes the samples of durable records, in order.
    pub fn apply<'a>(&self, batches: impl IntoIterator<Item = &'a SampleBatch>) {
        let now = self.clock.now();
        self.change(|latest| {
            batches.into_iter().map(|batch| latest.apply(batch, now)).fold(false, BitOr::bitor)
        });
    }

    /// Takes last values from a checkpoint, before any record.
    pub fn restore(&self, values: impl IntoIterator<Item = (PointId, LiveValue)>) {
        self.change(|latest| latest.restore(values));
    }

    /// Marks points as stale, because nobody vouches for them any more.
    pub fn mark_stale(&self, points: &[PointId]) {
        self.change(|latest| latest.mark(points, true));
    }

    /// Takes the stale mark away: a birth said that the last values still hold.
    pub fn confirm(&self, points: &[PointId]) {
        self.change(|latest| latest.mark(points, false));
    }

    /// The last value of a point; `None` if it never had one.
    #[must_use]
    pub fn latest(&self, point: PointId) -> Option<LiveValue> {
        self.shared.read().get(point)
    }

    /// The last value as it was given, whether or not somebody vouches for it now.
    #[must_use]
    pub fn held(&self, point: PointId) -> Option<LiveValue> {
        self.shared.read().held(point)
    }

    /// Every point with its last value, for a checkpoint; without stale marks.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(PointId, LiveValue)> {
        self.shared.read().snapshot()
    }

    /// A cursor that begins with everything.
    #[must_use]
    pub fn changes(&self) -> ChangeCursor {
        ChangeCursor::new(Arc::clone(&self.shared))
    }

    fn change(&self, change: impl FnOnce(&mut Latest) -> bool) {
        let version = {
            let mut latest = self.shared.write();
            if !change(&mut latest) {
                return;
            }
            latest.version()
        };
        self.shared.version.send_replace(version);
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Latest> {
        self.latest.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Latest> {
        self.latest.write().unwrap_or_else(PoisonError::into_inner)
    }
}
