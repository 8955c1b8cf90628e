//! What of the broker's state survives: messages with the sessions that get them, sessions, subscriptions, retained
//! messages and the progress of QoS 2, over [`durable_log`] (docs/specs/broker.md §2 and §5).
//!
//! ```text
//! core ── append, submit ──► writer thread    encodes, one write and one sync for all that waits, trims
//!      ◄── events, after a wake ── replay thread   reads messages back for sessions, many in one pass
//!                              ── snapshot thread  sessions and retained messages in a file, so that old log can go
//! ```
//! The core owns the [`Journal`] and never waits for the disk: a record has its [`Position`] when it is appended, and
//! is durable when [`JournalEvent::Durable`] says so. A session is a cursor: its n-th message has ordinal n, counted in
//! journal order, so that any number of sessions cost one copy of a message.
//!
//! What the core must keep to:
//! - [`Journal::backlog_bytes`] is bounded by it: above [`BACKLOG_BYTES_MAX`] it reads no publisher.
//! - [`JournalEvent::NoRoom`]: it takes nothing more that needs the disk, and makes room ([`Record::Skipped`],
//!   [`Record::Ended`], then [`Journal::keep_from`] and a snapshot). What was under way and what frees room still fits.
//! - One replay request per session at a time, and [`Journal::keep_from`] at or below what it still asks for.

mod encoding;
mod keeper;
mod options;
mod record;
mod recovered;
mod recovery;
mod replay;
mod shared;
mod snapshot;
mod writer;

pub(crate) use snapshot::verify;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use durable_log::{DiskStorage, Log, LogError, Position, Storage};
use runtime::tasks::{TaskKind, Tasks};
use runtime::telemetry::Metrics;

pub(crate) use encoding::DecodeError;
pub(crate) use options::JournalOptions;
pub(crate) use record::{Message, Record, SessionId, Target};
pub(crate) use recovered::{Recovered, SessionState};
pub(crate) use replay::{ReplayBatch, ReplayRequest};
pub(crate) use shared::Wake;
pub(crate) use snapshot::SnapshotState;

use keeper::Keeper;
use recovery::recover;
use replay::Replayer;
use shared::{Picture, Running, Shared, wait_at_most};
use writer::Writer;

/// After a snapshot that could not be written.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);
/// [`Journal::close`] waits at most so long for the disk; less than the drain time of a log writer.
const CLOSE: Duration = Duration::from_secs(15);

/// What happened since the last look.
#[derive(Clone, Debug)]
pub(crate) enum JournalEvent {
    /// Every record below is on disk.
    Durable(Position),
    /// The answer to a [`ReplayRequest`].
    Replayed(ReplayBatch),
    /// The journal has reached its bound or the disk is nearly full. Records are kept in order and written when
    /// there is room.
    NoRoom,
    /// There is room again.
    Room,
    /// A write failed: nothing more is written until the process restarts. Replays go on.
    Failed(Arc<LogError>),
}

/// Why the journal cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The operating system refused.
    #[error("{doing} {} failed", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// Bounds that do not go together.
    #[error("a broker journal of {bytes_max} bytes is too small; at least {bytes_min}")]
    Options {
        /// As configured.
        bytes_max: u64,
        /// What is needed.
        bytes_min: u64,
    },
    /// No random number for a new log.
    #[error("the machine gives no random number: {0}")]
    Random(String),
    /// The snapshot cannot be used, and what it held is not in the log any more.
    #[error(
        "the broker's sessions and retained messages cannot be restored: {} {what}. Restore the \
         directory from a backup. To begin without sessions, queued and retained messages, move the directory away",
        path.display()
    )]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A record that was durable is not understood.
    #[error("record {position} of the broker's journal: {source}")]
    Record {
        /// Which.
        position: Position,
        /// Why.
        source: DecodeError,
    },
    /// Messages of a session are gone from the log.
    #[error(
        "the broker's journal in {} begins at position {first}, but session {} needs it from {needed} on. \
         Restore the directory from a backup, or move it away to begin without sessions",
        path.display(), session.0
    )]
    Missing {
        /// The directory.
        path: PathBuf,
        /// Whose messages.
        session: SessionId,
        /// From where.
        needed: Position,
        /// The first position held.
        first: Position,
    },
}

