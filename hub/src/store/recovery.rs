//! Opening: the newest checkpoint that fits the log, then the log's tail, record by record.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use durable_log::{Log, LogError, LogView, Options, Position, Recovery, Storage, WhenDamaged};
use model::{Sample, SampleBatch};
use proto::log_record::LogRecord;
use runtime::clock::Clock;
use runtime::invariant::Invariant;
use runtime::tasks::CancellationToken;
use runtime::telemetry::Metrics;
use tokio::sync::{Semaphore, mpsc, watch};

use super::accounts::{Accounts, Change, Counted};
use super::checkpoint::{self, Checkpoint};
use super::ingest::{Scratch, accounts_of};
use super::letters::{Book, Letters};
use super::pictures::Generations;
use super::quarantine::Quarantine;
use super::retention::Retention;
use super::writer::{Counts, Group, QUARANTINED, Writer};
use super::{
    Disks, DurableGroup, LastValue, QUEUE_ITEMS_MAX, QUEUE_KIB_MAX, Shared, Store, StoreError, StoreHealth,
    random_epoch,
};
use crate::catalogue::Catalogue;
use crate::ledger::{Ledger, LedgerEntry, LedgerKind};

/// Groups that may wait for live views and commands.
const READER_GROUPS_MAX: usize = 2;
/// Beyond its retention the log may grow by this part (1/8) while a checkpoint or a reader holds it back.
const SLACK: u64 = 8;
/// A missing end of the log is filled with holes up to so many positions: each takes 12 bytes.
const SKIPPED_MAX: u64 = 4_000_000;
/// Segments of the plant log.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// What a store needs.
pub(crate) struct Setup {
    pub(crate) hub_id: String,
    pub(crate) retention: Retention,
    pub(crate) disks: Disks,
    pub(crate) catalogue: Catalogue,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

/// An open store, its writer not yet running.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    /// Durable records, in order; somebody must take them.
    pub(crate) groups: mpsc::Receiver<DurableGroup>,
    pub(crate) last_values: Vec<LastValue>,
}

