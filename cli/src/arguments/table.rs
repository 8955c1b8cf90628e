//! `forebay table`: a Delta table looked at and kept in order by hand.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

/// `forebay table`
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A bridge does all of this by itself (docs/specs/table.md, Upkeep); by hand it is for tables that no bridge\n\
    looks after, and for seeing what would be done. It is safe beside a running bridge: each change is one commit of the\n\
    table, made or refused as a whole. Exit 0 done, 1 failed."
)]
pub struct Table {
    /// What to do.
    #[command(subcommand)]
    pub what: TableWhat,
}

/// What to do with a table.
#[derive(Clone, Debug, Subcommand)]
pub enum TableWhat {
    /// Files, bytes and rows per day, and what a compaction would begin with.
    Inspect(Which),
    /// Make large files of small ones; readers see every row exactly once at every moment.
    Compact(Compact),
    /// Remove files that no version younger than --retain names, and the log before that.
    Vacuum(Vacuum),
}

/// Which table.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Its folder, or s3://, az://, gs:// with credentials in the environment.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    pub table: Option<String>,
    /// A configuration with a [bridge]: the table, and its endpoint and credentials, of one of its sinks.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Which sink of the configuration.
    #[arg(long, default_value = "lake", requires = "config")]
    pub sink: String,
    /// For scripts.
    #[arg(long)]
    pub json: bool,
}

/// `forebay table compact`
#[derive(Args, Clone, Debug)]
pub struct Compact {
    /// Which table.
    #[command(flatten)]
    pub which: Which,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `forebay table vacuum`
#[derive(Args, Clone, Debug)]
pub struct Vacuum {
    /// Which table.
    #[command(flatten)]
    pub which: Which,
    /// Versions younger than this stay readable; at least 1h.
    #[arg(long, default_value = "7d", value_parser = retain)]
    pub retain: Duration,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

fn retain(text: &str) -> Result<Duration, String> {
    let retain = runtime::config_file::parse_duration(text)?;
    if retain < Duration::from_secs(3600) {
        Err("must be at least 1h: readers may be at work".into())
    } else {
        Ok(retain)
    }
}