impl JournalError {
    /// Whether what is on the disk is damaged, so that starting again with the same files would fail again.
    fn is_damage(&self) -> bool {
        match self {
            Self::Log(LogError::Damaged { .. })
            | Self::Snapshot { .. }
            | Self::Record { .. }
            | Self::Missing { .. } => true,
            Self::Log(_) | Self::Io { .. } | Self::Options { .. } | Self::Random(_) => false,
        }
    }
}

fn io_at(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    move |source| JournalError::Io { doing, path: path.to_path_buf(), source }
}

/// Gives a folder another name, which is returned.
fn move_away(dir: &Path) -> Result<PathBuf, JournalError> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = (1_u64..).map(|n| dir.with_file_name(format!("{name}.damaged.{n}"))).find(|to| !to.exists());
    let aside = aside.unwrap_or_else(|| dir.with_extension("damaged"));
    std::fs::rename(dir, &aside).map_err(io_at("moving", dir))?;
    Ok(aside)
}

/// A record is larger than the journal takes; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a journal record of up to {bytes} bytes is above the maximum of {bytes_max}")]
pub(crate) struct TooLarge {
    /// Its size, at most.
    pub(crate) bytes: usize,
    /// The bound.
    pub(crate) bytes_max: usize,
}

/// The core's handle; at most one per directory.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    options: JournalOptions,
    /// Appended, not submitted.
    buffer: Vec<Record>,
    buffer_bytes: usize,
    next: Position,
    /// Ends and sizes of what was submitted and is not durable.
    submitted: VecDeque<(Position, usize)>,
    submitted_bytes: usize,
    durable: Position,
    has_room: bool,
    has_failed: bool,
    /// A limit of trimming, and the durable end from which on it holds.
    keeping: Option<(Position, Position)>,
    /// The newest limit that was given.
    keep_newest: Position,
    since_snapshot: u64,
}

impl Journal {
    /// Opens or creates the journal in a directory; reads the disk, so not for the core's thread. Within a runtime.
    pub(crate) fn open(
        dir: &Path,
        options: JournalOptions,
        metrics: &Metrics,
        wake: Wake,
        tasks: &Tasks,
    ) -> Result<(Journal, Recovered), JournalError> {
        let storage = DiskStorage::create(dir).map_err(io_at("creating", dir))?;
        match Journal::open_on(Arc::new(storage), options.clone(), metrics, Arc::clone(&wake), tasks) {
            Err(error) if error.is_damage() => {
                let kept = move_away(dir)?;
                tracing::error!(error = %crate::chain(&error), folder = %kept.display(),
                    "the broker's journal is damaged beyond repair: it is kept in that folder, and the broker begins \
                     without sessions, queued and retained messages. Data of agents is not affected");
                let storage = DiskStorage::create(dir).map_err(io_at("creating", dir))?;
                Journal::open_on(Arc::new(storage), options, metrics, wake, tasks)
            }
            opened => opened,
        }
    }

