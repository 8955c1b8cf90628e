//! The replay thread: reads the messages of sessions back, many sessions in one pass over the log.
//!
//! A pass begins where the oldest request stands and goes forward; every other request whose place it comes by joins.
//! A message is copied once, whoever gets it. A pass is short, so that nobody waits long, and none begins while the
//! core has not taken what was read: memory is bounded by [`PASS_BYTES_MAX`] and [`WAITING_BYTES_MAX`], not by sessions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use durable_log::{LogError, LogView, Position, Reader};

use super::JournalError;
use super::encoding::decode_wanted;
use super::record::{Message, SessionId, Target};
use super::shared::{Shared, wait};

/// What one pass reads and collects: some milliseconds.
const PASS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// After a read that failed, so long until the next.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_millis(50);
/// No pass begins while this much waits for the core.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An entry of an answer, beside the shared message.
const ENTRY_BYTES: usize = 64;
/// A message that somebody gets is copied out of the reader's buffer.
const RECORD_KEEPING_BYTES: usize = 160;
/// Open places in the log; each has a buffer of 256 KiB.
const READERS_MAX: usize = 4;
/// A reader this many records before the place wanted reads on instead of seeking.
const SKIP_RECORDS_MAX: u64 = 256;
/// A reader whose buffer has grown beyond its usual size is not kept.
const READER_RECORD_BYTES_MAX: usize = 256 * 1024;

/// A session wants its next messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplayRequest {
    /// Whose messages.
    pub(crate) session: SessionId,
    /// Handed back, so that answers to a gone connection are known as such.
    pub(crate) token: u64,
    /// From here on.
    pub(crate) from: Position,
    /// At most so many; at least 1.
    pub(crate) messages_max: usize,
    /// Not beyond so many [`Message::bytes`], but at least one message.
    pub(crate) bytes_max: usize,
}

/// The answer. Without messages and not at the end: a piece of the log held nothing for this session.
#[derive(Clone, Debug)]
pub(crate) struct ReplayBatch {
    /// As asked.
    pub(crate) session: SessionId,
    /// As asked.
    pub(crate) token: u64,
    /// Messages in order.
    pub(crate) messages: Vec<(Position, Arc<Message>, Target)>,
    /// Where to go on.
    pub(crate) next: Position,
    /// `next` was the durable end, as told by [`super::JournalEvent::Durable`] before this.
    pub(crate) at_durable_end: bool,
    /// The log could not be read at `next`; what is in `messages` is good.
    pub(crate) failed: Option<Arc<JournalError>>,
}

pub(super) struct Replayer {
    pub(super) view: LogView,
    pub(super) shared: Arc<Shared>,
    waiting: BTreeMap<(Position, u64), ReplayRequest>,
    order: VecDeque<(Position, u64)>,
    arrived: u64,
    readers: Vec<(u64, Reader)>,
    passes: u64,
}

/// A request that takes part in a pass.
struct Taking {
    request: ReplayRequest,
    messages: Vec<(Position, Arc<Message>, Target)>,
    bytes: usize,
}

impl Replayer {
    pub(super) fn new(view: LogView, shared: Arc<Shared>) -> Self {
        Replayer {
            view,
            shared,
            waiting: BTreeMap::new(),
            order: VecDeque::new(),
            arrived: 0,
            readers: Vec::new(),
            passes: 0,
        }
    }

    /// Until the journal is closed or dropped.
    pub(super) fn run(mut self) {
        while let Some(limit) = self.next_turn() {
            while let Some(key) = self.order.pop_front() {
                if let Some(first) = self.waiting.remove(&key) {
                    self.pass(first, limit);
                    break;
                }
            }
        }
    }

