//! The writer thread: appends groups, syncs, then tells; trims by receipts; keeps the bound.

mod room;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use durable_log::{Budget, Committer, Level, Log, LogError, Position};
use model::{CommandId, Epoch, Offset, RecordId, SampleBatch, Timestamp};
use proto::account::{Account, DeviceCounts};
use proto::log_record::{DeviceEvent, LogRecord};
use runtime::clock::Clock;
use runtime::invariant::Invariant;
use runtime::mistakes::{Mistake, is_made};
use runtime::telemetry::{Counter, Gauge, Metrics};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::held::Held;
use super::open::own_account;
use super::{Answer, Durable, Item, NewGroup, OutboxError, Present, RecordPlace, Shared, WhenFull, split};
use crate::catalogue::Points;

/// Groups that come this soon after the first share its sync: far below any poll time, and it spares flash.
const GATHER: Duration = Duration::from_millis(5);

/// A command's id is kept this long after its expiry: clocks differ, and brokers hold messages back.
const COMMAND_MARGIN_MICROS: i64 = 3_600_000_000;

/// Ids kept at most: nobody gives a plant so many commands in an hour, and each costs memory and disk.
const COMMANDS_MAX: usize = 50_000;

/// The disk is asked how full it is so often.
const LOOK_AT_DISK: Duration = Duration::from_secs(1);
/// A clock that is set back by less is a correction, and not worth a word.
const CLOCK_STEP_MICROS: i64 = 1_000_000;

/// What the writer serves.
pub(super) struct Surroundings {
    /// Label of its counters.
    pub(super) agent: String,
    pub(super) points: Arc<Points>,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
    pub(super) present: Present,
    pub(super) durable_end: watch::Sender<Durable>,
    /// Samples are accepted up to here.
    pub(super) soft_bytes_max: u64,
    pub(super) when_full: WhenFull,
}

/// The writer; [`Writer::run`] blocks until the outbox is closed.
pub struct Writer {
    log: Log,
    intake: Intake,
    commits: Commits,
}

impl Writer {
    pub(super) fn new(
        log: Log,
        intake: mpsc::Receiver<Item>,
        (epoch, next, total): (Epoch, u64, Account),
        held: Held,
        around: Surroundings,
        metrics: &Metrics,
    ) -> Self {
        let around_agent = around.agent.clone();
        let commits = Commits {
            epoch,
            next,
            total,
            counted: BTreeMap::new(),
            held,
            around,
            waiting: Waiting::default(),
            boundaries: BTreeMap::new(),
            trim_due: true, // what was receipted or emptied before a restart
            clock_is_back: false,
            handed: Position(0),
            level: Level::Good,
            looked: None,
            meters: Meters::new(metrics, &around_agent),
        };
        Writer { log, intake: Intake { items: intake, closed: false }, commits }
    }

    /// Runs until closed, then everything accepted is on disk; or until a write fails, which a person must look at.
    /// Blocks this thread, which must be its own.
    pub fn run(self) -> Result<(), LogError> {
        runtime::tasks::block_thread_on(self.run_as_task())
    }

    /// The same as a task: it waits for nothing but items, the time and the disk.
    pub async fn run_as_task(mut self) -> Result<(), LogError> {
        let mut has_room = true;
        loop {
            let first = match has_room {
                true => self.intake.next().await,
                false => match tokio::time::timeout(durable_log::RETRY, self.intake.next()).await {
                    Ok(first) => first,
                    Err(_) => Next::Nothing,
                },
            };
            let first = match first {
                Next::Item(item) => Some(item),
                Next::Nothing => None,
                Next::Closed => return durable_log::last(&mut self.log, &mut self.commits),
            };
            if matches!(first, Some(Item::Accept { .. })) {
                tokio::time::sleep(GATHER).await;
            }
            let (log, intake, commits) = (&mut self.log, &mut self.intake, &mut self.commits);
            has_room = durable_log::round(log, &mut || intake.take(), Budget::default(), commits, first)?;
        }
    }
}

struct Intake {
    items: mpsc::Receiver<Item>,
    closed: bool,
}

enum Next {
    Item(Item),
    Nothing,
    Closed,
}

impl Intake {
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Next {
        if self.closed {
            return Next::Closed;
        }
        match self.items.recv().await {
            None | Some(Item::Close) => {
                self.closed = true;
                Next::Closed
            }
            Some(item) => Next::Item(item),
        }
    }

    fn take(&mut self) -> Option<Item> {
        match self.items.try_recv() {
            Ok(Item::Close) => {
                self.closed = true;
                None
            }
            other => other.ok(),
        }
    }
}

/// What waits for the sync.
#[derive(Default)]
struct Waiting {
    accepted: Vec<Answer<()>>,
    seen: Vec<Answer<bool>>,
    records: Vec<(RecordPlace, SampleBatch, DeviceEvent)>,
}

struct Meters {
    /// Nothing is forgotten that the hub has not.
    forgetting: Invariant,
    samples: Counter,
    refused: Counter,
    dropped: Counter,
    damaged: Counter,
    bytes: Gauge,
    fill: Gauge,
    backlog: Gauge,
    arrival_ahead: Gauge,
}

