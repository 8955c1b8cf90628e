//! One run: a plant that breaks for a while, heals, settles, and is judged.

use std::time::Duration;

use durable_log::Faults;
use model::Timestamp;
use runtime::clock::Clock;
use runtime::tasks::{CancellationToken, Tasks};
use runtime::world::Simulation;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::agent::Agent;
use crate::dice::Dice;
use crate::hub::{Bridge, HubMachine};
use crate::network::Net;
use crate::plan::Plan;
use crate::shadow::Shadow;
use crate::table::Table;

/// How often the world looks at its processes and decides what breaks.
const TICK: Duration = Duration::from_millis(100);
/// 2026-11-25, for the clocks.
const TODAY: i64 = 1_795_600_000_000_000;
/// When nothing breaks any more, everything is in the table within this.
const SETTLE_WITHIN: Duration = Duration::from_secs(240);

/// One run in so many has disks on which bits flip.
const FLIPS_IN: u64 = 8;
/// At most so many of them: a second one may hit what tells of the first.
const FLIPS_MAX: u64 = 1;

/// Runs a seed.
pub(crate) fn run(seed: u64) -> Outcome {
    let mut dice = Dice::new(seed);
    let plan = Plan::of(&mut dice);
    let mut flips = Dice::new(!seed);
    let flips = flips.one_in(FLIPS_IN).then_some(flips);
    in_world(seed, plan, dice, async |world| {
        world.flips = flips;
        world.live(seed).await
    })
}

/// Builds a plant on a virtual clock, and lets `story` happen in it.
pub(crate) fn in_world(
    seed: u64,
    plan: Plan,
    mut dice: Dice,
    story: impl AsyncFnOnce(&mut World) -> Outcome,
) -> Outcome {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    #[expect(clippy::expect_used, reason = "a runtime without I/O needs nothing that could be refused")]
    let runtime = built.expect("a runtime");
    tracing::info!(?plan, seed);
    runtime.block_on(async move {
        let tasks = Tasks::new(CancellationToken::new());
        let shadow = Shadow::default();
        let net = Net::new(&plan, dice.fork(), &tasks, shadow.clone());
        let dialled = net.clone();
        let simulation = Simulation::begin(dice.next(), Box::new(move |_host, _port| dialled.dial()));
        let mut world = World::new(plan, dice, net, shadow);
        drop(runtime::invariant::take_broken()); // of an earlier run in this thread
        let outcome = story(&mut world).await;
        drop(world);
        drop(tasks);
        drop(simulation);
        outcome
    })
}

/// A plant.
pub(crate) struct World {
    plan: Plan,
    dice: Dice,
    pub(crate) net: Net,
    pub(crate) shadow: Shadow,
    pub(crate) table: Table,
    agents: Vec<(Agent, Instant)>,
    pub(crate) hub: (HubMachine, Instant),
    pub(crate) bridges: Vec<(Bridge, Instant)>,
    broker_back: Option<Instant>,
    until: Instant,
    pub(crate) breaking: bool,
    deaths: u64,
    /// The hub's log was replaced: its bridge must notice, and may wait for a person.
    wiped: bool,
    /// Whether the table held rows of it.
    table_held: bool,
    /// Which bits flip on disks that stand still; in most runs none.
    flips: Option<Dice>,
    /// How many flipped so far.
    flipped: u64,
}

impl World {
    fn new(plan: Plan, mut dice: Dice, net: Net, shadow: Shadow) -> Self {
        let table = Table::new(shadow.clone(), dice.fork(), plan.target_fails);
        let now = Instant::now();
        let mut agents = Vec::new();
        for number in 0..plan.agents {
            let clock = any_clock(&mut dice);
            agents.push((Agent::new(number, &plan, &mut dice, &shadow, clock), now + dice.millis(0, 2000)));
        }
        let clock = any_clock(&mut dice);
        let hub = (HubMachine::new(&mut dice, clock), now + dice.millis(0, 2000));
        let bridges = (0..if plan.two_bridges { 2 } else { 1 }).map(|_| (Bridge::new(), now)).collect();
        let until = now + plan.chaos;
        World {
            plan,
            dice,
            net,
            shadow,
            table,
            agents,
            hub,
            bridges,
            broker_back: None,
            until,
            breaking: true,
            deaths: 0,
            wiped: false,
            table_held: false,
            flips: None,
            flipped: 0,
        }
    }

