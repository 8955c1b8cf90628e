//! Opening: the newest checkpoint that fits the log, then the log's tail, record by record.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use durable_log::{Log, LogView, Options, Position};
use model::{Sample, SampleBatch};
use proto::log_record::LogRecord;
use runtime::clock::Clock;
use runtime::tasks::CancellationToken;
use runtime::telemetry::Metrics;
use tokio::sync::{Semaphore, mpsc, watch};

use super::accounts::{Accounts, Change, Counted};
use super::checkpoint::{self, Checkpoint};
use super::ingest::accounts_of;
use super::letters::{Book, Letters};
use super::quarantine::Quarantine;
use super::retention::Retention;
use super::writer::{Counts, Group, QUARANTINED, Writer};
use super::{
    Disks, DurableGroup, Generations, LastValue, QUEUE_ITEMS_MAX, QUEUE_KIB_MAX, Shared, Store, StoreError,
    StoreHealth, random_epoch,
};
use crate::catalogue::Catalogue;
use crate::ledger::{Ledger, LedgerEntry, LedgerKind};

/// Groups that may wait for live views and commands.
const READER_GROUPS_MAX: usize = 2;
/// Beyond its retention the log may grow by this part (1/8) while a checkpoint or a reader holds it back.
const SLACK: u64 = 8;
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
        ..Options::default()
    };
    let (log, recovery) = Log::open_on(Arc::clone(&disks.plant), options, epoch.0)
        .map_err(|source| StoreError::Log { log: "plant log", source })?;
    tracing::info!(log = "plant log", %recovery, "opened");
    let quarantine = Quarantine::open(Arc::clone(&disks.quarantine), random_epoch()?.0)
        .map_err(|source| StoreError::Log { log: "quarantine", source })?;

    let view = log.view();
    let book = Book::open(disks.book, random_epoch()?.0, &view, clock.now())
        .map_err(|source| StoreError::Log { log: "quarantine's book", source })?;
    let mut fitting: Vec<Checkpoint> =
        checkpoint::read(&*disks.checkpoint)?.into_iter().filter(|found| found.fits(&view)).collect();
    let positions: Vec<u64> =
        fitting.iter().map(|found| found.accounts.position.min(found.values_position)).collect();
    if fitting.is_empty() && view.first().0 > 0 {
        rebuilt(&ledger, &view, &clock);
    }
    let start = if fitting.is_empty() { Checkpoint::default() } else { fitting.swap_remove(0) };
    let (accounts, last_values) = replay(&view, start, &catalogue)?;

    let (queue, intake) = mpsc::channel(QUEUE_ITEMS_MAX);
    let (readers, groups) = mpsc::channel(READER_GROUPS_MAX);
    let generations = Generations {
        newest: positions.first().copied().unwrap_or(0),
        previous: positions.get(1).copied().unwrap_or(0),
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
        checkpoints: Mutex::new(generations),
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
        buffer: Vec::new(),
        ticks: 0,
        stopped: false,
    };
    let store = Store { shared, queue, room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)) };
    Ok(Opened { store, writer, groups, last_values })
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
        let record = LogRecord::decode(bytes).map_err(|source| StoreError::Record { at: at.0, source })?;
        let change = match record {
            LogRecord::Received { agent, batch, account, counts } => {
                let id = batch.id;
                touched.insert((agent, id.epoch));
                let foreign = view.epoch_of(at) == Some(id.epoch.0);
                let change = if foreign {
                    Change::Foreign { agent, id, account }
                } else {
                    let (_, agent_account) = accounts_of(&batch, &catalogue.hashes());
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
