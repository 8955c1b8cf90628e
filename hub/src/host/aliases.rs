//! From aliases to metrics, without hashing and without memory that a hostile birth could choose.
//!
//! Our agents number their points, so the aliases of a device lie close together: a table by `alias - lowest`. Where
//! they do not, a sorted list.

/// A table may be this many times larger than the number of aliases in it.
const SPARSE_MAX: u64 = 4;
/// ... and this much larger anyhow.
const SPARSE_FREE: u64 = 64;
const NONE: u32 = u32::MAX;
const AMBIGUOUS: u32 = u32::MAX - 1;

/// What an alias means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The metric of this number.
    Metric(u32),
    /// Two metrics claim it.
    Ambiguous,
    /// None does.
    Unknown,
}

/// Aliases of one device. Numbers of metrics are below 2^32 - 2.
#[derive(Clone, Debug, Default)]
pub(super) struct Aliases {
    lowest: u64,
    table: Vec<u32>,
    sorted: Vec<(u64, u32)>,
}

impl Aliases {
    /// From pairs of alias and metric; returns how many aliases are ambiguous.
    pub(super) fn new(mut pairs: Vec<(u64, u32)>) -> (Self, usize) {
        pairs.sort_unstable();
        pairs.dedup();
        let mut ambiguous = 0;
        pairs.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same && kept.1 != AMBIGUOUS {
                kept.1 = AMBIGUOUS;
                ambiguous += 1;
            }
            same
        });
        let (Some((lowest, _)), Some((highest, _))) = (pairs.first().copied(), pairs.last().copied()) else {
            return (Self::default(), 0);
        };
        let span = (highest - lowest).saturating_add(1);
        if span > pairs.len() as u64 * SPARSE_MAX + SPARSE_FREE {
            pairs.shrink_to_fit();
            return (Aliases { sorted: pairs, ..Self::default() }, ambiguous);
        }
        let mut table = vec![NONE; usize::try_from(span).unwrap_or(0)];
        for (alias, metric) in pairs {
            if let Some(slot) = usize::try_from(alias - lowest).ok().and_then(|at| table.get_mut(at)) {
                *slot = metric;
            }
        }
        (Aliases { lowest, table, sorted: Vec::new() }, ambiguous)
    }

    /// What the alias means.
    pub(super) fn get(&self, alias: u64) -> Meaning {
        let found = if self.sorted.is_empty() {
            let at = alias.checked_sub(self.lowest).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| self.table.get(at)).copied()
        } else {
            let at = self.sorted.binary_search_by_key(&alias, |(alias, _)| *alias);
            at.ok().and_then(|at| self.sorted.get(at)).map(|(_, metric)| *metric)
        };
        match found {
            None | Some(NONE) => Meaning::Unknown,
            Some(AMBIGUOUS) => Meaning::Ambiguous,
            Some(metric) => Meaning::Metric(metric),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_and_sparse_aliases_mean_the_same() {
        for step in [1, 3, 1 << 40] {
            let pairs: Vec<(u64, u32)> = (0..100).map(|n| (7 + u64::from(n) * step, n)).collect();
            let (aliases, ambiguous) = Aliases::new(pairs.clone());
            assert_eq!(ambiguous, 0);
            assert!(pairs.iter().all(|(alias, metric)| aliases.get(*alias) == Meaning::Metric(*metric)));
            assert_eq!(aliases.get(6), Meaning::Unknown);
            assert_eq!(aliases.get(u64::MAX), Meaning::Unknown);
        }
        assert_eq!(Aliases::default().get(0), Meaning::Unknown);
    }

    #[test]
    fn an_alias_of_two_metrics_is_ambiguous_and_of_one_twice_is_not() {
        let (aliases, ambiguous) =
            Aliases::new(vec![(1, 0), (1, 1), (1, 2), (2, 3), (2, 3), (u64::MAX, 4), (0, 5)]);
        assert_eq!(ambiguous, 1);
        assert_eq!(aliases.get(1), Meaning::Ambiguous);
        assert_eq!(aliases.get(2), Meaning::Metric(3));
        assert_eq!(aliases.get(u64::MAX), Meaning::Metric(4));
    }
}
