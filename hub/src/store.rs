//! The plant log: what the hub received, once, in the order in which it came.
//!
//! One writer thread appends, commits in groups and tells afterwards ([`writer`]). It refuses what it already holds
//! (by agent, epoch and offset), keeps the accounts of every epoch ([`accounts`]), and derives all of that from the
//! log on open ([`recovery`]); the [`checkpoint`] is a short cut. Rules:
//! - Nothing is told (receipts, live views, commands, feeds) before the sync that covers it returned.
//! - Catalogue entries are durable before the first record that uses them, quarantine entries before the record that
//!   settles their offset.
//! - While it cannot write it says so ([`StoreHealth`]) and takes nothing; agents keep what has no receipt.

pub(crate) mod accounts;
pub(crate) mod checkpoint;
pub mod cold;
pub(crate) mod feed_page;
pub(crate) mod history;
mod ingest;
pub mod letters;
mod pictures;
mod quarantine;
mod recovery;
mod retention;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use durable_log::{DiskStorage, Fill, Level, LogError, LogView, Position, Storage};
use model::{Epoch, NodeId, PointId, Quality, RangeSet, RecordId, Sample, SampleBatch, Timestamp, Value};
use proto::account::{Account, DeviceCounts};
use proto::log_record::{AgentId, RecordError};
use proto::sparkplug::EpochAccount;
use runtime::clock::Clock;
use runtime::invariant::Invariant;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::catalogue::{Catalogue, CatalogueError};
use accounts::Accounts;
use checkpoint::CheckpointError;
use letters::{BookState, Letters, Work};
use pictures::Generations;
use writer::{Item, Queued};

pub(crate) use letters::Retrial;
pub use letters::{Fate, Letter, LetterError, LetterId, Origin, Refusal, RefusedRecord};
pub(crate) use recovery::{Opened, Setup, open};
pub(crate) use retention::Retention;

/// Prefix of the cursors that sinks register.
pub(crate) const SINK_CURSOR: &str = "sink:";
/// Items that may wait for the writer.
const QUEUE_ITEMS_MAX: usize = 1024;
/// KiB that may wait for the writer: more than one group, so that it never waits for the host.
const QUEUE_KIB_MAX: usize = 16 * 1024;
/// Memory of one sample beside its text.
const SAMPLE_BYTES: usize = size_of::<Sample>();

/// One agent's account.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentAccount {
    /// Whose.
    pub agent: NodeId,
    /// Its number in the catalogue and in log records.
    pub id: AgentId,
    /// Whether the hub numbers its records (design §4.15): epochs are then the plant log's own, and `ranges` is the
    /// span of positions among which its records are.
    pub foreign: bool,
    /// By epoch.
    pub epochs: Vec<EpochState>,
}

/// What the hub holds of one epoch of one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochState {
    /// Which.
    pub epoch: Epoch,
    /// Whether it is the plant log's own, and `ranges` a span of positions (see [`AgentAccount::foreign`]).
    pub foreign: bool,
    /// Offsets received and on disk (also if retention has deleted them since).
    pub ranges: RangeSet,
    /// Account of all received.
    pub account: Account,
    /// The same over the agent's own paths, which differ from the hub's where two agents claim one path.
    pub agent_account: Account,
    /// Offsets that will never come, settled.
    pub lost: RangeSet,
    /// Offsets whose payload nobody could decode: in quarantine, settled.
    pub quarantined: RangeSet,
    /// The newest that the agent said of it.
    pub reported: Option<EpochAccount>,
    /// Below here count and checksum are equal to the agent's.
    pub verified_end: u64,
    /// Samples of all received that came as history.
    pub history: u64,
    /// By device of the agent: what was read, left out and received.
    pub devices: BTreeMap<String, DeviceAccount>,
    /// Invariant I3 is broken: how.
    pub mismatch: Option<String>,
}

/// One device's account in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceAccount {
    /// The agent's counts, as of `as_of`.
    pub counts: DeviceCounts,
    /// One past the offset of the newest record that told them; 0: none did.
    pub as_of: u64,
    /// Samples of the device received.
    pub received: u64,
}

/// A decoded payload, on its way into the log.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedBatch {
    /// Whose.
    pub agent: AgentId,
    /// Which record.
    pub identity: Identity,
    /// When it arrived.
    pub arrival: Timestamp,
    /// Whether it was sent as history.
    pub is_historical: bool,
    /// Whether a sample of it reports how a command ended.
    pub has_command_report: bool,
    /// Its samples, in the order of the payload.
    pub samples: Vec<Sample>,
}