    /// [`Journal::open`] on any storage.
    pub(crate) fn open_on(
        storage: Arc<dyn Storage>,
        options: JournalOptions,
        metrics: &Metrics,
        wake: Wake,
        tasks: &Tasks,
    ) -> Result<(Journal, Recovered), JournalError> {
        let (mut log, recovery) =
            Log::open_on(Arc::clone(&storage), options.log_options()?, random_epoch()?)?;
        let (recovered, stand, since_snapshot) = recover(&*storage, &mut log, recovery)?;
        let shared = Arc::new(Shared::new(recovered.end, stand, wake, metrics));
        let view = log.view();
        let keeper =
            Keeper { storage: Arc::clone(&storage), view: view.clone(), shared: Arc::clone(&shared) };
        let replayer = Replayer::new(view, Arc::clone(&shared));
        let writer = Writer::new(log, storage, Arc::clone(&shared), options.clone());
        spawn(tasks, "broker journal: writer", &shared, move || writer.run());
        spawn(tasks, "broker journal: replay", &shared, move || replayer.run());
        spawn(tasks, "broker journal: snapshots", &shared, move || keeper.run());
        let journal = Journal {
            shared,
            options,
            buffer: Vec::new(),
            buffer_bytes: 0,
            next: recovered.end,
            submitted: VecDeque::new(),
            submitted_bytes: 0,
            durable: recovered.end,
            has_room: true,
            has_failed: false,
            keeping: None,
            keep_newest: Position::ZERO,
            since_snapshot,
        };
        Ok((journal, recovered))
    }

    /// Gives the record its place in the order. It is written after [`Journal::submit`].
    pub(crate) fn append(&mut self, record: Record) -> Result<Position, TooLarge> {
        let (bytes, bytes_max) = (record.bytes_max(), self.options.record_bytes_max);
        if bytes > bytes_max {
            return Err(TooLarge { bytes, bytes_max });
        }
        let position = self.next;
        self.next = position.next();
        self.buffer.push(record);
        self.buffer_bytes += bytes;
        self.since_snapshot += bytes as u64;
        Ok(position)
    }

    /// The position that the next record gets.
    pub(crate) fn next_position(&self) -> Position {
        self.next
    }

    /// Everything below is on disk, as far as [`Journal::drain_events`] has told.
    pub(crate) fn durable_end(&self) -> Position {
        self.durable
    }

    /// Hands what was appended to the writer: once per loop of the core, however much it is.
    pub(crate) fn submit(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        if state.submitted.is_empty() {
            std::mem::swap(&mut state.submitted, &mut self.buffer);
        } else {
            state.submitted.append(&mut self.buffer);
        }
        drop(state);
        self.shared.to_write.notify_one();
        let bytes = std::mem::take(&mut self.buffer_bytes);
        self.submitted.push_back((self.next, bytes));
        self.submitted_bytes += bytes;
    }

