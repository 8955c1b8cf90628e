//! Dead letters: what could not become data, kept until a person decides.
//!
//! ```text
//!  payload that nobody could decode ──► quarantine log   p0, p1 …   bounded, oldest go first
//!  record that a sink refused ────────► book             r0, r1 …   bounded, full: the sink stops instead
//!  what became of them ───────────────► book             trying, retried, discarded
//! ```
//! Nothing is doubled by a retry. A payload of an agent keeps its identity, and the plant log takes an identity once. For
//! what has none, and for a sink's record, the book says *trying* before the plant log is written; the log's group ends
//! with a [`LogRecord::Retried`]; the book says *retried* after the sync. An opening that finds *trying* alone looks into
//! the log. A refused record goes to its sink once more as [`LogRecord::Again`], at a position of its own: its old
//! position stays left out for good, also for a table that is filled anew from the log's beginning.

mod book;
mod work;

use std::fmt;

use durable_log::{LogError, LogView, Position};
use model::{RecordId, Timestamp};
use proto::account::Account;
use proto::log_record::{AgentId, LogRecord};

pub(super) use book::{Book, BookState, read_all};
pub(super) use work::{Answer, Work};

use super::quarantine;
use super::{ReceivedBatch, StoreError};

/// Where a letter lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A payload that nobody could decode.
    Payload,
    /// A record that a sink refused.
    Record,
}

impl Origin {
    /// As [`LogRecord::Retried`] has it.
    const fn code(self) -> u8 {
        match self {
            Self::Payload => 1,
            Self::Record => 2,
        }
    }

    const fn of(code: u8) -> Option<Origin> {
        match code {
            1 => Some(Self::Payload),
            2 => Some(Self::Record),
            _ => None,
        }
    }
}

/// Name of a letter: `p12`, `r3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// In which log.
    pub origin: Origin,
    /// Its position there.
    pub position: u64,
}

impl LetterId {
    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<LetterId> {
        let origin = match text.as_bytes().first()? {
            b'p' => Origin::Payload,
            b'r' => Origin::Record,
            _ => return None,
        };
        let position = text.get(1..).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        Some(LetterId { origin, position: position.parse().ok()? })
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.origin {
            Origin::Payload => 'p',
            Origin::Record => 'r',
        };
        write!(f, "{letter}{}", self.position)
    }
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its data is in the plant log.
    Retried,
    /// It stays out for good.
    Discarded,
    /// Its record had come another way.
    CameAnyway,
}

impl Fate {
    const fn code(self) -> u8 {
        match self {
            Self::Retried => 1,
            Self::Discarded => 2,
            Self::CameAnyway => 3,
        }
    }

    const fn of(code: u8) -> Option<Fate> {
        match code {
            1 => Some(Self::Retried),
            2 => Some(Self::Discarded),
            3 => Some(Self::CameAnyway),
            _ => None,
        }
    }

    /// One word, as people and scripts read it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::Discarded => "discarded",
            Self::CameAnyway => "came anyway",
        }
    }
}

/// The end of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub fate: Fate,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why, if it was discarded.
    pub reason: String,
}

/// A letter.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Its name.
    pub id: LetterId,
    /// When it was put here.
    pub at: Timestamp,
    /// Topic of a payload, or name of the sink that refused a record.
    pub from: String,
    /// What is wrong with it.
    pub reason: String,
    /// The agent's record that it is, if that is known.
    pub record: Option<(AgentId, RecordId)>,
    /// Position in the plant log, of a refused record.
    pub position: Option<u64>,
    /// What became of it; `None`: a person has not decided yet.
    pub ended: Option<Ended>,
    /// Metrics that were left out where the others were taken (foreign nodes).
    pub left_out: Vec<u32>,
    /// The payload, or the plant log's record.
    pub bytes: Vec<u8>,
}

/// A record that a sink refused, as reconciliation sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedRecord {
    /// Name of the letter.
    pub id: LetterId,
    /// Which sink.
    pub sink: String,
    /// Whose record, and its account over the hub's paths; `None` if it cannot be read.
    pub record: Option<(AgentId, RecordId, Account)>,
    /// What became of it.
    pub ended: Option<Ended>,
}

