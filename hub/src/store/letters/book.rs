//! The book: records that sinks refused, and what became of every letter. A durable log, read whole on open.
//!
//! ```text
//! version u8 = 1 | kind u8 | at i64 µs | body
//! kind 1 refused  epoch u64 | position u64 | sink text | reason text | the plant log's record to the end
//! kind 2 trying   origin u8 | epoch of the letter's log u64 | position u64 | end of the plant log u64
//! kind 3 ended    origin u8 | position u64 | fate u8 | by text | reason text
//! text = length u32 | UTF-8
//! ```
//! Numbers are little endian. It takes no more refusals while [`REFUSED_MAX`] of a sink wait for a person or three quarters
//! of its room are used, so that there is always room for a decision. Its beginning goes when nothing needs it any more:
//! a decision as long as its letter is there, a refused record until it is decided and the plant log has dropped it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use durable_log::{Log, LogError, LogView, Options, Position, Recovery, Storage, WhenDamaged, WhenFull};
use model::Timestamp;
use proto::log_record::LogRecord;

use super::super::quarantine::{put_text, text};
use super::{Ended, Fate, LetterId, Origin, Refusal, RefusedRecord, record_of};

const VERSION: u8 = 1;
const REFUSED: u8 = 1;
const TRYING: u8 = 2;
const ENDED: u8 = 3;

/// Records of one sink that may wait for a person: more is a target that takes nothing, and no exception.
pub(super) const REFUSED_MAX: usize = 10_000;
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A refusal as it is kept.
#[derive(Debug, PartialEq)]
pub(super) struct Refused {
    pub(super) at: Timestamp,
    pub(super) refusal: Refusal,
    pub(super) record: Vec<u8>,
}

/// The book's writer.
#[derive(Debug)]
pub(in super::super) struct Book {
    log: Log,
    state: Arc<Mutex<BookState>>,
}

/// What the book says.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct BookState {
    /// By sink and position in the plant log.
    refused: BTreeMap<(String, u64), Known>,
    /// With the position of the decision in the book.
    ended: BTreeMap<LetterId, (u64, Ended)>,
    /// Retries of which the end is not known.
    trying: BTreeMap<LetterId, Trying>,
}

#[derive(Clone, Debug)]
struct Known {
    entry: u64,
    record: Option<(proto::log_record::AgentId, model::RecordId, proto::account::Account)>,
}

#[derive(Clone, Copy, Debug)]
struct Trying {
    at: u64,
    epoch: u64,
    plant_end: u64,
}

impl Book {
    /// Opens the book and finishes what a crash cut off: `plant` says whether a retry came that far.
    pub(in super::super) fn open(
        storage: Arc<dyn Storage>,
        epoch: u64,
        plant: &LogView,
        now: Timestamp,
    ) -> Result<(Self, Recovery), LogError> {
        let options = Options {
            bytes_max: BYTES_MAX,
            segment_bytes: BYTES_MAX / 16,
            record_bytes_max: 2 * Options::default().record_bytes_max,
            when_full: WhenFull::StopAccepting,
            when_damaged: WhenDamaged::SetAside,
            ..Options::default()
        };
        let (mut log, mut recovery) = Log::open_on(storage, options, epoch)?;
        if recovery.cut.is_some() {
            tracing::warn!(log = "quarantine book", %recovery, "recovered");
        }
        let state = loop {
            match read_all(&log.view()) {
                Err(LogError::Damaged { .. }) if log.view().is_damaged() => {
                    let healed = log.heal()?;
                    if healed.is_empty() {
                        break read_all(&log.view())?;
                    }
                    recovery.repaired.extend(healed);
                }
                read => break read?,
            }
        };
        let mut book = Book { log, state: Arc::new(Mutex::new(state)) };
        let open = std::mem::take(&mut book.state().trying);
        for (id, trying) in open {
            // Damage in the plant log is for its own opening to mend: whoever tries again finds the record there.
            if matches!(happened(plant, id, trying), Ok(true)) {
                tracing::info!(entry = %id, "a retry had come as far as the plant log before the hub ended");
                let by = "the hub, after its restart".to_owned();
                book.end(id, Ended { fate: Fate::Retried, at: now, by, reason: String::new() })?;
            }
        }
        Ok((book, recovery))
    }