    async fn live(&mut self, seed: u64) -> Outcome {
        let begun = Instant::now();
        while Instant::now() < self.until && self.shadow.what_broke().is_none() {
            self.tick().await;
        }
        self.heal().await;
        self.settle(seed, begun).await
    }

    /// Ticks until everything is in the table, and judges.
    pub(crate) async fn settle(&mut self, seed: u64, begun: Instant) -> Outcome {
        let settle = Instant::now() + SETTLE_WITHIN;
        let mut settled = false;
        while !settled && Instant::now() < settle && self.shadow.what_broke().is_none() {
            self.tick().await;
            settled = self.is_settled();
        }
        let broken = self.shadow.what_broke().or_else(|| self.judge(settled));
        Outcome {
            seed,
            broken,
            accepted: self.shadow.count(),
            deaths: self.deaths,
            simulated: begun.elapsed(),
        }
    }

    fn judge(&self, settled: bool) -> Option<String> {
        if self.wiped {
            // What the old log held and the table had not is gone with it. Nobody may go on as if nothing had happened.
            let alarmed = self.bridges.iter().any(|(bridge, _)| bridge.stopped().is_some());
            let lacks = self.shadow.missing().is_some();
            return (lacks && self.table_held && !alarmed && self.hub.0.complaints().is_empty())
                .then(|| "S12: the hub's log was replaced, rows are missing, and nobody says so".to_owned());
        }
        if let Some(missing) = self.shadow.missing() {
            if self.tells_loss() {
                return None;
            }
            let why = self.bridges.iter().find_map(|(bridge, _)| bridge.stopped());
            let waiting: Vec<u64> = self.agents.iter().map(|(agent, _)| agent.backlog()).collect();
            let hub = self.hub.0.complaints();
            return Some(format!(
                "S6: accepted and not in the table: {missing} (bridge: {why:?}, records without receipt: {waiting:?}, hub: \
                 {hub:?})"
            ));
        }
        if let Some(complaint) = self.hub.0.complaints().first().filter(|_| self.flipped == 0) {
            return Some(format!("S7: the hub's own accounts: {complaint}"));
        }
        (!settled).then(|| "S8: everything is there, and it does not come to rest".to_owned())
    }

    /// No more is missing than somebody has said. Of a flipped bit: the hub in its ledger and in what it calls lost, by
    /// records; an agent at its opening, which does not say how many. Otherwise only of a full disk that nobody had read.
    fn tells_loss(&self) -> bool {
        let record_max = self.plan.samples; // what was read together is a record
        let explains = |records: u64| records > 0 && self.shadow.lacking() <= records * record_max;
        let deleted = self.hub.0.deleted_unread();
        if self.flipped == 0 {
            return explains(deleted);
        }
        let agents = self.agents.iter().any(|(agent, _)| agent.found_damage());
        agents || self.hub.0.may_lack().is_none_or(|lacks| explains(lacks + deleted))
    }

    fn is_settled(&self) -> bool {
        self.agents.iter().all(|(agent, _)| agent.is_running() && agent.backlog() == 0)
            && self.hub.0.is_running()
            && (self.wiped || self.shadow.is_complete() || self.tells_loss())
    }

    /// Nothing breaks from here on.
    async fn heal(&mut self) {
        self.breaking = false;
        self.net.heal();
        self.table.heal();
        let calm = Faults::default();
        self.hub.0.set_faults(calm);
        self.agents.iter().for_each(|(agent, _)| agent.set_faults(calm));
        self.hub.0.restore_power();
        for (agent, _) in &mut self.agents {
            agent.restore_power();
        }
        // A feed that fails, or a fuse that burns, ends with the process that it was given to.
        for (bridge, back) in &mut self.bridges {
            bridge.kill();
            *back = Instant::now();
        }
        self.hub.0.kill(&self.plan, &self.net);
        for (agent, back) in &mut self.agents {
            agent.kill();
            *back = Instant::now();
        }
        self.hub.1 = Instant::now();
        if self.broker_back.take().is_some() {
            self.net.broker_comes(self.hub.0.now_ms());
        }
        sleep(Duration::from_millis(1)).await;
    }

