//! When which group of a device's points is read: each group's polls lie on a grid of its own.
//!
//! Grids do not drift; a poll that could not be kept is counted, not made up for. All groups are due when a connection
//! is new. Pure but for the time that it is told.

use std::time::Duration;

use tokio::time::Instant;

use crate::drivers::Groups;

/// The grids of one connection.
#[derive(Debug)]
pub(super) struct Schedule {
    grids: Vec<Grid>,
}

#[derive(Debug)]
struct Grid {
    group: u8,
    poll: Duration,
    next: Instant,
}

impl Schedule {
    /// All groups are due at `now`.
    pub(super) fn new(polls: &[(u8, Duration)], now: Instant) -> Schedule {
        let grid = |(group, poll): &(u8, Duration)| Grid { group: *group, poll: *poll, next: now };
        Schedule { grids: polls.iter().map(grid).collect() }
    }

    /// When something is due next; far away if nothing ever is.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let never = now + Duration::from_secs(86_400);
        self.grids.iter().map(|grid| grid.next).min().unwrap_or(never)
    }

    /// The groups that are due at `now`, and how many of their polls were missed before.
    pub(super) fn take(&mut self, now: Instant) -> (Groups, u64) {
        let (mut due, mut missed) = (Groups::NONE, 0);
        for grid in self.grids.iter_mut().filter(|grid| grid.next <= now) {
            due = due.with(grid.group);
            let late = (now - grid.next).as_nanos() / grid.poll.as_nanos().max(1);
            let late = u32::try_from(late).unwrap_or(u32::MAX - 1);
            missed += u64::from(late);
            grid.next += grid.poll * (late + 1);
        }
        (due, missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_their_grids_and_missed_polls_are_counted() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let polls = [(0, Duration::from_millis(1000)), (1, Duration::from_millis(100))];
        let mut schedule = Schedule::new(&polls, begun);
        let both = Groups::NONE.with(0).with(1);
        assert_eq!(schedule.take(begun), (both, 0));
        assert_eq!(schedule.next(begun), at(100));
        assert_eq!(schedule.take(at(103)), (Groups::NONE.with(1), 0), "three late is not missed");
        assert_eq!(schedule.next(at(103)), at(200), "and does not drift");
        assert_eq!(schedule.take(at(190)), (Groups::NONE, 0));
        assert_eq!(schedule.take(at(450)), (Groups::NONE.with(1), 2), "300 and 400 were missed with 200");
        assert_eq!(schedule.take(at(1000)), (both, 5));
        assert_eq!(schedule.next(at(1000)), at(1100));
    }
}