    pub(in super::super) fn state(&self) -> MutexGuard<'_, BookState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in super::super) fn shared(&self) -> Arc<Mutex<BookState>> {
        Arc::clone(&self.state)
    }

    pub(in super::super) fn view(&self) -> LogView {
        self.log.view()
    }

    /// How many records of the sink wait for a person, if that is as many as may.
    pub(super) fn is_full_for(&self, sink: &str) -> Option<usize> {
        let waiting = self.state().waiting_of(sink);
        let full = waiting >= REFUSED_MAX || self.log.view().bytes() >= BYTES_MAX / 4 * 3;
        full.then_some(waiting)
    }

    /// Keeps a refused record; on disk when this returns.
    pub(super) fn refuse(
        &mut self,
        at: Timestamp,
        refusal: Refusal,
        record: &[u8],
    ) -> Result<LetterId, LogError> {
        let mut bytes = head(REFUSED, at);
        bytes.extend_from_slice(&refusal.epoch.to_le_bytes());
        bytes.extend_from_slice(&refusal.position.to_le_bytes());
        put_text(&refusal.sink, &mut bytes);
        put_text(&refusal.reason, &mut bytes);
        bytes.extend_from_slice(record);
        let entry = self.append(&bytes)?;
        let known = Known { entry, record: record_of(record) };
        self.state().refused.insert((refusal.sink, refusal.position), known);
        Ok(LetterId { origin: Origin::Record, position: entry })
    }

    /// A retry begins; on disk when this returns. `epoch` is that of the letter's log at the letter.
    pub(super) fn trying(
        &mut self,
        at: Timestamp,
        id: LetterId,
        epoch: u64,
        plant_end: u64,
    ) -> Result<(), LogError> {
        let mut bytes = head(TRYING, at);
        bytes.push(id.origin.code());
        [epoch, id.position, plant_end].iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        self.append(&bytes).map(|_at| ())
    }

    /// A letter's end; on disk when this returns.
    pub(super) fn end(&mut self, id: LetterId, ended: Ended) -> Result<(), LogError> {
        let mut bytes = head(ENDED, ended.at);
        bytes.push(id.origin.code());
        bytes.extend_from_slice(&id.position.to_le_bytes());
        bytes.push(ended.fate.code());
        put_text(&ended.by, &mut bytes);
        put_text(&ended.reason, &mut bytes);
        let at = self.append(&bytes)?;
        self.state().ended.insert(id, (at, ended));
        Ok(())
    }

    /// Forgets what nobody needs, given where plant log and payloads begin now.
    pub(super) fn trim(&mut self, plant_first: u64, payloads_first: u64) -> Result<(), LogError> {
        let needed = {
            let mut state = self.state();
            let BookState { refused, ended, .. } = &mut *state;
            refused.retain(|(_, position), known| {
                let id = LetterId { origin: Origin::Record, position: known.entry };
                *position >= plant_first || !ended.contains_key(&id)
            });
            let kept: std::collections::BTreeSet<u64> = refused.values().map(|known| known.entry).collect();
            ended.retain(|id, _| match id.origin {
                Origin::Payload => id.position >= payloads_first,
                Origin::Record => kept.contains(&id.position),
            });
            let decided = ended.values().map(|(at, _)| *at);
            kept.into_iter().chain(decided).min().unwrap_or(self.log.end().0)
        };
        self.log.trim(Position(needed)).map(|_first| ())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<u64, LogError> {
        let at = self.log.append_group(&[bytes])?;
        self.log.sync()?;
        Ok(at.0)
    }
}

impl BookState {
    /// What became of a letter.
    pub(in super::super) fn ended(&self, id: LetterId) -> Option<&Ended> {
        self.ended.get(&id).map(|(_, ended)| ended)
    }

