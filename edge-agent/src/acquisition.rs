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
//! - The schedule does not drift: polls lie on a grid, missed ones are counted, not made up for.
//! - A device that is silent for `stale_after` gets one Stale record of all its points (last values kept) that takes
//!   it down; its next record brings it up again. This happens in time even while a call hangs.
//! - Back-pressure: while the outbox is full or slow nothing is read; what was read is not thrown away.
//! - A source is acknowledged only when its readings are on disk.
//! - Devices share nothing but the outbox: a dead one costs the others nothing.

use std::pin::pin;
use std::time::Duration;

use model::{PointId, Quality, QualityClass, Reason, Sample, Value};
use proto::account::DeviceCounts;
use proto::log_record::DeviceEvent;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::tasks::CancellationToken;
use runtime::telemetry::{Counter, Metrics};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::commands::ClockSkew;
use crate::config::DeviceConfig;
use crate::device_write::{self, DeviceWrite};
use crate::drivers::{Driver, DriverError, NextRead, Readings, Remedy};
use crate::health::{DeviceState, Health};
use crate::normalise::{ClockRules, DeadBand, Normalised, PointRules};
use crate::outbox::{NewGroup, Outbox, OutboxError};

/// Opening a connection may take so long: TCP, login, browsing.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);
/// A read may take at least so long, and twice the poll time where that is more.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Moving a file away may take so long.
const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(10);
/// The first wait after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// A configuration that cannot work is tried again so often: somebody may repair the device instead.
const FIX_CONFIG_WAIT: Duration = Duration::from_secs(30);
/// A full outbox is asked again so often.
const FULL_WAIT: Duration = Duration::from_millis(500);

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
    poll: Duration,
    /// Newest position on disk.
    resume: Option<Vec<u8>>,
}

/// Everything of a device but its driver: so that points go Stale while a call to the driver hangs.
pub(crate) struct Keeper {
    name: String,
    ids: Vec<PointId>,
    pub(crate) rules: Vec<PointRules>,
    bands: Vec<DeadBand>,
    around: Surroundings,
    stale_after: Duration,
    stale_without_data: bool,
    alive_at: Instant,
    is_down: bool,
    /// Why the device is silent, for the Stale mark.
    fault: Quality,
    /// What became of what was read since the last group that is on disk.
    counted: DeviceCounts,
    clocks: ClockRules,
    /// Whether the last read brought times beyond their bounds.
    is_off_clock: bool,
    meters: Meters,
}

struct Meters {
    reads: Counter,
    errors: Counter,
    missed: Counter,
    filtered: Counter,
    off_clock: Counter,
    quarantined: Counter,
    downs: Counter,
}

