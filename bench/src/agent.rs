//! The agent's own road: simulated device → normalise → outbox (fsync) → Sparkplug out, as fast as it goes.
//!
//! An agent in a process of its own is asked for more than it can do: devices that are due every 10 ms, the shortest poll
//! there is, one record for each read. What it does not manage it leaves out (missed polls), so what arrives in a hub of
//! its own process is the rate that it sustains. `values_per_s_…` can be bound by the hub; the CPU time of the agent is not.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::peers;
use crate::figures::Figures;
use crate::machine::process_use;
use crate::roles::{Hub, Process, edge_section};

/// Values per message, and how many devices are due every 10 ms: 4 M, 0.5 M and 0.1 M values/s are asked for. A device has one
/// record on its way to the disk at a time, so that more of them than the agent can serve only add idle turns.
const LOADS: [(usize, usize); 3] = [(100, 400), (5, 1_000), (1, 1_000)];
/// Births of thousands of devices take a while.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between the first values and the measuring.
const WARM_UP: Duration = Duration::from_secs(3);

/// Each load for `time`, as often as `repeat` says; medians.
pub fn run(program: &Path, dir: &Path, time: Duration, repeat: usize) -> Result<Figures, String> {
    let mut runs = Vec::new();
    for _ in 0..repeat.max(1) {
        let mut figures = Figures::default();
        for (values, devices) in LOADS {
            once(program, dir, values, devices, time, &mut figures)?;
        }
        runs.push(figures);
    }
    std::fs::remove_dir_all(dir).ok();
    Ok(Figures::medians(runs))
}

fn once(
    program: &Path,
    dir: &Path,
    values: usize,
    devices: usize,
    time: Duration,
    figures: &mut Figures,
) -> Result<(), String> {
    let hub = Hub::start(program, dir, &["gen"])?;
    let broker = hub.broker.door.address.port();
    let mut agent = edge_section("gen", broker) + "history_rate = 100_000_000\n";
    for device in 0..devices {
        write!(
            agent,
            "[[edge.devices]]\nname = \"d{device}\"\ndriver = \"simulated\"\npoll = \"10ms\"\npoints = \"points.csv\"\n"
        )
        .ok();
    }
    let mut points = "name,address,type\n".to_owned();
    for point in 0..values {
        writeln!(points, "p{point},\"sine(period={}s)\",f64", 10 + point % 50).ok();
    }
    peers::write(dir, "points.csv", &points)?;
    peers::write(dir, "agent.toml", &agent)?;
    let mut agent = Process::forebay(program, dir, "agent.toml")?;
    let started = Instant::now();
    while hub.samples() < (values * devices) as u64 {
        if agent.has_ended() || started.elapsed() > PATIENCE {
            let said = std::fs::read_to_string(dir.join("agent.toml-said")).unwrap_or_default();
            return Err(format!("the agent with {devices} devices sends nothing: {said}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(WARM_UP);
    let ids = [agent.id(), hub.broker.pid];
    let (before, arrived, began) = (ids.map(process_use), hub.samples(), Instant::now());
    std::thread::sleep(time);
    let (now, arrived) = (ids.map(process_use), hub.samples() - arrived);
    let seconds = began.elapsed().as_secs_f64();
    let cpu = |nth: usize| now[nth].cpu_seconds - before[nth].cpu_seconds;
    let wanted = values * devices * 100;
    figures.push(
        format!("values_per_s_{values}"),
        arrived as f64 / seconds,
        "values/s",
        format!("{values} per message, agent to the hub's log; {devices} devices would be {wanted}/s"),
    );
    figures.push(
        format!("cpu_s_per_million_{values}"),
        cpu(0) / arrived.max(1) as f64 * 1e6,
        "s",
        "CPU of the agent per million values",
    );
    figures.push(format!("agent_cores_{values}"), cpu(0) / seconds, "cores", "the agent's");
    figures.push(
        format!("hub_cores_{values}"),
        cpu(1) / seconds,
        "cores",
        "the hub's: near 1 it is the bound",
    );
    figures.push(
        format!("agent_rss_mb_{values}"),
        now[0].resident as f64 / 1e6,
        "MB",
        format!("agent with {} points", values * devices),
    );
    Ok(())
}
