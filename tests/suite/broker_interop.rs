//! Clients that are not ours at the hub's own broker: mosquitto's, paho (Python), rumqttc (Rust), MQTT.js (Node), over
//! TCP, TLS, WebSocket and secure WebSocket, MQTT 3.1.1 and 5, by password and by client certificate. Each logs in,
//! subscribes, publishes with every QoS and retained, and leaves a will when its network fails.
//!
//! The certificates are those that `forebay cert init`, `agent add` and `join` make: OpenSSL (mosquitto, Python, Node)
//! and rustls (rumqttc) see them.

mod mosquitto;
mod rust_client;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use forebay_tests::peers::{python, run, script};
use forebay_tests::process::{Running, eventually, forebay, free_address};
use serde_json::{Value, json};

const USER: &str = "tester";
const PASSWORD: &str = "secret of the tester";
/// Who has a certificate.
const AGENT: &str = "cell-7";

/// What carries MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Tls,
    WebSocket,
    SecureWebSocket,
}

const ALL: [Transport; 4] =
    [Transport::Tcp, Transport::Tls, Transport::WebSocket, Transport::SecureWebSocket];

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::WebSocket => "ws",
            Transport::SecureWebSocket => "wss",
        }
    }

    fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::SecureWebSocket)
    }
}

/// One way of one client to the broker.
#[derive(Clone, Debug)]
struct Case {
    transport: Transport,
    /// 4 is 3.1.1.
    version: u8,
    /// By certificate in place of a password.
    certificate: bool,
    /// Below which it publishes.
    topic: String,
}

/// A hub as a process, with a listener for each transport.
struct Site {
    _hub: Running,
    folder: tempfile::TempDir,
    addresses: [SocketAddr; 4],
}

impl Site {
    fn start() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let [tcp, tls, websocket, secure, enrol, http] = [(); 6].map(|()| free_address());
        let config = format!(
            "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[hub]\ndata_dir = \"hub\"\n\
             [hub.http]\nlisten = \"{http}\"\n[hub.broker]\nlisten = \"{tcp}\"\n\
             [[hub.broker.listeners]]\nlisten = \"{tls}\"\n\
             [[hub.broker.listeners]]\nlisten = \"{websocket}\"\nprotocol = \"websocket\"\ntls = false\n\
             [[hub.broker.listeners]]\nlisten = \"{secure}\"\nprotocol = \"websocket\"\n\
             [hub.enrol]\nlisten = \"{enrol}\"\n"
        );
        std::fs::write(folder.path().join("hub.toml"), config).unwrap();
        let said = |arguments: &str| {
            let output = run(Command::new(forebay()).args(arguments.split(' ')).current_dir(folder.path()));
            String::from_utf8(output.stdout).unwrap()
        };
        said("cert init --config hub.toml");
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        said(&format!("user add {USER} --role operator --password-file password"));
        said("user add first --role reader --token");
        let access = folder.path().join("hub/access.toml");
        let rules = std::fs::read_to_string(&access).unwrap();
        let everything = "[roles.everything]\npublish = [\"interop/#\"]\nsubscribe = [\"interop/#\"]\n";
        std::fs::write(&access, format!("{rules}\n{everything}")).unwrap();
        said(&format!("user set {USER} --role everything"));
        let mut command = Command::new(forebay());
        let hub = Running::start(command.args(["run", "hub.toml"]).current_dir(folder.path()));
        for address in [tcp, tls, websocket, secure, enrol] {
            eventually(Duration::from_secs(30), "the hub listens", || {
                std::net::TcpStream::connect(address).ok()
            });
        }
        let joining = said(&format!("agent add {AGENT} --host localhost"));
        let line = joining.lines().find(|line| line.starts_with("forebay join ")).unwrap();
        said(&format!("{} --dir agent", line.trim_start_matches("forebay ")));
        said(&format!("user set {AGENT} --role agent --role everything"));
        // Effective within a second.
        std::thread::sleep(Duration::from_millis(1_200));
        Site { _hub: hub, folder, addresses: [tcp, tls, websocket, secure] }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The plant's CA, as the agent got it.
    fn ca(&self) -> PathBuf {
        self.at("agent/ca.crt")
    }

    /// Key and certificate of the agent.
    fn certificate(&self) -> PathBuf {
        self.at("agent/agent.pem")
    }

    fn port(&self, transport: Transport) -> u16 {
        self.addresses[transport as usize].port()
    }

    /// Every case of a client; certificates where there is TLS.
    fn cases(client: &str, transports: &[Transport]) -> Vec<Case> {
        let mut cases = Vec::new();
        for &transport in transports {
            for version in [4, 5] {
                for certificate in [false, true] {
                    let topic = format!("interop/{client}/{}/{version}/{certificate}", transport.name());
                    if transport.is_secure() || !certificate {
                        cases.push(Case { transport, version, certificate, topic });
                    }
                }
            }
        }
        cases
    }

    /// A case as the scripts in `tests/peers` read it.
    fn describe(&self, case: &Case) -> Value {
        let mut described = json!({
            "transport": case.transport.name(), "version": case.version, "topic": case.topic,
            // Both are names in the hub's certificate.
            "host": if case.version == 4 { "localhost" } else { "127.0.0.1" },
            "port": self.port(case.transport), "ca": self.ca(), "user": USER, "password": PASSWORD,
        });
        if case.certificate {
            described["cert"] = json!(self.certificate());
        } else if case.transport == Transport::Tcp {
            described["wrong"] = json!("not the password");
        }
        described
    }

    /// Runs a script of `tests/peers` with all its cases.
    fn check(&self, program: &Path, name: &str) {
        let cases = Site::cases(name, &ALL);
        let described: Vec<Value> = cases.iter().map(|case| self.describe(case)).collect();
        let mut command = Command::new(program);
        command.arg(script(name)).arg(Value::from(described).to_string());
        let output = run(&mut command);
        let said = String::from_utf8(output.stdout).unwrap();
        let wanted: Vec<String> =
            cases.iter().map(|case| format!("ok {} {}", case.transport.name(), case.version)).collect();
        assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn paho() {
    Site::start().check(&python(), "interop.py");
}

#[test]
fn mqtt_js() {
    Site::start().check(Path::new("node"), "interop.mjs");
}

#[test]
fn rumqttc() {
    let site = Site::start();
    for case in Site::cases("rumqttc", &ALL) {
        match case.version {
            4 => rust_client::v3::check(&site, &case),
            _ => rust_client::v5::check(&site, &case),
        }
    }
}

#[test]
fn mosquitto_clients() {
    let site = Site::start();
    // Debian's know no WebSocket.
    for case in Site::cases("mosquitto", &[Transport::Tcp, Transport::Tls]) {
        mosquitto::check(&site, &case);
    }
    mosquitto::a_wrong_password_is_refused(&site);
    mosquitto::a_certificate_of_another_ca_is_refused(&site);
}
