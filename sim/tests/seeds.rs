//! Ten thousand plants that break and heal: whatever was accepted is in the table, once.
//!
//! `FOREBAY_SEEDS=100000 cargo test -p simulator --test seeds` runs more of them, `FOREBAY_SEED=17` only that one,
//! with its log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use simulator::Outcome;

const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn seeds_hold() {
    let range = match number("FOREBAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("FOREBAY_SEEDS").unwrap_or(SEEDS),
    };
    if range.end - range.start == 1 {
        tracing_subscriber::fmt().with_env_filter("info,simulator=debug").without_time().init();
    }
    let begun = Instant::now();
    let next = AtomicU64::new(range.start);
    let broken: Mutex<Vec<Outcome>> = Mutex::default();
    let totals = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let outcome = simulator::run(seed);
                    totals[0].fetch_add(outcome.accepted, Ordering::Relaxed);
                    totals[1].fetch_add(outcome.deaths, Ordering::Relaxed);
                    totals[2].fetch_add(outcome.simulated.as_secs(), Ordering::Relaxed);
                    if outcome.broken.is_some() {
                        let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                        broken.push(outcome);
                        if broken.len() >= 10 {
                            return;
                        }
                    }
                }
            });
        }
    });
    let [accepted, deaths, simulated] = totals.map(AtomicU64::into_inner);
    let seeds = range.end - range.start;
    println!(
        "{seeds} seeds in {:.1?}: {accepted} samples accepted, {deaths} processes died, {simulated} s simulated",
        begun.elapsed()
    );
    let broken = broken.into_inner().unwrap();
    for outcome in &broken {
        println!("seed {}: {}", outcome.seed, outcome.broken.as_deref().unwrap_or_default());
    }
    assert!(broken.is_empty(), "{} seeds broke a rule", broken.len());
}
