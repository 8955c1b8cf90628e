//! The arguments of every command, and the help that teaches them.

pub mod browse;
pub mod certificates;
pub mod file;
pub mod points;
pub mod quarantine;
pub mod table;
pub mod user;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use runtime::config_file::parse_duration;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version,
    about = "A plant data hub: what an agent accepts is delivered, once, and you can check it.",
    after_help = "First steps:\n  \
        forebay demo                     a whole plant in one process, page at http://127.0.0.1:8080\n  \
        forebay init edge --dir plant    a commented configuration to start from\n  \
        forebay check plant/edge.toml    every mistake in it, with line and rule\n  \
        forebay run plant/edge.toml      run the roles that the file names\n\n\
        Exit codes: 0 done, 1 failed or mismatch, 2 usage or configuration."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole plant in one process: simulated PLC, machine files, two agents, hub, bridge, page.
    Demo(Demo),
    /// Run the roles ([edge], [hub], [bridge]) that configuration files name, until a signal.
    Run(Run),
    /// Check configuration files and their point lists; print every mistake, and warn of what is hardly meant.
    Check(Check),
    /// Look into a device without a configuration; show the register maps that forebay brings.
    Probe(Probe),
    /// List what a server has, as a point list to start from.
    Browse(browse::Browse),
    /// Make a point list of another program's export: Kepware, TIA Portal, Neuron, Telegraf.
    Points(points::Points),
    /// Prove that every accepted sample is in the table exactly once, or say which are not.
    Reconcile(Reconcile),
    /// Write a set-point, or show the latest commands.
    Command(CommandOptions),
    /// Show how a file would be read, or let an agent look at files anew.
    File(file::FileOptions),
    /// Show what could not become data, and decide about it: retry or discard.
    Quarantine(quarantine::Quarantine),
    /// Look at a Delta table, compact it, remove its old files.
    Table(table::Table),
    /// Say who may log in at the hub's broker, and what they may do.
    User(user::User),
    /// Look into a log directory: an agent's outbox, a hub's plant log, a catalogue.
    Log(Log),
    /// Print or write a commented configuration to start from.
    Init(Init),
    /// Install forebay as a hardened systemd service.
    Service(Service),
    /// Make, show and renew the certificates of plant and hub.
    Cert(certificates::Cert),
    /// Let agents on other machines in, list them, shut them out; on the hub's machine.
    Agent(certificates::Agent),
    /// Get a certificate from a hub; on the agent's machine.
    Join(certificates::Join),
    /// Measure this machine: codec, log, agent, ingest to table, the broker beside others.
    Bench(Bench),
    /// Break simulated plants in every way that a seed can choose, and check that nothing is lost or doubled.
    #[command(hide = true)]
    Sim(Sim),
}

/// `forebay sim`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A run is agents, hub and bridge in one thread, on a virtual clock, simulated disks and a simulated \
    network.\nThe same seed gives the same run. Exit code 1 on the first rule that is broken, with the seed;\n\
    docs/reliability.md says what the rules are.\n\n  \
    forebay sim --seeds 100000          a hundred thousand plants\n  \
    forebay sim --from 17 --seeds 1     one, again; with RUST_LOG=info,simulator=debug its story"
)]
pub struct Sim {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub from: u64,
    /// Threads; every core if it is not given.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Print figures as JSON.
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
}

/// `forebay demo`
#[derive(Args, Clone, Debug)]
#[command(after_help = "Start it again on the same --dir after any crash: it continues where it was.\n\
    Stop it with Ctrl-C. Try also, in another terminal:\n  \
    mosquitto_sub -t 'forebay/demo/#' -v\n  \
    forebay command write tennessee-eastman/reactor/vessel/level-set-point 71 --reason \"trying it out\"\n  \
    forebay reconcile --dir forebay-demo")]
pub struct Demo {
    /// Where configuration, logs, files and the table are kept.
    #[arg(long, default_value = "./forebay-demo")]
    pub dir: PathBuf,
    /// End after this time: drain, reconcile, exit 0 only if the balance is right.
    #[arg(long = "for", value_parser = duration, value_name = "DURATION")]
    pub run_for: Option<Duration>,
    /// Where the MQTT broker listens.
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub mqtt: SocketAddr,
    /// Where page and API listen.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// How many times faster than the recordings the plant runs (a reactor row each 3 minutes, a machine row each 5).
    #[arg(long, default_value_t = 360.0, value_parser = speed)]
    pub speed: f64,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (1.0..=36_000.0).contains(&speed) => Ok(speed),
        _ => Err("must be a number from 1 to 36000".into()),
    }
}

/// `forebay run`
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// Configuration files; a plant may be one file or several.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// `forebay check`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Mistakes keep a plant from starting. Warnings do not: the same address twice, ranges that overlap, addresses \
    beyond a device's end, unknown units.\n\n\
    Exit codes: 0 no mistake (with --strict: nor a warning), 2 there is one."
)]
pub struct Check {
    /// Configuration files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// One JSON object per finding: severity (mistake, warning), file, line, key, value, rule.
    #[arg(long)]
    pub json: bool,
    /// Count warnings as mistakes.
    #[arg(long)]
    pub strict: bool,
}

