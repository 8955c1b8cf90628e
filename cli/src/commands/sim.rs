//! `forebay sim`: simulated plants, by seed.

use serde_json::json;
use simulator::{Campaign, campaign};

use crate::arguments::Sim;
use crate::output::{DONE, FAILED, grouped};
use crate::{complain, say};

/// Exit 1 on the first broken rule.
#[must_use]
pub fn run(options: &Sim) -> u8 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).max(1);
    if options.seeds == 1 {
        runtime::telemetry::start_log_lines("info");
    }
    let seeds = options.from..options.from.saturating_add(options.seeds);
    let done = campaign(seeds, threads, 1, simulator::run, |so_far| {
        complain!("{} seeds, {:.0} per second", grouped(so_far.seeds), so_far.rate());
    });
    if options.json {
        say!("{}", figures(&done));
    } else {
        say!(
            "{} seeds in {:.1} s, {:.1} per second: {} samples accepted, {} processes died, {} s of virtual time",
            grouped(done.seeds),
            done.took.as_secs_f64(),
            done.rate(),
            grouped(done.accepted),
            grouped(done.deaths),
            grouped(done.simulated.as_secs()),
        );
    }
    for outcome in &done.broken {
        let why = outcome.broken.as_deref().unwrap_or_default();
        complain!("seed {}: {why}\nagain: forebay sim --from {} --seeds 1", outcome.seed, outcome.seed);
    }
    if done.broken.is_empty() { DONE } else { FAILED }
}

fn figures(done: &Campaign) -> serde_json::Value {
    json!({
        "seeds": done.seeds,
        "seconds": done.took.as_secs_f64(),
        "seeds_per_s": done.rate(),
        "accepted": done.accepted,
        "deaths": done.deaths,
        "simulated_seconds": done.simulated.as_secs(),
        "broken": done.broken.iter().map(|outcome| json!({
            "seed": outcome.seed,
            "why": outcome.broken,
        })).collect::<Vec<_>>(),
    })
}
