//! The number of a record in a log.

use std::fmt;

/// Number of a record over the whole log, across segments and epochs: dense from 0, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The first position of a new log.
    pub const ZERO: Position = Position(0);

    /// The position `records` further.
    #[must_use]
    pub const fn plus(self, records: u64) -> Position {
        Position(self.0 + records)
    }

    /// The following position.
    #[must_use]
    pub const fn next(self) -> Position {
        self.plus(1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
