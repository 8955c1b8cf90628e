//! Which requests read all points of a device: neighbours are merged, within the device's limits. Pure.
//!
//! Invariants (a property test holds them): every point is in exactly one block and whole within it; a block is of one
//! poll group and one table, no longer than the limit, holds at most `POINTS_PER_BLOCK_MAX` points, and no gap in it is longer than
//! allowed.

use super::super::read_blocks::{self, Stretch};
use super::address::{Span, Table};

/// How much one request may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Registers of one request.
    pub(super) registers_max: u16,
    /// Coils or discrete inputs of one request.
    pub(super) bits_max: u16,
    /// Registers that nobody asked for between two that somebody did; bits may be 16 times as many.
    pub(super) gap_max: u16,
}

impl Limits {
    const fn cells_max(self, table: Table) -> u32 {
        if table.is_bits() { self.bits_max as u32 } else { self.registers_max as u32 }
    }

    const fn gap_max(self, table: Table) -> u32 {
        if table.is_bits() { self.gap_max as u32 * 16 } else { self.gap_max as u32 }
    }
}

/// One request and the points that it serves.
pub(super) type Block = read_blocks::Block<Span>;

impl Stretch for Span {
    fn with(self, other: Span) -> Span {
        let cells = self.end().max(other.end()) - u32::from(self.start);
        Span { count: u16::try_from(cells).unwrap_or(u16::MAX), ..self } // at most cells_max, which is a u16
    }
}

/// The blocks for these points: number, poll group and span of each.
pub(super) fn plan(points: impl Iterator<Item = (usize, u8, Span)>, limits: Limits) -> Vec<Block> {
    read_blocks::blocks(points, |read, span| {
        let end = read.end().max(span.end());
        span.table == read.table
            && u32::from(span.start) <= read.end() + limits.gap_max(span.table)
            && end - u32::from(read.start) <= limits.cells_max(span.table)
    })
}

/// The cells of one of a block's points within what was read.
pub(super) fn cells<'c>(block: &Block, span: Span, cells: &'c [u16]) -> &'c [u16] {
    let from = usize::from(span.start.saturating_sub(block.span.start));
    cells.get(from..from + usize::from(span.count)).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn registers(start: u16, count: u16) -> Span {
        Span { table: Table::HoldingRegisters, start, count }
    }

    fn plan(spans: impl Iterator<Item = Span>, limits: Limits) -> Vec<Block> {
        super::plan(spans.enumerate().map(|(nth, span)| (nth, 0, span)), limits)
    }

    const LIMITS: Limits = Limits { registers_max: 125, bits_max: 2000, gap_max: 8 };

    #[test]
    fn neighbours_share_a_request() {
        let spans = [registers(0, 2), registers(2, 2), registers(12, 1), registers(22, 1), registers(0, 1)];
        let blocks = plan(spans.into_iter(), LIMITS);
        assert_eq!(blocks.iter().map(|b| b.span).collect::<Vec<_>>(), [registers(0, 13), registers(22, 1)]);
        assert_eq!(blocks[0].points.iter().map(|(_, point)| *point).collect::<Vec<_>>(), [4, 0, 1, 2]);
    }

    #[test]
    fn groups_are_read_apart() {
        let points = [(0, 1, registers(0, 1)), (1, 0, registers(1, 1)), (2, 1, registers(2, 1))];
        let blocks = super::plan(points.into_iter(), LIMITS);
        let read: Vec<_> = blocks.iter().map(|block| (block.group, block.span)).collect();
        assert_eq!(read, [(0, registers(1, 1)), (1, registers(0, 3))]);
    }

    #[test]
    fn a_split_keeps_equal_spans_together() {
        let blocks = plan([registers(0, 1), registers(0, 1), registers(0, 1)].into_iter(), LIMITS);
        assert_eq!(blocks[0].split(), None);
        let blocks =
            plan([registers(0, 1), registers(0, 1), registers(0, 1), registers(1, 1)].into_iter(), LIMITS);
        let [low, high] = blocks[0].split().unwrap();
        assert_eq!((low.points.len(), high.span), (3, registers(1, 1)));
    }

    fn any_span() -> impl Strategy<Value = Span> {
        (0_usize..4, any::<u16>(), 1_u16..=4).prop_map(|(table, start, count)| {
            let table = Table::ALL[table].0;
            let count = if table.is_bits() { 1 } else { count };
            Span { table, start: (start % 700).min(u16::MAX - count + 1), count }
        })
    }

    /// Whether blocks hold every invariant for the spans of some of the points.
    fn check(blocks: &[Block], spans: &[Span], limits: Limits, gaps: bool) {
        let mut seen: Vec<usize> =
            blocks.iter().flat_map(|b| b.points.iter().map(|(_, point)| *point)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..spans.len()).collect::<Vec<_>>());
        for block in blocks {
            assert!(u32::from(block.span.count) <= limits.cells_max(block.span.table));
            assert!(block.points.len() <= read_blocks::POINTS_PER_BLOCK_MAX);
            let mut covered = u32::from(block.span.start);
            for (span, point) in &block.points {
                assert_eq!((*span, span.table), (spans[*point], block.span.table));
                assert!(span.start >= block.span.start && span.end() <= block.span.end());
                assert!(!gaps || u32::from(span.start) <= covered + limits.gap_max(span.table));
                covered = covered.max(span.end());
                let cells: Vec<u16> = (0..block.span.count).map(|n| block.span.start + n).collect();
                let expected: Vec<u16> = (0..span.count).map(|n| span.start + n).collect();
                assert_eq!(super::cells(block, *span, &cells), expected);
            }
            assert_eq!(covered, block.span.end());
        }
    }

    proptest! {
        #[test]
        fn plans_hold_their_invariants(
            spans in proptest::collection::vec(any_span(), 0..300),
            registers_max in 4_u16..=125, bits_max in 1_u16..=2000, gap_max in 0_u16..20,
        ) {
            let limits = Limits { registers_max, bits_max, gap_max };
            let mut blocks = plan(spans.iter().copied(), limits);
            check(&blocks, &spans, limits, true);
            // Splitting to the end leaves only blocks whose points share one span.
            while let Some((at, halves)) = blocks.iter().enumerate().find_map(|(at, b)| Some((at, b.split()?))) {
                blocks.splice(at..=at, halves);
            }
            check(&blocks, &spans, limits, true);
            for block in &blocks {
                assert!(block.points.iter().all(|(span, _)| *span == block.span));
            }
        }
    }
}
