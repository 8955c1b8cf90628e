//! Which stretches of memory are read, and how they are packed into requests. Pure.
//!
//! Neighbours become one block; blocks are cut into pieces that fit a PDU, and as many pieces as fit go into one request: by
//! what they ask (12 bytes each) and by what they answer (4 bytes and the data, filled to even), at most 20. A block is longer
//! than a PDU only where a single point is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::read_blocks::{self, Stretch};
use super::telegram::{ITEM_ANSWERED, ITEM_ASKED, ITEMS_MAX, READ_ANSWERED, READ_ASKED, Span};

/// A stretch of one area and the points in it.
pub(super) type Block = read_blocks::Block<Span>;

/// A part of a block that one item asks for.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) block: Arc<Block>,
    pub(super) span: Span,
    /// Whether the block ends with it.
    pub(super) is_last: bool,
}

/// The longest data of one item.
pub(super) fn piece_bytes_max(pdu: u16) -> usize {
    usize::from(pdu).saturating_sub(READ_ANSWERED + ITEM_ANSWERED) & !1
}

impl Stretch for Span {
    fn with(self, other: Span) -> Span {
        Span { count: self.end().max(other.end()) - self.start, ..self }
    }
}

/// The blocks for these points: number, poll group and span of each.
pub(super) fn plan(
    points: impl Iterator<Item = (usize, u8, Span)>,
    pdu: u16,
    gap_max: u32,
) -> Vec<Arc<Block>> {
    let blocks = read_blocks::blocks(points, |read, span| {
        span.area == read.area && span.start <= read.end() + gap_max && {
            let whole = read.with(span);
            whole.bytes() <= piece_bytes_max(pdu) || whole == read
        }
    });
    blocks.into_iter().map(Arc::new).collect()
}

/// The bytes of one of a block's points within what was read of it.
pub(super) fn bytes<'b>(block: &Block, span: Span, bytes: &'b [u8]) -> &'b [u8] {
    let size = if span.area.is_words() { 2 } else { 1 };
    let from = usize::try_from(span.start.saturating_sub(block.span.start)).unwrap_or(usize::MAX);
    bytes.get(from.saturating_mul(size)..).and_then(|rest| rest.get(..span.bytes())).unwrap_or(&[])
}

/// Takes as many pieces as one request holds from the queue; `done` are the elements of its first block that were read before.
pub(super) fn next_request(queue: &mut VecDeque<Arc<Block>>, done: &mut u32, pdu: u16) -> Vec<Piece> {
    let pdu = usize::from(pdu);
    let (mut asked, mut answered, mut pieces) = (READ_ASKED, READ_ANSWERED, Vec::new());
    while let Some(block) = queue.front()
        && pieces.len() < ITEMS_MAX
        && asked + ITEM_ASKED <= pdu
    {
        let left = Span { start: block.span.start + *done, count: block.span.count - *done, ..block.span };
        let size = if left.area.is_words() { 2 } else { 1 };
        let room = pdu.saturating_sub(answered + ITEM_ANSWERED) & !1;
        let fits = u32::try_from(room / size).unwrap_or(u32::MAX);
        // A block that fits a request of its own is not torn apart.
        let is_whole = left.count <= fits;
        let is_long = block.span.bytes() > piece_bytes_max(u16::try_from(pdu).unwrap_or(u16::MAX));
        let may_tear = is_long && pieces.is_empty();
        if fits == 0 || !(is_whole || may_tear) {
            break;
        }
        let span = Span { count: left.count.min(fits), ..left };
        asked += ITEM_ASKED;
        answered += ITEM_ANSWERED + span.bytes().next_multiple_of(2);
        pieces.push(Piece { block: block.clone(), span, is_last: is_whole });
        if is_whole {
            queue.pop_front();
            *done = 0;
        } else {
            *done += span.count;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::telegram::Area;
    use super::*;

    fn any_span() -> impl Strategy<Value = Span> {
        let area =
            prop_oneof![Just(Area::Block(1)), Just(Area::Block(2)), Just(Area::Markers), Just(Area::Timers),];
        (area, 0_u32..2000, prop_oneof![9 => 1_u32..9, 1 => 100_u32..1200])
            .prop_map(|(area, start, count)| Span { area, start, count })
    }

    proptest! {
        #[test]
        fn requests_fit_and_read_every_byte(
            spans in proptest::collection::vec((any_span(), 0_u8..2), 1..120), pdu in 112_u16..=960, gap in 0_u32..40,
        ) {
            let points = spans.iter().enumerate().map(|(nth, (span, group))| (nth, *group, *span));
            let blocks = plan(points, pdu, gap);
            let mut seen: Vec<usize> = blocks.iter().flat_map(|b| b.points.iter().map(|(_, nth)| *nth)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..spans.len()).collect::<Vec<_>>());
            let (mut queue, mut done) = (VecDeque::from(blocks.clone()), 0);
            let mut read: Vec<(Span, u32)> = Vec::new();
            while !queue.is_empty() {
                let pieces = next_request(&mut queue, &mut done, pdu);
                prop_assert!(!pieces.is_empty() && pieces.len() <= ITEMS_MAX);
                let asked = READ_ASKED + ITEM_ASKED * pieces.len();
                let answered: usize = pieces.iter().map(|p| ITEM_ANSWERED + p.span.bytes().next_multiple_of(2)).sum();
                prop_assert!(asked <= usize::from(pdu) && READ_ANSWERED + answered <= usize::from(pdu));
                for piece in pieces {
                    match read.last_mut() {
                        Some((span, end)) if *end < span.end() => {
                            prop_assert_eq!((*span, *end), (piece.block.span, piece.span.start));
                            *end = piece.span.end();
                        }
                        _ => read.push((piece.block.span, piece.span.end())),
                    }
                    prop_assert_eq!(piece.is_last, piece.span.end() == piece.block.span.end());
                }
            }
            let expected: Vec<_> = blocks.iter().map(|block| (block.span, block.span.end())).collect();
            prop_assert_eq!(read, expected);
            for block in &blocks {
                for (span, nth) in &block.points {
                    prop_assert_eq!((*span, block.group), spans[*nth]);
                    prop_assert!(span.start >= block.span.start && span.end() <= block.span.end());
                    let bytes = vec![0; block.span.bytes()];
                    prop_assert_eq!(super::bytes(block, *span, &bytes).len(), span.bytes());
                }
            }
        }
    }
}
