//! The sequence numbers of one session: what is missing, and since when.
//!
//! Messages are taken in whatever order they come (offsets and times put them right); this only decides whether a
//! rebirth has to be asked for. A gap gets [`REORDER`] to close itself. Pure: times are passed in.

use std::time::Duration;

/// How long a message may be overtaken by later ones.
pub(super) const REORDER: Duration = Duration::from_secs(2);

/// Later than this many ahead, a number is taken for a late one.
const AHEAD_MAX: u8 = 128;

/// The sequence of one edge node.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    expected: Option<u8>,
    /// Bit per number that has been skipped.
    missing: [u64; 4],
    /// When the oldest gap is given up.
    deadline: Option<Duration>,
}

impl Sequence {
    /// A birth of the node: everything before is forgotten.
    pub(super) fn begin(&mut self, seq: u8) {
        *self = Sequence { expected: Some(seq.wrapping_add(1)), ..Sequence::default() };
    }

    /// A message's number; `None` (or more than 255) breaks the standard and counts as a gap.
    pub(super) fn take(&mut self, seq: Option<u64>, now: Duration) {
        let Some(expected) = self.expected else { return };
        let Some(seq) = seq.and_then(|seq| u8::try_from(seq).ok()) else { return self.gap(now) };
        let ahead = seq.wrapping_sub(expected);
        if ahead <= AHEAD_MAX {
            for skipped in 0..ahead {
                self.set(expected.wrapping_add(skipped), true);
            }
            self.expected = Some(seq.wrapping_add(1));
            if ahead > 0 {
                self.gap(now);
            }
        } else if self.has(seq) {
            self.set(seq, false);
            if self.missing == [0; 4] {
                self.deadline = None;
            }
        } else {
            self.gap(now); // the node counts in its own way, or a message came twice
        }
    }

    /// Whether a gap has stayed open too long; says so once.
    pub(super) fn is_broken(&mut self, now: Duration) -> bool {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return false;
        }
        self.deadline = None;
        self.missing = [0; 4];
        true
    }

    fn gap(&mut self, now: Duration) {
        self.deadline.get_or_insert(now + REORDER);
    }

    fn set(&mut self, seq: u8, missing: bool) {
        if let Some(word) = self.missing.get_mut(usize::from(seq / 64)) {
            let bit = 1 << (seq % 64);
            *word = if missing { *word | bit } else { *word & !bit };
        }
    }

    fn has(&self, seq: u8) -> bool {
        self.missing.get(usize::from(seq / 64)).is_some_and(|word| word & 1 << (seq % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(10);

    fn after(numbers: &[u64]) -> Sequence {
        let mut sequence = Sequence::default();
        sequence.begin(0);
        numbers.iter().for_each(|seq| sequence.take(Some(*seq), Duration::ZERO));
        sequence
    }

    #[test]
    fn a_whole_sequence_is_never_broken() {
        let numbers: Vec<u64> = (1..1000).map(|n| n % 256).collect();
        assert!(!after(&numbers).is_broken(LATER));
    }

    #[test]
    fn a_gap_is_broken_after_the_time_for_reordering_and_once() {
        let mut sequence = after(&[1, 2, 4, 5]);
        assert!(!sequence.is_broken(REORDER / 2));
        assert!(sequence.is_broken(REORDER));
        assert!(!sequence.is_broken(LATER));
    }

    #[test]
    fn what_was_overtaken_closes_the_gap() {
        assert!(!after(&[1, 4, 3, 2, 5]).is_broken(LATER));
        assert!(after(&[1, 4, 3, 5]).is_broken(LATER));
        assert!(!after(&[250, 249].map(|n| n % 256)).is_broken(REORDER / 2));
    }

    #[test]
    fn repeats_and_missing_numbers_are_gaps() {
        assert!(after(&[1, 1]).is_broken(LATER));
        assert!(after(&[300]).is_broken(LATER));
        let mut sequence = after(&[1]);
        sequence.take(None, Duration::ZERO);
        assert!(sequence.is_broken(LATER));
    }
}
