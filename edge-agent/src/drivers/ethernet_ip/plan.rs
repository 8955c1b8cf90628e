//! Which elements are read together, and how reads are packed into messages. Pure.
//!
//! Neighbours in an array become one block; as many blocks as a message holds go out as one: by what they ask (path and
//! head) and by what they answer (head and data). A block is longer than a message only where a single point is; how long the
//! data is, is known for certain only when it was read.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::read_blocks::{self, Stretch};
use super::cip::{EACH, READ_ANSWERED, READ_ASKED, SEVERAL_ANSWERED, SEVERAL_ASKED};

/// Elements of one tag, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) tag: usize,
    /// Bytes of an element, as far as its points know.
    pub(super) unit: u16,
    /// First element; 0 where there is no index.
    pub(super) start: u32,
    /// How many, at least 1.
    pub(super) count: u16,
}

impl Span {
    const fn end(self) -> u32 {
        self.start.saturating_add(self.count as u32)
    }

    /// Bytes of its data, as far as its points know.
    pub(super) fn bytes(self) -> usize {
        usize::from(self.count) * usize::from(self.unit)
    }
}

impl Stretch for Span {
    fn with(self, other: Span) -> Span {
        let count = self.end().max(other.end()) - self.start;
        Span { count: u16::try_from(count).unwrap_or(u16::MAX), ..self }
    }
}

/// Some elements of a tag and the points in them.
pub(super) type Block = read_blocks::Block<Span>;

/// The longest data of one read among several.
pub(super) const fn data_bytes_max(room: usize) -> usize {
    room.saturating_sub(SEVERAL_ANSWERED + EACH + READ_ANSWERED)
}

/// The blocks for these points: number, poll group and span of each.
pub(super) fn plan(
    points: impl Iterator<Item = (usize, u8, Span)>,
    room: usize,
    gap_max: u32,
) -> Vec<Arc<Block>> {
    let blocks = read_blocks::blocks(points, |read, span| {
        read.tag == span.tag
            && read.unit == span.unit
            && span.start <= read.end().saturating_add(gap_max)
            && {
                let count = read.end().max(span.end()) - read.start;
                let whole = read.with(span);
                whole == read || (count <= u16::MAX.into() && whole.bytes() <= data_bytes_max(room))
            }
    });
    blocks.into_iter().map(Arc::new).collect()
}

/// Takes as many blocks as one message holds from the queue, at least one, with at most so many points if there are more;
/// `path` is how long a block's path is.
pub(super) fn next_request(
    queue: &mut VecDeque<Arc<Block>>,
    room: usize,
    points_max: usize,
    path: impl Fn(Span) -> usize,
) -> Vec<Arc<Block>> {
    let (mut asked, mut answered, mut points, mut taken) = (SEVERAL_ASKED, SEVERAL_ANSWERED, 0, Vec::new());
    while let Some(block) = queue.front() {
        asked += EACH + READ_ASKED + path(block.span);
        answered += EACH + READ_ANSWERED + block.span.bytes();
        points += block.points.len();
        if !taken.is_empty() && (asked > room || answered > room || points > points_max) {
            break;
        }
        taken.extend(queue.pop_front());
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_span() -> impl Strategy<Value = Span> {
        (
            0_usize..4,
            prop_oneof![Just(1_u16), Just(4), Just(88)],
            0_u32..3000,
            prop_oneof![9 => Just(1_u16), 1 => 1_u16..600],
        )
            .prop_map(|(tag, unit, start, count)| Span { tag, unit, start, count })
    }

    proptest! {
        #[test]
        fn messages_fit_and_every_point_is_read(
            spans in proptest::collection::vec((any_span(), 0_u8..2), 1..150), room in 200_usize..4000, gap in 0_u32..30,
        ) {
            let points = spans.iter().enumerate().map(|(nth, (span, group))| (nth, *group, *span));
            let blocks = plan(points, room, gap);
            let mut seen: Vec<usize> = blocks.iter().flat_map(|b| b.points.iter().map(|(_, nth)| *nth)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..spans.len()).collect::<Vec<_>>());
            for block in &blocks {
                for (span, nth) in &block.points {
                    prop_assert_eq!((*span, block.group), spans[*nth]);
                    prop_assert!(span.start >= block.span.start && span.end() <= block.span.end());
                }
                let longest = block.points.iter().map(|(span, _)| span.bytes()).max().unwrap();
                prop_assert!(block.span.bytes() <= data_bytes_max(room).max(longest));
            }
            let (mut queue, mut read) = (VecDeque::from(blocks.clone()), Vec::new());
            while !queue.is_empty() {
                let taken = next_request(&mut queue, room, 40, |_| 30);
                let asked = SEVERAL_ASKED + taken.len() * (EACH + READ_ASKED + 30);
                let answered: usize = taken.iter().map(|b| EACH + READ_ANSWERED + b.span.bytes()).sum();
                prop_assert!(taken.len() == 1 || taken.iter().map(|b| b.points.len()).sum::<usize>() <= 40);
                prop_assert!(!taken.is_empty());
                prop_assert!(taken.len() == 1 || (asked <= room && SEVERAL_ANSWERED + answered <= room));
                read.extend(taken);
            }
            prop_assert_eq!(read, blocks);
        }
    }
}