impl Meters {
    fn new(metrics: &Metrics, agent: &str) -> Self {
        let label = [("agent", agent)];
        Meters {
            forgetting: Invariant::new(metrics, "I1"),
            samples: metrics.counter(
                "forebay_edge_accepted_samples_total",
                "Samples accepted into the outbox.",
                &label,
            ),
            refused: metrics.counter(
                "forebay_edge_refused_groups_total",
                "Reads that had to wait because the outbox is full.",
                &label,
            ),
            dropped: metrics.counter(
                "forebay_edge_dropped_records_total",
                "Records that policy removed before a receipt covered them.",
                &label,
            ),
            damaged: metrics.counter(
                "forebay_edge_damaged_records_total",
                "Records that were damaged on this disk before a receipt covered them, found while running.",
                &label,
            ),
            bytes: metrics.gauge("forebay_edge_outbox_bytes", "Bytes of the outbox on disk.", &label),
            fill: metrics.gauge(
                "forebay_edge_outbox_used_percent",
                "Of the outbox's bound or of its disk, whichever is nearer to its end.",
                &label,
            ),
            arrival_ahead: metrics.gauge(
                "forebay_edge_arrival_ahead_ms",
                "How far this machine's clock stands before the newest acceptance time: it was set back.",
                &label,
            ),
            backlog: metrics.gauge(
                "forebay_edge_backlog_records",
                "Records held that no receipt covers.",
                &label,
            ),
        }
    }
}

struct Commits {
    epoch: Epoch,
    next: u64,
    total: Account,
    /// What became of what each device read in this epoch.
    counted: BTreeMap<String, DeviceCounts>,
    held: Held,
    around: Surroundings,
    waiting: Waiting,
    /// First sample record after the end of a sealed segment, by that end.
    boundaries: BTreeMap<Position, Option<RecordPlace>>,
    trim_due: bool,
    /// Whether the clock stands before the newest acceptance time.
    clock_is_back: bool,
    handed: Position,
    meters: Meters,
    level: Level,
    looked: Option<Instant>,
}

impl Committer for Commits {
    type Item = Item;

    fn append(&mut self, log: &mut Log, item: Item) -> u64 {
        match item {
            Item::Accept { group, done } => match self.accept(log, group) {
                Ok(bytes) => {
                    self.around.shared.is_full.store(false, Ordering::Relaxed);
                    self.waiting.accepted.push(done);
                    return bytes;
                }
                Err(error) => {
                    if matches!(error, OutboxError::Full) {
                        self.meters.refused.increment();
                        self.around.shared.is_full.store(true, Ordering::Relaxed);
                    }
                    done.send(Err(error)).ok(); // whoever asked may have gone
                }
            },
            Item::CommandSeen { id, expires_at, done } => return self.command(log, id, expires_at, done),
            Item::Trim => self.trim_due = true,
            Item::Handed { everything_below } => self.handed = everything_below,
            Item::Close => {}
        }
        0
    }

    fn durable(&mut self, log: &mut Log, end: Position) {
        let records = std::mem::take(&mut self.waiting.records);
        {
            let mut epochs = self.around.shared.epochs();
            for (place, _, _) in &records {
                epochs.add(*place);
            }
        }
        for (_, batch, event) in records {
            self.meters.samples.add(batch.samples.len() as u64);
            self.around.present.apply(batch.samples, event, batch.is_historical);
        }
        self.around.shared.mark(self.next);
        self.around.durable_end.send_if_modified(|durable| {
            let now = Durable { position: end, offset: self.next };
            std::mem::replace(durable, now) != now
        });
        for done in self.waiting.accepted.drain(..) {
            done.send(Ok(())).ok(); // whoever asked may have gone
        }
        for done in self.waiting.seen.drain(..) {
            done.send(Ok(true)).ok();
        }
        if std::mem::take(&mut self.trim_due)
            && let Err(error) = self.trim_receipted(log)
        {
            tracing::error!(%error, "the outbox could not be trimmed");
        }
        if log.view().is_damaged()
            && let Err(error) = self.heal(log)
        {
            tracing::error!(%error, "the outbox is damaged and could not be repaired");
        }
        self.measure(log);
    }

    fn no_room(&mut self, log: &mut Log, full: &LogError) {
        if !self.around.shared.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(%full, "the disk is full: what was read waits in memory, nothing more is accepted");
        }
        if let Err(error) = self.trim_receipted(log) {
            tracing::debug!(%error, "nothing to trim either");
        }
        self.measure(log);
    }

    fn failed(&mut self, _log: &mut Log, cause: &Arc<LogError>) {
        for done in self.waiting.accepted.drain(..) {
            done.send(Err(LogError::Latched { cause: cause.clone() }.into())).ok();
        }
        for done in self.waiting.seen.drain(..) {
            done.send(Err(LogError::Latched { cause: cause.clone() }.into())).ok();
        }
    }
}

