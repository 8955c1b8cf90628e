//! The one writer of the plant log: a thread that takes what is queued, commits it in groups, and tells afterwards.
//!
//! ```text
//! take items -> known already? -> append -> ... -> sync quarantine -> settle its offsets -> sync the log
//!            -> accounts move, receipts and readers hear of the durable end -> live views get the records
//! ```
//! A full disk stops it where it stands (`Holding`), and it goes on by itself. The first failed write or sync shuts
//! the latch: from then on everything queued is refused, and only a restart helps (habit 18).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use durable_log::{Level, Log, LogError, Recovery, Remedy};
use model::{Epoch, PointId, RangeSet, RecordId};
use proto::log_record::{AgentId, LogRecord};
use proto::sparkplug::EpochAccount;
use runtime::mistakes::{Mistake, is_made};
use runtime::tasks::CancellationToken;
use runtime::telemetry::{Counter, Gauge, Metrics};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::accounts::{Change, Mismatch};
use super::checkpoint::{self, Checkpoint};
use super::ingest::Scratch;
use super::letters::{Book, Work};
use super::quarantine::Quarantine;
use super::retention::Retention;
use super::{DurableGroup, QuarantineEntry, ReceivedBatch, Shared, StoreHealth, Told};
use crate::ledger::{Ledger, LedgerEntry, LedgerKind};

/// Memory of the records of one commit: a few milliseconds of disk time.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records of one commit.
const GROUP_RECORDS_MAX: usize = 8192;
/// A full disk is tried again this often.
const RETRY: Duration = Duration::from_millis(500);
/// Retention looks this many ticks apart.
const RETENTION_TICKS: u32 = 10;
/// Reasons of `Lost` records whose payload is in quarantine begin so.
pub(super) const QUARANTINED: &str = "quarantined: ";

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Item {
    Batches(Vec<ReceivedBatch>),
    Quarantine(QuarantineEntry, Option<(AgentId, RecordId)>),
    Reported(AgentId, Vec<EpochAccount>),
    Vouched(Vec<PointId>, bool),
    Letter(Work),
    Tick,
    Close(oneshot::Sender<()>),
}

/// An item with its share of the queue's memory.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) item: Item,
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) records: Counter,
    pub(super) samples: Counter,
    pub(super) duplicates: Counter,
    pub(super) unbelieved: Counter,
    refused: Counter,
    quarantined: Counter,
    quarantine_dropped: Counter,
    pub(super) set_aside: Counter,
    waiting: Gauge,
    lost: Counter,
    mismatches: Counter,
    fill: Gauge,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]);
        Counts {
            records: counter("forebay_hub_records_total", "Records written to the plant log."),
            samples: counter("forebay_hub_samples_total", "Samples written to the plant log."),
            duplicates: counter("forebay_hub_duplicates_total", "Records that were here already."),
            unbelieved: counter(
                "forebay_hub_unbelieved_records_total",
                "Records not received: impossible offset, too many holes or epochs.",
            ),
            refused: counter(
                "forebay_hub_refused_items_total",
                "Items not received because the plant log could not write.",
            ),
            quarantined: counter("forebay_hub_quarantined_total", "Payloads put into quarantine."),
            quarantine_dropped: counter(
                "forebay_hub_quarantine_dropped_total",
                "Old quarantine entries deleted to make room.",
            ),
            set_aside: counter(
                "forebay_hub_set_aside_total",
                "Records put into quarantine because a sink refused them.",
            ),
            waiting: metrics.gauge(
                "forebay_hub_quarantine_waiting",
                "Entries of the quarantine that nobody has decided about.",
                &[],
            ),
            lost: counter("forebay_hub_lost_records_total", "Records that will never come."),
            fill: metrics.gauge(
                "forebay_hub_disk_used_percent",
                "Of what the disk of the plant log may hold before the hub stops writing.",
                &[],
            ),
            mismatches: metrics.counter(
                "forebay_invariant_broken_total",
                "Numbered invariants found broken.",
                &[("invariant", "I3")],
            ),
        }
    }
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) log: Log,
    pub(super) quarantine: Quarantine,
    pub(super) book: Book,
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) shared: Arc<Shared>,
    pub(super) readers: mpsc::Sender<DurableGroup>,
    pub(super) ledger: Ledger,
    pub(super) retention: Retention,
    pub(super) shutdown: CancellationToken,
    pub(super) count: Counts,
    pub(super) group: Group,
    pub(super) scratch: Scratch,
    pub(super) ticks: u32,
    /// Given up: latched, or shut down while the disk was full.
    pub(super) stopped: bool,
}

