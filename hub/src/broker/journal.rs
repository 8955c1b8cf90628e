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
mod replay;
mod shared;
mod snapshot;
mod writer;

pub(crate) use snapshot::verify;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use durable_log::{DiskStorage, Log, LogError, LogView, Position, Recovery, Storage};
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
use recovered::Replaying;
use replay::Replayer;
use shared::{Picture, Running, Shared, wait_at_most};
use snapshot::{SnapshotError, Stand};
use writer::Writer;

/// After a snapshot that could not be written.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);
/// A missing end of the log is filled with holes up to so many positions: each takes 12 bytes.
const SKIPPED_MAX: u64 = 1_000_000;
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

/// Snapshot and log make the state; also where the snapshot stands, and the bytes of log since.
fn recover(
    storage: &dyn Storage,
    log: &mut Log,
    recovery: Recovery,
) -> Result<(Recovered, Position, u64), JournalError> {
    let mut has_holes = !recovery.repaired.is_empty();
    for repaired in &recovery.repaired {
        tracing::error!(%repaired, "the broker's journal");
    }
    loop {
        match restore(storage, log, recovery.cut.clone(), &mut has_holes) {
            Err(JournalError::Log(error @ LogError::Damaged { .. })) => {
                let healed = log.heal()?;
                if healed.is_empty() {
                    return Err(error.into());
                }
                healed.iter().for_each(|repaired| tracing::error!(%repaired, "the broker's journal"));
                has_holes = true;
            }
            restored => return restored,
        }
    }
}

fn restore(
    storage: &dyn Storage,
    log: &mut Log,
    cut: Option<durable_log::Cut>,
    has_holes: &mut bool,
) -> Result<(Recovered, Position, u64), JournalError> {
    let view = log.view();
    let first = view.first();
    let (stand, mut replaying) = read_snapshot(storage, log, has_holes)?;
    let mut reader = view.reader(stand.position);
    let mut bytes = 0;
    while let Some((position, record)) = reader.next()? {
        if record.is_empty() {
            *has_holes = true;
            continue;
        }
        bytes += record.len() as u64;
        let record = encoding::decode(record).map_err(|source| JournalError::Record { position, source })?;
        replaying.apply(position, record);
    }
    let mut recovered = replaying.finish(view.durable_end(), cut);
    if *has_holes {
        recount(&view, first, &mut recovered.sessions)?;
        bytes = u64::MAX / 2; // a snapshot soon, which knows nothing of the holes
    }
    find_first(storage, &view, &mut recovered.sessions)?;
    Ok((recovered, stand.position, bytes))
}

/// The snapshot, or its copy, or nothing if the log begins at the beginning.
fn read_snapshot(
    storage: &dyn Storage,
    log: &mut Log,
    has_holes: &mut bool,
) -> Result<(Stand, Replaying), JournalError> {
    let view = log.view();
    let (first, end) = (view.first(), view.durable_end());
    let path = storage.path(snapshot::FILE);
    let unusable = |what: String| JournalError::Snapshot { path: path.clone(), what };
    let io_fault = |source| JournalError::Io { doing: "reading", path: path.clone(), source };
    let mut replaying = Replaying::default();
    let read = match snapshot::read(storage, &mut replaying) {
        Err(error @ SnapshotError::Damaged { .. }) => {
            let kept = storage.set_aside(snapshot::FILE).map_err(io_fault)?;
            tracing::error!(error = %unusable(error.to_string()), kept = %kept.display(),
                "the snapshot of the broker's journal; its copy is tried");
            replaying = Replaying::default();
            match snapshot::read_copy(storage, &mut replaying) {
                Err(SnapshotError::Damaged { .. }) | Ok(None) if first == Position::ZERO => {
                    replaying = Replaying::default();
                    Ok(None)
                }
                Ok(None) => return Err(unusable("is damaged, and has no copy".to_owned())),
                read => read,
            }
        }
        read => read,
    };
    let stand = match read {
        Ok(None) if first > Position::ZERO => {
            return Err(unusable(format!("is missing, and the log begins only at position {first}")));
        }
        Ok(stand) => stand.unwrap_or(Stand { position: Position::ZERO, log_epoch: 0 }),
        Err(SnapshotError::Io(source)) => return Err(io_fault(source)),
        Err(SnapshotError::Newer(found)) => {
            return Err(LogError::NewerVersion { path, found, known: snapshot::VERSION }.into());
        }
        Err(error) => return Err(unusable(error.to_string())),
    };
    let is_this_log = view.segments().iter().any(|segment| segment.epoch == stand.log_epoch);
    if stand.position > end && is_this_log && stand.position.0 - end.0 <= SKIPPED_MAX {
        // The end of the log is lost. Its positions are not used again.
        tracing::error!(from = end.0, to = stand.position.0, "the end of the broker's journal is missing");
        log.skip_to(stand.position)?;
        *has_holes = true;
        return Ok((stand, replaying));
    }
    let before = stand.position.0.checked_sub(1).and_then(|last| view.epoch_of(Position(last)));
    if stand.position < first || stand.position > end {
        return Err(unusable(format!(
            "stands at position {}, and the log holds {first} to {end}",
            stand.position
        )));
    }
    if before.is_some_and(|epoch| stand.log_epoch != 0 && epoch != stand.log_epoch)
        && !(is_this_log && is_hole(&view, stand.position))
    {
        return Err(unusable("belongs to another log".to_owned()));
    }
    Ok((stand, replaying))
}

