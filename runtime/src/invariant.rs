//! The numbered invariants of docs/ARCHITECTURE.md as questions that the code asks itself, everywhere.
//!
//! A broken one is a bug, whatever the input was: a debug build panics, a release build counts it
//! (`forebay_invariant_broken_total`), says so at error level and goes on, and a simulator ends its run.

use std::cell::RefCell;

use crate::telemetry::{Counter, Metrics};
use crate::world;

thread_local! {
    static BROKEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// One invariant as one place minds it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Invariant {
    name: &'static str,
    broken: Counter,
}

impl Invariant {
    /// An invariant by its name in docs/ARCHITECTURE.md, as "I2".
    #[must_use]
    pub fn new(metrics: &Metrics, name: &'static str) -> Self {
        let help = "Numbered invariants found broken.";
        Invariant {
            name,
            broken: metrics.counter("forebay_invariant_broken_total", help, &[("invariant", name)]),
        }
    }

    /// Minds it: `what` says how it is broken.
    ///
    /// # Panics
    /// In a debug build, if it does not hold.
    pub fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            return;
        }
        let text = format!("{}: {}", self.name, what());
        self.broken.increment();
        tracing::error!(invariant = self.name, "{text}");
        if world::is_simulated() {
            BROKEN.with_borrow_mut(|broken| {
                broken.get_or_insert(text);
            });
        } else {
            debug_assert!(holds, "{text}");
        }
    }
}

/// What was found broken first in this thread, for a simulator; forgets it.
#[must_use]
pub fn take_broken() -> Option<String> {
    BROKEN.with_borrow_mut(Option::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_one_is_counted_and_a_simulator_hears_of_it() {
        let metrics = Metrics::default();
        let invariant = Invariant::new(&metrics, "I2");
        let simulation = world::Simulation::begin(1, Box::new(|_, _| Err(std::io::ErrorKind::Other.into())));
        invariant.check(true, String::new);
        assert_eq!(take_broken(), None);
        invariant.check(false, || "5 above 4".into());
        invariant.check(false, || "6 above 4".into());
        assert_eq!((take_broken().as_deref(), take_broken()), (Some("I2: 5 above 4"), None));
        assert!(metrics.render().contains("forebay_invariant_broken_total{invariant=\"I2\"} 2"));
        drop(simulation);
        assert!(
            !cfg!(debug_assertions)
                || std::panic::catch_unwind(|| invariant.check(false, String::new)).is_err()
        );
    }
}
