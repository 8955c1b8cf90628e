//! The arguments of `forebay user`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `forebay user`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Who is not in the access file does not get in. Examples, in the folder of hub.toml:\n  \
    forebay user add scada --role reader                              a password is asked for\n  \
    forebay user add line-3 --role agent --node antwerp/line-3 --token    prints a token once\n  \
    forebay user check line-3 publish spBv1.0/antwerp/DDATA/line-3/press\n  \
    forebay user disable line-3                                       cut off within a second\n\n\
    Roles are lists of topic filters at the top of the access file; its comments explain them.\n\
    A running hub takes a change within a second, without a restart."
)]
pub struct User {
    /// What to do.
    #[command(subcommand)]
    pub action: UserAction,
}

/// Which access file.
#[derive(Args, Clone, Debug)]
pub struct AccessFile {
    /// The access file itself.
    #[arg(long, conflicts_with = "config", value_name = "access.toml")]
    pub file: Option<PathBuf>,
    /// The hub's configuration, which names it.
    #[arg(long, default_value = "hub.toml", value_name = "hub.toml")]
    pub config: PathBuf,
}

/// What to do with identities.
#[derive(Clone, Debug, Subcommand)]
pub enum UserAction {
    /// Add an identity. Its password is asked for, unless it gets a token or logs in with a certificate.
    Add {
        /// Its name: the MQTT user name, or the name in its certificate.
        name: String,
        /// A role of the access file; may be given several times.
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<String>,
        /// What shall be known about it.
        #[command(flatten)]
        details: UserDetails,
        /// The file.
        #[command(flatten)]
        file: AccessFile,
    },
    /// Change an identity: what is given is replaced, the rest stays.
    Set {
        /// Its name.
        name: String,
        /// Its roles from now on.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Ask for a new password.
        #[arg(long, conflicts_with_all = ["token", "password_file"])]
        password: bool,
        /// What shall be different.
        #[command(flatten)]
        details: UserDetails,
        /// The file.
        #[command(flatten)]
        file: AccessFile,
    },
    /// Show who may log in, how, and with which roles.
    List {
        /// The file.
        #[command(flatten)]
        file: AccessFile,
        /// For scripts: one JSON object per identity.
        #[arg(long)]
        json: bool,
    },
    /// Remove an identity; its connections end within a second.
    Remove {
        /// Its name.
        name: String,
        /// The file.
        #[command(flatten)]
        file: AccessFile,
    },
    /// Let an identity in no more, until it is enabled; its connections end within a second.
    Disable {
        /// Its name.
        name: String,
        /// The file.
        #[command(flatten)]
        file: AccessFile,
    },
    /// Let a disabled identity in again.
    Enable {
        /// Its name.
        name: String,
        /// The file.
        #[command(flatten)]
        file: AccessFile,
    },
    /// Say whether an identity may publish to a topic or subscribe to a filter, and which role says so. Exit 0 for yes.
    Check {
        /// Its name.
        name: String,
        /// What it wants.
        #[arg(value_enum)]
        act: Act,
        /// The topic, or the filter.
        topic: String,
        /// The file.
        #[command(flatten)]
        file: AccessFile,
    },
}

/// What may be known about an identity.
#[derive(Args, Clone, Debug)]
pub struct UserDetails {
    /// The Sparkplug node as which it speaks.
    #[arg(long, value_name = "GROUP/NODE")]
    pub node: Option<String>,
    /// Make a random token, given as the MQTT password. It is printed once and nowhere kept.
    #[arg(long, conflicts_with = "password_file")]
    pub token: bool,
    /// Read the password from this file; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Let it log in with a client certificate of its name.
    #[arg(long)]
    pub certificate: bool,
}

/// What an identity wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Act {
    /// Publish to a topic.
    Publish,
    /// Subscribe to a filter.
    Subscribe,
}
