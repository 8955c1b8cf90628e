//! The agents that are measured, each with the broker it is used with: ours with its hub, a Python script and Node-RED with
//! mosquitto. How each is found, configured, started, and ended by its process id.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::watch::PREFIX;
use crate::broker::Peer;
use crate::broker::peers::{self, Broker, Installed, Needs};
use crate::roles::{Hub, Process, edge_section};

const MODBUS_AGENT: &str = include_str!("../../peers/modbus_agent.py");
const OPCUA_AGENT: &str = include_str!("../../peers/opcua_agent.py");
/// A birth has room for so many points.
const POINTS_OF_A_DEVICE: usize = 10_000;

/// Whose agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Ours: `forebay run` with `[edge]`, its outbox on disk, and a hub.
    Forebay,
    /// pymodbus or asyncua, and paho.
    Python,
    /// Node-RED with node-red-contrib-modbus.
    NodeRed,
}

impl Agent {
    /// As in `--peer`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Agent::Forebay => "forebay",
            Agent::Python => "python",
            Agent::NodeRed => "node-red",
        }
    }
}

/// What an agent reads.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A device per port. Ours passes on every value, not changes only, with `every_value`.
    Modbus { ports: Vec<u16>, registers: usize, scan_ms: u64, every_value: bool },
    /// Items `Item.0` and so on in a namespace.
    OpcUa { port: u16, index: u64, items: usize },
}

/// An agent that is there.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) agent: Agent,
    program: PathBuf,
    mosquitto: Option<Installed>,
}

impl Found {
    /// Looks for it and its broker; the error says how to get it.
    pub(super) fn look(agent: Agent, own_program: &Path) -> Result<Found, String> {
        let program = match agent {
            Agent::Forebay => Ok(own_program.to_owned()),
            Agent::Python => python(),
            Agent::NodeRed => node_red(),
        }?;
        let mosquitto = match agent {
            Agent::Forebay => None,
            _ => Some(Installed::find(Peer::Mosquitto, own_program, None)?),
        };
        Ok(Found { agent, program, mosquitto })
    }

    /// Topics on which it publishes.
    pub(super) fn filter(&self) -> &'static str {
        if self.agent == Agent::Forebay { "spBv1.0/bench/#" } else { "bench/#" }
    }

    /// Starts the broker with its files in `dir`, which is made anew.
    pub(super) fn start_broker(&self, dir: &Path) -> Result<Broker, String> {
        if let Some(mosquitto) = &self.mosquitto {
            return mosquitto.start(dir, Needs::default());
        }
        Ok(Hub::start(&self.program, dir, &["gen"])?.broker)
    }

    /// Starts the agent.
    pub(super) fn start(&self, dir: &Path, broker: &Broker, source: &Source) -> Result<Process, String> {
        let port = broker.door.address.port();
        let mut command = Command::new(&self.program);
        match (self.agent, source) {
            (Agent::Forebay, _) => {
                write_agent(dir, port, source)?;
                command.args(["run", "agent.toml"]).env("RUST_LOG", "warn");
            }
            (Agent::Python, Source::Modbus { ports, registers, scan_ms, .. }) => {
                peers::write(dir, "agent.py", MODBUS_AGENT)?;
                let scan = *scan_ms as f64 / 1e3;
                command.arg("agent.py").arg(port.to_string()).args([scan.to_string(), registers.to_string()]);
                command.args(ports.iter().map(ToString::to_string));
            }
            (Agent::Python, Source::OpcUa { port: server, index, items }) => {
                peers::write(dir, "agent.py", OPCUA_AGENT)?;
                command.arg("agent.py").arg(port.to_string());
                command.args([server.to_string(), index.to_string(), items.to_string()]);
            }
            (Agent::NodeRed, Source::Modbus { ports, registers, scan_ms, .. }) => {
                peers::write(dir, "flows.json", &flows(port, ports, *registers, *scan_ms).to_string())?;
                let settings = "module.exports = {httpAdminRoot: false, httpNodeRoot: false, uiHost: '127.0.0.1', \
                     uiPort: 0, logging: {console: {level: 'warn'}}}";
                peers::write(dir, "settings.js", settings)?;
                command = Command::new("node");
                command.arg(&self.program).args(["-u", ".", "-s", "settings.js", "flows.json"]);
            }
            (Agent::NodeRed, Source::OpcUa { .. }) => {
                return Err("Node-RED has no part in it: its OPC UA nodes are not installed".into());
            }
        }
        Process::start(command, dir, "agent-said")
    }
}

/// Python with what the peers need, where `scripts/peers` puts it.
pub(super) fn python() -> Result<PathBuf, String> {
    let venv = std::env::var_os("FOREBAY_VENV").map_or(".venv".into(), PathBuf::from);
    let python = venv.join("bin/python");
    let needs = "import asyncua, paho.mqtt.client, pymodbus";
    let has_all = Command::new(&python).args(["-c", needs]).stderr(Stdio::null()).status();
    if !has_all.is_ok_and(|status| status.success()) {
        let hint = "is no Python with asyncua, pymodbus and paho-mqtt; scripts/peers makes one (FOREBAY_VENV names it)";
        return Err(format!("{} {hint}", python.display()));
    }
    std::path::absolute(&python).map_err(|error| format!("{}: {error}", python.display()))
}

