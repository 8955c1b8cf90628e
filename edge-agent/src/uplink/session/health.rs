//! How the devices are, for hubs that want to know; and answers to looks at points.
//!
//! Every [`EVERY`], and within [`SOON`] when a device's state or its trouble has changed. It is one NDATA without metrics in the
//! order of `seq`, on no disk and with no identity: what gets lost is told again. Hosts that have not said in a receipt of
//! this session that they understand it get none.

use std::collections::VecDeque;
use std::time::Duration;

use proto::health::{HealthReport, Look, LookAnswer};
use tokio::time::Instant;

use super::Session;
use crate::uplink::SessionError;

/// A report goes out so often when nothing happens.
const EVERY: Duration = Duration::from_secs(10);
/// Changes are looked for so often.
const SOON: Duration = Duration::from_secs(1);
/// Looks that wait for the next turn of the session's timers; more are not answered.
const LOOKS_MAX: usize = 16;

/// What was told, and what was asked.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    /// The host understands reports.
    pub(super) is_wanted: bool,
    told_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// The trouble that was told.
    told: u64,
    looks: VecDeque<Look>,
}

impl Reporting {
    /// Somebody asks about a point.
    pub(super) fn ask(&mut self, look: Look) -> bool {
        let has_room = self.looks.len() < LOOKS_MAX;
        if has_room {
            self.looks.push_back(look);
        }
        has_room
    }

    /// Whether a report is due; then it counts as told.
    fn is_due(&mut self, now: Instant, trouble: impl FnOnce() -> u64) -> bool {
        if self.looked_at.is_some_and(|at| now < at + SOON) {
            return false;
        }
        self.looked_at = Some(now);
        let trouble = trouble();
        let is_due = trouble != self.told || self.told_at.is_none_or(|at| now >= at + EVERY);
        if is_due {
            (self.told, self.told_at) = (trouble, Some(now));
        }
        is_due
    }
}

impl Session<'_> {
    /// Sends what is due.
    pub(super) async fn report_health(&mut self, now: Instant) -> Result<(), SessionError> {
        if !self.reporting.is_wanted || self.born_at.is_none() {
            return Ok(());
        }
        let health = self.uplink.setup.health.clone();
        let is_due = self.reporting.is_due(now, || health.trouble());
        let looks = std::mem::take(&mut self.reporting.looks);
        if !is_due && looks.is_empty() {
            return Ok(());
        }
        let answers = looks.iter().map(|look| self.answer(look)).collect();
        let devices = if is_due { health.report() } else { Vec::new() };
        let now = self.uplink.setup.clock.now();
        let message = self.node.health(now, &HealthReport { devices, answers });
        self.send(message).await
    }

    fn answer(&self, look: &Look) -> LookAnswer {
        let (points, health) = (&self.uplink.setup.points, &self.uplink.setup.health);
        let id = points.device(&look.device).and_then(|device| points.find(device, &look.metric));
        let entry = id.and_then(|id| points.get(id));
        let (Some(id), Some(entry)) = (id, entry) else {
            return LookAnswer { id: look.id, ..LookAnswer::default() };
        };
        let made = health.look(&look.device, id).unwrap_or_default();
        let (min, max, dead_band) = (entry.definition.min, entry.definition.max, entry.definition.dead_band);
        LookAnswer { id: look.id, min, max, dead_band, ..made }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_report_is_due_every_ten_seconds_and_when_something_changes() {
        let mut reporting = Reporting::default();
        let begun = Instant::now();
        let mut told = Vec::new();
        for tenth in 0..300_u32 {
            let trouble = u64::from(tenth >= 155);
            if reporting.is_due(begun + Duration::from_millis(100) * tenth, || trouble) {
                told.push(tenth);
            }
        }
        assert_eq!(told, [0, 100, 160, 260]);
        let look = || Look::default();
        assert_eq!((0..20).filter(|_| reporting.ask(look())).count(), LOOKS_MAX);
    }
}
