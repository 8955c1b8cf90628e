//! Points in time: microseconds since 1970-01-01 UTC, without a clock.

use std::fmt;

/// Microseconds since 1970-01-01T00:00:00 UTC; negative before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

const MICROS_PER_DAY: i64 = 86_400_000_000;

impl Timestamp {
    /// 1990-01-01: earlier source times are Uncertain and take the arrival day (design §10).
    pub const PLAUSIBLE_MIN: Timestamp = Timestamp(631_152_000_000_000);
    /// 2100-01-01, exclusive: see [`Timestamp::PLAUSIBLE_MIN`].
    pub const PLAUSIBLE_END: Timestamp = Timestamp(4_102_444_800_000_000);

    /// From milliseconds since the Unix epoch; saturates.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Timestamp(millis.saturating_mul(1000))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch, rounded towards the past.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// What [`Timestamp::millis`] leaves out: 0 to 999 µs.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "0..1000 fits")]
    pub const fn micros_of_milli(self) -> u16 {
        self.0.rem_euclid(1000) as u16
    }

    /// Days since 1970-01-01 (UTC), rounded towards the past: the partition `day` of a table.
    #[must_use]
    pub const fn day(self) -> i64 {
        self.0.div_euclid(MICROS_PER_DAY)
    }

    /// Whether the time is one that a plant can mean: 1990 to 2099.
    #[must_use]
    pub const fn is_plausible(self) -> bool {
        self.0 >= Self::PLAUSIBLE_MIN.0 && self.0 < Self::PLAUSIBLE_END.0
    }

    /// Microseconds from `earlier` to `self`; negative if `earlier` is later; saturates.
    #[must_use]
    pub const fn micros_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// ISO 8601 in UTC with microseconds: `2026-11-22T05:53:00.000000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.day());
        let micros = self.0.rem_euclid(MICROS_PER_DAY);
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if (0..10_000).contains(&year) {
            write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
        } else {
            write!(f, "{year:+}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
        }
    }
}

/// Year, month and day of a number of days since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year.
#[must_use]
pub const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(146_097); // 400 years
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_iso_8601_with_microseconds() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp(1_709_164_800_123_456).to_string(), "2024-02-29T00:00:00.123456Z");
        assert_eq!(Timestamp::PLAUSIBLE_MIN.to_string(), "1990-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::PLAUSIBLE_END.to_string(), "2100-01-01T00:00:00.000000Z");
        assert!(Timestamp(i64::MIN).to_string().starts_with("-29"));
    }

    #[test]
    fn milliseconds_round_towards_the_past() {
        assert_eq!((Timestamp(-1).millis(), Timestamp(-1).micros_of_milli()), (-1, 999));
        assert_eq!((Timestamp(1_001).millis(), Timestamp(1_001).micros_of_milli()), (1, 1));
    }
}
