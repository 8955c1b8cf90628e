//! Who reads for which sink: one bridge at a time, so that two that were started by mistake do not both move one cursor.
//!
//! A bridge names itself in each request of the feed. Its seat is its own as long as it asks; another one is refused until
//! it has been silent for [`SILENCE_MAX`]. This is a guard against mistakes and what people see; that the rows count once
//! is the table's promise, also where two bridges write it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A bridge that has not asked for so long has given its seat up. A bridge asks every few seconds, but not while it writes.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A bridge's name for itself, and what it says of its trouble.
pub(crate) const TEXT_BYTES_MAX: usize = 500;
/// Sinks known at most.
const SEATS_MAX: usize = 1000;

/// Who sits where, by sink.
#[derive(Debug, Default)]
pub(crate) struct Seats(BTreeMap<String, Seat>);

/// One sink's reader.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// As it names itself.
    pub(crate) holder: String,
    /// What keeps it from its target, in its own words.
    pub(crate) alarm: Option<String>,
    seen: Instant,
}

/// Somebody else has the seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Who.
    pub(crate) holder: String,
    /// When it last asked.
    pub(crate) seen_s_ago: u64,
}

impl Seats {
    /// Takes or keeps the seat.
    pub(crate) fn take(
        &mut self,
        sink: &str,
        holder: &str,
        alarm: Option<&str>,
        now: Instant,
    ) -> Result<(), Taken> {
        if let Some(seat) = self.0.get(sink) {
            let silent = now.saturating_duration_since(seat.seen);
            if seat.holder != holder && silent < SILENCE_MAX {
                return Err(Taken { holder: seat.holder.clone(), seen_s_ago: silent.as_secs() });
            }
        } else if self.0.len() >= SEATS_MAX {
            self.0.retain(|_, seat| now.saturating_duration_since(seat.seen) < SILENCE_MAX);
        }
        let seat = Seat { holder: holder.to_owned(), alarm: alarm.map(str::to_owned), seen: now };
        if self.0.len() < SEATS_MAX || self.0.contains_key(sink) {
            self.0.insert(sink.to_owned(), seat);
        }
        Ok(())
    }

    /// Who has the seat, if anybody has asked of late.
    pub(crate) fn of(&self, sink: &str, now: Instant) -> Option<Seat> {
        self.0.get(sink).filter(|seat| now.saturating_duration_since(seat.seen) < SILENCE_MAX).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_next_after_a_silence() {
        let (mut seats, start) = (Seats::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(seats.take("lake", "a", None, at(0)), Ok(()));
        assert_eq!(seats.take("lake", "a", Some("no space"), at(50)), Ok(()));
        let taken = Taken { holder: "a".to_owned(), seen_s_ago: 59 };
        assert_eq!(seats.take("lake", "b", None, at(109)), Err(taken));
        assert_eq!(seats.of("lake", at(60)).unwrap().alarm.as_deref(), Some("no space"));
        assert_eq!(seats.take("other", "b", None, at(109)), Ok(()));
        assert_eq!(seats.take("lake", "b", None, at(110)), Ok(()));
        assert!(seats.take("lake", "a", None, at(111)).is_err());
        assert!(seats.of("lake", at(200)).is_none());
    }
}