    /// Bytes appended and not known to be durable.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.buffer_bytes + self.submitted_bytes
    }

    /// Whether anything that needs the disk may be taken: as told by [`JournalEvent::NoRoom`] and
    /// [`JournalEvent::Room`].
    pub(crate) fn has_room(&self) -> bool {
        self.has_room
    }

    /// What happened since the last call; after `wake` was called. A [`JournalEvent::Durable`] comes before replayed
    /// messages that reach up to it.
    pub(crate) fn drain_events(&mut self, into: &mut Vec<JournalEvent>) {
        let mut state = self.shared.state();
        state.woken = false;
        let (durable, has_room) = (state.durable, state.has_room);
        let failed = state.failed.clone().filter(|_cause| !self.has_failed);
        let replayed = std::mem::take(&mut state.replayed);
        state.replayed_bytes = 0;
        drop(state);
        if !replayed.is_empty() {
            self.shared.to_replay.notify_one();
        }
        if durable > self.durable {
            self.durable = durable;
            self.settle(durable);
            into.push(JournalEvent::Durable(durable));
        }
        if has_room != self.has_room {
            self.has_room = has_room;
            into.push(if has_room { JournalEvent::Room } else { JournalEvent::NoRoom });
        }
        if let Some(cause) = failed {
            self.has_failed = true;
            into.push(JournalEvent::Failed(cause));
        }
        into.extend(replayed.into_iter().map(JournalEvent::Replayed));
    }

    fn settle(&mut self, durable: Position) {
        while let Some((end, bytes)) = self.submitted.front().copied()
            && end <= durable
        {
            self.submitted.pop_front();
            self.submitted_bytes -= bytes;
        }
        while let Some((keep_from, holds_from)) = self.keeping
            && holds_from <= durable
        {
            self.keeping = (self.keep_newest > keep_from).then_some((self.keep_newest, self.next));
            let mut state = self.shared.state();
            state.keep_from = state.keep_from.max(keep_from);
            let can_trim = state.can_trim();
            drop(state);
            if can_trim {
                self.shared.to_write.notify_one();
            }
        }
    }

    /// Asks for the next messages of a session; answered by [`JournalEvent::Replayed`].
    pub(crate) fn replay(&mut self, request: ReplayRequest) {
        self.shared.state().requests.push_back(request);
        self.shared.to_replay.notify_one();
    }

    /// Pictures everything appended so far, so that the log below can go. It replaces one that is not begun; while
    /// one is being written this one is dropped (ask [`Journal::wants_snapshot`] first).
    pub(crate) fn snapshot(&mut self, snapshot: SnapshotState) {
        self.submit();
        let mut state = self.shared.state();
        if matches!(state.picture, Picture::Writing) {
            return;
        }
        state.picture = Picture::Wanted(self.next, Box::new(snapshot));
        drop(state);
        self.since_snapshot = 0;
        self.shared.to_picture.notify_one();
    }

    /// Whether enough was written since the last snapshot for another one to pay.
    pub(crate) fn wants_snapshot(&self) -> bool {
        let large = self.shared.snapshot_bytes.load(Ordering::Relaxed).min(self.options.bytes_max / 4);
        let mut wanted = self.options.snapshot_bytes.max(large);
        if !self.has_room {
            wanted /= 8; // it may be what keeps old segments
        }
        let state = self.shared.state();
        match state.picture {
            Picture::None => self.since_snapshot >= wanted,
            Picture::Wanted(..) | Picture::Writing => false,
            Picture::Failed(at) => Instant::now().duration_since(at) >= SNAPSHOT_RETRY,
        }
    }

    /// The smallest position that some session still needs. It holds once everything appended so far is durable, so
    /// the progress that it follows from must have been appended before.
    pub(crate) fn keep_from(&mut self, keep_from: Position) {
        if keep_from <= self.keep_newest {
            return;
        }
        self.keep_newest = keep_from;
        if self.keeping.is_none() {
            self.keeping = Some((keep_from, self.next));
            self.settle(self.durable);
        }
    }

    /// Bytes of the journal on disk, snapshot not counted.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.shared.held_bytes.load(Ordering::Relaxed)
    }

    /// The bound of [`Journal::held_bytes`].
    pub(crate) fn bytes_max(&self) -> u64 {
        self.options.bytes_max
    }

    /// Makes everything durable and ends the threads; waits for the disk. A snapshot that was asked for is written.
    pub(crate) fn close(mut self) {
        self.submit();
        self.end();
        let until = Instant::now() + CLOSE;
        let mut state = self.shared.state();
        while state.threads > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::error!("the broker's journal does not come to an end");
                return;
            }
            state = wait_at_most(&self.shared.ended, state, left);
        }
    }

    fn end(&self) {
        self.shared.state().closing = true;
        self.shared.to_write.notify_all();
        self.shared.to_replay.notify_all();
        self.shared.to_picture.notify_all();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(tasks: &Tasks, name: &str, shared: &Arc<Shared>, work: impl FnOnce() + Send + 'static) {
    let running = Running(Arc::clone(shared));
    tasks.spawn_blocking(TaskKind::LogWriter, name, move || {
        let _counted_out_last = running; // after the log's lock is given back
        work();
        Ok::<(), Infallible>(())
    });
}

/// New for every opening.
fn random_epoch() -> Result<u64, JournalError> {
    loop {
        let epoch = getrandom::u64().map_err(|error| JournalError::Random(error.to_string()))?;
        if epoch != 0 {
            return Ok(epoch);
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "tests count small things")]
mod tests;