fn node_red() -> Result<PathBuf, String> {
    let root = std::env::var_os("FOREBAY_BENCH_PEERS").map_or(".bench-peers".into(), PathBuf::from);
    let modules = root.join("node-red/node_modules");
    if !modules.join("node-red-contrib-modbus").is_dir() || peers::find_program("node", &[]).is_none() {
        return Err(
            "Node-RED is not installed; scripts/bench-peers does it (FOREBAY_BENCH_PEERS names the folder)"
                .into(),
        );
    }
    let main = modules.join("node-red/red.js");
    std::path::absolute(&main).map_err(|error| format!("{}: {error}", main.display()))
}

fn write_agent(dir: &Path, broker: u16, source: &Source) -> Result<(), String> {
    let mut agent = edge_section("gen", broker);
    let mut device = |name: String, keys: String, points: String| {
        write!(agent, "[[edge.devices]]\nname = \"{name}\"\npoints = \"{name}.csv\"\n{keys}").ok();
        peers::write(dir, &format!("{name}.csv"), &points)
    };
    match source {
        Source::Modbus { ports, registers, scan_ms, every_value } => {
            let band = if *every_value { "" } else { "0" };
            for (nth, port) in ports.iter().enumerate() {
                let mut points = "name,address,type,deadband\n".to_owned();
                for register in 0..*registers {
                    writeln!(points, "{PREFIX}{},hr:{register},uint16,{band}", nth * registers + register)
                        .ok();
                }
                let keys = format!(
                    "driver = \"modbus-tcp\"\naddress = \"127.0.0.1:{port}\"\npoll = \"{scan_ms}ms\"\n"
                );
                device(format!("plc-{nth}"), keys, points)?;
            }
        }
        Source::OpcUa { port, index, items } => {
            let all: Vec<usize> = (0..*items).collect();
            for (nth, some) in all.chunks(POINTS_OF_A_DEVICE).enumerate() {
                let mut points = "name,address,type\n".to_owned();
                for item in some {
                    writeln!(points, "{PREFIX}{item},ns={index};s=Item.{item},int32").ok();
                }
                let keys = format!(
                    "driver = \"opcua\"\nurl = \"opc.tcp://127.0.0.1:{port}/bench\"\nsecurity = \"none\"\n\
                     timeout = \"20s\"\npoll = \"1s\"\n"
                );
                device(format!("opcua-{nth}"), keys, points)?;
            }
        }
    }
    peers::write(dir, "agent.toml", &agent)
}

/// Node-RED's flow: a Modbus client and a reading node per device, one function that passes on what changed.
fn flows(broker: u16, ports: &[u16], registers: usize, scan_ms: u64) -> serde_json::Value {
    let changed = format!(
        "const device = Number(msg.topic), now = msg.payload, last = context.get(msg.topic) || [], changed = {{}};\n\
         if (!Array.isArray(now)) return null;\nlet any = false;\n\
         now.forEach((value, at) => {{ if (value !== last[at]) {{ changed[device * {registers} + at] = value; any = true; }} }});\n\
         context.set(msg.topic, now);\nreturn any ? {{topic: 'bench/' + device, payload: changed}} : null;"
    );
    let mut nodes = vec![
        json!({"id": "tab", "type": "tab", "label": "bench"}),
        json!({"id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1", "port": broker.to_string(), "clientid": "",
               "autoConnect": true, "usetls": false, "protocolVersion": "4", "keepalive": "60", "cleansession": true}),
        json!({"id": "out", "type": "mqtt out", "z": "tab", "topic": "", "qos": "0", "retain": "false", "broker": "broker",
               "wires": []}),
        json!({"id": "changed", "type": "function", "z": "tab", "func": changed, "outputs": 1, "timeout": 0, "noerr": 0,
               "initialize": "", "finalize": "", "libs": [], "wires": [["out"]]}),
    ];
    for (nth, port) in ports.iter().enumerate() {
        nodes.push(json!({"id": format!("client{nth}"), "type": "modbus-client", "name": "", "clienttype": "tcp",
            "bufferCommands": true, "stateLogEnabled": false, "queueLogEnabled": false, "failureLogEnabled": true,
            "tcpHost": "127.0.0.1", "tcpPort": port.to_string(), "tcpType": "DEFAULT", "unit_id": "1", "commandDelay": "1",
            "clientTimeout": "1000", "reconnectOnTimeout": true, "reconnectTimeout": "2000",
            "parallelUnitIdsAllowed": true}));
        nodes.push(json!({"id": format!("read{nth}"), "type": "modbus-read", "z": "tab", "name": "", "topic": nth.to_string(),
            "showStatusActivities": false, "logIOActivities": false, "showErrors": false, "unitid": "1",
            "dataType": "HoldingRegister", "adr": "0", "quantity": registers.to_string(), "rate": scan_ms.to_string(),
            "rateUnit": "ms", "delayOnStart": false, "startDelayTime": "", "server": format!("client{nth}"),
            "useIOFile": false, "ioFile": "", "useIOForPayload": false, "emptyMsgOnFail": false,
            "wires": [["changed"], []]}));
    }
    nodes.into()
}
