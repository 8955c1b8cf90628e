//! Plants that break and heal: whatever was accepted is in the table, once. Ten thousand of them.
//!
//! `FOREBAY_SEEDS=100000 cargo test -p simulator --test seeds` runs more of them, `FOREBAY_SEED=17` only that one,
//! with its log.

const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn whatever_breaks_what_was_accepted_is_in_the_table_once() {
    let one = number("FOREBAY_SEED");
    if one.is_some() {
        tracing_subscriber::fmt().with_env_filter("info,simulator=debug").without_time().init();
    }
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("FOREBAY_SEEDS").unwrap_or(SEEDS),
    };
    let done = simulator::campaign(seeds, threads(), 10, simulator::run, |_| {});
    println!(
        "{} seeds in {:.1?}, {:.0} per second: {} samples accepted, {} processes died, {:.0?} simulated",
        done.seeds,
        done.took,
        done.rate(),
        done.accepted,
        done.deaths,
        done.simulated
    );
    for outcome in &done.broken {
        println!("seed {}: {}", outcome.seed, outcome.broken.as_deref().unwrap_or_default());
    }
    assert!(done.broken.is_empty(), "{} seeds broke a rule", done.broken.len());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..20 {
        assert_eq!(simulator::run(seed), simulator::run(seed));
    }
}
