//! From a PLC to a subscriber: `forebay bench plc`. Our agent, a Python script and Node-RED read the same devices, a bare
//! socket at the broker takes the time of what it sees first; each agent's process is measured by itself.
//!
//! - `modbus`: 10 000 registers of 80 devices at a scan of 100 ms. Each register is a counter that steps every 500 ms, at a
//!   moment of its own that server and subscriber know. Ours passes on changes (dead band 0), as the others do.
//! - `modbus-all`: the same with every value of every scan, which is what ours does unless told otherwise.
//! - `opcua`: 10 000 items of an asyncua server that change each second, as monitored items.

mod agents;
mod modbus_server;
mod opcua_server;
mod steps;
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::command_line;
use crate::machine::{self, ProcessUse, process_use};
use crate::report::{Better, Column, Contestant, Outcome, Reading};
use crate::roles::Process;
pub use agents::Agent;
use agents::{Found, Source};
use modbus_server::ModbusServer;
use opcua_server::OpcUaServer;
use steps::{Seen, Steps};
use watch::Watch;

const DEVICES: usize = 80;
const REGISTERS: usize = 125;
const SCAN: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(500);
/// The shortest time between two rounds of the OPC UA server.
const ROUND: Duration = Duration::from_secs(1);
/// Until an agent has shown every point.
const PATIENCE: Duration = Duration::from_secs(120);
/// After all is there, before measuring begins; and for the last changes to come.
const SETTLE: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of [`CASES`]; none: all.
    pub cases: Vec<String>,
    /// Who takes part.
    pub agents: Vec<Agent>,
    /// The forebay to measure.
    pub program: PathBuf,
    /// Where files are kept; a real disk.
    pub dir: PathBuf,
    /// How long each run is measured.
    pub time: Duration,
    /// Runs of each.
    pub repeat: usize,
    /// Items of the OPC UA server.
    pub items: usize,
}

struct Case {
    name: &'static str,
    title: &'static str,
    columns: &'static [Column],
    agents: &'static [Agent],
}

const fn column(name: &'static str, title: &'static str, better: Better) -> Column {
    Column { name, title, better }
}

const MODBUS_COLUMNS: &[Column] = &[
    column("p50_ms", "p50 ms", Better::Lower),
    column("p99_ms", "p99 ms", Better::Lower),
    column("max_ms", "max ms", Better::Lower),
    column("lost", "lost", Better::Neither),
    column("changes_per_s", "changes/s", Better::Neither),
    column("values_per_s", "values/s", Better::Neither),
    column("cores", "agent's cores", Better::Lower),
    column("rss_mb", "agent's MB", Better::Lower),
    column("peak_mb", "peak MB", Better::Lower),
    column("broker_cores", "broker's cores", Better::Neither),
    column("load_cores", "load's cores", Better::Neither),
];

const OPCUA_COLUMNS: &[Column] = &[
    column("lost", "lost", Better::Neither),
    column("repeated", "repeated", Better::Neither),
    column("changes_per_s", "changes/s", Better::Higher),
    column("behind_ms", "server behind ms", Better::Neither),
    column("cores", "agent's cores", Better::Lower),
    column("cpu_s_per_million", "CPU s/million", Better::Lower),
    column("rss_mb", "agent's MB", Better::Lower),
    column("peak_mb", "peak MB", Better::Lower),
    column("broker_cores", "broker's cores", Better::Neither),
    column("server_cores", "server's cores", Better::Neither),
];

const CASES: &[Case] = &[
    Case {
        name: "modbus",
        title: "10 000 registers of 80 devices at 100 ms, changes; goal: p99 <= 110 ms, 0.25 core, 40 MB",
        columns: MODBUS_COLUMNS,
        agents: &[Agent::Forebay, Agent::Python, Agent::NodeRed],
    },
    Case {
        name: "modbus-all",
        title: "the same, every value of every scan (100 000 values/s)",
        columns: MODBUS_COLUMNS,
        agents: &[Agent::Forebay],
    },
    Case {
        name: "opcua",
        title: "OPC UA items that change each second; goal at 10 000: none lost, 0.15 core, 40 MB",
        columns: OPCUA_COLUMNS,
        agents: &[Agent::Forebay, Agent::Python],
    },
];

/// Runs the cases; `say` gets each table as it is done. The answer is everything, for scripts.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Value, String> {
    let cases = select(&options.cases)?;
    let (machine, command) = (machine::describe(), command_line());
    say(&format!("{command}\n{machine}"));
    let mut found = Vec::new();
    for agent in &options.agents {
        match Found::look(*agent, &options.program) {
            Ok(there) => found.push(there),
            Err(reason) => say(&format!("{}: left out: {reason}", agent.name())),
        }
    }
    let seconds = options.time.as_secs_f64();
    say(&format!("{seconds} s each, when every point was seen; median of {}\n", options.repeat));
    let mut outcomes = Vec::new();
    for case in cases {
        let outcome = measure(case, &found, options);
        say(&format!("{}\n", outcome.text()));
        outcomes.push(outcome);
    }
    say(&machine::describe());
    Ok(json!({
        "command": command,
        "machine": machine,
        "machine_after": machine::describe(),
        "seconds": seconds,
        "repeat": options.repeat,
        "items": options.items,
        "cases": outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
    }))
}