    pub(crate) async fn tick(&mut self) {
        sleep(TICK).await;
        if let Some(broken) = runtime::invariant::take_broken() {
            self.shadow.broken(|| format!("S13: {broken}"));
        }
        self.broker();
        self.tick_hub().await;
        for at in 0..self.agents.len() {
            self.tick_agent(at).await;
        }
        self.tick_bridges();
        if self.breaking {
            if self.dice.one_in(self.plan.link_cut) {
                self.net.cut_one();
            }
            if self.dice.one_in(self.plan.half_open) {
                self.net.half_open_one();
            }
        }
    }

    fn broker(&mut self) {
        match self.broker_back {
            Some(back) if Instant::now() >= back => {
                self.broker_back = None;
                self.net.broker_comes(self.hub.0.now_ms());
            }
            None if self.breaking
                && self.plan.outside_broker
                && self.dice.one_in(self.plan.broker_restart) =>
            {
                self.net.broker_goes();
                self.broker_back = Some(Instant::now() + self.dice.millis(0, self.plan.away));
            }
            _ => {}
        }
    }

    /// How a process ends in this tick.
    fn fate(&mut self) -> Fate {
        if !self.breaking {
            return Fate::Goes;
        }
        if self.dice.one_in(self.plan.power_cut) {
            return Fate::PowerCut;
        }
        if self.dice.one_in(self.plan.killed) {
            return Fate::Killed;
        }
        if self.dice.one_in(self.plan.stopped) {
            return Fate::Stopped;
        }
        if self.dice.one_in(self.plan.disk_full) {
            return Fate::DiskFull;
        }
        if self.dice.one_in(self.plan.clock_steps) {
            return Fate::ClockSteps;
        }
        Fate::Goes
    }

    fn faults(&mut self) -> Faults {
        Faults {
            write_error: self.plan.write_error,
            sync_error: self.plan.sync_error,
            read_error: self.plan.read_error,
            short: self.plan.short,
            capacity: u64::MAX,
        }
    }

    fn back(&mut self) -> Instant {
        Instant::now() + self.dice.millis(0, if self.breaking { self.plan.away } else { 100 })
    }

    async fn tick_hub(&mut self) {
        if !self.hub.0.is_running() {
            if Instant::now() >= self.hub.1 {
                if self.breaking && self.plan.wipes_hub && !self.wiped && self.dice.one_in(3) {
                    self.wiped = true;
                    self.table_held = self.table.holds_rows();
                    self.hub.0.wipe(&mut self.dice);
                }
                if let Some(dice) = self.flips.as_mut().filter(|_| self.breaking && self.flipped < FLIPS_MAX)
                    && dice.one_in(3)
                {
                    self.flipped += 1;
                    self.hub.0.flip(dice);
                    if self.table.newest() > self.hub.0.kept() {
                        // What was committed since is not known to the hub, and comes again if it was damaged.
                        self.shadow.may_double();
                    }
                }
                self.start_hub().await;
            }
            return;
        }
        if self.hub.0.has_failed() {
            self.deaths += 1;
            if self.hub.0.power.is_blown() {
                self.hub.0.power_cut(&self.plan, &self.net);
            } else {
                self.hub.0.kill(&self.plan, &self.net);
            }
            self.hub.1 = self.back();
            return;
        }
        match self.fate() {
            Fate::Goes => {}
            // At one of the next calls of its disks.
            Fate::PowerCut => self.hub.0.power.blow_after(self.dice.below(60)),
            Fate::Killed => {
                self.deaths += 1;
                self.hub.0.kill(&self.plan, &self.net);
                self.hub.1 = self.back();
            }
            Fate::Stopped => {
                self.hub.0.stop(&self.plan, &self.net).await;
                self.hub.1 = self.back();
            }
            Fate::DiskFull => {
                let mut faults = self.faults();
                faults.capacity = if self.dice.one_in(2) { 0 } else { u64::MAX };
                self.hub.0.set_faults(faults);
            }
            Fate::ClockSteps => step(&mut self.dice, &self.hub.0.clock),
        }
    }