/// How a call to the driver ended.
pub(crate) enum Attended<T> {
    Answered(T),
    /// Its deadline passed: only `close` may follow.
    Cut,
    Shutdown,
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
        let label = [("agent", around.agent.as_str()), ("device", config.name.as_str())];
        let counter = |name, help| around.metrics.counter(name, help, &label);
        let meters = Meters {
            reads: counter("forebay_edge_reads_total", "Successful reads of a device."),
            errors: counter("forebay_edge_read_errors_total", "Failed opens and reads of a device."),
            missed: counter("forebay_edge_polls_missed_total", "Polls that came too late or not at all."),
            filtered: counter("forebay_edge_filtered_samples_total", "Samples within their dead band."),
            off_clock: counter(
                "forebay_edge_uncertain_clock_samples_total",
                "Values whose time is beyond the bound for clocks: uncertain:clock.",
            ),
            quarantined: counter("forebay_edge_quarantined_total", "Input that the driver put aside."),
            downs: counter("forebay_edge_device_downs_total", "Times that a device went down."),
        };
        let keeper = Keeper {
            rules: config.points.iter().map(PointRules::new).collect(),
            bands: vec![DeadBand::default(); config.points.len()],
            name: config.name,
            ids,
            around,
            stale_after: config.stale_after,
            stale_without_data: config.stale_without_data,
            alive_at: Instant::now(),
            is_down: false,
            fault: Quality::stale(Reason::NotConnected),
            counted: DeviceCounts::default(),
            clocks: config.clocks,
            is_off_clock: false,
            meters,
        };
        Acquisition { driver: config.driver, keeper, writes, poll: config.poll, resume }
    }

    /// Until shutdown.
    pub async fn run(mut self) -> Result<(), OutboxError> {
        self.keeper.alive_at = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let ended = self.connection(&mut backoff).await?;
            timeout(Duration::from_secs(2), self.driver.close()).await.ok(); // contract: never waits long
            let Ended::Failed(error) = ended else { return Ok(()) };
            self.keeper.failed(&error);
            let wait = match error.remedy() {
                Remedy::FixConfig => FIX_CONFIG_WAIT,
                Remedy::RetryLater | Remedy::Reconnect => backoff.wait(),
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
        let mut polls = interval(self.poll);
        polls.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut last_poll: Option<Instant> = None;
        let mut at_once = false;
        loop {
            if !std::mem::take(&mut at_once) {
                let due = match self.wait_for_poll(&mut polls).await? {
                    Waited::Poll(due) => due,
                    Waited::Cut(error) => return Ok(Ended::Failed(error)),
                    Waited::Shutdown => return Ok(Ended::Shutdown),
                };
                let late = last_poll.replace(due).map_or(Duration::ZERO, |last| due - last);
                self.keeper.meters.missed.add(u64::from(missed(late, self.poll)));
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

    /// The next poll; commands are executed meanwhile.
    async fn wait_for_poll(&mut self, polls: &mut tokio::time::Interval) -> Result<Waited, OutboxError> {
        loop {
            let shutdown = self.keeper.around.shutdown.clone();
            let stale_at = self.keeper.stale_at();
            let write = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Waited::Shutdown),
                Some(write) = self.writes.recv() => write,
                due = polls.tick() => return Ok(Waited::Poll(due)),
                () = self.driver.ready() => return Ok(Waited::Poll(Instant::now())),
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
        let deadline = READ_DEADLINE.max(self.poll * 2);
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
    Poll(Instant),
    Cut(DriverError),
    Shutdown,
}

/// Polls left out between two that lie `apart`.
fn missed(apart: Duration, poll: Duration) -> u32 {
    let polls = apart.as_nanos() / poll.as_nanos().max(1);
    u32::try_from(polls.saturating_sub(1)).unwrap_or(u32::MAX)
}

impl Keeper {
    /// Waits for the driver's answer, at most `deadline`; meanwhile the points go Stale when it is time.
    pub(crate) async fn attend<T>(
        &mut self,
        deadline: Duration,
        call: impl Future<Output = T>,
    ) -> Result<Attended<T>, OutboxError> {
        let shutdown = self.around.shutdown.clone();
        let mut call = pin!(timeout(deadline, call));
        loop {
            let stale_at = self.stale_at();
            tokio::select! {
                biased;
                answer = &mut call => return Ok(answer.map_or(Attended::Cut, Attended::Answered)),
                () = shutdown.cancelled() => return Ok(Attended::Shutdown),
                () = sleep_until(stale_at), if !self.is_down => self.go_down().await?,
            }
        }
    }

    fn stale_at(&self) -> Instant {
        self.alive_at + self.stale_after
    }

    /// Something failed: counted, and said once for the same cause.
    fn failed(&mut self, error: &DriverError) {
        self.meters.errors.increment();
        let quality = error.quality();
        self.fault = Quality::with_detail(QualityClass::Stale, quality.reason(), quality.detail());
        let text = error.to_string();
        let (device, mut is_new) = (self.name.clone(), false);
        self.around.health.device(self.around.device, |status| {
            is_new = status.error.as_deref() != Some(&text);
            status.error = Some(text.clone());
        });
        if is_new {
            tracing::warn!(%device, error = %text, "device");
        }
    }

    /// Normalises and accepts; `false` on shutdown before it was accepted.
    async fn take(&mut self, readings: Readings) -> Result<bool, OutboxError> {
        let now = self.around.clock.now();
        self.meters.reads.increment();
        self.meters.quarantined.add(readings.quarantined);
        let has_data = !readings.list.is_empty();
        let mut samples = Vec::with_capacity(readings.list.len());
        let (mut filtered, mut off_clock) = (0, 0);
        let ahead_of_hub = self.around.skew.ahead_micros(now, Instant::now());
        for reading in readings.list {
            let at = reading.point;
            let (Some(rules), Some(band), Some(id)) =
                (self.rules.get(at), self.bands.get_mut(at), self.ids.get(at))
            else {
                continue; // not in the contract: a driver names its points only
            };
            let has_source_time = reading.time.is_some();
            let normalised = rules.apply(reading, now);
            let normalised = self.clocks.apply(normalised, has_source_time, now, ahead_of_hub);
            off_clock += u64::from(normalised.quality == Quality::uncertain(Reason::Clock));
            if !band.passes(rules, &normalised) {
                filtered += 1;
                continue;
            }
            let Normalised { time, value, quality } = normalised;
            samples.push(Sample { point: *id, time, value, quality });
        }
        self.meters.filtered.add(filtered);
        self.meters.off_clock.add(off_clock);
        self.clock_is_off(off_clock > 0);
        if has_data || !self.stale_without_data {
            self.alive(now);
        }
        let position = readings.position.map(|position| (self.name.clone(), position));
        let read = samples.len() as u64 + filtered;
        let quarantined = readings.quarantined;
        self.counted = self.counted.plus(DeviceCounts { read, dead_band: filtered, quarantined, made: 0 });
        if samples.is_empty() && position.is_none() {
            return Ok(true);
        }
        self.accept(NewGroup { samples, position, ..NewGroup::default() }).await
    }

    /// Said once when it begins and once when it ends.
    fn clock_is_off(&mut self, is_off: bool) {
        if std::mem::replace(&mut self.is_off_clock, is_off) == is_off {
            return;
        }
        let device = &self.name;
        if is_off {
            tracing::warn!(%device, "times are beyond the bound of clock_skew_max: values are uncertain:clock");
        } else {
            tracing::info!(%device, "times are within their bounds again");
        }
        self.around.health.device(self.around.device, |status| status.is_off_clock = is_off);
    }

    fn alive(&mut self, now: model::Timestamp) {
        self.alive_at = Instant::now();
        self.is_down = false;
        self.around.health.device(self.around.device, |status| {
            if status.state != DeviceState::Up {
                (status.state, status.since) = (DeviceState::Up, now);
                tracing::info!(device = %status.name, "device is up");
            }
            status.last_read = Some(now);
            status.error = None;
        });
    }

    /// Accepts; while the outbox is full it waits and tries again. `false` on shutdown.
    async fn accept(&mut self, mut group: NewGroup) -> Result<bool, OutboxError> {
        group.counted = Some((self.name.clone(), self.counted));
        let shutdown = self.around.shutdown.clone();
        loop {
            match self.around.outbox.accept(group.clone()).await {
                Ok(()) => {
                    self.counted = DeviceCounts::default();
                    return Ok(true);
                }
                Err(OutboxError::Full) => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = sleep(FULL_WAIT) => {}
            }
        }
    }

    /// One Stale sample per point, the last values kept; the device is down with them.
    async fn go_down(&mut self) -> Result<(), OutboxError> {
        let now = self.around.clock.now();
        let mut samples = Vec::with_capacity(self.ids.len());
        for (id, band) in self.ids.iter().zip(&mut self.bands) {
            let value: Option<Value> = band.last().and_then(|last| last.value.clone());
            let made = Normalised { time: now, value, quality: self.fault };
            samples.push(Sample { point: *id, time: now, value: made.value.clone(), quality: made.quality });
            band.replace(made);
        }
        self.is_down = true;
        self.meters.downs.increment();
        let (device, reason) = (self.name.clone(), self.fault);
        tracing::warn!(%device, %reason, "device is down: its points are Stale");
        self.around.health.device(self.around.device, |status| {
            (status.state, status.since) = (DeviceState::Down, now);
        });
        self.counted.made += samples.len() as u64;
        self.accept(NewGroup { samples, event: DeviceEvent::Down, ..NewGroup::default() }).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