/// Opens the logs and recounts what the checkpoint does not cover. Blocking.
pub(crate) fn open(setup: Setup) -> Result<Opened, StoreError> {
    let Setup { hub_id, retention, disks, catalogue, ledger, clock, metrics, shutdown } = setup;
    let epoch = random_epoch()?;
    let options = Options {
        segment_bytes: SEGMENT_BYTES.min(retention.bytes / 8),
        bytes_max: retention.bytes.saturating_add(retention.bytes / SLACK).saturating_add(4 * SEGMENT_BYTES),
        when_damaged: WhenDamaged::SetAside,
        ..Options::default()
    };
    let plant_error = |source| StoreError::Log { log: "plant log", source };
    let (mut log, mut recovery) =
        Log::open_on(Arc::clone(&disks.plant), options, epoch.0).map_err(plant_error)?;
    tracing::info!(log = "plant log", %recovery, "opened");
    // At once: what follows may fail, and the next opening finds nothing damaged any more.
    let now = clock.now().to_string();
    ledger.damaged("plant log", &recovery, &now);
    ledger.kept_aside("plant log", &*disks.plant, &now);
    let (quarantine, quarantine_recovery) =
        Quarantine::open(Arc::clone(&disks.quarantine), random_epoch()?.0)
            .map_err(|source| StoreError::Log { log: "quarantine", source })?;
    ledger.damaged("quarantine", &quarantine_recovery, &now);
    ledger.kept_aside("quarantine", &*disks.quarantine, &now);

    let view = log.view();
    let found = checkpoint::read(&*disks.checkpoint)?;
    let counted = checkpoint::read_counted(&*disks.checkpoint)?;
    skip_used(&mut log, found.iter().chain(&counted), &ledger, &clock)?;
    let counted = counted.filter(|counted| counted.fits(&view));
    let exported = exported(&view).map_err(plant_error)?;
    let fitting: Vec<Checkpoint> = found.into_iter().filter(|found| found.fits(&view)).collect();
    let (book, book_recovery) = Book::open(disks.book, random_epoch()?.0, &view, clock.now())
        .map_err(|source| StoreError::Log { log: "quarantine's book", source })?;
    let positions: Vec<u64> =
        fitting.iter().map(|found| found.accounts.position.min(found.values_position)).collect();
    ledger.damaged("quarantine's book", &book_recovery, &now);
    if fitting.is_empty() && counted.is_none() && view.first().0 > 0 {
        rebuilt(&ledger, &view, &clock);
    }
    let counted_at = counted.as_ref().map_or(0, |counted| counted.accounts.position);
    let oldest = fitting.iter().map(|found| found.accounts.position).min();
    let ((accounts, last_values), had_damage) = loop {
        let replayed =
            damaged(&view, &recovery, oldest.unwrap_or(0)).map_err(plant_error).and_then(|damaged| {
                let start = start(&fitting, counted.as_ref(), &damaged, exported);
                Ok((replay(&view, start, &catalogue)?, !damaged.is_empty()))
            });
        match replayed {
            Err(StoreError::Log { source: source @ LogError::Damaged { .. }, .. }) => {
                let healed = log.heal().map_err(plant_error)?;
                if healed.is_empty() {
                    return Err(plant_error(source));
                }
                let healed = Recovery { repaired: healed, ..view.state() };
                ledger.damaged("plant log", &healed, &now);
                recovery.repaired.extend(healed.repaired);
            }
            replayed => break replayed?,
        }
    };
    if had_damage {
        let counted = (accounts.clone(), last_values.clone());
        if let Err(error) = keep_judgement(&*disks.checkpoint, &view, counted) {
            tracing::warn!(%error, "no checkpoint after damage: the next opening judges it anew");
        }
    }

    let (queue, intake) = mpsc::channel(QUEUE_ITEMS_MAX);
    let (readers, groups) = mpsc::channel(READER_GROUPS_MAX);
    let generations = Generations {
        newest: positions.first().copied().unwrap_or(0),
        previous: positions.get(1).copied().unwrap_or(0),
        counted: if had_damage { 0 } else { counted_at },
    };
    let shared = Arc::new(Shared {
        hub_id,
        epoch,
        durable: watch::Sender::new(view.durable_end()),
        view,
        letters: Letters { payloads: quarantine.view(), book: book.view() },
        book: book.shared(),
        checkpoint_storage: disks.checkpoint,
        catalogue,
        clock,
        accounts: Mutex::new(accounts),
        health: Mutex::new(StoreHealth::Ok),
        fill: Mutex::default(),
        checkpoints: Mutex::new(generations),
        receipts: Invariant::new(&metrics, "I2"),
    });
    let writer = Writer {
        log,
        quarantine,
        book,
        queue: intake,
        shared: Arc::clone(&shared),
        readers,
        ledger,
        retention,
        shutdown,
        count: Counts::new(&metrics),
        group: Group::default(),
        scratch: Scratch::default(),
        ticks: 0,
        stopped: false,
    };
    let store = Store { shared, queue, room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)) };
    Ok(Opened { store, writer, groups, last_values })
}

/// What of the log is not what was written: mended in this opening, or holes that may not have been judged yet, because
/// the opening that made them did not come to its end. [`keep_judgement`] leaves no checkpoint before those that were.
fn damaged(view: &LogView, recovery: &Recovery, oldest: u64) -> Result<Vec<Range<u64>>, LogError> {
    let repaired = recovery.repaired.iter().flat_map(|repaired| &repaired.lost);
    let mut damaged: Vec<Range<u64>> = repaired.map(|lost| lost.start.0..lost.end.0).collect();
    let mut reader = view.reader(Position(oldest).max(view.first()));
    while let Some((at, bytes)) = reader.next()? {
        match damaged.last_mut() {
            _ if !bytes.is_empty() => {}
            Some(last) if last.end == at.0 => last.end = at.0 + 1,
            _ => damaged.push(at.0..at.0 + 1),
        }
    }
    Ok(damaged)
}