impl ReceivedBatch {
    /// Memory.
    fn bytes(&self) -> usize {
        let heap = |sample: &Sample| sample.value.as_ref().map_or(0, Value::heap_bytes);
        size_of::<Self>() + self.samples.iter().map(|sample| SAMPLE_BYTES + heap(sample)).sum::<usize>()
    }

    /// As live views take it when it cannot be written; the id of a foreign record means nothing then.
    pub(crate) fn unwritten(&self) -> SampleBatch {
        let (id, accepted_at) = match self.identity {
            Identity::Own { id, accepted_at, .. } => (id, accepted_at),
            Identity::Foreign => (RecordId { epoch: Epoch(0), offset: model::Offset(0) }, self.arrival),
        };
        SampleBatch { id, accepted_at, is_historical: self.is_historical, samples: self.samples.clone() }
    }
}

/// Who numbers a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Identity {
    /// The agent.
    Own {
        /// Epoch and offset.
        id: RecordId,
        /// When the agent accepted it.
        accepted_at: Timestamp,
        /// The epoch's running account after it.
        running: Option<Account>,
        /// What the agent counted at the device, as of it.
        counts: Option<DeviceCounts>,
    },
    /// The hub: plant-log epoch and position.
    Foreign,
}

/// A record that is on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct DurableBatch {
    /// Where in the plant log.
    pub position: Position,
    /// Whose.
    pub agent: AgentId,
    /// When the hub received it.
    pub arrival: Timestamp,
    /// Whether a sample of it reports how a command ended.
    pub has_command_report: bool,
    /// Its samples.
    pub batch: SampleBatch,
}

/// What live views and commands are told of, in the order in which the host saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// A record that is on disk now.
    Record(Box<DurableBatch>),
    /// Somebody vouches for the last values of these points, or nobody does any more. No row: it only keeps its place
    /// among the records, so that a record of before a death does not look alive after it.
    Vouched { points: Vec<PointId>, holds: bool },
}

impl Told {
    pub(crate) fn record(&self) -> Option<&DurableBatch> {
        match self {
            Told::Record(durable) => Some(durable),
            Told::Vouched { .. } => None,
        }
    }
}

/// What one commit tells.
pub(crate) type DurableGroup = Vec<Told>;

/// Last value of a point, as recovered from the checkpoint and the log's tail.
#[derive(Clone, Debug, PartialEq)]
pub struct LastValue {
    /// Which point.
    pub point: PointId,
    /// Source time.
    pub time: Timestamp,
    /// When it was accepted.
    pub arrival: Timestamp,
    /// The value.
    pub value: Option<Value>,
    /// How far it can be trusted.
    pub quality: Quality,
}

/// Whether the store can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreHealth {
    /// It can.
    Ok,
    /// Not at the moment (the disk is full): why. It goes on by itself when it can.
    Holding(String),
    /// A write or sync failed: why. Reads go on; a person must look and restart.
    Latched(String),
}