    /// The letter of a position that the sink refused.
    pub(super) fn of(&self, sink: &str, position: u64) -> Option<LetterId> {
        let known = self.refused.get(&(sink.to_owned(), position))?;
        Some(LetterId { origin: Origin::Record, position: known.entry })
    }

    /// Whether a refused record of that name is here.
    pub(super) fn has_record(&self, entry: u64) -> bool {
        self.refused.values().any(|known| known.entry == entry)
    }

    /// Positions within a range that the sink refused.
    pub(in super::super) fn set_aside(&self, sink: &str, positions: Range<u64>) -> Vec<u64> {
        if positions.is_empty() {
            return Vec::new();
        }
        let range = (sink.to_owned(), positions.start)..(sink.to_owned(), positions.end);
        self.refused.range(range).map(|((_, position), _)| *position).collect()
    }

    /// Every refused record that is known.
    pub(in super::super) fn refused(&self) -> Vec<RefusedRecord> {
        let all = self.refused.iter().map(|((sink, _), known)| {
            let id = LetterId { origin: Origin::Record, position: known.entry };
            RefusedRecord { id, sink: sink.clone(), record: known.record, ended: self.ended(id).cloned() }
        });
        all.collect()
    }

    /// How many letters wait for a person, given the positions of the payloads.
    pub(in super::super) fn waiting(&self, payloads: Range<u64>) -> u64 {
        let decided = |origin| self.ended.keys().filter(move |id| id.origin == origin);
        let of_payloads = decided(Origin::Payload).filter(|id| payloads.contains(&id.position)).count();
        let records = self.refused.len().saturating_sub(decided(Origin::Record).count());
        (payloads.end - payloads.start).saturating_sub(of_payloads as u64) + records as u64
    }

    fn waiting_of(&self, sink: &str) -> usize {
        let range = (sink.to_owned(), 0)..=(sink.to_owned(), u64::MAX);
        let open = self.refused.range(range).filter(|(_, known)| {
            !self.ended.contains_key(&LetterId { origin: Origin::Record, position: known.entry })
        });
        open.count()
    }
}

/// What a book's log says. Blocking.
pub(in super::super) fn read_all(view: &LogView) -> Result<BookState, LogError> {
    let mut state = BookState::default();
    let mut reader = view.reader(view.first());
    while let Some((at, bytes)) = reader.next()? {
        // Holes are what damage left; the ledger names them.
        if !bytes.is_empty() && take(&mut state, at.0, bytes).is_none() {
            tracing::error!(
                position = at.0,
                "an entry of the quarantine's book cannot be read: a later version's?"
            );
        }
    }
    Ok(state)
}

fn take(state: &mut BookState, at: u64, bytes: &[u8]) -> Option<()> {
    let (kind, when, body) = opened(bytes)?;
    match kind {
        REFUSED => {
            let refused = refused(bytes)?;
            let known = Known { entry: at, record: record_of(&refused.record) };
            state.refused.insert((refused.refusal.sink, refused.refusal.position), known);
        }
        TRYING => {
            let (origin, body) = body.split_first()?;
            let [epoch, position, plant_end] = numbers::<3>(body)?.0;
            let id = LetterId { origin: Origin::of(*origin)?, position };
            state.trying.insert(id, Trying { at, epoch, plant_end });
        }
        ENDED => {
            let (origin, body) = body.split_first()?;
            let ([position], body) = numbers::<1>(body)?;
            let (fate, body) = body.split_first()?;
            let (by, body) = text(body)?;
            let (reason, _) = text(body)?;
            let id = LetterId { origin: Origin::of(*origin)?, position };
            state.trying.remove(&id);
            state.ended.insert(id, (at, Ended { fate: Fate::of(*fate)?, at: when, by, reason }));
        }
        _ => return None,
    }
    Some(())
}

