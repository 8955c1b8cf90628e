//! Many seeds, on every core, with their figures.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Outcome;

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Campaign {
    /// Seeds run.
    pub seeds: u64,
    /// Samples accepted, in all.
    pub accepted: u64,
    /// Processes that died, in all.
    pub deaths: u64,
    /// Virtual time, in all.
    pub simulated: Duration,
    /// Real time.
    pub took: Duration,
    /// Runs that broke a rule, by seed; the first few.
    pub broken: Vec<Outcome>,
}

impl Campaign {
    /// Seeds per second of real time.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn rate(&self) -> f64 {
        self.seeds as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Runs `seeds` with `one` on `threads` threads until that many have broken a rule; calls `progress` every few seconds.
pub fn campaign(
    seeds: Range<u64>,
    threads: usize,
    broken_max: usize,
    one: impl Fn(u64) -> Outcome + Sync,
    mut progress: impl FnMut(&Campaign),
) -> Campaign {
    const EVERY: Duration = Duration::from_secs(5);
    const LOOK: Duration = Duration::from_millis(20);
    let begun = Instant::now();
    let (next, running) = (AtomicU64::new(seeds.start), AtomicU64::new(threads as u64));
    let stop = AtomicBool::new(false);
    let total: Mutex<Campaign> = Mutex::default();
    let lock = || total.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = one(seed);
                    let mut total = lock();
                    total.seeds += 1;
                    total.accepted += outcome.accepted;
                    total.deaths += outcome.deaths;
                    total.simulated += outcome.simulated;
                    if outcome.broken.is_some() {
                        total.broken.push(outcome);
                        stop.fetch_or(total.broken.len() >= broken_max, Ordering::Relaxed);
                    }
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut told = begun;
        while running.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(LOOK);
            if told.elapsed() >= EVERY {
                told = Instant::now();
                let so_far = Campaign { took: begun.elapsed(), ..lock().clone() };
                progress(&so_far);
            }
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.took = begun.elapsed();
    total.broken.sort_by_key(|outcome| outcome.seed);
    total
}