    /// Waits for requests and for room; gives the durable end, `None` at the end of the journal.
    fn next_turn(&mut self) -> Option<Position> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        loop {
            if state.closing {
                return None;
            }
            while let Some(request) = state.requests.pop_front() {
                let key = (request.from, self.arrived);
                self.arrived += 1;
                self.waiting.insert(key, request);
                self.order.push_back(key);
            }
            if !self.waiting.is_empty() && state.replayed_bytes < WAITING_BYTES_MAX {
                return Some(state.durable);
            }
            state = wait(&shared.to_replay, state);
        }
    }

    fn pass(&mut self, first: ReplayRequest, limit: Position) {
        self.passes += 1;
        let mut reader = self.reader(first.from);
        let mut pass = Pass { limit, taking: HashMap::new(), answers: Vec::new(), bytes: 0, scanned: 0 };
        pass.join(first);
        let (failed, keep) = pass.run(&mut reader, first.from, &mut self.waiting);
        if failed.is_some() {
            // The writer makes a hole of what is damaged; whoever waits asks again at once, and must not spin.
            self.shared.to_write.notify_all();
            std::thread::sleep(AFTER_FAILURE);
        }
        let (at, is_whole) = (reader.position(), failed.is_none());
        for taking in pass.taking.into_values() {
            let next = at.max(taking.request.from);
            let mut answer = taking.answer(next, next >= limit);
            answer.failed.clone_from(&failed);
            pass.answers.push(answer);
        }
        if keep && is_whole {
            self.readers.push((self.passes, reader));
        }
        let counts = &self.shared.counts;
        counts.replay_scanned.add(pass.scanned);
        counts.replayed.add(pass.answers.iter().map(|answer| answer.messages.len() as u64).sum());
        self.shared.tell(|state| {
            state.replayed_bytes += pass.bytes;
            state.replayed.extend(pass.answers);
        });
    }

    /// A reader that stands at `from` or a little before.
    fn reader(&mut self, from: Position) -> Reader {
        let near = self
            .readers
            .iter()
            .enumerate()
            .filter(|(_, (_, reader))| {
                reader.position() <= from && from.0 - reader.position().0 <= SKIP_RECORDS_MAX
            })
            .max_by_key(|(_, (_, reader))| reader.position())
            .map(|(i, _)| i);
        if let Some(i) = near {
            return self.readers.swap_remove(i).1;
        }
        let oldest = self.readers.iter().enumerate().min_by_key(|(_, (used, _))| *used).map(|(i, _)| i);
        let mut reader = match oldest {
            Some(i) if self.readers.len() >= READERS_MAX => self.readers.swap_remove(i).1,
            _ => self.view.reader(from),
        };
        reader.seek(from);
        reader
    }
}

/// One pass over a piece of the log.
struct Pass {
    /// The durable end that the core knows.
    limit: Position,
    taking: HashMap<SessionId, Taking>,
    answers: Vec<ReplayBatch>,
    bytes: usize,
    scanned: u64,
}

impl Pass {
    fn join(&mut self, request: ReplayRequest) {
        self.taking.insert(request.session, Taking { request, messages: Vec::new(), bytes: 0 });
    }

    /// Reads until everybody is served, the piece is over, or the log ends. Says what failed, and whether the reader
    /// is still small.
    fn run(
        &mut self,
        reader: &mut Reader,
        from: Position,
        waiting: &mut BTreeMap<(Position, u64), ReplayRequest>,
    ) -> (Option<Arc<JournalError>>, bool) {
        let mut keep = true;
        while !self.taking.is_empty() && self.bytes < PASS_BYTES_MAX && reader.position() < self.limit {
            let (position, bytes) = match reader.next() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                // A reader of the pool that stood a little before the place wanted, and was left behind by a trim.
                Err(LogError::Trimmed { first, .. }) if first <= from => continue,
                Err(error) => return (Some(Arc::new(JournalError::Log(error))), keep),
            };
            keep &= bytes.len() <= READER_RECORD_BYTES_MAX;
            self.scanned += 1;
            self.bytes += bytes.len() / 4; // what nobody wants costs time, not memory
            if position < from {
                continue;
            }
            self.join_at(position, waiting);
            if bytes.is_empty() {
                continue; // damaged and given up
            }
            match decode_wanted(bytes, |session| self.taking.contains_key(&session)) {
                Ok(None) => {}
                Ok(Some((message, targets))) => self.hand_out(position, message, targets),
                Err(source) => {
                    reader.seek(position); // `next` of the answers names the record
                    return (Some(Arc::new(JournalError::Record { position, source })), keep);
                }
            }
        }
        (None, keep)
    }

    /// Who waits exactly here joins; a second request of a session waits for a pass of its own.
    fn join_at(&mut self, position: Position, waiting: &mut BTreeMap<(Position, u64), ReplayRequest>) {
        let mut after = 0;
        while let Some((&key, &request)) = waiting.range((position, after)..=(position, u64::MAX)).next() {
            if !self.taking.contains_key(&request.session) {
                waiting.remove(&key);
                self.join(request);
            }
            after = key.1 + 1;
        }
    }

    fn hand_out(&mut self, position: Position, message: Message, targets: Vec<Target>) {
        self.bytes += message.bytes() + RECORD_KEEPING_BYTES;
        let message = Arc::new(message);
        for target in targets {
            let session = target.session;
            let Some(taking) = self.taking.get_mut(&session) else { continue };
            self.bytes += ENTRY_BYTES;
            taking.bytes += message.bytes();
            taking.messages.push((position, Arc::clone(&message), target));
            if taking.is_full()
                && let Some(served) = self.taking.remove(&session)
            {
                let next = position.next();
                self.answers.push(served.answer(next, next >= self.limit));
            }
        }
    }
}

impl Taking {
    fn is_full(&self) -> bool {
        self.messages.len() >= self.request.messages_max || self.bytes >= self.request.bytes_max
    }

    fn answer(self, next: Position, at_durable_end: bool) -> ReplayBatch {
        ReplayBatch {
            session: self.request.session,
            token: self.request.token,
            messages: self.messages,
            next,
            at_durable_end,
            failed: None,
        }
    }
}
