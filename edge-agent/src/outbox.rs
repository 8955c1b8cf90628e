//! What the agent has accepted and the hub has not yet: a durable log with one writer thread.
//!
//! "Accepted" is the moment after the sync; only then is the caller told, and only then may a driver acknowledge its
//! source. One read of a driver is one atomic group: its records and the source's new position.
//!
//! ```text
//! acquisition ─┐                       ┌─► Epochs   (offsets, accounts, receipts)  ─► births, receipts
//! commands ────┼─ items (bounded) ► writer ─► Present  (newest samples, devices up) ─► births
//! uplink ──────┘                       └─► durable end (watch)                      ─► live cursor
//! ```
//!
//! Invariants:
//! - Offsets are dense per epoch over sample records; each record carries the epoch's running account.
//! - A segment is removed only when receipts cover all its records, or by policy, counted and named; before that,
//!   source positions and unexpired command ids whose newest copy lies in it are written again.
//! - Samples leave room for those small records: the last two segments' worth of the bound is not theirs.

mod epochs;
mod held;
mod open;
mod present;
mod split;
mod writer;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use durable_log::{Level, LogError, LogView, Position};
use model::{CommandId, Epoch, Sample, Timestamp};
use proto::account::DeviceCounts;
use proto::log_record::{DeviceEvent, RecordError};
use proto::receipt::Receipt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use epochs::{EpochState, Epochs, RecordPlace, Refused};
pub(crate) use open::new_epoch;
pub use open::{Opened, open, open_with};
pub use present::{Latest, Present, PresentGuard};
pub use writer::Writer;

/// Groups waiting for the writer: one per device is usual, a full queue is back-pressure.
const ITEMS_MAX: usize = 64;

/// Marks of the durable end, and their spacing: ten seconds, of which two matter to the live stream.
const MARKS_MAX: usize = 100;
const MARK_SPACING: Duration = Duration::from_millis(100);

/// Size and policy of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxOptions {
    /// Whose it is: label of its counters.
    pub agent: String,
    /// Bound on disk.
    pub bytes_max: u64,
    /// What happens when it is reached and the hub has not taken the oldest.
    pub when_full: WhenFull,
}

/// Policy of a full outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Nothing is accepted until the hub takes something: polling stops, files wait.
    StopAccepting,
    /// The oldest segment goes, counted and named in the next birth.
    DropOldest,
}

/// Why the outbox cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record that this program cannot read.
    #[error("outbox record {position}: {source}")]
    Record {
        /// Its position.
        position: u64,
        /// What is wrong.
        source: RecordError,
    },
    /// A record of a point that the catalogue does not know.
    #[error(
        "outbox record {position} names point {point}, which the catalogue in data_dir does not have; the two belong together"
    )]
    UnknownPoint {
        /// Its position.
        position: u64,
        /// The point.
        point: u32,
    },
    /// The bound is reached.
    #[error("the outbox is full: nothing is accepted until the hub takes something")]
    Full,
    /// Too many ids of commands that have not expired.
    #[error("too many commands within an hour")]
    TooManyCommands,
    /// The writer has ended.
    #[error("the outbox is closed")]
    Closed,
    /// The operating system gives no randomness.
    #[error("no random number for a new epoch: {0}")]
    NoRandomness(String),
}

/// The durable end: readers may read below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Log position, exclusive.
    pub position: Position,
    /// Offset of the current epoch, exclusive.
    pub offset: u64,
}

/// Samples of one device that belong together.
#[derive(Clone, Debug, Default)]
pub struct NewGroup {
    /// In source order, of one device; cut into records as needed.
    pub samples: Vec<Sample>,
    /// Whether they were read from the source's history, maybe after newer ones.
    pub is_historical: bool,
    /// Whether the device goes down with the last of them.
    pub event: DeviceEvent,
    /// Where the device's source stands after them.
    pub position: Option<(String, Vec<u8>)>,
    /// What became of what the device read since its last group, these samples included, by the device's name.
    pub counted: Option<(String, DeviceCounts)>,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, OutboxError>>;

/// What the writer is asked.
#[derive(Debug)]
pub(crate) enum Item {
    Accept {
        group: NewGroup,
        done: Answer<()>,
    },
    CommandSeen {
        id: CommandId,
        expires_at: Timestamp,
        done: Answer<bool>,
    },
    /// Receipts came: something may be trimmed.
    Trim,
    Handed {
        everything_below: Position,
    },
    Close,
}

/// Counts of what policy removed before the hub had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Records.
    pub records: u64,
    /// Whether the latest removal followed the policy for a foreign host (data handed over, no receipts).
    pub handed_over: u64,
}

