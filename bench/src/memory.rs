//! Memory of an agent with 10 000 points, and of a hub with 100 000 points and 1 000 subscribed clients, each in a process
//! of its own; how it grows over the time of the run.
//!
//! The agent reads its points every second; a second agent with the other 90 000, every ten seconds, is not measured. Each
//! client is subscribed to one of ten devices' data, and reads what comes.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::broker::connection::{Connection, Door};
use crate::broker::peers;
use crate::figures::Figures;
use crate::machine::process_use;
use crate::roles::{Hub, Process, edge_section};

const POINTS: usize = 10_000;
const OTHER_POINTS: usize = 90_000;
const CLIENTS: usize = 1_000;
const DEVICES: usize = 10;
/// Until every point has come once.
const PATIENCE: Duration = Duration::from_secs(180);
/// Memory is looked at this often.
const LOOK: Duration = Duration::from_millis(500);
/// Shorter than this says nothing.
const TIME_MIN: Duration = Duration::from_secs(5);

/// Measures for `time` once all is there.
pub fn run(program: &Path, dir: &Path, time: Duration) -> Result<Figures, String> {
    let time = time.max(TIME_MIN);
    let hub = Hub::start(program, dir, &["gen", "other"])?;
    let mut readers = Readers::open(&hub.broker.door)?;
    write_agent(dir, "gen", &hub, POINTS, "1s")?;
    write_agent(dir, "other", &hub, OTHER_POINTS, "10s")?;
    let agent = Process::forebay(program, dir, "gen.toml")?;
    let other = Process::forebay(program, dir, "other.toml")?;
    let started = Instant::now();
    while hub.samples() < (POINTS * 3 + OTHER_POINTS) as u64 {
        if started.elapsed() > PATIENCE {
            return Err(format!("the hub has {} values only", hub.samples()));
        }
        readers.read_for(LOOK)?;
    }
    let ids = [agent.id(), hub.broker.pid];
    let (before, began) = (ids.map(process_use), Instant::now());
    let mut looks: Vec<(f64, [f64; 2])> = Vec::new();
    while began.elapsed() < time {
        let memory = ids.map(|id| process_use(id).resident as f64 / 1e6);
        looks.push((began.elapsed().as_secs_f64() / 3600.0, memory));
        readers.read_for(LOOK)?;
    }
    let (now, seconds) = (ids.map(process_use), began.elapsed().as_secs_f64());
    let received = readers.messages;
    drop((agent, other, hub));
    std::fs::remove_dir_all(dir).ok();
    let mut figures = Figures::default();
    let whats = [
        format!("agent, {POINTS} simulated points at 1 s; goal 20 MB"),
        format!("hub, {} points, {CLIENTS} subscribed clients; goal 64 MB", POINTS + OTHER_POINTS),
    ];
    for (nth, (role, what)) in ["agent", "hub"].into_iter().zip(whats).enumerate() {
        let cores = (now[nth].cpu_seconds - before[nth].cpu_seconds) / seconds;
        figures.push(format!("{role}_rss_mb"), now[nth].resident as f64 / 1e6, "MB", what);
        figures.push(format!("{role}_peak_mb"), now[nth].peak as f64 / 1e6, "MB", "the same at its peak");
        let line: Vec<(f64, f64)> = looks.iter().map(|(hours, memory)| (*hours, memory[nth])).collect();
        figures.push(
            format!("{role}_mb_per_hour"),
            slope(&line),
            "MB/h",
            format!("its slope over {seconds:.0} s (minutes say little: --for 1h)"),
        );
        figures.push(format!("{role}_cores"), cores, "cores", "the same, births not included");
    }
    figures.push(
        "client_messages_per_s",
        received as f64 / started.elapsed().as_secs_f64(),
        "1/s",
        "read by all clients",
    );
    Ok(figures)
}

/// Slope of the line with the least squares.
fn slope(line: &[(f64, f64)]) -> f64 {
    let count = line.len().max(1) as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| line.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|point| point.0), mean(&|point| point.1));
    let across = mean(&|point| (point.0 - x) * (point.1 - y));
    let along = mean(&|point| (point.0 - x) * (point.0 - x));
    if along > 0.0 { across / along } else { 0.0 }
}

/// Clients that are subscribed, and read.
struct Readers {
    connections: Vec<Connection>,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    messages: u64,
}

impl Readers {
    fn open(door: &Door) -> Result<Readers, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let mut connections = Vec::new();
        for client in 0..CLIENTS {
            let mut connection = Connection::open(door, &format!("reader-{client}"), true)?;
            connection.subscribe(&format!("spBv1.0/bench/DDATA/gen/d{}", client % DEVICES), 0)?;
            connection.register(poll.registry(), client)?;
            connections.push(connection);
        }
        let events = Events::with_capacity(CLIENTS);
        Ok(Readers { connections, poll, events, buffer: vec![0; 1 << 20], messages: 0 })
    }

    fn read_for(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("epoll: {error}"));
                }
                _ => {}
            }
            for event in self.events.iter().filter(|event| event.is_readable()) {
                if let Some(connection) = self.connections.get_mut(event.token().0) {
                    connection.read(&mut self.buffer, |_| self.messages += 1)?;
                }
            }
        }
        Ok(())
    }
}

fn write_agent(dir: &Path, node: &str, hub: &Hub, points: usize, poll: &str) -> Result<(), String> {
    let mut agent = edge_section(node, hub.broker.door.address.port());
    for device in 0..DEVICES {
        let name = format!("d{device}");
        write!(
            agent,
            "[[edge.devices]]\nname = \"{name}\"\ndriver = \"simulated\"\npoll = \"{poll}\"\npoints = \"{node}-{name}.csv\"\n"
        )
        .ok();
        let mut list = "name,address,type,unit,path\n".to_owned();
        for point in 0..points / DEVICES {
            let period = 10 + point % 50;
            writeln!(
                list,
                "point-{point},\"sine(period={period}s, amplitude=10, mean=50)\",f64,Cel,{node}/{name}/point-{point}"
            )
            .ok();
        }
        peers::write(dir, &format!("{node}-{name}.csv"), &list)?;
    }
    peers::write(dir, &format!("{node}.toml"), &agent)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_has_its_slope() {
        let line: Vec<(f64, f64)> =
            (0..10).map(|x| (f64::from(x) / 10.0, 3.0 + 2.0 * f64::from(x) / 10.0)).collect();
        assert!((super::slope(&line) - 2.0).abs() < 1e-9);
        assert!(super::slope(&[]).abs() < 1e-9 && super::slope(&line[..1]).abs() < 1e-9);
    }
}