/// A payload that nobody could decode.
#[derive(Clone, Debug, PartialEq)]
pub struct QuarantineEntry {
    /// When it arrived.
    pub at: Timestamp,
    /// Where it came from.
    pub topic: String,
    /// What is wrong with it.
    pub reason: String,
    /// The record that counts as settled because its payload is kept.
    pub settles: Option<(AgentId, RecordId)>,
    /// Metrics that were not taken where the others were; none: nothing of it was taken.
    pub left_out: Vec<u32>,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Why the store did not open or did not take something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A log of the store.
    #[error("{log}")]
    Log {
        /// Which.
        log: &'static str,
        /// Why.
        source: LogError,
    },
    /// The point catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A record of the plant log cannot be read.
    #[error("plant log, position {at}")]
    Record {
        /// Where.
        at: u64,
        /// Why.
        source: RecordError,
    },
    /// A record that is none of a plant log.
    #[error("plant log, position {0}: not a record of a plant log; is this another log's folder?")]
    WrongKind(u64),
    /// A folder cannot be used.
    #[error("{folder}")]
    Folder {
        /// Which.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// The checkpoint of a newer program.
    #[error("the checkpoint {0}")]
    Checkpoint(String),
    /// The machine has no randomness for an epoch.
    #[error("no random numbers: {0}")]
    Random(String),
    /// Nothing can be written at present: why.
    #[error("the plant log takes nothing: {0}")]
    NotWritable(String),
    /// The store is closed.
    #[error("the plant log is closed")]
    Closed,
}

/// The disks under the store.
#[derive(Clone, Debug)]
pub(crate) struct Disks {
    pub(crate) plant: Arc<dyn Storage>,
    pub(crate) quarantine: Arc<dyn Storage>,
    pub(crate) book: Arc<dyn Storage>,
    pub(crate) checkpoint: Arc<dyn Storage>,
}

impl Disks {
    /// Folders below the hub's data folder.
    pub(crate) fn below(data_dir: &Path) -> Result<Self, StoreError> {
        Ok(Disks {
            plant: folder(data_dir, "plant-log")?,
            quarantine: folder(data_dir, "quarantine")?,
            book: folder(data_dir, "quarantine-book")?,
            checkpoint: folder(data_dir, "checkpoint")?,
        })
    }
}

/// Accounts with the agents' names.
fn named(accounts: &Accounts, catalogue: &Catalogue) -> Vec<AgentAccount> {
    let named = accounts.agents.iter().filter_map(|(id, book)| {
        Some(AgentAccount {
            agent: catalogue.agent(*id)?,
            id: *id,
            foreign: book.epochs.values().all(|epoch| epoch.foreign),
            epochs: book.epochs.iter().map(|(epoch, book)| book.state(*epoch)).collect(),
        })
    });
    named.collect()
}

/// A folder below the data folder, made if it is missing.
pub(crate) fn folder(data_dir: &Path, name: &str) -> Result<Arc<dyn Storage>, StoreError> {
    let path = data_dir.join(name);
    match DiskStorage::create(&path) {
        Ok(storage) => Ok(Arc::new(storage)),
        Err(source) => Err(StoreError::Folder { folder: path.display().to_string(), source }),
    }
}

/// A random epoch for one writable opening.
pub(crate) fn random_epoch() -> Result<Epoch, StoreError> {
    loop {
        let bits = runtime::world::random_u64().map_err(StoreError::Random)?;
        if let Some(epoch) = Epoch::from_random(bits) {
            return Ok(epoch);
        }
    }
}

/// The plant log's writer and its readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    hub_id: String,
    epoch: Epoch,
    view: LogView,
    letters: Letters,
    book: Arc<Mutex<BookState>>,
    checkpoint_storage: Arc<dyn Storage>,
    catalogue: Catalogue,
    clock: Clock,
    /// As of the durable end.
    accounts: Mutex<Accounts>,
    health: Mutex<StoreHealth>,
    fill: Mutex<(Fill, Level)>,
    durable: watch::Sender<Position>,
    checkpoints: Mutex<Generations>,
    /// Nothing leaves in a receipt that is not on disk.
    receipts: Invariant,
}

impl Store {
    /// Takes decoded payloads, in order; waits while the writer is behind. `Ok` means queued, not durable.
    pub(crate) async fn ingest(&self, batches: Vec<ReceivedBatch>) -> Result<(), StoreError> {
        self.writable()?;
        let bytes = batches.iter().map(ReceivedBatch::bytes).sum();
        self.queue(Item::Batches(batches), bytes).await
    }

    /// Keeps a payload that cannot be decoded. With `settles`, its record counts as settled once that is durable.
    pub(crate) async fn quarantine(
        &self,
        entry: QuarantineEntry,
        settles: Option<(AgentId, RecordId)>,
    ) -> Result<(), StoreError> {
        self.writable()?;
        let bytes = entry.payload.len();
        self.queue(Item::Quarantine(entry, settles), bytes).await
    }

    /// Takes what an agent says of its epochs: offsets that are gone there and never came are lost.
    pub(crate) async fn reported(&self, agent: AgentId, epochs: Vec<EpochAccount>) -> Result<(), StoreError> {
        let bytes = epochs.len() * size_of::<EpochAccount>();
        self.queue(Item::Reported(agent, epochs), bytes).await
    }

    /// Tells live views, behind every record that was queued before; left out while nothing can be written.
    pub(crate) async fn vouch(&self, points: Vec<PointId>, holds: bool) -> Result<(), StoreError> {
        self.writable()?;
        let bytes = points.len() * size_of::<PointId>();
        self.queue(Item::Vouched(points, holds), bytes).await
    }

    /// Lets the writer look after retention and the catalogue; never waits.
    pub(crate) fn tick(&self) {
        self.queue.try_send(Queued { item: Item::Tick, _room: None }).ok();
    }

