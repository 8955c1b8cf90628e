//! A hub and agents as processes of their own, for every bench that measures them: their files, their start, their end.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::broker::peers::{self, Broker};

/// Above what any bench opens.
const LIMITS: &str = "[hub.broker.limits]\nconnections = 4000\nconnections_per_address = 4000\n";

/// The beginning of every configuration.
const NAMES: &str = "version = 1\nenterprise = \"bench\"\nsite = \"bench\"\n";

/// A hub alone, at whose broker anybody may read; ended when dropped.
pub(crate) struct Hub {
    pub(crate) broker: Broker,
    http: u16,
    dir: PathBuf,
}

impl Hub {
    /// Starts one in `dir`, which is made anew; the nodes may log in with the password `bench`.
    pub(crate) fn start(program: &Path, dir: &Path, nodes: &[&str]) -> Result<Hub, String> {
        std::fs::remove_dir_all(dir).ok();
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (door, http) = (peers::free_door(None, None)?, free_port()?);
        let text = format!(
            "{NAMES}[hub]\ndata_dir = \"hub\"\n[hub.http]\nlisten = \"127.0.0.1:{http}\"\n[hub.broker]\n\
             listen = \"{}\"\nanonymous_read = true\n{LIMITS}",
            door.address
        );
        peers::write(dir, "password", "bench")?;
        peers::write(dir, "hub.toml", &text)?;
        for node in nodes {
            crate::ingest::add_login(program, dir, "hub.toml", node)?;
        }
        let mut command = Command::new(program);
        command.args(["run", "hub.toml"]).env("RUST_LOG", "warn");
        Ok(Hub { broker: peers::launch(command, dir, door)?, http, dir: dir.to_owned() })
    }

    /// Values that it has stored.
    pub(crate) fn samples(&self) -> u64 {
        let token = std::fs::read_to_string(self.dir.join("hub/token")).unwrap_or_default();
        let text = get(self.http, "/metrics", token.trim()).unwrap_or_default();
        let of = |line: &str| line.rsplit_once(' ')?.1.parse::<u64>().ok();
        text.lines().filter(|line| line.starts_with("forebay_hub_samples_total")).filter_map(of).sum()
    }
}

/// The `[edge]` section of a node, behind which its devices follow.
pub(crate) fn edge_section(node: &str, broker: u16) -> String {
    format!(
        "{NAMES}[edge]\ngroup = \"bench\"\nnode = \"{node}\"\ndata_dir = \"{node}\"\n\
         hub = \"mqtt://127.0.0.1:{broker}\"\nuser = \"{node}\"\npassword_file = \"password\"\n"
    )
}

/// A process; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command in `dir`, its words in a file there.
    pub(crate) fn start(mut command: Command, dir: &Path, said: &str) -> Result<Process, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let log = std::fs::File::create(dir.join(said)).map_err(failed)?;
        let second = log.try_clone().map_err(failed)?;
        command.current_dir(dir).stdin(Stdio::null()).stdout(log).stderr(second);
        command.spawn().map(Process).map_err(failed)
    }

    /// `forebay run FILE`.
    pub(crate) fn forebay(program: &Path, dir: &Path, file: &str) -> Result<Process, String> {
        let mut command = Command::new(program);
        command.args(["run", file]).env("RUST_LOG", "warn");
        Process::start(command, dir, &format!("{file}-said"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(crate) fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// A GET; what follows the head of the answer.
pub(crate) fn get(port: u16, path: &str, token: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}