/// What one commit covers.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) told: DurableGroup,
    pub(super) changes: Vec<Change>,
    /// Own records appended and not yet counted.
    pub(super) pending: BTreeMap<(AgentId, Epoch), RangeSet>,
    /// Ends the next group of records: see [`LogRecord::Retried`].
    pub(super) marker: Option<LogRecord>,
    /// Whether there is something to sync that changes no account.
    pub(super) is_forced: bool,
    /// Offsets to settle once the quarantine is durable.
    pub(super) settle: Vec<(AgentId, RecordId, String)>,
    pub(super) bytes: usize,
}

impl Group {
    /// Whether it holds the record already.
    pub(super) fn expects(&self, agent: AgentId, id: RecordId) -> bool {
        self.pending.get(&(agent, id.epoch)).is_some_and(|offsets| offsets.contains(id.offset.0))
    }

    /// From now on it does.
    pub(super) fn expect(&mut self, agent: AgentId, id: RecordId) {
        self.pending.entry((agent, id.epoch)).or_default().insert_one(id.offset.0);
    }
}

/// The log takes nothing more; the reason is in the health.
#[derive(Debug)]
pub(super) struct Stopped;

impl Writer {
    /// Until [`super::Store::close`], or until every handle is gone; blocks this thread, which must be its own.
    pub(crate) fn run(self) {
        runtime::tasks::block_thread_on(self.run_as_task());
    }