    /// Writes what is queued and ends the writer; waits until all is durable.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Queued { item: Item::Close(done), _room: None }).await.is_ok() {
            closed.await.ok();
        }
    }

    /// Until the writer has ended.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.health() {
            StoreHealth::Ok => Ok(()),
            StoreHealth::Holding(why) | StoreHealth::Latched(why) => Err(StoreError::NotWritable(why)),
        }
    }

    async fn queue(&self, item: Item, bytes: usize) -> Result<(), StoreError> {
        let kib = u32::try_from((bytes / 1024 + 1).min(QUEUE_KIB_MAX)).unwrap_or(1);
        let room =
            Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_closed| StoreError::Closed)?;
        let queued = Queued { item, _room: Some(room) };
        self.queue.send(queued).await.map_err(|_closed| StoreError::Closed)
    }

    /// Readers of the plant log.
    #[must_use]
    pub fn view(&self) -> LogView {
        self.shared.view.clone()
    }

    /// Epoch of this opening of the plant log.
    #[must_use]
    pub fn log_epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// The durable end, as it moves.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Position> {
        self.shared.durable.subscribe()
    }

    /// Name of this hub.
    #[must_use]
    pub fn hub_id(&self) -> &str {
        &self.shared.hub_id
    }

    /// The accounts of all agents as of the durable end.
    #[must_use]
    pub fn accounts(&self) -> Vec<AgentAccount> {
        named(&self.shared.accounts(), &self.shared.catalogue)
    }

    /// Whether it can write.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How full its disk is, and what that means.
    #[must_use]
    pub fn fill(&self) -> (Fill, Level) {
        *self.shared.fill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest dead letters of those wanted, newest first. Blocking.
    pub fn letters(&self, wanted: impl Fn(&Letter) -> bool, at_most: usize) -> Result<Vec<Letter>, LogError> {
        self.shared.letters.newest(&self.book(), &wanted, at_most)
    }

    /// One dead letter. Blocking.
    pub fn letter(&self, id: LetterId) -> Result<Option<Letter>, LogError> {
        self.shared.letters.one(&self.book(), id)
    }

    /// How many wait for a person.
    #[must_use]
    pub fn letters_waiting(&self) -> u64 {
        let payloads = &self.shared.letters.payloads;
        let range = payloads.first().0..payloads.durable_end().0;
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner).waiting(range)
    }

    /// Positions of the plant log within a range that a sink refused.
    #[must_use]
    pub fn set_aside(&self, sink: &str, positions: std::ops::Range<u64>) -> Vec<u64> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner).set_aside(sink, positions)
    }

    /// Records that sinks refused, with what became of them.
    #[must_use]
    pub fn refused(&self) -> Vec<RefusedRecord> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner).refused()
    }

    /// Keeps a record that a sink refuses; on disk when this returns.
    pub(crate) async fn refuse(&self, refusal: Refusal) -> Result<LetterId, LetterError> {
        self.work(|done| Work::Refuse(refusal, done)).await
    }

    /// Brings a letter's data into the plant log, once.
    pub(crate) async fn retry(&self, id: LetterId, what: Retrial, by: String) -> Result<Fate, LetterError> {
        self.writable()?;
        self.work(|done| Work::Retry { id, what, by, done }).await
    }

    /// Says in the ledger that a letter stays out for good.
    pub(crate) async fn discard(&self, id: LetterId, by: String, reason: String) -> Result<(), LetterError> {
        self.writable()?;
        self.work(|done| Work::Discard { id, by, reason, done }).await
    }

    async fn work<T>(&self, work: impl FnOnce(letters::Answer<T>) -> Work) -> Result<T, LetterError> {
        let (done, answer) = oneshot::channel();
        self.queue(Item::Letter(work(done)), 0).await?;
        answer.await.map_err(|_gone| StoreError::Closed)?
    }

    fn book(&self) -> BookState {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What of these epochs the agent need not send again, with a number that grows whenever that changes.
    pub(crate) fn settled(&self, agent: AgentId, epochs: &BTreeSet<Epoch>) -> (u64, Vec<(Epoch, RangeSet)>) {
        let accounts = self.shared.accounts();
        let (told, durable) = (accounts.position, self.shared.view.durable_end().0);
        self.shared
            .receipts
            .check(told <= durable, || format!("receipts count up to {told}, {durable} is on disk"));
        accounts.settled(agent, epochs)
    }

    /// How many records below these ends are not settled.
    pub(crate) fn unsettled(&self, agent: AgentId, ends: impl IntoIterator<Item = (Epoch, u64)>) -> u64 {
        let accounts = self.shared.accounts();
        let open = ends.into_iter().map(|(epoch, end)| {
            accounts.epoch(agent, epoch).map_or(end, |book| {
                book.settled().missing(0..end).into_iter().map(|gap| gap.end - gap.start).sum()
            })
        });
        open.fold(0, u64::saturating_add)
    }
}

impl Shared {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<CheckpointError> for StoreError {
    fn from(error: CheckpointError) -> Self {
        StoreError::Checkpoint(error.to_string())
    }
}

#[cfg(test)]
mod tests;