/// Damage was judged: both checkpoints and the picture of the accounts say how from now on.
fn keep_judgement(
    storage: &dyn Storage,
    view: &LogView,
    (accounts, values): (Accounts, Vec<LastValue>),
) -> std::io::Result<()> {
    let position = accounts.position;
    let Some(judged) = Checkpoint::of(view, accounts, position, values) else { return Ok(()) };
    checkpoint::write(storage, &judged)?;
    checkpoint::write(storage, &judged)?;
    checkpoint::write_counted(storage, &Checkpoint { values: Vec::new(), values_position: 0, ..judged })
}

/// Where the sinks stand: the furthest of them.
fn exported(view: &LogView) -> Result<u64, LogError> {
    Ok(view.cursors()?.into_values().map(|at| at.0).max().unwrap_or(0))
}

/// What to start from. Without damage the newest checkpoint; with it
///
/// - what no sink has read is to be sent again by the agents that still hold it, so no receipt may name it: the newest
///   checkpoint that has counted nothing of it. If each has, the newest: it was received, and agents have let go of it.
/// - what a sink has read must not come again, or that sink would hold it twice: the oldest picture of the accounts that
///   has counted it. What of the damage that picture has counted and no sink has read is lost; the ledger names it.
fn start(
    fitting: &[Checkpoint],
    counted: Option<&Checkpoint>,
    damaged: &[Range<u64>],
    exported: u64,
) -> Checkpoint {
    let newest = || fitting.first().or(counted).cloned().unwrap_or_default();
    let Some(first) = damaged.iter().map(|damaged| damaged.start).min() else { return newest() };
    let before = fitting.iter().find(|found| found.accounts.position <= first);
    let values = before.cloned().unwrap_or_else(newest);
    let read = damaged.iter().filter(|damaged| damaged.start < exported);
    let Some(read) = read.map(|damaged| damaged.end.min(exported)).max() else { return values };
    let pictures = fitting.iter().chain(counted).filter(|found| found.accounts.position >= read);
    match pictures.min_by_key(|found| found.accounts.position) {
        Some(picture) => {
            Checkpoint { log_epoch: picture.log_epoch, accounts: picture.accounts.clone(), ..values }
        }
        None => values,
    }
}

/// A log that ends before a position that is known to have been used has lost its end. That position is not used
/// again: a sink that has read so far would take new records for old ones. Gives what was filled with holes.
fn skip_used<'c>(
    log: &mut Log,
    found: impl Iterator<Item = &'c Checkpoint>,
    ledger: &Ledger,
    clock: &Clock,
) -> Result<(), StoreError> {
    let plant_error = |source| StoreError::Log { log: "plant log", source };
    let end = log.view().durable_end();
    let sinks = log.view().cursors().map_err(plant_error)?.into_values().map(|at| at.0).max();
    let counted = found.map(|found| found.accounts.position).max();
    let Some(used) = sinks.max(counted).filter(|used| end.0 > 0 && *used > end.0) else { return Ok(()) };
    if used - end.0 > SKIPPED_MAX {
        return Ok(()); // another log: the sinks will say that it is not theirs
    }
    let reason = "the end of the plant log is missing, although a checkpoint or a sink had read it; agents that still \
                  hold what no sink had read send it again";
    let entry = LedgerEntry {
        at: clock.now().to_string(),
        kind: LedgerKind::Damaged,
        agent: None,
        epoch: None,
        start: Some(end.0),
        end: Some(used),
        reason: reason.to_owned(),
    };
    if let Err(error) = ledger.record(entry) {
        tracing::error!(%error, "ledger");
    }
    log.skip_to(Position(used)).map_err(plant_error) // told first: afterwards the end is not missing any more
}

