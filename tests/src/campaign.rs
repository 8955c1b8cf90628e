//! A plant under load with links that can break, and the two checks that follow: what `forebay reconcile` says, and what
//! DuckDB finds in the table without any account of ours (`tests/peers/check_rows.py`).
//!
//! Every point is a counter of its source that goes up by one from read to read, through restarts of the agent too. So
//! the values themselves prove that nothing is missing, double or different.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fault_proxy::FaultProxy;
use crate::peers::{python, run, script};
use crate::plant::{Plant, READY, http_get, in_table};
use crate::process::{Running, forebay};
use crate::random::Random;

/// A number from the environment, so that one command makes a long run of a short test.
#[must_use]
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(otherwise)
}

/// The seed of this run: `FOREBAY_SEED`, or one from the time; printed, so that the moments can be had again.
#[must_use]
pub fn seed() -> u64 {
    let now = runtime::clock::Clock::machine().now().0.unsigned_abs();
    let seed = number("FOREBAY_SEED", (now ^ u64::from(std::process::id()) << 20) & 0xffff_ffff);
    say(&format!("FOREBAY_SEED={seed}"));
    seed
}

/// Progress and figures, for whoever runs a campaign by hand.
#[allow(clippy::print_stdout, reason = "the test runner keeps it, unless it is asked to show it")]
pub fn say(text: &str) {
    println!("{text}");
}

/// A watched point is read so often that the hub's tree passes on each of its values (10 a second at most).
const PROBE_POLL: Duration = Duration::from_millis(110);

/// What the agents read.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Agents, named `a0`, `a1` …
    pub agents: usize,
    /// Points of each.
    pub points: usize,
    /// Time between two reads.
    pub poll: Duration,
}

impl Load {
    /// So many values per second by `agents` agents; polls as often as such a rate is read in practice.
    #[must_use]
    pub fn of(values_per_second: u64, agents: usize) -> Load {
        let poll = Duration::from_millis(50);
        let points = usize::try_from(values_per_second / 20).unwrap_or(1) / agents;
        Load { agents, points: points.max(1), poll }
    }
}

/// The plant, its links, and the roles that run.
#[derive(Debug)]
pub struct Campaign {
    /// Files and API.
    pub plant: Plant,
    /// What the agents read.
    pub load: Load,
    /// From the agents to the broker.
    pub uplink: FaultProxy,
    /// From the bridge to the hub.
    pub feed: FaultProxy,
    /// The hub, while it runs.
    pub hub: Option<Running>,
    /// The bridge, while it runs.
    pub bridge: Option<Running>,
    /// The agents.
    pub agents: Vec<Option<Running>>,
    begun: Instant,
    /// Time of the hub's slowest start.
    pub slowest_start: Duration,
}

/// A role to start, stop or kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The hub.
    Hub,
    /// The bridge.
    Bridge,
    /// One of the agents.
    Agent(usize),
}

impl Campaign {
    /// Files only; nothing runs.
    #[must_use]
    pub fn new(load: Load) -> Campaign {
        let names: Vec<String> = (0..load.agents).map(|n| format!("a{n}")).collect();
        let plant = Plant::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        Campaign::of(plant, load)
    }

    /// On a plant that was made otherwise, for agents `a0`, `a1` …
    #[must_use]
    pub fn of(plant: Plant, load: Load) -> Campaign {
        let (uplink, feed) = (FaultProxy::to(plant.mqtt), FaultProxy::to(plant.http));
        let campaign = Campaign {
            plant,
            load,
            uplink,
            feed,
            hub: None,
            bridge: None,
            agents: (0..load.agents).map(|_| None).collect(),
            begun: Instant::now(),
            slowest_start: Duration::ZERO,
        };
        for agent in 0..load.agents {
            let mut points = "name,address,type,path\n".to_owned();
            for point in 0..load.points {
                writeln!(points, "p{point},counter(step=1),u32,line/a{agent}/p{point}").ok();
            }
            campaign.plant.write(&format!("a{agent}.csv"), &points);
            campaign.write_agent(agent, load.poll, "");
        }
        campaign.write_bridge("lake", "max_wait = \"1s\"");
        campaign
    }