impl Commits {
    /// Appends a group; on an error nothing of it was taken.
    fn accept(&mut self, log: &mut Log, group: NewGroup) -> Result<u64, OutboxError> {
        self.make_room(log)?;
        let now = self.arrival();
        let mut records = Vec::new();
        let mut places = Vec::new();
        let (mut next, mut total) = (self.next, self.total);
        let cut = split::into_records(group.samples, now);
        let last = cut.len().saturating_sub(1);
        let counted = group.counted.map(|(device, more)| {
            let so_far = self.counted.get(&device).copied().unwrap_or_default();
            (device, so_far.plus(more))
        });
        for (nth, samples) in cut.into_iter().enumerate() {
            let id = RecordId { epoch: self.epoch, offset: Offset(next) };
            let batch = SampleBatch { id, accepted_at: now, is_historical: group.is_historical, samples };
            let own = own_account(&batch, &self.around.points)
                .map_err(|point| OutboxError::UnknownPoint { position: log.end().0, point })?;
            let before = total;
            total = total.plus(own);
            let event = if nth == last { group.event } else { DeviceEvent::None };
            let position = Position(0); // known when it is appended
            places.push(RecordPlace { epoch: self.epoch, offset: next, position, before, after: total });
            let counts = if nth == last { counted.as_ref().map(|(_, counts)| *counts) } else { None };
            records.push(LogRecord::Accepted { batch, account: total, event, counts });
            next += 1;
        }
        let outside = is_made(Mistake::PositionOutside);
        if let Some((source, position)) = group.position.as_ref().filter(|_| !outside) {
            records.push(LogRecord::SourcePosition { source: source.clone(), position: position.clone() });
        }
        let (first, bytes) = append(log, &records)?;
        if let Some((source, position)) = group.position.as_ref().filter(|_| outside) {
            log.sync()?;
            let beside = LogRecord::SourcePosition { source: source.clone(), position: position.clone() };
            append(log, std::slice::from_ref(&beside))?;
        }
        (self.next, self.total) = (next, total);
        self.counted.extend(counted); // without a sample they are written with the device's next one
        let mut at = first.0;
        for (record, mut place) in records.into_iter().zip(places) {
            if let LogRecord::Accepted { batch, event, .. } = record {
                place.position = Position(at);
                self.held.keep_arrival(batch.accepted_at, Position(at));
                self.waiting.records.push((place, batch, event));
                at += 1;
            }
        }
        if let Some((source, position)) = group.position {
            self.held.keep_position(source, position, Position(at), log.view().durable_end());
        }
        Ok(bytes)
    }

    /// The time of acceptance: the clock's, but never before what was accepted already.
    fn arrival(&mut self) -> Timestamp {
        let now = self.around.clock.now();
        let newest = self.held.arrival.map_or(now, |(newest, _)| newest);
        let ahead = newest.0.saturating_sub(now.0).max(0);
        self.meters.arrival_ahead.set(ahead / 1000);
        let is_back = ahead >= CLOCK_STEP_MICROS;
        if is_back != std::mem::replace(&mut self.clock_is_back, is_back) {
            if is_back {
                tracing::warn!(clock = %now, newest = %newest,
                    "this machine's clock was set back: acceptance times stand still until it has caught up");
            } else {
                tracing::info!("this machine's clock has caught up with the newest acceptance time");
            }
        }
        now.max(newest)
    }

    fn command(&mut self, log: &mut Log, id: CommandId, expires_at: Timestamp, done: Answer<bool>) -> u64 {
        if self.held.commands.contains_key(&id) {
            done.send(Ok(false)).ok();
            return 0;
        }
        if self.held.commands.len() >= COMMANDS_MAX {
            let now = self.around.clock.now();
            self.held.commands.retain(|_, (forget_at, _)| *forget_at > now);
            if self.held.commands.len() >= COMMANDS_MAX {
                done.send(Err(OutboxError::TooManyCommands)).ok();
                return 0;
            }
        }
        let forget_at = Timestamp(expires_at.0.saturating_add(COMMAND_MARGIN_MICROS));
        let record = LogRecord::CommandSeen { id: id.0, expires_at: forget_at };
        match append(log, std::slice::from_ref(&record)) {
            Ok((at, bytes)) => {
                self.held.keep_command(id, forget_at, at);
                self.waiting.seen.push(done);
                bytes
            }
            Err(error) => {
                done.send(Err(error)).ok();
                0
            }
        }
    }
}

/// Appends records as one group: position of the first, and bytes.
fn append(log: &mut Log, records: &[LogRecord]) -> Result<(Position, u64), OutboxError> {
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(records.len());
    for record in records {
        record.encode(&mut bytes);
        ends.push(bytes.len());
    }
    let mut start = 0;
    let slices: Vec<&[u8]> = ends
        .iter()
        .map(|end| {
            let slice = &bytes[start..*end];
            start = *end;
            slice
        })
        .collect();
    match log.append_group(&slices) {
        Ok(first) => Ok((first, bytes.len() as u64)),
        Err(error) if error.is_full() => Err(OutboxError::Full),
        Err(error) => Err(error.into()),
    }
}
