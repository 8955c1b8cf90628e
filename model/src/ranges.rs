//! A set of numbers kept as half-open ranges: which offsets somebody holds.
//!
//! Ranges are sorted, disjoint and never touch, so that equal sets are equal values.

use std::fmt;
use std::ops::Range;

/// Sorted, disjoint, non-touching, non-empty half-open ranges of `u64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range<u64>>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        RangeSet { ranges: Vec::new() }
    }

    /// The set of one range; empty if the range is.
    #[must_use]
    pub fn of(range: Range<u64>) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }

    /// Adds a range; returns how many numbers were new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        // The common case: the next number after all the others.
        if let Some(last) = self.ranges.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return range.end - range.start;
        }
        let first = self.ranges.partition_point(|r| r.end < range.start);
        let end = self.ranges.partition_point(|r| r.start <= range.end);
        let touched = &self.ranges[first..end];
        let known: u64 = touched.iter().map(|r| overlap(r, &range)).sum();
        let start = touched.first().map_or(range.start, |r| r.start.min(range.start));
        let stop = touched.last().map_or(range.end, |r| r.end.max(range.end));
        self.ranges.splice(first..end, std::iter::once(start..stop));
        (range.end - range.start) - known
    }

    /// Adds one number; whether it was new.
    pub fn insert_one(&mut self, number: u64) -> bool {
        self.insert(number..number + 1) == 1
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        let end = self.ranges.partition_point(|r| r.start < range.end);
        let mut kept = Vec::new();
        for r in &self.ranges[first..end] {
            if r.start < range.start {
                kept.push(r.start..range.start);
            }
            if r.end > range.end {
                kept.push(range.end..r.end);
            }
        }
        self.ranges.splice(first..end, kept);
    }

    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let at = self.ranges.partition_point(|r| r.end <= number);
        self.ranges.get(at).is_some_and(|r| r.start <= number)
    }

    /// Whether the whole range is in the set; an empty range always is.
    #[must_use]
    pub fn contains_range(&self, range: &Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let at = self.ranges.partition_point(|r| r.end <= range.start);
        self.ranges.get(at).is_some_and(|r| r.start <= range.start && r.end >= range.end)
    }

    /// What of `within` is not in the set, in order.
    #[must_use]
    pub fn missing(&self, within: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = within.start;
        let first = self.ranges.partition_point(|r| r.end <= within.start);
        for r in self.ranges.iter().skip(first) {
            if r.start >= within.end {
                break;
            }
            if r.start > at {
                gaps.push(at..r.start);
            }
            at = r.end;
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        gaps
    }

    /// The end of the range that starts at `from`; `from` itself if it is not in the set.
    #[must_use]
    pub fn contiguous_end(&self, from: u64) -> u64 {
        let at = self.ranges.partition_point(|r| r.end <= from);
        self.ranges.get(at).filter(|r| r.start <= from).map_or(from, |r| r.end)
    }

    /// How many numbers the set holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// One past the highest number; 0 if empty.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |r| r.end)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// Adds every range of the other set.
    pub fn extend(&mut self, other: &RangeSet) {
        for range in other.iter() {
            self.insert(range);
        }
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, range) in self.ranges.iter().enumerate() {
            if nth > 0 {
                f.write_str(", ")?;
            }
            write!(f, "[{}, {})", range.start, range.end)?;
        }
        if self.ranges.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_set_of_numbers() {
        // A small generator instead of a dependency: this crate is std only.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for _ in 0..300 {
            let (mut set, mut oracle) = (RangeSet::new(), BTreeSet::new());
            for _ in 0..40 {
                let start = random(60);
                let range = start..start + random(8);
                if random(4) == 0 {
                    set.remove(range.clone());
                    range.for_each(|n| {
                        oracle.remove(&n);
                    });
                } else {
                    let fresh = range.clone().filter(|n| oracle.insert(*n)).count() as u64;
                    assert_eq!(set.insert(range), fresh);
                }
                let from = random(60);
                let numbers: Vec<u64> = set.iter().flatten().collect();
                assert_eq!(numbers, oracle.iter().copied().collect::<Vec<_>>());
                assert!(set.iter().zip(set.iter().skip(1)).all(|(a, b)| a.end < b.start));
                assert!((0..70).all(|n| set.contains(n) == oracle.contains(&n)));
                let missing: Vec<u64> = set.missing(from..from + 20).into_iter().flatten().collect();
                assert_eq!(missing, (from..from + 20).filter(|n| !oracle.contains(n)).collect::<Vec<_>>());
                assert_eq!(set.count(), oracle.len() as u64);
                let end = (from..).find(|n| !oracle.contains(n)).unwrap();
                assert_eq!(set.contiguous_end(from), end);
                assert_eq!(
                    set.contains_range(&(from..from + 3)),
                    (from..from + 3).all(|n| oracle.contains(&n))
                );
            }
        }
    }
}
