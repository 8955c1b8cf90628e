//! Arguments of `forebay file`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `forebay file`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "  forebay file try press.csv --points press.csv-points.csv -k 'separator = \";\"' -k 'decimal = \",\"'\n  \
    forebay file try press.csv --config plant/edge.toml --device press-1\n  \
    forebay file again --config plant/edge.toml --device press-1 'press-2026-11-*.csv'\n  \
    forebay file again --config plant/edge.toml --device press-1 /archive/press-2026-10.csv\n\n\
    Exit codes: 0 done, 1 something could not be read, 2 usage or configuration."
)]
pub struct FileOptions {
    /// What to do.
    #[command(subcommand)]
    pub action: FileAction,
}

/// What to do with files.
#[derive(Clone, Debug, Subcommand)]
pub enum FileAction {
    /// Show the first records of a file as they would be read, what would be put aside and why, and what the
    /// configuration seems to get wrong. Stores nothing.
    Try(Try),
    /// Let the agent look at files anew, also at one outside its folder. What was accepted once is not accepted again.
    Again(Again),
}

/// `forebay file try`
#[derive(Args, Clone, Debug)]
pub struct Try {
    /// The file.
    pub file: PathBuf,
    /// The point list; default: the device's.
    #[arg(long, required_unless_present = "config")]
    pub points: Option<PathBuf>,
    /// A configuration with a device that reads files.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The device's name, if the configuration has several that read files.
    #[arg(long, requires = "config")]
    pub device: Option<String>,
    /// A key of the device as in a configuration, such as 'separator = ";"'; without --config.
    #[arg(short = 'k', long = "key", conflicts_with = "config")]
    pub keys: Vec<String>,
    /// At most so many readings.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rows: u16,
    /// One JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `forebay file again`
#[derive(Args, Clone, Debug)]
pub struct Again {
    /// Names or patterns of files in the device's folder, or absolute paths of files anywhere on the agent's machine.
    #[arg(required = true)]
    pub files: Vec<String>,
    /// The agent's configuration.
    #[arg(long)]
    pub config: PathBuf,
    /// The device's name, if the configuration has several that read files.
    #[arg(long)]
    pub device: Option<String>,
}