    async fn start_hub(&mut self) {
        sleep(Duration::from_millis(1)).await; // what was cut off is gone
        if self.breaking {
            let faults = self.faults();
            self.hub.0.set_faults(faults);
            if self.dice.one_in(self.plan.power_cut / 8) {
                self.hub.0.power.blow_after(self.dice.below(200));
            }
        }
        if let Err(why) = self.hub.0.start(&self.net) {
            tracing::info!(why, "the hub does not start");
            if !self.breaking {
                self.shadow.broken(|| format!("S9: the hub does not start any more: {why}"));
            }
            if self.hub.0.power.is_blown() {
                self.hub.0.power_cut(&self.plan, &self.net);
            }
            self.hub.1 = self.back();
        }
    }

    async fn tick_agent(&mut self, at: usize) {
        let fate = self.fate();
        let back = self.back();
        let faults = self.faults();
        let (until, breaking) = (self.until, self.breaking);
        let Some((agent, next)) = self.agents.get_mut(at) else { return };
        if !agent.is_running() {
            if Instant::now() < *next {
                return;
            }
            sleep(Duration::from_millis(1)).await;
            if breaking && self.plan.restores && self.dice.one_in(2) {
                if agent.restore() {
                    self.shadow.restored(at);
                } else {
                    agent.back_up();
                }
            }
            if let Some(dice) = self.flips.as_mut().filter(|_| breaking && self.flipped < FLIPS_MAX)
                && dice.one_in(3)
            {
                self.flipped += 1;
                agent.flip(dice);
                // The position of a source may be in what is damaged: then it is read again from the one before.
                self.shadow.restored(at);
            }
            if breaking {
                agent.set_faults(faults);
                if self.dice.one_in(self.plan.power_cut / 8) {
                    agent.power.blow_after(self.dice.below(100));
                }
            }
            let started = agent.start(&self.plan, &mut self.dice, &self.net, &self.shadow, until);
            if let Err(why) = started {
                tracing::info!(why, "an agent does not start");
                if !breaking {
                    self.shadow.broken(|| format!("S9: agent {at} does not start any more: {why}"));
                }
                if agent.power.is_blown() {
                    agent.power_cut();
                }
                *next = back;
            }
            return;
        }
        if agent.has_failed() {
            self.deaths += 1;
            if agent.power.is_blown() {
                agent.power_cut();
            } else {
                agent.kill();
            }
            *next = back;
            return;
        }
        match fate {
            Fate::Goes => {}
            Fate::PowerCut => agent.power.blow_after(self.dice.below(60)),
            Fate::Killed => {
                self.deaths += 1;
                agent.kill();
                *next = back;
            }
            Fate::Stopped => {
                agent.stop().await;
                *next = back;
            }
            Fate::DiskFull => {
                let capacity = if self.dice.one_in(2) { 0 } else { u64::MAX };
                agent.set_faults(Faults { capacity, ..faults });
            }
            Fate::ClockSteps => step(&mut self.dice, &agent.clock),
        }
    }

    fn tick_bridges(&mut self) {
        let door = self.hub.0.door();
        for at in 0..self.bridges.len() {
            let back = self.back();
            let Some((bridge, next)) = self.bridges.get_mut(at) else { continue };
            if !bridge.is_running() {
                if Instant::now() >= *next {
                    let fails = if self.breaking { self.plan.feed_fails } else { 0 };
                    bridge.start(&mut self.dice, door.clone(), &self.table, &self.hub.0.clock, fails);
                }
            } else if let Some(why) = bridge.stopped().filter(|_| !self.wiped) {
                self.shadow.broken(|| format!("S10: the bridge stopped for good: {why}"));
            } else if self.breaking && self.dice.one_in(self.plan.killed) {
                self.deaths += 1;
                bridge.kill();
                *next = back;
            }
        }
    }
}

enum Fate {
    Goes,
    PowerCut,
    Killed,
    Stopped,
    DiskFull,
    ClockSteps,
}

/// A clock that is right, or up to a day wrong.
fn any_clock(dice: &mut Dice) -> Clock {
    const DAY: u64 = 86_400_000_000;
    let wrong = if dice.one_in(2) { 0 } else { i64::try_from(dice.below(2 * DAY)).unwrap_or(0) - DAY as i64 };
    Clock::simulated(Timestamp(TODAY + wrong))
}

/// Somebody sets the clock.
fn step(dice: &mut Dice, clock: &Clock) {
    const HOURS: u64 = 7_200_000_000;
    clock.step(i64::try_from(dice.below(2 * HOURS)).unwrap_or(0) - HOURS as i64);
}
