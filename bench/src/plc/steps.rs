//! What the points of the measured device show, and what a subscriber has seen of it.
//!
//! Each point is a counter of its own steps. In [`Steps`] a register's step follows from the clock alone, so server and
//! subscriber need no word between them; the same step seen again is a repetition, one that never comes is a loss.

use std::time::{Duration, Instant};

/// Registers that step one after the other, each as often as the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    base: Instant,
    period_us: u64,
}

impl Steps {
    pub(super) fn new(period: Duration) -> Steps {
        Steps { base: Instant::now(), period_us: micros(period).max(1) }
    }

    pub(super) fn now_us(&self) -> u64 {
        micros(self.base.elapsed())
    }

    /// The step that `point` shows at a time; 0 before its first.
    pub(super) fn at(&self, point: usize, time_us: u64) -> u64 {
        (time_us + self.period_us - self.phase(point)) / self.period_us
    }

    /// When a step from 1 on began.
    pub(super) fn began(&self, point: usize, step: u64) -> u64 {
        self.phase(point) + step.saturating_sub(1) * self.period_us
    }

    /// Phases are spread evenly over the period, and neighbours are far apart.
    fn phase(&self, point: usize) -> u64 {
        const FAR: u64 = 7_919;
        const PLACES: u64 = 10_007;
        (point as u64 * FAR % PLACES) * self.period_us / PLACES
    }

    /// The step of which a 16-bit register shows the lower half: the newest one that has begun.
    pub(super) fn of_register(&self, point: usize, register: u16, time_us: u64) -> u64 {
        let newest = self.at(point, time_us);
        let low = u16::try_from(newest % (1 << 16)).unwrap_or(0);
        newest.saturating_sub(u64::from(low.wrapping_sub(register)))
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Which steps of which points were seen, once or more often.
#[derive(Debug)]
pub(super) struct Seen {
    /// A bit per step, a list per point.
    bits: Vec<Vec<u64>>,
    points_seen: usize,
    repeated: u64,
}

impl Seen {
    pub(super) fn new(points: usize) -> Seen {
        Seen { bits: vec![Vec::new(); points], points_seen: 0, repeated: 0 }
    }

    /// Whether this is the first sight of the step.
    pub(super) fn is_new(&mut self, point: usize, step: u64) -> bool {
        let Some(bits) = self.bits.get_mut(point) else { return false };
        if bits.is_empty() {
            self.points_seen += 1;
        }
        let (word, bit) = (usize::try_from(step / 64).unwrap_or(0), 1 << (step % 64));
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        let is_new = bits[word] & bit == 0;
        bits[word] |= bit;
        self.repeated += u64::from(!is_new);
        is_new
    }

    /// Whether every point was seen at all.
    pub(super) fn is_complete(&self) -> bool {
        self.points_seen == self.bits.len()
    }

    pub(super) fn points_seen(&self) -> usize {
        self.points_seen
    }

    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// How many of these steps of `point` were never seen.
    pub(super) fn missing(&self, point: usize, steps: std::ops::Range<u64>) -> u64 {
        let has = |step: &u64| {
            let word = usize::try_from(step / 64).ok().and_then(|word| self.bits.get(point)?.get(word));
            word.is_some_and(|word| word & 1 << (step % 64) != 0)
        };
        steps.filter(|step| !has(step)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_begins_where_the_one_before_ends() {
        let steps = Steps::new(Duration::from_millis(500));
        for point in [0, 1, 2, 777, 9_999] {
            for step in [1, 2, 70_000] {
                let began = steps.began(point, step);
                assert_eq!(steps.at(point, began), step);
                assert_eq!(steps.at(point, began + 499_999), step);
                let low = u16::try_from(step % 65_536).unwrap();
                assert_eq!(steps.of_register(point, low, began + 1_200_000), step, "two steps late");
            }
        }
    }

    #[test]
    fn what_was_not_seen_is_missing_and_what_was_seen_twice_is_repeated() {
        let mut seen = Seen::new(2);
        for step in [3, 4, 5, 64, 4] {
            seen.is_new(0, step);
        }
        assert!(!seen.is_complete() && !seen.is_new(0, 3) && seen.is_new(1, 0) && seen.is_complete());
        assert_eq!((seen.missing(0, 3..6), seen.missing(0, 3..66), seen.missing(1, 0..4)), (0, 59, 3));
        assert_eq!(seen.repeated(), 2);
    }
}