/// A handle on the outbox. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    items: mpsc::Sender<Item>,
    durable: watch::Receiver<Durable>,
    shared: Arc<Shared>,
    present: Present,
    view: LogView,
    current: Epoch,
    dir: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Shared {
    epochs: Mutex<Epochs>,
    dropped: Mutex<Dropped>,
    /// When the durable end passed an offset, for the last [`MARKS_MAX`] tenths of a second.
    marks: Mutex<VecDeque<(Instant, u64)>>,
    is_full: std::sync::atomic::AtomicBool,
    fill: Mutex<(u8, Level)>,
}

impl Shared {
    /// The durable end is at `offset` now.
    pub(crate) fn mark(&self, offset: u64) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        match marks.back_mut() {
            Some((_, end)) if *end >= offset => {}
            Some((at, end)) if at.elapsed() < MARK_SPACING => *end = offset,
            _ => {
                if marks.len() == MARKS_MAX {
                    marks.pop_front();
                }
                marks.push_back((Instant::now(), offset));
            }
        }
    }

    pub(crate) fn epochs(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dropped(&self) -> MutexGuard<'_, Dropped> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// Accepts a group: returns when it is on disk. Waits while the writer is behind.
    pub async fn accept(&self, group: NewGroup) -> Result<(), OutboxError> {
        let (done, answer) = oneshot::channel();
        self.items.send(Item::Accept { group, done }).await.map_err(|_| OutboxError::Closed)?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// Makes a command's id durable; `false` if it was seen before.
    pub async fn command_seen(&self, id: CommandId, expires_at: Timestamp) -> Result<bool, OutboxError> {
        let (done, answer) = oneshot::channel();
        self.items.send(Item::CommandSeen { id, expires_at, done }).await.map_err(|_| OutboxError::Closed)?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// A session begins: only its own receipts are believed from its first one on.
    pub fn begin_session(&self) {
        self.shared.epochs().begin_session();
    }

    /// Takes a receipt: what it covers is settled at once and trimmed by the writer. Returns what was refused.
    pub async fn receive(&self, receipt: &Receipt) -> Result<Refused, OutboxError> {
        let (news, refused) = self.shared.epochs().receive(receipt);
        if news {
            self.items.send(Item::Trim).await.map_err(|_| OutboxError::Closed)?;
        }
        Ok(refused)
    }

    /// Towards a foreign host: everything below was handed over, as far as anybody can know. Kept until the bound.
    /// `Position(0)` once the host turns out to send receipts: then only they make room.
    pub async fn handed(&self, everything_below: Position) -> Result<(), OutboxError> {
        self.items.send(Item::Handed { everything_below }).await.map_err(|_| OutboxError::Closed)
    }

    /// Percent of its bound or its disk that is used, as last looked, and what that means.
    #[must_use]
    pub fn fill(&self) -> (u8, Level) {
        *self.shared.fill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the writer when everything before is on disk.
    pub async fn close(&self) {
        self.items.send(Item::Close).await.ok(); // it may have ended
    }

    /// The durable end, to be waited for.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.clone()
    }

    /// Looks at the epochs; hold it shortly.
    pub fn epochs<T>(&self, look: impl FnOnce(&Epochs) -> T) -> T {
        look(&self.shared.epochs())
    }

    /// How long the record at this offset of the current epoch has been durable; zero if it is not yet.
    #[must_use]
    pub fn age_of(&self, offset: u64) -> Duration {
        let marks = self.shared.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let after = marks.partition_point(|(_, end)| *end <= offset);
        marks.get(after).map_or(Duration::ZERO, |(at, _)| at.elapsed())
    }

    /// The newest samples.
    #[must_use]
    pub fn present(&self) -> &Present {
        &self.present
    }

    /// For readers.
    #[must_use]
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// The epoch of this opening.
    #[must_use]
    pub fn current(&self) -> Epoch {
        self.current
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// What policy removed in this process.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        *self.shared.dropped()
    }

    /// Whether the last group was refused because the bound is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.is_full.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