/// Whether the record before a position is one that was given up, of an opening after that of the snapshot.
fn is_hole(view: &LogView, at: Position) -> bool {
    let before = Position(at.0.saturating_sub(1));
    matches!(view.reader(before).next(), Ok(Some((position, []))) if position == before)
}

/// Counts every session's waiting messages anew, because some are gone: what stands in the log is what it will get. What
/// is known to be complete out of order is forgotten, so such messages come twice rather than never.
fn recount(view: &LogView, first: Position, sessions: &mut [SessionState]) -> Result<(), JournalError> {
    let mut waiting: HashMap<SessionId, (Position, Option<Position>, u64, u64)> =
        sessions.iter().map(|session| (session.id, (session.base_position.max(first), None, 0, 0))).collect();
    let from = waiting.values().map(|(from, ..)| *from).min().unwrap_or(first);
    let mut reader = view.reader(from);
    while let Some((position, record)) = reader.next()? {
        if record.is_empty() {
            continue;
        }
        let wanted = encoding::decode_wanted(record, |session| waiting.contains_key(&session))
            .map_err(|source| JournalError::Record { position, source })?;
        let Some((message, targets)) = wanted else { continue };
        for target in targets {
            if let Some((from, place, count, bytes)) = waiting.get_mut(&target.session)
                && position >= *from
            {
                place.get_or_insert(position);
                *count += 1;
                *bytes += message.bytes() as u64;
            }
        }
    }
    for session in sessions {
        let Some((_, place, count, bytes)) = waiting.get(&session.id).copied() else { continue };
        session.end = session.base + count;
        session.queued_bytes = bytes;
        session.base_position = place.unwrap_or(view.durable_end());
        session.done.clear();
        session.received_out.clear();
    }
    Ok(())
}

/// A session's place may lie below what is held: only messages for others stood between. That is proven by counting.
fn find_first(
    storage: &dyn Storage,
    view: &LogView,
    sessions: &mut [SessionState],
) -> Result<(), JournalError> {
    let first = view.first();
    let low = sessions.iter().filter(|session| session.base_position < first);
    let mut found: HashMap<SessionId, (Position, u64)> =
        low.map(|session| (session.id, (first, 0))).collect();
    if found.is_empty() {
        return Ok(());
    }
    let mut reader = view.reader(first);
    while let Some((position, record)) = reader.next()? {
        if record.is_empty() {
            continue;
        }
        let wanted = encoding::decode_wanted(record, |session| found.contains_key(&session))
            .map_err(|source| JournalError::Record { position, source })?;
        for target in wanted.into_iter().flat_map(|(_message, targets)| targets) {
            if let Some((place, count)) = found.get_mut(&target.session) {
                *place = if *count == 0 { position } else { *place };
                *count += 1;
            }
        }
    }
    for session in sessions {
        let Some((place, count)) = found.get(&session.id).copied() else { continue };
        if count != session.end - session.base {
            let (path, needed) = (storage.path(""), session.base_position);
            return Err(JournalError::Missing { path, session: session.id, needed, first });
        }
        session.base_position = place;
    }
    Ok(())
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