fn rebuilt(ledger: &Ledger, view: &LogView, clock: &Clock) {
    let reason = "no checkpoint fits the plant log: offsets received before its first position are not known any \
                  more, and are counted as lost where agents do not hold them either";
    let entry = LedgerEntry {
        at: clock.now().to_string(),
        kind: LedgerKind::Rebuilt,
        agent: None,
        epoch: None,
        start: Some(0),
        end: Some(view.first().0),
        reason: reason.to_owned(),
    };
    if let Err(error) = ledger.record(entry) {
        tracing::error!(%error, "ledger");
    }
}

/// Counts what the checkpoint has not seen.
pub(super) fn replay(
    view: &LogView,
    start: Checkpoint,
    catalogue: &Catalogue,
) -> Result<(Accounts, Vec<LastValue>), StoreError> {
    let Checkpoint { mut accounts, values_position, values, .. } = start;
    let mut last = LastValues::default();
    values.into_iter().for_each(|value| last.put(value));
    let log_error = |source| StoreError::Log { log: "plant log", source };
    let counted = accounts.position;
    let mut touched = BTreeSet::new();
    let mut reader = view.reader(Position(counted.min(values_position)));
    while let Some((at, bytes)) = reader.next().map_err(log_error)? {
        if bytes.is_empty() {
            continue; // damaged and given up; it is in the ledger
        }
        let record = LogRecord::decode(bytes).map_err(|source| StoreError::Record { at: at.0, source })?;
        let change = match record {
            LogRecord::Received { agent, batch, account, counts } => {
                let id = batch.id;
                touched.insert((agent, id.epoch));
                let foreign = view.epoch_of(at) == Some(id.epoch.0);
                let change = if foreign {
                    Change::Foreign { agent, id, account }
                } else {
                    let hashes = catalogue.hashes();
                    let mut points = batch.samples.iter().map(|sample| hashes.get(sample.point.0 as usize));
                    let agent_account =
                        match points.all(|path| path.is_some_and(|path| path.agent == path.hub)) {
                            true => account,
                            false => accounts_of(&batch, &hashes).1,
                        };
                    let counted = Counted {
                        is_history: batch.is_historical,
                        point: batch.samples.first().and_then(|sample| catalogue.point(sample.point)),
                        counts,
                    };
                    Change::Received { agent, id, account, agent_account, running: None, counted }
                };
                if at.0 >= values_position {
                    last.apply(batch);
                }
                change
            }
            LogRecord::Lost { agent, epoch, start, end, reason } => {
                let quarantined = reason.starts_with(QUARANTINED);
                Change::Settled { agent, epoch, range: start..end, quarantined }
            }
            LogRecord::Again { .. } | LogRecord::Retried { .. } => continue, // counted when it came first
            _ => return Err(StoreError::WrongKind(at.0)),
        };
        if at.0 >= counted {
            accounts.apply(&change);
        }
    }
    accounts.position = view.durable_end().0;
    for mismatch in accounts.verify(&touched) {
        tracing::error!(agent = mismatch.agent.0, epoch = %mismatch.epoch, why = mismatch.why, "accounts differ");
    }
    Ok((accounts, last.0.into_iter().flatten().collect()))
}

/// Last values by point number; a later record wins unless it is history of before.
#[derive(Default)]
struct LastValues(Vec<Option<LastValue>>);

impl LastValues {
    fn put(&mut self, value: LastValue) {
        let at = value.point.0 as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        if let Some(slot) = self.0.get_mut(at) {
            *slot = Some(value);
        }
    }

    fn apply(&mut self, batch: SampleBatch) {
        let arrival = batch.accepted_at;
        for Sample { point, time, value, quality } in batch.samples {
            let held = self.0.get(point.0 as usize).and_then(Option::as_ref);
            if held.is_none_or(|held| time >= held.time) {
                self.put(LastValue { point, time, arrival, value, quality });
            }
        }
    }
}