    /// The same as a task: it waits for nothing but the queue, its readers, the time and the disk.
    pub(crate) async fn run_as_task(mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut closing = self.take(first).await;
            while closing.is_none()
                && self.group.bytes < GROUP_BYTES_MAX
                && self.group.changes.len() < GROUP_RECORDS_MAX
                && let Ok(next) = self.queue.try_recv()
            {
                closing = self.take(next).await;
            }
            self.commit().await;
            if let Some(done) = closing {
                done.send(()).ok();
                return;
            }
        }
    }

    /// Does what the item asks; gives back who waits for the end.
    async fn take(&mut self, queued: Queued) -> Option<oneshot::Sender<()>> {
        match queued.item {
            Item::Close(done) => return Some(done),
            _ if self.stopped => self.count.refused.increment(),
            Item::Batches(batches) => {
                for batch in batches {
                    self.batch(batch).await;
                }
            }
            Item::Quarantine(entry, settles) => self.put_aside(&entry, settles),
            Item::Reported(agent, epochs) => self.reported(agent, &epochs).await,
            Item::Vouched(points, holds) => self.group.told.push(Told::Vouched { points, holds }),
            Item::Letter(work) => self.letter(work).await,
            Item::Tick => self.tick().await,
        }
        None
    }

    fn put_aside(&mut self, entry: &QuarantineEntry, settles: Option<(AgentId, RecordId)>) {
        if let Some((agent, id)) = settles {
            let settled = self
                .shared
                .accounts()
                .epoch(agent, id.epoch)
                .is_some_and(|book| book.settled().contains(id.offset.0));
            if settled || !self.is_new(agent, id) {
                return;
            }
        }
        match self.quarantine.push(entry) {
            Ok(dropped) => {
                self.count.quarantined.increment();
                self.dropped_from_quarantine(dropped);
                self.group.bytes += entry.payload.len();
                if let Some((agent, id)) = settles {
                    self.group.expect(agent, id);
                    self.group.settle.push((agent, id, format!("{QUARANTINED}{}", entry.reason)));
                }
            }
            Err(error) => tracing::error!(error = %crate::chain(&error), topic = entry.topic, "quarantine"),
        }
    }

    /// Says it in the ledger: nobody can retry these any more.
    fn dropped_from_quarantine(&self, dropped: u64) {
        self.count.quarantine_dropped.add(dropped);
        let end = self.quarantine.view().first().0;
        if dropped == 0 {
            return;
        }
        let written = self.ledger.record(LedgerEntry {
            at: self.shared.clock.now().to_string(),
            kind: LedgerKind::QuarantineDropped,
            agent: None,
            epoch: None,
            start: Some(end.saturating_sub(dropped)),
            end: Some(end),
            reason: "the oldest payloads of the quarantine were deleted to make room for new ones".to_owned(),
        });
        if let Err(error) = written {
            tracing::error!(error = %crate::chain(&error), "ledger");
        }
    }

    async fn reported(&mut self, agent: AgentId, epochs: &[EpochAccount]) {
        self.commit().await; // what is lost is judged by what is counted
        let ended = epochs.len().saturating_sub(1); // the last epoch of a birth still grows
        for (nth, account) in epochs.iter().enumerate() {
            let mut missing = self.shared.accounts().missing_below(agent, account.epoch, account.first_held);
            if nth < ended {
                missing.extend(self.shared.accounts().missing_beyond(agent, account.epoch, account.end));
            }
            for range in missing {
                self.lost(agent, account.epoch, range).await;
            }
            self.group.changes.push(Change::Reported { agent, account: *account });
        }
    }

    async fn lost(&mut self, agent: AgentId, epoch: Epoch, range: std::ops::Range<u64>) {
        let reason = "no longer on the agent's disk, and never received here".to_owned();
        let now = self.shared.clock.now();
        let written = self.ledger.record(LedgerEntry {
            at: now.to_string(),
            kind: LedgerKind::Lost,
            agent: self.shared.catalogue.agent(agent).map(|node| node.to_string()),
            epoch: Some(epoch.to_string()),
            start: Some(range.start),
            end: Some(range.end),
            reason: reason.clone(),
        });
        if let Err(error) = written {
            tracing::error!(error = %crate::chain(&error), "ledger");
            return; // not settled before it is in the ledger; the next birth says it again
        }
        self.count.lost.add(range.end - range.start);
        self.settle(agent, epoch, range, reason, false).await;
    }

    pub(super) async fn settle(
        &mut self,
        agent: AgentId,
        epoch: Epoch,
        range: std::ops::Range<u64>,
        reason: String,
        quarantined: bool,
    ) {
        let catalogue = self.shared.catalogue.clone();
        let mut bytes = Vec::new();
        let (start, end) = (range.start, range.end);
        LogRecord::Lost { agent, epoch, start, end, reason }.encode(&mut bytes);
        let appended = match self.attempt(|_writer| catalogue.persist()).await {
            Ok(()) => self.attempt(|writer| writer.log.append_group(&[&bytes])).await,
            Err(stopped) => Err(stopped),
        };
        if appended.is_ok() {
            self.group.changes.push(Change::Settled { agent, epoch, range, quarantined });
        }
    }

    async fn tick(&mut self) {
        let catalogue = self.shared.catalogue.clone();
        if self.attempt(|_writer| catalogue.persist()).await.is_err() {
            return;
        }
        self.heal().await;
        self.measure();
        self.count_letters();
        self.ticks += 1;
        if is_made(Mistake::ReceiptBeforeSync) && self.ticks.is_multiple_of(10) {
            self.log.sync().ok();
        }
        if self.ticks.is_multiple_of(RETENTION_TICKS) {
            let (needed, now) = (self.shared.needed_from(), self.shared.clock.now());
            let names = |agent| catalogue.agent(agent).map(|node| node.to_string());
            if let Err(error) = self.retention.apply(&mut self.log, needed, now, &self.ledger, &names) {
                tracing::error!(error = %crate::chain(&error), "retention");
            }
        }
    }

    /// Says how full the disk is before it is full. Of the log's own bound nothing is said: by it retention deletes what is
    /// old, as configured.
    fn measure(&self) {
        let fill = self.log.fill(u64::MAX);
        self.count.fill.set(i64::from(fill.percent()));
        let mut held = self.shared.fill.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, level) = (held.1, fill.level(held.1));
        *held = (fill, level);
        drop(held);
        match level {
            _ if level == before => {}
            Level::NearlyFull => {
                tracing::error!(%fill, "the disk of the plant log is nearly full: free space now")
            }
            Level::Filling if before == Level::Good => {
                tracing::warn!(%fill, "the disk of the plant log fills up")
            }
            _ => tracing::info!(%fill, "the disk of the plant log has more room"),
        }
    }

    fn count_letters(&self) {
        let payloads = &self.shared.letters.payloads;
        let waiting = self.book.state().waiting(payloads.first().0..payloads.durable_end().0);
        self.count.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Looks after damage that a reader met since the last tick.
    async fn heal(&mut self) {
        if !self.log.view().is_damaged() {
            return;
        }
        self.commit().await; // the segment being written may be sealed for it
        match self.log.heal() {
            Ok(repaired) => {
                let recovery = Recovery { repaired, ..self.log.view().state() };
                self.ledger.damaged("plant log", &recovery, &self.shared.clock.now().to_string());
            }
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "a damaged segment of the plant log")
            }
        }
    }

    /// Makes the group durable, then tells.
    pub(super) async fn commit(&mut self) {
        self.settle_quarantined().await;
        let nothing_to_sync = self.group.changes.is_empty() && !self.group.is_forced;
        if is_made(Mistake::RangesBeside) && !nothing_to_sync {
            self.write_ranges_beside();
        }
        let synced = match nothing_to_sync || is_made(Mistake::ReceiptBeforeSync) {
            true => Ok(self.log.end()),
            false => self.attempt(|writer| writer.log.sync()).await,
        };
        let group = std::mem::take(&mut self.group);
        let Ok(end) = synced else { return };
        if nothing_to_sync {
            return self.tell(group.told).await;
        }
        let mismatches = {
            let mut accounts = self.shared.accounts();
            group.changes.iter().for_each(|change| accounts.apply(change));
            accounts.position = end.0;
            accounts.verify(&touched(&group.changes))
        };
        self.shared.durable.send_replace(end);
        mismatches.iter().for_each(|mismatch| self.alarm(mismatch));
        self.tell(group.told).await;
    }

    /// See [`Mistake::RangesBeside`].
    fn write_ranges_beside(&self) {
        let mut accounts = self.shared.accounts().clone();
        self.group.changes.iter().for_each(|change| accounts.apply(change));
        accounts.position = self.log.end().0;
        let values_position = accounts.position;
        let beside =
            Checkpoint { log_epoch: self.log.epoch(), accounts, values_position, values: Vec::new() };
        checkpoint::write(&*self.shared.checkpoint_storage, &beside).ok();
    }

    async fn tell(&self, told: DurableGroup) {
        if !told.is_empty() {
            self.readers.send(told).await.ok(); // nobody reads any more: the hub is ending
        }
    }

    async fn settle_quarantined(&mut self) {
        let settle = std::mem::take(&mut self.group.settle);
        match self.quarantine.sync() {
            Ok(()) => {
                for (agent, id, reason) in settle {
                    let range = id.offset.0..id.offset.0 + 1;
                    self.settle(agent, id.epoch, range, reason, true).await;
                }
            }
            Err(error) => tracing::error!(error = %crate::chain(&error), "quarantine"),
        }
    }

    fn alarm(&self, mismatch: &Mismatch) {
        self.count.mismatches.increment();
        let agent = self.shared.catalogue.agent(mismatch.agent).map(|node| node.to_string());
        let written = self.ledger.record(LedgerEntry {
            at: self.shared.clock.now().to_string(),
            kind: LedgerKind::Mismatch,
            agent,
            epoch: Some(mismatch.epoch.to_string()),
            start: None,
            end: None,
            reason: mismatch.why.clone(),
        });
        if let Err(error) = written {
            tracing::error!(error = %crate::chain(&error), "ledger");
        }
    }

    /// Does it, waiting for room as long as it takes; any other failure stops the writer.
    pub(super) async fn attempt<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<T, LogError>,
    ) -> Result<T, Stopped> {
        if self.stopped {
            return Err(Stopped);
        }
        let mut waited = false;
        loop {
            let error = match work(self) {
                Ok(done) => {
                    if waited {
                        tracing::info!("the plant log has room again");
                        self.shared.set_health(StoreHealth::Ok);
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            match error.remedy() {
                Remedy::MakeRoom if !self.shutdown.is_cancelled() => {
                    if !waited {
                        tracing::error!(error = %crate::chain(&error), "the hub holds: it writes nothing");
                    }
                    waited = true;
                    self.shared.set_health(StoreHealth::Holding(crate::chain(&error)));
                    self.measure();
                    let (needed, now) = (self.shared.needed_from(), self.shared.clock.now());
                    let catalogue = self.shared.catalogue.clone();
                    let names = |agent| catalogue.agent(agent).map(|node| node.to_string());
                    let made = Retention::make_room(&mut self.log, needed, now, &self.ledger, &names);
                    if !made.is_ok_and(|made| made) {
                        tokio::time::sleep(RETRY).await;
                    }
                }
                Remedy::FixCaller => {
                    tracing::error!(error = %crate::chain(&error), "the plant log refused a record");
                    self.count.unbelieved.increment();
                    return Err(Stopped);
                }
                _ => {
                    tracing::error!(error = %crate::chain(&error), "the plant log takes nothing more");
                    self.shared.set_health(StoreHealth::Latched(crate::chain(&error)));
                    self.stopped = true;
                    return Err(Stopped);
                }
            }
        }
    }
}

impl Shared {
    fn set_health(&self, health: StoreHealth) {
        let mut now = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != health {
            *now = health;
            drop(now);
            self.durable.send_modify(|_position| {}); // receipts say so
        }
    }
}

fn touched(changes: &[Change]) -> BTreeSet<(AgentId, Epoch)> {
    let mut touched = BTreeSet::new();
    let mut last = None;
    for change in changes {
        let key = match change {
            Change::Received { agent, id, .. } | Change::Foreign { agent, id, .. } => (*agent, id.epoch),
            Change::Settled { agent, epoch, .. } => (*agent, *epoch),
            Change::Reported { agent, account } => (*agent, account.epoch),
        };
        if last.replace(key) != Some(key) {
            touched.insert(key);
        }
    }
    touched
}
