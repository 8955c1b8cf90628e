//! Classic mistakes of systems like this one, to be made on purpose: a simulator that finds none of them proves nothing.
//!
//! Without the feature `mistakes` nobody can make one, and the questions cost nothing.

#[cfg(feature = "mistakes")]
use std::cell::{Cell, RefCell};

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The hub sends receipts for what it has not synced.
    ReceiptBeforeSync,
    /// The agent forgets what it has sent.
    TrimAfterSend,
    /// The hub takes two records with one source time for the same.
    DedupByTime,
    /// The sink writes its cursor before the rows.
    CursorBeforeRows,
    /// An agent that opens its log goes on with the epoch it finds there.
    OffsetReuse,
    /// A record is sent as two payloads of the same name.
    TwoPayloads,
    /// The position of a source is written beside its samples, not with them.
    PositionOutside,
    /// What was received is written down beside the plant log, before it.
    RangesBeside,
    /// History is sent before the births.
    HistoryBeforeBirths,
    /// A failed sync is tried again.
    SyncAgain,
    /// What an old session had not sent is sent in the new one.
    OldQueue,
    /// The table's cursor does not say of which log it is.
    SharedCursor,
}

impl Mistake {
    /// Every one.
    pub const ALL: [Mistake; 12] = [
        Self::ReceiptBeforeSync,
        Self::TrimAfterSend,
        Self::DedupByTime,
        Self::CursorBeforeRows,
        Self::OffsetReuse,
        Self::TwoPayloads,
        Self::PositionOutside,
        Self::RangesBeside,
        Self::HistoryBeforeBirths,
        Self::SyncAgain,
        Self::OldQueue,
        Self::SharedCursor,
    ];
}

#[cfg(feature = "mistakes")]
thread_local! {
    static MADE: Cell<Option<Mistake>> = const { Cell::new(None) };
    static NOTES: RefCell<std::collections::BTreeMap<String, Vec<u8>>> = const { RefCell::new(std::collections::BTreeMap::new()) };
}

/// From now on this thread makes this mistake, or none.
#[cfg(feature = "mistakes")]
pub fn make(mistake: Option<Mistake>) {
    MADE.set(mistake);
    NOTES.with_borrow_mut(std::collections::BTreeMap::clear);
}

/// Whether this thread makes this mistake.
#[cfg(feature = "mistakes")]
#[must_use]
pub fn is_made(mistake: Mistake) -> bool {
    MADE.get() == Some(mistake)
}

/// Whether this thread makes this mistake: never.
#[cfg(not(feature = "mistakes"))]
#[must_use]
#[inline(always)]
pub const fn is_made(_mistake: Mistake) -> bool {
    false
}

/// Keeps something for a mistake that needs a memory; returns what was kept under that name before.
#[cfg(feature = "mistakes")]
pub fn note(name: &str, bytes: Vec<u8>) -> Option<Vec<u8>> {
    NOTES.with_borrow_mut(|notes| notes.insert(name.to_owned(), bytes))
}

/// Keeps nothing.
#[cfg(not(feature = "mistakes"))]
pub fn note(_name: &str, _bytes: Vec<u8>) -> Option<Vec<u8>> {
    None
}
