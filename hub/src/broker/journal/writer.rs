//! The writer thread: encodes what was submitted, commits it in groups, then tells; trims what nobody needs.
//!
//! A full disk keeps it trying with everything in order. The first failed write or sync shuts the latch: it goes on
//! taking records, and drops them, so that the core is never stopped; nothing of them was told durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use durable_log::{Log, LogError, Storage};

use super::encoding::encode;
use super::options::JournalOptions;
use super::record::Record;
use super::shared::{Shared, wait, wait_at_most};

/// Records of one commit: what a disk writes in some milliseconds.
const COMMIT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A full disk is tried again this often.
const RETRY: Duration = Duration::from_millis(200);
/// The encoding buffer is given back after a larger record.
const BUFFER_BYTES: usize = 256 * 1024;
/// With this much above the line there is room again: a disk at the line shall not flicker.
const ROOM_AGAIN_BYTES: u64 = 4 * 1024 * 1024;

pub(super) struct Writer {
    log: Log,
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    options: JournalOptions,
    /// Submitted, not in the log: what a commit left, or what a full log refused.
    pending: VecDeque<Record>,
    taken: Vec<Record>,
    buffer: Vec<u8>,
    has_room: bool,
    failed: bool,
    /// Damage that a replay met could not be healed: a person must look, and a restart tries again.
    unhealable: bool,
}

/// How a commit went.
enum Committed {
    /// Everything taken from `pending` is durable.
    Durable,
    /// The disk or the hard bound is full.
    Full,
}

impl Writer {
    pub(super) fn new(
        log: Log,
        storage: Arc<dyn Storage>,
        shared: Arc<Shared>,
        options: JournalOptions,
    ) -> Self {
        Writer {
            log,
            storage,
            shared,
            options,
            pending: VecDeque::new(),
            taken: Vec::new(),
            buffer: Vec::new(),
            has_room: true,
            failed: false,
            unhealable: false,
        }
    }

    /// Until [`super::Journal::close`], or until the journal is dropped.
    pub(super) fn run(mut self) {
        self.look_at_segments();
        self.tell(false); // a disk may be full from the beginning
        let mut full = false;
        loop {
            let closing = self.take(full);
            self.heal();
            full = match self.commit() {
                Ok(Committed::Durable) => false,
                Ok(Committed::Full) => true,
                Err(error) => {
                    self.fail(error);
                    false
                }
            };
            if closing && (full || self.pending.is_empty()) {
                break;
            }
        }
        if !self.pending.is_empty() {
            tracing::error!(
                records = self.pending.len(),
                "the broker's journal ends on a full disk; not written"
            );
        }
        let mut state = self.shared.state();
        state.writer_ended = true;
        drop(state);
        self.shared.to_picture.notify_all();
    }

    /// Waits for something to do and takes what was submitted; true if this is the end.
    fn take(&mut self, full: bool) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let mut waited = false;
        loop {
            let nothing = state.submitted.is_empty() && (full || self.pending.is_empty());
            if !nothing || state.closing || state.can_trim() || waited || self.may_heal() {
                break;
            }
            if full || !self.has_room {
                state = wait_at_most(&shared.to_write, state, RETRY);
                waited = true;
            } else {
                state = wait(&shared.to_write, state);
            }
        }
        std::mem::swap(&mut state.submitted, &mut self.taken);
        let (closing, trim) = (state.closing, state.can_trim().then(|| state.trim_to()));
        drop(state);
        self.pending.extend(self.taken.drain(..));
        if let Some(keep_from) = trim {
            match self.log.trim(keep_from) {
                Ok(_first) => self.look_at_segments(),
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "the broker's journal cannot be trimmed");
                    self.shared.state().oldest_end = None; // looked at again after the next commit
                }
            }
        }
        closing
    }

    fn may_heal(&self) -> bool {
        !self.unhealable && !self.failed && self.log.view().is_damaged()
    }

    /// Makes holes of what a replay could not read, so that the sessions behind it get on.
    fn heal(&mut self) {
        if !self.may_heal() {
            return;
        }
        match self.log.heal() {
            Ok(healed) => {
                healed.iter().for_each(|repaired| tracing::error!(%repaired, "the broker's journal"))
            }
            Err(error) if error.is_full() => {}
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "the broker's journal is damaged");
                self.unhealable = true;
            }
        }
        self.look_at_segments();
    }

    fn commit(&mut self) -> Result<Committed, LogError> {
        if self.failed {
            self.pending.clear();
            return Ok(Committed::Durable);
        }
        let (mut bytes, mut records, mut full) = (0, 0, false);
        while bytes < COMMIT_BYTES_MAX
            && let Some(record) = self.pending.front()
        {
            self.buffer.clear();
            encode(record, &mut self.buffer);
            match self.log.append_group(&[&self.buffer]) {
                Ok(_position) => {
                    bytes += self.buffer.len();
                    records += 1;
                    self.pending.pop_front();
                }
                Err(error) if error.is_full() => {
                    full = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.buffer.shrink_to(BUFFER_BYTES);
        match self.log.sync() {
            Ok(_end) => {}
            Err(error) if error.is_full() => full = true,
            Err(error) => return Err(error),
        }
        let counts = &self.shared.counts;
        counts.records.add(records);
        counts.bytes.add(bytes as u64);
        if records > 0 {
            counts.commits.increment();
            self.look_at_segments();
        }
        self.tell(full);
        Ok(if full { Committed::Full } else { Committed::Durable })
    }

    fn tell(&mut self, full: bool) {
        let durable = self.log.view().durable_end();
        let has_room = !full && self.is_below_line();
        if has_room != self.has_room {
            self.has_room = has_room;
            if has_room {
                tracing::info!("the broker's journal has room again");
            } else {
                tracing::error!(bytes = self.log.view().bytes(), "the broker's journal has no room");
            }
        }
        let state = self.shared.state();
        if state.durable == durable && state.has_room == has_room {
            return;
        }
        drop(state);
        self.shared.tell(|state| {
            state.durable = durable;
            state.has_room = has_room;
        });
        self.shared.to_picture.notify_all();
    }

    /// Whether bound and disk leave more than the headroom.
    fn is_below_line(&self) -> bool {
        let line = self.options.reserve_bytes.saturating_add(self.options.headroom_bytes);
        let again = if self.has_room { 0 } else { ROOM_AGAIN_BYTES.min(self.options.headroom_bytes) };
        let free = self.storage.free_bytes().unwrap_or(u64::MAX); // one that cannot say: a write will tell
        self.log.view().bytes() < self.options.bytes_max && free >= line.saturating_add(again)
    }

    fn look_at_segments(&self) {
        let view = self.log.view();
        self.shared.hold(view.bytes());
        let segments = view.segments();
        let oldest = segments.first().filter(|_oldest| segments.len() > 1);
        self.shared.state().oldest_end = oldest.map(|oldest| oldest.end);
    }

    fn fail(&mut self, error: LogError) {
        self.failed = true;
        self.pending.clear();
        tracing::error!(error = %crate::chain(&error), "the broker's journal takes nothing more");
        let cause = self.log.latched().unwrap_or_else(|| Arc::new(error));
        self.shared.tell(|state| state.failed = Some(cause));
        self.shared.to_picture.notify_all();
    }
}
