//! One task per device: when it is read, how long that may take, how soon again, and what the points say meanwhile.
//!
//! ```text
//!            open fails, read fails or is cut off
//!        ┌──────────────── wait (backoff, jitter) ◄─────────────┐
//!        ▼                                                      │
//!      open ──► wait for the next poll ──► read ──► normalise ──► accept ──► acknowledge ──┐
//!                       ▲                                                                  │
//!                       └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - Each poll group of a device has its own grid ([`schedule`]): no drift, missed polls are counted, not made up for.
//! - A device that is silent for `stale_after` gets one Stale record of all its points (last values kept) that takes
//!   it down; its next record brings it up again. This happens in time even while a call hangs.
//! - Back-pressure: while the outbox is full or slow nothing is read; what was read is not thrown away.
//! - A source is acknowledged only when its readings are on disk.
//! - Devices share nothing but the outbox: a dead one costs the others nothing. (Units behind one gateway share its
//!   connection, inside their driver, where that is bounded.)
//! - A device that is away is asked again soon, so that its first value is there within 2 s of its return: at most
//!   [`BACKOFF`] passes between the end of one try (which lasts as long as the driver's own deadline, 1 s unless
//!   configured otherwise) and the next. That costs a dead device's network three small packets in two seconds, which
//!   is less than reading it. Who answers and denies is asked ever more slowly instead: accounts get locked.

use std::time::Duration;

use model::PointId;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::tasks::CancellationToken;
use runtime::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::commands::ClockSkew;
use crate::config::DeviceConfig;
use crate::device_write::{self, DeviceWrite};
use crate::drivers::{Driver, DriverError, NextRead, Readings, Remedy};
use crate::health::Health;
use crate::outbox::{Outbox, OutboxError};
use schedule::Schedule;

pub(crate) use keeper::{Attended, Keeper};

mod gauges;
mod keeper;
mod schedule;

/// Opening a connection may take so long: TCP, login, browsing.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);
/// A read may take at least so long, and twice the poll time where that is more.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Moving a file away may take so long.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(10);
/// The first wait after a failure, and the longest: see above.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(900));
/// The same where the device refuses a connection that it understood.
const REFUSED_BACKOFF: (Duration, Duration) = (Duration::from_millis(900), Duration::from_secs(15));
/// A configuration that cannot work is tried again so often: somebody may repair the device instead.
const FIX_CONFIG_WAIT: Duration = Duration::from_secs(30);
/// What a device's task needs beside its configuration.
pub struct Surroundings {
    /// Where samples go.
    pub outbox: Outbox,
    /// The clock.
    pub clock: Clock,
    /// The agent: label of its counters.
    pub agent: String,
    /// For counters.
    pub metrics: Metrics,
    /// The hub's clock.
    pub skew: ClockSkew,
    /// For consoles.
    pub health: Health,
    /// Number of the device in it.
    pub device: usize,
    /// Cancelled when the task shall end.
    pub shutdown: CancellationToken,
}

/// A device and its task.
pub struct Acquisition {
    driver: Box<dyn Driver>,
    keeper: Keeper,
    writes: mpsc::Receiver<DeviceWrite>,
    /// The groups that have points, with their poll times.
    polls: Vec<(u8, Duration)>,
    /// The slowest of them.
    slowest: Duration,
    /// Newest position on disk.
    resume: Option<Vec<u8>>,
}

/// Why a connection ended.
enum Ended {
    Shutdown,
    Failed(DriverError),
}

impl Acquisition {
    /// The task of a device. `ids` are its points' numbers, `resume` its newest position on disk.
    #[must_use]
    pub fn new(
        config: DeviceConfig,
        ids: Vec<PointId>,
        resume: Option<Vec<u8>>,
        writes: mpsc::Receiver<DeviceWrite>,
        around: Surroundings,
    ) -> Self {
        let polls = config.polls();
        let slowest = polls.iter().map(|(_, poll)| *poll).max().unwrap_or_default();
        let (driver, keeper) = Keeper::new(config, ids, around);
        Acquisition { driver, keeper, writes, polls, slowest, resume }
    }

    /// Until shutdown.
    pub async fn run(mut self) -> Result<(), OutboxError> {
        self.keeper.alive_at = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut refused = Backoff::new(REFUSED_BACKOFF.0, REFUSED_BACKOFF.1);
        loop {
            let ended = self.connection(&mut backoff).await?;
            timeout(Duration::from_secs(2), self.driver.close()).await.ok(); // contract: never waits long
            let Ended::Failed(error) = ended else { return Ok(()) };
            self.keeper.failed(&error);
            let wait = match error.remedy() {
                Remedy::FixConfig => FIX_CONFIG_WAIT,
                Remedy::RetryLater => refused.wait(),
                Remedy::Reconnect => {
                    refused.reset();
                    backoff.wait()
                }
            };
            if !self.wait_unconnected(wait).await? {
                return Ok(());
            }
        }
    }

