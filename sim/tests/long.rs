//! Outages that last, on the virtual clock.

use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

#[expect(clippy::print_stdout, reason = "figures of a long run")]
fn judged(name: &str, run: impl FnOnce() -> simulator::Outcome) {
    let begun = Instant::now();
    let outcome = run();
    println!(
        "{name}: {} samples accepted in {:.0?} of virtual time, {:.1?} of real time",
        outcome.accepted,
        outcome.simulated,
        begun.elapsed()
    );
    assert_eq!(outcome.broken, None);
    assert!(outcome.accepted > 1_000, "{outcome:?}");
}

#[test]
fn three_days_without_an_uplink_cost_nothing_and_come_in_order() {
    judged("72 h without an uplink", || simulator::without_uplink(1, 72 * HOUR));
}

#[test]
fn an_hour_without_the_lake_is_an_alarm_soon_and_costs_nothing() {
    judged("an hour without the lake", || simulator::without_lake(1, HOUR));
}
