//! Outages that last: days without an uplink, an hour without a lake. Nothing else breaks meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::dice::Dice;
use crate::plan::Plan;
use crate::run::{World, in_world};

/// Before and after an outage.
const AROUND: Duration = Duration::from_secs(120);
/// Trouble that lasts is an alarm within this.
const ALARM_WITHIN: Duration = Duration::from_secs(30);

/// The broker is gone for so long: agents keep everything, and it comes in order when it is back.
pub(crate) fn without_uplink(seed: u64, lasts: Duration) -> Outcome {
    let plan = Plan::calm(AROUND + lasts + AROUND);
    in_world(seed, plan, Dice::new(seed), async |world| {
        let begun = Instant::now();
        world.shadow.watch_history();
        world.breaking = false;
        tick_for(world, AROUND).await;
        world.net.broker_goes();
        sleep(lasts).await;
        world.net.broker_comes(world.hub.0.now_ms());
        tick_for(world, AROUND).await;
        world.settle(seed, begun).await
    })
}

/// The lake takes nothing for so long: the alarm is there soon, the lake is asked now and then, and everything comes once.
pub(crate) fn without_lake(seed: u64, lasts: Duration) -> Outcome {
    let plan = Plan::calm(AROUND + lasts + AROUND);
    in_world(seed, plan, Dice::new(seed), async |world| {
        let begun = Instant::now();
        world.breaking = false;
        tick_for(world, AROUND).await;
        world.table.refuse();
        tick_for(world, ALARM_WITHIN).await;
        if world.bridges.iter().any(|(bridge, _)| bridge.alarm().is_none()) {
            world.shadow.broken(|| format!("S14: no alarm {ALARM_WITHIN:?} after the lake was gone"));
        }
        tick_for(world, lasts.saturating_sub(ALARM_WITHIN)).await;
        let tries = world.table.refused();
        // Pauses double up to 5 s: it is asked neither in a storm nor given up.
        let seconds = lasts.as_secs();
        if tries < seconds / 30 || tries > seconds {
            world.shadow.broken(|| format!("S14: {tries} tries in {seconds} s without the lake"));
        }
        world.table.heal();
        tick_for(world, AROUND).await;
        if let Some(alarm) = world.bridges.iter().find_map(|(bridge, _)| bridge.alarm()) {
            world.shadow.broken(|| format!("S14: the lake is back, and the alarm stays: {alarm}"));
        }
        world.settle(seed, begun).await
    })
}

async fn tick_for(world: &mut World, lasts: Duration) {
    let until = Instant::now() + lasts;
    while Instant::now() < until && world.shadow.what_broke().is_none() {
        world.tick().await;
    }
}
