//! The simulator can find: each classic mistake, made on purpose, is caught within a thousand seeds.
//!
//! `FOREBAY_MISTAKE=TrimAfterSend cargo test -p simulator --test mistakes -- --nocapture` makes only that one;
//! with `FOREBAY_SEED=17` in that run, with its log.

use runtime::mistakes::Mistake;
use simulator::{Outcome, campaign};

const SEEDS: u64 = 1000;

fn first(mistake: Mistake) -> Option<Outcome> {
    if let Ok(seed) = std::env::var("FOREBAY_SEED") {
        tracing_subscriber::fmt().with_env_filter("info,simulator=debug").without_time().init();
        return Some(simulator::run_with(seed.parse().unwrap_or(1), Some(mistake)));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let done = campaign(1..1 + SEEDS, threads, 1, |seed| simulator::run_with(seed, Some(mistake)), |_| {});
    done.broken.into_iter().next()
}

#[test]
fn every_mistake_is_caught_within_a_thousand_seeds() {
    let mut missed = Vec::new();
    let only = std::env::var("FOREBAY_MISTAKE").ok();
    for mistake in Mistake::ALL {
        if only.as_ref().is_some_and(|only| *only != format!("{mistake:?}")) {
            continue;
        }
        match first(mistake) {
            Some(outcome) => {
                let why: String = outcome.broken.unwrap_or_default().chars().take(160).collect();
                println!("{mistake:?}: seed {}: {why}", outcome.seed);
            }
            None => missed.push(mistake),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
