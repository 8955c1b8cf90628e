//! Everything of a device but its driver: what its points say meanwhile, and what is counted.
//!
//! Readings become samples here and are accepted; a device that is silent for `stale_after` gets its Stale record here, also
//! while a call to its driver hangs ([`Keeper::attend`]).

use std::pin::pin;
use std::time::Duration;

use model::{PointId, Quality, QualityClass, Reason, Sample, Value};
use proto::account::DeviceCounts;
use proto::log_record::DeviceEvent;
use runtime::telemetry::{Counter, Metrics};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Surroundings;
use super::gauges::Gauges;
use crate::config::DeviceConfig;
use crate::drivers::{Driver, DriverError, Readings};
use crate::health::{DeviceState, Looks, PointLook};
use crate::normalise::{ClockRules, DeadBand, Normalised, PointRules};
use crate::outbox::{NewGroup, OutboxError};
use crate::pace::Pace;

/// A full outbox is asked again so often.
const FULL_WAIT: Duration = Duration::from_millis(500);

/// Everything of a device but its driver: so that points go Stale while a call to the driver hangs.
pub(crate) struct Keeper {
    name: String,
    ids: Vec<PointId>,
    pub(crate) rules: Vec<PointRules>,
    bands: Vec<DeadBand>,
    pub(super) around: Surroundings,
    stale_after: Duration,
    stale_without_data: bool,
    pub(super) alive_at: Instant,
    pub(super) is_down: bool,
    /// Why the device is silent, for the Stale mark.
    fault: Quality,
    /// What became of what was read since the last group that is on disk.
    counted: DeviceCounts,
    clocks: ClockRules,
    /// Whether the last read brought times beyond their bounds.
    is_off_clock: bool,
    pub(super) meters: Meters,
    /// The last reading of each point, for consoles.
    looks: Looks,
    pace: Pace,
    gauges: Gauges,
}

pub(super) struct Meters {
    reads: Counter,
    errors: Counter,
    pub(super) missed: Counter,
    filtered: Counter,
    off_clock: Counter,
    quarantined: Counter,
    overflowed: Counter,
    downs: Counter,
}

impl Meters {
    fn new(metrics: &Metrics, agent: &str, device: &str) -> Meters {
        let label = [("agent", agent), ("device", device)];
        let counter = |name, help| metrics.counter(name, help, &label);
        Meters {
            reads: counter("forebay_edge_reads_total", "Successful reads of a device."),
            errors: counter("forebay_edge_read_errors_total", "Failed opens and reads of a device."),
            missed: counter("forebay_edge_polls_missed_total", "Polls that came too late or not at all."),
            filtered: counter("forebay_edge_filtered_samples_total", "Samples within their dead band."),
            off_clock: counter(
                "forebay_edge_uncertain_clock_samples_total",
                "Values whose time is beyond the bound for clocks: uncertain:clock.",
            ),
            quarantined: counter("forebay_edge_quarantined_total", "Input that the driver put aside."),
            overflowed: counter(
                "forebay_edge_source_overflows_total",
                "Times that a source said it had lost values before they could be read.",
            ),
            downs: counter("forebay_edge_device_downs_total", "Times that a device went down."),
        }
    }
}

/// How a call to the driver ended.
pub(crate) enum Attended<T> {
    Answered(T),
    /// Its deadline passed: only `close` may follow.
    Cut,
    Shutdown,
}

impl Keeper {
    /// The driver of a device, and the rest of it.
    pub(super) fn new(
        config: DeviceConfig,
        ids: Vec<PointId>,
        around: Surroundings,
    ) -> (Box<dyn Driver>, Keeper) {
        let looks = around.health.looks(around.device);
        let gauges = Gauges::new(&around.metrics, &around.agent, &config.name);
        let keeper = Keeper {
            rules: config.points.iter().map(PointRules::new).collect(),
            bands: vec![DeadBand::default(); config.points.len()],
            meters: Meters::new(&around.metrics, &around.agent, &config.name),
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
            looks,
            pace: config.pace,
            gauges,
        };
        (config.driver, keeper)
    }

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

    pub(super) fn stale_at(&self) -> Instant {
        self.alive_at + self.stale_after
    }

    /// Something failed: counted, and said once for the same cause.
    pub(super) fn failed(&mut self, error: &DriverError) {
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
    pub(super) async fn take(&mut self, readings: Readings) -> Result<bool, OutboxError> {
        let now = self.around.clock.now();
        self.meters.reads.increment();
        self.meters.quarantined.add(readings.quarantined);
        self.meters.overflowed.add(readings.overflowed);
        let (has_data, is_historical) = (!readings.list.is_empty(), readings.is_historical);
        let mut samples = Vec::with_capacity(readings.list.len());
        let (mut filtered, mut off_clock) = (0, 0);
        let ahead_of_hub = self.around.skew.ahead_micros(now, Instant::now());
        let mut looks = Vec::with_capacity(readings.list.len());
        for reading in readings.list {
            let at = reading.point;
            let (Some(rules), Some(band), Some(id)) =
                (self.rules.get(at), self.bands.get_mut(at), self.ids.get(at))
            else {
                continue; // not in the contract: a driver names its points only
            };
            let (has_source_time, raw) = (reading.time.is_some(), reading.value.clone());
            let normalised = rules.apply(reading, now);
            let normalised = self.clocks.apply(normalised, has_source_time, now, ahead_of_hub);
            off_clock += u64::from(normalised.quality == Quality::uncertain(Reason::Clock));
            if !is_historical {
                looks.push((at, PointLook { raw, result: normalised.clone() }));
            }
            // What is older than the band's last value says nothing about it, nor does that about this.
            if !is_historical && !band.passes(rules, &normalised) {
                filtered += 1;
                continue;
            }
            let Normalised { time, value, quality } = normalised;
            samples.push(Sample { point: *id, time, value, quality });
        }
        self.looks.took(looks);
        self.gauges.tell(&self.looks, &self.pace, false);
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
        self.accept(NewGroup { samples, position, is_historical, ..NewGroup::default() }).await
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
    pub(super) async fn go_down(&mut self) -> Result<(), OutboxError> {
        let now = self.around.clock.now();
        let mut samples = Vec::with_capacity(self.ids.len());
        for (id, band) in self.ids.iter().zip(&mut self.bands) {
            let value: Option<Value> = band.last().and_then(|last| last.value.clone());
            let made = Normalised { time: now, value, quality: self.fault };
            samples.push(Sample { point: *id, time: now, value: made.value.clone(), quality: made.quality });
            band.replace(made);
        }
        self.looks.became(self.fault, now);
        self.gauges.tell(&self.looks, &self.pace, true);
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
