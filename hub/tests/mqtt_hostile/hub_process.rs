//! A hub in a process of its own, so that it can be killed and its memory measured: this test binary, started anew.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use hub::Config;
use hub::config::broker::{ClientCertificates, Limits, Listener, Protocol};
use hub::config::{BrokerConfig, CommandsConfig, EmbeddedBroker, HttpConfig};
use runtime::clock::Clock;
use runtime::pki::{Authority, PrivateKey, write_private, write_public};
use runtime::tasks::{CancellationToken, Tasks};
use runtime::telemetry::Metrics;
use sha2::{Digest as _, Sha256};

/// The token of the one identity, which may do everything.
pub(crate) const TOKEN: &str = "the token of the tester";

/// Environment of the child: its folder, and its ports as `mqtt,websocket,tls`.
const FOLDER: &str = "FOREBAY_HOSTILE_FOLDER";
const PORTS: &str = "FOREBAY_HOSTILE_PORTS";
/// Limits that differ from the default: `small`.
const LIMITS: &str = "FOREBAY_HOSTILE_LIMITS";

/// A hub as a child process; killed by its id when dropped.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) websocket: SocketAddr,
    pub(crate) tls: SocketAddr,
    folder: PathBuf,
    limits: &'static str,
    running: Option<(Child, ChildStdin)>,
    _turn: Turn,
}

/// Tests that measure have the machine to themselves, as far as this suite goes.
static TURNS: RwLock<()> = RwLock::new(());

enum Turn {
    Among { _others: RwLockReadGuard<'static, ()> },
    Alone { _held: RwLockWriteGuard<'static, ()> },
}

impl Hub {
    /// Starts with the default limits.
    pub(crate) fn start() -> Hub {
        Hub::with("")
    }

    /// Starts with the limits that [`limits`] has under this name.
    pub(crate) fn with(limits: &'static str) -> Hub {
        let _others = TURNS.read().unwrap_or_else(PoisonError::into_inner);
        Hub::make(limits, Turn::Among { _others })
    }

    /// As [`Hub::with`], while no other test of this suite runs.
    pub(crate) fn alone(limits: &'static str) -> Hub {
        let _held = TURNS.write().unwrap_or_else(PoisonError::into_inner);
        Hub::make(limits, Turn::Alone { _held })
    }

    fn make(limits: &'static str, turn: Turn) -> Hub {
        let folder = tempfile::Builder::new().prefix("mqtt-hostile").tempdir().unwrap().keep();
        let [address, websocket, tls] = [(); 3].map(|()| free_address());
        write_files(&folder);
        let mut hub = Hub { address, websocket, tls, folder, limits, running: None, _turn: turn };
        hub.run();
        hub
    }

    fn run(&mut self) {
        let ports = [self.address, self.websocket, self.tls].map(|address| address.port().to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hub_process::the_hub", "--nocapture", "--quiet"])
            .env(FOLDER, &self.folder)
            .env(PORTS, ports.join(","))
            .env(LIMITS, self.limits)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        self.running = Some((child, stdin));
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("HUB READY")), "the hub did not start");
        std::thread::spawn(move || lines.for_each(drop)); // so that the pipe never fills
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _stdin)) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts again on the same folder and ports; how long that took.
    pub(crate) fn restart(&mut self) -> Duration {
        let begun = Instant::now();
        self.kill();
        self.run();
        begun.elapsed()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|(child, _)| child.try_wait().unwrap().is_none())
    }

    /// Resident memory and its peak, bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let id = self.running.as_ref().map_or(0, |(child, _)| child.id());
        let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the hub's folder: {}", self.folder.display());
        } else {
            std::fs::remove_dir_all(&self.folder).ok();
        }
    }
}

/// An address on loopback that nobody listens on at the moment.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Access file and certificates.
fn write_files(folder: &Path) {
    let hash: String = Sha256::digest(TOKEN.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let access = format!(
        "version = 1\n[roles.everything]\npublish = [\"#\"]\nsubscribe = [\"#\", \"$SYS/#\"]\n\
         [[identities]]\nname = \"tester\"\nroles = [\"everything\"]\ntoken = \"sha256:{hash}\"\n"
    );
    std::fs::write(folder.join("access.toml"), access).unwrap();
    let now = Clock::machine().now();
    let (authority, _key) = Authority::make("hostile test CA", now).unwrap();
    let key = PrivateKey::make().unwrap();
    let issued = authority.issue_server(&["localhost".to_owned()], &key, now).unwrap();
    write_public(&folder.join("hub.crt"), &issued.pem).unwrap();
    write_private(&folder.join("hub.key"), &key.to_pem()).unwrap();
    write_public(&folder.join("ca.crt"), authority.pem()).unwrap();
}

fn limits(name: &str) -> Limits {
    let all = Limits { connections: 4_000, connections_per_address: 4_000, ..Limits::default() };
    match name {
        // Bounds that a test reaches in a second.
        "small" => Limits {
            connections: 1_500,
            connections_per_address: 700,
            retained_messages: 60_000,
            retained_bytes: 32 << 20,
            session_messages: 2_000,
            ..all
        },
        "tiny" => Limits { retained_messages: 100, session_messages: 50_000, ..all },
        _ => all,
    }
}

fn config(folder: &Path, ports: &str, limit: &str) -> Config {
    let ports: Vec<u16> = ports.split(',').map(|port| port.parse().unwrap()).collect();
    let [mqtt, websocket, tls] = [0, 1, 2].map(|at| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[at])));
    let listener = |listen, protocol, tls| Listener {
        listen,
        protocol,
        tls,
        client_certificate: ClientCertificates::None,
        anonymous_read: false,
    };
    let mut broker = EmbeddedBroker {
        listen: mqtt,
        access_file: folder.join("access.toml"),
        listeners: vec![listener(websocket, Protocol::WebSocket, false), listener(tls, Protocol::Mqtt, true)],
        limits: limits(limit),
        ..EmbeddedBroker::of(folder)
    };
    broker.tls.cert_file = folder.join("hub.crt");
    broker.tls.key_file = folder.join("hub.key");
    broker.tls.client_ca_file = folder.join("ca.crt");
    Config {
        enterprise: "acme".into(),
        site: "antwerp".into(),
        data_dir: folder.to_owned(),
        id: "antwerp".into(),
        host_id: "forebay".into(),
        retention: Duration::from_secs(3600),
        retention_bytes: 1_000_000_000,
        clock_skew_max: Duration::from_secs(60),
        broker: BrokerConfig::Embedded(broker),
        http: HttpConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) },
        commands: CommandsConfig { enabled: false },
    }
}

/// What the child does (and nothing without its folder): it is the hub until it is killed, or nobody holds its standard input any more.
#[test]
fn the_hub() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let config = config(
        Path::new(&folder),
        &std::env::var(PORTS).unwrap_or_default(),
        &std::env::var(LIMITS).unwrap_or_default(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async move {
        let tasks = Tasks::new(CancellationToken::new());
        let _handle = hub::start(config, Clock::machine(), Metrics::default(), tasks.clone()).await.unwrap();
        println!("HUB READY");
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            _ended = ended => {}
            () = tasks.shutdown().cancelled_owned() => println!("a task of the hub has failed"),
        }
        std::process::exit(0);
    });
}
