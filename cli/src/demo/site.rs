//! The demo's folder: configuration files, point lists, passwords. Written anew at each start (addresses may have
//! changed), except for what must stay: logs, tables, passwords, the machine's files.
//!
//! The files are ordinary ones: `forebay check`, `run` and `reconcile` work on them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hub::broker::access_file::{self, Change, EditError};
use model::NodeId;

use super::{csv_writer, plc};

/// The demo's edge nodes.
const AGENTS: [&str; 2] = ["reactor", "machine"];

/// Files of the demo's plant.
#[derive(Clone, Debug)]
pub struct Site {
    /// Configuration files, hub first.
    pub configs: Vec<PathBuf>,
    /// Where the machine writes its files.
    pub machine_files: PathBuf,
    /// The hub's token, once it has made it.
    pub token_file: PathBuf,
    /// The Delta table.
    pub lake: PathBuf,
}

/// Addresses of the demo's servers.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// MQTT broker.
    pub mqtt: SocketAddr,
    /// Page and API.
    pub http: SocketAddr,
    /// The simulated PLC.
    pub plc: SocketAddr,
}

const NAMES: &str = "version = 1\nenterprise = \"forebay\"\nsite = \"demo\"\n";

/// Writes the folder.
pub fn write(dir: &Path, addresses: Addresses) -> Result<Site, String> {
    let dir = std::path::absolute(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let machine_files = dir.join("machine-files");
    create(&machine_files)?;
    for agent in AGENTS {
        password(&dir.join(format!("{agent}.password")))?;
        identity(&dir, agent)?;
    }
    let files = [
        ("reactor-points.csv", plc::POINTS.to_owned()),
        ("machine-points.csv", csv_writer::POINTS.to_owned()),
        ("hub.toml", hub(addresses)),
        ("bridge.toml", bridge(addresses)),
        ("reactor.toml", reactor(addresses)),
        ("machine.toml", machine(addresses)),
    ];
    for (name, text) in &files {
        let path = dir.join(name);
        std::fs::write(&path, text)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    }
    Ok(Site {
        configs: ["hub.toml", "bridge.toml", "reactor.toml", "machine.toml"]
            .map(|name| dir.join(name))
            .into(),
        machine_files,
        token_file: dir.join("hub/token"),
        lake: dir.join("lake"),
    })
}

fn create(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| {
        format!("{} cannot be made: {error}. Give another folder with --dir.", folder.display())
    })
}

/// Makes a random password file, readable by its owner only, unless there is one.
fn password(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if path.exists() {
        return Ok(());
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    let temporary = path.with_extension("new");
    let text = format!("{:032x}\n", u128::from_ne_bytes(bytes));
    std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// Enters an agent's password into the hub's access file, unless the agent is in it.
fn identity(dir: &Path, agent: &str) -> Result<(), String> {
    let password_file = dir.join(format!("{agent}.password"));
    let password = std::fs::read_to_string(&password_file)
        .map_err(|error| format!("{} cannot be read: {error}", password_file.display()))?;
    let enter = |edit: &mut access_file::Edit| {
        if edit.find(agent).is_some() {
            return Ok(());
        }
        let node = NodeId::new("demo", agent).map_err(|error| EditError::Refused(error.to_string()))?;
        let hash = access_file::hash_password(password.trim_end().as_bytes());
        let change = Change {
            roles: Some(vec!["agent".into()]),
            node: Some(node),
            password: Some(hash.map_err(|error| EditError::Refused(error.to_string()))?),
            ..Change::default()
        };
        edit.add(agent, &change)
    };
    access_file::edit(&dir.join("hub/access.toml"), enter).map_err(|error| error.to_string())
}

fn hub(addresses: Addresses) -> String {
    format!(
        "# The demo's hub. Anonymous clients on this machine may read everything and write nothing.\n{NAMES}\n\
         [hub]\ndata_dir = \"hub\"\nid = \"demo\"\n\n[hub.http]\nlisten = \"{}\"\n\n[hub.commands]\nenabled = true\n\n\
         [hub.broker]\nlisten = \"{}\"\nanonymous_read = true\n",
        addresses.http, addresses.mqtt
    )
}

fn bridge(addresses: Addresses) -> String {
    format!(
        "# The demo's bridge: a Delta table in ./lake.\n{NAMES}\n[bridge]\nhub = \"http://{}\"\ntoken_file = \"hub/token\"\n\n\
         [[bridge.sinks]]\nname = \"lake\"\nkind = \"delta\"\npath = \"lake\"\nmax_wait = \"2s\"\n",
        addresses.http
    )
}

fn agent(name: &str, addresses: Addresses) -> String {
    format!(
        "{NAMES}\n[edge]\ngroup = \"demo\"\nnode = \"{name}\"\ndata_dir = \"{name}\"\nhub = \"mqtt://{}\"\n\
         user = \"{name}\"\npassword_file = \"{name}.password\"\n\n[edge.commands]\nenabled = true\n\n",
        addresses.mqtt
    )
}

fn reactor(addresses: Addresses) -> String {
    format!(
        "# Reads the simulated PLC of a chemical plant over Modbus TCP.\n{}[[edge.devices]]\nname = \"plc\"\n\
         driver = \"modbus-tcp\"\naddress = \"{}\"\npoll = \"200ms\"\nstale_after = \"3s\"\n\
         points = \"reactor-points.csv\"\n",
        agent("reactor", addresses),
        addresses.plc
    )
}

fn machine(addresses: Addresses) -> String {
    format!(
        "# Reads the files that a machine writes.\n{}[[edge.devices]]\nname = \"machine-1\"\ndriver = \"csv-folder\"\n\
         folder = \"machine-files\"\npattern = \"machine-*.csv\"\ntime = \"timestamp\"\npoll = \"500ms\"\n\
         stale_after = \"10m\"\npoints = \"machine-points.csv\"\n",
        agent("machine", addresses)
    )
}
