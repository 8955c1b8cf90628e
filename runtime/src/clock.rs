//! The one place that asks the machine for the time, so that a simulator can own it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

/// Wall-clock time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Machine,
    Manual(Arc<AtomicI64>),
    /// µs to add to tokio's clock, and where that began.
    Simulated(Arc<AtomicI64>, tokio::time::Instant),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn machine() -> Self {
        Clock { source: Source::Machine }
    }

    /// A clock that stands until it is moved: for tests.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Clock { source: Source::Manual(Arc::new(AtomicI64::new(start.0))) }
    }

    /// A clock that runs with tokio's, which a simulator may have paused: says `start` now.
    #[must_use]
    pub fn simulated(start: Timestamp) -> Self {
        let began = tokio::time::Instant::now();
        Clock { source: Source::Simulated(Arc::new(AtomicI64::new(start.0)), began) }
    }

    /// Sets a simulated or manual clock forward or back, as people and time servers do; the machine's is left alone.
    pub fn step(&self, micros: i64) {
        if let Source::Manual(at) | Source::Simulated(at, _) = &self.source {
            at.fetch_add(micros, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock; the machine's is left alone.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(at) = &self.source {
            at.store(to.0, Ordering::SeqCst);
        }
    }

    /// Now, in µs since 1970 UTC. It may jump backwards when somebody sets the machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Timestamp {
        match &self.source {
            Source::Manual(at) => Timestamp(at.load(Ordering::SeqCst)),
            Source::Simulated(offset, began) => {
                let passed = i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
                Timestamp(offset.load(Ordering::SeqCst).saturating_add(passed))
            }
            Source::Machine => Timestamp(match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
                Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
            }),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::machine()
    }
}