    /// Writes an agent's configuration; `more` are further lines of `[edge]`.
    pub fn write_agent(&self, agent: usize, poll: Duration, more: &str) {
        let mut devices = String::new();
        for (name, points) in [("sim", format!("a{agent}.csv")), ("probe", format!("a{agent}-probe.csv"))] {
            if self.plant.dir().join(&points).exists() {
                let poll = if name == "probe" { poll.max(PROBE_POLL) } else { poll }.as_millis();
                writeln!(
                    devices,
                    "[[edge.devices]]\nname = \"{name}\"\ndriver = \"simulated\"\npoll = \"{poll}ms\"\npoints = \"{points}\""
                )
                .ok();
            }
        }
        let node = format!("a{agent}");
        self.plant.agent_through(&node, self.uplink.address, &devices);
        if !more.is_empty() {
            let file = self.plant.dir().join(format!("{node}.toml"));
            let text = std::fs::read_to_string(&file).expect("just written");
            self.plant
                .write(&format!("{node}.toml"), &text.replace("[edge]\n", &format!("[edge]\n{more}\n")));
        }
    }

    /// Writes the bridge's configuration: one Delta sink of this name and folder, with further lines of it.
    pub fn write_bridge(&self, sink: &str, more: &str) {
        let text = format!(
            "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[bridge]\nhub = \"http://{}\"\n\
             token_file = \"hub/token\"\n[[bridge.sinks]]\nname = \"{sink}\"\nkind = \"delta\"\npath = \"{sink}\"\n{more}\n",
            self.feed.address
        );
        self.plant.write("bridge.toml", &text);
    }

    /// Starts everything.
    ///
    /// # Panics
    /// If the hub is not ready in time.
    pub fn start_all(&mut self) {
        self.start(Role::Hub);
        self.start(Role::Bridge);
        (0..self.load.agents).for_each(|agent| self.start(Role::Agent(agent)));
        self.begun = Instant::now();
    }

    /// Starts a role; of the hub it waits until it answers, and keeps how long that took.
    ///
    /// # Panics
    /// If the hub is not ready in time.
    pub fn start(&mut self, role: Role) {
        match role {
            Role::Hub => {
                let begun = Instant::now();
                let mut hub = self.plant.start("hub");
                while self.plant.try_get("/api/v1/health").is_none() {
                    assert!(begun.elapsed() < READY, "the hub is not ready: {}", hub.output());
                    assert!(!hub.has_ended(), "the hub ended: {}", hub.output());
                    std::thread::sleep(Duration::from_millis(5));
                }
                self.slowest_start = self.slowest_start.max(begun.elapsed());
                self.hub = Some(hub);
            }
            Role::Bridge => self.bridge = Some(self.plant.start("bridge")),
            Role::Agent(number) => self.agents[number] = Some(self.plant.start(&format!("a{number}"))),
        }
    }