/// `forebay probe`
#[derive(Args, Clone, Debug)]
pub struct Probe {
    /// What to look at.
    #[command(subcommand)]
    pub what: ProbeWhat,
}

/// What `forebay probe` looks at.
#[derive(Clone, Debug, Subcommand)]
pub enum ProbeWhat {
    /// Read a range of registers or bits and show it in every plausible type and order, side by side.
    Modbus(ProbeModbus),
    /// Print a register map that forebay brings, as a point list to change and use; without a name, list them.
    Profile {
        /// Its name.
        name: Option<String>,
    },
}

/// `forebay probe modbus`
#[derive(Args, Clone, Debug)]
pub struct ProbeModbus {
    /// Host, or host:port; port 502 if left out.
    pub host: String,
    /// Unit (slave) number.
    #[arg(long, default_value_t = 1)]
    pub unit: u8,
    /// hr: holding registers, ir: input registers, co: coils, di: discrete inputs.
    #[arg(long, default_value = "hr", value_parser = ["hr", "ir", "co", "di"])]
    pub table: String,
    /// First address, counted from 0 as in the protocol (40001 of a manual is 0).
    #[arg(long, default_value_t = 0)]
    pub from: u16,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    pub count: u16,
    /// How the gateway frames it: tcp, or rtu or ascii over TCP.
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "rtu", "ascii"])]
    pub framing: String,
    /// Per request.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// One JSON object per address.
    #[arg(long)]
    pub json: bool,
}

/// `forebay reconcile`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Each agent keeps, per epoch of its log, how many samples it accepted and a checksum over what they say.\n\
    reconcile compares these with the hub's log and with every row of the table.\n\
    On a running plant the ends are fixed first; what is still on its way is printed as `in flight`, which is no mismatch."
)]
pub struct Reconcile {
    /// Folder of a demo or of one machine's roles: agents' outboxes, hub and table are found in it.
    #[arg(long, conflicts_with_all = ["hub", "table"], required_unless_present = "hub")]
    pub dir: Option<PathBuf>,
    /// The hub's address, such as http://127.0.0.1:8080.
    #[arg(long, requires = "table")]
    pub hub: Option<String>,
    /// The table: folder of a Delta table or of Parquet files, or s3://, az://, gs:// with credentials in the environment.
    #[arg(long)]
    pub table: Option<String>,
    /// Which of the bridge's sinks writes that table.
    #[arg(long, default_value = "lake")]
    pub sink: String,
    /// File with the hub's token.
    #[arg(long, env = "FOREBAY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// For scripts.
    #[arg(long)]
    pub json: bool,
}

/// `forebay command`
#[derive(Args, Clone, Debug)]
pub struct CommandOptions {
    /// Write or list.
    #[command(subcommand)]
    pub action: CommandAction,
}

/// How to reach a hub.
#[derive(Args, Clone, Debug)]
pub struct HubAccess {
    /// The hub's address.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub hub: String,
    /// File with the hub's token; by default the demo's, `forebay-demo/hub/token`.
    #[arg(long, env = "FOREBAY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// For scripts.
    #[arg(long)]
    pub json: bool,
}

