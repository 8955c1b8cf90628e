//! Whether a controller has stopped, asked now and then, and hints that are said once: what drivers of PLCs have beside points.

use std::time::Duration;

use runtime::config_file::{Problems, Section};
use tokio::time::Instant;

const DEFAULT: Duration = Duration::from_secs(2);
/// Hints that are remembered as said.
const HINTS_MAX: usize = 32;

/// When to ask, and what was answered.
pub(super) struct StopCheck {
    /// `None`: never.
    every: Option<Duration>,
    asked_at: Option<Instant>,
    /// The question is not put again on a connection where it is not understood.
    is_understood: bool,
    is_stopped: bool,
}

impl StopCheck {
    /// Reads `stop_check`; "0s" is never.
    pub(super) fn of(section: &mut Section<'_>, problems: &mut Problems) -> StopCheck {
        let every = section.duration("stop_check", problems, Duration::ZERO..=Duration::from_secs(3600));
        let every = Some(every.map_or(DEFAULT, |found| found.value)).filter(|every| !every.is_zero());
        StopCheck { every, asked_at: None, is_understood: true, is_stopped: false }
    }

    /// The connection is a new one.
    pub(super) fn begin(&mut self) {
        *self = StopCheck { every: self.every, asked_at: None, is_understood: true, is_stopped: false };
    }

    pub(super) fn is_due(&self) -> bool {
        let Some(every) = self.every.filter(|_| self.is_understood) else { return false };
        self.asked_at.is_none_or(|at| at.elapsed() >= every)
    }

    /// What the controller says; `None`: it does not understand the question.
    pub(super) fn answered(&mut self, is_stopped: Option<bool>) {
        self.asked_at = Some(Instant::now());
        (self.is_understood, self.is_stopped) = (is_stopped.is_some(), is_stopped == Some(true));
    }

    /// Whether it had stopped when it was asked last.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}

/// Codes of refusals whose meaning was said on this connection.
#[derive(Default)]
pub(super) struct Hints(Vec<u32>);

impl Hints {
    /// Whether it has not been said yet; from now on it has.
    pub(super) fn is_news(&mut self, code: u32) -> bool {
        let is_news = !self.0.contains(&code) && self.0.len() < HINTS_MAX;
        if is_news {
            self.0.push(code);
        }
        is_news
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