/// What a sink refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which sink.
    pub sink: String,
    /// Epoch of the plant log at the position.
    pub epoch: u64,
    /// Where the record stands.
    pub position: u64,
    /// Why it is refused.
    pub reason: String,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// No such letter.
    #[error("there is no entry {0} in the quarantine")]
    Unknown(LetterId),
    /// A person has decided before.
    #[error("entry {id} was {} by {} at {}", .ended.fate.word(), .ended.by, .ended.at)]
    Ended {
        /// Which.
        id: LetterId,
        /// How.
        ended: Ended,
    },
    /// It still is what it was.
    #[error("entry {id} stays in the quarantine: {why}")]
    Still {
        /// Which.
        id: LetterId,
        /// Why.
        why: String,
    },
    /// A refusal that names no record of this log.
    #[error("position {0} of epoch {1:016x} is no record of this plant log")]
    NoRecord(u64, u64),
    /// As many records wait for a person as may.
    #[error("{waiting} records of sink {sink:?} are in the quarantine; decide about them first")]
    Full {
        /// Whose.
        sink: String,
        /// How many.
        waiting: usize,
    },
    /// The disk, or the store's end.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<LogError> for LetterError {
    fn from(source: LogError) -> Self {
        StoreError::Log { log: "quarantine", source }.into()
    }
}

/// The readers' side of both logs.
#[derive(Clone, Debug)]
pub(super) struct Letters {
    pub(super) payloads: LogView,
    pub(super) book: LogView,
}

impl Letters {
    /// The newest letters below `before` per log, newest first by time; at most `limit`. Blocking.
    pub(super) fn newest(
        &self,
        state: &BookState,
        wanted: &dyn Fn(&Letter) -> bool,
        limit: usize,
    ) -> Result<Vec<Letter>, LogError> {
        let mut found = Vec::new();
        for (view, origin) in [(&self.payloads, Origin::Payload), (&self.book, Origin::Record)] {
            let (first, mut end) = (view.first().0, view.durable_end().0);
            let mut of_this = Vec::new();
            while end > first && of_this.len() < limit {
                let start = end.saturating_sub(PART).max(first);
                let mut part = Vec::new();
                let mut reader = view.reader(Position(start));
                while let Some((position, bytes)) = reader.next()? {
                    if position.0 >= end {
                        break;
                    }
                    part.extend(read(state, LetterId { origin, position: position.0 }, bytes));
                }
                of_this.extend(part.into_iter().rev().filter(|letter| wanted(letter)));
                end = start;
            }
            of_this.truncate(limit);
            found.extend(of_this);
        }
        found.sort_by_key(|letter| std::cmp::Reverse(letter.at));
        found.truncate(limit);
        Ok(found)
    }

    /// One letter. Blocking.
    pub(super) fn one(&self, state: &BookState, id: LetterId) -> Result<Option<Letter>, LogError> {
        let view = match id.origin {
            Origin::Payload => &self.payloads,
            Origin::Record => &self.book,
        };
        if id.position < view.first().0 {
            return Ok(None);
        }
        let mut reader = view.reader(Position(id.position));
        Ok(match reader.next()? {
            Some((at, bytes)) if at.0 == id.position => read(state, id, bytes),
            _ => None,
        })
    }
}

/// Entries read in one go while looking for the newest.
const PART: u64 = 256;

fn read(state: &BookState, id: LetterId, bytes: &[u8]) -> Option<Letter> {
    let ended = state.ended(id).cloned();
    match id.origin {
        Origin::Payload => {
            let entry = quarantine::decode(bytes)?;
            Some(Letter {
                id,
                at: entry.at,
                from: entry.topic,
                reason: entry.reason,
                record: entry.settles,
                position: None,
                ended,
                left_out: entry.left_out,
                bytes: entry.payload,
            })
        }
        Origin::Record => {
            let refused = book::refused(bytes)?;
            Some(Letter {
                id,
                at: refused.at,
                from: refused.refusal.sink,
                reason: refused.refusal.reason,
                record: record_of(&refused.record).map(|(agent, id, _)| (agent, id)),
                position: Some(refused.refusal.position),
                ended,
                left_out: Vec::new(),
                bytes: refused.record,
            })
        }
    }
}

/// Identity and account of a record of the plant log.
fn record_of(bytes: &[u8]) -> Option<(AgentId, RecordId, Account)> {
    match LogRecord::decode(bytes).ok()? {
        LogRecord::Received { agent, batch, account, .. }
        | LogRecord::Again { agent, batch, account, .. } => Some((agent, batch.id, account)),
        _ => None,
    }
}

/// What a retry brings.
#[derive(Debug)]
pub(crate) enum Retrial {
    /// A payload, decoded now.
    Batch(Box<ReceivedBatch>),
    /// A record, for its sink once more.
    Record,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["p0", "r12", "p18446744073709551615"] {
            assert_eq!(LetterId::parse(name).unwrap().to_string(), name);
        }
        for none in ["", "p", "x1", "p-1", "p+1", "p1 ", "r18446744073709551616", "ü1"] {
            assert_eq!(LetterId::parse(none), None, "{none}");
        }
    }
}