fn select(names: &[String]) -> Result<Vec<&'static Case>, String> {
    let known = || CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    for name in names {
        if !CASES.iter().any(|case| case.name == name) {
            return Err(format!("there is no case {name:?}; known: {}", known()));
        }
    }
    let is_wanted = |case: &&Case| names.is_empty() || names.iter().any(|name| name == case.name);
    Ok(CASES.iter().filter(is_wanted).collect())
}

/// Every repetition of every agent, in turn. A failure is part of the outcome: the others go on.
fn measure(case: &'static Case, found: &[Found], options: &Options) -> Outcome {
    let takes_part: Vec<&Found> = found.iter().filter(|one| case.agents.contains(&one.agent)).collect();
    let contestant =
        |one: &&Found| Contestant { peer: one.agent.name(), variant: "", runs: Vec::new(), failure: None };
    let mut contestants: Vec<Contestant> = takes_part.iter().map(contestant).collect();
    for _ in 0..options.repeat.max(1) {
        for (contestant, one) in contestants.iter_mut().zip(&takes_part) {
            let dir = options.dir.join(format!("{}-{}", case.name, contestant.peer));
            let readings = match case.name {
                "opcua" => opcua(one, &dir, options),
                name => modbus(one, &dir, options, name == "modbus-all"),
            };
            match readings {
                Ok(readings) => contestant.runs.push(readings),
                Err(failure) => contestant.failure = Some(explained(&failure, &dir)),
            }
            std::fs::remove_dir_all(&dir).ok();
        }
    }
    Outcome { name: case.name, title: case.title, columns: case.columns, contestants }
}

/// A failure with the last that the agent said.
fn explained(failure: &str, dir: &Path) -> String {
    let said = std::fs::read_to_string(dir.join("agent-said")).unwrap_or_default();
    match said.lines().rfind(|line| !line.trim().is_empty()) {
        Some(last) => format!("{failure}; it said: {last}"),
        None => failure.to_owned(),
    }
}

/// What the agent, its broker and this process used.
struct Meter {
    pids: [u32; 3],
    before: [ProcessUse; 3],
    started: Instant,
}

impl Meter {
    fn start(agent: &Process, broker: u32, load: u32) -> Meter {
        let pids = [agent.id(), broker, load];
        Meter { pids, before: pids.map(process_use), started: Instant::now() }
    }

    /// CPU seconds of the agent, cores of agent, broker and load, memory of the agent.
    fn readings(&self, load: &'static str) -> (f64, Vec<Reading>) {
        let seconds = self.started.elapsed().as_secs_f64();
        let now = self.pids.map(process_use);
        let used = |nth: usize| now[nth].cpu_seconds - self.before[nth].cpu_seconds;
        let readings = vec![
            Reading::new("cores", used(0) / seconds),
            Reading::new("rss_mb", now[0].resident as f64 / 1e6),
            Reading::new("peak_mb", now[0].peak as f64 / 1e6),
            Reading::new("broker_cores", used(1) / seconds),
            Reading::new(load, used(2) / seconds),
        ];
        (used(0), readings)
    }
}

/// Until every point was seen once.
fn wait_until_complete(
    watch: &mut Watch,
    agent: &mut Process,
    seen: &mut Seen,
    mut saw: impl FnMut(&mut Seen, usize, u32),
) -> Result<(), String> {
    let began = Instant::now();
    while !seen.is_complete() {
        watch.until(Instant::now() + Duration::from_secs(1), |point, value| {
            saw(seen, point, value);
            seen.is_complete()
        })?;
        if agent.has_ended() {
            return Err("it ended by itself".into());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("after {PATIENCE:?} it had shown {} points", seen.points_seen()));
        }
    }
    Ok(())
}

