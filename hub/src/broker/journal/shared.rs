//! What the core's thread and the journal's threads tell each other, under one lock that nobody holds while it works.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use durable_log::{LogError, Position};
use runtime::telemetry::{Counter, Gauge, Metrics};

use super::record::Record;
use super::replay::{ReplayBatch, ReplayRequest};
use super::snapshot::SnapshotState;

/// Called after something happened that [`super::Journal::drain_events`] has news of; from any thread, briefly.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Threads of one journal.
pub(super) const THREADS: usize = 3;

pub(super) struct Shared {
    state: Mutex<State>,
    /// For the writer: records, a trim, the end.
    pub(super) to_write: Condvar,
    /// For the replay thread: requests, a drained answer, the end.
    pub(super) to_replay: Condvar,
    /// For the snapshot thread: a request, a further durable end, the end.
    pub(super) to_picture: Condvar,
    /// For [`super::Journal::close`].
    pub(super) ended: Condvar,
    wake: Wake,
    /// Bytes of all segments.
    pub(super) held_bytes: AtomicU64,
    /// Bytes of the newest snapshot.
    pub(super) snapshot_bytes: AtomicU64,
    pub(super) counts: Counts,
}

/// The whole of it.
pub(super) struct State {
    pub(super) submitted: Vec<Record>,
    /// Below this nothing is needed, as far as the core knows and has made durable.
    pub(super) keep_from: Position,
    /// The newest durable snapshot has everything below.
    pub(super) snapshot_position: Position,
    /// The first position after the oldest segment that could go.
    pub(super) oldest_end: Option<Position>,
    pub(super) closing: bool,
    pub(super) writer_ended: bool,
    pub(super) threads: usize,

    pub(super) durable: Position,
    pub(super) has_room: bool,
    pub(super) failed: Option<Arc<LogError>>,
    pub(super) requests: VecDeque<ReplayRequest>,
    pub(super) replayed: Vec<ReplayBatch>,
    pub(super) replayed_bytes: usize,
    pub(super) picture: Picture,
    /// The core was woken and has not looked yet.
    pub(super) woken: bool,
}

/// The snapshot that is asked for or being written.
pub(super) enum Picture {
    None,
    /// As of everything below the position.
    Wanted(Position, Box<SnapshotState>),
    Writing,
    /// The last one could not be written, then.
    Failed(Instant),
}

impl State {
    /// Whether whole segments could go.
    pub(super) fn can_trim(&self) -> bool {
        self.oldest_end.is_some_and(|end| end <= self.trim_to())
    }

    pub(super) fn trim_to(&self) -> Position {
        self.keep_from.min(self.snapshot_position)
    }
}

impl Shared {
    pub(super) fn new(durable: Position, snapshot: Position, wake: Wake, metrics: &Metrics) -> Self {
        Shared {
            state: Mutex::new(State {
                submitted: Vec::new(),
                keep_from: Position::ZERO,
                snapshot_position: snapshot,
                oldest_end: None,
                closing: false,
                writer_ended: false,
                threads: THREADS,
                durable,
                has_room: true,
                failed: None,
                requests: VecDeque::new(),
                replayed: Vec::new(),
                replayed_bytes: 0,
                picture: Picture::None,
                woken: false,
            }),
            to_write: Condvar::new(),
            to_replay: Condvar::new(),
            to_picture: Condvar::new(),
            ended: Condvar::new(),
            wake,
            held_bytes: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            counts: Counts::new(metrics),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes the core if it has not been woken already.
    pub(super) fn tell(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let wake = !std::mem::replace(&mut state.woken, true);
        drop(state);
        if wake {
            (self.wake)();
        }
    }

    pub(super) fn hold(&self, bytes: u64) {
        self.held_bytes.store(bytes, Ordering::Relaxed);
        self.counts.held.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Waits on a condition; a poisoned lock is as good as any, its holder ends the process.
pub(super) fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    on.wait(state).unwrap_or_else(PoisonError::into_inner)
}

/// [`wait`], at most so long.
pub(super) fn wait_at_most<'a>(
    on: &Condvar,
    state: MutexGuard<'a, State>,
    at_most: Duration,
) -> MutexGuard<'a, State> {
    on.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
}

/// Counts a thread of the journal out, however it ends.
pub(super) struct Running(pub(super) Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().threads -= 1;
        self.0.ended.notify_all();
    }
}

/// What is counted.
pub(super) struct Counts {
    pub(super) records: Counter,
    pub(super) bytes: Counter,
    pub(super) commits: Counter,
    pub(super) replayed: Counter,
    pub(super) replay_scanned: Counter,
    pub(super) snapshots: Counter,
    pub(super) snapshot_failures: Counter,
    pub(super) held: Gauge,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]);
        Counts {
            records: counter("forebay_broker_journal_records_total", "Records written to the journal."),
            bytes: counter("forebay_broker_journal_bytes_total", "Bytes of records written to the journal."),
            commits: counter("forebay_broker_journal_commits_total", "Group commits of the journal."),
            replayed: counter("forebay_broker_replayed_total", "Messages read back for sessions."),
            replay_scanned: counter(
                "forebay_broker_replay_scanned_total",
                "Records looked at to read messages back.",
            ),
            snapshots: counter(
                "forebay_broker_snapshots_total",
                "Snapshots of sessions and retained messages.",
            ),
            snapshot_failures: counter(
                "forebay_broker_snapshot_failures_total",
                "Snapshots that could not be written.",
            ),
            held: metrics.gauge("forebay_broker_journal_held_bytes", "Bytes of the journal on disk.", &[]),
        }
    }
}
