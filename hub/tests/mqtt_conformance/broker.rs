//! The broker under test. Ours, unless `FOREBAY_TEST_BROKER` says otherwise:
//! - `mosquitto`: Debian's, started by the suite, to see whether a test is right;
//! - `HOST:PORT` on loopback with `FOREBAY_TEST_USER` and `FOREBAY_TEST_PASSWORD`: one that runs already. What needs a
//!   restart, access rules or WebSocket is then left out, and says so.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::our_hub::Hub;

pub(crate) const TESTER: &str = "a password of the tester";
pub(crate) const READER: &str = "a password of the reader";

/// Who a client says it is.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The hub's own.
    Ours,
    /// Debian's mosquitto, started by us.
    Mosquitto,
    /// Somebody else's.
    Foreign,
}

/// A running broker with three logins: one may do everything, one may only read below `open/`, one does not exist.
pub(crate) struct Broker {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    /// Where it speaks MQTT over WebSocket.
    pub(crate) websocket: Option<SocketAddr>,
    /// May publish and subscribe to everything.
    pub(crate) login: Login,
    folder: PathBuf,
    sparkplug_aware: bool,
    running: Running,
}

enum Running {
    Ours(Hub),
    Child(Child),
    Stopped,
}

fn login(user: &str, password: &str) -> Login {
    Login { user: user.into(), password: password.into() }
}

impl Broker {
    /// The one that most tests share.
    pub(crate) fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| {
            // It lives as long as the process; its folder is emptied by the next one.
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mqtt-conformance");
            std::fs::remove_dir_all(&folder).ok();
            std::fs::create_dir_all(&folder).unwrap();
            Broker::on(folder, false)
        })
    }

    fn on(folder: PathBuf, sparkplug_aware: bool) -> Broker {
        let choice = std::env::var("FOREBAY_TEST_BROKER").ok();
        let kind = match choice.as_deref() {
            None => Kind::Ours,
            Some("mosquitto") => Kind::Mosquitto,
            Some(address) => {
                let value = |name: &str| std::env::var(name).unwrap_or_default();
                let address = address.parse().expect("FOREBAY_TEST_BROKER=mosquitto or HOST:PORT");
                return Broker {
                    kind: Kind::Foreign,
                    address,
                    websocket: None,
                    login: login(&value("FOREBAY_TEST_USER"), &value("FOREBAY_TEST_PASSWORD")),
                    folder,
                    sparkplug_aware,
                    running: Running::Stopped,
                };
            }
        };
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut broker = Broker {
            kind,
            address: any,
            websocket: None,
            login: login("tester", TESTER),
            folder,
            sparkplug_aware,
            running: Running::Stopped,
        };
        broker.start();
        broker
    }

    /// One for a test alone; none, with a word about it, where the suite cannot start any.
    pub(crate) fn alone() -> Option<Broker> {
        let broker = Broker::on(Broker::own_folder(), false);
        if broker.kind == Kind::Foreign {
            eprintln!("left out: needs a broker of the suite's own");
            return None;
        }
        Some(broker)
    }

    /// A Sparkplug-aware one for a test alone; none, with a word about it, if it is not ours.
    pub(crate) fn aware() -> Option<Broker> {
        if std::env::var_os("FOREBAY_TEST_BROKER").is_some() {
            eprintln!("left out: only our broker is asked to be Sparkplug-aware");
            return None;
        }
        Some(Broker::on(Broker::own_folder(), true))
    }

    /// A folder that is removed after the broker's end.
    fn own_folder() -> PathBuf {
        tempfile::Builder::new().prefix("mqtt-conformance").tempdir().unwrap().keep()
    }

    /// May subscribe below `open/` and publish nothing.
    pub(crate) fn reader(&self) -> Login {
        login("reader", READER)
    }

    /// Right name, wrong password.
    pub(crate) fn wrong_password(&self) -> Login {
        login("tester", "not the password")
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.kind == Kind::Ours
    }

    /// Whether to look away: mosquitto 2.0.11 is known not to follow the standard here.
    pub(crate) fn is_mosquitto_which(&self, _does: &str) -> bool {
        self.kind == Kind::Mosquitto
    }

    fn start(&mut self) {
        match self.kind {
            Kind::Ours => {
                let hub = Hub::start(&self.folder, free_address(), self.sparkplug_aware);
                (self.address, self.websocket) = (hub.address, hub.websocket);
                self.running = Running::Ours(hub);
            }
            Kind::Mosquitto => {
                (self.address, self.websocket) = (free_address(), Some(free_address()));
                let config = mosquitto_config(&self.folder, self.address, self.websocket.unwrap());
                let log = std::fs::File::create(self.folder.join("log")).unwrap();
                // It ends with our end of the pipe: a static is never dropped.
                let script = "/usr/sbin/mosquitto -c \"$0\" & pid=$!; cat > /dev/null; kill $pid; wait $pid";
                let child = Command::new("sh")
                    .args(["-c", script])
                    .arg(config)
                    .stdin(Stdio::piped())
                    .stdout(log.try_clone().unwrap())
                    .stderr(log)
                    .spawn()
                    .expect("mosquitto");
                self.running = Running::Child(child);
                let until = Instant::now() + Duration::from_secs(10);
                let both = [self.address, self.websocket.unwrap()];
                while both.iter().any(|address| TcpStream::connect(address).is_err()) {
                    assert!(Instant::now() < until, "mosquitto does not listen: {}", self.folder.display());
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Kind::Foreign => {}
        }
    }

    fn stop(&mut self) {
        match std::mem::replace(&mut self.running, Running::Stopped) {
            Running::Ours(hub) => hub.stop(),
            Running::Child(mut child) => {
                drop(child.stdin.take());
                child.wait().unwrap();
            }
            Running::Stopped => {}
        }
    }

    /// Ends in order and starts again on the same folder.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Running::Ours(_) = self.running
        {
            return; // the first panic says more than one of a stop
        }
        self.stop();
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.folder).ok();
        }
    }
}

/// An address on loopback that nobody listens on at the moment.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn mosquitto_config(folder: &Path, tcp: SocketAddr, websocket: SocketAddr) -> PathBuf {
    let file = |name: &str| folder.join(name);
    let passwords = file("passwords");
    if !passwords.exists() {
        for (login, flags) in
            [(login("tester", TESTER), &["-c", "-b"][..]), (login("reader", READER), &["-b"])]
        {
            let made = Command::new("mosquitto_passwd")
                .args(flags)
                .arg(&passwords)
                .args([&login.user, &login.password])
                .output()
                .unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        let rules = "user tester\ntopic readwrite #\ntopic read $SYS/#\nuser reader\ntopic read open/#\n";
        std::fs::write(file("rules"), rules).unwrap();
    }
    let config = format!(
        "user root\npersistence true\npersistence_location {}/\npassword_file {}\nacl_file {}\nallow_anonymous false\n\
         sys_interval 1\nlog_type all\nlistener {} 127.0.0.1\nlistener {} 127.0.0.1\nprotocol websockets\n",
        folder.display(),
        passwords.display(),
        file("rules").display(),
        tcp.port(),
        websocket.port(),
    );
    std::fs::write(file("mosquitto.conf"), config).unwrap();
    file("mosquitto.conf")
}