fn modbus(one: &Found, dir: &Path, options: &Options, every_value: bool) -> Result<Vec<Reading>, String> {
    let (steps, points) = (Steps::new(STEP), DEVICES * REGISTERS);
    let server = ModbusServer::start(DEVICES, REGISTERS, steps)?;
    let broker = one.start_broker(dir)?;
    let mut watch = Watch::open(&broker.door, one.filter())?;
    let scan_ms = steps::micros(SCAN) / 1000;
    let source = Source::Modbus { ports: server.ports.clone(), registers: REGISTERS, scan_ms, every_value };
    let mut agent = one.start(dir, &broker, &source)?;

    let mut seen = Seen::new(points);
    let step_of = |point, value: u32| {
        let register = u16::try_from(value % (1 << 16)).unwrap_or(0);
        let now = steps.now_us();
        (steps.of_register(point, register, now), now)
    };
    wait_until_complete(&mut watch, &mut agent, &mut seen, |seen, point, value| {
        seen.is_new(point, step_of(point, value).0);
    })?;
    watch.until(Instant::now() + SETTLE, |point, value| {
        seen.is_new(point, step_of(point, value).0);
        false
    })?;
    let meter = Meter::start(&agent, broker.pid, std::process::id());
    let from = steps.now_us();
    let to = from + steps::micros(options.time);
    let mut late_us: Vec<u64> = Vec::with_capacity(1 << 16);
    let mut values = 0_u64;
    let mut first_sight = |point, value| {
        values += 1;
        let (step, now) = step_of(point, value);
        if seen.is_new(point, step) && (from..to).contains(&steps.began(point, step)) {
            late_us.push(now.saturating_sub(steps.began(point, step)));
        }
        false
    };
    watch.until(Instant::now() + options.time, &mut first_sight)?;
    let (_, mut used) = meter.readings("load_cores");
    watch.until(Instant::now() + SETTLE, &mut first_sight)?;
    // The steps that began while it was measured.
    let began = |point, time| steps.at(point, time - 1) + 1;
    let lost: u64 = (0..points).map(|point| seen.missing(point, began(point, from)..began(point, to))).sum();
    late_us.sort_unstable();
    let at = |per_mille: usize| {
        let place = (late_us.len() * per_mille / 1000).min(late_us.len().saturating_sub(1));
        late_us.get(place).map_or(0.0, |us| *us as f64 / 1e3)
    };
    let mut readings = vec![
        Reading::new("p50_ms", at(500)),
        Reading::new("p99_ms", at(990)),
        Reading::new("max_ms", at(1000)),
        Reading::new("lost", lost as f64),
        Reading::new("changes_per_s", late_us.len() as f64 / options.time.as_secs_f64()),
        Reading::new("values_per_s", values as f64 / (options.time + SETTLE).as_secs_f64()),
    ];
    readings.append(&mut used);
    Ok(readings)
}

fn opcua(one: &Found, dir: &Path, options: &Options) -> Result<Vec<Reading>, String> {
    let python = agents::python()?;
    let broker = one.start_broker(dir)?;
    let mut server = OpcUaServer::start(&python, dir, options.items)?;
    let mut watch = Watch::open(&broker.door, one.filter())?;
    let source = Source::OpcUa { port: server.port, index: server.index, items: options.items };
    let mut agent = one.start(dir, &broker, &source)?;

    let mut seen = Seen::new(options.items);
    wait_until_complete(&mut watch, &mut agent, &mut seen, |seen, point, value| {
        seen.is_new(point, u64::from(value));
    })?;
    watch.until(Instant::now() + SETTLE, |point, value| {
        seen.is_new(point, u64::from(value));
        false
    })?;
    let meter = Meter::start(&agent, broker.pid, server.pid());
    let repeated_before = seen.repeated();
    let rounds = options.time.as_secs().max(1);
    server.change(rounds, ROUND)?;
    let mut told = None;
    let began = Instant::now();
    while told.is_none() {
        watch.until(Instant::now() + Duration::from_millis(200), |point, value| {
            seen.is_new(point, u64::from(value));
            false
        })?;
        told = server.is_done();
        if began.elapsed() > options.time * 20 + PATIENCE {
            return Err("the OPC UA server does not come to an end".into());
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let (cpu_seconds, mut used) = meter.readings("server_cores");
    // A server that is behind with writing is behind with sending too: wait as long as something comes.
    let changes = rounds * options.items as u64;
    let missing = |seen: &Seen| (0..options.items).map(|item| seen.missing(item, 1..rounds + 1)).sum::<u64>();
    let mut last = u64::MAX;
    while missing(&seen) < last && missing(&seen) > 0 {
        last = missing(&seen);
        watch.until(Instant::now() + SETTLE, |point, value| {
            seen.is_new(point, u64::from(value));
            false
        })?;
    }
    let lost = missing(&seen);
    let behind = told.as_ref().and_then(|told| told["late_ms"].as_f64()).unwrap_or(0.0);
    let mut readings = vec![
        Reading::new("lost", lost as f64),
        Reading::new("repeated", (seen.repeated() - repeated_before) as f64),
        Reading::new("changes_per_s", (changes - lost) as f64 / seconds),
        Reading::new("behind_ms", behind),
        Reading::new("cpu_s_per_million", cpu_seconds / (changes - lost).max(1) as f64 * 1e6),
    ];
    readings.append(&mut used);
    Ok(readings)
}
