//! Memory and CPU of an agent that reads 10 000 simulated points a second, as a process of its own without a hub in it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::figures::Figures;
use crate::machine::process_use;

const POINTS: usize = 10_000;
const DEVICES: usize = 10;

/// Runs hub and agent for `time` and reads what the agent used.
pub fn run(program: &Path, dir: &Path, time: Duration) -> Result<Figures, String> {
    std::fs::remove_dir_all(dir).ok();
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port: {error}"))?
        .port();
    write_plant(dir, port).map_err(|error| format!("{}: {error}", dir.display()))?;
    crate::ingest::add_login(program, dir, "hub.toml")?;
    let hub = Role::start(program, dir, "hub.toml")?;
    let agent = Role::start(program, dir, "agent.toml")?;
    std::thread::sleep(time.max(Duration::from_secs(5)));
    let (agent_use, hub_use) = (process_use(agent.0.id()), process_use(hub.0.id()));
    drop((agent, hub));
    std::fs::remove_dir_all(dir).ok();
    let seconds = time.max(Duration::from_secs(5)).as_secs_f64();
    let mut figures = Figures::default();
    figures.push(
        "agent_rss_mb",
        agent_use.resident as f64 / 1e6,
        "MB",
        "agent, 10 000 simulated points at 1 s",
    );
    figures.push("agent_peak_mb", agent_use.peak as f64 / 1e6, "MB", "the same at its peak");
    figures.push("agent_cores", agent_use.cpu_seconds / seconds, "cores", "the same, start included");
    figures.push("hub_rss_mb", hub_use.resident as f64 / 1e6, "MB", "hub with these 10 000 points");
    figures.push("hub_cores", hub_use.cpu_seconds / seconds, "cores", "the same, start included");
    Ok(figures)
}

struct Role(Child);

impl Role {
    fn start(program: &Path, dir: &Path, file: &str) -> Result<Role, String> {
        let child = Command::new(program)
            .args(["run", file])
            .current_dir(dir)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        child.map(Role).map_err(|error| format!("{}: {error}", program.display()))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn write_plant(dir: &Path, port: u16) -> std::io::Result<()> {
    let names = "version = 1\nenterprise = \"bench\"\nsite = \"bench\"\n";
    std::fs::write(dir.join("password"), "bench")?;
    std::fs::write(
        dir.join("hub.toml"),
        format!(
            "{names}[hub]\ndata_dir = \"hub\"\n[hub.http]\nlisten = \"127.0.0.1:0\"\n[hub.broker]\n\
             listen = \"127.0.0.1:{port}\"\n"
        ),
    )?;
    let mut agent = format!(
        "{names}[edge]\ngroup = \"bench\"\nnode = \"gen\"\ndata_dir = \"agent\"\nhub = \"mqtt://127.0.0.1:{port}\"\n\
         user = \"gen\"\npassword_file = \"password\"\n"
    );
    for device in 0..DEVICES {
        write!(
            agent,
            "[[edge.devices]]\nname = \"device-{device}\"\ndriver = \"simulated\"\npoll = \"1s\"\n\
             points = \"device-{device}.csv\"\n"
        )
        .ok();
        let mut list = "name,address,type,unit\n".to_owned();
        for point in 0..POINTS / DEVICES {
            writeln!(
                list,
                "point-{point},\"sine(period={}s, amplitude=10, mean=50)\",f64,Cel",
                10 + point % 50
            )
            .ok();
        }
        std::fs::write(dir.join(format!("device-{device}.csv")), list)?;
    }
    std::fs::write(dir.join("agent.toml"), agent)
}