/// A refusal from the book's bytes; `None` for other entries.
pub(super) fn refused(bytes: &[u8]) -> Option<Refused> {
    let (kind, at, body) = opened(bytes)?;
    if kind != REFUSED {
        return None;
    }
    let ([epoch, position], body) = numbers::<2>(body)?;
    let (sink, body) = text(body)?;
    let (reason, record) = text(body)?;
    Some(Refused { at, refusal: Refusal { sink, epoch, position, reason }, record: record.to_vec() })
}

fn head(kind: u8, at: Timestamp) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind];
    bytes.extend_from_slice(&at.0.to_le_bytes());
    bytes
}

fn opened(bytes: &[u8]) -> Option<(u8, Timestamp, &[u8])> {
    let rest = bytes.strip_prefix(&[VERSION])?;
    let (kind, rest) = rest.split_first()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    Some((*kind, Timestamp(i64::from_le_bytes(*at)), rest))
}

fn numbers<const N: usize>(mut bytes: &[u8]) -> Option<([u64; N], &[u8])> {
    let mut all = [0; N];
    for number in &mut all {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        (*number, bytes) = (u64::from_le_bytes(*first), rest);
    }
    Some((all, bytes))
}

/// Whether the plant log holds the end of this retry.
fn happened(plant: &LogView, id: LetterId, trying: Trying) -> Result<bool, LogError> {
    let wanted = LogRecord::Retried { origin: id.origin.code(), epoch: trying.epoch, position: id.position };
    let mut reader = plant.reader(Position(trying.plant_end).max(plant.first()));
    let mut expected = Vec::new();
    wanted.encode(&mut expected);
    while let Some((_, bytes)) = reader.next()? {
        if bytes == expected {
            return Ok(true);
        }
    }
    tracing::debug!(book = trying.at, entry = %id, "a retry did not come as far as the plant log");
    Ok(false)
}

#[cfg(test)]
mod tests {
    use durable_log::FaultyStorage;

    use super::*;

    #[test]
    fn a_book_says_the_same_after_it_is_opened_again_and_damaged_entries_are_none() {
        let disk = FaultyStorage::new(7);
        let (plant, _) = Log::open_on(Arc::new(FaultyStorage::new(8)), Options::default(), 5).unwrap();
        let open = |epoch| Book::open(Arc::new(disk.clone()), epoch, &plant.view(), Timestamp(1)).unwrap().0;
        let refusal = |position| Refusal { sink: "lake".into(), epoch: 5, position, reason: "ß".into() };
        let mut book = open(9);
        let first = book.refuse(Timestamp(3), refusal(40), b"abc").unwrap();
        let second = book.refuse(Timestamp(3), refusal(41), b"").unwrap();
        let ended = Ended { fate: Fate::Discarded, at: Timestamp(4), by: "api".into(), reason: "old".into() };
        book.trying(Timestamp(4), first, 9, 0).unwrap();
        book.end(second, ended.clone()).unwrap();
        drop(book);
        let mut book = open(10);
        assert_eq!(book.state().ended(second), Some(&ended));
        assert_eq!(book.state().ended(first), None, "its retry never came as far as the plant log");
        assert_eq!(book.state().set_aside("lake", 0..100), [40, 41]);
        assert_eq!(book.state().set_aside("lake", 41..41), Vec::<u64>::new());
        assert_eq!(book.state().set_aside("lakes", 0..100), Vec::<u64>::new());
        assert_eq!(book.state().waiting(3..10), 8);
        assert_eq!(book.is_full_for("lake"), None);
        book.trim(41, 0).unwrap();
        assert_eq!(
            book.state().set_aside("lake", 0..100),
            [40, 41],
            "one waits, the other is in the plant log"
        );
        book.trim(42, 0).unwrap();
        assert_eq!(book.state().set_aside("lake", 0..100), [40]);
        let mut bytes = head(REFUSED, Timestamp(3));
        bytes.extend_from_slice(&[0; 16]);
        put_text("lake", &mut bytes);
        put_text("r", &mut bytes);
        assert!(refused(&bytes).is_some());
        (0..bytes.len()).for_each(|cut| assert_eq!(refused(&bytes[..cut]), None));
    }
}
