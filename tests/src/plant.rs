//! A plant in a temporary folder: configuration files, and its roles as processes that can be killed one by one.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Running, eventually, forebay, free_address};

/// Time for a role to be ready, on a machine that is busy with other tests.
pub const READY: Duration = Duration::from_secs(30);

/// The files of a plant; roles are started by the test.
#[derive(Debug)]
pub struct Plant {
    folder: tempfile::TempDir,
    /// Where the hub's broker listens.
    pub mqtt: SocketAddr,
    /// Where the hub's API listens.
    pub http: SocketAddr,
    outside_broker: Option<SocketAddr>,
    nodes: Vec<String>,
    readers: bool,
    sink: &'static str,
}

impl Plant {
    /// A plant with a Delta table, commands allowed, and a login for each of `nodes` (Sparkplug group `plant`).
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn new(nodes: &[&str]) -> Plant {
        Plant::build(nodes, None, "delta")
    }

    /// As [`Plant::new`], with a plain Parquet folder.
    #[must_use]
    pub fn with_parquet(nodes: &[&str]) -> Plant {
        Plant::build(nodes, None, "parquet")
    }

    /// As [`Plant::new`], with the hub as a client of a broker that is not ours.
    #[must_use]
    pub fn with_outside_broker(nodes: &[&str], broker: SocketAddr) -> Plant {
        Plant::build(nodes, Some(broker), "delta")
    }

    fn build(nodes: &[&str], outside_broker: Option<SocketAddr>, sink: &'static str) -> Plant {
        let plant = Plant {
            folder: tempfile::tempdir().expect("a temporary folder"),
            mqtt: outside_broker.unwrap_or_else(free_address),
            http: free_address(),
            outside_broker,
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            readers: true,
            sink,
        };
        for node in &plant.nodes {
            plant.write(&format!("{node}.password"), &format!("secret of {node}"));
        }
        plant.write("hub.toml", &plant.hub_config());
        plant.write("bridge.toml", &plant.bridge_config());
        if plant.outside_broker.is_none() {
            for node in &plant.nodes {
                plant.add_agent(node);
            }
        }
        plant
    }

    /// Lets an agent in, with the password in its file.
    fn add_agent(&self, node: &str) {
        let mut command = Command::new(forebay());
        command.args(["user", "add", node, "--role", "agent", "--node", &format!("plant/{node}")]);
        command.args(["--password-file", &format!("{node}.password")]).current_dir(self.dir());
        let output = command.output().expect("forebay user");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(&path, text).expect("file");
        path
    }

    fn hub_config(&self) -> String {
        let mut text = format!(
            "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[hub]\ndata_dir = \"hub\"\n\
             [hub.http]\nlisten = \"{}\"\n[hub.commands]\nenabled = true\n[hub.broker]\n",
            self.http
        );
        if let Some(broker) = self.outside_broker {
            writeln!(text, "url = \"mqtt://{broker}\"").ok();
            return text;
        }
        writeln!(text, "listen = \"{}\"\nanonymous_read = {}", self.mqtt, self.readers).ok();
        text
    }

    fn bridge_config(&self) -> String {
        format!(
            "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[bridge]\nhub = \"http://{}\"\n\
             token_file = \"hub/token\"\n[[bridge.sinks]]\nname = \"lake\"\nkind = \"{}\"\npath = \"lake\"\n\
             max_wait = \"1s\"\n",
            self.http, self.sink
        )
    }

    /// Writes an agent's configuration: `devices` is TOML (`[[edge.devices]]` tables).
    pub fn agent(&self, node: &str, devices: &str) {
        self.agent_through(node, self.mqtt, devices);
    }

    /// As [`Plant::agent`], with the broker at another address (a link of ours to it).
    pub fn agent_through(&self, node: &str, broker: SocketAddr, devices: &str) {
        let login = if self.outside_broker.is_none() {
            format!("user = \"{node}\"\npassword_file = \"{node}.password\"\n")
        } else {
            String::new()
        };
        let text = format!(
            "version = 1\nenterprise = \"acme\"\nsite = \"works\"\n[edge]\ngroup = \"plant\"\nnode = \"{node}\"\n\
             data_dir = \"{node}\"\nhub = \"mqtt://{broker}\"\n{login}[edge.commands]\nenabled = true\n{devices}"
        );
        self.write(&format!("{node}.toml"), &text);
    }

    /// Starts a role by its configuration file's name without ending: `hub`, `bridge`, or a node.
    #[must_use]
    pub fn start(&self, name: &str) -> Running {
        let mut command = Command::new(forebay());
        command.arg("run").arg(format!("{name}.toml")).current_dir(self.dir());
        Running::start(&mut command)
    }

    /// Starts the hub and waits until it answers.
    #[must_use]
    pub fn start_hub(&self) -> Running {
        let hub = self.start("hub");
        eventually(READY, "the hub answers", || self.try_get("/api/v1/health"));
        hub
    }

    /// The hub's token.
    #[must_use]
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.dir().join("hub/token")).unwrap_or_default().trim().to_owned()
    }

    /// GET of the hub's API as JSON; `None` if it does not answer so.
    #[must_use]
    pub fn try_get(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&http_get(self.http, path, &self.token())?).ok()
    }

    /// The last value of a point: the `last` object of the API.
    #[must_use]
    pub fn last(&self, path: &str) -> Option<Value> {
        let point = self.try_get(&format!("/api/v1/points/{path}"))?;
        point.get("last").filter(|last| !last.is_null()).cloned()
    }

    /// `forebay reconcile` on the folder: exit code and report.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn reconcile(&self) -> (i32, Value) {
        let mut command = Command::new(forebay());
        command.args(["reconcile", "--json", "--dir"]).arg(self.dir());
        let output = command.output().expect("reconcile");
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr));
        });
        (output.status.code().unwrap_or(-1), report)
    }

    /// Waits until everything accepted is in the table, and there are at least `samples` of it.
    ///
    /// # Panics
    /// If that takes longer than a minute, or anything is missing or double on the way.
    pub fn settle(&self, samples: u64) -> Value {
        let mut last = Value::Null;
        for _ in 0..120 {
            let (code, report) = self.reconcile();
            assert_eq!(code, 0, "{report:#}");
            if report["settled"] == true && in_table(&report) >= samples {
                return report;
            }
            last = report;
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("not settled within a minute: {last:#}");
    }

    /// Waits until at least `samples` are in the table, while more may be on the way.
    ///
    /// # Panics
    /// If that takes longer than a minute, or anything is missing or double on the way.
    pub fn settle_some(&self, samples: u64) {
        eventually(Duration::from_secs(60), &format!("{samples} rows in the table"), || {
            let (code, report) = self.reconcile();
            assert_eq!(code, 0, "{report:#}");
            (in_table(&report) >= samples).then_some(())
        });
    }
}

/// Rows in the table, as reconcile counted them.
#[must_use]
pub fn in_table(report: &Value) -> u64 {
    report["lines"].as_array().into_iter().flatten().filter_map(|line| line["in_table"].as_u64()).sum()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A GET over HTTP/1.1; the body if the status is 200.
#[must_use]
pub fn http_get(address: SocketAddr, path: &str, token: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = text(answer.get(..head_end)?);
    head.lines().next()?.contains(" 200 ").then(|| answer.split_off(head_end + 4))
}
