//! Arguments of `forebay browse`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use runtime::config_file::parse_duration;

/// `forebay browse`
#[derive(Args, Clone, Debug)]
pub struct Browse {
    /// What kind of server.
    #[command(subcommand)]
    pub server: BrowseServer,
}

/// The kinds.
#[derive(Clone, Debug, Subcommand)]
pub enum BrowseServer {
    /// An OPC UA server.
    Opcua(BrowseOpcua),
    /// A Logix controller.
    EthernetIp(BrowseEthernetIp),
}

/// `forebay browse opcua`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Prints a point list: types, units, ranges, descriptions, and what may be written. Look it over, keep \
    what you need:\n\n  \
    forebay browse opcua opc.tcp://10.0.3.20:4840 --pki plant/opcua-pki > press.csv\n\n\
    A server's certificate must be trusted first; the message says which file to move."
)]
pub struct BrowseOpcua {
    /// The server, opc.tcp://host:port
    pub url: String,
    /// The node to begin at, such as "ns=2;s=Press"; the Objects folder if it is not given.
    #[arg(long)]
    pub from: Option<String>,
    /// "best", "none", or a policy as in a device's `security`.
    #[arg(long, default_value = "best")]
    pub security: String,
    /// Log in with this user.
    #[arg(long, requires = "password_file")]
    pub user: Option<String>,
    /// File with the user's password.
    #[arg(long, requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Folder of certificates: an agent's own is drivers/opcua-pki in its data_dir.
    #[arg(long, default_value = "./opcua-pki")]
    pub pki: PathBuf,
    /// Time limit of a request.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `forebay browse ethernet-ip`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Prints a point list: tags of the controller and its programs, members of structures, elements of small \
    arrays, and what may be written. Look it over, keep what you need:\n\n  \
    forebay browse ethernet-ip 10.0.3.21 > cell.csv"
)]
pub struct BrowseEthernetIp {
    /// The controller, host or host:port
    pub address: String,
    /// The way to it, as in a device's `route`: "1,0" is slot 0 of the backplane, "none" a controller without.
    #[arg(long, default_value = "1,0")]
    pub route: String,
    /// Only tags that begin so, such as Program:Main.
    #[arg(long)]
    pub from: Option<String>,
    /// Time limit of a request.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}