    /// Opens, then reads until something fails.
    async fn connection(&mut self, backoff: &mut Backoff) -> Result<Ended, OutboxError> {
        let Self { driver, keeper, resume, .. } = self;
        match keeper.attend(OPEN_DEADLINE, driver.open(resume.as_deref())).await? {
            Attended::Answered(Ok(())) => {}
            Attended::Answered(Err(error)) => return Ok(Ended::Failed(error)),
            Attended::Cut => return Ok(Ended::Failed(DriverError::Silent(OPEN_DEADLINE))),
            Attended::Shutdown => return Ok(Ended::Shutdown),
        }
        let mut schedule = Schedule::new(&self.polls, Instant::now());
        let mut at_once = false;
        loop {
            if !std::mem::take(&mut at_once) {
                match self.wait_for_poll(&schedule).await? {
                    Waited::Poll => {
                        let (due, missed) = schedule.take(Instant::now());
                        self.keeper.meters.missed.add(missed);
                        self.driver.select(due);
                    }
                    Waited::Ready => {}
                    Waited::Cut(error) => return Ok(Ended::Failed(error)),
                    Waited::Shutdown => return Ok(Ended::Shutdown),
                }
            }
            match self.read_once().await? {
                Ok(NextRead::AtOnce) => at_once = true,
                Ok(NextRead::OnSchedule) => {}
                Err(Ended::Failed(error)) if error.remedy() == Remedy::RetryLater => {
                    self.keeper.failed(&error);
                    continue;
                }
                Err(ended) => return Ok(ended),
            }
            backoff.reset();
        }
    }

    /// The next poll, or data that the source has of itself; commands are executed meanwhile.
    async fn wait_for_poll(&mut self, schedule: &Schedule) -> Result<Waited, OutboxError> {
        let due_at = schedule.next(Instant::now());
        loop {
            let shutdown = self.keeper.around.shutdown.clone();
            let stale_at = self.keeper.stale_at();
            let write = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Waited::Shutdown),
                Some(write) = self.writes.recv() => write,
                () = sleep_until(due_at) => return Ok(Waited::Poll),
                () = self.driver.ready() => return Ok(Waited::Ready),
                () = sleep_until(stale_at), if !self.keeper.is_down => {
                    self.keeper.go_down().await?;
                    continue;
                }
            };
            if let Some(error) = device_write::execute(self.driver.as_mut(), &mut self.keeper, write).await? {
                return Ok(Waited::Cut(error));
            }
        }
    }

    /// Waits without a connection: commands are refused, points go Stale in time. `false` on shutdown.
    async fn wait_unconnected(&mut self, wait: Duration) -> Result<bool, OutboxError> {
        let until = Instant::now() + wait;
        let shutdown = self.keeper.around.shutdown.clone();
        loop {
            let stale_at = self.keeper.stale_at();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(false),
                () = sleep_until(until) => return Ok(true),
                Some(write) = self.writes.recv() => write.refuse("the device is not connected"),
                () = sleep_until(stale_at), if !self.keeper.is_down => self.keeper.go_down().await?,
            }
        }
    }

    async fn read_once(&mut self) -> Result<Result<NextRead, Ended>, OutboxError> {
        let deadline = READ_DEADLINE.max(self.slowest * 2);
        let mut readings = Readings::default();
        let Self { driver, keeper, .. } = self;
        let next = match keeper.attend(deadline, driver.read(&mut readings)).await? {
            Attended::Answered(Ok(next)) => next,
            Attended::Answered(Err(error)) => return Ok(Err(Ended::Failed(error))),
            Attended::Cut => return Ok(Err(Ended::Failed(DriverError::Silent(deadline)))),
            Attended::Shutdown => return Ok(Err(Ended::Shutdown)),
        };
        let position = readings.position.clone();
        if !keeper.take(readings).await? {
            return Ok(Err(Ended::Shutdown));
        }
        let Some(position) = position else { return Ok(Ok(next)) };
        let acknowledged = keeper.attend(ACKNOWLEDGE_DEADLINE, driver.acknowledge(&position)).await?;
        self.resume = Some(position);
        Ok(match acknowledged {
            Attended::Answered(Ok(())) => Ok(next),
            Attended::Answered(Err(error)) => Err(Ended::Failed(error)),
            Attended::Cut => Err(Ended::Failed(DriverError::Silent(ACKNOWLEDGE_DEADLINE))),
            Attended::Shutdown => Err(Ended::Shutdown),
        })
    }
}

enum Waited {
    Poll,
    Ready,
    Cut(DriverError),
    Shutdown,
}

#[cfg(test)]
mod tests;
