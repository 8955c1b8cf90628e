//! The hub under load, with or without a bridge, as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::machine::{ProcessUse, process_use};
use crate::roles::{free_port, get};

/// A hub, and its folder.
pub(super) struct Plant {
    process: Child,
    pub(super) mqtt: u16,
    http: u16,
    dir: PathBuf,
}

impl Plant {
    /// Starts one on an empty folder.
    pub(super) fn start(program: &Path, dir: &Path, with_bridge: bool) -> Result<Plant, String> {
        std::fs::remove_dir_all(dir).ok();
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (mqtt, http) = (free_port()?, free_port()?);
        write(dir, "password", "bench")?;
        write(dir, "plant.toml", &config(mqtt, http, with_bridge))?;
        add_login(program, dir, "plant.toml", "gen")?;
        Ok(Plant { process: run(program, dir)?, mqtt, http, dir: dir.to_owned() })
    }

    /// Ends it and starts it again on what it left.
    pub(super) fn restart(&mut self, program: &Path, with_bridge: bool) -> Result<(), String> {
        self.process.kill().ok();
        self.process.wait().ok();
        write(&self.dir, "plant.toml", &config(self.mqtt, self.http, with_bridge))?;
        self.process = run(program, &self.dir)?;
        let started = Instant::now();
        while self.log_end().is_none() {
            if started.elapsed() > PATIENCE {
                return Err("the hub did not start again".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(super) fn used(&self) -> ProcessUse {
        process_use(self.process.id())
    }

    pub(super) fn wait_until_exported(&self) -> Result<(), String> {
        let started = Instant::now();
        while !self.is_exported() {
            if started.elapsed() > PATIENCE {
                return Err("the table did not catch up".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether the sink has committed the whole plant log: asked of what costs the hub nothing to answer.
    fn is_exported(&self) -> bool {
        let end = self.log_end();
        end.is_some() && self.committed() == end
    }

    fn log_end(&self) -> Option<u64> {
        let answer: serde_json::Value = serde_json::from_str(&self.get("/api/v1/health")?).ok()?;
        answer["log"]["end"].as_u64()
    }

    fn committed(&self) -> Option<u64> {
        let metrics = self.get("/metrics")?;
        let line = metrics.lines().find(|line| line.starts_with("forebay_bridge_committed_position"))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    fn get(&self, path: &str) -> Option<String> {
        let token = std::fs::read_to_string(self.dir.join("hub/token")).ok()?;
        get(self.http, path, token.trim())
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn config(mqtt: u16, http: u16, with_bridge: bool) -> String {
    let hub = format!(
        "version = 1\nenterprise = \"bench\"\nsite = \"bench\"\n[hub]\ndata_dir = \"hub\"\n[hub.http]\n\
         listen = \"127.0.0.1:{http}\"\n[hub.broker]\nlisten = \"127.0.0.1:{mqtt}\"\n"
    );
    let bridge = format!(
        "[bridge]\nhub = \"http://127.0.0.1:{http}\"\ntoken_file = \"hub/token\"\n[[bridge.sinks]]\nname = \"lake\"\n\
         kind = \"delta\"\npath = \"lake\"\nmax_wait = \"1s\"\n"
    );
    if with_bridge { hub + &bridge } else { hub }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), String> {
    std::fs::write(dir.join(name), text).map_err(|error| format!("{name}: {error}"))
}

fn run(program: &Path, dir: &Path) -> Result<Child, String> {
    let mut command = Command::new(program);
    command.args(["run", "plant.toml"]).current_dir(dir).env("RUST_LOG", "warn");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    child.map_err(|error| format!("{}: {error}", program.display()))
}

/// Lets a node of the group `bench` in as an agent, with the password in `password`.
pub(crate) fn add_login(program: &Path, dir: &Path, config: &str, node: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(["user", "add", node, "--role", "agent", "--node", &format!("bench/{node}")]);
    let output = command.args(["--password-file", "password", "--config", config]).current_dir(dir).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
