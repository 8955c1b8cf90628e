//! `forebay quarantine`: its arguments and the help that teaches them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::HubAccess;

/// `forebay quarantine`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Nothing is thrown away because it cannot be read. It is kept with reason, time and origin until you decide:\n  \
    p12  a payload that the hub could not decode\n  \
    r3   a record that a sink (the table) refused; the sink went on behind it\n  \
    a line of a file that an agent's driver could not read is shown with --dir, on the agent's machine\n\n\
    Remove the cause, then retry: what decodes now is stored under its own identity, so it is there once, however\n\
    often it is retried or sent again. What will never be data is discarded; who, when and why stand in the ledger.\n\n  \
    forebay quarantine list\n  \
    forebay quarantine show p12\n  \
    forebay quarantine retry p12 p13\n  \
    forebay quarantine discard p14 --reason \"test of the new gateway\"\n  \
    forebay quarantine list --dir forebay-demo      without a running hub\n\n\
    A bad line is repaired by a new file in the folder that holds its header and the corrected line: it is read as any\n\
    other, and a line that was accepted before is not read again.\n\n\
    Exit codes: 0 done, 1 failed or still undecodable, 2 usage."
)]
pub struct Quarantine {
    /// What to do.
    #[command(subcommand)]
    pub action: QuarantineAction,
}

/// What to do with the quarantine.
#[derive(Clone, Debug, Subcommand)]
pub enum QuarantineAction {
    /// What waits for a decision, newest first.
    List {
        /// Also what somebody has decided about.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,
        /// Where to look.
        #[command(flatten)]
        place: Place,
    },
    /// One entry with its content.
    Show {
        /// Its name, such as p12.
        id: String,
        /// Where to look.
        #[command(flatten)]
        place: Place,
    },
    /// Decode entries anew and store them under their own identity. Exit 1 if one still cannot be decoded.
    Retry {
        /// Their names.
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Every entry that waits (at most 1000 at a time, oldest first).
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// The hub.
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Decide that entries stay out for good.
    Discard {
        /// Their names.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Why; kept in the ledger.
        #[arg(long)]
        reason: String,
        /// The hub.
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// A running hub, or folders.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Folder of a demo or of one machine's roles, read as it is on disk: hub and agents in it.
    #[arg(long, conflicts_with = "hub")]
    pub dir: Option<PathBuf>,
    /// The hub.
    #[command(flatten)]
    pub hub: HubAccess,
}
