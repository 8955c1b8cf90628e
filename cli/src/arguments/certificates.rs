//! Arguments of `forebay cert`, `forebay agent` and `forebay join`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use model::NodeId;
use runtime::enrolment::EnrolUrl;
use runtime::pki::{Fingerprint, check_server_name};

/// Where a hub's certificates are.
#[derive(Args, Clone, Debug)]
pub struct TlsFolder {
    /// The folder.
    #[arg(long, default_value = "hub/tls", conflicts_with = "config")]
    pub dir: PathBuf,
    /// The hub's configuration: the folder is `tls` in its data_dir.
    #[arg(long)]
    pub config: Option<PathBuf>,
}

/// `forebay cert`
#[derive(Args, Clone, Debug)]
pub struct Cert {
    /// What to do.
    #[command(subcommand)]
    pub action: CertAction,
}

/// What to do with certificates.
#[derive(Clone, Debug, Subcommand)]
pub enum CertAction {
    /// Make a plant CA and the hub's certificate; what is there already is left alone.
    Init {
        /// Where.
        #[command(flatten)]
        folder: TlsFolder,
        /// A host name or address under which agents reach the hub; the machine's name and localhost are in it anyway.
        #[arg(long = "name", value_parser = server_name)]
        names: Vec<String>,
    },
    /// Show what PEM files hold. Exit 1 if one cannot be read or a certificate in it has ended.
    Show {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Give the hub a new certificate for its key and names; a running hub takes it within seconds.
    RenewHub {
        /// Where.
        #[command(flatten)]
        folder: TlsFolder,
        /// A name or address to add.
        #[arg(long = "name", value_parser = server_name)]
        names: Vec<String>,
    },
}

/// `forebay agent`
#[derive(Args, Clone, Debug)]
pub struct Agent {
    /// What to do.
    #[command(subcommand)]
    pub action: AgentAction,
}

/// What to do about agents; on the hub's machine.
#[derive(Clone, Debug, Subcommand)]
pub enum AgentAction {
    /// Let an agent in: its identity, and a join line for its machine that works once.
    Add {
        /// The identity's name, which will be in its certificate.
        name: String,
        /// The Sparkplug node as which it speaks; SITE/NAME where it is new.
        #[arg(long, value_parser = node, value_name = "GROUP/NODE")]
        node: Option<NodeId>,
        /// The hub's configuration.
        #[arg(long, default_value = "hub.toml")]
        config: PathBuf,
        /// The hub's name in the join line; by default the first in its certificate.
        #[arg(long)]
        host: Option<String>,
        /// How long the join line works, at most 7d.
        #[arg(long, default_value = "1h", value_parser = super::duration)]
        valid: Duration,
    },
    /// Show agents: state, certificate, last join.
    List {
        /// The hub's configuration.
        #[arg(long, default_value = "hub.toml")]
        config: PathBuf,
        /// For scripts.
        #[arg(long)]
        json: bool,
    },
    /// Refuse an agent's certificates from now on, within a second on live sessions too. A new join line brings it back.
    Revoke {
        /// The identity's name.
        name: String,
        /// Refuse its password and token as well, until `forebay agent add` or `forebay user enable`.
        #[arg(long)]
        disable: bool,
        /// The hub's configuration.
        #[arg(long, default_value = "hub.toml")]
        config: PathBuf,
    },
}

/// `forebay join`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "`forebay agent add NAME` on the hub prints the whole line. The key is made here and stays here."
)]
pub struct Join {
    /// The hub's enrolment, such as https://hub.antwerp:8884.
    pub url: EnrolUrl,
    /// The one-time token.
    #[arg(long)]
    pub token: String,
    /// The fingerprint of the hub's CA: sha256:…
    #[arg(long)]
    pub ca: Fingerprint,
    /// Where ca.crt and agent.pem are written; the agent's user must be able to write there.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Replace the files of an earlier join.
    #[arg(long)]
    pub force: bool,
}

fn server_name(text: &str) -> Result<String, String> {
    check_server_name(text).map(|()| text.to_owned())
}

fn node(text: &str) -> Result<NodeId, String> {
    NodeId::parse(text).map_err(|error| format!("must be GROUP/NODE: {error}"))
}