/// What to do with commands.
#[derive(Clone, Debug, Subcommand)]
pub enum CommandAction {
    /// Write VALUE to the point PATH, wait for the outcome. Exit 0 only if it was read back equal.
    Write {
        /// Path of the point, as the page shows it.
        path: String,
        /// The value, in the point's unit.
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// After this time nobody may execute it any more.
        #[arg(long, default_value = "5s", value_parser = duration)]
        expires: Duration,
        /// Why; kept in the ledger.
        #[arg(long)]
        reason: String,
        /// The hub.
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show the latest commands and their outcomes.
    List {
        /// The hub.
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// `forebay log`
#[derive(Args, Clone, Debug)]
pub struct Log {
    /// Inspect, verify or repair.
    #[command(subcommand)]
    pub action: LogAction,
}

/// What to do with a log directory.
#[derive(Clone, Debug, Subcommand)]
pub enum LogAction {
    /// Show segments, epochs, positions, cursors, and records if asked.
    Inspect {
        /// The log's directory.
        dir: PathBuf,
        /// Print this many records from --from on.
        #[arg(long, default_value_t = 0)]
        records: u64,
        /// First position to print.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Read every byte and check every checksum; exit 1 on damage.
    Verify {
        /// The log's directory, or the data_dir of a hub or agent: then all logs below it.
        dir: PathBuf,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Show what is damaged and what would be done, ask, then do it. Whole records stay, lost ones become holes; the
    /// damaged files are kept in a side folder. Stop the process that uses the log first.
    Repair {
        /// The log's directory, or the data_dir of a hub or agent: then all logs below it.
        dir: PathBuf,
        /// Do it without asking.
        #[arg(long, conflicts_with = "dry_run")]
        yes: bool,
        /// Only show it; exit 1 if there is something to repair.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `forebay init`
#[derive(Args, Clone, Debug)]
pub struct Init {
    /// For which role.
    #[arg(value_enum)]
    pub role: Role,
    /// Write it into this folder, as ROLE.toml, instead of printing it; never over a file that is there.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// A role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Reads devices.
    Edge,
    /// Keeps a plant's data.
    Hub,
    /// Writes tables.
    Bridge,
}

/// `forebay service`
#[derive(Args, Clone, Debug)]
pub struct Service {
    /// What to do.
    #[command(subcommand)]
    pub action: ServiceAction,
}

/// What to do with the service.
#[derive(Clone, Debug, Subcommand)]
pub enum ServiceAction {
    /// Write a systemd unit for a configuration file, and say how to start it.
    Install {
        /// The configuration; it is checked first.
        file: PathBuf,
        /// Name of the unit.
        #[arg(long, default_value = "forebay")]
        name: String,
        /// User to run as; it must exist.
        #[arg(long, default_value = "forebay")]
        user: String,
        /// Where units are kept.
        #[arg(long, default_value = "/etc/systemd/system")]
        unit_dir: PathBuf,
        /// Print the unit, write nothing.
        #[arg(long)]
        print: bool,
    },
}

/// `forebay bench`
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// What to measure.
    #[arg(value_enum, default_value_t = BenchWhat::All)]
    pub what: BenchWhat,
    /// How long each measurement runs.
    #[arg(long = "for", default_value = "5s", value_parser = duration, value_name = "DURATION")]
    pub run_for: Duration,
    /// Metrics per message where that matters.
    #[arg(long, default_value_t = 100)]
    pub metrics: usize,
    /// Where to write; a real disk, or the figures say nothing.
    #[arg(long, default_value = "./forebay-bench")]
    pub dir: PathBuf,
    /// For scripts.
    #[arg(long)]
    pub json: bool,
    /// Items of the OPC UA server of `plc`.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub items: u32,
    /// What `broker` and `plc` need.
    #[command(flatten)]
    pub broker: BenchBroker,
}

/// Further options of `forebay bench broker` and `forebay bench plc`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of `bench broker` and `bench plc`")]
pub struct BenchBroker {
    /// Only these cases or groups of cases: 1x10q0, latency, tls …, modbus, opcua (an unknown name lists them).
    #[arg(long = "case", value_delimiter = ',', value_name = "CASE")]
    pub cases: Vec<String>,
    /// Only these (default: all there are); ratios are those of the first to the others.
    #[arg(long = "peer", value_enum, value_delimiter = ',', value_name = "PEER")]
    pub peers: Vec<BenchPeer>,
    /// Runs of each peer in each case; the median is shown.
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    /// Another forebay binary to measure than this one.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Measure a broker that runs already, on this machine, instead.
    #[arg(long, requires = "pid", value_name = "ADDRESS:PORT")]
    pub connect: Option<SocketAddr>,
    /// Its process, whose CPU time and memory are read.
    #[arg(long, requires = "connect")]
    pub pid: Option<u32>,
    /// How to log in at it.
    #[arg(long, requires = "connect", value_name = "USER:PASSWORD", value_parser = login)]
    pub login: Option<(String, String)>,
}

fn login(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once(':').ok_or("must be USER:PASSWORD")?;
    Ok((parts.0.to_owned(), parts.1.to_owned()))
}

/// Who can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchPeer {
    /// The hub's own broker; our agent.
    Forebay,
    /// Debian's mosquitto.
    Mosquitto,
    /// rumqttd, as scripts/bench-peers builds it.
    Rumqttd,
    /// An agent of pymodbus or asyncua, and paho.
    Python,
    /// Node-RED with Modbus nodes, as scripts/bench-peers installs it.
    NodeRed,
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchWhat {
    /// Everything but `broker` and `plc`, which take long.
    All,
    /// Encode and decode, ns per metric.
    Codec,
    /// Log appends with fsync.
    Log,
    /// Ingest to plant log to Delta table.
    Ingest,
    /// What an agent can send: simulated devices to outbox to hub, at 100, 5 and 1 values per message.
    Agent,
    /// A day of a recorded plant into a Delta table: rows/s, bytes per row, what DuckDB reads; beside pyarrow and DuckDB.
    Table,
    /// Memory of an agent with 10 000 points, of a hub with 100 000 and 1 000 clients, and its slope.
    Memory,
    /// The hub's broker beside mosquitto and rumqttd under the same load.
    Broker,
    /// From 10 000 registers or OPC UA items to a subscriber, beside a Python agent and Node-RED.
    Plc,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory as _;
        super::Arguments::command().debug_assert();
    }
}
