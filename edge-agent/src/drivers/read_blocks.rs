//! Neighbouring points share a read: spans become blocks, within what the protocol allows. Pure.
//!
//! Every point is in exactly one block and whole within it; a block is of one poll group and holds at most
//! [`POINTS_PER_BLOCK_MAX`] points. Which spans may share a read is the protocol's to say.

/// Points of one block: bounds what one answer adds to the readings, however many points share a place.
pub(super) const POINTS_PER_BLOCK_MAX: usize = 2000;

/// A stretch of a device's memory. Spans in order lie in order in memory.
pub(super) trait Stretch: Copy + Ord {
    /// The stretch from this one's beginning to the end of the later ending of both; `other` begins no earlier, and
    /// both lie in one table or area.
    fn with(self, other: Self) -> Self;
}

/// One read and the points that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block<S> {
    /// Poll group.
    pub(super) group: u8,
    /// What is read.
    pub(super) span: S,
    /// The points' spans and numbers, by span.
    pub(super) points: Vec<(S, usize)>,
}

/// The blocks for these points: number, poll group and span of each. `may_share` says of what is read so far and a later
/// span whether one read may serve both.
pub(super) fn blocks<S: Stretch>(
    points: impl Iterator<Item = (usize, u8, S)>,
    may_share: impl Fn(S, S) -> bool,
) -> Vec<Block<S>> {
    let mut points: Vec<(u8, S, usize)> = points.map(|(point, group, span)| (group, span, point)).collect();
    points.sort_unstable();
    let mut blocks: Vec<Block<S>> = Vec::new();
    for (group, span, point) in points {
        match blocks.last_mut() {
            Some(block)
                if block.group == group
                    && block.points.len() < POINTS_PER_BLOCK_MAX
                    && may_share(block.span, span) =>
            {
                block.take(span, point);
            }
            _ => blocks.push(Block { group, span, points: vec![(span, point)] }),
        }
    }
    blocks
}

impl<S: Stretch> Block<S> {
    fn take(&mut self, span: S, point: usize) {
        self.span = self.span.with(span);
        self.points.push((span, point));
    }

    /// Two blocks with half of the points each; `None` if all points have the same span.
    pub(super) fn split(&self) -> Option<[Block<S>; 2]> {
        let middle = self.points.len() / 2;
        let differs = |at: &usize| matches!((self.points.get(at - 1), self.points.get(*at)), (Some((a, _)), Some((b, _))) if a != b);
        let at =
            (middle.max(1)..self.points.len()).find(differs).or_else(|| (1..middle).rev().find(differs))?;
        let (low, high) = self.points.split_at_checked(at)?;
        Some([self.around(low)?, self.around(high)?])
    }

    fn around(&self, points: &[(S, usize)]) -> Option<Block<S>> {
        let (&(span, point), rest) = points.split_first()?;
        let mut block = Block { group: self.group, span, points: vec![(span, point)] };
        for (span, point) in rest {
            block.take(*span, *point);
        }
        Some(block)
    }
}