    /// A counter of the hub by the beginning of its line, as `forebay_hub_problems_total{problem="x"}`; all that begin so
    /// together. 0 while the hub does not answer.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let text = http_get(self.plant.http, "/metrics", &self.plant.token()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let of = |line: &str| line.rsplit_once(' ').and_then(|(_, number)| number.parse::<u64>().ok());
        text.lines().filter(|line| line.starts_with(name)).filter_map(of).sum()
    }

    /// Samples that the hub has written since its start.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.metric("forebay_hub_samples_total")
    }

    fn slot(&mut self, role: Role) -> &mut Option<Running> {
        match role {
            Role::Hub => &mut self.hub,
            Role::Bridge => &mut self.bridge,
            Role::Agent(number) => &mut self.agents[number],
        }
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// If the process had ended by itself: that is a fault of its own.
    pub fn kill(&mut self, role: Role) {
        if let Some(mut running) = self.slot(role).take() {
            assert!(!running.has_ended(), "{role:?} had ended by itself:\n{}", running.output());
            running.kill();
        }
    }

    /// Ends the load: agents start anew, read once in ten minutes, and send what they still hold.
    pub fn quiet(&mut self) {
        for agent in 0..self.load.agents {
            if let Some(running) = &self.agents[agent] {
                running.terminate();
            }
        }
        for agent in 0..self.load.agents {
            if let Some(mut running) = self.agents[agent].take() {
                running.wait(Duration::from_secs(30));
            }
            self.write_agent(agent, Duration::from_secs(600), "history_rate = 100_000_000");
            self.start(Role::Agent(agent));
        }
    }

    /// Ends the load, waits until all is in the table, and checks it twice. Returns the samples.
    ///
    /// # Panics
    /// If anything is missing, double or different, or does not come in time.
    pub fn settle_and_check(&mut self, at_most: Duration) -> u64 {
        let load_ended = self.begun.elapsed();
        self.quiet();
        let report = self.settle(at_most);
        let samples = self.check(&report);
        let rate = samples as f64 / load_ended.as_secs_f64();
        say(&format!("{samples} samples in {load_ended:.1?} ({rate:.0}/s), all in the table, each once"));
        samples
    }

    /// Waits until nothing is on the way; returns what `forebay reconcile` says then.
    ///
    /// # Panics
    /// If anything is missing, double or different, or that takes longer.
    pub fn settle(&self, at_most: Duration) -> Value {
        let begun = Instant::now();
        loop {
            let (code, report) = self.plant.reconcile();
            assert_eq!(code, 0, "{report:#}");
            if report["settled"] == true && in_table(&report) > 0 {
                let wrong =
                    report["lines"].as_array().into_iter().flatten().find(|line| line["verdict"] != "equal");
                assert!(wrong.is_none(), "not equal: {wrong:#?}");
                return report;
            }
            assert!(begun.elapsed() < at_most, "not settled within {at_most:?}: {report:#}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What DuckDB finds in the table named `lake` agrees with itself and with the agents' accounts; returns the samples.
    ///
    /// # Panics
    /// If not.
    #[must_use]
    pub fn check(&self, reconciled: &Value) -> u64 {
        self.check_table("lake", reconciled)
    }

    /// As [`Campaign::check`], for a sink of another name.
    ///
    /// # Panics
    /// If anything is missing, double or different.
    #[must_use]
    pub fn check_table(&self, sink: &str, reconciled: &Value) -> u64 {
        self.check_rows_of(sink, reconciled, 0)
    }

    /// As [`Campaign::check_table`], where so many further counters were fed in by others than the campaign's agents.
    ///
    /// # Panics
    /// If anything is missing, double or different.
    #[must_use]
    pub fn check_rows_of(&self, sink: &str, reconciled: &Value, others: usize) -> u64 {
        let folder = self.plant.dir().join(sink);
        let output = run(Command::new(python()).arg(script("check_rows.py")).arg(folder).arg("--counters"));
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON of check_rows.py");
        assert_eq!(found["problems"], serde_json::json!([]), "{found:#}\n{reconciled:#}");
        let of = |list: &Value, count: &str| -> Vec<(String, String, u64)> {
            let entries = list.as_array().into_iter().flatten();
            let mut all: Vec<_> = entries
                .map(|entry| {
                    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
                    (text("agent"), text("epoch"), entry[count].as_u64().unwrap_or(0))
                })
                .filter(|(_, _, samples)| *samples > 0)
                .collect();
            all.sort();
            all
        };
        let (accepted, held) = (of(&reconciled["lines"], "accepted"), of(&found["epochs"], "samples"));
        assert_eq!(accepted, held, "accepted by the agents, and found by DuckDB");
        let counters = found["counted"].as_object().map_or(0, serde_json::Map::len);
        let probe = usize::from(self.plant.dir().join("a0-probe.csv").exists());
        assert_eq!(counters, self.load.agents * self.load.points + probe + others, "every point has rows");
        found["rows"].as_u64().unwrap_or(0)
    }
}

/// Runs `forebay` to its end in the plant's folder.
#[must_use]
pub fn forebay_in(plant: &Plant) -> Command {
    let mut command = Command::new(forebay());
    command.current_dir(plant.dir());
    command
}

/// Moments between kills: mostly short, sometimes long enough for everything to be under way again.
pub fn moment(random: &mut Random) -> Duration {
    Duration::from_millis(match random.below(4) {
        0 => random.below(100),
        1 => 200 + random.below(300),
        _ => 300 + random.below(1_200),
    })
}
