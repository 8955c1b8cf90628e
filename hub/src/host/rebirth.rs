//! When to ask a node for its births: soon, with jitter, and ever more rarely while that does not help.

use std::time::Duration;

use runtime::backoff::random_fraction;

/// After hearing something incomprehensible, wait up to this long: births may be on their way.
const JITTER: Duration = Duration::from_millis(500);
/// Between two requests at least.
const FIRST: Duration = Duration::from_secs(2);
/// ... and at most.
const LONGEST: Duration = Duration::from_secs(300);

/// Requests to one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Rebirth {
    due: Option<Duration>,
    last: Option<Duration>,
    wait: Duration,
    /// Requests so far.
    pub(super) sent: u64,
}

impl Rebirth {
    /// A rebirth is wanted.
    pub(super) fn ask(&mut self, now: Duration) {
        if self.due.is_none() {
            let soon = now + JITTER.mul_f64(random_fraction());
            let allowed = self.last.map(|last| last + self.wait).unwrap_or_default();
            self.due = Some(soon.max(allowed));
        }
    }

    /// Whether to ask now; the next time is further away.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.due = None;
        self.last = Some(now);
        self.wait = (self.wait * 2).clamp(FIRST, LONGEST);
        self.sent += 1;
        true
    }

    /// A birth came: nothing is wanted any more.
    pub(super) fn answered(&mut self) {
        self.due = None;
    }

    /// Data made sense: the births help, and the next trouble is a new one.
    pub(super) fn understood(&mut self) {
        self.wait = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_help_is_asked_ever_more_rarely() {
        let (mut rebirth, mut now, mut asked) = (Rebirth::default(), Duration::ZERO, Vec::new());
        while now < Duration::from_secs(3600) {
            rebirth.ask(now);
            if rebirth.is_due(now) {
                asked.push(now);
                rebirth.answered();
            }
            now += Duration::from_millis(100);
        }
        assert!((15..25).contains(&asked.len()), "{asked:?}");
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= FIRST));
        rebirth.understood();
        rebirth.ask(now);
        assert!(rebirth.is_due(now + LONGEST));
    }
}
