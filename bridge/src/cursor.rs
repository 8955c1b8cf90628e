//! Where a sink stands in the plant log, and where it goes on (design §4.16).
//!
//! Positions are dense over the whole log; an epoch is one writable opening of it. A cursor belongs to an epoch, so that
//! a log restored from a backup, which gives old positions to new records, is noticed instead of skipped.

use std::fmt;
use std::ops::Range;

use model::Epoch;

/// Everything below `position` is in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The plant-log epoch in which the last commit was; `None` if the log of today does not hold that epoch.
    pub epoch: Option<Epoch>,
    /// One past the last position committed.
    pub position: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            Some(epoch) => write!(f, "{}@{epoch}", self.position),
            None => write!(f, "{}@unknown", self.position),
        }
    }
}

/// A run of positions within one epoch: what one commit covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The plant-log epoch.
    pub epoch: Epoch,
    /// Half-open positions.
    pub positions: Range<u64>,
}

impl Span {
    /// The cursor after this span is committed.
    #[must_use]
    pub const fn end(&self) -> Cursor {
        Cursor { epoch: Some(self.epoch), position: self.positions.end }
    }
}

/// The plant log that a bridge follows, as the hub describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlantLog {
    /// The hub's id: part of every cursor's name.
    pub hub_id: String,
    /// `(epoch, first position)`, ascending; never empty.
    pub epochs: Vec<(Epoch, u64)>,
    /// Lowest position held.
    pub first: u64,
    /// Positions below are on the hub's disk.
    pub durable_end: u64,
}

/// Why a sink cannot go on: data would be missing or counted twice. A person must decide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The target holds positions that the log has not written (in that epoch).
    #[error(
        "the target is ahead of the hub's log: it holds positions [{}, {}) that the log does not have; \
         the hub was restored from an older copy, or it is another hub with the same id. Give the sink another name \
         and table, or restore the hub's data", .missing.start, .missing.end
    )]
    Ahead {
        /// What the log lacks.
        missing: Range<u64>,
    },
    /// The log has dropped positions that the target does not hold.
    #[error(
        "positions [{}, {}) of the hub's log are gone before they reached the target (retention); \
         `forebay reconcile` names what is missing. To go on without them give the sink another name",
        .missing.start, .missing.end
    )]
    Behind {
        /// What is lost to the target.
        missing: Range<u64>,
    },
}

impl PlantLog {
    /// The epoch that holds (or will hold) a position, with its span so far.
    #[must_use]
    pub fn epoch_at(&self, position: u64) -> Option<Span> {
        let nth = self.epochs.iter().rposition(|(_, start)| *start <= position)?;
        self.span(nth)
    }

    /// The span of an epoch, from its first position held to its end so far.
    #[must_use]
    pub fn span_of(&self, epoch: Epoch) -> Option<Span> {
        let nth = self.epochs.iter().position(|(known, _)| *known == epoch)?;
        self.span(nth)
    }

    fn span(&self, nth: usize) -> Option<Span> {
        let (epoch, start) = *self.epochs.get(nth)?;
        let end = self.epochs.get(nth + 1).map_or(self.durable_end, |(_, next)| *next);
        Some(Span { epoch, positions: start..end.max(start) })
    }

    /// Where to go on, given what the target says it holds.
    pub fn resume(&self, held: Option<Cursor>) -> Result<u64, Misfit> {
        let Some(held) = held else { return Ok(self.first) };
        let end = match held.epoch {
            // The newest commit was in an epoch that is trimmed away: it must end where the log now begins.
            None => self.first,
            Some(epoch) => self.span_of(epoch).map_or(self.first, |span| span.positions.end),
        };
        if held.position > end {
            return Err(Misfit::Ahead { missing: end..held.position });
        }
        if held.position < self.first {
            return Err(Misfit::Behind { missing: held.position..self.first });
        }
        Ok(held.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> PlantLog {
        PlantLog {
            hub_id: "h".into(),
            epochs: vec![(Epoch(7), 10), (Epoch(8), 30), (Epoch(9), 50)],
            first: 12,
            durable_end: 60,
        }
    }

    #[test]
    fn goes_on_where_the_target_stands() {
        let at = |epoch, position| log().resume(Some(Cursor { epoch: Some(Epoch(epoch)), position }));
        assert_eq!(log().resume(None), Ok(12));
        assert_eq!(at(7, 12), Ok(12));
        assert_eq!(at(7, 30), Ok(30));
        assert_eq!(at(8, 45), Ok(45));
        assert_eq!(at(9, 60), Ok(60));
    }

    #[test]
    fn a_target_ahead_or_behind_is_refused_with_the_range() {
        let at = |epoch, position| log().resume(Some(Cursor { epoch, position }));
        assert_eq!(at(Some(Epoch(9)), 61), Err(Misfit::Ahead { missing: 60..61 }));
        // Restored from a backup: epoch 7 once reached 40, now the positions from 30 on are epoch 8's.
        assert_eq!(at(Some(Epoch(7)), 40), Err(Misfit::Ahead { missing: 30..40 }));
        assert_eq!(at(Some(Epoch(7)), 11), Err(Misfit::Behind { missing: 11..12 }));
        assert_eq!(at(None, 5), Err(Misfit::Behind { missing: 5..12 }));
        assert_eq!(at(None, 12), Ok(12));
        assert_eq!(at(None, 20), Err(Misfit::Ahead { missing: 12..20 }));
    }

    #[test]
    fn every_position_has_its_epoch() {
        assert_eq!(log().epoch_at(29), Some(Span { epoch: Epoch(7), positions: 10..30 }));
        assert_eq!(log().epoch_at(30), Some(Span { epoch: Epoch(8), positions: 30..50 }));
        assert_eq!(log().epoch_at(99).map(|span| span.positions), Some(50..60));
        assert_eq!(log().epoch_at(3), None);
    }
}
