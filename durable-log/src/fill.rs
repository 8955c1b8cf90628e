//! How full a log is, told before it is full: by its bound or by its disk, whichever is nearer.

use std::fmt;

/// How full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Of the log's bound, in percent.
    pub of_bound: u8,
    /// Of what the disk may hold before the log stops, in percent; other files count too.
    pub of_disk: u8,
}

/// From here on somebody should look.
pub const FILLING_PERCENT: u8 = 80;
/// From here on somebody must.
pub const NEARLY_FULL_PERCENT: u8 = 90;
/// A level is left only so far below it: a figure at the line shall not flicker.
const BACK_PERCENT: u8 = 2;

/// What the percentages mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Room enough.
    #[default]
    Good,
    /// [`FILLING_PERCENT`] or more.
    Filling,
    /// [`NEARLY_FULL_PERCENT`] or more.
    NearlyFull,
}

impl Fill {
    /// Of `used` and `bound` bytes of the log; `free` bytes of the disk's `total` (if known), of which `reserve` are left
    /// to others.
    #[must_use]
    pub fn of(used: u64, bound: u64, free: u64, total: Option<u64>, reserve: u64) -> Fill {
        let of_disk = match total {
            Some(total) if total > reserve => percent(total.saturating_sub(free), total - reserve),
            _ => 0,
        };
        Fill { of_bound: percent(used, bound), of_disk }
    }

    /// The higher of both.
    #[must_use]
    pub fn percent(self) -> u8 {
        self.of_bound.max(self.of_disk)
    }

    /// The level now, given the one before.
    #[must_use]
    pub fn level(self, before: Level) -> Level {
        let percent = self.percent();
        let reached =
            |line: u8, level: Level| percent >= if before >= level { line - BACK_PERCENT } else { line };
        if reached(NEARLY_FULL_PERCENT, Level::NearlyFull) {
            Level::NearlyFull
        } else if reached(FILLING_PERCENT, Level::Filling) {
            Level::Filling
        } else {
            Level::Good
        }
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.of_disk >= self.of_bound {
            write!(f, "{} % of the disk is used (without the reserve)", self.of_disk)
        } else {
            write!(f, "{} % of its bound is used", self.of_bound)
        }
    }
}

fn percent(part: u64, whole: u64) -> u8 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u8::try_from(percent.min(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_before_the_end_and_do_not_flicker() {
        let fill = |percent| Fill { of_bound: percent, of_disk: 3 };
        assert_eq!(fill(79).level(Level::Good), Level::Good);
        assert_eq!(fill(80).level(Level::Good), Level::Filling);
        assert_eq!(fill(79).level(Level::Filling), Level::Filling);
        assert_eq!(fill(77).level(Level::Filling), Level::Good);
        assert_eq!(fill(90).level(Level::Filling), Level::NearlyFull);
        assert_eq!(fill(88).level(Level::NearlyFull), Level::NearlyFull);
        assert_eq!(fill(87).level(Level::NearlyFull), Level::Filling);
    }

    #[test]
    fn the_reserve_is_not_room() {
        assert_eq!(Fill::of(0, 100, 60, Some(100), 50), Fill { of_bound: 0, of_disk: 80 });
        assert_eq!(Fill::of(85, 100, 1, None, 0), Fill { of_bound: 85, of_disk: 0 });
        assert_eq!(Fill::of(u64::MAX, 1, 0, Some(10), 10).percent(), 100);
    }
}
