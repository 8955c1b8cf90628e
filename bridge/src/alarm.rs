//! When a sink's trouble becomes an alarm: no commit for a while although there is something to commit.
//!
//! It looks at the sink's status from beside the pump, so that a call of the target that never returns is an alarm too. An
//! alarm is one log line at level error, the gauge `forebay_bridge_sink_alarm`, the status, and what the hub is told with
//! the next request, so that its page and API show it. It ends with the next commit, or when there is nothing to commit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::room::Room;
use crate::status::{Reporter, SinkStatus, State};

/// How fast a pump tries again, and when it cries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The pause after a first failure.
    pub pause: Duration,
    /// The longest pause: a target that comes back is used within this.
    pub pause_max: Duration,
    /// Trouble that lasts so long is an alarm.
    pub alarm_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(5),
            alarm_after: Duration::from_secs(20),
        }
    }
}

/// Looks so many times within `alarm_after`.
const LOOKS: u32 = 10;

/// Watches one sink for ever.
pub(crate) async fn watch(reporter: Arc<Reporter>, pace: Pace, max_wait: Duration, mut room: Option<Room>) {
    let mut watch = Watch { since: None, commits: 0 };
    loop {
        let status = reporter.now();
        let alarm = watch.look(&status, Instant::now(), pace, max_wait);
        reporter.alarm(alarm);
        if let Some(room) = &mut room
            && let Some((used, warning)) = room.look().await
        {
            reporter.room(used, room.line(), warning);
        }
        tokio::time::sleep(pace.alarm_after / LOOKS).await;
    }
}

struct Watch {
    since: Option<Instant>,
    commits: u64,
}

impl Watch {
    /// The alarm that stands now.
    fn look(&mut self, status: &SinkStatus, now: Instant, pace: Pace, max_wait: Duration) -> Option<String> {
        if let State::Stopped(why) = &status.state {
            return Some(why.clone());
        }
        let gets_on = std::mem::replace(&mut self.commits, status.commits) != status.commits;
        if gets_on || status.has_caught_up() || status.state == State::Closed {
            self.since = None;
            return None;
        }
        let lasts = now.saturating_duration_since(*self.since.get_or_insert(now));
        match status.interruption() {
            Some(why) if lasts >= pace.alarm_after => Some(why.to_owned()),
            // Rows may wait for company as long as the configuration says.
            None if lasts >= pace.alarm_after + max_wait => Some(format!(
                "no commit for {} s, although {} records wait; the target does not answer",
                lasts.as_secs(),
                status.durable_end.saturating_sub(status.settled)
            )),
            _ => None,
        }
    }
}
