//! The brokers that are measured: how each is configured, started on a free loopback port, and ended by its process id.
//!
//! Every run gets a fresh process, so that its peak memory is its own. What each may hold is set above what the load can
//! have on its way (see [`mosquitto`] and [`rumqttd`]), so that none drops because of a default.

mod certificates;
mod forebay;
mod mosquitto;
mod rumqttd;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Door;

/// For a broker to accept connections after its start.
const START: Duration = Duration::from_secs(20);

/// Whose broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Ours: `forebay run` with nothing but `[hub]`.
    Forebay,
    /// Debian's mosquitto.
    Mosquitto,
    /// rumqttd from its crate; see `scripts/bench-peers`.
    Rumqttd,
    /// One that runs already.
    Running,
}

impl Peer {
    /// As in `--peer`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Peer::Forebay => "forebay",
            Peer::Mosquitto => "mosquitto",
            Peer::Rumqttd => "rumqttd",
            Peer::Running => "running",
        }
    }
}

/// What a run needs of a broker beyond carrying messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// Keeps sessions and messages on disk.
    pub(super) disk: bool,
    /// Speaks TLS.
    pub(super) tls: bool,
    /// Bounds what waits for one client as it does by default, where other runs unbound it.
    pub(super) default_queues: bool,
}

/// A broker that is there, and how to use it.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(super) peer: Peer,
    /// Name and version as it says itself.
    pub(crate) version: String,
    program: PathBuf,
    /// [`Peer::Running`] only.
    running: Option<Running>,
}

/// A broker that somebody else started.
#[derive(Clone, Debug)]
pub struct Running {
    /// Where it listens, plain TCP.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// User and password, if it wants them.
    pub login: Option<(String, String)>,
}

impl Installed {
    /// Looks for it; the error says how to get it.
    pub(crate) fn find(
        peer: Peer,
        own_program: &Path,
        running: Option<&Running>,
    ) -> Result<Installed, String> {
        let (program, version) = match peer {
            Peer::Forebay => (own_program.to_owned(), version_of(own_program, "--version")),
            Peer::Mosquitto => {
                let program =
                    mosquitto::program().ok_or("mosquitto is not installed; scripts/peers installs it")?;
                let version = version_of(&program, "-h");
                (program, version)
            }
            Peer::Rumqttd => {
                let program =
                    rumqttd::program().ok_or("rumqttd is not installed; scripts/bench-peers builds it")?;
                let version = version_of(&program, "--version");
                (program, version)
            }
            Peer::Running => {
                let at = running.ok_or("no --connect")?.address;
                (PathBuf::new(), format!("the broker at {at}"))
            }
        };
        Ok(Installed { peer, version, program, running: running.cloned() })
    }

    /// Starts a fresh one with its files in `dir`.
    pub(crate) fn start(&self, dir: &Path, needs: Needs) -> Result<Broker, String> {
        if let (Peer::Running, Some(running)) = (self.peer, &self.running) {
            let door = Door { address: running.address, login: running.login.clone(), tls: None };
            return Ok(Broker { pid: running.pid, door, process: None });
        }
        std::fs::remove_dir_all(dir).ok();
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
        match self.peer {
            Peer::Forebay => forebay::start(&self.program, &dir, needs),
            Peer::Mosquitto => mosquitto::start(&self.program, &dir, needs),
            Peer::Rumqttd | Peer::Running => rumqttd::start(&self.program, &dir, needs),
        }
    }
}

/// A broker that runs; ended when dropped, unless somebody else started it.
pub(crate) struct Broker {
    /// Its process.
    pub(crate) pid: u32,
    /// For those who publish and subscribe.
    pub(crate) door: Door,
    process: Option<Child>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// Runs the command in `dir` and waits until `door` is open.
pub(crate) fn launch(mut command: Command, dir: &Path, door: Door) -> Result<Broker, String> {
    let said = dir.join("said");
    let log = std::fs::File::create(&said).map_err(|error| format!("{}: {error}", said.display()))?;
    let second = log.try_clone().map_err(|error| format!("{}: {error}", said.display()))?;
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.current_dir(dir).stdin(Stdio::null()).stdout(log).stderr(second).spawn();
    let child = child.map_err(|error| format!("{name}: {error}"))?;
    let (address, pid) = (door.address, child.id());
    let mut broker = Broker { pid, door, process: Some(child) };
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        let ended = broker.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
        if ended.is_some() || started.elapsed() > START {
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            let tail: Vec<&str> = said.lines().rev().take(5).collect();
            let end = ended.map_or("does not listen".to_owned(), |status| format!("ended: {status}"));
            return Err(format!("{name} {end}: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" | ")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(broker)
}

/// A door on a free loopback port.
pub(crate) fn free_door(
    login: Option<(&str, &str)>,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<Door, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = listener.map_err(|error| format!("no free port: {error}"))?;
    let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
    Ok(Door { address, login, tls })
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) -> Result<(), String> {
    std::fs::write(dir.join(name), text).map_err(|error| format!("{name}: {error}"))
}

/// The first line that a program says about itself.
fn version_of(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("of unknown version").trim().to_owned()
}

/// The program of that name in one of the folders or in `PATH`.
pub(crate) fn find_program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).collect::<Vec<_>>();
    folders.iter().chain(&in_path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
